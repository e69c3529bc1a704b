package directory

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

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

// blind removes every remote node after NATS has been away too long. The next
// snapshot brings them back.
func (d *Directory) blind() {
	for id, p := range d.peers {
		p.spoken()
		p.doc = nil
		d.remove(id, "offline")
	}
	clear(d.peers)
}

// tick compares what was seen with what the server has, and looks after what
// has no event of its own.
func (d *Directory) tick() {
	if d.syncing || d.epoch.Err() != nil || !d.claimed.Load() {
		return
	}
	for id, p := range d.peers {
		switch {
		case p.doc == nil:
			delete(d.peers, id) // no snapshot is under way that could bring back what is older
		case p.lost:
			d.suspect(id, "silent", 0) // its lease is alive: maybe it only could not be reached
		}
	}
	d.fetchMissing()
	if time.Since(d.readAt) > rereadAfter+time.Duration(len(d.peers))*rereadPeer {
		d.reread()
		return
	}
	d.digest()
}

// digest finds a lost message by the highest sequence of all documents. Lost
// messages before one that arrived are found by reread.
func (d *Directory) digest() {
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
			if epoch == d.epoch && (last > d.upTo || err == nil && !there) {
				d.log.Info("directory differs from the server's, reading it again", slog.Uint64("seen", d.upTo), slog.Uint64("last", last), slog.Bool("self", there))
				d.sync()
			}
		})
	})
}

// reread applies a snapshot.
func (d *Directory) reread() {
	d.readAt = time.Now()
	epoch := d.epoch
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(epoch, syncTimeout)
		defer cancel()
		s, err := d.bucket.Snapshot(ctx, subjects.NodeKeys())
		if err != nil {
			d.log.DebugContext(ctx, "directory not read", slog.Any("error", err))
			return
		}
		d.post(func() {
			if epoch == d.epoch && !d.syncing {
				d.snapshot(s)
			}
		})
	})
}

// spoken ends a suspicion.
func (p *peer) spoken() {
	if p.ask != nil {
		p.ask.cancel()
		p.ask = nil
	}
}

// asking is one suspicion.
type asking struct{ cancel context.CancelFunc }

// suspect asks a node whether it is there and removes it if nobody answers.
func (d *Directory) suspect(n subjects.Node, why string, grace time.Duration) {
	p := d.peers[n]
	if p == nil || p.doc == nil || p.ask != nil || d.epoch.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(d.epoch)
	ask := &asking{cancel}
	p.ask = ask
	if !p.lost {
		d.show(n, p)
	}
	d.log.Debug("node is suspect", slog.String("node", string(n)), slog.String("reason", why))
	boot := p.doc.Boot
	d.wg.Go(func() {
		defer cancel()
		gone, proven := d.confirm(ctx, n, boot, time.Now().Add(grace))
		d.post(func() {
			if p.ask != ask {
				return // it has spoken meanwhile
			}
			p.ask = nil
			switch {
			case !proven:
			case gone:
				p.lost = true
				if p.purged {
					p.doc = nil
				}
				d.remove(n, "lost")
			default:
				p.lost = false
			}
			if !p.lost {
				d.show(n, p)
			}
		})
	})
}

// confirm pings until the node answers, or until the deadline has passed and
// there were no responders or two timeouts. It begins a little later: of many
// leases that lapse at once most belong to nodes that are about to say so.
func (d *Directory) confirm(ctx context.Context, n subjects.Node, boot string, deadline time.Time) (gone, proven bool) {
	next := time.NewTimer(rand.N(pingJitter))
	defer next.Stop()
	for timeouts := 0; ; {
		select {
		case <-next.C:
		case <-ctx.Done():
			return false, false
		}
		started := time.Now()
		pong, err := d.ping(ctx, n)
		switch {
		case err == nil && pong.Boot == boot:
			return false, true
		case ctx.Err() != nil || errors.Is(err, wire.ErrOffline):
			return false, false
		case err == nil || errors.Is(err, link.ErrNoResponders):
			if !time.Now().Before(deadline) {
				return true, true
			}
		default: // a timeout, or nothing that a live node says
			if timeouts++; timeouts >= 2 && !time.Now().Before(deadline) {
				return true, true
			}
		}
		next.Reset(time.Until(started.Add(pingTimeout)))
	}
}
