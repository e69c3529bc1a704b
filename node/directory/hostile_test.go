package directory_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// TestHostileDocuments: each is counted, changes nothing, and does not hide who
// is there.
func TestHostileDocuments(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b, c := fb.join("a"), fb.join("b"), fb.client()
		b.app("x")
		a.sees(time.Second, "a", "b", "b/x")
		rogue := func(change func(*wire.NodeDoc)) wire.NodeDoc {
			doc := document("rogue", "bootr", 1)
			change(&doc)
			return doc
		}
		many := make([]string, 17)
		var channels, holds []string
		for i := range wire.MaxChannels + 1 {
			channels = append(channels, fmt.Sprint("channel", i))
		}
		for i := range wire.MaxHolds + 1 {
			holds = append(holds, fmt.Sprint("context", i))
		}
		domains := map[string]string{}
		for i := range wire.MaxDomains + 1 {
			domains[fmt.Sprint("domain", i)] = ""
		}
		long := strings.Repeat("x", wire.MaxRestrictions+1)
		for name, doc := range map[string]any{
			"no msgpack":     []byte("nonsense"),
			"empty":          []byte{},
			"deep":           bytes.Repeat([]byte{0x91}, 100_000),
			"bomb":           []byte{0xdd, 0xff, 0xff, 0xff, 0xff},
			"future":         rogue(func(d *wire.NodeDoc) { d.V = wire.DocVersion + 1 }),
			"wrong node":     rogue(func(d *wire.NodeDoc) { d.Node = "b" }),
			"no boot":        rogue(func(d *wire.NodeDoc) { d.Boot = "" }),
			"boot of reader": rogue(func(d *wire.NodeDoc) { d.Boot = a.boot }),
			"boot of other":  rogue(func(d *wire.NodeDoc) { d.Boot, d.Apps[0].Identity.App = b.boot, b.boot+"-1" }),
			"other's app":    rogue(func(d *wire.NodeDoc) { d.Apps[0].Identity.App = b.boot + "-1" }),
			"bad app id":     rogue(func(d *wire.NodeDoc) { d.Apps[0].Identity.App = "a.>" }),
			"app twice":      rogue(func(d *wire.NodeDoc) { d.Apps = append(d.Apps, d.Apps[0]) }),
			"too many apps":  document("rogue", "bootr", wire.MaxApps+1),
			"many manifests": rogue(func(d *wire.NodeDoc) { d.Apps[0].Manifests = many }),
			"many channels":  rogue(func(d *wire.NodeDoc) { d.Apps[0].Channels = channels }),
			"long channel":   rogue(func(d *wire.NodeDoc) { d.Apps[0].Channels = []string{strings.Repeat("x", 256)} }),
			"no channel":     rogue(func(d *wire.NodeDoc) { d.Apps[0].Channels = []string{""} }),
			"channel twice":  rogue(func(d *wire.NodeDoc) { d.Apps[0].Channels = []string{"Red", "Red"} }),
			"many domains":   rogue(func(d *wire.NodeDoc) { d.Apps[0].Domains = domains }),
			"long domain":    rogue(func(d *wire.NodeDoc) { d.Apps[0].Domains = map[string]string{long: ""} }),
			"long terms":     rogue(func(d *wire.NodeDoc) { d.Apps[0].Domains = map[string]string{"global": "", "interop": long} }),
			"many holds":     rogue(func(d *wire.NodeDoc) { d.Apps[0].Holds = holds }),
			"long hold":      rogue(func(d *wire.NodeDoc) { d.Apps[0].Holds = []string{"c", strings.Repeat("x", 256)} }),
			"no hold":        rogue(func(d *wire.NodeDoc) { d.Apps[0].Holds = []string{""} }),
			"many claims":    rogue(func(d *wire.NodeDoc) { d.Apps[0].Identity.Extra = strings.Repeat("x", wire.MaxExtra+1) }),
			"in its 2nd app": rogue(func(d *wire.NodeDoc) { d.Apps = document("rogue", "bootr", 2).Apps; d.Apps[1].Holds = holds }),
		} {
			was := a.Rogue()
			c.put(subjects.NodeKey("rogue"), doc)
			time.Sleep(100 * time.Millisecond)
			a.sees(0, "a", "b", "b/x")
			if a.Rogue() != was+1 {
				t.Errorf("%s: counted %d", name, a.Rogue()-was)
			}
		}
		if app, ok := a.App(subjects.NewApp(b.boot, 1)); !ok || app.Node != "b" {
			t.Errorf("b's app is %+v", app)
		}
		c.write(document("rogue", "bootr", wire.MaxApps)) // it comes to its senses
		time.Sleep(100 * time.Millisecond)
		if n := a.View().Nodes["rogue"]; n == nil || len(n.Apps) != wire.MaxApps {
			t.Errorf("got %+v", n)
		}
	})
}

// TestStampedIdentities: whose an app is, its node says, not its identity.
func TestStampedIdentities(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, c := fb.join("a"), fb.client()
		doc := document("r", "bootr", 1)
		id := &doc.Apps[0].Identity
		id.User, id.Machine, id.Node = "user-a", "machine-a", "a"
		c.write(doc)
		a.sees(time.Second, "a", "r", "r/app0")
		app, ok := a.App("bootr-1")
		if !ok || app.Identity.User != "u" || app.Identity.Machine != "m" || app.Identity.Node != "r" || app.SameMachine {
			t.Errorf("got %+v", app)
		}
	})
}

