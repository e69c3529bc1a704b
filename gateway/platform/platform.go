package platform

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-fabric/weft/wire"
)

// answerTimeout is how long a client has to answer a call of the platform.
const answerTimeout = 5 * time.Second

// Caller is the session that calls.
type Caller struct {
	// Peer is the gateway's id of the session.
	Peer string
	// Application, Instance and WindowID are those of its identity; Login is who
	// has logged in.
	Application, Instance, Login, WindowID string
}

// Method is a method or stream that the platform offers.
type Method struct {
	Name      string
	Streaming bool
	// Definition has the further keys of the method's definition, flags among
	// them, as clients get it.
	Definition map[string]any
}

// App is a running app.
type App struct {
	// Peer is the gateway's id of the app's session or proxy.
	Peer string
	// Application, ApplicationName, Instance and Machine are those of the identity
	// that clients see.
	Application, ApplicationName, Instance, Machine string
	// Local says that the app is on this machine.
	Local bool
	// Methods are what the app offers.
	Methods []MethodInfo
}

// MethodInfo is a method that an app offers.
type MethodInfo struct {
	Name  string
	Flags map[string]any
}

// ChannelInfo is a channel of the realm.
type ChannelInfo struct {
	Name string
	// By is the peer id of the local session that made the newest change to the
	// channel, and empty if anybody else did.
	By string
}

// Host is what the gateway does for the platform.
type Host interface {
	// Apps lists the running apps of all machines.
	Apps() []App
	// PeerOf is the local session whose instance or window id this is. A session
	// that has left is not found before Platform.Left is called.
	PeerOf(swID string) (peer string, ok bool)
	// Invoke calls a method that a local session has registered, as if the
	// platform's peer had. It is no-server if the session has not registered it.
	Invoke(ctx context.Context, peer, method string, args json.RawMessage) (json.RawMessage, error)
	// Join makes a local session a member of these channels, separated by +++, and
	// of no other; "" is none.
	Join(ctx context.Context, peer, channel string) error
	// Channels lists the channels of the realm.
	Channels(ctx context.Context) ([]ChannelInfo, error)
	// AddChannel makes a channel in the name of the caller, bad-name if there is
	// one. Before it returns, or at least before the answer to the call that asked
	// for it, the caller has been told of the new context: clients go on with an
	// update of it, and one that does not know the context would create it, which
	// loses the update.
	AddChannel(ctx context.Context, caller Caller, name string, meta map[string]any, data any) error
	// RemoveChannel removes a channel, bad-name if there is none.
	RemoveChannel(ctx context.Context, caller Caller, name string) error
	states
}

// Config is what a Platform works with.
type Config struct {
	Host Host
	// Store is the directory of the preferences. It is made with mode 0700.
	Store string
	// Mode is how many channels an app may be on, "single", which is the default,
	// or "multi".
	Mode string
	// InitialChannel is where apps begin, "" for nowhere.
	InitialChannel string
	// Logger receives what no caller can be told; nil discards.
	Logger *slog.Logger
}

// Platform is the platform's peer on one node. Create it with [New].
type Platform struct {
	host     Host
	mode     string
	initial  string
	log      *slog.Logger
	store    *store
	methods  map[string]method
	commands map[string]command
	streams  map[string]stream

	ctx  context.Context
	end  context.CancelFunc
	wg   sync.WaitGroup
	wake chan struct{} // the running apps may have changed

	// mu guards what follows, and the fields of sessions and watches. It is never
	// held across I/O or a call of somebody else's function.
	mu       sync.RWMutex
	sessions map[string]*session
	prefs    map[string]*prefsWatch
	apps     map[*appsWatch]bool
	fabrics  map[string][]context.CancelFunc // of subscribers, by peer
	told     []func(peer string)
	closed   bool
}

// method answers a call.
type method func(ctx context.Context, c Caller, args json.RawMessage) (any, error)

// stream answers a subscription with what is pushed at first.
type stream func(c Caller, args json.RawMessage, push func(json.RawMessage)) (cancel func(), err error)

