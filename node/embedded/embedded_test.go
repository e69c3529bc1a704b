package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/node/embedded"
)

func TestRestartKeepsDataAndCredentials(t *testing.T) {
	cfg := listening(t)
	cfg.Listen = freeAddress(t)
	s := start(t, cfg)
	nc, js := inProcess(t, s)
	fill(t, js, "S", 10)
	first := s.Credentials()
	if first.URL != "nats://"+cfg.Listen || first.User != "weft" || len(first.Password) != 64 || first.Node != "hub" || first.PID != os.Getpid() {
		t.Fatalf("credentials %+v", first)
	}
	nc.Close()
	s.Shutdown()
	s.Shutdown() // idempotent
	if _, err := nats.Connect("", s.ConnectOptions()...); err == nil {
		t.Error("connected after Shutdown")
	}

	s = start(t, cfg)
	if s.Credentials() != first || s.Damaged() != "" {
		t.Errorf("credentials %+v, damaged %q", s.Credentials(), s.Damaged())
	}
	_, js = inProcess(t, s)
	if n := messages(t, js, "S"); n != 10 {
		t.Errorf("%d messages after the restart", n)
	}
}

func TestClientComesBackAfterRestart(t *testing.T) {
	cfg := listening(t)
	cfg.Listen = freeAddress(t)
	s := start(t, cfg)
	back := make(chan struct{}, 1)
	c := s.Credentials()
	nc, _ := client(t, c.URL, nats.UserInfo(c.User, c.Password), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
		nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	s.Shutdown()
	start(t, cfg)
	select {
	case <-back:
	case <-time.After(10 * time.Second):
		t.Fatal("not reconnected: ", nc.LastError())
	}
}

func TestJoinThroughURL(t *testing.T) {
	cfg := listening(t)
	s := start(t, cfg)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.URL(), "nats://"))
	for _, url := range []string{s.URL(), "localhost:" + port, "127.0.0.1:" + port, "nats://localhost:" + port} {
		c, ok, err := embedded.FindURL(cfg.Credentials, url)
		if err != nil || !ok || c != s.Credentials() {
			t.Fatalf("FindURL(%q) = %+v, %v, %v", url, c, ok, err)
		}
		_, js := client(t, c.URL, nats.UserInfo(c.User, c.Password))
		if info, err := js.AccountInfo(t.Context()); err != nil || info.Limits.MaxStreams != -1 {
			t.Fatal(info, err)
		}
	}
	file := filepath.Join(cfg.Credentials, "127.0.0.1-"+port+".json")
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	s.Shutdown()
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file of a port that the system chose is still there:", err)
	}
}

func TestEveryConnectionAuthenticates(t *testing.T) {
	s := start(t, listening(t))
	inProcess := s.ConnectOptions()[0]
	for name, opts := range map[string][]nats.Option{
		"no password":    {},
		"wrong password": {nats.UserInfo("weft", "guess")},
		"wrong user":     {nats.UserInfo("admin", s.Credentials().Password)},
		"token":          {nats.Token(s.Credentials().Password)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if nc, err := nats.Connect(s.URL(), opts...); !errors.Is(err, nats.ErrAuthorization) {
				t.Error("TCP:", err)
				if err == nil {
					nc.Close()
				}
			}
			// On a pipe the reason can be lost: both sides write, then one closes.
			if nc, err := nats.Connect("", append(opts, inProcess)...); err == nil {
				t.Error("connected in process")
				nc.Close()
			}
		})
	}
}

func TestNotListening(t *testing.T) {
	for _, listen := range []string{"", "off"} {
		s := start(t, embedded.Config{Listen: listen, Credentials: "/nowhere/at/all", NoSync: true})
		if c := s.Credentials(); s.URL() != "" || c.URL != "" || len(c.Password) != 64 {
			t.Errorf("URL %q, credentials %+v", s.URL(), c)
		}
		nc, _ := inProcess(t, s)
		if nc.MaxPayload() != 8<<20 {
			t.Errorf("max payload %d", nc.MaxPayload())
		}
	}
}

func TestProvisionBeforeAnybodyElse(t *testing.T) {
	cfg := listening(t)
	cfg.Listen = freeAddress(t)
	// A password from an earlier run, so that the outsider knows it.
	s := start(t, cfg)
	password := s.Credentials().Password
	s.Shutdown()

	var mu sync.Mutex
	var order []string
	record := func(s string) { mu.Lock(); defer mu.Unlock(); order = append(order, s) }
	refused := make(chan struct{}, 1000)
	outside := make(chan error, 1)
	provision := func(ctx context.Context, nc *nats.Conn) error {
		record("provision starts")
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		for range 5 { // the outsider tries meanwhile
			<-refused
		}
		_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
		record("provision ends")
		return err
	}
	go func() {
		for {
			nc, err := nats.Connect(cfg.Listen, nats.UserInfo("weft", password))
			if err != nil {
				select {
				case refused <- struct{}{}:
				case <-t.Context().Done():
					outside <- err
					return
				}
				continue
			}
			defer nc.Close()
			record("outside connects")
			js, err := jetstream.New(nc)
			if err == nil {
				_, err = js.Stream(t.Context(), "S")
			}
			outside <- err
			return
		}
	}()
	s, err := embedded.Start(t.Context(), cfg, provision)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	if err := <-outside; err != nil {
		t.Error("outside:", err)
	}
	if got := strings.Join(order, ", "); got != "provision starts, provision ends, outside connects" {
		t.Error(got)
	}
}

