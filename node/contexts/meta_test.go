package contexts_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/wire"
)

// TestNamesMeta: who hears of a context knows what it was created with.
func TestNamesMeta(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann:EU"), b.join("bob:EU")
		terms := contexts.Terms{Lifetime: contexts.Ownership, Read: "$region == #region", Write: "$application == 'ann'"}
		ann.create("early", object{}, terms)
		far, near := bob.names(), ann.names()
		for _, l := range []*nameLog{near, far} {
			wantTexts(t, l.texts(), "created early ownership")
		}
		ann.create("late", object{}, terms)
		for _, l := range []*nameLog{near, far} {
			e := l.take()
			if len(e) != 1 {
				t.Fatalf("got %+v", e)
			}
			m := e[0].Meta
			if m.Creator != ann.id || m.Owner != ann.id || m.Node != "a" || m.Identity.Region != "EU" || m.Identity.App != string(ann.id) ||
				m.Lifetime != contexts.Ownership || m.Read != terms.Read || m.Write != terms.Write || e[0].By.App != ann.id {
				t.Errorf("got %+v", e[0])
			}
			s, err := bob.Get(t.Context(), "late")
			if err != nil || s.Meta != m {
				t.Errorf("got %+v, %v; want %+v", s.Meta, err, m)
			}
		}
		ann.set("plain", object{})
		name := strings.Repeat("é", 60) // its key has only the hash
		ann.create(name, object{}, contexts.Terms{})
		if _, err := ann.Destroy(t.Context(), "late"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		bob.set("late", object{})
		for _, l := range []*nameLog{near, far} {
			wantTexts(t, l.texts(), "created plain", "created "+name+" retained", "destroyed late ownership", "created late")
		}
		// One that exists already keeps its terms.
		if made, _, err := bob.CreateWith(t.Context(), "early", object{"bob": 1}, contexts.Terms{}); made || err != nil {
			t.Errorf("made again: %v, %v", made, err)
		}
		s, err := bob.Get(t.Context(), "early")
		if err != nil || s.Meta.Owner != ann.id || s.Value().String() != "{}" {
			t.Errorf("got %+v, %v", s, err)
		}
	})
}

// TestNamesWaitForMeta loses the message with the metadata of a new context, and with
// others the one with its root: no event comes before the metadata is known, and no
// other waits for it.
func TestNamesWaitForMeta(t *testing.T) {
	for _, lost := range []string{"weft.desk.kv.ctx.new.//", "weft.desk.kv.ctx.new./"} {
		t.Run(lost[len("weft.desk.kv.ctx."):], func(t *testing.T) {
			inHub(t, func(t *testing.T, h *hub) {
				a, b := h.node("a"), h.node("b")
				defer a.stop()
				defer b.stop()
				ann, bob := a.join("ann"), b.join("bob")
				l := bob.names()
				time.Sleep(62 * time.Second) // between two regular checks
				b.line.Drop(func(subject string) bool { return subject == lost })
				ann.create("new", object{}, contexts.Terms{Lifetime: contexts.RefCounted})
				wantTexts(t, l.texts())
				for _, key := range []string{"foreign./", "other./"} {
					if err := h.foreign(key, "{}"); err != nil {
						t.Fatal(err)
					}
				}
				ann.set("plain", object{})
				wantTexts(t, l.texts(), "created foreign", "created other", "created plain")
				ann.update("new", object{"a": 1})
				ann.set("new", object{"a": 2})
				var got []string
				eventually(t, 12*time.Second, "the new one is known", func() bool { got = append(got, l.texts()...); return len(got) > 0 })
				wantTexts(t, got, "created new ref-counted")
			})
		})
	}
}

