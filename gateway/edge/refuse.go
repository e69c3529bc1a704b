package edge

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Failed logs that a connection was refused something. It is for the reasons
// that the caller finds; those that the edge finds are logged already. The
// reason is one of a few fixed texts, because lines are counted by it.
func (e *Edge) Failed(c *Conn, reason string) { e.refuse(reason, c.remote, c.host, c.origin) }

func (e *Edge) refuse(reason, remote, host, origin string, more ...slog.Attr) {
	e.refusals.log(reason, append(more, slog.String("remote", remote), slog.String("host", clip(host, 128)), slog.String("origin", clip(origin, 128)))...)
}

// refusals writes at most one line a second for each reason. The first is
// written at once; those that follow within the second become one line at its
// end that says how many they were.
type refusals struct {
	logger *slog.Logger

	mu      sync.Mutex
	closed  bool
	reasons map[string]*silence
}

// silence is the second after a line.
type silence struct {
	timer   *time.Timer
	leftOut int
}

func newRefusals(logger *slog.Logger) *refusals {
	return &refusals{logger: logger, reasons: map[string]*silence{}}
}

func (r *refusals) log(reason string, attrs ...slog.Attr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reasons[reason] == nil && len(r.reasons) >= maxReasons {
		reason = otherReasons
	}
	if s := r.reasons[reason]; s != nil {
		s.leftOut++
		return
	}
	r.logger.LogAttrs(context.Background(), slog.LevelWarn, "connection refused", append(attrs, slog.String("reason", reason))...)
	if r.closed {
		return
	}
	s := &silence{}
	s.timer = time.AfterFunc(refusalInterval, func() { r.end(reason, s) })
	r.reasons[reason] = s
}

// otherReasons is counted for when too many reasons are counted apart.
const otherReasons = "other reasons"

// end is the end of a second. Another one begins if it had refusals.
func (r *refusals) end(reason string, s *silence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reasons[reason] != s {
		return // closed
	}
	if s.leftOut == 0 {
		delete(r.reasons, reason)
		return
	}
	r.summary(reason, s)
	s.timer.Reset(refusalInterval)
}

func (r *refusals) summary(reason string, s *silence) {
	r.logger.Warn("connections refused", "reason", reason, "left_out", s.leftOut)
	s.leftOut = 0
}

// close writes what is left. Later refusals are all written.
func (r *refusals) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for reason, s := range r.reasons {
		s.timer.Stop()
		if s.leftOut > 0 {
			r.summary(reason, s)
		}
	}
	clear(r.reasons)
}
