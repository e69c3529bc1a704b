package edge

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/weft-fabric/weft/wire"
)

// text, binary and continuation frames of a client, the last one of a message
// or not.
const (
	textLast, binaryLast, moreLast = 0x81, 0x82, 0x80
	textPart, binaryPart, morePart = 0x01, 0x02, 0x00
	pong                           = 0x8a
)

// outcome is how a handler's connection ended.
type outcome struct {
	read, write, cause error
}

// reading is a handler that reads to the end and tells how that was.
func reading(messages chan<- string, ends chan<- outcome) func(context.Context, *Conn) {
	return func(ctx context.Context, c *Conn) {
		for {
			m, err := c.Read(ctx)
			if err != nil {
				<-ctx.Done()
				ends <- outcome{err, c.Write([]byte("x")), context.Cause(ctx)}
				return
			}
			messages <- string(m)
		}
	}
}

// wantsEnd compares what a handler was told, which is the same everywhere.
func wantsEnd(t *testing.T, name string, o outcome, code wire.Code, says string) {
	t.Helper()
	for _, err := range []error{o.read, o.write, o.cause} {
		if wire.CodeOf(err) != code || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: read %v; write %v; cause %v; want %s: %s", name, o.read, o.write, o.cause, code, says)
			return
		}
	}
}

func TestEcho(t *testing.T) {
	g := serve(t, local(t), nil, echo)
	c := dial(t, g)
	for _, n := range []int{0, 1, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, MaxMessage} {
		m := strings.Repeat("x", n)
		go c.text(m) // a large one is read while it is sent
		c.wants(frameText, m)
	}
	c.send(masked(binaryLast, []byte(`{"é":1}`)))
	c.wants(frameText, `{"é":1}`)
	c.send(masked(textPart, []byte("a")), masked(framePing, []byte("p")), masked(morePart, nil), masked(morePart, []byte("b")), masked(moreLast, []byte("c")))
	c.wants(pong, "p")
	c.wants(frameText, "abc")
	c.send(masked(binaryPart, []byte("\xc3")), masked(moreLast, []byte("\xa9"))) // a letter in two fragments
	c.wants(frameText, "é")
}

func TestMessagesAreTheCallers(t *testing.T) {
	kept := make(chan [][]byte, 1)
	g := serve(t, local(t), nil, func(ctx context.Context, c *Conn) {
		var all [][]byte
		for range 4 {
			m, err := c.Read(ctx)
			if err != nil {
				t.Error(err)
			}
			all = append(all, m)
			if n := cap(c.scratch); n > keptBuffer {
				t.Errorf("%d bytes are kept for the next message", n)
			}
		}
		kept <- all
	})
	c := dial(t, g)
	large := strings.Repeat("y", keptBuffer+1)
	c.text("aaaa", "bbbb", large, "cccc")
	got := result(t, kept)
	if string(got[0]) != "aaaa" || string(got[1]) != "bbbb" || string(got[2]) != large || string(got[3]) != "cccc" {
		t.Errorf("%.20q", got)
	}
	for _, m := range got {
		if cap(m) > len(m)+16 {
			t.Errorf("%d bytes take %d", len(m), cap(m))
		}
	}
}

