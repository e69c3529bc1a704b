package contexts_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/wire"
)

// at is the object of x at a sequence, "none", "unknown" or the code of an error.
func (a *app) at(sequence uint64) string {
	a.t.Helper()
	p, err := a.At(a.t.Context(), "x", sequence)
	return a.pastText(p, err)
}

func (a *app) pastText(p contexts.Past, err error) string {
	a.t.Helper()
	switch {
	case errors.Is(err, kv.ErrNotRecorded):
		return "unknown"
	case err != nil:
		return string(wire.CodeOf(err))
	case !p.Exists:
		return "none"
	}
	return text(a.t, p.Object)
}

func wantAt(t *testing.T, a *app, sequence uint64, want string) {
	t.Helper()
	if got := a.at(sequence); got != want {
		t.Errorf("at %d: got %s, want %s", sequence, got, want)
	}
}

// TestAt: the past is what it was, also when a path was written often since, or was
// taken away.
func TestAt(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		ann.set("other", object{"a": 1})
		created := ann.set("x", object{"a": 1, "o": object{"p": 1}})
		first := ann.update("x", object{"b": 2, "c": 3})
		if _, err := ann.SetPath(t.Context(), "x", []string{"o", "q"}, 4); err != nil {
			t.Fatal(err)
		}
		second := bob.update("x", object{"b": nil, "a": 5})
		ann.set("other", object{"a": 2})
		for _, who := range []*app{ann, bob} {
			wantAt(t, who, 0, "none")
			wantAt(t, who, created-1, "none")
			wantAt(t, who, created, `{"a":1,"o":{"p":1}}`)
			wantAt(t, who, first, `{"a":1,"b":2,"c":3,"o":{"p":1}}`)
			wantAt(t, who, second, `{"a":5,"c":3,"o":{"p":1,"q":4}}`)
			wantAt(t, who, second+100, `{"a":5,"c":3,"o":{"p":1,"q":4}}`)
		}
		var last uint64
		for i := range 20 {
			last = bob.update("x", object{"c": 10 + i})
		}
		wantAt(t, ann, first, `{"a":1,"b":2,"c":3,"o":{"p":1}}`)
		wantAt(t, ann, last, `{"a":5,"c":29,"o":{"p":1,"q":4}}`)
		// A conditional write takes away what is below it, an end everything.
		if _, err := bob.Update(t.Context(), "x", object{"d": 1}, contexts.IfRevision(last)); err != nil {
			t.Fatal(err)
		}
		wantAt(t, ann, last, `{"a":5,"c":29,"o":{"p":1,"q":4}}`)
		_, err := ann.At(t.Context(), "", 1)
		wantCode(t, err, wire.BadName)
		if _, err := ann.Destroy(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		wantAt(t, ann, last, `{"a":5,"c":29,"o":{"p":1,"q":4}}`)
		wantAt(t, ann, last+100, "none")
		ended := time.Now()
		time.Sleep(20 * time.Minute) // no trace in the bucket of what was before
		wantAt(t, ann, last, `{"a":5,"c":29,"o":{"p":1,"q":4}}`)
		ann.create("x", object{"anew": 1}, contexts.Terms{Read: "$nobody", Write: "$nobody"})
		synctest.Wait()
		wantAt(t, ann, last, `{"a":5,"c":29,"o":{"p":1,"q":4}}`)
		wantAt(t, bob, last, "denied")
		p, err := ann.AtTime(t.Context(), "x", ended)
		if got := ann.pastText(p, err); got != "none" {
			t.Errorf("at its end: %s", got)
		}
		if n := a.Stats().Unrecorded + b.Stats().Unrecorded; n > 0 {
			t.Errorf("the history was late %d times", n)
		}
		a.line.Cut()
		time.Sleep(time.Second)
		wantAt(t, ann, last, "offline")
	})
}

// TestAtCompacted: a compaction takes nothing from the past.
func TestAtCompacted(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.stop()
		ann := a.join("ann")
		ann.set("x", object{})
		many := object{}
		for i := range 300 {
			many[fmt.Sprint("k", i)] = i
		}
		early := ann.update("x", object{"first": 1})
		last := ann.update("x", many)
		want(t, ann.get("x"), "x", ann)
		was := ann.get("x")
		time.Sleep(5 * time.Second)
		if a.Stats().Compactions == 0 {
			t.Fatal("nothing was compacted")
		}
		for range 2 {
			wantAt(t, ann, last, was)
			wantAt(t, ann, early, `{"first":1}`)
			ann.update("x", object{"k1": "new"})
			time.Sleep(20 * time.Minute) // the markers are gone
		}
	})
}

// TestChangedSince: what was written at, above or below a path.
func TestChangedSince(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		rev := ann.set("x", object{"a": 1, "o": object{"p": 1}})
		if _, err := bob.SetPath(t.Context(), "x", []string{"o", "q", "r"}, 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s, err := ann.Get(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		changed := func(path string, revision uint64) bool {
			return s.ChangedSince(revision, strings.FieldsFunc(path, func(r rune) bool { return r == '.' })...)
		}
		for path, want := range map[string]bool{"": true, "a": false, "o": true, "o.p": false, "o.q": true, "o.q.r": true, "o.q.r.s": true, "other": false} {
			if got := changed(path, rev); got != want {
				t.Errorf("%q: changed %v", path, got)
			}
			if !changed(path, rev-1) || changed(path, s.Revision) {
				t.Errorf("%q: not set, or changed since", path)
			}
		}
		// What is on its way counts, and what somebody else writes later.
		resume := a.line.Stall()
		ann.Start(ann.write("x", &outcomes{}, put(t, "new.p", "1")))
		if !changed("new", s.Revision) || changed("a", s.Revision) {
			t.Error("a pending write does not count")
		}
		resume()
		bob.update("x", object{"a": 2})
		synctest.Wait()
		if !changed("a", s.Revision) {
			t.Error("a later write does not count")
		}
		if (contexts.State{}).ChangedSince(1) {
			t.Error("of no context")
		}
	})
}

// TestCatchUp: what was acknowledged before is known, whether or not it came by itself.
func TestCatchUp(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		ann.set("x", object{"a": 1})
		want(t, `{"a":1}`, "x", bob)
		w, err := bob.Watch(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, ok := w.Poll(); !ok {
			t.Fatal("no first state")
		}
		b.line.Drop(func(subject string) bool { return strings.HasPrefix(subject, "weft.desk.kv.") })
		ann.set("x", object{"a": 2})
		synctest.Wait()
		if e, ok := w.Poll(); ok {
			t.Fatalf("the write has come by itself: %v", e)
		}
		if err := bob.CatchUp(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if e, ok := w.Poll(); !ok || e.Kind != contexts.Changed || text(t, e.View()) != `{"a":2}` {
			t.Errorf("got %v", e)
		}
		b.line.Drop(nil)
		b.line.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		synctest.Wait()
		if err := bob.CatchUp(ctx, "x"); wire.CodeOf(err) != wire.Offline {
			t.Errorf("without a connection: %v", err)
		}
		b.line.Heal()
	})
}
