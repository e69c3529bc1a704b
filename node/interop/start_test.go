package interop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// inPairs runs f with the server on the caller's node a and on another, b.
func inPairs(t *testing.T, f func(t *testing.T, a, b *peer, host *peer)) {
	t.Helper()
	for _, where := range []string{"a", "b"} {
		t.Run("server on "+where, func(t *testing.T) {
			inFabric(t, func(t *testing.T, fb *fabric) {
				a, b := fb.start("a"), fb.start("b")
				defer a.stop()
				defer b.stop()
				host := a
				if where == "b" {
					host = b
				}
				f(t, a, b, host)
				if !t.Failed() {
					clean(t, a, b)
				}
			})
		})
	}
}

// TestCallsLeaveNothing: whatever way a call ends, no side keeps anything of it.
func TestCallsLeaveNothing(t *testing.T) {
	for name, end := range map[string]func(l *ledger, a, host *peer, caller, server subjects.App, cancel func(error)){
		"finished":    func(l *ledger, _, _ *peer, _, _ subjects.App, _ func(error)) { l.finish(l.served[0], nil) },
		"failed":      func(l *ledger, _, _ *peer, _, _ subjects.App, _ func(error)) { l.finish(l.served[0], wire.ErrRejected) },
		"canceled":    func(_ *ledger, _, _ *peer, _, _ subjects.App, cancel func(error)) { cancel(wire.ErrCanceled) },
		"timed out":   func(l *ledger, _, _ *peer, _, _ subjects.App, _ func(error)) { l.wait(11 * time.Second) },
		"caller left": func(_ *ledger, a, _ *peer, caller, _ subjects.App, _ func(error)) { a.Leave(caller) },
		"server left": func(_ *ledger, _, host *peer, _, server subjects.App, _ func(error)) { host.Leave(server) },
		"withdrawn": func(l *ledger, _, host *peer, _, server subjects.App, _ func(error)) {
			if err := host.Unregister(server, "Do"); err != nil {
				l.t.Error(err)
			}
			l.finish(l.served[0], nil)
		},
		"finished while the caller is away": func(l *ledger, a, _ *peer, _, _ subjects.App, _ func(error)) {
			a.pull()
			synctest.Wait()
			l.finish(l.served[0], nil)
			l.wait(11 * time.Second)
			a.plug()
			l.wait(11 * time.Second)
		},
		"canceled while the caller is away": func(l *ledger, a, _ *peer, _, _ subjects.App, cancel func(error)) {
			a.pull()
			synctest.Wait()
			cancel(wire.ErrCanceled)
			l.wait(11 * time.Second)
			a.plug()
			l.wait(11 * time.Second)
		},
		"server away": func(l *ledger, _, host *peer, _, _ subjects.App, _ func(error)) {
			host.pull()
			l.wait(30 * time.Second)
			host.plug()
			l.wait(11 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inPairs(t, func(t *testing.T, a, _ *peer, host *peer) {
				l := newLedger(t)
				server, caller := host.join("server"), a.join("caller")
				if err := host.RegisterDeferred(server, wire.Method{Name: "Do"}, l); err != nil {
					t.Fatal(err)
				}
				host.settle()
				cancel := l.call(a, "call", caller, server, "Do", 10*time.Second)
				synctest.Wait()
				if len(l.served) != 1 || a.keeps() == "" || host.keeps() == "" {
					t.Fatalf("%d calls came; %s; %s", len(l.served), a.keeps(), host.keeps())
				}
				end(l, a, host, caller, server, cancel)
				time.Sleep(time.Second)
				l.balance()
				if !l.served[0].Over() {
					t.Error("the server still has the call")
				}
			})
		})
	}
}

