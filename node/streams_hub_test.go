package node_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/interop"
)

// hub is a NATS server that can be restarted without its memory, and to which
// every node has a line that can be cut, stalled or made lossy.
type hub struct {
	t     testing.TB
	store string
	anew  bool // nobody has used the realm, so that the default channels are to be made

	mu    sync.Mutex
	srv   *server.Server
	lines map[string]*line
}

// inHub runs f in a bubble.
func inHub(t *testing.T, f func(t *testing.T, h *hub)) {
	t.Helper()
	inBubble(t, func(t *testing.T) {
		h := &hub{t: t, store: t.TempDir(), lines: map[string]*line{}}
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
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.NoReconnect())
	if err != nil {
		h.t.Fatal(err)
	}
	prepare := provision
	if h.anew {
		prepare = func(ctx context.Context, nc *nats.Conn) error { return kv.Provision(ctx, nc, realm, 1) }
	}
	if err := prepare(h.t.Context(), nc); err != nil {
		h.t.Fatal(err)
	}
	nc.Close()
	h.mu.Lock()
	h.srv = s
	h.mu.Unlock()
}

func (h *hub) down() {
	h.mu.Lock()
	s := h.srv
	h.srv = nil
	h.mu.Unlock()
	s.Shutdown()
	s.WaitForShutdown()
}

// line is how one node reaches the hub. Its flags are guarded by the hub's mu.
type line struct {
	hub   *hub
	cut   bool
	drop  func(subject string) bool // of messages to the node
	ends  map[net.Conn]struct{}
	stall chan struct{}
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
	pump := func(f func()) {
		f()
		_ = far.Close()
		_ = mid.Close()
		l.hub.mu.Lock()
		delete(l.ends, far)
		delete(l.ends, mid)
		l.hub.mu.Unlock()
	}
	go pump(func() { l.up(far, mid) })
	go pump(func() { l.filter(mid, far) })
	return near, nil
}

func (l *line) up(to io.Writer, from io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		l.wait()
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// filter passes on what the server sends, message by message.
func (l *line) filter(to io.Writer, from io.Reader) {
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
		l.wait()
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

func (l *line) wait() {
	l.hub.mu.Lock()
	stall := l.stall
	l.hub.mu.Unlock()
	if stall != nil {
		<-stall
	}
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

// Drop loses the messages to the node for which f says so; nil loses none. f
// may take its time, and what follows on the connection then waits.
func (l *line) Drop(f func(subject string) bool) {
	l.hub.mu.Lock()
	l.drop = f
	l.hub.mu.Unlock()
}

func isData(subject string) bool { return strings.HasPrefix(subject, "weft.desk.data.") }

func isPush(subject string) bool { return strings.HasPrefix(subject, "weft.desk.push.") }

// node starts a node on a machine of its own.
func (h *hub) node(id string) *node.Node {
	h.t.Helper()
	return h.nodeOn(id, "machine-"+id)
}

func (h *hub) nodeOn(id, machine string) *node.Node {
	h.t.Helper()
	cfg := node.Config{Realm: realm, Node: id, Machine: machine, NATS: node.NATS{URL: "nats://hub", Options: []nats.Option{nats.InProcessServer(h.line(id))}}}
	if t, ok := h.t.(*testing.T); ok && testing.Verbose() {
		cfg.Logger = logger(t)
	}
	n, err := node.Start(h.t.Context(), cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// reader reads one subscription and keeps what it saw.
type reader struct {
	name string
	sub  *node.Subscription
	done chan struct{}

	mu     sync.Mutex
	events []node.StreamEvent
}

func read(name string, sub *node.Subscription) *reader {
	r := &reader{name: name, sub: sub, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for e := range sub.Events(context.Background()) { // ends with the subscription
			r.mu.Lock()
			r.events = append(r.events, e)
			r.mu.Unlock()
		}
	}()
	return r
}

func subscribe(t testing.TB, a *node.App, stream string, args any, opts ...node.Option) *reader {
	t.Helper()
	s, err := a.Subscribe(t.Context(), stream, args, opts...)
	if err != nil {
		t.Fatalf("%s subscribes to %s: %v", a.Identity().Application, stream, err)
	}
	return read(a.Identity().Application, s)
}

// all is what was seen when everything under way has arrived.
func (r *reader) all() []node.StreamEvent {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]node.StreamEvent(nil), r.events...)
}

// text is all of it, for comparing: "S4 *3 *4 5 gap6-7:lost p1 closed:canceled".
func (r *reader) text() string {
	var words []string
	for _, e := range r.all() {
		words = append(words, eventText(e))
	}
	return strings.Join(words, " ")
}

func eventText(e node.StreamEvent) string {
	private := ""
	if e.Private {
		private = "p"
	}
	switch e.Kind {
	case interop.Subscribed:
		return fmt.Sprintf("S%d", e.Seq)
	case interop.Gap:
		return fmt.Sprintf("%sgap%d-%d:%s", private, e.From, e.To, e.Reason)
	case interop.Closed:
		return "closed:" + string(codeOf(e.Err))
	}
	if e.Snapshot {
		private = "*"
	}
	var v any
	if err := e.Value.Decode(&v); err != nil {
		return "bad:" + err.Error()
	}
	if v != int64(e.Seq) {
		return fmt.Sprintf("%s%d=%v", private, e.Seq, v)
	}
	return fmt.Sprintf("%s%d", private, e.Seq)
}

// verdict is what verify found of one server.
type verdict struct {
	from, to, private uint64
	data, lost        uint64
	snapshot          int
	restarts, closed  int
}

// verify checks the promise on one subscription: of each server's messages all
// are there in order, or in a gap notice. truth, which may be nil, maps server
// and sequence to the value, for all readers of a branch.
func (r *reader) verify(t testing.TB, truth map[string]any) map[string]*verdict {
	t.Helper()
	seen := map[string]*verdict{}
	bad := func(e node.StreamEvent, format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s: %s\nall: %.2000s", r.name, eventText(e), fmt.Sprintf(format, args...), r.text())
	}
	for _, e := range r.all() {
		id := e.Server.App
		v := seen[id]
		if e.Kind == interop.Subscribed {
			n := &verdict{from: e.Seq, to: e.Seq}
			if v != nil {
				n.closed, n.restarts = v.closed, v.restarts
				if v.closed == 0 {
					bad(e, "subscribed twice")
				}
			}
			seen[id] = n
			continue
		}
		if v == nil {
			if e.Kind != interop.Closed {
				bad(e, "before Subscribed")
			}
			continue
		}
		if why := v.step(e); why != "" {
			bad(e, "%s", why)
			return seen
		}
		if truth != nil && e.Kind == interop.Data && !e.Private {
			key := fmt.Sprint(id, v.restarts, e.Branch, e.Seq)
			if now := eventText(e); truth[key] == nil {
				truth[key] = strings.TrimPrefix(now, "*")
			} else if truth[key] != strings.TrimPrefix(now, "*") {
				bad(e, "others saw %v", truth[key])
			}
		}
	}
	return seen
}

// step takes the next event of a server and says what is wrong with it.
func (v *verdict) step(e node.StreamEvent) string {
	at := &v.to
	if e.Private {
		at = &v.private
	}
	switch {
	case e.Kind == interop.Closed:
		v.closed++
	case e.Kind == interop.Gap && e.To == 0:
		if e.From != *at+1 || e.Reason != "restarted" {
			return fmt.Sprintf("a restart after %d", *at)
		}
		*at = 0
		if !e.Private {
			v.restarts++
		}
	case e.Kind == interop.Gap:
		if e.From != *at+1 || e.To < e.From {
			return fmt.Sprintf("a gap after %d", *at)
		}
		*at = e.To
		v.lost += e.To - e.From + 1
	case e.Snapshot && v.data == 0 && e.Seq <= v.from && v.restarts == 0:
		v.snapshot++ // from before the start
	default:
		if e.Seq != *at+1 {
			return fmt.Sprintf("follows %d", *at)
		}
		*at = e.Seq
		if !e.Private {
			v.data++
		}
	}
	return ""
}

// only is the verdict on the one server that a reader heard.
func only(t testing.TB, m map[string]*verdict) verdict {
	t.Helper()
	for _, v := range m {
		if len(m) == 1 {
			return *v
		}
	}
	t.Fatalf("%d servers were heard", len(m))
	return verdict{}
}
