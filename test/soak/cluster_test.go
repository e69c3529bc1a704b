//go:build e2e

package soak_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weft-fabric/weft/node"
)

const (
	servers = 3
	realm   = "soak"
)

// cluster is three NATS servers that can be stopped and started one by one.
type cluster struct {
	t    *testing.T
	opts []*server.Options
	up   []*server.Server
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, up: make([]*server.Server, servers)}
	ports := freePorts(t, 2*servers)
	var routes []*url.URL
	for i := range servers {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[servers+i])})
	}
	for i := range servers {
		c.opts = append(c.opts, &server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: ports[i], NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), PingInterval: 3 * time.Second, MaxPingsOut: 2, MaxPayload: 8 << 20,
			Cluster: server.ClusterOpts{Name: "soak", Host: "127.0.0.1", Port: ports[servers+i]}, Routes: routes,
		})
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range servers {
			c.stop(i)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := c.provision(ctx)
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
func (c *cluster) provision(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return node.Provision(ctx, node.NATS{URL: c.url()}, realm, servers)
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (c *cluster) url() string {
	var urls []string
	for _, o := range c.opts {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", o.Port))
	}
	return strings.Join(urls, ",")
}

func (c *cluster) start(i int) {
	c.t.Helper()
	s, err := server.NewServer(c.opts[i].Clone())
	if err != nil {
		c.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		c.t.Fatalf("server %d does not start", i)
	}
	c.up[i] = s
}

func (c *cluster) stop(i int) {
	if c.up[i] != nil {
		c.up[i].Shutdown()
		c.up[i].WaitForShutdown()
		c.up[i] = nil
	}
}
