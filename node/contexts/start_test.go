package contexts_test

import (
	"errors"
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

// outcomes collects what Done was told, in order.
type outcomes struct {
	mu   sync.Mutex
	list []string
	revs []uint64
}

func (o *outcomes) done(what string) func(contexts.Ack, error) {
	return func(ack contexts.Ack, err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if err != nil {
			what += " " + string(wire.CodeOf(err))
		}
		o.list = append(o.list, what)
		o.revs = append(o.revs, ack.Revision)
	}
}

func (o *outcomes) take() []string {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.list
	o.list = nil
	return list
}

// write is a Write of some edits.
func (a *app) write(name string, o *outcomes, edits ...kv.Edit) contexts.Write {
	return contexts.Write{
		Name: name, Done: o.done(editsOf(a.t, edits)),
		Edit: func(*kv.Value) ([]kv.Edit, error) { return edits, nil },
	}
}

// TestStart: a write is seen at once by a watch of the node, without a word from the
// network, and Done comes with its acknowledgement.
func TestStart(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		first := ann.set("x", object{"a": 1})
		w, err := ann.Watch(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if e, ok := w.Poll(); !ok || e.Kind != contexts.Snapshot {
			t.Fatalf("got %v, %v", e, ok)
		}
		resume := a.line.Stall()
		var o outcomes
		ann.Start(ann.write("x", &o, put(t, "a", "2"), put(t, "b.c", `"deep"`)))
		e, ok := w.Poll()
		if !ok || !e.Pending || e.By.App != ann.id || text(t, e.View()) != `{"a":2,"b":{"c":"deep"}}` {
			t.Errorf("seen at once: %v, %s", ok, text(t, e.View()))
		}
		ann.Start(contexts.Write{Name: "x", Done: o.done("second"), Edit: func(now *kv.Value) ([]kv.Edit, error) {
			return []kv.Edit{{Path: []string{"n"}, Value: now.At([]string{"a"})}}, nil
		}})
		wantTexts(t, o.take())
		resume()
		wantTexts(t, o.take(), `a=2 b.c="deep"`, "second")
		if o.revs[0] <= first || o.revs[1] < o.revs[0] {
			t.Errorf("revisions %d after %d", o.revs, first)
		}
		want(t, `{"a":2,"b":{"c":"deep"},"n":2}`, "x", ann, bob)
	})
}

// TestStartOutcomes: every write that is started ends once, with what became of it.
func TestStartOutcomes(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.stop()
		ann := a.join("ann")
		rev := ann.set("x", object{"l": []int{1}})
		writes := a.Stats().Writes
		many := make([]kv.Edit, wire.MaxContextKeys+1)
		for i := range many {
			many[i] = put(t, fmt.Sprint("k", i), "1")
		}
		for name, c := range map[string]struct {
			w    contexts.Write
			want wire.Code
		}{
			"no name":    {contexts.Write{}, wire.BadName},
			"must exist": {contexts.Write{Name: "y", MustExist: true}, wire.BadName},
			"too many":   {contexts.Write{Name: "x", Edit: func(*kv.Value) ([]kv.Edit, error) { return many, nil }}, wire.Limit},
			"bad path":   {contexts.Write{Name: "x", Edit: func(*kv.Value) ([]kv.Edit, error) { return []kv.Edit{put(t, "\xff", "1")}, nil }}, wire.BadName},
			"no element": {contexts.Write{Name: "x", Edit: func(*kv.Value) ([]kv.Edit, error) { return []kv.Edit{put(t, "l.7", "1")}, nil }}, wire.BadPayload},
			"no object":  {contexts.Write{Name: "x", Edit: func(*kv.Value) ([]kv.Edit, error) { return []kv.Edit{put(t, "", "1")}, nil }}, wire.BadPayload},
			"own error":  {contexts.Write{Name: "x", Edit: func(*kv.Value) ([]kv.Edit, error) { return nil, wire.Errorf(wire.Rejected, "no") }}, wire.Rejected},
		} {
			calls := 0
			c.w.Done = func(_ contexts.Ack, err error) {
				calls++
				if wire.CodeOf(err) != c.want {
					t.Errorf("%s: got %v, want %s", name, err, c.want)
				}
			}
			ann.Start(c.w)
			synctest.Wait()
			if calls != 1 {
				t.Errorf("%s: Done was called %d times", name, calls)
			}
		}
		var o outcomes
		ann.Start(contexts.Write{Name: "x", Done: o.done("nothing"), Edit: func(*kv.Value) ([]kv.Edit, error) { return nil, nil }})
		wantTexts(t, o.take(), "nothing")
		if o.revs[0] != rev {
			t.Errorf("the present revision is %d, want %d", o.revs[0], rev)
		}
		ann.Start(contexts.Write{Name: "x", Edit: func(*kv.Value) ([]kv.Edit, error) { return []kv.Edit{put(t, "ok", "1")}, nil }})
		want(t, `{"l":[1],"ok":1}`, "x", ann)
		if got := a.Stats().Writes - writes; got != 2 {
			t.Errorf("%d writes were counted", got)
		}
		time.Sleep(5 * time.Minute) // every use has ended: the context is closed
		if n := a.Stats().Open; n != 0 {
			t.Errorf("%d contexts are open", n)
		}
	})
}

