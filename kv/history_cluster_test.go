package kv_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/test/cluster"
)

// TestPastOnCluster is TestPast on three servers, while the leaders of both streams
// change.
func TestPastOnCluster(t *testing.T) {
	c := cluster.New(t, string(realm))
	nc, err := nats.Connect(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := link.Open(t.Context(), link.Config{URL: c.URL(), Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	b := kv.Contexts(l, realm)
	if err := b.Verify(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	p := newPast(t, b, nc, 7)
	for round, name := range []string{"", realm.ContextBucket().Stream(), string(realm.HistoryStream())} {
		if name != "" {
			stepDown(t, nc, name)
		}
		began := time.Now()
		for range 15 {
			p.step()
		}
		last := uint64(len(p.states) - 1)
		if err := b.History().Await(within(t, time.Minute), last); err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: 15 steps and recorded after %s", round, time.Since(began))
	}
	w, err := b.History().Writes(within(t, time.Minute), tokenX, kv.Span{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	// The bucket keeps 8 writes of a key, which may be less than came meanwhile.
	if n := p.check(len(w.Holes) > 0); n > len(p.states)/2 {
		t.Errorf("%d of %d are unknown because of %+v", n, len(p.states), w.Holes)
	}
}

// stepDown changes the leader of a stream and returns when there is another.
func stepDown(t *testing.T, nc *nats.Conn, name string) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	leader := func() string {
		s, err := js.Stream(within(t, 5*time.Second), name)
		if err != nil || s.CachedInfo().Cluster == nil {
			return ""
		}
		return s.CachedInfo().Cluster.Leader
	}
	before := leader()
	if _, err := nc.RequestWithContext(within(t, 10*time.Second), fmt.Sprint("$JS.API.STREAM.LEADER.STEPDOWN.", name), nil); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, time.Minute)
	for now := leader(); now == "" || now == before; now = leader() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("stream %s has no other leader than %q", name, before)
		}
	}
}
