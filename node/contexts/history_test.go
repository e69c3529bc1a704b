package contexts_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/wire"
)

// history is what an app is told of x, an entry a line.
func (a *app) history(q contexts.HistoryQuery) []string {
	a.t.Helper()
	h, err := a.History(a.t.Context(), "x", q)
	if err != nil {
		return []string{string(wire.CodeOf(err))}
	}
	var list []string
	for _, e := range h.Entries {
		line := fmt.Sprint(e.Kind, " ", e.Who.Application)
		if e.Kind == contexts.HistoryGap {
			line = fmt.Sprint("gap ", e.Missing)
		}
		for _, c := range e.Changes {
			value := "gone"
			if !c.Value.IsZero() {
				value = c.Value.String()
			}
			line += " " + strings.Join(c.Path, ".") + "=" + value
		}
		list = append(list, line)
	}
	if h.More {
		list = append(list, "more")
	}
	return list
}

// TestHistory: who did what, in order, in pages, by path and by time.
func TestHistory(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		synctest.Wait()
		time.Sleep(time.Second)
		ann.create("x", object{"a": 1}, contexts.Terms{})
		bob.update("x", object{"b": object{"c": 1}, "a": nil})
		time.Sleep(time.Hour)
		noon := time.Now()
		time.Sleep(time.Second)
		if _, err := ann.SetPath(t.Context(), "x", []string{"b", "d"}, []int{1, 2}); err != nil {
			t.Fatal(err)
		}
		if _, err := bob.SetPath(t.Context(), "x", []string{"b", "d", "0"}, 7); err != nil { // no key of its own
			t.Fatal(err)
		}
		nc := h.client()
		defer nc.Close()
		for _, body := range []string{`"f"`, `{`} {
			if err := nc.Publish("$KV.weft_desk_ctx.x.f", []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if _, err := ann.Destroy(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		bob.set("x", object{"again": true})
		all := []string{
			`created ann ={"a":1}`, `changed bob a=gone b={"c":1}`, `changed ann b.d=[1,2]`, `changed bob b.d=[7,2]`,
			`changed  f="f"`, `unreadable `, `destroyed ann`, `created bob ={"again":true}`,
		}
		wantTexts(t, ann.history(contexts.HistoryQuery{}), all...)
		wantTexts(t, bob.history(contexts.HistoryQuery{Since: noon}), all[2:]...)
		wantTexts(t, bob.history(contexts.HistoryQuery{Until: noon}), all[:2]...)
		wantTexts(t, bob.history(contexts.HistoryQuery{Since: noon.Add(time.Hour)}))
		wantTexts(t, bob.history(contexts.HistoryQuery{Until: noon.Add(-2 * time.Hour)}))
		wantTexts(t, bob.history(contexts.HistoryQuery{Path: []string{"b", "c"}}), all[0], `changed bob b={"c":1}`, all[5], all[6], all[7])
		wantTexts(t, bob.history(contexts.HistoryQuery{Path: []string{"b", "c"}, Limit: 4}), `changed bob b={"c":1}`, all[5], all[6], all[7], "more")
		for size := 1; size <= 4; size++ {
			var pages []string
			for before := uint64(0); ; {
				p, err := ann.History(t.Context(), "x", contexts.HistoryQuery{Limit: size, Before: before})
				if err != nil {
					t.Fatal(err)
				}
				lines := ann.history(contexts.HistoryQuery{Limit: size, Before: before})
				if p.More {
					lines = lines[:len(lines)-1]
				}
				pages = append(lines, pages...)
				if !p.More {
					break
				}
				before = p.Entries[0].From
			}
			wantTexts(t, pages, all...)
		}
		list, err := ann.History(t.Context(), "x", contexts.HistoryQuery{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		e := list.Entries[0]
		if e.By != (contexts.Writer{App: bob.id, Node: "b"}) || e.Who != (kv.Who{Application: "bob", User: "user", Machine: "machine-b"}) {
			t.Errorf("by %+v, %+v", e.By, e.Who)
		}
		if since := time.Since(e.Time); since < 0 || since > time.Second {
			t.Errorf("it was %s ago", since)
		}
		p, err := ann.At(t.Context(), "x", e.Sequence)
		if err != nil || text(t, p.Object) != `{"again":true}` || !p.Time.Equal(e.Time) {
			t.Errorf("got %+v, %v", p, err)
		}
		_, err = ann.History(t.Context(), "x", contexts.HistoryQuery{Limit: contexts.MaxHistory + 1})
		wantCode(t, err, wire.Limit)
	})
}

// TestHistoryOfSeveral: what several apps want goes together, and says of each part
// whose it is.
func TestHistoryOfSeveral(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.stop()
		ann, bob := a.join("ann"), a.join("bob")
		ann.set("x", object{})
		resume := a.line.Stall()
		ann.Start(ann.write("x", &outcomes{}, put(t, "first", "1")))
		ann.Start(ann.write("x", &outcomes{}, put(t, "a", "1")))
		bob.Start(bob.write("x", &outcomes{}, put(t, "b", "1")))
		bob.leave()
		resume()
		time.Sleep(time.Second)
		wantTexts(t, ann.history(contexts.HistoryQuery{}), "created ann ={}", "changed ann first=1 a=1", "changed bob b=1")
	})
}

// TestHistoryPermissions: the past is held to the permissions of now and of then.
func TestHistoryPermissions(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		ann.set("other", object{})
		ann.create("x", object{"secret": 1}, contexts.Terms{Read: "$nobody", Write: "$nobody"})
		secret := ann.update("x", object{"secret": 2})
		synctest.Wait()
		for _, who := range []string{"while it is there", "after its end", "after another beginning"} {
			switch who {
			case "after its end":
				if _, err := ann.Destroy(t.Context(), "x"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Minute)
			case "after another beginning":
				bob.set("x", object{"open": 1})
			}
			synctest.Wait()
			if got := bob.at(secret); got != "denied" {
				t.Errorf("%s: at: %s", who, got)
			}
			if got := strings.Join(bob.history(contexts.HistoryQuery{}), " "); strings.Contains(got, "secret") {
				t.Errorf("%s: history: %s", who, got)
			}
			if _, err := bob.Revert(t.Context(), "x", secret); wire.CodeOf(err) != wire.Denied {
				t.Errorf("%s: revert: %v", who, err)
			}
			if got := ann.at(secret); got != `{"secret":2}` {
				t.Errorf("%s: its creator gets %s", who, got)
			}
		}
		wantTexts(t, bob.history(contexts.HistoryQuery{}), `created bob ={"open":1}`)
	})
}

