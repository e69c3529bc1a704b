package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/test/cluster"
	"github.com/weft-fabric/weft/wire"
)

const (
	rotRealm    = "rot"
	rotStream   = "KV_weft_rot_ctx"
	rotContexts = 40
	rotPaths    = 10
	// rotPad makes the stream several message blocks long. What is lost of the newest
	// nats-server gets from the leader, what is lost of the others it does not.
	rotPad = 100 << 10
	// rotWithin is when the damage must be an alarm.
	rotWithin = time.Minute
)

// TestOneReplicaRots damages the store of one server while it is down. Apps never see
// a context that has less in it than was acknowledged, the nodes stay up, and within a
// minute an alarm names the stream and the server.
func TestOneReplicaRots(t *testing.T) {
	t.Parallel()
	seed := uint64(cluster.Setting(t, "SEED", 1))
	for name, fault := range map[string]struct {
		do func(t *testing.T, r *rand.Rand, msgs string)
		// harmless says that nats-server makes good of it: there must be no alarm.
		harmless bool
	}{
		"bits flip":     {do: rotFlip},
		"cut short":     {do: rotCut},
		"index is gone": {do: rotIndex, harmless: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Logf("SEED=%d", seed)
			rot(t, rand.New(rand.NewPCG(seed, 0)), fault.do, fault.harmless)
		})
	}
}

// rotRun is a cluster, nodes on it, and what was acknowledged.
type rotRun struct {
	t       *testing.T
	cluster *cluster.Cluster
	nodes   []*node.Node
	log     *rotLog

	mu    sync.Mutex
	acked map[string]map[string]int // context, path, value
	shown int
}

func rot(t *testing.T, r *rand.Rand, damage func(*testing.T, *rand.Rand, string), harmless bool) {
	c := cluster.New(t, rotRealm)
	x := &rotRun{t: t, cluster: c, log: &rotLog{}, acked: map[string]map[string]int{}}
	writer := x.node("writer")
	app := rotJoin(t, writer, "writer")
	for i := range rotContexts {
		name := fmt.Sprint("ctx", i)
		for range 3 {
			if _, err := app.Contexts().Set(t.Context(), name, map[string]any{"pad": strings.Repeat("x", rotPad)}); err != nil {
				t.Fatal(err)
			}
		}
		for p := range rotPaths {
			for v := range 3 {
				x.write(app, name, fmt.Sprint("p", p), v)
			}
		}
	}
	watching, stop := context.WithCancel(t.Context())
	var watches sync.WaitGroup
	defer watches.Wait()
	defer stop()
	watcher := x.node("watcher")
	x.watch(watching, &watches, rotJoin(t, watcher, "watcher"))

	victim := x.follower()
	t.Logf("the store of s%d is damaged, a follower", victim)
	c.Stop(victim)
	x.write(app, "ctx0", "down", 1)
	damage(t, r, c.Messages(victim, rotStream))
	c.Start(victim)
	started := time.Now()
	// One that comes now may be answered by the damaged replica, and so may every read
	// of the others.
	late := x.node("late")
	x.watch(watching, &watches, rotJoin(t, late, "late"))
	idle := x.busy(app)
	var raised time.Duration
	within := rotWithin
	if harmless {
		within /= 2
	}
	for n := 4; time.Since(started) < within && (raised == 0 || n < 8); n++ {
		x.write(app, fmt.Sprint("ctx", n%rotContexts), "light", n)
		x.readAll(late)
		if raised == 0 && x.alarmed(watcher, victim) && x.alarmed(late, victim) {
			raised = time.Since(started)
			t.Logf("alarm after %s", raised.Round(time.Millisecond))
		}
		rotWait(t, time.Second)
	}
	idle()
	if raised != 0 {
		x.lead(victim)
		for n := range 10 {
			x.write(app, fmt.Sprint("ctx", n%rotContexts), "led", n)
			x.readAll(late)
			rotWait(t, time.Second/2)
		}
		if !x.alarmed(late, victim) {
			t.Errorf("no alarm any more since it leads: %+v", late.Alarms())
		}
	}
	lacks := x.lacks(victim)
	t.Logf("the replica lacks %d messages; %d states were shown", lacks, x.shown)
	switch {
	case harmless && raised != 0:
		t.Error("an alarm about nothing:", watcher.Alarms())
	case harmless:
	case lacks == 0:
		t.Error("the fault did not happen: the replica has everything")
	case raised == 0:
		t.Errorf("no alarm within %s: %+v", rotWithin, watcher.Alarms())
	}
	for _, n := range x.nodes {
		if !n.State().Online {
			t.Errorf("%s is %+v", n.ID(), n.State())
		}
		x.readAll(n)
	}
	if n := x.log.count("alarm"); n > 2*len(x.nodes) {
		t.Errorf("%d lines about alarms in the log", n)
	}
	if harmless {
		return
	}
	// An operator gives the server a new replica: the alarms are over.
	c.Stop(victim)
	if err := os.RemoveAll(c.Store(victim)); err != nil {
		t.Fatal(err)
	}
	c.Start(victim)
	mended := time.Now()
	for len(watcher.Alarms())+len(late.Alarms()) > 0 {
		if time.Since(mended) > 2*rotWithin {
			t.Fatalf("still there %s after the replica was made anew: %+v", time.Since(mended).Round(time.Second), watcher.Alarms())
		}
		rotWait(t, time.Second)
	}
	t.Logf("over %s after the replica was made anew", time.Since(mended).Round(time.Second))
	for _, n := range x.nodes {
		x.readAll(n)
	}
}

