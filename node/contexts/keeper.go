package contexts

import (
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// settledFor is how long the directory must have been complete, and how long a
	// context must have been without anybody whom this node has not seen with it,
	// before it counts as left: others need time to come back after an outage.
	settledFor = 10 * time.Second
	// endJitter spreads what all nodes do when one dies.
	endJitter = 500 * time.Millisecond
	// claimFor is how long who wrote the metadata last, its creator or who began to
	// hold it, counts as somebody who holds the context for all nodes but its own: the
	// directory finds out by then what it was not told.
	claimFor = 20 * time.Second
	// lookEvery is how often changes of the directory are looked at, at most.
	lookEvery = 100 * time.Millisecond
	// endRetry is when an end is tried again that failed.
	endRetry = time.Second
	// maxEnding is how many contexts a node ends at a time.
	maxEnding = 16
)

// keeper ends contexts whose lifetime is over. Every node whose apps use contexts has
// one at work, so that it does not matter which of them dies.
type keeper struct {
	c     *Contexts
	names *names // set by run
	kick  chan struct{}

	mu    sync.Mutex
	holds map[subjects.App]map[string]hold // of apps of this node
	// let are ref-counted contexts that an app of this node held and holds no more.
	let      map[string]bool
	complete time.Time // since when the directory is, zero while it is not
	kept     map[subjects.Token]*kept
	ending   int
}

// hold is that an app keeps a ref-counted context. seq is a sequence at which it
// existed, 0 as long as that is not known; id is that of its metadata.
type hold struct {
	seq uint64
	id  string
}

// kept is what a keeper knows of a context that somebody keeps, or has left.
type kept struct {
	created uint64
	seen    bool // somebody kept it
	left    bool // nobody does
	due     time.Time
	ending  bool
	met     subjects.App // the app with a claim was here
}

func newKeeper(c *Contexts) *keeper {
	return &keeper{
		c: c, kick: make(chan struct{}, 1), holds: map[subjects.App]map[string]hold{}, let: map[string]bool{}, kept: map[subjects.Token]*kept{},
	}
}

// run looks at the contexts whenever something has changed.
func (k *keeper) run() {
	c := k.c
	select {
	case <-c.used: // a node whose apps have no contexts has nothing to keep
	case <-c.ctx.Done():
		return
	}
	n, err := c.follow()
	if err != nil {
		return // it has stopped
	}
	k.names = n
	for {
		changed, named := c.cfg.Directory(), n.news()
		wait := k.look()
		select {
		case <-time.After(lookEvery):
		case <-k.kick:
			continue
		case <-c.ctx.Done():
			return
		}
		select {
		case <-changed:
		case <-named:
		case <-k.kick:
		case <-time.After(wait - lookEvery):
		case <-c.ctx.Done():
			return
		}
	}
}

// wake makes it look at once.
func (k *keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// lost notes that the connection was made or lost: who is there has to be found out.
func (k *keeper) lost() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.complete = time.Time{}
}

// isComplete says whether everybody can be seen from here.
func (k *keeper) isComplete() bool { return k.c.online() == nil && k.c.cfg.Complete() }

