package interop

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// feed is one branch of another node that this node listens to, once, for all
// its subscriptions. The NATS callback hands each message to every leg; legs
// never block.
type feed struct {
	x       *Interop
	subject string
	refs    int // guarded by Interop.mu
	ready   chan struct{}
	sub     *nats.Subscription // set before ready is closed
	err     error

	mu   sync.Mutex
	legs atomic.Pointer[[]*leg] // replaced under mu
}

// attach makes a leg hear a branch, and returns when NATS knows that this node
// listens.
func (x *Interop) attach(ctx context.Context, subject string, l *leg) (*feed, error) {
	x.mu.Lock()
	f := x.feeds[subject]
	first := f == nil
	if first {
		f = &feed{x: x, subject: subject, ready: make(chan struct{})}
		f.legs.Store(&[]*leg{})
		x.feeds[subject] = f
	}
	f.refs++
	x.mu.Unlock()
	f.mu.Lock()
	legs := append(slices.Clone(*f.legs.Load()), l)
	f.legs.Store(&legs)
	f.mu.Unlock()
	if first {
		x.wg.Go(func() { // for all that attach: none of them may cancel it
			f.sub, f.err = x.lane.Subscribe(x.ctx, subject, f.onMessage)
			close(f.ready)
		})
	}
	select {
	case <-f.ready:
	case <-ctx.Done():
		x.detach(f, l)
		return nil, errOf(ctx)
	}
	if f.err != nil {
		err := f.err
		x.detach(f, l)
		return nil, err
	}
	return f, nil
}

func (x *Interop) detach(f *feed, l *leg) {
	f.mu.Lock()
	legs := slices.DeleteFunc(slices.Clone(*f.legs.Load()), func(o *leg) bool { return o == l })
	f.legs.Store(&legs)
	f.mu.Unlock()
	x.mu.Lock()
	f.refs--
	last := f.refs == 0
	if last {
		delete(x.feeds, f.subject)
	}
	x.mu.Unlock()
	if last {
		<-f.ready
		if f.sub != nil {
			x.lane.Unsubscribe(f.sub)
		}
	}
}

func (f *feed) onMessage(msg *nats.Msg) {
	if wire.Injected(msg.Header, msg.Data) {
		f.x.refused(msg, "not a stream message")
		return
	}
	m, err := wire.ParseStream(msg.Data)
	if err != nil || m.Kind == wire.StreamClose {
		f.x.refused(msg, "not a stream message")
		return
	}
	taken := false
	for _, l := range *f.legs.Load() {
		taken = l.onBranch(m) || taken
	}
	if !taken {
		f.x.refused(msg, "not this epoch")
	}
}

// onPush takes what is meant for one subscription of this node.
func (x *Interop) onPush(msg *nats.Msg) {
	if wire.Injected(msg.Header, msg.Data) {
		x.refused(msg, "not private data")
		return
	}
	p, err := subjects.ParsePush(msg.Subject)
	if err != nil {
		x.refused(msg, err.Error())
		return
	}
	m, err := wire.ParseStream(msg.Data)
	if err != nil {
		x.refused(msg, err.Error())
		return
	}
	x.mu.Lock()
	l := x.legs[p.Sub]
	x.mu.Unlock()
	switch {
	case l == nil: // it has just ended
		x.log.Debug("private data for no subscription", slog.String("node", string(p.Owner)))
	case l.server.Node != p.Owner:
		x.refused(msg, "somebody else's subscription")
	case !l.onPrivate(m):
		x.refused(msg, "not this epoch")
	}
}

// onBranch takes a message of the branch and says whether it could be one.
func (l *leg) onBranch(m wire.StreamMessage) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Epoch != l.epoch {
		return false
	}
	if l.state != over {
		l.heard = time.Now()
		l.take(m)
	}
	return true
}

// take is the state machine of a remote leg; mu is held.
func (l *leg) take(m wire.StreamMessage) {
	switch {
	case l.state == starting && m.Kind == wire.StreamMark:
		l.fetch(m.Seq)
	case l.state == repairing && m.Kind == wire.StreamData && m.Seq > l.upTo:
		l.hold(m)
	case l.state == live && m.Kind == wire.StreamMark && m.Seq > l.last:
		l.fetch(m.Seq)
	case l.state == live && m.Kind == wire.StreamData && m.Seq == l.last+1:
		l.last = m.Seq
		l.emit(m.Seq, wire.Payload{Data: m.Body}, false)
	case l.state == live && m.Kind == wire.StreamData && m.Seq > l.last+1:
		l.fetch(m.Seq - 1)
		l.hold(m)
	}
}

