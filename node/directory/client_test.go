package directory_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// client adds a gateway client.
func (m *member) client(name string, domains map[string]string) subjects.App {
	m.t.Helper()
	m.apps++
	id := subjects.NewApp(m.boot, uint64(m.apps))
	err := m.AddApp(id, wire.Identity{
		Application: name, App: string(id), Node: string(m.id), User: "the login", OSUser: "user-" + string(m.id), Machine: "machine-" + string(m.id),
		Extra: `{"desk":"FX"}`,
	}, domains)
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

// finds returns an app as a directory has it.
func finds(t *testing.T, m *member, id subjects.App) *directory.App {
	t.Helper()
	synctest.Wait()
	a, ok := m.App(id)
	if !ok {
		t.Fatalf("node %s does not have app %s", m.id, id)
	}
	return a
}

// TestStampedClients: of a gateway client User is its claim; who runs its node,
// and on which machine, is not.
func TestStampedClients(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, c := fb.join("a"), fb.client()
		doc := document("r", "bootr", 3)
		for i := range doc.Apps {
			id := &doc.Apps[i].Identity
			id.User, id.OSUser, id.Machine, id.Node, id.PID = "user-a", "user-a", "machine-a", "a", 7
		}
		doc.Apps[1].Domains = map[string]string{"global": ""}
		doc.Apps[2].Domains = map[string]string{"interop": "x"}
		c.write(doc)
		a.sees(time.Second, "a", "r", "r/app0", "r/app1", "r/app2")
		for i, user := range []string{"u", "user-a", "user-a"} {
			app := finds(t, a, subjects.NewApp("bootr", uint64(i+1)))
			want := wire.Identity{Application: fmt.Sprint("app", i), App: string(app.ID), User: user, OSUser: "u", Machine: "m", Node: "r", PID: 7}
			if app.Identity != want || app.Node != "r" || app.SameMachine || app.Local {
				t.Errorf("app %d is %+v, want %+v", i, app, want)
			}
		}
	})
}

// TestClientsTravel: another node sees what a client is, which domains it has
// joined and which contexts it holds, each change of it, and nothing else.
func TestClientsTravel(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		given := map[string]string{"global": "", "interop": "$desk == 'FX'"}
		id, plain := a.client("client", given), a.app("plain", "M")
		given["global"] = "changed by the caller"
		all := []string{"a", "a/client", "a/plain", "a/plain/M", "b"}
		b.sees(time.Second, all...)
		want := func(domains map[string]string, holds ...string) {
			t.Helper()
			if err := a.Settle(within(t, time.Second)); err != nil {
				t.Fatal(err)
			}
			for _, m := range []*member{a, b} {
				got := finds(t, m, id)
				if !maps.Equal(got.Domains, domains) || !slices.Equal(got.Holds, holds) {
					t.Errorf("node %s has domains %v and holds %q, want %v and %q", m.id, got.Domains, got.Holds, domains, holds)
				}
				if got.Identity.User != "the login" || got.Identity.OSUser != "user-a" || got.Identity.Extra != `{"desk":"FX"}` || got.Identity.Machine != "machine-a" {
					t.Errorf("node %s has %+v", m.id, got.Identity)
				}
				if other := finds(t, m, plain); other.Domains != nil || other.Holds != nil || other.Identity.User != "user-a" {
					t.Errorf("node %s has %+v, which is no client", m.id, other)
				}
			}
		}
		want(map[string]string{"global": "", "interop": "$desk == 'FX'"})
		for _, holds := range [][]string{{"one"}, {"one", "two"}, {"two", "one"}, {strings.Repeat("x", 255)}, nil} {
			changed := b.Changed()
			given := slices.Clone(holds)
			if err := a.SetHolds(id, given); err != nil {
				t.Fatal(err)
			}
			if len(given) > 0 {
				given[0] = "changed by the caller"
			}
			want(map[string]string{"global": "", "interop": "$desk == 'FX'"}, holds...)
			select {
			case <-changed:
			default:
				t.Errorf("holds %q are no change of the view", holds)
			}
		}
		for _, domains := range []map[string]string{{"global": ""}, {"global": "x"}, {"global": "", "bus": ""}, {"global": "", "agm": ""}} {
			changed := b.Changed()
			given := maps.Clone(domains)
			if err := a.SetDomains(id, given); err != nil {
				t.Fatal(err)
			}
			given["late"] = ""
			want(domains)
			select {
			case <-changed:
			default:
				t.Errorf("domains %v are no change of the view", domains)
			}
		}
		// Saying the same again is no news for others.
		if err := a.SetDomains(id, map[string]string{"agm": "", "global": ""}); err != nil {
			t.Fatal(err)
		}
		if err := a.SetHolds(id, nil); err != nil {
			t.Fatal(err)
		}
		before := finds(t, b, id)
		if err := a.Settle(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		if finds(t, b, id) != before {
			t.Error("an app that is the same is shown anew")
		}
		a.RemoveApp(id)
		b.sees(time.Second, "a", "a/plain", "a/plain/M", "b")
	})
}

