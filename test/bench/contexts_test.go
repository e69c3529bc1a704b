package bench_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/test/cluster"
	"github.com/weft-fabric/weft/wire"
)

// servers is where a benchmark of contexts runs: one embedded server, or a cluster
// of three that keeps three replicas.
type servers struct {
	nats     node.NATS
	replicas int
}

func oneServer(b *testing.B) servers {
	b.Helper()
	s := hub(b)
	return servers{node.NATS{URL: s.URL(), Options: []nats.Option{auth(s)}}, 1}
}

func threeServers(b *testing.B) servers {
	b.Helper()
	return servers{node.NATS{URL: cluster.New(b, realm).URL()}, cluster.Servers}
}

func (s servers) node(b *testing.B, id string) *node.Node {
	b.Helper()
	n, err := node.Start(b.Context(), node.Config{Realm: realm, Node: id, Machine: id, NATS: s.nats})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(n.Stop)
	return n
}

func (s servers) connect(b *testing.B) (*nats.Conn, jetstream.JetStream) {
	b.Helper()
	nc, err := nats.Connect(s.nats.URL, s.nats.Options...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	return nc, js
}

// bucket is a plain KV bucket that repeats what is put, stored like a realm's.
func (s servers) bucket(b *testing.B, js jetstream.JetStream) jetstream.KeyValue {
	b.Helper()
	kv, err := js.CreateOrUpdateKeyValue(b.Context(), jetstream.KeyValueConfig{
		Bucket: "raw", History: 8, Storage: jetstream.FileStorage, Replicas: s.replicas,
		RePublish: &jetstream.RePublish{Source: "$KV.raw.>", Destination: "repeated.>"},
	})
	if err != nil {
		b.Fatal(err)
	}
	return kv
}

// latencies are how long pieces of work took.
type latencies []time.Duration

// of is the p-th percentile in µs.
func (l latencies) of(p int) float64 {
	slices.Sort(l)
	return float64(l[min(len(l)*p/100, len(l)-1)].Nanoseconds()) / 1000
}

// alternate does ours and raw in turns, one after the other, and reports the
// percentiles and the median ratio of batches.
func alternate(b *testing.B, batch int, ours, raw func()) {
	b.Helper()
	ours()
	raw()
	var both [2]latencies
	var ratios []float64
	for b.Loop() {
		var sum [2]time.Duration
		for range batch {
			for i, f := range []func(){ours, raw} {
				t := time.Now()
				f()
				d := time.Since(t)
				both[i], sum[i] = append(both[i], d), sum[i]+d
			}
		}
		ratios = append(ratios, float64(sum[0])/float64(sum[1]))
	}
	slices.Sort(ratios)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(both[0].of(50), "weft-p50-µs")
	b.ReportMetric(both[0].of(99), "weft-p99-µs")
	b.ReportMetric(both[1].of(50), "nats-p50-µs")
	b.ReportMetric(both[1].of(99), "nats-p99-µs")
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
}

// BenchmarkContextUpdate is from an update on one node until the app has its
// acknowledgement and a watch on another node has the change; beside it a plain put
// of the same value, acknowledged and repeated to a subscriber.
func BenchmarkContextUpdate(b *testing.B) {
	b.Run("one-server", func(b *testing.B) { updates(b, oneServer(b)) })
	b.Run("three-replicas", func(b *testing.B) { updates(b, threeServers(b)) })
}

func updates(b *testing.B, s servers) {
	alternate(b, 20, contextUpdate(b, s), plainPut(b, s))
}

func contextUpdate(b *testing.B, s servers) func() {
	writer, reader := join(b, s.node(b, "writer")), join(b, s.node(b, "reader"))
	w, err := reader.Contexts().Watch(b.Context(), "orders")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.Close)
	saw := make(chan int64, 1)
	go func() { // ends with the watch
		for e := range w.Events(context.Background()) {
			if v := e.At("order"); !v.IsZero() {
				var o order
				if err := v.Decode(&o); err != nil {
					b.Error(err)
				}
				saw <- o.ID
			}
		}
	}()
	o := sample()
	return func() {
		o.ID++
		if _, err := writer.Contexts().Update(b.Context(), "orders", map[string]order{"order": o}); err != nil {
			b.Fatal(err)
		}
		await(b, saw, o.ID)
	}
}

func plainPut(b *testing.B, s servers) func() {
	_, js := s.connect(b)
	nc, _ := s.connect(b)
	kv := s.bucket(b, js)
	saw := make(chan int64, 1)
	if _, err := nc.Subscribe("repeated.>", func(m *nats.Msg) { saw <- decoded(b, m.Data).ID }); err != nil {
		b.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		b.Fatal(err)
	}
	o := sample()
	return func() {
		o.ID++
		if _, err := kv.Put(b.Context(), "order", encoded(b, o)); err != nil {
			b.Fatal(err)
		}
		await(b, saw, o.ID)
	}
}

func await(b *testing.B, saw <-chan int64, want int64) {
	for {
		select {
		case got := <-saw:
			if got == want {
				return
			}
		case <-time.After(20 * time.Second):
			b.Fatalf("%d was not seen", want)
		}
	}
}

const (
	hotNodes   = 4
	hotWriters = 64
	hotFor     = time.Second
)

