//go:build unix

package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/test/cluster"
	"github.com/weft-fabric/weft/test/faults/proxy"
	"github.com/weft-fabric/weft/test/model"
	"github.com/weft-fabric/weft/wire"
)

// plan says how large a run is.
type plan struct {
	seed             uint64
	desks, clients   int
	contexts, linear int // of the contexts, how many are read for the order
	rate             int // writes a second
	length           time.Duration
	faultEvery       time.Duration
	faultLeast       time.Duration
	faultMost        time.Duration
	compactAt        int
	healWithin       time.Duration
	// returning says that clients whose desk was killed stay, and come back by what
	// their libraries do then; else they end with the desk and start with it.
	returning bool
	// broken is how the nodes are broken on purpose.
	broken string
	// only is how the names of the faults begin that the seed may choose.
	only string
	// fault is made instead of those that the seed chooses.
	fault  func(r *run) fault
	repeat string // how to do it again
}

const (
	quietWithin = 2 * time.Second
	writeWithin = 5 * time.Second
	// mostInFlight is how many writes may wait for an answer at a time.
	mostInFlight = 300
	readEvery    = 150 * time.Millisecond
	recordEvery  = 500 * time.Millisecond
)

// run is one run.
type run struct {
	plan
	t       *testing.T
	servers *servers
	realm   subjects.Realm
	rng     *rand.Rand // of the schedule
	began   time.Time
	desks   []*desktop
	names   []string
	admin   *nats.Conn
	link    *link.Link
	reader  *kv.Bucket

	recorder *model.Recorder
	record   *record
	watching []*observer // of clients: client * contexts + context, nil where it does not watch

	mu       sync.Mutex
	ops      []*op
	reads    []read
	faults   map[string]int
	losses   []loss
	problems problems
	inFlight int
	leftOut  int
	resident []int64 // of all desks, over time
	longest  time.Duration
	late     time.Duration // how far the history was behind, at most

	healed, quiet time.Duration // how long agreement took
}

// desktop is a desk, over its restarts.
type desktop struct {
	r         *run
	i         int
	cfg       deskConfig
	links     []*proxy.Proxy // to each server
	observers map[string]*observer

	mu      sync.Mutex
	peer    *peer
	clients *peer
}

func (r *run) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems.add(format, args...)
}

// do makes a run on servers that are up, and fails the test if it finds anything.
func (p plan) do(t *testing.T, s *servers) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to try again: %s", p.repeat)
		}
	})
	r := p.make(t, s)
	for _, text := range r.problems.list {
		t.Error(text)
	}
	total := r.report()
	if r.problems.n > 0 {
		t.Errorf("SEED=%d: %d violations", r.seed, r.problems.n)
		return
	}
	t.Logf("SEED=%d: 0 violations; with 95%% confidence fewer than %.2g a fault", r.seed, 3/float64(total))
}

// make makes a run.
func (p plan) make(t *testing.T, s *servers) *run {
	t.Logf("SEED=%d: %d desks, %d clients, %d contexts, %d writes/s for %s, a fault every %s", p.seed, p.desks, p.clients, p.contexts, p.rate, p.length, p.faultEvery)
	r := &run{plan: p, t: t, servers: s, realm: subjects.Realm(fmt.Sprint("faults-", p.broken, p.seed)), rng: rand.New(rand.NewPCG(p.seed, 0)), began: time.Now(), faults: map[string]int{}}
	r.start()
	ctx, cancel := context.WithTimeout(t.Context(), p.length)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { r.load(ctx) })
	all.Go(func() { r.read(ctx) })
	all.Go(func() { r.watchMemory(ctx) })
	all.Go(func() { r.recorder.Follow(ctx, recordEvery) })
	all.Go(func() { r.watchHistory(ctx) })
	started := r.since()
	r.disturb(ctx)
	all.Wait()
	loaded := r.since()
	r.healed = r.agree(p.healWithin)
	r.quiet = r.makeQuiet()
	checked := r.since()
	r.judge()
	t.Logf("started within %.1f s, checked within %.1f s, %.1f s of load", started.Seconds(), (r.since() - checked).Seconds(), (loaded - started).Seconds())
	return r
}

