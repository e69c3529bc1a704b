package stress_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/test/cluster"
	"github.com/weft-fabric/weft/test/model"
	"github.com/weft-fabric/weft/wire"
)

const (
	realm       = "stress"
	nodes       = 3
	appsPerNode = 8
	compactAt   = 24

	rate      = 500 // operations a second
	leastRate = 50  // a slower machine has tested too little; under the race detector two cores make 130
	pulse     = 20 * time.Millisecond

	stepDownEvery = 5 * time.Second
	cutEvery      = 3 // step-downs

	agreeWithin = 30 * time.Second
	// convergeWithin is generous: without faults it takes less than 2 s.
	convergeWithin = 15 * time.Second
)

// run is one run of the test.
type run struct {
	t       *testing.T
	cluster *cluster.Cluster
	conn    *nats.Conn
	record  *model.Recorder
	nodes   []*node.Node
	apps    []*app
	watches []*watch

	contexts []*shared
	byName   map[string]*shared

	began      bool // the contexts are there
	nextOp     atomic.Int64
	violations atomic.Int64

	mu     sync.Mutex
	ops    []*op
	faults map[string]int
}

// shared is one context, and what is done with it.
type shared struct {
	name     string
	token    string
	set      bool // the whole object may be replaced
	arrays   bool // edits through arrays
	fleeting bool // it is destroyed and made again
	counters [][]string
}

// app is one app and what it does.
type app struct {
	r    *run
	i    int
	node int
	app  *node.App
	ctx  *node.Contexts
	by   string // as in the header Weft-By
	rng  *rand.Rand
}

// mostViolations are printed; one defect can cause thousands.
const mostViolations = 30

func (r *run) violation(format string, args ...any) {
	switch n := r.violations.Add(1); {
	case n <= mostViolations:
		r.t.Errorf(format, args...)
	case n == mostViolations+1:
		r.t.Errorf("and more")
	}
}

func TestStress(t *testing.T) {
	seed, seconds := cluster.Setting(t, "SEED", time.Now().UnixNano()%1e9), cluster.Setting(t, "STRESS_SECONDS", 60)
	t.Logf("SEED=%d STRESS_SECONDS=%d: %d nodes with %d apps each", seed, seconds, nodes, appsPerNode)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to try again: SEED=%d STRESS_SECONDS=%d go test -race -count=1 -timeout 10m ./test/stress", seed, seconds)
		}
	})
	r := &run{t: t, faults: map[string]int{}, byName: map[string]*shared{}}
	r.start(uint64(seed))
	began := time.Now()
	r.load(time.Duration(seconds) * time.Second)
	took := time.Since(began)
	f, converged := r.agree()
	r.fresh(f)
	f.accounts()
	for _, w := range r.watches {
		w.judge(f)
	}
	r.report(f, took, converged)
}

// plans are the contexts: what kinds of operations meet in one decides which
// races are likely.
func plans() (list []*shared) {
	add := func(c shared, names ...string) {
		for _, name := range names {
			own := c
			own.name, own.token = name, subjects.MustEncode(name).String()
			list = append(list, &own)
		}
	}
	add(shared{set: true}, "plain", "a.b c/d", "___channel___of the test", strings.Repeat("long", 30), "Zürich", "quiet")
	add(shared{arrays: true}, "arrays-1", "arrays-2", "arrays-3")
	add(shared{arrays: true, set: true}, "arrays-set-1", "arrays-set-2")
	add(shared{counters: [][]string{{"cnt"}, {"deep", "cnt"}}}, "counted-1", "counted-2", "counted-3")
	add(shared{counters: [][]string{{"deep", "cnt"}}, arrays: true}, "counted-arrays")
	add(shared{set: true, fleeting: true}, "fleeting-1", "fleeting-2", "fleeting-3")
	add(shared{arrays: true, fleeting: true}, "fleeting-arrays-1", "fleeting-arrays-2")
	return list
}