// BenchmarkContextHot is 64 apps on four nodes that each set a path of their own in
// one context of three replicas; beside it 64 clients on four connections that
// change their key of one value by compare-and-set.
func BenchmarkContextHot(b *testing.B) {
	s := threeServers(b)
	ours, raw := hotContext(b, s), hotValue(b, s)
	hot(b, ours)
	hot(b, raw)
	var both [2]latencies
	var ratios []float64
	var took [2]time.Duration
	for b.Loop() {
		var rates [2]float64
		for i, f := range []func(int){ours, raw} {
			t := time.Now()
			l := hot(b, f)
			d := time.Since(t)
			both[i], took[i], rates[i] = append(both[i], l...), took[i]+d, float64(len(l))/d.Seconds()
		}
		ratios = append(ratios, rates[0]/rates[1])
	}
	slices.Sort(ratios)
	b.ReportMetric(0, "ns/op")
	for i, name := range []string{"weft", "nats"} {
		b.ReportMetric(both[i].of(50)/1000, name+"-p50-ms")
		b.ReportMetric(both[i].of(99)/1000, name+"-p99-ms")
		b.ReportMetric(float64(len(both[i]))/took[i].Seconds(), name+"-writes/s")
	}
	b.ReportMetric(ratios[len(ratios)/2], "throughput-ratio")
}

// hot lets all writers write in closed loops for a while, and ends when each has
// finished its write.
func hot(b *testing.B, write func(i int)) (all latencies) {
	ctx, cancel := context.WithTimeout(b.Context(), hotFor)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range hotWriters {
		wg.Go(func() {
			var mine latencies
			for ctx.Err() == nil {
				t := time.Now()
				write(i)
				mine = append(mine, time.Since(t))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	return all
}

func hotContext(b *testing.B, s servers) func(int) {
	var nodes []*node.Node
	var apps []*node.App
	for i := range hotNodes {
		nodes = append(nodes, s.node(b, fmt.Sprint("hot-", i)))
	}
	for i := range hotWriters {
		apps = append(apps, join(b, nodes[i%hotNodes]))
	}
	return func(i int) {
		if _, err := apps[i].Contexts().SetPath(b.Context(), "hot", []string{fmt.Sprint("k", i)}, sample()); err != nil {
			b.Error(err)
		}
	}
}

func hotValue(b *testing.B, s servers) func(int) {
	var buckets []jetstream.KeyValue
	for range hotNodes {
		_, js := s.connect(b)
		buckets = append(buckets, s.bucket(b, js))
	}
	empty, err := wire.Encode(map[string]order{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := buckets[0].Create(b.Context(), "hot", empty.Data); err != nil {
		b.Fatal(err)
	}
	return func(i int) {
		kv := buckets[i%hotNodes]
		for {
			e, err := kv.Get(b.Context(), "hot")
			if err != nil {
				b.Error(err)
				return
			}
			var all map[string]order
			if err := (wire.Payload{Data: e.Value()}).Decode(&all); err != nil {
				b.Error(err)
				return
			}
			all[fmt.Sprint("k", i)] = sample()
			p, err := wire.Encode(all)
			if err != nil {
				b.Error(err)
				return
			}
			_, err = kv.Update(b.Context(), "hot", p.Data, e.Revision())
			if err == nil {
				return
			}
			var api *jetstream.APIError
			if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence && api.ErrorCode != 10164 {
				b.Error(err)
				return
			}
		}
	}
}

// BenchmarkContextOffline is from an update until another app of the same machine has
// the change, and until the writer has its acknowledgement, on a node whose fabric has
// gone away; beside it the same on a node with a cluster of three replicas.
func BenchmarkContextOffline(b *testing.B) {
	hub := hub(b)
	away, err := node.Start(b.Context(), node.Config{
		Realm: realm, Node: "away", Machine: "away", Store: b.TempDir(), NATS: node.NATS{URL: hub.URL(), Options: []nats.Option{auth(hub)}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(away.Stop)
	offline := localUpdate(b, away)
	offline()
	hub.Shutdown()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(time.Minute); away.State().Online; {
		select {
		case <-tick.C:
		case <-late:
			b.Fatal("it is still online")
		}
	}
	online := localUpdate(b, threeServers(b).node(b, "there"))
	offline()
	online()
	var seen, acked [2]latencies
	for b.Loop() {
		for range 20 {
			for i, f := range []func() (seen, acked time.Duration){offline, online} {
				s, a := f()
				seen[i], acked[i] = append(seen[i], s), append(acked[i], a)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range []string{"offline", "online"} {
		b.ReportMetric(seen[i].of(50), name+"-seen-p50-µs")
		b.ReportMetric(seen[i].of(99), name+"-seen-p99-µs")
		b.ReportMetric(acked[i].of(50), name+"-acked-p50-µs")
		b.ReportMetric(acked[i].of(99), name+"-acked-p99-µs")
	}
	b.ReportMetric(seen[0].of(99)/seen[1].of(99), "seen-p99-ratio")
}

// localUpdate updates a context, and says when another app of the node had seen that and
// when it was acknowledged.
func localUpdate(b *testing.B, n *node.Node) func() (seen, acked time.Duration) {
	writer, reader := join(b, n), join(b, n)
	w, err := reader.Contexts().Watch(b.Context(), "orders")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.Close)
	type sight struct {
		id int64
		at time.Time
	}
	saw := make(chan sight, 16)
	go func() { // ends with the watch
		for e := range w.Events(context.Background()) {
			at := time.Now()
			if v := e.At("order"); !v.IsZero() {
				var o order
				if err := v.Decode(&o); err != nil {
					b.Error(err)
				}
				saw <- sight{o.ID, at}
			}
		}
	}()
	o := sample()
	return func() (seen, acked time.Duration) {
		o.ID++
		began := time.Now()
		if _, err := writer.Contexts().Update(b.Context(), "orders", map[string]order{"order": o}); err != nil {
			b.Fatal(err)
		}
		acked = time.Since(began)
		for {
			select {
			case s := <-saw:
				if s.id == o.ID {
					return s.at.Sub(began), acked
				}
			case <-time.After(20 * time.Second):
				b.Fatalf("%d was not seen", o.ID)
			}
		}
	}
}
