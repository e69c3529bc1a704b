package contexts

import (
	"cmp"
	"context"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// whoIs is who an app is for people, nobody once it has left.
func (c *Contexts) whoIs(app subjects.App) kv.Who {
	if app == "" || c.cfg.Identity == nil {
		return kv.Who{}
	}
	id, _ := c.cfg.Identity(app)
	return kv.Who{Application: id.Application, User: cmp.Or(id.OSUser, id.User), Machine: id.Machine}
}

// when is a time of the server by this machine's clock; now if it is not known.
func (c *Contexts) when(t time.Time) time.Time {
	now, ok := c.bucket.ServerTime()
	if !ok || t.IsZero() {
		return time.Now()
	}
	return time.Now().Add(t.Sub(now))
}

// checkpointEvery is how old the newest write of the root may become.
func (c *Contexts) checkpointEvery() time.Duration {
	if age := time.Duration(c.age.Load()); age > 0 {
		return min(checkpointEvery, age/checkpointShare)
	}
	return checkpointEvery
}

// Past is a context as it was.
type Past struct {
	Name string
	// Sequence is what was asked for, or the newest sequence of the bucket by the time
	// that was; before the batch, if that is inside of one.
	Sequence uint64
	// Exists says whether there was such a context then, and Revision what its revision
	// was. Time is when that was written, zero if it is not known.
	Exists   bool
	Revision uint64
	Time     time.Time
	// Object is nil if there was none.
	Object *kv.Value
}

// Diff lists what leads to another moment of the context.
func (p Past) Diff(to Past) []Change { return public(kv.Diff(p.Object, to.Object)) }

// ServerTime is the present time of the server, by which the past is told; this
// machine's while that is not known.
func (a *App) ServerTime() time.Time {
	if t, ok := a.c.bucket.ServerTime(); ok {
		return t
	}
	return time.Now()
}

// At is what a context was at a sequence of the bucket: the Revision of a State, that
// of a write, or the Sequence of an Entry. It is folded from the history. The error
// has [kv.ErrNotRecorded] in its chain if that does not have all that is needed: it
// does not reach back so far, or has a hole. The others are bad-name, denied, offline,
// unavailable, timeout and canceled.
func (a *App) At(ctx context.Context, name string, sequence uint64) (Past, error) {
	return a.past(ctx, name, func(h *kv.History, token subjects.Token) (*kv.Past, error) { return h.At(ctx, token, sequence) })
}

// AtTime is [App.At] at a time of the server's clock.
func (a *App) AtTime(ctx context.Context, name string, t time.Time) (Past, error) {
	return a.past(ctx, name, func(h *kv.History, token subjects.Token) (*kv.Past, error) { return h.AtTime(ctx, token, t) })
}

func (a *App) past(ctx context.Context, name string, read func(*kv.History, subjects.Token) (*kv.Past, error)) (Past, error) {
	token, err := a.mayLookBack(ctx, name)
	if err != nil {
		return Past{}, err
	}
	p, err := read(a.c.bucket.History(), token)
	if err != nil {
		return Past{}, wire.AsError(err)
	}
	if p.Hidden {
		return Past{}, denied(toRead, name)
	}
	for _, e := range p.Metas {
		if meta, err := readMeta(e); err != nil || !a.c.may(a.id, meta, toRead) {
			return Past{}, denied(toRead, name)
		}
	}
	past := Past{Name: name, Sequence: p.Sequence, Exists: p.Tree.Exists(), Revision: p.Tree.Revision(), Object: p.Tree.View()}
	if past.Exists {
		past.Time = p.At
	}
	return past, nil
}

// mayLookBack is nil if the app may read the context as it is now. The past is held to
// the permissions that were in force then besides.
func (a *App) mayLookBack(ctx context.Context, name string) (subjects.Token, error) {
	s, err := a.c.get(name)
	if err != nil {
		return subjects.Token{}, err
	}
	defer a.c.release(s)
	if err := a.c.online(); err != nil {
		return s.token, err
	}
	if err := s.await(ctx); err != nil {
		return s.token, err
	}
	s.mu.Lock()
	meta := s.meta
	s.mu.Unlock()
	if !a.c.may(a.id, meta, toRead) {
		return s.token, denied(toRead, name)
	}
	return s.token, nil
}

// Revert makes the object of a context again what it was at a sequence, by one more
// write. A context that did not exist then is bad-name.
func (a *App) Revert(ctx context.Context, name string, sequence uint64, opts ...Option) (Ack, error) {
	p, err := a.At(ctx, name, sequence)
	if err != nil {
		return Ack{}, err
	}
	if !p.Exists {
		return Ack{}, wire.Errorf(wire.BadName, "there was no context %q at sequence %d", name, sequence)
	}
	return a.Set(ctx, name, p.Object.Payload(), opts...)
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
