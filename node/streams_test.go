package node_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

func codeOf(err error) wire.Code { return wire.CodeOf(err) }

// offer makes the stream S.
func offer(t testing.TB, a *node.App, o node.StreamOptions) *node.Stream {
	t.Helper()
	s, err := a.CreateStream(t.Context(), node.Method{Name: "S"}, o)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return s
}

// push pushes the numbers from to to.
func push(t testing.TB, s *node.Stream, from, to int, branches ...string) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := s.Push(i, branches...); err != nil {
			t.Fatalf("push %d: %v", i, err)
		}
	}
}

func want(t testing.TB, r *reader, text string) {
	t.Helper()
	if got := r.text(); got != text {
		t.Errorf("%s:\n got %.1500s\nwant %.1500s", r.name, got, text)
	}
}

// numbers is "from from+1 ... to", each after prefix.
func numbers(prefix string, from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, " %s%d", prefix, i)
	}
	return b.String()
}

// stage is a stream "S" on node a, and subscribers there and on node b.
type stage struct {
	*hub
	a, b      *node.Node
	pub       *node.App
	s         *node.Stream
	near, far *node.App
}

func onStage(t *testing.T, o node.StreamOptions, f func(t *testing.T, st *stage)) {
	t.Helper()
	inHub(t, func(t *testing.T, h *hub) {
		st := &stage{hub: h, a: h.node("a"), b: h.node("b")}
		defer st.a.Stop()
		defer st.b.Stop()
		st.pub, st.near, st.far = join(t, st.a, "pub"), join(t, st.a, "near"), join(t, st.b, "far")
		st.s = offer(t, st.pub, o)
		f(t, st)
	})
}

// ledger notes who was added and removed.
type ledger struct {
	mu  sync.Mutex
	log []string
}

func (l *ledger) options(o node.StreamOptions) node.StreamOptions {
	note := func(what string) func(*node.Subscriber) {
		return func(c *node.Subscriber) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.log = append(l.log, what+c.Identity().Application)
		}
	}
	o.OnAdded, o.OnRemoved = note("+"), note("-")
	return o
}

func (l *ledger) want(t testing.TB, entries ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if fmt.Sprint(l.log) != fmt.Sprint(entries) {
		t.Errorf("added and removed: %v, want %v", l.log, entries)
	}
}

// pairs wants every one of who added once and then removed once.
func (l *ledger) pairs(t testing.TB, who ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range who {
		if at, gone := slices.Index(l.log, "+"+w), slices.Index(l.log, "-"+w); at < 0 || gone < at || len(l.log) != 2*len(who) {
			t.Errorf("added and removed: %v", l.log)
		}
	}
}

// decide does what the arguments ask for.
func decide(ctx context.Context, r *node.SubscriptionRequest) (string, error) {
	var ask []byte
	if err := r.Args.Decode(&ask); err != nil {
		return "", err
	}
	switch string(ask) {
	case "reject":
		return "", errors.New("not today, ✓")
	case "denied":
		return "", wire.Errorf(wire.Denied, "not you")
	case "panic":
		panic("oops")
	case "hang":
		<-ctx.Done()
	case "deaf":
		time.Sleep(time.Minute)
	}
	if r.Stream != "S" || r.Subscriber.Application == "" {
		return "", fmt.Errorf("request %+v", r)
	}
	return string(ask), nil
}

