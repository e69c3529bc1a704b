package directory

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// asserter is the only writer of this node's document and lease, so that they
// are written in order. It ends with ctx.
func (d *Directory) asserter(ctx context.Context) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			if d.claimed.Load() && d.cfg.Link.Online() == nil {
				if err := d.renew(ctx); err != nil && ctx.Err() == nil {
					d.log.DebugContext(ctx, "heartbeat failed", slog.Any("error", err))
				}
				d.mu.RLock()
				behind := d.acked < d.version
				d.mu.RUnlock()
				if behind || d.stale() {
					d.touch()
				}
			}
		case <-d.dirty:
			if !d.claimed.Load() || d.cfg.Link.Online() != nil {
				d.settle(0, nil) // nobody need wait: it is asserted when the connection is back
				continue
			}
			err := d.assert(ctx)
			if err == nil || ctx.Err() != nil {
				continue
			}
			d.settle(0, err)
			if !errors.Is(err, wire.ErrOffline) {
				d.log.WarnContext(ctx, "directory document not written, trying again", slog.Any("error", err))
			}
		}
	}
}

// stale says whether a manifest must be put again before it expires.
func (d *Directory) stale() bool {
	for _, at := range d.stored {
		if time.Since(at) >= manifestRe {
			return true
		}
	}
	return false
}

func (d *Directory) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	return d.bucket.Lease(ctx, subjects.LeaseKey(d.cfg.Self), subjects.NodeKey(d.cfg.Self), lease)
}

// assert writes lease, manifests and document. The lease comes first: a node
// that dies in between must not leave a document that nobody purges.
func (d *Directory) assert(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	d.mu.RLock()
	self, version := d.self, d.version
	d.mu.RUnlock()
	if err := d.renew(ctx); err != nil {
		return err
	}
	if d.forget.CompareAndSwap(true, false) {
		clear(d.stored)
	}
	doc := d.document()
	used := make(map[string]time.Time, len(d.stored))
	for _, a := range self.Apps {
		ad := wire.AppDoc{Identity: a.Identity, Channels: a.Channels, Domains: a.Domains, Holds: a.Holds}
		if len(a.Methods) > 0 {
			hash, err := d.store(ctx, a)
			if err != nil {
				return err
			}
			used[hash] = d.stored[hash]
			ad.Manifests = []string{hash}
		}
		doc.Apps = append(doc.Apps, ad)
	}
	d.stored = used // what is not offered any more may expire
	data, err := wire.Marshal(doc)
	if err != nil {
		return err
	}
	if err := wire.CheckSize("document of node "+doc.Node, len(data), d.cfg.Link.MaxPayload()); err != nil {
		return err
	}
	seq, err := d.bucket.Put(ctx, subjects.NodeKey(d.cfg.Self), data, 0)
	if err != nil {
		return err
	}
	d.post(func() { d.ownSeq = max(d.ownSeq, seq) })
	d.settle(version, nil)
	return nil
}

// document is this node's document without its apps.
func (d *Directory) document() wire.NodeDoc {
	return wire.NodeDoc{
		V: wire.DocVersion, Node: string(d.cfg.Self), Boot: d.cfg.Boot, Machine: d.cfg.Machine, Host: d.cfg.Host, User: d.cfg.User,
		Version: d.cfg.Version, Hidden: d.cfg.Hidden, ClockOffset: d.bucket.ClockOffset().Milliseconds(),
	}
}

// store puts an app's manifest where it is not yet, or before it expires.
func (d *Directory) store(ctx context.Context, a *App) (string, error) {
	hash, data, err := manifestOf(a)
	if err != nil {
		return "", err
	}
	if at, ok := d.stored[hash]; ok && time.Since(at) < manifestRe {
		return hash, nil
	}
	if err := wire.CheckSize("methods of app "+a.Identity.Application, len(data), d.cfg.Link.MaxPayload()); err != nil {
		return "", err
	}
	key, err := subjects.ManifestKey(hash)
	if err != nil {
		return "", err
	}
	if _, err := d.bucket.Put(ctx, key, data, manifestTTL); err != nil {
		return "", err
	}
	d.stored[hash] = time.Now()
	return hash, nil
}
