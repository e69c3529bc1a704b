package link_test

import (
	"context"
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/weft-fabric/weft/link"
)

func TestMain(m *testing.M) {
	ats.Register() // the server's clock goroutine must start outside of every bubble
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// hub is a NATS server that can go away and come back.
type hub struct {
	opts server.Options

	mu  sync.Mutex
	srv *server.Server
}

func start(t testing.TB, opts server.Options) *hub {
	t.Helper()
	opts.DontListen, opts.NoLog, opts.NoSigs = true, true, true
	h := &hub{opts: opts}
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

// InProcessConn is what nats.InProcessServer asks for.
func (h *hub) InProcessConn() (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.srv == nil {
		return nil, syscall.ECONNREFUSED
	}
	return h.srv.InProcessConn()
}

// states collects what OnState is told.
type states struct {
	mu  sync.Mutex
	all []link.State
}

func (s *states) add(st link.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, st)
}

func (s *states) list() []link.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

func open(t testing.TB, h *hub, cfg link.Config) *link.Link {
	t.Helper()
	cfg.Options = append(cfg.Options, nats.InProcessServer(h))
	if cfg.Node == "" {
		cfg.Node = "a"
	}
	l, err := link.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// client is a plain NATS client.
func (h *hub) client(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("", append(opts, nats.InProcessServer(h), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func user(name string, pub, sub []string) *server.User {
	return &server.User{Username: name, Password: "x", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: pub}, Subscribe: &server.SubjectPermission{Allow: sub},
	}}
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	// The client library pools timers, also across bubbles, where they may not
	// be used. Two collections empty a pool.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, f)
}