func (x *rotRun) node(id string) *node.Node {
	x.t.Helper()
	n, err := node.Start(x.t.Context(), node.Config{
		Realm: rotRealm, Node: id, NATS: node.NATS{URL: x.cluster.URL()}, Logger: slog.New(slog.NewTextHandler(x.log, nil)),
	})
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(n.Stop)
	x.nodes = append(x.nodes, n)
	return n
}

func rotJoin(t *testing.T, n *node.Node, name string) *node.App {
	t.Helper()
	app, err := n.Join(t.Context(), node.Identity{Application: name})
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// write writes a value and notes it when it is acknowledged.
func (x *rotRun) write(app *node.App, name, path string, v int) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 30*time.Second)
	defer cancel()
	for {
		_, err := app.Contexts().SetPath(ctx, name, []string{path}, v)
		if err == nil {
			break
		}
		// Its node may have been connected to the server that stops.
		if !errors.Is(err, wire.ErrOffline) && !errors.Is(err, wire.ErrUnavailable) {
			x.t.Fatal(err)
		}
		rotWait(x.t, 100*time.Millisecond)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.acked[name] == nil {
		x.acked[name] = map[string]int{}
	}
	x.acked[name][path] = v
}

// busy goes on writing until it is told to stop: messages are counted while they change.
func (x *rotRun) busy(app *node.App) (idle func()) {
	ctx, cancel := context.WithCancel(x.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			_, _ = app.Contexts().SetPath(ctx, "busy", []string{fmt.Sprint("p", n%rotPaths)}, n) // its node may lose its server
			rotWait(x.t, 5*time.Millisecond)
		}
	})
	idle = func() {
		cancel()
		wg.Wait()
	}
	x.t.Cleanup(idle)
	return idle
}

// want is what was acknowledged of a context by now.
func (x *rotRun) want(name string) map[string]int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.acked[name])
}

// check finds what a state has not got, or older than before.
func (x *rotRun) check(who, name string, state map[string]int, want map[string]int) {
	for path, v := range want {
		if got, ok := state[path]; !ok || got < v {
			x.t.Errorf("%s sees %s of %s as %d (there: %t), want %d or newer", who, path, name, got, ok, v)
		}
	}
}

// watch checks every state that a watch of every context shows: none has less than the
// one before, and the first has everything.
func (x *rotRun) watch(ctx context.Context, wg *sync.WaitGroup, app *node.App) {
	for i := range rotContexts {
		name := fmt.Sprint("ctx", i)
		want := x.want(name)
		w, err := app.Contexts().Watch(x.t.Context(), name)
		if err != nil {
			x.t.Fatal(err)
		}
		wg.Go(func() {
			defer w.Close()
			for e := range w.Events(ctx) {
				if e.Kind != node.ContextSnapshot && e.Kind != node.ContextChanged {
					if e.Kind == node.ContextDestroyed {
						x.t.Errorf("%s sees the end of %s", app.Identity().Application, name)
					}
					continue
				}
				now := rotPathsOf(x.t, e.Value())
				x.check("a watch of "+app.Identity().Application, name, now, want)
				for path, v := range now {
					want[path] = max(v, want[path])
				}
				x.mu.Lock()
				x.shown++
				x.mu.Unlock()
			}
		})
	}
}

