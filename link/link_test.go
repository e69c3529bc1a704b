package link_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/wire"
)

func TestOpen(t *testing.T) {
	t.Run("refused", func(t *testing.T) { // by TCP: a pipe breaks before the server has said why
		srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, Users: []*server.User{user("a", nil, nil)}})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		defer srv.WaitForShutdown()
		defer srv.Shutdown()
		for name, o := range map[string]nats.Option{"none": nats.Name("x"), "password": nats.UserInfo("a", "y"), "user": nats.UserInfo("b", "x")} {
			l, err := link.Open(t.Context(), link.Config{Node: "a", URL: srv.ClientURL(), Options: []nats.Option{o}})
			if !errors.Is(err, wire.ErrDenied) || l != nil {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
	t.Run("unreachable", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h := start(t, server.Options{})
			h.down()
			var s states
			l := open(t, h, link.Config{OnState: s.add})
			if st := l.State(); st.Online || st.Reason == "" || !errors.Is(l.Online(), wire.ErrOffline) {
				t.Fatalf("got %+v", st)
			}
			h.up(t)
			time.Sleep(6 * time.Second)
			if st := l.State(); !st.Online || st.Connects != 1 || st.Reason != "" {
				t.Fatalf("after the server came: %+v", st)
			}
		})
	})
	for _, url := range []string{"nats://[::1", "nats://127.0.0.1:99999", "nats://a b", "nats://127.0.0.1:x", "://", "nats://%zz"} {
		t.Run(url, func(t *testing.T) {
			started := time.Now()
			l, err := link.Open(t.Context(), link.Config{Node: "a", URL: url})
			if err == nil {
				l.Close()
				t.Fatalf("no error, state %+v", l.State())
			}
			if errors.Is(err, wire.ErrDenied) || errors.Is(err, wire.ErrOffline) || time.Since(started) > 5*time.Second {
				t.Errorf("got %v after %s", err, time.Since(started))
			}
		})
	}
	t.Run("canceled", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h := start(t, server.Options{})
			h.down()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := link.Open(ctx, link.Config{Node: "a", Options: []nats.Option{nats.InProcessServer(h)}}); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
	})
}

// What is tried while the connection is away fails at once and happens never.
func TestNothingIsReplayed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		var s states
		l := open(t, h, link.Config{OnState: s.add})
		var got atomic.Int32
		if _, err := l.Subscribe(t.Context(), "x.>", "", func(*nats.Msg) { got.Add(1) }, nil); err != nil {
			t.Fatal(err)
		}
		h.down()
		synctest.Wait()
		began := time.Now()
		errs := map[string]error{"publish": l.Publish(&nats.Msg{Subject: "x.1"}), "bytes": l.PublishBytes("x.2", nil), "flush": l.Flush(t.Context())}
		_, errs["request"] = l.Request(within(t, time.Hour), &nats.Msg{Subject: "x.3"})
		for name, err := range errs {
			if !errors.Is(err, wire.ErrOffline) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		// A subscription is no message: it reaches the server with the connection.
		if _, err := l.Subscribe(t.Context(), "y", "", func(*nats.Msg) { got.Add(1) }, nil); err != nil {
			t.Errorf("subscribe: %v", err)
		}
		if time.Since(began) != 0 {
			t.Errorf("took %s", time.Since(began))
		}
		h.up(t)
		time.Sleep(6 * time.Second)
		if !l.State().Online || got.Load() != 0 {
			t.Fatalf("online %v, %d messages arrived", l.State().Online, got.Load())
		}
		for _, subject := range []string{"x.4", "y"} {
			if err := l.PublishBytes(subject, nil); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if got.Load() != 2 {
			t.Errorf("%d of 2 messages after the reconnect", got.Load())
		}
		h.down()
		time.Sleep(6 * time.Second)
		h.up(t)
		time.Sleep(6 * time.Second)
		var connects []uint64
		for i, st := range s.list() {
			if st.Online != (st.Reason == "") || i > 0 && st.Since.Before(s.list()[i-1].Since) {
				t.Errorf("state %d: %+v", i, st)
			}
			if st.Online {
				connects = append(connects, st.Connects)
			}
		}
		if len(connects) != 3 || connects[0] != 1 || connects[1] != 2 || connects[2] != 3 || l.State().Connects != 3 {
			t.Errorf("connects %v, states %+v", connects, s.list())
		}
	})
}

