package interop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// served finds what a local app registered under a name.
func (x *Interop) served(id subjects.App, name string) (*app, *method, error) {
	a, err := x.app(id)
	if err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	m := a.methods[strings.ToLower(name)]
	a.mu.Unlock()
	if m == nil {
		return nil, nil, wire.Errorf(wire.NoServer, "app %s does not offer %q any more", id, name)
	}
	return a, m, nil
}

// serve runs a handler and calls finish once: with its outcome, or as soon as
// ctx ends, even if the handler goes on. ctx is the flight's; it also ends when
// the app leaves.
func (x *Interop) serve(ctx context.Context, f *flight, a *app, m *method, c *Call, finish func(wire.Payload, error)) {
	if m.deferred != nil {
		x.awaitDeferred(ctx, a, m, c, finish)
		return
	}
	if m.handler == nil {
		finish(wire.Payload{}, wire.Errorf(wire.NoServer, "%q is a stream: subscribe to it", m.def.Name))
		return
	}
	if n := a.serving.Add(1); n > wire.MaxPendingCalls {
		a.serving.Add(-1)
		finish(wire.Payload{}, wire.Errorf(wire.Busy, "calls being served by app %s: the limit is %d (%s)", a.id, wire.MaxPendingCalls, m.def.Name))
		return
	}
	defer a.serving.Add(-1)
	if err := a.enter(f); err != nil {
		finish(wire.Payload{}, err)
		return
	}
	defer a.exit(f)
	x.stats.served.Add(1)
	var finished atomic.Bool
	stop := context.AfterFunc(ctx, func() {
		if finished.CompareAndSwap(false, true) {
			finish(wire.Payload{}, errOf(ctx))
		}
	})
	p, err := x.handle(ctx, m, c)
	if finished.CompareAndSwap(false, true) {
		stop()
		finish(p, err)
	}
}

// handle calls user code; a panic there is this call's error, not the node's.
func (x *Interop) handle(ctx context.Context, m *method, c *Call) (p wire.Payload, err error) {
	defer func() {
		if r := recover(); r != nil {
			x.log.ErrorContext(ctx, "method handler panicked", slog.String("method", m.def.Name), slog.Any("panic", r), slog.String("stack", string(debug.Stack())))
			p, err = wire.Payload{}, wire.Errorf(wire.AppError, "the handler of %q panicked: %v", m.def.Name, r)
		}
	}()
	v, err := m.handler(ctx, c)
	if err != nil {
		return wire.Payload{}, appError(ctx, err)
	}
	if v == nil {
		return wire.Payload{}, nil
	}
	p, err = encode(v)
	if err != nil {
		return wire.Payload{}, wire.Errorf(wire.AppError, "the result of %q cannot be sent: %w", m.def.Name, err)
	}
	return p, nil
}

// appError gives a handler's error its code.
func appError(ctx context.Context, err error) error {
	var w *wire.Error
	switch {
	case errors.As(err, &w):
		return err
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return errOf(ctx)
	}
	return wire.Errorf(wire.AppError, "%w", err)
}

// onCall takes a call from another node or a plain NATS client.
func (x *Interop) onCall(msg *nats.Msg) {
	if wire.Injected(msg.Header, msg.Data) || msg.Reply == "" {
		x.refused(msg, "not a call")
		return
	}
	c, err := subjects.ParseCall(msg.Subject)
	if err != nil {
		x.refused(msg, err.Error())
		x.reply(msg, wire.Msgpack, wire.Payload{}, wire.AsError(err))
		return
	}
	format, err := wire.ParseContentType(msg.Header.Get(wire.HeaderContentType))
	if err != nil {
		x.reply(msg, wire.Msgpack, wire.Payload{}, err)
		return
	}
	args := wire.Payload{Format: format, Data: msg.Data}
	if err := x.admit(&args); err != nil {
		x.reply(msg, format, wire.Payload{}, err)
		return
	}
	name, err := nameOf(c.Method, msg.Header)
	if err != nil {
		x.reply(msg, format, wire.Payload{}, err)
		return
	}
	a, m, err := x.served(c.App, name)
	if err != nil {
		x.reply(msg, format, wire.Payload{}, err)
		return
	}
	detail, err := wire.ParseDetail(msg.Header.Get(wire.HeaderDetail))
	if err != nil {
		x.reply(msg, format, wire.Payload{}, err)
		return
	}
	call := &Call{Method: m.def.Name, Args: args, Caller: x.callerOf(c.From, msg.Header), ID: msg.Header.Get(wire.HeaderID), Trace: traceOf(msg.Header), Detail: detail}
	if call.Caller.App == "" && call.Caller.Node == string(c.From) {
		call.Claimed = x.claimed(c.From, msg.Header.Get(wire.HeaderApp))
	}
	if m.deferred != nil {
		x.answerDeferred(msg, format, c.From, a, m, *call)
		return
	}
	x.spawn(func() { x.answer(msg, format, c.From, a, m, call) })
}