func (r *run) since() time.Duration { return time.Since(r.began) }

// start starts everything, and makes the contexts.
func (r *run) start() {
	r.servers.provision(r.realm)
	r.t.Cleanup(func() { r.servers.forget(r.realm) })
	var conns []*nats.Conn
	for i := -1; i < cluster.Servers; i++ {
		nc, err := r.servers.connect(i)
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(nc.Close)
		conns = append(conns, nc)
	}
	r.admin = conns[0]
	r.recorder = model.Record(r.t, r.realm, r.problem, conns...)
	l, err := link.Open(r.t.Context(), link.Config{URL: r.servers.urls(), Node: "reader", Name: "faults reader", Options: []nats.Option{nats.IgnoreDiscoveredServers()}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(l.Close)
	r.link, r.reader = l, kv.Contexts(l, r.realm)
	for i := range r.contexts {
		kind := "any"
		if i < r.linear {
			kind = "linear"
		}
		r.names = append(r.names, fmt.Sprintf("%s-%d", kind, i))
	}
	r.record = newRecord(r.names)
	gateways := cluster.FreePorts(r.t, r.plan.desks)
	for i := range r.plan.desks {
		d := &desktop{r: r, i: i, observers: map[string]*observer{}}
		var urls []string
		for j := range cluster.Servers {
			p := proxy.New(r.t, strings.TrimPrefix(r.servers.url(j), "nats://"))
			d.links = append(d.links, p)
			urls = append(urls, "nats://"+p.Addr())
		}
		rand.New(rand.NewPCG(r.seed, uint64(i))).Shuffle(len(urls), func(a, b int) { urls[a], urls[b] = urls[b], urls[a] })
		name := fmt.Sprint("desk-", i)
		d.cfg = deskConfig{
			Realm: string(r.realm), Node: name, NATS: strings.Join(urls, ","), Store: filepath.Join(r.t.TempDir(), name),
			CompactAt: r.compactAt, Broken: r.broken, Gateway: fmt.Sprintf("127.0.0.1:%d", gateways[i]),
		}
		for _, context := range r.names {
			d.observers[context] = newObserver("a watch on "+name, name, context, r.writers(), r.since)
		}
		r.desks = append(r.desks, d)
	}
	var starts sync.WaitGroup
	for _, d := range r.desks {
		for _, start := range []func() error{d.start, d.startClients} {
			starts.Go(func() {
				if err := start(); err != nil {
					r.t.Error(err)
				}
			})
		}
	}
	starts.Wait()
	if r.t.Failed() {
		r.t.FailNow()
	}
	for i, context := range r.names {
		o := &op{context: context, kind: "set"}
		r.change(r.rng, o, i%r.writers())
		r.send(o, i%(r.plan.desks*deskApps))
		if i%100 == 99 {
			r.await()
		}
	}
	r.await()
	for _, o := range r.ops {
		if o.outcome != durable {
			r.t.Fatal(o)
		}
	}
	r.watchClients()
}

// writers is how many apps write.
func (r *run) writers() int { return r.plan.desks*deskApps + r.plan.clients }

func (d *desktop) start() error {
	p, err := startDesk(d.r.t, d.cfg, d.event)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.peer = p
	d.mu.Unlock()
	for _, name := range d.r.names {
		p.start(request{Do: "watch", App: deskApps - 1, Context: name}, func(response) {})
	}
	return nil
}

func (d *desktop) now() *peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peer
}

// event is told what the watches of the desk see.
func (d *desktop) event(a response) {
	e := a.Event
	if e == nil {
		d.r.problem("%s: %s", d.cfg.Node, a.Error)
		return
	}
	v := model.Nothing
	if e.Exists {
		v = fromJSON(e.Value)
	}
	d.observers[e.Context].see(v, !e.Pending, e.Revision)
}

var libraries = []string{"@interopio/core", "@glue42/core", "@interopio/desktop", "@glue42/desktop"}

// startClients starts the process of the desk's clients.
func (d *desktop) startClients() error {
	if d.r.plan.clients <= d.i {
		return nil
	}
	p, err := startPeer(d.r.t, "clients of "+d.cfg.Node, exec.Command("node", "../clients/faults/clients.mjs"), d.r.clientEvent)
	if err != nil {
		return fmt.Errorf("the JavaScript clients, which need Node.js and `npm ci` in test/clients: %w", err)
	}
	d.mu.Lock()
	d.clients = p
	d.mu.Unlock()
	return nil
}

// watchClients connects the clients and lets each watch a part of the contexts.
func (r *run) watchClients() {
	r.watching = make([]*observer, r.plan.clients*r.contexts)
	for i := range r.plan.clients {
		name, d := fmt.Sprint("client-", i), r.desks[i%r.plan.desks]
		for k, context := range r.names {
			if k%4 == i/r.plan.desks%4 {
				o := newObserver(fmt.Sprintf("%s (%s) on %s", name, library(i), d.cfg.Node), d.cfg.Node, context, r.writers(), r.since)
				r.watching[i*r.contexts+k] = o
			}
		}
	}
	for _, d := range r.desks {
		d.connectClients()
	}
}

func library(client int) string { return libraries[client%len(libraries)] }

// connectClients connects the clients of a desk.
func (d *desktop) connectClients() {
	r := d.r
	var all sync.WaitGroup
	for i := d.i; i < r.plan.clients; i += r.plan.desks {
		all.Go(func() {
			if err := d.askClient(request{Do: "connect", App: i, URL: "ws://" + d.cfg.Gateway, Name: fmt.Sprint("client-", i), Library: library(i), Timeout: soon}); err != nil {
				r.problem("client-%d: connect: %v", i, err)
				return
			}
			for k, context := range r.names {
				if r.watching[i*r.contexts+k] == nil {
					continue
				}
				if err := d.askClient(request{Do: "watch", App: i, Context: context, Timeout: soon}); err != nil {
					r.problem("client-%d: watch %s: %v", i, context, err)
				}
			}
		})
	}
	all.Wait()
}

func (d *desktop) clientsNow() *peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clients
}

