package contexts

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// mendJitter spreads what every node that sees a foreign write wants to do.
const mendJitter = 200 * time.Millisecond

// shared is one context that local apps use: its replica, the writes of local
// apps on top of it, and who watches.
type shared struct {
	c       *Contexts
	name    string
	token   subjects.Token
	replica *kv.Replica

	users atomic.Int64 // raised with c.mu held
	used  atomic.Int64 // when users was last lowered, in Unix nanoseconds

	mu      sync.Mutex // taken by the replica's callback: never call the replica with it
	tree    *kv.Tree
	ready   bool
	since   time.Time // when the connection was lost, zero while all is known
	waiting []*op     // oldest first: not let in yet, see admit
	pending []*op     // oldest first: on top of what is kept; those of flight are at the front
	flight  *flight
	keeping int // how many of pending are being journalled
	// kept are writes in the journal, oldest first, on top of tree, and attempts what was
	// sent of them; made are those that were made since the fabric is back. retained says
	// that the context is kept open for them.
	kept     []*journalled
	attempts []*attempt
	made     []kv.Edit
	touched  []touch // of a context that was rewritten, since the first write that is merged
	retained bool
	// supposing says that apps get what the context is taken for: it was never read.
	supposing bool
	below     struct { // see under
		valid bool
		view  *kv.Value
		meta  *Meta
	}
	stored  *Meta     // the metadata in tree, nil for none
	metaSeq uint64    // of stored
	view    *kv.Value // tree with pending on top
	meta    *Meta     // of view, nil for none
	by      Writer    // who made the newest change of view
	watches map[*Watch]struct{}
	closed  bool
	// rooted is when the root was written last, by this machine's clock.
	rooted time.Time
	// late is what was learned after something newer, of late lateFor, lates how often that
	// was at all, and read what lates was when an app has last read the context.
	late  []lateness
	lates uint64
	read  map[subjects.App]uint64
	// large says that the object was found above its limit.
	large bool
	// admitting, sending and compacting say that a goroutine does that.
	admitting, sending, compacting bool
}

func newShared(c *Contexts, name string, token subjects.Token) *shared {
	s := &shared{c: c, name: name, token: token, tree: kv.NewTree(token), since: c.since, watches: map[*Watch]struct{}{}}
	s.replica = c.bucket.Replicate([]subjects.Key{subjects.ContextKeys(token)}, true, c.log, s.update)
	return s
}

func (s *shared) close() {
	s.replica.Close()
	s.mu.Lock()
	s.closed = true
	watches := s.watches
	s.watches = nil
	ops := slices.Concat(s.pending, s.waiting)
	if s.flight != nil && s.flight.settled {
		ops = slices.Concat(s.flight.ops, ops)
	}
	s.pending, s.waiting = nil, nil
	for _, o := range ops {
		s.c.end(o, Ack{}, wire.Errorf(wire.Offline, "the node has stopped; context %q may have been written", s.name))
	}
	s.mu.Unlock()
	for w := range watches {
		w.end()
	}
}

func (s *shared) leave(app subjects.App) {
	s.mu.Lock()
	delete(s.read, app)
	var gone []*Watch
	for w := range s.watches {
		if w.app == app {
			gone = append(gone, w)
		}
	}
	s.mu.Unlock()
	for _, w := range gone {
		w.Close()
	}
}

func (s *shared) connected(online bool) {
	s.replica.Wake(online)
	s.mu.Lock()
	defer s.mu.Unlock()
	if online { // the replica's snapshot ends what since says
		if len(s.kept)+len(s.attempts) > 0 && !s.sending && !s.closed {
			s.sending = true
			s.c.wg.Go(s.send)
		}
		return
	}
	if s.since.IsZero() {
		s.since = time.Now()
		s.show(nil)
	}
}

// await waits until the context is known, or supposed.
func (s *shared) await(ctx context.Context) error {
	return s.c.await(ctx, s.replica, fmt.Sprintf("context %q", s.name), s.suppose)
}

// known says whether apps can have the context. mu is held.
func (s *shared) known() bool { return s.ready || s.supposing }

// suppose goes on without the context having been read.
func (s *shared) suppose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known() || s.closed {
		return
	}
	s.supposing = true
	s.overlaid()
	s.show(nil)
}

