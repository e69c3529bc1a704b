package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"strings"

	"github.com/weft-fabric/weft/gateway/platform"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// maxPlatformCalls is how many calls of one peer wait for the platform.
const maxPlatformCalls = 256

// builtin is the platform's peer, as the clients of this gateway see it; no
// directory has it.
type builtin struct {
	*platform.Platform
	g       *Gateway
	id      subjects.App
	self    node.Identity
	methods map[string]*node.Method // by id
	json    []byte                  // their definitions
}

func newBuiltin(g *Gateway, cfg platform.Config) (*builtin, error) {
	b := &builtin{g: g, id: "p-weft", methods: map[string]*node.Method{}}
	b.self = node.Identity{Application: "weft", Instance: "weft", Service: "weft"}
	cfg.Host = &host{g}
	p, err := platform.New(cfg)
	if err != nil {
		return nil, err
	}
	b.Platform = p
	for _, m := range p.Methods() {
		def := map[string]any{}
		maps.Copy(def, m.Definition)
		def["id"], def["name"] = m.Name, m.Name
		text, err := json.Marshal(def)
		if err != nil {
			return nil, err
		}
		method, err := readDefinition(text)
		if err != nil {
			return nil, err
		}
		b.methods[method.ID] = &method
		b.json = append(append(b.json, ','), text...)
	}
	b.json[0] = '['
	b.json = append(b.json, ']')
	p.OnRestrictions(func(peer string) {
		if p := g.peer(peer); p != nil {
			p.post(p.contexts.restricted)
		}
	})
	return b, nil
}

func (b *builtin) method(id string) *node.Method { return b.methods[id] }

// restricted resumes pushes of channels that were held back.
func (x *contexts) restricted() {
	for _, c := range x.open {
		c.flush()
	}
}

// showPlatform tells the peer of the platform.
func (x *interop) showPlatform() {
	b := x.p.s.g.platform
	id := b.self
	id.User, id.OSUser, id.Machine, id.Node = x.p.self.User, x.p.self.OSUser, x.p.self.Machine, x.p.self.Node
	x.p.s.send(begin(domainAGM, "peer-added").str("peer_id", string(x.p.id)).str("new_peer_id", string(b.id)).
		raw("identity", identityJSON(&id)).raw("meta", localMeta(true)))
	x.methodsAdded(b.id, b.json)
}

func (p *peer) caller() platform.Caller {
	return platform.Caller{Peer: string(p.id), Application: p.self.Application, Instance: p.self.Instance, Login: p.self.User, WindowID: p.self.WindowID}
}

// callPlatform calls a method of the platform. Calls of one peer are made one after
// the other.
func (x *interop) callPlatform(f *frame, m *node.Method, a args) {
	p := x.p
	call := func() {
		result, err := p.s.g.platform.Call(p.ctx, p.caller(), m.Name, json.RawMessage(a.named))
		if err != nil {
			x.fail(f, wire.Errorf(wire.AppError, "%s", wire.AsError(err).Message), uriClientError)
			return
		}
		p.s.send(begin(domainAGM, "result").raw("request_id", f.request).str("peer_id", string(p.id)).raw("result", result))
	}
	if x.platform == nil {
		x.platform = make(chan func(), maxPlatformCalls)
		go x.callAll(x.platform) // ends with p.ctx
	}
	select {
	case x.platform <- call:
	default:
		x.fail(f, wire.Errorf(wire.Busy, "calls that wait for the platform: the limit is %d", maxPlatformCalls), uriClientError)
	}
}

func (x *interop) callAll(queue <-chan func()) {
	for {
		select {
		case call := <-queue:
			call()
		case <-x.p.ctx.Done():
			return
		}
	}
}

// subscribePlatform subscribes the peer to a stream of the platform.
func (x *interop) subscribePlatform(f *frame, m *node.Method, a args) {
	p := x.p
	id := p.s.g.newID("r-weft-")
	var early []json.RawMessage
	started := false
	event := func(data json.RawMessage) {
		p.s.send(begin(domainAGM, "event").str("peer_id", string(p.id)).str("subscription_id", id).
			raw("oob", boolean(true)).raw("sequence", nil).raw("snapshot", nil).raw("data", data))
	}
	cancel, err := p.s.g.platform.Subscribe(p.caller(), m.Name, json.RawMessage(a.named), func(data json.RawMessage) {
		p.s.in.post(func() {
			if started {
				event(data)
			} else {
				early = append(early, data)
			}
		})
	})
	if err != nil {
		x.fail(f, wire.Errorf(wire.Rejected, "%s", wire.AsError(err).Message), uriRejected)
		return
	}
	x.watched[id] = cancel
	p.s.send(begin(domainAGM, "subscribed").raw("request_id", f.request).str("peer_id", string(p.id)).str("subscription_id", id))
	started = true
	for _, data := range early {
		event(data)
	}
}

// unsubscribePlatform ends a subscription to the platform, if there is one.
func (x *interop) unsubscribePlatform(id string) bool {
	cancel, ok := x.watched[id]
	if ok {
		delete(x.watched, id)
		cancel()
	}
	return ok
}

// host is what the gateway does for the platform.
type host struct{ g *Gateway }

// Fabric is the node's state.
func (h *host) Fabric() platform.Fabric { return fabricOf(h.g.realm.State()) }

// Fabrics yields the node's state and then each change.
func (h *host) Fabrics(ctx context.Context) iter.Seq[platform.Fabric] {
	return func(yield func(platform.Fabric) bool) {
		for s := range h.g.realm.States(ctx) {
			if !yield(fabricOf(s)) {
				return
			}
		}
	}
}

