package interop

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Deferred serves methods without holding a goroutine for each call. The calls
// of one caller come in the order in which it made them.
type Deferred interface {
	// Serve takes a call, which ends with [Pending.Finish]. It must not block.
	Serve(p *Pending)
	// Ended says that a call ended without the server: its caller or its time
	// went, or the server's app left. It must not block, and can come before
	// Serve: see [Pending.Over].
	Ended(p *Pending)
}

// Pending is a call that a [Deferred] has not answered yet.
type Pending struct {
	Call
	app    *app
	m      *method
	flight flight
	over   atomic.Bool
	finish func(wire.Payload, error)
}

// pend makes a pending call; finish is called once with its outcome.
func pend(a *app, m *method, c Call, finish func(wire.Payload, error)) *Pending {
	p := &Pending{Call: c, app: a, m: m, finish: finish}
	p.flight.cancel = p.end
	a.serving.Add(1)
	return p
}

// Finish ends the call with a result or an error. Only the first counts; it says
// whether this was the first.
func (p *Pending) Finish(value wire.Payload, err error) bool {
	if !p.over.CompareAndSwap(false, true) {
		return false
	}
	p.app.serving.Add(-1)
	p.app.exit(&p.flight)
	p.finish(value, err)
	return true
}

// Over says that the call has ended.
func (p *Pending) Over() bool { return p.over.Load() }

// end ends a call that its server did not answer.
func (p *Pending) end(err error) {
	if p.Finish(wire.Payload{}, err) {
		p.m.deferred.Ended(p)
	}
}

// enqueue hands a call to its server.
func (x *Interop) enqueue(p *Pending) {
	if p.app.serving.Load() > wire.MaxPendingCalls {
		p.Finish(wire.Payload{}, wire.Errorf(wire.Busy, "calls being served by app %s: the limit is %d (%s)", p.app.id, wire.MaxPendingCalls, p.Method))
		return
	}
	if err := p.app.enter(&p.flight); err != nil {
		p.Finish(wire.Payload{}, err)
		return
	}
	x.stats.served.Add(1)
	p.m.deferred.Serve(p)
}

// RegisterDeferred offers a method that is served without waiting. Apps of this
// node see it at once; others when the directory has settled.
func (x *Interop) RegisterDeferred(id subjects.App, def wire.Method, d Deferred) error {
	def.Streaming = false
	return x.offer(id, &method{def: &def, deferred: d})
}

// started is a call that [Interop.Start] has begun.
type started struct {
	x      *Interop
	caller *app
	server wire.Identity
	flight flight // ends the call with its caller
	timer  atomic.Pointer[time.Timer]
	over   atomic.Bool
	abort  atomic.Pointer[func(error)] // ends what is under way
	done   func(Result)
}

// Start calls a method of one app and returns; done gets the outcome, once, on
// any goroutine and maybe before Start returns, and must not block. Calls of one
// app to another arrive in the order of Start, save for bodies above
// wire.BulkBody on their way to another machine. detail is a JSON object that
// the server gets beside the arguments, or "". The returned function ends the
// call with an error.
func (x *Interop) Start(caller, target subjects.App, name string, args wire.Payload, detail string, timeout time.Duration, done func(Result)) (cancel func(error)) {
	s := &started{x: x, done: done}
	if err := s.begin(caller, target, name, args, detail, timeout); err != nil {
		s.finish(wire.Payload{}, err)
	}
	return s.cancel
}

func (s *started) begin(caller, target subjects.App, name string, args wire.Payload, detail string, timeout time.Duration) error {
	x := s.x
	a, err := x.app(caller)
	if err != nil {
		return err
	}
	b, ok := x.cfg.Directory.App(target)
	if !ok {
		return wire.Errorf(wire.TargetGone, "app %s has left", target)
	}
	def, ok := b.Method(name)
	if !ok || def.Streaming {
		return wire.Errorf(wire.NoServer, "app %s does not offer the method %q", target, name)
	}
	if n := a.pending.Add(1); n > wire.MaxPendingCalls {
		a.pending.Add(-1)
		return wire.Errorf(wire.Busy, "calls in flight of app %s: the limit is %d (%s)", caller, wire.MaxPendingCalls, name)
	}
	s.caller, s.server = a, b.Identity
	x.stats.calls.Add(1)
	s.flight.cancel = s.cancel
	if err := a.enter(&s.flight); err != nil {
		return err
	}
	s.timer.Store(time.AfterFunc(timeout, func() { s.cancel(errExpired) }))
	server := directory.Server{App: b, Method: def}
	out := &outgoing{caller: a.identity, method: name, args: args, detail: detail, deadline: time.Now().Add(timeout)}
	if b.Local {
		err = s.local(server, out)
	} else {
		err = s.remote(server, out)
	}
	if s.over.Load() {
		s.timer.Load().Stop()
	}
	return err
}

