package contexts_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/wire"
)

// pair is two nodes with journals, an app on each and a second one on the first; ann's
// node can be taken off the fabric.
type pair struct {
	*hub
	a, b          *peer
	ann, amy, bob *app
}

func inPair(t *testing.T, policies string, f func(t *testing.T, x *pair)) {
	t.Helper()
	inHub(t, func(t *testing.T, h *hub) {
		h.journals = t.TempDir()
		for text := range strings.FieldsSeq(policies) {
			p, err := contexts.ParsePolicy(text)
			if err != nil {
				t.Fatal(err)
			}
			h.policies = append(h.policies, p)
		}
		x := &pair{hub: h, a: h.node("a"), b: h.node("b")}
		defer func() { x.a.stop() }()
		defer x.b.stop()
		x.ann, x.amy, x.bob = x.a.join("ann"), x.a.join("amy"), x.b.join("bob")
		f(t, x)
	})
}

// away takes ann's node off the fabric; within what time does not matter.
func (x *pair) away() {
	x.t.Helper()
	x.a.line.Cut()
	eventually(x.t, time.Second, "it is noticed", func() bool { return x.a.link.Online() != nil })
}

// back brings it back and waits until everything is merged.
func (x *pair) back() {
	x.t.Helper()
	x.a.line.Heal()
	x.merged()
}

func (x *pair) merged() {
	x.t.Helper()
	eventually(x.t, 15*time.Second, "everything is merged", func() bool { return x.a.link.Online() == nil && x.a.Stats().Waiting == 0 })
	time.Sleep(time.Second)
}

// compact writes to x on the node that is not away until it is compacted, and leaves it as
// it was.
func (x *pair) compact() {
	x.t.Helper()
	for i := range 300 {
		x.bob.update("x", object{fmt.Sprintf("k%d", i): 1})
		x.bob.update("x", object{fmt.Sprintf("k%d", i): nil})
	}
	time.Sleep(10 * time.Second)
	if x.b.Stats().Compactions == 0 {
		x.t.Error("no compaction")
	}
}

// journal is an update that has to be journalled at once.
func (a *app) journal(name string, v any) contexts.Ack {
	a.t.Helper()
	began := time.Now()
	ack, err := a.Update(a.t.Context(), name, v)
	if err != nil || !ack.Journalled || ack.ID == "" || ack.Revision != 0 || ack.String() != "journalled" {
		a.t.Fatalf("update %s: %+v, %v", name, ack, err)
	}
	if took := time.Since(began); took > 50*time.Millisecond {
		a.t.Errorf("update %s took %s", name, took)
	}
	return ack
}

// notices are those that an app sees, as text.
func (a *app) notices(name string) string {
	var list []string
	for _, n := range a.Overwritten(name) {
		for _, e := range n.Edits {
			list = append(list, fmt.Sprintf("%s.%s=%s %s", n.Context, strings.Join(e.Path, "."), e.Value, e.Why))
		}
	}
	return strings.Join(list, "; ")
}

func wantNotices(t *testing.T, want string, apps ...*app) {
	t.Helper()
	for _, a := range apps {
		if got := a.notices(""); got != want {
			t.Errorf("%s: notices %q, want %q", a.id, got, want)
		}
	}
}

func TestJournalled(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		x.ann.set("x", object{"a": 1, "o": object{"p": 1}})
		want(t, `{"a":1,"o":{"p":1}}`, "x", x.amy, x.bob)
		w, err := x.amy.Watch(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		x.away()
		x.ann.journal("x", object{"b": 2})
		x.amy.journal("x", object{"a": 3})
		x.ann.journal("x", object{"a": 4, "o": nil})
		want(t, `{"a":4,"b":2}`, "x", x.ann, x.amy)
		want(t, `{"a":1,"o":{"p":1}}`, "x", x.bob)
		if s, err := x.ann.Get(t.Context(), "x"); err != nil || !s.Pending || s.Since.IsZero() {
			t.Errorf("state: %+v, %v", s, err)
		}
		if st := x.a.Stats(); st.Journalled != 3 || st.Waiting != 2 { // amy's is superseded
			t.Errorf("stats: %+v", st)
		}
		x.back()
		want(t, `{"a":4,"b":2}`, "x", x.ann, x.amy, x.bob)
		wantNotices(t, "", x.ann, x.amy, x.bob)
		if s, err := x.ann.Get(t.Context(), "x"); err != nil || s.Pending || !s.Since.IsZero() {
			t.Errorf("state: %+v, %v", s, err)
		}
		if ack, err := x.ann.Update(t.Context(), "x", object{"b": 5}); err != nil || ack.Journalled || ack.Revision == 0 || ack.String() != "durable" {
			t.Errorf("after the return: %+v, %v", ack, err)
		}
		if n := x.a.book.Len(); n != 0 {
			t.Errorf("the journal has %d records", n)
		}
	})
}

