package kv_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
)

const realm subjects.Realm = "desk"

func TestMain(m *testing.M) {
	ats.Register() // the server's clock goroutine must start outside of every bubble
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// hub is a NATS server whose connections a test can cut and change.
type hub struct {
	opts server.Options

	mu  sync.Mutex
	srv *server.Server
}

func start(t testing.TB, opts server.Options) *hub {
	t.Helper()
	opts.DontListen, opts.NoLog, opts.NoSigs = true, true, true
	if opts.StoreDir == "" {
		opts.StoreDir = t.TempDir()
	}
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

func (h *hub) conn(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("", append(opts, nats.InProcessServer(h), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (h *hub) link(t testing.TB, opts ...nats.Option) *link.Link {
	t.Helper()
	l, err := link.Open(t.Context(), link.Config{Node: "a", Options: append(opts, nats.InProcessServer(h))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// bucket is a provisioned realm's directory bucket.
func bucket(t testing.TB) (*hub, *kv.Bucket, jetstream.JetStream) {
	t.Helper()
	h := start(t, server.Options{JetStream: true, MaxPayload: 8 << 20})
	nc := h.conn(t)
	if err := kv.Provision(within(t, time.Minute), nc, realm, 1); err != nil {
		t.Fatal(err)
	}
	return h, kv.Directory(h.link(t), realm), stream(t, nc)
}

func stream(t testing.TB, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// proxy stands between a client and the server and changes what the client
// receives, as a replica would that lags or is damaged.
type proxy struct {
	hub    *hub
	change func(down []byte) []byte
}

// InProcessConn is what nats.InProcessServer asks for.
func (p *proxy) InProcessConn() (net.Conn, error) {
	c, err := p.hub.InProcessConn()
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	go func() {
		_, _ = io.Copy(c, far)
		_ = c.Close()
	}()
	go func() {
		// Everything in the protocol ends with a line end, and none is long.
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadBytes('\n')
			if err != nil {
				break
			}
			if _, err := far.Write(p.change(line)); err != nil {
				break
			}
		}
		_ = far.Close()
		_ = c.Close()
	}()
	return near, nil
}

// bubble runs f in fake time: a time.Sleep in f takes no time, and ends when
// everything that was to happen by then has happened.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	// The client library pools timers, also across bubbles, where they may not
	// be used. Two collections empty a pool.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		// Registered first, so it runs last, when the server is down: its store
		// wakes once more, and nothing may be left in a bubble.
		t.Cleanup(func() { time.Sleep(10 * time.Millisecond) })
		f(t)
	})
}
