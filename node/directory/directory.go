package directory

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// The times of the liveness protocol.
const (
	heartbeat   = 3 * time.Second
	lease       = 10 * time.Second
	blindFor    = 10 * time.Second // how long the remote view outlives the connection
	flapGrace   = 5 * time.Second  // how long a suspect may take to come back
	pingTimeout = time.Second
	digestEvery = 10 * time.Second
	syncTimeout = 10 * time.Second
	syncRetry   = 10 * time.Second // at most, after failures
	leaveWithin = time.Second
	pingJitter  = 500 * time.Millisecond
	rereadAfter = 5 * time.Minute // a full snapshot against lost messages, and ...
	rereadPeer  = time.Second     // ... this for each node, so that the sum stays small
	manifestTTL = 24 * time.Hour
	manifestRe  = 8 * time.Hour
	maxCached   = 4096 // manifests
	maxReasons  = 1024 // of nodes that were removed, for slow watchers
)

// Config says who this node is.
type Config struct {
	Realm   subjects.Realm
	Self    subjects.Node
	Boot    string
	Machine string
	Host    string
	User    string
	Version string
	Hidden  bool
	Link    *link.Link
	Logger  *slog.Logger
	// OnSync is told after every attempt to read the directory and to assert
	// this node in it: nil when it succeeded.
	OnSync func(error)
	// OnClaim is called once, when the node's id is known to be free and before
	// its document is written: whoever is found must be reachable.
	OnClaim func(context.Context) error
}

// Directory is one realm's directory. Create it with [New] and run [Directory.Run].
type Directory struct {
	cfg    Config
	log    *slog.Logger
	bucket *kv.Bucket

	// mu guards the fields that follow; it is never held across I/O.
	mu      sync.RWMutex
	view    *View
	index   map[string][]Server // by lower-case method name, in order of discovery
	changed chan struct{}
	self    *Node
	version uint64        // of the local document
	acked   uint64        // the version that the server has
	settled chan struct{} // closed after each attempt to write
	failed  error         // of the last attempt
	reasons map[subjects.Node]string

	work    chan func() // runs on Run's goroutine
	conn    chan bool
	dirty   chan struct{}
	done    chan struct{}
	wg      sync.WaitGroup
	claimed atomic.Bool
	// The goroutine that reads has attached and freed: OnClaim was called, and
	// the sequence at which this node's id was known to be free.
	attached bool
	freed    uint64
	rogue    atomic.Uint64

	// The fields that follow belong to Run's goroutine.
	peers     map[subjects.Node]*peer
	manifests map[string]*wire.Manifest
	fetching  map[string]bool
	created   time.Time
	readAt    time.Time // when the last snapshot was taken
	ownSeq    uint64
	upTo      uint64 // the highest sequence seen below n.
	syncing   bool
	epoch     context.Context
	endEpoch  context.CancelFunc
	follow    *nats.Subscription

	// stored is when each manifest was put; it belongs to the asserter.
	stored map[string]time.Time
	forget atomic.Bool
}

// peer is what the directory knows of another node.
type peer struct {
	seq uint64
	doc *wire.NodeDoc
	ask *asking // while it is suspect
	// purged says that doc is not in the bucket any more, lost that the node did
	// not answer and is not in the view, although its document may be there.
	purged, lost bool
}

// New makes a directory with no apps that knows nobody.
func New(cfg Config) *Directory {
	d := &Directory{
		cfg: cfg, log: cfg.Logger, bucket: kv.Directory(cfg.Link, cfg.Realm),
		index: map[string][]Server{}, changed: make(chan struct{}), settled: make(chan struct{}), reasons: map[subjects.Node]string{},
		work: make(chan func(), 256), conn: make(chan bool, 16), dirty: make(chan struct{}, 1), done: make(chan struct{}),
		peers: map[subjects.Node]*peer{}, manifests: map[string]*wire.Manifest{}, fetching: map[string]bool{}, stored: map[string]time.Time{},
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.version = 1 // a node without apps has a document, too
	d.self = &Node{
		ID: cfg.Self, Boot: cfg.Boot, Machine: cfg.Machine, Host: cfg.Host, User: cfg.User, Version: cfg.Version,
		Hidden: cfg.Hidden, Local: true, apps: map[subjects.App]*App{},
	}
	d.view = &View{Nodes: map[subjects.Node]*Node{cfg.Self: d.self}, boots: map[string]*Node{cfg.Boot: d.self}}
	return d
}

// View is who is here now.
func (d *Directory) View() *View {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.view
}

// Changed is closed at the next change of the view.
func (d *Directory) Changed() <-chan struct{} {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.changed
}

// Servers lists the apps that offer a method or stream of this name, whatever
// its case, in order of discovery.
func (d *Directory) Servers(name string) []Server {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := slices.Clone(d.index[strings.ToLower(name)])
	for i := range list {
		if n := d.view.Nodes[list[i].App.Node]; n != nil {
			list[i].Suspect = n.Suspect
		}
	}
	return list
}

// App returns an app by its id, wherever it is.
func (d *Directory) App(id subjects.App) (*App, bool) { return d.View().App(id) }

// Rogue counts documents and purges that were ignored because somebody else
// than their node wrote them, or because they made no sense.
func (d *Directory) Rogue() uint64 { return d.rogue.Load() + d.bucket.Foreign() }

// ClockOffset is this machine's wall clock minus the server's.
func (d *Directory) ClockOffset() time.Duration { return d.bucket.ClockOffset() }

func (d *Directory) reason(n subjects.Node) string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.reasons[n]
}

