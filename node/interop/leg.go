package interop

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	ctlTimeout  = 3 * time.Second
	silentFor   = 3 * idleMark     // without a mark: ask the publisher
	settleAfter = 12 * time.Second // after a reconnect the directory may lack apps that are there
	legTick     = 2 * time.Second
)

type legState uint8

const (
	starting  legState = iota // no mark yet
	repairing                 // a mark or a jump waits for its confirmation
	live
	over
)

// leg is a subscription's part on one server. Its goroutine, run, does what
// needs the network; messages come in on the goroutine of the branch.
type leg struct {
	sub    *Subscription
	server *directory.App
	stream string // as the server spells it

	started chan struct{} // closed when accepted and contiguous, or over
	done    chan struct{} // closed when over
	kick    chan struct{} // a repair is wanted

	mu       sync.Mutex // guards what follows
	id       string
	state    legState
	branch   string
	epoch    uint64
	joined   bool   // Subscribed was reported
	last     uint64 // the sequence delivered last
	upTo     uint64 // while repairing: confirm up to here
	private  uint64
	held     []wire.StreamMessage // while repairing: what follows upTo
	heldSize int
	heard    time.Time
	err      error
	feed     *feed
	pub      *Subscriber // of a local server
}

// origin is the queue source of a leg's data.
type origin struct {
	leg     *leg
	branch  string
	private bool
}

func newLeg(s *Subscription, server directory.Server) *leg {
	return &leg{
		sub: s, server: server.App, stream: server.Method.Name, id: newID(),
		started: make(chan struct{}), done: make(chan struct{}), kick: make(chan struct{}, 1),
	}
}

// wait waits until the leg has started and returns why it did not.
func (l *leg) wait(ctx context.Context) error {
	select {
	case <-l.started:
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.joined {
			return nil
		}
		return l.err
	case <-ctx.Done():
		l.finish(errOf(ctx))
		return errOf(ctx)
	}
}

func (l *leg) live() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.joined && l.state != over
}

func (l *leg) branchName() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.branch
}

// finish ends the leg once and tells the subscription.
func (l *leg) finish(err error) {
	l.mu.Lock()
	if l.state == over {
		l.mu.Unlock()
		return
	}
	l.state, l.err = over, err
	joined, pub := l.joined, l.pub
	l.mu.Unlock()
	close(l.done)
	if !joined {
		close(l.started)
	}
	if pub != nil {
		pub.stream.drop(pub)
	}
	l.sub.over(l, joined, err)
}

// ended is told that the publisher closed the subscription.
func (l *leg) ended(err error) { l.finish(err) }

// gap makes the notice that messages are missing.
func (o origin) gap(from, to uint64, reason string) Event {
	return Event{Kind: Gap, Server: o.leg.server.Identity, Branch: o.branch, From: from, To: to, Private: o.private, Reason: reason}
}

// lose reports messages that will not come; mu is held.
func (l *leg) lose(from, to uint64, isPrivate bool, reason string) {
	o := origin{l, l.branch, isPrivate}
	l.sub.q.Control(o.gap(from, to, reason), o)
}

// join reports Subscribed; mu is held.
func (l *leg) join() {
	if l.joined {
		return
	}
	l.joined = true
	l.sub.q.Control(Event{Kind: Subscribed, Server: l.server.Identity, Branch: l.branch, Seq: l.last}, origin{leg: l, branch: l.branch})
	close(l.started)
}

// emit hands on one message; mu is held for a remote leg, the stream's for a
// local one.
func (l *leg) emit(seq uint64, p wire.Payload, snapshot bool) {
	l.sub.q.Put(Event{Kind: Data, Server: l.server.Identity, Branch: l.branch, Value: p, Seq: seq, Snapshot: snapshot}, p.Len(), origin{leg: l, branch: l.branch}, seq)
}

func (l *leg) emitPrivate(seq uint64, p wire.Payload) {
	l.sub.q.Put(Event{Kind: Data, Server: l.server.Identity, Branch: l.branch, Value: p, Seq: seq, Private: true}, p.Len(), origin{l, l.branch, true}, seq)
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
	ctx, cancel := context.WithTimeout(l.sub.ctx, l.sub.o.timeout)
	defer cancel()
	name, err := s.decide(ctx, l.sub.args, l.sub.app.identity)
	if err != nil {
		l.finish(err)
		return
	}
	c := &Subscriber{stream: s, id: l.id, node: x.cfg.Self, who: l.sub.app.identity, args: l.sub.args, leg: l, confirmed: true, events: make(chan struct{})}
	err = s.add(c, name, func(b *branch) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.state == over {
			return
		}
		l.pub, l.state, l.branch, l.epoch, l.last = c, live, name, s.epoch, b.seq
		l.join()
		for _, k := range b.kept {
			l.emit(k.seq, k.body, true)
		}
	})
	if err != nil {
		l.finish(err)
		return
	}
	s.added(c)
	select {
	case <-l.done: // closed meanwhile, perhaps before pub was set
		s.drop(c)
	default:
	}
}