func (r *run) start(seed uint64) {
	r.cluster = cluster.New(r.t, realm)
	var err error
	if r.conn, err = nats.Connect(r.cluster.URL(), nats.Name("stress recorder"), nats.MaxReconnects(-1)); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.conn.Close)
	r.record = model.Record(r.t, realm, r.violation, r.conn)
	rng := rand.New(rand.NewPCG(seed, 0))
	r.contexts = plans()
	rng.Shuffle(len(r.contexts), func(i, j int) { r.contexts[i], r.contexts[j] = r.contexts[j], r.contexts[i] })
	for _, c := range r.contexts {
		r.byName[c.name] = c
	}
	for i := range nodes {
		r.nodes = append(r.nodes, r.node(fmt.Sprint("desk-", i)))
	}
	for i := range nodes * appsPerNode {
		n := r.nodes[i%nodes]
		a, err := n.Join(r.t.Context(), node.Identity{Application: fmt.Sprint("app-", i)})
		if err != nil {
			r.t.Fatal(err)
		}
		r.apps = append(r.apps, &app{
			r: r, i: i, node: i % nodes, app: a, ctx: a.Contexts(), by: fmt.Sprintf("%s@%s", a.ID(), n.ID()),
			rng: rand.New(rand.NewPCG(seed, uint64(i)+1)),
		})
	}
	// Two apps of each node watch each context, half of them before it exists.
	for i, c := range r.contexts {
		if i%2 == 0 {
			r.watch(c, i)
		}
	}
	for i, c := range r.contexts {
		if o := r.apps[i].create(c); o.outcome != acknowledged {
			r.t.Fatal(o)
		}
	}
	for i, c := range r.contexts {
		if i%2 == 1 {
			r.watch(c, i)
		}
	}
}

func (r *run) node(id string) *node.Node {
	r.t.Helper()
	n, err := node.Start(r.t.Context(), node.Config{
		Realm: realm, Node: id, Machine: id, NATS: node.NATS{URL: r.cluster.URL()}, CompactAt: compactAt, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(n.Stop)
	return n
}

// watch lets two apps of each node watch a context; the reader of one of twenty
// watches is slow.
func (r *run) watch(c *shared, i int) {
	for n := range nodes {
		for k := range 2 {
			a := r.apps[(i+k*appsPerNode/2)%appsPerNode*nodes+n]
			r.watches = append(r.watches, newWatch(a, c, len(r.watches)%20 == 7))
		}
	}
}

// load makes operations at a steady pace while faults happen.
func (r *run) load(d time.Duration) {
	ctx, cancel := context.WithTimeout(r.t.Context(), d)
	defer cancel()
	r.began = true
	tokens := make(chan struct{}, rate)
	var wg sync.WaitGroup
	for _, a := range r.apps {
		wg.Go(func() {
			for range tokens {
				a.step()
			}
		})
	}
	wg.Go(func() { r.disturb(ctx) })
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for began, made := time.Now(), 0; ctx.Err() == nil; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			continue
		}
		for due := int(time.Since(began).Seconds() * rate); made < due; made++ {
			select {
			case tokens <- struct{}{}:
			default: // all apps wait for the stream; what is too late is left out
			}
		}
	}
	for len(tokens) > 0 {
		select {
		case <-tokens:
		default:
		}
	}
	close(tokens)
	wg.Wait()
}

// disturb moves the stream's leader, and cuts connections.
func (r *run) disturb(ctx context.Context) {
	tick := time.NewTicker(stepDownEvery)
	defer tick.Stop()
	for i := 1; ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if i%cutEvery == 0 {
			n := fmt.Sprintf("weft desk-%d ", i/cutEvery%nodes)
			if r.cluster.Cut(n) > 0 {
				r.faults["connections of a node cut"]++
			}
		}
		m, err := r.conn.Request("$JS.API.STREAM.LEADER.STEPDOWN."+r.record.Stream, nil, 2*time.Second)
		if err == nil && strings.Contains(string(m.Data), `"success":true`) {
			r.faults["leader stepped down"]++
		}
	}
}

