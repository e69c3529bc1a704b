package edge

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// inPipe runs f in a bubble, with a stream whose other end takes nothing. The
// real limits hold there.
func inPipe(t *testing.T, f func(s *stream, writes *atomic.Int32)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		defer near.Close()
		var writes atomic.Int32
		f(newStream(&spy{Conn: near, onWrite: func([]byte) { writes.Add(1) }}, defaultLimits()), &writes)
	})
}

// inBackground runs f and tells what it returned and how long it took.
func inBackground(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	synctest.Wait()
	return done
}

func TestStreamWriteDeadline(t *testing.T) {
	inPipe(t, func(s *stream, _ *atomic.Int32) {
		start := time.Now()
		if err := s.send([][]byte{[]byte("x")}); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != WriteTimeout {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := s.send([][]byte{[]byte("x")}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("later: %v", err)
		}
		if _, err := s.Write([]byte{framePing, 0}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("later: %v", err)
		}
	})
}

// TestStreamWriteDeadlineIsRenewed: each write has at least nine tenths of it.
func TestStreamWriteDeadlineIsRenewed(t *testing.T) {
	for pause, least := range map[time.Duration]time.Duration{0: 10, 900 * time.Millisecond: 9, time.Second: 10, time.Hour: 10} {
		synctest.Test(t, func(*testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			defer near.Close()
			s := newStream(near, defaultLimits())
			first := inBackground(func() error { return s.send([][]byte{[]byte("x")}) })
			if _, err := far.Read(make([]byte, 10)); err != nil || <-first != nil {
				t.Error("not written")
			}
			time.Sleep(pause)
			start := time.Now()
			err := s.send([][]byte{[]byte("x")})
			if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took < least*time.Second || took > WriteTimeout {
				t.Errorf("%v after a pause of %v: %v", took, pause, err)
			}
		})
	}
}

// TestStreamDoesNotPileUp: while one write is not taken, messages wait outside,
// and control frames inside up to a bound.
func TestStreamDoesNotPileUp(t *testing.T) {
	inPipe(t, func(s *stream, writes *atomic.Int32) {
		first := inBackground(func() error { return s.send([][]byte{[]byte("first")}) })
		second := inBackground(func() error { return s.send([][]byte{[]byte("second")}) })
		if n := len(s.pending); n != 0 || writes.Load() != 1 {
			t.Errorf("%d bytes wait, %d writes", n, writes.Load())
		}
		accepted := 0
		control := inBackground(func() error {
			for {
				if _, err := s.Write([]byte{pong, 0}); err != nil {
					return err
				}
				accepted++
			}
		})
		if len(s.pending) != controlBacklog || accepted != controlBacklog/2 || writes.Load() != 1 {
			t.Errorf("%d bytes wait, %d frames were accepted, %d writes", len(s.pending), accepted, writes.Load())
		}
		for _, done := range []<-chan error{first, second, control} {
			if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v", err)
			}
		}
	})
}

// TestStreamAfterClose: nothing follows a close frame.
func TestStreamAfterClose(t *testing.T) {
	inPipe(t, func(s *stream, _ *atomic.Int32) {
		closing := inBackground(func() error { _, err := s.Write([]byte{frameClose, 0}); return err })
		sending := inBackground(func() error { return s.send([][]byte{[]byte("x")}) })
		s.hurry(time.Second)
		start := time.Now()
		for _, done := range []<-chan error{closing, sending} {
			if err := <-done; err == nil {
				t.Error("written")
			}
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
	inPipe(t, func(s *stream, _ *atomic.Int32) {
		s.hurry(time.Second)
		start := time.Now()
		if _, err := s.Write([]byte{frameClose, 0}); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestStreamReadDeadlines: those of a message do not replace those of interrupt
// and hurry, which replace theirs.
func TestStreamReadDeadlines(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(s *stream)
		want time.Duration // until the read ends
	}{
		{"message", func(*stream) {}, MessageTimeout},
		{"hurry", func(s *stream) { s.hurry(time.Second) }, time.Second},
		{"hurry, then the message ends", func(s *stream) { s.hurry(time.Second); s.end() }, time.Second},
		{"interrupt", func(s *stream) { s.interrupt() }, 0},
		{"interrupt, then the message ends", func(s *stream) { s.interrupt(); s.end() }, 0},
		{"interrupt after hurry", func(s *stream) { s.hurry(time.Second); s.interrupt() }, time.Second},
	} {
		inPipe(t, func(s *stream, _ *atomic.Int32) {
			s.begin()
			start := time.Now()
			read := inBackground(func() error { _, err := s.Read(make([]byte, 1)); return err })
			tt.do(s)
			if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != tt.want {
				t.Errorf("%s: %v after %v, want %v", tt.name, err, time.Since(start), tt.want)
			}
		})
	}
	inPipe(t, func(s *stream, _ *atomic.Int32) {
		s.interrupt()
		s.begin()
		start := time.Now()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 0 {
			t.Errorf("a read after interrupt: %v after %v", err, time.Since(start))
		}
	})
}
