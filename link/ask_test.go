package link_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
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

// answer is how one request ended.
type answer struct {
	text  string
	err   error
	times int
	after time.Duration
}

// asked collects how requests end.
type asked struct {
	t     testing.TB
	l     *link.Link
	began time.Time

	mu  sync.Mutex
	all map[string]*answer
}

func asking(t testing.TB, l *link.Link) *asked {
	return &asked{t: t, l: l, began: time.Now(), all: map[string]*answer{}}
}

// ask sends a request with a name of its own and notes how it ends.
func (a *asked) ask(name, subject string, body []byte) *link.Asking {
	a.mu.Lock()
	a.all[name] = &answer{}
	a.mu.Unlock()
	return a.l.Ask(&nats.Msg{Subject: subject, Data: body}, func(m *nats.Msg, err error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		got := a.all[name]
		got.times++
		got.err, got.after = err, time.Since(a.began)
		switch {
		case err == nil && m != nil:
			got.text = string(m.Data)
		case err == nil || m != nil:
			a.t.Errorf("%s: both or none: %v, %v", name, m, err)
		}
	})
}

// end returns how a request has ended, which must be once.
func (a *asked) end(name string) answer {
	a.t.Helper()
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	got := *a.all[name]
	if got.times != 1 {
		a.t.Errorf("%s ended %d times: %+v", name, got.times, got)
	}
	return got
}

func (a *asked) want(name string, want error, after time.Duration) {
	a.t.Helper()
	if got := a.end(name); !errors.Is(got.err, want) || got.after != after {
		a.t.Errorf("%s: got %v after %s, want %v after %s", name, got.err, got.after, want, after)
	}
}

// pending says that a request has not ended.
func (a *asked) pending(name string) {
	a.t.Helper()
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	if got := a.all[name]; got.times != 0 {
		a.t.Errorf("%s has ended: %+v", name, *got)
	}
}

// idle says that the link keeps nothing of what has ended.
func idle(t testing.TB, l *link.Link) {
	t.Helper()
	synctest.Wait()
	if asks, subjects := l.Waiting(); asks != 0 || subjects != 0 {
		t.Errorf("the link still keeps %d requests on %d subjects", asks, subjects)
	}
}

// Requests arrive in the order in which they were sent, and each gets its own
// reply, whatever the order of those.
func TestAskOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		l, nc := open(t, h, link.Config{}), h.client(t)
		const n = 2000
		var got []*nats.Msg
		if _, err := nc.Subscribe("x", func(m *nats.Msg) { got = append(got, m) }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a := asking(t, l)
		for i := range n {
			a.ask(strconv.Itoa(i), "x", []byte(strconv.Itoa(i)))
		}
		synctest.Wait()
		if len(got) != n {
			t.Fatalf("%d of %d arrived", len(got), n)
		}
		if asks, subjects := l.Waiting(); asks != n || subjects != 1 {
			t.Errorf("waits for %d replies on %d subjects", asks, subjects)
		}
		for i, m := range got {
			if string(m.Data) != strconv.Itoa(i) {
				t.Fatalf("request %d is %s", i, m.Data)
			}
		}
		for _, m := range slices.Backward(got) {
			if err := m.Respond(append([]byte("re "), m.Data...)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			if e := a.end(strconv.Itoa(i)); e.err != nil || e.text != fmt.Sprint("re ", i) {
				t.Fatalf("reply to %d: %q, %v", i, e.text, e.err)
			}
		}
		idle(t, l)
	})
}