// A request whose answer cannot come ends with its context, one that nobody
// takes at once, one that is too large at once.
func TestRequestErrors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{MaxPayload: 1000})
		l := open(t, h, link.Config{})
		if l.MaxPayload() != 1000 {
			t.Errorf("max payload %d", l.MaxPayload())
		}
		if _, err := l.Subscribe(t.Context(), "silent", "", func(*nats.Msg) {}, nil); err != nil {
			t.Fatal(err)
		}
		canceled, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		tests := map[string]struct {
			ctx  context.Context
			msg  nats.Msg
			want error
			took time.Duration
		}{
			"nobody":    {within(t, time.Hour), nats.Msg{Subject: "nobody"}, link.ErrNoResponders, 0},
			"too large": {within(t, time.Hour), nats.Msg{Subject: "silent", Data: make([]byte, 1001)}, wire.ErrLimit, 0},
			"timeout":   {within(t, 2*time.Second), nats.Msg{Subject: "silent"}, wire.ErrTimeout, 0},
			"canceled":  {canceled, nats.Msg{Subject: "silent"}, wire.ErrCanceled, 0},
		}
		for name, c := range tests {
			if _, err := l.Request(c.ctx, &c.msg); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
		}
		if err := l.PublishBytes("silent", make([]byte, 1001)); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("publish: %v", err)
		}
		if err := l.Publish(&nats.Msg{Subject: "silent", Data: make([]byte, 1001)}); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("publish: %v", err)
		}
		if !l.State().Online {
			t.Error("the link is offline afterwards")
		}
	})
}

// A peer that is dead behind an open connection is noticed by its silence.
func TestSilentServerIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		p := &pipe{hub: h}
		var s states
		l, err := link.Open(t.Context(), link.Config{Node: "a", Options: []nats.Option{nats.InProcessServer(p)}, OnState: s.add})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		p.frozen.Store(true)
		began := time.Now()
		for l.State().Online && time.Since(began) < time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(began); d < 3*time.Second || d > 10*time.Second {
			t.Errorf("noticed after %s", d)
		}
		p.frozen.Store(false)
		time.Sleep(6 * time.Second)
		if !l.State().Online {
			t.Errorf("got %+v", l.State())
		}
	})
}

func TestSlowConsumerIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		l := open(t, h, link.Config{})
		hold, told, got := make(chan struct{}), make(chan int, 1), 0
		idle := h.srv.NumSubscriptions()
		sub, err := l.Subscribe(t.Context(), "fast", "", func(*nats.Msg) { <-hold; got++ }, func(n int) { told <- n })
		if err != nil {
			t.Fatal(err)
		}
		nc := h.client(t)
		const sent = 1<<16 + 500
		for range sent {
			if err := nc.Publish("fast", nil); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		select {
		case n := <-told:
			if n < 1 {
				t.Errorf("dropped %d", n)
			}
		default:
			t.Error("nobody was told")
		}
		close(hold)
		synctest.Wait()
		if dropped, err := sub.Dropped(); err != nil || got+dropped != sent || dropped == 0 {
			t.Errorf("got %d, dropped %d (%v) of %d", got, dropped, err, sent)
		}
		// Who has unsubscribed is not told any more.
		l.Unsubscribe(sub)
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := h.srv.NumSubscriptions(); n != idle {
			t.Errorf("%d subscriptions, %d before", n, idle)
		}
	})
}

func TestCloseLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) { // the bubble ends only when every goroutine has
		h := start(t, server.Options{})
		var s states
		l := open(t, h, link.Config{OnState: s.add})
		got := h.client(t)
		sub, err := got.SubscribeSync("last")
		if err != nil {
			t.Fatal(err)
		}
		if err := got.FlushWithContext(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Subscribe(t.Context(), "x", "", func(*nats.Msg) {}, nil); err != nil {
			t.Fatal(err)
		}
		before := h.srv.NumClients()
		if err := l.PublishBytes("last", nil); err != nil {
			t.Fatal(err)
		}
		n := len(s.list())
		l.Close()
		l.Close()
		if _, err := sub.NextMsgWithContext(within(t, time.Second)); err != nil {
			t.Errorf("what was published before Close: %v", err)
		}
		synctest.Wait()
		if h.srv.NumClients() != before-1 || len(s.list()) != n {
			t.Errorf("%d clients, were %d; states %+v", h.srv.NumClients(), before, s.list())
		}
		if err := l.PublishBytes("x", nil); !errors.Is(err, wire.ErrOffline) {
			t.Errorf("publish: %v", err)
		}
		if _, err := l.Subscribe(t.Context(), "x", "", func(*nats.Msg) {}, nil); !errors.Is(err, wire.ErrOffline) {
			t.Errorf("subscribe: %v", err)
		}
		h.down()
		off := open(t, h, link.Config{Node: "b"})
		off.Close() // also while it tries to connect
	})
}
