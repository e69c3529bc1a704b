package node_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// ticker pushes 1, 2, 3 ... every so often until stopped; stop returns the last.
func ticker(t testing.TB, s *node.Stream, every time.Duration) (stop func() uint64) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	var n uint64
	go func() {
		defer close(done)
		for {
			select {
			case <-time.After(every):
				n++
				if err := s.Push(n); err != nil {
					t.Errorf("push %d: %v", n, err)
				}
			case <-quit:
				return
			}
		}
	}()
	return func() uint64 {
		close(quit)
		<-done
		return n
	}
}

func TestReconnects(t *testing.T) {
	for _, who := range []string{"a", "b", "a b"} {
		for _, outage := range []time.Duration{100 * time.Millisecond, 3 * time.Second, 8 * time.Second, time.Minute} {
			for _, snapshot := range []int{0, wire.MaxSnapshot} {
				t.Run(fmt.Sprintf("%s %s %d", who, outage, snapshot), func(t *testing.T) { reconnect(t, who, outage, snapshot) })
			}
		}
	}
}

// reconnect cuts lines while a stream goes on, and looks who missed what.
func reconnect(t *testing.T, who string, outage time.Duration, snapshot int) {
	var l ledger
	onStage(t, l.options(node.StreamOptions{Snapshot: snapshot}), func(t *testing.T, st *stage) {
		near, far, all := subscribe(t, st.near, "S", nil), subscribe(t, st.far, "S", nil), subscribe(t, join(t, st.b, "all"), "S", nil, node.All)
		stop := ticker(t, st.s, 100*time.Millisecond)
		time.Sleep(2 * time.Second)
		for id := range strings.FieldsSeq(who) {
			st.line(id).Cut()
		}
		time.Sleep(outage)
		for id := range strings.FieldsSeq(who) {
			st.line(id).Heal()
		}
		time.Sleep(30 * time.Second)
		n := stop()
		if v := only(t, near.verify(t, nil)); v.data != n || v.closed != 0 {
			t.Errorf("near: %+v of %d", v, n)
		}
		// A publisher that everyone else has lost is gone: its streams are
		// closed, and all takes them up again when it comes back.
		// (From 5 s on the directory may, from 15 s on it must say so.)
		v := only(t, far.verify(t, nil))
		gone := who == "a" && (outage > 15*time.Second || outage > 5*time.Second && v.closed == 1)
		if gone != (v.closed == 1) || !gone && v.to != n {
			t.Errorf("far: %+v of %d", v, n)
		}
		missed := uint64(outage / (100 * time.Millisecond))
		if !gone && (snapshot == 0 && (v.lost > missed+80 || outage > time.Second && v.lost < missed/2) || snapshot > 0 && v.lost > 0) {
			t.Errorf("far: lost %d, was cut off for %d", v.lost, missed)
		}
		if v := only(t, all.verify(t, nil)); v.to != n || v.closed == 0 && snapshot > 0 && v.lost > 0 {
			t.Errorf("all: %+v of %d", v, n)
		}
		if st.s.Close(); !gone {
			l.mu.Lock()
			defer l.mu.Unlock()
			if got := strings.Count(strings.Join(l.log, " "), "+far"); got > 2 || outage < 10*time.Second && got != 1 {
				t.Errorf("log %v", l.log)
			}
		}
	})
}

// The last messages are lost, and nothing follows them.
func TestLostTailIsNoticed(t *testing.T) {
	for _, snapshot := range []int{0, 2, 10} {
		onStage(t, node.StreamOptions{Snapshot: snapshot}, func(t *testing.T, st *stage) {
			far := subscribe(t, st.far, "S", nil)
			push(t, st.s, 1, 3)
			synctest.Wait()
			st.line("b").Drop(isData)
			push(t, st.s, 4, 8)
			synctest.Wait()
			st.line("b").Drop(nil)
			time.Sleep(10 * time.Second)
			switch snapshot {
			case 0:
				want(t, far, "S0 1 2 3 gap4-8:lost")
			case 2:
				want(t, far, "S0 1 2 3 gap4-6:lost *7 *8")
			default:
				want(t, far, "S0 1 2 3 *4 *5 *6 *7 *8")
			}
		})
	}
}

