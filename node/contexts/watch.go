package contexts

import (
	"context"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Writer is who wrote: an app and its node. A foreign writer, a NATS client that
// does not say, is empty.
type Writer struct {
	App  subjects.App  `json:"app,omitempty"`
	Node subjects.Node `json:"node,omitempty"`
}

// String is app@node, as in the header Weft-By.
func (w Writer) String() string {
	if w == (Writer{}) {
		return ""
	}
	return string(w.App) + "@" + string(w.Node)
}

// parseWriter reads the header, which anybody may have written.
func parseWriter(s string) Writer {
	app, node, _ := strings.Cut(s, "@")
	n, err := subjects.ParseNode(node)
	if err != nil {
		return Writer{}
	}
	a, err := subjects.ParseApp(app)
	if err != nil {
		return Writer{Node: n}
	}
	return Writer{App: a, Node: n}
}

// State is a context at one moment, as the apps of this node see it.
type State struct {
	Name string
	// Exists says whether there is such a context.
	Exists bool
	// Revision is the sequence of the newest acknowledged write, 0 if the context
	// does not exist.
	Revision uint64
	// By is who made the newest change.
	By Writer
	// Pending says that the value has writes of this node in it that are not
	// acknowledged yet. No event says when they are; one does if they are taken
	// back.
	Pending bool
	// Since is zero while the node knows the newest state, else the time since
	// when others may have changed it: the fabric is offline.
	Since time.Time
	// Meta is the context's metadata, zero if it has none.
	Meta Meta
	// Denied says that there is a context which the app may not read. The rest is
	// then as if there was none. Only a [Watch] says so, [App.Get] is refused.
	Denied bool

	view *kv.Value
	of   *shared
}

// View is the object, nil if the context does not exist.
func (s State) View() *kv.Value { return s.view }

// Value is the object as msgpack, no value if the context does not exist. It is
// encoded once for all who ask; its data must not be changed.
func (s State) Value() wire.Payload { return s.view.Payload() }

// At is the value at a path, no value if there is none.
func (s State) At(path ...string) wire.Payload { return s.view.At(path).Payload() }

// Kind is what an [Event] reports.
type Kind uint8

// The kinds. A watch begins with a Snapshot. Offline and Online say that State.Since
// has changed and nothing else.
const (
	Snapshot Kind = iota
	Changed
	Created
	Destroyed
	Offline
	Online
)

// String is the kind's name in logs and on the command line.
func (k Kind) String() string {
	return [...]string{"snapshot", "changed", "created", "destroyed", "offline", "online"}[k]
}

// Change is one difference: the value at Path is now Value, or is gone if that
// is no value. The path of a whole object is empty.
type Change struct {
	Path  []string     `json:"path"`
	Value wire.Payload `json:"value"`
}

// Event is one step of a watch: the context's state, and how it differs from
// that of the event before.
type Event struct {
	Kind Kind
	State
	// Changes lead from the value of the last event to this one; none for a
	// Snapshot.
	Changes []Change
	// Edits are what the writer wrote, in order, if exactly one operation made
	// the difference: one of an app of this node, or a batch of another. Applied
	// to the value of the last event they give this one. They are nil where that
	// is not so, and must not be changed.
	Edits []kv.Edit
	// Conflated is how many states were left out because the reader was slow.
	Conflated int
}

// state is a State that is not encoded yet.
type state struct {
	view     *kv.Value
	meta     *Meta
	revision uint64
	by       Writer
	pending  bool
	since    time.Time
	denied   bool
	lates    uint64 // see shared
}

func (s state) public(of *shared) State {
	return State{
		Name: of.name, Exists: s.view != nil, Revision: s.revision,
		By: s.by, Pending: s.pending, Since: s.since, Meta: s.meta.value(), Denied: s.denied, view: s.view, of: of,
	}
}

// step is a new state, and how it differs from the one before.
type step struct {
	from    *kv.Value
	changes []kv.Change
	edits   []kv.Edit // see Event
	state
}

// Watch is what one app sees of a context over time. Create it with [App.Watch] or
// [App.WatchFunc].
type Watch struct {
	s     *shared
	app   subjects.App
	ready chan struct{}
	wake  func() // nil unless it is polled

	mu        sync.Mutex
	steps     []*step
	bytes     int
	conflated int
	closed    bool
	once      sync.Once

	// The fields that follow belong to the reader.
	begun   bool
	last    state
	skipped int // states that were conflated since the last event
}

func (c *Contexts) watch(app subjects.App, name string, wake func()) (*Watch, error) {
	s, err := c.get(name)
	if err != nil {
		return nil, err
	}
	w := &Watch{s: s, app: app, ready: make(chan struct{}, 1), wake: wake}
	if !s.add(w) {
		c.release(s)
		return nil, errStopped()
	}
	return w, nil
}

// add gives a watch the present state and all that come; false when the context
// is closed.
func (s *shared) add(w *Watch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.watches[w] = struct{}{}
	if s.known() {
		w.put(&step{from: s.view, state: s.state()})
	}
	return true
}

// Close ends the watch. It may be called more than once.
func (w *Watch) Close() {
	w.s.mu.Lock()
	delete(w.s.watches, w)
	w.s.mu.Unlock()
	w.end()
}

func (w *Watch) end() {
	w.once.Do(func() { w.s.c.release(w.s) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.signal()
}

// Name is the watched context's name.
func (w *Watch) Name() string { return w.s.name }

// put appends a state; when too many wait, only the latest remains.
func (w *Watch) put(st *step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.steps); n >= wire.WatchStates || n > 0 && w.bytes+st.view.Size() > wire.WatchBytes {
		w.conflated += n
		w.s.c.stats.conflated.Add(uint64(n))
		clear(w.steps)
		w.steps, w.bytes = w.steps[:0], 0
	}
	w.steps = append(w.steps, st)
	w.bytes += st.view.Size()
	w.signal()
	if w.wake != nil {
		w.wake()
	}
}

func (w *Watch) signal() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// take returns the next state that waits.
func (w *Watch) take() (st *step, conflated int, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.steps) == 0 {
		if w.closed {
			w.signal() // for the next call
		}
		return nil, 0, w.closed
	}
	st = w.steps[0]
	w.steps[0] = nil
	w.steps = w.steps[1:]
	w.bytes -= st.view.Size()
	conflated, w.conflated = w.conflated, 0
	if len(w.steps) == 0 {
		w.steps = nil
	}
	if len(w.steps) > 0 || w.closed {
		w.signal()
	}
	return st, conflated, false
}

// Next returns the next event, waiting for one. It is false when ctx has ended,
// or when the watch is closed and everything was read. One reader at a time.
func (w *Watch) Next(ctx context.Context) (Event, bool) {
	for {
		e, ok, closed := w.read()
		if ok || closed {
			return e, ok
		}
		select {
		case <-w.ready:
		case <-ctx.Done():
			return Event{}, false
		}
	}
}

// Poll returns the next event if there is one, without waiting. One reader at a
// time.
func (w *Watch) Poll() (Event, bool) {
	e, ok, _ := w.read()
	return e, ok
}

// read returns the next event that waits.
func (w *Watch) read() (e Event, ok, closed bool) {
	for {
		st, conflated, closed := w.take()
		if st == nil {
			return Event{}, false, closed
		}
		w.skipped += conflated
		if e, ok := w.event(st); ok {
			e.Conflated, w.skipped = w.skipped, 0
			return e, true, false
		}
	}
}

// Events yields what Next returns. It may be ranged over again.
func (w *Watch) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			e, ok := w.Next(ctx)
			if !ok || !yield(e) {
				return
			}
		}
	}
}