func (d *desktop) askClient(q request) error {
	_, err := d.clientsNow().ask(q)
	return err
}

func (r *run) clientEvent(a response) {
	e := a.Event
	i := slices.Index(r.names, e.Context)
	if e == nil || i < 0 {
		r.problem("a client said %v", a)
		return
	}
	r.watching[e.App*r.contexts+i].see(fromJSON(e.Value), false, 0)
}

// load makes writes at a steady pace. What they are depends on the seed alone.
func (r *run) load(ctx context.Context) {
	rng := rand.New(rand.NewPCG(r.seed, 1))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began, made := time.Now(), 0; ctx.Err() == nil; {
		for due := int(time.Since(began).Seconds() * float64(r.rate)); made < due; made++ {
			r.write(rng, r.names[rng.IntN(len(r.names))])
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	r.await()
}

// write makes one write of some app.
func (r *run) write(rng *rand.Rand, context string) {
	o := &op{context: context, kind: "paths"}
	switch n := rng.IntN(10); {
	case n == 0:
		o.kind = "set"
	case n < 4, strings.HasPrefix(context, "linear") && n < 8:
		o.kind = "update"
	}
	w := rng.IntN(r.writers())
	r.change(rng, o, w)
	r.send(o, w)
}

// change chooses what an operation writes.
func (r *run) change(rng *rand.Rand, o *op, writer int) {
	r.mu.Lock()
	o.id = len(r.ops)
	r.ops = append(r.ops, o)
	r.mu.Unlock()
	leaf := func() any {
		text := model.Tag(o.id) + strings.Repeat("~", rng.IntN(40))
		if rng.IntN(4) == 0 {
			return map[string]any{"x": text, "y": map[string]any{"z": model.Tag(o.id)}}
		}
		return text
	}
	key := func() string { return fmt.Sprint("k", rng.IntN(8)) }
	isClient := writer >= r.plan.desks*deskApps
	switch {
	case o.kind == "set":
		v := map[string]any{"whole": model.Tag(o.id)}
		for range 3 {
			v[key()] = leaf()
		}
		o.edits = []change{{nil, v}}
	case o.kind == "update":
		for range 1 + rng.IntN(3) {
			e := change{[]string{key()}, leaf()}
			if rng.IntN(6) == 0 && !isClient {
				e.value = model.Nothing
			}
			if !slices.ContainsFunc(o.edits, func(other change) bool { return other.path[0] == e.path[0] }) {
				o.edits = append(o.edits, e)
			}
		}
	case strings.HasPrefix(o.context, "linear") || rng.IntN(3) == 0:
		v := model.Tag(o.id)
		for _, path := range triple(writer) {
			o.edits = append(o.edits, change{path, v})
		}
	default:
		e := change{[]string{key()}, leaf()}
		for range rng.IntN(3) {
			e.path = append(e.path, []string{"x", "y", "z"}[rng.IntN(3)])
		}
		if rng.IntN(5) == 0 && !isClient {
			e.value = model.Nothing
		}
		o.edits = []change{e}
	}
}

// send makes a write without waiting for its end.
func (r *run) send(o *op, writer int) {
	r.mu.Lock()
	full := r.inFlight >= mostInFlight
	if full {
		r.leftOut++
		o.outcome, o.err = refused, "it was left out"
	} else {
		r.inFlight++
	}
	r.mu.Unlock()
	if full {
		return
	}
	q := request{Do: "write", Context: o.context, Kind: o.kind, Timeout: writeWithin}
	for _, e := range o.edits {
		wanted := edit{Path: e.path}
		if e.value != model.Nothing {
			text, err := json.Marshal(e.value)
			if err != nil {
				r.t.Error(err)
			}
			wanted.Value = text
		}
		q.Edits = append(q.Edits, wanted)
	}
	var p *peer
	if client := writer - r.plan.desks*deskApps; client >= 0 {
		d := r.desks[client%r.plan.desks]
		p, q.App, o.client, o.desk, o.app = d.clientsNow(), client, true, d.cfg.Node, fmt.Sprint("client-", client)
	} else {
		d := r.desks[writer%r.plan.desks]
		p, q.App, o.desk = d.now(), writer/r.plan.desks, d.cfg.Node
		o.app = fmt.Sprintf("%s-%d", o.desk, q.App)
	}
	o.began = r.since()
	go p.start(q, func(a response) { r.done(o, a) })
}

// done notes how a write ended.
func (r *run) done(o *op, a response) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight--
	o.ended = r.since()
	o.code, o.err = a.Code, a.Error
	switch {
	case a.Ack != nil:
		o.ack, o.outcome = *a.Ack, durable
		if a.Ack.Journalled {
			o.outcome = journalled
		}
		if o.outcome == durable && !o.client {
			r.longest = max(r.longest, o.ended-o.began)
		}
	case o.client && a.Code != wire.Offline, a.Code == wire.Timeout, a.Code == wire.Canceled, a.Error == errEnded.Error(), strings.Contains(a.Error, "may have been written"):
		o.outcome = unknown
	case a.Code == wire.Offline, a.Code == wire.Unavailable, a.Code == wire.Busy:
		o.outcome = refused
	default:
		o.outcome = refused
		r.problems.add("%s", o)
	}
}

// await waits until every write has ended.
func (r *run) await() {
	eventually(r.t, 2*soon, "all writes have ended", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.inFlight > 0 {
			return fmt.Errorf("%d have not", r.inFlight)
		}
		return nil
	})
}