// TestBadMessages: what a client may not send ends the connection, with a
// reason for both sides.
func TestBadMessages(t *testing.T) {
	const limit = 1000
	x := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	huge := binary.BigEndian.AppendUint64([]byte{textLast, 0x80 | 127}, 1<<40)
	for _, tt := range []struct {
		name string
		send [][]byte
		code websocket.StatusCode
		want wire.Code
		says string
	}{
		{"text not UTF-8", [][]byte{masked(textLast, []byte("a\xff"))}, 1007, wire.BadPayload, "UTF-8"},
		{"binary not UTF-8", [][]byte{masked(binaryLast, []byte("\xed\xa0\x80"))}, 1007, wire.BadPayload, "UTF-8"},
		{"cut letter", [][]byte{masked(textPart, []byte("\xc3")), masked(moreLast, nil)}, 1007, wire.BadPayload, "UTF-8"},
		{"too large", [][]byte{masked(textLast, x(limit+1))}, 1009, wire.Limit, "1000 bytes"},
		{"far too large", [][]byte{masked(textLast, x(100*limit))}, 1009, wire.Limit, "1000 bytes"},
		{"says that it is too large", [][]byte{huge, {1, 2, 3, 4}, x(2 * limit)}, 1009, wire.Limit, "1000 bytes"},
		{"too large in fragments", append([][]byte{masked(textPart, nil)}, slices.Repeat([][]byte{masked(morePart, x(100))}, 11)...), 1009, wire.Limit, "1000 bytes"},
		{"not masked", [][]byte{{textLast, 1, 'x'}}, 1002, wire.BadPayload, "unmasked"},
		{"reserved bit", [][]byte{masked(textLast|0x40, x(1))}, 1002, wire.BadPayload, "rsv"},
		{"no such frame", [][]byte{masked(0x83, x(1))}, 1002, wire.BadPayload, "opcode"},
		{"fragment of nothing", [][]byte{masked(moreLast, x(1))}, 1002, wire.BadPayload, "continuation"},
		{"message in a message", [][]byte{masked(textPart, x(1)), masked(textLast, x(1))}, 1002, wire.BadPayload, "previous message"},
		{"large ping", [][]byte{masked(framePing, x(126))}, 1002, wire.BadPayload, "control frame"},
		{"fragmented ping", [][]byte{masked(0x09, x(1))}, 1002, wire.BadPayload, "control frame"},
		{"bad close frame", [][]byte{masked(frameClose, x(1))}, 1002, wire.BadPayload, "close payload"},
	} {
		messages, ends := make(chan string, 1), make(chan outcome, 1)
		cfg := local(t)
		cfg.MaxMessage = limit
		g := serve(t, cfg, impatient, reading(messages, ends))
		c := dial(t, g)
		c.send(masked(textLast, x(limit)))
		if m := result(t, messages); len(m) != limit {
			t.Errorf("%s: %d bytes came before", tt.name, len(m))
		}
		c.send(tt.send...)
		c.wantsClose(tt.code)
		wantsEnd(t, tt.name, result(t, ends), tt.want, tt.says)
		if len(messages) > 0 {
			t.Errorf("%s: accepted", tt.name)
		}
	}
}

// TestCutMessages: a message that the connection ends in is no message, also
// where the library says that it has ended.
func TestCutMessages(t *testing.T) {
	whole := masked(textLast, bytes.Repeat([]byte("x"), 10_000))
	for name, part := range map[string][]byte{
		"in the header":            whole[:3],
		"after the header":         whole[:8],
		"in the middle":            whole[:5000],
		"after the first buffer":   whole[:8+4096],
		"after the second buffer":  whole[:8+8192],
		"between two fragments":    masked(textPart, []byte("x")),
		"after an empty fragment":  masked(textPart, nil),
		"in the second's header":   append(masked(textPart, []byte("x")), morePart),
		"in the second's contents": append(masked(textPart, []byte("x")), whole[:5000]...),
	} {
		messages, ends := make(chan string, 1), make(chan outcome, 1)
		g := serve(t, local(t), nil, reading(messages, ends))
		c := dial(t, g)
		c.send(part)
		c.Close()
		wantsEnd(t, name, result(t, ends), map[bool]wire.Code{true: wire.BadPayload, false: wire.TargetGone}[name == "in the second's contents"], "")
		if len(messages) > 0 {
			t.Errorf("%s: accepted %.20q", name, <-messages)
		}
	}
}

// TestEndlessMessage: neither a message that stops nor one that goes on by
// drops holds a connection for ever.
func TestEndlessMessage(t *testing.T) {
	for name, first := range map[string][]byte{
		"stops in a frame":          masked(textLast, make([]byte, 5000))[:100],
		"stops between fragments":   masked(textPart, []byte("x")),
		"pings between fragments":   append(masked(textPart, []byte("x")), masked(framePing, nil)...),
		"the third of its messages": append(masked(textLast, []byte("x")), masked(textLast, make([]byte, 5000))[:100]...),
	} {
		messages, ends := make(chan string, 2), make(chan outcome, 1)
		g := serve(t, local(t), func(s *system) {
			s.messageEnd, s.closeReply = 200*time.Millisecond, 50*time.Millisecond
		}, reading(messages, ends))
		c := dial(t, g)
		c.text("before")
		c.send(first)
		drops := make(chan struct{})
		go func() {
			defer close(drops)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for range tick.C { // more of the same, until the other end is gone
				if _, err := c.Write(masked(morePart, []byte("x"))); err != nil {
					return
				}
			}
		}()
		wantsEnd(t, name, result(t, ends), wire.Timeout, "did not end its message")
		c.Close()
		<-drops
	}
}

