package node_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/interop"
	"github.com/weft-fabric/weft/wire"
)

// petition is a subscription that a stream decides about.
type petition struct {
	*node.SubscriptionRequest
	decide func(branch string, err error) (*node.Subscriber, error)
}

// ending is a subscription that has ended.
type ending struct {
	*node.Subscriber
	left bool
}

// court decides about subscriptions and keeps what became of them.
type court struct {
	on func(p *petition) // decides; nil keeps the petition

	mu    sync.Mutex
	asked []*petition
	ended []ending
}

func (c *court) options(o node.StreamOptions) node.StreamOptions {
	o.Decide = func(r *node.SubscriptionRequest, decide func(string, error) (*node.Subscriber, error)) {
		p := &petition{r, decide}
		c.mu.Lock()
		c.asked = append(c.asked, p)
		c.mu.Unlock()
		if c.on != nil {
			c.on(p)
		}
	}
	o.Ended = func(s *node.Subscriber) {
		e := ending{s, s.Left()}
		c.mu.Lock()
		c.ended = append(c.ended, e)
		c.mu.Unlock()
	}
	return o
}

// petitions is what came, when all that is under way has come.
func (c *court) petitions() []*petition {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

func (c *court) last(t testing.TB) *petition {
	t.Helper()
	all := c.petitions()
	if len(all) == 0 {
		t.Fatal("nobody asked")
	}
	return all[len(all)-1]
}

// wantEnded says whose subscriptions have ended since the last time, and which of
// those apps had left: "far near*".
func (c *court) wantEnded(t testing.TB, want string) {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var got []string
	for _, e := range c.ended {
		name := e.Identity().Application
		if e.left {
			name += "*"
		}
		got = append(got, name)
	}
	c.ended = nil
	slices.Sort(got)
	if text := strings.Join(got, " "); text != want {
		t.Errorf("ended: %q, want %q", text, want)
	}
}

// accept decides for a branch, which must be possible.
func (p *petition) accept(t testing.TB, branch string) *node.Subscriber {
	t.Helper()
	s, err := p.decide(branch, nil)
	if err != nil || s == nil {
		t.Errorf("%s on %q: %v", p.Subscriber.Application, branch, err)
	}
	return s
}

// acceptAll decides at once for the branch that the arguments name.
func acceptAll(t testing.TB) func(p *petition) {
	return func(p *petition) {
		var branch string
		if err := p.Args.Decode(&branch); err != nil {
			t.Error(err)
		}
		p.accept(t, branch)
	}
}

// attempt is a subscription that is being made.
type attempt struct {
	sub  *node.Subscription
	err  error
	done chan struct{}
	took time.Duration
}

func try(ctx context.Context, a *node.App, args any, opts ...node.Option) *attempt {
	at := &attempt{done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(at.done)
		at.sub, at.err = a.Subscribe(ctx, "S", args, opts...)
		at.took = time.Since(began)
	}()
	return at
}

// open says that the subscription is still being made.
func (at *attempt) open(t testing.TB) {
	t.Helper()
	synctest.Wait()
	select {
	case <-at.done:
		t.Errorf("it is decided: %v", at.err)
	default:
	}
}

// made is the subscription, to be read.
func (at *attempt) made(t testing.TB, name string) *reader {
	t.Helper()
	<-at.done
	if at.err != nil {
		t.Fatalf("%s: %v", name, at.err)
	}
	return read(name, at.sub)
}

// inCourt runs f with a stream that decides, for a subscriber on its node and for
// one elsewhere.
func inCourt(t *testing.T, f func(t *testing.T, st *stage, c *court, app *node.App)) {
	t.Helper()
	for _, where := range []string{"near", "far"} {
		t.Run(where, func(t *testing.T) {
			c := &court{}
			onStage(t, c.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
				app := st.near
				if where == "far" {
					app = st.far
				}
				f(t, st, c, app)
				synctest.Wait()
				if st.a.Stats().Interop.Subscribers != 0 && len(st.s.Subscribers()) == 0 {
					t.Errorf("%d subscriptions are kept", st.a.Stats().Interop.Subscribers)
				}
			})
		})
	}
}