// read reads what the leader has of the contexts whose order is checked.
func (r *run) read(ctx context.Context) {
	if r.linear == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(r.seed, 2))
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.readOne(ctx, r.names[rng.IntN(r.linear)])
		case <-ctx.Done():
			for _, name := range r.names[:r.linear] {
				r.readOne(r.t.Context(), name)
			}
			return
		}
	}
}

// readOne is one authoritative read; one that fails says nothing.
func (r *run) readOne(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	began := r.since()
	v, err := r.leads(ctx, name)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads = append(r.reads, read{name, began, r.since(), v})
}

// leads is what the stream's leader has of a context. A server that was frozen, or cut
// off, takes itself for the leader for up to twenty seconds after others have another:
// it counts only if it has heard of most servers in less time than they take for that.
func (r *run) leads(ctx context.Context, name string) (any, error) {
	began := time.Now()
	stream, err := r.link.JetStream().Stream(ctx, r.recorder.Stream)
	if err != nil {
		return nil, err
	}
	near := 1
	for _, p := range stream.CachedInfo().Cluster.Replicas {
		if !p.Offline && p.Active < leaseLeast {
			near++
		}
	}
	if near <= cluster.Servers/2 {
		return nil, errors.New("the leader is alone")
	}
	token := subjects.MustEncode(name)
	snap, err := r.reader.Snapshot(ctx, subjects.ContextKeys(token))
	if err != nil {
		return nil, err
	}
	tree, whole := snap.Tree(token)
	if !whole || time.Since(began) > leaseLeft {
		return nil, errors.New("not of one moment")
	}
	return model.Decoded(tree.View().Payload())
}

