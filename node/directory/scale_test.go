package directory_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// TestHeartbeatsStayAtTheServer: while nothing changes, nodes hear nothing of
// each other.
func TestHeartbeatsStayAtTheServer(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		c := fb.client()
		b.app("x", "M")
		a.sees(time.Second, "a", "b", "b/x", "b/x/M")
		time.Sleep(10 * time.Second)
		var others int64
		sub, err := c.nc.SubscribeSync("weft.desk.>")
		if err != nil {
			t.Fatal(err)
		}
		before := a.cable.messages.Load()
		time.Sleep(4 * time.Minute)
		n, _, err := sub.Pending()
		if err != nil || n != 0 {
			t.Errorf("%d messages among nodes, %v", n, err)
		}
		// Its own: an acknowledgement per heartbeat, two answers per digest of
		// 5 s to 15 s, and the server's time once a minute.
		if others = a.cable.messages.Load() - before; others < 80 || others > 80+2*48+5+10 {
			t.Errorf("%d messages in 4 minutes", others)
		}
	})
}

// TestManyNodes: 300 documents on one server.
func TestManyNodes(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		const nodes = 300
		c := fb.client()
		data, err := wire.Marshal(wire.Manifest{Methods: []wire.Method{{Name: "M"}, {Name: "N"}}})
		if err != nil {
			t.Fatal(err)
		}
		key, err := subjects.ManifestKey(hashOf(data))
		if err != nil {
			t.Fatal(err)
		}
		c.put(key, data)
		put := func(version string) {
			for i := range nodes {
				doc := document(subjects.Node(fmt.Sprintf("n%d", i)), fmt.Sprintf("boot%d", i), 10)
				doc.Version = version
				for j := range doc.Apps {
					doc.Apps[j].Manifests = []string{hashOf(data)}
				}
				c.put(subjects.NodeKey(subjects.Node(doc.Node)), doc)
			}
		}
		put("1")
		a := fb.join("a")
		check := func(version string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			v := a.View()
			if len(v.Nodes) != nodes+1 || len(a.Servers("M")) != nodes*10 {
				t.Errorf("%d nodes, %d servers", len(v.Nodes), len(a.Servers("M")))
			}
			for id, n := range v.Nodes {
				if id != "a" && (n.Version != version || len(n.Apps) != 10) {
					t.Fatalf("node %s: %+v", id, n)
				}
			}
		}
		check("1")
		if n := a.cable.messages.Load(); n > nodes+50 {
			t.Errorf("%d messages to read %d documents and one manifest", n, nodes)
		}
		put("2") // and now as changes
		check("2")
	})
}