// deliver takes a message of a local stream; the stream's mu is held.
func (l *leg) deliver(seq uint64, p wire.Payload) { l.emit(seq, p, false) }

func (l *leg) deliverPrivate(seq uint64, p wire.Payload) { l.emitPrivate(seq, p) }

// run keeps the leg on a server of another node.
func (l *leg) run() {
	x := l.sub.x
	defer l.withdraw()
	if err := l.request(); err != nil {
		l.finish(err)
		return
	}
	tick := time.NewTicker(legTick)
	defer tick.Stop()
	for {
		reconnected := *x.online.Load()
		changed := x.cfg.Directory.Changed()
		if l.departed() {
			l.finish(wire.Errorf(wire.TargetGone, "the app that publishes the stream has gone"))
			return
		}
		var err error
		select {
		case <-l.kick:
			err = l.repair()
		case <-reconnected:
			err = l.resume()
		case <-changed:
		case <-tick.C:
			if l.silent() {
				err = l.resume()
			}
		case <-l.done:
			return
		case <-l.sub.ctx.Done():
			l.finish(errOf(l.sub.ctx))
			return
		}
		if err != nil {
			l.finish(err)
			return
		}
	}
}

// withdraw stops listening and tells the publisher.
func (l *leg) withdraw() {
	x := l.sub.x
	l.mu.Lock()
	id, f := l.id, l.feed
	l.feed = nil
	l.mu.Unlock()
	x.mu.Lock()
	delete(x.legs, id)
	x.mu.Unlock()
	if f != nil {
		x.detach(f, l)
	}
	x.tell(l.server.Node, subjects.VerbUnsubscribe, wire.UnsubscribeRequest{ID: id})
}

// departed says whether the publisher's app is gone for good: while NATS is
// away, and shortly after, its absence from the directory proves nothing.
func (l *leg) departed() bool {
	view := l.sub.x.cfg.Directory.View()
	if _, ok := view.App(l.server.ID); ok {
		return false
	}
	if n := view.Nodes[l.server.Node]; n != nil && n.Boot == l.server.ID.Boot() {
		return true // its node is here and does not have it
	}
	s := l.sub.x.cfg.Control.State()
	return s.Online && time.Since(s.Since) > settleAfter
}

// silent says whether the branch has been quiet for too long.
func (l *leg) silent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.heard) > silentFor
}

