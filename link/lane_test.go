package link_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/wire"
)

// notes collects what handlers are told, in order.
type notes struct {
	mu  sync.Mutex
	all []string
}

func (n *notes) add(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, text)
}

func (n *notes) handler(prefix string) nats.MsgHandler {
	return func(m *nats.Msg) { n.add(prefix + string(m.Data)) }
}

// want compares with what was noted since the last time.
func (n *notes) want(t *testing.T, words ...string) {
	t.Helper()
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if got := strings.Join(n.all, " "); got != strings.Join(words, " ") {
		t.Errorf("got %.300s, want %.300s", got, strings.Join(words, " "))
	}
	n.all = nil
}

// lane opens one that ends with the test.
func lane(t *testing.T, l *link.Link) *link.Lane {
	t.Helper()
	n := l.Lane()
	t.Cleanup(n.Close)
	return n
}

func listen(t *testing.T, n *link.Lane, subject string, h nats.MsgHandler) *nats.Subscription {
	t.Helper()
	sub, err := n.Subscribe(t.Context(), subject, h)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func send(t *testing.T, nc *nats.Conn, subject, text string) {
	t.Helper()
	if err := nc.Publish(subject, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// Messages of several subjects are handled in the order in which they were sent.
func TestLaneOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		l, nc := open(t, h, link.Config{}), h.client(t)
		n, got := lane(t, l), &notes{}
		for _, subject := range []string{"a", "b", "c.*"} {
			listen(t, n, subject, got.handler(subject[:1]))
		}
		var want []string
		for i := range 3000 {
			k := i % 3
			send(t, nc, []string{"a", "b", "c.x"}[k], fmt.Sprint(i))
			want = append(want, fmt.Sprint([]string{"a", "b", "c"}[k], i))
		}
		got.want(t, want...)
	})
}

// After comes behind what came before it and in front of what comes later.
func TestLaneAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		l, nc := open(t, h, link.Config{}), h.client(t)
		n, got := lane(t, l), &notes{}
		hold := make(chan struct{})
		listen(t, n, "a", func(m *nats.Msg) {
			if string(m.Data) == "hold" {
				<-hold
			}
			got.add(string(m.Data))
		})
		n.After(func() { got.add("idle") })
		got.want(t, "idle")
		send(t, nc, "a", "hold")
		send(t, nc, "a", "1")
		synctest.Wait()
		n.After(func() { got.add("between") })
		n.After(func() { got.add("and") })
		send(t, nc, "a", "2")
		got.want(t)
		close(hold)
		got.want(t, "hold", "1", "between", "and", "2")
	})
}

// What unsubscribes gets what had come, and nothing else.
func TestLaneUnsubscribe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		l, nc := open(t, h, link.Config{}), h.client(t)
		idle := h.srv.NumSubscriptions()
		n, got := lane(t, l), &notes{}
		hold := make(chan struct{})
		listen(t, n, "hold", func(*nats.Msg) { <-hold })
		a := listen(t, n, "a", got.handler("a"))
		send(t, nc, "hold", "")
		send(t, nc, "a", "1")
		synctest.Wait()
		n.Unsubscribe(a)
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		send(t, nc, "a", "2")
		synctest.Wait()
		close(hold)
		got.want(t, "a1")
		if got := h.srv.NumSubscriptions(); got != idle+1 {
			t.Errorf("%d subscriptions, want one more than %d", got, idle)
		}
	})
}

// A subject that is subscribed to again, while the end of the former subscription
// still waits in the lane, is heard.
func TestLaneAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		l, nc := open(t, h, link.Config{}), h.client(t)
		n, got := lane(t, l), &notes{}
		hold := make(chan struct{})
		listen(t, n, "hold", func(*nats.Msg) { <-hold })
		old := listen(t, n, "a", got.handler("old"))
		send(t, nc, "hold", "")
		synctest.Wait()
		n.Unsubscribe(old)
		listen(t, n, "a", got.handler("new"))
		send(t, nc, "a", "1")
		synctest.Wait()
		close(hold)
		got.want(t, "new1")
		send(t, nc, "a", "2")
		got.want(t, "new2")
		// Also when the new one is there first.
		again := listen(t, n, "b", got.handler("old"))
		listen(t, n, "b", got.handler("new"))
		n.Unsubscribe(again)
		synctest.Wait()
		send(t, nc, "b", "3")
		got.want(t, "new3")
	})
}

// A reader that is too slow loses messages, is told about in the log, and holds up
// nobody else; what is to come after them does come.
func TestLaneIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		l, nc := open(t, h, link.Config{}), h.client(t)
		n := lane(t, l)
		hold := make(chan struct{})
		var got, fences atomic.Int64
		listen(t, n, "a", func(*nats.Msg) { <-hold; got.Add(1) })
		other := &notes{}
		if _, err := l.Subscribe(t.Context(), "other", "", other.handler(""), nil); err != nil {
			t.Fatal(err)
		}
		const sent = 1<<14 + 500
		for range sent {
			send(t, nc, "a", "")
		}
		synctest.Wait()
		for range 3 {
			n.After(func() { fences.Add(1) })
		}
		send(t, nc, "other", "heard")
		other.want(t, "heard")
		close(hold)
		synctest.Wait()
		if k := got.Load(); k > 1<<14+1 || k < 1<<14 || fences.Load() != 3 {
			t.Errorf("%d of %d messages were handled, %d of 3 functions were called", k, sent, fences.Load())
		}
	})
}

// A subject that permissions forbid is no part of the lane; others are.
func TestLaneDenied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, l := denied(t)
		other := h.client(t, nats.UserInfo("other", "x"))
		n, got := lane(t, l), &notes{}
		began := time.Now()
		for range 2 {
			if sub, err := n.Subscribe(t.Context(), "b", got.handler("b")); !errors.Is(err, wire.ErrDenied) || sub != nil {
				t.Errorf("got %v, %v", sub, err)
			}
		}
		if time.Since(began) != 0 {
			t.Errorf("after %s", time.Since(began))
		}
		listen(t, n, "a.x", got.handler("a"))
		send(t, other, "b", "1")
		send(t, other, "a.x", "2")
		got.want(t, "a2")
	})
}

// A lane goes on after a reconnect.
func TestLaneReconnects(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		l := open(t, h, link.Config{})
		n, got := lane(t, l), &notes{}
		listen(t, n, "a", got.handler("a"))
		h.down()
		synctest.Wait()
		listen(t, n, "b", got.handler("b")) // reaches the server with the connection
		n.After(func() { got.add("after") })
		got.want(t, "after")
		h.up(t)
		time.Sleep(6 * time.Second)
		nc := h.client(t)
		send(t, nc, "a", "1")
		send(t, nc, "b", "2")
		got.want(t, "a1", "b2")
	})
}

// Close calls what still waits, once, and leaves no goroutine.
func TestLaneClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		l, nc := open(t, h, link.Config{}), h.client(t)
		n, got := l.Lane(), &notes{}
		hold := make(chan struct{})
		sub := listen(t, n, "a", func(*nats.Msg) { <-hold })
		send(t, nc, "a", "")
		synctest.Wait()
		for i := range 3 {
			n.After(func() { got.add(fmt.Sprint(i)) })
		}
		n.Unsubscribe(sub)
		n.Close()
		n.Close()
		got.want(t)
		n.After(func() { got.add("late") })
		got.want(t, "late")
		close(hold)
		synctest.Wait()
		slices.Sort(got.all)
		got.want(t, "0", "1", "2")
	})
}
