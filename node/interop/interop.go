package interop

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Config connects an Interop to its node.
type Config struct {
	Realm     subjects.Realm
	Self      subjects.Node
	Boot      string
	Directory *directory.Directory
	// Control carries calls, Data the streams and every body above
	// wire.BulkBody.
	Control, Data *link.Link
	Logger        *slog.Logger
}

// Interop is the methods and streams of one node in one realm.
type Interop struct {
	cfg  Config
	log  *slog.Logger
	ctx  context.Context // ends with Close
	stop context.CancelCauseFunc
	wg   sync.WaitGroup

	mu      sync.Mutex // guards the maps below; never held across I/O or callbacks
	apps    map[subjects.App]*app
	feeds   map[string]*feed         // by branch subject
	legs    map[string]*leg          // remote legs by subscription id
	pubs    map[string]*Subscriber   // remote subscribers by subscription id
	waiting map[subjects.App]flights // calls to other nodes, by target
	serving map[string]*flight       // calls being served for other nodes, by callKey
	recent  callMemory
	early   map[string]time.Time // cancellations that came before their calls
	subs    []*nats.Subscription
	private *nats.Subscription
	ask     *nats.Subscription
	closed  bool
	sealed  bool

	lane   *link.Lane                    // streams and private data, in their order
	rounds sync.Map                      // lower-case method name -> *atomic.Uint64
	online atomic.Pointer[chan struct{}] // closed and replaced at each reconnect
	stats  counters
}

// flight is a call being made or served; cancel ends it with a cause.
type flight struct{ cancel context.CancelCauseFunc }

type flights map[*flight]struct{}

// app is one local app.
type app struct {
	id       subjects.App
	identity wire.Identity
	ctx      context.Context // ends when the app leaves
	leave    context.CancelCauseFunc

	pending atomic.Int64 // calls in flight that it made
	serving atomic.Int64 // calls that it is serving

	mu      sync.Mutex         // guards what follows
	methods map[string]*method // by lower-case name
	// together says that several methods are being changed, and the directory is
	// told at the end.
	together bool
	subs     map[*Subscription]struct{}
	flights  flights // calls that it makes and serves; nil once it has left
}

// enter notes a call, so that it ends when the app leaves.
func (a *app) enter(f *flight) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.flights == nil {
		return wire.Errorf(wire.TargetGone, "app %s has left", a.id)
	}
	a.flights[f] = struct{}{}
	return nil
}

func (a *app) exit(f *flight) {
	a.mu.Lock()
	delete(a.flights, f)
	a.mu.Unlock()
}

// method is what an app registered: one of a handler, a deferred server and a
// stream.
type method struct {
	def      *wire.Method
	token    subjects.Token
	handler  Handler
	deferred Deferred
	stream   *Stream
}

// Handler serves a method. Its result is any value that encodes to msgpack, a
// [wire.Payload] or json.RawMessage. An error that is a *wire.Error keeps its
// code, any other becomes app-error. ctx ends with the call's deadline, when
// the caller cancels, and when the app leaves.
type Handler func(ctx context.Context, c *Call) (any, error)

// Call is what a handler is called with.
type Call struct {
	Method string
	Args   wire.Payload
	// Caller is the calling app. Its User, Machine, Node and App were stamped
	// by its node; for a plain NATS client only Application and Node are set,
	// to the caller token of its subject.
	Caller wire.Identity
	ID     string
	// Trace is the W3C trace context, if the caller sent one.
	Trace Trace
	// Detail is a JSON object that a gateway client sent beside the arguments.
	Detail string
	// Claimed is the app that the sender says it is, where the directory does not
	// have that (yet) and Caller is its node only. Nobody vouches for it.
	Claimed subjects.App
}

// Trace is a W3C trace context.
type Trace struct{ Parent, State string }

// New makes an Interop with no apps.
func New(cfg Config) *Interop {
	x := &Interop{
		cfg: cfg, log: cfg.Logger, apps: map[subjects.App]*app{}, feeds: map[string]*feed{}, legs: map[string]*leg{},
		pubs: map[string]*Subscriber{}, waiting: map[subjects.App]flights{}, serving: map[string]*flight{}, recent: newCallMemory(), early: map[string]time.Time{},
	}
	if x.log == nil {
		x.log = slog.New(slog.DiscardHandler)
	}
	x.ctx, x.stop = context.WithCancelCause(context.Background())
	ch := make(chan struct{})
	x.online.Store(&ch)
	x.lane = cfg.Data.Lane()
	x.wg.Go(x.watch)
	x.wg.Go(x.tick)
	return x
}

