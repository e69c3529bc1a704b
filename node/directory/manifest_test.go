package directory_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// manifestKey is the key of the only manifest that b's document names.
func manifestKey(t *testing.T, c *client, id subjects.Node) (subjects.Key, wire.NodeDoc) {
	t.Helper()
	e, ok, err := c.bucket.Get(within(t, time.Second), subjects.NodeKey(id))
	if err != nil || !ok {
		t.Fatalf("no document of %s: %v", id, err)
	}
	var doc wire.NodeDoc
	if err := wire.Unmarshal(e.Value, &doc); err != nil {
		t.Fatal(err)
	}
	key, err := subjects.ManifestKey(doc.Apps[0].Manifests[0])
	if err != nil {
		t.Fatal(err)
	}
	return key, doc
}

// TestDocument: what travels is what was said.
func TestDocument(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, c := fb.join("a"), fb.client()
		id := a.app("x", "Two", "One")
		if err := a.Settle(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		_, doc := manifestKey(t, c, "a")
		if doc.V != wire.DocVersion || doc.Node != "a" || doc.Boot != a.boot || doc.Machine != "machine-a" || doc.User != "user-a" ||
			len(doc.Apps) != 1 || doc.Apps[0].Identity.App != string(id) || len(doc.Apps[0].Manifests) != 1 {
			t.Errorf("got %+v", doc)
		}
		one := doc.Apps[0].Manifests[0]
		a.offer(id, "One", "Two") // the order does not count
		if err := a.Settle(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, doc := manifestKey(t, c, "a"); doc.Apps[0].Manifests[0] != one {
			t.Error("the same methods have another hash")
		}
	})
}

// TestManifestMissing or wrong in the bucket: its node has it.
func TestManifestMissing(t *testing.T) {
	for name, spoil := range map[string]func(*client, subjects.Key){
		"purged": func(c *client, k subjects.Key) {
			if err := c.bucket.Purge(within(c.t, time.Second), k); err != nil {
				c.t.Fatal(err)
			}
		},
		"other bytes": func(c *client, k subjects.Key) {
			c.put(k, wire.Manifest{Methods: []wire.Method{{Name: "Forged"}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inFabric(t, func(t *testing.T, fb *fabric) {
				b, c := fb.join("b"), fb.client()
				b.app("x", "M")
				if err := b.Settle(within(t, time.Second)); err != nil {
					t.Fatal(err)
				}
				key, _ := manifestKey(t, c, "b")
				spoil(c, key)
				fb.join("a").sees(2*time.Second, "a", "b", "b/x", "b/x/M")
			})
		})
	}
}

// TestManifestNowhere: the app is there without methods, and gets them when they
// can be had.
func TestManifestNowhere(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		b, c := fb.join("b"), fb.client()
		b.app("x", "M")
		if err := b.Settle(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		key, _ := manifestKey(t, c, "b")
		good, ok, err := c.bucket.Get(within(t, time.Second), key)
		if !ok || err != nil {
			t.Fatal(err)
		}
		b.mute.Store(true)
		c.put(key, []byte("other bytes"))
		a := fb.join("a")
		a.holds(30*time.Second, "a", "b", "b/x")
		if !a.Complete(within(t, time.Second)) {
			time.Sleep(11 * time.Second)
		}
		c.put(key, good.Value)
		a.sees(30*time.Second, "a", "b", "b/x", "b/x/M")
	})
}

// TestManifestLate: it is asked for again, and not only at the next tick.
func TestManifestLate(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, c := fb.join("a"), fb.client()
		m := wire.Manifest{Methods: []wire.Method{{Name: "M"}}}
		data, err := wire.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		hash := hashOf(data)
		key, err := subjects.ManifestKey(hash)
		if err != nil {
			t.Fatal(err)
		}
		doc := document("r", "bootr", 1)
		doc.Apps[0].Manifests = []string{hash}
		answer(t, c, "r", "bootr") // pings, not what it was asked
		c.write(doc)
		a.sees(time.Second, "a", "r", "r/app0")
		c.put(key, m)
		a.sees(1500*time.Millisecond, "a", "r", "r/app0", "r/app0/M")
	})
}

// TestHostileManifests are refused.
func TestHostileManifests(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, c := fb.join("a"), fb.client()
		for name, m := range map[string]wire.Manifest{
			"too many": {Methods: make([]wire.Method, wire.MaxMethods+1)},
			"twice":    {Methods: []wire.Method{{Name: "M"}, {Name: "m"}}},
			"bad name": {Methods: []wire.Method{{Name: "\xff"}}},
		} {
			data, err := wire.Marshal(m)
			if err != nil {
				continue // so nobody can write it
			}
			hash := hashOf(data)
			key, err := subjects.ManifestKey(hash)
			if err != nil {
				t.Fatal(err)
			}
			c.put(key, data)
			doc := document("r", "bootr", 1)
			doc.Apps[0].Manifests = []string{hash}
			c.write(doc)
			time.Sleep(2 * time.Second)
			if n := a.View().Nodes["r"]; n == nil || len(n.Apps) != 1 || len(n.Apps[0].Methods) != 0 {
				t.Errorf("%s: got %+v", name, n)
			}
		}
	})
}

// TestManifestsStay although the server forgets each after a day, and those
// that nobody offers any more do not. (The node is away most of the time, which
// spares the test thousands of heartbeats.)
func TestManifestsStay(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		b, c := fb.join("b"), fb.client()
		id := b.app("x", "Old")
		if err := b.Settle(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		old, _ := manifestKey(t, c, "b")
		b.offer(id, "M")
		if err := b.Settle(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		key, _ := manifestKey(t, c, "b")
		for night := range 5 {
			b.cable.pull()
			time.Sleep(7*time.Hour + 59*time.Minute)
			b.cable.plug()
			time.Sleep(time.Minute)
			if _, ok, err := c.bucket.Get(within(t, time.Second), key); !ok || err != nil {
				t.Fatalf("gone after %d times 8 hours: %v", night+1, err)
			}
		}
		if e, ok, err := c.bucket.Get(within(t, time.Second), old); ok || err != nil {
			t.Errorf("what nobody offers is still there: %+v, %v", e, err)
		}
		fb.join("a").sees(2*time.Second, "a", "b", "b/x", "b/x/M")
	})
}

// TestReconnectWhileFetching: what the break interrupted is fetched after it.
func TestReconnectWhileFetching(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		b, a := fb.join("b"), fb.join("a")
		c := fb.client()
		a.sees(time.Second, "a", "b")
		data, err := wire.Marshal(wire.Manifest{Methods: []wire.Method{{Name: "M"}}})
		if err != nil {
			t.Fatal(err)
		}
		hash := hashOf(data)
		answer(t, c, "r", "bootr") // pings, not what it was asked
		doc := document("r", "bootr", 1)
		doc.Apps[0].Manifests = []string{hash}
		c.write(doc)
		a.sees(time.Second, "a", "b", "r", "r/app0")
		a.cable.pull()
		key, err := subjects.ManifestKey(hash)
		if err != nil {
			t.Fatal(err)
		}
		c.put(key, data)
		time.Sleep(100 * time.Millisecond)
		a.cable.plug()
		a.sees(7*time.Second, "a", "b", "r", "r/app0", "r/app0/M")
		synctest.Wait()
		_, _ = b, kv.Put
	})
}