// Every way in which a request can end, each once.
func TestAskEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{MaxPayload: 1000})
		l, nc := open(t, h, link.Config{}), h.client(t)
		var silent []*nats.Msg
		for subject, f := range map[string]nats.MsgHandler{
			"silent": func(m *nats.Msg) { silent = append(silent, m) },
			"echo":   func(m *nats.Msg) { _ = m.Respond(m.Data) },
			"twice":  func(m *nats.Msg) { _ = m.Respond([]byte("first")); _ = m.Respond([]byte("second")) },
			"503": func(m *nats.Msg) {
				_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Status": {"503"}}, Data: []byte("a body")})
			},
		} {
			if _, err := nc.Subscribe(subject, f); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		a := asking(t, l)
		a.ask("nobody", "nobody", nil)
		a.ask("too large", "silent", make([]byte, 1001))
		a.ask("empty", "echo", nil)
		a.ask("echo", "echo", []byte("hello"))
		a.ask("twice", "twice", nil)
		a.ask("503", "503", nil)
		a.ask("wildcard", "a.*", nil)
		a.ask("no subject", "", nil)
		a.want("nobody", link.ErrNoResponders, 0)
		a.want("too large", wire.ErrLimit, 0)
		for name, text := range map[string]string{"empty": "", "echo": "hello", "twice": "first", "503": "a body"} {
			if e := a.end(name); e.err != nil || e.text != text {
				t.Errorf("%s: got %q, %v", name, e.text, e.err)
			}
		}
		for _, name := range []string{"wildcard", "no subject"} {
			if e := a.end(name); e.err == nil {
				t.Errorf("%s was answered", name)
			}
		}
		idle(t, l)

		canceled := a.ask("canceled", "silent", nil)
		late := a.ask("answered", "silent", nil)
		a.pending("canceled")
		time.Sleep(time.Second)
		why := wire.Errorf(wire.Timeout, "too long")
		canceled.Cancel(why)
		canceled.Cancel(wire.ErrBusy)
		a.want("canceled", why, time.Second)
		for _, m := range silent {
			_ = m.Respond([]byte("late"))
		}
		if e := a.end("answered"); e.err != nil || e.text != "late" {
			t.Errorf("got %q, %v", e.text, e.err)
		}
		late.Cancel(why)
		if e := a.end("answered"); e.err != nil {
			t.Errorf("canceled after its reply: %v", e.err)
		}
		a.want("canceled", why, time.Second)
		idle(t, l)
	})
}

// A request offline ends at once and is sent never; one that was on its way when
// the connection broke ends when its owner says so; the next after that works.
func TestAskOffline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		l := open(t, h, link.Config{})
		listen := func() {
			if _, err := h.client(t, nats.NoReconnect()).Subscribe("x", func(m *nats.Msg) {
				if string(m.Data) != "lost" {
					_ = m.Respond([]byte("ok"))
				}
			}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		listen()
		a := asking(t, l)
		lost := a.ask("lost", "x", []byte("lost"))
		a.ask("first", "x", nil)
		a.want("first", nil, 0)
		h.down()
		synctest.Wait()
		for _, name := range []string{"offline", "offline again"} {
			a.ask(name, "x", nil)
			a.want(name, wire.ErrOffline, 0)
		}
		a.pending("lost")
		h.up(t)
		listen()
		time.Sleep(6 * time.Second)
		a.ask("second", "x", nil)
		if e := a.end("second"); e.err != nil || e.text != "ok" {
			t.Errorf("after the reconnect: %q, %v", e.text, e.err)
		}
		a.pending("lost")
		a.want("offline", wire.ErrOffline, 0)
		lost.Cancel(wire.ErrTimeout)
		a.want("lost", wire.ErrTimeout, 6*time.Second)
		idle(t, l)
		l.Close()
		a.ask("closed", "x", nil)
		a.want("closed", wire.ErrOffline, 6*time.Second)
		idle(t, l)
	})
}