func TestSubscriptionDecisions(t *testing.T) {
	for _, c := range []struct {
		ask, branch string
		code        wire.Code
		text        string
	}{
		{ask: "", branch: ""},
		{ask: "red", branch: "red"},
		{ask: strings.Repeat("long branch ", 20), branch: strings.Repeat("long branch ", 20)},
		{ask: "reject", code: wire.Rejected, text: "not today, ✓"},
		{ask: "denied", code: wire.Rejected, text: "not you"},
		{ask: "panic", code: wire.Rejected},
		{ask: "hang", code: wire.Timeout},
		{ask: "deaf", code: wire.Timeout},
		{ask: "\xff", code: wire.BadName},
	} {
		t.Run(c.ask, func(t *testing.T) {
			var l ledger
			onStage(t, l.options(node.StreamOptions{OnRequest: decide}), func(t *testing.T, st *stage) {
				for _, app := range []*node.App{st.near, st.far} {
					started := time.Now()
					sub, err := app.Subscribe(t.Context(), "S", []byte(c.ask), node.Timeout(5*time.Second))
					if codeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.text) {
						t.Errorf("%s: got %v, want %q %q", app.Identity().Application, err, c.code, c.text)
					}
					if took := time.Since(started); c.code == wire.Timeout && took != 5*time.Second || c.code != wire.Timeout && took > time.Second {
						t.Errorf("took %s", took)
					}
					if err != nil {
						continue
					}
					r := read(app.Identity().Application, sub)
					push(t, st.s, 1, 1, c.branch)
					push(t, st.s, 1, 1, "other")
					if e := r.all(); len(e) != 2 || e[0].Branch != c.branch || e[1].Branch != c.branch || e[1].Server != st.pub.Identity() {
						t.Errorf("saw %+v", e)
					}
				}
				if c.code == "" {
					l.want(t, "+near", "+far")
					return
				}
				time.Sleep(2 * time.Minute)
				l.want(t)
				if n := len(st.s.Subscribers()); n != 0 || st.a.Stats().Interop.Subscribers != 0 {
					t.Errorf("%d subscribers", n)
				}
			})
		})
	}
}

func TestBranches(t *testing.T) {
	onStage(t, node.StreamOptions{OnRequest: func(_ context.Context, r *node.SubscriptionRequest) (branch string, err error) {
		return branch, r.Args.Decode(&branch)
	}}, func(t *testing.T, st *stage) {
		readers := map[string][]*reader{}
		for _, branch := range []string{"", "red", "blue"} {
			for _, app := range []*node.App{st.near, st.far} {
				readers[branch] = append(readers[branch], subscribe(t, app, "S", branch))
			}
		}
		if got := fmt.Sprint(st.s.Branches()); got != "[ blue red]" {
			t.Errorf("branches %s", got)
		}
		push(t, st.s, 1, 1, "red")
		push(t, st.s, 1, 1, "blue", "")
		push(t, st.s, 2, 2, "nobody")
		push(t, st.s, 2, 2)
		if err := st.s.Push(9, "red", "\xff"); !errors.Is(err, wire.ErrBadName) {
			t.Errorf("bad branch: %v", err)
		}
		for _, rs := range readers {
			for _, r := range rs {
				want(t, r, "S0 1 2")
			}
		}
		for _, v := range []any{nil, node.Payload{}, true, "x", map[string]any{"a": []any{int64(1), 2.5}}} {
			if err := st.s.Push(v, "red"); err != nil {
				t.Errorf("%v: %v", v, err)
			}
			near, far := readers["red"][0].all(), readers["red"][1].all()
			if n, f := near[len(near)-1].Value, far[len(far)-1].Value; n.String() != f.String() || n.IsZero() || f.IsZero() {
				t.Errorf("%v: near %v, far %v", v, n, f)
			}
		}
	})
}

func TestPrivateData(t *testing.T) {
	var added []*node.Subscriber
	var mu sync.Mutex
	onStage(t, node.StreamOptions{OnAdded: func(c *node.Subscriber) {
		_ = c.Push(1) // sent before the subscriber may have heard that it is one
		mu.Lock()
		defer mu.Unlock()
		added = append(added, c)
	}}, func(t *testing.T, st *stage) {
		push(t, st.s, 1, 5)
		st.line("b").Drop(func(subject string) bool {
			if strings.HasPrefix(subject, "_R.b.") {
				time.Sleep(100 * time.Millisecond) // private data overtakes the reply to the confirmation
			}
			return false
		})
		near, far := subscribe(t, st.near, "S", nil), subscribe(t, st.far, "S", nil)
		push(t, st.s, 6, 6)
		synctest.Wait()
		for _, c := range added {
			for i := 2; i <= 3; i++ {
				if err := c.Push(i); err != nil {
					t.Error(err)
				}
			}
		}
		want(t, near, "S5 p1 6 p2 p3")
		if got := strings.Replace(far.text(), "6 p1", "p1 6", 1); got != "S5 p1 6 p2 p3" {
			t.Errorf("far: %s", got)
		}
		st.line("b").Drop(nil)
		near.sub.Close()
		far.sub.Close()
		synctest.Wait()
		for _, c := range added {
			if err := c.Push(4); !errors.Is(err, wire.ErrTargetGone) {
				t.Errorf("after the end: %v", err)
			}
		}
	})
}

