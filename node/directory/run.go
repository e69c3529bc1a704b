package directory

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// ErrTaken is when another live node has this node's id.
var ErrTaken = errors.New("node id is in use")

// Connected tells the directory that its connection was established or lost.
func (d *Directory) Connected(online bool) {
	select {
	case d.conn <- online:
	case <-d.done:
	}
}

// Suspect reports that a call to a node found no responders.
func (d *Directory) Suspect(n subjects.Node) {
	d.post(func() { d.suspect(n, "no responders", flapGrace) })
}

// post runs f on Run's goroutine, unless that has ended.
func (d *Directory) post(f func()) {
	select {
	case d.work <- f:
	case <-d.done:
	}
}

// Run keeps the directory until ctx ends, then says good-bye: it purges this
// node's document and waits for everything that it started.
func (d *Directory) Run(ctx context.Context) {
	d.epoch, d.endEpoch = context.WithCancel(ctx)
	d.endEpoch()
	d.wg.Go(func() { d.asserter(ctx) })
	blind := time.NewTimer(blindFor)
	blind.Stop()
	digest := time.NewTimer(jitter(digestEvery))
	defer blind.Stop()
	defer digest.Stop()
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case f := <-d.work:
			f()
		case online := <-d.conn:
			d.endEpoch()
			if !online {
				blind.Reset(blindFor)
				d.settle(0)
				continue
			}
			blind.Stop()
			d.epoch, d.endEpoch = context.WithCancel(ctx)
			d.syncing = false
			d.sync()
		case <-blind.C:
			d.blind()
		case <-digest.C:
			digest.Reset(jitter(digestEvery))
			d.digest()
		}
	}
	d.endEpoch()
	close(d.done)
	if d.follow != nil {
		d.cfg.Link.Unsubscribe(d.follow)
	}
	d.leave()
	d.wg.Wait()
}

func jitter(t time.Duration) time.Duration { return t/2 + rand.N(t) }

// leave purges this node's document and its lease.
func (d *Directory) leave() {
	if !d.claimed.Load() || d.cfg.Link.Online() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
	defer cancel()
	if err := d.bucket.Purge(ctx, subjects.NodeKey(d.cfg.Self)); err != nil {
		d.log.DebugContext(ctx, "leaving without a word: the lease will tell", slog.Any("error", err))
		return
	}
	if err := d.bucket.Purge(ctx, subjects.LeaseKey(d.cfg.Self)); err != nil {
		d.log.DebugContext(ctx, "lease not withdrawn", slog.Any("error", err))
	}
}

// sync reads the directory and asserts this node, again and again until it
// succeeds or the connection goes.
func (d *Directory) sync() {
	if d.syncing || d.epoch.Err() != nil {
		return
	}
	d.syncing = true
	epoch, created := d.epoch, d.created
	d.wg.Go(func() {
		for wait := 250 * time.Millisecond; ; wait = min(2*wait, syncRetry) {
			err := d.read(epoch, created)
			if epoch.Err() != nil {
				return
			}
			if d.cfg.OnSync != nil {
				d.cfg.OnSync(err)
			}
			if err == nil {
				break
			}
			d.log.WarnContext(epoch, "directory not available", slog.Any("error", err))
			select {
			case <-time.After(wait/2 + rand.N(wait)):
			case <-epoch.Done():
				return
			}
		}
		d.post(func() {
			if d.epoch == epoch {
				d.syncing = false
			}
		})
	})
}

// read is one attempt: verify, claim the id, follow, snapshot, assert.
func (d *Directory) read(ctx context.Context, created time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	if err := d.bucket.Verify(ctx); err != nil {
		return err
	}
	if !d.claimed.Load() {
		if err := d.claim(ctx); err != nil {
			return err
		}
		if d.cfg.OnClaim != nil {
			if err := d.cfg.OnClaim(ctx); err != nil {
				return err
			}
		}
		sub, err := d.bucket.Follow(ctx, subjects.NodeKeys(), func(e kv.Entry) {
			d.post(func() { d.apply(e) })
		}, func(int) { d.post(d.sync) })
		if err != nil {
			return err
		}
		d.post(func() { d.follow = sub })
		d.claimed.Store(true)
	}
	snap, err := d.bucket.Snapshot(ctx, subjects.NodeKeys())
	if err != nil {
		return err
	}
	if !snap.Created.Equal(created) {
		d.forget.Store(true) // a new bucket has none of our manifests
	}
	applied := make(chan struct{})
	d.post(func() {
		defer close(applied)
		d.snapshot(snap)
	})
	d.mu.Lock()
	d.acked = 0 // whatever the server had of us may be gone
	d.mu.Unlock()
	d.touch()
	if err := d.Settle(ctx); err != nil {
		return err
	}
	select {
	case <-applied:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.done:
	}
	return nil
}