// TestForgedDepartures: what one node writes removes no other.
func TestForgedDepartures(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b, c := fb.join("a"), fb.join("b"), fb.client()
		b.app("x")
		all := []string{"a", "b", "b/x"}
		a.sees(time.Second, all...)
		a.seen()
		ctx := within(t, time.Hour)
		was := a.Rogue()
		// A purge of b's document by the schedule of another lease.
		if err := c.bucket.Lease(ctx, "lease.rogue", "n.b", time.Second); err != nil {
			t.Fatal(err)
		}
		a.holds(2*time.Second, all...)
		if a.Rogue() != was+1 {
			t.Errorf("counted %d", a.Rogue()-was)
		}
		// The schedule writes b's document instead: b's own, but another one.
		forged, err := wire.Marshal(document("b", b.boot, 0))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: "$KV.weft_desk_dir.lease.rogue", Data: forged, Header: nats.Header{
			"Nats-Schedule": {"@at " + time.Now().Add(time.Second).UTC().Format(time.RFC3339Nano)}, "Nats-Schedule-Target": {"$KV.weft_desk_dir.n.b"},
		}}); err != nil {
			t.Fatal(err)
		}
		a.holds(3*time.Second, all...)
		late := fb.join("late") // reads what is stored now
		late.sees(time.Second, append(all, "late")...)
		late.stop()
		// Its own document, with headers that say it is b's.
		if _, err := c.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: "$KV.weft_desk_dir.n.rogue", Header: nats.Header{
			"Nats-Subject": {"$KV.weft_desk_dir.n.b"}, "Nats-Sequence": {"999999999"}, "KV-Operation": {"PURGE"},
		}}); err != nil {
			t.Fatal(err)
		}
		// Stored entries that the server was made to publish to readers.
		for _, key := range []string{"lease.b", "n.rogue", "lease.rogue"} {
			if err := c.nc.PublishRequest("$JS.API.DIRECT.GET.KV_weft_desk_dir.$KV.weft_desk_dir."+key, "weft.desk.kv.dir.n.b", nil); err != nil {
				t.Fatal(err)
			}
		}
		a.holds(time.Minute, all...)
		for _, ev := range a.seen() {
			if !strings.HasSuffix(ev, " late") && !strings.HasSuffix(ev, " late left") {
				t.Errorf("event %q", ev)
			}
		}
	})
}

// TestLimits are for the writer, too.
func TestLimits(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		for i := range wire.MaxApps {
			a.app(fmt.Sprintf("app%d", i))
		}
		if err := a.AddApp(subjects.NewApp(a.boot, 9999), wire.Identity{Application: "more"}, nil); !errors.Is(err, wire.ErrLimit) || !strings.Contains(err.Error(), "more") {
			t.Errorf("apps: %v", err)
		}
		id := subjects.NewApp(a.boot, 1)
		methods := make([]*wire.Method, wire.MaxMethods+1)
		for i := range methods {
			methods[i] = &wire.Method{Name: fmt.Sprintf("M%d", i)}
		}
		if err := a.SetMethods(id, methods); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("methods: %v", err)
		}
		if err := a.SetMethods(id, methods[1:]); err != nil {
			t.Error(err)
		}
		if err := a.SetMethods("gone-1", nil); !errors.Is(err, wire.ErrTargetGone) {
			t.Errorf("got %v", err)
		}
		channels := make([]string, wire.MaxChannels+1)
		for i := range channels {
			channels[i] = fmt.Sprint("channel", i)
		}
		if err := a.SetChannels(id, channels); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("channels: %v", err)
		}
		if err := a.SetChannels(id, []string{strings.Repeat("x", 256)}); !errors.Is(err, wire.ErrBadName) {
			t.Errorf("channels: %v", err)
		}
		if err := a.SetChannels(id, channels[1:]); err != nil {
			t.Error(err)
		}
		if err := a.SetChannels("gone-1", nil); !errors.Is(err, wire.ErrTargetGone) {
			t.Errorf("got %v", err)
		}
		time.Sleep(2 * time.Second)
		if n := b.View().Nodes["a"]; n == nil || len(n.Apps) != wire.MaxApps || len(n.Apps[0].Methods) != wire.MaxMethods || !slices.Equal(n.Apps[0].Channels, channels[1:]) {
			t.Errorf("b sees %+v", n)
		}
	})
}

// TestOtherClock: a node whose wall clock is a day off says so, and that is all.
// Its lease is in the server's time; see the kv package for the arithmetic.
func TestOtherClock(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, c := fb.join("a"), fb.client()
		answer(t, c, "yesterday", "booty")
		doc := document("yesterday", "booty", 1)
		doc.ClockOffset = -(24 * time.Hour).Milliseconds()
		for range 10 {
			c.write(doc)
			time.Sleep(3 * time.Second)
			a.sees(0, "a", "yesterday", "yesterday/app0")
		}
		if n := a.View().Nodes["yesterday"]; n.ClockOffset != -24*time.Hour || n.Suspect {
			t.Errorf("got %+v", n)
		}
		if d := a.ClockOffset(); d.Abs() > time.Second {
			t.Errorf("own offset %s", d)
		}
	})
}

// answer lets a hand-made client answer pings.
func answer(t *testing.T, c *client, id subjects.Node, boot string) {
	t.Helper()
	data, err := wire.Marshal(wire.PingReply{Node: string(id), Boot: boot})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.nc.Subscribe(string(realm.CtlFilter(id)), func(m *nats.Msg) { _ = m.Respond(data) }); err != nil {
		t.Fatal(err)
	}
}