// look finds contexts that nobody keeps any more and ends them when it is time. It
// returns when to look again.
func (k *keeper) look() time.Duration {
	limited, ready := k.names.limited()
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !ready || !k.isComplete() {
		k.complete = time.Time{}
		return time.Second
	}
	if k.complete.IsZero() {
		k.complete = now
	}
	maps.DeleteFunc(k.kept, func(t subjects.Token, x *kept) bool { return limited[t].created != x.created && !x.ending })
	k.drop()
	next := now.Add(time.Minute)
	for token, x := range limited {
		if at := k.consider(token, x, now); !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	clear(k.let)
	return max(next.Sub(now), lookEvery)
}

// consider looks at one context. It returns when its time will be over, if it is
// left. mu is held.
func (k *keeper) consider(token subjects.Token, x named, now time.Time) (at time.Time) {
	s := k.kept[token]
	if s == nil {
		s = &kept{created: x.created}
		k.kept[token] = s
	}
	if s.ending {
		return time.Time{}
	}
	claimed := k.claimed(x, s, k.names.metaOf(token))
	switch {
	case k.isKept(x):
		s.seen, s.left = true, false
		return time.Time{}
	case claimed.After(now):
		s.seen, s.left = true, false
		return claimed
	case k.let[x.name]: // it is for the node where the last one was
		s.left, s.due = true, now
	case !s.left:
		s.left, s.due = true, now.Add(settledFor)
		if s.seen {
			s.due = now.Add(rand.N(endJitter))
		}
		if s.seen && x.meta.Lifetime == Ownership && x.meta.Node == k.c.cfg.Self {
			s.due = now
		}
	}
	due := s.due
	if x.born.Before(k.complete) && due.Before(k.complete.Add(settledFor)) {
		due = k.complete.Add(settledFor)
	}
	if due.After(now) {
		return due
	}
	if k.ending >= maxEnding {
		return now.Add(lookEvery)
	}
	s.ending = true
	k.ending++
	k.c.wg.Go(func() { k.end(token, x, s) })
	return time.Time{}
}

// isKept says whether somebody keeps a context alive. mu is held.
func (k *keeper) isKept(x named) bool {
	if x.meta.Lifetime == Ownership {
		return k.c.cfg.Alive(x.meta.Owner)
	}
	return k.isHeldHere(x.name, "") || len(k.c.cfg.Holders(x.name)) > 0
}

// claimed is until when the app that wrote the metadata of a ref-counted context last
// counts as one that holds it. mu is held.
func (k *keeper) claimed(x named, s *kept, m metadata) time.Time {
	if x.meta.Lifetime != RefCounted || m.by.App == "" || m.by.Node == k.c.cfg.Self || m.at.IsZero() {
		return time.Time{} // an app of this node holds what it says that it holds
	}
	switch {
	case k.c.cfg.Alive(m.by.App):
		s.met = m.by.App
	case s.met == m.by.App:
		return time.Time{} // it has left
	}
	return m.at.Add(claimFor)
}

// isHeldHere says whether an app of this node holds a context, another than one.
// mu is held.
func (k *keeper) isHeldHere(name string, other subjects.App) bool {
	for app, names := range k.holds {
		if _, ok := names[name]; ok && app != other {
			return true
		}
	}
	return false
}

// end destroys a context that nobody keeps, unless somebody turns up.
func (k *keeper) end(token subjects.Token, x named, s *kept) {
	o := &op{task: destroy, edits: []kv.Edit{{}}, by: Writer{Node: k.c.cfg.Self}, quiet: true}
	o.still = func(e *kv.Entry) error { return k.isLeft(token, x, s, e) }
	err := k.c.do(k.c.ctx, x.name, o, nil)
	if err == nil {
		k.c.stats.ended.Add(1)
		k.c.log.Debug("a context was ended", slog.String("context", x.name), slog.String("lifetime", string(x.meta.Lifetime)))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ending--
	s.ending = false
	if err != nil {
		s.due = time.Now().Add(endRetry)
	}
	if k.kept[token] == s {
		k.wake()
	}
}

// isLeft is nil if nobody keeps a context that has the metadata e, else why it must not
// be ended. Whoever begins to hold it writes that again, see [shared.touch].
func (k *keeper) isLeft(token subjects.Token, x named, s *kept, e *kv.Entry) error {
	now, err := readMeta(e)
	if err != nil || !now.same(x.meta) {
		return wire.Errorf(wire.Rejected, "context %q is another one by now", x.name)
	}
	m := k.names.metaOf(token)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !k.isComplete():
		return wire.Errorf(wire.Rejected, "context %q: it is not known who keeps it", x.name)
	case m.seq != e.Seq, k.isKept(x), k.claimed(x, s, m).After(time.Now()):
		return wire.Errorf(wire.Rejected, "context %q is kept", x.name)
	}
	return nil
}

// add notes that an app holds a context and tells the directory; before says whether
// another app of this node is known to hold it.
func (k *keeper) add(app subjects.App, name string) (before bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for other, names := range k.holds {
		before = before || other != app && names[name].seq > 0
	}
	names := k.holds[app]
	if _, ok := names[name]; ok {
		return before || names[name].seq > 0, nil
	}
	if names == nil {
		names = map[string]hold{}
	}
	names[name] = hold{}
	if err := k.tell(app, names); err != nil {
		delete(names, name)
		return false, err
	}
	k.holds[app] = names
	return before, nil
}

// confirm notes that a context was there, at a sequence, while an app held it.
func (k *keeper) confirm(app subjects.App, name string, h hold) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.holds[app][name]; ok { // it has not left meanwhile
		k.holds[app][name] = h
	}
}

// remove notes that an app does not hold a context any more.
func (k *keeper) remove(app subjects.App, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget(app, name)
}

// forget is remove. mu is held.
func (k *keeper) forget(app subjects.App, name string) {
	names := k.holds[app]
	if _, ok := names[name]; !ok {
		return
	}
	delete(names, name)
	if len(names) == 0 {
		delete(k.holds, app)
	}
	if err := k.tell(app, names); err != nil {
		k.c.log.Debug("the directory was not told what an app holds", slog.String("app", string(app)), slog.Any("error", err))
	}
	if !k.isHeldHere(name, "") {
		k.let[name] = true
		k.wake()
	}
}

// tell tells the directory what an app holds. mu is held, so that it hears of
// changes in their order.
func (k *keeper) tell(app subjects.App, names map[string]hold) error {
	return k.c.cfg.Hold(app, slices.Sorted(maps.Keys(names)))
}

// leave notes that an app has left.
func (k *keeper) leave(app subjects.App) {
	k.mu.Lock()
	defer k.mu.Unlock()
	names := k.holds[app]
	delete(k.holds, app)
	for name := range names {
		if !k.isHeldHere(name, "") {
			k.let[name] = true
		}
	}
	k.wake()
}

// drop forgets holds of contexts that are gone. mu is held.
func (k *keeper) drop() {
	for app, held := range k.holds {
		for name, h := range maps.Clone(held) {
			if h.seq > 0 && k.names.isGone(name, h) {
				k.forget(app, name)
			}
		}
	}
}