// nameOf is the name of a token; a hash has it in a header.
func nameOf(token subjects.Token, h nats.Header) (string, error) {
	if token.Hashed() {
		name, err := subjects.UnescapeName(h.Get(wire.HeaderName))
		if err == nil {
			token, err = token.WithName(name)
		}
		if err != nil {
			return "", wire.Errorf(wire.BadName, "%s: %w", wire.HeaderName, err)
		}
	}
	name, _ := token.Name()
	return name, nil
}

// admit checks a body from outside before anything decodes it.
func (x *Interop) admit(p *wire.Payload) error {
	if len(p.Data) == 0 {
		*p = wire.Payload{}
		return nil
	}
	err := p.Check()
	if err != nil {
		x.stats.refused.Add(1)
	}
	return err
}

// answer serves one call from outside and replies.
func (x *Interop) answer(msg *nats.Msg, format wire.Format, from subjects.Node, a *app, m *method, call *Call) {
	timeout, err := deadlineOf(msg.Header)
	if err != nil {
		x.reply(msg, format, wire.Payload{}, err)
		return
	}
	ctx, cancel := context.WithCancelCause(x.ctx)
	defer cancel(nil)
	f := &flight{cancel}
	defer f.expire(timeout).Stop()
	if call.ID != "" {
		if err := x.begin(call.ID, from, originOf(from, msg.Header), f); err != nil {
			x.reply(msg, format, wire.Payload{}, err)
			return
		}
		defer x.end(from, call.ID)
	} else {
		call.ID = newID()
	}
	x.serve(ctx, f, a, m, call, func(p wire.Payload, err error) { x.reply(msg, format, p, err) })
}

// begin notes a call being served for the node from, and refuses an id that it
// has seen from the same caller.
func (x *Interop) begin(id string, from, caller subjects.Node, f *flight) error {
	if err := x.remember(caller, id); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.wasCanceled(from, id) {
		return errCanceled
	}
	x.serving[callKey(from, id)] = f
	return nil
}

// remember refuses a call id that it has seen from the same caller.
func (x *Interop) remember(caller subjects.Node, id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.recent.add(string(caller)+"."+id, time.Now())
}

func (x *Interop) end(from subjects.Node, id string) {
	x.mu.Lock()
	delete(x.serving, callKey(from, id))
	x.mu.Unlock()
}

// callKey is how a call of another node is known: ids are the business of whoever
// makes them.
func callKey(from subjects.Node, id string) string { return string(from) + "." + id }

// errCanceled is the end of a call that nobody waits for.
var errCanceled = wire.Errorf(wire.Canceled, "canceled by the caller")

const (
	// earlyFor is how long a cancellation waits for its call, which comes on a
	// subscription of its own; maxEarly is how many wait.
	earlyFor = 10 * time.Second
	maxEarly = 1024
)

// cancelCall ends a call being served, if its caller says so.
func (x *Interop) cancelCall(from subjects.Node, id string) {
	x.mu.Lock()
	f := x.serving[callKey(from, id)]
	if f == nil && len(id) <= maxCallID {
		for key, at := range x.early {
			if time.Since(at) > earlyFor || len(x.early) >= maxEarly {
				delete(x.early, key)
			}
		}
		x.early[callKey(from, id)] = time.Now()
	}
	x.mu.Unlock()
	if f != nil {
		f.cancel(errCanceled)
	}
}

// wasCanceled says whether the cancellation of a call has come before it. x.mu is
// held.
func (x *Interop) wasCanceled(from subjects.Node, id string) bool {
	key := callKey(from, id)
	_, early := x.early[key]
	delete(x.early, key)
	return early
}

