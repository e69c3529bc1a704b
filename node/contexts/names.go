package contexts

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// metaKeys matches the metadata keys of all contexts.
const metaKeys subjects.Key = "*.//"

// NameEvent says that a context was created, or was destroyed.
type NameEvent struct {
	Name string
	// Kind is Created or Destroyed.
	Kind Kind
	// By is who did it; empty for a foreign writer, and for what existed before.
	By Writer
	// Meta is the context's metadata, zero if it has none.
	Meta Meta
	// Reason is PeerLeft if the context was destroyed because of its lifetime,
	// empty if somebody did it.
	Reason string
}

// PeerLeft is why a context ended: its owner, or the last app that held it, is gone.
const PeerLeft = "peer-left"

// names follows the root and metadata keys of all contexts of the realm. It is
// started when somebody asks for the first time.
type names struct {
	log     *slog.Logger
	replica *kv.Replica
	count   *atomic.Int64 // of those that exist

	mu      sync.Mutex
	ready   bool   // it was read ...
	upTo    uint64 // ... up to here
	dirty   bool   // exist has changed
	exist   map[subjects.Token]named
	metas   map[subjects.Token]metadata
	gone    map[subjects.Token]gone
	held    map[subjects.Token]kv.Entry // see holds
	changed chan struct{}
	ends    map[*ending]struct{}
	// locals are on top of exist. supposing says that exist was never read and need not
	// be waited for.
	locals    *locals
	outages   *outages
	supposing bool
}

// named is a context that exists.
type named struct {
	name string
	// created tells one context of this name from another.
	created uint64
	by      Writer
	meta    *Meta
	// born is when it was made, zero if that was not seen.
	born time.Time
}

// metadata is what a metadata key holds.
type metadata struct {
	seq   uint64
	since uint64 // when it became that of the same context
	meta  *Meta  // nil for what cannot be read, or was purged
	by    Writer
	at    time.Time // when it came, zero if it was there before
}

// isOf says whether it is that of the context whose root is e, or is known to be none.
func (m metadata) isOf(e *kv.Entry) bool { return m.seq+1 >= e.Seq && m.since < e.Seq }

// gone is who destroyed a context, and when.
type gone struct {
	seq uint64
	by  Writer
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
		return nil, errStopped()
	}
	if c.names == nil {
		n := &names{
			log: c.log, count: &c.count, exist: map[subjects.Token]named{}, metas: map[subjects.Token]metadata{}, gone: map[subjects.Token]gone{},
			held: map[subjects.Token]kv.Entry{}, changed: make(chan struct{}), ends: map[*ending]struct{}{},
			locals: &c.locals, outages: &c.outages,
		}
		n.mu.Lock()
		defer n.mu.Unlock() // update waits for it
		n.replica = c.bucket.Replicate([]subjects.Key{subjects.ContextRoots(), metaKeys}, false, c.log, n.update)
		c.names = n
		c.locals.tell(n.poke)
	}
	return c.names, nil
}

func (n *names) close() { n.replica.Close() }

const (
	// maxGone bounds what is remembered of contexts that are gone.
	maxGone = 1024
	// holdFor is how long a new context waits for its metadata before it is read.
	holdFor = time.Second
)

