package interop

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// The times of the stream protocol.
const (
	idleMark     = 5 * time.Second        // an idle branch repeats its mark
	firstMark    = 2 * time.Millisecond   // after an accept; doubles
	slowestMark  = 500 * time.Millisecond // ... up to this
	confirmIn    = 30 * time.Second       // or the subscriber is dropped
	absentFor    = 15 * time.Second       // a subscriber's app may be missing from the directory
	strangerFor  = 30 * time.Second       // a plain NATS client renews its subscription by resuming it
	tickInterval = time.Second

	confirmOverhead = 64 // bytes of an answer with one item around that item
)

// StreamOptions say how a stream treats its subscribers.
type StreamOptions struct {
	// Snapshot is how many messages each branch keeps for late joiners and to
	// fill gaps, at most wire.MaxSnapshot messages and wire.MaxSnapshotBytes
	// bytes; 0 keeps none.
	Snapshot int
	// OnRequest decides about a subscription: a branch, or an error, whose
	// text the subscriber gets with code rejected. nil accepts everyone on the
	// default branch "". It runs on a goroutine of its own.
	OnRequest func(ctx context.Context, r *SubscriptionRequest) (branch string, err error)
	// OnAdded is called when a subscription has started, OnRemoved when it has
	// ended; each on a goroutine of its own, added before removed.
	OnAdded, OnRemoved func(*Subscriber)
	// Decide, if given, takes the place of the three above. It must not block, and
	// decides now or later by calling decide once: what is pushed after decide
	// has returned reaches the subscriber, on other nodes too. An error of decide
	// says that the subscription was given up meanwhile.
	Decide func(r *SubscriptionRequest, decide func(branch string, err error) (*Subscriber, error))
	// Ended is called when a subscription that Decide accepted has ended. It must
	// not block.
	Ended func(*Subscriber)
}

// SubscriptionRequest is what OnRequest decides about.
type SubscriptionRequest struct {
	// ID is the subscription's id.
	ID         string
	Stream     string
	Args       wire.Payload
	Subscriber wire.Identity
	// Detail is a JSON object that a gateway client sent beside the arguments.
	Detail string
}

// Stream is a stream that a local app publishes. All methods are safe for
// concurrent use; pushes to a branch are delivered in the order of their
// calls.
type Stream struct {
	x     *Interop
	app   *app
	m     *method
	opts  StreamOptions
	epoch uint64

	// mu guards what follows. It is held while a push is handed to the
	// connection, because that order is the order of the branch.
	mu       sync.Mutex
	branches map[string]*branch
	subs     map[*Subscriber]struct{}
	closed   bool
	buf      []byte
}

// branch is one branch; it lives as long as its stream, so that sequences
// never start again within an epoch. Only that of a stream with Decide goes with
// its last subscriber.
type branch struct {
	name    string
	subject string
	seq     uint64
	kept    []kept
	bytes   int
	subs    map[*Subscriber]struct{}
	remotes int
	sent    time.Time // when something was last published
}

// kept is a message of the snapshot.
type kept struct {
	seq  uint64
	body wire.Payload
	// private is, of one that waits for a new subscriber, how much private data
	// went before it.
	private uint64
}

// Subscriber is one subscription as the stream's app sees it.
type Subscriber struct {
	stream *Stream
	id     string
	node   subjects.Node
	who    wire.Identity
	args   wire.Payload
	detail string
	branch *branch
	leg    *leg   // of a local subscription
	giveUp func() // of another node's: ends the wait for a decision

	// What follows is guarded by the stream's mu.
	subject   string // of private data
	private   uint64 // sequence of private data
	sent      time.Time
	confirmed bool
	early     []kept    // what was pushed before the subscriber confirmed
	renewed   time.Time // a stranger's last sign of life
	absent    time.Time // since when the directory lacks the app
	gone      bool
	left      bool          // the subscriber's node says that its app has left
	events    chan struct{} // closed when OnAdded has returned
}