// TestStartInOrder starts writes on a context that is not open yet, while its
// snapshot is on its way and others write to it: they take effect in their order.
func TestStartInOrder(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, amy, bob := a.join("ann"), a.join("amy"), b.join("bob")
		bob.set("x", object{"ann": []int{}, "amy": []int{}})
		resume := a.line.Stall()
		var wg sync.WaitGroup
		const n = 50
		// Each app appends to its list at the index that it counts itself: out of
		// order there is no such element.
		for _, who := range []*app{ann, amy} {
			name := map[*app]string{ann: "ann", amy: "amy"}[who]
			wg.Go(func() {
				for i := range n {
					ended := false
					who.Start(contexts.Write{
						Name: "x", MustExist: true,
						Edit: func(now *kv.Value) ([]kv.Edit, error) {
							if got := wire.Count(now.At([]string{name}).Payload().Data); got != i {
								t.Errorf("%s: %d elements at its turn, want %d", name, got, i)
							}
							return []kv.Edit{put(t, fmt.Sprintf("%s.%d", name, i), fmt.Sprint(i))}, nil
						},
						Done: func(_ contexts.Ack, err error) {
							if err != nil || ended {
								t.Errorf("%s %d: %v, again: %v", name, i, err, ended)
							}
							ended = true
						},
					})
					if i == n/2 {
						resume()
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		for range 3 {
			bob.update("x", object{"bob": 1})
		}
		time.Sleep(5 * time.Second)
		var all []string
		for i := range n {
			all = append(all, fmt.Sprint(i))
		}
		list := strings.Join(all, ",")
		want(t, `{"amy":[`+list+`],"ann":[`+list+`],"bob":1}`, "x", ann, bob)
	})
}

// TestStartBehind: what is started while an earlier one waits for room goes behind it.
func TestStartBehind(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		h.alone = true // nobody has asked for the names of contexts
		a := h.node("a")
		defer a.stop()
		ann := a.join("ann")
		for _, name := range []string{"x", "y"} {
			want(t, "", name, ann)
		}
		var o outcomes
		ann.StartCreate(contexts.Creation{Name: "x", Object: kv.Object(), Terms: contexts.Terms{Lifetime: contexts.RefCounted}})
		w := ann.write("x", &o, put(t, "a", "1"))
		w.MustExist = true
		ann.Start(w)
		ann.Start(ann.write("y", &o, put(t, "a", "1")))
		w = ann.write("y", &o, put(t, "b", "1"))
		w.MustExist = true
		ann.Start(w)
		time.Sleep(time.Second)
		if got := o.take(); len(got) != 3 || strings.Contains(strings.Join(got, " "), "bad-name") {
			t.Errorf("got %q", got)
		}
		want(t, `{"a":1}`, "x", ann)
		want(t, `{"a":1,"b":1}`, "y", ann)
		// Without a directory nobody counts who holds what.
		if err := ann.Hold(t.Context(), "x"); err != nil {
			t.Error(err)
		}
		ann.Release("x")
		ann.leave()
		time.Sleep(time.Minute)
		want(t, `{"a":1}`, "x", a.join("amy"))
	})
}

// TestStartCutOff: the fabric goes away while writes wait for the snapshot, and while
// one is on its way. All end, and what takes effect is in order.
func TestStartCutOff(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		bob.set("x", object{})
		bob.set("y", object{})
		want(t, `{}`, "x", ann)
		a.line.Drop(func(subject string) bool { return strings.HasPrefix(subject, "_R.") }) // no answers
		var o outcomes
		ann.Start(ann.write("x", &o, put(t, "n", "1")))
		time.Sleep(time.Second) // it is on its way
		ann.Start(ann.write("x", &o, put(t, "n", "2")))
		ann.Start(ann.write("y", &o, put(t, "n", "1")))
		ann.Start(ann.write("y", &o, put(t, "n", "2")))
		wantTexts(t, o.take())
		a.line.Cut()
		time.Sleep(3 * time.Second)
		ann.Start(ann.write("x", &o, put(t, "n", "3")))
		got := o.take()
		if len(got) != 3 || got[0] != "n=1 offline" || got[1] != "n=2 offline" || got[2] != "n=3 offline" {
			t.Errorf("while cut off: %q", got) // of y, and what was started
		}
		a.line.Drop(nil)
		a.line.Heal()
		time.Sleep(10 * time.Second)
		wantTexts(t, o.take(), "n=1", "n=2")
		want(t, `{"n":2}`, "x", ann, bob)
		want(t, `{}`, "y", ann, bob)
	})
}

