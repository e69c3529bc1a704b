package edge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if connectAsChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

// gateway is an edge that serves for the time of a test.
type gateway struct {
	*Edge
	log  *logged
	stop func() // ends Serve and waits for it
}

// local is a configuration that works.
func local(t testing.TB) Config {
	t.Helper()
	return Config{Listen: []string{"127.0.0.1:0"}, TokenFile: filepath.Join(t.TempDir(), "gateway", "token")}
}

// serve runs an edge whose system change may have changed.
func serve(t testing.TB, cfg Config, change func(*system), handle func(context.Context, *Conn)) *gateway {
	t.Helper()
	log := &logged{}
	cfg.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	sys := thisSystem()
	if change != nil {
		change(&sys)
	}
	e, err := open(cfg, sys)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Serve(ctx, handle) }()
	g := &gateway{Edge: e, log: log}
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(g.stop)
	return g
}

// impatient does not wait long for clients that do not answer a close frame.
func impatient(s *system) { s.closeReply = 50 * time.Millisecond }

// echo answers each message with itself.
func echo(ctx context.Context, c *Conn) {
	for {
		message, err := c.Read(ctx)
		if err != nil || c.Write(message) != nil {
			return
		}
	}
}

// logged is the lines of a log.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) lines() (lines []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for text := range strings.Lines(l.buf.String()) {
		line := map[string]any{}
		if json.Unmarshal([]byte(text), &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines
}

// reasons are those of the refusals, in order.
func (l *logged) reasons() (list []string) {
	for _, line := range l.lines() {
		if line["level"] == "WARN" && line["reason"] != nil {
			list = append(list, line["reason"].(string))
		}
	}
	return list
}

// client is the other end of a connection, byte by byte.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

const patience = 20 * time.Second

// connect opens a connection and sends nothing.
func connect(t testing.TB, address string) *client {
	t.Helper()
	dialer := net.Dialer{Timeout: patience}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &client{Conn: conn, t: t, r: bufio.NewReaderSize(conn, 64<<10)}
}

// request is a handshake; lines replace headers of the same name, or add some.
// A line that begins with "GET " replaces the first, one that ends with ":" takes
// its header out.
func request(address string, lines ...string) string {
	head := []string{
		"GET /gw?x=1 HTTP/1.1", "Host: " + address, "Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
	}
	name := func(line string) string { n, _, _ := strings.Cut(line, ":"); return strings.ToLower(n) }
	for _, line := range lines {
		if strings.HasPrefix(line, "GET ") || strings.HasPrefix(line, "OPTIONS ") {
			head[0] = line
			continue
		}
		head = slices.DeleteFunc(head, func(h string) bool { return name(h) == name(line) && name(line) != "x" })
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "GET ") && !strings.HasPrefix(line, "OPTIONS ") && !strings.HasSuffix(line, ":") {
			head = append(head, line)
		}
	}
	return strings.Join(head, "\r\n") + "\r\n\r\n"
}

// handshake sends a request and reads the answer.
func (c *client) handshake(lines ...string) *http.Response {
	c.t.Helper()
	_, _ = io.WriteString(c, request(c.RemoteAddr().String(), lines...)) // a refusal may be there first
	response, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return response
}

// dial opens a WebSocket.
func dial(t testing.TB, g *gateway, lines ...string) *client {
	t.Helper()
	c := connect(t, g.Addresses()[0])
	if response := c.handshake(lines...); response.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("handshake: %s: %s", response.Status, text)
	}
	return c
}

// masked makes a frame of a client. The first byte has FIN and the opcode.
func masked(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := []byte{1, 2, 3, 4}
	b = append(b, key...)
	for i, x := range payload {
		b = append(b, x^key[i%4])
	}
	return b
}

func (c *client) send(frames ...[]byte) {
	c.t.Helper()
	if _, err := c.Write(slices.Concat(frames...)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) text(messages ...string) {
	c.t.Helper()
	for _, m := range messages {
		c.send(masked(0x81, []byte(m)))
	}
}

// frame reads a frame of the server.
func (c *client) frame() (first byte, payload []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c.r, head[:2]); err != nil {
		return 0, nil, err
	}
	first = head[0]
	n := uint64(head[1])
	switch n {
	case 126:
		_, err = io.ReadFull(c.r, head[:2])
		n = uint64(binary.BigEndian.Uint16(head[:]))
	case 127:
		_, err = io.ReadFull(c.r, head[:])
		n = binary.BigEndian.Uint64(head[:])
	}
	if err != nil || n > 64<<20 {
		return 0, nil, errors.Join(err, errors.New("bad length"))
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.r, payload)
	return first, payload, err
}

// wants reads one frame and compares.
func (c *client) wants(first byte, payload string) {
	c.t.Helper()
	f, p, err := c.frame()
	if err != nil || f != first || string(p) != payload {
		c.t.Fatalf("got frame %#x %.80q, %v; want %#x %.80q", f, p, err, first, payload)
	}
}

// wantsClose reads until the close frame, answers it, and compares its code.
func (c *client) wantsClose(code websocket.StatusCode) (reason string) {
	c.t.Helper()
	for {
		f, p, err := c.frame()
		if err != nil {
			c.t.Fatalf("got %v, want a close frame with %d", err, code)
		}
		if f != frameClose {
			continue
		}
		if len(p) < 2 || websocket.StatusCode(binary.BigEndian.Uint16(p)) != code {
			c.t.Fatalf("closed with %q, want %d", p, code)
		}
		_, _ = c.Write(masked(frameClose, p[:2])) // the other end may be gone
		return string(p[2:])
	}
}

// ends waits for the end of the connection.
func (c *client) ends() error {
	c.t.Helper()
	_, err := io.Copy(io.Discard, c.r)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatal("the connection stays open")
	}
	return err
}

// results passes on what handlers find.
func result[T any](t testing.TB, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatal("nothing happens")
	}
	return v
}

// authenticating is a handler that logs in like the simplest app.
func authenticating(g **gateway, results chan<- error) func(context.Context, *Conn) {
	return func(_ context.Context, c *Conn) {
		_, err := (*g).Authenticate(c, Credentials{Method: "secret", Login: "anna", Secret: "p"})
		results <- err
	}
}
