//go:build unix

package faults_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/weft-fabric/weft/test/cluster"
	"github.com/weft-fabric/weft/test/faults/proxy"
	"github.com/weft-fabric/weft/test/model"
)

// fault is one fault that has begun. It returns how to end it, which says whether
// anything was touched.
type fault struct {
	name string
	end  func() bool
	// loses says that what a server repeats may get lost on its way to another.
	loses bool
	// so says whether anything has been touched by now; nil if that is known at the end.
	so func() bool
	// patience is how much longer it may last until so is true, touchWithin if not given.
	patience time.Duration
}

// disturb begins faults and ends them until ctx ends.
func (r *run) disturb(ctx context.Context) {
	tick := time.NewTicker(r.faultEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		r.makeFault()
	}
}

const (
	// touchWithin is how much longer a fault may last until it has touched something.
	touchWithin = 5 * time.Second
	// recordWithin is that of a compaction, which waits until the history has what it
	// purges: NATS may take most of a minute to go on with it after servers were down.
	recordWithin = time.Minute
)

func (r *run) makeFault() {
	length := r.faultLeast + time.Duration(r.rng.Int64N(int64(r.faultMost-r.faultLeast)+1))
	began := r.since()
	f := r.next()
	<-time.After(length)
	for late := time.Now().Add(cmp.Or(f.patience, touchWithin)); f.so != nil && !f.so() && time.Now().Before(late); {
		<-time.After(20 * time.Millisecond)
	}
	touched := f.end()
	r.t.Logf("%7.1fs to %5.1fs: %s", began.Seconds(), r.since().Seconds(), f.name)
	r.mu.Lock()
	defer r.mu.Unlock()
	kind, _, _ := strings.Cut(f.name, ":")
	r.faults[kind]++
	if f.loses {
		r.losses = append(r.losses, loss{began, r.since()})
	}
	if !touched {
		r.problems.add("a fault touched nothing: %s", f.name)
	}
}

// next begins the next fault.
func (r *run) next() fault {
	if r.plan.fault != nil {
		return r.plan.fault(r)
	}
	return r.begin(r.rng)
}

// kinds are the faults, each as often as it is to occur.
var kinds = []struct {
	often int
	name  string
	begin func(r *run, rng *rand.Rand) fault
}{
	{2, "server killed", func(r *run, rng *rand.Rand) fault { return r.killServer(rng.IntN(cluster.Servers)) }},
	{1, "server frozen", func(r *run, rng *rand.Rand) fault { return r.freezeServer(rng.IntN(cluster.Servers)) }},
	{2, "server cut off", func(r *run, rng *rand.Rand) fault { return r.cutOff(rng.IntN(cluster.Servers), rng.IntN(2) == 0) }},
	{2, "leader steps down", func(r *run, _ *rand.Rand) fault { return r.stepDown() }},
	{1, "rolling restart", func(r *run, _ *rand.Rand) fault { return r.roll() }},
	{2, "desk killed", func(r *run, rng *rand.Rand) fault { return r.killDesk(r.desk(rng)) }},
	{1, "desk frozen", func(r *run, rng *rand.Rand) fault { return freezeDesk(r.desk(rng)) }},
	{1, "compaction storm", func(r *run, rng *rand.Rand) fault { return r.storm(rng, r.desk(rng)) }},
	{8, "link", func(r *run, rng *rand.Rand) fault { return disturbLinks(r.desk(rng), proxy.Random(rng)) }},
}

// begin begins a fault that the seed chooses.
func (r *run) begin(rng *rand.Rand) fault {
	var list []int
	for i, k := range kinds {
		for range k.often {
			if strings.HasPrefix(k.name, r.only) {
				list = append(list, i)
			}
		}
	}
	if len(list) == 0 {
		r.t.Fatalf("there is no fault %q", r.only)
	}
	return kinds[list[rng.IntN(len(list))]].begin(r, rng)
}

func (r *run) desk(rng *rand.Rand) *desktop { return r.desks[rng.IntN(len(r.desks))] }

func (r *run) killServer(i int) fault {
	killed := r.servers.process(i).kill()
	return fault{name: fmt.Sprint("server killed: ", i), loses: true, end: func() bool {
		r.servers.start(i)
		return killed
	}}
}