func TestEndsOfSubscriptions(t *testing.T) {
	for how, c := range map[string]struct {
		end  func(st *stage)
		text string // what the readers see at the end
	}{
		"publisher closes each": {func(st *stage) {
			for _, c := range st.s.Subscribers() {
				c.Close("enough")
			}
		}, " closed:canceled"},
		"publisher closes the stream": {func(st *stage) { st.s.Close() }, " closed:target-gone"},
		"publisher leaves":            {func(st *stage) { st.pub.Leave() }, " closed:target-gone"},
		"subscribers leave":           {func(st *stage) { st.near.Leave(); st.far.Leave() }, ""},
		"subscriber's node stops":     {func(st *stage) { st.near.Leave(); st.b.Stop() }, ""},
	} {
		t.Run(how, func(t *testing.T) {
			var l ledger
			onStage(t, l.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
				near, far := subscribe(t, st.near, "S", nil), subscribe(t, st.far, "S", nil)
				synctest.Wait()
				const n = 3000 // some of it is on its way when the end comes
				push(t, st.s, 1, n)
				if c.text == "" {
					synctest.Wait()
				}
				c.end(st)
				<-near.done
				<-far.done
				for _, r := range []*reader{near, far} {
					if got, full := r.text(), "S0"+numbers("", 1, n)+c.text; got != full {
						t.Errorf("%s saw %d bytes, want %d: ...%s", r.name, len(got), len(full), got[max(0, len(got)-60):])
					}
				}
				synctest.Wait()
				l.pairs(t, "near", "far")
				for _, n := range []*node.Node{st.a, st.b} {
					if s := n.Stats().Interop; s.Subscribers != 0 || s.Subscriptions != 0 || s.Branches != 0 {
						t.Errorf("left: %+v", s)
					}
				}
				near.sub.Close()
			})
		})
	}
}

func TestSubscriberClosesOneOfTwo(t *testing.T) {
	var l ledger
	onStage(t, l.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
		subs := st.srv.NumSubscriptions()
		one := subscribe(t, st.far, "S", nil)
		synctest.Wait()
		two := subscribe(t, join(t, st.b, "too"), "S", nil)
		if got := st.srv.NumSubscriptions() - subs; got != 1 || st.b.Stats().Interop.Branches != 1 {
			t.Errorf("%d NATS subscriptions", got)
		}
		before := st.a.Stats().Data.OutMsgs
		push(t, st.s, 1, 3)
		if got := st.a.Stats().Data.OutMsgs - before; got != 3 {
			t.Errorf("%d publishes for 3 pushes", got)
		}
		synctest.Wait()
		one.sub.Close()
		one.sub.Close()
		<-one.done
		push(t, st.s, 4, 4)
		want(t, one, "S0 1 2 3")
		want(t, two, "S0 1 2 3 4")
		l.want(t, "+far", "+too", "-far")
		two.sub.Close()
		synctest.Wait()
		if got := st.srv.NumSubscriptions() - subs; got != 0 {
			t.Errorf("%d NATS subscriptions left", got)
		}
		before = st.a.Stats().Data.OutMsgs
		push(t, st.s, 5, 9)
		if got := st.a.Stats().Data.OutMsgs - before; got != 0 {
			t.Errorf("%d publishes for nobody", got)
		}
	})
}