// readAll reads every context as an app that has just come.
func (x *rotRun) readAll(n *node.Node) {
	x.t.Helper()
	app := rotJoin(x.t, n, "reader")
	defer app.Leave()
	for i := range rotContexts {
		name := fmt.Sprint("ctx", i)
		want := x.want(name)
		ctx, cancel := context.WithTimeout(x.t.Context(), 30*time.Second)
		err := app.Contexts().CatchUp(ctx, name)
		var s node.ContextState
		if err == nil {
			s, err = app.Contexts().Get(ctx, name)
		}
		cancel()
		if err != nil {
			x.t.Errorf("%s cannot read %s: %v", n.ID(), name, err)
			continue
		}
		x.check(string(n.ID()), name, rotPathsOf(x.t, s.Value()), want)
	}
}

func rotPathsOf(t *testing.T, object wire.Payload) map[string]int {
	values := map[string]any{}
	if err := object.Decode(&values); err != nil {
		t.Error(err)
	}
	state := map[string]int{}
	for path, v := range values {
		if n, ok := v.(int64); ok {
			state[path] = int(n)
		}
	}
	return state
}

// alarmed says whether a node has an alarm that names the stream and the server.
func (x *rotRun) alarmed(n *node.Node, victim int) bool {
	return slices.ContainsFunc(n.Alarms(), func(a node.Alarm) bool {
		return a.Kind == alarm.ReplicaDamaged && a.Stream == rotStream && a.Server == fmt.Sprint("s", victim)
	})
}

func (x *rotRun) info() *jetstream.StreamInfo {
	x.t.Helper()
	nc, err := nats.Connect(x.cluster.URL())
	if err != nil {
		x.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		x.t.Fatal(err)
	}
	s, err := js.Stream(x.t.Context(), rotStream)
	if err != nil {
		x.t.Fatal(err)
	}
	return s.CachedInfo()
}

// follower is a server that does not lead the stream.
func (x *rotRun) follower() int {
	x.t.Helper()
	leader := x.info().Cluster.Leader
	for i := range cluster.Servers {
		if fmt.Sprint("s", i) != leader {
			return i
		}
	}
	panic("all lead")
}

// lead makes a server the leader of the stream.
func (x *rotRun) lead(victim int) {
	x.t.Helper()
	nc, err := nats.Connect(x.cluster.URL())
	if err != nil {
		x.t.Fatal(err)
	}
	defer nc.Close()
	name := fmt.Sprint("s", victim)
	for range 20 {
		ctx, cancel := context.WithTimeout(x.t.Context(), 5*time.Second)
		_, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+rotStream, []byte(`{"placement":{"preferred":"`+name+`"}}`))
		cancel()
		rotWait(x.t, time.Second)
		if err == nil && x.info().Cluster.Leader == name {
			x.t.Logf("%s leads", name)
			return
		}
	}
	x.t.Fatalf("%s does not become the leader", name)
}

// lacks is how many messages a server's replica lacks.
func (x *rotRun) lacks(victim int) int {
	x.t.Helper()
	return x.cluster.Count((victim+1)%cluster.Servers, rotStream) - x.cluster.Count(victim, rotStream)
}

// rotBlocks are the message blocks in a directory, but for the newest.
func rotBlocks(t *testing.T, msgs string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(msgs, "*.blk"))
	if err != nil || len(list) < 2 {
		t.Fatalf("want two blocks or more in %s: %q %v", msgs, list, err)
	}
	number := func(file string) int {
		n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(file), ".blk"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	slices.SortFunc(list, func(a, b string) int { return number(a) - number(b) })
	return list[:len(list)-1]
}

func rotFlip(t *testing.T, r *rand.Rand, msgs string) {
	for _, block := range rotBlocks(t, msgs) {
		data, err := os.ReadFile(block)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			data[r.IntN(len(data))] ^= 1 << r.IntN(8)
		}
		if err := os.WriteFile(block, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rotIndex(t, r, msgs)
}

func rotCut(t *testing.T, r *rand.Rand, msgs string) {
	for _, block := range rotBlocks(t, msgs) {
		info, err := os.Stat(block)
		if err == nil {
			err = os.Truncate(block, info.Size()*2/3)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rotIndex(t, r, msgs)
}

func rotIndex(t *testing.T, _ *rand.Rand, msgs string) {
	if err := os.Remove(filepath.Join(msgs, "index.db")); err != nil {
		t.Fatal(err)
	}
}

// rotWait waits for servers that run in real time.
func rotWait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// rotLog is the log of all nodes.
type rotLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *rotLog) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *rotLog) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), "msg="+text)
}
