package contexts_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/node/journal"
	"github.com/weft-fabric/weft/node/restriction"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const realm subjects.Realm = "desk"

func TestMain(m *testing.M) {
	ats.Register() // the server's clock goroutine must start outside of every bubble
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// hub is a provisioned NATS server, to which every node has a line that can be cut,
// stalled or made lossy.
type hub struct {
	t     *testing.T
	store string
	boots int
	alone bool // nodes end no contexts
	// Where journals are, "" for none, how large they may be, and policies.
	journals string
	limit    int64
	policies []contexts.Policy

	mu    sync.Mutex
	srv   *server.Server
	lines map[string]*line
}

// inHub runs f in fake time.
func inHub(t *testing.T, f func(t *testing.T, h *hub)) {
	t.Helper()
	// The client library pools timers, also across bubbles, where they may not
	// be used. Two collections empty a pool.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		h := &hub{t: t, store: t.TempDir(), lines: map[string]*line{}}
		defer time.Sleep(10 * time.Millisecond) // the server's store wakes once more
		h.up()
		defer h.down()
		f(t, h)
	})
}

func (h *hub) up() {
	h.t.Helper()
	s, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true, MaxPayload: 8 << 20, JetStream: true, StoreDir: h.store})
	if err != nil {
		h.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		h.t.Fatal("the server is not ready")
	}
	h.mu.Lock()
	h.srv = s
	h.mu.Unlock()
	nc := h.client()
	defer nc.Close()
	if err := kv.Provision(h.t.Context(), nc, realm, 1); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) down() {
	h.mu.Lock()
	s := h.srv
	h.srv = nil
	h.mu.Unlock()
	s.Shutdown()
	s.WaitForShutdown()
}

// client is a plain NATS client; the test closes it.
func (h *hub) client() *nats.Conn {
	h.t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(h.srv), nats.NoReconnect())
	if err != nil {
		h.t.Fatal(err)
	}
	return nc
}

// line is how one node reaches the hub. Its flags are guarded by the hub's mu.
type line struct {
	hub   *hub
	cut   bool
	drop  func(subject string) bool // of messages to the node
	ends  map[net.Conn]struct{}
	stall chan struct{}
	gates []*gate // of the connections that there are, or were
	// resumes end what was held back.
	resumes []func()
}

func (h *hub) line(id string) *line {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lines[id] == nil {
		h.lines[id] = &line{hub: h, ends: map[net.Conn]struct{}{}}
	}
	return h.lines[id]
}

// InProcessConn is what nats.InProcessServer asks for.
func (l *line) InProcessConn() (net.Conn, error) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if l.cut || l.hub.srv == nil {
		return nil, syscall.ECONNREFUSED
	}
	far, err := l.hub.srv.InProcessConn()
	if err != nil {
		return nil, err
	}
	near, mid := net.Pipe()
	l.ends[far], l.ends[mid] = struct{}{}, struct{}{}
	pump := func(f func(to io.Writer, from io.Reader), to, from net.Conn) {
		f(to, from)
		_ = far.Close()
		_ = mid.Close()
		l.hub.mu.Lock()
		delete(l.ends, far)
		delete(l.ends, mid)
		l.hub.mu.Unlock()
	}
	g := &gate{}
	l.gates = append(l.gates, g)
	go pump(func(to io.Writer, from io.Reader) { l.send(to, from, g) }, far, mid)
	go pump(func(to io.Writer, from io.Reader) { l.receive(to, from, g) }, mid, far)
	return near, nil
}

