package proxy_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weft-fabric/weft/test/faults/proxy"
)

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // until the client ends
			}()
		}
	}()
	return l.Addr().String()
}

// client is one connection to an echo through a proxy.
type client struct {
	t *testing.T
	net.Conn
}

func dial(t *testing.T, p *proxy.Proxy) *client {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{t, c}
}

const (
	patience = 10 * time.Second
	// briefly is how long nothing may come where nothing is to come.
	briefly = 100 * time.Millisecond
)

// get reads n bytes.
func (c *client) get(n int, within time.Duration) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, n)
	n, err := io.ReadFull(c, b)
	return string(b[:n]), err
}

func (c *client) put(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// round sends a text, which must come back.
func (c *client) round(text string) time.Duration {
	c.t.Helper()
	began := time.Now()
	c.put(text)
	if got, err := c.get(len(text), patience); err != nil || got != text {
		c.t.Fatalf("got %.40q, %v, want %.40q", got, err, text)
	}
	return time.Since(began)
}

// silent says that nothing comes, and the connection stays.
func (c *client) silent() {
	c.t.Helper()
	if got, err := c.get(1, briefly); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got %q, %v, want nothing", got, err)
	}
}

// broken says that the connection was reset.
func (c *client) broken() {
	c.t.Helper()
	if got, err := c.get(1, patience); !errors.Is(err, syscall.ECONNRESET) {
		c.t.Fatalf("got %q, %v, want a reset", got, err)
	}
}

// ended says what the fault did.
func ended(t *testing.T, p *proxy.Proxy, kind proxy.Kind, conns int, atLeast int64) {
	t.Helper()
	e := p.End()
	if e.Conns != conns || e.Bytes < atLeast || !e.Happened() {
		t.Errorf("%s did %+v, want %d connections and at least %d bytes", kind, e, conns, atLeast)
	}
	if got := p.Counts()[kind]; got != e {
		t.Errorf("counted %+v, want %+v", got, e)
	}
}

func TestPass(t *testing.T) {
	p := proxy.New(t, echo(t))
	c := dial(t, p)
	c.round("hello")
	c.round(strings.Repeat("much ", 100_000))
	if n := p.Conns(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if counts := p.Counts(); len(counts) > 0 || p.End().Happened() {
		t.Errorf("counted %v without a fault", counts)
	}
}

func TestTargetDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c, err := net.Dial("tcp", proxy.New(t, l.Addr().String()).Addr())
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// The end of one side is the end of the other.
func TestEnds(t *testing.T) {
	p := proxy.New(t, echo(t))
	c := dial(t, p)
	c.round("hello")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.get(1, patience); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the end", err)
	}
}

func TestDelay(t *testing.T) {
	p := proxy.New(t, echo(t))
	c := dial(t, p)
	c.round("before")
	p.Begin(proxy.Fault{Kind: proxy.Delay, Direction: proxy.Up, Delay: briefly, Jitter: briefly})
	if took := c.round("later"); took < briefly {
		t.Errorf("took %s", took)
	}
	// Many on their way at a time, in their order.
	began := time.Now()
	var want strings.Builder
	for i := range 30 {
		text := strings.Repeat(string(rune('a'+i%26)), 100)
		want.WriteString(text)
		c.put(text)
	}
	if got, err := c.get(want.Len(), patience); err != nil || got != want.String() {
		t.Errorf("out of order: %v", err)
	}
	if took := time.Since(began); took < briefly || took > 30*briefly {
		t.Errorf("thirty took %s", took)
	}
	ended(t, p, proxy.Delay, 0, 5)
	c.round("after")
}

func TestStall(t *testing.T) {
	for _, d := range []proxy.Direction{proxy.Both, proxy.Up, proxy.Down} {
		p := proxy.New(t, echo(t))
		c := dial(t, p)
		c.round("before")
		p.Begin(proxy.Fault{Kind: proxy.Stall, Direction: d})
		late := dial(t, p)
		late.put("late")
		c.put("stalled")
		c.silent()
		late.silent()
		ended(t, p, proxy.Stall, 0, 11)
		for c, text := range map[*client]string{c: "stalled", late: "late"} {
			if got, err := c.get(len(text), patience); got != text || err != nil {
				t.Errorf("%s: after it: %q, %v, want %q", d, got, err, text)
			}
		}
	}
}