// A server takes four seconds without its leader before it wants to be one.
const (
	leaseLeast = 2500 * time.Millisecond
	leaseLeft  = time.Second
)

// agree waits until everybody has what the record makes, and says how long that took.
func (r *run) agree(within time.Duration) time.Duration {
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	views := r.views()
	for late := time.After(within); ; {
		fed := r.record.last
		err := r.catchUp()
		if err == nil && fed == r.record.last {
			if views = r.differing(views); len(views) == 0 {
				return time.Since(began)
			}
			err = fmt.Errorf("%d views differ", len(views))
		} else {
			views = r.views() // what agreed may not any more
		}
		select {
		case <-tick.C:
		case <-late:
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				// Only the history has what the record lacks, and that can be late. What
				// everybody has by now is judged when it is known.
				views = frozen(views)
				eventually(r.t, 4*soon, "the history completes the record", r.catchUp)
				if views = r.differing(views); len(views) == 0 {
					return within
				}
				err = fmt.Errorf("%d views differed", len(views))
			}
			r.problem("no agreement within %s of the last write: %v", within, err)
			for _, v := range views[:min(len(views), 5)] {
				r.problem("%s", v.differs(r))
			}
			return time.Since(began)
		}
	}
}

// catchUp feeds the record with everything that the stream has.
func (r *run) catchUp() error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	last, err := r.recorder.LastSeq(ctx)
	if err != nil {
		return err
	}
	if missing := r.recorder.Missing(last); len(missing) > 0 {
		if err := r.recorder.Fetch(ctx, missing); err != nil {
			return err
		}
	}
	for seq := r.record.last + 1; seq <= last; seq++ {
		if m := r.recorder.Get(seq); m != nil {
			r.record.feed(m, &r.problems)
		}
	}
	if r.record.open != nil {
		return errors.New("a batch has no end yet")
	}
	return nil
}

// held is what somebody has of one context.
type held struct {
	who, context string
	get          func() (any, error)
}

// frozen are views as they are now.
func frozen(views []held) []held {
	now := slices.Clone(views)
	var all sync.WaitGroup
	for part := range slices.Chunk(now, max(1, len(now)/8)) {
		all.Go(func() {
			for i := range part {
				v, err := part[i].get()
				part[i].get = func() (any, error) { return v, err }
			}
		})
	}
	all.Wait()
	return now
}

// views are everybody's views of every context.
func (r *run) views() (list []held) {
	for _, d := range r.desks {
		for _, name := range r.names {
			list = append(list, held{d.cfg.Node, name, func() (any, error) {
				a, err := d.now().ask(request{Do: "get", Context: name, Timeout: 5 * time.Second})
				switch {
				case err != nil:
					return nil, err
				case a.State.Pending || a.State.Since:
					return nil, errors.New("it is pending, or may be old")
				case !a.State.Exists:
					return model.Nothing, nil
				}
				return fromJSON(a.State.Value), nil
			}}, held{"a watch on " + d.cfg.Node, name, func() (any, error) { return d.observers[name].last(), nil }})
		}
	}
	for _, o := range r.watching {
		if o != nil {
			list = append(list, held{o.who, o.context, func() (any, error) { return o.last(), nil }})
		}
	}
	return list
}