func (r *run) killDesk(d *desktop) fault {
	killed := d.now().kill()
	if p := d.clientsNow(); p != nil && !r.returning {
		p.kill()
	}
	return fault{name: "desk killed: " + d.cfg.Node, end: func() bool {
		err := d.start()
		if p := d.clientsNow(); err == nil && p != nil && !r.returning {
			if err = d.startClients(); err == nil {
				d.connectClients()
			}
		}
		if err != nil {
			r.t.Error(err)
			return false
		}
		return killed
	}}
}

func freeze(name string, p *process) fault {
	frozen := p.freeze()
	return fault{name: name, end: func() bool {
		p.thaw()
		return frozen
	}}
}

func freezeDesk(d *desktop) fault { return freeze("desk frozen: "+d.cfg.Node, d.now().process) }

func (r *run) freezeServer(i int) fault {
	f := freeze(fmt.Sprint("server frozen: ", i), r.servers.process(i))
	f.loses = true
	return f
}

// cutOff separates a server from the two others: what they say gets lost, or waits.
// Its clients stay connected.
func (r *run) cutOff(i int, lose bool) fault {
	kind := proxy.Stall
	if lose {
		kind = proxy.Blackhole
	}
	var list []*proxy.Proxy
	for pair, p := range r.servers.routes {
		if slices.Contains(pair[:], i) {
			list = append(list, p)
		}
	}
	f := begun(fmt.Sprintf("server cut off: %d, %s", i, kind), list, proxy.Fault{Kind: kind})
	f.loses = true
	return f
}

// disturbLinks makes a fault on all links of a desk.
func disturbLinks(d *desktop, f proxy.Fault) fault {
	return begun(fmt.Sprintf("link %s: %s, %s", f.Kind, d.cfg.Node, f), d.links, f)
}

// begun is one fault of several proxies, of which one at least must touch something.
func begun(name string, list []*proxy.Proxy, f proxy.Fault) fault {
	for _, p := range list {
		p.Begin(f)
	}
	return fault{
		name: name,
		so:   func() bool { return slices.ContainsFunc(list, func(p *proxy.Proxy) bool { return p.So().Happened() }) },
		end: func() (touched bool) {
			for _, p := range list {
				touched = p.End().Happened() || touched
			}
			return touched
		},
	}
}

// stepDown moves the leader of the context stream. A stream that has none at the
// moment is asked again.
func (r *run) stepDown() fault {
	done := false
	ask := func() bool {
		if !done {
			m, err := r.admin.Request("$JS.API.STREAM.LEADER.STEPDOWN."+r.recorder.Stream, nil, 2*time.Second)
			done = err == nil && strings.Contains(string(m.Data), `"success":true`)
		}
		return done
	}
	ask()
	return fault{name: "leader steps down", so: ask, end: ask}
}

// roll restarts all servers, one after the other.
func (r *run) roll() fault {
	rolled := 0
	for i := range cluster.Servers {
		if r.servers.stop(i) {
			rolled++
		}
		r.servers.start(i)
		r.servers.await(soon)
	}
	return fault{name: "rolling restart", loses: true, end: func() bool { return rolled == cluster.Servers }}
}

// storm writes so much to one context that it is compacted again and again.
func (r *run) storm(rng *rand.Rand, d *desktop) fault {
	name := r.names[r.linear+rng.IntN(len(r.names)-r.linear)]
	began, i := r.recorder.Last(), 0
	write := func() {
		o := &op{context: name, kind: "paths"}
		r.mu.Lock()
		o.id = len(r.ops)
		r.ops = append(r.ops, o)
		r.mu.Unlock()
		o.edits = []change{{[]string{fmt.Sprint("s", i%(3*r.compactAt)), fmt.Sprint("n", rng.IntN(3))}, model.Tag(o.id)}}
		i++
		r.send(o, d.i+rng.IntN(deskApps)*len(r.desks))
	}
	for range 6 * r.compactAt {
		write()
		<-time.After(2 * time.Millisecond)
	}
	rng = rand.New(rand.NewPCG(r.seed, 4)) // how many more there are depends on time, and the schedule must not
	happened := func() bool {
		for seq := r.recorder.Last(); seq > began; seq-- {
			if m := r.recorder.Get(seq); m != nil && m.Compact > 0 && m.Op == model.OpPut && m.Context == name {
				return true
			}
		}
		return false
	}
	goesOn := func() bool {
		if happened() {
			return true
		}
		write() // what could not be compacted is when the context is written to
		<-time.After(100 * time.Millisecond)
		return false
	}
	return fault{name: "compaction storm: " + name, so: goesOn, patience: recordWithin, end: happened}
}
