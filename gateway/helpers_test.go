package gateway_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/weft-fabric/weft/gateway"
	"github.com/weft-fabric/weft/gateway/edge"
	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/subjects"
)

// tester is what a client needs of a test, or of a run of package rapid.
type tester interface {
	rapid.TB
	Cleanup(f func())
	Context() context.Context
}

// patience is how long a test waits for what must come.
const patience = 15 * time.Second

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.nofailfile", "true") // a run depends on what the gateway does meanwhile
	ats.Register()                           // the server's clock goroutine is one per process and ends with it
	code := m.Run()
	common.stop()
	if code == 0 {
		const server = "github.com/nats-io/nats-server/v2/server"
		// A server that stops while it begins to copy a stream waits some seconds for an answer.
		copies := goleak.IgnoreTopFunction(server + ".(*stream).trySetupSourceConsumer.func3")
		if err := goleak.Find(goleak.IgnoreTopFunction(server+"/ats.Register.func1"), copies); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// The realms of a fabric. Most tests use the first.
const realm, otherRealm = "desk", "other"

// fabric is an embedded server with the nodes and gateways that tests start on it.
type fabric struct {
	dir    string // of the gateways' stores
	server *embedded.Server
	log    *slog.Logger
	undo   []func()
}

func startFabric(ctx context.Context, dir string, log *slog.Logger, change ...func(*embedded.Config)) (*fabric, error) {
	cfg := embedded.Config{NoSync: true}
	for _, f := range change {
		f(&cfg)
	}
	s, err := embedded.Start(ctx, cfg, provision)
	if err != nil {
		return nil, err
	}
	return &fabric{dir: dir, server: s, log: log, undo: []func(){s.Shutdown}}, nil
}

// stop ends everything in the opposite order.
func (fb *fabric) stop() {
	for _, f := range slices.Backward(fb.undo) {
		f()
	}
	fb.undo = nil
}

// newFabric is a fabric for one test.
func newFabric(t testing.TB, change ...func(*embedded.Config)) *fabric {
	t.Helper()
	dir := t.TempDir() // removed after stop
	fb, err := startFabric(t.Context(), dir, logger(t), change...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fb.stop)
	return fb
}

// recording returns when the server copies what is written to contexts into their
// history, which begins a moment after its start.
func (fb *fabric) recording(t testing.TB) {
	t.Helper()
	nc, err := nats.Connect("", fb.server.ConnectOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []subjects.Realm{realm, otherRealm} {
		poll(t, "the history of "+string(r)+" is recorded", func() bool {
			s, err := js.Stream(t.Context(), string(r.HistoryStream()))
			return err == nil && s.CachedInfo().State.Msgs > 0
		})
	}
}

// provision makes realms that had their default channels once and have no more: they
// would be among the contexts of every test.
func provision(ctx context.Context, nc *nats.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for _, r := range []subjects.Realm{realm, otherRealm} {
		if err := kv.Provision(ctx, nc, r, 1); err != nil {
			return err
		}
		if _, err := js.Publish(ctx, "$KV.weft_"+string(r)+"_ctx.=.channels", []byte("{}")); err != nil {
			return err
		}
	}
	return nil
}

// logger is what nodes log to: with WEFT_TEST_LOG the output of the test.
func logger(t testing.TB) *slog.Logger {
	if os.Getenv("WEFT_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// node starts a node on a machine of its own.
func (fb *fabric) node(ctx context.Context, realm, id string) (*node.Node, error) {
	n, err := node.Start(ctx, node.Config{Realm: realm, Node: id, Machine: "machine-" + id, Server: fb.server, Logger: fb.log})
	if err != nil {
		return nil, err
	}
	fb.undo = append(fb.undo, n.Stop)
	if s := n.State(); !s.Online {
		return nil, fmt.Errorf("node %s is offline: %s", id, s.Reason)
	}
	return n, nil
}

// gateway starts a gateway on a node. Two of the same id have the same store.
func (fb *fabric) gateway(n *node.Node, id string, change ...func(*gateway.Config)) (*gateway.Gateway, error) {
	store := filepath.Join(fb.dir, id)
	cfg := gateway.Config{
		Node: n, Store: store, Logger: fb.log,
		Edge: edge.Config{Listen: []string{"127.0.0.1:0"}, TokenFile: filepath.Join(store, "token"), Logger: fb.log},
	}
	for _, f := range change {
		f(&cfg)
	}
	g, err := gateway.Start(cfg)
	if err == nil {
		fb.undo = append(fb.undo, g.Stop)
	}
	return g, err
}

// desk starts a node with a gateway.
func (fb *fabric) desk(t testing.TB, realm, id string, change ...func(*gateway.Config)) *gateway.Gateway {
	t.Helper()
	n, err := fb.node(t.Context(), realm, id)
	if err != nil {
		t.Fatal(err)
	}
	g, err := fb.gateway(n, id, change...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// own is a gateway that no other test uses.
func own(t testing.TB) *gateway.Gateway {
	t.Helper()
	return newFabric(t).desk(t, realm, "a")
}

// ownTwo are gateways that no other test uses, on nodes of different machines.
func ownTwo(t testing.TB) (a, b *gateway.Gateway) {
	t.Helper()
	fb := newFabric(t)
	return fb.desk(t, realm, "a"), fb.desk(t, realm, "b")
}

// common are two gateways on different machines that all tests may use that do not
// mind who else is there, or was.
var common shared

type shared struct {
	once sync.Once
	fb   *fabric
	dir  string
	a, b *gateway.Gateway
	err  error
	// muted gets how a connection to a ended that never said hello, since since.
	since time.Time
	muted chan error
}

func (s *shared) start() {
	ctx := context.Background()
	if s.dir, s.err = os.MkdirTemp("", "weft-gateway-"); s.err != nil {
		return
	}
	if s.fb, s.err = startFabric(ctx, s.dir, slog.New(slog.DiscardHandler)); s.err != nil {
		return
	}
	for _, g := range []struct {
		to **gateway.Gateway
		id string
	}{{&s.a, "a"}, {&s.b, "b"}} {
		n, err := s.fb.node(ctx, realm, g.id)
		if err == nil {
			*g.to, err = s.fb.gateway(n, g.id)
		}
		if err != nil {
			s.err = err
			return
		}
	}
	mute, _, err := websocket.Dial(ctx, s.a.URLs()[0], nil)
	if err != nil {
		s.err = err
		return
	}
	s.since, s.muted = time.Now(), make(chan error, 1)
	go func() { // ends with the connection
		_, _, err := mute.Read(ctx)
		s.muted <- err
	}()
}

func (s *shared) stop() {
	if s.fb != nil {
		s.fb.stop()
		_ = os.RemoveAll(s.dir) // the system's own clean-up gets it
	}
}

// one is a gateway, and two are gateways on different machines; other tests use them
// too.
func one(t testing.TB) *gateway.Gateway {
	t.Helper()
	a, _ := two(t)
	return a
}

func two(t testing.TB) (a, b *gateway.Gateway) {
	t.Helper()
	common.once.Do(common.start)
	if common.err != nil {
		t.Fatal(common.err)
	}
	return common.a, common.b
}

// everywhere runs a test with clients of one gateway, and with clients of two.
func everywhere(t *testing.T, f func(t *testing.T, a, b *gateway.Gateway)) {
	a, b := two(t)
	t.Run("one node", func(t *testing.T) { f(t, a, a) })
	t.Run("two nodes", func(t *testing.T) { f(t, a, b) })
}

// checks sets a flag of package rapid for a test, unless the command line does.
func checks(t *testing.T, name string, n int) {
	t.Helper()
	f := flag.Lookup(name)
	if f.Value.String() != f.DefValue {
		return
	}
	if err := f.Value.Set(strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(f.DefValue) }) // it was that
}

// unique is a name that no other test uses.
func unique(name string) string { return fmt.Sprintf("%s-%d", name, requests.Add(1)) }

// frame is a message as Go reads JSON.
type frame map[string]any

// client is a client of a gateway, frame by frame. Whatever comes is recorded, and held
// against the rules that clients' libraries rely on.
type client struct {
	t    tester
	g    *gateway.Gateway
	ws   *websocket.Conn
	line *line
	done chan struct{} // closed when reading has ended

	mu     sync.Mutex
	me     string // the peer id of the last welcome
	got    []arrival
	next   int // of got; await goes on here
	sent   map[string]frame
	rules  *rules
	ended  error
	wakeup chan struct{} // closed at every change
	onRead func(arrival) // called for each frame, in order
	omit   string        // what is cut out of frames before they are read
	held   *mirror
}

// arrival is a frame that came, and with which read of the socket.
type arrival struct {
	frame
	text string
	read int64
}

var (
	requests  atomic.Int64
	processes atomic.Int64
)

// dial opens a connection and says nothing.
func dial(t tester, g *gateway.Gateway, change ...func(*line)) *client {
	t.Helper()
	c, err := tryDial(t, g.URLs()[0], nil, change...)
	if err != nil {
		t.Fatal(err)
	}
	c.g = g
	return c
}

func tryDial(t tester, url string, header http.Header, change ...func(*line)) (*client, error) {
	t.Helper()
	l := &line{}
	for _, f := range change {
		f(l)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: l.dial}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url+"/gw", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, HTTPHeader: header})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	c := &client{t: t, ws: ws, line: l, done: make(chan struct{}), sent: map[string]frame{}, rules: newRules(), wakeup: make(chan struct{})}
	go c.read()
	t.Cleanup(c.close)
	return c, nil
}

// close ends the connection without a word to the gateway.
func (c *client) close() {
	_ = c.line.Close() // it may be closed
	c.line.resume()
	_ = c.ws.CloseNow() // the socket is
	<-c.done
}

func (c *client) read() {
	defer close(c.done)
	for {
		_, data, err := c.ws.Read(context.Background())
		if err != nil {
			c.mu.Lock()
			c.ended = err
			c.changed()
			c.mu.Unlock()
			return
		}
		c.arrived(arrival{text: string(data), read: c.line.reads.Load()})
	}
}

func (c *client) arrived(a arrival) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.omit != "" {
		a.text = strings.Replace(a.text, c.omit, "", 1)
	}
	if err := json.Unmarshal([]byte(a.text), &a.frame); err != nil {
		c.t.Errorf("not a message: %v: %.200s", err, a.text)
	}
	if a.is("welcome") {
		c.me = a.str("peer_id")
	}
	if problem := c.rules.see(a.frame, c.sent); problem != "" {
		c.t.Errorf("%s: %.400s", problem, a.text)
	}
	c.got = append(c.got, a)
	if c.onRead != nil {
		c.onRead(a)
	}
	c.changed()
}

// changed wakes who waits. mu is held.
func (c *client) changed() {
	close(c.wakeup)
	c.wakeup = make(chan struct{})
}

// until waits until f is true, which is called with mu held.
func (c *client) until(within time.Duration, f func() bool) bool {
	timeout := time.After(within)
	for {
		c.mu.Lock()
		ok, wakeup, ended := f(), c.wakeup, c.ended
		c.mu.Unlock()
		if ok || ended != nil {
			return ok
		}
		select {
		case <-wakeup:
		case <-timeout:
			return false
		}
	}
}

// sendText sends what need not be a message.
func (c *client) sendText(text string) {
	c.t.Helper()
	if err := c.try(text); err != nil {
		c.t.Fatalf("send %.200s: %v", text, err)
	}
}

// try sends what the connection may be too broken for.
func (c *client) try(text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, []byte(text))
}

// send sends a message with the ids that every message has, unless it has its own.
func (c *client) send(m frame) (request string) {
	c.t.Helper()
	request, text := c.stamp(m)
	c.sendText(text)
	return request
}

// stamp gives a message its ids, and makes text of it.
func (c *client) stamp(m frame) (request, text string) {
	c.t.Helper()
	c.mu.Lock()
	if _, own := m["peer_id"]; !own && c.me != "" {
		m["peer_id"] = c.me
	}
	if _, own := m["request_id"]; !own {
		m["request_id"] = "q" + strconv.FormatInt(requests.Add(1), 10)
	}
	request = fmt.Sprint(m["request_id"])
	c.sent[request] = m
	c.mu.Unlock()
	b, err := json.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	return request, string(b)
}

// ask sends a request and waits for its answer.
func (c *client) ask(m frame) frame {
	c.t.Helper()
	return c.answer(c.send(m))
}

// answer is the answer to a request.
func (c *client) answer(request string) frame {
	c.t.Helper()
	a, ok := c.find(0, frame{"request_id": request})
	if !ok {
		c.fatal("no answer to %s", request)
	}
	return c.nth(a)
}

// nth is the frame at a position.
func (c *client) nth(at int) frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got[at].frame
}