// Attach subscribes this node to its calls, its control subject and its
// private data. It is called before the node is in the directory,
// and again if it failed.
func (x *Interop) Attach(ctx context.Context) error {
	r, self := x.cfg.Realm, x.cfg.Self
	for _, s := range []struct {
		link    *link.Link
		subject subjects.Subject
		h       nats.MsgHandler
	}{
		{x.cfg.Control, r.CallFilter(self), x.onCall},
		{x.cfg.Control, r.CtlFilter(self), x.onCtl},
	} {
		sub, err := s.link.Subscribe(ctx, string(s.subject), "", s.h, nil)
		if err != nil {
			x.detachAll() // it is tried again as a whole
			return err
		}
		x.mu.Lock()
		x.subs = append(x.subs, sub)
		x.mu.Unlock()
	}
	sub, err := x.lane.Subscribe(ctx, string(r.PushFilter(self)), x.onPush)
	if err != nil {
		x.detachAll()
		return err
	}
	x.mu.Lock()
	x.private = sub
	x.mu.Unlock()
	return nil
}

// detachAll ends what Attach began.
func (x *Interop) detachAll() {
	x.mu.Lock()
	subs, private := x.subs, x.private
	x.subs, x.private = nil, nil
	x.mu.Unlock()
	for _, s := range subs {
		x.cfg.Control.Unsubscribe(s)
	}
	if private != nil {
		x.lane.Unsubscribe(private)
	}
}

// AskGroup joins the queue group that answers calls by name, once the
// directory is complete.
func (x *Interop) AskGroup(ctx context.Context) error {
	sub, err := x.cfg.Control.Subscribe(ctx, string(x.cfg.Realm.AskFilter()), subjects.AskQueue, x.onAsk, nil)
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.ask = sub
	x.mu.Unlock()
	return nil
}

// LeaveAskGroup is what a stopping node does first.
func (x *Interop) LeaveAskGroup() {
	x.mu.Lock()
	ask := x.ask
	x.ask = nil
	x.mu.Unlock()
	if ask != nil {
		x.cfg.Control.Unsubscribe(ask)
	}
}

// Close ends every app, call, stream and subscription and waits for all
// goroutines, handlers that ignore their context included.
func (x *Interop) Close() {
	x.LeaveAskGroup()
	x.mu.Lock()
	x.closed = true
	apps := make([]subjects.App, 0, len(x.apps))
	for id := range x.apps {
		apps = append(apps, id)
	}
	x.mu.Unlock()
	for _, id := range apps {
		x.Leave(id)
	}
	x.stop(wire.Errorf(wire.TargetGone, "node %s is stopping", x.cfg.Self))
	x.mu.Lock()
	x.sealed = true // a callback that still runs must not add to what Wait waits for
	x.mu.Unlock()
	x.detachAll()
	x.wg.Wait()
	x.lane.Close()
}

// spawn runs f on a goroutine that Close waits for. It is for messages that
// come in; when the node has stopped it does nothing, and the sender hears that
// the node has left.
func (x *Interop) spawn(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.sealed {
		x.wg.Go(f)
	}
}

// Join adds a local app; domains is nil unless it is a gateway client.
func (x *Interop) Join(id subjects.App, identity wire.Identity, domains map[string]string) error {
	a := &app{id: id, identity: identity, methods: map[string]*method{}, subs: map[*Subscription]struct{}{}, flights: flights{}}
	a.ctx, a.leave = context.WithCancelCause(x.ctx)
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		a.leave(nil)
		return wire.Errorf(wire.Unavailable, "node %s is stopping", x.cfg.Self)
	}
	x.apps[id] = a
	x.mu.Unlock()
	if err := x.cfg.Directory.AddApp(id, identity, domains); err != nil {
		x.mu.Lock()
		delete(x.apps, id)
		x.mu.Unlock()
		a.leave(nil)
		return err
	}
	return nil
}

// Leave removes a local app: its calls and the calls to it end with
// target-gone, its streams and subscriptions close.
func (x *Interop) Leave(id subjects.App) {
	x.mu.Lock()
	a := x.apps[id]
	delete(x.apps, id)
	x.mu.Unlock()
	if a == nil {
		return
	}
	a.mu.Lock()
	methods, subs, calls := a.methods, a.subs, a.flights
	a.methods, a.subs, a.flights = map[string]*method{}, map[*Subscription]struct{}{}, nil
	a.mu.Unlock()
	gone := wire.Errorf(wire.TargetGone, "app %s has left; the call may or may not have run", id)
	for f := range calls {
		f.cancel(gone)
	}
	for s := range subs {
		s.Close()
	}
	for _, m := range methods {
		if m.stream != nil {
			m.stream.end(ReasonAppLeft)
		}
	}
	a.leave(gone)
	x.cfg.Directory.RemoveApp(id)
}

