package interop

import (
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// onCtl takes control messages of other nodes. Only a subscription request
// runs user code, on a goroutine of its own; everything else is answered here,
// in order.
func (x *Interop) onCtl(msg *nats.Msg) {
	if wire.Injected(msg.Header, msg.Data) {
		x.refused(msg, "not a control message")
		return
	}
	c, err := subjects.ParseCtl(msg.Subject)
	if err != nil {
		x.refused(msg, err.Error())
		return
	}
	switch c.Verb {
	case subjects.VerbPing:
		x.respond(msg, wire.PingReply{Node: string(x.cfg.Self), Boot: x.cfg.Boot}, nil)
	case subjects.VerbInfo:
		ask(x, msg, func(q wire.InfoRequest) (any, error) {
			data, err := x.cfg.Directory.Manifest(q.Manifest)
			return wire.InfoReply{Manifest: data}, err
		})
	case subjects.VerbCancel:
		ask(x, msg, func(q wire.CancelRequest) (any, error) {
			x.cancelCall(c.From, q.ID)
			return nil, nil
		})
	case subjects.VerbSubscribe:
		ask(x, msg, func(q wire.SubscribeRequest) (any, error) {
			if q.Resume {
				return x.resume(c.From, q)
			}
			x.spawn(func() {
				reply, err := x.accept(c.From, q)
				x.respond(msg, reply, err)
			})
			return nil, errLater
		})
	case subjects.VerbConfirm:
		ask(x, msg, func(q wire.ConfirmRequest) (any, error) { return x.confirm(c.From, q) })
	case subjects.VerbUnsubscribe:
		ask(x, msg, func(q wire.UnsubscribeRequest) (any, error) {
			x.unsubscribe(c.From, q)
			return nil, nil
		})
	default:
		x.respond(msg, nil, wire.Errorf(wire.Version, "node %s does not know the control message %q", x.cfg.Self, c.Verb))
	}
}

// errLater says that somebody else will respond.
var errLater = wire.Errorf(wire.Internal, "responds later")

// ask decodes a request, lets f answer it and responds.
func ask[Q any](x *Interop, msg *nats.Msg, f func(Q) (any, error)) {
	var q Q
	if err := wire.Unmarshal(msg.Data, &q); err != nil {
		x.stats.refused.Add(1)
		x.respond(msg, nil, err)
		return
	}
	reply, err := f(q)
	if err == errLater { //nolint:errorlint // a marker, compared by identity on purpose
		return
	}
	x.respond(msg, reply, err)
}

func (x *Interop) respond(msg *nats.Msg, v any, err error) {
	if msg.Reply == "" {
		return
	}
	var p wire.Payload
	if err == nil && v != nil {
		p.Data, err = wire.Marshal(v)
	}
	x.reply(msg, wire.Msgpack, p, err)
}
