package contexts_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/wire"
)

var (
	refCounted = contexts.Terms{Lifetime: contexts.RefCounted}
	owned      = contexts.Terms{Lifetime: contexts.Ownership}
)

// three are three nodes with an app on each.
type three struct {
	a, b, c       *peer
	ann, bob, cem *app
}

// inThree runs f with three nodes that have been there for a while.
func inThree(t *testing.T, f func(t *testing.T, h *hub, x *three)) {
	t.Helper()
	inHub(t, func(t *testing.T, h *hub) {
		x := &three{a: h.node("a"), b: h.node("b"), c: h.node("c")}
		for _, p := range []*peer{x.a, x.b, x.c} {
			defer p.stop()
		}
		x.ann, x.bob, x.cem = x.a.join("ann"), x.b.join("bob"), x.c.join("cem")
		want(t, "", "some", x.ann, x.bob, x.cem) // nodes whose apps use contexts keep them
		time.Sleep(15 * time.Second)
		synctest.Wait()
		f(t, h, x)
	})
}

func (a *app) hold(name string) {
	a.t.Helper()
	if err := a.Hold(a.t.Context(), name); err != nil {
		a.t.Fatalf("%s: hold %s: %v", a.id, name, err)
	}
}

func (a *app) exists(name string) bool {
	a.t.Helper()
	s, err := a.Get(a.t.Context(), name)
	if err != nil {
		a.t.Fatal(err)
	}
	return s.Exists
}

// ended says how many contexts the nodes have ended.
func ended(nodes ...*peer) (n uint64) {
	for _, p := range nodes {
		n += p.Stats().Ended
	}
	return n
}

// wantStays wants contexts to be there for a while.
func wantStays(t *testing.T, a *app, d time.Duration, names ...string) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		synctest.Wait()
		for _, name := range names {
			if !a.exists(name) {
				t.Fatalf("%s has ended %s before its time", name, time.Until(end))
			}
		}
	}
}

// TestRefCounted: a ref-counted context ends with the last that holds it, wherever that
// is, and everybody is told why.
func TestRefCounted(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		amy := x.a.join("amy")
		logs := []*nameLog{x.ann.names(), x.bob.names(), x.cem.names()}
		x.ann.create("x", object{"v": 1}, refCounted)
		synctest.Wait()
		before := x.a.Stats().Writes
		amy.hold("x")
		x.bob.hold("x")
		x.cem.hold("x")
		x.cem.hold("x") // twice is once
		for _, l := range logs {
			wantTexts(t, l.texts(), "created x ref-counted")
		}
		if s, err := x.bob.Get(t.Context(), "x"); err != nil || s.By.App != x.ann.id {
			t.Errorf("who holds it is not who wrote: %+v, %v", s, err)
		}
		x.ann.leave()
		wantStays(t, amy, 20*time.Second, "x")
		amy.Release("x")
		wantStays(t, amy, 20*time.Second, "x")
		amy.Release("x") // of what it does not hold
		x.bob.Release("x")
		wantStays(t, amy, 20*time.Second, "x")
		x.cem.Release("x")
		took := eventually(t, 200*time.Millisecond, "it ends", func() bool { return !amy.exists("x") })
		t.Logf("after %s", took)
		wantTexts(t, logs[0].texts()) // ann has left
		for _, l := range logs[1:] {
			wantTexts(t, l.texts(), "destroyed x ref-counted peer-left")
		}
		time.Sleep(time.Minute)
		if n := ended(x.a, x.b, x.c); n != 1 || x.c.Stats().Ended != 1 {
			t.Errorf("ended %d times, %d by the node of the last", n, x.c.Stats().Ended)
		}
		if n := x.a.Stats().Writes - before; n != 0 {
			t.Errorf("%d writes were counted", n)
		}
		// Somebody destroys one.
		x.bob.create("y", object{}, refCounted)
		x.cem.hold("y")
		if _, err := amy.Destroy(t.Context(), "y"); err != nil {
			t.Fatal(err)
		}
		wantTexts(t, logs[1].texts(), "created y ref-counted", "destroyed y ref-counted")
		// And who held it does not hold another of that name.
		amy.create("y", object{}, refCounted)
		time.Sleep(time.Second)
		amy.Release("y")
		eventually(t, time.Second, "the other ends", func() bool { return !amy.exists("y") })
		wantTexts(t, logs[1].texts(), "created y ref-counted", "destroyed y ref-counted peer-left")
		for _, p := range []*peer{x.a, x.b, x.c} {
			if l := p.holders("y"); len(l) > 0 {
				t.Errorf("%s: %q hold it", p.id, l)
			}
		}
	})
}

