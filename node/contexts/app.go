package contexts

import (
	"context"
	"iter"
	"slices"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// App is the contexts of a realm as one app has them. Values that it takes are
// whatever encodes to msgpack, a wire.Payload, or a json.RawMessage.
//
// The errors of all writes are bad-name, bad-payload, limit, bad-revision,
// denied, offline, unavailable, storage-full, busy, canceled, and timeout, which
// alone means that the write may have been made. Success is an [Ack].
type App struct {
	c  *Contexts
	id subjects.App
	by Writer
}

// Ack says how safe a write is that has succeeded.
type Ack struct {
	// Revision is the sequence of the write in the realm's stream, which is on the disks
	// of NATS; 0 while Journalled.
	Revision uint64
	// Journalled says that the write is on the disk of this node's machine, because the
	// fabric was away. It is made when the fabric is back, or an [Overwritten] with this
	// ID says that it was not.
	Journalled bool
	// ID is the id of a journalled write, else empty.
	ID string
}

// String is durable or journalled.
func (a Ack) String() string {
	if a.Journalled {
		return "journalled"
	}
	return "durable"
}

// For is the contexts for an app of this node.
func (c *Contexts) For(app subjects.App) *App {
	return &App{c: c, id: app, by: Writer{App: app, Node: c.cfg.Self}}
}

// Names lists the contexts of the realm that the app may read, in byte order.
func (a *App) Names(ctx context.Context) ([]string, error) { return a.c.listNames(ctx, a.id) }

// WatchNames yields a Created for each context that exists and that the app may
// read, then what is created and destroyed, until ctx ends or the app leaves. While
// the fabric is offline nothing comes; what happened meanwhile comes afterwards.
func (a *App) WatchNames(ctx context.Context) iter.Seq[NameEvent] { return a.c.watchNames(ctx, a.id) }

// Get returns the state of a context. Its first use waits for a snapshot; a
// context that does not exist is a State that says so. The errors are bad-name,
// offline, unavailable, denied, timeout and canceled.
func (a *App) Get(ctx context.Context, name string) (State, error) {
	s, err := a.c.get(name)
	if err != nil {
		return State{}, err
	}
	defer a.c.release(s)
	if err := s.await(ctx); err != nil {
		return State{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.c.may(a.id, s.meta, toRead) {
		return State{}, denied(toRead, name)
	}
	s.reads(a.id, s.lates)
	return s.state().public(s), nil
}

// CatchUp returns when this node knows everything of a context that was acknowledged
// before the call, on whatever node: what Get and watches tell then is no older. The
// errors are bad-name, offline, unavailable, timeout and canceled.
func (a *App) CatchUp(ctx context.Context, name string) error {
	s, err := a.c.get(name)
	if err != nil {
		return err
	}
	defer a.c.release(s)
	if err := a.c.online(); err != nil {
		return err
	}
	if err := s.replica.CatchUp(ctx); err != nil {
		return wire.AsError(err)
	}
	return nil
}

// Watch yields the state of a context and then each change. A context that does
// not exist yet can be watched; one that the app may not read looks as if it did
// not exist, except for State.Denied.
func (a *App) Watch(_ context.Context, name string) (*Watch, error) {
	return a.c.watch(a.id, name, nil)
}

// WatchFunc is [App.Watch] for a watch that is polled: wake is called whenever
// [Watch.Poll] may have something to return that it had not before, maybe before
// WatchFunc returns. It is called with locks held and must only signal.
func (a *App) WatchFunc(name string, wake func()) (*Watch, error) { return a.c.watch(a.id, name, wake) }

// Set replaces the object of a context, or creates the context.
func (a *App) Set(ctx context.Context, name string, object any, opts ...Option) (Ack, error) {
	v, err := a.object(object)
	if err != nil {
		return Ack{}, err
	}
	return a.edit(ctx, name, []kv.Edit{{Value: v}}, opts)
}

// Update replaces top-level keys by those of object; one that is nil is removed.
// It creates the context if there is none.
func (a *App) Update(ctx context.Context, name string, object any, opts ...Option) (Ack, error) {
	v, err := a.object(object)
	if err != nil {
		return Ack{}, err
	}
	var edits []kv.Edit
	for _, m := range v.Members() {
		if m.Value.IsNil() {
			m.Value = nil
		}
		edits = append(edits, kv.Edit{Path: []string{m.Name}, Value: m.Value})
	}
	if len(edits) == 0 && len(opts) == 0 {
		_, ack, err := a.Create(ctx, name, v.Payload())
		return ack, err
	}
	return a.edit(ctx, name, edits, opts)
}

// PathValue is a value for a path; nil, or a value that is nil, removes what is
// there.
type PathValue struct {
	Path  []string
	Value any
}

// SetPath puts a value at a path and leaves everything beside it alone; what is
// missing on the way becomes objects. nil removes what is there.
func (a *App) SetPath(ctx context.Context, name string, path []string, value any, opts ...Option) (Ack, error) {
	return a.SetPaths(ctx, name, []PathValue{{path, value}}, opts...)
}

// RemovePath removes what is at a path; nothing being there is no error. The
// context must exist, else the error is bad-name.
func (a *App) RemovePath(ctx context.Context, name string, path []string, opts ...Option) (Ack, error) {
	return a.SetPaths(ctx, name, []PathValue{{Path: path}}, opts...)
}

// SetPaths is several SetPath in their order, all or none.
func (a *App) SetPaths(ctx context.Context, name string, values []PathValue, opts ...Option) (Ack, error) {
	if err := checkCount(name, len(values)); err != nil {
		return Ack{}, err
	}
	edits := make([]kv.Edit, len(values))
	for i, pv := range values {
		v, err := parse(pv.Value)
		if err != nil {
			return Ack{}, err
		}
		if v.IsNil() {
			v = nil
		}
		if v == nil && len(pv.Path) == 0 {
			return Ack{}, wire.Errorf(wire.BadPayload, "an empty path is the whole object, which cannot be removed: use Destroy")
		}
		edits[i] = kv.Edit{Path: slices.Clone(pv.Path), Value: v}
	}
	return a.write(ctx, name, &op{edits: edits, mustExist: removes(edits)}, opts)
}

func removes(edits []kv.Edit) bool {
	return !slices.ContainsFunc(edits, func(e kv.Edit) bool { return e.Value != nil })
}

// Create makes a context with an object, unless there is one of this name, whose
// object is left as it is; created says which. The acknowledgement's revision is that of
// the context.
func (a *App) Create(ctx context.Context, name string, object any) (created bool, ack Ack, err error) {
	return a.CreateWith(ctx, name, object, Terms{})
}

// CreateWith is [App.Create] of a context with a lifetime and permissions. The
// creator of a ref-counted context holds it, see [App.Hold].
func (a *App) CreateWith(ctx context.Context, name string, object any, terms Terms) (created bool, ack Ack, err error) {
	v, err := a.object(object)
	if err != nil {
		return false, Ack{}, err
	}
	o, err := a.creation(v, terms)
	if err != nil {
		return false, Ack{}, err
	}
	if err := a.c.do(ctx, name, o, nil); err != nil {
		return false, Ack{}, err // the operation may not have ended
	}
	return o.made, o.ack, nil
}

// creation is the operation that makes a context.
func (a *App) creation(v *kv.Value, terms Terms) (*op, error) {
	meta, err := a.meta(terms)
	if err != nil {
		return nil, err
	}
	o := &op{task: create, edits: []kv.Edit{{Value: v, By: a.by.String()}}, meta: meta, by: a.by, bytes: v.Size()}
	o.encoded, err = wire.Marshal(meta)
	return o, err
}

// Destroy ends a context: its object is gone for everybody. A context that does
// not exist is bad-name.
func (a *App) Destroy(ctx context.Context, name string, opts ...Option) (Ack, error) {
	o := a.destruction()
	if err := a.c.do(ctx, name, o, opts); err != nil {
		return Ack{}, err // the operation may not have ended
	}
	return o.ack, nil
}

func (a *App) destruction() *op {
	return &op{task: destroy, edits: []kv.Edit{{}}, by: a.by}
}

func (a *App) edit(ctx context.Context, name string, edits []kv.Edit, opts []Option) (Ack, error) {
	return a.write(ctx, name, &op{edits: edits}, opts)
}

func (a *App) write(ctx context.Context, name string, o *op, opts []Option) (Ack, error) {
	o.by = a.by
	if err := o.take(name, o.edits); err != nil {
		return Ack{}, err
	}
	if err := a.c.do(ctx, name, o, opts); err != nil {
		return Ack{}, err // the operation may not have ended
	}
	return o.ack, nil
}

func checkCount(name string, paths int) error {
	switch {
	case paths == 0:
		return wire.Errorf(wire.BadPayload, "context %q: nothing to write", name)
	case paths > wire.MaxContextKeys:
		return wire.Errorf(wire.Limit, "paths in one write of context %q: %d, the limit is %d: set their parent instead", name, paths, wire.MaxContextKeys)
	}
	return nil
}

func (a *App) object(x any) (*kv.Value, error) {
	v, err := parse(x)
	if err == nil && !v.IsObject() {
		err = errNoObject()
	}
	return v, err
}

func errNoObject() error { return wire.Errorf(wire.BadPayload, "a context is an object") }

func parse(x any) (*kv.Value, error) {
	p, err := wire.Encode(x)
	if err != nil {
		return nil, err
	}
	return kv.ParseValue(p)
}