func TestSnapshot(t *testing.T) {
	big := strings.Repeat("x", 100<<10)
	for _, n := range []int{0, 1, 3} {
		onStage(t, node.StreamOptions{Snapshot: n}, func(t *testing.T, st *stage) {
			push(t, st.s, 1, 5)
			text := "S5" + numbers("*", 6-n, 5) + " 6"
			near, far := subscribe(t, st.near, "S", nil), subscribe(t, st.far, "S", nil)
			push(t, st.s, 6, 6)
			want(t, near, text)
			want(t, far, text)
		})
	}
	onStage(t, node.StreamOptions{Snapshot: wire.MaxSnapshot}, func(t *testing.T, st *stage) {
		for range 12 {
			if err := st.s.Push(big); err != nil {
				t.Fatal(err)
			}
		}
		kept := wire.MaxSnapshotBytes / len(big)
		for _, app := range []*node.App{st.near, st.far} {
			v := only(t, subscribe(t, app, "S", nil).verify(t, nil))
			if v.snapshot != kept || v.from != 12 {
				t.Errorf("%s: %+v, want %d kept", app.Identity().Application, v, kept)
			}
		}
		// The largest message there is does not fit into an answer with a
		// snapshot; nor may anything older be taken for the last.
		if err := st.s.Push(strings.Repeat("x", 8<<20-wire.PayloadReserve-5)); err != nil {
			t.Fatal(err)
		}
		want(t, subscribe(t, st.far, "S", nil), "S13")
	})
}

// Many push while others come: whoever subscribes gets everything from then on.
func TestConcurrentPushesAndLateJoiners(t *testing.T) {
	for _, snapshot := range []int{0, 10} {
		onStage(t, node.StreamOptions{Snapshot: snapshot}, func(t *testing.T, st *stage) {
			var pushers, comers sync.WaitGroup
			var mu sync.Mutex
			var n atomic.Int64
			truth := map[string]any{}
			var readers []*reader
			for i := range 12 {
				app := join(t, []*node.Node{st.a, st.b}[i%2], fmt.Sprint("late", i))
				comers.Go(func() {
					time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond * 100)
					r := subscribe(t, app, "S", nil)
					mu.Lock()
					readers = append(readers, r)
					mu.Unlock()
				})
			}
			const each = 300
			for range 8 {
				pushers.Go(func() {
					for range each {
						time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
						if err := st.s.Push(1e9 + n.Add(1)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			pushers.Wait()
			comers.Wait()
			for _, r := range readers {
				v := only(t, r.verify(t, truth))
				// Pushes between mark and confirmation push the oldest out of
				// a snapshot for another node; they come as live data instead.
				if v.to != 8*each || v.lost != 0 || v.snapshot > min(snapshot, int(v.from)) {
					t.Errorf("%s: %+v", r.name, v)
				}
			}
		})
	}
}

func TestSlowReader(t *testing.T) {
	onStage(t, node.StreamOptions{}, func(t *testing.T, st *stage) {
		for _, app := range []*node.App{st.near, st.far} {
			slow, err := app.Subscribe(t.Context(), "S", nil)
			if err != nil {
				t.Fatal(err)
			}
			fast := subscribe(t, app, "S", nil)
			from := int(only(t, fast.verify(t, nil)).from)
			const n = 20_000
			for i := from + 1; i <= from+n; i += 1000 {
				push(t, st.s, i, i+999)
				synctest.Wait()
			}
			if v := only(t, fast.verify(t, nil)); v.data != n || v.lost != 0 {
				t.Errorf("fast: %+v", v)
			}
			r := read("slow "+app.Identity().Application, slow)
			synctest.Wait()
			push(t, st.s, from+n+1, from+n+1)
			v := only(t, r.verify(t, nil))
			if v.data+v.lost != n+1 || v.lost != n-wire.QueueMessages+1 || v.to != uint64(from+n+1) {
				t.Errorf("slow: %+v", v) // Subscribed takes one place
			}
			events := r.all()
			if gap := events[len(events)-2]; gap.Reason != "slow-consumer" {
				t.Errorf("gap %+v", gap)
			}
		}
	})
}

func TestSlowReaderIsBoundedInBytes(t *testing.T) {
	onStage(t, node.StreamOptions{}, func(t *testing.T, st *stage) {
		sub, err := st.far.Subscribe(t.Context(), "S", nil)
		if err != nil {
			t.Fatal(err)
		}
		const size = 1 << 20
		for range 24 {
			if err := st.s.Push(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		v := only(t, read("slow", sub).verify(t, nil))
		if v.data > wire.QueueBytes/size || v.data < wire.QueueBytes/size-1 || v.data+v.lost != 24 {
			t.Errorf("got %+v", v)
		}
	})
}
