package link_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/wire"
)

// denied opens a link of a user who may use a.> and her inbox only.
func denied(t *testing.T) (*hub, *link.Link) {
	h := start(t, server.Options{Users: []*server.User{
		user("a", []string{"a.>", "_R.>"}, []string{"a.>", "_R.a.>"}), user("other", []string{">"}, []string{">"}),
	}})
	return h, open(t, h, link.Config{Options: []nats.Option{nats.UserInfo("a", "x")}})
}

// A request that permissions forbid ends at once; one beside it goes on.
func TestDeniedRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, l := denied(t)
		other := h.client(t, nats.UserInfo("other", "x"))
		if _, err := other.Subscribe("a.slow", func(m *nats.Msg) { time.AfterFunc(time.Second, func() { _ = m.Respond([]byte("ok")) }) }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ok := make(chan error, 3)
		for range cap(ok) {
			go func() {
				m, err := l.Request(within(t, 10*time.Second), &nats.Msg{Subject: "a.slow"})
				if err == nil && string(m.Data) != "ok" {
					err = fmt.Errorf("got %q", m.Data)
				}
				ok <- err
			}()
		}
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 20 { // also several on one subject
			wg.Go(func() {
				_, err := l.Request(within(t, time.Hour), &nats.Msg{Subject: fmt.Sprintf("b.%d", i%3)})
				if !errors.Is(err, wire.ErrDenied) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(began); d != 0 {
			t.Errorf("denied after %s", d)
		}
		for range cap(ok) {
			if err := <-ok; err != nil {
				t.Errorf("allowed request: %v", err)
			}
		}
		if l.Denied() < 3 || !l.State().Online {
			t.Errorf("denied %d, %+v", l.Denied(), l.State())
		}
		// Its own context still counts.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Request(ctx, &nats.Msg{Subject: "a.slow"}); !errors.Is(err, wire.ErrCanceled) {
			t.Errorf("got %v", err)
		}
	})
}

// Subscribe tells its own violation from others that come at the same time, and
// from old ones.
func TestDeniedSubscription(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, l := denied(t)
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() { // these overwrite the connection's last error
				_ = l.PublishBytes(fmt.Sprintf("b.%d", i), nil)
			})
			wg.Go(func() {
				subject, queue := fmt.Sprintf("b.%d", i), ""
				if i%2 == 1 {
					queue = "q"
				}
				_, err := l.Subscribe(t.Context(), subject, queue, func(*nats.Msg) {}, nil)
				if !errors.Is(err, wire.ErrDenied) {
					t.Errorf("%s: got %v", subject, err)
				}
			})
			wg.Go(func() {
				if _, err := l.Subscribe(t.Context(), fmt.Sprintf("a.%d", i), "", func(*nats.Msg) {}, nil); err != nil {
					t.Errorf("allowed: %v", err)
				}
			})
		}
		wg.Wait()
		if n := l.Conn().NumSubscriptions(); n != 60 {
			t.Errorf("%d subscriptions", n)
		}
	})
}

// A violation of the past says nothing about a subscription of today.
func TestDeniedThenAllowed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, l := denied(t)
		if _, err := l.Subscribe(t.Context(), "b", "", func(*nats.Msg) {}, nil); !errors.Is(err, wire.ErrDenied) {
			t.Fatalf("got %v", err)
		}
		opts := h.opts
		opts.Users = []*server.User{user("a", []string{">"}, []string{">"}), user("other", []string{">"}, []string{">"})}
		if err := h.srv.ReloadOptions(&opts); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := l.State().Connects; n != 1 {
			t.Fatalf("connected %d times, so this tests nothing", n)
		}
		if _, err := l.Subscribe(t.Context(), "b", "", func(*nats.Msg) {}, nil); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

// TestDeniedInbox: a node whose replies may not reach it is told so, at once and
// every time, and not after it may have them.
func TestDeniedInbox(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{Users: []*server.User{user("a", []string{">"}, []string{"x", "_R.a.>"})}})
		l := open(t, h, link.Config{Node: "b", Options: []nats.Option{nats.UserInfo("a", "x")}})
		if _, err := l.Subscribe(t.Context(), "x", "", func(m *nats.Msg) { _ = m.Respond(nil) }, nil); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for range 3 {
			if _, err := l.Request(within(t, time.Hour), &nats.Msg{Subject: "x"}); !errors.Is(err, wire.ErrDenied) {
				t.Errorf("got %v", err)
			}
		}
		if time.Since(began) != 0 {
			t.Errorf("took %s", time.Since(began))
		}
		h.down()
		h.opts.Users = []*server.User{user("a", []string{">"}, []string{"x", "_R.b.>"})}
		h.up(t)
		time.Sleep(6 * time.Second)
		if _, err := l.Request(within(t, time.Hour), &nats.Msg{Subject: "x"}); err != nil {
			t.Errorf("got %v", err)
		}
	})
}