// agree waits until every node has what the referee has.
func (r *run) agree() (*referee, time.Duration) {
	for _, w := range r.watches {
		close(w.hurry)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.t.Context(), agreeWithin)
	defer cancel()
	f := newReferee(r)
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		fed := f.fed
		if r.catchUp(ctx, f) && fed == f.fed && r.compare(f, false) {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		last, err := r.record.LastSeq(r.t.Context())
		r.violation("no agreement within %s: %v, missing %v", agreeWithin, err, r.record.Missing(last))
		f.feed(last)
		break
	}
	took := time.Since(began)
	if took > convergeWithin {
		r.violation("agreement took %s", took)
	}
	r.compare(f, true)
	return f, took
}

// catchUp feeds the referee with the whole record; false when it is not complete.
func (r *run) catchUp(ctx context.Context, f *referee) bool {
	last, err := r.record.LastSeq(ctx)
	if err != nil {
		return false
	}
	if missing := r.record.Missing(last); len(missing) > 0 && r.record.Fetch(ctx, missing) != nil {
		return false
	}
	f.feed(last)
	return f.open == nil
}

// compare holds what the apps have against the referee: of all when it is to
// complain, else of one app of each node and all watches.
func (r *run) compare(f *referee, complain bool) bool {
	apps := r.apps
	if !complain {
		apps = apps[:nodes]
	}
	same := true
	for _, c := range r.contexts {
		want := f.histories[c.token].Now().Shown()
		text := model.Canonical(want)
		for _, a := range apps {
			s, err := a.ctx.Get(r.t.Context(), c.name)
			if err != nil {
				same = false
				if complain {
					r.violation("%s: get %s: %v", a.by, c.name, err)
				}
				continue
			}
			same = r.equal(f, c, want, text, s, a.by, complain) && same
		}
		for _, w := range r.watches {
			if w.c != c {
				continue
			}
			value, current := w.object()
			if got := model.Canonical(value); got != text || !current {
				same = false
				if complain {
					r.differ(f, c, want, value, fmt.Sprintf("a watch of %s (up to date: %v)", w.a.by, current))
				}
			}
		}
	}
	return same
}

func (r *run) equal(f *referee, c *shared, want any, text string, s node.ContextState, who string, complain bool) bool {
	got, err := wire.Canonical(s.Value())
	if err != nil {
		r.violation("%s of %s cannot be read: %v", c.name, who, err)
	}
	switch {
	case string(got) != text:
		if complain {
			value, _ := model.Decoded(s.Value())
			r.differ(f, c, want, value, who)
		}
	case s.Pending || !s.Since.IsZero() || s.Exists != (text != ""):
		if complain {
			r.violation("%s of %s is right, but it says pending %v, since %s, exists %v", c.name, who, s.Pending, s.Since, s.Exists)
		}
	default:
		return true
	}
	return false
}

func (r *run) differ(f *referee, c *shared, want, got any, who string) {
	for _, path := range model.Differences(want, got, nil, 3) {
		r.violation("%s at %q: %s has %s, the acknowledged writes make %s; the record:\n%s", c.name, path, who, model.Short(model.At(got, path)), model.Short(model.At(want, path)), f.explain(c, path))
	}
}

// fresh compares what newcomers read: a node, and a plain client's snapshot.
func (r *run) fresh(f *referee) {
	n := r.node("late")
	a, err := n.Join(r.t.Context(), node.Identity{Application: "late"})
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := link.Open(r.t.Context(), link.Config{URL: r.cluster.URL(), Node: "reader", Name: "stress reader"})
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	bucket := kv.Contexts(l, realm)
	var names []string
	for _, c := range r.contexts {
		want := f.histories[c.token].Now().Shown()
		text := model.Canonical(want)
		if text != "" {
			names = append(names, c.name)
		}
		s, err := a.Contexts().Get(r.t.Context(), c.name)
		if err != nil {
			r.violation("late: get %s: %v", c.name, err)
			continue
		}
		r.equal(f, c, want, text, s, "late", true)
		token := subjects.MustEncode(c.name)
		snap, err := bucket.Snapshot(r.t.Context(), subjects.ContextKeys(token))
		if err != nil {
			r.violation("reader: %s: %v", c.name, err)
			continue
		}
		tree := kv.NewTree(token)
		for _, bad := range tree.Apply(slices.Collect(maps.Values(snap.Entries)), nil) {
			r.violation("reader: %s: %v", bad.Key, bad.Err)
		}
		if got, err := model.Decoded(tree.View().Payload()); err != nil || model.Canonical(got) != text {
			r.differ(f, c, want, got, "reader")
		}
	}
	slices.Sort(names)
	for _, x := range append(r.apps[:nodes:nodes], &app{ctx: a.Contexts(), by: "late"}) {
		got, err := x.ctx.Names(r.t.Context())
		got = slices.DeleteFunc(got, func(name string) bool { return r.byName[name] == nil }) // the default channels
		if err != nil || !slices.Equal(got, names) {
			r.violation("%s lists the names %q, %v, want %q", x.by, got, err, names)
		}
	}
}

