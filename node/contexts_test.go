package node_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// canonical is the object of a context as an app has it.
func canonical(t *testing.T, a *node.App, name string) string {
	t.Helper()
	s, err := a.Contexts().Get(t.Context(), name)
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	text, err := wire.Canonical(s.Value())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func wantContext(t *testing.T, want, name string, apps ...*node.App) {
	t.Helper()
	synctest.Wait()
	for _, a := range apps {
		if got := canonical(t, a, name); got != want {
			t.Errorf("%s has %s, want %s", a.ID(), got, want)
		}
	}
}

type object = map[string]any

func TestContextIsShared(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b, c := fb.node("a"), fb.node("b"), fb.node("c")
		defer a.Stop()
		defer b.Stop()
		defer c.Stop()
		ann, bob, cem := join(t, a, "ann"), join(t, b, "bob"), join(t, c, "cem")
		ctx := t.Context()
		wantContext(t, "", "client", ann, bob)
		if _, err := ann.Contexts().Set(ctx, "client", object{"name": "ACME", "limit": 5}); err != nil {
			t.Fatal(err)
		}
		wantContext(t, `{"limit":5,"name":"ACME"}`, "client", ann, bob, cem)
		if _, err := bob.Contexts().Update(ctx, "client", object{"limit": 7, "name": nil, "o": object{"x": 1, "y": []int{1, 2, 3}}}); err != nil {
			t.Fatal(err)
		}
		wantContext(t, `{"limit":7,"o":{"x":1,"y":[1,2,3]}}`, "client", ann, bob, cem)
		if _, err := cem.Contexts().SetPath(ctx, "client", []string{"o", "z.z"}, "deep"); err != nil {
			t.Fatal(err)
		}
		if _, err := cem.Contexts().SetPath(ctx, "client", []string{"o", "y", "1"}, "v"); err != nil {
			t.Fatal(err)
		}
		wantContext(t, `{"limit":7,"o":{"x":1,"y":[1,"v",3],"z.z":"deep"}}`, "client", ann, bob, cem)
		if _, err := ann.Contexts().RemovePath(ctx, "client", []string{"o", "x"}); err != nil {
			t.Fatal(err)
		}
		wantContext(t, `{"limit":7,"o":{"y":[1,"v",3],"z.z":"deep"}}`, "client", ann, bob, cem)
		wantNames(t, bob.Contexts(), "client")
		if _, err := bob.Contexts().Destroy(ctx, "client"); err != nil {
			t.Fatal(err)
		}
		wantContext(t, "", "client", ann, bob, cem)
		wantNames(t, cem.Contexts())
		if _, err := cem.Contexts().Update(ctx, "client", object{"again": true}); err != nil {
			t.Fatal(err)
		}
		wantContext(t, `{"again":true}`, "client", ann, bob, cem)
	})
}

func TestContextWatch(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		w, err := bob.Contexts().Watch(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		next := func() node.ContextEvent {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			e, ok := w.Next(ctx)
			if !ok {
				t.Fatal("no event")
			}
			return e
		}
		if e := next(); e.Kind != node.ContextSnapshot || e.Exists {
			t.Errorf("got %+v", e)
		}
		if _, err := ann.Contexts().Set(t.Context(), "x", object{"a": 1}); err != nil {
			t.Fatal(err)
		}
		if e := next(); e.Kind != node.ContextCreated || e.By.App != ann.ID() || e.By.Node != "a" || len(e.Changes) != 1 || len(e.Changes[0].Path) != 0 {
			t.Errorf("got %+v", e)
		}
		ack, err := bob.Contexts().Update(t.Context(), "x", object{"b": 2, "c": 3})
		if err != nil {
			t.Fatal(err)
		}
		if e := next(); e.Kind != node.ContextChanged || e.By.App != bob.ID() || len(e.Changes) != 2 || !e.Pending {
			t.Errorf("got %+v", e)
		}
		if _, err := ann.Contexts().Update(t.Context(), "x", object{"b": 4}, node.IfRevision(ack.Revision)); err != nil {
			t.Fatal(err)
		}
		if e := next(); len(e.Changes) != 1 || e.Changes[0].Value.String() != "4" || e.Revision <= ack.Revision {
			t.Errorf("got %+v", e)
		}
		if _, err := bob.Contexts().Update(t.Context(), "x", object{"b": 4}, node.IfRevision(ack.Revision)); wire.CodeOf(err) != wire.BadRevision {
			t.Errorf("got %v", err)
		}
		if _, err := ann.Contexts().Destroy(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if e := next(); e.Kind != node.ContextDestroyed || e.By.App != ann.ID() || e.Revision != 0 || e.Exists {
			t.Errorf("got %+v", e)
		}
	})
}
