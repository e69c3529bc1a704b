package channels

import (
	"context"
	"sync"

	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/subjects"
)

// session is one local app's part in channels: where it is.
type session struct {
	c   *Channels
	app subjects.App
	ctx context.Context // ends when the app leaves
	end context.CancelFunc

	// mu guards the fields that follow. It is held while the directory is told, so
	// that two moves cannot overtake each other there.
	mu      sync.Mutex
	now     *stay         // nil on no channel
	changed chan struct{} // closed at the next move
	closed  bool
}

// stay is an app's time on one channel. removed and by are set before it ends:
// whether that was because somebody removed the channel, and who.
type stay struct {
	channel string
	ctx     context.Context
	end     context.CancelFunc
	removed bool
	by      contexts.Writer
}

func newSession(c *Channels, app subjects.App) *session {
	s := &session{c: c, app: app, changed: make(chan struct{})}
	s.ctx, s.end = context.WithCancel(context.Background())
	return s
}

// where is the app's present stay, nil for none, and a channel that is closed
// when it moves.
func (s *session) where() (*stay, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.changed
}

// channel is the name of the app's channel, "" for none.
func (s *session) channel() string {
	if now, _ := s.where(); now != nil {
		return now.channel
	}
	return ""
}

// enter moves the app to a channel whose state w has shown to be there. w is
// closed when the stay is over, or at once if there will be none.
func (s *session) enter(channel string, w *contexts.Watch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	switch {
	case s.closed:
		err = hasLeft(s.app)
	case s.now != nil && s.now.channel == channel: // joined twice at once
		w.Close()
		return nil
	default:
		err = s.c.cfg.Directory.SetChannels(s.app, []string{channel})
	}
	if err != nil {
		w.Close()
		return err
	}
	next := &stay{channel: channel}
	next.ctx, next.end = context.WithCancel(s.ctx)
	s.move(next)
	s.c.wg.Go(func() { s.guard(next, w) })
	return nil
}

// guard ends a stay when its channel is removed.
func (s *session) guard(st *stay, w *contexts.Watch) {
	defer w.Close()
	for e := range w.Events(st.ctx) {
		if e.Kind == contexts.Destroyed {
			s.expel(st, e.By)
			return
		}
	}
}

// expel ends a stay on a channel that was removed.
func (s *session) expel(st *stay, by contexts.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == st && !s.closed {
		st.removed, st.by = true, by
		s.depart()
	}
}

// leave ends the present stay, if there is one.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil && !s.closed {
		s.depart()
	}
}

// depart takes the app to no channel. mu is held.
func (s *session) depart() {
	_ = s.c.cfg.Directory.SetChannels(s.app, nil) // refused only of an app that has left
	s.move(nil)
}

// move ends the present stay and begins the next one. mu is held.
func (s *session) move(next *stay) {
	if s.now != nil {
		s.now.end()
	}
	s.now = next
	close(s.changed)
	s.changed = make(chan struct{})
}

// close ends everything when the app has left or the node stops. That is not a
// move: watches end without a word.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.end()
}