// New makes a platform.
func New(cfg Config) (*Platform, error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	switch cfg.Mode {
	case "":
		cfg.Mode = single
	case single, multi:
	default:
		return nil, wire.Errorf(wire.BadPayload, "the channels mode %q is neither %s nor %s", cfg.Mode, single, multi)
	}
	st, err := openStore(cfg.Store, log)
	if err != nil {
		return nil, err
	}
	p := &Platform{
		host: cfg.Host, mode: cfg.Mode, initial: cfg.InitialChannel, log: log, store: st,
		wake:     make(chan struct{}, 1),
		sessions: map[string]*session{}, prefs: map[string]*prefsWatch{}, apps: map[*appsWatch]bool{}, fabrics: map[string][]context.CancelFunc{},
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.methods = map[string]method{
		"T42.Channels.Announce":   p.announce,
		"T42.ACS.GetApplications": p.getApplications,
		"T42.Prefs.Get":           p.getPrefs,
		"T42.Prefs.Set":           p.setPrefs,
		"T42.GD.Execute":          p.execute,
		"Weft.GetFabric":          p.getFabric,
	}
	for name, what := range declined {
		p.methods[name] = decline(what)
	}
	p.commands = map[string]command{
		"getChannelsMode": p.getChannelsMode,
		"switchChannel":   p.switchChannel,
		"leaveChannel":    p.leaveChannel,
		"getRestrictions": p.getRestrictions,
		"restrict":        p.restrict,
		"restrictAll":     p.restrictAll,
		"getChannelsInfo": p.getChannelsInfo,
		"addChannel":      p.addChannel,
		"removeChannel":   p.removeChannel,
	}
	p.streams = map[string]stream{
		"T42.Wnd.OnEvent": windowEvents,
		"T42.ACS.OnEvent": p.appEvents,
		"Weft.Fabric":     p.followFabric,
	}
	p.wg.Go(p.followApps)
	return p, nil
}

// Methods lists what the platform offers, in order of name.
func (p *Platform) Methods() []Method {
	var list []Method
	for name := range p.methods {
		list = append(list, newMethod(name, false))
	}
	for name := range p.streams {
		list = append(list, newMethod(name, true))
	}
	slices.SortFunc(list, func(a, b Method) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func newMethod(name string, streaming bool) Method {
	return Method{Name: name, Streaming: streaming, Definition: map[string]any{
		"description": "Built into the Weft node.",
		"flags":       map[string]any{"streaming": streaming, "metadata": map[string]any{}},
	}}
}

// Call answers a call of a method. It may wait for other machines and for other
// clients, so that it does not belong on the goroutine that reads a session. Calls
// that a session makes one after the other are to be made one after the other.
func (p *Platform) Call(ctx context.Context, c Caller, method string, args json.RawMessage) (json.RawMessage, error) {
	f := p.methods[method]
	switch {
	case f == nil:
		return nil, wire.Errorf(wire.NoServer, "the platform has no method %q", method)
	case p.isClosed():
		return nil, stopped()
	}
	result, err := f(ctx, c, args)
	if err != nil {
		return nil, wire.AsError(err)
	}
	return encode(result)
}

// Subscribe answers a subscription to a stream. What push gets is private data of
// this subscriber. It is called for the first time before Subscribe returns, so
// that the gateway holds back what comes before the subscription has an id; it
// must neither wait nor call the platform. After cancel it is not called again.
func (p *Platform) Subscribe(c Caller, stream string, args json.RawMessage, push func(json.RawMessage)) (cancel func(), err error) {
	f := p.streams[stream]
	switch {
	case f == nil:
		return nil, wire.Errorf(wire.NoServer, "the platform has no stream %q", stream)
	case p.isClosed():
		return nil, stopped()
	}
	return f(c, args, push)
}

// Left forgets a session: its channels, restrictions and subscriptions. It is the
// last that the platform hears of it.
func (p *Platform) Left(peer string) {
	p.mu.Lock()
	delete(p.sessions, peer)
	delete(p.prefs, peer)
	for _, cancel := range p.fabrics[peer] {
		cancel()
	}
	delete(p.fabrics, peer)
	var watches []*appsWatch
	for w := range p.apps {
		if w.caller.Peer == peer {
			watches = append(watches, w)
		}
	}
	p.mu.Unlock()
	for _, w := range watches {
		p.stopApps(w)
	}
}

// Close ends all that goes on in the background and waits for it.
func (p *Platform) Close() error {
	p.mu.Lock()
	was := p.closed
	p.closed = true
	p.mu.Unlock()
	p.end()
	p.wg.Wait()
	if was {
		return nil
	}
	return p.store.close()
}

func (p *Platform) isClosed() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.closed
}

func stopped() error { return wire.Errorf(wire.Offline, "the node has stopped") }

// start runs f in the background. mu is held.
func (p *Platform) start(f func()) {
	if !p.closed {
		p.wg.Go(f)
	}
}

// invoke calls a method of a client.
func (p *Platform) invoke(ctx context.Context, peer, method string, args any) (json.RawMessage, error) {
	text, err := encode(args)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return p.host.Invoke(ctx, peer, method, text)
}

// decode reads arguments, which come from a client. What is absent changes
// nothing.
func decode(args json.RawMessage, into any) error {
	if len(args) == 0 {
		return nil
	}
	if err := wire.CheckJSON(args); err != nil {
		return err
	}
	err := json.Unmarshal(args, into)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return wire.Errorf(wire.BadPayload, "%s: %s, want %s", cmp.Or(e.Field, "arguments"), e.Value, wanted(e.Type))
	}
	if err != nil {
		return wire.Errorf(wire.BadPayload, "arguments: %w", err)
	}
	return nil
}

// wanted is what JSON calls a type.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Slice:
		return "array"
	}
	return "object"
}

func encode(v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, wire.Errorf(wire.Internal, "platform: %w", err)
	}
	return b, nil
}
