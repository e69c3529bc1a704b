// Package cluster is three NATS servers with JetStream in the process of a test,
// with the buckets of one realm provisioned on all of them.
//
//	c := cluster.New(t, "demo")
//	n, err := node.Start(ctx, node.Config{Realm: "demo", NATS: node.NATS{URL: c.URL()}})
//
// Servers can be stopped and started again one by one, and keep their ports and
// stores; connections can be cut. All listen on loopback, have no users, and end
// with the test. A Cluster is not safe for concurrent use, except for URL and Cut.
package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weft-fabric/weft/node"
)

// Setting is a number from the environment that chooses another run of a test.
func Setting(t testing.TB, name string, otherwise int64) int64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// Servers is how many there are, and how many replicas each bucket has.
const Servers = 3

// Cluster is three servers. Create it with [New].
type Cluster struct {
	t    testing.TB
	opts []*server.Options

	mu sync.Mutex
	up []*server.Server // nil for one that is stopped
}

// New starts a cluster and provisions a realm on it.
func New(t testing.TB, realm string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, up: make([]*server.Server, Servers)}
	ports := FreePorts(t, 2*Servers)
	var routes []*url.URL
	for i := range Servers {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[Servers+i])})
	}
	for i := range Servers {
		c.opts = append(c.opts, &server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: ports[i], NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), PingInterval: 3 * time.Second, MaxPingsOut: 2, MaxPayload: 8 << 20,
			Cluster: server.ClusterOpts{Name: "weft", Host: "127.0.0.1", Port: ports[Servers+i]}, Routes: routes,
		})
		c.Start(i)
	}
	t.Cleanup(func() {
		for i := range Servers {
			c.Stop(i)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := c.provision(ctx, realm)
		if err == nil {
			return c
		}
		select {
		case <-time.After(200 * time.Millisecond): // the cluster elects its leader
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// provision makes one attempt: a request to a cluster without a leader is lost.
func (c *Cluster) provision(ctx context.Context, realm string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return node.Provision(ctx, node.NATS{URL: c.URL()}, realm, Servers)
}

// FreePorts are n loopback ports that nobody uses now. They are below those that the
// system gives to clients, so that they stay free while a server is away.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for try := 0; len(ports) < n && try < 100*n; try++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err != nil {
			continue
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	if len(ports) < n {
		t.Fatal("no free ports")
	}
	return ports
}

// URL is the URLs of all servers, separated by commas.
func (c *Cluster) URL() string {
	var urls []string
	for _, o := range c.opts {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", o.Port))
	}
	return strings.Join(urls, ",")
}

// Start starts server i, which is stopped.
func (c *Cluster) Start(i int) {
	c.t.Helper()
	s, err := server.NewServer(c.opts[i].Clone())
	if err != nil {
		c.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		c.t.Fatalf("server %d does not start", i)
	}
	c.mu.Lock()
	c.up[i] = s
	c.mu.Unlock()
}

// Stop stops server i and waits for its end.
func (c *Cluster) Stop(i int) {
	c.mu.Lock()
	s := c.up[i]
	c.up[i] = nil
	c.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// Store is the store directory of server i.
func (c *Cluster) Store(i int) string { return c.opts[i].StoreDir }

// Messages is where server i, which is stopped, has the messages of a stream.
func (c *Cluster) Messages(i int, stream string) string {
	return filepath.Join(c.Store(i), server.JetStreamStoreDir, "$G", "streams", stream, "msgs")
}

// Count is how many messages of a stream server i has.
func (c *Cluster) Count(i int, stream string) int {
	c.t.Helper()
	c.mu.Lock()
	s := c.up[i]
	c.mu.Unlock()
	detail, err := s.JszAccount(&server.JSzOptions{Account: "$G", Streams: true})
	if err != nil {
		c.t.Fatalf("server %d: %v", i, err)
	}
	for _, d := range detail.Streams {
		if d.Name == stream {
			return int(d.State.Msgs)
		}
	}
	c.t.Fatalf("server %d has no stream %s", i, stream)
	return 0
}

// Cut closes the connections of all clients whose name begins with prefix and
// says how many there were. Clients reconnect by themselves.
func (c *Cluster) Cut(prefix string) (cut int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.up {
		if s == nil {
			continue
		}
		conns, err := s.Connz(nil)
		if err != nil {
			c.t.Error(err)
			continue
		}
		for _, conn := range conns.Conns {
			if !strings.HasPrefix(conn.Name, prefix) {
				continue
			}
			if err := s.DisconnectClientByID(conn.Cid); err == nil { // else it has gone by itself
				cut++
			}
		}
	}
	return cut
}
