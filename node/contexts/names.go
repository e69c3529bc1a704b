package contexts

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// NameEvent says that a context was created, or was destroyed.
type NameEvent struct {
	Name string
	// Kind is Created or Destroyed.
	Kind Kind
	// By is who did it; empty for a foreign writer, and for what existed before.
	By Writer
}

// names follows the root keys of all contexts of the realm. It is started when
// an app asks for the first time.
type names struct {
	replica *kv.Replica

	mu      sync.Mutex
	exist   map[subjects.Token]named
	by      map[subjects.Token]Writer // who destroyed it
	changed chan struct{}
	ends    map[*ending]struct{}
}

// named is a context that exists.
type named struct {
	name string
	// created tells one context of this name from another.
	created uint64
	by      Writer
}

// ending ends the iterations of an app that leaves.
type ending struct {
	app    subjects.App
	cancel context.CancelFunc
}

func (c *Contexts) follow() (*names, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, wire.Errorf(wire.Offline, "the node has stopped")
	}
	if c.names == nil {
		n := &names{exist: map[subjects.Token]named{}, by: map[subjects.Token]Writer{}, changed: make(chan struct{}), ends: map[*ending]struct{}{}}
		n.replica = c.bucket.Replicate(subjects.ContextRoots(), false, c.log, n.update)
		c.names = n
	}
	return c.names, nil
}

func (n *names) close() { n.replica.Close() }

// maxDestroyed bounds what is remembered of contexts that are gone.
const maxDestroyed = 1024

func (n *names) update(u kv.Update) {
	n.mu.Lock()
	defer n.mu.Unlock()
	slices.SortFunc(u.Entries, func(a, b kv.Entry) int {
		if a.Seq < b.Seq {
			return -1
		}
		return 1
	})
	for _, key := range u.Removed {
		if k, ok := key.Context(); ok {
			delete(n.exist, k.Context)
		}
	}
	for i := range u.Entries {
		n.take(&u.Entries[i], u.Snapshot)
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// take learns from one root key. The newest write of one that was read later need
// not be the one that created the context. mu is held.
func (n *names) take(e *kv.Entry, read bool) {
	k, ok := e.Key.Context()
	if !ok {
		return
	}
	if e.Op != kv.Put {
		if len(n.by) >= maxDestroyed {
			clear(n.by)
		}
		n.by[k.Context] = parseWriter(e.By)
		delete(n.exist, k.Context)
		return
	}
	if _, known := n.exist[k.Context]; known {
		return
	}
	name, plain := k.Context.Name()
	if !plain {
		if _, err := k.Context.WithName(e.Name); err != nil {
			return // nobody can say what it is called
		}
		name = e.Name
	}
	x := named{name: name, created: e.Seq}
	if !read && e.Compact == 0 {
		x.by = parseWriter(e.By)
	}
	n.exist[k.Context] = x
}

func (n *names) leave(app subjects.App) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for e := range n.ends {
		if e.app == app {
			e.cancel()
		}
	}
}

// await waits until the names are known.
func (n *names) await(ctx context.Context, c *Contexts) error {
	return c.await(ctx, n.replica, "the list of contexts")
}

func (c *Contexts) listNames(ctx context.Context) ([]string, error) {
	n, err := c.follow()
	if err != nil {
		return nil, err
	}
	if err := n.await(ctx, c); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]string, 0, len(n.exist))
	for _, x := range n.exist {
		list = append(list, x.name)
	}
	slices.Sort(list)
	return list, nil
}

// confirmName lets the list know at once what this node has committed.
func (c *Contexts) confirmName(entries []kv.Entry) {
	c.mu.Lock()
	n := c.names
	c.mu.Unlock()
	if n == nil {
		return
	}
	for i := range entries {
		if k, ok := entries[i].Key.Context(); ok && !k.Meta && len(k.Path) == 0 {
			n.replica.Confirm(entries[i : i+1])
		}
	}
}

// watchNames yields what exists, then what is created and destroyed.
func (c *Contexts) watchNames(ctx context.Context, app subjects.App) iter.Seq[NameEvent] {
	return func(yield func(NameEvent) bool) {
		n, err := c.follow()
		if err != nil {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		end := &ending{app, cancel}
		n.mu.Lock()
		n.ends[end] = struct{}{}
		n.mu.Unlock()
		defer func() {
			n.mu.Lock()
			delete(n.ends, end)
			n.mu.Unlock()
		}()
		select {
		case <-n.replica.Ready():
		case <-ctx.Done():
			return
		case <-c.ctx.Done():
			return
		}
		seen := map[subjects.Token]named{}
		for {
			n.mu.Lock()
			events := n.since(seen)
			changed := n.changed
			n.mu.Unlock()
			for _, e := range events {
				if !yield(e) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-c.ctx.Done():
				return
			}
		}
	}
}

// since lists what has happened since seen, and brings that up to date. mu is held.
func (n *names) since(seen map[subjects.Token]named) (events []NameEvent) {
	for token, was := range seen {
		if now, ok := n.exist[token]; !ok || now.created != was.created {
			events = append(events, NameEvent{Name: was.name, Kind: Destroyed, By: n.by[token]})
			delete(seen, token)
		}
	}
	fresh := slices.Collect(maps.Keys(n.exist))
	fresh = slices.DeleteFunc(fresh, func(t subjects.Token) bool { _, ok := seen[t]; return ok })
	slices.SortFunc(fresh, func(a, b subjects.Token) int {
		if n.exist[a].created < n.exist[b].created {
			return -1
		}
		return 1
	})
	for _, token := range fresh {
		x := n.exist[token]
		seen[token] = x
		events = append(events, NameEvent{Name: x.name, Kind: Created, By: x.by})
	}
	return events
}

// room refuses one context too many.
func (c *Contexts) room(ctx context.Context) error {
	c.mu.Lock()
	n := c.names
	c.mu.Unlock()
	if n == nil {
		// Markers of contexts that are gone count here, so it is only a bound.
		count, err := c.bucket.Count(ctx, subjects.ContextRoots())
		if err != nil || count < wire.MaxContexts {
			return err
		}
		if n, err = c.follow(); err != nil {
			return err
		}
	}
	if err := n.await(ctx, c); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.exist) >= wire.MaxContexts {
		return wire.Errorf(wire.Limit, "contexts in realm %s: %d, the limit is %d", c.cfg.Realm, len(n.exist)+1, wire.MaxContexts)
	}
	return nil
}

// isUnusable says whether only an operator can help.
func isUnusable(err error) bool {
	return errors.Is(err, kv.ErrNotProvisioned) || errors.Is(err, wire.ErrVersion) || errors.Is(err, wire.ErrDenied)
}
