package interop

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/node/queue"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// EventKind is what an [Event] of a subscription reports.
type EventKind uint8

// The kinds.
const (
	// Subscribed: a server has accepted; what it pushes from here on arrives.
	Subscribed EventKind = iota
	// Data: one message of the branch, or a private one.
	Data
	// Gap: the messages From to To will not come. Reason says why:
	// slow-consumer, lost, or restarted (the publisher made the stream anew;
	// To is then 0, not known).
	Gap
	// Closed: one server's part of the subscription has ended, Err says why.
	Closed
)

// String is the kind's name on the command line and in logs.
func (k EventKind) String() string {
	return [...]string{"subscribed", "data", "gap", "closed"}[k]
}

// Event is what a subscription yields.
type Event struct {
	Kind   EventKind
	Server wire.Identity
	Branch string
	Value  wire.Payload
	// Seq numbers the messages of a branch, and apart from them those that are
	// private to this subscription.
	Seq uint64
	// Snapshot marks a message that was kept from before.
	Snapshot bool
	Private  bool
	From, To uint64
	Reason   string
	Err      error
	// ID is, of Subscribed, the id that the server knows the subscription by.
	ID string
}

// retryAfter is how soon a server is asked again that ended a subscription.
const retryAfter = time.Second

// Subscription is one app's subscription to a stream, on one or several
// servers.
type Subscription struct {
	x      *Interop
	app    *app
	stream string
	args   wire.Payload
	o      options
	q      *queue.Queue[Event]
	ctx    context.Context
	cancel context.CancelFunc
	news   chan struct{} // a leg is over

	mu     sync.Mutex // guards what follows
	legs   map[subjects.App]*leg
	ended  map[subjects.App]time.Time // servers that it is over on, while they offer the stream: when to try again, if ever
	begun  bool                       // a server has accepted
	closed bool
	stop   func() bool // hearing that the app leaves
}

// Subscribe subscribes an app to a stream. It returns when the first server
// has accepted and everything pushed from then on will arrive; the error of
// the first server when none did.
func (x *Interop) Subscribe(ctx context.Context, id subjects.App, stream string, args any, opts ...Option) (*Subscription, error) {
	o, err := collect(opts)
	if err != nil {
		return nil, err
	}
	a, err := x.app(id)
	if err != nil {
		return nil, err
	}
	p, err := encode(args)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout+o.wait)
	defer cancel()
	servers, err := x.find(ctx, stream, o, id, true)
	if err != nil {
		return nil, err
	}
	s := &Subscription{x: x, app: a, stream: stream, args: p, o: o, news: make(chan struct{}, 1), legs: map[subjects.App]*leg{}, ended: map[subjects.App]time.Time{}}
	s.q = queue.New(wire.QueueMessages, wire.QueueBytes, s.gap)
	if o.direct != nil {
		s.q.Direct(func(e Event) bool {
			if !o.direct(e) {
				return false
			}
			s.count(&e)
			return true
		})
	}
	s.ctx, s.cancel = context.WithCancel(a.ctx)
	s.stop = context.AfterFunc(a.ctx, s.Close)
	if err := s.register(); err != nil {
		s.stop()
		s.cancel()
		return nil, err
	}
	if err := s.begin(ctx, servers); err != nil {
		s.Close()
		return nil, err
	}
	if s.follows() {
		x.wg.Go(s.follow)
	}
	return s, nil
}

func (s *Subscription) register() error {
	s.app.mu.Lock()
	defer s.app.mu.Unlock()
	if n := len(s.app.subs); n >= wire.MaxSubscriptions {
		return wire.Errorf(wire.Limit, "subscriptions of app %s: %d, the limit is %d (%s)", s.app.id, n+1, wire.MaxSubscriptions, s.stream)
	}
	if s.app.ctx.Err() != nil {
		return context.Cause(s.app.ctx)
	}
	s.app.subs[s] = struct{}{}
	return nil
}

// follows says whether servers that appear later belong to the subscription.
func (s *Subscription) follows() bool { return s.o.target.mode == all || s.o.target.mode == skipMine }

