// Package alarm is what is wrong and stays so until somebody, or time, mends it:
// a damaged replica, keys that a stream has lost, a store that was set aside.
//
// A [Set] holds what is wrong now. Whoever sees it raises an alarm, as often as it
// sees it, and clears it when it is over. The set logs each alarm once when it is
// raised, as an error, and once when it is over, so that what is tried again and
// again does not flood the log. Two alarms are the same if Kind, Stream and Server
// are; an alarm is over when everybody who raised it has cleared it.
//
// It does not decide what is wrong, and keeps nothing on disk. All methods are safe
// for concurrent use, and those of a nil Set do nothing. To test with it: make a set
// of your own and read [Set.Active].
package alarm

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Kind says what is wrong.
type Kind string

// The kinds of alarms.
const (
	// ReplicaDamaged is a server whose replica of a stream does not hold what others hold.
	ReplicaDamaged Kind = "replica-damaged"
	// KeysMissing is a stream without keys that were seen, although nothing proves
	// that somebody removed them.
	KeysMissing Kind = "keys-missing"
	// TailLost is a stream whose leader has not got the last writes that were
	// acknowledged.
	TailLost Kind = "tail-lost"
	// StoreSetAside is a store, or a part of one, that could not be opened and was
	// moved away.
	StoreSetAside Kind = "store-set-aside"
	// StoreUnusable is a store that cannot be opened, nor a fresh one made.
	StoreUnusable Kind = "store-unusable"
	// ServerFailed is an embedded server that has given up while it ran.
	ServerFailed Kind = "server-failed"
)

// Alarm is one thing that is wrong.
type Alarm struct {
	Kind Kind `json:"kind"`
	// Stream and Server say where, as far as that is known. Server is a name, or
	// several that it can be, separated by commas.
	Stream string `json:"stream,omitempty"`
	Server string `json:"server,omitempty"`
	// Text is for people; of several who raised the alarm that of the first.
	Text  string    `json:"text"`
	Since time.Time `json:"since"`
	// Until is when it was over, zero while it is true.
	Until time.Time `json:"until,omitzero"`
}

// key tells alarms apart.
type key struct {
	kind           Kind
	stream, server string
}

func (a Alarm) key() key { return key{a.Kind, a.Stream, a.Server} }

// active is an alarm and who has raised it.
type active struct {
	Alarm
	by map[any]struct{}
}

// maxPast bounds how many alarms that are over are remembered.
const maxPast = 32

// Set is the alarms of a node. Create it with [New].
type Set struct {
	log *slog.Logger

	mu      sync.Mutex
	active  map[key]*active
	past    []Alarm // oldest first
	changed chan struct{}
}

// New makes a set without alarms. A nil log discards.
func New(log *slog.Logger) *Set {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Set{log: log, active: map[key]*active{}, changed: make(chan struct{})}
}

// Raise says that something is wrong, as by sees it; Since and Until are the set's.
// By is any value that can be a key of a map.
func (s *Set) Raise(by any, a Alarm) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.active[a.key()]; old != nil {
		old.by[by] = struct{}{}
		return
	}
	a.Since, a.Until = time.Now(), time.Time{}
	s.active[a.key()] = &active{a, map[any]struct{}{by: {}}}
	s.announce()
	s.log.LogAttrs(context.Background(), slog.LevelError, "alarm", a.attrs()...)
}

// Clear says that by sees nothing wrong any more of this kind, stream and server. An
// empty server stands for every one.
func (s *Set) Clear(by any, kind Kind, stream, server string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, a := range s.active {
		if k.kind != kind || k.stream != stream || server != "" && k.server != server {
			continue
		}
		if _, ok := a.by[by]; !ok {
			continue
		}
		delete(a.by, by)
		if len(a.by) == 0 {
			s.end(k, a)
		}
	}
}

// end moves an alarm to those that are over. mu is held.
func (s *Set) end(k key, a *active) {
	delete(s.active, k)
	a.Until = time.Now()
	if len(s.past) == maxPast {
		s.past = slices.Delete(s.past, 0, 1)
	}
	s.past = append(s.past, a.Alarm)
	s.announce()
	s.log.LogAttrs(context.Background(), slog.LevelWarn, "alarm is over", append(a.attrs(), slog.Duration("lasted", a.Until.Sub(a.Since)))...)
}

// announce wakes those who wait for a change. mu is held.
func (s *Set) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (a Alarm) attrs() []slog.Attr {
	return []slog.Attr{slog.String("kind", string(a.Kind)), slog.String("stream", a.Stream), slog.String("server", a.Server), slog.String("text", a.Text)}
}

// Active lists what is wrong now, oldest first.
func (s *Set) Active() []Alarm {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Alarm, 0, len(s.active))
	for _, a := range s.active {
		list = append(list, a.Alarm)
	}
	slices.SortFunc(list, func(a, b Alarm) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Server, b.Server))
	})
	return list
}

// Past lists the newest alarms that are over, the one that ended first is first.
func (s *Set) Past() []Alarm {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.past)
}

// Changed is closed when an alarm is raised, or is over. That of a nil Set never is.
func (s *Set) Changed() <-chan struct{} {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