func TestBlackhole(t *testing.T) {
	for _, d := range []proxy.Direction{proxy.Both, proxy.Up, proxy.Down} {
		p := proxy.New(t, echo(t))
		c, idle := dial(t, p), dial(t, p)
		c.round("before")
		idle.round("before")
		p.Begin(proxy.Fault{Kind: proxy.Blackhole, Direction: d})
		late := dial(t, p)
		late.put("late")
		c.put("lost")
		c.silent()
		late.silent()
		ended(t, p, proxy.Blackhole, 2, 8)
		c.broken()
		late.broken()
		idle.round("it has lost nothing")
		dial(t, p).round("after")
	}
}

func TestRefuse(t *testing.T) {
	p := proxy.New(t, echo(t))
	c := dial(t, p)
	c.round("before")
	p.Begin(proxy.Fault{Kind: proxy.Refuse})
	c.broken()
	if c, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, %v", c, err)
	}
	ended(t, p, proxy.Refuse, 1, 0)
	dial(t, p).round("after")
}

func TestReset(t *testing.T) {
	p := proxy.New(t, echo(t))
	a, b := dial(t, p), dial(t, p)
	a.round("before")
	b.round("before")
	p.Begin(proxy.Fault{Kind: proxy.Reset})
	a.broken()
	b.broken()
	dial(t, p).round("at once")
	ended(t, p, proxy.Reset, 2, 0)
}

func TestCut(t *testing.T) {
	p := proxy.New(t, echo(t))
	c := dial(t, p)
	c.round("before")
	p.Begin(proxy.Fault{Kind: proxy.Cut, Direction: proxy.Down, After: 5})
	c.put("abc")
	c.put("defghi")
	if got, err := c.get(9, patience); !strings.HasPrefix("abcde", got) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v, want a part of abcde and a reset", got, err)
	}
	late := dial(t, p)
	late.round("abc")
	late.put("def")
	if _, err := late.get(3, patience); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	ended(t, p, proxy.Cut, 2, 0)
	dial(t, p).round("after the fault all")
}

func TestThrottle(t *testing.T) {
	p := proxy.New(t, echo(t))
	c := dial(t, p)
	c.round("before")
	p.Begin(proxy.Fault{Kind: proxy.Throttle, Direction: proxy.Down, Rate: 1000})
	if took := c.round(strings.Repeat("x", 300)); took < 250*time.Millisecond {
		t.Errorf("300 bytes at 1000/s took %s", took)
	}
	ended(t, p, proxy.Throttle, 0, 300)
	if took := c.round(strings.Repeat("x", 30_000)); took > patience {
		t.Errorf("after it took %s", took)
	}
}

// A fault that touches nothing says so.
func TestNothingHappened(t *testing.T) {
	for k := proxy.Delay; k <= proxy.Throttle; k++ {
		p := proxy.New(t, echo(t))
		p.Begin(proxy.Fault{Kind: k, Rate: 1})
		if e := p.End(); e.Happened() || len(p.Counts()) > 0 {
			t.Errorf("%s without connections did %+v", k, e)
		}
	}
}

// A schedule is that of its seed, and has all kinds.
func TestRandom(t *testing.T) {
	list := func(seed uint64) (faults []proxy.Fault) {
		r := rand.New(rand.NewPCG(seed, 0))
		for range 100 {
			faults = append(faults, proxy.Random(r))
		}
		return faults
	}
	if a, b, c := list(1), list(1), list(2); !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Error("the schedule is not that of the seed")
	}
	seen := map[proxy.Kind]bool{}
	for _, f := range list(1) {
		seen[f.Kind] = true
	}
	if len(seen) != int(proxy.Throttle) || seen[proxy.Pass] {
		t.Errorf("kinds: %v", seen)
	}
}