// CreateStream offers a stream. Apps of this node see it at once; others when
// the directory has settled.
func (x *Interop) CreateStream(id subjects.App, def wire.Method, o StreamOptions) (*Stream, error) {
	if o.Snapshot < 0 || o.Snapshot > wire.MaxSnapshot {
		return nil, wire.Errorf(wire.Limit, "snapshot of stream %q: %d messages, the limit is %d", def.Name, o.Snapshot, wire.MaxSnapshot)
	}
	if o.Snapshot > 0 && o.Decide != nil {
		return nil, wire.Errorf(wire.BadPayload, "stream %q: Decide is for streams without a snapshot", def.Name)
	}
	a, err := x.app(id)
	if err != nil {
		return nil, err
	}
	def.Streaming = true
	s := &Stream{x: x, app: a, opts: o, epoch: newEpoch(), branches: map[string]*branch{}, subs: map[*Subscriber]struct{}{}}
	s.m = &method{def: &def, stream: s}
	if err := x.offer(id, s.m); err != nil {
		return nil, err
	}
	return s, nil
}

// newEpoch is a random number that JavaScript can hold exactly.
func newEpoch() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])                       // never fails
	return binary.BigEndian.Uint64(b[:])>>11 | 1 // 53 bits, not 0
}

// Name is the stream's name.
func (s *Stream) Name() string { return s.m.def.Name }

// Push sends a value to the named branches, or without names to all branches,
// the default one "" included. It never waits for subscribers. An error means
// that nobody got it; a subscriber on a machine that cannot be reached gets a
// gap notice later.
func (s *Stream) Push(value any, branches ...string) error {
	p, packed, err := s.encode(value, "data")
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return wire.Errorf(wire.Unavailable, "stream %q is closed", s.Name())
	}
	if len(branches) == 0 {
		if _, err := s.branch(""); err != nil {
			return err
		}
		for _, b := range s.branches {
			s.push(b, p, packed)
		}
		return nil
	}
	to := make([]*branch, 0, 8) // all or none: a bad name must not follow a push
	for _, name := range branches {
		if s.opts.Decide != nil && s.branches[name] == nil {
			continue // its last subscriber has gone
		}
		b, err := s.branch(name)
		if err != nil {
			return err
		}
		to = append(to, b)
	}
	for _, b := range to {
		s.push(b, p, packed)
	}
	return nil
}

// encode makes what local subscribers get of a value, and the same packed for
// the wire, where nothing is nil.
func (s *Stream) encode(value any, what string) (p, packed wire.Payload, err error) {
	if p, err = encode(value); err != nil {
		return p, packed, err
	}
	if packed, err = p.As(wire.Msgpack); err != nil {
		return p, packed, err
	}
	if len(packed.Data) == 0 {
		packed = wire.Payload{Data: []byte{0xc0}}
		p = packed
	}
	return p, packed, wire.CheckSize(what+" of stream "+s.Name(), len(packed.Data), s.x.cfg.Data.MaxPayload())
}

// branch returns a branch, making it if need be; mu is held.
func (s *Stream) branch(name string) (*branch, error) {
	if b := s.branches[name]; b != nil {
		return b, nil
	}
	if len(s.branches) >= wire.MaxBranches {
		return nil, wire.Errorf(wire.Limit, "branches of stream %q: %d, the limit is %d (%s)", s.Name(), len(s.branches)+1, wire.MaxBranches, name)
	}
	token, err := subjects.Encode(name)
	if err != nil {
		return nil, wire.AsError(err)
	}
	b := &branch{
		name:    name,
		subject: string(s.x.cfg.Realm.DataSubject(s.x.cfg.Self, s.app.id, s.m.token, token)),
		subs:    map[*Subscriber]struct{}{},
	}
	s.branches[name] = b
	return b, nil
}

