package gateway

import (
	"context"
	"log/slog"
	"sync"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// subscription is a subscription of the peer to a stream. Its events come on one
// goroutine at a time: the publisher's as long as the client keeps up, otherwise that
// of run.
type subscription struct {
	x       *interop
	request *frame
	server  subjects.App
	stream  string
	ctx     context.Context // ends with the peer, or when the client ends the subscription
	cancel  context.CancelFunc

	mu       sync.Mutex // guards what follows; before that of x
	answered bool
	id       string            // what the client calls it, once it was accepted
	gap      *node.StreamEvent // to be announced with the next message
	sub      *node.Subscription
	ended    bool // by the client: it is told nothing more
}

// stop ends the subscription at the client's wish, and answers the request for it if
// that was not answered.
func (s *subscription) stop() {
	s.mu.Lock()
	if !s.ended && !s.answered {
		s.x.fail(s.request, wire.Errorf(wire.TargetGone, "the app has left"), uriRejected)
	}
	s.ended = true
	sub := s.sub
	s.mu.Unlock()
	s.cancel()
	if sub != nil {
		sub.Close()
	}
}

// subscribe subscribes the peer to a stream of another app.
func (x *interop) subscribe(f *frame) {
	server, m, a, d, ok := x.request(f)
	if !ok {
		return
	}
	if server == x.p.s.g.platform.id {
		x.subscribePlatform(f, m, a)
		return
	}
	if !m.Streaming {
		x.p.fail(f, domainAGM, domainAGM+"."+uriInvocation, "Method "+m.Name+" is no stream")
		return
	}
	text, err := d.text()
	if err != nil {
		x.p.fail(f, domainAGM, domainAGM+"."+uriInvocation, wire.AsError(err).Error())
		return
	}
	s := &subscription{x: x, request: f, server: server, stream: m.Name}
	s.ctx, s.cancel = context.WithCancel(x.p.ctx)
	x.mu.Lock()
	x.calls[server]++ // while it is being asked for
	x.asking[s] = true
	x.mu.Unlock()
	go s.run(m.Name, a.payload(), text) // ends with the subscription, which ends with the peer
}

// run subscribes, and passes on what waits until the subscription is over.
func (s *subscription) run(stream string, args wire.Payload, detail string) {
	x, p := s.x, s.x.p
	defer s.cancel()
	sub, err := p.client.Subscribe(s.ctx, stream, args, node.Exactly(s.server), node.Timeout(wire.MaxCallTimeout), node.Detail(detail), node.Direct(s.direct))
	if err != nil {
		s.mu.Lock()
		if !s.ended {
			s.answered = true
			x.fail(s.request, err, uriRejected)
		}
		s.mu.Unlock()
		x.asked(s)
		return
	}
	s.mu.Lock()
	s.sub = sub
	ended := s.ended
	s.mu.Unlock()
	if ended {
		sub.Close()
	}
	for e := range sub.Events(s.ctx) {
		p.s.out.await(s.ctx)
		s.take(e)
	}
	s.mu.Lock()
	id := s.id
	s.mu.Unlock()
	x.asked(s) // if it was stopped before
	x.mu.Lock()
	delete(x.subs, id)
	x.mu.Unlock()
	p.syncSoon() // what was put off for it
}

// direct takes an event if the client keeps up.
func (s *subscription) direct(e node.StreamEvent) bool {
	if e.Kind == node.StreamData && s.x.p.s.out.full() != nil {
		return false
	}
	s.take(e)
	return true
}

// take passes an event on. Nothing comes after the answer to the request that ended it.
func (s *subscription) take(e node.StreamEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	switch e.Kind {
	case node.StreamSubscribed:
		s.started(e)
	case node.StreamData:
		s.event(e)
	case node.StreamGap:
		s.missed(e)
	case node.StreamClosed:
		s.cancelled(e)
	}
}

// asked notes that a request for a subscription has its answer, once.
func (x *interop) asked(s *subscription) {
	x.mu.Lock()
	asking := x.asking[s]
	delete(x.asking, s)
	x.mu.Unlock()
	if asking {
		x.uncount(s.server)
	}
}

func (x *interop) uncount(server subjects.App) {
	x.mu.Lock()
	if x.calls[server]--; x.calls[server] == 0 {
		delete(x.calls, server)
	}
	x.mu.Unlock()
	x.p.syncSoon() // what was put off for it
}

// started tells the client that its subscription was accepted.
func (s *subscription) started(e node.StreamEvent) {
	if s.id != "" {
		return // again, after a reconnect
	}
	s.id, s.answered = e.ID, true
	x := s.x
	x.mu.Lock()
	x.subs[s.id] = s
	x.mu.Unlock()
	x.p.s.send(begin(domainAGM, "subscribed").raw("request_id", s.request.request).str("peer_id", string(x.p.id)).str("subscription_id", s.id))
	x.asked(s)
}

// event passes on one message. A gap before it is announced with it: the clients'
// libraries have no notice of their own.
func (s *subscription) event(e node.StreamEvent) {
	gap := s.gap
	s.gap = nil
	data, err := jsonOf(e.Value)
	if err != nil {
		s.x.p.log.Warn("stream message left out", slog.String("stream", s.stream), slog.Any("error", err))
		return
	}
	if data != nil && !isObject(data) && e.Value.Format == wire.Msgpack && !s.x.p.s.g.isClient(e.Server.App) {
		data = wrapped(data)
	}
	m := begin(domainAGM, "event").str("peer_id", string(s.x.p.id)).str("subscription_id", s.id).raw("oob", boolean(e.Private))
	if s.x.p.s.g.isClient(e.Server.App) && !e.Snapshot && gap == nil {
		m = m.raw("sequence", nil).raw("snapshot", nil)
	} else {
		m = m.raw("sequence", decimal(e.Seq)).raw("snapshot", boolean(e.Snapshot))
	}
	if gap != nil {
		g := message{}.raw("from", decimal(gap.From)).raw("to", decimal(gap.To)).str("reason", gap.Reason)
		g[0] = '{'
		m = m.raw("gap", g.end())
	}
	s.x.p.s.send(m.raw("data", data))
}

// missed notes a gap for the next message, and tells the log.
func (s *subscription) missed(e node.StreamEvent) {
	s.x.p.s.g.gaps.Add(1)
	s.x.p.log.Warn("stream messages are missing", slog.String("stream", s.stream), slog.Uint64("from", e.From), slog.Uint64("to", e.To), slog.String("reason", e.Reason))
	if s.gap != nil {
		e.From = s.gap.From
	}
	s.gap = &e
}

// cancelled tells the client that its subscription is over, and why.
func (s *subscription) cancelled(e node.StreamEvent) {
	m := begin(domainAGM, "subscription-cancelled").str("subscription_id", s.id).str("peer_id", string(s.x.p.id))
	switch {
	case wire.CodeOf(e.Err) != wire.TargetGone: // the publisher dropped it
		m = m.raw("reason_uri", nil).str("reason", e.Reason)
	case e.Reason == node.ReasonStreamClosed:
		m = m.str("reason_uri", domainAGM+"."+uriMethodRemoved).str("reason", textMethodRemoved)
	default:
		m = m.str("reason_uri", domainAGM+"."+uriPeerRemoved).str("reason", textPeerRemoved)
	}
	s.x.p.s.send(m)
}

// unsubscribe ends a subscription of the peer.
func (x *interop) unsubscribe(f *frame) {
	id := f.text("subscription_id")
	x.mu.Lock()
	s := x.subs[id]
	delete(x.subs, id)
	x.mu.Unlock()
	if s == nil && !x.unsubscribePlatform(id) {
		x.p.fail(f, domainAGM, domainAGM+"."+uriBadSubscriber, "Unable to find subscription with id "+id+" on subscriber id "+string(x.p.id))
		return
	}
	if s != nil {
		s.stop()
	}
	x.p.success(f, domainAGM)
}

// interest is somebody's subscription to a stream of the peer.
type interest struct {
	o      *offered
	id     string
	caller subjects.App
	branch string
	sub    *node.Subscriber // once accepted
	decide func(branch string, err error) (*node.Subscriber, error)
	// dropped says that the client ended it, and need not be told.
	dropped bool
}

// decided rejects an interest that was not accepted.
func (i *interest) decided(err error) {
	if i.sub == nil && i.decide != nil {
		_, _ = i.decide("", err) // or the subscriber has given up
	}
}

// decide asks the client about a subscription. It runs on any goroutine.
func (o *offered) decide(r *node.SubscriptionRequest, decide func(branch string, err error) (*node.Subscriber, error)) {
	x := o.x
	x.p.post(func() {
		x.whenKnown(x.callerID(&r.Subscriber), r.Subscriber.App, &r.Subscriber, func(caller subjects.App) {
			o.interested(r, caller, decide)
		})
	})
}

// callerID is the id of a subscriber that the directory has.
func (x *interop) callerID(id *node.Identity) string {
	if _, ok := x.p.s.g.realm.View().App(subjects.App(id.App)); ok {
		return id.App
	}
	return ""
}

func (o *offered) interested(r *node.SubscriptionRequest, caller subjects.App, decide func(branch string, err error) (*node.Subscriber, error)) {
	x := o.x
	i := &interest{o: o, id: r.ID, caller: caller, decide: decide}
	switch {
	case o.closed:
		i.decided(wire.Errorf(wire.TargetGone, "%s", node.ReasonStreamClosed))
		return
	case !x.knows(caller) || caller != x.p.id && !permits(o.def.Restrictions, &x.p.self, &r.Subscriber):
		i.decided(wire.Errorf(wire.NoServer, "app %s does not offer the stream %q to this subscriber", x.p.id, o.def.Name))
		return
	}
	a, err := arguments(r.Args)
	if err != nil {
		i.decided(err)
		return
	}
	x.interests[i.id] = i
	d := readDetail(r.Detail)
	m := begin(domainAGM, "add-interest").str("subscription_id", i.id).str("peer_id", string(x.p.id)).str("caller_id", string(caller)).raw("method_id", []byte(o.id))
	x.p.s.send(a.put(m).raw("flags", d.Flags).raw("context", d.Context))
}

// accepted takes the client's acceptance of a subscription, on a branch. From the
// next frame on what the client publishes reaches the subscriber.
func (x *interop) accepted(f *frame) {
	i := x.interests[f.text("subscription_id")]
	stream := f.raw("stream_id")
	switch {
	case stream == nil:
		x.p.fail(f, domainAGM, domainAGM+"."+uriBadSubscriber, "Invalid or missing stream id")
		return
	case i == nil || i.sub != nil:
		return
	}
	i.branch = branchOf(stream)
	sub, err := i.decide(i.branch, nil)
	if err != nil {
		x.forgetInterest(i.id)
		x.removeInterest(i, domainAGM+"."+uriPeerRemoved, textPeerRemoved)
		return
	}
	i.sub = sub
	streams := x.branches[i.branch]
	if streams == nil {
		streams = map[*node.Stream]int{}
		x.branches[i.branch] = streams
	}
	streams[i.o.stream]++
}

// branchOf is the branch of a stream id: the id itself if it is a string.
func branchOf(stream []byte) string {
	if s, ok := wire.JSONString(stream); ok {
		return s
	}
	return "=" + string(compactJSON(stream))
}

// ended is told that an accepted subscription is over. It runs on any goroutine.
func (o *offered) ended(sub *node.Subscriber) {
	x := o.x
	x.p.post(func() {
		i := x.interests[sub.ID()]
		if i == nil {
			return
		}
		x.forgetInterest(i.id)
		switch {
		case i.dropped || o.closed:
		case sub.Left():
			x.removeInterest(i, domainAGM+"."+uriPeerRemoved, textPeerRemoved)
		default:
			x.removeInterest(i, "", "ClientInitiated")
		}
		x.sync() // what was put off for it
	})
}

func (x *interop) removeInterest(i *interest, uri, reason string) {
	x.p.s.send(begin(domainAGM, "remove-interest").str("subscription_id", i.id).str("peer_id", string(x.p.id)).
		raw("method_id", []byte(i.o.id)).str("caller_id", string(i.caller)).str("reason_uri", uri).str("reason", reason))
}

func (x *interop) forgetInterest(id string) {
	i := x.interests[id]
	delete(x.interests, id)
	if i == nil || i.sub == nil {
		return
	}
	streams := x.branches[i.branch]
	if streams[i.o.stream]--; streams[i.o.stream] <= 0 {
		delete(streams, i.o.stream)
	}
	if len(streams) == 0 {
		delete(x.branches, i.branch)
	}
}

// publish pushes to a branch. One without subscribers is nobody's.
func (x *interop) publish(f *frame) {
	branch := branchOf(f.raw("stream_id"))
	for stream := range x.branches[branch] {
		if err := stream.Push(wire.Payload{Format: wire.JSON, Data: f.raw("data")}, branch); err != nil {
			x.p.failed(f, err)
		}
	}
}

// post pushes to one subscription.
func (x *interop) post(f *frame) {
	i := x.interests[f.text("subscription_id")]
	if i == nil || i.sub == nil {
		return
	}
	if err := i.sub.Push(wire.Payload{Format: wire.JSON, Data: f.raw("data")}); err != nil && wire.CodeOf(err) != wire.TargetGone {
		x.p.failed(f, err)
	}
}

// dropSubscription ends a subscription to a stream of the client.
func (x *interop) dropSubscription(f *frame) {
	id := f.text("subscription_id")
	i := x.interests[id]
	if i == nil || i.sub == nil {
		reason := textSubscription
		if i != nil {
			reason = textUnestablished
		}
		x.p.s.send(begin(domainAGM, "error").raw("request_id", f.raw("subscription_id")).str("peer_id", string(x.p.id)).
			str("reason_uri", domainAGM+"."+uriBadSubscriber).str("reason", reason))
		return
	}
	i.dropped = true
	x.forgetInterest(id)
	i.sub.Close(f.text("reason"))
}

func boolean(b bool) []byte {
	if b {
		return []byte("true")
	}
	return []byte("false")
}