// send passes on what the node sends. What is held back waits in a buffer, as in a kernel:
// the node can go on sending.
func (l *line) send(to io.Writer, from io.Reader, g *gate) {
	chunks := make(chan []byte, 1<<16)
	go func() {
		defer close(chunks)
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				chunks <- bytes.Clone(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	for chunk := range chunks {
		l.wait(g)
		if _, err := to.Write(chunk); err != nil {
			return
		}
	}
}

// receive passes on what the server sends, message by message.
func (l *line) receive(to io.Writer, from io.Reader, g *gate) {
	r := bufio.NewReaderSize(from, 64<<10)
	for {
		head, err := r.ReadString('\n')
		if err != nil {
			return
		}
		var body []byte
		words := strings.Fields(head)
		message := len(words) > 3 && strings.HasSuffix(words[0], "MSG")
		if message {
			n, _ := strconv.Atoi(words[len(words)-1])
			body = make([]byte, n+2)
			if _, err := io.ReadFull(r, body); err != nil {
				return
			}
		}
		l.wait(g)
		l.hub.mu.Lock()
		drop := l.drop
		l.hub.mu.Unlock()
		if message && drop != nil && drop(words[1]) {
			continue
		}
		if _, err := to.Write(append([]byte(head), body...)); err != nil {
			return
		}
	}
}

func (l *line) wait(g *gate) {
	l.hub.mu.Lock()
	stall, hold := l.stall, g.hold
	l.hub.mu.Unlock()
	if stall != nil {
		<-stall
	}
	if hold != nil {
		<-hold
	}
}

// gate holds back one connection.
type gate struct{ hold chan struct{} }

// Hold holds back what is on the connections that there are, as a server does that stands
// still, until the returned function is called. New connections work.
func (l *line) Hold() (resume func()) {
	hold := make(chan struct{})
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	for _, g := range l.gates {
		g.hold = hold
	}
	l.gates = nil
	resume = sync.OnceFunc(func() { close(hold) })
	l.resumes = append(l.resumes, resume)
	return resume
}

// Cut closes the connections and refuses new ones until Heal.
func (l *line) Cut() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.cut = true
	for c := range l.ends {
		_ = c.Close()
	}
}

func (l *line) Heal() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.cut = false
	for _, resume := range l.resumes {
		resume()
	}
}

// Stall holds everything back until the returned function is called.
func (l *line) Stall() (resume func()) {
	stall := make(chan struct{})
	l.hub.mu.Lock()
	l.stall = stall
	l.hub.mu.Unlock()
	return sync.OnceFunc(func() {
		l.hub.mu.Lock()
		l.stall = nil
		l.hub.mu.Unlock()
		close(stall)
	})
}

// Silence lets nothing through, and no new connections, until Heal. The connections that
// there are stay open.
func (l *line) Silence() {
	l.Hold()
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.cut = true
}

// Drop loses the messages to the node for which f says so; nil loses none. f
// may take its time, and what follows on the connection then waits.
func (l *line) Drop(f func(subject string) bool) {
	l.hub.mu.Lock()
	l.drop = f
	l.hub.mu.Unlock()
}

// peer is a node as far as contexts and the directory go.
type peer struct {
	*contexts.Contexts
	t      *testing.T
	id     subjects.Node
	boot   string
	line   *line
	link   *link.Link
	dir    *directory.Directory
	synced atomic.Bool
	apps   uint64
	end    context.CancelFunc
	ended  chan struct{}
	first  chan struct{} // closed when the directory was read
	once   sync.Once
	book   *journal.Journal
}

// node starts a node; the test stops it.
func (h *hub) node(id string) *peer {
	h.t.Helper()
	p := h.open(id)
	<-p.first
	synctest.Wait()
	return p
}