// TestClientFieldsOfMethodsTravel: what a client says of a method is there on
// other nodes, and two definitions that differ in it only are not one.
func TestClientFieldsOfMethodsTravel(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		id := a.client("client", map[string]string{"global": ""})
		for _, m := range []wire.Method{
			{Name: "M", Accepts: "int A", ID: "1", Restrictions: "$desk == 'FX'", Extra: `{"a":1}`, Flags: map[string]any{"f": true}},
			{Name: "M", Accepts: "int A", ID: "2", Restrictions: "$desk == 'FX'", Extra: `{"a":1}`},
			{Name: "M", Accepts: "int A", ID: "2", Extra: `{"a":1}`},
			{Name: "M", Accepts: "int A", ID: "2", Extra: `{"a":2}`},
		} {
			if err := a.SetMethods(id, []*wire.Method{&m}); err != nil {
				t.Fatal(err)
			}
			if err := a.Settle(within(t, time.Second)); err != nil {
				t.Fatal(err)
			}
			b.sees(2*time.Second, "a", "a/client", "a/client/M", "b")
			got := finds(t, b, id).Methods[0]
			if got.ID != m.ID || got.Restrictions != m.Restrictions || got.Extra != m.Extra || len(got.Flags) != len(m.Flags) {
				t.Errorf("got %+v, want %+v", got, m)
			}
		}
	})
}

// TestClientLimits are for the writer, too: what it lets through, readers take.
func TestClientLimits(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		long := strings.Repeat("x", wire.MaxRestrictions)
		domains := map[string]string{long: long}
		for i := range wire.MaxDomains - 1 {
			domains[fmt.Sprint("domain", i)] = ""
		}
		id := a.client("client", domains)
		one := func(name, terms string) map[string]string { return map[string]string{name: terms} }
		more := maps.Clone(domains)
		more["more"] = ""
		for name, d := range map[string]map[string]string{"many": more, "a long name": one(long+"x", ""), "long terms": one("global", long+"x")} {
			if err := a.SetDomains(id, d); !errors.Is(err, wire.ErrLimit) {
				t.Errorf("%s: %v", name, err)
			}
			if err := a.AddApp(subjects.NewApp(a.boot, 9999), wire.Identity{Application: "other"}, d); !errors.Is(err, wire.ErrLimit) {
				t.Errorf("%s at once: %v", name, err)
			}
		}
		extra := strings.Repeat("x", wire.MaxExtra)
		if err := a.AddApp(subjects.NewApp(a.boot, 9998), wire.Identity{Application: "other", Extra: extra + "x"}, one("global", "")); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("many claims: %v", err)
			a.RemoveApp(subjects.NewApp(a.boot, 9998))
		}
		claims := subjects.NewApp(a.boot, 9997)
		if err := a.AddApp(claims, wire.Identity{Application: "claims", App: string(claims), Extra: extra}, one("global", "")); err != nil {
			t.Error(err)
		}
		holds := make([]string, wire.MaxHolds+1)
		for i := range holds {
			holds[i] = fmt.Sprint("context", i)
		}
		for name, c := range map[string]struct {
			holds []string
			want  error
		}{
			"many": {holds, wire.ErrLimit}, "a long name": {[]string{strings.Repeat("x", 256)}, wire.ErrBadName},
			"no name": {[]string{"c", ""}, wire.ErrBadName}, "no text": {[]string{"\xff"}, wire.ErrBadName},
		} {
			if err := a.SetHolds(id, c.holds); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := finds(t, a, id); got.Holds != nil || len(got.Domains) != wire.MaxDomains {
			t.Errorf("what was refused is there: %+v", got)
		}
		if err := a.SetHolds(id, holds[1:]); err != nil {
			t.Error(err)
		}
		for name, err := range map[string]error{"domains": a.SetDomains("gone-1", one("global", "")), "holds": a.SetHolds("gone-1", nil)} {
			if !errors.Is(err, wire.ErrTargetGone) {
				t.Errorf("%s of an app that left: %v", name, err)
			}
		}
		b.sees(2*time.Second, "a", "a/claims", "a/client", "b")
		if err := a.Settle(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		if got := finds(t, b, id); !slices.Equal(got.Holds, holds[1:]) || !maps.Equal(got.Domains, domains) || b.Rogue() != 0 {
			t.Errorf("b refused %d and has %+v", b.Rogue(), got)
		}
	})
}
