package topics

import (
	"context"
	"iter"
	"sync"

	"github.com/weft-fabric/weft/node/queue"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Kind says what an event is.
type Kind uint8

// The kinds.
const (
	Message Kind = iota
	// Lost says that messages did not arrive here.
	Lost
)

// The reasons of a Lost event.
const (
	SlowConsumer = "slow-consumer"
	Disconnected = "disconnected"
)

// Event is one message, or with the kind [Lost] the notice that messages are
// missing; then only Lost and Reason are set.
type Event struct {
	Kind       Kind
	Topic      string
	Value      wire.Payload
	Publisher  wire.Identity
	RoutingKey string
	// Lost is how many messages are missing, 0 for an unknown number.
	Lost   uint64
	Reason string
}

// Two events that stand in a queue for what the Subscription counts; they are
// compared by address. At most one of each waits in a queue, so that a reader
// that stopped does not collect them without bound.
var (
	missedMark = &Event{Kind: Lost, Reason: SlowConsumer}
	outageMark = &Event{Kind: Lost, Reason: Disconnected}
)

// Subscription is one app's interest in a pattern. Its queue is bounded: what
// finds no room is dropped, and the reader gets a [Lost] event in its place.
type Subscription struct {
	topics   *Topics
	app      subjects.App
	identity wire.Identity
	key      string
	from     wire.Filter
	interest *interest
	queue    *queue.Queue[*Event] // an Event is shared by all who get it

	mu     sync.Mutex // keeps numbers and queue in the same order
	closed bool
	number uint64
	missed uint64 // what the client library dropped since the last notice
	// whether the marks wait in the queue
	missedQueued, outageQueued bool
}

func newSubscription(t *Topics, id subjects.App, app wire.Identity, o subscribing) *Subscription {
	return &Subscription{
		topics: t, app: id, identity: app, key: o.key, from: o.from,
		queue: queue.New(wire.QueueMessages, wire.QueueBytes, func(_ any, from, to uint64) *Event {
			return &Event{Kind: Lost, Lost: to - from + 1, Reason: SlowConsumer}
		}),
	}
}

// Events yields what arrives until ctx ends, or until the subscription is
// closed and its queue is empty. It may be ranged over again, by one reader at
// a time.
func (s *Subscription) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for ev := range s.queue.All(ctx) {
			if !yield(s.resolve(ev)) {
				return
			}
		}
	}
}

func (s *Subscription) resolve(ev *Event) Event {
	if ev != missedMark && ev != outageMark {
		return *ev
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := *ev
	if ev == outageMark {
		s.outageQueued = false
	} else {
		e.Lost = s.missed
		s.missed, s.missedQueued = 0, false
	}
	return e
}

// Close ends the subscription. The reader still gets what is queued.
func (s *Subscription) Close() {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return
	}
	s.queue.Close()
	s.topics.part(s)
}

// offer queues ev if it is for this subscription. It never blocks.
func (s *Subscription) offer(ev *Event, target wire.Filter) {
	if s.key != "" && ev.RoutingKey != "" && s.key != ev.RoutingKey ||
		!target.Match(&s.identity) || !s.from.Match(&ev.Publisher) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.number++
	before := s.queue.Dropped()
	s.queue.Put(ev, ev.Value.Len()+len(ev.Topic)+len(ev.RoutingKey), nil, s.number)
	if s.queue.Dropped() != before {
		s.topics.dropped.Add(1)
	} else {
		s.topics.delivered.Add(1)
	}
}

// missing notes that n messages were lost before they came here.
func (s *Subscription) missing(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.topics.dropped.Add(n)
	s.missed += n
	if !s.missedQueued {
		s.missedQueued = true
		s.queue.Control(missedMark, nil)
	}
}

func (s *Subscription) outage() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && !s.outageQueued {
		s.outageQueued = true
		s.queue.Control(outageMark, nil)
	}
}
