package contexts

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/journal"
	"github.com/weft-fabric/weft/wire"
)

// whyGone is what a notice says of a write to a context that is not there any more.
const whyGone = "the context does not exist"

// replay makes what is kept, as far as nobody else has written there, until nothing is. An
// error says why it has to be tried again.
func (s *shared) replay() error {
	ctx, cancel := context.WithTimeout(s.c.ctx, replayTimeout)
	err := s.replica.CatchUp(ctx)
	cancel()
	if err == nil {
		err = s.resolve()
	}
	for err == nil {
		batch := s.batch()
		if len(batch) == 0 {
			return s.forget()
		}
		err = s.merge(batch)
	}
	return err
}

// resolve finds out what became of what was sent before.
func (s *shared) resolve() error {
	s.mu.Lock()
	attempts := slices.Clone(s.attempts)
	s.mu.Unlock()
	for _, a := range attempts {
		if !s.isOpen(a) {
			continue
		}
		made, err := s.outcome(a)
		if err != nil {
			return err
		}
		var batch []*journalled
		s.mu.Lock()
		a.settled = true
		for _, k := range s.kept {
			if made && slices.Contains(a.ops, k.key) {
				batch = append(batch, k)
			}
		}
		s.mu.Unlock()
		s.c.log.Debug("what was sent before the fabric went away", slog.String("context", s.name), slog.Bool("made", made))
		if err := s.settled(batch, a.lost); err != nil {
			return err
		}
	}
	return nil
}

// isOpen says whether the outcome of an attempt matters and is not known.
func (s *shared) isOpen(a *attempt) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !a.settled && slices.ContainsFunc(s.kept, func(k *journalled) bool { return slices.Contains(a.ops, k.key) })
}

// outcome says whether an attempt was made, and then sees to it that it is not later.
func (s *shared) outcome(a *attempt) (made bool, err error) {
	ctx, cancel := context.WithTimeout(s.c.ctx, replayTimeout)
	defer cancel()
	writes := make([]kv.Write, len(a.keys))
	for i, key := range a.keys {
		writes[i].Key = key
	}
	_, made, err = s.c.bucket.Committed(ctx, a.id, writes, a.after)
	switch {
	case err != nil || made:
		return made, err
	case time.Since(a.sent) < fenceFor:
		_, made, err = s.c.bucket.Fence(ctx, s.c.cfg.Self, a.id, a.keys[0])
		return made, err
	}
	return s.c.bucket.History().Made(ctx, s.token, a.id, a.after)
}

// recall finds out what became of the context since writes were made, where it was
// rewritten, and what it was then: after a restart nobody but the history knows.
func (s *shared) recall(batch []*journalled, t *kv.Tree) error {
	var rewritten []*journalled
	s.mu.Lock()
	s.touched = nil
	for _, k := range batch {
		if k.task != create && k.known && k.base > 0 && t.Exists() && slices.ContainsFunc(k.edits, func(e kv.Edit) bool {
			return t.ChangedSince(e.Path, k.base, s.own) == kv.Values
		}) {
			rewritten = append(rewritten, k)
		}
	}
	s.mu.Unlock()
	if len(rewritten) == 0 {
		return nil
	}
	first := slices.MinFunc(rewritten, func(a, b *journalled) int { return cmp.Compare(a.base, b.base) })
	if err := s.recallTouched(first.base, t.Seen()); err != nil {
		return err
	}
	for _, k := range rewritten {
		if k.was != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(s.c.ctx, replayTimeout)
		p, err := s.c.bucket.History().At(ctx, s.token, k.base)
		cancel()
		switch {
		case err == nil:
			s.mu.Lock()
			k.was = p.Tree.View()
			s.mu.Unlock()
		case errors.Is(err, kv.ErrNotRecorded):
		default:
			return wire.AsError(err)
		}
	}
	return nil
}

// recallTouched finds out who has written since a sequence. If the history is late for long
// the values have to tell.
func (s *shared) recallTouched(after, upTo uint64) error {
	ctx, cancel := context.WithTimeout(s.c.ctx, replayTimeout)
	defer cancel()
	list, err := s.c.bucket.History().Touched(ctx, s.token, after, upTo)
	if err != nil {
		s.c.log.Debug("the history does not tell who has written while the fabric was away", slog.String("context", s.name), slog.Any("error", err))
		return s.c.away()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		if k, ok := list[i].Key.Context(); ok && !k.Meta && !s.own(list[i].WriteID) {
			s.touched = append(s.touched, touch{list[i].Seq, k.Path})
		}
	}
	return nil
}

// touch is where somebody else has written.
type touch struct {
	seq  uint64
	path []string
}

// batch is what of the kept writes is made together: the first that makes or ends the
// context, or those before it.
func (s *shared) batch() []*journalled {
	s.mu.Lock()
	defer s.mu.Unlock()
	paths, bytes := 0, 0
	for i, k := range s.kept {
		paths, bytes = paths+len(k.edits), bytes+k.bytes
		switch {
		case i == 0 && k.task != edit:
			return slices.Clone(s.kept[:1])
		case i > 0 && (k.task != edit || paths > mergePaths || bytes > mergeBytes):
			return slices.Clone(s.kept[:i])
		}
	}
	return slices.Clone(s.kept)
}