// A subscription starts when it is decided, whenever and wherever that is.
func TestDecide(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": -1, "on another goroutine": 0, "later": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
				var accepted *node.Subscriber
				c.on = func(p *petition) {
					switch {
					case wait < 0:
						accepted = p.accept(t, "red")
					case wait == 0:
						go func() { accepted = p.accept(t, "red") }()
					default:
						time.AfterFunc(wait, func() { accepted = p.accept(t, "red") })
					}
				}
				at := try(t.Context(), app, "the arguments", node.Detail(`{"a":1}`))
				if wait > 0 {
					at.open(t)
					if n := len(st.s.Subscribers()); n != 0 {
						t.Errorf("%d subscribers before the decision", n)
					}
				}
				r := at.made(t, name)
				if at.took > max(0, wait)+100*time.Millisecond || at.took < wait {
					t.Errorf("took %s", at.took)
				}
				p := c.last(t)
				var args string
				if err := p.Args.Decode(&args); err != nil || args != "the arguments" {
					t.Errorf("arguments %q, %v", args, err)
				}
				e := r.all()[0]
				if p.Stream != "S" || p.Subscriber != app.Identity() || p.Detail != `{"a":1}` || p.ID == "" || e.ID != p.ID || e.Branch != "red" || e.Server != st.pub.Identity() {
					t.Errorf("asked %+v, told %+v", p.SubscriptionRequest, e)
				}
				if accepted.ID() != p.ID || accepted.Branch() != "red" || accepted.Identity() != app.Identity() || accepted.Left() || accepted.Args().String() != p.Args.String() {
					t.Errorf("accepted %+v", accepted)
				}
				if s := st.s.Subscribers(); len(s) != 1 || s[0] != accepted {
					t.Errorf("subscribers %v", s)
				}
				push(t, st.s, 1, 2, "red")
				push(t, st.s, 1, 1, "blue")
				if err := accepted.Push("mine"); err != nil {
					t.Error(err)
				}
				if got := strings.Replace(r.text(), "p1=mine 1 2", "1 2 p1=mine", 1); got != "S0 1 2 p1=mine" {
					t.Errorf("got %s", got)
				}
				if len(c.petitions()) != 1 {
					t.Errorf("asked %d times", len(c.petitions()))
				}
				c.wantEnded(t, "")
				r.sub.Close()
				c.wantEnded(t, app.Identity().Application)
				if _, err := p.decide("red", nil); !errors.Is(err, wire.ErrTargetGone) {
					t.Errorf("decided after the end: %v", err)
				}
			})
		})
	}
}

// Who is refused hears why, near and far the same.
func TestDecideAgainst(t *testing.T) {
	detailed := wire.Errorf(wire.Denied, "not you ✓")
	detailed.Detail = `{"reason":"✓"}`
	inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
		for name, test := range map[string]struct {
			err    error
			branch string
			code   wire.Code
			text   string
			detail string
		}{
			"plain":      {err: errors.New("not today, ✓"), code: wire.Rejected, text: "not today, ✓"},
			"typed":      {err: wire.Errorf(wire.Unavailable, "closed for lunch"), code: wire.Unavailable, text: "closed for lunch"},
			"detailed":   {err: detailed, code: wire.Denied, text: "not you ✓", detail: detailed.Detail},
			"wrapped":    {err: fmt.Errorf("no: %w", detailed), code: wire.Denied, text: "no: ", detail: detailed.Detail},
			"bad branch": {branch: "\xff", code: wire.BadName},
		} {
			c.on = func(p *petition) {
				s, err := p.decide(test.branch, test.err)
				if codeOf(err) != test.code {
					t.Errorf("%s: decide says %v", name, err)
				}
				if s, err := p.decide("red", nil); s != nil || !errors.Is(err, wire.ErrTargetGone) {
					t.Errorf("%s: decided again: %v, %v", name, s, err)
				}
				_ = s
			}
			_, err := app.Subscribe(t.Context(), "S", nil)
			if codeOf(err) != test.code || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%s: got %v", name, err)
			}
			if w, ok := errors.AsType[*wire.Error](err); !ok || wire.AsError(err).Detail != test.detail {
				t.Errorf("%s: detail %+v", name, w)
			}
			if n := len(st.s.Subscribers()); n != 0 || st.a.Stats().Interop.Subscribers != 0 {
				t.Errorf("%s: %d subscribers", name, n)
			}
		}
		time.Sleep(time.Minute)
		c.wantEnded(t, "")
		if got := st.s.Branches(); len(got) != 0 {
			t.Errorf("branches %q", got)
		}
	})
}