func TestLostPrivateDataIsNoticed(t *testing.T) {
	onStage(t, node.StreamOptions{}, func(t *testing.T, st *stage) {
		far := subscribe(t, st.far, "S", nil)
		c := st.s.Subscribers()[0]
		send := func(from, to int) {
			for i := from; i <= to; i++ {
				if err := c.Push(i); err != nil {
					t.Error(err)
				}
			}
			synctest.Wait()
		}
		send(1, 1)
		st.line("b").Drop(isPush)
		send(2, 3)
		st.line("b").Drop(nil)
		send(4, 4)
		st.line("b").Drop(isPush)
		send(5, 6)
		st.line("b").Drop(nil)
		time.Sleep(10 * time.Second)
		want(t, far, "S0 p1 pgap2-3:lost p4 pgap5-6:lost")
		st.line("b").Drop(isPush) // also the end, which is noticed nevertheless
		c.Close("enough")
		time.Sleep(time.Second)
		st.line("b").Drop(nil)
		time.Sleep(time.Minute)
		push(t, st.s, 1, 1)
		if got := far.text(); !strings.HasSuffix(got, " 1") {
			t.Errorf("after an end that was lost: %s", got)
		}
	})
}

// The gap is in the middle when the end comes, and nobody is left to fill it.
func TestGapJustBeforeTheEnd(t *testing.T) {
	for _, tail := range []bool{false, true} {
		for _, end := range []string{"close", "kick", "leave", "cut"} {
			onStage(t, node.StreamOptions{}, func(t *testing.T, st *stage) {
				far := subscribe(t, st.far, "S", nil)
				push(t, st.s, 1, 2)
				synctest.Wait()
				st.line("b").Drop(isData)
				push(t, st.s, 3, 4)
				synctest.Wait()
				text := "S0 1 2 gap3-4:lost"
				st.line("b").Drop(nil)
				if !tail {
					push(t, st.s, 5, 6)
					text += " 5 6"
				}
				switch end {
				case "close":
					st.s.Close()
				case "kick":
					st.s.Subscribers()[0].Close("")
					text += " closed:canceled"
				case "leave":
					st.pub.Leave()
				case "cut":
					synctest.Wait()
					time.Sleep(6 * time.Second)
					st.line("a").Cut()
				}
				<-far.done
				if end != "kick" {
					text += " closed:target-gone"
				}
				want(t, far, text)
				st.line("a").Heal()
			})
		}
	}
}

// What the publisher and the directory say on the control connection overtakes
// the data, and the end, on the data connection.
func TestControlOvertakesData(t *testing.T) {
	for end, code := range map[string]string{"kick": "canceled", "leave": "target-gone", "close": "target-gone"} {
		onStage(t, node.StreamOptions{}, func(t *testing.T, st *stage) {
			far := subscribe(t, st.far, "S", nil)
			push(t, st.s, 1, 2)
			synctest.Wait()
			st.line("b").Drop(isData)
			push(t, st.s, 3, 3)
			synctest.Wait()
			st.line("b").Drop(func(subject string) bool {
				if isData(subject) || isPush(subject) {
					time.Sleep(100 * time.Millisecond)
				}
				return false
			})
			push(t, st.s, 4, 4)
			switch end {
			case "kick":
				st.s.Subscribers()[0].Close("")
			case "leave":
				st.pub.Leave()
			case "close":
				st.s.Close()
			}
			select {
			case <-far.done:
			case <-time.After(time.Minute):
			}
			want(t, far, "S0 1 2 gap3-3:lost 4 closed:"+code)
		})
	}
}

func TestPublisherNeverComesBack(t *testing.T) {
	var l ledger
	onStage(t, l.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
		far := subscribe(t, st.far, "S", nil)
		near := subscribe(t, st.near, "S", nil)
		push(t, st.s, 1, 2)
		synctest.Wait()
		st.line("a").Cut()
		started := time.Now()
		<-far.done
		if took := time.Since(started); took > 20*time.Second {
			t.Errorf("closed after %s", took)
		}
		want(t, far, "S0 1 2 closed:target-gone")
		push(t, st.s, 3, 3)
		want(t, near, "S0 1 2 3")
	})
}

func TestSubscriberNeverComesBack(t *testing.T) {
	var l ledger
	onStage(t, l.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
		far := subscribe(t, st.far, "S", nil)
		push(t, st.s, 1, 2)
		synctest.Wait()
		st.line("b").Cut()
		time.Sleep(time.Minute)
		l.want(t, "+far", "-far")
		if got := st.s.Branches(); len(got) != 0 {
			t.Errorf("branches %q", got)
		}
		want(t, far, "S0 1 2") // it waits for the connection
	})
}

