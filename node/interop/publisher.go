package interop

import (
	"context"
	"log/slog"
	"time"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// accept handles a subscription request of another node.
func (x *Interop) accept(from subjects.Node, q wire.SubscribeRequest) (wire.SubscribeReply, error) {
	var none wire.SubscribeReply
	server, err := subjects.ParseApp(q.Server)
	if err != nil {
		return none, wire.AsError(err)
	}
	push, err := x.cfg.Realm.PushSubject(from, x.cfg.Self, q.ID)
	if err != nil {
		return none, wire.AsError(err)
	}
	_, m, err := x.served(server, q.Stream)
	if err != nil {
		return none, err
	}
	if m.stream == nil {
		return none, wire.Errorf(wire.NoServer, "%q is a method, not a stream", q.Stream)
	}
	x.mu.Lock()
	_, known := x.pubs[q.ID]
	x.mu.Unlock()
	if known {
		return none, wire.Errorf(wire.Rejected, "subscription %s exists", q.ID)
	}
	s := m.stream
	c := &Subscriber{
		stream: s, id: q.ID, node: from, who: x.subscriberOf(from, q.App), subject: string(push),
		args: wire.Payload{Data: q.Args}, renewed: time.Now(), events: make(chan struct{}),
	}
	ctx, cancel := context.WithTimeout(s.app.ctx, wire.CallTimeout)
	defer cancel()
	name, err := s.decide(ctx, c.args, c.who)
	if err != nil {
		return none, err
	}
	x.mu.Lock()
	x.pubs[c.id] = c
	x.mu.Unlock()
	if err := s.add(c, name, nil); err != nil {
		x.mu.Lock()
		delete(x.pubs, c.id)
		x.mu.Unlock()
		return none, err
	}
	x.wg.Go(func() { x.mark(c) })
	return wire.SubscribeReply{Branch: name, Epoch: s.epoch}, nil
}

// subscriberOf is who subscribes: an app of the sending node, or what the
// subject proves.
func (x *Interop) subscriberOf(from subjects.Node, app string) wire.Identity {
	if id, err := subjects.ParseApp(app); err == nil {
		if a, ok := x.cfg.Directory.App(id); ok && a.Node == from {
			return a.Identity
		}
		return wire.Identity{Application: string(from), Node: string(from), App: app}
	}
	return wire.Identity{Application: string(from), Node: string(from)}
}

// mark repeats the branch's mark until the subscriber has confirmed one.
func (x *Interop) mark(c *Subscriber) {
	s := c.stream
	end := time.NewTimer(confirmIn)
	defer end.Stop()
	for wait := firstMark; ; wait = min(2*wait, slowestMark) {
		s.mu.Lock()
		done := c.confirmed || c.gone
		if !done {
			s.mark(c.branch)
		}
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-time.After(wait):
		case <-end.C:
			if s.drop(c) {
				x.log.Warn("subscriber never confirmed", slog.String("stream", s.Name()), slog.String("node", string(c.node)))
			}
			return
		case <-s.app.ctx.Done():
			return
		}
	}
}

// known returns a subscription that this sender made.
func (x *Interop) known(from subjects.Node, id string) (*Subscriber, error) {
	x.mu.Lock()
	c := x.pubs[id]
	x.mu.Unlock()
	if c == nil || c.node != from {
		return nil, wire.Errorf(wire.TargetGone, "node %s does not know subscription %s", x.cfg.Self, id)
	}
	return c, nil
}

// resume continues a subscription after its subscriber was cut off: the branch
// says at once how far it is.
func (x *Interop) resume(from subjects.Node, q wire.SubscribeRequest) (wire.SubscribeReply, error) {
	c, err := x.known(from, q.ID)
	if err != nil {
		return wire.SubscribeReply{}, err
	}
	s := c.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.gone {
		return wire.SubscribeReply{}, wire.Errorf(wire.TargetGone, "subscription %s has ended", q.ID)
	}
	c.renewed = time.Now()
	s.mark(c.branch)
	if c.private > 0 {
		s.publish(c.subject, wire.AppendStreamMark(nil, s.epoch, c.private))
	}
	return wire.SubscribeReply{Branch: c.branch.name, Epoch: s.epoch}, nil
}

// confirm starts a subscription, or fills a gap, and answers with the snapshot.
func (x *Interop) confirm(from subjects.Node, q wire.ConfirmRequest) (wire.ConfirmReply, error) {
	var r wire.ConfirmReply
	c, err := x.known(from, q.ID)
	if err != nil {
		return r, err
	}
	s := c.stream
	s.mu.Lock()
	if c.gone || q.Epoch != s.epoch {
		s.mu.Unlock()
		return r, wire.Errorf(wire.TargetGone, "subscription %s has ended", q.ID)
	}
	first := !c.confirmed
	c.confirmed = true
	c.renewed = time.Now()
	for _, k := range c.branch.kept {
		if k.seq > q.After && k.seq <= q.Seq {
			r.Items = append(r.Items, wire.SnapshotItem{Seq: k.seq, Body: k.body.Data})
		}
	}
	s.mu.Unlock()
	if first {
		s.added(c)
	}
	return r, nil
}

// unsubscribe ends a subscription at its subscriber's wish.
func (x *Interop) unsubscribe(from subjects.Node, id string) {
	if c, err := x.known(from, id); err == nil {
		c.stream.drop(c)
	}
}

// tick repeats the marks of idle branches and drops subscribers that are gone.
func (x *Interop) tick() {
	t := time.NewTicker(tickInterval)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			x.housekeep(now, idleMark)
		case <-x.ctx.Done():
			return
		}
	}
}

// housekeep marks the branches that were silent for idle, and forgets
// subscribers whose app is gone.
func (x *Interop) housekeep(now time.Time, idle time.Duration) {
	online := x.cfg.Data.State().Online
	x.mu.Lock()
	pubs := make([]*Subscriber, 0, len(x.pubs))
	for _, c := range x.pubs {
		pubs = append(pubs, c)
	}
	x.mu.Unlock()
	for _, c := range pubs {
		s := c.stream
		s.mu.Lock()
		if online && !c.gone && now.Sub(c.branch.sent) >= idle {
			s.mark(c.branch)
		}
		if online && !c.gone && c.private > 0 && now.Sub(c.sent) >= idle {
			s.publish(c.subject, wire.AppendStreamMark(nil, s.epoch, c.private))
			c.sent = now
		}
		gone := online && c.lapsed(now)
		s.mu.Unlock()
		if gone && s.drop(c) {
			x.log.Debug("subscriber has gone", slog.String("stream", s.Name()), slog.String("node", string(c.node)))
		}
	}
}

// lapsed says whether a subscriber's app is gone for good; the stream's mu is
// held. A plain NATS client is not in the directory: it must resume in time.
func (c *Subscriber) lapsed(now time.Time) bool {
	id := subjects.App(c.who.App)
	if _, ok := c.stream.x.cfg.Directory.App(id); ok {
		c.absent = time.Time{}
		return false
	}
	if c.who.App == "" {
		return now.Sub(c.renewed) > strangerFor
	}
	if c.absent.IsZero() {
		c.absent = now
	}
	return now.Sub(c.absent) > absentFor
}

// Connected tells streams that the connection is back: every branch says how
// far it is, and every subscription asks its publisher to go on.
func (x *Interop) Connected() {
	x.housekeep(time.Now(), 0)
	ch := make(chan struct{})
	close(*x.online.Swap(&ch))
}