func TestFailedProvisionLeavesNothing(t *testing.T) {
	cfg := listening(t)
	cfg.Listen = freeAddress(t)
	no := errors.New("no")
	if _, err := embedded.Start(t.Context(), cfg, func(context.Context, *nats.Conn) error { return no }); !errors.Is(err, no) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := embedded.Start(ctx, cfg, func(context.Context, *nats.Conn) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if found, err := embedded.Find(cfg.Credentials); len(found) != 0 || err != nil {
		t.Error(found, err)
	}
	start(t, cfg) // neither the lock nor the port is held
}

func TestPortTaken(t *testing.T) {
	s := start(t, listening(t))
	addr := strings.TrimPrefix(s.URL(), "nats://")
	cfg := listening(t)
	cfg.Listen = addr
	provisioned := false
	_, err := embedded.Start(t.Context(), cfg, func(context.Context, *nats.Conn) error { provisioned = true; return nil })
	if !errors.Is(err, embedded.ErrPortTaken) {
		t.Fatal(err)
	}
	want := fmt.Sprintf("nats: %s is already in use: another node or NATS server listens there; "+
		"use --nats nats://%s to join it, or --nats-listen 127.0.0.1:PORT / off", addr, addr)
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if _, err := os.Stat(filepath.Join(cfg.Store, "jetstream")); provisioned || !errors.Is(err, os.ErrNotExist) {
		t.Error("JetStream was started for a port that is taken")
	}
}

func TestPortTakenMeanwhile(t *testing.T) {
	cfg := listening(t)
	cfg.Listen = freeAddress(t)
	_, err := embedded.Start(t.Context(), cfg, func(ctx context.Context, _ *nats.Conn) error {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	if !errors.Is(err, embedded.ErrPortTaken) {
		t.Fatal(err)
	}
	if found, err := embedded.Find(cfg.Credentials); len(found) != 0 || err != nil {
		t.Error("the loser wrote the credentials file:", found, err)
	}
}

func TestNotLoopback(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:4222", ":4222", "[::]:4222", "192.0.2.1:4222", "desk7.example:4222"} {
		if _, err := embedded.Start(t.Context(), embedded.Config{Listen: listen}, nil); !errors.Is(err, embedded.ErrNotLoopback) {
			t.Errorf("%s: %v", listen, err)
		}
	}
	for _, listen := range []string{"127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "4222"} {
		if _, err := embedded.Start(t.Context(), embedded.Config{Listen: listen}, nil); err == nil {
			t.Errorf("%s: no error", listen)
		}
	}
}

func TestIPv6(t *testing.T) {
	cfg := listening(t)
	cfg.Listen = "[::1]:0"
	s, err := embedded.Start(t.Context(), cfg, nil)
	if err != nil {
		if l, lerr := (&net.ListenConfig{}).Listen(t.Context(), "tcp", cfg.Listen); lerr == nil {
			l.Close()
			t.Fatal(err)
		}
		t.Log("this machine has no ::1, so an error is right:", err)
		return
	}
	defer s.Shutdown()
	if c, ok, err := embedded.FindURL(cfg.Credentials, s.URL()); !ok || err != nil || c != s.Credentials() {
		t.Error(c, ok, err)
	}
	client(t, s.URL(), nats.UserInfo(s.Credentials().User, s.Credentials().Password))
}

func TestStoreInUse(t *testing.T) {
	cfg := listening(t)
	s := start(t, cfg)
	cfg.Listen = "off"
	_, err := embedded.Start(t.Context(), cfg, nil)
	want := fmt.Sprintf(`store %s is in use by node "hub" (pid %d): stop it, or give this one another --store`, cfg.Store, os.Getpid())
	if !errors.Is(err, embedded.ErrStoreInUse) || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	s.Shutdown()
	// What a killed process leaves: the holder file without the lock.
	if err := os.WriteFile(filepath.Join(cfg.Store, "holder"), []byte(`{"node":"ghost","pid":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, cfg)
}

func TestTemporaryStore(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv("TMP", tmp)
	s := start(t, embedded.Config{NoSync: true})
	_, js := inProcess(t, s)
	fill(t, js, "S", 3)
	if left, _ := os.ReadDir(tmp); len(left) != 1 {
		t.Fatal(left)
	}
	s.Shutdown()
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Error("left behind:", left)
	}
}

func TestStoreBelowAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, nil, file)
	if _, err := embedded.Start(t.Context(), embedded.Config{Store: filepath.Join(file, "store")}, nil); err == nil {
		t.Error("no error for a store below a file")
	}
}

func TestKilled(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "store")
	listen := freeAddress(t)
	last, password := 0, ""
	for round := range 2 {
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), childEnv+"="+dir, childEnv+"_LISTEN="+listen)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked := 0
		for in := bufio.NewScanner(out); in.Scan(); {
			seq, err := strconv.Atoi(in.Text())
			if err != nil {
				t.Fatal(in.Text())
			}
			last = seq
			if acked++; acked == 50 {
				_ = cmd.Process.Kill() // keep reading: what was acknowledged counts
			}
		}
		_ = cmd.Wait()
		c, ok, err := embedded.FindURL(dir+"-credentials", listen)
		if !ok || err != nil || round > 0 && c.Password != password || c.PID != cmd.Process.Pid {
			t.Fatal("after the kill:", c, ok, err)
		}
		password = c.Password
	}
	s := start(t, embedded.Config{Store: dir, Credentials: dir + "-credentials", Listen: listen})
	_, js := inProcess(t, s)
	if n := messages(t, js, "S"); n < last || last < 100 || s.Damaged() != "" || s.Credentials().Password != password {
		t.Errorf("%d messages of %d acknowledged, damaged %q", n, last, s.Damaged())
	}
}
