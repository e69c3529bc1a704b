package node_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/wire"
)

func TestMain(m *testing.M) {
	ats.Register() // the server's clock goroutine must not start inside a bubble
	os.Exit(m.Run())
}

// fabric is an embedded server and the nodes that a test starts on it, all in
// one bubble of fake time.
type fabric struct {
	t      *testing.T
	server *embedded.Server
}

const realm = "desk"

// provision makes a realm that had its default channels once and has no more: they
// would be among the contexts of every test.
func provision(ctx context.Context, nc *nats.Conn) error {
	if err := kv.Provision(ctx, nc, realm, 1); err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.Publish(ctx, "$KV.weft_desk_ctx.=.channels", []byte("{}"))
	}
	return err
}

// inBubble runs f in fake time. The client library pools timers, and one that
// crosses from bubble to bubble ends the process: two collections empty a pool.
func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	runtime.GC()
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(10 * time.Millisecond) // a server's store wakes once more; fake time
		f(t)
	})
}

// inFabric runs f in a bubble.
func inFabric(t *testing.T, f func(t *testing.T, fb *fabric)) {
	t.Helper()
	inProvisioned(t, provision, f)
}

func inProvisioned(t *testing.T, provision func(context.Context, *nats.Conn) error, f func(t *testing.T, fb *fabric)) {
	t.Helper()
	inBubble(t, func(t *testing.T) {
		s, err := embedded.Start(t.Context(), embedded.Config{NoSync: true}, provision)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			s.Shutdown()
			time.Sleep(10 * time.Millisecond) // its store's flusher wakes once more; fake time
		}()
		f(t, &fabric{t, s})
	})
}

func logger(t *testing.T) *slog.Logger {
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}

// node starts a node on a machine of its own; the test ends it.
func (fb *fabric) node(id string) *node.Node {
	fb.t.Helper()
	n, err := node.Start(fb.t.Context(), node.Config{Realm: realm, Node: id, Machine: "machine-" + id, Server: fb.server, Logger: logger(fb.t)})
	if err != nil {
		fb.t.Fatal(err)
	}
	if s := n.State(); !s.Online {
		fb.t.Fatalf("node %s is offline: %s", id, s.Reason)
	}
	return n
}

func join(t *testing.T, n *node.Node, application string) *node.App {
	t.Helper()
	a, err := n.Join(t.Context(), node.Identity{Application: application})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type pair struct{ A, B int }

type sum struct{ Sum int }

func registerAdd(t *testing.T, a *node.App) {
	t.Helper()
	err := node.Handle(t.Context(), a, node.Method{Name: "Add", Accepts: "int A, int B", Returns: "int Sum"},
		func(_ context.Context, in pair, _ *node.Call) (sum, error) { return sum{in.A + in.B}, nil })
	if err != nil {
		t.Fatal(err)
	}
}

func TestCallAcrossMachines(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		registerAdd(t, join(t, a, "pricer"))
		synctest.Wait()
		got, err := node.Invoke[sum](t.Context(), join(t, b, "blotter"), "Add", pair{1, 2})
		if err != nil || got.Sum != 3 {
			t.Fatalf("got %v, %v", got, err)
		}
	})
}

func TestNoServer(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		started := time.Now()
		_, err := join(t, a, "x").Invoke(t.Context(), "Nobody", nil)
		if !errors.Is(err, wire.ErrNoServer) || time.Since(started) != 0 {
			t.Fatalf("got %v after %s", err, time.Since(started))
		}
	})
}
