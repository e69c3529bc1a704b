package link

import (
	"context"
	"sync"

	"github.com/nats-io/nats.go"
)

// laneMsgs is how many messages wait in a lane; what comes on top of that is
// dropped by the client library and logged.
const laneMsgs = 1 << 14

// Lane is several subscriptions whose messages are handled on one goroutine, in the
// order in which they came over the connection. Create it with [Link.Lane].
type Lane struct {
	l    *Link
	ch   chan *nats.Msg
	done chan struct{}

	mu       sync.Mutex
	handlers map[*nats.Subscription]nats.MsgHandler
	fences   map[*nats.Msg]func()
	closed   bool
}

// Lane makes a lane, which its caller closes.
func (l *Link) Lane() *Lane {
	n := &Lane{l: l, ch: make(chan *nats.Msg, laneMsgs), done: make(chan struct{}), handlers: map[*nats.Subscription]nats.MsgHandler{}, fences: map[*nats.Msg]func(){}}
	go n.run() // ends with Close
	return n
}

// Subscribe calls h for each message of a subject. h must not block. Otherwise as
// [Link.Subscribe].
func (n *Lane) Subscribe(ctx context.Context, subject string, h nats.MsgHandler) (*nats.Subscription, error) {
	var made *nats.Subscription
	sub, err := n.l.subscribe(ctx, subject, "", nil, func() (*nats.Subscription, error) {
		n.mu.Lock() // run must not look before the handler is there
		defer n.mu.Unlock()
		sub, err := n.l.nc.ChanSubscribe(subject, n.ch)
		if err == nil {
			n.handlers[sub], made = h, sub
		}
		return sub, err
	})
	if err != nil && made != nil {
		n.forget(made)
	}
	return sub, err
}

func (n *Lane) forget(sub *nats.Subscription) {
	n.mu.Lock()
	delete(n.handlers, sub)
	n.mu.Unlock()
}

// Unsubscribe ends a subscription; what has come before is still handled.
func (n *Lane) Unsubscribe(sub *nats.Subscription) {
	n.l.Unsubscribe(sub)
	n.After(func() { n.forget(sub) })
}

// After calls f on the lane's goroutine when what has come so far was handled, or at
// once if the lane is closed or full.
func (n *Lane) After(f func()) {
	m := &nats.Msg{}
	n.mu.Lock()
	closed := n.closed
	if !closed {
		n.fences[m] = f
	}
	n.mu.Unlock()
	if closed {
		f()
		return
	}
	select {
	case n.ch <- m:
	default:
		n.fence(m)
	}
}

// Close ends the lane; its subscriptions must have ended.
func (n *Lane) Close() {
	n.mu.Lock()
	was := n.closed
	n.closed = true
	n.mu.Unlock()
	if !was {
		close(n.done)
	}
}

func (n *Lane) run() {
	for {
		select {
		case m := <-n.ch:
			n.handle(m)
		case <-n.done:
			n.mu.Lock()
			fences := n.fences
			n.fences = nil
			n.mu.Unlock()
			for _, f := range fences {
				f()
			}
			return
		}
	}
}

func (n *Lane) handle(m *nats.Msg) {
	if m.Sub == nil {
		n.fence(m)
		return
	}
	n.mu.Lock()
	h := n.handlers[m.Sub]
	n.mu.Unlock()
	if h != nil {
		h(m)
	}
}

// fence calls what waits for a message, once.
func (n *Lane) fence(m *nats.Msg) {
	n.mu.Lock()
	f := n.fences[m]
	delete(n.fences, m)
	n.mu.Unlock()
	if f != nil {
		f()
	}
}