// TestNamesAfterOutage: what happened while a node was cut off comes with its
// metadata.
func TestNamesAfterOutage(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, bob := a.join("ann"), b.join("bob")
		ann.create("goes", object{}, contexts.Terms{})
		ann.create("anew", object{}, contexts.Terms{})
		ann.create("again", object{}, contexts.Terms{})
		ann.create("bare", object{}, contexts.Terms{})
		ann.create("stays", object{}, contexts.Terms{})
		l := bob.names()
		l.take()
		b.line.Cut()
		time.Sleep(5 * time.Second)
		for _, name := range []string{"goes", "anew", "again", "bare"} {
			if _, err := ann.Destroy(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		ann.create("anew", object{}, contexts.Terms{Lifetime: contexts.RefCounted})
		ann.create("new", object{}, contexts.Terms{Lifetime: contexts.Ownership})
		ann.create("again", object{}, contexts.Terms{Lifetime: contexts.Ownership})
		for _, name := range []string{"again", "bare", "stays"} {
			ann.set(name, object{"a": 1})
		}
		b.line.Heal()
		time.Sleep(20 * time.Second)
		got := l.texts()
		slices.Sort(got)
		wantTexts(t, got, "created again ownership", "created anew ref-counted", "created bare", "created new ownership",
			"destroyed again retained", "destroyed anew retained", "destroyed bare retained", "destroyed goes retained")
	})
}

// TestHostileMeta: metadata that nobody can read, or understand.
func TestHostileMeta(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.stop()
		ann := a.join("ann")
		l := ann.names()
		for _, c := range []struct{ name, meta, event, get string }{
			{"garbage", `{"creator":`, "created garbage", `{}`},
			{"array", `[1,2]`, "created array", `{}`},
			{"large", `{"read":"` + strings.Repeat("x", 20<<10) + `"}`, "created large", `{}`},
			{"good", `{"creator":"nobody","lifetime":"retained","identity":{"region":"EU"},"read":"$region == #region || $application == 'ann'","more":[1]}`, "created good retained", `{}`},
			{"lifetime", `{"lifetime":"activity"}`, "created lifetime activity", `{}`},
			{"misspelt", `{"lifetime":"retained","read":"$region =="}`, "", "denied"},
		} {
			for _, key := range []string{c.name + ".//", c.name + "./"} {
				data := "{}"
				if strings.HasSuffix(key, "//") {
					data = c.meta
				}
				if err := h.foreign(key, data); err != nil {
					t.Fatal(err)
				}
			}
			got := l.texts()
			if strings.Join(got, "\n") != c.event {
				t.Errorf("%s: got %q, want %q", c.name, got, c.event)
			}
			want(t, c.get, c.name, ann)
		}
		if n := a.Stats().Unreadable; n != 3 {
			t.Errorf("%d writes cannot be read", n)
		}
	})
}