// TestRefusedCallsLeaveNothing: neither do those that never came to a server.
func TestRefusedCallsLeaveNothing(t *testing.T) {
	inPairs(t, func(t *testing.T, a, _ *peer, host *peer) {
		l := newLedger(t)
		server, caller := host.join("server"), a.join("caller")
		if err := host.RegisterDeferred(server, wire.Method{Name: "Do"}, l); err != nil {
			t.Fatal(err)
		}
		if _, err := host.CreateStream(server, wire.Method{Name: "S"}, l.stream()); err != nil {
			t.Fatal(err)
		}
		host.settle()
		for name, target := range map[string]subjects.App{"Do": "nobody-1", "Dont": server, "S": server} {
			l.call(a, name, caller, target, name, time.Minute)
		}
		l.call(a, "no caller", "nobody-1", server, "Do", time.Minute)
		large, err := wire.Encode(make([]byte, 9<<20))
		if err != nil {
			t.Fatal(err)
		}
		if host != a {
			a.Start(caller, server, "Do", large, "", time.Minute, func(r Result) {
				if wire.CodeOf(r.Err) != wire.Limit {
					t.Errorf("got %v", r.Err)
				}
			})
		}
		l.balance()
		clean(t, a, host)
		// Above the limits, of either side.
		other := a.join("other")
		for i := range 700 {
			l.call(a, fmt.Sprint("one ", i), caller, server, "Do", time.Minute)
			l.call(a, fmt.Sprint("two ", i), other, server, "Do", time.Minute)
			if i%10 == 9 {
				synctest.Wait()
			}
		}
		if n := len(l.served); n != wire.MaxPendingCalls {
			t.Errorf("%d calls came", n)
		}
		for _, p := range l.served {
			l.finish(p, nil)
		}
		l.balance()
	})
}

// TestCallersThatLeave: a call that starts while its caller leaves is not left
// with anyone.
func TestCallersThatLeave(t *testing.T) {
	inPairs(t, func(t *testing.T, a, _ *peer, host *peer) {
		l := newLedger(t)
		server := host.join("server")
		if err := host.RegisterDeferred(server, wire.Method{Name: "Do"}, l); err != nil {
			t.Fatal(err)
		}
		host.settle()
		for round := range 100 {
			caller := a.joinNow("caller")
			var wg sync.WaitGroup
			for k := range 3 {
				wg.Go(func() {
					for i := range 5 {
						l.call(a, fmt.Sprint(round, k, i), caller, server, "Do", 10*time.Second)
					}
				})
			}
			wg.Go(func() { a.Leave(caller) })
			wg.Wait()
		}
		time.Sleep(time.Second)
		l.balance()
	})
}

// TestCallsThatEndWhileTheyStart: the same, to the point: what ends a call comes
// when it is noted and not sent yet.
func TestCallsThatEndWhileTheyStart(t *testing.T) {
	inPairs(t, func(t *testing.T, a, _ *peer, host *peer) {
		l := newLedger(t)
		server, caller := host.join("server"), a.join("caller")
		if err := host.RegisterDeferred(server, wire.Method{Name: "Do"}, l); err != nil {
			t.Fatal(err)
		}
		host.settle()
		from, err := a.app(caller)
		if err != nil {
			t.Fatal(err)
		}
		ends := 0
		s := &started{x: a.Interop, caller: from, done: func(r Result) {
			if ends++; wire.CodeOf(r.Err) != wire.Canceled {
				t.Errorf("got %v", r.Err)
			}
		}}
		from.pending.Add(1)
		s.cancel(wire.ErrCanceled)
		to := a.match("Do", Exactly(server), caller, false)[0]
		out := &outgoing{caller: from.identity, method: "Do", deadline: time.Now().Add(time.Minute)}
		if host == a {
			err = s.local(to, out)
		} else {
			err = s.remote(to, out)
		}
		if err != nil {
			s.finish(wire.Payload{}, err)
		}
		time.Sleep(time.Second)
		l.balance()
		if ends != 1 {
			t.Errorf("the call ended %d times", ends)
		}
	})
}

// TestServersThatLeave: a call to a server that leaves ends, and only once.
func TestServersThatLeave(t *testing.T) {
	inPairs(t, func(t *testing.T, a, _ *peer, host *peer) {
		caller := a.join("caller")
		l := newLedger(t)
		for round := range 60 {
			server := host.joinNow("server")
			if err := host.RegisterDeferred(server, wire.Method{Name: "Do"}, l); err != nil {
				t.Fatal(err)
			}
			host.settle()
			var wg sync.WaitGroup
			for k := range 3 {
				wg.Go(func() {
					for i := range 5 {
						l.call(a, fmt.Sprint(round, k, i), caller, server, "Do", 10*time.Second)
					}
				})
			}
			wg.Go(func() { host.Leave(server) })
			wg.Go(func() {
				if p := l.take(func(n int) int { return n - 1 }); p != nil {
					l.finish(p, nil)
				}
			})
			wg.Wait()
		}
		time.Sleep(time.Second)
		l.balance()
	})
}

