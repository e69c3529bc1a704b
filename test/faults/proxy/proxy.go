// Package proxy is a TCP proxy in the process of a test that does to connections
// what networks do: it delays, stalls, loses, refuses, resets, cuts and throttles.
//
//	p := proxy.New(t, "127.0.0.1:4222")
//	n, err := node.Start(ctx, node.Config{NATS: node.NATS{URL: "nats://" + p.Addr()}})
//	p.Begin(proxy.Fault{Kind: proxy.Stall})
//	...
//	if effect := p.End(); !effect.Happened() {
//		t.Error("nothing was stalled")
//	}
//
// A Proxy has one fault at a time, [Pass] at first. It counts what each fault did,
// because a test with a fault that touched nothing has proved nothing. NATS
// clients and servers tell each other further addresses, and go around a proxy
// unless that is off: no_advertise for clients, a cluster_advertise where nobody
// listens for routes.
package proxy

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Kind is what a fault does.
type Kind uint8

// The kinds.
const (
	// Pass forwards everything at once.
	Pass Kind = iota
	// Delay forwards everything later, in order.
	Delay
	// Stall forwards nothing and loses nothing: it goes on when the fault ends.
	Stall
	// Blackhole drops everything, also what new connections send. A connection that
	// has lost something is reset when the fault ends, for its rest makes no sense.
	Blackhole
	// Refuse resets what there is and refuses new connections.
	Refuse
	// Reset resets what there is, once; new connections pass.
	Reset
	// Cut resets each connection, new ones too, after some bytes, in the middle of
	// what is being sent.
	Cut
	// Throttle forwards so many bytes a second and connection.
	Throttle

	kinds
)

func (k Kind) String() string {
	return [...]string{"pass", "delay", "stall", "blackhole", "refuse", "reset", "cut", "throttle"}[k]
}

// Direction says which way a fault applies. It does not matter to Refuse and Reset.
type Direction uint8

// The directions. Up is from the client to the target.
const (
	Both Direction = iota
	Up
	Down
)

func (d Direction) String() string { return [...]string{"both ways", "up", "down"}[d] }

// Fault is one fault.
type Fault struct {
	Kind      Kind
	Direction Direction
	// Delay and Jitter are of Delay: it takes from Delay to Delay + Jitter.
	Delay, Jitter time.Duration
	// After is how many bytes Cut lets through.
	After int64
	// Rate is how many bytes a second Throttle lets through.
	Rate int64
}

func (f Fault) String() string {
	switch f.Kind {
	case Delay:
		return fmt.Sprintf("delay %s + %s %s", f.Delay, f.Jitter, f.Direction)
	case Cut:
		return fmt.Sprintf("cut after %d bytes %s", f.After, f.Direction)
	case Throttle:
		return fmt.Sprintf("throttle to %d bytes/s %s", f.Rate, f.Direction)
	case Stall, Blackhole:
		return fmt.Sprint(f.Kind, " ", f.Direction)
	default:
		return f.Kind.String()
	}
}

// Random is a fault of any kind but Pass.
func Random(r *rand.Rand) Fault {
	return Fault{
		Kind:      Kind(1 + r.IntN(int(kinds)-1)),
		Direction: Direction(r.IntN(3)),
		Delay:     time.Duration(20+r.IntN(180)) * time.Millisecond,
		Jitter:    time.Duration(r.IntN(200)) * time.Millisecond,
		After:     int64(r.IntN(20_000)),
		Rate:      int64(2_000 + r.IntN(60_000)),
	}
}

// Effect is what faults did.
type Effect struct {
	// Conns were closed by Refuse, Reset and Cut, or by the end of a Blackhole.
	Conns int
	// Bytes were late (Delay, Stall, Throttle), or lost (Blackhole).
	Bytes int64
}

// Happened says whether anything was touched.
func (e Effect) Happened() bool { return e != Effect{} }

func (e Effect) String() string { return fmt.Sprintf("%d connections, %d bytes", e.Conns, e.Bytes) }

