package edge

import (
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The first bytes of the frames that a server writes: whole messages, unmasked.
const (
	frameText  = 0x81
	frameClose = 0x88
	framePing  = 0x89
)

// maxControlFrame is the size of a control frame with 125 bytes in it, and a
// little more.
const maxControlFrame = 128

// stream is what the WebSocket library takes for the connection. Messages to
// the client do not pass through the library, which would flush each: send
// makes a batch of frames one write call. Control frames of the library go into
// the same order of bytes, and never wait behind a write that the client does
// not take, unless there are very many of them.
type stream struct {
	net.Conn
	limits limits

	reads   atomic.Uint64 // grows when a read begins and ends: odd while it waits
	message atomic.Int32  // where the reader is; the constants below
	broken  atomic.Bool   // a read has failed

	mu      sync.Mutex
	free    sync.Cond // a write has ended
	pending []byte    // frames that nobody writes yet
	writing bool      // some goroutine writes, and takes along what becomes pending
	closing bool      // a close frame is or was pending: nothing may follow it
	hurried bool      // the deadlines are those of hurry
	stopped bool      // the deadline of reads is that of interrupt
	armed   time.Time
	err     error // of a write; there is none after it
}

const (
	betweenMessages = iota
	inMessage
	inMessageWithDeadline
)

func newStream(c net.Conn, l limits) *stream {
	s := &stream{Conn: c, limits: l}
	s.free.L = &s.mu
	return s
}

// send writes text frames, all with one call. It waits for the write before it,
// so that nothing piles up for a client that takes nothing.
func (s *stream) send(frames [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing && s.err == nil {
		s.free.Wait()
	}
	if s.err == nil && s.closing {
		return net.ErrClosed
	}
	if s.err != nil {
		return s.err
	}
	size := 0
	for _, f := range frames {
		size += 10 + len(f)
	}
	s.pending = slices.Grow(s.pending, size)
	for _, f := range frames {
		s.pending = appendFrame(s.pending, frameText, f)
	}
	return s.flush()
}

// Write takes control frames.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing && len(s.pending) >= controlBacklog && s.err == nil {
		s.free.Wait()
	}
	if s.err != nil {
		return 0, s.err
	}
	if len(p) > 0 && p[0] == frameClose {
		s.closing = true
	}
	s.pending = append(s.pending, p...)
	if s.writing {
		return len(p), nil
	}
	return len(p), s.flush()
}

// flush writes until nothing is pending. The lock is held, but not while it
// writes.
func (s *stream) flush() error {
	s.writing = true
	for len(s.pending) > 0 && s.err == nil {
		out := s.pending
		s.pending = nil
		s.arm()
		s.mu.Unlock()
		_, err := s.Conn.Write(out)
		s.mu.Lock()
		s.err = err
		if s.pending == nil && cap(out) <= keptBuffer {
			s.pending = out[:0]
		}
	}
	s.writing = false
	s.free.Broadcast()
	return s.err
}

// arm sets the deadline of a write. It is set anew only when a tenth of the time
// has passed, because that costs as much as copying a frame.
func (s *stream) arm() {
	now := time.Now()
	if s.hurried || now.Sub(s.armed) < s.limits.write/10 {
		return
	}
	s.armed = now
	_ = s.SetWriteDeadline(now.Add(s.limits.write)) // fails if closed, as will the write
}

// hurry gives everything that reads or writes now a last moment.
func (s *stream) hurry(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurried = true
	_ = s.SetDeadline(time.Now().Add(d)) // fails if closed
}

// interrupt ends reads, now and later, until hurry.
func (s *stream) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hurried {
		return
	}
	s.stopped = true
	_ = s.SetReadDeadline(time.Unix(1, 0)) // fails if closed
}

// failure is the error of a write.
func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// noLinger makes Close throw away what the client has not taken.
func (s *stream) noLinger() error {
	if tcp, ok := s.Conn.(interface{ SetLinger(sec int) error }); ok {
		return tcp.SetLinger(0)
	}
	return nil
}

// readDeadline sets the deadline of reads; none if d is 0.
func (s *stream) readDeadline(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hurried || s.stopped {
		return
	}
	var at time.Time
	if d > 0 {
		at = time.Now().Add(d)
	}
	_ = s.SetReadDeadline(at) // fails if closed, as will the read
}

// Read fills the buffer of the library. A message that is not complete in the
// buffer gets a deadline here, so that the others need none.
func (s *stream) Read(p []byte) (int, error) {
	if s.message.CompareAndSwap(inMessage, inMessageWithDeadline) {
		s.readDeadline(s.limits.messageEnd)
	}
	s.reads.Add(1)
	n, err := s.Conn.Read(p)
	s.reads.Add(1)
	if err != nil {
		s.broken.Store(true)
	}
	return n, err
}

// begin and end say where a message begins and ends.
func (s *stream) begin() { s.message.Store(inMessage) }

func (s *stream) end() {
	if s.message.Swap(betweenMessages) == inMessageWithDeadline {
		s.readDeadline(0)
	}
}

// appendFrame appends a frame that is a whole message.
func appendFrame(b []byte, kind byte, payload []byte) []byte {
	b = append(b, kind)
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = append(b, 126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, 127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, payload...)
}