// TestIdleConnectionHasNoDeadline: a message that takes several reads has one,
// and leaves none.
func TestIdleConnectionHasNoDeadline(t *testing.T) {
	var mu sync.Mutex
	var deadlines []time.Time
	g := serve(t, local(t), func(s *system) {
		s.wrap = func(c net.Conn) net.Conn {
			return &spy{Conn: c, onReadDeadline: func(at time.Time) {
				mu.Lock()
				defer mu.Unlock()
				deadlines = append(deadlines, at)
			}}
		}
	}, func(ctx context.Context, c *Conn) {
		mu.Lock()
		deadlines = nil
		mu.Unlock()
		echo(ctx, c)
	})
	c := dial(t, g)
	for _, m := range []string{"short", strings.Repeat("x", 10*readBuffer), "short"} {
		c.text(m)
		c.wants(frameText, m)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(deadlines) != 2 || deadlines[0].IsZero() || !deadlines[1].IsZero() {
		t.Errorf("deadlines %v", deadlines)
	}
}

// TestBatchIsOneWrite counts the calls of the connection.
func TestBatchIsOneWrite(t *testing.T) {
	var writes atomic.Int32
	large := strings.Repeat("l", 300<<10)
	counted := make(chan struct{})
	g := serve(t, local(t), func(s *system) {
		s.wrap = func(c net.Conn) net.Conn { return &spy{Conn: c, onWrite: func([]byte) { writes.Add(1) }} }
	}, func(ctx context.Context, c *Conn) {
		if _, err := c.Read(ctx); err != nil {
			t.Error(err)
		}
		for _, frames := range [][][]byte{{[]byte("alone")}, numbered(100), {[]byte("a"), []byte(large), nil, []byte("b")}, {}} {
			before := writes.Load()
			err := c.Write(frames...)
			if n := writes.Load() - before; err != nil || int(n) != min(1, len(frames)) {
				t.Errorf("%d frames took %d writes, %v", len(frames), n, err)
			}
		}
		close(counted)
		_, _ = c.Read(ctx)
	})
	c := dial(t, g)
	c.text("go")
	c.wants(frameText, "alone")
	for _, m := range numbered(100) {
		c.wants(frameText, string(m))
	}
	for _, m := range []string{"a", large, "", "b"} {
		c.wants(frameText, m)
	}
	result(t, counted)
}

func numbered(n int) (frames [][]byte) {
	for i := range n {
		frames = append(frames, fmt.Appendf(nil, "message %d", i))
	}
	return frames
}

// TestManyFramesAreOneRead: what came together is read together.
func TestManyFramesAreOneRead(t *testing.T) {
	var reads atomic.Int32
	counts := make(chan int32, 1)
	g := serve(t, local(t), func(s *system) {
		s.wrap = func(c net.Conn) net.Conn { return &spy{Conn: c, onRead: func() { reads.Add(1) }} }
	}, func(ctx context.Context, c *Conn) {
		before := reads.Load()
		for range 101 {
			if _, err := c.Read(ctx); err != nil {
				t.Error(err)
			}
		}
		counts <- reads.Load() - before
	})
	c := dial(t, g)
	c.send(slices.Repeat(masked(textLast, bytes.Repeat([]byte("x"), 200)), 101))
	if n := result(t, counts); n > 2 {
		t.Errorf("101 frames took %d reads", n)
	}
}

func TestReadAllocatesTheMessageAlone(t *testing.T) {
	allocations := make(chan float64, 1)
	g := serve(t, local(t), nil, func(ctx context.Context, c *Conn) {
		answer := []byte("x")
		allocations <- testing.AllocsPerRun(1000, func() {
			if _, err := c.Read(ctx); err != nil {
				t.Error(err)
			}
			if err := c.Write(answer, answer); err != nil {
				t.Error(err)
			}
		})
	})
	c := dial(t, g)
	go func() { _, _ = io.Copy(io.Discard, c) }()
	c.send(slices.Repeat(masked(textLast, bytes.Repeat([]byte("x"), 200)), 1001))
	if n := result(t, allocations); n != 1 {
		t.Errorf("%v allocations", n)
	}
}

// TestEarlyFrames: a client may send before it has seen the answer to its
// handshake.
func TestEarlyFrames(t *testing.T) {
	g := serve(t, local(t), nil, echo)
	c := connect(t, g.Addresses()[0])
	early := slices.Repeat(masked(textLast, []byte("early")), 2000) // more than net/http reads ahead
	go func() { _, _ = c.Write(slices.Concat([]byte(request(c.RemoteAddr().String())), early)) }()
	response := make([]byte, 0, 512)
	for !bytes.HasSuffix(response, []byte("\r\n\r\n")) {
		b, err := c.r.ReadByte()
		if err != nil {
			t.Fatal(err)
		}
		response = append(response, b)
	}
	for range 2000 {
		c.wants(frameText, "early")
	}
}

// small makes the buffers of the kernel small, so that little is needed to
// fill them.
func small(s *system) {
	s.wrap = func(c net.Conn) net.Conn {
		_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
		return c
	}
}

func smallClient(t *testing.T, g *gateway) *client {
	t.Helper()
	c := connect(t, g.Addresses()[0])
	_ = c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	if r := c.handshake(); r.StatusCode != 101 {
		t.Fatal(r.Status)
	}
	return c
}

// flood writes until that fails.
func flood(c *Conn) error {
	frame := bytes.Repeat([]byte("x"), 64<<10)
	for {
		if err := c.Write(frame, frame, frame, frame); err != nil {
			return err
		}
	}
}

// TestSlowReader: a client that takes nothing is cut off in time, and whoever
// reads from it is told.
func TestSlowReader(t *testing.T) {
	if WriteTimeout != 10*time.Second {
		t.Errorf("the real limit is %v", WriteTimeout)
	}
	const limit = 500 * time.Millisecond
	ends := make(chan outcome, 1)
	took := make(chan time.Duration, 1)
	g := serve(t, local(t), func(s *system) { small(s); s.write = limit }, func(ctx context.Context, c *Conn) {
		read := make(chan error, 1)
		go func() { _, err := c.Read(ctx); read <- err }()
		var last time.Time
		frame := bytes.Repeat([]byte("x"), 64<<10)
		for {
			last = time.Now()
			if err := c.Write(frame); err != nil {
				took <- time.Since(last)
				ends <- outcome{<-read, err, context.Cause(ctx)}
				return
			}
		}
	})
	c := smallClient(t, g)
	wantsEnd(t, "slow", result(t, ends), wire.Timeout, "did not take what was sent")
	if d := result(t, took); d < limit*8/10 || d > limit+2*time.Second {
		t.Errorf("cut off after %v, want about %v", d, limit)
	}
	if err := c.ends(); err == nil {
		t.Error("the kernel kept for the client what it did not take")
	}
	until(t, func() bool { return len(g.slots) == 0 })
}

// TestSlowReaderThatPings is cut off by the same rule: its pings cost nothing
// but a little memory, and do not keep it.
func TestSlowReaderThatPings(t *testing.T) {
	ends := make(chan error, 1)
	g := serve(t, local(t), func(s *system) { small(s); s.write = 500 * time.Millisecond }, func(ctx context.Context, c *Conn) {
		go func() { _, _ = c.Read(ctx) }()
		ends <- flood(c)
	})
	c := smallClient(t, g)
	ping := slices.Repeat(masked(framePing, bytes.Repeat([]byte("p"), 125)), 100)
	pinging := make(chan struct{})
	go func() {
		defer close(pinging)
		for {
			if _, err := c.Write(ping); err != nil {
				return
			}
		}
	}()
	if err := result(t, ends); !errors.Is(err, wire.ErrTimeout) {
		t.Errorf("%v", err)
	}
	c.Close()
	<-pinging
}

// TestReaderThatPausesLosesNothing: pings that came in while a write waited are
// answered after it, and nothing is mixed.
func TestReaderThatPausesLosesNothing(t *testing.T) {
	blocked := make(chan struct{})
	frame := strings.Repeat("x", 24<<20) // more than the kernel takes
	g := serve(t, local(t), nil, func(ctx context.Context, c *Conn) {
		go func() {
			defer close(blocked)
			if err := c.Write([]byte(frame), []byte("end")); err != nil {
				t.Error(err)
			}
		}()
		for {
			m, err := c.Read(ctx)
			if err != nil {
				return
			}
			if string(m) == "answer" {
				<-blocked
				_ = c.Write(m)
			}
		}
	})
	c := dial(t, g)
	for i := range 5 {
		c.send(masked(framePing, fmt.Append(nil, i)))
	}
	c.text("answer")
	got := map[string]int{}
	for range 8 {
		f, p, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		got[fmt.Sprintf("%#x %.3s", f, p)]++
	}
	want := map[string]int{"0x81 xxx": 1, "0x81 end": 1, "0x81 ans": 1, "0x8a 0": 1, "0x8a 1": 1, "0x8a 2": 1, "0x8a 3": 1, "0x8a 4": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v", got)
	}
}

// TestConcurrentWriters: batches are whole and in the order of their writer.
func TestConcurrentWriters(t *testing.T) {
	const writers, batches = 8, 100
	g := serve(t, local(t), nil, func(ctx context.Context, c *Conn) {
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for b := range batches {
					if err := c.Write(fmt.Appendf(nil, "%d %d a", w, b), fmt.Appendf(nil, "%d %d b", w, b)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Go(func() { _, _ = c.Read(ctx) })
		all.Wait()
	})
	c := dial(t, g)
	var next [writers]int
	for range writers * batches {
		c.send(masked(framePing, nil))
		var parts []string
		for len(parts) < 2 {
			f, p, err := c.frame()
			if err != nil {
				t.Fatal(err)
			}
			if f == frameText {
				parts = append(parts, string(p))
			}
		}
		var w, b int
		if _, err := fmt.Sscanf(parts[0], "%d %d a", &w, &b); err != nil || parts[1] != fmt.Sprintf("%d %d b", w, b) || next[w] != b {
			t.Fatalf("got %q", parts)
		}
		next[w]++
	}
	c.text("done")
}

// TestKeepAlive: who answers stays, who does not goes.
func TestKeepAlive(t *testing.T) {
	quick := func(s *system) { s.pingInterval, s.pong = 50*time.Millisecond, 200*time.Millisecond }
	messages, ends := make(chan string, 1), make(chan outcome, 2)
	g := serve(t, local(t), quick, reading(messages, ends))
	answering, silent := dial(t, g), dial(t, g)
	for range 5 {
		answering.wants(framePing, "")
		answering.send(masked(pong, nil))
	}
	answering.text("still here")
	if m := result(t, messages); m != "still here" {
		t.Errorf("%q", m)
	}
	if reason := silent.wantsClose(websocket.StatusPolicyViolation); reason != "no answer to a ping" {
		t.Errorf("reason %q", reason)
	}
	wantsEnd(t, "silent", result(t, ends), wire.Timeout, "did not answer a ping")
	if PingInterval != 15*time.Second || PongTimeout != 10*time.Second {
		t.Error("the real limits are others")
	}
}

// TestKeepAliveIsFair: a client is not blamed while we do not read.
func TestKeepAliveIsFair(t *testing.T) {
	release := make(chan struct{})
	g := serve(t, local(t), func(s *system) { s.pingInterval, s.pong = 20*time.Millisecond, 200*time.Millisecond }, func(ctx context.Context, c *Conn) {
		<-release
		echo(ctx, c)
	})
	c := dial(t, g)
	for range 5 {
		c.wants(framePing, "")
	}
	c.send(masked(pong, nil))
	c.text("hello")
	close(release)
	for {
		f, p, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		if f == frameText && string(p) == "hello" {
			break
		}
		c.send(masked(pong, nil))
	}
}

// TestControlFramesThatCannotBeWritten: a ping or a pong that fails ends the
// connection, though nobody writes messages.
func TestControlFramesThatCannotBeWritten(t *testing.T) {
	for name, send := range map[string][]byte{"a ping": nil, "a pong": masked(framePing, []byte("p"))} {
		var broken atomic.Bool
		messages, ends := make(chan string, 1), make(chan outcome, 1)
		g := serve(t, local(t), func(s *system) {
			s.wrap = func(c net.Conn) net.Conn { return &mute{Conn: c, broken: &broken} }
			s.pingInterval = map[bool]time.Duration{true: 20 * time.Millisecond, false: time.Hour}[send == nil]
		}, reading(messages, ends))
		c := dial(t, g)
		c.text("hello")
		result(t, messages)
		broken.Store(true)
		c.send(send)
		wantsEnd(t, name, result(t, ends), wire.Timeout, "did not take what was sent")
	}
}

// mute is a connection that cannot be written to from some time on.
type mute struct {
	net.Conn
	broken *atomic.Bool
}

func (m *mute) Write(p []byte) (int, error) {
	if m.broken.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	return m.Conn.Write(p)
}

func TestPing(t *testing.T) {
	pinged := make(chan error, 3)
	g := serve(t, local(t), nil, func(ctx context.Context, c *Conn) {
		read := make(chan struct{})
		go func() { defer close(read); _, _ = c.Read(ctx) }()
		pinged <- c.Ping(ctx)
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		pinged <- c.Ping(short)
		cancel()
		<-read
		pinged <- c.Ping(context.Background())
	})
	c := dial(t, g)
	f, p, err := c.frame()
	if err != nil || f != framePing {
		t.Fatalf("%#x, %v", f, err)
	}
	select {
	case err := <-pinged:
		t.Errorf("returned before the pong: %v", err)
	default:
	}
	c.send(masked(pong, []byte("another")), masked(pong, p))
	if err := result(t, pinged); err != nil {
		t.Error(err)
	}
	if err := result(t, pinged); !errors.Is(err, wire.ErrTimeout) {
		t.Errorf("without an answer: %v", err)
	}
	c.Close()
	if err := result(t, pinged); !errors.Is(err, wire.ErrTargetGone) {
		t.Errorf("of a closed connection: %v", err)
	}
}

func TestCloseByHandler(t *testing.T) {
	long := strings.Repeat("é", 100)
	for _, tt := range []struct {
		code         websocket.StatusCode
		reason, want string
	}{
		{websocket.StatusPolicyViolation, "too slow", "too slow"},
		{4001, "", ""},
		{websocket.StatusGoingAway, long, long[:122]},
	} {
		ends := make(chan outcome, 1)
		g := serve(t, local(t), nil, func(ctx context.Context, c *Conn) {
			read := make(chan error, 1)
			go func() { _, err := c.Read(ctx); read <- err }()
			_ = c.Write([]byte("last"))
			c.Close(tt.code, tt.reason)
			c.Close(websocket.StatusInternalError, "again")
			ends <- outcome{<-read, c.Write([]byte("x")), context.Cause(ctx)}
		})
		c := dial(t, g)
		c.wants(frameText, "last")
		if reason := c.wantsClose(tt.code); reason != tt.want {
			t.Errorf("reason %q, want %q", reason, tt.want)
		}
		if err := c.ends(); err != nil {
			t.Errorf("after the close frame: %v", err)
		}
		wantsEnd(t, "closed", result(t, ends), wire.Canceled, fmt.Sprint(int(tt.code)))
	}
}

// TestCloseDoesNotWaitLong: not for a client that does not answer, nor behind a
// write that is not taken.
func TestCloseDoesNotWaitLong(t *testing.T) {
	for _, writing := range []bool{false, true} {
		took := make(chan time.Duration, 1)
		g := serve(t, local(t), func(s *system) { small(s); s.closeReply = 100 * time.Millisecond }, func(ctx context.Context, c *Conn) {
			flooded, read := make(chan error, 1), make(chan error, 1)
			below, cancel := context.WithCancel(ctx) // ends with the connection, too
			defer cancel()
			go func() { _, err := c.Read(below); read <- err }()
			if writing {
				go func() { flooded <- flood(c) }()
				until(t, func() bool { return blocked(c) })
			}
			start := time.Now()
			c.Close(websocket.StatusPolicyViolation, "enough")
			took <- time.Since(start)
			if err := <-read; err == nil || err.Error() != c.Write([]byte("x")).Error() || !strings.Contains(err.Error(), "enough") {
				t.Errorf("the read: %v", err)
			}
			if writing {
				if err := <-flooded; !errors.Is(err, wire.ErrCanceled) || !strings.Contains(err.Error(), "enough") {
					t.Errorf("the write: %v", err)
				}
			}
		})
		c := smallClient(t, g)
		if d := result(t, took); d > 2*time.Second {
			t.Errorf("writing %v: took %v", writing, d)
		}
		c.Close()
	}
}

// blocked says whether a write has waited since the last look.
func blocked(c *Conn) bool {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	return c.stream.writing && time.Since(c.stream.armed) > 100*time.Millisecond
}

func TestCloseByClient(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload []byte
		says    string
	}{
		{"code and reason", append([]byte{0x03, 0xe9}, "bye"...), "bye"},
		{"nothing", nil, "StatusNoStatusRcvd"},
	} {
		messages, ends := make(chan string, 1), make(chan outcome, 1)
		g := serve(t, local(t), nil, reading(messages, ends))
		c := dial(t, g)
		c.send(masked(frameClose, tt.payload))
		f, p, err := c.frame()
		if err != nil || f != frameClose || !bytes.HasPrefix(tt.payload, p[:min(2, len(p))]) {
			t.Errorf("%s: answered with %#x %q, %v", tt.name, f, p, err)
		}
		if err := c.ends(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		o := result(t, ends)
		wantsEnd(t, tt.name, o, wire.TargetGone, tt.says)
		if websocket.CloseStatus(o.read) == -1 {
			t.Errorf("%s: %v has no code", tt.name, o.read)
		}
	}
}

func TestHandlerReturns(t *testing.T) {
	g := serve(t, local(t), nil, func(context.Context, *Conn) {})
	c := dial(t, g)
	c.wantsClose(websocket.StatusNormalClosure)
	until(t, func() bool { return len(g.slots) == 0 })
}

// TestHandlerPanics: one connection is not the gateway's end.
func TestHandlerPanics(t *testing.T) {
	g := serve(t, local(t), impatient, func(ctx context.Context, c *Conn) {
		if m, _ := c.Read(ctx); string(m) == "bomb" {
			panic("bomb")
		}
		echo(ctx, c)
	})
	c := dial(t, g)
	c.text("bomb")
	_ = c.ends()
	until(t, func() bool { return len(g.slots) == 0 })
	other := dial(t, g)
	other.text("a", "b")
	other.wants(frameText, "b")
	until(t, func() bool {
		return slices.ContainsFunc(g.log.lines(), func(line map[string]any) bool {
			return line["level"] == "ERROR" && strings.Contains(line["msg"].(string), "bomb")
		})
	})
}

// TestReadWatchesItsContext: each one that is given to it. The connection
// stays, so that the handler can say why it ends.
func TestReadWatchesItsContext(t *testing.T) {
	for name, part := range map[string][]byte{
		"between messages": nil,
		"in a header":      masked(textLast, []byte("xyz"))[:1],
		"in a message":     masked(textLast, []byte("xyz"))[:7],
	} {
		ended := make(chan error, 2)
		canceled := errors.New("enough")
		g := serve(t, local(t), func(s *system) { s.closeReply = 200 * time.Millisecond }, func(ctx context.Context, c *Conn) {
			first, cancelFirst := context.WithCancel(ctx)
			for range 2 {
				if _, err := c.Read(first); err != nil {
					t.Error(err)
				}
			}
			if _, err := c.Read(context.Background()); err != nil {
				t.Error(err)
			}
			cancelFirst() // nobody reads with it any more
			second, cancelSecond := context.WithCancelCause(ctx)
			if _, err := c.Read(second); err != nil {
				t.Error(err)
			}
			if err := c.Write([]byte("send the rest")); err != nil {
				t.Error(err)
			}
			waiting := c.stream.reads.Load() + 2*uint64(min(1, len(part)))
			go func() {
				until(t, func() bool { n := c.stream.reads.Load(); return n%2 == 1 && n > waiting })
				cancelSecond(canceled)
			}()
			for _, read := range []context.Context{second, ctx} {
				_, err := c.Read(read)
				ended <- err
			}
			if err := c.Write([]byte("last")); err != nil {
				t.Error(err)
			}
			c.Close(4000, "the handler says why")
		})
		c := dial(t, g)
		c.text("1", "2", "3", "4")
		c.wants(frameText, "send the rest")
		if part != nil {
			c.send(part)
		}
		for range 2 {
			if err := result(t, ended); !errors.Is(err, wire.ErrCanceled) || !errors.Is(err, canceled) {
				t.Errorf("%s: %v", name, err)
			}
		}
		c.wants(frameText, "last")
		if reason := c.wantsClose(4000); reason != "the handler says why" {
			t.Errorf("%s: %q", name, reason)
		}
	}
}

func TestConnTellsItsOrigin(t *testing.T) {
	cfg := local(t)
	cfg.Origins = []string{page}
	conns := make(chan *Conn, 1)
	g := serve(t, cfg, nil, func(_ context.Context, c *Conn) { conns <- c })
	c := dial(t, g, "Origin: "+page)
	conn := result(t, conns)
	if conn.Origin() != page || conn.Remote() != c.LocalAddr().String() || conn.OSUser() != fmt.Sprint(os.Geteuid()) {
		t.Errorf("%q, %q, %q", conn.Origin(), conn.Remote(), conn.OSUser())
	}
}
