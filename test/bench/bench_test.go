package bench_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/wire"
)

const realm = "bench"

// order is what travels: a small trading message.
type order struct {
	ID     int64   `msgpack:"id"`
	Symbol string  `msgpack:"symbol"`
	Side   string  `msgpack:"side"`
	Price  float64 `msgpack:"price"`
	Qty    int64   `msgpack:"qty"`
	Note   string  `msgpack:"note"`
}

func sample() order {
	return order{42, "VOD.L", "buy", 72.375, 10_000, "work it over the day, no more than a fifth of the volume; call me before the auction"}
}

func encoded(b *testing.B, o order) []byte {
	p, err := wire.Encode(o)
	if err != nil {
		b.Error(err)
	}
	return p.Data
}

func decoded(b *testing.B, data []byte) (o order) {
	if err := (wire.Payload{Data: data}).Decode(&o); err != nil {
		b.Error(err)
	}
	return o
}

// hub is a server on a free loopback port.
func hub(b *testing.B) *embedded.Server {
	b.Helper()
	s, err := embedded.Start(b.Context(), embedded.Config{Listen: "127.0.0.1:0", Credentials: b.TempDir(), NoSync: true},
		func(ctx context.Context, nc *nats.Conn) error { return kv.Provision(ctx, nc, realm, 1) })
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Shutdown)
	return s
}

func auth(s *embedded.Server) nats.Option {
	c := s.Credentials()
	return nats.UserInfo(c.User, c.Password)
}

