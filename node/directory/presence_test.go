package directory_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
)

// TestComeAndGo: who joins is seen at once, with apps and methods; who leaves
// goes within a second, an app on a living node within two.
func TestComeAndGo(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		a.sees(time.Second, "a", "b")
		b.sees(time.Second, "a", "b")
		pricer := b.app("pricer", "Add", "Sub")
		if err := b.Settle(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		a.sees(2*time.Second, "a", "b", "b/pricer", "b/pricer/Add", "b/pricer/Sub")
		if got, want := a.seen(), []string{
			"node-added a", "node-added b", "app-added b/pricer", "method-added b/pricer/Add", "server-method-added b/pricer/Add",
			"method-added b/pricer/Sub", "server-method-added b/pricer/Sub",
		}; !slices.Equal(got, want) {
			t.Errorf("events %q", got)
		}
		app, ok := a.App(pricer)
		if !ok || app.Identity.User != "user-b" || app.Node != "b" || app.Local || app.SameMachine {
			t.Errorf("got %+v, %v", app, ok)
		}
		if s := a.Servers("aDD"); len(s) != 1 || s[0].App != app || s[0].Method.Accepts != "int A" || s[0].Suspect {
			t.Errorf("servers %+v", s)
		}
		b.RemoveApp(pricer)
		a.sees(2*time.Second, "a", "b")
		if _, ok := a.App(pricer); ok || len(a.Servers("Add")) != 0 {
			t.Error("the app is still found")
		}
		want := []string{"server-method-removed b/pricer/Add", "method-removed b/pricer/Add", "server-method-removed b/pricer/Sub", "method-removed b/pricer/Sub", "app-removed b/pricer"}
		if got := a.seen(); !slices.Equal(got, want) {
			t.Errorf("events %q", got)
		}
		b.stop()
		a.sees(time.Second, "a")
		if got := a.seen(); !slices.Equal(got, []string{"node-removed b left"}) {
			t.Errorf("events %q", got)
		}
		a.holds(30*time.Second, "a")
		again := fb.join("b") // the same id, at once
		again.app("again")
		a.sees(time.Second, "a", "b", "b/again")
		a.holds(30*time.Second, "a", "b", "b/again")
		if a.Rogue()+again.Rogue() != 0 {
			t.Errorf("rogue %d, %d", a.Rogue(), again.Rogue())
		}
	})
}

// TestKilledNode: its connection breaks, nobody says good-bye.
func TestKilledNode(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		b.app("x")
		a.sees(time.Second, "a", "b", "b/x")
		a.seen()
		b.cable.pull()
		took := a.sees(15*time.Second, "a")
		if took < 5*time.Second {
			t.Errorf("removed after %s already", took)
		}
		if got := a.seen(); !slices.Equal(got, []string{"app-removed b/x", "node-removed b lost"}) {
			t.Errorf("events %q", got)
		}
		b.cable.plug()
		a.sees(7*time.Second, "a", "b", "b/x")
	})
}

// TestKilledNodeFoundByACall: faster, when somebody has noticed.
func TestKilledNodeFoundByACall(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		b.app("x", "M")
		a.sees(time.Second, "a", "b", "b/x", "b/x/M")
		a.Suspect("b") // a mistake: it is there
		synctest.Wait()
		if s := a.Servers("M"); len(s) != 1 || !s[0].Suspect {
			t.Errorf("servers %+v", s)
		}
		a.holds(2*time.Second, "a", "b", "b/x", "b/x/M")
		if s := a.Servers("M"); len(s) != 1 || s[0].Suspect {
			t.Errorf("servers %+v", s)
		}
		b.cable.pull()
		a.Suspect("b")
		if took := a.sees(7*time.Second, "a"); took < 4*time.Second {
			t.Errorf("removed after %s: a reconnect may take as long", took)
		}
	})
}