// open starts a node that need not reach the hub.
func (h *hub) open(id string) *peer {
	h.t.Helper()
	h.boots++
	p := &peer{
		t: h.t, id: subjects.Node(id), boot: fmt.Sprintf("boot%s%d", id, h.boots), line: h.line(id),
		ended: make(chan struct{}), first: make(chan struct{}),
	}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(h.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With(slog.String("node", id))
	}
	ready := make(chan struct{})
	var err error
	p.link, err = link.Open(h.t.Context(), link.Config{Node: p.id, Options: []nats.Option{nats.InProcessServer(p.line)}, Logger: log, OnState: func(s link.State) {
		go func() {
			<-ready
			p.connected(s.Online)
		}()
	}})
	if err != nil {
		h.t.Fatal(err)
	}
	p.dir = directory.New(directory.Config{
		Realm: realm, Self: p.id, Boot: p.boot, Machine: "machine-" + id, User: "user", Link: p.link, Logger: log,
		OnSync: p.onSync, OnClaim: p.attach,
	})
	cfg := contexts.Config{Realm: realm, Self: p.id, Link: p.link, Logger: log, Identity: p.identity, Attributes: attributes}
	if !h.alone {
		cfg.Directory, cfg.Complete, cfg.Alive, cfg.Holders = p.dir.Changed, p.synced.Load, p.isAlive, p.holders
		cfg.Hold, cfg.Settle = p.dir.SetHolds, p.dir.Settle
	}
	if h.journals != "" {
		var err error
		p.book, cfg.Kept, err = journal.Open(filepath.Join(h.journals, id), max(h.limit, 1<<16), log)
		if err != nil {
			h.t.Fatal(err)
		}
		cfg.Journal, cfg.Policies = p.book, h.policies
	}
	p.Contexts = contexts.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	p.end = cancel
	go func() {
		defer close(p.ended)
		p.dir.Run(ctx)
	}()
	close(ready)
	synctest.Wait()
	return p
}

func (p *peer) connected(online bool) {
	if !online {
		p.synced.Store(false)
	}
	p.dir.Connected(online)
	p.Connected(online)
}

func (p *peer) onSync(err error) {
	p.synced.Store(err == nil)
	if err == nil {
		p.once.Do(func() { close(p.first) })
	}
}

// attach answers what other directories ask.
func (p *peer) attach(ctx context.Context) error {
	_, err := p.link.Subscribe(ctx, string(realm.CtlFilter(p.id)), "", func(msg *nats.Msg) {
		data, err := wire.Marshal(wire.PingReply{Node: string(p.id), Boot: p.boot})
		if err != nil {
			p.t.Error(err)
		}
		_ = msg.Respond(data)
	}, nil)
	return err
}

// stop stops the node: it says good-bye if it is connected.
func (p *peer) stop() {
	p.Close()
	p.end()
	<-p.ended
	p.link.Close()
	if p.book != nil {
		if err := p.book.Close(); err != nil {
			p.t.Error(err)
		}
	}
}

// kill ends the node without a word.
func (p *peer) kill() {
	p.line.Cut()
	p.stop()
}

func (p *peer) identity(app subjects.App) (wire.Identity, bool) {
	a, ok := p.dir.App(app)
	if !ok {
		return wire.Identity{}, false
	}
	return a.Identity, true
}

func (p *peer) isAlive(app subjects.App) bool {
	_, ok := p.dir.App(app)
	return ok
}

func (p *peer) holders(context string) (list []subjects.App) {
	for _, n := range p.dir.View().Nodes {
		for _, a := range n.Apps {
			if slices.Contains(a.Holds, context) {
				list = append(list, a.ID)
			}
		}
	}
	return list
}

// attributes are the region and the name of an identity.
func attributes(id *wire.Identity) restriction.Attributes {
	return func(name string) (any, bool) {
		switch name {
		case "region":
			return id.Region, id.Region != ""
		case "application":
			return id.Application, true
		}
		return nil, false
	}
}

// app is an app of a node.
type app struct {
	*contexts.App
	t    *testing.T
	id   subjects.App
	node *peer
}

