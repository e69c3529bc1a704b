package contexts

import (
	"context"
	"errors"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Seed is a context that [Contexts.Seed] makes.
type Seed struct {
	Name   string
	Object any
}

// Seed makes contexts once in the life of the realm's bucket: those of them that
// do not exist, and a mark which says that it was done. They are one batch that
// is conditional on the mark, so of several nodes that seed at once only one
// does it, a crash leaves all or nothing, and what somebody destroys later does
// not come back. made says whether this call did it.
//
// The mark is a key below the context without a name, which no app can open and
// which is not listed. An operator who deletes it asks for the seeds again.
func (c *Contexts) Seed(ctx context.Context, mark string, seeds []Seed) (made bool, err error) {
	key, covered := subjects.ContextPath(subjects.Token{}, []string{mark})
	if covered == 0 {
		return false, wire.Errorf(wire.BadName, "%q cannot be the mark of seeds", mark)
	}
	by := Writer{Node: c.cfg.Self}
	value, err := wire.Marshal(Meta{Node: c.cfg.Self})
	if err != nil {
		return false, err
	}
	for {
		if err := c.online(); err != nil {
			return false, err
		}
		last, done, err := c.bucket.Get(ctx, key)
		if err != nil {
			return false, wire.AsError(err)
		}
		if done {
			c.learn(ctx, seeds)
			return false, nil
		}
		writes := []kv.Write{{Key: key, Op: kv.Put, Value: value, By: by.String(), If: &last.Seq}}
		for _, seed := range seeds {
			w, err := c.plant(ctx, seed, by)
			if err != nil {
				return false, wire.AsError(err)
			}
			writes = append(writes, w...)
		}
		id := newID()
		first, err := c.bucket.Commit(ctx, id, writes)
		switch {
		case err == nil:
			c.grown(id, first, writes)
			return true, nil
		case ctx.Err() != nil:
			return false, wire.AsError(ctx.Err())
		case errors.Is(err, wire.ErrBadRevision), errors.Is(err, kv.ErrUnknown):
			// Somebody was faster, or it was made after all: the mark tells. The
			// answer may come from a replica that has not got it yet.
		default:
			return false, wire.AsError(err)
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return false, wire.AsError(ctx.Err())
		case <-c.ctx.Done():
			return false, errStopped()
		}
	}
}

// plant plans a seed, with no writes if there is a context of its name.
func (c *Contexts) plant(ctx context.Context, seed Seed, by Writer) ([]kv.Write, error) {
	v, err := parse(seed.Object)
	if err != nil {
		return nil, err
	}
	token, err := subjects.Encode(seed.Name)
	if err != nil || seed.Name == "" || !v.IsObject() {
		return nil, wire.Errorf(wire.BadName, "context %q cannot be made", seed.Name)
	}
	snap, err := c.bucket.Snapshot(ctx, subjects.ContextKeys(token))
	if err != nil {
		return nil, err
	}
	t, _ := snap.Tree(token) // one whose keys are not of one moment is refused by its conditions
	if t.Exists() {
		return nil, nil
	}
	meta, err := wire.Marshal(Meta{ID: newID(), Node: c.cfg.Self, Lifetime: Retained})
	if err != nil {
		return nil, err
	}
	writes, err := t.Create(kv.Edit{Value: v, By: by.String()}, meta)
	label(writes, token, seed.Name)
	return writes, err
}

// grown lets the replicas of this node know at once what it has committed.
func (c *Contexts) grown(id string, first uint64, writes []kv.Write) {
	entries := kv.Entries(id, first, writes)
	c.confirmName(entries)
	for i := range entries {
		k, ok := entries[i].Key.Context()
		name, known := k.Context.Name()
		if !ok || !known {
			continue // a hash: it will be republished
		}
		c.mu.Lock()
		s := c.open[name]
		c.mu.Unlock()
		if s != nil {
			s.replica.Confirm(entries[i : i+1])
		}
	}
}

// learn puts the roots of seeds into the replicas of this node that have not got
// them yet: another node has just made them.
func (c *Contexts) learn(ctx context.Context, seeds []Seed) {
	for _, seed := range seeds {
		token, err := subjects.Encode(seed.Name)
		if err != nil {
			continue
		}
		var behind []*kv.Replica
		c.mu.Lock()
		n, s := c.names, c.open[seed.Name]
		c.mu.Unlock()
		if n != nil && !n.has(token) {
			behind = append(behind, n.replica)
		}
		if s != nil && !s.exists() {
			behind = append(behind, s.replica)
		}
		if len(behind) == 0 {
			continue // or the first snapshot will have it
		}
		e, ok, err := c.bucket.Get(ctx, subjects.ContextRoot(token))
		if err != nil || !ok {
			continue
		}
		for _, r := range behind {
			r.Confirm([]kv.Entry{e})
		}
	}
}

func (n *names) has(token subjects.Token) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.find(token)
	return ok
}

func (s *shared) exists() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view != nil
}