// TestRevert: what was there is written once more.
func TestRevert(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		was := ann.set("x", object{"a": 1, "o": object{"p": 1}})
		newer := ann.update("x", object{"a": 2, "b": 3})
		ack, err := bob.Revert(t.Context(), "x", was)
		if err != nil || ack.Revision <= newer {
			t.Fatal(ack, err)
		}
		want(t, `{"a":1,"o":{"p":1}}`, "x", ann, bob)
		wantAt(t, ann, newer, `{"a":2,"b":3,"o":{"p":1}}`)
		if _, err := bob.Revert(t.Context(), "x", newer, contexts.IfRevision(newer)); wire.CodeOf(err) != wire.BadRevision {
			t.Errorf("on a condition: %v", err)
		}
		for name, code := range map[string]wire.Code{"x": wire.BadName, "": wire.BadName} {
			_, err = bob.Revert(t.Context(), name, was-1)
			wantCode(t, err, code)
		}
		if _, err := ann.Destroy(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := bob.Revert(t.Context(), "x", newer); err != nil {
			t.Fatal(err)
		}
		want(t, `{"a":2,"b":3,"o":{"p":1}}`, "x", ann, bob)
	})
}

// pauseHistory makes the history record nothing until the returned function is called.
// It keeps for ever, because the server's store compares the time of a bubble with that
// of the world.
func (h *hub) pauseHistory() (resume func()) {
	h.t.Helper()
	update := func(sources bool) {
		h.t.Helper()
		nc := h.client()
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			h.t.Fatal(err)
		}
		c := kv.HistoryConfig(realm, 1)
		c.MaxAge = 0
		if !sources {
			c.Sources = nil
		}
		if _, err := js.UpdateStream(h.t.Context(), c); err != nil {
			h.t.Fatal(err)
		}
	}
	update(false)
	return func() { update(true) }
}

