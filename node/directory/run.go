package directory

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

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
	d.begin(ctx)
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
				d.settle(0, nil)
				continue
			}
			blind.Stop()
			d.begin(ctx)
			d.sync()
		case <-blind.C:
			d.blind()
		case <-digest.C:
			digest.Reset(jitter(digestEvery))
			d.tick()
		}
	}
	d.endEpoch()
	close(d.done)
	if d.follow != nil {
		d.cfg.Link.Unsubscribe(d.follow)
	}
	d.wg.Wait() // also for the asserter: a document must not follow the good-bye
	d.leave()
}

// begin starts the time of one connection, to which everything belongs that
// asks the server or other nodes.
func (d *Directory) begin(ctx context.Context) {
	d.epoch, d.endEpoch = context.WithCancel(ctx)
	d.syncing = false
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
		if err := d.join(ctx); err != nil {
			return err
		}
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
	d.unsettle()
	if err := d.await(ctx, true); err != nil {
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

// join takes this node's id, makes the node reachable and follows the others.
// Each step is done once, however often an attempt fails.
func (d *Directory) join(ctx context.Context) error {
	last, err := d.free(ctx)
	if err != nil {
		return err
	}
	d.freed = last
	if d.cfg.OnClaim != nil && !d.attached {
		if err := d.cfg.OnClaim(ctx); err != nil {
			return err
		}
	}
	d.attached = true
	if err := d.claim(ctx, last); err != nil {
		return err
	}
	sub, err := d.bucket.Follow(ctx, subjects.NodeKeys(), func(e kv.Entry) {
		d.post(func() { d.apply(e) })
	}, func(int) { d.post(d.sync) })
	if err != nil {
		return err
	}
	d.post(func() { d.follow = sub })
	d.claimed.Store(true)
	return nil
}

// free refuses an id that a live node has. It returns the newest sequence of
// this node's document.
func (d *Directory) free(ctx context.Context) (last uint64, err error) {
	e, exists, err := d.bucket.Get(ctx, subjects.NodeKey(d.cfg.Self))
	if err != nil || !exists {
		return e.Seq, err
	}
	var doc wire.NodeDoc
	if err := wire.Unmarshal(e.Value, &doc); err != nil || doc.Boot == d.cfg.Boot || doc.Boot == "" {
		return e.Seq, nil //nolint:nilerr // ours, or nobody's
	}
	switch {
	case !d.attached:
	case e.Seq == d.freed:
		return e.Seq, nil // a dead node's, still
	default: // a ping would reach ourselves: whoever wrote this was faster
		return 0, d.taken(doc.Boot)
	}
	for range 2 {
		pong, err := d.ping(ctx, d.cfg.Self)
		switch {
		case err == nil && pong.Boot != d.cfg.Boot:
			return 0, d.taken(pong.Boot)
		case errors.Is(err, link.ErrNoResponders):
			return e.Seq, nil
		case ctx.Err() != nil || err != nil && !errors.Is(err, wire.ErrTimeout):
			return 0, err
		}
	}
	return e.Seq, nil // nobody answers: what is left is the document of a dead node
}

func (d *Directory) taken(boot string) error {
	return wire.Errorf(wire.Rejected, "%w: node %q of boot %s is alive; choose another --node", ErrTaken, d.cfg.Self, boot)
}

// claim writes a first document without apps, unless somebody else has written
// one since: of two nodes that start with one id at once only one succeeds.
func (d *Directory) claim(ctx context.Context, last uint64) error {
	data, err := wire.Marshal(d.document())
	if err != nil {
		return err
	}
	if err := d.renew(ctx); err != nil {
		return err
	}
	_, err = d.bucket.PutIf(ctx, subjects.NodeKey(d.cfg.Self), data, last)
	if errors.Is(err, wire.ErrBadRevision) {
		if _, taken := d.free(ctx); taken != nil {
			return taken
		}
	}
	return err
}