// Only the first decision counts, whoever makes it.
func TestDecideTwice(t *testing.T) {
	inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
		for round := range 30 {
			var made atomic.Int64
			var wg sync.WaitGroup
			c.on = func(p *petition) {
				for i := range 4 {
					wg.Go(func() {
						var no error
						if i == 3 && round%2 == 1 {
							no = wire.ErrRejected
						}
						s, err := p.decide(fmt.Sprint("branch", i), no)
						if err == nil && s != nil {
							made.Add(1)
						}
					})
				}
			}
			at := try(t.Context(), app, nil)
			<-at.done
			wg.Wait()
			switch {
			case at.err == nil && made.Load() != 1, at.err != nil && (made.Load() != 0 || codeOf(at.err) != wire.Rejected):
				t.Fatalf("%d decisions were made, the subscriber got %v", made.Load(), at.err)
			case at.err == nil:
				if got := len(st.s.Branches()); got != 1 || len(st.s.Subscribers()) != 1 {
					t.Fatalf("%d branches, %d subscribers", got, len(st.s.Subscribers()))
				}
				at.sub.Close()
				c.wantEnded(t, app.Identity().Application)
			}
		}
	})
}

// A subscriber that does not wait any longer is no subscriber, and the decision
// that comes after says so.
func TestDecideTooLate(t *testing.T) {
	nothing := func(*testing.T, *stage, *node.App, func()) {}
	for name, give := range map[string]func(t *testing.T, st *stage, app *node.App, cancel func()){
		"timeout":   nothing,
		"canceled":  func(_ *testing.T, _ *stage, _ *node.App, cancel func()) { cancel() },
		"left":      func(_ *testing.T, _ *stage, app *node.App, _ func()) { app.Leave() },
		"pub left":  func(_ *testing.T, st *stage, _ *node.App, _ func()) { st.pub.Leave() },
		"closed":    func(_ *testing.T, st *stage, _ *node.App, _ func()) { st.s.Close() },
		"30 s":      nothing,
		"node left": func(_ *testing.T, st *stage, _ *node.App, _ func()) { st.b.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
				if name == "node left" && app == st.near {
					return // the publisher's node is another test
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				timeout, wait := 5*time.Second, time.Second
				switch name {
				case "timeout":
					wait += timeout
				case "30 s":
					timeout = wire.CallTimeout
					wait += timeout + time.Second
				}
				at := try(ctx, app, nil, node.Timeout(timeout))
				p := c.last(t)
				time.Sleep(time.Second)
				at.open(t)
				give(t, st, app, cancel)
				time.Sleep(wait)
				select {
				case <-at.done:
					if at.err == nil {
						t.Error("the subscription was made")
					}
				default:
					if name != "closed" { // then nobody else decides
						t.Error("the subscriber still waits")
					}
				}
				if s, err := p.decide("red", nil); err == nil {
					t.Errorf("decided after all, for %s", s.Identity().Application)
				}
				if name == "closed" {
					<-at.done
					if !errors.Is(at.err, wire.ErrTargetGone) {
						t.Errorf("got %v", at.err)
					}
				}
				time.Sleep(40 * time.Second)
				if got := st.s.Branches(); len(got) != 0 || len(st.s.Subscribers()) != 0 || st.a.Stats().Interop.Subscribers != 0 || st.b.Stats().Interop.Subscriptions != 0 {
					t.Errorf("branches %q, %d subscribers, %d and %d subscriptions", got, len(st.s.Subscribers()), st.a.Stats().Interop.Subscribers, st.b.Stats().Interop.Subscriptions)
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				if len(c.ended) != 0 {
					t.Errorf("%d ended that never were", len(c.ended))
				}
			})
		})
	}
}

// Who gives up while the decision is made ends up either in or out, on both sides.
func TestDecideWhileGivingUp(t *testing.T) {
	inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
		made := 0
		host := st.a
		if app == st.far {
			host = st.b
		}
		for i := range 60 {
			who := join(t, host, "who")
			ctx, cancel := context.WithCancel(t.Context())
			at := try(ctx, who, nil)
			p := c.last(t)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := p.decide(fmt.Sprint("branch", i), nil); err == nil {
					made++
				}
			})
			wg.Go(func() {
				if i%2 == 0 {
					cancel()
				} else {
					who.Leave()
				}
			})
			wg.Wait()
			<-at.done
			if at.err == nil {
				at.sub.Close()
			}
			cancel()
			who.Leave()
		}
		time.Sleep(40 * time.Second)
		c.mu.Lock()
		ended := len(c.ended)
		c.mu.Unlock()
		if got := st.s.Branches(); len(got) != 0 || len(st.s.Subscribers()) != 0 || ended != made {
			t.Errorf("branches %q, %d subscribers, %d were made and %d ended", got, len(st.s.Subscribers()), made, ended)
		}
	})
}

