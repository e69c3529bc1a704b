package node_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/wire"
)

func createWith(t *testing.T, a *node.App, name string, terms contexts.Terms) {
	t.Helper()
	if made, _, err := a.Contexts().CreateWith(t.Context(), name, object{"v": 1}, terms); err != nil || !made {
		t.Fatalf("create %s: %v, %v", name, made, err)
	}
}

func contextExists(t *testing.T, a *node.App, name string) bool {
	t.Helper()
	s, err := a.Contexts().Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.Exists
}

// TestContextLifetimes: contexts end with the apps that keep them, on whichever node:
// one that leaves, one whose node stops, and one whose node is lost. What apps that are
// still there keep does not, also if their node was away for a moment, or for longer.
func TestContextLifetimes(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b, c := h.node("a"), h.node("b"), h.node("c")
		defer a.Stop()
		defer b.Stop()
		defer c.Stop()
		ann, bob, cem := join(t, a, "ann"), join(t, b, "bob"), join(t, c, "cem")
		wantContext(t, "", "some", ann, bob, cem) // nodes whose apps use contexts keep them
		time.Sleep(15 * time.Second)
		counted, owned := contexts.Terms{Lifetime: contexts.RefCounted}, contexts.Terms{Lifetime: contexts.Ownership}
		dan := join(t, b, "dan")
		createWith(t, dan, "left", counted)
		createWith(t, dan, "lefts", owned)
		createWith(t, bob, "stopped", counted)
		createWith(t, bob, "stoppeds", owned)
		createWith(t, cem, "lost", counted)
		createWith(t, cem, "losts", owned)
		createWith(t, bob, "held", counted)
		createWith(t, ann, "anns", owned)
		synctest.Wait()
		if err := ann.Contexts().Hold(t.Context(), "held"); err != nil {
			t.Fatal(err)
		}
		reasons := map[string]string{}
		names := make(chan contexts.NameEvent, 100)
		go func() {
			for e := range ann.Contexts().WatchNames(t.Context()) {
				names <- e
			}
		}()
		gone := func(within time.Duration, list ...string) {
			t.Helper()
			for _, name := range list {
				eventually(t, within, name+" ends", func() bool { return !contextExists(t, ann, name) })
			}
			synctest.Wait()
			for len(names) > 0 {
				if e := <-names; e.Kind == contexts.Destroyed {
					reasons[e.Name] = e.Reason
				}
			}
			for _, name := range list {
				if reasons[name] != contexts.PeerLeft {
					t.Errorf("%s: reason %q", name, reasons[name])
				}
			}
		}
		stays := func(d time.Duration, list ...string) {
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
				for _, name := range list {
					if synctest.Wait(); !contextExists(t, ann, name) {
						t.Fatalf("%s has ended", name)
					}
				}
			}
		}
		stays(20*time.Second, "left", "lefts", "stopped", "stoppeds", "lost", "losts", "held", "anns")
		dan.Leave()
		gone(time.Second, "left", "lefts")
		h.line("c").Cut()
		time.Sleep(4 * time.Second)
		h.line("c").Heal()
		stays(30*time.Second, "stopped", "stoppeds", "lost", "losts", "held", "anns")
		b.Stop()
		gone(3*time.Second, "stopped", "stoppeds")
		h.line("c").Cut()
		gone(17*time.Second, "lost", "losts")
		time.Sleep(30 * time.Second) // c sees nobody now
		h.line("c").Heal()
		stays(30*time.Second, "held", "anns")
		if n := a.Stats().Contexts.Ended + c.Stats().Contexts.Ended; n != 4 || c.Stats().Contexts.Ended > 2 {
			t.Errorf("%d were ended", n)
		}
		ann.Contexts().Release("held")
		eventually(t, time.Second, "it ends", func() bool { return !contextExists(t, cem, "held") })
		ann.Leave()
		eventually(t, time.Second, "it ends", func() bool { return !contextExists(t, cem, "anns") })
	})
}

// TestContextPermissions: what identities say of themselves decides.
func TestContextPermissions(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		as := func(n *node.Node, name, region string) *node.App {
			t.Helper()
			app, err := n.Join(t.Context(), node.Identity{Application: name, Region: region})
			if err != nil {
				t.Fatal(err)
			}
			return app
		}
		ann, eu, us := as(a, "ann", "EU"), as(b, "eu", "EU"), as(b, "us", "US")
		createWith(t, ann, "x", contexts.Terms{Read: "$region == #region", Write: "$application == 'ann'"})
		synctest.Wait()
		wantContext(t, `{"v":1}`, "x", ann, eu)
		ctx := t.Context()
		_, err := us.Contexts().Get(ctx, "x")
		wantCode(t, err, wire.Denied)
		for _, who := range []*node.App{eu, us} {
			_, err = who.Contexts().Update(ctx, "x", object{"v": 2})
			wantCode(t, err, wire.Denied)
			_, err = who.Contexts().Destroy(ctx, "x")
			wantCode(t, err, wire.Denied)
		}
		if names, err := us.Contexts().Names(ctx); err != nil || slices.Contains(names, "x") {
			t.Errorf("got %q, %v", names, err)
		}
		wantNames(t, eu.Contexts(), "x")
		if _, err := ann.Contexts().Destroy(ctx, "x"); err != nil {
			t.Error(err)
		}
	})
}
