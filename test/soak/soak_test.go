//go:build e2e

package soak_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/interop"
	"github.com/weft-fabric/weft/test/cluster"
	"github.com/weft-fabric/weft/wire"
)

const (
	servers    = cluster.Servers
	realm      = "soak"
	nodes      = 4
	callEvery  = 20 * time.Millisecond
	pushEvery  = 10 * time.Millisecond
	faultEvery = 6 * time.Second
	healWithin = 30 * time.Second
)

// soak is one run.
type soak struct {
	t       *testing.T
	rng     *rand.Rand
	cluster *cluster.Cluster
	desks   []*desk
	faults  map[string]int

	mu   sync.Mutex
	runs map[int64]int // executions by call

	calls, answered, failed, pushed, received, missing, violations atomic.Int64
}

// desk is one node with its apps, which a fault may replace.
type desk struct {
	s    *soak
	id   string
	stop func()
}

func (s *soak) violation(format string, args ...any) {
	s.violations.Add(1)
	s.t.Errorf(format, args...)
}

func TestSoak(t *testing.T) {
	seed, minutes := cluster.Setting(t, "SEED", time.Now().UnixNano()%1e9), cluster.Setting(t, "MINUTES", 1)
	t.Logf("SEED=%d MINUTES=%d: %d servers, %d nodes, a fault every %s", seed, minutes, servers, nodes, faultEvery)
	s := &soak{
		t: t, rng: rand.New(rand.NewPCG(uint64(seed), 1)), cluster: cluster.New(t, realm), faults: map[string]int{}, runs: map[int64]int{},
	}
	for i := range nodes {
		d := &desk{s: s, id: fmt.Sprint("desk-", i)}
		s.desks = append(s.desks, d)
		d.start()
	}
	end := time.After(time.Duration(minutes) * time.Minute)
	tick := time.NewTicker(faultEvery)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			s.fault()
		case <-end:
			running = false
		}
	}
	s.healed()
	for _, d := range s.desks {
		d.stop()
	}
	s.report()
}

// fault restarts something, chosen by the seed.
func (s *soak) fault() {
	pause := time.Duration(s.rng.IntN(2500)) * time.Millisecond
	i := s.rng.IntN(12)
	switch {
	case i < servers:
		s.faults["server restarted"]++
		s.cluster.Stop(i)
		<-time.After(pause)
		s.cluster.Start(i)
	case i < servers+nodes:
		s.faults["node restarted"]++
		s.desks[i-servers].stop()
		<-time.After(pause)
		s.desks[i-servers].start()
	case i < servers+nodes+2:
		s.faults["two servers restarted"]++
		s.cluster.Stop(0)
		s.cluster.Stop(1)
		<-time.After(pause)
		s.cluster.Start(0)
		s.cluster.Start(1)
	default:
		s.faults["clients of a server cut off"]++
		s.cluster.Cut("")
	}
}

// start starts the desk's node, its apps and their load.
func (d *desk) start() {
	s := d.s
	ctx, cancel := context.WithCancel(context.Background())
	n, err := node.Start(ctx, node.Config{Realm: realm, Node: d.id, Machine: d.id, NATS: node.NATS{URL: s.cluster.URL()}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatalf("%s: %v", d.id, err)
	}
	app, err := n.Join(ctx, node.Identity{Application: "desk"})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := node.Handle(ctx, app, node.Method{Name: "Work"}, func(_ context.Context, id int64, _ *node.Call) (string, error) {
		s.mu.Lock()
		s.runs[id]++
		s.mu.Unlock()
		return d.id, nil
	}); err != nil {
		s.t.Fatal(err)
	}
	stream, err := app.CreateStream(ctx, node.Method{Name: "Feed"}, node.StreamOptions{Snapshot: s.snapshots()})
	if err != nil {
		s.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.call(ctx, app) })
	wg.Go(func() { s.push(ctx, stream) })
	wg.Go(func() { s.listen(ctx, app) })
	d.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		n.Stop()
	})
}

// snapshots is how much a stream keeps: some of them nothing.
func (s *soak) snapshots() int { return []int{0, 1, 50}[s.rng.IntN(3)] }