// What is pushed after the decision arrives, all of it, once and in order, also
// what a node elsewhere gets before it has confirmed, and whatever goes on on
// other branches.
func TestPushedAfterDecision(t *testing.T) {
	for name, slow := range map[string]func(subject string) bool{
		"":             nil,
		"slow answers": func(subject string) bool { return strings.HasPrefix(subject, "_R.b.") },
		"slow data": func(subject string) bool {
			return isData(subject) && strings.HasSuffix(subject, ".red") || isPush(subject)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
				if slow != nil {
					st.line("b").Drop(func(subject string) bool {
						if slow(subject) {
							time.Sleep(20 * time.Millisecond)
						}
						return false
					})
				}
				stop := make(chan struct{})
				var wg sync.WaitGroup
				for k := range 3 {
					wg.Go(func() {
						for {
							select {
							case <-stop:
								return
							case <-time.After(5 * time.Millisecond):
								_ = st.s.Push("noise", fmt.Sprint("other", k%2))
							}
						}
					})
				}
				before := try(t.Context(), app, nil)
				c.last(t).accept(t, "other0")
				noise := before.made(t, "noise")
				var sub *node.Subscriber
				c.on = func(p *petition) {
					sub = p.accept(t, "red")
					push(t, st.s, 1, 20, "red")
					for i := 1; i <= 5; i++ {
						if err := sub.Push(i); err != nil {
							t.Error(err)
						}
					}
					wg.Go(func() {
						for i := 21; i <= 120; i++ {
							push(t, st.s, i, i, "red")
							time.Sleep(3 * time.Millisecond)
						}
					})
				}
				r := try(t.Context(), app, nil).made(t, "red")
				time.Sleep(time.Second)
				close(stop)
				wg.Wait()
				time.Sleep(10 * time.Second) // whatever is slow has come
				st.line("b").Drop(nil)
				v := only(t, r.verify(t, nil))
				var branch, private []string
				for _, e := range r.all()[1:] {
					if e.Private {
						private = append(private, eventText(e))
					} else {
						branch = append(branch, strings.TrimPrefix(eventText(e), "*"))
					}
				}
				if got := strings.Join(branch, " "); " "+got != numbers("", 1, 120) {
					t.Errorf("after S%d got %s", r.all()[0].Seq, got)
				}
				if got := strings.Join(private, " "); got != "p1 p2 p3 p4 p5" {
					t.Errorf("private: %s", got)
				}
				if v.lost != 0 || v.closed != 0 {
					t.Errorf("%+v", v)
				}
				for _, e := range r.all() {
					if e.Snapshot {
						t.Fatalf("%s is no part of the past", eventText(e))
					}
				}
				if v := only(t, noise.verify(t, nil)); v.lost != 0 || v.data == 0 {
					t.Errorf("the other branch: %+v", v)
				}
				c.wantEnded(t, "")
			})
		})
	}
}

// Private data keeps its place among what is pushed to the branch, before and after
// the subscriber has confirmed.
func TestPrivateDataKeepsItsPlace(t *testing.T) {
	for name, slow := range map[string]func(subject string) bool{
		"":             func(string) bool { return false },
		"slow answers": func(subject string) bool { return strings.HasPrefix(subject, "_R.b.") },
		"slow data":    isData,
		"slow private": isPush,
	} {
		t.Run(name, func(t *testing.T) {
			inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
				st.line("b").Drop(func(subject string) bool {
					if slow(subject) {
						time.Sleep(10 * time.Millisecond)
					}
					return false
				})
				const n = 90
				both := func(sub *node.Subscriber, i int) {
					push(t, st.s, i, i, "red")
					if err := sub.Push(i); err != nil {
						t.Error(err)
					}
				}
				c.on = func(p *petition) {
					sub := p.accept(t, "red")
					for i := 1; i <= n/3; i++ {
						both(sub, i)
					}
					go func() {
						for i := n/3 + 1; i <= n; i++ {
							both(sub, i)
							time.Sleep(2 * time.Millisecond)
						}
					}()
				}
				r := subscribe(t, app, "S", nil)
				time.Sleep(4 * time.Second)
				text := []string{"S0"}
				for i := 1; i <= n; i++ {
					text = append(text, fmt.Sprint(i), fmt.Sprint("p", i))
				}
				want(t, r, strings.Join(text, " "))
			})
		})
	}
}