// A request that permissions forbid ends at once, all on its subject with it; one
// beside it goes on.
func TestDeniedAsk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, l := denied(t)
		other := h.client(t, nats.UserInfo("other", "x"))
		if _, err := other.Subscribe("a.slow", func(m *nats.Msg) { time.AfterFunc(time.Second, func() { _ = m.Respond([]byte("ok")) }) }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a := asking(t, l)
		for i := range 3 {
			a.ask(fmt.Sprint("allowed ", i), "a.slow", nil)
		}
		for i := range 20 {
			a.ask(fmt.Sprint("denied ", i), fmt.Sprintf("b.%d", i%3), nil)
		}
		for i := range 20 {
			a.want(fmt.Sprint("denied ", i), wire.ErrDenied, 0)
		}
		if asks, subjects := l.Waiting(); asks != 3 || subjects != 1 {
			t.Errorf("waits for %d replies on %d subjects", asks, subjects)
		}
		time.Sleep(time.Second)
		for i := range 3 {
			a.want(fmt.Sprint("allowed ", i), nil, time.Second)
		}
		if l.Denied() < 3 || !l.State().Online {
			t.Errorf("denied %d, %+v", l.Denied(), l.State())
		}
		idle(t, l)
	})
}

// A link that may not have its replies says so of every request, and of none
// when it may after a reconnect.
func TestDeniedAskInbox(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{Users: []*server.User{user("a", []string{">"}, []string{"x", "_R.a.>"})}})
		l := open(t, h, link.Config{Node: "b", Options: []nats.Option{nats.UserInfo("a", "x")}})
		if _, err := l.Subscribe(t.Context(), "x", "", func(m *nats.Msg) { _ = m.Respond(nil) }, nil); err != nil {
			t.Fatal(err)
		}
		a := asking(t, l)
		for _, name := range []string{"one", "two", "three"} {
			a.ask(name, "x", nil)
			a.want(name, wire.ErrDenied, 0)
		}
		idle(t, l)
		h.down()
		h.opts.Users = []*server.User{user("a", []string{">"}, []string{"x", "_R.b.>"})}
		h.up(t)
		time.Sleep(6 * time.Second)
		a.ask("allowed", "x", nil)
		a.want("allowed", nil, 6*time.Second)
		idle(t, l)
	})
}

// done is called once, however a reply, a cancellation, a denial and the end of
// the link race.
func TestAskEndsOnce(t *testing.T) {
	h, l := denied(t)
	other := h.client(t, nats.UserInfo("other", "x"))
	if _, err := other.Subscribe("a.echo", func(m *nats.Msg) { _ = m.Respond(nil) }); err != nil {
		t.Fatal(err)
	}
	if err := other.FlushWithContext(within(t, time.Second)); err != nil {
		t.Fatal(err)
	}
	var wrong atomic.Int64
	var wg sync.WaitGroup
	const askers, each = 8, 250
	var times [askers][each]atomic.Int64
	for k := range askers {
		wg.Go(func() {
			for i := range each {
				subject := []string{"a.echo", "b.denied", "a.nobody"}[(i+k)%3]
				done := make(chan struct{})
				a := l.Ask(&nats.Msg{Subject: subject}, func(_ *nats.Msg, err error) {
					if times[k][i].Add(1) == 1 {
						close(done)
					}
					if err == nil && subject != "a.echo" {
						wrong.Add(1)
					}
				})
				for range 2 {
					wg.Go(func() { a.Cancel(wire.ErrCanceled) })
				}
				a.Cancel(wire.ErrCanceled)
				<-done
			}
		})
	}
	wg.Wait()
	if err := other.FlushWithContext(within(t, time.Second)); err != nil { // the last replies are out
		t.Fatal(err)
	}
	if err := l.Flush(within(t, time.Second)); err != nil {
		t.Fatal(err)
	}
	for k := range askers {
		for i := range each {
			if n := times[k][i].Load(); n != 1 {
				t.Errorf("request %d of %d ended %d times", i, k, n)
			}
		}
	}
	if asks, subjects := l.Waiting(); wrong.Load() != 0 || asks != 0 || subjects != 0 {
		t.Errorf("%d wrong, %d requests on %d subjects left", wrong.Load(), asks, subjects)
	}
}