// TestOwnership: a context of ownership ends with its owner.
func TestOwnership(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		l := x.cem.names()
		x.bob.create("x", object{"v": 1}, owned)
		x.ann.create("z", object{}, owned)
		x.ann.update("x", object{"v": 2})
		wantStays(t, x.cem, time.Minute, "x", "z")
		x.bob.leave()
		eventually(t, 200*time.Millisecond, "it ends", func() bool { return !x.cem.exists("x") })
		wantStays(t, x.cem, time.Minute, "z")
		wantTexts(t, l.texts(), "created x ownership", "created z ownership", "destroyed x ownership peer-left")
		if _, err := x.ann.Destroy(t.Context(), "z"); err != nil {
			t.Fatal(err)
		}
		wantTexts(t, l.texts(), "destroyed z ownership")
		if n := ended(x.a, x.b, x.c); n != 1 || x.b.Stats().Ended != 1 {
			t.Errorf("ended %d times", n)
		}
	})
}

// TestKilledNode: what a dead node's apps kept ends when the directory has removed them;
// what others keep too, or began to keep meanwhile, does not, however many write to it.
func TestKilledNode(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		x.bob.create("owned", object{}, owned)
		for _, name := range []string{"counted", "shared", "saved", "written"} {
			x.bob.create(name, object{}, refCounted)
		}
		x.cem.hold("shared")
		synctest.Wait()
		l := x.ann.names()
		l.take()
		x.b.kill()
		var wg sync.WaitGroup
		for i, who := range []*app{x.ann, x.cem} {
			wg.Go(func() {
				for n := range 4000 {
					_, err := who.Set(t.Context(), "written", object{fmt.Sprint(i): n}, contexts.MustExist())
					if err != nil {
						wantCode(t, err, wire.BadName)
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
				t.Error("nothing ended what is written to")
			})
		}
		time.Sleep(4 * time.Second)
		x.ann.hold("saved")
		took := eventually(t, 15*time.Second, "they end", func() bool {
			return !x.ann.exists("owned") && !x.ann.exists("counted") && !x.ann.exists("written")
		})
		t.Logf("after %s", took+4*time.Second)
		wg.Wait()
		wantStays(t, x.ann, time.Minute, "shared", "saved")
		got := strings.Join(l.texts(), "\n")
		for _, want := range []string{"destroyed owned ownership peer-left", "destroyed counted ref-counted peer-left", "destroyed written ref-counted peer-left"} {
			if strings.Count(got, want) != 1 {
				t.Errorf("got %q, want %q once", got, want)
			}
		}
		if n := ended(x.a, x.c); n != 3 || strings.Count(got, "destroyed") != 3 {
			t.Errorf("ended %d times: %q", n, got)
		}
	})
}