func (e *Effect) add(f Effect) {
	e.Conns += f.Conns
	e.Bytes += f.Bytes
}

// Proxy forwards connections to one target. Create it with [New]. It is safe for
// concurrent use.
type Proxy struct {
	t      testing.TB
	target string
	addr   string
	wg     sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while it refuses
	fault    Fault
	since    Effect          // of fault
	counts   map[Kind]Effect // of those before
	changed  chan struct{}   // closed with the next fault
	conns    map[*conn]struct{}
	closed   bool
}

// New listens on a free loopback port until the test ends.
func New(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: target, counts: map[Kind]Effect{}, changed: make(chan struct{}), conns: map[*conn]struct{}{}}
	// Not a port of the system's choice: it could give it to a client while the
	// proxy refuses.
	var err error
	for range 100 {
		p.addr = fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if err = p.listen(); err == nil {
			t.Cleanup(p.close)
			return p
		}
	}
	t.Fatalf("proxy: no free port: %v", err)
	return nil
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.addr }

// Begin makes f the fault, and ends the one before.
func (p *Proxy) Begin(f Fault) Effect {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.fault.Kind
	for c := range p.conns {
		c.passed = [2]int64{}
		if c.lossy {
			p.since.Conns++
			c.reset()
		}
	}
	if f.Kind == Refuse && p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	if f.Kind != Refuse && p.listener == nil && !p.closed {
		if err := p.listen(); err != nil {
			p.t.Errorf("proxy: listen again: %v", err)
		}
	}
	effect := p.since
	total := p.counts[before]
	total.add(effect)
	p.counts[before] = total
	p.fault, p.since = f, Effect{}
	if f.Kind == Refuse || f.Kind == Reset {
		for c := range p.conns {
			p.since.Conns++
			c.reset()
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
	return effect
}

// End ends the fault and says what it did.
func (p *Proxy) End() Effect { return p.Begin(Fault{}) }

// So says what the fault has done so far.
func (p *Proxy) So() Effect {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since
}

// Counts is what the faults did that have ended, by kind.
func (p *Proxy) Counts() map[Kind]Effect {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := map[Kind]Effect{}
	for k, e := range p.counts {
		if k != Pass && e.Happened() {
			counts[k] = e
		}
	}
	return counts
}

// Conns is how many connections there are.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	if p.listener != nil {
		p.listener.Close()
	}
	for c := range p.conns {
		c.reset()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// listen begins to accept. mu is held, except at the start.
func (p *Proxy) listen() error {
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.listener = l
	p.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			p.wg.Go(func() { p.serve(client.(*net.TCPConn)) })
		}
	})
	return nil
}

// conn is one connection through the proxy.
type conn struct {
	p            *Proxy
	client, peer *net.TCPConn
	done         chan struct{} // closed when it is to end
	// With p.mu held: whether it has ended, or has lost bytes, and the bytes of each
	// direction since the fault began.
	ended  bool
	lossy  bool
	passed [2]int64
}

// reset ends the connection with RST at both ends. p.mu is held.
func (c *conn) reset() {
	if c.ended {
		return
	}
	c.ended = true
	close(c.done)
	delete(c.p.conns, c)
	for _, s := range []*net.TCPConn{c.client, c.peer} {
		_ = s.SetLinger(0) // it may be closed
		s.Close()
	}
}

// end ends the connection as its ends do.
func (c *conn) end() {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.ended {
		return
	}
	c.ended = true
	close(c.done)
	delete(c.p.conns, c)
	c.client.Close()
	c.peer.Close()
}

func (p *Proxy) serve(client *net.TCPConn) {
	up, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil { // the target is down, which looks as if the proxy was
		_ = client.SetLinger(0)
		client.Close()
		return
	}
	c := &conn{p: p, client: client, peer: up.(*net.TCPConn), done: make(chan struct{})}
	p.mu.Lock()
	if p.closed || p.listener == nil {
		c.ended = true
		close(c.done)
		client.Close()
		up.Close()
	} else {
		p.conns[c] = struct{}{}
	}
	p.mu.Unlock()
	p.wg.Go(func() { c.pump(Up, client, c.peer) })
	p.wg.Go(func() { c.pump(Down, c.peer, client) })
}

