package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/channels"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/node/interop"
	"github.com/weft-fabric/weft/node/statedir"
	"github.com/weft-fabric/weft/node/topics"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Identity, Method, Payload, Filter and Error are what travels; see package
// wire.
type (
	// Identity is what an app says of itself and what its node stamps on it.
	Identity = wire.Identity
	// Method describes a method or stream.
	Method = wire.Method
	// Payload is an encoded value.
	Payload = wire.Payload
	// Filter selects identities.
	Filter = wire.Filter
	// Error is an error with a code.
	Error = wire.Error
	// Alarm is something that is wrong until somebody mends it; see package alarm.
	Alarm = alarm.Alarm
)

// Info, AppInfo, Event and EventKind are who is here; see package directory.
type (
	// Info is one node.
	Info = directory.Node
	// View is who is here at one moment.
	View = directory.View
	// AppInfo is one app.
	AppInfo = directory.App
	// Event is one change of who is here.
	Event = directory.Event
	// EventKind is what an Event reports.
	EventKind = directory.Kind
)

// The parts of methods, streams and topics; see packages interop and topics.
type (
	// Call is what a handler is called with.
	Call = interop.Call
	// Handler serves a method.
	Handler = interop.Handler
	// Result is a call's outcome on one server.
	Result = interop.Result
	// Results are the outcomes of one call.
	Results = interop.Results
	// Target says which servers are meant.
	Target = interop.Target
	// Option changes a call or a subscription.
	Option = interop.Option
	// Trace is a W3C trace context.
	Trace = interop.Trace
	// Stream is a stream that an app publishes.
	Stream = interop.Stream
	// StreamOptions say how a stream treats its subscribers.
	StreamOptions = interop.StreamOptions
	// SubscriptionRequest is what a stream's app decides about.
	SubscriptionRequest = interop.SubscriptionRequest
	// Subscriber is a subscription as the stream's app sees it.
	Subscriber = interop.Subscriber
	// Subscription is a subscription as the subscriber sees it.
	Subscription = interop.Subscription
	// StreamEvent is what a Subscription yields.
	StreamEvent = interop.Event
	// TopicSubscription is a subscription to topics.
	TopicSubscription = topics.Subscription
	// TopicEvent is what a TopicSubscription yields.
	TopicEvent = topics.Event
)

// The parts of shared contexts; see package contexts.
type (
	// Contexts is the contexts of a realm as one app has them.
	Contexts = contexts.App
	// ContextState is a context at one moment.
	ContextState = contexts.State
	// ContextEvent is one step of a watch.
	ContextEvent = contexts.Event
	// ContextWatch is what an app sees of a context over time.
	ContextWatch = contexts.Watch
	// ContextName says that a context was created or destroyed.
	ContextName = contexts.NameEvent
	// ContextAck says how safe a write is that has succeeded.
	ContextAck = contexts.Ack
	// ContextPolicy says what becomes of writes while the fabric is away.
	ContextPolicy = contexts.Policy
	// ContextOverwritten says that a journalled write was not made.
	ContextOverwritten = contexts.Overwritten
	// ContextPast is a context as it was.
	ContextPast = contexts.Past
	// ContextHistory is what was done to a context.
	ContextHistory = contexts.History
	// ContextHistoryEntry is one operation on a context, or a gap.
	ContextHistoryEntry = contexts.HistoryEntry
	// ContextHistoryQuery says which operations are wanted.
	ContextHistoryQuery = contexts.HistoryQuery
	// ContextChange is one difference of a context.
	ContextChange = contexts.Change
	// PathValue is a value for a path in a context.
	PathValue = contexts.PathValue
)

// The kinds of context events.
const (
	ContextSnapshot  = contexts.Snapshot
	ContextChanged   = contexts.Changed
	ContextCreated   = contexts.Created
	ContextDestroyed = contexts.Destroyed
	ContextOffline   = contexts.Offline
	ContextOnline    = contexts.Online
)

// What becomes of writes while the fabric is away; see package contexts.
const (
	RemoteWins    = contexts.RemoteWins
	LocalWins     = contexts.LocalWins
	RejectOffline = contexts.RejectOffline
)