// want is the hash of a context by the record.
func (r *run) want(context string) uint64 {
	list := r.record.prefixes[context]
	return list[len(list)-1].hash
}

func (r *run) differing(views []held) (list []held) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for part := range slices.Chunk(views, max(1, len(views)/8)) {
		all.Go(func() {
			for _, h := range part {
				if v, err := h.get(); err != nil || hashOf(model.Canonical(v)) != r.want(h.context) {
					mu.Lock()
					list = append(list, h)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return list
}

// differs says what somebody has that the record does not make.
func (h held) differs(r *run) string {
	got, err := h.get()
	if err != nil {
		return fmt.Sprintf("%s: %s: %v", h.who, h.context, err)
	}
	want := r.record.histories[h.context].Now().Shown()
	var lines []string
	for _, path := range model.Differences(want, got, nil, 3) {
		lines = append(lines, fmt.Sprintf("%q is %s, the writes make %s; %s", path, model.Short(model.At(got, path)), model.Short(model.At(want, path)), r.record.explain(h.context, path)))
	}
	return fmt.Sprintf("%s: %s: %s", h.who, h.context, strings.Join(lines, "; "))
}

// makeQuiet makes some writes without faults, after which all must agree at once.
func (r *run) makeQuiet() time.Duration {
	rng := rand.New(rand.NewPCG(r.seed, 3))
	for range 20 {
		r.write(rng, r.names[rng.IntN(len(r.names))])
	}
	r.await()
	return r.agree(quietWithin)
}

// judge runs all checkers.
func (r *run) judge() {
	r.mu.Lock()
	defer r.mu.Unlock()
	made := slices.DeleteFunc(slices.Clone(r.ops), func(o *op) bool { return o.app == "" })
	var notices []notice
	for _, d := range r.desks {
		a, err := d.now().ask(request{Do: "overwritten", Timeout: soon})
		if err != nil {
			r.problems.add("%s: overwritten: %v", d.cfg.Node, err)
		}
		for _, n := range a.Notices {
			n.desk = d.cfg.Node
			notices = append(notices, n)
		}
	}
	r.falseAlarms()
	audit(r.record, made, notices, &r.problems)
	remoteWins(r.record, made, &r.problems)
	realTime(made, &r.problems)
	linearizable(r.record, made, r.reads, &r.problems)
	byID := map[int]*op{}
	for _, o := range made {
		byID[o.id] = o
	}
	for _, d := range r.desks {
		for _, name := range r.names {
			d.observers[name].judge(r.record, byID, r.losses, &r.problems)
		}
	}
	for _, o := range r.watching {
		if o != nil {
			o.judge(r.record, byID, r.losses, &r.problems)
		}
	}
	leader := view{"the leader", map[string]uint64{}}
	for _, name := range r.names {
		var v any
		eventually(r.t, soon, "the leader is read", func() (err error) {
			v, err = r.leads(r.t.Context(), name)
			return err
		})
		leader.hashes[name] = hashOf(model.Canonical(v))
	}
	diverged(r.record, r.names, []view{leader}, &r.problems)
	if early, late, _ := r.memory(); late > early+early/4+(16<<20) {
		r.problems.add("the memory of the desks is not flat: %d MiB, then %d MiB", early>>20, late>>20)
	}
	if len(r.faults) == 0 {
		r.problems.add("there was no fault")
	}
}

// falseAlarms finds alarms of what no fault of a run does: servers keep what they have.
// mu is held.
func (r *run) falseAlarms() {
	for _, d := range r.desks {
		a, err := d.now().ask(request{Do: "alarms", Timeout: soon})
		if err != nil {
			r.problems.add("%s: alarms: %v", d.cfg.Node, err)
		}
		for _, raised := range a.Alarms {
			if raised.Kind == alarm.TailLost || raised.Kind == alarm.KeysMissing {
				r.problems.add("%s has a false alarm: %s of %s on %s since %s: %s", d.cfg.Node, raised.Kind, raised.Stream, raised.Server, raised.Since.Sub(r.began), raised.Text)
			}
		}
	}
}

// report prints the numbers, and says how many faults there were.
func (r *run) report() (total int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ended [outcomes]int
	codes := map[wire.Code]int{}
	for _, o := range r.ops {
		if o.app == "" {
			continue
		}
		ended[o.outcome]++
		if o.outcome == refused {
			codes[o.code]++
		}
	}
	var faults []string
	for name, n := range r.faults {
		total += n
		faults = append(faults, fmt.Sprint(name, " ", n))
	}
	slices.Sort(faults)
	events := 0
	for _, d := range r.desks {
		for _, o := range d.observers {
			events += o.events
		}
	}
	seen := 0
	for _, o := range r.watching {
		if o != nil {
			seen += o.events
		}
	}
	r.t.Logf("%d writes: %d durable, %d journalled, %d refused %v, %d unknown; %d left out; the longest took %s",
		len(r.ops)-r.leftOut, ended[durable], ended[journalled], ended[refused], codes, ended[unknown], r.leftOut, r.longest.Round(time.Millisecond))
	r.t.Logf("%d messages, %d compactions; %d events of Go watches, %d of which lack something that was lost; %d events of clients; %d reads of the leader", r.record.last, r.record.compactions, events, r.record.holes, seen, len(r.reads))
	r.t.Logf("the history was behind for at most %s", r.late.Round(time.Second))
	r.t.Logf("agreed %s after the faults, %s after quiet writes", r.healed.Round(time.Millisecond), r.quiet.Round(time.Millisecond))
	r.t.Logf("%d faults: %s", total, strings.Join(faults, ", "))
	if early, late, most := r.memory(); most > 0 {
		var over []int64
		for part := range slices.Chunk(r.resident, (len(r.resident)+9)/10) {
			over = append(over, slices.Max(part)>>20)
		}
		r.t.Logf("memory of the largest desk: %d MiB early, %d MiB late, %d MiB at most; over time %d", early>>20, late>>20, most>>20, over)
	}
	return total
}

// watchMemory samples what the desks have.
func (r *run) watchMemory(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			var sizes []int64
			for _, d := range r.desks {
				if n := d.now().resident(); n > 0 {
					sizes = append(sizes, n)
				}
			}
			if len(sizes) == 0 {
				continue
			}
			r.mu.Lock()
			r.resident = append(r.resident, slices.Max(sizes))
			r.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// watchHistory finds out how far the history is behind what was written.
func (r *run) watchHistory(ctx context.Context) {
	type mark struct {
		seq uint64
		at  time.Duration
	}
	var marks []mark // of what the history has not got
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			marks = append(marks, mark{r.recorder.Last(), r.since()})
			copied, err := r.recorder.Copied(ctx)
			if err != nil {
				continue // the next one says how long it was
			}
			marks = slices.DeleteFunc(marks, func(m mark) bool { return m.seq <= copied })
			if len(marks) > 0 {
				r.mu.Lock()
				r.late = max(r.late, r.since()-marks[0].at)
				r.mu.Unlock()
			}
		case <-ctx.Done():
			return
		}
	}
}

// leastSamples is how many samples of memory a run must have to say something.
const leastSamples = 60

// memory is that of the largest desk in the second fifth of the run and in the last,
// and at most; 0 of a run that was too short to say. mu is held.
func (r *run) memory() (early, late, most int64) {
	n := len(r.resident)
	if n < leastSamples {
		return 0, 0, 0
	}
	median := func(list []int64) int64 { return slices.Sorted(slices.Values(list))[len(list)/2] }
	return median(r.resident[n/5 : 2*n/5]), median(r.resident[4*n/5:]), slices.Max(r.resident)
}
