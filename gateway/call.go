package gateway

import (
	"strings"
	"unicode"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// call calls a method of another app.
func (x *interop) call(f *frame) {
	server, m, a, d, ok := x.request(f)
	if !ok {
		return
	}
	if server == x.p.s.g.platform.id {
		x.callPlatform(f, m, a)
		return
	}
	text, err := d.text()
	if err != nil {
		x.p.fail(f, domainAGM, domainAGM+"."+uriInvocation, wire.AsError(err).Error())
		return
	}
	x.mu.Lock()
	x.calls[server]++
	x.mu.Unlock()
	x.p.client.Start(server, m.Name, a.payload(), text, wire.MaxCallTimeout, func(r node.Result) {
		x.answer(f, r) // on any goroutine
		x.mu.Lock()
		last := x.calls[server] == 1
		if x.calls[server]--; last {
			delete(x.calls, server)
		}
		x.mu.Unlock()
		if last && r.Err != nil {
			x.ended(server)
		}
	})
}

// answer sends the outcome of a call to the client.
func (x *interop) answer(f *frame, r node.Result) {
	if r.Err != nil {
		x.fail(f, r.Err, uriClientError)
		return
	}
	result, err := jsonOf(r.Value)
	if err != nil {
		x.fail(f, err, uriClientError)
		return
	}
	if result != nil && !isObject(result) && r.Value.Format == wire.Msgpack && !x.p.s.g.isClient(r.Server.App) {
		result = wrapped(result)
	}
	x.p.s.send(begin(domainAGM, "result").raw("request_id", f.request).str("peer_id", string(x.p.id)).raw("result", result))
}

// fail answers a call or a subscription with an error of the other side.
func (x *interop) fail(f *frame, err error, byServer string) {
	uri, reason, context := reasonOf(err, byServer)
	m := begin(domainAGM, "error").raw("request_id", f.request).str("peer_id", string(x.p.id)).str("reason_uri", uri).str("reason", reason)
	if context != nil {
		m = m.raw("context", context)
	}
	x.p.s.send(m)
}

// request reads what calls and subscriptions have in common: whom they mean, and
// with what arguments.
func (x *interop) request(f *frame) (server subjects.App, m *node.Method, a args, d detail, ok bool) {
	server = subjects.App(plain(string(f.raw("server_id"))))
	id := f.raw("method_id")
	a = args{named: f.raw("arguments_kv"), positional: f.raw("arguments")}
	d = detail{Context: f.raw("context"), Flags: f.raw("flags")}
	switch {
	case server == "":
		x.p.fail(f, domainAGM, domainAGM+"."+uriFailure, "Peer id is missing")
	case !x.member:
		x.p.fail(f, domainAGM, domainAGM+"."+uriFailure, "Unable to find peer with id "+string(x.p.id)+" in domain :agm-domain")
	case !x.serves(server):
		x.p.fail(f, domainAGM, domainAGM+"."+uriFailure, "Unable to find peer with id "+string(server)+" in domain :agm-domain")
	case a.named != nil && a.positional != nil && !isEmpty(a.named) && !isEmpty(a.positional):
		x.p.fail(f, domainAGM, domainAGM+"."+uriInvocation, "Cant use positional and by-name arguments at the same time")
	default:
		if m = x.method(server, string(compactJSON(id))); m != nil {
			return server, m, a, d, true
		}
		x.p.fail(f, domainAGM, domainAGM+"."+uriInvocation, "Unable to find method with id "+plain(string(id))+" on server id "+string(server)+" registered with this peer")
	}
	return server, nil, a, d, false
}

func (x *interop) serves(server subjects.App) bool {
	return x.peers[server] != nil || server == x.p.s.g.platform.id
}

// method is a method that the client knows of a server.
func (x *interop) method(server subjects.App, id string) *node.Method {
	if server == x.p.s.g.platform.id {
		return x.p.s.g.platform.method(id)
	}
	if m := x.peers[server].methods[id]; m != nil {
		return m.method
	}
	return nil
}

// payload is what travels of arguments.
func (a args) payload() wire.Payload {
	switch {
	case a.named != nil && (a.positional == nil || isEmpty(a.positional)):
		return wire.Payload{Format: wire.JSON, Data: a.named}
	case a.positional != nil:
		return wire.Payload{Format: wire.JSON, Data: a.positional}
	}
	return wire.Payload{}
}

// yield ends a call that the client served. One that has ended otherwise is
// nobody's any more.
func (x *interop) yield(f *frame) {
	if c := x.served(f.text("invocation_id")); c != nil {
		c.Finish(wire.Payload{Format: wire.JSON, Data: f.raw("result")}, nil)
	}
}

func (x *interop) served(invocation string) finisher {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.serving[invocation]
	delete(x.serving, invocation)
	return c
}

// error fails a call that the client served, or rejects a subscription.
func (x *interop) error(f *frame) {
	id := f.text("request_id")
	err := wire.Errorf(wire.AppError, "%s", f.text("reason"))
	d := detail{URI: f.text("reason_uri"), Context: f.raw("context")}
	if reason := f.text("reason"); strings.ContainsFunc(reason, unicode.IsControl) {
		d.Reason = reason
	}
	if c := x.served(id); c != nil {
		err.Detail = x.describe(d, uriClientError)
		c.Finish(wire.Payload{}, err)
		return
	}
	if i := x.interests[id]; i != nil && i.sub == nil {
		err.Code = wire.Rejected
		err.Detail = x.describe(d, uriRejected)
		x.forgetInterest(id)
		i.decided(err)
		return
	}
	x.p.fail(f, domainAGM, domainAGM+"."+uriBadSubscriber, textSubscription)
}

// describe is what travels with an error. The URI that the libraries always use
// need not.
func (x *interop) describe(d detail, usual string) string {
	if d.URI == usual {
		d.URI = ""
	}
	text, err := d.text()
	if err != nil {
		x.p.log.Debug("context of an error left out", "error", err)
		return ""
	}
	return text
}