// The stream of several subscribers, each of whom is let in while pushes go on:
// what is pushed from each one's decision on is what each gets.
func TestDecideAmongPushes(t *testing.T) {
	c := &court{}
	onStage(t, c.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
		var mu sync.Mutex // makes a decision and a push one after the other
		pushed := 0
		from := map[string]int{}
		c.on = func(p *petition) {
			mu.Lock()
			defer mu.Unlock()
			p.accept(t, "all")
			from[p.ID] = pushed
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Microsecond):
					mu.Lock()
					pushed++
					if err := st.s.Push(pushed, "all"); err != nil {
						t.Error(err)
					}
					mu.Unlock()
				}
			}
		})
		first := subscribe(t, st.near, "S", nil) // keeps the branch
		var readers []*reader
		for i := range 20 {
			app := []*node.App{st.near, st.far}[i%2]
			readers = append(readers, subscribe(t, app, "S", nil))
			time.Sleep(time.Duration(i) * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		close(stop)
		wg.Wait()
		time.Sleep(6 * time.Second)
		for i, r := range append(readers, first) {
			events := r.all()
			want := from[events[0].ID]
			for _, e := range events[1:] {
				want++
				var got int
				if err := e.Value.Decode(&got); err != nil || got != want {
					t.Fatalf("reader %d: %s where %d belongs, %v", i, eventText(e), want, err)
				}
			}
			if want != pushed {
				t.Errorf("reader %d got up to %d of %d", i, want, pushed)
			}
		}
	})
}

// What is kept for late joiners and what waits for a new one are two ways to start;
// a stream has one.
func TestDecideWithSnapshot(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.Stop()
		c, pub := &court{}, join(t, a, "pub")
		s, err := pub.CreateStream(t.Context(), node.Method{Name: "S"}, c.options(node.StreamOptions{Snapshot: 1}))
		if s != nil || !errors.Is(err, wire.ErrBadPayload) {
			t.Errorf("got %v, %v", s, err)
		}
		if _, err := join(t, a, "other").Subscribe(t.Context(), "S", nil); !errors.Is(err, wire.ErrNoServer) {
			t.Errorf("it is offered: %v", err)
		}
		offer(t, pub, c.options(node.StreamOptions{}))
	})
}

// An answer that is lost on its way loses no message of those that were pushed
// before it, or the subscriber hears that it does.
func TestLostConfirmation(t *testing.T) {
	c := &court{}
	onStage(t, c.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
		for _, lost := range []int{1, 2} {
			branch := fmt.Sprint("branch", lost)
			c.on = func(p *petition) {
				p.accept(t, branch)
				push(t, st.s, 1, 3, branch)
			}
			answers := 0
			st.line("b").Drop(func(subject string) bool {
				if strings.HasPrefix(subject, "_R.b.") {
					answers++
					return answers == lost // of the subscription, of the confirmation
				}
				return false
			})
			at := try(t.Context(), st.far, nil, node.Timeout(20*time.Second))
			time.Sleep(15 * time.Second)
			push(t, st.s, 4, 4, branch)
			time.Sleep(15 * time.Second)
			st.line("b").Drop(nil)
			<-at.done
			if at.err != nil {
				if lost == 2 {
					t.Errorf("answer %d lost: %v", lost, at.err)
				}
				time.Sleep(time.Minute)
				c.wantEnded(t, "far")
				continue
			}
			r := read("far", at.sub)
			v := only(t, r.verify(t, nil))
			if got := strings.ReplaceAll(r.text(), "*", ""); v.data+v.lost+uint64(v.snapshot) != 4 {
				t.Errorf("answer %d lost: got %s", lost, got)
			}
			r.sub.Close()
			c.wantEnded(t, "far")
		}
	})
}

// The line breaks right after the decision: what was pushed meanwhile arrives
// later, or a notice says that it does not.
func TestCutAfterDecision(t *testing.T) {
	for _, who := range []string{"a", "b"} {
		for _, when := range []string{"before the answer", "after the answer"} {
			t.Run(who+" "+when, func(t *testing.T) {
				c := &court{}
				onStage(t, c.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
					at := try(t.Context(), st.far, nil)
					p := c.last(t)
					if when == "after the answer" {
						held := st.line("b").Stall() // the confirmation does not get out
						p.accept(t, "red")
						push(t, st.s, 1, 2, "red")
						synctest.Wait()
						st.line(who).Cut()
						held()
					} else {
						st.line(who).Cut()
						synctest.Wait()
						p.accept(t, "red")
						push(t, st.s, 1, 2, "red")
					}
					push(t, st.s, 3, 3, "red")
					time.Sleep(2 * time.Second)
					st.line(who).Heal()
					time.Sleep(10 * time.Second)
					push(t, st.s, 4, 4, "red")
					time.Sleep(50 * time.Second)
					<-at.done
					if at.err != nil { // then it is out, on both sides
						time.Sleep(time.Minute)
						if st.a.Stats().Interop.Subscribers != 0 || len(st.s.Branches()) != 0 {
							t.Errorf("the subscriber got %v, the stream has %q", at.err, st.s.Branches())
						}
						c.wantEnded(t, "far")
						return
					}
					r := read("far", at.sub)
					v := only(t, r.verify(t, nil))
					if v.to != 4 || v.data+v.lost+uint64(v.snapshot) != 4 {
						t.Errorf("got %s", r.text())
					}
				})
			})
		}
	}
}

