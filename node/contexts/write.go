package contexts

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// A batch of several operations has at most this many paths and bytes.
	mergePaths = 200
	mergeBytes = 512 << 10
	// conflictTries is how often an operation is planned again because a
	// condition of its own did not hold.
	conflictTries = 100
	conflictPause = 5 * time.Millisecond
	retryPause    = 100 * time.Millisecond
	// doubt is how long a commit whose outcome is not known is repeated; after
	// that it is only looked for.
	doubt = kv.CommitMemory / 2
	// arriveWithin is how long an acknowledged write waits to be republished.
	arriveWithin = 100 * time.Millisecond
	// catchUpWithin is how long one that was not waits to be read.
	catchUpWithin = 2 * time.Second
	// compactJitter keeps the nodes from compacting all at once.
	compactJitter = 500 * time.Millisecond
	// recordWithin is how long a write that takes something away waits for the history
	// to have it. Then an app's write is made all the same, and a compaction is not.
	recordWithin = 3 * time.Second
	// checkpointEvery is how old the newest write of the root may be when a context is
	// written to: the past is folded from it on, and it must be in the history.
	// checkpointShare is how many of them fit in the history's age.
	checkpointEvery = 24 * time.Hour
	checkpointShare = 8
)

// Option changes a write.
type Option func(*op)

// IfRevision refuses the write with bad-revision if something at, above or below
// one of its paths was changed after revision, which is that of a State, or 0
// for "must not exist". After a compaction the context's paths count as changed at
// its newest write, so a refusal may be about another path: read, and try again.
// The same goes for a state that a write was missing from which is older than its
// revision, if the node has found that out within 10 minutes after the app read it.
// Take the revision from a State that is not Pending: what is pending may be taken
// back. Of a write to several paths, those count as written that nothing newer
// hides; it is refused if that is none.
func IfRevision(revision uint64) Option {
	return func(o *op) { o.ifRevision = &revision }
}

// task is what an operation does.
type task uint8

const (
	edit task = iota
	create
	destroy
)

// op is one operation of a local app.
type op struct {
	task       task
	edit       func(now *kv.Value) ([]kv.Edit, error) // what edits are, if they are not given
	edits      []kv.Edit                              // of create: one put at the root
	ifRevision *uint64
	meta       *Meta // of create, and as it is written
	encoded    []byte
	mustExist  bool // the edits create nothing
	by         Writer
	who        kv.Who
	quiet      bool // it does not show before it is made
	// still says, given the metadata in the snapshot that it is planned on, why it is
	// not to be made any more.
	still func(meta *kv.Entry) error
	until time.Time // when to give up on a stream that does not answer
	read  uint64    // what its app had read of the context, see shared
	bytes int

	uses  *shared // the context that it keeps open
	holds bool    // its app holds that, if this creates it
	done  func(*op)
	// The fields that follow may be read once done was called.
	ack  Ack
	made bool // by create
	err  error
}

// take makes edits those of the operation.
func (o *op) take(name string, edits []kv.Edit) error {
	if err := checkCount(name, len(edits)); err != nil {
		return err
	}
	for i := range edits {
		edits[i].By = o.by.String()
		o.bytes += edits[i].Value.Size()
		for _, segment := range edits[i].Path {
			if !utf8.ValidString(segment) {
				return wire.Errorf(wire.BadName, "path: %q is not valid UTF-8", segment)
			}
		}
	}
	o.edits = edits
	return nil
}

// alone says whether the operation goes by itself.
func (o *op) alone() bool { return o.task != edit || o.ifRevision != nil }

// show is a context after the operation, as local apps see it until it is settled.
func (o *op) show(v *kv.Value, m *Meta) (*kv.Value, *Meta) {
	switch {
	case o.quiet:
		return v, m
	case o.task == destroy:
		return nil, nil
	case o.task == create && v != nil:
		return v, m
	case o.task == create:
		m = o.meta
	case v == nil && o.mustExist:
		return nil, nil
	}
	if v == nil && len(o.edits[0].Path) > 0 {
		v = kv.Object()
	}
	if now, err := v.Edited(o.edits); err == nil {
		return now, m
	}
	return v, m // somebody changed what the path runs through; the plan will say so
}

// flight is what is on its way to the stream: the first operations that wait.
type flight struct {
	id     string
	ops    []*op
	writes []kv.Write
	// planned is the sequence of the snapshot that writes were planned on, if any.
	planned uint64
	until   time.Time // when to give up on a stream that does not answer
	// doubt says that it was sent, after a sequence and at a time, and that its outcome
	// is not known.
	doubt bool
	after uint64
	sent  time.Time
	// settled says that the operations are off the view: the confirmed tree has
	// what they wrote, or never will. first is then the sequence of the first
	// write, if it was made.
	settled bool
	first   uint64
	// arrived is closed when it was republished, nil for a flight of which nobody waits.
	arrived chan struct{}
}