// TestFrozenNode: its connection stays, but nothing answers.
func TestFrozenNode(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, c := fb.join("a"), fb.client()
		if _, err := c.nc.Subscribe("weft.desk.ctl.frozen.>", func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		c.write(document("frozen", "bootf", 1))
		a.sees(time.Second, "a", "frozen", "frozen/app0")
		if took := a.sees(15*time.Second, "a"); took < 9*time.Second {
			t.Errorf("removed after %s", took)
		}
		c.write(document("frozen", "bootf", 1)) // it wakes up
		a.sees(time.Second, "a", "frozen", "frozen/app0")
	})
}

// TestNoFlap: a reconnect of less than five seconds is no news.
func TestNoFlap(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		a.app("one", "M")
		b.app("two", "M")
		all := []string{"a", "b", "a/one", "a/one/M", "b/two", "b/two/M"}
		a.sees(time.Second, all...)
		b.sees(time.Second, all...)
		a.seen()
		b.seen()
		for range 3 {
			b.cable.pull()
			a.Suspect("b")
			a.holds(2*time.Second, all...)
			b.cable.plug()
			a.holds(10*time.Second, all...)
		}
		if ga, gb := a.seen(), b.seen(); len(ga)+len(gb) != 0 {
			t.Errorf("events %q, %q", ga, gb)
		}
	})
}

// TestCutOff: a node without NATS keeps its view for ten seconds, then removes
// the others itself, keeps its own apps, and gets everybody back.
func TestCutOff(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b, c := fb.join("a"), fb.join("b"), fb.join("c")
		fb.join("still") // writes nothing meanwhile
		a.app("mine")
		b.app("theirs", "M")
		all := []string{"a", "b", "c", "still", "a/mine", "b/theirs", "b/theirs/M"}
		a.sees(time.Second, all...)
		a.seen()
		a.cable.pull()
		a.holds(9*time.Second, all...)
		a.sees(2*time.Second, "a", "a/mine")
		late := a.app("late") // works offline
		got := a.seen()
		for _, want := range []string{"node-removed b offline", "node-removed c offline", "app-added a/late"} {
			if !slices.Contains(got, want) {
				t.Errorf("events %q, want %q", got, want)
			}
		}
		a.holds(time.Minute, "a", "a/mine", "a/late")
		c.stop()
		b.app("more")
		a.cable.plug()
		want := []string{"a", "b", "still", "a/mine", "a/late", "b/theirs", "b/theirs/M", "b/more"}
		a.sees(7*time.Second, want...)
		b.sees(time.Second, want...)
		if _, ok := b.App(late); !ok {
			t.Error("b does not know a's late app")
		}
		a.holds(30*time.Second, want...)
		b.holds(30*time.Second, want...)
	})
}

// TestOwnDocumentPurged: by whomever, it is asserted again.
func TestOwnDocumentPurged(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b, c := fb.join("a"), fb.join("b"), fb.client()
		b.app("x")
		a.sees(time.Second, "a", "b", "b/x")
		for range 3 {
			if err := c.bucket.Purge(within(t, time.Second), subjects.NodeKey("b")); err != nil {
				t.Fatal(err)
			}
			a.sees(2*time.Second, "a", "b", "b/x")
		}
		a.holds(20*time.Second, "a", "b", "b/x")
	})
}