// find waits for the first frame from position from on that has a pattern in it.
func (c *client) find(from int, pattern frame) (at int, ok bool) {
	ok = c.until(patience, func() bool {
		for ; from < len(c.got); from++ {
			if has(map[string]any(c.got[from].frame), pattern) {
				at = from
				return true
			}
		}
		return false
	})
	return at, ok
}

// seen is the position of the first frame that came so far and has a pattern in it.
func (c *client) seen(pattern frame) (at int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at = slices.IndexFunc(c.got, func(a arrival) bool { return has(map[string]any(a.frame), pattern) })
	return at, at >= 0
}

// await waits for a frame that has a pattern in it, behind the last one that was
// awaited.
func (c *client) await(pattern frame) frame {
	c.t.Helper()
	at, ok := c.find(c.next, pattern)
	if !ok {
		c.fatal("no frame with %v", pattern)
	}
	c.next = at + 1
	return c.nth(at)
}

// at is the position of the first frame that has a pattern in it.
func (c *client) at(pattern frame) int {
	c.t.Helper()
	at, ok := c.find(0, pattern)
	if !ok {
		c.fatal("no frame with %v", pattern)
	}
	return at
}

// ordered checks that frames came, in this order.
func (c *client) ordered(patterns ...frame) {
	c.t.Helper()
	for i, p := range patterns {
		if i > 0 && c.at(patterns[i-1]) >= c.at(p) {
			c.fatal("%v is not before %v", patterns[i-1], p)
		}
	}
}