// What others have written wins, path by path, and the writer is told once.
func TestRemoteWins(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		x.ann.set("x", object{"a": 1, "b": 1, "o": object{"p": 1, "q": 1}, "l": []int{1, 2}, "gone": 1})
		want(t, `{"a":1,"b":1,"gone":1,"l":[1,2],"o":{"p":1,"q":1}}`, "x", x.bob)
		x.away()
		ack := x.ann.journal("x", object{"a": 2, "b": 2, "new": 2})
		set := func(who *app, value any, path ...string) {
			t.Helper()
			if _, err := who.SetPath(t.Context(), "x", path, value); err != nil {
				t.Fatal(err)
			}
		}
		set(x.ann, 2, "o", "p")
		set(x.ann, 2, "o", "q")
		set(x.ann, 7, "l", "1")
		set(x.ann, nil, "gone")
		x.bob.update("x", object{"a": 3, "mine": 3})
		set(x.bob, 3, "o", "p")
		before := x.ann.get("x")
		x.back()
		want(t, `{"a":3,"b":2,"l":[1,7],"mine":3,"new":2,"o":{"p":3,"q":2}}`, "x", x.ann, x.amy, x.bob)
		wantNotices(t, "x.a=2 overwritten; x.o.p=2 overwritten", x.ann, x.amy)
		wantNotices(t, "", x.bob)
		if before != `{"a":2,"b":2,"l":[1,7],"new":2,"o":{"p":2,"q":2}}` {
			t.Errorf("while away: %s", before)
		}
		n := x.ann.Overwritten("x")
		if len(n) != 2 || n[0].ID != ack.ID || n[0].By.App != x.ann.id || n[0].Written.IsZero() || !n[0].Noticed.After(n[0].Written) {
			t.Errorf("notices: %+v", n)
		}
		if !x.ann.Dismiss(ack.ID) || x.ann.Dismiss(ack.ID) || len(x.amy.Overwritten("")) != 1 {
			t.Errorf("not dismissed: %+v", x.amy.Overwritten(""))
		}
	})
}

// Notices outlive the node, and who watches them gets those that come.
func TestNoticesStay(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		x.ann.set("x", object{"a": 1})
		seen := make(chan contexts.Overwritten, 10)
		go func() {
			for n := range x.amy.WatchOverwritten(t.Context()) {
				seen <- n
			}
		}()
		for i := range 2 {
			x.away()
			x.ann.journal("x", object{"a": 2})
			x.bob.update("x", object{"a": 3 + i})
			x.back()
			if n := <-seen; n.Context != "x" || len(n.Edits) != 1 {
				t.Errorf("got %+v", n)
			}
		}
		x.a.stop()
		x.a = x.node("a")
		wantNotices(t, "x.a=2 overwritten; x.a=2 overwritten", x.a.join("ann"))
	})
}

func TestPolicies(t *testing.T) {
	inPair(t, "orders*=reject-offline my-*=local-wins", func(t *testing.T, x *pair) {
		for _, name := range []string{"orders.eu", "my-x", "x"} {
			x.ann.set(name, object{"a": 1})
			want(t, `{"a":1}`, name, x.bob)
		}
		x.away()
		_, err := x.ann.Update(t.Context(), "orders.eu", object{"a": 2})
		wantCode(t, err, wire.Offline)
		want(t, `{"a":1}`, "orders.eu", x.ann, x.amy)
		_, err = x.ann.Update(t.Context(), "x", object{"a": 2}, contexts.IfRevision(1))
		wantCode(t, err, wire.Offline)
		for _, name := range []string{"my-x", "x"} {
			x.ann.journal(name, object{"a": 2})
			x.bob.update(name, object{"a": 3})
		}
		x.back()
		want(t, `{"a":2}`, "my-x", x.ann, x.bob)
		want(t, `{"a":3}`, "x", x.ann, x.bob)
		wantNotices(t, "x.a=2 overwritten", x.ann)
	})
}