// TestServerRestarted with its memory lost: nobody is removed if it is fast,
// and everybody comes back if it is slow.
func TestServerRestarted(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		a.app("one", "M")
		b.app("two", "N")
		all := []string{"a", "b", "a/one", "a/one/M", "b/two", "b/two/N"}
		a.sees(time.Second, all...)
		b.sees(time.Second, all...)
		for range 40 { // so that sequences of the new bucket are far behind
			b.offer(b.app("filler"))
			b.RemoveApp(subjects.NewApp(b.boot, uint64(b.apps)))
		}
		synctest.Wait()
		a.sees(2*time.Second, all...)
		a.seen()
		b.seen()
		fb.down()
		time.Sleep(2 * time.Second)
		fb.up()
		a.holds(30*time.Second, all...)
		b.holds(time.Second, all...)
		if ga, gb := a.seen(), b.seen(); len(ga)+len(gb) != 0 {
			t.Errorf("fast: events %q, %q", ga, gb)
		}
		c := fb.join("c") // reads the new bucket, manifests included
		c.sees(2*time.Second, append(all, "c")...)
		c.stop()
		fb.down()
		time.Sleep(time.Minute)
		a.sees(0, "a", "a/one", "a/one/M")
		fb.up()
		a.sees(7*time.Second, all...)
		b.sees(7*time.Second, all...)
		a.holds(30*time.Second, all...)
	})
}

// TestSyncedMeansAsserted: a node that says that it is back can be found, also
// when it has no apps.
func TestSyncedMeansAsserted(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a := fb.join("a")
		for range 5 {
			fb.down()
			time.Sleep(time.Second)
			fb.up()
			c := fb.client()
			if err := <-a.synced; err != nil {
				t.Fatal(err)
			}
			if _, ok, err := c.bucket.Get(within(t, time.Second), subjects.NodeKey("a")); !ok || err != nil {
				t.Errorf("no document: %v", err)
			}
		}
	})
}

// TestLeasesFireAtOnce: living nodes stay, whatever their leases say.
func TestLeasesFireAtOnce(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		ids := []string{"a", "b", "c", "d", "e"}
		var all []*member
		for _, id := range ids {
			all = append(all, fb.join(subjects.Node(id)))
		}
		for _, m := range all {
			m.sees(2*time.Second, ids...)
			m.seen()
		}
		c := fb.client()
		for _, m := range all { // as after a pause of the server
			if err := c.bucket.Lease(within(t, time.Minute), subjects.LeaseKey(m.id), subjects.NodeKey(m.id), -time.Second); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			time.Sleep(time.Second)
			for _, m := range all {
				if got := m.seen(); len(got) != 0 {
					t.Fatalf("%s: events %q", m.id, got)
				}
			}
		}
		if s, err := c.bucket.Snapshot(within(t, time.Minute), subjects.NodeKeys()); err != nil || len(s.Entries) != 5 {
			t.Errorf("%d documents, %v", len(s.Entries), err)
		} else {
			for k, e := range s.Entries {
				if e.Op != 0 {
					t.Errorf("%s is not asserted again", k)
				}
			}
		}
	})
}

// TestUnreachableForAWhile: removed because it did not answer, it is back when
// it answers again, although it wrote nothing.
func TestUnreachableForAWhile(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		b.app("x")
		a.sees(time.Second, "a", "b", "b/x")
		b.mute.Store(true)
		a.Suspect("b")
		a.sees(8*time.Second, "a")
		a.holds(20*time.Second, "a")
		b.mute.Store(false)
		a.sees(18*time.Second, "a", "b", "b/x")
		a.holds(time.Minute, "a", "b", "b/x")
	})
}

// TestMissedMessages: writes whose messages got lost are found, also when later
// ones arrived.
func TestMissedMessages(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b, c := fb.join("a"), fb.join("b"), fb.join("c")
		a.sees(time.Second, "a", "b", "c")
		a.cable.deaf.Store(true)
		b.app("x")
		c.stop()
		time.Sleep(time.Second)
		a.cable.deaf.Store(false)
		a.sees(0, "a", "b", "c")
		a.sees(16*time.Second, "a", "b", "b/x")
		a.cable.deaf.Store(true)
		b.app("y")
		time.Sleep(time.Second)
		a.cable.deaf.Store(false)
		fb.join("d")
		a.sees(time.Second, "a", "b", "b/x", "d")
		took := a.sees(6*time.Minute, "a", "b", "b/x", "b/y", "d")
		t.Logf("a write lost before one that arrived is found after %s", took)
	})
}
