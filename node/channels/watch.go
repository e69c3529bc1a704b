package channels

import (
	"context"
	"iter"
	"slices"
	"sync"

	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/wire"
)

// Kind is what an [Update] or an [Event] reports.
type Kind uint8

// The kinds. Of a watch: Joined and Left say where the app is, Snapshot is the
// whole channel, Changed a difference, Removed the end of the channel; Offline and
// Online say that Channel.Since has changed and nothing else. Of [App.Events]:
// Added, Removed, MemberJoined and MemberLeft.
const (
	Joined Kind = iota
	Left
	Snapshot
	Changed
	Removed
	Offline
	Online
	Added
	MemberJoined
	MemberLeft
)

// String is the kind's name in logs and on the command line.
func (k Kind) String() string {
	return [...]string{"joined", "left", "snapshot", "changed", "removed", "offline", "online", "added", "member-joined", "member-left"}[k]
}

// Update is one step of a watch.
type Update struct {
	Kind Kind
	// Channel is the channel as it is now, and by whom. Of Joined, Left and Removed
	// it has the name, and of Removed who did it.
	Channel Channel
	// Changes lead from the data of the update before to this one; their paths are
	// relative to the data. There are none if something beside it has changed.
	Changes []contexts.Change
	// Conflated is how many states were left out because the reader was slow.
	Conflated int
}

// Watch is what an app sees of a channel over time: of whichever it is on
// ([App.Watch]), or of a certain one ([App.WatchChannel]).
type Watch struct {
	a     *App
	s     *session
	fixed string          // the channel, "" for the app's
	ctx   context.Context // ends with Close, and when the app leaves
	end   context.CancelFunc

	mu    sync.Mutex
	inner *contexts.Watch // nil on no channel

	stay *stay // that the reader knows of; it belongs to the reader
}

// Watch follows the app from channel to channel. If it is on one now, Joined and
// Snapshot come first.
func (a *App) Watch(ctx context.Context) (*Watch, error) {
	a.c.ready(ctx)
	return a.watch("")
}

// WatchChannel yields a Snapshot of a channel, then its changes. After Removed
// another Snapshot comes when a channel of the name is added again. A channel that
// is not there is bad-name.
func (a *App) WatchChannel(ctx context.Context, name string) (*Watch, error) {
	a.c.ready(ctx)
	if _, err := a.get(ctx, name); err != nil {
		return nil, err
	}
	w, err := a.watch(name)
	if err != nil {
		return nil, err
	}
	if err := w.open(name); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (a *App) watch(fixed string) (*Watch, error) {
	s, err := a.c.session(a.id)
	if err != nil {
		return nil, err
	}
	w := &Watch{a: a, s: s, fixed: fixed}
	w.ctx, w.end = context.WithCancel(s.ctx)
	return w, nil
}

// open begins to watch a channel's context.
func (w *Watch) open(channel string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	inner, err := w.a.contexts.Watch(w.ctx, Prefix+channel)
	if err != nil {
		return err
	}
	if w.ctx.Err() != nil { // nobody would close it
		inner.Close()
		return wire.Errorf(wire.TargetGone, "the watch is closed")
	}
	w.inner = inner
	return nil
}

// shut ends the watch of the context.
func (w *Watch) shut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inner != nil {
		w.inner.Close()
		w.inner = nil
	}
}

// Close ends the watch. It may be called more than once.
func (w *Watch) Close() {
	w.end()
	w.shut()
}

// Next returns the next update, waiting for one. It is false when ctx has ended,
// the watch is closed, or the app has left. One reader at a time.
func (w *Watch) Next(ctx context.Context) (Update, bool) {
	for w.ctx.Err() == nil && ctx.Err() == nil {
		now, moved := w.s.where()
		switch {
		case w.fixed != "":
		case w.stay != nil && now != w.stay:
			u := Update{Kind: Left, Channel: Channel{Name: w.stay.channel}}
			if w.stay.removed {
				u.Kind, u.Channel.By = Removed, w.stay.by
			}
			w.stay = nil
			w.shut()
			return u, true
		case now == nil:
			select {
			case <-moved:
			case <-ctx.Done():
			case <-w.ctx.Done():
			}
			continue
		case w.stay == nil:
			if w.open(now.channel) != nil {
				return Update{}, false // closed, or the node has stopped
			}
			w.stay = now
			return Update{Kind: Joined, Channel: Channel{Name: now.channel}}, true
		}
		e, ended := w.read(ctx)
		if ended {
			return Update{}, false
		}
		if u, ok := w.update(e); ok {
			return u, true
		}
	}
	return Update{}, false
}

// read waits for the next event of the channel's context, nil if the app has moved
// or ctx has ended.
func (w *Watch) read(ctx context.Context) (e *contexts.Event, ended bool) {
	w.mu.Lock()
	inner := w.inner
	w.mu.Unlock()
	if inner == nil {
		return nil, true // closed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	if w.stay != nil {
		defer context.AfterFunc(w.stay.ctx, cancel)()
	}
	got, ok := inner.Next(ctx)
	if !ok {
		return nil, ctx.Err() == nil
	}
	return &got, false
}

// update is what an event of the channel's context means to the reader, if
// anything.
func (w *Watch) update(e *contexts.Event) (Update, bool) {
	if e == nil {
		return Update{}, false
	}
	name := w.fixed
	if w.stay != nil {
		name = w.stay.channel
		// When the channel is removed the stay ends, and says so.
		if now, _ := w.s.where(); now != w.stay || !e.Exists {
			return Update{}, false
		}
	}
	u := Update{Conflated: e.Conflated}
	switch {
	case !e.Exists:
		u.Kind, u.Channel = Removed, Channel{Name: name, Revision: e.Revision, By: e.By, Since: e.Since}
		return u, true
	case e.Kind == contexts.Changed:
		u.Kind, u.Changes = Changed, dataChanges(e)
	case e.Kind == contexts.Offline:
		u.Kind = Offline
	case e.Kind == contexts.Online:
		u.Kind = Online
	default:
		u.Kind = Snapshot
	}
	u.Channel = channel(name, e.State)
	return u, true
}

// dataChanges are the changes below data, relative to it.
func dataChanges(e *contexts.Event) []contexts.Change {
	var list []contexts.Change
	for _, c := range e.Changes {
		if len(c.Path) > 0 && c.Path[0] == "data" {
			list = append(list, contexts.Change{Path: slices.Clip(c.Path[1:]), Value: c.Value})
		}
	}
	return list
}

// Updates yields what Next returns. It may be ranged over again.
func (w *Watch) Updates(ctx context.Context) iter.Seq[Update] {
	return func(yield func(Update) bool) {
		for {
			u, ok := w.Next(ctx)
			if !ok || !yield(u) {
				return
			}
		}
	}
}