func TestServerRestartsWithoutMemory(t *testing.T) {
	for _, outage := range []time.Duration{0, time.Minute} {
		for _, snapshot := range []int{0, wire.MaxSnapshot} {
			onStage(t, node.StreamOptions{Snapshot: snapshot}, func(t *testing.T, st *stage) {
				near, far := subscribe(t, st.near, "S", nil), subscribe(t, st.far, "S", nil)
				stop := ticker(t, st.s, 100*time.Millisecond)
				for range 2 {
					time.Sleep(20 * time.Second)
					st.down()
					st.store = t.TempDir()
					time.Sleep(outage)
					st.up()
				}
				time.Sleep(40 * time.Second)
				n := stop()
				for _, r := range []*reader{near, far} {
					v := only(t, r.verify(t, nil))
					if v.to != n || v.closed != 0 || (snapshot > 0 || r == near) && v.lost > 0 {
						t.Errorf("%s: %+v of %d", r.name, v, n)
					}
				}
			})
		}
	}
}

// The publisher makes the stream anew while a subscriber cannot hear it.
func TestStreamMadeAnewMeanwhile(t *testing.T) {
	onStage(t, node.StreamOptions{}, func(t *testing.T, st *stage) {
		far := subscribe(t, st.far, "S", nil)
		push(t, st.s, 1, 3)
		synctest.Wait()
		_ = st.s.Subscribers()[0].Push(1)
		synctest.Wait()
		st.line("b").Cut()
		st.s.Close()
		time.Sleep(time.Second)
		s := offer(t, st.pub, node.StreamOptions{Snapshot: 2})
		push(t, s, 1, 4)
		time.Sleep(time.Second)
		st.line("b").Heal()
		time.Sleep(20 * time.Second)
		push(t, s, 5, 5)
		_ = s.Subscribers()[0].Push(1)
		got := strings.Replace(far.text(), "p1 5", "5 p1", 1)
		if want := "S0 1 2 3 p1 pgap2-0:restarted gap4-0:restarted gap1-2:lost *3 *4 5 p1"; got != want {
			t.Errorf(" got %s\nwant %s", got, want)
		}
		far.verify(t, nil)
	})
}

// Neither a connection that hangs nor one that is gone holds up the apps of
// the publisher's own node for long.
func TestStalledConnection(t *testing.T) {
	onStage(t, node.StreamOptions{Snapshot: wire.MaxSnapshot}, func(t *testing.T, st *stage) {
		near, far := subscribe(t, st.near, "S", nil), subscribe(t, st.far, "S", nil)
		resume := st.line("b").Stall()
		started := time.Now()
		push(t, st.s, 1, 200)
		if took := time.Since(started); took > 0 {
			t.Errorf("pushes took %s while a subscriber hung", took)
		}
		time.Sleep(4 * time.Second)
		resume()
		time.Sleep(15 * time.Second)
		for _, r := range []*reader{near, far} {
			if v := only(t, r.verify(t, nil)); v.data != 200 {
				t.Errorf("%s: %+v", r.name, v)
			}
		}
	})
}

// Every fifth message is lost on the way, of the data and of the handshake.
func TestLossyLine(t *testing.T) {
	for _, snapshot := range []int{0, wire.MaxSnapshot} {
		onStage(t, node.StreamOptions{Snapshot: snapshot}, func(t *testing.T, st *stage) {
			lossy := func(subject string) bool { return !strings.Contains(subject, "JS.") && rand.IntN(5) == 0 }
			st.line("b").Drop(func(s string) bool { return (isData(s) || isPush(s)) && lossy(s) })
			var readers []*reader
			for i := range 5 {
				readers = append(readers, subscribe(t, join(t, st.b, fmt.Sprint("r", i)), "S", nil))
			}
			stop := ticker(t, st.s, 20*time.Millisecond)
			time.Sleep(10 * time.Second)
			st.line("b").Drop(func(s string) bool { return (isData(s) || isPush(s) || strings.HasPrefix(s, "_R.b.")) && lossy(s) })
			time.Sleep(10 * time.Second)
			n := stop()
			st.line("b").Drop(nil)
			time.Sleep(20 * time.Second)
			truth := map[string]any{}
			for _, r := range readers {
				v := only(t, r.verify(t, truth))
				if v.to != n || v.closed > 0 || snapshot == 0 && v.lost < n/20 || snapshot > 0 && v.lost > n/20 {
					t.Errorf("%s: %+v of %d", r.name, v, n)
				}
			}
		})
	}
}

