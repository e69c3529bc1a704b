package contexts

import (
	"context"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// At is the object of a context as it was at a revision: that of a State, or of a
// write; nil if there was none. It is read from the bucket, which keeps 8 writes of
// each path; ok is false if what is needed is not there any more, because a path was
// written more often since, or a compaction, a conditional write or the end of the
// context took it away.
func (a *App) At(ctx context.Context, name string, revision uint64) (object *kv.Value, ok bool, err error) {
	s, err := a.c.get(name)
	if err != nil {
		return nil, false, err
	}
	defer a.c.release(s)
	if err := a.c.online(); err != nil {
		return nil, false, err
	}
	if err := s.await(ctx); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	meta := s.meta
	s.mu.Unlock()
	if !a.c.may(a.id, meta, toRead) {
		return nil, false, denied(toRead, name)
	}
	history, err := a.c.bucket.History(ctx, subjects.ContextKeys(s.token))
	if err != nil {
		return nil, false, wire.AsError(err)
	}
	t, ok := kv.Past(s.token, history, revision)
	if !ok {
		return nil, false, nil
	}
	return t.View(), true, nil
}

// ChangedSince says whether something at, above or below a path was written after a
// revision, as far as this node knows by now: also what was written after the State was
// taken, and what apps of this node have written that is not acknowledged. After a
// compaction every path counts as written at the newest of all. It must not be called
// from an Edit of a [Write].
func (s State) ChangedSince(revision uint64, path ...string) bool {
	if s.of == nil || s.Denied {
		return false
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	for _, o := range s.of.onTop() {
		for _, e := range o.edits {
			if !o.quiet && related(e.Path, path) {
				return true
			}
		}
	}
	return s.of.tree.Changed([]kv.Edit{{Path: path}}, revision)
}

// onTop are the operations that are on top of the tree. mu is held.
func (s *shared) onTop() []*op {
	list := make([]*op, 0, len(s.kept)+len(s.pending))
	for _, k := range s.kept {
		list = append(list, k.op)
	}
	return append(list, s.pending...)
}

// related says whether one path is at, above or below another.
func related(a, b []string) bool {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