// deadlineOf reads how long a call may take.
func deadlineOf(h nats.Header) (time.Duration, error) {
	text := h.Get(wire.HeaderDeadline)
	if text == "" {
		return wire.CallTimeout, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms <= 0 {
		return 0, wire.Errorf(wire.BadPayload, "%s must be a number of milliseconds above 0", wire.HeaderDeadline)
	}
	if ms > wire.MaxCallTimeout.Milliseconds() {
		return 0, wire.Errorf(wire.Limit, "%s: %d ms, the limit is %d", wire.HeaderDeadline, ms, wire.MaxCallTimeout.Milliseconds())
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// callerOf is who calls: an app of the sending node if the directory has it
// there, otherwise what the subject proves.
func (x *Interop) callerOf(from subjects.Node, h nats.Header) wire.Identity {
	if id, err := subjects.ParseApp(h.Get(wire.HeaderApp)); err == nil {
		if a, ok := x.cfg.Directory.App(id); ok && a.Node == from {
			return a.Identity
		}
	}
	who := string(originOf(from, h))
	return wire.Identity{Application: who, Node: who}
}

// claimed is the app that a sender says it is, if the directory may come to have it
// on that node: "" for a plain NATS client, and for whoever says that it is an app
// of another node.
func (x *Interop) claimed(from subjects.Node, app string) subjects.App {
	id, err := subjects.ParseApp(app)
	if err != nil {
		return ""
	}
	for _, n := range x.cfg.Directory.View().Nodes {
		if n.Boot == id.Boot() && n.ID != from {
			return ""
		}
	}
	return id
}

// originOf is the sender of a call, or of the ask that the sender forwards and
// vouches for.
func originOf(from subjects.Node, h nats.Header) subjects.Node {
	if caller, err := subjects.ParseCaller(h.Get(wire.HeaderCaller)); err == nil {
		return caller
	}
	return from
}

func traceOf(h nats.Header) Trace {
	return Trace{Parent: h.Get(wire.HeaderTraceparent), State: h.Get(wire.HeaderTracestate)}
}

// reply answers in the form that the call had.
func (x *Interop) reply(msg *nats.Msg, format wire.Format, p wire.Payload, err error) {
	if msg.Reply == "" {
		return
	}
	out := &nats.Msg{Subject: msg.Reply, Header: nats.Header{}}
	if err == nil && !p.IsZero() {
		if p, err = p.As(format); err == nil {
			err = wire.CheckSize("result", len(p.Data), x.cfg.Control.MaxPayload())
		}
	}
	if err != nil {
		e := wire.AsError(err)
		out.Header[wire.HeaderErrorCode] = []string{string(e.Code)}
		out.Header[wire.HeaderError] = []string{wire.EncodeHeaderText(e.Message)}
		if e.Detail != "" {
			out.Header[wire.HeaderDetail] = []string{wire.EncodeHeaderText(e.Detail)}
		}
	} else {
		out.Data = p.Data
	}
	if format == wire.JSON {
		out.Header[wire.HeaderContentType] = []string{format.ContentType()}
	}
	if err := x.route(len(out.Data)).Publish(out); err != nil {
		x.log.Debug("reply not sent", slog.Any("error", err))
	}
}

// refused counts what came in and was not a message of Weft.
func (x *Interop) refused(msg *nats.Msg, why string) {
	x.stats.refused.Add(1)
	x.log.Debug("message refused", slog.String("subject", msg.Subject), slog.String("reason", why))
}

// onAsk resolves a call by name for a plain NATS client and forwards it.
func (x *Interop) onAsk(msg *nats.Msg) {
	if wire.Injected(msg.Header, msg.Data) || msg.Reply == "" {
		x.refused(msg, "not a call")
		return
	}
	x.spawn(func() {
		format, err := wire.ParseContentType(msg.Header.Get(wire.HeaderContentType))
		if err != nil {
			x.reply(msg, wire.Msgpack, wire.Payload{}, err)
			return
		}
		p, err := x.forward(msg, format)
		x.reply(msg, format, p, err)
	})
}

func (x *Interop) forward(msg *nats.Msg, format wire.Format) (wire.Payload, error) {
	c, err := subjects.ParseAsk(msg.Subject)
	if err != nil {
		return wire.Payload{}, wire.AsError(err)
	}
	name, err := nameOf(c.Method, msg.Header)
	if err != nil {
		return wire.Payload{}, err
	}
	args := wire.Payload{Format: format, Data: msg.Data}
	if err := x.admit(&args); err != nil {
		return wire.Payload{}, err
	}
	timeout, err := deadlineOf(msg.Header)
	if err != nil {
		return wire.Payload{}, err
	}
	ctx, cancel := context.WithCancelCause(x.ctx)
	defer cancel(nil)
	f := &flight{cancel}
	defer f.expire(timeout).Stop()
	o := options{timeout: timeout, trace: traceOf(msg.Header)}
	servers, err := x.find(ctx, name, o, "", false)
	if err != nil {
		return wire.Payload{}, err
	}
	caller := wire.Identity{Application: string(c.From), Node: string(c.From)}
	r := x.callBest(ctx, f, servers, &outgoing{
		caller: caller, forwarded: c.From, method: name, id: msg.Header.Get(wire.HeaderID), args: args, o: o, deadline: time.Now().Add(timeout),
	})
	return r.Value, r.Err
}

// maxCallID is how long a call's id may be.
const maxCallID = 128

// callMemory remembers call ids for wire.CallMemory, so that a call that comes
// twice runs once. Its owner locks.
type callMemory struct {
	seen  map[string]struct{}
	order []remembered
}

type remembered struct {
	id string
	at time.Time
}

func newCallMemory() callMemory { return callMemory{seen: map[string]struct{}{}} }

func (m *callMemory) add(id string, now time.Time) error {
	if len(id) > maxCallID {
		return wire.Errorf(wire.BadPayload, "%s is too long: use 22 characters", wire.HeaderID)
	}
	for len(m.order) > 0 && (len(m.order) >= wire.MaxCallMemory || now.Sub(m.order[0].at) > wire.CallMemory) {
		delete(m.seen, m.order[0].id)
		m.order = m.order[1:]
	}
	if _, again := m.seen[id]; again {
		return wire.Errorf(wire.Rejected, "a call with this %s was received before and is not run again", wire.HeaderID)
	}
	m.seen[id] = struct{}{}
	m.order = append(m.order, remembered{id, now})
	return nil
}

// String names a call in logs.
func (c *Call) String() string { return fmt.Sprintf("%s from %s", c.Method, c.Caller.Application) }
