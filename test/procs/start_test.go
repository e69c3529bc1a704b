//go:build unix

package procs_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// refused checks that a command failed, and what it says.
func refused(t *testing.T, r result, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if r.code != 1 || !strings.Contains(r.stderr, text) {
			t.Fatalf("exit code %d and %q; want 1 and %q in it", r.code, r.stderr, text)
		}
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := newFabric(t).run("up", "--node", "hub", "--nats-listen", l.Addr().String())
	refused(t, r, l.Addr().String()+" is already in use", "--nats-listen")
}

func TestStoreInUse(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	r := f.run("up", "--node", "hub", "--nats-listen", "127.0.0.1:0")
	refused(t, r, fmt.Sprintf(`in use by node "hub" (pid %d)`, f.hub.cmd.Process.Pid), "--node")
}

// TestDamagedStore: a store that cannot be opened is set aside with a loud
// message, and the node works.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		damage func(t *testing.T, store string)
		want   string
	}{
		{"directory", func(t *testing.T, store string) {
			if err := os.RemoveAll(store); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(store, []byte("not a directory"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "whole_store\":true"},
		{"stream", func(t *testing.T, store string) {
			damaged := 0
			err := filepath.WalkDir(store, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.Name() == "meta.inf" && strings.Contains(path, "_ctx") {
					damaged++
					err = os.WriteFile(path, []byte("{"), 0o600)
				}
				return err
			})
			if err != nil || damaged == 0 {
				t.Fatalf("%d files damaged: %v", damaged, err)
			}
		}, "KV_weft_desk_ctx"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := startFabric(t)
			if code := f.hub.stop(); code != 0 {
				t.Fatalf("the hub stopped with exit code %d", code)
			}
			tt.damage(t, filepath.Join(f.data, "weft", "hub", "jetstream"))
			f.hub = f.start("up", "--json", "--node", "hub", "--nats-listen", strings.TrimPrefix(f.url, "nats://"))
			if _, ok := f.hub.find(soon, "set aside", "moved_to", tt.want); !ok {
				t.Fatal("the hub does not say that its store is damaged")
			}
			f.hub.line(`"online":true`)
			aside, err := filepath.Glob(filepath.Join(f.data, "weft", "hub", "jetstream.damaged-*"))
			if err != nil || len(aside) != 1 {
				t.Errorf("set aside: %q (%v), want one", aside, err)
			}
			f.serve("Add", add)
			if got := f.done("call", "Add", `{"a":1,"b":2}`, "--nats", f.url); got != `{"sum":3}` {
				t.Errorf("Add = %s", got)
			}
		})
	}
}

func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	wrong := []string{"--nats", f.url, "--user", "weft", "--password", "wrong"}
	for _, args := range [][]string{{"up", "--node", "a"}, {"nodes"}, {"call", "Add"}, {"admin", "provision", realm}} {
		r := f.run(append(args, wrong...)...)
		refused(t, r, "denied: ", "credentials")
		if strings.Contains(r.stderr, "wrong") {
			t.Errorf("weft %s prints the password: %s", args[0], r.stderr)
		}
	}
}

// TestBucketMissing: a node never makes buckets on a server that is not its
// own; it says who does.
func TestBucketMissing(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	other := []string{"--realm", "other", "--nats", f.url}
	r := f.run(append([]string{"up", "--node", "a"}, other...)...)
	refused(t, r, "weft admin provision other")
	r = f.run(append([]string{"nodes"}, other...)...)
	refused(t, r, "weft admin provision other")

	f.done("admin", "provision", "other", "--replicas", "1", "--nats", f.url)
	f.start(append([]string{"up", "--json", "--node", "a"}, other...)...).line(`"online":true`)
	if got := f.done(append([]string{"nodes", "--json"}, other...)...); !strings.Contains(got, `"id":"a"`) {
		t.Errorf("nodes of the new realm: %s", got)
	}
	if got := f.nodes(); len(got) != 1 {
		t.Errorf("nodes of the first realm: %q, want only the hub", got)
	}
}

func TestNodeIDTaken(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	f.node("a", "m1")
	r := f.run("up", "--node", "a", "--nats", f.url)
	refused(t, r, `"a"`, "--node")
}

// TestNodeBeforeHub: an unreachable server is no error.
func TestNodeBeforeHub(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	f.hub.kill()
	n := f.start("up", "--json", "--node", "a", "--nats", f.url)
	n.line(`"online":false`)
	r := f.run("nodes", "--nats", f.url)
	refused(t, r, "offline: ")
	f.startHub()
	began := time.Now()
	n.line(`"fabric: online"`)
	t.Logf("online %.1f s after the hub was there", time.Since(began).Seconds())
	eventually(t, soon, "both nodes are listed", func() bool { return len(f.nodes()) == 2 })
}

// TestNatsReq: any NATS client calls a method with what weft env prints.
func TestNatsReq(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	f.serve("Add", add)
	env := f.shell(`eval "$(weft env)"; echo "$NATS_URL|$NATS_USER|$NATS_PASSWORD|$WEFT_REALM"`)
	parts := strings.Split(strings.TrimSpace(env.out), "|")
	if env.code != 0 || len(parts) != 4 || parts[3] != realm {
		t.Fatalf("weft env: exit code %d, %q, %s", env.code, env.out, env.stderr)
	}
	nc, err := nats.Connect(parts[0], nats.UserInfo(parts[1], parts[2]))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ask := func() (*nats.Msg, error) {
		return nc.RequestMsg(&nats.Msg{
			Subject: "weft." + parts[3] + ".ask.me.Add", Data: []byte(`{"a":1,"b":2}`),
			Header: nats.Header{"Content-Type": {"application/json"}},
		}, soon)
	}
	// The node that gets the request may hear of the method a moment later.
	eventually(t, 2*time.Second, "somebody knows Add", func() bool {
		m, err := ask()
		return err == nil && m.Header.Get("Weft-Error-Code") == ""
	})
	m, err := ask()
	if err != nil || string(m.Data) != `{"sum":3}` || m.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%v, %q, %v", m.Header, m.Data, err)
	}
}