func start(b *testing.B, s *embedded.Server, id string) *node.Node {
	b.Helper()
	n, err := node.Start(b.Context(), node.Config{
		Realm: realm, Node: id, Machine: id, NATS: node.NATS{URL: s.URL(), Options: []nats.Option{auth(s)}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(n.Stop)
	return n
}

func join(b *testing.B, n *node.Node) *node.App {
	b.Helper()
	a, err := n.Join(b.Context(), node.Identity{Application: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	return a
}

func connect(b *testing.B, s *embedded.Server) *nats.Conn {
	b.Helper()
	nc, err := nats.Connect(s.URL(), auth(s))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	return nc
}

// compare alternates batches of ours and raw and reports both.
func compare(b *testing.B, batch int, ours, raw func(n int)) {
	b.Helper()
	ours(batch)
	raw(batch)
	var ratios []float64
	var tOurs, tRaw time.Duration
	timed := func(f func(int)) time.Duration {
		t := time.Now()
		f(batch)
		return time.Since(t)
	}
	swap := false
	for b.Loop() {
		var o, r time.Duration
		if swap {
			r, o = timed(raw), timed(ours)
		} else {
			o, r = timed(ours), timed(raw)
		}
		swap = !swap
		tOurs, tRaw = tOurs+o, tRaw+r
		ratios = append(ratios, float64(o)/float64(r))
	}
	slices.Sort(ratios)
	per := func(d time.Duration) float64 {
		return float64(d.Microseconds()) / float64(len(ratios)*batch)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(per(tOurs), "weft-µs")
	b.ReportMetric(per(tRaw), "nats-µs")
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
}

// parallel does n pieces of work, 64 at a time.
func parallel(n int, f func()) {
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				f()
			}
		})
	}
	wg.Wait()
}

func register(b *testing.B, a *node.App) {
	b.Helper()
	err := node.Handle(b.Context(), a, node.Method{Name: "Echo"}, func(_ context.Context, in order, _ *node.Call) (order, error) { return in, nil })
	if err != nil {
		b.Fatal(err)
	}
}

func invoke(b *testing.B, a *node.App) func() {
	return func() {
		if _, err := node.Invoke[order](b.Context(), a, "Echo", sample(), node.Wait(5*time.Second)); err != nil {
			b.Error(err)
		}
	}
}

// request is the same call in raw nats.go: both sides encode and decode.
func request(b *testing.B, s *embedded.Server) func() {
	server, client := connect(b, s), connect(b, s)
	if _, err := server.Subscribe("echo", func(m *nats.Msg) {
		if err := m.Respond(encoded(b, decoded(b, m.Data))); err != nil {
			b.Error(err)
		}
	}); err != nil {
		b.Fatal(err)
	}
	if err := server.Flush(); err != nil {
		b.Fatal(err)
	}
	return func() {
		m, err := client.Request("echo", encoded(b, sample()), 5*time.Second)
		if err != nil {
			b.Error(err)
			return
		}
		decoded(b, m.Data)
	}
}

func repeat(f func()) func(int) {
	return func(n int) {
		for range n {
			f()
		}
	}
}

func BenchmarkInvokeTwoNodes(b *testing.B) {
	s := hub(b)
	register(b, join(b, start(b, s, "server")))
	weft, raw := invoke(b, join(b, start(b, s, "client"))), request(b, s)
	b.Run("sequential", func(b *testing.B) { compare(b, 200, repeat(weft), repeat(raw)) })
	b.Run("64-in-flight", func(b *testing.B) {
		compare(b, 2000, func(n int) { parallel(n, weft) }, func(n int) { parallel(n, raw) })
	})
}

func BenchmarkInvokeOneNode(b *testing.B) {
	s := hub(b)
	n := start(b, s, "both")
	register(b, join(b, n))
	weft, raw := invoke(b, join(b, n)), request(b, s)
	b.Run("sequential", func(b *testing.B) { compare(b, 200, repeat(weft), repeat(raw)) })
	b.Run("64-in-flight", func(b *testing.B) {
		compare(b, 2000, func(n int) { parallel(n, weft) }, func(n int) { parallel(n, raw) })
	})
}

// tally waits until a number of messages have arrived.
type tally struct {
	want atomic.Int64
	got  atomic.Int64
	done chan struct{}
}

func newTally() *tally { return &tally{done: make(chan struct{}, 1)} }

func (t *tally) expect(n int) { t.want.Store(t.got.Load() + int64(n)) }

func (t *tally) add() {
	if t.got.Add(1) == t.want.Load() {
		t.done <- struct{}{}
	}
}

func (t *tally) wait(b *testing.B) {
	select {
	case <-t.done:
	case <-time.After(20 * time.Second):
		b.Fatalf("%d of %d messages arrived", t.got.Load(), t.want.Load())
	}
}

// fanOut is a publish to k raw subscribers, each on its own connection.
func fanOut(b *testing.B, s *embedded.Server, k int) func(int) {
	t := newTally()
	for range k {
		nc := connect(b, s)
		if _, err := nc.Subscribe("feed", func(m *nats.Msg) {
			decoded(b, m.Data)
			t.add()
		}); err != nil {
			b.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			b.Fatal(err)
		}
	}
	nc := connect(b, s)
	return func(n int) {
		t.expect(n * k)
		for range n {
			if err := nc.Publish("feed", encoded(b, sample())); err != nil {
				b.Fatal(err)
			}
		}
		t.wait(b)
	}
}

func BenchmarkStreamPush(b *testing.B) {
	for _, k := range []int{1, 20} {
		b.Run(fmt.Sprintf("to-%d-nodes", k), func(b *testing.B) {
			s := hub(b)
			stream, err := join(b, start(b, s, "publisher")).CreateStream(b.Context(), node.Method{Name: "Feed"}, node.StreamOptions{})
			if err != nil {
				b.Fatal(err)
			}
			t := newTally()
			for i := range k {
				listen(b, join(b, start(b, s, fmt.Sprint("s", i))), t)
			}
			compare(b, 1000, func(n int) {
				t.expect(n * k)
				for range n {
					if err := stream.Push(sample()); err != nil {
						b.Fatal(err)
					}
				}
				t.wait(b)
			}, fanOut(b, s, k))
		})
	}
}

// listen counts what a subscription yields; a gap fails the benchmark.
func listen(b *testing.B, a *node.App, t *tally) {
	b.Helper()
	sub, err := a.Subscribe(b.Context(), "Feed", nil, node.Wait(5*time.Second))
	if err != nil {
		b.Fatal(err)
	}
	go func() { // ends with the app, when its node stops
		for e := range sub.Events(context.Background()) {
			if e.Value.IsZero() {
				if e.From > 0 {
					b.Errorf("gap %d-%d: %s", e.From, e.To, e.Reason)
				}
				continue
			}
			var o order
			if err := e.Value.Decode(&o); err != nil {
				b.Error(err)
			}
			t.add()
		}
	}()
}

func BenchmarkTopic(b *testing.B) {
	const k = 20
	b.Run(fmt.Sprintf("to-%d-nodes", k), func(b *testing.B) {
		s := hub(b)
		publisher := join(b, start(b, s, "publisher"))
		t := newTally()
		for i := range k {
			sub, err := join(b, start(b, s, fmt.Sprint("s", i))).SubscribeTopic(b.Context(), "fx.*")
			if err != nil {
				b.Fatal(err)
			}
			go func() { // ends with the app, when its node stops
				for e := range sub.Events(context.Background()) {
					var o order
					if err := e.Value.Decode(&o); err != nil || e.Lost > 0 {
						b.Errorf("lost %d, %v", e.Lost, err)
					}
					t.add()
				}
			}()
		}
		compare(b, 500, func(n int) {
			t.expect(n * k)
			for range n {
				if err := publisher.Publish(b.Context(), "fx.EURUSD", sample()); err != nil {
					b.Fatal(err)
				}
			}
			t.wait(b)
		}, fanOut(b, s, k))
	})
}