// TestCutNode: a node that is cut off, and sees nobody after a while, ends nothing, not
// then and not on its return; what its own apps kept alone ends meanwhile.
func TestCutNode(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		x.ann.create("anns", object{}, refCounted)
		x.cem.create("cems", object{}, owned)
		x.bob.create("bobs", object{}, refCounted)
		x.bob.create("theirs", object{}, refCounted)
		x.cem.hold("theirs")
		for range 3 {
			x.b.line.Cut()
			time.Sleep(4 * time.Second)
			x.b.line.Heal()
			wantStays(t, x.ann, 20*time.Second, "anns", "cems", "bobs", "theirs")
		}
		l := x.bob.names()
		l.take()
		x.b.line.Cut()
		time.Sleep(9 * time.Second)
		wantStays(t, x.ann, time.Minute, "anns", "cems", "theirs")
		if x.ann.exists("bobs") {
			t.Error("what only bob held has not ended")
		}
		x.b.line.Heal()
		wantStays(t, x.ann, time.Minute, "anns", "cems", "theirs")
		wantStays(t, x.bob, time.Minute, "anns", "cems", "theirs")
		wantTexts(t, l.texts(), "destroyed bobs ref-counted peer-left")
		if x.b.Stats().Ended != 0 || len(x.b.holders("bobs")) > 0 || len(x.a.holders("theirs")) != 2 {
			t.Errorf("ended %d; %q hold bobs, %q theirs", x.b.Stats().Ended, x.b.holders("bobs"), x.a.holders("theirs"))
		}
		x.cem.leave() // bob has it
		wantStays(t, x.ann, 30*time.Second, "anns", "theirs")
	})
}

// TestServerAnew: after a long outage of the server, which has then forgotten who is
// here, whoever is back first does not end what others keep.
func TestServerAnew(t *testing.T) {
	inThree(t, func(t *testing.T, h *hub, x *three) {
		x.ann.create("anns", object{}, refCounted)
		x.bob.create("bobs", object{}, refCounted)
		x.cem.create("cems", object{}, owned)
		x.bob.create("let", object{}, refCounted)
		x.ann.hold("let")
		h.down()
		time.Sleep(30 * time.Second)
		x.b.line.Cut()
		h.up()
		eventually(t, 10*time.Second, "node a is back", x.a.synced.Load)
		x.ann.Release("let") // bob has it, which nobody knows now
		time.Sleep(3 * time.Second)
		x.b.line.Heal()
		wantStays(t, x.ann, time.Minute, "anns", "bobs", "cems", "let")
		if n := ended(x.a, x.b, x.c); n > 0 {
			t.Errorf("%d were ended", n)
		}
	})
}

// TestCleanLeave: a node that stops leaves what its apps kept to the others.
func TestCleanLeave(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		x.bob.create("owned", object{}, owned)
		x.bob.create("counted", object{}, refCounted)
		x.bob.create("shared", object{}, refCounted)
		x.cem.hold("shared")
		time.Sleep(time.Second) // the others have seen bob with them
		x.b.stop()
		took := eventually(t, 2*time.Second, "they end", func() bool { return !x.ann.exists("owned") && !x.ann.exists("counted") })
		t.Logf("after %s", took)
		wantStays(t, x.ann, 30*time.Second, "shared")
		if n := ended(x.a, x.c); n != 2 {
			t.Errorf("ended %d times", n)
		}
	})
}

// TestNobodyWasThere: what was left while no node ran ends when the first one is there
// for a while.
func TestNobodyWasThere(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		ann := a.join("ann")
		ann.create("owned", object{}, owned)
		ann.create("counted", object{}, refCounted)
		ann.create("retained", object{}, contexts.Terms{})
		ann.create("saved", object{}, refCounted)
		ann.set("plain", object{})
		a.kill()
		time.Sleep(time.Hour)
		a.line.Heal()
		a = h.node("a")
		defer a.stop()
		began := time.Now()
		ann = a.join("ann")
		l := ann.names()
		if got := l.texts(); len(got) != 5 {
			t.Errorf("got %q", got)
		}
		ann.hold("saved")
		wantStays(t, ann, 9*time.Second, "owned", "counted", "retained", "saved", "plain")
		eventually(t, 3*time.Second, "they end", func() bool { return !ann.exists("owned") && !ann.exists("counted") })
		if d := time.Since(began); d < 10*time.Second {
			t.Errorf("after %s", d)
		}
		wantStays(t, ann, time.Minute, "retained", "saved", "plain")
		got := strings.Join(l.texts(), "\n")
		if !strings.Contains(got, "destroyed owned ownership peer-left") || !strings.Contains(got, "destroyed counted ref-counted peer-left") {
			t.Errorf("got %q", got)
		}
	})
}

