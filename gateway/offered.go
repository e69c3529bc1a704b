package gateway

import (
	"strings"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/restriction"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// offered is a method or stream of the peer.
type offered struct {
	x      *interop
	id     string // JSON text
	def    node.Method
	size   int
	stream *node.Stream
	closed bool
}

// offer registers a method. An id that is registered already gets the new
// definition; a name has one id.
func (x *interop) offer(def node.Method) (*offered, error) {
	if _, err := restriction.Compiled(def.Restrictions); err != nil {
		return nil, err
	}
	old := x.offered[def.ID]
	for id, o := range x.offered {
		if id != def.ID && strings.EqualFold(o.def.Name, def.Name) {
			return nil, wire.Errorf(wire.Rejected, "a method with the name %q is registered already, under the id %s", def.Name, plain(id))
		}
	}
	o := &offered{x: x, id: def.ID, def: def, size: len(definitionJSON(&def))}
	total := x.bytes + o.size
	if old != nil {
		total -= old.size
	}
	if total > wire.MaxDefinitions {
		return nil, wire.Errorf(wire.Limit, "definitions of methods: %d bytes, the limit is %d", total, wire.MaxDefinitions)
	}
	if old != nil {
		x.withdraw(old, node.ReasonStreamClosed)
	}
	var err error
	if def.Streaming {
		o.stream, err = x.p.client.OfferStream(def, node.StreamOptions{Decide: o.decide, Ended: o.ended})
	} else {
		err = x.p.client.Offer(def, o)
	}
	if err != nil {
		return nil, err
	}
	x.offered[def.ID] = o
	x.bytes += o.size
	return o, nil
}

// withdraw takes a method back. Calls that it serves go on.
func (x *interop) withdraw(o *offered, reason string) {
	o.closed = true
	delete(x.offered, o.id)
	x.bytes -= o.size
	if o.stream == nil {
		_ = x.p.client.Withdraw(o.def.Name) // it was there
		return
	}
	for id, i := range x.interests {
		if i.o == o {
			x.forgetInterest(id)
			i.decided(wire.Errorf(wire.TargetGone, "%s", reason))
		}
	}
	o.stream.End(reason)
}

// Serve passes a call on to the client, in the order in which calls come. It runs
// on any goroutine.
func (o *offered) Serve(c *node.Pending) {
	x := o.x
	x.mu.Lock()
	defer x.mu.Unlock()
	if caller := subjects.App(c.Caller.App); x.backlog == 0 && x.told[caller] {
		o.deliver(c, caller)
		return
	}
	x.backlog++
	x.p.post(func() { o.admit(c) })
}

// admit lets a call in whose caller the client may not know yet.
func (o *offered) admit(c *node.Pending) {
	x := o.x
	x.whenKnown(c.Caller.App, string(c.Claimed), &c.Caller, func(caller subjects.App) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.backlog--
		o.deliver(c, caller)
	})
}

// deliver sends a call to the client. x.mu is held.
func (o *offered) deliver(c *node.Pending, caller subjects.App) {
	x := o.x
	switch {
	case c.Over():
		return
	case !x.told[caller] || caller != x.p.id && !permits(o.def.Restrictions, &x.p.self, &c.Caller):
		go c.Finish(wire.Payload{}, wire.Errorf(wire.NoServer, "app %s does not offer the method %q to this caller", x.p.id, o.def.Name))
		return
	}
	args, err := arguments(c.Args)
	if err != nil {
		go c.Finish(wire.Payload{}, err)
		return
	}
	x.serving[c.ID] = c
	m := begin(domainAGM, "invoke").str("invocation_id", c.ID).str("peer_id", string(x.p.id)).str("caller_id", string(caller)).raw("method_id", []byte(o.id))
	m = args.put(m).raw("context", readDetail(c.Detail).Context)
	x.p.s.send(m)
}

// Ended forgets a call that ended without the client. It runs on any goroutine.
func (o *offered) Ended(c *node.Pending) {
	o.x.mu.Lock()
	delete(o.x.serving, c.ID)
	o.x.mu.Unlock()
}

// args are arguments as clients send and get them: by name, or by position.
type args struct{ named, positional []byte }

func (a args) put(m message) message {
	return m.raw("arguments", a.positional).raw("arguments_kv", a.named)
}

// arguments makes arguments for a client of whatever a caller sent. What is no
// object or array becomes an object with the one member _value, as clients do
// with results.
func arguments(p wire.Payload) (args, error) {
	value, err := jsonOf(p)
	switch {
	case err != nil || value == nil:
		return args{}, err
	case isObject(value):
		return args{named: value}, nil
	case isArray(value):
		return args{positional: value}, nil
	}
	return args{named: wrapped(value)}, nil
}

// jsonOf is a payload as JSON text, nil for no value.
func jsonOf(p wire.Payload) ([]byte, error) {
	if p.IsZero() {
		return nil, nil
	}
	p, err := p.As(wire.JSON)
	if err != nil || string(p.Data) == "null" {
		return nil, err
	}
	return trimLeft(p.Data), nil
}

// trimLeft drops white space in front of JSON text.
func trimLeft(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	return b
}

func wrapped(value []byte) []byte {
	return append(append([]byte(`{"_value":`), value...), '}')
}