// sees notes that an entry of the stream is one of the flight's.
func (f *flight) sees(e *kv.Entry) bool {
	if e.WriteID != f.id {
		return false
	}
	for i := range f.writes {
		if f.writes[i].Key == e.Key {
			f.first = e.Seq - uint64(i)
		}
	}
	return true
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// settle takes the operations of the flight off the view. mu is held.
func (s *shared) settle() {
	if s.flight == nil || s.flight.settled {
		return
	}
	s.flight.settled = true
	close(s.flight.arrived)
	s.pending = s.pending[len(s.flight.ops):]
}

// send sends what waits until nothing does. While the stream cannot be reached it has it
// journalled instead.
func (s *shared) send() {
	for try := 0; ; {
		if why := s.c.away(); why != nil && s.c.keeps() {
			s.keep(nil, why)
			if s.rests() {
				return
			}
			continue
		}
		if s.hasKept() {
			if why := s.replay(); why != nil {
				s.c.log.Debug("what was written while the fabric was away cannot be written yet", slog.String("context", s.name), slog.Any("error", why))
				s.keep(nil, why)
				s.sleep(replayPause)
				if s.isClosed() {
					return
				}
				continue
			}
		}
		s.mu.Lock()
		full, old := s.tree.Keys() >= kv.MaxKeys, s.isOld()
		s.mu.Unlock()
		if full || old {
			s.compact(full)
		}
		f, fresh, ok := s.next(try > 0)
		if !ok {
			return
		}
		var revision uint64
		var err error
		if fresh {
			err = s.planFresh(f, try > 0)
		}
		switch {
		case err != nil:
		case len(f.writes) == 0:
			s.mu.Lock()
			revision = s.tree.Revision()
			s.mu.Unlock()
		default:
			revision, err = s.commit(f)
		}
		if err == nil && f.ops[0].ifRevision != nil && f.ops[0].task == edit && len(f.writes) > 0 {
			err = s.verify(f, revision)
		} else if errors.Is(err, wire.ErrBadRevision) {
			// A condition of ours, not of the app.
			s.c.stats.conflicts.Add(1)
			if try++; try < conflictTries {
				s.land(f)
				s.sleep(time.Duration(min(try, 10)) * conflictPause)
				continue
			}
			err = wire.Errorf(wire.Busy, "context %q: others changed it %d times in between: %w", s.name, try, err)
		}
		try = 0
		if err != nil && s.c.keeps() && isAway(err) && s.c.ctx.Err() == nil {
			s.keep(f, err)
			continue
		}
		if !s.finish(f, revision, err) {
			return
		}
	}
}

// rests ends send while the fabric is away and nothing waits to be journalled.
func (s *shared) rests() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) > 0 && !s.closed {
		return false
	}
	if s.c.away() == nil && len(s.kept)+len(s.attempts) > 0 && !s.closed {
		return false // it came back meanwhile, and connected has left the replay to this one
	}
	s.sending = false
	return true
}

func (s *shared) hasKept() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.kept)+len(s.attempts) > 0
}

func (s *shared) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// sleep waits for about d, or until the node stops.
func (s *shared) sleep(d time.Duration) {
	select {
	case <-time.After(d/2 + mathrand.N(d/2+1)):
	case <-s.c.ctx.Done():
	}
}

// next makes a flight of the first operations that wait. fresh says that they
// have to be planned on a snapshot.
func (s *shared) next(again bool) (f *flight, fresh, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 || s.closed {
		s.sending = false
		return nil, false, false
	}
	first := s.pending[0]
	f = &flight{id: newID(), ops: []*op{first}, until: first.until, arrived: make(chan struct{})}
	s.flight = f
	missing := !s.tree.Exists()
	if first.alone() || again || missing && first.mustExist || s.tree.NeedsSnapshot(first.edits) || s.tree.Doubtful(first.edits) {
		return f, true, true
	}
	edits, bytes := first.edits, first.bytes
	for _, o := range s.pending[1:] {
		if o.alone() || missing && o.mustExist || s.tree.Doubtful(o.edits) || len(edits)+len(o.edits) > mergePaths || bytes+o.bytes > mergeBytes {
			break
		}
		edits, bytes = append(slices.Clip(edits), o.edits...), bytes+o.bytes
		f.ops, f.until = append(f.ops, o), o.until
	}
	var err error
	if f.writes, err = s.tree.Plan(edits); err != nil {
		f.ops, f.writes = f.ops[:1], nil // one that cannot be planned must not stop the others
		if f.writes, err = s.tree.Plan(first.edits); err != nil {
			return f, true, true // and the snapshot says why
		}
	}
	s.label(f.writes, f.ops...)
	return f, false, true
}