// What waits for a subscriber that has not confirmed is bounded: above that its
// subscription ends, and nothing else is disturbed.
func TestEarlyMessagesAreBounded(t *testing.T) {
	for name, test := range map[string]struct {
		value any
		most  int
	}{
		"messages": {1, wire.MaxSnapshot},
		// What may wait fits into one message of the hub's 8 MiB, with 64 bytes each.
		"bytes": {strings.Repeat("x", 1<<20), (8<<20 - wire.PayloadReserve) / (1<<20 + len("\xdb....") + 64)},
	} {
		for _, more := range []int{0, 1, 2} {
			t.Run(fmt.Sprint(name, " +", more), func(t *testing.T) {
				c := &court{}
				onStage(t, c.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
					n := test.most + more
					c.on = func(p *petition) {
						p.accept(t, "red")
						for range n {
							if err := st.s.Push(test.value, "red"); err != nil {
								t.Error(err)
							}
						}
					}
					near := subscribe(t, st.near, "S", nil)
					near.all() // its pushes are done
					at := try(t.Context(), st.far, nil, node.Timeout(10*time.Second))
					<-at.done
					if got := len(near.all()); got != 1+2*n {
						t.Errorf("the subscriber next to it got %d of %d events", got, 1+2*n)
					}
					if more == 0 {
						if at.err != nil {
							t.Fatal(at.err)
						}
						if got := len(read("far", at.sub).all()); got != 1+n {
							t.Errorf("got %d of %d events", got, 1+n)
						}
						c.wantEnded(t, "")
						return
					}
					// It may have joined just before it was ended.
					if at.err == nil {
						t.Error("the subscription was made")
					} else if !errors.Is(at.err, wire.ErrBusy) {
						t.Errorf("got %v", at.err)
					}
					c.wantEnded(t, "far")
					if st.a.Stats().Interop.Subscribers != 0 || st.b.Stats().Interop.Subscriptions != 0 {
						t.Errorf("%d and %d subscriptions are kept", st.a.Stats().Interop.Subscribers, st.b.Stats().Interop.Subscriptions)
					}
					c.on = acceptAll(t)
					again := subscribe(t, st.far, "S", "red") // nothing of it remains
					before := len(again.all())
					push(t, st.s, 1, 1, "red")
					if got := len(again.all()); got != before+1 {
						t.Errorf("afterwards got %d events", got-before)
					}
				})
			})
		}
	}
}

// One message may wait, be it larger than a snapshot may be.
func TestOneLargeEarlyMessage(t *testing.T) {
	inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
		c.on = func(p *petition) {
			p.accept(t, "red")
			if err := st.s.Push(strings.Repeat("x", 2*wire.MaxSnapshotBytes), "red"); err != nil {
				t.Error(err)
			}
		}
		at := try(t.Context(), app, nil)
		<-at.done
		if at.err != nil {
			t.Fatal(at.err)
		}
		if got := len(read("one", at.sub).all()); got != 2 {
			t.Errorf("got %d events", got)
		}
	})
}