// push numbers, keeps, publishes and delivers one message; mu is held.
func (s *Stream) push(b *branch, p, packed wire.Payload) {
	b.seq++
	s.x.stats.pushed.Add(1)
	if n := s.opts.Snapshot; n > 0 {
		b.keep(kept{seq: b.seq, body: packed}, n, s.x.cfg.Data.MaxPayload())
	}
	if b.remotes > 0 {
		s.buf = wire.AppendStreamData(s.buf[:0], s.epoch, b.seq, packed.Data)
		s.publish(b.subject, s.buf)
		b.sent = time.Now()
	}
	for sub := range b.subs {
		switch {
		case sub.leg != nil:
			sub.leg.deliver(b.seq, p)
		case !sub.confirmed && s.opts.Decide != nil:
			sub.early = append(sub.early, kept{seq: b.seq, body: packed, private: sub.private})
			sub.overrun(s)
		}
	}
}

// overrun ends a subscription for which more was pushed than can wait until it
// has confirmed; the stream's mu is held.
func (c *Subscriber) overrun(s *Stream) {
	bytes := 0
	for _, k := range c.early {
		bytes += len(k.body.Data) + confirmOverhead
	}
	if len(c.early) <= wire.MaxSnapshot && wire.CheckSize("", bytes, s.x.cfg.Data.MaxPayload()) == nil {
		return
	}
	c.early = nil
	s.x.spawn(func() { c.close(wire.Busy, "more was pushed than can wait for a new subscriber") })
}

// keep adds a message to the snapshot. One that fills a whole message would
// not fit into the answer to a confirmation, and what is older is not the last.
func (b *branch) keep(k kept, most int, maxPayload int64) {
	if wire.CheckSize("", len(k.body.Data)+confirmOverhead, maxPayload) != nil {
		b.kept, b.bytes = nil, 0
		return
	}
	b.kept = append(b.kept, k)
	b.bytes += len(k.body.Data)
	for len(b.kept) > most || b.bytes > wire.MaxSnapshotBytes && len(b.kept) > 1 {
		b.bytes -= len(b.kept[0].body.Data)
		b.kept[0] = kept{}
		b.kept = b.kept[1:]
	}
}

// publish hands bytes to the data connection. While that is down nothing is
// sent, and the marks after the reconnect tell subscribers what they missed.
func (s *Stream) publish(subject string, data []byte) {
	if err := s.x.cfg.Data.PublishBytes(subject, data); err != nil {
		s.x.log.Debug("stream message not sent", slog.String("stream", s.Name()), slog.Any("error", err))
	}
}

// mark says how far a branch is; mu is held.
func (s *Stream) mark(b *branch) {
	s.publish(b.subject, wire.AppendStreamMark(nil, s.epoch, b.seq))
	b.sent = time.Now()
}