// update takes what the replica learned.
func (s *shared) update(u kv.Update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if u.Anew {
		s.c.log.Warn("the context bucket was made anew", slog.String("context", s.name))
	}
	revision, view := s.tree.Revision(), s.tree.View()
	for _, bad := range s.tree.Apply(u.Entries, u.Removed) {
		s.c.stats.unreadable.Add(1)
		s.c.log.Warn("a write of a context cannot be read and counts as absent",
			slog.String("context", s.name), slog.String("key", string(bad.Key)), slog.Uint64("sequence", bad.Seq), slog.String("by", bad.By), slog.Any("error", bad.Err))
	}
	if from := s.tree.Late(); from > 0 && !s.tree.View().Equal(view) {
		s.learnsLate(from, revision)
	}
	s.learnMeta()
	s.below.valid = false
	var newest *kv.Entry
	for i := range u.Entries {
		e := &u.Entries[i]
		if k, ok := e.Key.Context(); ok && !k.Meta && (newest == nil || e.Seq > newest.Seq) {
			newest = e
		}
		if e.Key == subjects.ContextRoot(s.token) {
			s.rooted = s.c.when(e.Time)
		}
		if s.flight != nil && s.flight.sees(e) {
			s.settle()
		}
		if e.TTL && e.Compact == 0 && !e.Expired {
			s.mend(*e)
		}
	}
	if newest != nil && (newest.Compact == 0 || !s.tree.Exists()) { // not a compaction
		s.by = parseWriter(newest.By)
	}
	if u.Snapshot {
		s.ready, s.supposing = true, false
		if s.c.cfg.Link.Online() == nil {
			s.since = time.Time{}
		}
	}
	if n := s.tree.View().Size(); n > wire.MaxContext != s.large {
		s.large = !s.large
		if s.large { // by concurrent or foreign writers
			s.c.log.Warn("a context is above its limit; it can only shrink", slog.String("context", s.name), slog.Int("bytes", n), slog.Int("limit", wire.MaxContext))
		}
	}
	if len(s.kept) > 0 {
		s.overlaid()
	}
	s.show(s.written(u))
}

// written is what a remote operation wrote, nil if what the replica learned is
// something else. mu is held.
func (s *shared) written(u kv.Update) []kv.Edit {
	if len(s.watches) == 0 || u.Snapshot || len(u.Removed) > 0 {
		return nil
	}
	edits, ok := kv.Edits(u.Entries)
	if !ok {
		return nil
	}
	return edits
}

// show makes the view and tells watches if it has changed. edits are those of the
// operation that changed it, nil if it was something else. mu is held.
func (s *shared) show(edits []kv.Edit) {
	if s.known() {
		s.tell(edits)
	}
}

// learnMeta reads the metadata in the tree if it is another than before. mu is held.
func (s *shared) learnMeta() {
	e, seq := s.tree.Meta(), uint64(0)
	if e != nil {
		seq = e.Seq
	}
	if seq == s.metaSeq {
		return
	}
	s.metaSeq = seq
	var err error
	if s.stored, err = readMeta(e); err != nil {
		s.c.stats.unreadable.Add(1)
		s.c.log.Warn("the metadata of a context cannot be read and counts as absent", slog.String("context", s.name), slog.Any("error", err))
	}
}

// overlay is the tree with the writes that are kept and those that are pending on top.
// mu is held.
func (s *shared) overlay() (v *kv.Value, m *Meta) {
	v, m = s.under()
	for _, o := range s.pending {
		v, m = o.show(v, m)
	}
	return v, m
}

// tell gives every watch the state if it is another than before. mu is held.
func (s *shared) tell(edits []kv.Edit) {
	from := s.view
	s.view, s.meta = s.overlay()
	if len(s.watches) == 0 {
		return
	}
	st := &step{from: from, changes: kv.Diff(from, s.view), state: s.state()}
	if len(st.changes) > 0 && lead(from, edits, s.view) {
		st.edits = edits
	}
	for w := range s.watches {
		w.put(st)
	}
}

// lead says whether edits make one view of another: what is pending here may hide
// a part of them, and what is written at a key need not do what an edit does.
func lead(from *kv.Value, edits []kv.Edit, to *kv.Value) bool {
	if len(edits) == 0 || to == nil {
		return false
	}
	now, err := from.Edited(edits)
	return err == nil && now.Equal(to)
}

// state describes view. mu is held.
func (s *shared) state() state {
	return state{view: s.view, meta: s.meta, revision: s.tree.Revision(), by: s.by, pending: len(s.pending)+len(s.kept) > 0, since: s.since, lates: s.lates}
}

// mend writes something again that a foreign writer has put an end to: when it
// expires, nodes that have it and nodes that come later would not agree.
// mu is held.
func (s *shared) mend(e kv.Entry) {
	w := kv.Write{Key: e.Key, Op: e.Op, Value: e.Value, Format: e.Format, By: e.By, Who: e.Who, AsOf: e.AsOf, If: &e.Seq, Name: s.hashed()}
	if w.Op == kv.Purge {
		w.Op = kv.Delete
	}
	if w.AsOf == 0 {
		w.AsOf = e.Seq
	}
	s.c.wg.Go(func() {
		select {
		case <-time.After(rand.N(mendJitter)):
		case <-s.c.ctx.Done():
			return
		}
		if _, err := s.c.bucket.Commit(s.c.ctx, newID(), []kv.Write{w}); err == nil {
			s.c.stats.mended.Add(1)
			s.c.log.Warn("a foreign write with a time to live was made permanent", slog.String("context", s.name), slog.String("key", string(e.Key)))
		}
	})
}

// hashed is the context's name if its key has only the hash.
func (s *shared) hashed() string {
	if s.token.Hashed() {
		return s.name
	}
	return ""
}