// fence returns when the gateway has handled all that was sent before, and the
// answers are here.
func (c *client) fence() {
	c.t.Helper()
	c.expect(frame{"type": "leave", "domain": "global", "destination": "metrics"}, frame{"type": "success", "domain": "metrics"})
}

// machine is that of the welcome.
func (c *client) machine() string {
	return c.nth(c.at(frame{"type": "welcome"})).object("resolved_identity").str("machine")
}

// received is how many frames came so far.
func (c *client) received() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// silent checks that nothing was answered to what was sent.
func (c *client) silent(requests ...string) {
	c.t.Helper()
	c.fence()
	for _, r := range requests {
		c.none(frame{"request_id": r})
	}
}

// none checks that no frame with a pattern came.
func (c *client) none(pattern frame) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.got {
		if has(map[string]any(a.frame), pattern) {
			c.t.Errorf("got %s", a.text)
		}
	}
}

// count is how many frames with a pattern came.
func (c *client) count(pattern frame) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.got {
		if has(map[string]any(a.frame), pattern) {
			n++
		}
	}
	return n
}

// expect sends a request and checks its answer.
func (c *client) expect(m, pattern frame) frame {
	c.t.Helper()
	got := c.ask(m)
	if !has(map[string]any(got), pattern) {
		c.t.Fatalf("%v:\n got %v\nwant %v", m, got, pattern)
	}
	return got
}

