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
	lastWords   = 500 * time.Millisecond // the directory may overtake the end of the data
	maxTries    = 3                      // timeouts of a repair, then it is a gap
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
	early    []earlyMessage       // before Subscribed: private data
	heldSize int                  // bytes of both
	tries    int                  // failed repairs
	heard    time.Time
	err      error
	pub      *Subscriber // of a local server

	feed *feed // belongs to run
}

// earlyMessage is private data that came when so many others were held.
type earlyMessage struct {
	wire.StreamMessage
	held int
}

var errDeparted = wire.Errorf(wire.TargetGone, "the app that publishes the stream has gone")

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
	l.flush()
	l.state, l.err = over, err
	l.held, l.early = nil, nil
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
	if to == 0 {
		l.sub.q.Control(o.gap(from, to, reason), o)
		return
	}
	l.sub.q.Skip(o.gap(from, to, reason), o, from, to)
}

// join reports Subscribed; mu is held.
func (l *leg) join() {
	if l.joined {
		return
	}
	l.joined = true
	l.sub.q.Control(Event{Kind: Subscribed, Server: l.server.Identity, Branch: l.branch, Seq: l.last, ID: l.id}, origin{leg: l, branch: l.branch})
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

// run keeps the leg on a server of another node.
func (l *leg) run() {
	x := l.sub.x
	defer l.withdraw()
	reconnected := *x.online.Load()
	if err := l.request(); err != nil {
		l.finish(err)
		return
	}
	tick := time.NewTicker(legTick)
	defer tick.Stop()
	var parting <-chan time.Time
	for {
		changed := x.cfg.Directory.Changed()
		switch departed := l.departed(); {
		case departed && !l.live():
			l.finish(errDeparted)
			return
		case departed && parting == nil:
			parting = time.After(lastWords)
		case !departed:
			parting = nil
		}
		var err error
		select {
		case <-l.kick:
			err = l.repair()
		case <-reconnected:
			reconnected = *x.online.Load()
			err = l.resume()
		case <-changed:
		case <-parting:
			l.close(errDeparted)
		case <-tick.C:
			err = l.repair()
			if err == nil && l.silent() {
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

// close finishes the leg when what has come on the branch has been delivered:
// it may still wait on the goroutine of its NATS subscription.
func (l *leg) close(err error) {
	l.sub.x.lane.After(func() { l.finish(err) })
}

// withdraw stops listening and tells the publisher.
func (l *leg) withdraw() {
	x := l.sub.x
	l.mu.Lock()
	id := l.id
	l.mu.Unlock()
	x.mu.Lock()
	delete(x.legs, id)
	x.mu.Unlock()
	if l.feed != nil {
		x.detach(l.feed, l)
	}
	_, err := x.app(l.sub.app.id)
	x.farewell(l.server, wire.UnsubscribeRequest{ID: id, Left: err != nil})
}

// farewellTries is how often a publisher is told that a subscription has ended; the
// pauses between double from ctlTimeout on.
const farewellTries = 5

// farewell tells a publisher that a subscription has ended, until it has heard.
func (x *Interop) farewell(server *directory.App, q wire.UnsubscribeRequest) {
	x.mu.Lock()
	closed := x.closed
	x.mu.Unlock()
	body, err := wire.Marshal(q)
	if closed || err != nil {
		x.tell(server.Node, subjects.VerbUnsubscribe, q) // there is no time for more
		return
	}
	x.spawn(func() {
		pause := ctlTimeout
		for range farewellTries {
			ctx, cancel := context.WithTimeout(x.ctx, ctlTimeout)
			_, err := x.cfg.Control.Request(ctx, &nats.Msg{Subject: string(x.cfg.Realm.CtlSubject(server.Node, x.cfg.Self, subjects.VerbUnsubscribe)), Data: body})
			cancel()
			if err == nil || errors.Is(err, wire.ErrDenied) {
				return
			}
			select {
			case <-time.After(pause):
			case <-x.ctx.Done():
				return
			}
			pause *= 2
			if _, here := x.cfg.Directory.App(server.ID); !here && x.cfg.Control.Online() == nil {
				return
			}
		}
	})
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

// send asks the publisher's node.
func (l *leg) send(ctx context.Context, verb subjects.Verb, timeout time.Duration, q, r any) error {
	x := l.sub.x
	body, err := wire.Marshal(q)
	if err != nil {
		return err
	}
	if err := wire.CheckSize("arguments of stream "+l.stream, len(body), x.cfg.Control.MaxPayload()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
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
		return errorOf(reply)
	}
	return wire.Unmarshal(reply.Data, r)
}

// request subscribes, or subscribes again under a new id. A branch that goes on
// in the same epoch is not interrupted by that.
func (l *leg) request() error {
	x := l.sub.x
	args, err := l.sub.args.As(wire.Msgpack)
	if err != nil {
		return err
	}
	l.mu.Lock()
	old, id, joined := l.id, newID(), l.joined
	if l.private > 0 {
		l.lose(l.private+1, 0, true, "restarted")
	}
	l.id, l.private, l.heard = id, 0, time.Now()
	l.mu.Unlock()
	x.mu.Lock()
	delete(x.legs, old)
	x.legs[id] = l
	x.mu.Unlock()
	ctx, cancel := context.WithCancelCause(l.sub.ctx)
	defer cancel(nil)
	if !joined {
		f := &flight{cancel}
		if err := x.await(l.server.ID, f); err != nil {
			return err
		}
		defer x.awaited(l.server.ID, f)
	}
	q := wire.SubscribeRequest{ID: id, App: string(l.sub.app.id), Server: string(l.server.ID), Stream: l.stream, Args: args.Data, Detail: l.sub.o.detail}
	var r wire.SubscribeReply
	if err := l.send(ctx, subjects.VerbSubscribe, l.sub.o.timeout, q, &r); err != nil {
		return err
	}
	l.accepted(r)
	return l.listen(r.Branch)
}

// accepted takes the publisher's answer.
func (l *leg) accepted(r wire.SubscribeReply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == over {
		return
	}
	if l.joined && l.epoch == r.Epoch && l.branch == r.Branch {
		if l.state == live {
			l.state, l.upTo = repairing, l.last
		}
		l.wake()
		return
	}
	l.flush()
	if l.joined {
		l.lose(l.last+1, 0, false, "restarted")
	}
	l.branch, l.epoch, l.last, l.state = r.Branch, r.Epoch, 0, starting
}

// listen attaches the leg to the subject of its branch.
func (l *leg) listen(branch string) error {
	x := l.sub.x
	stream, err := subjects.Encode(l.stream)
	if err != nil {
		return wire.AsError(err)
	}
	token, err := subjects.Encode(branch)
	if err != nil {
		return wire.AsError(err)
	}
	subject := string(x.cfg.Realm.DataSubject(l.server.Node, l.server.ID, stream, token))
	if f := l.feed; f != nil {
		if f.subject == subject {
			return nil
		}
		x.detach(f, l)
	}
	l.feed, err = x.attach(l.sub.ctx, subject, l)
	return err
}

// resume asks the publisher to say how far the branch is. A publisher that
// forgot the subscription is asked for a new one.
func (l *leg) resume() error {
	l.mu.Lock()
	id := l.id
	l.heard = time.Now()
	l.mu.Unlock()
	if l.feed == nil { // the last request got half way
		return l.again(wire.ErrTargetGone)
	}
	var r wire.SubscribeReply
	q := wire.SubscribeRequest{ID: id, App: string(l.sub.app.id), Server: string(l.server.ID), Stream: l.stream, Resume: true}
	return l.again(l.send(l.sub.ctx, subjects.VerbSubscribe, ctlTimeout, q, &r))
}

// unreached says whether an error is one of the way to the publisher: then the
// leg goes on and tries later, and the directory tells when it is gone.
func unreached(err error) bool {
	return errors.Is(err, errUnsent) || errors.Is(err, wire.ErrOffline) || errors.Is(err, wire.ErrTimeout)
}

// again decides after a failed request: nil to go on and try later, or why the
// leg is over. A publisher that does not know the subscription may have ended
// it, and the end comes on the other connection.
func (l *leg) again(err error) error {
	if errors.Is(err, wire.ErrTargetGone) && !errors.Is(err, errUnsent) {
		select {
		case <-time.After(lastWords):
		case <-l.done:
			return nil
		case <-l.sub.ctx.Done():
			return nil
		}
		if err = l.request(); errors.Is(err, wire.ErrNoServer) {
			err = errDeparted
		}
	}
	if unreached(err) {
		return nil
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
	err := l.send(l.sub.ctx, subjects.VerbConfirm, ctlTimeout, q, &r)
	if errors.Is(err, wire.ErrTargetGone) && !errors.Is(err, errUnsent) {
		return l.again(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, wire.ErrTimeout) {
		l.tries++
	}
	switch {
	case err == nil:
		l.settle(q, r.Items)
	case l.state != repairing: // over
	case errors.Is(err, wire.ErrBadPayload): // the mark was not the publisher's
		l.sub.x.stats.refused.Add(1)
		l.reset()
	case !l.joined:
		l.reset() // the publisher repeats its mark
	case !unreached(err) || l.tries >= maxTries:
		l.settle(q, nil)
	}
	return nil
}

// reset forgets a mark; mu is held.
func (l *leg) reset() {
	l.state = live
	if !l.joined {
		l.state = starting
	}
	l.held, l.heldSize = nil, 0
}

// settle delivers what was fetched, announces what is missing, and goes on
// with what was held back; mu is held.
func (l *leg) settle(q wire.ConfirmRequest, items []wire.SnapshotItem) {
	if l.state != repairing || q.ID != l.id || q.Epoch != l.epoch {
		return
	}
	fresh := !l.joined
	if fresh {
		l.last = q.Seq
		for _, item := range items {
			if item.Live { // it begins there
				l.last = item.Seq - 1
				break
			}
		}
		l.join()
	}
	next := q.After + 1
	for _, item := range items {
		if item.Seq < next || item.Seq > q.Seq {
			continue
		}
		if item.Seq > next && !fresh {
			l.lose(next, item.Seq-1, false, "lost")
		}
		for len(l.early) > 0 && l.early[0].Seq <= item.Private {
			m := l.early[0]
			l.early = l.early[1:]
			l.takePrivate(m.StreamMessage)
		}
		l.emit(item.Seq, wire.Payload{Data: item.Body}, !item.Live)
		next = item.Seq + 1
	}
	if next <= q.Seq && !fresh {
		l.lose(next, q.Seq, false, "lost")
	}
	l.last, l.state, l.tries = q.Seq, live, 0
	held, early := l.held, l.early
	l.held, l.early, l.heldSize = nil, nil, 0
	for i, m := range held {
		for len(early) > 0 && early[0].held <= i {
			l.takePrivate(early[0].StreamMessage)
			early = early[1:]
		}
		l.take(m)
	}
	for _, m := range early {
		l.takePrivate(m.StreamMessage)
	}
}

// flush gives up what is being repaired and delivers what is held back; mu is
// held.
func (l *leg) flush() {
	for l.joined && l.state == repairing {
		l.settle(wire.ConfirmRequest{ID: l.id, Epoch: l.epoch, Seq: l.upTo, After: l.last}, nil)
	}
}