// TestPermissions: what each app may do with contexts of various terms, from the node
// of the creator and from another.
func TestPermissions(t *testing.T) {
	const region = "$region == #region"
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		owner := a.join("owner:EU")
		others := map[string]*app{"near": a.join("near:EU"), "far": b.join("far:EU"), "near-us": a.join("near:US"), "far-us": b.join("far:US")}
		for name, c := range map[string]struct {
			terms  contexts.Terms
			eu, us string // read, update, destroy: the first letters
		}{
			"open":      {contexts.Terms{}, "rud", "rud"},
			"read":      {contexts.Terms{Read: region}, "rud", "ud"},
			"write":     {contexts.Terms{Write: region}, "rud", "r"},
			"both":      {contexts.Terms{Read: region, Write: region}, "rud", ""},
			"writer":    {contexts.Terms{Read: "$nobody", Write: region}, "rud", ""}, // who may write may read
			"closed":    {contexts.Terms{Read: "$nobody", Write: "$nobody"}, "", ""},
			"owned":     {contexts.Terms{Lifetime: contexts.Ownership}, "ru", "ru"},
			"owned-eu":  {contexts.Terms{Lifetime: contexts.Ownership, Read: region, Write: region}, "ru", ""},
			"attribute": {contexts.Terms{Write: "$application == 'far' && #application == 'owner'"}, "r", "r"},
		} {
			for who, x := range others {
				may := c.eu
				if strings.HasSuffix(who, "-us") {
					may = c.us
				}
				if name == "attribute" && strings.HasPrefix(who, "far") {
					may = "rud"
				}
				owner.create(name, object{"v": 1}, c.terms)
				synctest.Wait()
				denied := func(right, text string, err error) {
					t.Helper()
					switch is := strings.Contains(may, right); {
					case is && err != nil:
						t.Errorf("%s, %s: %v", name, who, err)
					case !is && (wire.CodeOf(err) != wire.Denied || !strings.Contains(err.Error(), text)):
						t.Errorf("%s, %s: %v, want %q", name, who, err, text)
					}
				}
				s, err := x.Get(t.Context(), name)
				denied("r", "Not authorized to read context", err)
				if err == nil && s.At("v").String() != "1" {
					t.Errorf("%s, %s: got %+v", name, who, s)
				}
				made, _, err := x.Create(t.Context(), name, object{"v": 2}) // joins
				denied("r", "Not authorized to read context", err)
				if made {
					t.Errorf("%s, %s: made again", name, who)
				}
				names, err := x.Names(t.Context())
				if err != nil || slices.Contains(names, name) != strings.Contains(may, "r") {
					t.Errorf("%s, %s: names %q, %v", name, who, names, err)
				}
				w := x.poll(name)
				synctest.Wait()
				e, ok := w.Poll()
				if !ok || e.Exists != strings.Contains(may, "r") || e.Denied == e.Exists || (e.View() != nil) != e.Exists || (e.Revision > 0) != e.Exists {
					t.Errorf("%s, %s: watch %v, %+v", name, who, ok, e)
				}

				resume := x.node.line.Stall() // a refusal needs no network, and is not shown
				seen := owner.poll(name)
				seen.events()
				if !strings.Contains(may, "u") {
					_, err := x.Set(t.Context(), name, object{"v": 3})
					denied("u", "Not authorized to update context", err)
					_, err = x.SetPath(t.Context(), name, []string{"v"}, 3)
					denied("u", "Not authorized to update context", err)
					x.Start(contexts.Write{
						Name: name, Done: func(_ contexts.Ack, err error) { denied("u", "Not authorized to update context", err) },
						Edit: func(*kv.Value) ([]kv.Edit, error) { t.Error("Edit was called"); return nil, nil },
					})
				}
				if !strings.Contains(may, "d") {
					_, err := x.Destroy(t.Context(), name)
					denied("d", "Not authorized to destroy context", err)
				}
				if got := seen.events(); len(got) > 0 {
					t.Errorf("%s, %s: what was refused was shown: %+v", name, who, got)
				}
				seen.Close()
				resume()
				if strings.Contains(may, "u") {
					_, err := x.Update(t.Context(), name, object{"v": 4})
					denied("u", "", err)
					want(t, `{"v":4}`, name, owner)
				}
				before := w.events()
				if strings.Contains(may, "r") != (len(before) > 0) && strings.Contains(may, "u") {
					t.Errorf("%s, %s: the watch has %+v", name, who, before)
				}
				if strings.Contains(may, "d") {
					_, err := x.Destroy(t.Context(), name)
					denied("d", "", err)
				} else if _, err := owner.Destroy(t.Context(), name); err != nil {
					t.Errorf("%s: its owner: %v", name, err)
				}
				if got := w.events(); (len(got) > 0) != strings.Contains(may, "r") {
					t.Errorf("%s, %s: at its end the watch has %+v", name, who, got)
				}
				w.Close()
			}
		}
	})
}