func (n *names) update(u kv.Update) {
	n.mu.Lock()
	defer n.mu.Unlock()
	slices.SortFunc(u.Entries, func(a, b kv.Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, key := range u.Removed {
		n.remove(key)
	}
	for _, meta := range []bool{true, false} { // what is known of a context is before it
		for i := range u.Entries {
			if k, ok := u.Entries[i].Key.Context(); ok && k.Meta == meta {
				n.take(k, &u.Entries[i], u.Snapshot)
			}
		}
	}
	for token, e := range n.held {
		if u.Snapshot && e.Seq <= u.UpTo || n.metas[token].isOf(&e) {
			delete(n.held, token)
			n.create(token, &e, false)
		}
	}
	if u.Snapshot {
		n.compare(u.UpTo)
	}
	if u.Anew {
		n.upTo = 0
	}
	if u.Snapshot {
		n.ready, n.dirty, n.upTo = true, true, max(n.upTo, u.UpTo)
	}
	if n.ready {
		n.count.Store(int64(len(n.exist)))
	}
	if n.dirty {
		n.dirty = false
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// set notes that a context exists. mu is held.
func (n *names) set(token subjects.Token, x named) { n.exist[token], n.dirty = x, true }

// unset notes that a context does not exist. mu is held.
func (n *names) unset(token subjects.Token) {
	delete(n.exist, token)
	delete(n.held, token)
	n.dirty = true
}

// remove takes out a key that a snapshot proved to be gone. mu is held.
func (n *names) remove(key subjects.Key) {
	k, ok := key.Context()
	switch {
	case !ok:
	case k.Meta:
		delete(n.metas, k.Context)
	default:
		n.unset(k.Context)
	}
}

// know notes the metadata of a context that exists. That of another of the same
// name is of one whose root is still to come. mu is held.
func (n *names) know(token subjects.Token, m *Meta) {
	if x, ok := n.exist[token]; ok && x.meta.same(m) {
		x.meta = m
		n.exist[token] = x // no news
	}
}

// compare finds contexts that are others of the same name than before, by their
// metadata: their ends were not seen. mu is held.
func (n *names) compare(upTo uint64) {
	for token, x := range n.exist {
		if m := n.metas[token]; m.seq <= upTo && !x.meta.same(m.meta) {
			n.set(token, named{name: x.name, created: max(upTo, x.created+1), meta: m.meta})
		}
	}
}

// take learns from one key. mu is held.
func (n *names) take(k subjects.ContextKey, e *kv.Entry, read bool) {
	token, first := k.Context, read && !n.ready
	switch {
	case k.Meta && e.Op == kv.Put:
		m, err := readMeta(e)
		if err != nil {
			n.log.Warn("the metadata of a context cannot be read and counts as absent", slog.String("key", string(e.Key)), slog.Any("error", err))
		}
		x := metadata{seq: e.Seq, since: e.Seq, meta: m, by: parseWriter(e.By)}
		if !first {
			x.at = time.Now()
		}
		if old := n.metas[token]; old.meta != nil && old.meta.same(m) {
			x.since = old.since
		}
		n.metas[token] = x
		n.know(token, m)
	case k.Meta: // the context, if it exists still, is about to end
		if len(n.metas) > len(n.exist)+maxGone {
			maps.DeleteFunc(n.metas, func(_ subjects.Token, m metadata) bool { return m.meta == nil })
		}
		n.metas[token] = metadata{seq: e.Seq, since: e.Seq}
	case e.Op != kv.Put:
		if len(n.gone) >= maxGone {
			clear(n.gone)
		}
		n.gone[token] = gone{e.Seq, parseWriter(e.By)}
		n.unset(token)
	case n.holds(token, e, read):
		if _, waits := n.held[token]; !waits {
			n.held[token] = *e
			time.AfterFunc(holdFor, func() { n.replica.Refresh("the metadata of a new context did not come") })
		}
	default:
		n.create(token, e, read)
	}
}

// holds says whether a new context has to wait for its metadata: a node that makes
// both puts the metadata before the root, in one batch, but what has different
// filters comes in any order. If there is metadata of one after it, its end is about
// to come. mu is held.
func (n *names) holds(token subjects.Token, e *kv.Entry, read bool) bool {
	if _, known := n.exist[token]; known || read {
		return false
	}
	_, waits := n.held[token]
	m := n.metas[token]
	return waits || m.since > e.Seq || e.WriteID != "" && e.BatchSeq > 1 && e.Compact == 0 && !m.isOf(e)
}

// create adds a context that exists. The newest write of one that was read later
// need not be the one that created it. mu is held.
func (n *names) create(token subjects.Token, e *kv.Entry, read bool) {
	m := n.metas[token]
	if m.since < n.gone[token].seq {
		m = metadata{} // of one that has ended
	}
	if x, known := n.exist[token]; known && (x.meta.same(m.meta) || m.seq+1 != e.Seq) {
		return // or else its end was not seen
	}
	name, plain := token.Name()
	if !plain {
		if _, err := token.WithName(e.Name); err != nil {
			return // nobody can say what it is called
		}
		name = e.Name
	}
	x := named{name: name, created: e.Seq, meta: m.meta}
	if !read && e.Compact == 0 {
		x.by, x.born = parseWriter(e.By), time.Now()
	}
	n.set(token, x)
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
	return c.await(ctx, n.replica, "the list of contexts", n.suppose)
}

// suppose goes on without the contexts having been read.
func (n *names) suppose() {
	n.mu.Lock()
	n.supposing = !n.ready
	n.mu.Unlock()
	n.poke()
}

// poke tells who waits for changes that there is one.
func (n *names) poke() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.changed)
	n.changed = make(chan struct{})
}

// find is a context as it exists for the apps of this node. mu is held.
func (n *names) find(token subjects.Token) (named, bool) {
	x, known := n.exist[token]
	local, here := n.locals.get(token)
	switch {
	case here && !local.exists:
		return named{}, false
	case here && !known:
		return named{name: local.name, by: local.by, meta: local.meta}, true
	case known || n.ready || !n.supposing:
		return x, known
	}
	name, known := n.outages.names()[token]
	return named{name: name}, known
}

// visible are the contexts that exist for the apps of this node. mu is held.
func (n *names) visible() map[subjects.Token]named {
	local := n.locals.all()
	if len(local) == 0 && (n.ready || !n.supposing) {
		return n.exist
	}
	list := maps.Clone(n.exist)
	if !n.ready && n.supposing {
		for token, name := range n.outages.names() {
			list[token] = named{name: name}
		}
	}
	for token, x := range local {
		_, known := list[token]
		switch {
		case !x.exists:
			delete(list, token)
		case !known:
			list[token] = named{name: x.name, by: x.by, meta: x.meta}
		}
	}
	return list
}

func (c *Contexts) listNames(ctx context.Context, app subjects.App) ([]string, error) {
	n, err := c.follow()
	if err != nil {
		return nil, err
	}
	if err := n.await(ctx, c); err != nil {
		return nil, err
	}
	list := []string{}
	for _, x := range n.listed() {
		if c.may(app, x.meta, toRead) {
			list = append(list, x.name)
		}
	}
	slices.Sort(list)
	return list, nil
}

// listed are the contexts that exist for the apps of this node.
func (n *names) listed() []named {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Values(n.visible()))
}

// limited are the contexts that end when somebody leaves. ready says whether they are
// known.
func (n *names) limited() (list map[subjects.Token]named, ready bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list = map[subjects.Token]named{}
	for token, x := range n.exist {
		if x.limited() {
			list[token] = x
		}
	}
	return list, n.ready
}

// isGone says whether a context that was held has ended since.
func (n *names) isGone(name string, h hold) bool {
	token, err := subjects.Encode(name)
	if err != nil {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if x, ok := n.exist[token]; ok {
		return x.created > h.seq && x.meta.value().ID != h.id
	}
	return n.gone[token].seq > h.seq || n.upTo > h.seq
}

// metaOf is the metadata at a context's key.
func (n *names) metaOf(token subjects.Token) metadata {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.metas[token]
}

// news is closed when a context was created or destroyed.
func (n *names) news() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// confirmName lets the list know at once what this node has committed.
func (c *Contexts) confirmName(entries []kv.Entry) {
	c.mu.Lock()
	n := c.names
	c.mu.Unlock()
	if n == nil {
		return
	}
	entries = slices.DeleteFunc(slices.Clone(entries), func(e kv.Entry) bool {
		k, ok := e.Key.Context()
		return !ok || !k.Meta && len(k.Path) > 0
	})
	if len(entries) > 0 {
		n.replica.Confirm(entries)
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
		for err := n.await(ctx, c); err != nil; err = n.await(ctx, c) {
			select {
			case <-n.replica.Ready():
			case <-time.After(awaitPoll):
			case <-ctx.Done():
				return
			case <-c.ctx.Done():
				return
			}
		}
		seen := map[subjects.Token]named{}
		for {
			n.mu.Lock()
			events := n.since(seen)
			changed := n.changed
			n.mu.Unlock()
			for _, e := range events {
				if c.may(app, &e.Meta, toRead) && !yield(e) {
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
	exist := n.visible()
	for token, was := range seen {
		switch now, ok := exist[token]; {
		case !ok, now.created != was.created && now.created > 0 && was.created > 0:
			events = append(events, was.ended(n.gone[token]))
			delete(seen, token)
		default: // 0 is one that only this node knows, or knew
			seen[token] = now
		}
	}
	fresh := slices.Collect(maps.Keys(exist))
	fresh = slices.DeleteFunc(fresh, func(t subjects.Token) bool { _, ok := seen[t]; return ok })
	slices.SortFunc(fresh, func(a, b subjects.Token) int {
		return cmp.Or(cmp.Compare(exist[a].created, exist[b].created), cmp.Compare(exist[a].name, exist[b].name))
	})
	for _, token := range fresh {
		x := exist[token]
		seen[token] = x
		events = append(events, NameEvent{Name: x.name, Kind: Created, By: x.by, Meta: x.meta.value()})
	}
	return events
}

// ended is the event of the context's end. Only a node itself ends one because of
// its lifetime.
func (x named) ended(g gone) NameEvent {
	e := NameEvent{Name: x.name, Kind: Destroyed, Meta: x.meta.value()}
	if g.seq < x.created {
		return e // about one of the same name before; who ended this one is not known
	}
	e.By = g.by
	if e.By.App == "" && e.By.Node != "" && x.limited() {
		e.Reason = PeerLeft
	}
	return e
}

// limited says whether the context ends when somebody leaves.
func (x named) limited() bool {
	return x.meta != nil && (x.meta.Lifetime == RefCounted || x.meta.Lifetime == Ownership)
}

// hasRoom says whether one context more is known to be not too many. It takes no
// lock.
func (c *Contexts) hasRoom() bool {
	n := c.count.Load()
	return n >= 0 && n < wire.MaxContexts
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