// TestTimersThatRace: calls whose time is up just when they are served.
func TestTimersThatRace(t *testing.T) {
	inPairs(t, func(t *testing.T, a, _ *peer, host *peer) {
		l := newLedger(t)
		server, caller := host.join("server"), a.join("caller")
		if err := host.RegisterDeferred(server, wire.Method{Name: "Do"}, l); err != nil {
			t.Fatal(err)
		}
		host.settle()
		for i := range 300 {
			cancel := l.call(a, fmt.Sprint(i), caller, server, "Do", time.Duration(i%5)*time.Millisecond-time.Millisecond)
			time.Sleep(time.Duration(i%7) * time.Millisecond / 2)
			if p := l.take(func(n int) int { return n - 1 }); p != nil && i%3 > 0 {
				l.finish(p, nil)
			}
			if i%4 == 0 {
				cancel(wire.ErrCanceled)
			}
		}
		time.Sleep(time.Second)
		l.balance()
	})
}

// TestSubscriptionsLeaveNothing: the same of subscriptions.
func TestSubscriptionsLeaveNothing(t *testing.T) {
	type sides struct {
		l           *ledger
		a, host     *peer
		app, server subjects.App
		stream      *Stream
		sub         *Subscription // nil while undecided
		cancel      func()
	}
	for name, c := range map[string]struct {
		undecided bool
		end       func(s *sides)
	}{
		"unsubscribed":    {end: func(s *sides) { s.sub.Close() }},
		"subscriber left": {end: func(s *sides) { s.a.Leave(s.app) }},
		"stream closed":   {end: func(s *sides) { s.stream.Close() }},
		"publisher left":  {end: func(s *sides) { s.host.Leave(s.server) }},
		"subscriber away": {end: func(s *sides) {
			s.a.pull()
			s.l.wait(40 * time.Second)
			s.a.Leave(s.app)
			s.a.plug()
			s.l.wait(10 * time.Second)
		}},
		"publisher away": {end: func(s *sides) {
			s.host.pull()
			s.l.wait(5 * time.Second)
			s.sub.Close()
			s.host.plug()
			s.l.wait(40 * time.Second)
		}},
		"refused":              {undecided: true, end: func(s *sides) { s.l.decide("", errNo) }},
		"refused, bad branch":  {undecided: true, end: func(s *sides) { s.l.decide("\xff", nil) }},
		"given up":             {undecided: true, end: func(s *sides) { s.cancel() }},
		"given up, then taken": {undecided: true, end: func(s *sides) { s.cancel(); s.l.decide("late", nil) }},
		"given up, then later": {undecided: true, end: func(s *sides) { s.cancel(); s.l.wait(time.Second); s.l.decide("late", nil) }},
		"left undecided":       {undecided: true, end: func(s *sides) { s.a.Leave(s.app) }},
		"left, then taken":     {undecided: true, end: func(s *sides) { s.a.Leave(s.app); s.l.decide("late", nil) }},
		"closed undecided":     {undecided: true, end: func(s *sides) { s.stream.Close(); s.l.decide("late", nil) }},
		"publisher undecided":  {undecided: true, end: func(s *sides) { s.host.Leave(s.server); s.l.decide("late", nil) }},
		"never decided":        {undecided: true, end: func(s *sides) { s.l.wait(31 * time.Second) }},
	} {
		t.Run(name, func(t *testing.T) {
			inPairs(t, func(t *testing.T, a, _ *peer, host *peer) {
				s := &sides{l: newLedger(t), a: a, host: host}
				s.server, s.app = host.join("server"), a.join("subscriber")
				var err error
				if s.stream, err = host.CreateStream(s.server, wire.Method{Name: "S"}, s.l.stream()); err != nil {
					t.Fatal(err)
				}
				host.settle()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s.cancel = cancel
				done := make(chan struct{})
				go func() {
					defer close(done)
					sub, err := a.Subscribe(ctx, s.app, "S", nil)
					if (err != nil) != c.undecided {
						t.Errorf("got %v", err)
					}
					s.sub = sub
				}()
				synctest.Wait()
				if !c.undecided {
					s.l.decide("red", nil)
					<-done
					if a.keeps() == "" || host.keeps() == "" {
						t.Fatalf("%s; %s", a.keeps(), host.keeps())
					}
				}
				c.end(s)
				<-done
				time.Sleep(time.Second)
				if c.undecided && len(s.l.accepted) > 0 { // by a stream that had not heard
					time.Sleep(40 * time.Second)
				}
				s.l.balance()
			})
		})
	}
}