// begin starts on the servers: on the first that can be reached for best,
// otherwise on all of them.
func (s *Subscription) begin(ctx context.Context, servers []directory.Server) error {
	if s.o.target.mode == best || s.o.target.mode == exactly {
		var err error
		for _, server := range servers {
			err = s.add(server).wait(ctx)
			if !errors.Is(err, wire.ErrTargetGone) && !errors.Is(err, wire.ErrNoServer) {
				break // it is in order to ask the next: a subscription leaves no trace
			}
		}
		return err
	}
	results := make(chan error, len(servers))
	for _, server := range servers {
		l := s.add(server)
		s.x.wg.Go(func() { results <- l.wait(ctx) })
	}
	var first error
	for range servers {
		err := <-results
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// add starts the subscription on one server.
func (s *Subscription) add(server directory.Server) *leg {
	l := newLeg(s, server)
	s.mu.Lock()
	closed := s.closed
	s.legs[server.App.ID] = l
	s.mu.Unlock()
	if closed {
		l.finish(wire.Errorf(wire.Canceled, "the subscription was closed"))
		return l
	}
	if server.App.Local {
		s.x.wg.Go(l.runLocal)
	} else {
		s.x.wg.Go(l.run)
	}
	return l
}

// follow adds servers that appear later, until the subscription ends.
func (s *Subscription) follow() {
	for {
		changed := s.x.cfg.Directory.Changed()
		servers := s.x.match(s.stream, s.o.target, s.app.id, true)
		next := time.Hour
		s.mu.Lock()
		var fresh []directory.Server
		for _, server := range servers {
			id := server.App.ID
			at, ended := s.ended[id]
			switch wait := time.Until(at); {
			case s.legs[id] != nil || ended && at.IsZero():
			case ended && wait > 0:
				next = min(next, wait)
			default:
				fresh = append(fresh, server)
			}
		}
		for id := range s.ended {
			if !slices.ContainsFunc(servers, func(o directory.Server) bool { return o.App.ID == id }) {
				delete(s.ended, id)
			}
		}
		s.mu.Unlock()
		for _, server := range fresh {
			s.add(server)
		}
		select {
		case <-changed:
		case <-s.news:
		case <-time.After(next):
		case <-s.ctx.Done():
			return
		}
	}
}

// over is told by a leg that it has ended.
func (s *Subscription) over(l *leg, started bool, err error) {
	s.mu.Lock()
	_, again := s.ended[l.server.ID]
	if s.legs[l.server.ID] == l {
		delete(s.legs, l.server.ID)
		s.ended[l.server.ID] = retryAt(err)
	}
	s.begun = s.begun || started
	last := s.begun && len(s.legs) == 0 && !s.follows()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return
	}
	if started || !again && s.o.target.mode != best && s.o.target.mode != exactly {
		branch := l.branchName()
		s.q.Control(Event{Kind: Closed, Server: l.server.Identity, Branch: branch, Reason: wire.AsError(err).Message, Err: err}, origin{leg: l, branch: branch})
	}
	if last {
		s.Close()
	}
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// retryAt is when to ask a server again that ended a subscription and still
// offers the stream: never if it said no; otherwise either it has made the
// stream anew or the directory will drop it.
func retryAt(err error) time.Time {
	switch wire.CodeOf(err) {
	case wire.TargetGone, wire.NoServer, wire.Offline, wire.Unavailable, wire.Busy, wire.Timeout:
		return time.Now().Add(retryAfter)
	}
	return time.Time{}
}

// gap makes the notice for what a slow reader missed.
func (s *Subscription) gap(source any, from, to uint64) Event {
	return source.(origin).gap(from, to, "slow-consumer")
}

// Stream is the name of the stream.
func (s *Subscription) Stream() string { return s.stream }

// Servers lists the servers that have accepted and not ended.
func (s *Subscription) Servers() []wire.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []wire.Identity
	for _, l := range s.legs {
		if l.live() {
			list = append(list, l.server.Identity)
		}
	}
	return list
}

// Events yields what happens until the subscription is over and everything was
// read, or ctx ends. It may be ranged over again, by one reader at a time.
func (s *Subscription) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for e := range s.q.All(ctx) {
			s.count(&e)
			if !yield(e) {
				return
			}
		}
	}
}

func (s *Subscription) count(e *Event) {
	switch e.Kind {
	case Data:
		s.x.stats.delivered.Add(1)
	case Gap:
		s.x.stats.gaps.Add(1)
	default:
	}
}

// Close ends the subscription. What was received before can still be read.
func (s *Subscription) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	s.stop()
	legs := make([]*leg, 0, len(s.legs))
	for _, l := range s.legs {
		legs = append(legs, l)
	}
	s.mu.Unlock()
	s.cancel()
	for _, l := range legs {
		l.finish(wire.Errorf(wire.Canceled, "the subscription was closed"))
	}
	s.q.Close()
	s.app.mu.Lock()
	delete(s.app.subs, s)
	s.app.mu.Unlock()
}
