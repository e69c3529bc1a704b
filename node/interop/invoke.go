package interop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
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

// Option changes a call or a subscription.
type Option interface{ apply(*options) }

type options struct {
	target  Target
	timeout time.Duration
	wait    time.Duration
	trace   Trace
	detail  string
	direct  func(Event) bool
}

// Target says which servers of a method or stream are meant. The zero value is
// [Best].
type Target struct {
	mode    targetMode
	filters []wire.Filter
	app     subjects.App
}

type targetMode uint8

const (
	best targetMode = iota
	all
	skipMine
	instances
	exactly
)

// The targets that need no filter.
var (
	// Best is a server on this machine if there is one, otherwise any; equals
	// take turns.
	Best = Target{}
	// All is every server that is known when called; for a subscription also
	// those that appear later.
	All = Target{mode: all}
	// SkipMine is All without the calling app itself.
	SkipMine = Target{mode: skipMine}
)

// Instances is every server that one of the filters selects, each once.
func Instances(filters ...wire.Filter) Target { return Target{mode: instances, filters: filters} }

// Exactly is one app.
func Exactly(app subjects.App) Target { return Target{mode: exactly, app: app} }

func (t Target) apply(o *options) { o.target = t }

type optionFunc func(*options)

func (f optionFunc) apply(o *options) { f(o) }

// Timeout is how long to wait for the result, wire.CallTimeout unless given
// and at most wire.MaxCallTimeout.
func Timeout(d time.Duration) Option { return optionFunc(func(o *options) { o.timeout = d }) }

// Wait is how long to wait for a server to appear; not at all unless given.
func Wait(d time.Duration) Option { return optionFunc(func(o *options) { o.wait = d }) }

// Detail gives a stream's app a JSON object beside the arguments of a
// subscription.
func Detail(object string) Option { return optionFunc(func(o *options) { o.detail = object }) }

// Direct offers the events of a subscription to f as they come, as long as nothing
// waits to be read; what f does not take is read with [Subscription.Events]. So the
// events of several subscriptions keep their order. f must not block or call back.
func Direct(f func(Event) bool) Option { return optionFunc(func(o *options) { o.direct = f }) }

// WithTrace passes a W3C trace context on.
func WithTrace(t Trace) Option { return optionFunc(func(o *options) { o.trace = t }) }

func collect(opts []Option) (options, error) {
	o := options{timeout: wire.CallTimeout}
	for _, opt := range opts {
		opt.apply(&o)
	}
	if o.timeout <= 0 || o.timeout > wire.MaxCallTimeout {
		return o, wire.Errorf(wire.Limit, "timeout %s: must be above 0 and at most %s", o.timeout, wire.MaxCallTimeout)
	}
	for _, f := range o.target.filters {
		if err := f.Check(); err != nil {
			return o, err
		}
	}
	return o, nil
}

// Result is the outcome of a call on one server.
type Result struct {
	Server wire.Identity
	Value  wire.Payload
	Err    error
}

// Results are the outcomes of one call, one per server.
type Results []Result

// Value is the first successful result.
func (rs Results) Value() wire.Payload {
	for _, r := range rs {
		if r.Err == nil {
			return r.Value
		}
	}
	return wire.Payload{}
}

// Err joins the errors of the servers that failed; nil if none did.
func (rs Results) Err() error {
	var errs []error
	for _, r := range rs {
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("%s on %s: %w", r.Server.Application, r.Server.Node, r.Err))
		}
	}
	return errors.Join(errs...)
}