// fetch asks run to confirm up to a sequence.
func (l *leg) fetch(upTo uint64) {
	l.state, l.upTo = repairing, upTo
	l.wake()
}

// wake makes run repair.
func (l *leg) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// hold keeps a message until the repair is done. When too much waits, it all
// becomes part of the gap, which the repair then announces.
func (l *leg) hold(m wire.StreamMessage) {
	if len(l.held) >= wire.QueueMessages || l.heldSize+len(m.Body) > wire.QueueBytes && len(l.held) > 0 {
		l.held, l.heldSize = nil, 0
		l.fetch(m.Seq)
		return
	}
	l.held = append(l.held, m)
	l.heldSize += len(m.Body)
}

// onPrivate takes private data, its mark, or the end of the subscription, and
// says whether it could be one.
func (l *leg) onPrivate(m wire.StreamMessage) bool {
	l.mu.Lock()
	state, mine := l.state, m.Epoch == l.epoch || l.epoch == 0
	if mine && state != over {
		l.takePrivate(m)
	}
	l.mu.Unlock()
	if mine && state != over && m.Kind == wire.StreamClose {
		l.close(wire.FromHeader(string(m.Code), m.Reason))
	}
	return mine
}

// takePrivate is the state machine of private data; mu is held.
func (l *leg) takePrivate(m wire.StreamMessage) {
	switch isData := m.Kind == wire.StreamData; {
	case m.Seq <= l.private: // nothing new
	case !l.joined: // the answer to the confirmation is still on its way
		if isData && len(l.early) < wire.QueueMessages && l.heldSize+len(m.Body) <= wire.QueueBytes {
			l.early = append(l.early, earlyMessage{m, len(l.held)})
			l.heldSize += len(m.Body)
		}
	case isData:
		if m.Seq > l.private+1 {
			l.lose(l.private+1, m.Seq-1, true, "lost")
		}
		l.private = m.Seq
		l.emitPrivate(m.Seq, wire.Payload{Data: m.Body})
	default:
		l.lose(l.private+1, m.Seq, true, "lost")
		l.private = m.Seq
	}
}

// runLocal starts the leg on a stream of this node.
func (l *leg) runLocal() {
	x := l.sub.x
	_, m, err := x.served(l.server.ID, l.stream)
	if err == nil && m.stream == nil {
		err = wire.Errorf(wire.NoServer, "%q is a method, not a stream", l.stream)
	}
	if err != nil {
		l.finish(err)
		return
	}
	s := m.stream
	defer context.AfterFunc(s.app.ctx, func() { l.finish(errOf(s.app.ctx)) })()
	ctx, cancel := context.WithTimeout(l.sub.ctx, l.sub.o.timeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.finish(errOf(ctx)) })()
	c := &Subscriber{stream: s, id: l.id, node: x.cfg.Self, who: l.sub.app.identity, args: l.sub.args, detail: l.sub.o.detail, leg: l, confirmed: true, events: make(chan struct{})}
	if err := s.admit(ctx, c, func(b *branch) error { return l.startLocal(c, b) }); err != nil {
		l.finish(err)
		return
	}
	s.added(c)
	select {
	case <-l.done: // closed before the stream knew c
		s.drop(c)
	default:
	}
}

// startLocal starts the leg where a branch is; the stream's mu is held.
func (l *leg) startLocal(c *Subscriber, b *branch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == over {
		return l.err
	}
	l.pub, l.state, l.branch, l.epoch, l.last = c, live, b.name, c.stream.epoch, b.seq
	l.join()
	for _, k := range b.kept {
		l.emit(k.seq, k.body, true)
	}
	return nil
}

// deliver takes a message of a local stream; the stream's mu is held.
func (l *leg) deliver(seq uint64, p wire.Payload) { l.emit(seq, p, false) }

func (l *leg) deliverPrivate(seq uint64, p wire.Payload) { l.emitPrivate(seq, p) }
