package contexts_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/wire"
)

// polled is a watch that is polled, and how often it was woken.
type polled struct {
	*contexts.Watch
	woken atomic.Int64
}

func (a *app) poll(name string) *polled {
	a.t.Helper()
	p := &polled{}
	w, err := a.WatchFunc(name, func() { p.woken.Add(1) })
	if err != nil {
		a.t.Fatal(err)
	}
	p.Watch = w
	return p
}

// events is what waits.
func (p *polled) events() (list []contexts.Event) {
	synctest.Wait()
	for {
		e, ok := p.Poll()
		if !ok {
			return list
		}
		list = append(list, e)
	}
}

// kinds is what waits: the kind of each event and its edits.
func (p *polled) kinds(t *testing.T) (list []string) {
	t.Helper()
	for _, e := range p.events() {
		list = append(list, strings.TrimSpace(e.Kind.String()+" "+editsOf(t, e.Edits)))
	}
	return list
}

// TestWatchFunc: nothing comes without a wake.
func TestWatchFunc(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		w := bob.poll("x")
		defer w.Close()
		if _, ok := w.Poll(); ok {
			t.Error("an event before the snapshot was read")
		}
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			woken := w.woken.Swap(0)
			wantTexts(t, w.kinds(t), want...)
			if woken == 0 && len(want) > 0 {
				t.Errorf("not woken for %q", want)
			}
		}
		expect("snapshot")
		ann.set("x", object{"a": 1})
		expect(`created ={"a":1}`)
		ann.update("x", object{"b": 2, "a": nil})
		expect(`changed a= b=2`)
		bob.update("x", object{"c": 3})
		expect(`changed c=3`)
		ann.update("x", object{"c": 3})
		expect()
		b.line.Cut()
		time.Sleep(time.Second)
		expect("offline")
		b.line.Heal()
		time.Sleep(20 * time.Second)
		expect("online")
		if _, err := ann.Destroy(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		expect("destroyed")
		w.Close()
		ann.set("x", object{})
		expect()

		// A watch of what is known is woken before WatchFunc returns.
		late := bob.poll("x")
		if late.woken.Load() == 0 {
			t.Error("not woken for the snapshot")
		}
		bob.leave() // which ends what it watches
		late.events()
		ann.update("x", object{"d": 4})
		if got := late.events(); len(got) > 0 {
			t.Errorf("after its app has left: %v", got)
		}
	})
}

// TestWatchEdits: the hint of what was written gives the value of the event,
// whenever there is one, whoever writes what; and there is one for every write of a
// single operation.
func TestWatchEdits(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		ann.set("x", object{"l": []int{1, 2}, "o": object{"p": object{"q": 1}, "l": []object{{}, {}}}})
		near, far := ann.poll("x"), bob.poll("x")
		defer near.Close()
		defer far.Close()
		near.events()
		far.events()
		for _, c := range []struct {
			write     func() error
			near, far string // the events and their edits
		}{
			{func() error { _, err := ann.Update(t.Context(), "x", object{"a": 1, "b": 2}); return err }, "changed a=1 b=2", "changed a=1 b=2"},
			{func() error { _, err := ann.SetPath(t.Context(), "x", []string{"o", "p", "r"}, 5); return err }, "changed o.p.r=5", "changed o.p.r=5"},
			{func() error {
				_, err := ann.SetPaths(t.Context(), "x", []contexts.PathValue{{Path: []string{"n"}, Value: object{}}, {Path: []string{"n", "m"}, Value: 1}, {Path: []string{"a"}}})
				return err
			}, "changed n={} n.m=1 a=", "changed n={} n.m=1 a="},
			{func() error { _, err := ann.RemovePath(t.Context(), "x", []string{"o", "p", "q"}); return err }, "changed o.p.q=", "changed o.p.q="},
			// Through an array, or on a condition: the value that holds it is written.
			{func() error { _, err := ann.SetPath(t.Context(), "x", []string{"l", "2"}, 3); return err }, "changed l.2=3", "changed"},
			{func() error {
				_, err := ann.Update(t.Context(), "x", object{"b": 3}, contexts.IfRevision(1<<40))
				return err
			}, "changed b=3", "changed"},
			{func() error { _, err := ann.Set(t.Context(), "x", object{"s": 1}); return err }, `changed ={"s":1}`, `changed ={"s":1}`},
			// A foreign writer's number is the name of a key, an app's an element.
			{func() error { ann.set("x", object{"l": []int{1}}); return nil }, `changed ={"l":[1]}`, `changed ={"l":[1]}`},
			{func() error { return h.foreign("x.s", `5`) }, "changed s=5", "changed s=5"},
			{func() error { return h.foreign("x.l.0", `5`) }, "changed", "changed"},
			{func() error { _, err := ann.Destroy(t.Context(), "x"); return err }, "destroyed", "destroyed"},
			{func() error {
				_, _, err := ann.CreateWith(t.Context(), "x", object{"n": 1}, contexts.Terms{Read: "#application"})
				return err
			}, `created ={"n":1}`, `created ={"n":1}`},
		} {
			if err := c.write(); err != nil {
				t.Fatalf("%s: %v", c.near, err)
			}
			for w, want := range map[*polled]string{near: c.near, far: c.far} {
				if got := w.kinds(t); !slices.Equal(got, []string{want}) {
					t.Errorf("near: %v: got %q, want %q", w == near, got, want)
				}
			}
		}
	})
}