// The kinds of entries of a history, and how many one answer can have.
const (
	ContextHistoryCreated    = contexts.HistoryCreated
	ContextHistoryChanged    = contexts.HistoryChanged
	ContextHistoryDestroyed  = contexts.HistoryDestroyed
	ContextHistoryUnreadable = contexts.HistoryUnreadable
	ContextHistoryGap        = contexts.HistoryGap
	MaxContextHistory        = contexts.MaxHistory
)

// The parts of channels; see package channels.
type (
	// Channels is the channels of a realm as one app has them.
	Channels = channels.App
	// Channel is a channel at one moment.
	Channel = channels.Channel
	// ChannelWatch is what an app sees of a channel over time.
	ChannelWatch = channels.Watch
	// ChannelUpdate is one step of a watch.
	ChannelUpdate = channels.Update
	// ChannelEvent is one change of the channels, or of who is on them.
	ChannelEvent = channels.Event
	// ChannelMember is an app that is on a channel.
	ChannelMember = channels.Member
)

// The kinds of channel updates and events.
const (
	ChannelJoined       = channels.Joined
	ChannelLeft         = channels.Left
	ChannelSnapshot     = channels.Snapshot
	ChannelChanged      = channels.Changed
	ChannelRemoved      = channels.Removed
	ChannelOffline      = channels.Offline
	ChannelOnline       = channels.Online
	ChannelAdded        = channels.Added
	ChannelMemberJoined = channels.MemberJoined
	ChannelMemberLeft   = channels.MemberLeft
)

// ParseContextPolicy reads PATTERN=POLICY.
func ParseContextPolicy(text string) (ContextPolicy, error) { return contexts.ParsePolicy(text) }

// IfRevision makes a context write conditional; see package contexts.
func IfRevision(revision uint64) contexts.Option { return contexts.IfRevision(revision) }

// The kinds of directory events.
const (
	NodeAdded           = directory.NodeAdded
	NodeRemoved         = directory.NodeRemoved
	AppAdded            = directory.AppAdded
	AppRemoved          = directory.AppRemoved
	ServerMethodAdded   = directory.ServerMethodAdded
	ServerMethodRemoved = directory.ServerMethodRemoved
	MethodAdded         = directory.MethodAdded
	MethodRemoved       = directory.MethodRemoved
)

// The targets of calls and subscriptions that need no filter; see package interop.
var (
	Best     = interop.Best
	All      = interop.All
	SkipMine = interop.SkipMine
)

// Instances selects servers by identity.
func Instances(filters ...Filter) Target { return interop.Instances(filters...) }

// Timeout is how long to wait for a result.
func Timeout(d time.Duration) Option { return interop.Timeout(d) }

// Wait is how long to wait for a server to appear.
func Wait(d time.Duration) Option { return interop.Wait(d) }

// WithTrace passes a W3C trace context on.
func WithTrace(t Trace) Option { return interop.WithTrace(t) }

// ErrTaken is when another live node has the id.
var ErrTaken = directory.ErrTaken

// State is whether the fabric can be reached, since when, and if not, why.
type State struct {
	Online bool
	Since  time.Time
	Reason string
}

// Node is a running node. Create it with [Start].
type Node struct {
	id      identity
	cfg     Config
	started time.Time
	alarms  *alarm.Set
	host    *host         // nil when not hosting
	state   *statedir.Dir // nil without, and when hosting
	realm   *Realm
	stop    sync.Once
	end     context.CancelFunc
	wg      sync.WaitGroup
}

// Start starts a node; ctx bounds the start, not the node's life.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	id, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	n := &Node{id: id, cfg: cfg, started: time.Now(), alarms: alarm.New(cfg.Logger)}
	nc := cfg.NATS
	if nc.URL == "" && cfg.Server == nil {
		if n.host, err = startHost(ctx, cfg, id, n.alarms); err != nil {
			return nil, err
		}
		nc.Options = n.host.options()
	} else if err = n.openState(); err != nil {
		return nil, err
	}
	if cfg.Server != nil {
		nc.Options = append(cfg.Server.ConnectOptions(), nc.Options...)
	}
	if n.realm, err = startRealm(ctx, id, nc, cfg, n.alarms); err != nil {
		n.release()
		return nil, err
	}
	running, end := context.WithCancel(context.Background())
	n.end = end
	if cfg.Store != "" {
		n.wg.Go(func() { n.keepStatus(running) })
	}
	return n, nil
}