// call invokes Work with a number of its own each time.
func (s *soak) call(ctx context.Context, app *node.App) {
	tick := time.NewTicker(callEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		id := s.calls.Add(1)
		_, err := node.Invoke[string](ctx, app, "Work", id, node.SkipMine, node.Instances(node.Filter{"node": fmt.Sprint("desk-", id%nodes)}), node.Timeout(3*time.Second))
		s.mu.Lock()
		runs := s.runs[id]
		s.mu.Unlock()
		switch {
		case err == nil && runs != 1:
			s.violation("call %d succeeded and ran %d times", id, runs)
		case err == nil:
			s.answered.Add(1)
		case errors.Is(err, wire.ErrInternal), errors.Is(err, wire.ErrBadPayload), errors.Is(err, wire.ErrRejected):
			s.violation("call %d: %v", id, err)
		default:
			s.failed.Add(1)
		}
	}
}

// push pushes numbers that equal their sequence.
func (s *soak) push(ctx context.Context, stream *node.Stream) {
	tick := time.NewTicker(pushEvery)
	defer tick.Stop()
	for i := uint64(1); ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := stream.Push(i); err != nil {
			s.violation("push: %v", err)
			return
		}
		s.pushed.Add(1)
	}
}

// listen follows every desk's stream and accounts for every sequence.
func (s *soak) listen(ctx context.Context, app *node.App) {
	for ctx.Err() == nil {
		sub, err := app.Subscribe(ctx, "Feed", nil, node.All, node.Wait(5*time.Second), node.Timeout(5*time.Second))
		if err != nil {
			continue
		}
		last := map[string]uint64{}
		for e := range sub.Events(ctx) {
			s.account(app, last, e)
		}
		sub.Close()
	}
}

func (s *soak) account(app *node.App, last map[string]uint64, e node.StreamEvent) {
	who := e.Server.App
	switch e.Kind {
	case interop.Subscribed:
		last[who] = e.Seq
	case interop.Gap:
		if e.To == 0 || e.From != last[who]+1 || e.To < e.From {
			s.violation("%s from %s: gap %d-%d after %d (%s)", app.Identity().Node, who, e.From, e.To, last[who], e.Reason)
		}
		s.missing.Add(int64(e.To - e.From + 1))
		last[who] = e.To
	case interop.Data:
		var v uint64
		if err := e.Value.Decode(&v); err != nil || v != e.Seq {
			s.violation("%s from %s: sequence %d carries %d, %v", app.Identity().Node, who, e.Seq, v, err)
		}
		if e.Snapshot && e.Seq <= last[who] {
			return // from before the subscription
		}
		if e.Seq != last[who]+1 {
			s.violation("%s from %s: %d after %d, snapshot %v", app.Identity().Node, who, e.Seq, last[who], e.Snapshot)
		}
		s.received.Add(1)
		last[who] = e.Seq
	case interop.Closed:
		delete(last, who)
	}
}

// healed waits until everyone sees everyone and can be called.
func (s *soak) healed() {
	ctx, cancel := context.WithTimeout(s.t.Context(), healWithin)
	defer cancel()
	n, err := node.Start(ctx, node.Config{Realm: realm, Node: "observer", Machine: "observer", NATS: node.NATS{URL: s.cluster.URL()}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer n.Stop()
	app, err := n.Join(ctx, node.Identity{Application: "observer"})
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range nodes {
		id := s.calls.Add(1)
		who, err := node.Invoke[string](ctx, app, "Work", id, node.Instances(node.Filter{"node": fmt.Sprint("desk-", i)}), node.Wait(healWithin))
		if err != nil || who != fmt.Sprint("desk-", i) {
			s.violation("after the faults desk-%d answers %q, %v", i, who, err)
		}
	}
}

func (s *soak) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, n := range s.runs {
		if n > 1 {
			s.violation("call %d ran %d times", id, n)
		}
	}
	total := 0
	for kind, n := range s.faults {
		s.t.Logf("%4d x %s", n, kind)
		total += n
	}
	s.t.Logf("calls: %d made, %d answered, %d failed with a code; stream: %d pushed, %d received, %d announced as missing",
		s.calls.Load(), s.answered.Load(), s.failed.Load(), s.pushed.Load(), s.received.Load(), s.missing.Load())
	s.t.Logf("%d violations in %d faults", s.violations.Load(), total)
	if s.violations.Load() == 0 && total > 0 {
		s.t.Logf("so the rate of violations is below %.1f %% per fault (95 %%)", 300/float64(total))
	}
}