// label writes on each write who made it, of those whose operations they are, and a
// context's name on puts of the root whose key has only its hash.
func (s *shared) label(writes []kv.Write, ops ...*op) {
	who := make(map[string]kv.Who, len(ops))
	for _, o := range ops {
		who[o.by.String()] = o.who
	}
	for i := range writes {
		writes[i].Who = who[writes[i].By]
	}
	label(writes, s.token, s.name)
}

// label writes a context's name on puts of the root whose key has only its hash.
func label(writes []kv.Write, token subjects.Token, name string) {
	if !token.Hashed() {
		return
	}
	for i := range writes {
		if writes[i].Key == subjects.ContextRoot(token) {
			writes[i].Name = name
		}
	}
}

// snapshot reads the context as the leader has it.
func (s *shared) snapshot(until time.Time) (*kv.Tree, error) {
	t, _, err := s.snapshotUpTo(until)
	return t, err
}

// snapshotUpTo is snapshot, and the stream sequence that it reaches. What is new in it
// the replica has, too, when it returns.
func (s *shared) snapshotUpTo(until time.Time) (*kv.Tree, uint64, error) {
	ctx, cancel := context.WithDeadline(s.c.ctx, until)
	defer cancel()
	for {
		snap, err := s.c.bucket.Snapshot(ctx, subjects.ContextKeys(s.token))
		switch {
		case err == nil:
		case isPassing(err) && time.Now().Before(until):
			s.sleep(retryPause)
			continue
		default:
			return nil, 0, err
		}
		if t, whole := snap.Tree(s.token); whole {
			s.replica.Learn(snap)
			return t, snap.UpTo, nil
		}
		s.sleep(retryPause) // so many keys that they are not of one moment
	}
}

// isPassing says whether a read that failed is worth another attempt: an answer
// was lost, or the stream has no leader.
func isPassing(err error) bool {
	return errors.Is(err, wire.ErrTimeout) || errors.Is(err, wire.ErrUnavailable) && !isUnusable(err)
}

