package directory_test

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
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
	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const realm subjects.Realm = "desk"

func TestMain(m *testing.M) {
	ats.Register() // the server's clock goroutine must start outside of every bubble
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// fabric is a provisioned server that can go away and come back.
type fabric struct {
	t     testing.TB
	store string
	boots atomic.Uint64

	mu  sync.Mutex
	srv *server.Server
}

func inFabric(t *testing.T, f func(t *testing.T, fb *fabric)) {
	t.Helper()
	// The client library pools timers, also across bubbles, where they may not
	// be used. Two collections empty a pool.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		fb := &fabric{t: t, store: t.TempDir()}
		fb.up()
		t.Cleanup(fb.down)
		f(t, fb)
	})
}

// up starts the server; the directory bucket, in memory, is new and empty.
func (fb *fabric) up() {
	fb.t.Helper()
	s, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true, JetStream: true, StoreDir: fb.store, MaxPayload: 8 << 20})
	if err != nil {
		fb.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(5 * time.Second) {
		fb.t.Fatal("the server is not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		fb.t.Fatal(err)
	}
	defer nc.Close()
	if err := kv.Provision(within(fb.t, time.Minute), nc, realm, 1); err != nil {
		fb.t.Fatal(err)
	}
	fb.mu.Lock()
	defer fb.mu.Unlock()
	fb.srv = s
}

func (fb *fabric) down() {
	fb.mu.Lock()
	s := fb.srv
	fb.srv = nil
	fb.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// cable is a node's way to the server.
type cable struct {
	fb       *fabric
	deaf     atomic.Bool
	messages atomic.Int64

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

// InProcessConn is what nats.InProcessServer asks for.
func (c *cable) InProcessConn() (net.Conn, error) {
	c.fb.mu.Lock()
	srv := c.fb.srv
	c.fb.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if srv == nil || c.cut {
		return nil, syscall.ECONNREFUSED
	}
	conn, err := srv.InProcessConn()
	if err != nil {
		return nil, err
	}
	c.conns = append(c.conns, conn)
	return &filter{Conn: conn, r: bufio.NewReader(conn), cable: c}, nil
}

// filter loses messages about documents while the cable is deaf, and counts
// what arrives in the directory's part of the subjects.
type filter struct {
	net.Conn
	r     *bufio.Reader
	rest  []byte // to be read from a line ...
	body  int    // ... and this many bytes behind it
	cable *cable
}

func (f *filter) Read(b []byte) (int, error) {
	for len(f.rest) == 0 && f.body == 0 {
		line, err := f.r.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		f.rest = line
		if fields := strings.Fields(string(line)); len(fields) > 2 && (fields[0] == "HMSG" || fields[0] == "MSG") {
			f.body, _ = strconv.Atoi(fields[len(fields)-1])
			f.body += len("\r\n")
			f.cable.messages.Add(1)
			if f.cable.deaf.Load() && strings.HasPrefix(fields[1], "weft.desk.kv.") {
				if _, err := f.r.Discard(f.body); err != nil {
					return 0, err
				}
				f.rest, f.body = nil, 0
			}
		}
	}
	if len(f.rest) > 0 {
		n := copy(b, f.rest)
		f.rest = f.rest[n:]
		return n, nil
	}
	n, err := f.r.Read(b[:min(len(b), f.body)])
	f.body -= n
	return n, err
}

// pull breaks the connection without a good-bye; plug allows a new one.
func (c *cable) pull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = false
}

func (fb *fabric) link(id subjects.Node, c *cable, on func(link.State)) *link.Link {
	fb.t.Helper()
	l, err := link.Open(fb.t.Context(), link.Config{Node: id, Options: []nats.Option{nats.InProcessServer(c)}, OnState: on})
	if err != nil {
		fb.t.Fatal(err)
	}
	return l
}

// member is a node as far as its directory goes.
type member struct {
	*directory.Directory
	t      testing.TB
	id     subjects.Node
	boot   string
	link   *link.Link
	cable  *cable
	synced chan error // the newest outcome
	mute   atomic.Bool
	apps   int
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	events []string
}

// start starts a node and does not wait.
func (fb *fabric) start(id subjects.Node) *member {
	fb.t.Helper()
	m := &member{t: fb.t, id: id, boot: fmt.Sprintf("boot%s%d", strings.ReplaceAll(string(id), "-", ""), fb.boots.Add(1)), cable: &cable{fb: fb}, synced: make(chan error, 100), ended: make(chan struct{})}
	ready := make(chan struct{})
	m.link = fb.link(id, m.cable, func(s link.State) {
		<-ready
		m.Connected(s.Online)
	})
	m.Directory = directory.New(directory.Config{
		Realm: realm, Self: id, Boot: m.boot, Machine: "machine-" + string(id), User: "user-" + string(id), Link: m.link, Logger: logger(fb.t),
		OnSync: func(err error) { m.synced <- err }, OnClaim: m.attach,
	})
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		defer close(m.ended)
		m.Run(ctx)
	}()
	close(ready)
	fb.t.Cleanup(m.stop)
	return m
}

func logger(t testing.TB) *slog.Logger {
	level := slog.LevelError + 1
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}

// attach answers what other directories ask.
func (m *member) attach(ctx context.Context) error {
	_, err := m.link.Subscribe(ctx, string(realm.CtlFilter(m.id)), "", func(msg *nats.Msg) {
		c, err := subjects.ParseCtl(msg.Subject)
		if err != nil || m.mute.Load() {
			return
		}
		var v any
		switch c.Verb {
		case subjects.VerbPing:
			v = wire.PingReply{Node: string(m.id), Boot: m.boot}
		case subjects.VerbInfo:
			var q wire.InfoRequest
			if err := wire.Unmarshal(msg.Data, &q); err != nil {
				m.t.Error(err)
			}
			data, err := m.Manifest(q.Manifest)
			if err != nil {
				m.t.Error(err)
			}
			v = wire.InfoReply{Manifest: data}
		}
		data, err := wire.Marshal(v)
		if err != nil {
			m.t.Error(err)
		}
		_ = msg.Respond(data)
	}, nil)
	return err
}

// join starts a node, waits until it is in, and records its events.
func (fb *fabric) join(id subjects.Node) *member {
	fb.t.Helper()
	m := fb.start(id)
	if err := <-m.synced; err != nil {
		fb.t.Fatalf("node %s: %v", id, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	fb.t.Cleanup(cancel)
	go func() {
		for ev := range m.Watch(ctx) {
			m.mu.Lock()
			m.events = append(m.events, describe(ev))
			m.mu.Unlock()
		}
	}()
	return m
}

func (m *member) stop() {
	m.cancel()
	<-m.ended
	m.link.Close()
}

// app adds an app with methods.
func (m *member) app(name string, methods ...string) subjects.App {
	m.t.Helper()
	m.apps++
	id := subjects.NewApp(m.boot, uint64(m.apps))
	if err := m.AddApp(id, wire.Identity{Application: name, App: string(id), Node: string(m.id), User: "user-" + string(m.id), OSUser: "user-" + string(m.id), Machine: "machine-" + string(m.id)}, nil); err != nil {
		m.t.Fatal(err)
	}
	m.offer(id, methods...)
	return id
}

func (m *member) offer(id subjects.App, methods ...string) {
	m.t.Helper()
	var defs []*wire.Method
	for _, name := range methods {
		defs = append(defs, &wire.Method{Name: name, Accepts: "int A"})
	}
	if err := m.SetMethods(id, defs); err != nil {
		m.t.Fatal(err)
	}
}

// describe is an event as one line: what folding needs.
func describe(ev directory.Event) string {
	s := ev.Kind.String() + " " + string(ev.Node.ID)
	if ev.App != nil {
		s += "/" + ev.App.Identity.Application
	}
	if ev.Method != nil {
		s += "/" + ev.Method.Name
	}
	if ev.Reason != "" {
		s += " " + ev.Reason
	}
	return s
}

// seen returns the events since the last call.
func (m *member) seen() []string {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	evs := m.events
	m.events = nil
	return evs
}

// picture is a view as text: node/app/method.
func picture(v *directory.View) string {
	var lines []string
	for _, n := range v.Sorted() {
		lines = append(lines, string(n.ID))
		for _, a := range n.Apps {
			lines = append(lines, string(n.ID)+"/"+a.Identity.Application)
			for _, m := range a.Methods {
				lines = append(lines, string(n.ID)+"/"+a.Identity.Application+"/"+m.Name)
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// sees waits for a picture and says how long it took.
func (m *member) sees(within time.Duration, want ...string) time.Duration {
	m.t.Helper()
	began := time.Now()
	slices.Sort(want)
	for {
		synctest.Wait()
		got, took := picture(m.View()), time.Since(began)
		if got == strings.Join(want, " ") {
			return took
		}
		if took > within {
			m.t.Fatalf("node %s sees %q after %s, want %q", m.id, got, took, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// holds checks that a picture stays.
func (m *member) holds(d time.Duration, want ...string) {
	m.t.Helper()
	slices.Sort(want)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		synctest.Wait()
		if got := picture(m.View()); got != strings.Join(want, " ") {
			m.t.Fatalf("node %s sees %q, want %q for %s more", m.id, got, want, time.Until(end))
		}
	}
}

// client is a hand-made NATS client that writes what it likes.
type client struct {
	t      testing.TB
	nc     *nats.Conn
	link   *link.Link
	bucket *kv.Bucket
}

func (fb *fabric) client() *client {
	fb.t.Helper()
	l := fb.link("hand-made", &cable{fb: fb}, nil)
	fb.t.Cleanup(l.Close)
	return &client{fb.t, l.Conn(), l, kv.Directory(l, realm)}
}

func (c *client) put(key subjects.Key, v any) {
	c.t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = wire.Marshal(v); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.bucket.Put(within(c.t, time.Minute), key, data, 0); err != nil {
		c.t.Fatal(err)
	}
}

// write puts a document with a lease.
func (c *client) write(doc wire.NodeDoc) {
	c.t.Helper()
	id := subjects.Node(doc.Node)
	if err := c.bucket.Lease(within(c.t, time.Minute), subjects.LeaseKey(id), subjects.NodeKey(id), 10*time.Second); err != nil {
		c.t.Fatal(err)
	}
	c.put(subjects.NodeKey(id), doc)
}

// document is an honest one; its apps are named after the node.
func document(id subjects.Node, boot string, apps int) wire.NodeDoc {
	doc := wire.NodeDoc{V: wire.DocVersion, Node: string(id), Boot: boot, Machine: "m", User: "u"}
	for i := range apps {
		doc.Apps = append(doc.Apps, wire.AppDoc{Identity: wire.Identity{Application: fmt.Sprintf("app%d", i), App: string(subjects.NewApp(boot, uint64(i+1)))}})
	}
	return doc
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// fold applies events to nothing and returns the picture that they make. It
// fails when they come in an order that makes no sense.
func fold(t testing.TB, events []string) string {
	t.Helper()
	have, servers := map[string]bool{}, map[string]int{}
	for _, line := range events {
		kind, rest, _ := strings.Cut(line, " ")
		path, _, _ := strings.Cut(rest, " ")
		parts := strings.Split(path, "/")
		parent, method := strings.Join(parts[:len(parts)-1], "/"), parts[len(parts)-1]
		switch kind {
		case "method-added":
			if servers[method]++; servers[method] != 1 {
				t.Errorf("%s, but it was there", line)
			}
			continue
		case "method-removed":
			if servers[method]--; servers[method] != 0 || slices.ContainsFunc(slices.Collect(maps.Keys(have)), func(p string) bool { return strings.HasSuffix(p, "/"+method) && strings.Count(p, "/") == 2 }) {
				t.Errorf("%s, but somebody offers it", line)
			}
			continue
		}
		switch add := strings.HasSuffix(kind, "-added"); {
		case add && (have[path] || parent != "" && !have[parent]):
			t.Errorf("%s: there already, or before what it belongs to", line)
		case add && kind == "server-method-added" && servers[method] != 1:
			t.Errorf("%s, but no method-added", line)
		case !add && (!have[path] || slices.ContainsFunc(slices.Collect(maps.Keys(have)), func(p string) bool { return strings.HasPrefix(p, path+"/") })):
			t.Errorf("%s: not there, or before what belongs to it", line)
		case add:
			have[path] = true
		default:
			delete(have, path)
		}
	}
	return strings.Join(slices.SortedFunc(maps.Keys(have), cmp.Compare[string]), " ")
}