func fabricOf(s node.State) platform.Fabric {
	f := platform.Fabric{Fabric: "offline", Since: s.Since.UTC(), Reason: s.Reason}
	if s.Online {
		f.Fabric = "online"
	}
	return f
}

// Apps lists the running apps of all machines.
func (h *host) Apps() []platform.App {
	var list []platform.App
	for _, n := range h.g.realm.View().Sorted() {
		if n.Hidden {
			continue
		}
		for _, a := range n.Apps {
			app := platform.App{
				Peer: string(a.ID), Application: a.Identity.Application, ApplicationName: a.Identity.ApplicationName,
				Instance: a.Identity.Instance, Machine: a.Identity.Machine, Local: a.SameMachine,
			}
			for _, m := range a.Methods {
				app.Methods = append(app.Methods, platform.MethodInfo{Name: m.Name, Flags: m.Flags})
			}
			list = append(list, app)
		}
	}
	return list
}

// PeerOf is the local session of an instance or a window.
func (h *host) PeerOf(swID string) (peer string, ok bool) {
	for _, p := range h.g.all() {
		if p.self.Instance == swID || p.self.WindowID == swID || string(p.id) == swID {
			return string(p.id), true
		}
	}
	return "", false
}

// Invoke calls a method of a local session in the name of the platform.
func (h *host) Invoke(ctx context.Context, peer, method string, arguments json.RawMessage) (json.RawMessage, error) {
	p := h.g.peer(peer)
	if p == nil {
		return nil, wire.Errorf(wire.TargetGone, "app %s has left", peer)
	}
	w := &waiting{done: make(chan struct{})}
	id := h.g.newID("r-weft-")
	p.post(func() { p.interop.invoke(id, method, arguments, w) })
	select {
	case <-w.done:
	case <-p.ctx.Done():
		return nil, wire.Errorf(wire.TargetGone, "app %s has left", peer)
	case <-ctx.Done():
		p.post(func() { p.interop.served(id) })
		return nil, wire.AsError(ctx.Err())
	}
	if w.err != nil {
		return nil, w.err
	}
	result, err := jsonOf(w.value)
	return result, err
}

// waiting is a call of the platform that a session serves.
type waiting struct {
	done  chan struct{}
	value wire.Payload
	err   error
}

// Finish ends the call.
func (w *waiting) Finish(value wire.Payload, err error) bool {
	w.value, w.err = value, err
	close(w.done)
	return true
}

// invoke has the client serve a call of the platform.
func (x *interop) invoke(id, method string, arguments json.RawMessage, w *waiting) {
	for _, o := range x.offered {
		if !strings.EqualFold(o.def.Name, method) || o.stream != nil {
			continue
		}
		x.mu.Lock()
		x.serving[id] = w
		x.mu.Unlock()
		x.p.s.send(begin(domainAGM, "invoke").str("invocation_id", id).str("peer_id", string(x.p.id)).str("caller_id", string(x.p.s.g.platform.id)).
			raw("method_id", []byte(o.id)).raw("arguments", nil).raw("arguments_kv", arguments).raw("context", nil))
		return
	}
	w.Finish(wire.Payload{}, wire.Errorf(wire.NoServer, "app %s does not offer the method %q", x.p.id, method))
}

// Join makes a local session a member of channels.
func (h *host) Join(ctx context.Context, peer, channel string) error {
	p := h.g.peer(peer)
	if p == nil {
		return wire.Errorf(wire.TargetGone, "app %s has left", peer)
	}
	several := strings.Split(channel, "+++")
	if channel != "" && len(several) == 1 {
		return p.client.Channels().Join(ctx, channel)
	}
	if err := p.client.Channels().Leave(ctx); err != nil || channel == "" {
		return errors.Join(err, p.client.SetChannels(nil))
	}
	return p.client.SetChannels(several)
}

// Channels lists the channels of the realm.
func (h *host) Channels(ctx context.Context) ([]platform.ChannelInfo, error) {
	peers := h.g.all()
	if len(peers) == 0 {
		return nil, nil
	}
	list, err := peers[0].client.Channels().List(ctx)
	if err != nil {
		return nil, err
	}
	infos := make([]platform.ChannelInfo, 0, len(list))
	for _, c := range list {
		info := platform.ChannelInfo{Name: c.Name}
		if h.g.has(string(c.By.App)) {
			info.By = string(c.By.App)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// AddChannel makes a channel, and tells the caller of its context.
func (h *host) AddChannel(ctx context.Context, c platform.Caller, name string, meta map[string]any, data any) error {
	p := h.g.peer(c.Peer)
	if p == nil {
		return wire.Errorf(wire.TargetGone, "app %s has left", c.Peer)
	}
	if err := p.client.Channels().Add(ctx, name, meta, data); err != nil {
		return err
	}
	told := make(chan struct{})
	p.s.in.post(func() {
		p.contexts.added(channelPrefix+name, p.id)
		close(told)
	})
	select {
	case <-told:
	case <-p.ctx.Done():
	}
	return nil
}

// RemoveChannel removes a channel.
func (h *host) RemoveChannel(ctx context.Context, c platform.Caller, name string) error {
	p := h.g.peer(c.Peer)
	if p == nil {
		return wire.Errorf(wire.TargetGone, "app %s has left", c.Peer)
	}
	return p.client.Channels().Remove(ctx, name)
}

// finisher is a call that the client serves.
type finisher interface {
	Finish(value wire.Payload, err error) bool
}