// claim refuses to start where a live node has this id.
func (d *Directory) claim(ctx context.Context) error {
	_, exists, err := d.bucket.Get(ctx, subjects.NodeKey(d.cfg.Self))
	if err != nil || !exists {
		return err
	}
	pong, err := d.ping(ctx, d.cfg.Self)
	if err != nil {
		return nil //nolint:nilerr // nobody answers: what is left is the document of a dead node
	}
	if pong.Boot != d.cfg.Boot {
		return wire.Errorf(wire.Rejected, "%w: node %q of boot %s is alive; choose another --node", ErrTaken, d.cfg.Self, pong.Boot)
	}
	return nil
}

// ping asks a node whether it is there.
func (d *Directory) ping(ctx context.Context, n subjects.Node) (wire.PingReply, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var pong wire.PingReply
	m, err := d.cfg.Link.Request(ctx, &nats.Msg{Subject: string(d.cfg.Realm.CtlSubject(n, d.cfg.Self, subjects.VerbPing))})
	if err != nil {
		return pong, err
	}
	return pong, wire.Unmarshal(m.Data, &pong)
}

// blind removes every remote node after NATS has been away too long.
func (d *Directory) blind() {
	for id, p := range d.peers {
		p.doc, p.suspected = nil, false
		d.remove(id, "offline")
	}
}

// digest compares what was seen with what the server has.
func (d *Directory) digest() {
	if d.syncing || d.epoch.Err() != nil || !d.claimed.Load() {
		return
	}
	epoch := d.epoch
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(epoch, syncTimeout)
		defer cancel()
		last, err := d.bucket.Last(ctx, subjects.NodeKeys())
		if err != nil {
			return // the connection's state tells
		}
		_, there, err := d.bucket.Get(ctx, subjects.NodeKey(d.cfg.Self))
		d.post(func() {
			if last > d.upTo || err == nil && !there {
				d.log.InfoContext(ctx, "directory differs from the server's, reading it again", slog.Uint64("seen", d.upTo), slog.Uint64("last", last), slog.Bool("self", there))
				d.sync()
			}
		})
	})
}

// suspect asks a node whether it is there and removes it if nobody answers.
func (d *Directory) suspect(n subjects.Node, why string, grace time.Duration) {
	p := d.peers[n]
	if p == nil || p.doc == nil || p.suspected || d.epoch.Err() != nil {
		return
	}
	p.suspected = true
	d.show(n, p)
	d.log.Debug("node is suspect", slog.String("node", string(n)), slog.String("reason", why))
	epoch, boot := d.epoch, p.doc.Boot
	d.wg.Go(func() {
		gone := d.confirm(epoch, n, boot, time.Now().Add(grace))
		d.post(func() {
			if !p.suspected || p.doc == nil || p.doc.Boot != boot {
				return // it has spoken meanwhile
			}
			p.suspected = false
			if gone {
				p.doc = nil
				d.remove(n, "lost")
				return
			}
			d.show(n, p)
		})
	})
}

// confirm pings until the node answers, or until the deadline has passed and
// there were no responders or two timeouts.
func (d *Directory) confirm(ctx context.Context, n subjects.Node, boot string, deadline time.Time) (gone bool) {
	for timeouts := 0; ; {
		started := time.Now()
		pong, err := d.ping(ctx, n)
		switch {
		case err == nil && pong.Boot == boot:
			return false
		case ctx.Err() != nil || errors.Is(err, wire.ErrOffline):
			return false // blind, not proven
		case errors.Is(err, wire.ErrTimeout):
			timeouts++
		}
		if !time.Now().Before(deadline) && (timeouts >= 2 || errors.Is(err, link.ErrNoResponders) || err == nil) {
			return true
		}
		select {
		case <-time.After(time.Until(started.Add(pingTimeout))):
		case <-ctx.Done():
			return false
		}
	}
}