// fails sends a request and checks its error.
func (c *client) fails(m frame, domain, uri, reason string) {
	c.t.Helper()
	c.expect(m, frame{"type": "error", "domain": domain, "reason_uri": uri, "reason": reason})
}

// fatal ends the test and says what came.
func (c *client) fatal(format string, args ...any) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, a := range c.got {
		usual := a.is("welcome") || a.frame["new_peer_id"] == "p-weft" || a.frame["server_id"] == "p-weft" || a.is("context-added") && a.frame["creator_id"] == nil
		if len(c.got)-i <= 25 && !usual {
			c.t.Logf("%3d %.230s", i, a.text)
		}
	}
	c.t.Fatalf(format+" (connection: %v)", append(args, c.ended)...)
}

// closed waits until the gateway has ended the connection, and returns why.
func (c *client) closed(within time.Duration) websocket.CloseError {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(within):
		c.fatal("still connected")
	}
	var e websocket.CloseError
	if code := websocket.CloseStatus(c.ended); code != -1 {
		e.Code, e.Reason = code, c.ended.Error()
	}
	return e
}

func (c *client) hello(identity frame) frame {
	c.t.Helper()
	c.mu.Lock()
	c.me = ""
	c.mu.Unlock()
	return c.expect(helloOf(identity), frame{"type": "welcome", "domain": "global"})
}