// openState takes the state directory of a node that hosts no server. It does without
// one on a bad disk.
func (n *Node) openState() (err error) {
	if n.cfg.Store == "" {
		return nil
	}
	n.state, err = embedded.OpenState(n.cfg.Store, string(n.id.node))
	if isBadDisk(err) {
		n.alarms.Raise(n, alarm.Alarm{Kind: alarm.StoreUnusable, Text: err.Error()})
		return nil
	}
	return err
}

// release gives back what the node has on this machine.
func (n *Node) release() {
	if n.host != nil {
		n.host.shutdown()
	}
	closeState(n.state, n.cfg.Logger)
}

// closeState gives a state directory back, if there is one.
func closeState(state *statedir.Dir, log *slog.Logger) {
	if state == nil {
		return
	}
	if err := state.Close(); err != nil && log != nil {
		log.Warn("the state directory was not released cleanly", slog.String("directory", state.Path()), slog.Any("error", err))
	}
}

// Stop leaves the fabric and waits until everything has ended. It may be
// called more than once.
func (n *Node) Stop() {
	n.stop.Do(func() {
		n.realm.stop()
		n.end()
		n.wg.Wait()
		n.release()
	})
}

// ID is the node's id.
func (n *Node) ID() subjects.Node { return n.id.node }

// Machine is the machine that the node says it is on.
func (n *Node) Machine() string { return n.id.machine }

// Realm is the node's realm.
func (n *Node) Realm() *Realm { return n.realm }

// Embedded is the NATS server that this node hosts, nil if it hosts none, or cannot
// start it for now.
func (n *Node) Embedded() *embedded.Server { return n.host.running() }

// Join connects an app in the node's realm; see [Realm.Join].
func (n *Node) Join(ctx context.Context, id Identity) (*App, error) { return n.realm.Join(ctx, id) }

// State is the state of the node's realm.
func (n *Node) State() State { return n.realm.State() }

// States yields the present state and then each change, until ctx ends. A slow
// reader sees the newest.
func (n *Node) States(ctx context.Context) iter.Seq[State] { return n.realm.States(ctx) }

// Alarms lists what is wrong now and stays so until somebody mends it, oldest first.
func (n *Node) Alarms() []Alarm { return n.alarms.Active() }

// WatchAlarms yields the alarms that stand, and then again whenever one is raised or
// is over, until ctx ends. A slow reader sees the newest.
func (n *Node) WatchAlarms(ctx context.Context) iter.Seq[[]Alarm] {
	return func(yield func([]Alarm) bool) {
		for {
			changed := n.alarms.Changed()
			if !yield(n.alarms.Active()) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Nodes lists the nodes of the realm by id, this one and hidden ones included.
func (n *Node) Nodes() []*Info { return n.realm.directory.View().Sorted() }

// Watch yields who is there and what they offer, then every change, until ctx
// ends.
func (n *Node) Watch(ctx context.Context) iter.Seq[Event] { return n.realm.directory.Watch(ctx) }

// Stats returns the node's counters.
func (n *Node) Stats() Stats { return n.realm.Stats() }

// Provision makes the buckets of a realm on a cluster, or brings their options
// up to date. It needs credentials that may create streams.
func Provision(ctx context.Context, c NATS, realm string, replicas int) error {
	r, err := subjects.ParseRealm(realm)
	if err != nil {
		return wire.Errorf(wire.BadName, "realm: %w", err)
	}
	opts := []nats.Option{nats.Name("weft admin")}
	if deadline, ok := ctx.Deadline(); ok {
		opts = append(opts, nats.Timeout(time.Until(deadline)))
	}
	nc, err := nats.Connect(c.URL, append(opts, c.Options...)...)
	if err != nil {
		if errors.Is(err, nats.ErrAuthorization) {
			return wire.Errorf(wire.Denied, "%s refuses these credentials", c.URL)
		}
		return wire.Errorf(wire.Offline, "%s: %w", c.URL, err)
	}
	defer nc.Close()
	if err := kv.Provision(ctx, nc, r, replicas); err != nil {
		return fmt.Errorf("provision realm %s: %w", r, err)
	}
	return nil
}
