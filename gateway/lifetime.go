package gateway

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
)

const (
	// holdWithin is how long a membership may take to be known to the other nodes.
	holdWithin = 10 * time.Second
	// orphanWithin is how long the answer to the last unsubscribe of a ref-counted
	// context waits for its end, and heldWithin that to one that is not the last, as
	// far as this node knows.
	orphanWithin = 2 * time.Second
	heldWithin   = 200 * time.Millisecond
)

// hold keeps a ref-counted context alive for the peer, then calls done. Of all other
// contexts it is called at once.
func (c *shared) hold(done func(error)) {
	if c.state.Meta.Lifetime != node.ContextRefCounted {
		done(nil)
		return
	}
	p, app, name := c.x.p, c.x.app, c.name
	go func() { // ends within holdWithin
		ctx, cancel := context.WithTimeout(p.ctx, holdWithin)
		defer cancel()
		err := app.Hold(ctx, name)
		if err != nil {
			p.log.Debug("a ref-counted context is not held", slog.String("context", name), slog.Any("error", err))
		}
		p.post(func() { done(err) })
	}()
}

// release ends a membership. A ref-counted context that nobody else holds ends with
// it, and done is called when that is known.
func (x *contexts) release(c *shared, name string, done func()) {
	x.app.Release(name)
	if c.state.Meta.Lifetime != node.ContextRefCounted {
		done()
		return
	}
	x.orphans[name] = append(x.orphans[name], done)
	p, wait := x.p, orphanWithin
	if x.heldByOthers(name) {
		wait = heldWithin
	}
	time.AfterFunc(wait, func() { p.post(func() { x.settleOrphan(name) }) })
}

// settleOrphan calls those who wait for the end of a context.
func (x *contexts) settleOrphan(name string) {
	waiting := x.orphans[name]
	delete(x.orphans, name)
	for _, done := range waiting {
		done()
	}
}

// heldByOthers says whether another app holds a ref-counted context.
func (x *contexts) heldByOthers(name string) bool {
	for _, n := range x.p.s.g.realm.View().Nodes {
		for _, a := range n.Apps {
			if a.ID != x.p.id && slices.Contains(a.Holds, name) {
				return true
			}
		}
	}
	return false
}

// isOwner says whether the peer owns a context that ends with it.
func (c *shared) isOwner(id subjects.App) bool {
	return c.state.Meta.Lifetime == node.ContextOwnership && c.state.Meta.Owner == id
}