// event is the difference between what the reader has and a state, if there is
// one.
func (w *Watch) event(st *step) (Event, bool) {
	before, now := w.last, st.state
	if now.view != nil && !w.s.c.may(w.app, now.meta, toRead) {
		now = state{since: now.since, denied: true, lates: now.lates}
	}
	if now.lates != before.lates {
		w.s.mu.Lock()
		w.s.reads(w.app, now.lates)
		w.s.mu.Unlock()
	}
	w.last = now
	e := Event{State: now.public(w.s)}
	if !w.begun {
		w.begun = true
		return e, true
	}
	changes := st.changes
	e.Edits = st.edits
	if st.from != before.view || st.view != now.view {
		changes, e.Edits = kv.Diff(before.view, now.view), nil
	}
	switch {
	case before.view == nil && now.view != nil:
		e.Kind = Created
	case before.view != nil && now.view == nil:
		e.Kind = Destroyed
	case len(changes) > 0:
		e.Kind = Changed
	case !before.since.IsZero() && now.since.IsZero():
		e.Kind = Online
	case before.since.IsZero() && !now.since.IsZero():
		e.Kind = Offline
	default:
		return e, false
	}
	for _, c := range changes {
		e.Changes = append(e.Changes, Change{Path: c.Path, Value: c.Value.Payload()})
	}
	return e, true
}