func helloOf(identity frame) frame {
	return frame{
		"type": "hello", "domain": "global", "identity": map[string]any(identity),
		"authentication": frame{"method": "secret", "login": "ada", "secret": "x"},
	}
}

// identity is that of a process of its own.
func identity(application string) frame {
	return frame{"application": application, "applicationName": application, "process": 1000 + processes.Add(1), "api": "6.10.4"}
}

// app is a client that has said hello and joined domains.
func app(t tester, g *gateway.Gateway, application string, domains ...string) *client {
	t.Helper()
	c := dial(t, g)
	c.hello(identity(application))
	for _, d := range domains {
		c.join(d)
	}
	return c
}

func (c *client) join(domain string) {
	c.t.Helper()
	c.expect(frame{"type": "join", "domain": "global", "destination": domain}, frame{"type": "success", "domain": domain})
}

// poll waits until f is true.
func poll(t tester, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(patience); !f(); {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// has says whether got is want; of objects, and of them only, got may have more.
func has(got, want any) bool {
	switch want := want.(type) {
	case frame:
		return has(got, map[string]any(want))
	case map[string]any:
		object, ok := got.(map[string]any)
		for name, v := range want {
			if !ok || !has(object[name], v) {
				return false
			}
		}
		return ok
	case []frame:
		all := make([]any, len(want))
		for i, f := range want {
			all[i] = f
		}
		return has(got, all)
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return false
		}
		for i := range want {
			if !has(list[i], want[i]) {
				return false
			}
		}
		return true
	case func(any) bool:
		return want(got)
	case wildcard:
		return got != nil
	case int:
		return got == float64(want)
	case int64:
		return got == float64(want)
	}
	return got == want
}

// anything stands for any value but null in a pattern.
const anything = wildcard("anything")

type wildcard string

// beginning says whether a value is text that begins so.
func beginning(with string) func(any) bool {
	return func(v any) bool {
		text, ok := v.(string)
		return ok && strings.HasPrefix(text, with)
	}
}

func (f frame) str(name string) string { s, _ := f[name].(string); return s }

func (f frame) is(kind string) bool { return f["type"] == kind }

func (f frame) object(name string) frame { o, _ := f[name].(map[string]any); return o }

// line is the socket of a client. It hands out what came with one read before it reads
// again, so that reads can be told apart, and can stop to read.
type line struct {
	net.Conn
	chunk []byte
	left  []byte // of chunk
	reads atomic.Int64
	// small asks for small buffers in the kernel.
	small bool
	// busy is called before each read, if it is there.
	busy func()

	mu     sync.Mutex
	paused chan struct{} // closed by resume
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok && l.small {
		err = tcp.SetReadBuffer(4096)
	}
	l.Conn, l.chunk = conn, make([]byte, 64<<10)
	return l, err
}

func (l *line) Read(p []byte) (int, error) {
	if len(l.left) == 0 {
		if l.busy != nil {
			l.busy()
		}
		n, err := l.Conn.Read(l.chunk)
		if err != nil {
			return n, err
		}
		l.wait()
		l.left = l.chunk[:n]
		l.reads.Add(1)
	}
	n := copy(p, l.left)
	l.left = l.left[n:]
	return n, nil
}

// pause stops reading.
func (l *line) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paused == nil {
		l.paused = make(chan struct{})
	}
}

func (l *line) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if tcp, ok := l.Conn.(*net.TCPConn); ok && l.small {
		_ = tcp.SetReadBuffer(1 << 20) // it may be closed; a small one is slow
	}
	if l.paused != nil {
		close(l.paused)
		l.paused = nil
	}
}

func (l *line) wait() {
	l.mu.Lock()
	paused := l.paused
	l.mu.Unlock()
	if paused != nil {
		<-paused
	}
}