// TestRacingJoiner lets bob begin to hold a context at every step of its end by the
// node of the last who held it: either he is told that it is gone, or it stays.
func TestRacingJoiner(t *testing.T) {
	outcomes := map[string]int{}
	for n := range 28 {
		inThree(t, func(t *testing.T, _ *hub, x *three) {
			x.ann.create("x", object{"v": 1}, refCounted)
			want(t, `{"v":1}`, "x", x.bob, x.cem)
			near := x.a.join("amy").poll("x")
			near.events()
			var held error
			var once sync.Once
			left := n % 14
			race := func() {
				held = x.bob.Hold(t.Context(), "x")
			}
			done := make(chan struct{})
			x.a.line.Drop(func(subject string) bool {
				if strings.HasPrefix(subject, "_R.") || strings.HasPrefix(subject, "weft.desk.kv.") {
					if left--; left == 0 {
						once.Do(func() {
							if n < 14 { // nothing reaches the node meanwhile
								defer close(done)
								race()
							} else {
								go func() { defer close(done); race() }()
							}
						})
					}
				}
				return false
			})
			x.ann.Release("x")
			time.Sleep(5 * time.Second)
			x.a.line.Drop(nil)
			once.Do(func() { close(done); held = wire.Errorf(wire.Canceled, "there was no such step") })
			<-done
			time.Sleep(20 * time.Second)
			synctest.Wait()
			exists := x.cem.exists("x")
			outcomes[string(wire.CodeOf(held))]++
			switch wire.CodeOf(held) {
			case "":
				if !exists {
					t.Errorf("step %d: bob holds it, and it is gone", n)
				}
				if got := near.kinds(t); len(got) > 0 {
					t.Errorf("step %d: what was not made was shown: %q", n, got)
				}
			case wire.BadName, wire.Canceled:
				if exists {
					t.Errorf("step %d: bob was told %v, and it is there", n, held)
				}
			default:
				t.Errorf("step %d: %v", n, held)
			}
		})
	}
	if outcomes[""] == 0 || outcomes["bad-name"] == 0 {
		t.Errorf("outcomes %v", outcomes)
	}
	t.Log(outcomes)
}

// TestRacingEnd lets the node of the last holder, which is not told that bob begins to
// hold, end the context at every step of that.
func TestRacingEnd(t *testing.T) {
	outcomes := map[wire.Code]int{}
	for n := range 14 {
		inThree(t, func(t *testing.T, h *hub, x *three) {
			x.ann.create("x", object{}, refCounted)
			want(t, "{}", "x", x.bob, x.cem)
			x.a.line.Drop(func(subject string) bool { return strings.HasPrefix(subject, "weft.desk.kv.dir.") })
			left := n
			x.b.line.Drop(func(subject string) bool {
				if strings.HasPrefix(subject, "_R.") {
					if left--; left == 0 {
						x.ann.Release("x")
						time.Sleep(500 * time.Millisecond)
					}
				}
				return false
			})
			err := x.bob.Hold(t.Context(), "x")
			x.b.line.Drop(nil)
			x.ann.Release("x")
			time.Sleep(5 * time.Second)
			exists := x.cem.exists("x")
			outcomes[wire.CodeOf(err)]++
			if err != nil && wire.CodeOf(err) != wire.BadName || exists != (err == nil) {
				t.Errorf("step %d: bob was told %v, it is there: %v", n, err, exists)
			}
			snap, err := kv.Contexts(x.c.link, realm).Snapshot(t.Context(), "x.>")
			if e := snap.Entries["x.//"]; err != nil || (e.Op == kv.Put) != exists {
				t.Errorf("step %d: metadata is left: %+v, %v", n, e, err)
			}
		})
	}
	if outcomes[""] == 0 || outcomes[wire.BadName] == 0 {
		t.Errorf("outcomes %v", outcomes)
	}
}