// merge makes a batch on top of what there is by now.
func (s *shared) merge(batch []*journalled) error {
	for try := 1; ; try++ {
		t, upTo, err := s.snapshotUpTo(time.Now().Add(replayTimeout))
		if err != nil {
			return err
		}
		if err := s.recall(batch, t); err != nil {
			return err
		}
		s.mu.Lock()
		writes, edits, gone, err := s.reconcile(batch, t)
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if len(writes) == 0 {
			return s.settled(batch, gone)
		}
		f := &flight{id: newID(), ops: []*op{batch[0].op}, writes: writes, planned: upTo, until: time.Now().Add(replayTimeout)}
		a, err := s.attempt(f, batch, gone)
		if err != nil {
			return err
		}
		last, err := s.commit(f)
		switch {
		case err == nil:
			s.note(a)
			if s.c.outage(s.name) != LocalWins {
				gone = append(gone, s.hidden(f, edits, last)...)
			}
			return s.settled(batch, gone)
		case f.doubt:
			return err // resolve finds out
		}
		s.drop(a)
		switch {
		case errors.Is(err, wire.ErrBadRevision) && try < conflictTries:
			s.c.stats.conflicts.Add(1)
			s.sleep(time.Duration(min(try, 10)) * conflictPause)
		case isAway(err), isUnusable(err), errors.Is(err, wire.ErrBadRevision), errors.Is(err, wire.ErrBusy), errors.Is(err, wire.ErrStorageFull):
			return err
		default: // the stream refuses it and always will
			if len(edits) == 0 {
				gone = lostOf(batch[0], batch[0].edits, err.Error())
			}
			for _, e := range edits {
				gone = append(gone, lost{e.op.key, e.edit, err.Error()})
			}
			return s.settled(batch, gone)
		}
	}
}

// sentEdit is an edit of a kept write.
type sentEdit struct {
	op   *journalled
	edit kv.Edit
}

// reconcile plans a batch on a snapshot: writes make the edits, and gone are those that are
// not made. mu is held.
func (s *shared) reconcile(batch []*journalled, t *kv.Tree) (writes []kv.Write, edits []sentEdit, gone []lost, err error) {
	first, local := batch[0], s.c.outage(s.name) == LocalWins
	switch first.task {
	case destroy:
		switch {
		case !t.Exists():
		case !local && s.isChanged(first, first.edits[0], t):
			gone = lostOf(first, first.edits, whyOverwritten)
		default:
			writes = t.Destruction(first.by.String())
			s.label(writes, first.op)
		}
		return writes, nil, gone, nil
	case create:
		if !t.Exists() {
			writes, err = t.Create(first.edits[0], first.encoded)
			s.label(writes, first.op)
		} else if !t.View().Equal(first.edits[0].Value) {
			gone = lostOf(first, first.edits, whyOverwritten)
		}
		return writes, nil, gone, err
	case edit:
	}
	view, supposed := t.View(), s.c.outages.suppose(s.name)
	var list []kv.Edit
	for _, k := range batch {
		if !t.Exists() && !k.known && supposed != nil && view == nil {
			list, view = append(list, kv.Edit{Value: supposed, By: k.by.String()}), supposed
		}
		for _, e := range k.edits {
			if why := s.keepsOut(k, e, t, view, local); why != "" {
				gone = append(gone, lost{k.key, e, why})
				continue
			}
			if view == nil {
				view = kv.Object()
			}
			now, err := view.Edited([]kv.Edit{e})
			switch {
			case err != nil:
				gone = append(gone, lost{k.key, e, err.Error()})
				continue
			case now.Size() > wire.MaxContext && now.Size() > view.Size():
				gone = append(gone, lost{k.key, e, "the context would be too large"})
				continue
			}
			view, list, edits = now, append(list, e), append(edits, sentEdit{k, e})
		}
	}
	if len(edits) == 0 {
		return nil, nil, gone, nil
	}
	if local && t.Exists() && !t.NeedsSnapshot(list) {
		writes, err = t.Plan(list)
	} else {
		writes, err = t.Rewrite(list)
	}
	ops := make([]*op, len(batch))
	for i, k := range batch {
		ops[i] = k.op
	}
	s.label(writes, ops...)
	return writes, edits, gone, err
}

// keepsOut is why an edit is not made, empty if it is. view is the object with those
// before it. mu is held.
func (s *shared) keepsOut(k *journalled, e kv.Edit, t *kv.Tree, view *kv.Value, local bool) string {
	switch {
	case !t.Exists() && k.mustExist && view == nil:
		return whyGone
	case local:
		return ""
	case s.isChanged(k, e, t):
		return whyOverwritten
	}
	return ""
}