// TestRandomCallsAndSubscriptions: whatever happens to apps that call each other
// and subscribe, every call and every subscription ends once, and nothing is kept.
func TestRandomCallsAndSubscriptions(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inFabric(t, func(t *testing.T, fb *fabric) {
				a, b := fb.start("a"), fb.start("b")
				defer a.stop()
				defer b.stop()
				(&game{t: t, r: rand.New(rand.NewPCG(seed, 1)), peers: []*peer{a, b}, l: newLedger(t)}).play(400)
				clean(t, a, b)
			})
		})
	}
}

// game does what chance wants with apps on two nodes.
type game struct {
	t     *testing.T
	r     *rand.Rand
	peers []*peer
	l     *ledger
	apps  []player
	calls int

	wg   sync.WaitGroup
	mu   sync.Mutex
	subs []*Subscription
}

type player struct {
	p      *peer
	id     subjects.App
	stream *Stream
}

func (g *game) join() {
	p := g.peers[g.r.IntN(len(g.peers))]
	id := p.joinNow("player")
	if err := p.RegisterDeferred(id, wire.Method{Name: "Do"}, g.l); err != nil {
		g.t.Error(err)
	}
	s, err := p.CreateStream(id, wire.Method{Name: "S"}, g.l.stream())
	if err != nil {
		g.t.Error(err)
	}
	g.apps = append(g.apps, player{p, id, s})
}

func (g *game) play(steps int) {
	for range 4 {
		g.join()
	}
	for range steps {
		g.step(g.r.IntN(20))
	}
	for _, p := range g.peers {
		p.plug()
	}
	g.wg.Wait()
	time.Sleep(2 * time.Minute)
	for g.l.decide("last", nil) != nil { // those whose askers have gone
	}
	g.mu.Lock()
	for _, s := range g.subs {
		s.Close()
	}
	g.mu.Unlock()
	time.Sleep(time.Minute)
	for g.l.decide("last", nil) != nil {
	}
	time.Sleep(time.Minute)
	g.l.balance()
}

func (g *game) step(what int) {
	one, two := g.apps[g.r.IntN(len(g.apps))], g.apps[g.r.IntN(len(g.apps))]
	branch := fmt.Sprint("branch", g.r.IntN(3))
	switch {
	case what < 6:
		g.calls++
		cancel := g.l.call(one.p, fmt.Sprint(g.calls), one.id, two.id, "Do", time.Duration(g.r.IntN(5000))*time.Millisecond)
		if g.r.IntN(3) == 0 {
			after := time.Duration(g.r.IntN(100)) * time.Millisecond
			g.wg.Go(func() {
				time.Sleep(after)
				cancel(wire.ErrCanceled)
			})
		}
	case what < 9:
		if p := g.l.take(g.r.IntN); p != nil {
			g.wg.Go(func() { g.l.finish(p, nil) })
		}
	case what < 12:
		g.wg.Go(func() {
			sub, err := one.p.Subscribe(g.t.Context(), one.id, "S", branch, Exactly(two.id), Timeout(20*time.Second))
			if err == nil {
				g.mu.Lock()
				g.subs = append(g.subs, sub)
				g.mu.Unlock()
			}
		})
	case what < 15:
		var no error
		if what == 12 {
			no = errNo
		}
		g.wg.Go(func() { g.l.decide(branch, no) })
	case what == 15:
		_ = one.stream.Push("x", branch) // its app may have left
	case what == 16:
		g.mu.Lock()
		if n := len(g.subs); n > 0 {
			g.subs[g.r.IntN(n)].Close()
		}
		g.mu.Unlock()
	case what == 17:
		g.wg.Go(func() { one.p.Leave(one.id) })
		g.join()
	case what == 18:
		p := g.peers[g.r.IntN(len(g.peers))]
		p.pull()
		time.Sleep(time.Duration(g.r.IntN(4000)) * time.Millisecond)
		p.plug()
	default:
		time.Sleep(time.Duration(g.r.IntN(1000)) * time.Millisecond)
	}
	if g.r.IntN(3) == 0 {
		time.Sleep(time.Millisecond)
	}
}
