package contexts

import (
	"context"
	"errors"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Hold keeps a ref-counted context alive until the app releases it or leaves. When it
// returns, the context exists and does not end before; a context that does not exist,
// or that ended meanwhile, is bad-name. Of other contexts, and where nobody counts,
// it does nothing. While the fabric is offline the hold counts on this node, and for
// the others when the fabric is back, unless they have ended the context before.
func (a *App) Hold(ctx context.Context, name string) error {
	s, err := a.c.get(name)
	if err != nil {
		return err
	}
	defer a.c.release(s)
	if err := s.await(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	exists, meta := s.view != nil, s.meta
	s.mu.Unlock()
	k := a.c.keeper
	switch {
	case !exists:
		return s.missing()
	case !a.c.may(a.id, meta, toRead):
		return denied(toRead, name)
	case k == nil || meta.value().Lifetime != RefCounted:
		return nil
	}
	before, err := k.add(a.id, name)
	if err != nil || before || a.c.online() != nil {
		return err
	}
	h, err := s.touch(ctx, a.by)
	if err != nil || h == (hold{}) {
		k.remove(a.id, name)
		return err
	}
	k.confirm(a.id, name, h)
	return nil
}

// Release ends a [App.Hold]. A ref-counted context that nobody holds then ends. An
// app that holds nothing of that name releases nothing.
func (a *App) Release(name string) {
	if k := a.c.keeper; k != nil {
		k.remove(a.id, name)
	}
}

// touch writes the metadata of a ref-counted context again, once others can see who
// holds it: whoever finds that nobody does ends the context on the condition that its
// metadata is as it was, and whoever finds this there knows that somebody has just
// begun to.
func (s *shared) touch(ctx context.Context, by Writer) (h hold, err error) {
	ctx, cancel := context.WithTimeout(ctx, wire.WriteTimeout)
	defer cancel()
	if err := s.c.cfg.Settle(ctx); err != nil {
		return hold{}, wire.AsError(err)
	}
	until, _ := ctx.Deadline()
	for {
		t, err := s.snapshot(until)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return hold{}, wire.AsError(err)
		}
		if !t.Exists() && !s.exists() {
			return hold{}, s.missing()
		}
		if !t.Exists() { // it is being made, or its end has not come here yet
			s.sleep(conflictPause)
			continue
		}
		e := t.Meta()
		m, err := readMeta(e)
		if err != nil || m.value().Lifetime != RefCounted {
			return hold{}, nil // nobody counts it
		}
		w := kv.Write{Key: subjects.ContextMeta(s.token), Op: kv.Put, Value: e.Value, Format: e.Format, By: by.String(), Who: s.c.whoIs(by.App), If: &e.Seq}
		id := newID()
		seq, err := s.c.bucket.Commit(ctx, id, []kv.Write{w})
		switch {
		case err == nil:
			s.confirm(&flight{id: id, writes: []kv.Write{w}}, seq)
			return hold{seq, m.ID}, nil
		case ctx.Err() != nil:
			return hold{}, wire.AsError(ctx.Err())
		case errors.Is(err, wire.ErrBadRevision), errors.Is(err, kv.ErrUnknown), isPassing(err):
		default:
			return hold{}, err
		}
		s.sleep(conflictPause)
	}
}