// TestCompactionWaits: nothing is compacted that the history has not got, and an app
// that ends a context does not wait for ever; what is lost by that is told.
func TestCompactionWaits(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.stop()
		ann := a.join("ann")
		h.pauseHistory()()
		time.Sleep(time.Second)
		ann.set("x", object{})
		ann.set("y", object{})
		time.Sleep(time.Second)
		resume := h.pauseHistory()
		many := object{}
		for i := range 150 {
			many[fmt.Sprint("k", i)] = i
		}
		ann.update("x", many)
		for i := range 150 {
			many[fmt.Sprint("l", i)] = i
		}
		last := ann.update("x", many)
		was := ann.get("x")
		time.Sleep(20 * time.Second)
		if st := a.Stats(); st.Compactions > 0 || st.Unrecorded == 0 {
			t.Errorf("%d compactions, %d put off", st.Compactions, st.Unrecorded)
		}
		lost := ann.update("y", object{"a": 1})
		began, unrecorded := time.Now(), a.Stats().Unrecorded
		if _, err := ann.Destroy(t.Context(), "y"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 5*time.Second || a.Stats().Unrecorded == unrecorded {
			t.Errorf("the end took %s, %d", took, a.Stats().Unrecorded-unrecorded)
		}
		resume()
		time.Sleep(time.Minute)
		ann.update("x", object{"more": 1})
		time.Sleep(10 * time.Second)
		if a.Stats().Compactions == 0 {
			t.Error("nothing was compacted")
		}
		wantAt(t, ann, last, was)
		p, err := ann.At(t.Context(), "y", lost)
		if got := ann.pastText(p, err); got != "unknown" {
			t.Errorf("what was lost is %s", got)
		}
		if got := ann.history(contexts.HistoryQuery{}); !strings.Contains(strings.Join(got, "\n"), "gap ") {
			t.Errorf("no gap: %q", got)
		}
	})
}

// TestCheckpoint: who writes to a context after a day leaves in the history what it was
// until then, so that its past is known when what it was made of has run out.
func TestCheckpoint(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		nc := h.client()
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		anew := func(age time.Duration, from uint64) {
			t.Helper()
			if err := js.DeleteStream(t.Context(), "weft_desk_history"); err != nil {
				t.Fatal(err)
			}
			c := kv.HistoryConfig(realm, 1)
			c.MaxAge, c.Sources[0].OptStartSeq = age, from
			if _, err := js.CreateStream(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		anew(4*time.Hour, 0) // an eighth of it is less than a day
		a := h.node("a")
		defer a.stop()
		ann := a.join("ann")
		ann.set("x", object{"a": 1})
		old := ann.update("x", object{"b": 2})
		time.Sleep(time.Hour)
		newer := ann.update("x", object{"c": 3})
		newest := ann.update("x", object{"b": nil})
		if newer != old+3 {
			t.Fatalf("%d after %d: there is no checkpoint", newer, old)
		}
		anew(0, old+1)                  // what was written before has run out
		ann.update("x", object{"c": 4}) // the present says nothing of it any more
		wantAt(t, ann, newest, `{"a":1,"c":3}`)
		wantAt(t, ann, newer, `{"a":1,"b":2,"c":3}`)
		wantAt(t, ann, old, `{"a":1,"b":2}`)
		wantAt(t, ann, old-1, "unknown")
		if got := ann.history(contexts.HistoryQuery{}); got[0] != fmt.Sprint("gap ", old) {
			t.Errorf("got %q", got)
		}
	})
}
