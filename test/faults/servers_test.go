//go:build unix

package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/test/cluster"
	"github.com/weft-fabric/weft/test/faults/proxy"
)

// servers are three nats-server processes. What they say to each other goes through
// proxies.
type servers struct {
	t     testing.TB
	dir   string
	ports []int
	// routes are the proxies between two servers each; the first asks the second.
	routes map[[2]int]*proxy.Proxy

	mu sync.Mutex
	up []*process
}

// program is the path of nats-server, which is built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "weft-faults-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "nats-server")
	out, err := exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build nats-server: %w: %s", err, out)
	}
	return path, nil
})

func startServers(t testing.TB) *servers {
	t.Helper()
	s := &servers{t: t, dir: t.TempDir(), ports: cluster.FreePorts(t, 2*cluster.Servers), routes: map[[2]int]*proxy.Proxy{}, up: make([]*process, cluster.Servers)}
	for i := range cluster.Servers {
		for j := range i {
			s.routes[[2]int{i, j}] = proxy.New(t, fmt.Sprintf("127.0.0.1:%d", s.ports[cluster.Servers+j]))
		}
		s.configure(i)
		s.start(i)
	}
	s.await(soon)
	return s
}

// configure writes the configuration of server i. Only a later server asks an earlier
// one for a route, so that every route has one proxy; they are told that further
// ones are where nobody listens, or they would go around the proxies. Clients are
// told of no other servers at all.
func (s *servers) configure(i int) {
	routes := []string{fmt.Sprintf("nats-route://127.0.0.1:%d", s.ports[cluster.Servers+i])} // itself: a server must have one
	for j := range i {
		routes = append(routes, "nats-route://"+s.routes[[2]int{i, j}].Addr())
	}
	text := fmt.Sprintf(`
server_name: s%d
listen: "127.0.0.1:%d"
max_payload: 8MB
ping_interval: "3s"
ping_max: 2
jetstream { store_dir: %q, sync_interval: always, max_mem: 256MB, max_file: 4GB }
cluster { name: weft, listen: "127.0.0.1:%d", advertise: "127.0.0.1:1", no_advertise: true, routes: [%s] }
`, i, s.ports[i], filepath.Join(s.dir, fmt.Sprint("s", i)), s.ports[cluster.Servers+i], strings.Join(routes, ", "))
	if err := os.WriteFile(s.config(i), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *servers) config(i int) string { return filepath.Join(s.dir, fmt.Sprintf("s%d.conf", i)) }

// url is the address of server i, without a proxy.
func (s *servers) url(i int) string { return fmt.Sprintf("nats://127.0.0.1:%d", s.ports[i]) }

// urls are those of all servers.
func (s *servers) urls() string {
	var list []string
	for i := range cluster.Servers {
		list = append(list, s.url(i))
	}
	return strings.Join(list, ",")
}

// start starts server i, which is down.
func (s *servers) start(i int) {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := spawn(s.t, fmt.Sprint("server ", i), exec.Command(path, "-c", s.config(i)), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.up[i] = p
	s.mu.Unlock()
}

func (s *servers) process(i int) *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up[i]
}

// stop asks server i to stop, and waits for that.
func (s *servers) stop(i int) bool {
	p := s.process(i)
	if !p.signal(syscall.SIGTERM) {
		return false
	}
	select {
	case <-p.ended:
	case <-time.After(soon):
		s.t.Errorf("%s does not stop", p.name)
	}
	return true
}

// connect connects to server i alone, or to any of them.
func (s *servers) connect(i int) (*nats.Conn, error) {
	url := s.urls()
	if i >= 0 {
		url = s.url(i)
	}
	return nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.RetryOnFailedConnect(true), nats.IgnoreDiscoveredServers(), nats.ReconnectBufSize(-1), nats.PingInterval(2*time.Second), nats.Timeout(2*time.Second))
}

// await waits until every server says that JetStream has a leader and knows all of
// them.
func (s *servers) await(within time.Duration) {
	s.t.Helper()
	for i := range cluster.Servers {
		nc, err := s.connect(i)
		if err != nil {
			s.t.Fatal(err)
		}
		eventually(s.t, within, fmt.Sprintf("server %d is ready", i), func() error {
			m, err := nc.Request("$JS.API.INFO", nil, time.Second)
			if err != nil {
				return err
			}
			var info struct{ Error *struct{ Description string } }
			if err := json.Unmarshal(m.Data, &info); err != nil {
				return err
			}
			if info.Error != nil {
				return errors.New(info.Error.Description)
			}
			return nil
		})
		nc.Close()
	}
}

// provision makes the buckets of a realm.
func (s *servers) provision(realm subjects.Realm) {
	s.t.Helper()
	eventually(s.t, 2*soon, "the realm is provisioned", func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
		defer cancel()
		return node.Provision(ctx, node.NATS{URL: s.urls(), Options: []nats.Option{nats.IgnoreDiscoveredServers()}}, string(realm), cluster.Servers)
	})
}

// forget deletes the buckets of a realm.
func (s *servers) forget(realm subjects.Realm) {
	nc, err := s.connect(-1)
	if err != nil {
		return
	}
	defer nc.Close()
	for _, b := range []subjects.Bucket{realm.ContextBucket(), realm.DirectoryBucket()} {
		_, _ = nc.Request("$JS.API.STREAM.DELETE."+b.Stream(), nil, 2*time.Second) // it is only to save work
	}
}

// eventually repeats f until it returns nil.
func eventually(t testing.TB, within time.Duration, what string, f func() error) {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Since(began) > within {
			t.Fatalf("not within %s: %s: %v", within, what, err)
		}
		<-tick.C
	}
}