// Invoke calls a method. The error is not nil when nothing was called, or when
// every server failed; then it is the first one's.
func (x *Interop) Invoke(ctx context.Context, caller subjects.App, name string, args any, opts ...Option) (Results, error) {
	o, err := collect(opts)
	if err != nil {
		return nil, err
	}
	a, err := x.app(caller)
	if err != nil {
		return nil, err
	}
	p, err := encode(args)
	if err != nil {
		return nil, err
	}
	if n := a.pending.Add(1); n > wire.MaxPendingCalls {
		a.pending.Add(-1)
		return nil, wire.Errorf(wire.Busy, "calls in flight of app %s: the limit is %d (%s)", caller, wire.MaxPendingCalls, name)
	}
	defer a.pending.Add(-1)
	x.stats.calls.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &flight{cancel}
	if err := a.enter(f); err != nil {
		return nil, err
	}
	defer a.exit(f)
	servers, err := x.find(ctx, name, o, caller, false)
	if err != nil {
		return nil, err
	}
	defer f.expire(o.timeout).Stop()
	out := &outgoing{caller: a.identity, method: name, args: p, o: o, deadline: time.Now().Add(o.timeout)}
	if o.target.mode == best {
		r := x.callBest(ctx, f, servers, out)
		return Results{r}, r.Err
	}
	return x.callAll(ctx, servers, out)
}

// expire ends the call after d. It is a timer rather than a context with a
// deadline, so that a call has one context and one cause.
func (f *flight) expire(d time.Duration) *time.Timer {
	return time.AfterFunc(d, func() { f.cancel(errExpired) })
}

var errExpired = wire.Errorf(wire.Timeout, "no result in time; the call may or may not have run")

// outgoing is one call on its way to one or several servers.
type outgoing struct {
	caller wire.Identity
	// forwarded is the real caller of an ask, "" for the node's own apps.
	forwarded subjects.Node
	method    string
	// id is the id of a forwarded ask, "" for a new one.
	id       string
	args     wire.Payload
	detail   string
	o        options
	deadline time.Time
}

// find selects servers, waiting for one to appear if the options say so.
func (x *Interop) find(ctx context.Context, name string, o options, caller subjects.App, streams bool) ([]directory.Server, error) {
	var timer <-chan time.Time
	if o.wait > 0 {
		t := time.NewTimer(o.wait)
		defer t.Stop()
		timer = t.C
	}
	for {
		changed := x.cfg.Directory.Changed()
		if servers := x.match(name, o.target, caller, streams); len(servers) > 0 {
			return servers, nil
		}
		if timer == nil {
			return nil, x.noServer(name, streams)
		}
		select {
		case <-changed:
		case <-timer:
			timer = nil
		case <-ctx.Done():
			return nil, errOf(ctx)
		}
	}
}

func (x *Interop) noServer(name string, streams bool) error {
	what := "method"
	if streams {
		what = "stream"
	}
	if err := x.cfg.Control.Online(); err != nil {
		return wire.Errorf(wire.NoServer, "no app on this machine offers %s %q, and other machines cannot be reached (%w)", what, name, err)
	}
	return wire.Errorf(wire.NoServer, "no app offers %s %q to this target", what, name)
}

// match lists the servers that a target selects, in the order of preference.
func (x *Interop) match(name string, t Target, caller subjects.App, streams bool) []directory.Server {
	servers := x.cfg.Directory.Servers(name)
	servers = slices.DeleteFunc(servers, func(s directory.Server) bool {
		switch {
		case s.Method.Streaming != streams:
			return true
		case t.mode == exactly:
			return s.App.ID != t.app
		case t.mode == skipMine:
			return s.App.ID == caller
		case t.mode == instances:
			return !slices.ContainsFunc(t.filters, func(f wire.Filter) bool { return f.Match(&s.App.Identity) })
		}
		return false
	})
	if t.mode != best || len(servers) < 2 {
		return servers
	}
	return x.prefer(name, servers)
}

// prefer puts living nodes before suspect ones and this machine before others,
// and turns equals round.
func (x *Interop) prefer(name string, servers []directory.Server) []directory.Server {
	rank := func(s directory.Server) int {
		r := 0
		if s.Suspect {
			r += 2
		}
		if !s.App.SameMachine {
			r++
		}
		return r
	}
	slices.SortStableFunc(servers, func(a, b directory.Server) int { return rank(a) - rank(b) })
	equals := 1
	for equals < len(servers) && rank(servers[equals]) == rank(servers[0]) {
		equals++
	}
	c, ok := x.rounds.Load(strings.ToLower(name))
	if !ok {
		c, _ = x.rounds.LoadOrStore(strings.ToLower(name), new(atomic.Uint64))
	}
	turn := int((c.(*atomic.Uint64).Add(1) - 1) % uint64(equals))
	return slices.Concat(servers[turn:equals], servers[:turn], servers[equals:])
}

