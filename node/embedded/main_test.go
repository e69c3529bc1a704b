package embedded_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/weft-fabric/weft/node/embedded"
)

// childEnv makes the test binary the process that TestKilled kills.
const childEnv = "WEFT_TEST_EMBEDDED_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		publishUntilKilled(dir)
		return
	}
	// The server's clock goroutine must start outside of every bubble; it is
	// one per process and ends with it.
	ats.Register()
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// listening is a configuration whose server others can join.
func listening(t *testing.T) embedded.Config {
	t.Helper()
	return embedded.Config{Store: t.TempDir(), Credentials: t.TempDir(), Listen: "127.0.0.1:0", Holder: "hub", NoSync: true}
}

// freeAddress is one that nothing listens on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// inProcess is a JetStream client of the server.
func inProcess(t *testing.T, s *embedded.Server) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	return client(t, "", s.ConnectOptions()...)
}

func client(t *testing.T, url string, opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// fill makes a file stream of the name with n messages on the subject <name>.x.
func fill(t *testing.T, js jetstream.JetStream, name string, n int) {
	t.Helper()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}, Storage: jetstream.FileStorage}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := js.Publish(t.Context(), name+".x", []byte(fmt.Sprintf("%s message %03d", name, i))); err != nil {
			t.Fatal(err)
		}
	}
}

// messages counts what a stream holds; -1 if there is no such stream.
func messages(t *testing.T, js jetstream.JetStream, name string) int {
	t.Helper()
	st, err := js.Stream(t.Context(), name)
	if err != nil {
		return -1
	}
	return int(st.CachedInfo().State.Msgs)
}

// publishUntilKilled is the child of TestKilled: it prints each sequence once
// the server has acknowledged it.
func publishUntilKilled(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	fail := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	s, err := embedded.Start(ctx, embedded.Config{Store: dir, Credentials: dir + "-credentials", Listen: os.Getenv(childEnv + "_LISTEN"), Holder: "child"}, nil)
	fail(err)
	nc, err := nats.Connect("", s.ConnectOptions()...)
	fail(err)
	js, err := jetstream.New(nc)
	fail(err)
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	fail(err)
	for {
		ack, err := js.Publish(ctx, "s", []byte("x"))
		fail(err)
		fmt.Println(ack.Sequence)
	}
}

// lines is a log handler's writer that a test can read while it is written.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
