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
	detail, err := wire.ParseDetail(q.Detail)
	if err != nil {
		return none, err
	}
	s := m.stream
	c := &Subscriber{
		stream: s, id: q.ID, node: from, who: x.subscriberOf(from, q.App), subject: string(push),
		args: wire.Payload{Data: q.Args}, detail: detail, renewed: time.Now(), events: make(chan struct{}),
	}
	ctx, cancel := context.WithTimeout(s.app.ctx, wire.CallTimeout)
	c.giveUp = cancel
	if err := x.reserve(c); err != nil {
		cancel()
		return none, err
	}
	defer c.giveUp()
	if err := s.admit(ctx, c, func(*branch) error { return nil }); err != nil {
		x.mu.Lock()
		delete(x.pubs, c.id)
		x.mu.Unlock()
		return none, err
	}
	x.wg.Go(func() { x.mark(c) })
	return wire.SubscribeReply{Branch: c.branch.name, Epoch: s.epoch}, nil
}

// reserve takes a subscription's id, while it is being decided about.
func (x *Interop) reserve(c *Subscriber) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.pubs[c.id] != nil {
		x.stats.refused.Add(1)
		return wire.Errorf(wire.Rejected, "subscription %s exists", c.id)
	}
	x.pubs[c.id] = c
	return nil
}

// subscriberOf is who subscribes: an app of the sending node, or what the
// subject proves.
func (x *Interop) subscriberOf(from subjects.Node, app string) wire.Identity {
	if id, err := subjects.ParseApp(app); err == nil {
		if a, ok := x.cfg.Directory.App(id); ok && a.Node == from {
			return a.Identity
		}
	}
	return wire.Identity{Application: string(from), Node: string(from), App: string(x.claimed(from, app))}
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

// known returns a subscription that this sender made, and its stream locked.
func (x *Interop) known(from subjects.Node, id string) (*Subscriber, error) {
	x.mu.Lock()
	c := x.pubs[id]
	x.mu.Unlock()
	if c != nil && c.node == from {
		c.stream.mu.Lock()
		if c.branch != nil && !c.gone { // accepted and not ended
			return c, nil
		}
		c.stream.mu.Unlock()
	} else if c != nil {
		x.stats.refused.Add(1)
		x.log.Debug("message about somebody else's subscription", slog.String("node", string(from)))
	}
	return nil, wire.Errorf(wire.TargetGone, "node %s does not know subscription %s", x.cfg.Self, id)
}

// resume continues a subscription after its subscriber was cut off: the branch
// says at once how far it is.
func (x *Interop) resume(from subjects.Node, q wire.SubscribeRequest) (wire.SubscribeReply, error) {
	c, err := x.known(from, q.ID)
	if err != nil {
		return wire.SubscribeReply{}, err
	}
	s := c.stream
	defer s.mu.Unlock()
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
	defer s.mu.Unlock()
	if q.Epoch != s.epoch || q.Seq > c.branch.seq {
		x.stats.refused.Add(1)
		return r, wire.Errorf(wire.BadPayload, "subscription %s: the branch has not reached epoch %d, sequence %d", q.ID, q.Epoch, q.Seq)
	}
	if !c.confirmed {
		s.added(c)
	}
	c.confirmed = true
	c.renewed = time.Now()
	for _, k := range c.branch.kept {
		if k.seq > q.After && k.seq <= q.Seq {
			r.Items = append(r.Items, wire.SnapshotItem{Seq: k.seq, Body: k.body.Data})
		}
	}
	if q.After > 0 {
		c.early = nil // the answer that had them has arrived
	}
	for _, k := range c.early {
		if k.seq <= q.Seq {
			r.Items = append(r.Items, wire.SnapshotItem{Seq: k.seq, Body: k.body.Data, Live: true, Private: k.private})
		}
	}
	return r, nil
}

// unsubscribe ends a subscription at its subscriber's wish.
func (x *Interop) unsubscribe(from subjects.Node, q wire.UnsubscribeRequest) {
	x.mu.Lock()
	if c := x.pubs[q.ID]; c != nil && c.node == from {
		c.giveUp() // one that is not decided about
	}
	x.mu.Unlock()
	if c, err := x.known(from, q.ID); err == nil {
		c.left = q.Left
		c.stream.mu.Unlock()
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
			x.housekeep(now, false)
		case <-x.ctx.Done():
			return
		}
	}
}

// housekeep marks idle branches, all of them when the node is just back, and
// forgets subscribers whose app is gone.
func (x *Interop) housekeep(now time.Time, back bool) {
	online := x.cfg.Data.State().Online
	idle := func(sent time.Time) bool { return back || now.Sub(sent) >= idleMark }
	x.mu.Lock()
	pubs := make([]*Subscriber, 0, len(x.pubs))
	for _, c := range x.pubs {
		pubs = append(pubs, c)
	}
	x.mu.Unlock()
	marked := map[*branch]bool{}
	for _, c := range pubs {
		s := c.stream
		s.mu.Lock()
		if !online { // nobody can be seen, so nobody is gone
			c.absent, c.renewed = time.Time{}, now
		}
		if online && c.branch == nil && c.lapsed(now) {
			c.giveUp()
		}
		if !online || c.gone || c.branch == nil {
			s.mu.Unlock()
			continue
		}
		if !marked[c.branch] && idle(c.branch.sent) {
			s.mark(c.branch)
			marked[c.branch] = true
		}
		if c.confirmed && now.Sub(c.renewed) > confirmIn {
			c.early = nil
		}
		if c.private > 0 && idle(c.sent) {
			s.publish(c.subject, wire.AppendStreamMark(nil, s.epoch, c.private))
			c.sent = now
		}
		gone := c.lapsed(now)
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
	x.housekeep(time.Now(), true)
	ch := make(chan struct{})
	close(*x.online.Swap(&ch))
}