// TestWatchEditsSlow: a reader that was too slow gets no edits for what it missed.
func TestWatchEditsSlow(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.stop()
		ann := a.join("ann")
		ann.set("x", object{})
		w := ann.poll("x")
		defer w.Close()
		w.events()
		for i := range wire.WatchStates + 10 {
			ann.update("x", object{fmt.Sprint("k", i): i})
		}
		last, conflated := kv.Object(), 0
		for _, e := range w.events() {
			conflated += e.Conflated
			if now, err := last.Edited(e.Edits); e.Edits != nil && (err != nil || !now.Equal(e.View())) {
				t.Fatalf("%s of %s is not %s: %v", editsOf(t, e.Edits), text(t, last), text(t, e.View()), err)
			}
			last = e.View()
		}
		if conflated == 0 || len(last.Members()) != wire.WatchStates+10 {
			t.Errorf("%d were left out, and the end is %s", conflated, text(t, last))
		}
	})
}

// foreign puts JSON at a key as a plain NATS client.
func (h *hub) foreign(key, json string) error {
	nc := h.client()
	defer nc.Close()
	_, err := nc.Request("$KV.weft_desk_ctx."+key, []byte(json), time.Minute)
	return err
}

// TestWatchEditsAlwaysLead lets apps of two nodes write at random, also at the same
// time and while one is cut off: edits that an event has make its value.
func TestWatchEditsAlwaysLead(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, amy, bob := a.join("ann"), a.join("amy"), b.join("bob")
		random := rand.New(rand.NewPCG(1, 2))
		paths := []string{"a", "b", "a.c", "a.c.d", "b.0", "b.1", "l", "l.0", "l.1", "l.0.x", ""}
		values := []string{`1`, `{}`, `[]`, `[{"x":1},2]`, `{"c":{"d":2},"e":3}`, `"s"`, ``}
		ann.set("x", object{})
		watches := []*polled{ann.poll("x"), bob.poll("x")}
		last := make([]*kv.Value, len(watches))
		hints, events := 0, 0
		look := func() {
			t.Helper()
			for i, w := range watches {
				for _, e := range w.events() {
					events++
					if e.Edits != nil {
						hints++
						now, err := last[i].Edited(e.Edits)
						if err != nil || !now.Equal(e.View()) {
							t.Fatalf("%s of %s is not %s: %v", editsOf(t, e.Edits), text(t, last[i]), text(t, e.View()), err)
						}
					}
					last[i] = e.View()
				}
			}
		}
		for range 200 {
			var wg sync.WaitGroup
			var drop int
			if random.IntN(20) == 0 {
				drop = random.IntN(4)
				b.line.Drop(func(subject string) bool {
					drop--
					return strings.HasPrefix(subject, "weft.desk.kv.ctx.x") && drop == 0
				})
			}
			for _, who := range []*app{ann, amy, bob} {
				if random.IntN(2) == 0 {
					continue
				}
				var edits []kv.Edit
				for range 1 + random.IntN(3) {
					path, value := paths[random.IntN(len(paths))], values[random.IntN(len(values))]
					if path == "" {
						value = `{"l":[1]}`
					}
					edits = append(edits, put(t, path, value))
				}
				wg.Add(1)
				who.Start(contexts.Write{
					Name: "x", Edit: func(*kv.Value) ([]kv.Edit, error) { return edits, nil },
					Done: func(_ contexts.Ack, err error) {
						if err != nil && wire.CodeOf(err) != wire.BadPayload { // no such element
							t.Error(err)
						}
						wg.Done()
					},
				})
			}
			if random.IntN(4) == 0 {
				look()
			}
			wg.Wait()
			look()
			b.line.Drop(nil)
		}
		time.Sleep(15 * time.Second)
		look()
		if !last[0].Equal(last[1]) {
			t.Errorf("the ends differ: %s, %s", text(t, last[0]), text(t, last[1]))
		}
		if hints*3 < events {
			t.Errorf("%d hints in %d events", hints, events)
		}
		t.Log(fmt.Sprint(hints, " hints in ", events, " events"))
	})
}