// TestStartGivenUp: without an answer a write does not wait for ever, and one that
// was not sent says so.
func TestStartGivenUp(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.stop()
		ann := a.join("ann")
		a.line.Drop(func(subject string) bool { return strings.HasPrefix(subject, "_R.") })
		defer a.line.Drop(nil)
		var o outcomes
		ann.Start(ann.write("x", &o, put(t, "n", "1")))
		time.Sleep(wire.WriteTimeout - time.Second)
		wantTexts(t, o.take())
		time.Sleep(2 * time.Second)
		wantTexts(t, o.take(), "n=1 unavailable")
	})
}

// TestStartCreate: of two that create one context one does it, and the other is told.
func TestStartCreate(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann:EU"), b.join("bob")
		var mu sync.Mutex
		made := map[string]bool{}
		create := func(who *app, name string) {
			who.StartCreate(contexts.Creation{
				Name: "x", Object: valueOf(t, `{"by":"`+name+`"}`), Terms: contexts.Terms{Lifetime: contexts.Ownership},
				Done: func(created bool, ack contexts.Ack, err error) {
					mu.Lock()
					defer mu.Unlock()
					made[name] = created
					if err != nil || ack.Revision == 0 {
						t.Errorf("%s: %+v, %v", name, ack, err)
					}
				},
			})
		}
		create(ann, "ann")
		create(bob, "bob")
		var o outcomes
		ann.Start(ann.write("x", &o, put(t, "ann", "true"))) // after it was created
		time.Sleep(time.Second)
		synctest.Wait()
		if made["ann"] == made["bob"] || len(made) != 2 {
			t.Errorf("made: %v", made)
		}
		wantTexts(t, o.take(), "ann=true")
		s, err := bob.Get(t.Context(), "x")
		if err != nil || s.Meta.Lifetime != contexts.Ownership || s.At("ann").String() != "true" {
			t.Errorf("got %+v, %v", s, err)
		}
		if made["ann"] && (s.Meta.Owner != ann.id || s.Meta.Creator != ann.id || s.Meta.Node != "a" || s.Meta.Identity.Region != "EU") {
			t.Errorf("got %+v", s.Meta)
		}
		for name, c := range map[string]contexts.Creation{
			"no object":  {Name: "z"},
			"an array":   {Name: "z", Object: valueOf(t, "[]")},
			"lifetime":   {Name: "z", Object: kv.Object(), Terms: contexts.Terms{Lifetime: "activity"}},
			"expression": {Name: "z", Object: kv.Object(), Terms: contexts.Terms{Read: "$region =="}},
		} {
			c.Done = func(created bool, _ contexts.Ack, err error) {
				if created || !errors.Is(err, wire.ErrBadPayload) {
					t.Errorf("%s: %v, %v", name, created, err)
				}
			}
			ann.StartCreate(c)
		}
		ann.StartDestroy("nothing", func(err error) { wantCode(t, err, wire.BadName) })
		owner := map[bool]*app{true: ann, false: bob}[made["ann"]]
		ended := false
		owner.StartDestroy("x", func(err error) {
			if ended = true; err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		want(t, "", "x", ann, bob)
		if !ended {
			t.Error("StartDestroy has not ended")
		}
	})
}
