package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/node/channels"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/node/interop"
	"github.com/weft-fabric/weft/node/journal"
	"github.com/weft-fabric/weft/node/restriction"
	"github.com/weft-fabric/weft/node/topics"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// startWithin is how long Start waits for the directory before it leaves
	// the node to come online by itself.
	startWithin = 10 * time.Second
	// manifestsWithin is how long it then waits for the methods of others.
	manifestsWithin = 3 * time.Second
	manifestPoll    = 200 * time.Millisecond
)

// Realm is a node's part in one realm: its connections and services.
type Realm struct {
	id        identity
	log       *slog.Logger
	control   *link.Link
	data      *link.Link
	directory *directory.Directory
	interop   *interop.Interop
	topics    *topics.Topics
	contexts  *contexts.Contexts
	channels  *channels.Channels
	journal   *journal.Journal // nil without a store
	apps      atomic.Uint64
	links     chan struct{} // a link's state has changed
	ctx       context.Context
	end       context.CancelFunc
	wg        sync.WaitGroup

	mu      sync.Mutex // guards what follows
	state   State
	changed chan struct{}
	synced  bool
	syncErr error
	asking  bool
}

func startRealm(ctx context.Context, id identity, nc NATS, cfg Config, alarms *alarm.Set) (*Realm, error) {
	r := &Realm{id: id, log: cfg.Logger, links: make(chan struct{}, 1), changed: make(chan struct{})}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.state = State{Since: time.Now(), Reason: "starting"}
	r.ctx, r.end = context.WithCancel(context.Background())
	kept, err := r.openJournal(cfg.Store)
	if err != nil { // apps can do without
		alarms.Raise(r, alarm.Alarm{Kind: alarm.StoreUnusable, Text: "nothing can be written while the fabric is away: " + err.Error()})
	}
	if err := r.open(ctx, nc); err != nil {
		r.end()
		return nil, errors.Join(err, r.closeJournal())
	}
	r.directory = directory.New(directory.Config{
		Realm: id.realm, Self: id.node, Boot: id.boot, Machine: id.machine, Host: id.host, User: id.user, Version: id.version,
		Hidden: cfg.Hidden, Link: r.control, Logger: r.log, OnSync: r.onSync, OnClaim: func(ctx context.Context) error { return r.interop.Attach(ctx) },
	})
	r.interop = interop.New(interop.Config{
		Realm: id.realm, Self: id.node, Boot: id.boot, Directory: r.directory, Control: r.control, Data: r.data, Logger: r.log,
	})
	r.contexts = contexts.New(contexts.Config{
		Realm: id.realm, Self: id.node, Link: r.control, Logger: r.log, Alarms: alarms, CompactAt: cfg.CompactAt,
		Identity: r.identityOf, Attributes: func(id *Identity) restriction.Attributes { return id.Attribute },
		Directory: r.directory.Changed, Complete: func() bool { return r.State().Online }, Alive: r.isHere,
		Holders: r.holders, Hold: r.directory.SetHolds, Settle: r.directory.Settle,
		Journal: r.journal, Kept: kept, Policies: cfg.Policies,
	})
	r.channels = channels.New(channels.Config{Self: id.node, Directory: r.directory, Contexts: r.contexts, Hidden: cfg.Hidden, Logger: r.log})
	r.topics = topics.New(topics.Config{Realm: id.realm, Self: id.node, Data: r.data, Logger: r.log, Identity: r.identityOf})
	dirCtx, leave := context.WithCancel(context.Background())
	left := make(chan struct{})
	go func() { // ended by stop, through r.end
		defer close(left)
		r.directory.Run(dirCtx)
	}()
	r.wg.Go(func() { r.supervise(leave, left) })
	if err := r.settle(ctx); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// openJournal opens the realm's journal in the node's store, if it has one, and returns
// what an earlier run has left there.
func (r *Realm) openJournal(store string) (kept []journal.Record, err error) {
	if store == "" {
		return nil, nil
	}
	if err := os.MkdirAll(store, 0o700); err != nil {
		return nil, fmt.Errorf("node: store: %w", err)
	}
	r.journal, kept, err = journal.Open(filepath.Join(store, "journal-"+string(r.id.realm)), journal.DefaultLimit, r.log)
	return kept, err
}

func (r *Realm) closeJournal() error {
	if r.journal == nil {
		return nil
	}
	return r.journal.Close()
}

// open opens the two links.
func (r *Realm) open(ctx context.Context, nc NATS) (err error) {
	cfg := link.Config{
		URL: nc.URL, Options: nc.Options, Node: r.id.node, Logger: r.log,
		Name:    fmt.Sprintf("weft %s control", r.id.node),
		OnState: func(link.State) { r.linkChanged() },
	}
	if r.control, err = link.Open(ctx, cfg); err != nil {
		return err
	}
	cfg.Name, cfg.NoEcho = fmt.Sprintf("weft %s data", r.id.node), true
	if r.data, err = link.Open(ctx, cfg); err != nil {
		r.control.Close()
	}
	return err
}

func (r *Realm) linkChanged() {
	select {
	case r.links <- struct{}{}:
	default:
	}
}

// supervise tells the services when the connection comes and goes. On the way
// out it lets the directory say good-bye before the links close.
func (r *Realm) supervise(leave context.CancelFunc, left <-chan struct{}) {
	var seen [2]uint64
	online := false
	for {
		c, d := r.control.State(), r.data.State()
		up, connects := c.Online && d.Online, [2]uint64{c.Connects, d.Connects}
		switch {
		case up && connects != seen:
			seen, online = connects, true
			r.contexts.Connected(true)
			r.channels.Connected(true)
			r.directory.Connected(true) // the last: the node is online when it has read the directory
		case !up && online:
			online = false
			r.setSynced(false, nil)
			r.directory.Connected(false)
			r.contexts.Connected(false)
			r.channels.Connected(false)
			r.topics.Connected(false, reasonOf(c, d))
		}
		r.update()
		select {
		case <-r.links:
		case <-r.ctx.Done():
			leave()
			<-left
			return
		}
	}
}

func reasonOf(c, d link.State) string {
	if !c.Online {
		return c.Reason
	}
	return d.Reason
}

// onSync is called by the directory after each attempt to read it.
func (r *Realm) onSync(err error) {
	if err == nil {
		// Online means that a call finds every method there is; one that
		// cannot be fetched holds nobody up for long.
		ctx, cancel := context.WithTimeout(r.ctx, manifestsWithin)
		r.complete(ctx)
		cancel()
	}
	r.setSynced(err == nil, err)
	r.update()
	if err != nil {
		return
	}
	r.interop.Connected()
	r.topics.Connected(true, "")
	r.mu.Lock()
	join := !r.asking
	r.asking = true
	r.mu.Unlock()
	if join {
		r.wg.Go(r.joinAsk)
	}
}

// joinAsk joins the group that answers calls by name, as soon as this node
// knows everyone's methods.
func (r *Realm) joinAsk() {
	if !r.complete(r.ctx) {
		return
	}
	if err := r.interop.AskGroup(r.ctx); err != nil && r.ctx.Err() == nil {
		r.log.WarnContext(r.ctx, "calls by name are not answered by this node", slog.Any("error", err))
	}
}

// complete waits until the methods of everyone are known.
func (r *Realm) complete(ctx context.Context) bool {
	for {
		changed := r.directory.Changed()
		if r.directory.Complete(ctx) {
			return true
		}
		select {
		case <-changed:
		case <-time.After(manifestPoll): // a manifest that cannot be had changes nothing
		case <-ctx.Done():
			return false
		}
	}
}

func (r *Realm) setSynced(ok bool, err error) {
	r.mu.Lock()
	r.synced, r.syncErr = ok, err
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
}

// update derives the state and announces it if it has changed.
func (r *Realm) update() {
	c, d := r.control.State(), r.data.State()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := State{Online: c.Online && d.Online && r.synced, Since: r.state.Since}
	switch {
	case s.Online:
	case !c.Online || !d.Online:
		s.Reason = reasonOf(c, d)
	case r.syncErr != nil:
		s.Reason = r.syncErr.Error()
	default:
		s.Reason = "reading the directory"
	}
	if s.Online == r.state.Online && s.Reason == r.state.Reason {
		return
	}
	if s.Online != r.state.Online {
		s.Since = time.Now()
	}
	r.state = s
	close(r.changed)
	r.changed = make(chan struct{})
}

// settle waits until the realm is online, or is known to be offline.
func (r *Realm) settle(ctx context.Context) error {
	timer := time.NewTimer(startWithin)
	defer timer.Stop()
	for {
		r.mu.Lock()
		changed, synced, err := r.changed, r.synced, r.syncErr
		r.mu.Unlock()
		switch {
		case synced:
			r.update()
			return nil
		case hopeless(err):
			return err
		case r.control.Online() != nil || r.data.Online() != nil:
			r.update()
			return nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hopeless says whether trying again cannot help.
func hopeless(err error) bool {
	return errors.Is(err, kv.ErrNotProvisioned) || errors.Is(err, directory.ErrTaken) ||
		errors.Is(err, wire.ErrVersion) || errors.Is(err, wire.ErrDenied)
}

// stop ends everything, in the reverse order of the start.
func (r *Realm) stop() {
	r.interop.Close() // leaves the ask group first, then ends apps and handlers
	r.topics.Close()
	r.channels.Close()
	r.contexts.Close()
	r.end() // the directory says good-bye
	r.wg.Wait()
	r.data.Close()
	r.control.Close()
	if err := r.closeJournal(); err != nil {
		r.log.Warn("the journal was not closed cleanly", slog.Any("error", err))
	}
}

// Name is the realm's name.
func (r *Realm) Name() subjects.Realm { return r.id.realm }

// State is whether the realm can be reached.
func (r *Realm) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// States yields the present state and then each change, until ctx ends. A slow
// reader sees the newest.
func (r *Realm) States(ctx context.Context) iter.Seq[State] {
	return func(yield func(State) bool) {
		var last State
		for first := true; ; first = false {
			r.mu.Lock()
			s, changed := r.state, r.changed
			r.mu.Unlock()
			if (first || s != last) && !yield(s) {
				return
			}
			last = s
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Join connects an app. Its identity needs an Application; User, OSUser, Machine,
// Node and App are stamped by the node, PID is this process's unless given.
func (r *Realm) Join(ctx context.Context, id Identity) (*App, error) {
	if id.Application == "" {
		return nil, wire.Errorf(wire.BadName, "an app needs an Application")
	}
	id.User = r.id.user
	if id.PID == 0 {
		id.PID = os.Getpid()
	}
	a, err := r.join(func(subjects.App) Identity { return id }, nil)
	if err != nil {
		return nil, err
	}
	if err := a.Settle(ctx); err != nil {
		a.Leave()
		return nil, err
	}
	return a, nil
}

// JoinClient connects a client of the gateway, which keeps its claims: User is
// the login, and there need not be an Application. identity is called with the
// client's id. It does not wait until other nodes can see the client.
func (r *Realm) JoinClient(identity func(app subjects.App) Identity) (*Client, error) {
	a, err := r.join(identity, map[string]string{"global": ""})
	if err != nil {
		return nil, err
	}
	return &Client{App: a}, nil
}

func (r *Realm) join(identity func(subjects.App) Identity, domains map[string]string) (*App, error) {
	app := subjects.NewApp(r.id.boot, r.apps.Add(1))
	id := identity(app)
	if _, err := subjects.Encode(id.Application); err != nil {
		return nil, wire.Errorf(wire.BadName, "application: %w", err)
	}
	id.OSUser, id.Machine, id.Node, id.App = r.id.user, r.id.machine, string(r.id.node), string(app)
	if err := r.interop.Join(app, id, domains); err != nil {
		return nil, err
	}
	return &App{realm: r, id: app, identity: id}, nil
}

// View is who is here now, and what they offer.
func (r *Realm) View() *View { return r.directory.View() }

// Changed is closed at the next change of the view.
func (r *Realm) Changed() <-chan struct{} { return r.directory.Changed() }

func (r *Realm) identityOf(id subjects.App) (Identity, bool) {
	a, ok := r.directory.App(id)
	if !ok {
		return Identity{}, false
	}
	return a.Identity, true
}

func (r *Realm) isHere(id subjects.App) bool {
	_, ok := r.directory.App(id)
	return ok
}

// holders are the apps that keep a ref-counted context alive.
func (r *Realm) holders(context string) []subjects.App {
	var list []subjects.App
	for _, n := range r.directory.View().Nodes {
		for _, a := range n.Apps {
			if slices.Contains(a.Holds, context) {
				list = append(list, a.ID)
			}
		}
	}
	return list
}

// Stats are a realm's counters since its start.
type Stats struct {
	Interop  interop.Stats  `json:"interop"`
	Topics   topics.Stats   `json:"topics"`
	Contexts contexts.Stats `json:"contexts"`
	// Denied counts what NATS permissions refused, Rogue the directory entries
	// that were ignored.
	Denied uint64 `json:"denied"`
	Rogue  uint64 `json:"rogue"`
	// Reconnects counts how often a connection was established again.
	Reconnects uint64 `json:"reconnects"`
	// Control and Data count messages and bytes of the two connections.
	Control nats.Statistics `json:"control"`
	Data    nats.Statistics `json:"data"`
}

// Stats returns the counters.
func (r *Realm) Stats() Stats {
	s := Stats{
		Interop: r.interop.Stats(), Topics: r.topics.Stats(), Contexts: r.contexts.Stats(), Denied: r.control.Denied() + r.data.Denied(), Rogue: r.directory.Rogue(),
		Control: r.control.Conn().Stats(), Data: r.data.Conn().Stats(),
	}
	s.Reconnects = s.Control.Reconnects + s.Data.Reconnects
	return s
}