// TestCreateLosesRace: whoever asks for a ref-counted context that somebody else has
// just made does not hold it.
func TestCreateLosesRace(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		want(t, "", "x", x.bob)
		x.b.line.Drop(func(subject string) bool { return strings.HasPrefix(subject, "weft.desk.kv.ctx.") })
		x.ann.create("x", object{}, refCounted)
		if made, _, err := x.bob.CreateWith(t.Context(), "x", object{}, refCounted); made || err != nil {
			t.Errorf("made again: %v, %v", made, err)
		}
		if l := x.b.holders("x"); len(l) != 1 {
			t.Errorf("%q hold it", l)
		}
	})
}

// TestUnheardHolder: a node that is not told who keeps a context does not end it.
func TestUnheardHolder(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		deaf := func(names bool) {
			x.c.line.Drop(func(subject string) bool {
				return strings.HasPrefix(subject, "weft.desk.kv.dir.") || names && strings.HasPrefix(subject, "weft.desk.kv.ctx.")
			})
		}
		deaf(false)
		x.bob.create("new", object{}, refCounted)
		x.cem.create("joined", object{}, refCounted)
		want(t, "{}", "joined", x.bob)
		x.bob.hold("joined")
		x.cem.Release("joined")
		wantStays(t, x.ann, 40*time.Second, "new", "joined")
		// Nor if it does not hear of the hold in the context either.
		x.c.line.Drop(nil)
		x.cem.create("quiet", object{}, refCounted)
		want(t, "{}", "quiet", x.bob)
		deaf(true)
		x.bob.hold("quiet")
		x.cem.Release("quiet")
		wantStays(t, x.ann, 40*time.Second, "quiet")
		x.c.line.Drop(nil)
		for _, name := range []string{"new", "joined", "quiet"} {
			x.bob.Release(name)
		}
		eventually(t, 25*time.Second, "they end", func() bool { return !x.ann.exists("new") && !x.ann.exists("joined") && !x.ann.exists("quiet") })
	})
}

// TestIncomplete: while a node does not know who is here it ends nothing, and for a
// while after that.
func TestIncomplete(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.stop()
		ann := a.join("ann")
		want(t, "", "some", ann)
		time.Sleep(15 * time.Second)
		for _, name := range []string{"x", "y"} {
			ann.create(name, object{}, refCounted)
		}
		time.Sleep(time.Second)
		a.synced.Store(false)
		ann.Release("x")
		wantStays(t, ann, time.Minute, "x", "y")
		a.synced.Store(true)
		wantStays(t, ann, 9*time.Second, "x", "y")
		eventually(t, 3*time.Second, "it ends", func() bool { return !ann.exists("x") })
		// Also when that begins while the end is on its way.
		time.Sleep(15 * time.Second)
		a.line.Drop(func(subject string) bool {
			if strings.HasPrefix(subject, "_R.") {
				a.synced.Store(false)
			}
			return false
		})
		ann.Release("y")
		wantStays(t, ann, time.Minute, "y")
		a.line.Drop(nil)
		a.synced.Store(true)
		eventually(t, 13*time.Second, "it ends", func() bool { return !ann.exists("y") })
	})
}

// TestHoldUnheard: a hold is not dropped because its node has not heard of the context.
func TestHoldUnheard(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		x.b.line.Drop(func(subject string) bool { return strings.HasPrefix(subject, "weft.desk.kv.ctx.") })
		x.ann.create("x", object{}, refCounted)
		want(t, "{}", "x", x.bob) // which reads it
		x.bob.hold("x")
		time.Sleep(500 * time.Millisecond)
		if l := x.b.holders("x"); len(l) != 2 {
			t.Errorf("%q hold it", l)
		}
		x.b.line.Drop(nil)
		x.ann.Release("x")
		wantStays(t, x.cem, 30*time.Second, "x")
	})
}

// TestReleasedAtOnce: the last two, on two nodes, let go at the same time.
func TestReleasedAtOnce(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		for i := range 10 {
			name := fmt.Sprint("x", i)
			x.ann.create(name, object{}, refCounted)
			want(t, "{}", name, x.bob)
			x.bob.hold(name)
			synctest.Wait()
			go x.ann.Release(name)
			go x.bob.Release(name)
			eventually(t, 2*time.Second, "it ends", func() bool { return !x.cem.exists(name) })
		}
	})
}