// AddApp adds a local app. Its identity must have been stamped; domains is nil
// unless the app is a gateway client.
func (d *Directory) AddApp(id subjects.App, identity wire.Identity, domains map[string]string) error {
	if err := checkApp(id, &wire.AppDoc{Identity: identity, Domains: domains}); err != nil {
		return err
	}
	return d.setLocal(func(apps []*App) ([]*App, error) {
		if len(apps) >= wire.MaxApps {
			return nil, wire.Errorf(wire.Limit, "apps on node %s: %d, the limit is %d (%s)", d.cfg.Self, len(apps)+1, wire.MaxApps, identity.Application)
		}
		return append(slices.Clone(apps), &App{ID: id, Identity: identity, Node: d.cfg.Self, SameMachine: true, Local: true, Domains: maps.Clone(domains)}), nil
	})
}

// RemoveApp removes a local app and what it offers.
func (d *Directory) RemoveApp(id subjects.App) {
	_ = d.setLocal(func(apps []*App) ([]*App, error) { // never refuses
		return slices.DeleteFunc(slices.Clone(apps), func(a *App) bool { return a.ID == id }), nil
	})
}

// SetMethods replaces what a local app offers.
func (d *Directory) SetMethods(id subjects.App, methods []*wire.Method) error {
	if len(methods) > wire.MaxMethods {
		return wire.Errorf(wire.Limit, "methods of app %s: %d, the limit is %d", id, len(methods), wire.MaxMethods)
	}
	return d.setApp(id, func(a *App) { a.Methods = slices.Clone(methods) })
}

// SetChannels replaces the channels that a local app has joined.
func (d *Directory) SetChannels(id subjects.App, channels []string) error {
	if err := checkChannels(id, channels); err != nil {
		return err
	}
	return d.setApp(id, func(a *App) { a.Channels = slices.Clone(channels) })
}

// SetDomains replaces the domains that a local gateway client has joined.
func (d *Directory) SetDomains(id subjects.App, domains map[string]string) error {
	if err := checkDomains(id, domains); err != nil {
		return err
	}
	return d.setApp(id, func(a *App) { a.Domains = maps.Clone(domains) })
}

// SetHolds replaces the ref-counted contexts that a local app keeps alive.
func (d *Directory) SetHolds(id subjects.App, contexts []string) error {
	if err := checkHolds(id, contexts); err != nil {
		return err
	}
	return d.setApp(id, func(a *App) { a.Holds = slices.Clone(contexts) })
}

// checkApp is for writer and reader.
func checkApp(id subjects.App, a *wire.AppDoc) error {
	if len(a.Identity.Extra) > wire.MaxExtra {
		return wire.Errorf(wire.Limit, "further claims of app %s: %d bytes, the limit is %d", id, len(a.Identity.Extra), wire.MaxExtra)
	}
	if err := checkChannels(id, a.Channels); err != nil {
		return err
	}
	if err := checkDomains(id, a.Domains); err != nil {
		return err
	}
	return checkHolds(id, a.Holds)
}

func checkDomains(id subjects.App, domains map[string]string) error {
	if len(domains) > wire.MaxDomains {
		return wire.Errorf(wire.Limit, "domains of app %s: %d, the limit is %d", id, len(domains), wire.MaxDomains)
	}
	for name, restrictions := range domains {
		if n := max(len(name), len(restrictions)); n > wire.MaxRestrictions {
			return wire.Errorf(wire.Limit, "a domain of app %s, or its restrictions: %d bytes, the limit is %d", id, n, wire.MaxRestrictions)
		}
	}
	return nil
}

func checkHolds(id subjects.App, contexts []string) error {
	if len(contexts) > wire.MaxHolds {
		return wire.Errorf(wire.Limit, "ref-counted contexts of app %s: %d, the limit is %d", id, len(contexts), wire.MaxHolds)
	}
	for _, name := range contexts {
		if _, err := subjects.Encode(name); err != nil || name == "" {
			return wire.Errorf(wire.BadName, "app %s holds context %q, which cannot be", id, name)
		}
	}
	return nil
}

// checkChannels is for writer and reader.
func checkChannels(id subjects.App, channels []string) error {
	if len(channels) > wire.MaxChannels {
		return wire.Errorf(wire.Limit, "channels of app %s: %d, the limit is %d", id, len(channels), wire.MaxChannels)
	}
	for i, name := range channels {
		if _, err := subjects.Encode(name); err != nil || name == "" {
			return wire.Errorf(wire.BadName, "app %s on channel %q, which cannot be", id, name)
		}
		if slices.Contains(channels[:i], name) {
			return wire.Errorf(wire.BadPayload, "app %s twice on channel %q", id, name)
		}
	}
	return nil
}

