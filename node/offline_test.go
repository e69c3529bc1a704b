package node_test

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/embedded"
)

// road leads to a server, until it is refused or becomes a black hole.
type road struct {
	server *embedded.Server

	mu       sync.Mutex
	refused  bool
	hole     bool
	attempts int
	open     []net.Conn
}

// InProcessConn is what nats.InProcessServer asks for.
func (r *road) InProcessConn() (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts++
	if r.refused {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	if r.hole {
		// In real time that takes a while. The client library holds a lock meanwhile,
		// on which fake time would wait for ever.
		return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	}
	near, far := net.Pipe()
	r.open = append(r.open, near, far)
	c, err := r.server.InProcessConn()
	if err != nil {
		return nil, err
	}
	r.open = append(r.open, c)
	go r.carry(c, far)
	go r.carry(far, c)
	return near, nil
}

// carry copies until an end closes; what falls into the hole is gone, and nobody is told.
func (r *road) carry(to io.Writer, from net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			break
		}
		r.mu.Lock()
		hole := r.hole
		r.mu.Unlock()
		if hole {
			continue
		}
		if _, err := to.Write(b[:n]); err != nil {
			break
		}
	}
	_ = from.Close()
	if c, ok := to.(net.Conn); ok {
		r.mu.Lock()
		hole := r.hole
		r.mu.Unlock()
		if !hole {
			_ = c.Close()
		}
	}
}

func (r *road) set(refused, hole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused, r.hole = refused, hole
	if refused || !hole {
		for _, c := range r.open {
			_ = c.Close()
		}
		r.open = nil
	}
}

func (r *road) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.attempts
}

// TestTenMinutesOffline: the cluster refuses, or packets are dropped and nobody is told.
// A node says so within 25 s, its apps go on, and nothing spins, leaks or floods the
// log; it is back by itself.
func TestTenMinutesOffline(t *testing.T) {
	for name, c := range map[string]struct{ refused, hole bool }{"refused": {refused: true}, "dropped": {hole: true}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				server, err := embedded.Start(t.Context(), embedded.Config{NoSync: true}, provision)
				if err != nil {
					t.Fatal(err)
				}
				defer server.Shutdown()
				way, log := &road{server: server}, &logLines{}
				opts := append(server.ConnectOptions(), nats.InProcessServer(way))
				n, err := node.Start(t.Context(), node.Config{
					Realm: realm, Node: "a", Store: t.TempDir(), NATS: node.NATS{URL: "nats://cluster", Options: opts}, Logger: log.logger(),
				})
				if err != nil {
					t.Fatal(err)
				}
				defer n.Stop()
				defer way.set(false, false)
				app, caller := join(t, n, "app"), join(t, n, "caller")
				err = node.Handle(t.Context(), app, node.Method{Name: "Echo"}, func(_ context.Context, in int, _ *node.Call) (int, error) { return in, nil })
				if err == nil {
					_, err = app.Contexts().Set(t.Context(), "c", map[string]int{"a": 1})
				}
				if err != nil {
					t.Fatal(err)
				}
				before := len(log.all())
				start := time.Now()
				way.set(c.refused, c.hole)
				for n.State().Online && time.Since(start) < time.Minute {
					time.Sleep(time.Second)
				}
				if d := time.Since(start); d > 25*time.Second {
					t.Errorf("offline after %s", d)
				}
				time.Sleep(time.Minute)
				goroutines, tried := settled(), way.tried()
				for i := range 10 {
					time.Sleep(time.Minute)
					if got, err := node.Invoke[int](t.Context(), caller, "Echo", i); got != i || err != nil {
						t.Errorf("a call between local apps: %d, %v", got, err)
					}
				}
				if now := settled(); now > goroutines+5 {
					t.Errorf("%d goroutines, %d after ten minutes", goroutines, now)
				}
				if n := way.tried() - tried; n == 0 || n > 600 { // two connections
					t.Errorf("%d attempts to connect in ten minutes", n)
				}
				if lines := log.all(); len(lines)-before > 10 {
					t.Errorf("%d lines in the log:\n%s", len(lines)-before, strings.Join(lines[before:], "\n"))
				}
				way.set(false, false)
				time.Sleep(20 * time.Second)
				if s := n.State(); !s.Online {
					t.Errorf("not back: %+v", s)
				}
				if _, err := app.Contexts().Set(t.Context(), "c", map[string]int{"a": 2}); err != nil {
					t.Error(err)
				}
				if list := n.Alarms(); len(list) > 0 {
					t.Errorf("alarms %+v", list)
				}
			})
		})
	}
}

// settled is how many goroutines there are when all that end have ended.
func settled() int {
	runtime.Gosched()
	return runtime.NumGoroutine()
}

// TestLostStreamsAreNoFlood: a server that has lost the realm's streams answers. The node
// says so once, not with each attempt, and its status does.
func TestLostStreamsAreNoFlood(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		server, err := embedded.Start(t.Context(), embedded.Config{NoSync: true}, provision)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Shutdown()
		log := &logLines{}
		n, err := node.Start(t.Context(), node.Config{Realm: realm, Node: "a", Server: server, Logger: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Stop()
		if _, err := join(t, n, "app").Contexts().Set(t.Context(), "c", map[string]int{"a": 1}); err != nil {
			t.Fatal(err)
		}
		nc, err := nats.Connect("", server.ConnectOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		for _, bucket := range []string{"KV_weft_desk_dir", "KV_weft_desk_ctx"} {
			if _, err := nc.RequestWithContext(t.Context(), "$JS.API.STREAM.DELETE."+bucket, nil); err != nil {
				t.Fatal(err)
			}
		}
		nc.Close()
		before := len(log.all())
		time.Sleep(10 * time.Minute)
		if s := n.Status(); !strings.Contains(s.JetStream, "KV_weft_desk_ctx") {
			t.Errorf("status %+v", s)
		}
		if lines := log.all(); len(lines)-before > 10 {
			t.Errorf("%d lines in the log:\n%s", len(lines)-before, strings.Join(lines[before:min(before+20, len(lines))], "\n"))
		}
	})
}