// planFresh plans a flight of one operation on a snapshot.
func (s *shared) planFresh(f *flight, again bool) error {
	o := f.ops[0]
	t, upTo, err := s.snapshotUpTo(o.until)
	if err != nil {
		return err
	}
	writes, err := s.plan(o, t)
	s.label(writes, o)
	if again && o.task == destroy && o.ifRevision == nil {
		// Others go on writing below the root. What they write does not show
		// without it; a compaction takes it away.
		writes = slices.DeleteFunc(writes, func(w kv.Write) bool {
			k, _ := w.Key.Context()
			return len(k.Path) > 0
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.writes, f.planned = writes, upTo
	return err
}

// plan plans one operation on a snapshot.
func (s *shared) plan(o *op, t *kv.Tree) (writes []kv.Write, err error) {
	meta, _ := readMeta(t.Meta()) // none if it cannot be read
	if err := s.authorize(o, t.Exists(), meta); err != nil {
		return nil, err
	}
	s.mu.Lock()
	err = s.checkRevision(o, t)
	s.mu.Unlock()
	if err != nil {
		return nil, errFinal{err}
	}
	switch {
	case !t.Exists() && (o.task == destroy || o.mustExist):
		return nil, s.missing()
	case o.task == destroy:
		if o.still != nil {
			err = o.still(t.Meta())
		}
		return t.Destruction(o.by.String()), err
	case o.task == create:
		o.made = !t.Exists() // also after a conflict
		if !o.made {
			return nil, nil
		}
		writes, err = t.Create(o.edits[0], o.encoded)
	case o.ifRevision != nil:
		writes, err = t.Rewrite(o.edits)
	case t.NeedsSnapshot(o.edits):
		writes, err = t.Rewrite(o.edits)
	default:
		writes, err = t.Plan(o.edits)
	}
	return writes, err
}

// errFinal is a refusal that must not be tried again.
type errFinal struct{ error }

// commit sends a flight until its outcome is known, and returns the sequence of
// its last write.
func (s *shared) commit(f *flight) (uint64, error) {
	s.mu.Lock()
	f.after = max(f.planned, s.tree.Revision())
	seen(f.writes, s.tree.Seen())
	s.mu.Unlock()
	if err := s.recorded(f.writes); err != nil {
		s.c.stats.unrecorded.Add(1)
		s.c.log.Warn("what a write takes away may be missing in the history", slog.String("context", s.name), slog.Any("error", err))
	}
	started, until := time.Now(), f.until
	f.sent = started
	for {
		ctx, cancel := context.WithDeadline(s.c.ctx, latest(until, started.Add(doubt)))
		first, err := s.c.bucket.Commit(ctx, f.id, f.writes)
		cancel()
		switch {
		case err == nil:
			return s.confirm(f, first), nil
		case errors.Is(err, kv.ErrUnknown), f.doubt:
			if !f.doubt {
				s.c.stats.retried.Add(1)
			}
			f.doubt = true
			first, known, lookErr := s.look(f, err, started)
			if known && lookErr == nil {
				return s.confirm(f, first), nil
			} else if known {
				f.doubt = !errors.Is(lookErr, wire.ErrBadRevision) // it was not made, and cannot be any more
				return 0, lookErr
			}
			if s.c.keeps() && (s.c.away() != nil || time.Now().After(until)) {
				return 0, wire.Errorf(wire.Timeout, "context %q: the write was sent and is not acknowledged (%w)", s.name, err)
			}
		case errors.Is(err, wire.ErrUnavailable) && !isUnusable(err) && time.Now().Before(until), errors.Is(err, wire.ErrBusy) && time.Now().Before(until):
		default:
			return 0, err
		}
		s.sleep(retryPause)
		if s.c.ctx.Err() != nil {
			return 0, wire.Errorf(wire.Offline, "the node has stopped; context %q may have been written", s.name)
		}
	}
}

// seen notes on writes what their writer knew of the context.
func seen(writes []kv.Write, seq uint64) {
	for i := range writes {
		writes[i].Seen = seq
	}
}

// recorded waits until the history has what writes take away.
func (s *shared) recorded(writes []kv.Write) error {
	last := kv.Purged(writes)
	if last == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.c.ctx, recordWithin)
	defer cancel()
	return s.c.bucket.History().Await(ctx, last)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// look finds out what became of a commit that failed with cause. known is false
// when it has to be sent again.
func (s *shared) look(f *flight, cause error, started time.Time) (first uint64, known bool, err error) {
	if s.c.cfg.Link.Online() != nil {
		return 0, false, nil
	}
	s.mu.Lock()
	first = f.first
	s.mu.Unlock()
	if first > 0 {
		return first, true, nil // it was republished
	}
	ctx, cancel := context.WithTimeout(s.c.ctx, retryPause*100)
	defer cancel()
	first, ok, err := s.c.bucket.Committed(ctx, f.id, f.writes, f.after)
	switch {
	case err != nil:
		return 0, false, nil
	case ok:
		return first, true, nil
	case errors.Is(cause, wire.ErrBadRevision):
		return 0, true, cause // it was not made, and cannot be any more
	case time.Since(started) > doubt:
		return 0, true, wire.Errorf(wire.Timeout, "context %q: not written (%w)", s.name, cause)
	}
	return 0, false, nil
}

// confirm sees to it that the replica has an acknowledged flight, and returns the sequence
// of its last write. It is republished at about the same time, behind what others wrote
// before it; put there by itself it would be ahead of that.
func (s *shared) confirm(f *flight, first uint64) uint64 {
	entries := kv.Entries(f.id, first, f.writes)
	if !s.hasArrived(f) {
		if len(f.ops) > 0 {
			s.catchUp(f)
		}
		s.replica.Confirm(entries)
	}
	s.c.confirmName(entries)
	return first + uint64(len(entries)) - 1
}

// catchUp reads what was written before a flight, and with it: what it has not heard of
// itself, it may have missed of others, too, and its own must not show without that.
func (s *shared) catchUp(f *flight) {
	ctx, cancel := context.WithTimeout(s.c.ctx, catchUpWithin)
	defer cancel()
	if f.arrived != nil {
		go func() {
			select {
			case <-f.arrived:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	if err := s.replica.CatchUp(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, wire.ErrCanceled) {
		s.c.log.Debug("a write is confirmed before what may have been written before it", slog.String("context", s.name), slog.Any("error", err))
	}
}

// hasArrived waits a moment for a flight to be republished.
func (s *shared) hasArrived(f *flight) bool {
	if f.arrived == nil {
		return false
	}
	timeout := time.NewTimer(arriveWithin)
	defer timeout.Stop()
	select {
	case <-f.arrived:
		return true
	case <-timeout.C:
	case <-s.c.ctx.Done():
	}
	return false
}

// verify finds out whether a conditional write shows: something may have slipped
// in between its plan and its commit, and is then on top of it. It is refused only
// if nothing of it shows: what somebody may have read cannot be refused any more.
func (s *shared) verify(f *flight, last uint64) error {
	ctx, cancel := context.WithTimeout(s.c.ctx, wire.WriteTimeout)
	defer cancel()
	first := last - uint64(len(f.writes)) + 1
	t, err := s.snapshot(time.Now().Add(wire.WriteTimeout))
	for _, e := range f.ops[0].edits {
		if err != nil {
			break
		}
		shows, later := t.Landed(e.Path, first, last)
		if later {
			shows, err = s.showed(ctx, f, t.Above(e.Path), first)
		}
		if shows && err == nil {
			return nil
		}
	}
	if err != nil {
		return errFinal{wire.Errorf(wire.Timeout, "context %q: the write was made and may be hidden by a newer one (%w)", s.name, err)}
	}
	return errFinal{s.changed(*f.ops[0].ifRevision, t)}
}

// showed says whether nothing was written at the keys after the flight's plan and
// before its commit.
func (s *shared) showed(ctx context.Context, f *flight, keys []subjects.Key, first uint64) (bool, error) {
	for _, key := range keys {
		if slices.ContainsFunc(f.writes, func(w kv.Write) bool { return w.Key == key }) {
			continue // its condition has seen to that
		}
		if hidden, err := s.c.bucket.Between(ctx, key, f.planned, first); hidden || err != nil {
			return false, err
		}
	}
	return true, nil
}

// land ends a flight that has to be planned again.
func (s *shared) land(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == f {
		s.flight = nil
	}
}

// finish settles a flight and tells its operations; false when nothing waits.
func (s *shared) finish(f *flight, revision uint64, err error) bool {
	if final, ok := errors.AsType[errFinal](err); ok {
		err = final.error
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false // close has told them
	}
	if s.flight == f && !f.settled {
		s.settle()
		s.show(nil)
	}
	s.flight = nil
	for _, o := range f.ops {
		s.c.end(o, Ack{Revision: revision}, err)
	}
	if s.tree.Keys() >= s.c.cfg.CompactAt && !s.compacting {
		s.compacting = true
		s.c.wg.Go(func() {
			s.sleep(compactJitter)
			s.compact(false)
			s.mu.Lock()
			s.compacting = false
			s.mu.Unlock()
		})
	}
	s.sending = len(s.pending) > 0
	return s.sending
}

// isOld says whether the context needs a checkpoint before it is written to. mu is held.
func (s *shared) isOld() bool {
	return s.tree.Exists() && time.Since(s.rooted) > s.c.checkpointEvery()
}

// compact leaves of the context's keys the root alone, or of very many some. Unless it
// must, it is left for later if the history has not recorded what it takes away.
func (s *shared) compact(must bool) {
	for range conflictTries {
		s.mu.Lock()
		needed := (s.tree.Keys() >= s.c.cfg.CompactAt || s.isOld()) && !s.closed
		s.mu.Unlock()
		if !needed || s.c.online() != nil {
			return
		}
		t, upTo, err := s.snapshotUpTo(time.Now().Add(wire.WriteTimeout))
		if err != nil {
			return // the next write tries again
		}
		writes := t.Checkpoint(Writer{Node: s.c.cfg.Self}.String(), upTo)
		if len(writes) == 0 {
			return
		}
		s.label(writes)
		seen(writes, t.Seen())
		if err := s.recorded(writes); err != nil {
			s.c.stats.unrecorded.Add(1)
			s.c.log.Debug("the history has not recorded what a compaction takes away", slog.String("context", s.name), slog.Any("error", err))
			s.mu.Lock()
			s.rooted = time.Now() // or every write would wait
			s.mu.Unlock()
			if !must {
				return
			}
		}
		id := newID()
		ctx, cancel := context.WithTimeout(s.c.ctx, wire.WriteTimeout)
		first, err := s.c.bucket.Commit(ctx, id, writes)
		cancel()
		if err == nil {
			s.c.stats.compactions.Add(1)
			s.confirm(&flight{id: id, writes: writes}, first)
			return
		}
		if !errors.Is(err, wire.ErrBadRevision) {
			s.c.log.Debug("compaction failed", slog.String("context", s.name), slog.Any("error", err))
			return
		}
		s.sleep(conflictPause * 4)
	}
}
