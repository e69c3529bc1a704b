package topics_test

import (
	"context"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/node/topics"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const realm subjects.Realm = "desk"

func TestMain(m *testing.M) {
	// The server's clock goroutine must start outside of every bubble.
	ats.Register()
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// hub is a NATS server that can go away and come back.
type hub struct {
	opts server.Options

	mu   sync.Mutex
	srv  *server.Server
	gate chan struct{}
}

// start runs a server in process, in which users, if any, are the only ones.
func start(t testing.TB, users ...*server.User) *hub {
	t.Helper()
	h := &hub{opts: server.Options{DontListen: true, NoLog: true, NoSigs: true, MaxPayload: 8 << 20, Users: users}}
	h.up(t)
	t.Cleanup(h.down)
	return h
}

func (h *hub) up(t testing.TB) {
	t.Helper()
	opts := h.opts
	s, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(5 * time.Second) {
		t.Fatal("the server is not ready")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.srv = s
}

func (h *hub) down() {
	h.mu.Lock()
	s := h.srv
	h.srv = nil
	h.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// reload changes the users of the running server.
func (h *hub) reload(t testing.TB, users ...*server.User) {
	t.Helper()
	opts := h.opts
	opts.Users = users
	if err := h.srv.ReloadOptions(&opts); err != nil {
		t.Fatal(err)
	}
}

// InProcessConn is what nats.InProcessServer asks for.
func (h *hub) InProcessConn() (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.srv == nil {
		return nil, syscall.ECONNREFUSED
	}
	c, err := h.srv.InProcessConn()
	return &gated{c, h}, err
}

// freeze holds back what servers send until thaw is called.
func (h *hub) freeze() (thaw func()) {
	gate := make(chan struct{})
	h.mu.Lock()
	h.gate = gate
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		h.gate = nil
		h.mu.Unlock()
		close(gate)
	}
}

type gated struct {
	net.Conn
	hub *hub
}

func (g *gated) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	g.hub.mu.Lock()
	gate := g.hub.gate
	g.hub.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return n, err
}

// node is a Topics with a link of its own.
type node struct {
	*topics.Topics
	link *link.Link
}

// join connects a node as the NATS user of its name. lookup may be nil.
func (h *hub) join(t testing.TB, name subjects.Node, lookup func(subjects.App) (wire.Identity, bool)) *node {
	t.Helper()
	if lookup == nil {
		lookup = directory
	}
	var to atomic.Pointer[topics.Topics]
	opts := []nats.Option{nats.InProcessServer(h)}
	if len(h.opts.Users) > 0 {
		opts = append(opts, nats.UserInfo(string(name), "x"))
	}
	l, err := link.Open(t.Context(), link.Config{Options: opts, Node: name, Name: string(name), NoEcho: true, OnState: func(s link.State) {
		if t := to.Load(); t != nil {
			t.Connected(s.Online, s.Reason)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{topics.New(topics.Config{Realm: realm, Self: name, Data: l, Identity: lookup}), l}
	to.Store(n.Topics)
	t.Cleanup(func() {
		n.Close()
		l.Close()
	})
	return n
}

// client is a plain NATS client.
func (h *hub) client(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(h))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// The apps: two on node a, one on b.
var (
	blotter = wire.Identity{Application: "blotter", Region: "EU", PID: 7, User: "ann", Node: "a", App: "aaa-1"}
	chart   = wire.Identity{Application: "chart", Region: "US", User: "ann", Node: "a", App: "aaa-2"}
	ticket  = wire.Identity{Application: "ticket", Region: "EU", User: "bob", Node: "b", App: "bbb-1"}
)

func directory(app subjects.App) (wire.Identity, bool) {
	for _, id := range []wire.Identity{blotter, chart, ticket} {
		if id.App == string(app) {
			return id, true
		}
	}
	return wire.Identity{}, false
}

func subscribe(t testing.TB, n *node, app wire.Identity, pattern string, opts ...topics.SubscribeOption) *topics.Subscription {
	t.Helper()
	s, err := n.Subscribe(t.Context(), app, pattern, opts...)
	if err != nil {
		t.Fatalf("subscribe to %q: %v", pattern, err)
	}
	return s
}

func publish(t testing.TB, n *node, app wire.Identity, topic string, v any, opts ...topics.PublishOption) {
	t.Helper()
	if err := n.Publish(t.Context(), app, topic, value(t, v), opts...); err != nil {
		t.Fatalf("publish on %q: %v", topic, err)
	}
}

func value(t testing.TB, v any) wire.Payload {
	t.Helper()
	p, err := wire.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// queued returns what waits for the reader. Only in a bubble: it lets
// everything that is on its way arrive first.
func queued(s *topics.Subscription) []topics.Event {
	synctest.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return slices.Collect(s.Events(ctx))
}

// texts returns the values, which must be strings, and "lost" notices.
func texts(t testing.TB, evs []topics.Event) []string {
	t.Helper()
	got := []string{}
	for _, ev := range evs {
		if ev.Kind == topics.Lost {
			got = append(got, "lost: "+ev.Reason)
			continue
		}
		var s string
		if err := ev.Value.Decode(&s); err != nil {
			t.Errorf("value on %q: %v", ev.Topic, err)
		}
		got = append(got, s)
	}
	return got
}

func want(t testing.TB, s *topics.Subscription, values ...string) {
	t.Helper()
	if got := texts(t, queued(s)); !slices.Equal(got, values) {
		t.Errorf("got %q, want %q", got, values)
	}
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	// The client library pools timers, also across bubbles, where they may not
	// be used. Two collections empty a pool.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, f)
}