// errUnsent marks a call that reached nobody, so that it may go elsewhere.
var errUnsent = wire.Errorf(wire.TargetGone, "the server's node does not answer; the call was not executed")

func (out *outgoing) callID() string {
	if out.id != "" {
		return out.id
	}
	return newID()
}

// callBest calls the first server that receives the call. ctx is the flight's.
func (x *Interop) callBest(ctx context.Context, f *flight, servers []directory.Server, out *outgoing) Result {
	var r Result
	for _, s := range servers {
		r = x.callOne(ctx, f, s, out)
		if !errors.Is(r.Err, errUnsent) || ctx.Err() != nil {
			break
		}
	}
	return r
}

// callAll calls every server, each with a context of its own.
func (x *Interop) callAll(ctx context.Context, servers []directory.Server, out *outgoing) (Results, error) {
	results := make(Results, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			results[i] = x.callOne(ctx, &flight{cancel}, s, out)
		})
	}
	wg.Wait()
	for _, r := range results {
		if r.Err == nil {
			return results, nil
		}
	}
	return results, results[0].Err
}

// callOne calls one server, in process or over NATS.
func (x *Interop) callOne(ctx context.Context, f *flight, s directory.Server, out *outgoing) Result {
	r := Result{Server: s.App.Identity}
	if s.App.Local {
		r.Value, r.Err = x.callLocal(ctx, f, s, out)
	} else {
		r.Value, r.Err = x.callRemote(ctx, f, s, out)
	}
	if r.Err != nil {
		x.stats.failed.Add(1)
	}
	return r
}

// callLocal runs the handler on a goroutine of its own, so that the caller gets
// its answer in time even from a handler that goes on.
func (x *Interop) callLocal(ctx context.Context, f *flight, s directory.Server, out *outgoing) (wire.Payload, error) {
	a, m, err := x.served(s.App.ID, s.Method.Name)
	if err != nil {
		return wire.Payload{}, err
	}
	if out.id != "" {
		if err := x.remember(out.forwarded, out.id); err != nil {
			return wire.Payload{}, err
		}
	}
	type outcome struct {
		p   wire.Payload
		err error
	}
	done := make(chan outcome, 1)
	call := &Call{Method: m.def.Name, Args: out.args, Caller: out.caller, ID: out.callID(), Trace: out.o.trace}
	x.wg.Go(func() {
		x.serve(ctx, f, a, m, call, func(p wire.Payload, err error) { done <- outcome{p, err} })
	})
	o := <-done
	return o.p, o.err
}

func (x *Interop) callRemote(ctx context.Context, f *flight, s directory.Server, out *outgoing) (wire.Payload, error) {
	msg, err := x.message(s, out)
	if err != nil {
		return wire.Payload{}, err
	}
	if err := x.await(s.App.ID, f); err != nil {
		return wire.Payload{}, err
	}
	defer x.awaited(s.App.ID, f)
	reply, err := x.route(len(msg.Data)).Request(ctx, msg)
	if err == nil {
		return result(reply)
	}
	return wire.Payload{}, x.callFailed(ctx, err, s, msg.Header.Get(wire.HeaderID))
}