// chunk is bytes on their way.
type chunk struct {
	data []byte
	at   time.Time
}

// maxChunks is how much may be delayed; then reading waits.
const maxChunks = 1024

// pump forwards one direction until it ends.
func (c *conn) pump(d Direction, from io.Reader, to io.Writer) {
	chunks := make(chan chunk, maxChunks)
	c.p.wg.Go(func() {
		for k := range chunks {
			if err := c.forward(d, k, to); err != nil {
				c.end()
				return
			}
		}
		c.end()
	})
	defer close(chunks)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			select {
			case chunks <- chunk{append([]byte(nil), buf[:n]...), time.Now()}:
			case <-c.done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

var errEnded = errors.New("proxy: the connection has ended")

// forward writes a chunk, as the fault will have it.
func (c *conn) forward(d Direction, k chunk, to io.Writer) error {
	held := false // counted before
	for {
		f, changed := c.present(d)
		switch f.Kind {
		case Delay:
			if !held {
				c.note(Effect{Bytes: int64(len(k.data))})
			}
			due := k.at.Add(f.Delay)
			if f.Jitter > 0 {
				due = due.Add(rand.N(f.Jitter))
			}
			if err := c.sleep(time.Until(due)); err != nil {
				return err
			}
		case Stall:
			if !held {
				held = true
				c.note(Effect{Bytes: int64(len(k.data))})
			}
			select {
			case <-changed:
				continue
			case <-c.done:
				return errEnded
			}
		case Blackhole:
			c.lose(int64(len(k.data)))
			return nil
		case Cut:
			if rest := c.rest(d, f, int64(len(k.data))); rest >= 0 {
				_, err := to.Write(k.data[:rest])
				c.cut()
				return errors.Join(err, errEnded)
			}
		case Throttle:
			return c.throttle(d, k, to)
		default:
		}
		_, err := to.Write(k.data)
		return err
	}
}

// present is the fault that applies to a direction, and when there is another.
func (c *conn) present(d Direction) (Fault, <-chan struct{}) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	f := c.p.fault
	if f.Direction != Both && f.Direction != d {
		f = Fault{}
	}
	return f, c.p.changed
}

// note counts an effect.
func (c *conn) note(e Effect) {
	c.p.mu.Lock()
	c.p.since.add(e)
	c.p.mu.Unlock()
}

func (c *conn) lose(n int64) {
	c.p.mu.Lock()
	c.lossy = true
	c.p.since.Bytes += n
	over := c.p.fault.Kind != Blackhole // it has just ended
	if over {
		c.reset()
	}
	c.p.mu.Unlock()
}

func (c *conn) cut() {
	c.p.mu.Lock()
	if !c.ended {
		c.p.since.Conns++
	}
	c.reset()
	c.p.mu.Unlock()
}

// rest is how many of n bytes may pass before the cut, -1 for all.
func (c *conn) rest(d Direction, f Fault, n int64) int64 {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	passed := &c.passed[d-Up]
	if left := f.After - *passed; left < n {
		return max(0, left)
	}
	*passed += n
	return -1
}

// throttle writes a chunk in pieces of a twentieth of a second.
func (c *conn) throttle(d Direction, k chunk, to io.Writer) error {
	const pieces = 20
	for len(k.data) > 0 {
		f, _ := c.present(d)
		if f.Kind != Throttle {
			_, err := to.Write(k.data)
			return err
		}
		n := min(len(k.data), max(1, int(f.Rate/pieces)))
		c.note(Effect{Bytes: int64(n)})
		if err := c.sleep(time.Duration(n) * time.Second / time.Duration(f.Rate)); err != nil {
			return err
		}
		if _, err := to.Write(k.data[:n]); err != nil {
			return err
		}
		k.data = k.data[n:]
	}
	return nil
}

func (c *conn) sleep(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.done:
		return errEnded
	}
}