func TestParsePolicy(t *testing.T) {
	for text, want := range map[string]contexts.Policy{
		"*=local-wins":        {Pattern: "*", Outage: contexts.LocalWins},
		"a=b*=reject-offline": {Pattern: "a=b*", Outage: contexts.RejectOffline},
		"x=remote-wins":       {Pattern: "x", Outage: contexts.RemoteWins},
	} {
		if p, err := contexts.ParsePolicy(text); err != nil || p != want {
			t.Errorf("%s: %+v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "x", "=local-wins", "x=never"} {
		if _, err := contexts.ParsePolicy(text); !errors.Is(err, wire.ErrBadPayload) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func edits(list ...kv.Edit) func(*kv.Value) ([]kv.Edit, error) {
	return func(*kv.Value) ([]kv.Edit, error) { return list, nil }
}

// A write that had landed before the connection broke is not made again, not reported as
// overwritten, and no reason to drop what came after it.
func TestLandedBeforeTheCut(t *testing.T) {
	for _, late := range []string{"nothing", "overwritten", "compacted"} {
		t.Run(late, func(t *testing.T) {
			inPair(t, "", func(t *testing.T, x *pair) {
				x.ann.set("x", object{"a": 1, "b": 1})
				want(t, `{"a":1,"b":1}`, "x", x.bob)
				x.a.line.Drop(func(subject string) bool { return strings.HasPrefix(subject, "_") || strings.Contains(subject, ".kv.") })
				acks := make(chan contexts.Ack, 2)
				for i := range 2 { // the second waits for the first
					x.ann.Start(contexts.Write{Name: "x", Edit: edits(put(t, "a", fmt.Sprint(i+2))), Done: func(ack contexts.Ack, err error) {
						if err != nil {
							t.Error(err)
						}
						acks <- ack
					}})
					synctest.Wait()
				}
				eventually(t, time.Second, "it has landed", func() bool { return x.bob.get("x") == `{"a":2,"b":1}` })
				x.away()
				for range 2 {
					if ack := <-acks; !ack.Journalled {
						t.Errorf("got %+v", ack)
					}
				}
				x.ann.journal("x", object{"b": 4})
				x.a.line.Drop(nil)
				final, notices := `{"a":3,"b":4}`, ""
				switch late {
				case "overwritten":
					x.bob.update("x", object{"a": 9})
					final, notices = `{"a":9,"b":4}`, "x.a=3 overwritten"
				case "compacted":
					x.compact()
				}
				x.back()
				want(t, final, "x", x.ann, x.amy, x.bob)
				wantNotices(t, notices, x.ann)
				if st := x.a.Stats(); st.Waiting != 0 || x.a.book.Len() != strings.Count(notices, ".") {
					t.Errorf("%+v, %d records", st, x.a.book.Len())
				}
			})
		})
	}
}

// kill -9 while offline, also a second time, loses nothing.
func TestRestartWhileAway(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		x.ann.set("x", object{"a": 1, "b": 1})
		want(t, `{"a":1,"b":1}`, "x", x.bob)
		x.away()
		time.Sleep(3 * time.Second) // what was never read is waited for so long
		x.ann.journal("x", object{"a": 2})
		x.ann.journal("y", object{"new": 1})
		made, ack, err := x.ann.Create(t.Context(), "z", object{"z": 1})
		if err != nil || !made || !ack.Journalled {
			t.Fatalf("%v %+v %v", made, ack, err)
		}
		for range 2 {
			x.a.stop()
			x.a = x.open("a")
			x.ann = x.a.join("ann")
			time.Sleep(3 * time.Second)
			// What was there before is not known any more, what was written is.
			want(t, `{"a":2}`, "x", x.ann)
			want(t, `{"new":1}`, "y", x.ann)
			want(t, `{"z":1}`, "z", x.ann)
			names, err := x.ann.Names(t.Context())
			if err != nil || !slices.Equal(names, []string{"x", "y", "z"}) {
				t.Errorf("names: %q, %v", names, err)
			}
		}
		x.back()
		want(t, `{"a":2,"b":1}`, "x", x.ann, x.bob)
		want(t, `{"new":1}`, "y", x.ann, x.bob)
		want(t, `{"z":1}`, "z", x.ann, x.bob)
		wantNotices(t, "", x.ann)
	})
}

// After a restart only the history knows what the context was when it was written: a
// compaction meanwhile is no reason to drop what nobody else has written to.
func TestRestartAndCompaction(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		x.ann.set("x", object{"a": 1, "b": 1})
		want(t, `{"a":1,"b":1}`, "x", x.bob)
		x.away()
		x.ann.journal("x", object{"a": 2})
		x.ann.journal("x", object{"b": 2})
		x.a.stop()
		for i := range 300 {
			x.bob.update("x", object{"b": i, fmt.Sprintf("k%d", i): 1})
			x.bob.update("x", object{fmt.Sprintf("k%d", i): nil})
		}
		time.Sleep(10 * time.Second)
		if x.b.Stats().Compactions == 0 {
			t.Error("no compaction")
		}
		x.a = x.open("a")
		x.ann = x.a.join("ann")
		x.back()
		want(t, `{"a":2,"b":299}`, "x", x.ann, x.bob)
		wantNotices(t, "x.b=2 overwritten", x.ann)
	})
}

