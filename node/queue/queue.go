// Package queue holds what waits for one slow reader: bounded, and never
// dropping in silence.
//
// A writer never waits. When the queue is full, numbered items are dropped and
// the range is remembered per source; as soon as there is room, and before any
// later item of that source, the reader gets one notice of the range. Control
// items are never dropped; their number must be bounded by what they report.
//
// It does not number, copy or interpret items. All methods are safe for
// concurrent use; one reader at a time. Whoever made a queue closes it. To
// test with it: fill it, look, drain it; there is no clock in it.
package queue

import (
	"context"
	"iter"
	"sync"
)

// Notice makes the item that tells the reader which items of a source, from
// the first to the last number, were dropped.
type Notice[T any] func(source any, from, to uint64) T

// Queue is a bounded queue. Create it with [New].
type Queue[T any] struct {
	maxItems, maxBytes int
	notice             Notice[T]
	direct             func(T) bool
	ready              chan struct{}

	mu      sync.Mutex
	items   []entry[T]
	head    int
	bytes   int
	lost    map[any]*span
	dropped uint64
	closed  bool
	// reading says that the reader has an item that it may not have dealt with.
	reading bool
}

type entry[T any] struct {
	item T
	size int
}

type span struct{ from, to uint64 }

// New makes a queue of at most maxItems items and maxBytes bytes.
func New[T any](maxItems, maxBytes int, notice Notice[T]) *Queue[T] {
	return &Queue[T]{maxItems: maxItems, maxBytes: maxBytes, notice: notice, ready: make(chan struct{}, 1), lost: map[any]*span{}}
}

// Direct offers every item to f before it is queued, as long as nothing waits in
// front of it: f takes it or says false. f is called by whoever puts, with a lock
// held, and must not block or call back. It is set before the first Put.
func (q *Queue[T]) Direct(f func(T) bool) { q.direct = f }

// Put appends an item that may be dropped. Numbers of a source must grow by
// one, unless Skip says otherwise; source must be comparable.
func (q *Queue[T]) Put(item T, size int, source any, number uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if n := len(q.items) - q.head; n >= q.maxItems || n > 0 && q.bytes+size > q.maxBytes {
		q.dropped++
		if s := q.lost[source]; s != nil {
			s.to = number
		} else {
			q.lost[source] = &span{number, number}
		}
		return
	}
	if s := q.lost[source]; s != nil {
		q.append(q.notice(source, s.from, s.to), 0)
		delete(q.lost, source)
	}
	q.append(item, size)
}

// Skip says that the numbers from to to of a source will not come; item tells
// the reader. When the queue is full they count as dropped instead.
func (q *Queue[T]) Skip(item T, source any, from, to uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	s := q.lost[source]
	switch {
	case len(q.items)-q.head < q.maxItems:
		if s != nil {
			q.append(q.notice(source, s.from, s.to), 0)
			delete(q.lost, source)
		}
		q.append(item, 0)
	case s != nil:
		s.to = to
	default:
		q.lost[source] = &span{from, to}
	}
}

// Control appends an item that is never dropped. If items of its source were,
// their notice comes first.
func (q *Queue[T]) Control(item T, source any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if s := q.lost[source]; s != nil {
		q.append(q.notice(source, s.from, s.to), 0)
		delete(q.lost, source)
	}
	q.append(item, 0)
}

func (q *Queue[T]) append(item T, size int) {
	if q.direct != nil && !q.reading && q.head == len(q.items) && q.direct(item) {
		return
	}
	q.push(item, size)
}

func (q *Queue[T]) push(item T, size int) {
	if q.head > 64 && q.head*2 >= len(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, entry[T]{item, size})
	q.bytes += size
	q.signal()
}

func (q *Queue[T]) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Next returns the next item, waiting for one. It is false when ctx has ended,
// or when the queue is closed and empty.
func (q *Queue[T]) Next(ctx context.Context) (item T, ok bool) {
	for {
		item, ok, closed := q.take()
		if ok || closed {
			return item, ok
		}
		select {
		case <-q.ready:
		case <-ctx.Done():
			return item, false
		}
	}
}

func (q *Queue[T]) take() (item T, ok, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reading = false // it has come back
	if q.head == len(q.items) {
		for source, s := range q.lost {
			q.push(q.notice(source, s.from, s.to), 0)
			delete(q.lost, source)
		}
	}
	if q.head == len(q.items) {
		if q.closed {
			q.signal() // for the next call
		}
		return item, false, q.closed
	}
	e := q.items[q.head]
	q.items[q.head] = entry[T]{}
	q.head++
	q.bytes -= e.size
	if q.head < len(q.items) || len(q.lost) > 0 || q.closed {
		q.signal()
	}
	q.reading = true
	return e.item, true, false
}

// All yields items until ctx ends or the queue is closed and empty. It may be
// ranged over again.
func (q *Queue[T]) All(ctx context.Context) iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			item, ok := q.Next(ctx)
			if !ok || !yield(item) {
				return
			}
		}
	}
}

// Close ends the queue: the reader gets what is in it, then the end.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// Len is how many items wait; Dropped how many were dropped since the start.
func (q *Queue[T]) Len() (items, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) - q.head, q.bytes
}

// Dropped is how many items were dropped since the start.
func (q *Queue[T]) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}