// join adds an app; its name may have a region behind a colon.
func (p *peer) join(name string) *app {
	p.t.Helper()
	name, region, _ := strings.Cut(name, ":")
	p.apps++
	id := subjects.NewApp(p.boot, p.apps)
	err := p.dir.AddApp(id, wire.Identity{
		Application: name, Region: region, App: string(id), Node: string(p.id), User: "user", OSUser: "user", Machine: "machine-" + string(p.id),
	}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return &app{p.For(id), p.t, id, p}
}

// leave is what a node does when an app goes.
func (a *app) leave() {
	a.node.dir.RemoveApp(a.id)
	a.node.Leave(a.id)
}

type object = map[string]any

// set is Set, which must succeed.
func (a *app) set(name string, v any) uint64 {
	a.t.Helper()
	ack, err := a.Set(a.t.Context(), name, v)
	if err != nil {
		a.t.Fatalf("set %s: %v", name, err)
	}
	return ack.Revision
}

// update is Update, which must succeed.
func (a *app) update(name string, v any) uint64 {
	a.t.Helper()
	ack, err := a.Update(a.t.Context(), name, v)
	if err != nil {
		a.t.Fatalf("update %s: %v", name, err)
	}
	return ack.Revision
}

// create is CreateWith, which must make it.
func (a *app) create(name string, v any, terms contexts.Terms) {
	a.t.Helper()
	if made, _, err := a.CreateWith(a.t.Context(), name, v, terms); err != nil || !made {
		a.t.Fatalf("create %s: %v, %v", name, made, err)
	}
}

// get is the object of a context as JSON, or the code of an error.
func (a *app) get(name string) string {
	a.t.Helper()
	s, err := a.Get(a.t.Context(), name)
	if err != nil {
		return string(wire.CodeOf(err))
	}
	text, err := wire.Canonical(s.Value())
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}

// want wants apps to have a context, after everything has settled.
func want(t *testing.T, object, name string, apps ...*app) {
	t.Helper()
	synctest.Wait()
	for _, a := range apps {
		if got := a.get(name); got != object {
			t.Errorf("%s: %s has %s, want %s", a.id, name, got, object)
		}
	}
}

func wantCode(t *testing.T, err error, want wire.Code) {
	t.Helper()
	if wire.CodeOf(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// eventually waits in fake time and says how long it took.
func eventually(t *testing.T, within time.Duration, what string, f func() bool) time.Duration {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		took := time.Since(began)
		if f() {
			return took
		}
		if took > within {
			t.Errorf("not within %s: %s", within, what)
			return took
		}
	}
}

// text is a value of the object as JSON.
func text(t *testing.T, v *kv.Value) string {
	t.Helper()
	s, err := wire.Canonical(v.Payload())
	if err != nil {
		t.Fatal(err)
	}
	return string(s)
}

// valueOf is a value as JSON text says.
func valueOf(t *testing.T, json string) *kv.Value {
	t.Helper()
	v, err := kv.ParseValue(wire.Payload{Format: wire.JSON, Data: []byte(json)})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// put is an edit; an empty value removes.
func put(t *testing.T, path, json string) kv.Edit {
	t.Helper()
	e := kv.Edit{Path: strings.FieldsFunc(path, func(r rune) bool { return r == '.' })}
	if json != "" {
		e.Value = valueOf(t, json)
	}
	return e
}

// editsOf is edits as text, in order.
func editsOf(t *testing.T, edits []kv.Edit) string {
	t.Helper()
	var list []string
	for _, e := range edits {
		s := strings.Join(e.Path, ".") + "="
		if e.Value != nil {
			s += text(t, e.Value)
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

// nameLog collects the events of names of one app.
type nameLog struct {
	mu   sync.Mutex
	list []contexts.NameEvent
}

func (a *app) names() *nameLog {
	l := &nameLog{}
	go func() {
		for e := range a.WatchNames(a.t.Context()) {
			l.mu.Lock()
			l.list = append(l.list, e)
			l.mu.Unlock()
		}
	}()
	synctest.Wait()
	return l
}

// take returns what has come since the last time.
func (l *nameLog) take() []contexts.NameEvent {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.list
	l.list = nil
	return list
}

// texts are events as text.
func (l *nameLog) texts() []string {
	var list []string
	for _, e := range l.take() {
		s := e.Kind.String() + " " + e.Name
		if e.Meta.Lifetime != "" {
			s += " " + string(e.Meta.Lifetime)
		}
		if e.Reason != "" {
			s += " " + e.Reason
		}
		list = append(list, s)
	}
	return list
}

func wantTexts(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