// setApp changes one local app.
func (d *Directory) setApp(id subjects.App, change func(*App)) error {
	return d.setLocal(func(apps []*App) ([]*App, error) {
		apps = slices.Clone(apps)
		i := slices.IndexFunc(apps, func(a *App) bool { return a.ID == id })
		if i < 0 {
			return nil, wire.Errorf(wire.TargetGone, "app %s has left", id)
		}
		a := *apps[i]
		change(&a)
		apps[i] = &a
		return apps, nil
	})
}

// setLocal changes the local document; the asserter sends it.
func (d *Directory) setLocal(change func([]*App) ([]*App, error)) error {
	d.mu.Lock()
	apps, err := change(d.self.Apps)
	if err != nil {
		d.mu.Unlock()
		return err
	}
	n := *d.self
	n.Apps = apps
	d.self = &n
	d.version++
	d.replace(&n)
	d.mu.Unlock()
	d.touch()
	return nil
}

// touch wakes the asserter.
func (d *Directory) touch() {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

// Settle waits until other nodes can read what local apps did so far. While
// NATS is away it returns at once: the document is asserted on return.
func (d *Directory) Settle(ctx context.Context) error { return d.await(ctx, false) }

// await is Settle; a strict one returns why an attempt to write failed instead
// of waiting for the next.
func (d *Directory) await(ctx context.Context, strict bool) error {
	d.mu.RLock()
	want := d.version
	d.mu.RUnlock()
	for {
		d.mu.RLock()
		acked, settled, failed := d.acked, d.settled, d.failed
		d.mu.RUnlock()
		switch {
		case acked >= want || !d.cfg.Link.State().Online || !d.claimed.Load():
			return nil
		case strict && failed != nil:
			return failed
		}
		select {
		case <-settled:
		case <-time.After(heartbeat): // the link may have gone without a word
		case <-ctx.Done():
			return ctx.Err()
		case <-d.done:
			return nil
		}
	}
}

// settle wakes everyone in Settle, after an attempt to write or a state change.
func (d *Directory) settle(version uint64, err error) {
	d.mu.Lock()
	d.acked = max(d.acked, version)
	d.failed = err
	close(d.settled)
	d.settled = make(chan struct{})
	d.mu.Unlock()
}

// unsettle makes the asserter write again: whatever the server had of this node
// may be gone.
func (d *Directory) unsettle() {
	d.mu.Lock()
	d.acked, d.failed = 0, nil
	d.mu.Unlock()
	d.touch()
}

// replace puts a node in the view; mu is held.
func (d *Directory) replace(n *Node) {
	if n.apps == nil || n.Local {
		n.apps = make(map[subjects.App]*App, len(n.Apps))
		for _, a := range n.Apps {
			n.apps[a.ID] = a
		}
	}
	d.update(n.ID, n)
}

// remove takes a node out of the view.
func (d *Directory) remove(id subjects.Node, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.view.Nodes[id] != nil {
		if len(d.reasons) >= maxReasons {
			clear(d.reasons)
		}
		d.reasons[id] = why
		d.update(id, nil)
	}
}

// update changes view and index; now is nil to remove. mu is held.
func (d *Directory) update(id subjects.Node, now *Node) {
	old := d.view.Nodes[id]
	v := &View{Nodes: maps.Clone(d.view.Nodes), boots: maps.Clone(d.view.boots)}
	if old != nil {
		delete(v.boots, old.Boot)
	}
	if now == nil {
		delete(v.Nodes, id)
	} else {
		v.Nodes[id], v.boots[now.Boot] = now, now
	}
	was, is := appsOf(old), appsOf(now)
	for appID, a := range was {
		if b := is[appID]; b != a {
			d.unindex(a, b)
		}
	}
	if now != nil {
		for _, b := range now.Apps {
			if was[b.ID] != b {
				d.reindex(b)
			}
		}
	}
	d.view = v
	close(d.changed)
	d.changed = make(chan struct{})
}

// unindex removes the methods that a had and b, which may be nil, has not.
func (d *Directory) unindex(a, b *App) {
	for _, m := range a.Methods {
		if b != nil {
			if _, still := b.Method(m.Name); still {
				continue
			}
		}
		key := strings.ToLower(m.Name)
		list := slices.DeleteFunc(slices.Clone(d.index[key]), func(s Server) bool { return s.App.ID == a.ID })
		if len(list) == 0 {
			delete(d.index, key)
		} else {
			d.index[key] = list
		}
	}
}

// reindex adds an app's methods, in the place of an earlier state of the app.
func (d *Directory) reindex(a *App) {
	for _, m := range a.Methods {
		key := strings.ToLower(m.Name)
		list := slices.Clone(d.index[key])
		if i := slices.IndexFunc(list, func(s Server) bool { return s.App.ID == a.ID }); i >= 0 {
			list[i] = Server{App: a, Method: m}
		} else {
			list = append(list, Server{App: a, Method: m})
		}
		d.index[key] = list
	}
}
