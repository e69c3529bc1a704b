package contexts

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/journal"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// supposeAfter is how long the fabric must be away before apps get a context that
	// was never read.
	supposeAfter = 2 * time.Second
	// replayTimeout bounds one read of what has to be merged; what local apps write
	// meanwhile waits as long.
	replayTimeout = 5 * time.Second
	replayPause   = time.Second
	// fenceFor is how long after a write was sent a fence is of use.
	fenceFor = kv.CommitMemory - 10*time.Second
)

// outages is what a node keeps of its outages.
type outages struct {
	journal *journal.Journal // nil if writes are refused while the fabric is away
	last    atomic.Uint64    // key of a record
	waiting atomic.Int64     // writes that are kept

	mu      sync.Mutex
	notices []notice
	changed chan struct{}
	// supposed is what contexts are taken for that were never read.
	supposed map[string]*kv.Value
}

// restore takes up what an earlier run of the node has kept.
func (c *Contexts) restore(records []journal.Record) {
	for _, r := range records {
		c.outages.last.Store(max(c.outages.last.Load(), r.Key))
	}
	for _, r := range records {
		if err := c.restoreOne(r); err != nil {
			c.log.Error("a record of the journal cannot be read; it is left there", slog.Uint64("record", r.Key), slog.Any("error", err))
		}
	}
	if n := c.outages.waiting.Load(); n > 0 {
		c.log.Info("writes of contexts wait for the fabric since an earlier run", slog.Int64("writes", n))
	}
}

func (c *Contexts) restoreOne(r journal.Record) error {
	var x record
	if err := (wire.Payload{Data: r.Data}).Decode(&x); err != nil {
		return err
	}
	switch {
	case x.Write != nil:
		k, err := x.Write.journalled(r.Key)
		if err != nil {
			return err
		}
		return c.withKept(x.Write.Context, func(s *shared) { s.addKept(k) })
	case x.Attempt != nil:
		a, err := x.Attempt.attempt(r.Key)
		if err != nil {
			return err
		}
		return c.withKept(x.Attempt.Context, func(s *shared) {
			s.retain()
			s.attempts = append(s.attempts, a)
		})
	case x.Overwritten != nil:
		c.outages.notices = append(c.outages.notices, notice{r.Key, *x.Overwritten})
		return nil
	}
	return wire.Errorf(wire.Version, "of a kind that this version does not know")
}

