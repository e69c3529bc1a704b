package node_test

import (
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// cable is a node's way to the server: pulled, both connections break and none
// can be made.
type cable struct {
	dial func() (net.Conn, error)

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

// InProcessConn is what nats.InProcessServer asks for.
func (c *cable) InProcessConn() (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, errors.New("the cable is pulled")
	}
	conn, err := c.dial()
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

func (c *cable) pull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = false
}

// wired starts a node on a cable.
func (fb *fabric) wired(id string) (*node.Node, *cable) {
	fb.t.Helper()
	var probe nats.Options
	for _, o := range fb.server.ConnectOptions() {
		if err := o(&probe); err != nil {
			fb.t.Fatal(err)
		}
	}
	c := &cable{dial: probe.InProcessServer.InProcessConn}
	n, err := node.Start(fb.t.Context(), node.Config{
		Realm: realm, Node: id, Machine: "machine-" + id, Logger: logger(fb.t),
		NATS: node.NATS{URL: "nats://cable", Options: append(fb.server.ConnectOptions(), nats.InProcessServer(c))},
	})
	if err != nil {
		fb.t.Fatal(err)
	}
	return n, c
}

// ids are the nodes that a node sees.
func ids(n *node.Node) string {
	var all []string
	for _, i := range n.Nodes() {
		all = append(all, string(i.ID))
	}
	return strings.Join(all, " ")
}

// sees waits for the nodes that n sees and returns how long it took.
func sees(t *testing.T, n *node.Node, within time.Duration, want string) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		synctest.Wait()
		got, took := ids(n), time.Since(began)
		if got == want {
			return took
		}
		if took > within {
			t.Fatalf("node %s sees %q after %s, want %q", n.ID(), got, took, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestKilledNode: its callers hear of it at once, everybody within 15 s, and
// again when it is back, with what it offers.
func TestKilledNode(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		b, cable := fb.wired("b")
		defer b.Stop()
		registerAdd(t, join(t, b, "pricer"))
		blotter := join(t, a, "blotter")
		if got, err := node.Invoke[sum](t.Context(), blotter, "Add", pair{1, 2}, node.Wait(time.Second)); err != nil || got.Sum != 3 {
			t.Fatalf("got %v, %v", got, err)
		}
		cable.pull()
		synctest.Wait()
		began := time.Now()
		if _, err := node.Invoke[sum](t.Context(), blotter, "Add", pair{1, 2}); !errors.Is(err, wire.ErrTargetGone) && !errors.Is(err, wire.ErrNoServer) {
			t.Errorf("called a dead node: %v", err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("known after %s", d)
		}
		took := sees(t, a, 15*time.Second, "a")
		began = time.Now()
		if _, err := node.Invoke[sum](t.Context(), blotter, "Add", pair{1, 2}); !errors.Is(err, wire.ErrNoServer) || time.Since(began) != 0 {
			t.Errorf("after its removal: %v after %s", err, time.Since(began))
		}
		t.Logf("removed after %s", took)
		cable.plug()
		sees(t, a, 10*time.Second, "a b")
		if got, err := node.Invoke[sum](t.Context(), blotter, "Add", pair{2, 2}, node.Wait(time.Second)); err != nil || got.Sum != 4 {
			t.Errorf("back again: %v, %v", got, err)
		}
	})
}

// TestStoppedNode: a clean leave is seen within a second.
func TestStoppedNode(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		join(t, b, "x")
		sees(t, a, time.Second, "a b")
		b.Stop()
		sees(t, a, time.Second, "a")
		time.Sleep(30 * time.Second)
		sees(t, a, 0, "a")
	})
}

// TestCutOffNode says that it is offline, keeps its view for ten seconds, works
// on its own and comes back.
func TestCutOffNode(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, cable := fb.wired("a")
		defer a.Stop()
		b := fb.node("b")
		defer b.Stop()
		app := join(t, a, "x")
		registerAdd(t, app)
		sees(t, a, time.Second, "a b")
		cable.pull()
		synctest.Wait()
		if s := a.State(); s.Online || s.Reason == "" {
			t.Errorf("state %+v", s)
		}
		time.Sleep(9 * time.Second)
		sees(t, a, 0, "a b")
		sees(t, a, 2*time.Second, "a")
		if got, err := node.Invoke[sum](t.Context(), app, "Add", pair{1, 2}); err != nil || got.Sum != 3 {
			t.Errorf("at home: %v, %v", got, err)
		}
		sees(t, b, 15*time.Second, "b")
		cable.plug()
		sees(t, a, 10*time.Second, "a b")
		sees(t, b, time.Second, "a b")
		if s := a.State(); !s.Online {
			t.Errorf("state %+v", s)
		}
	})
}

// TestTakenAtStart: the second node of an id does not start, the first one goes
// on.
func TestTakenAtStart(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		registerAdd(t, join(t, a, "pricer"))
		if n, err := node.Start(t.Context(), node.Config{Realm: realm, Node: "a", Server: fb.server}); !errors.Is(err, node.ErrTaken) {
			t.Errorf("got %v, %v", n, err)
		}
		time.Sleep(time.Minute)
		if got, err := node.Invoke[sum](t.Context(), join(t, b, "blotter"), "Add", pair{1, 2}); err != nil || got.Sum != 3 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// TestReconnectIsNoNews: neither node's watcher sees anything.
func TestReconnectIsNoNews(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		b, cable := fb.wired("b")
		defer b.Stop()
		registerAdd(t, join(t, b, "pricer"))
		sees(t, a, time.Second, "a b")
		var mu sync.Mutex
		var events []string
		for _, n := range []*node.Node{a, b} {
			go func() {
				for ev := range n.Watch(t.Context()) {
					mu.Lock()
					events = append(events, string(n.ID())+" "+ev.Kind.String())
					mu.Unlock()
				}
			}()
		}
		synctest.Wait()
		mu.Lock()
		known := len(events)
		mu.Unlock()
		cable.pull()
		time.Sleep(3 * time.Second)
		cable.plug()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if slices.Sort(events); len(events) != known || known == 0 {
			t.Errorf("%d events, %d before: %q", len(events), known, events)
		}
	})
}
