package topics

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Config is what a Topics works with. Realm, Self and Data are required.
type Config struct {
	Realm subjects.Realm
	Self  subjects.Node
	// Data is the node's data link; it must have NoEcho.
	Data *link.Link
	// Logger receives what no caller can be told; nil discards.
	Logger *slog.Logger
	// Identity looks up any app of the realm. It is called for every message
	// that arrives and must not block. Without it all publishers of other
	// nodes are known by their node only.
	Identity func(subjects.App) (wire.Identity, bool)
}

// Topics is the pub/sub of one node in one realm. Create it with [New].
type Topics struct {
	cfg     Config
	log     *slog.Logger
	permits permits
	// asking holds one token: who asks NATS for a permission. One at a time,
	// because the connection keeps its last error only.
	asking chan struct{}

	// mu is taken before a Subscription's and never held across I/O or a
	// callback. Messages are put into queues under its read side.
	mu        sync.RWMutex
	interests map[string]*interest // by pattern
	wild      map[*interest]struct{}
	apps      map[subjects.App]map[*Subscription]struct{}
	offline   bool
	closed    bool

	published, delivered, dropped, refused, denied atomic.Uint64
}

// interest is what this node has in one pattern. Its fields but the first
// ones, which never change, are guarded by Topics.mu.
type interest struct {
	pattern string
	filter  subjects.Subject
	wild    bool

	subs map[*Subscription]struct{}
	sub  *nats.Subscription // nil until attached
	gone bool               // the last of subs has left: not in the map any more
}

// Stats counts since the start.
type Stats struct {
	// Published are the messages of this node's apps.
	Published uint64
	// Delivered and Dropped are counted per subscription: what was put into
	// its queue, and what it was told that it lost because it was slow.
	Delivered, Dropped uint64
	// Refused are hostile or malformed messages.
	Refused uint64
	// Denied are publishes and subscriptions that NATS permissions forbid.
	Denied uint64
}

// New makes the pub/sub of a node. The link may be offline.
func New(cfg Config) *Topics {
	t := &Topics{
		cfg: cfg, log: cfg.Logger, offline: cfg.Data.Online() != nil, asking: make(chan struct{}, 1),
		interests: map[string]*interest{}, wild: map[*interest]struct{}{},
		apps: map[subjects.App]map[*Subscription]struct{}{},
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	return t
}

// Subscribe subscribes app, one of this node's, to the topics that match
// pattern. When it returns, NATS knows of it; while offline it works between
// the apps of this node, and beyond once the link is back. The errors are
// bad-name, bad-payload (a filter of properties that do not exist), limit,
// denied, and those of a link or ctx that ends meanwhile.
func (t *Topics) Subscribe(ctx context.Context, app wire.Identity, pattern string, opts ...SubscribeOption) (*Subscription, error) {
	var o subscribing
	for _, opt := range opts {
		opt(&o)
	}
	id, err := subjects.ParseApp(app.App)
	if err != nil {
		return nil, badName("subscriber", err)
	}
	filter, err := t.cfg.Realm.TopicFilter(pattern)
	if err != nil {
		return nil, badName("pattern", err)
	}
	if err := checkKey(o.key); err != nil {
		return nil, err
	}
	if err := o.from.Check(); err != nil {
		return nil, err
	}
	s := newSubscription(t, id, app, o)
	if err := t.join(s, pattern, filter); err != nil {
		return nil, err
	}
	if err := t.attach(ctx, s.interest); err != nil {
		s.Close()
		if wire.CodeOf(err) == wire.Denied {
			t.denied.Add(1)
		}
		return nil, err
	}
	return s, nil
}

// join makes s known, so that messages reach it from now on.
func (t *Topics) join(s *Subscription, pattern string, filter subjects.Subject) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errClosed()
	}
	if n := len(t.apps[s.app]); n >= wire.MaxSubscriptions {
		return wire.Errorf(wire.Limit, "subscribe to %q: %s has %d subscriptions, the limit is %d", pattern, s.app, n, wire.MaxSubscriptions)
	}
	if t.apps[s.app] == nil {
		t.apps[s.app] = map[*Subscription]struct{}{}
	}
	t.apps[s.app][s] = struct{}{}
	it := t.interests[pattern]
	if it == nil {
		it = &interest{
			pattern: pattern, filter: filter, wild: hasWildcard(pattern),
			subs: map[*Subscription]struct{}{},
		}
		t.interests[pattern] = it
		if it.wild {
			t.wild[it] = struct{}{}
		}
	}
	it.subs[s] = struct{}{}
	s.interest = it
	return nil
}