// message is a call on the wire.
func (x *Interop) message(s directory.Server, out *outgoing) (*nats.Msg, error) {
	token, err := subjects.Encode(s.Method.Name)
	if err != nil {
		return nil, wire.AsError(err)
	}
	args, err := out.args.As(wire.Msgpack)
	if err != nil {
		return nil, err
	}
	if err := wire.CheckSize("arguments of "+s.Method.Name, len(args.Data), x.cfg.Control.MaxPayload()); err != nil {
		return nil, err
	}
	msg := &nats.Msg{
		Subject: string(x.cfg.Realm.CallSubject(s.App.Node, x.cfg.Self, s.App.ID, token)),
		Data:    args.Data,
		Header: nats.Header{
			wire.HeaderID:       {out.callID()},
			wire.HeaderDeadline: {strconv.FormatInt(max(1, time.Until(out.deadline).Milliseconds()), 10)},
		},
	}
	if out.forwarded != "" {
		msg.Header[wire.HeaderCaller] = []string{string(out.forwarded)}
	} else {
		msg.Header[wire.HeaderApp] = []string{out.caller.App}
	}
	if out.detail != "" {
		msg.Header[wire.HeaderDetail] = []string{wire.EncodeHeaderText(out.detail)}
	}
	if token.Hashed() {
		msg.Header[wire.HeaderName] = []string{subjects.EscapeName(s.Method.Name)}
	}
	if out.o.trace.Parent != "" {
		msg.Header[wire.HeaderTraceparent] = []string{wire.EncodeHeaderText(out.o.trace.Parent)}
		if out.o.trace.State != "" {
			msg.Header[wire.HeaderTracestate] = []string{wire.EncodeHeaderText(out.o.trace.State)}
		}
	}
	return msg, nil
}

// route is the link for a body of this size.
func (x *Interop) route(size int) *link.Link {
	if size > wire.BulkBody {
		return x.cfg.Data
	}
	return x.cfg.Control
}

// await notes a call in flight so that it ends when its target goes.
func (x *Interop) await(target subjects.App, f *flight) error {
	x.mu.Lock()
	if x.waiting[target] == nil {
		x.waiting[target] = flights{}
	}
	x.waiting[target][f] = struct{}{}
	x.mu.Unlock()
	if _, ok := x.cfg.Directory.App(target); !ok { // went before it was noted
		x.awaited(target, f)
		return errUnsent
	}
	return nil
}

func (x *Interop) awaited(target subjects.App, f *flight) {
	x.mu.Lock()
	delete(x.waiting[target], f)
	if len(x.waiting[target]) == 0 {
		delete(x.waiting, target)
	}
	x.mu.Unlock()
}

// callFailed says what became of a call without a reply, and tells its server
// that nobody waits any more.
func (x *Interop) callFailed(ctx context.Context, err error, s directory.Server, id string) error {
	if errors.Is(err, link.ErrNoResponders) {
		x.cfg.Directory.Suspect(s.App.Node)
		return errUnsent
	}
	if ctx.Err() == nil {
		return err
	}
	err = errOf(ctx)
	if !errors.Is(err, errServerGone) {
		x.tell(s.App.Node, subjects.VerbCancel, wire.CancelRequest{ID: id})
	}
	return err
}

// tell sends a control message that needs no answer.
func (x *Interop) tell(to subjects.Node, verb subjects.Verb, v any) {
	body, err := wire.Marshal(v)
	if err == nil {
		err = x.cfg.Control.PublishBytes(string(x.cfg.Realm.CtlSubject(to, x.cfg.Self, verb)), body)
	}
	if err != nil && !errors.Is(err, wire.ErrOffline) {
		x.log.Warn("control message not sent", "verb", string(verb), "node", string(to), "error", err)
	}
}

// result reads a reply.
func result(reply *nats.Msg) (wire.Payload, error) {
	if code := reply.Header.Get(wire.HeaderErrorCode); code != "" {
		return wire.Payload{}, errorOf(reply)
	}
	if wire.Injected(reply.Header, reply.Data) {
		return wire.Payload{}, wire.Errorf(wire.BadPayload, "the reply is not a Weft reply")
	}
	f, err := wire.ParseContentType(reply.Header.Get(wire.HeaderContentType))
	if err != nil {
		return wire.Payload{}, err
	}
	p := wire.Payload{Format: f, Data: reply.Data}
	if len(p.Data) == 0 {
		return wire.Payload{}, nil
	}
	return p, p.Check()
}

// errorOf reads an error reply.
func errorOf(reply *nats.Msg) error {
	e := wire.FromHeader(reply.Header.Get(wire.HeaderErrorCode), reply.Header.Get(wire.HeaderError))
	if detail, err := wire.ParseDetail(reply.Header.Get(wire.HeaderDetail)); err == nil { // or it is left out
		e.Detail = detail
	}
	return e
}
