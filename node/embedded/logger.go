package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
)

// notesKept bounds what a logger remembers of a start; later lines are only logged.
const notesKept = 64

// logger passes what nats-server says to slog. Its Fatalf does not end the
// process: nats-server returns from Start or AcceptLoop right after calling it,
// and both are called synchronously, so the caller asks fatal() afterwards.
type logger struct {
	log    *slog.Logger
	failed chan struct{} // closed by the first fatal text after the start

	mu       sync.Mutex // guards all below; never held while logging
	starting bool
	notes    []string // warnings and errors while starting: the reasons for a skipped stream
	fatals   string   // the first fatal text
}

func newLogger(log *slog.Logger) *logger {
	return &logger{log: log, starting: true, failed: make(chan struct{})}
}

// Noticef is nats-server's information; at debug level here, since a node has its own.
func (l *logger) Noticef(format string, v ...any) { l.emit(slog.LevelDebug, format, v) }

// Warnf logs and, during the start, remembers.
func (l *logger) Warnf(format string, v ...any) {
	if strings.HasPrefix(format, "Plaintext passwords") {
		// A 256-bit random password gains nothing from bcrypt, and in a
		// process that knows it anyway there is nothing to hide it from.
		l.emit(slog.LevelDebug, format, v)
		return
	}
	l.note(format, v)
	l.emit(slog.LevelWarn, format, v)
}

// Errorf logs and, during the start, remembers.
func (l *logger) Errorf(format string, v ...any) {
	l.note(format, v)
	l.emit(slog.LevelError, format, v)
}

// Fatalf records the text. While starting it is not logged, because Start
// returns it or the log of the damage carries it.
func (l *logger) Fatalf(format string, v ...any) {
	l.mu.Lock()
	starting := l.starting
	if l.fatals == "" {
		l.fatals = fmt.Sprintf(format, v...)
		if !starting {
			close(l.failed)
		}
	}
	l.mu.Unlock()
	if !starting {
		l.emit(slog.LevelError, format, v)
	}
}

// Debugf drops.
func (*logger) Debugf(string, ...any) {}

// Tracef drops.
func (*logger) Tracef(string, ...any) {}

func (l *logger) emit(level slog.Level, format string, v []any) {
	ctx := context.Background()
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "nats-server", slog.String("text", strings.TrimSpace(fmt.Sprintf(format, v...))))
	}
}

func (l *logger) note(format string, v []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.starting && len(l.notes) < notesKept {
		l.notes = append(l.notes, strings.TrimSpace(fmt.Sprintf(format, v...)))
	}
}

// started ends the phase in which warnings are remembered.
func (l *logger) started() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.starting, l.notes = false, nil
}

func (l *logger) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatals
}

func (l *logger) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.notes, "; ")
}

// surroundings finds in what nats-server said a condition of the machine, not
// of the store: setting the store aside for one of these would lose good data.
// nats-server passes such errors on as text only, some in its own words.
func surroundings(text string) string {
	for _, own := range []string{"storage directory is not writable", "storage directory not readable"} {
		if strings.Contains(text, own) {
			return own
		}
	}
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.EMFILE, syscall.ENFILE} {
		if strings.Contains(text, e.Error()) {
			return e.Error()
		}
	}
	return ""
}
