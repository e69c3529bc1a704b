package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const realm subjects.Realm = "desk"

func TestMain(m *testing.M) {
	ats.Register() // the server's clock goroutine must start outside of every bubble
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// fabric is a provisioned server and the nodes on it, all in one bubble.
type fabric struct {
	t     *testing.T
	srv   *server.Server
	boots int
}

func inFabric(t *testing.T, f func(t *testing.T, fb *fabric)) {
	t.Helper()
	// The client library pools timers, also across bubbles, where they may not
	// be used. Two collections empty a pool.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		s, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), MaxPayload: 8 << 20})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		defer s.WaitForShutdown()
		defer s.Shutdown()
		if !s.ReadyForConnections(5 * time.Second) {
			t.Fatal("the server is not ready")
		}
		nc, err := nats.Connect("", nats.InProcessServer(s))
		if err != nil {
			t.Fatal(err)
		}
		if err := kv.Provision(t.Context(), nc, realm, 1); err != nil {
			t.Fatal(err)
		}
		nc.Close()
		f(t, &fabric{t: t, srv: s})
	})
}

// peer is a node as far as its methods and streams go.
type peer struct {
	*Interop
	t             *testing.T
	id            subjects.Node
	boot          string
	apps          uint64
	dir           *directory.Directory
	control, data *link.Link
	cancel        context.CancelFunc
	ended         chan struct{}

	srv   *server.Server
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

// start starts a node and waits until it is in.
func (fb *fabric) start(id subjects.Node) *peer {
	fb.t.Helper()
	fb.boots++
	p := &peer{t: fb.t, id: id, boot: fmt.Sprintf("boot%s%d", id, fb.boots), ended: make(chan struct{}), srv: fb.srv}
	ready, synced := make(chan struct{}), make(chan error, 100)
	open := func(on func(link.State)) *link.Link {
		l, err := link.Open(fb.t.Context(), link.Config{Node: id, Options: []nats.Option{nats.InProcessServer(p)}, OnState: on})
		if err != nil {
			fb.t.Fatal(err)
		}
		return l
	}
	p.data = open(nil)
	p.control = open(func(s link.State) {
		<-ready
		p.dir.Connected(s.Online)
	})
	p.dir = directory.New(directory.Config{
		Realm: realm, Self: id, Boot: p.boot, Machine: "machine-" + string(id), Link: p.control,
		OnSync: func(err error) {
			if err == nil {
				p.Connected()
			}
			synced <- err
		},
		OnClaim: func(ctx context.Context) error { return p.Attach(ctx) },
	})
	p.Interop = New(Config{Realm: realm, Self: id, Boot: p.boot, Directory: p.dir, Control: p.control, Data: p.data})
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go func() {
		defer close(p.ended)
		p.dir.Run(ctx)
	}()
	close(ready)
	if err := <-synced; err != nil {
		fb.t.Fatal(err)
	}
	return p
}

// InProcessConn is what nats.InProcessServer asks for.
func (p *peer) InProcessConn() (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return nil, syscall.ECONNREFUSED
	}
	c, err := p.srv.InProcessConn()
	if err == nil {
		p.conns = append(p.conns, c)
	}
	return c, err
}

// pull breaks the connections and refuses new ones until plug.
func (p *peer) pull() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *peer) plug() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

func (p *peer) stop() {
	p.Close()
	p.cancel()
	<-p.ended
	p.data.Close()
	p.control.Close()
}

// join connects an app and waits until everyone sees it.
func (p *peer) join(name string) subjects.App {
	p.t.Helper()
	id := p.joinNow(name)
	p.settle()
	return id
}

func (p *peer) joinNow(name string) subjects.App {
	p.t.Helper()
	p.apps++
	id := subjects.NewApp(p.boot, p.apps)
	if err := p.Join(id, wire.Identity{Application: name, App: string(id), Node: string(p.id), Machine: "machine-" + string(p.id)}, nil); err != nil {
		p.t.Fatal(err)
	}
	return id
}