func (r *run) report(f *referee, took, converged time.Duration) {
	kinds, codes := map[kind][3]int{}, map[wire.Code]int{}
	var latencies []time.Duration
	made := 0
	for _, o := range r.ops {
		n := kinds[o.kind]
		n[o.outcome]++
		kinds[o.kind] = n
		if o.outcome == acknowledged {
			latencies = append(latencies, o.took)
			made++
		} else {
			codes[o.code]++
		}
	}
	perSecond := float64(len(r.ops)) / took.Seconds()
	r.t.Logf("%d operations in %.1f s, %.0f/s; %d acknowledged; not: %v", len(r.ops), took.Seconds(), perSecond, made, codes)
	for k := range kindCount {
		n := kinds[k]
		r.t.Logf("  %-12s %6d acknowledged %5d refused %4d unknown", k, n[acknowledged], n[refused], n[unknown])
	}
	slices.Sort(latencies)
	if n := len(latencies); n > 0 {
		r.t.Logf("acknowledged after %s (p50), %s (p99), %s (most)", latencies[n/2].Round(time.Microsecond), latencies[n*99/100].Round(time.Microsecond), latencies[n-1].Round(time.Microsecond))
	}
	var sum struct{ compactions, conflicts, retried, gaps, snapshots, caught, conflated, reconnects uint64 }
	for _, n := range r.nodes {
		s := n.Stats()
		x := s.Contexts
		sum.compactions, sum.conflicts, sum.retried = sum.compactions+x.Compactions, sum.conflicts+x.Conflicts, sum.retried+x.Retried
		sum.gaps, sum.snapshots, sum.caught = sum.gaps+x.Gaps, sum.snapshots+x.Snapshots, sum.caught+x.Caught
		sum.conflated, sum.reconnects = sum.conflated+x.Conflated, sum.reconnects+s.Reconnects
		if x.Unreadable+x.Mended > 0 {
			r.violation("%s: %d writes unreadable, %d mended", n.ID(), x.Unreadable, x.Mended)
		}
	}
	r.t.Logf("nodes: %d compactions, %d conflicts, %d retried, %d gaps, %d snapshots, %d caught, %d conflated, %d reconnects",
		sum.compactions, sum.conflicts, sum.retried, sum.gaps, sum.snapshots, sum.caught, sum.conflated, sum.reconnects)
	r.t.Logf("record: %d messages in %d batches, %d of them compactions; %d not republished; %d edits shadowed in their batch, %d operations had nothing to do, %d timed out and were made, %d refused and hidden",
		f.fed, f.batches, f.compactions, r.record.Unrepeated(f.fed), f.shadowed, f.idle, f.late, f.hidden)
	events, seen := 0, 0
	for _, w := range r.watches {
		events, seen = events+w.events, seen+len(w.seen)
	}
	r.t.Logf("%d watches: %d events, %d values judged; faults: %v; all agreed %s after the last write; %d violations",
		len(r.watches), events, seen, r.faults, converged.Round(time.Millisecond), r.violations.Load())
	if perSecond < leastRate {
		r.violation("%.0f operations a second, want %d", perSecond, leastRate)
	}
	if f.compactions == 0 {
		r.violation("nothing was compacted")
	}
}
