package node_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/wire"
)

// logLines is a log.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.b.String()), "\n")
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestBadDisk: a node whose store cannot be used serves its local apps, says what is
// wrong, and joins by itself when the disk is mended.
func TestBadDisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store, log := t.TempDir(), &logLines{}
		inTheWay := filepath.Join(store, "jetstream", ".probe", "x")
		if err := os.MkdirAll(inTheWay, 0o700); err != nil {
			t.Fatal(err)
		}
		n, err := node.Start(t.Context(), node.Config{Realm: realm, Node: "a", Store: store, NoSync: true, Logger: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Stop()
		if s := n.State(); s.Online || !strings.Contains(s.Reason, ".probe") {
			t.Errorf("state %+v", s)
		}
		alarms := n.Alarms()
		if len(alarms) != 1 || alarms[0].Kind != alarm.StoreUnusable || alarms[0].Server != "weft-a" || !strings.Contains(alarms[0].Text, store) {
			t.Fatalf("alarms %+v", alarms)
		}
		if n.Embedded() != nil {
			t.Error("there is a server")
		}
		server, client := join(t, n, "server"), join(t, n, "client")
		if err := node.Handle(t.Context(), server, node.Method{Name: "Echo"}, func(_ context.Context, in int, _ *node.Call) (int, error) { return in, nil }); err != nil {
			t.Fatal(err)
		}
		if got, err := node.Invoke[int](t.Context(), client, "Echo", 1); got != 1 || err != nil {
			t.Error("local apps:", err)
		}
		time.Sleep(10 * time.Minute)
		if lines := log.all(); len(lines) > 10 {
			t.Errorf("%d lines in the log:\n%s", len(lines), strings.Join(lines, "\n"))
		}
		if err := os.RemoveAll(filepath.Dir(inTheWay)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if s := n.State(); !s.Online {
			t.Errorf("mended: %+v", s)
		}
		if list := n.Alarms(); len(list) > 0 {
			t.Errorf("mended: %+v", list)
		}
		if _, err := client.Contexts().Set(t.Context(), "c", map[string]int{"a": 1}); err != nil {
			t.Error("mended:", err)
		}
	})
}

// TestDecisionsAreErrors: what a person has to decide ends the start.
func TestDecisionsAreErrors(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := t.TempDir()
		n, err := node.Start(t.Context(), node.Config{Realm: realm, Node: "a", Store: store, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Stop()
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			cfg  node.Config
			want error
		}{
			"in use":                {node.Config{Realm: realm, Node: "b", Store: store}, embedded.ErrStoreInUse},
			"in use, on a cluster":  {node.Config{Realm: realm, Node: "b", Store: store, Server: n.Embedded()}, embedded.ErrStoreInUse},
			"not loopback":          {node.Config{Realm: realm, Node: "b", Listen: "192.0.2.1:4222"}, embedded.ErrNotLoopback},
			"a file, not directory": {node.Config{Realm: realm, Node: "b", Store: file}, nil},
		} {
			other, err := node.Start(t.Context(), c.cfg)
			if err == nil {
				other.Stop()
			}
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestStoreSetAside: a damaged store does not keep a node from starting, and it says
// where the damaged part is.
func TestStoreSetAside(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := t.TempDir()
		cfg := node.Config{Realm: realm, Node: "a", Store: store, NoSync: true}
		n, err := node.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		n.Stop()
		if err := os.WriteFile(filepath.Join(store, "jetstream", "$G", "streams", "KV_weft_desk_ctx", "meta.sum"), []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err = node.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Stop()
		alarms := n.Alarms()
		if len(alarms) != 1 || alarms[0].Kind != alarm.StoreSetAside || alarms[0].Stream != "KV_weft_desk_ctx" || !strings.Contains(alarms[0].Text, filepath.Join(store, "jetstream.damaged-")) {
			t.Errorf("alarms %+v", alarms)
		}
		if _, err := join(t, n, "app").Contexts().Set(t.Context(), "c", map[string]int{"a": 1}); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		s, running, err := node.ReadStatus(store)
		if err != nil || !running || !s.Online || s.Node != "a" || len(s.Alarms) != 1 || s.JetStream != "" {
			t.Errorf("status %+v, running %t, %v", s, running, err)
		}
	})
}

// TestStatusOffline: the status file follows the node's state.
func TestStatusOffline(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := t.TempDir()
		server, err := embedded.Start(t.Context(), embedded.Config{NoSync: true}, provision)
		if err != nil {
			t.Fatal(err)
		}
		n, err := node.Start(t.Context(), node.Config{Realm: realm, Node: "a", Store: store, Server: server})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if s, running, err := node.ReadStatus(store); err != nil || !running || !s.Online || s.Embedded {
			t.Errorf("status %+v, running %t, %v", s, running, err)
		}
		server.Shutdown()
		time.Sleep(10 * time.Second)
		if s, running, err := node.ReadStatus(store); err != nil || !running || s.Online || s.Reason == "" || s.JetStream == "" {
			t.Errorf("status %+v, running %t, %v", s, running, err)
		}
		n.Stop()
		if _, running, err := node.ReadStatus(store); err != nil || running {
			t.Errorf("running %t, %v", running, err)
		}
		if _, _, err := node.ReadStatus(t.TempDir()); !errors.Is(err, wire.ErrBadName) {
			t.Error(err)
		}
	})
}