// TestHoldOther: what Hold does where there is nothing to hold.
func TestHoldOther(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		ctx := t.Context()
		wantCode(t, x.ann.Hold(ctx, "nothing"), wire.BadName)
		wantCode(t, x.ann.Hold(ctx, ""), wire.BadName)
		x.ann.create("retained", object{}, contexts.Terms{})
		x.ann.create("owned", object{}, owned)
		x.ann.set("plain", object{})
		for _, name := range []string{"retained", "owned", "plain"} {
			want(t, "{}", name, x.bob)
			x.bob.hold(name)
			if l := x.b.holders(name); len(l) > 0 {
				t.Errorf("%q hold %s", l, name)
			}
			x.bob.Release(name)
		}
		x.ann.create("secret", object{}, contexts.Terms{Lifetime: contexts.RefCounted, Read: "$nobody", Write: "$nobody"})
		synctest.Wait()
		wantCode(t, x.bob.Hold(ctx, "secret"), wire.Denied)
		// Creating what is there does not hold it.
		x.ann.create("x", object{}, refCounted)
		synctest.Wait()
		if made, _, err := x.bob.CreateWith(ctx, "x", object{}, refCounted); made || err != nil {
			t.Errorf("made again: %v, %v", made, err)
		}
		x.ann.Release("x")
		eventually(t, time.Second, "it ends", func() bool { return !x.cem.exists("x") })
		// Nor what cannot be created, or an app that has left.
		if _, _, err := x.bob.CreateWith(ctx, "y", object{"big": strings.Repeat("x", wire.MaxContext)}, refCounted); wire.CodeOf(err) != wire.Limit {
			t.Errorf("got %v", err)
		}
		if l := x.b.holders("y"); len(l) > 0 {
			t.Errorf("%q hold what is not there", l)
		}
		x.ann.create("z", object{}, refCounted)
		want(t, "{}", "z", x.bob)
		x.bob.leave()
		wantCode(t, x.bob.Hold(ctx, "z"), wire.TargetGone)
		// While the fabric is offline it counts on this node, and later for all.
		dan := x.b.join("dan")
		x.b.line.Cut()
		time.Sleep(2 * time.Second)
		dan.hold("z")
		x.b.line.Heal()
		time.Sleep(20 * time.Second)
		x.ann.Release("z")
		wantStays(t, x.cem, 30*time.Second, "z")
		dan.leave()
		eventually(t, time.Second, "it ends", func() bool { return !x.cem.exists("z") })
	})
}

// TestHoldGivenUp: a hold that cannot be made sure of does not count.
func TestHoldGivenUp(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		x.ann.create("x", object{}, refCounted)
		want(t, "{}", "x", x.bob)
		x.b.line.Drop(func(subject string) bool { return strings.HasPrefix(subject, "_R.") })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := x.bob.Hold(ctx, "x"); err == nil {
			t.Error("held without an answer")
		}
		x.b.line.Drop(nil)
		if l := x.b.holders("x"); len(l) != 1 {
			t.Errorf("%q hold it", l)
		}
	})
}

// TestCreatorLeavesAtOnce: a context whose creator is gone before it is made ends.
func TestCreatorLeavesAtOnce(t *testing.T) {
	inThree(t, func(t *testing.T, _ *hub, x *three) {
		for name, terms := range map[string]contexts.Terms{"counted": refCounted, "owned": owned} {
			dan := x.b.join("dan")
			want(t, "", name, dan)
			var mu sync.Mutex
			made := false
			dan.StartCreate(contexts.Creation{Name: name, Object: kv.Object(), Terms: terms, Done: func(created bool, _ contexts.Ack, err error) {
				mu.Lock()
				defer mu.Unlock()
				if made = created; err != nil {
					t.Error(err)
				}
			}})
			dan.leave()
			time.Sleep(time.Second)
			mu.Lock()
			if !made {
				t.Errorf("%s was not made", name)
			}
			mu.Unlock()
		}
		eventually(t, 12*time.Second, "they end", func() bool { return !x.ann.exists("counted") && !x.ann.exists("owned") })
	})
}