// A subscription that was accepted ends once for its stream, which can tell an
// app that left from one that only unsubscribed; and the subscriber hears why.
func TestEndsOfDecided(t *testing.T) {
	type sides struct {
		st  *stage
		app *node.App
		r   *reader
		sub *node.Subscriber
	}
	for name, test := range map[string]struct {
		end    func(s *sides)
		code   wire.Code // of the event, "" for none
		reason string
		left   bool
	}{
		"unsubscribed":  {end: func(s *sides) { s.r.sub.Close() }},
		"app left":      {end: func(s *sides) { s.app.Leave() }, left: true},
		"closed":        {end: func(s *sides) { s.sub.Close("enough of you") }, code: wire.Canceled, reason: "enough of you"},
		"closed, mute":  {end: func(s *sides) { s.sub.Close("") }, code: wire.Canceled, reason: "the publisher closed the subscription"},
		"closed twice":  {end: func(s *sides) { s.sub.Close("one"); s.sub.Close("two") }, code: wire.Canceled, reason: "one"},
		"stream closed": {end: func(s *sides) { s.st.s.Close() }, code: wire.TargetGone, reason: node.ReasonStreamClosed},
		"stream ended":  {end: func(s *sides) { s.st.s.End("out of prices ✓") }, code: wire.TargetGone, reason: "out of prices ✓"},
		"ended twice":   {end: func(s *sides) { s.st.s.End("one"); s.st.s.Close() }, code: wire.TargetGone, reason: "one"},
		"pub left":      {end: func(s *sides) { s.st.pub.Leave() }, code: wire.TargetGone, reason: node.ReasonAppLeft},
		"pub stopped":   {end: func(s *sides) { s.st.a.Stop() }, code: wire.TargetGone},
		"all at once": {end: func(s *sides) {
			var wg sync.WaitGroup
			for _, f := range []func(){s.r.sub.Close, func() { s.sub.Close("x") }, s.st.s.Close, s.st.pub.Leave} {
				wg.Go(f)
			}
			wg.Wait()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
				s := &sides{st: st, app: app}
				var mu sync.Mutex
				c.on = func(p *petition) {
					mu.Lock()
					defer mu.Unlock()
					s.sub = p.accept(t, "red")
				}
				s.r = subscribe(t, app, "S", nil)
				push(t, st.s, 1, 3, "red")
				synctest.Wait()
				mu.Lock()
				test.end(s)
				mu.Unlock()
				time.Sleep(time.Second)
				want := app.Identity().Application
				if test.left {
					want += "*"
				}
				if name == "pub stopped" && app == st.near { // both leave, in any order
					c.mu.Lock()
					if len(c.ended) == 1 {
						c.ended[0].left = false
					}
					c.mu.Unlock()
				}
				c.wantEnded(t, want)
				if err := s.sub.Push(1); !errors.Is(err, wire.ErrTargetGone) && !errors.Is(err, wire.ErrOffline) {
					t.Errorf("pushed after the end: %v", err)
				}
				events := s.r.all()
				last := events[len(events)-1]
				switch {
				case name == "all at once" || name == "pub stopped" && app == st.near:
				case test.code == "":
					if last.Kind != interop.Data {
						t.Errorf("the last event is %s", eventText(last))
					}
				case last.Kind != interop.Closed || codeOf(last.Err) != test.code || test.reason != "" && (last.Reason != test.reason || !strings.Contains(last.Err.Error(), test.reason)):
					t.Errorf("the last event is %s: %q, %v", eventText(last), last.Reason, last.Err)
				}
				if got := strings.Join(strings.Fields(s.r.text())[:4], " "); got != "S0 1 2 3" {
					t.Errorf("got %s", s.r.text())
				}
				if len(st.s.Branches()) != 0 || len(st.s.Subscribers()) != 0 || st.b.Stats().Interop.Branches != 0 {
					t.Errorf("branches %q, %d subscribers, %d heard", st.s.Branches(), len(st.s.Subscribers()), st.b.Stats().Interop.Branches)
				}
				time.Sleep(40 * time.Second)
				c.wantEnded(t, "")
			})
		})
	}
}

// That an app has left, its node says when it ends the subscription; of a node that
// cannot say so any more, the directory does.
func TestLeftIsKnown(t *testing.T) {
	c := &court{}
	onStage(t, c.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
		c.on = acceptAll(t)
		subscribe(t, st.far, "S", "red")
		other := join(t, st.b, "other")
		subscribe(t, other, "S", "red")
		st.line("a").Drop(func(subject string) bool { return strings.HasPrefix(subject, "weft.desk.kv.dir.") })
		st.far.Leave()
		c.wantEnded(t, "far*")
		st.line("a").Drop(nil)
		st.line("b").Cut()
		time.Sleep(time.Minute)
		c.wantEnded(t, "other*")
		st.line("b").Heal()
		time.Sleep(10 * time.Second)
		c.wantEnded(t, "")
	})
}

// A branch goes with its last subscriber, and whoever comes to its name then, on
// whatever node, starts from nothing.
func TestBranchGoesWithItsLastSubscriber(t *testing.T) {
	c := &court{}
	onStage(t, c.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
		c.on = acceptAll(t)
		other := st.node("c")
		defer other.Stop()
		third := join(t, other, "third")
		apps := []*node.App{st.near, st.far, third}
		for i, first := range apps {
			for j, next := range apps {
				name := fmt.Sprint("branch ", i, j)
				one, two := subscribe(t, first, "S", name), subscribe(t, st.near, "S", name)
				push(t, st.s, 1, 5, name)
				want(t, one, "S0 1 2 3 4 5")
				one.sub.Close()
				synctest.Wait()
				push(t, st.s, 6, 6, name) // goes on for the other
				want(t, two, "S0 1 2 3 4 5 6")
				two.sub.Close()
				synctest.Wait()
				if got := st.s.Branches(); len(got) != 0 {
					t.Errorf("branches %q", got)
				}
				again := subscribe(t, next, "S", name)
				push(t, st.s, 1, 2, name)
				want(t, again, "S0 1 2")
				again.sub.Close()
			}
		}
		synctest.Wait()
		c.wantEnded(t, "far far far far far far near near near near near near near near near near near near near near near third third third third third third")
	})
}