// Whatever happens in whatever order, what a subscriber sees of a branch is a
// contiguous range, as data or as gaps, in order.
func TestRandomFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.IntRange(0, 999), 5, 40).Draw(rt, "steps")
		snapshot := rapid.SampledFrom([]int{0, 1, 20}).Draw(rt, "snapshot")
		var failures []string
		inHub(t, func(t *testing.T, h *hub) {
			failures = play(t, h, steps, snapshot)
		})
		if len(failures) > 0 {
			rt.Fatal(strings.Join(failures, "\n"))
		}
	})
}

// failing collects errors, so that rapid can shrink what led to them.
type failing struct {
	testing.TB
	lock sync.Mutex
	list []string
}

func (f *failing) Errorf(format string, args ...any) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.list = append(f.list, fmt.Sprintf(format, args...))
}

// game is one run of random faults.
type game struct {
	*failing
	*hub
	nodes   []*node.Node
	pub     *node.App
	s       *node.Stream
	o       node.StreamOptions
	joining sync.WaitGroup

	mu            sync.Mutex
	readers, live []*reader
}

func play(t *testing.T, h *hub, steps []int, snapshot int) []string {
	g := &game{failing: &failing{TB: t}, hub: h, o: node.StreamOptions{Snapshot: snapshot}}
	for _, id := range []string{"a", "b", "c"} {
		n := h.node(id)
		defer n.Stop()
		g.nodes = append(g.nodes, n)
	}
	g.pub = join(t, g.nodes[0], "pub")
	g.s = offer(g, g.pub, g.o)
	var apps []*node.App // each subscribes once
	for i := range len(steps) {
		apps = append(apps, join(t, g.nodes[i%3], fmt.Sprint("r", i)))
	}
	for i, step := range steps {
		g.step(step, apps[i])
	}
	g.joining.Wait()
	for _, n := range g.nodes {
		h.line(string(n.ID())).Heal()
	}
	time.Sleep(time.Minute)
	_ = g.s.Push("last")
	for _, r := range g.readers {
		r.verify(g, nil)
	}
	for _, r := range g.live {
		if text := r.text(); len(r.sub.Servers()) > 0 && !strings.HasSuffix(text, "=last") {
			g.Errorf("%s: the end is missing: %s", r.name, text)
		}
	}
	return g.list
}

func (g *game) step(step int, app *node.App) {
	line, arg := g.line(string(g.nodes[step%3].ID())), step/3%30
	switch step % 8 {
	case 0, 1, 2:
		for range arg {
			_ = g.s.Push("x")
		}
	case 3:
		line.Cut()
	case 4, 5:
		line.Heal()
		time.Sleep(time.Duration(arg) * time.Second)
	case 6:
		opts := []node.Option{node.Timeout(5 * time.Second)}
		if arg%2 == 0 {
			opts = append(opts, node.All)
		}
		g.joining.Go(func() {
			if sub, err := app.Subscribe(g.Context(), "S", nil, opts...); err == nil {
				g.mu.Lock()
				defer g.mu.Unlock()
				r := read(app.Identity().Application, sub)
				g.readers, g.live = append(g.readers, r), append(g.live, r)
			}
		})
	case 7:
		g.leave(arg)
	}
	if arg%4 == 0 {
		time.Sleep(time.Duration(arg) * 30 * time.Millisecond)
	}
}

// leave ends a subscription, or the stream, which is then made anew.
func (g *game) leave(arg int) {
	g.mu.Lock()
	var leaving *reader
	if len(g.live) > 0 && arg < 10 {
		leaving, g.live = g.live[0], g.live[1:]
	}
	g.mu.Unlock()
	switch {
	case leaving != nil:
		leaving.sub.Close()
	case arg > 24:
		g.line("a").Heal()
		time.Sleep(10 * time.Second) // CreateStream waits for the directory
		g.s.Close()
		g.s = offer(g, g.pub, g.o)
	}
}