func (p *peer) settle() {
	p.t.Helper()
	if err := p.dir.Settle(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
}

// keeps lists what the node still keeps of calls and subscriptions: nothing, when
// all have ended.
func (p *peer) keeps() string {
	synctest.Wait()
	x := p.Interop
	var list []string
	note := func(what string, n int) {
		if n != 0 {
			list = append(list, fmt.Sprintf("%d %s", n, what))
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	note("targets waited for", len(x.waiting))
	note("calls of other nodes", len(x.serving))
	note("subscriptions of other nodes", len(x.pubs))
	note("subscriptions to other nodes", len(x.legs))
	note("branches heard", len(x.feeds))
	for id, a := range x.apps {
		a.mu.Lock()
		note("calls made by "+string(id), int(a.pending.Load()))
		note("calls served by "+string(id), int(a.serving.Load()))
		note("calls noted of "+string(id), len(a.flights))
		note("subscriptions of "+string(id), len(a.subs))
		for _, m := range a.methods {
			if s := m.stream; s != nil {
				s.mu.Lock()
				note("subscribers of "+s.Name(), len(s.subs))
				note("branches of "+s.Name(), len(s.branches))
				for _, b := range s.branches {
					note("subscribers of branch "+b.name, len(b.subs))
					note("subscribers elsewhere of branch "+b.name, b.remotes)
				}
				s.mu.Unlock()
			}
		}
		a.mu.Unlock()
	}
	return strings.Join(list, ", ")
}

// clean says that nodes keep nothing.
func clean(t *testing.T, peers ...*peer) {
	t.Helper()
	for _, p := range peers {
		if left := p.keeps(); left != "" {
			t.Errorf("node %s still keeps %s", p.id, left)
		}
	}
}

// ledger notes what became of calls and subscriptions, each by its name.
type ledger struct {
	t  *testing.T
	mu sync.Mutex

	done, finished, ended map[string]int
	served                []*Pending
	accepted, removed     map[string]int
	petitions             []func(string, error) (*Subscriber, error)
}

func newLedger(t *testing.T) *ledger {
	return &ledger{t: t, done: map[string]int{}, finished: map[string]int{}, ended: map[string]int{}, accepted: map[string]int{}, removed: map[string]int{}}
}

// Serve keeps a call.
func (l *ledger) Serve(p *Pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.served = append(l.served, p)
}

// Ended counts an end without the server.
func (l *ledger) Ended(p *Pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended[p.ID]++
}

// finish ends a call as its server.
func (l *ledger) finish(p *Pending, err error) {
	if p.Finish(p.Args, err) {
		l.mu.Lock()
		l.finished[p.ID]++
		l.mu.Unlock()
	}
}

// take removes a call that was served, at random or in order.
func (l *ledger) take(at func(n int) int) *Pending {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.served) == 0 {
		return nil
	}
	i := at(len(l.served))
	p := l.served[i]
	l.served = append(l.served[:i:i], l.served[i+1:]...)
	return p
}

// stream is options of a stream that keeps what it is asked and what has ended.
func (l *ledger) stream() StreamOptions {
	return StreamOptions{
		Decide: func(_ *SubscriptionRequest, decide func(string, error) (*Subscriber, error)) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.petitions = append(l.petitions, decide)
		},
		Ended: func(s *Subscriber) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.removed[s.ID()]++
		},
	}
}

// decide decides about the oldest subscription.
func (l *ledger) decide(branch string, no error) *Subscriber {
	l.mu.Lock()
	if len(l.petitions) == 0 {
		l.mu.Unlock()
		return nil
	}
	decide := l.petitions[0]
	l.petitions = l.petitions[1:]
	l.mu.Unlock()
	s, err := decide(branch, no)
	if err != nil {
		return nil
	}
	l.mu.Lock()
	l.accepted[s.ID()]++
	l.mu.Unlock()
	return s
}

// call starts a call and counts how often it ends.
func (l *ledger) call(p *peer, name string, from, to subjects.App, method string, timeout time.Duration) (cancel func(error)) {
	l.mu.Lock()
	l.done[name] = 0
	l.mu.Unlock()
	args, err := wire.Encode(name)
	if err != nil {
		l.t.Fatal(err)
	}
	return p.Start(from, to, method, args, "", timeout, func(r Result) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.done[name]++
		var got string
		if r.Err == nil && (r.Value.Decode(&got) != nil || got != name) {
			l.t.Errorf("call %s has the result %q", name, got)
		}
		if r.Err != nil && wire.CodeOf(r.Err) == wire.Internal {
			l.t.Errorf("call %s: %v", name, r.Err)
		}
	})
}

// wait lets time pass; outside of a bubble it panics.
func (*ledger) wait(d time.Duration) {
	synctest.Wait()
	time.Sleep(d)
}

// balance says that everything that began has ended, once.
func (l *ledger) balance() {
	l.t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	wrong := map[string]int{}
	for _, n := range l.done {
		if n != 1 {
			wrong[fmt.Sprintf("calls ended %d times for their caller", n)]++
		}
	}
	for id, n := range l.ended {
		if n != 1 || l.finished[id] != 0 {
			wrong[fmt.Sprintf("calls ended %d times without their server, which ended them %d times", n, l.finished[id])]++
		}
	}
	for _, n := range l.finished {
		if n != 1 {
			wrong[fmt.Sprintf("calls were finished %d times", n)]++
		}
	}
	for _, p := range l.served {
		if !p.Over() {
			wrong["calls are still with their server"]++
		}
	}
	for id, n := range l.accepted {
		if n != 1 || l.removed[id] != 1 {
			wrong[fmt.Sprintf("subscriptions were accepted %d times and ended %d times", n, l.removed[id])]++
		}
	}
	for id := range l.removed {
		if l.accepted[id] == 0 {
			wrong["subscriptions ended that never were"]++
		}
	}
	for what, n := range wrong {
		l.t.Errorf("%d %s", n, what)
	}
}

var errNo = errors.New("no")