// isChanged says whether somebody else has written at, above or below an edit's path since
// its base. mu is held.
func (s *shared) isChanged(k *journalled, e kv.Edit, t *kv.Tree) bool {
	now := t.View()
	if !k.known {
		// The writer knew nothing of it: only what is not there is added.
		for i := range e.Path {
			if v := now.At(e.Path[:i]); v != nil && !v.IsObject() {
				return true
			}
		}
		v := now.At(e.Path)
		return v != nil && !v.Equal(e.Value)
	}
	switch t.ChangedSince(e.Path, k.base, s.own) {
	case kv.Nobody:
		return false
	case kv.Somebody:
		return true
	case kv.Values:
	}
	if slices.ContainsFunc(s.touched, func(x touch) bool { return x.seq > k.base && related(x.path, e.Path) }) {
		return true
	}
	if k.was == nil {
		return true // nobody knows any more
	}
	was := k.was
	if then, err := was.Edited(s.made); err == nil {
		was = then
	}
	for i := range e.Path {
		if was.At(e.Path[:i]).IsObject() != now.At(e.Path[:i]).IsObject() {
			return true
		}
	}
	return !same(was.At(e.Path), now.At(e.Path))
}

func same(a, b *kv.Value) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(b)
}

// attempt journals what is about to be sent, so that it is known for the node's own
// whatever happens then.
func (s *shared) attempt(f *flight, batch []*journalled, gone []lost) (*attempt, error) {
	a := &attempt{key: s.c.outages.last.Add(1), id: f.id, after: f.planned, sent: time.Now(), lost: gone}
	for i := range f.writes {
		a.keys = append(a.keys, f.writes[i].Key)
	}
	for _, k := range batch {
		a.ops = append(a.ops, k.key)
	}
	change, err := a.put(s.name)
	if err == nil {
		err = s.c.outages.journal.Write(change)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts = append(s.attempts, a)
	return a, nil
}

// note says that an attempt has its outcome.
func (s *shared) note(a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.settled = true
}

// drop forgets an attempt that was refused.
func (s *shared) drop(a *attempt) {
	s.mu.Lock()
	s.attempts = slices.DeleteFunc(s.attempts, func(x *attempt) bool { return x == a })
	s.mu.Unlock()
	_ = s.c.outages.journal.Write(journal.Change{Key: a.key}) // deleting does not fail
}

// hidden are the edits of a flight that something is on top of which slipped in between
// its plan and its commit.
func (s *shared) hidden(f *flight, edits []sentEdit, last uint64) (gone []lost) {
	first := last - uint64(len(f.writes)) + 1
	t, err := s.snapshot(time.Now().Add(replayTimeout))
	if err != nil {
		return nil // it was made, and what is on top of it came after it as far as anybody knows
	}
	ctx, cancel := context.WithTimeout(s.c.ctx, replayTimeout)
	defer cancel()
	for _, e := range edits {
		shows, later := t.Landed(e.edit.Path, first, last)
		if later {
			shows, err = s.showed(ctx, f, t.Above(e.edit.Path), first)
		}
		if !shows && err == nil {
			gone = append(gone, lost{e.op.key, e.edit, whyOverwritten})
		}
	}
	return gone
}

// settled takes a batch out of the journal and off the view, and tells what was not made.
func (s *shared) settled(batch []*journalled, gone []lost) error {
	if len(batch) == 0 {
		return nil
	}
	list := s.notices(batch, gone)
	var changes []journal.Change
	for _, k := range batch {
		changes = append(changes, journal.Change{Key: k.key})
	}
	for _, n := range list {
		change, err := put(n.key, record{Overwritten: &n.Overwritten})
		if err != nil {
			return wire.AsError(err)
		}
		changes = append(changes, change)
	}
	if err := s.c.outages.journal.Write(changes...); err != nil {
		return err // it is found to be settled the next time
	}
	s.mu.Lock()
	s.kept = slices.DeleteFunc(s.kept, func(k *journalled) bool { return slices.Contains(batch, k) })
	s.c.outages.waiting.Add(-int64(len(batch)))
	for _, k := range batch {
		lost := slices.ContainsFunc(gone, func(l lost) bool { return l.op == k.key })
		if k.task == edit && !lost {
			s.made = append(s.made, k.edits...)
		}
		if !lost {
			s.c.stats.replayed.Add(1)
		}
	}
	if !s.closed {
		s.overlaid()
		s.show(nil)
	}
	s.mu.Unlock()
	if old := s.c.notify(list); len(old) > 0 {
		return s.c.outages.journal.Write(old...)
	}
	return nil
}

// forget ends the outage of a context: what was sent in it need not be told from what
// others have written any more.
func (s *shared) forget() error {
	s.mu.Lock()
	var changes []journal.Change
	for _, a := range s.attempts {
		changes = append(changes, journal.Change{Key: a.key})
	}
	held := s.retained
	s.attempts, s.made, s.retained = nil, nil, false
	s.mu.Unlock()
	if held {
		s.c.release(s)
	}
	return s.c.outages.journal.Write(changes...)
}