// withKept opens the context of a record. It stays open while something is kept.
func (c *Contexts) withKept(name string, f func(*shared)) error {
	s, err := c.get(name)
	if err != nil {
		return err
	}
	defer c.release(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
	return nil
}

// addKept puts a write on top of those that are kept. mu is held.
func (s *shared) addKept(k *journalled) {
	s.retain()
	s.kept = append(s.kept, k)
	s.c.outages.waiting.Add(1)
}

// retain keeps the context open until forget. mu is held.
func (s *shared) retain() {
	if !s.retained {
		s.retained = true
		s.users.Add(1)
	}
}

// away is why the fabric cannot be reached, nil if it can.
func (c *Contexts) away() error { return c.cfg.Link.Online() }

// keeps says whether writes are journalled while the fabric is away.
func (c *Contexts) keeps() bool { return c.outages.journal != nil }

// isAway says whether an error means that the stream cannot be reached, rather than that
// it, or somebody, refuses.
func isAway(err error) bool {
	return errors.Is(err, wire.ErrOffline) || errors.Is(err, wire.ErrTimeout) || errors.Is(err, wire.ErrUnavailable) && !isUnusable(err)
}

// Kept is how many writes are journalled, and how many notices there are of those that
// were not made.
func (c *Contexts) Kept() (journalled, overwritten int) {
	c.outages.mu.Lock()
	defer c.outages.mu.Unlock()
	return int(c.outages.waiting.Load()), len(c.outages.notices)
}

// refuses is why an operation cannot be journalled.
func (c *Contexts) refuses(o *op, name string, why error) error {
	switch {
	case c.keeps() && !o.quiet && o.ifRevision == nil && c.outage(name) != RejectOffline:
		return nil
	case errors.Is(why, wire.ErrOffline):
		return why
	}
	return wire.Errorf(wire.CodeOf(why), "context %q: not written: %w", name, why)
}

// keeping is what goes into the journal together.
type keeping struct {
	list    []*journalled
	attempt *attempt                  // what may have been made of it, nil for nothing
	refused map[*op]error             // what cannot be kept, and why
	left    map[*journalled][]kv.Edit // what is left of older ones
	changes []journal.Change
}

// keep journals what waits, in its order, and acknowledges it: the stream cannot be
// reached, which is why. f is what was tried last, nil for nothing.
func (s *shared) keep(f *flight, why error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	if f != nil && f.settled { // by now: its operations are not pending any more
		for _, o := range f.ops {
			s.c.end(o, s.madeBy(f), nil)
		}
		f = nil
	}
	k := s.gather(f, why)
	s.keeping = len(s.pending)
	s.mu.Unlock()

	err := s.c.outages.journal.Write(k.changes...)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeping, s.flight = 0, nil
	if !s.closed { // or close has told them
		s.settleKeeping(f, k, err)
	}
}

// gather prepares what waits for the journal. mu is held.
func (s *shared) gather(f *flight, why error) *keeping {
	k := &keeping{refused: map[*op]error{}, left: map[*journalled][]kv.Edit{}}
	doubt := f != nil && f.doubt
	if doubt {
		k.attempt = &attempt{id: f.id, after: f.after, sent: f.sent}
		for i := range f.writes {
			k.attempt.keys = append(k.attempt.keys, f.writes[i].Key)
		}
	}
	view, meta := s.under()
	for i, o := range s.pending {
		sent := doubt && i < len(f.ops)
		if err := s.c.refuses(o, s.name, why); err != nil {
			if sent {
				err = wire.Errorf(wire.Timeout, "context %q: the write was sent and is not acknowledged; it may have been made (%w)", s.name, why)
			}
			k.refused[o] = err
			continue
		}
		o.made = o.task == create && view == nil
		view, meta = o.show(view, meta)
		j := &journalled{op: o, key: s.c.outages.last.Add(1), id: newID(), written: time.Now(), base: s.tree.Revision(), known: s.ready, was: s.tree.View()}
		change, err := j.put(s.name)
		if err != nil {
			k.refused[o] = err
			continue
		}
		k.list, k.changes = append(k.list, j), append(k.changes, change)
		k.changes = append(k.changes, s.supersede(j, k.left)...)
		if sent {
			k.attempt.ops = append(k.attempt.ops, j.key)
		}
	}
	if doubt {
		k.attempt.key = s.c.outages.last.Add(1) // above those of its writes
		if change, err := k.attempt.put(s.name); err == nil {
			k.changes = append(k.changes, change)
		}
	}
	return k
}

// settleKeeping takes what was gathered off what is pending and tells its operations, given
// what the journal has said. mu is held.
func (s *shared) settleKeeping(f *flight, k *keeping, err error) {
	for o, why := range k.refused {
		if s.take(o) {
			s.c.end(o, Ack{}, why)
		}
	}
	if err == nil {
		s.shrink(k.left)
		if k.attempt != nil {
			s.attempts = append(s.attempts, k.attempt)
		}
	}
	var over []journal.Change
	for _, j := range k.list {
		switch taken := s.take(j.op); {
		case !taken: // it was made after all, and seen meanwhile
			s.c.end(j.op, s.madeBy(f), nil)
			over = append(over, journal.Change{Key: j.key})
		case err != nil:
			s.c.end(j.op, Ack{}, err)
		default:
			s.addKept(j)
			s.c.stats.journalled.Add(1)
			s.c.end(j.op, Ack{Journalled: true, ID: j.id}, nil)
		}
	}
	if len(over) > 0 {
		s.c.wg.Go(func() { _ = s.c.outages.journal.Write(over...) }) // deleting does not fail
	}
	s.overlaid()
	s.show(nil)
}

// madeBy acknowledges what a flight is seen to have made. mu is held.
func (s *shared) madeBy(f *flight) Ack {
	if f == nil || f.first == 0 {
		return Ack{Revision: s.tree.Revision()}
	}
	return Ack{Revision: f.first + uint64(len(f.writes)) - 1}
}

// take takes an operation off those that are pending; false if it is none. mu is held.
func (s *shared) take(o *op) bool {
	for i, p := range s.pending {
		if p == o {
			s.pending = append(s.pending[:i:i], s.pending[i+1:]...)
			return true
		}
	}
	return false
}

// supersede finds what a write leaves of those that are kept, and which records it
// makes superfluous. mu is held.
func (s *shared) supersede(by *journalled, left map[*journalled][]kv.Edit) (changes []journal.Change) {
	if by.task == create {
		return nil
	}
	for _, k := range s.kept {
		if k.task != edit || s.isSent(k) {
			continue
		}
		edits, ok := left[k]
		if !ok {
			edits = k.edits
		}
		if len(edits) == 0 {
			continue
		}
		var rest []kv.Edit
		for _, old := range edits {
			covered := false
			for _, now := range by.edits {
				covered = covered || supersedes(now.Path, old.Path)
			}
			if !covered {
				rest = append(rest, old)
			}
		}
		if len(rest) == len(edits) {
			continue
		}
		left[k] = rest
		if len(rest) == 0 {
			changes = append(changes, journal.Change{Key: k.key})
		}
	}
	return changes
}

// supersedes says whether an edit at a path leaves nothing of an older one. Through an
// array it may have meant another element.
func supersedes(now, old []string) bool {
	if len(now) > len(old) || !related(now, old) {
		return false
	}
	return !slices.ContainsFunc(old, kv.IsNumber)
}

// isSent says whether a kept write may have been made. mu is held.
func (s *shared) isSent(k *journalled) bool {
	for _, a := range s.attempts {
		for _, key := range a.ops {
			if key == k.key && !a.settled {
				return true
			}
		}
	}
	return false
}

// shrink leaves of kept writes what supersede has found. mu is held.
func (s *shared) shrink(left map[*journalled][]kv.Edit) {
	list := s.kept[:0:0]
	for _, k := range s.kept {
		rest, ok := left[k]
		switch {
		case !ok:
		case len(rest) == 0:
			s.c.outages.waiting.Add(-1)
			continue
		default:
			o := *k.op
			o.edits = rest
			k.op = &o
		}
		list = append(list, k)
	}
	s.kept = list
}

// under is the context without what is pending: the tree with what is kept on top.
// mu is held.
func (s *shared) under() (v *kv.Value, m *Meta) {
	if s.below.valid {
		return s.below.view, s.below.meta
	}
	if v = s.tree.View(); v != nil {
		m = s.stored
	}
	if !s.ready && s.supposing {
		v = s.c.outages.suppose(s.name)
	}
	for _, k := range s.kept {
		v, m = k.show(v, m)
	}
	s.below.valid, s.below.view, s.below.meta = true, v, m
	return v, m
}

// overlaid notes that what is kept is not what it was. mu is held.
func (s *shared) overlaid() {
	s.below.valid = false
	v, m := s.under()
	if len(s.kept) == 0 {
		s.c.locals.forget(s.token)
		return
	}
	s.c.locals.set(s.token, local{name: s.name, exists: v != nil, by: s.kept[0].by, meta: m})
}

// Suppose says what a context is taken for while the fabric is away and the context was
// never read, until it is.
func (c *Contexts) Suppose(seeds []Seed) error {
	for _, seed := range seeds {
		v, err := parse(seed.Object)
		if err != nil {
			return err
		}
		c.outages.mu.Lock()
		c.outages.supposed[seed.Name] = v
		c.outages.mu.Unlock()
	}
	return nil
}

// names are those of what is supposed.
func (o *outages) names() map[subjects.Token]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := map[subjects.Token]string{}
	for name := range o.supposed {
		if token, err := subjects.Encode(name); err == nil {
			list[token] = name
		}
	}
	return list
}

func (o *outages) suppose(name string) *kv.Value {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.supposed[name]
}

// supposeLater lets who waits for what was never read go on, once the fabric has been
// away for long enough.
func (c *Contexts) supposeLater() {
	select {
	case <-time.After(supposeAfter):
	case <-c.ctx.Done():
		return
	}
	if in, ok := c.supposes(); !ok || in > 0 {
		return // it is back, or was
	}
	c.mu.Lock()
	open, names := slices.Collect(maps.Values(c.open)), c.names
	c.mu.Unlock()
	for _, s := range open {
		s.suppose()
	}
	if names != nil {
		names.suppose()
	}
}

// supposes says whether apps get on without what was never read, and in how long.
func (c *Contexts) supposes() (in time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.keeps() || c.closed || c.since.IsZero() || c.away() == nil {
		return 0, false
	}
	return time.Until(c.since.Add(supposeAfter)), true
}