// Branches lists the branches that have subscribers.
func (s *Stream) Branches() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, b := range s.branches {
		if len(b.subs) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Subscribers lists the present subscriptions.
func (s *Stream) Subscribers() []*Subscriber {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*Subscriber
	for sub := range s.subs {
		if sub.confirmed {
			list = append(list, sub)
		}
	}
	slices.SortFunc(list, func(a, b *Subscriber) int { return strings.Compare(a.id, b.id) })
	return list
}

// Why a stream has ended, as its subscribers hear it with the code target-gone.
const (
	ReasonStreamClosed = "the publisher closed the stream"
	ReasonAppLeft      = "the app that owns the stream has left"
)

// Close ends the stream and all its subscriptions.
func (s *Stream) Close() { s.End(ReasonStreamClosed) }

// End is Close with a reason for the subscribers.
func (s *Stream) End(reason string) {
	a := s.app
	key := strings.ToLower(s.Name())
	a.mu.Lock()
	if m := a.methods[key]; m == s.m {
		delete(a.methods, key)
		if err := s.x.publishMethods(a); err != nil {
			s.x.log.Debug("stream closed after its app left", slog.Any("error", err))
		}
	}
	a.mu.Unlock()
	s.end(reason)
}

// end closes every subscription.
func (s *Stream) end(why string) {
	s.mu.Lock()
	s.closed = true
	subs := make([]*Subscriber, 0, len(s.subs))
	for sub := range s.subs {
		subs = append(subs, sub)
	}
	for _, b := range s.branches {
		if b.remotes > 0 {
			s.mark(b) // so that a lost tail shows before the end
		}
	}
	s.mu.Unlock()
	for _, sub := range subs {
		sub.close(wire.TargetGone, why)
	}
}

// Identity is the subscribing app.
func (c *Subscriber) Identity() wire.Identity { return c.who }

// ID is the subscription's id.
func (c *Subscriber) ID() string { return c.id }

// Left says that the subscribing app is gone.
func (c *Subscriber) Left() bool {
	x := c.stream.x
	id := subjects.App(c.who.App)
	if c.leg != nil {
		_, err := x.app(id)
		return err != nil
	}
	c.stream.mu.Lock()
	left := c.left
	c.stream.mu.Unlock()
	_, here := x.cfg.Directory.App(id)
	return left || !here
}

// Args are the arguments of the subscription.
func (c *Subscriber) Args() wire.Payload { return c.args }

// Branch is the branch that the subscription was accepted on.
func (c *Subscriber) Branch() string { return c.branch.name }

// Push sends private data: only this subscription gets it.
func (c *Subscriber) Push(value any) error {
	s := c.stream
	p, packed, err := s.encode(value, "private data")
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.gone {
		return wire.Errorf(wire.TargetGone, "the subscription has ended")
	}
	c.private++
	s.x.stats.pushed.Add(1)
	if c.leg != nil {
		c.leg.deliverPrivate(c.private, p)
		return nil
	}
	s.publish(c.subject, wire.AppendStreamData(nil, s.epoch, c.private, packed.Data))
	c.sent = time.Now()
	return nil
}

// Close ends the subscription; the subscriber gets the reason.
func (c *Subscriber) Close(reason string) {
	if reason == "" {
		reason = "the publisher closed the subscription"
	}
	s := c.stream
	s.mu.Lock()
	if c.leg == nil && !c.gone {
		s.mark(c.branch)
	}
	s.mu.Unlock()
	c.close(wire.Canceled, reason)
}

func (c *Subscriber) close(code wire.Code, reason string) {
	s := c.stream
	if !s.drop(c) {
		return
	}
	if c.leg != nil {
		c.leg.ended(wire.Errorf(code, "%s", reason))
		return
	}
	s.mu.Lock()
	s.publish(c.subject, wire.AppendStreamClose(nil, s.epoch, c.private, code, reason))
	s.mu.Unlock()
}

// add puts a subscriber on a branch; start is called under mu, so that a local
// subscription starts exactly there, or refuses.
func (s *Stream) add(c *Subscriber, name string, start func(b *branch) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return wire.Errorf(wire.TargetGone, "stream %q is closed", s.Name())
	}
	b, err := s.branch(name)
	if err != nil {
		return err
	}
	c.branch = b
	if err := start(b); err != nil {
		s.forget(b)
		return err
	}
	b.subs[c], s.subs[c] = struct{}{}, struct{}{}
	if c.leg == nil {
		b.remotes++
	}
	return nil
}

// forget forgets a branch without subscribers of a stream with Decide, whose app
// makes a new name for the next; mu is held.
func (s *Stream) forget(b *branch) {
	if s.opts.Decide != nil && len(b.subs) == 0 && s.branches[b.name] == b {
		delete(s.branches, b.name)
	}
}