// send asks the publisher's node. The context is the subscription's.
func (l *leg) send(verb subjects.Verb, timeout time.Duration, q, r any) error {
	x := l.sub.x
	body, err := wire.Marshal(q)
	if err != nil {
		return err
	}
	if err := wire.CheckSize("arguments of stream "+l.stream, len(body), x.cfg.Control.MaxPayload()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(l.sub.ctx, timeout)
	defer cancel()
	msg := &nats.Msg{Subject: string(x.cfg.Realm.CtlSubject(l.server.Node, x.cfg.Self, verb)), Data: body}
	reply, err := x.route(len(body)).Request(ctx, msg)
	if errors.Is(err, link.ErrNoResponders) {
		x.cfg.Directory.Suspect(l.server.Node)
		return errUnsent
	}
	if err != nil {
		return err
	}
	if code := reply.Header.Get(wire.HeaderErrorCode); code != "" {
		return wire.FromHeader(code, reply.Header.Get(wire.HeaderError))
	}
	return wire.Unmarshal(reply.Data, r)
}

// request subscribes, or subscribes again under a new id.
func (l *leg) request() error {
	x := l.sub.x
	args, err := l.sub.args.As(wire.Msgpack)
	if err != nil {
		return err
	}
	l.mu.Lock()
	old, id := l.id, newID()
	l.id, l.private, l.state, l.held, l.heldSize = id, 0, starting, nil, 0
	l.heard = time.Now()
	l.mu.Unlock()
	x.mu.Lock()
	delete(x.legs, old)
	x.legs[id] = l
	x.mu.Unlock()
	q := wire.SubscribeRequest{ID: id, App: string(l.sub.app.id), Server: string(l.server.ID), Stream: l.stream, Args: args.Data}
	var r wire.SubscribeReply
	if err := l.send(subjects.VerbSubscribe, l.sub.o.timeout, q, &r); err != nil {
		return err
	}
	stream, err := subjects.Encode(l.stream)
	if err != nil {
		return wire.AsError(err)
	}
	token, err := subjects.Encode(r.Branch)
	if err != nil {
		return wire.AsError(err)
	}
	l.mu.Lock()
	if l.joined && (l.epoch != r.Epoch || l.branch != r.Branch) {
		l.lose(l.last+1, 0, false, "restarted")
		l.last = 0
	}
	l.branch, l.epoch = r.Branch, r.Epoch
	f := l.feed
	l.mu.Unlock()
	if f != nil {
		x.detach(f, l)
	}
	f, err = x.attach(l.sub.ctx, string(x.cfg.Realm.DataSubject(l.server.Node, l.server.ID, stream, token)), l)
	l.mu.Lock()
	l.feed = f
	l.mu.Unlock()
	return err
}

// resume asks the publisher to say how far the branch is. A publisher that
// forgot the subscription is asked for a new one.
func (l *leg) resume() error {
	l.mu.Lock()
	id := l.id
	l.heard = time.Now()
	l.mu.Unlock()
	var r wire.SubscribeReply
	q := wire.SubscribeRequest{ID: id, App: string(l.sub.app.id), Server: string(l.server.ID), Stream: l.stream, Resume: true}
	return l.again(l.send(subjects.VerbSubscribe, ctlTimeout, q, &r))
}

// again decides after a failed request: nil to go on and try later, or why the
// leg is over.
func (l *leg) again(err error) error {
	switch {
	case err == nil, errors.Is(err, errUnsent), errors.Is(err, wire.ErrOffline), errors.Is(err, wire.ErrTimeout):
		return nil // the directory tells when the publisher is gone
	case errors.Is(err, wire.ErrTargetGone):
		err = l.request()
		if errors.Is(err, errUnsent) || errors.Is(err, wire.ErrOffline) || errors.Is(err, wire.ErrTimeout) {
			return nil
		}
	}
	return err
}

// repair confirms the mark that starts the leg, or fetches what a gap lacks.
func (l *leg) repair() error {
	l.mu.Lock()
	if l.state != repairing {
		l.mu.Unlock()
		return nil
	}
	q := wire.ConfirmRequest{ID: l.id, Epoch: l.epoch, Seq: l.upTo, After: l.last}
	l.mu.Unlock()
	var r wire.ConfirmReply
	err := l.send(subjects.VerbConfirm, ctlTimeout, q, &r)
	if errors.Is(err, wire.ErrTargetGone) && !errors.Is(err, errUnsent) {
		return l.again(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && !l.joined {
		l.state = starting // the publisher repeats its mark
		l.held, l.heldSize = nil, 0
		return nil
	}
	l.settle(q, r.Items)
	return nil
}

// settle delivers what was fetched, announces what is missing, and goes on
// with what was held back; mu is held.
func (l *leg) settle(q wire.ConfirmRequest, items []wire.SnapshotItem) {
	if l.state != repairing || q.ID != l.id || q.Epoch != l.epoch {
		return
	}
	fresh := !l.joined
	l.join()
	next := q.After + 1
	for _, item := range items {
		if item.Seq < next || item.Seq > q.Seq {
			continue
		}
		if item.Seq > next && !fresh {
			l.lose(next, item.Seq-1, false, "lost")
		}
		l.emit(item.Seq, wire.Payload{Data: item.Body}, true)
		next = item.Seq + 1
	}
	if next <= q.Seq && !fresh {
		l.lose(next, q.Seq, false, "lost")
	}
	l.last, l.state = q.Seq, live
	held := l.held
	l.held, l.heldSize = nil, 0
	for _, m := range held {
		l.take(m)
	}
}

// onBranch takes a message of the branch.
func (l *leg) onBranch(m wire.StreamMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Epoch == l.epoch && l.state != over {
		l.heard = time.Now()
		l.take(m)
	}
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

// onPrivate takes private data, its mark, or the end of the subscription.
func (l *leg) onPrivate(m wire.StreamMessage) {
	l.mu.Lock()
	if m.Epoch != l.epoch && l.epoch != 0 || l.state == over {
		l.mu.Unlock()
		return
	}
	switch isData := m.Kind == wire.StreamData; {
	case m.Seq <= l.private: // nothing new
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
	l.mu.Unlock()
	if m.Kind == wire.StreamClose {
		l.finish(wire.FromHeader(string(m.Code), m.Reason))
	}
}