// TestRemoteWinsAfterCompaction: somebody has replaced the object by one that has nothing at a
// path, as before, and a compaction has taken that away. The history tells.
func TestRemoteWinsAfterCompaction(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		x.ann.set("x", object{"a": 1})
		want(t, `{"a":1}`, "x", x.bob)
		x.away()
		x.ann.journal("x", object{"t": 1})
		x.bob.set("x", object{"a": 2})
		x.compact()
		x.back()
		want(t, `{"a":2}`, "x", x.ann, x.bob)
		wantNotices(t, "x.t=1 overwritten", x.ann)
	})
}

// A node that has never seen the fabric works, and adds what it has when it does.
func TestStartAway(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		x.bob.set("x", object{"a": 1, "o": object{"p": 1}})
		x.bob.set("y", object{"a": 1})
		x.a.kill()
		x.a = x.open("a")
		if err := x.a.Suppose([]contexts.Seed{{Name: "red", Object: object{"name": "Red"}}}); err != nil {
			t.Fatal(err)
		}
		x.ann = x.a.join("ann")
		x.amy = x.a.join("amy")
		log := x.amy.names()
		want(t, "", "x", x.ann)
		want(t, `{"name":"Red"}`, "red", x.ann)
		x.ann.journal("x", object{"a": 2, "b": 2})
		x.ann.journal("x", object{"o": object{"p": 1}})
		x.ann.journal("red", object{"data": 1})
		if _, err := x.ann.Set(t.Context(), "new", object{"n": 1}); err != nil {
			t.Fatal(err)
		}
		want(t, `{"a":2,"b":2,"o":{"p":1}}`, "x", x.ann, x.amy)
		want(t, `{"data":1,"name":"Red"}`, "red", x.amy)
		_, err := x.ann.RemovePath(t.Context(), "y", []string{"a"})
		wantCode(t, err, wire.BadName)
		names := func() string {
			var list []string
			for _, e := range log.take() {
				list = append(list, e.Kind.String()+" "+e.Name)
			}
			return strings.Join(list, ", ")
		}
		if got := names(); got != "created red, created x, created new" {
			t.Errorf("names: %s", got)
		}
		x.back()
		want(t, `{"a":1,"b":2,"o":{"p":1}}`, "x", x.ann, x.bob)
		want(t, `{"data":1,"name":"Red"}`, "red", x.ann, x.bob)
		want(t, `{"n":1}`, "new", x.ann, x.bob)
		want(t, `{"a":1}`, "y", x.ann)
		wantNotices(t, "x.a=2 overwritten", x.ann)
		if got := names(); got != "created y" {
			t.Errorf("names after the return: %s", got)
		}
	})
}