// drop removes a subscriber and says whether it was there.
func (s *Stream) drop(c *Subscriber) bool {
	s.mu.Lock()
	if c.gone {
		s.mu.Unlock()
		return false
	}
	c.gone = true
	delete(s.subs, c)
	delete(c.branch.subs, c)
	if c.leg == nil {
		c.branch.remotes--
	}
	s.forget(c.branch)
	confirmed := c.confirmed
	s.mu.Unlock()
	if c.leg == nil {
		s.x.mu.Lock()
		delete(s.x.pubs, c.id)
		s.x.mu.Unlock()
	}
	if s.opts.Decide != nil {
		if s.opts.Ended != nil {
			s.opts.Ended(c)
		}
		return true
	}
	if confirmed && s.opts.OnRemoved != nil {
		s.x.wg.Go(func() {
			<-c.events
			s.x.guard("OnRemoved", func() { s.opts.OnRemoved(c) })
		})
	}
	return true
}

// added tells the app about a subscription that has started.
func (s *Stream) added(c *Subscriber) {
	s.x.wg.Go(func() {
		defer close(c.events)
		if s.opts.OnAdded != nil {
			s.x.guard("OnAdded", func() { s.opts.OnAdded(c) })
		}
	})
}

// guard runs user code; a panic there must not end the node.
func (x *Interop) guard(what string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			x.log.Error("stream handler panicked", slog.String("handler", what), slog.Any("panic", r))
		}
	}()
	f()
}

// admit asks the stream's app about a subscription and adds it; start as in add.
func (s *Stream) admit(ctx context.Context, c *Subscriber, start func(*branch) error) error {
	if s.opts.Decide == nil {
		name, err := s.decide(ctx, c)
		if err != nil {
			return err
		}
		return s.add(c, name, start)
	}
	if n := s.app.serving.Add(1); n > wire.MaxPendingCalls {
		s.app.serving.Add(-1)
		return wire.Errorf(wire.Busy, "calls being served by app %s: the limit is %d (%s)", s.app.id, wire.MaxPendingCalls, s.Name())
	}
	defer s.app.serving.Add(-1)
	decided := make(chan error, 1)
	var over atomic.Bool
	s.opts.Decide(c.request(), func(branch string, err error) (*Subscriber, error) {
		if !over.CompareAndSwap(false, true) {
			return nil, wire.Errorf(wire.TargetGone, "the subscription was given up, or is decided")
		}
		if err == nil {
			err = s.add(c, branch, start)
		} else if _, typed := errors.AsType[*wire.Error](err); !typed {
			err = wire.Errorf(wire.Rejected, "%w", err)
		}
		decided <- err
		return c, err
	})
	select {
	case err := <-decided:
		return err
	case <-ctx.Done():
		if over.CompareAndSwap(false, true) {
			return errOf(ctx)
		}
		return <-decided
	}
}

func (c *Subscriber) request() *SubscriptionRequest {
	return &SubscriptionRequest{ID: c.id, Stream: c.stream.Name(), Args: c.args, Subscriber: c.who, Detail: c.detail}
}

// decide asks the stream's app about a subscription.
func (s *Stream) decide(ctx context.Context, c *Subscriber) (branch string, err error) {
	if s.opts.OnRequest == nil {
		return "", nil
	}
	if n := s.app.serving.Add(1); n > wire.MaxPendingCalls {
		s.app.serving.Add(-1)
		return "", wire.Errorf(wire.Busy, "calls being served by app %s: the limit is %d (%s)", s.app.id, wire.MaxPendingCalls, s.Name())
	}
	defer func() {
		s.app.serving.Add(-1)
		if r := recover(); r != nil {
			s.x.log.Error("stream handler panicked", slog.String("handler", "OnRequest"), slog.Any("panic", r))
			err = wire.Errorf(wire.Rejected, "the publisher's handler panicked")
		}
	}()
	branch, err = s.opts.OnRequest(ctx, c.request())
	if err != nil {
		return "", wire.Errorf(wire.Rejected, "%w", err)
	}
	if ctx.Err() != nil {
		return "", errOf(ctx) // nobody waits for it any more
	}
	return branch, nil
}