// attach subscribes on NATS for the first subscription of a pattern; the
// others wait until that is known to be allowed.
func (t *Topics) attach(ctx context.Context, it *interest) error {
	settled := func() bool {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return it.sub != nil || it.gone
	}
	if settled() {
		return nil
	}
	select {
	case t.asking <- struct{}{}:
		defer func() { <-t.asking }()
	case <-ctx.Done():
		return wire.AsError(ctx.Err())
	}
	if settled() { // by the one before
		return nil
	}
	f := &feed{topics: t, interest: it}
	sub, err := t.cfg.Data.Subscribe(ctx, string(it.filter), "", f.receive, f.dropped)
	if err != nil {
		f.dead.Store(true)
		return err
	}
	t.mu.Lock()
	gone := it.gone
	if !gone {
		it.sub = sub
	}
	t.mu.Unlock()
	if gone {
		t.cfg.Data.Unsubscribe(sub)
	}
	return nil
}

// part forgets s, and the NATS subscription with the last of its pattern.
func (t *Topics) part(s *Subscription) {
	t.mu.Lock()
	delete(t.apps[s.app], s)
	if len(t.apps[s.app]) == 0 {
		delete(t.apps, s.app)
	}
	it := s.interest
	delete(it.subs, s)
	var sub *nats.Subscription
	if len(it.subs) == 0 && !it.gone {
		it.gone = true
		sub, it.sub = it.sub, nil
		delete(t.interests, it.pattern)
		delete(t.wild, it)
	}
	t.mu.Unlock()
	if sub != nil {
		t.cfg.Data.Unsubscribe(sub)
	}
}

// Leave closes the subscriptions of an app.
func (t *Topics) Leave(app subjects.App) {
	t.mu.RLock()
	subs := make([]*Subscription, 0, len(t.apps[app]))
	for s := range t.apps[app] {
		subs = append(subs, s)
	}
	t.mu.RUnlock()
	for _, s := range subs {
		s.Close()
	}
}

// Connected says that the data link came or went. It does not block, so a
// link's OnState may call it. When the link is back after an outage every
// subscription is told, once, that it may have missed messages.
func (t *Topics) Connected(online bool, reason string) {
	t.mu.Lock()
	back := online && t.offline
	changed := online == t.offline
	t.offline = !online
	if back {
		for _, subs := range t.apps {
			for s := range subs {
				s.outage()
			}
		}
	}
	t.mu.Unlock()
	if changed {
		t.log.Debug("topics between machines", slog.Bool("online", online), slog.String("reason", reason))
	}
}

// Close ends all subscriptions; their readers still get what is queued. Later
// calls of Publish and Subscribe fail with unavailable.
func (t *Topics) Close() {
	t.mu.Lock()
	t.closed = true
	apps := make([]subjects.App, 0, len(t.apps))
	for app := range t.apps {
		apps = append(apps, app)
	}
	t.mu.Unlock()
	for _, app := range apps {
		t.Leave(app)
	}
}

// Stats returns the counters.
func (t *Topics) Stats() Stats {
	return Stats{
		Published: t.published.Load(), Delivered: t.delivered.Load(), Dropped: t.dropped.Load(),
		Refused: t.refused.Load(), Denied: t.denied.Load(),
	}
}

// hasWildcard says whether pattern matches more than the topic of its name.
func hasWildcard(pattern string) bool {
	for token, left, more := "", pattern, true; more; {
		token, left, more = strings.Cut(left, ".")
		if token == "*" || token == ">" && !more {
			return true
		}
	}
	return false
}

func badName(what string, err error) error { return wire.Errorf(wire.BadName, "%s: %w", what, err) }

func errClosed() error { return wire.Errorf(wire.Unavailable, "pub/sub is closed") }