// Contexts end and begin while the node is away, here and there.
func TestEndsWhileAway(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		for _, name := range []string{"here", "both", "there", "back"} {
			x.ann.set(name, object{"a": 1})
			want(t, `{"a":1}`, name, x.bob)
		}
		log := x.amy.names()
		log.take()
		x.away()
		destroy := func(who *app, names ...string) {
			t.Helper()
			for _, name := range names {
				if ack, err := who.Destroy(t.Context(), name); err != nil || ack.Journalled != (who == x.ann) {
					t.Fatalf("%+v, %v", ack, err)
				}
			}
		}
		destroy(x.ann, "here", "both", "back")
		destroy(x.bob, "there")
		x.ann.journal("there", object{"b": 2})
		x.bob.update("both", object{"b": 2})
		if made, _, err := x.ann.Create(t.Context(), "back", object{"b": 1}); !made || err != nil {
			t.Fatal(made, err)
		}
		if made, _, err := x.ann.Create(t.Context(), "new", object{"b": 1}); !made || err != nil {
			t.Fatal(made, err)
		}
		if made, _, err := x.bob.Create(t.Context(), "new", object{"b": 2}); !made || err != nil {
			t.Fatal(made, err)
		}
		names, err := x.ann.Names(t.Context())
		if err != nil || !slices.Equal(names, []string{"back", "new", "there"}) {
			t.Errorf("names: %q, %v", names, err)
		}
		x.back()
		want(t, "", "here", x.ann, x.bob)
		want(t, `{"a":1,"b":2}`, "both", x.ann, x.bob)
		want(t, "", "there", x.ann, x.bob)
		want(t, `{"b":1}`, "back", x.ann, x.bob)
		want(t, `{"b":2}`, "new", x.ann, x.bob)
		for _, n := range []string{"both.= overwritten", `new.={"b":1} overwritten`, "there.b=2 overwritten"} {
			if got := x.ann.notices(""); !strings.Contains(got, n) {
				t.Errorf("notices: %q, want %q", got, n)
			}
		}
		if n := len(x.ann.Overwritten("")); n != 3 {
			t.Errorf("%d notices: %q", n, x.ann.notices(""))
		}
		log.take()
	})
}

// A network that swallows everything is no worse than one that refuses.
func TestSilentNetwork(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		x.ann.set("x", object{"a": 1})
		want(t, `{"a":1}`, "x", x.bob)
		x.a.line.Silence()
		began := time.Now()
		ack, err := x.ann.Update(t.Context(), "x", object{"a": 2})
		if err != nil || !ack.Journalled {
			t.Fatalf("%+v, %v", ack, err)
		}
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("it took %s to notice", took)
		}
		want(t, `{"a":2}`, "x", x.amy)
		x.ann.journal("x", object{"b": 2})
		time.Sleep(time.Minute)
		x.back()
		want(t, `{"a":2,"b":2}`, "x", x.ann, x.bob)
		wantNotices(t, "", x.ann)
	})
}

// A write that stands still on its way does not come after the merge.
func TestLateArrival(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		x.ann.set("x", object{"a": 1})
		want(t, `{"a":1}`, "x", x.bob)
		resume := x.a.line.Hold() // of what is sent on the connections there are
		ack, err := x.ann.Update(t.Context(), "x", object{"a": 2})
		if err != nil {
			t.Fatalf("%+v, %v", ack, err)
		}
		x.merged()
		x.bob.update("x", object{"a": 3})
		want(t, `{"a":3}`, "x", x.ann, x.amy, x.bob)
		resume()
		time.Sleep(2 * time.Second)
		want(t, `{"a":3}`, "x", x.ann, x.amy, x.bob)
	})
}

// A full journal refuses what it has no room for, and shows it to nobody.
func TestJournalIsFull(t *testing.T) {
	inPair(t, "", func(t *testing.T, x *pair) {
		x.ann.set("x", object{"a": 1})
		x.away()
		big := strings.Repeat("x", 20<<10)
		n := 0
		var err error
		for ; n < 10 && err == nil; n++ {
			_, err = x.ann.Update(t.Context(), "x", object{fmt.Sprintf("k%d", n): big})
		}
		wantCode(t, err, wire.StorageFull)
		if n != 4 {
			t.Errorf("%d writes of 20 KiB in 64 KiB", n-1)
		}
		s, err := x.amy.Get(t.Context(), "x")
		if err != nil || len(s.View().Members()) != n {
			t.Errorf("%d members, %v", len(s.View().Members()), err)
		}
		x.ann.journal("x", object{"k0": "small"})
		x.ann.journal("x", object{"more": big})
		x.back()
		if s, err = x.bob.Get(t.Context(), "x"); err != nil || len(s.View().Members()) != n+1 {
			t.Errorf("%d members, %v", len(s.View().Members()), err)
		}
	})
}

// Without a journal nothing is written while the fabric is away.
func TestNoJournal(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.stop()
		ann := a.join("ann")
		ann.set("x", object{"a": 1})
		a.line.Cut()
		synctest.Wait()
		_, err := ann.Update(t.Context(), "x", object{"a": 2})
		wantCode(t, err, wire.Offline)
		want(t, `{"a":1}`, "x", ann)
		want(t, "offline", "y", ann)
	})
}
