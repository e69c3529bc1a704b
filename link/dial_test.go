package link_test

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
)

// mute is a listener that accepts connections and says nothing, as a host does whose
// answers are swallowed on their way.
type mute struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func listenMutely(t *testing.T, address string) *mute {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &mute{Listener: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *mute) stop() {
	_ = s.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
}

// TestSilentServer: while a server is asked that does not answer, nothing that uses the
// link waits for it, and when there is one that does the link is online by itself.
func TestSilentServer(t *testing.T) {
	s := listenMutely(t, "127.0.0.1:0")
	address := s.Addr().String()
	l, err := link.Open(t.Context(), link.Config{Node: "a", URL: "nats://" + address})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	worst := time.Duration(0)
	for began := time.Now(); time.Since(began) < 6*time.Second; {
		at := time.Now()
		if l.Publish(nats.NewMsg("x")) == nil {
			t.Fatal("published to nobody")
		}
		sub, err := l.Subscribe(t.Context(), "x", "", func(*nats.Msg) {}, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Unsubscribe(sub)
		_, _ = l.MaxPayload(), l.Conn().Status()
		worst = max(worst, time.Since(at))
	}
	if worst > time.Second {
		t.Errorf("something waited %s", worst)
	}
	if st := l.State(); st.Online || !strings.Contains(st.Reason, "timeout") {
		t.Errorf("state: %+v", st)
	}
	s.stop()
	host, port := "127.0.0.1", s.Addr().(*net.TCPAddr).Port
	srv, err := server.NewServer(&server.Options{Host: host, Port: port, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer srv.WaitForShutdown()
	defer srv.Shutdown()
	for began := time.Now(); l.Online() != nil; {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("still %+v", l.State())
		}
		at := time.Now()
		_ = l.Conn().Status()
		worst = max(worst, time.Since(at))
	}
	t.Logf("the longest wait was %s", worst)
}