// Register offers a method. Apps of this node see it at once; others when the
// directory has settled.
func (x *Interop) Register(id subjects.App, def wire.Method, h Handler) error {
	def.Streaming = false
	if h == nil {
		return wire.Errorf(wire.BadPayload, "method %q without a handler", def.Name)
	}
	return x.offer(id, &method{def: &def, handler: h})
}

func (x *Interop) offer(id subjects.App, m *method) error {
	if m.def.Name == "" {
		return wire.Errorf(wire.BadName, "a method or stream needs a name")
	}
	token, err := subjects.Encode(m.def.Name)
	if err != nil {
		return wire.AsError(err)
	}
	if _, err := wire.Encode(m.def.Flags); err != nil {
		return wire.Errorf(wire.BadPayload, "flags of %q: %w", m.def.Name, err)
	}
	m.token = token
	a, err := x.app(id)
	if err != nil {
		return err
	}
	key := strings.ToLower(m.def.Name)
	a.mu.Lock()
	switch {
	case a.methods[key] != nil:
		err = wire.Errorf(wire.Rejected, "a method or stream with the name %q already exists in this app", m.def.Name)
	case len(a.methods) >= wire.MaxMethods:
		err = wire.Errorf(wire.Limit, "methods of app %s: %d, the limit is %d (%s)", id, len(a.methods)+1, wire.MaxMethods, m.def.Name)
	default:
		a.methods[key] = m
		err = x.publishMethods(a)
		if err != nil {
			delete(a.methods, key)
		}
	}
	a.mu.Unlock()
	return err
}

// publishMethods tells the directory what an app offers; a.mu is held so that
// two changes cannot overtake each other.
func (x *Interop) publishMethods(a *app) error {
	if a.together {
		return nil
	}
	defs := make([]*wire.Method, 0, len(a.methods))
	for _, m := range a.methods {
		defs = append(defs, m.def)
	}
	slices.SortFunc(defs, func(p, q *wire.Method) int { return strings.Compare(p.Name, q.Name) })
	return x.cfg.Directory.SetMethods(a.id, defs)
}

// Together tells the directory once of all methods that f offers and withdraws for
// an app.
func (x *Interop) Together(id subjects.App, f func()) error {
	a, err := x.app(id)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.together = true
	a.mu.Unlock()
	f()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.together = false
	return x.publishMethods(a)
}

// Unregister withdraws a method; calls that it is serving go on.
func (x *Interop) Unregister(id subjects.App, name string) error {
	a, err := x.app(id)
	if err != nil {
		return err
	}
	key := strings.ToLower(name)
	a.mu.Lock()
	m := a.methods[key]
	if m == nil || m.stream != nil {
		a.mu.Unlock()
		return wire.Errorf(wire.NoServer, "method %q is not registered by this app", name)
	}
	delete(a.methods, key)
	err = x.publishMethods(a)
	a.mu.Unlock()
	return err
}

func (x *Interop) app(id subjects.App) (*app, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if a := x.apps[id]; a != nil {
		return a, nil
	}
	return nil, wire.Errorf(wire.TargetGone, "app %s has left", id)
}

// encode turns what users pass into a payload.
func encode(v any) (wire.Payload, error) {
	switch v := v.(type) {
	case wire.Payload:
		return v, v.Check()
	case json.RawMessage:
		p := wire.Payload{Format: wire.JSON, Data: v}
		return p, p.Check()
	}
	return wire.Encode(v)
}

// newID is 22 characters of 128 random bits.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// errServerGone ends calls whose server the directory has removed.
var errServerGone = wire.Errorf(wire.TargetGone, "the server's app has gone; the call may or may not have run")

// watch ends calls whose target has gone, and follows streams that come.
func (x *Interop) watch() {
	for {
		changed := x.cfg.Directory.Changed()
		view := x.cfg.Directory.View()
		x.mu.Lock()
		var gone []*flight
		for id, calls := range x.waiting {
			if _, ok := view.App(id); !ok {
				gone = slices.AppendSeq(gone, maps.Keys(calls))
			}
		}
		x.mu.Unlock()
		for _, f := range gone {
			f.cancel(errServerGone)
		}
		select {
		case <-changed:
		case <-x.ctx.Done():
			return
		}
	}
}

// errOf is why a context ended, with its wire code.
func errOf(ctx context.Context) error {
	cause := context.Cause(ctx)
	var w *wire.Error
	switch {
	case errors.As(cause, &w):
		return cause
	case errors.Is(cause, context.DeadlineExceeded):
		return wire.Errorf(wire.Timeout, "no result in time; the call may or may not have run")
	default:
		return wire.Errorf(wire.Canceled, "canceled by the caller; the call may or may not have run")
	}
}