// The default branch of such a stream goes, too, and Push without a name still
// reaches everyone.
func TestPushToAllAmongDecided(t *testing.T) {
	inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
		c.on = acceptAll(t)
		push(t, st.s, 1, 3)
		for range 2 {
			one, two := subscribe(t, app, "S", "red"), subscribe(t, app, "S", "")
			from := two.all()[0].Seq
			push(t, st.s, int(from)+1, int(from)+1)
			if a, b := len(one.all()), len(two.all()); a != 2 || b != 2 {
				t.Errorf("got %s and %s", one.text(), two.text())
			}
			one.sub.Close()
			two.sub.Close()
			synctest.Wait()
		}
	})
}

// A message for a branch that is gone, as when it is pushed just when the last
// subscriber leaves, must not bring the branch back for good.
func TestPushToAGoneBranch(t *testing.T) {
	c := &court{}
	onStage(t, c.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
		c.on = acceptAll(t)
		for i := range wire.MaxBranches + 10 {
			if err := st.s.Push(i, fmt.Sprint(i)); err != nil {
				t.Fatalf("push %d: %v", i, err)
			}
		}
		if _, err := st.near.Subscribe(t.Context(), "S", "red"); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// A second subscriber comes to a branch that the publisher has just ended for the
// first, of which the second's node has not heard yet.
func TestBranchAnewWhileTheOldIsUnderWay(t *testing.T) {
	c := &court{}
	onStage(t, c.options(node.StreamOptions{}), func(t *testing.T, st *stage) {
		subs := make(chan *node.Subscriber, 2)
		c.on = func(p *petition) { subs <- p.accept(t, "red") }
		old := subscribe(t, st.far, "S", nil)
		push(t, st.s, 1, 3, "red")
		want(t, old, "S0 1 2 3")
		st.line("b").Drop(func(subject string) bool {
			if isData(subject) || isPush(subject) {
				time.Sleep(100 * time.Millisecond)
			}
			return false
		})
		push(t, st.s, 4, 5, "red")
		(<-subs).Close("enough")
		at := try(t.Context(), st.far, nil)
		c.petitions()
		push(t, st.s, 1, 4, "red")
		time.Sleep(10 * time.Second)
		push(t, st.s, 5, 9, "red")
		st.line("b").Drop(nil)
		time.Sleep(10 * time.Second)
		want(t, old, "S0 1 2 3 4 5 closed:canceled")
		r := at.made(t, "new")
		if got := strings.Fields(strings.ReplaceAll(r.text(), "*", "")); strings.Join(got[1:], " ") != "1 2 3 4 5 6 7 8 9" {
			t.Errorf("the new one got %s", r.text())
		}
		old.sub.Close()
		r.sub.Close()
		c.wantEnded(t, "far far")
	})
}

// Undecided subscriptions count among what an app serves at a time.
func TestUndecidedAreLimited(t *testing.T) {
	inCourt(t, func(t *testing.T, st *stage, c *court, app *node.App) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		attempts := make([]*attempt, wire.MaxPendingCalls)
		for i := range attempts {
			attempts[i] = try(ctx, app, nil)
		}
		if n := len(c.petitions()); n != wire.MaxPendingCalls {
			t.Fatalf("%d petitions", n)
		}
		if _, err := app.Subscribe(ctx, "S", nil); !errors.Is(err, wire.ErrBusy) {
			t.Errorf("one more: %v", err)
		}
		for i, p := range c.petitions() {
			if i%2 == 0 {
				p.accept(t, fmt.Sprint(i))
			} else if _, err := p.decide("", errors.New("no")); !errors.Is(err, wire.ErrRejected) {
				t.Error(err)
			}
		}
		made := 0
		for _, at := range attempts {
			<-at.done
			if at.err == nil {
				made++
			} else if !errors.Is(at.err, wire.ErrRejected) {
				t.Fatal(at.err)
			}
		}
		if made != wire.MaxPendingCalls/2 {
			t.Errorf("%d were made", made)
		}
		c.on = acceptAll(t)
		subscribe(t, app, "S", "red")
	})
}