// TestPermissionsOfNames: events of names hide what an app may not read, its end, too.
func TestPermissionsOfNames(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		owner, near, far, eu := a.join("owner:EU"), a.join("near:US"), b.join("far:US"), b.join("eu:EU")
		terms := contexts.Terms{Read: "$region == #region"}
		owner.create("early", object{}, terms)
		logs := map[string]*nameLog{"near": near.names(), "far": far.names(), "eu": eu.names()}
		owner.create("late", object{}, terms)
		owner.create("open", object{}, contexts.Terms{})
		for _, name := range []string{"early", "late"} {
			if _, err := owner.Destroy(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		wantTexts(t, logs["eu"].texts(), "created early retained", "created late retained", "created open retained", "destroyed early retained", "destroyed late retained")
		wantTexts(t, logs["near"].texts(), "created open retained")
		wantTexts(t, logs["far"].texts(), "created open retained")
		// The same name again, for everybody.
		owner.create("late", object{}, contexts.Terms{})
		for _, l := range logs {
			wantTexts(t, l.texts(), "created late retained")
		}
		if near.MayRead(contexts.Meta{Read: "$nobody"}) || !near.MayRead(contexts.Meta{}) {
			t.Error("MayRead")
		}
	})
}

// TestPermissionsAtOnce: the terms of a context hold from the moment when it shows,
// also while its creation is on its way, and when somebody else was faster.
func TestPermissionsAtOnce(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.stop()
		defer b.stop()
		ann, amy, bob := a.join("ann"), a.join("amy"), b.join("bob")
		want(t, "", "x", ann, amy, bob)
		ann.names() // so that there is room for a context without asking
		resume := a.line.Stall()
		created := make(chan error, 1)
		ann.StartCreate(contexts.Creation{
			Name: "x", Object: valueOf(t, `{"a":1}`), Terms: contexts.Terms{Read: "$nobody", Write: "$nobody"},
			Done: func(_ bool, _ contexts.Ack, err error) { created <- err },
		})
		if got := amy.get("x"); got != "denied" {
			t.Errorf("amy has %s", got)
		}
		var o outcomes
		amy.Start(amy.write("x", &o, put(t, "a", "2")))
		wantTexts(t, o.take(), "a=2 denied")
		resume()
		if err := <-created; err != nil {
			t.Error(err)
		}
		want(t, "denied", "x", amy, bob)
		want(t, `{"a":1}`, "x", ann)

		// Bob does not know yet that there is one.
		b.line.Drop(func(subject string) bool { return strings.HasPrefix(subject, "weft.desk.kv.ctx.") })
		want(t, "", "y", bob)
		ann.create("y", object{"a": 1}, contexts.Terms{Read: "$nobody", Write: "$nobody"})
		_, _, err := bob.Create(t.Context(), "y", object{})
		wantCode(t, err, wire.Denied)
		_, err = bob.Update(t.Context(), "y", object{"a": 2}, contexts.IfRevision(0))
		wantCode(t, err, wire.Denied)
		b.line.Drop(nil)
		time.Sleep(15 * time.Second)
		want(t, `{"a":1}`, "y", ann)
		want(t, "denied", "y", bob)
	})
}

// TestForeignBatchNotHeldUp: a plain NATS client that makes a context in one batch with
// something else, and without metadata, is heard of at once.
func TestForeignBatchNotHeldUp(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.stop()
		l := a.join("ann").names()
		nc := h.client()
		defer nc.Close()
		for i, key := range []string{"other./", "mine./"} {
			m := &nats.Msg{Subject: "$KV.weft_desk_ctx." + key, Data: []byte("{}"), Header: nats.Header{"Nats-Batch-Id": {"b1"}, "Nats-Batch-Sequence": {[]string{"1", "2"}[i]}}}
			if i == 0 {
				if err := nc.PublishMsg(m); err != nil {
					t.Fatal(err)
				}
				continue
			}
			m.Header.Set("Nats-Batch-Commit", "1")
			if _, err := nc.RequestMsg(m, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		wantTexts(t, l.texts(), "created other", "created mine")
	})
}
