package link

import (
	"bufio"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// dialPoll is how often the client library asks for a connection that is being made.
const dialPoll = 100 * time.Millisecond

// errDialing is what it is told until then.
var errDialing = errors.New("connecting")

// dialer makes connections beside the client library, which holds its lock while it makes
// one: a network that swallows everything would stop every use of the link for seconds,
// also where nothing has to be sent.
type dialer struct {
	// quiet says that the server does not speak first.
	quiet bool

	mu     sync.Mutex
	wait   bool // Dial waits for its connection
	tries  map[string]*try
	busy   int  // tries that have not ended
	failed int  // tries that have failed since a connection was established
	used   bool // somebody has dialled
	up     bool // a connection is established
	closed bool
}

// try is one connection in making.
type try struct {
	ended chan struct{}
	conn  net.Conn
	err   error
}

func newDialer(url string, opts []nats.Option) *dialer {
	var o nats.Options
	for _, opt := range opts {
		if opt != nil {
			_ = opt(&o) // nats.Connect says what is wrong with it
		}
	}
	ws := len(url) > 1 && (url[:2] == "ws" || url[:2] == "WS")
	return &dialer{quiet: o.TLSHandshakeFirst || ws, wait: true, tries: map[string]*try{}}
}

// Dial is what the client library calls.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	d.up, d.used = false, true
	t, wait := d.tries[address], d.wait
	if t == nil && !d.closed {
		t = &try{ended: make(chan struct{})}
		d.tries[address] = t
		d.busy++
		go d.try(t, network, address) // ends within connectTimeout
	}
	d.mu.Unlock()
	if t == nil {
		return nil, net.ErrClosed
	}
	if wait {
		<-t.ended
	}
	select {
	case <-t.ended:
	default:
		return nil, errDialing
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tries[address] == t {
		delete(d.tries, address)
	}
	return t.conn, t.err
}

func (d *dialer) try(t *try, network, address string) {
	dialer := net.Dialer{Timeout: connectTimeout}
	conn, err := dialer.Dial(network, address)
	if err == nil && !d.quiet {
		conn, err = spoken(conn)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && (d.closed || d.up) { // nobody asks for it any more
		_ = conn.Close()
		conn, err = nil, net.ErrClosed
	}
	if d.up {
		delete(d.tries, address)
	} else if err != nil {
		d.failed++
	}
	d.busy--
	t.conn, t.err = conn, err
	close(t.ended)
}

// spoken waits until the server has said something: what accepts a connection need not
// be alive.
func spoken(conn net.Conn) (net.Conn, error) {
	r := bufio.NewReaderSize(conn, 4<<10)
	err := conn.SetReadDeadline(time.Now().Add(connectTimeout))
	if err == nil {
		_, err = r.Peek(1)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &speaking{conn, r}, nil
}

// speaking is a connection of which something was read already.
type speaking struct {
	net.Conn
	r *bufio.Reader
}

func (s *speaking) Read(p []byte) (int, error) {
	if s.r.Buffered() > 0 {
		return s.r.Read(p)
	}
	return s.Conn.Read(p)
}

// detach lets Dial not wait any more.
func (d *dialer) detach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wait = false
}

// delay is how long the client library waits before it asks again.
func (d *dialer) delay(attempts int) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.used { // an in-process server is not dialled
		return delay(attempts)
	}
	if d.busy > 0 || len(d.tries) > 0 {
		return dialPoll
	}
	return delay(d.failed)
}

// established notes that there is a connection.
func (d *dialer) established() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.up, d.failed = true, 0
	d.drop() // those to other servers
}

// drop closes what was made and is not needed. mu is held.
func (d *dialer) drop() {
	for address, t := range d.tries {
		select {
		case <-t.ended:
			delete(d.tries, address)
			if t.conn != nil {
				_ = t.conn.Close()
			}
		default:
		}
	}
}

func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.drop()
}