// cancel ends the call from the caller's side.
func (s *started) cancel(err error) {
	if abort := s.abort.Load(); abort != nil {
		(*abort)(err)
	}
	s.finish(wire.Payload{}, err)
}

func (s *started) finish(v wire.Payload, err error) {
	if !s.over.CompareAndSwap(false, true) {
		return
	}
	if t := s.timer.Load(); t != nil {
		t.Stop()
	}
	if s.caller != nil {
		s.caller.pending.Add(-1)
		s.caller.exit(&s.flight)
	}
	if err != nil {
		s.x.stats.failed.Add(1)
	}
	s.done(Result{Server: s.server, Value: v, Err: err})
}

// local calls an app of this node.
func (s *started) local(server directory.Server, out *outgoing) error {
	x := s.x
	b, m, err := x.served(server.App.ID, server.Method.Name)
	if err != nil {
		return err
	}
	call := Call{Method: m.def.Name, Args: out.args, Caller: out.caller, ID: newID(), Detail: out.detail}
	if m.deferred != nil {
		p := pend(b, m, call, s.finish)
		abort := p.end
		s.abort.Store(&abort)
		x.enqueue(p)
		s.aborted()
		return nil
	}
	ctx, cancel := context.WithCancelCause(x.ctx)
	abort := func(err error) { cancel(err) }
	s.abort.Store(&abort)
	s.aborted()
	x.spawn(func() {
		defer cancel(nil)
		x.serve(ctx, &flight{cancel}, b, m, &call, s.finish)
	})
	return nil
}

// remote calls an app of another node.
func (s *started) remote(server directory.Server, out *outgoing) error {
	x := s.x
	msg, err := x.message(server, out)
	if err != nil {
		return err
	}
	target, id := server.App.ID, msg.Header.Get(wire.HeaderID)
	f := &flight{s.cancel}
	if err := x.await(target, f); err != nil {
		return err
	}
	asking := x.route(len(msg.Data)).Ask(msg, func(reply *nats.Msg, err error) {
		x.awaited(target, f)
		var v wire.Payload
		switch {
		case err == nil:
			v, err = result(reply)
		case errors.Is(err, link.ErrNoResponders):
			x.cfg.Directory.Suspect(server.App.Node)
			err = errUnsent
		}
		s.finish(v, err)
	})
	abort := func(err error) {
		if !errors.Is(err, errServerGone) {
			x.tell(server.App.Node, subjects.VerbCancel, wire.CancelRequest{ID: id})
		}
		asking.Cancel(err)
	}
	s.abort.Store(&abort)
	s.aborted()
	return nil
}

// aborted ends what is under way of a call that was ended before it could be.
func (s *started) aborted() {
	if s.over.Load() {
		(*s.abort.Load())(errCanceled)
	}
}

// answerDeferred serves a call from outside on the goroutine that received it,
// so that calls keep their order.
func (x *Interop) answerDeferred(msg *nats.Msg, format wire.Format, from subjects.Node, a *app, m *method, call Call) {
	timeout, err := deadlineOf(msg.Header)
	if err == nil && call.ID == "" {
		call.ID = newID()
	} else if err == nil {
		err = x.remember(originOf(from, msg.Header), call.ID)
	}
	if err != nil {
		x.reply(msg, format, wire.Payload{}, err)
		return
	}
	var timer atomic.Pointer[time.Timer]
	p := pend(a, m, call, func(v wire.Payload, err error) {
		if t := timer.Load(); t != nil {
			t.Stop()
		}
		x.end(from, call.ID)
		x.reply(msg, format, v, err)
	})
	x.mu.Lock()
	x.serving[callKey(from, call.ID)] = &p.flight
	canceled := x.wasCanceled(from, call.ID)
	x.mu.Unlock()
	if canceled {
		p.Finish(wire.Payload{}, errCanceled)
		return
	}
	timer.Store(p.flight.expire(timeout))
	x.enqueue(p)
	if p.Over() {
		timer.Load().Stop()
	}
}

// awaitDeferred runs a deferred call for somebody who waits until ctx ends.
func (x *Interop) awaitDeferred(ctx context.Context, a *app, m *method, c *Call, finish func(wire.Payload, error)) {
	done := make(chan struct{})
	p := pend(a, m, *c, func(v wire.Payload, err error) {
		finish(v, err)
		close(done)
	})
	defer context.AfterFunc(ctx, func() { p.end(errOf(ctx)) })()
	x.enqueue(p)
	<-done
}
