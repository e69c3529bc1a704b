package gateway

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// settleWithin is how long the answer to a registration waits for the other
	// nodes.
	settleWithin = 10 * time.Second
	// holdFor is how long the removal of a peer waits for the answers to calls and
	// for the ends of subscriptions on it, which clients expect before.
	holdFor = 3 * time.Second
)

// interop is what a peer has of methods and streams.
type interop struct {
	p      *peer
	member bool
	// nodes is what the peer has been told of, by node.
	nodes map[subjects.Node]*knownNode
	peers map[subjects.App]*knownPeer
	// late are peers and methods whose removal is put off.
	late map[subjects.App]time.Time
	// offered are the peer's own methods, by id.
	offered map[string]*offered
	bytes   int
	// interests are the subscriptions of others to the peer's streams.
	interests map[string]*interest
	branches  map[string]map[*node.Stream]int // by stream id: how many subscriptions
	strangers map[subjects.App][]func()       // what waits for a caller to be known
	// platform are calls of the platform, which are made one after the other;
	// watched are the subscriptions to it, by id.
	platform chan func()
	watched  map[string]func()

	mu sync.Mutex // guards what follows, which any goroutine uses
	// told are the peers that the client knows; backlog is how many calls wait for
	// their caller to become one.
	told    map[subjects.App]bool
	backlog int
	serving map[string]finisher      // by invocation id
	calls   map[subjects.App]int     // in flight, by server
	subs    map[string]*subscription // by subscription id
	asking  map[*subscription]bool   // that have no answer yet
}

// knownNode is a node as the peer was told of it.
type knownNode struct {
	node *node.Info
	apps map[subjects.App]*knownPeer
}

// knownPeer is another app that the peer was told of.
type knownPeer struct {
	app     *node.AppInfo
	methods map[string]*knownMethod // by id
}

type knownMethod struct {
	method *node.Method
	json   []byte
}

func newInterop(p *peer) *interop {
	return &interop{
		p: p, nodes: map[subjects.Node]*knownNode{}, peers: map[subjects.App]*knownPeer{}, late: map[subjects.App]time.Time{},
		offered: map[string]*offered{}, interests: map[string]*interest{}, branches: map[string]map[*node.Stream]int{}, strangers: map[subjects.App][]func(){}, watched: map[string]func(){},
		told: map[subjects.App]bool{}, serving: map[string]finisher{}, calls: map[subjects.App]int{}, subs: map[string]*subscription{}, asking: map[*subscription]bool{},
	}
}

// agm handles requests about methods and streams.
func (p *peer) agm(f *frame) {
	x := p.interop
	switch f.kind {
	case "register":
		x.register(f)
	case "unregister":
		x.unregister(f)
	case "call":
		x.call(f)
	case "yield":
		x.yield(f)
	case "error":
		x.error(f)
	case "subscribe":
		x.subscribe(f)
	case "unsubscribe":
		x.unsubscribe(f)
	case "accepted":
		x.accepted(f)
	case "publish":
		x.publish(f)
	case "post":
		x.post(f)
	case "drop-subscription":
		x.dropSubscription(f)
	default:
		p.unhandled(f)
	}
}

// join tells the peer who is there.
func (x *interop) join() {
	x.member = true
	x.showPlatform()
	x.sync()
}

// leave takes the peer out of the domain; its connection goes on.
func (x *interop) leave() {
	x.member = false
	x.mu.Lock()
	serving, subs := slices.Collect(maps.Values(x.serving)), slices.Collect(maps.Values(x.subs))
	subs = slices.AppendSeq(subs, maps.Keys(x.asking))
	clear(x.serving)
	clear(x.subs)
	clear(x.told)
	x.mu.Unlock()
	for _, p := range serving { // before the methods go: callers hear of it in this order
		p.Finish(wire.Payload{}, wire.Errorf(wire.TargetGone, "the app has left"))
	}
	if err := x.p.client.Together(func() { x.withdrawAll(slices.Collect(maps.Values(x.offered)), node.ReasonAppLeft) }); err != nil {
		x.p.log.Debug("methods withdrawn after the app left", slog.Any("error", err))
	}
	for _, s := range subs {
		s.stop()
	}
	for id := range x.watched {
		x.unsubscribePlatform(id)
	}
	clear(x.nodes)
	clear(x.peers)
	clear(x.late)
}

// sync tells the peer what has changed in the directory since it was last told.
func (x *interop) sync() { x.syncWith(x.p.s.g.realm.View()) }

func (x *interop) syncWith(view *node.View) {
	if !x.member {
		return
	}
	for id, k := range x.nodes {
		if view.Nodes[id] == nil {
			x.syncNode(k, nil)
		}
	}
	for _, n := range view.Sorted() {
		k := x.nodes[n.ID]
		if k == nil {
			k = &knownNode{apps: map[subjects.App]*knownPeer{}}
			x.nodes[n.ID] = k
		}
		if k.node != n {
			k.node = n
			x.syncNode(k, n)
		}
	}
	x.syncLate(view)
	x.admitStrangers()
}

// syncNode shows the difference between a node as the peer knows it and as it is;
// nil is gone.
func (x *interop) syncNode(k *knownNode, n *node.Info) {
	present := map[subjects.App]*node.AppInfo{}
	if n != nil {
		for _, a := range n.Apps {
			if a.ID == x.p.id || x.p.sees(a, domainAGM) {
				present[a.ID] = a
			}
		}
	}
	for id := range k.apps {
		if present[id] == nil {
			x.remove(k, id)
		}
	}
	if n == nil {
		return
	}
	for _, a := range n.Apps {
		if present[a.ID] != nil {
			x.show(k, a)
		}
	}
}

// syncLate tries again what was put off.
func (x *interop) syncLate(view *node.View) {
	for id := range x.late {
		kp := x.peers[id]
		if kp == nil {
			delete(x.late, id)
			continue
		}
		k := x.nodes[kp.app.Node]
		if a, ok := view.App(id); ok && (id == x.p.id || x.p.sees(a, domainAGM)) {
			if !x.show(k, a) {
				delete(x.late, id)
			}
		} else if k != nil {
			x.remove(k, id)
		}
	}
}

// show tells the peer of an app and of its methods. It says whether something was
// put off.
func (x *interop) show(k *knownNode, a *node.AppInfo) (late bool) {
	kp := x.peers[a.ID]
	if kp == nil {
		kp = &knownPeer{methods: map[string]*knownMethod{}}
		x.peers[a.ID], k.apps[a.ID] = kp, kp
		if a.ID != x.p.id {
			x.p.s.send(begin(domainAGM, "peer-added").str("peer_id", string(x.p.id)).str("new_peer_id", string(a.ID)).
				raw("identity", identityJSON(&a.Identity)).raw("meta", localMeta(a.SameMachine)))
		}
		x.mu.Lock()
		x.told[a.ID] = true
		x.mu.Unlock()
	} else if kp.app == a && x.late[a.ID].IsZero() {
		return false
	}
	kp.app = a
	return x.showMethods(kp, a)
}

func localMeta(local bool) []byte {
	if local {
		return []byte(`{"local":true}`)
	}
	return []byte(`{"local":false}`)
}

// showMethods tells the peer which methods of an app are gone and which are new.
func (x *interop) showMethods(kp *knownPeer, a *node.AppInfo) (late bool) {
	visible := map[string]*node.Method{}
	var order []string
	for _, m := range a.Methods {
		if a.ID == x.p.id || permits(m.Restrictions, &a.Identity, &x.p.self) {
			id := methodID(m)
			visible[id] = m
			order = append(order, id)
		}
	}
	var removed []string
	for id, m := range kp.methods {
		switch {
		case visible[id] != nil:
		case m.method.Streaming && x.watches(a.ID, m.method.Name) && x.putOff(a.ID):
			late = true
		default:
			delete(kp.methods, id)
			removed = append(removed, id)
		}
	}
	if len(removed) > 0 {
		slices.Sort(removed)
		x.methodsRemoved(a.ID, removed)
	}
	added := make(message, 0, 256)
	for _, id := range order {
		m := visible[id]
		old := kp.methods[id]
		if old != nil && old.method == m {
			continue
		}
		def := definitionJSON(m)
		kp.methods[id] = &knownMethod{m, def}
		if old != nil && string(old.json) == string(def) {
			continue
		}
		added = append(append(added, ','), def...)
	}
	if len(added) > 0 {
		added[0] = '['
		x.methodsAdded(a.ID, append(added, ']'))
	}
	return late
}

func (x *interop) methodsAdded(server subjects.App, list []byte) {
	x.p.s.send(begin(domainAGM, "methods-added").str("peer_id", string(x.p.id)).str("source_type", "local").
		str("server_id", string(server)).raw("methods", list))
}

func (x *interop) methodsRemoved(server subjects.App, ids []string) {
	list := []byte{'['}
	for i, id := range ids {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(list, id...)
	}
	x.p.s.send(begin(domainAGM, "methods-removed").str("peer_id", string(x.p.id)).str("server_id", string(server)).raw("methods", append(list, ']')))
}

// remove tells the peer that an app is gone: after the answers to its calls, and
// after the ends of its subscriptions.
func (x *interop) remove(k *knownNode, id subjects.App) {
	if x.busy(id) && x.putOff(id) {
		return
	}
	kp := k.apps[id]
	delete(k.apps, id)
	delete(x.peers, id)
	delete(x.late, id)
	x.mu.Lock()
	delete(x.told, id)
	x.mu.Unlock()
	if kp == nil {
		return
	}
	if len(kp.methods) > 0 {
		x.methodsRemoved(id, slices.Sorted(maps.Keys(kp.methods)))
	}
	m := begin(domainAGM, "peer-removed").str("peer_id", string(x.p.id)).str("removed_id", string(id))
	if _, still := x.p.s.g.realm.View().App(id); still { // it has left the domain
		m = m.raw("reason_uri", nil).raw("reason", nil)
	} else {
		m = m.str("reason_uri", domainAGM+"."+uriPeerRemoved).str("reason", textPeerRemoved)
	}
	x.p.s.send(m)
}

// busy says whether calls to an app, or subscriptions on it or of it, have not ended.
func (x *interop) busy(id subjects.App) bool {
	for _, i := range x.interests {
		if i.caller == id && i.sub != nil {
			return true
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.calls[id] > 0 {
		return true
	}
	for _, s := range x.subs {
		if s.server == id {
			return true
		}
	}
	return false
}

// watches says whether the peer is subscribed to a stream of an app, or may be about
// to be.
func (x *interop) watches(id subjects.App, stream string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.calls[id] > 0 {
		return true
	}
	for _, s := range x.subs {
		if s.server == id && s.stream == stream {
			return true
		}
	}
	return false
}

// putOff notes that something about an app is to be told later. It is false when
// that has been so for too long.
func (x *interop) putOff(id subjects.App) bool {
	since, ok := x.late[id]
	if !ok {
		x.late[id] = time.Now()
		p := x.p
		time.AfterFunc(holdFor, func() { p.post(x.sync) })
		return true
	}
	return time.Since(since) < holdFor
}

// ended is told, on any goroutine, that a call or a subscription has ended.
func (x *interop) ended(server subjects.App) {
	if _, here := x.p.s.g.realm.View().App(server); !here {
		x.p.post(x.sync)
	}
}

// whenKnown calls f when the client knows the app that calls or subscribes. claimed
// is what it says its id is, which the directory may not have yet.
func (x *interop) whenKnown(caller, claimed string, id *node.Identity, f func(caller subjects.App)) {
	if caller == "" && claimed == "" { // a plain NATS client
		stranger := subjects.App("n-" + id.Node)
		x.introduce(stranger, id)
		f(stranger)
		return
	}
	app := subjects.App(caller)
	if app == "" {
		app = subjects.App(claimed)
	}
	if len(x.strangers[app]) == 0 {
		if x.knows(app) {
			f(app)
			return
		}
		view := x.p.s.g.realm.View()
		x.syncWith(view)
		if x.knows(app) || !x.mayCome(view, app) {
			f(app)
			return
		}
		p := x.p
		time.AfterFunc(holdFor, func() { p.post(func() { x.giveUp(app) }) })
	}
	x.strangers[app] = append(x.strangers[app], func() { f(app) })
}

// mayCome says whether an app that the client does not know, having been told of a
// view, can still be on its way: what its node says of it comes on its own path.
func (x *interop) mayCome(view *node.View, app subjects.App) bool {
	a, here := view.App(app)
	if !here {
		return true
	}
	_, member := a.Domains[domainAGM]
	return !a.Local && a.Domains != nil && !member
}

func (x *interop) knows(app subjects.App) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.told[app]
}

// admitStrangers lets those in whom the client knows by now.
func (x *interop) admitStrangers() {
	for app, waiting := range x.strangers {
		if !x.knows(app) {
			continue
		}
		delete(x.strangers, app)
		for _, f := range waiting {
			f()
		}
	}
}

// giveUp lets those in whom the directory does not come to have; they are refused
// then, because nobody vouches for them.
func (x *interop) giveUp(app subjects.App) {
	waiting := x.strangers[app]
	delete(x.strangers, app)
	for _, f := range waiting {
		f()
	}
}

// introduce tells the peer of a caller that is in no directory.
func (x *interop) introduce(id subjects.App, identity *node.Identity) {
	if x.knows(id) {
		return
	}
	x.mu.Lock()
	x.told[id] = true
	x.mu.Unlock()
	x.p.s.send(begin(domainAGM, "peer-added").str("peer_id", string(x.p.id)).str("new_peer_id", string(id)).
		raw("identity", identityJSON(identity)).raw("meta", localMeta(false)))
}

// register offers methods: all of them, or none.
func (x *interop) register(f *frame) {
	if !x.member {
		x.p.fail(f, domainAGM, domainAGM+"."+uriFailure, "The peer has not joined the domain agm")
		return
	}
	defs, err := readDefinitions(f.raw("methods"))
	if err != nil {
		x.p.failed(f, err)
		return
	}
	done, err := x.offerAll(defs)
	if err != nil {
		x.sync()
		x.p.fail(f, domainAGM, domainAGM+"."+uriRegistration, wire.AsError(err).Error())
		return
	}
	for _, o := range done {
		x.p.s.g.platform.Registered(x.p.caller(), o.def.Name)
	}
	if len(defs) == 0 {
		x.methodsAdded(x.p.id, []byte("[]"))
	}
	x.sync()
	p := x.p
	go func() { // ends within settleWithin
		ctx, cancel := context.WithTimeout(p.ctx, settleWithin)
		defer cancel()
		if err := p.client.Settle(ctx); err != nil {
			p.log.Debug("registration not settled", slog.Any("error", err))
		}
		p.post(func() { p.success(f, domainAGM) })
	}()
}

// offerAll offers all of some methods, or none.
func (x *interop) offerAll(defs []node.Method) (done []*offered, err error) {
	told := x.p.client.Together(func() {
		for _, def := range defs {
			var o *offered
			if o, err = x.offer(def); err != nil {
				break
			}
			done = append(done, o)
		}
		if err != nil {
			x.withdrawAll(done, node.ReasonStreamClosed)
		}
	})
	return done, errors.Join(err, told)
}

func (x *interop) withdrawAll(list []*offered, reason string) {
	for _, o := range list {
		x.withdraw(o, reason)
	}
}

func readDefinitions(array []byte) ([]node.Method, error) {
	if array == nil {
		return nil, nil
	}
	elements, err := wire.JSONElements(array)
	if err != nil {
		return nil, err
	}
	if len(elements) > wire.MaxMethods {
		return nil, wire.Errorf(wire.Limit, "methods: %d, the limit is %d", len(elements), wire.MaxMethods)
	}
	defs := make([]node.Method, 0, len(elements))
	for _, e := range elements {
		def, err := readDefinition(e)
		if err != nil {
			return nil, err
		}
		defs = append(defs, def)
	}
	return defs, nil
}

// unregister withdraws methods: all of them, or none.
func (x *interop) unregister(f *frame) {
	var ids []string
	if raw := f.raw("methods"); raw != nil {
		elements, err := wire.JSONElements(raw)
		if err != nil {
			x.p.failed(f, err)
			return
		}
		for _, e := range elements {
			id := string(compactJSON(e))
			if x.offered[id] == nil || slices.Contains(ids, id) {
				x.p.fail(f, domainAGM, domainAGM+"."+uriUnregistration, "Unable to unregister missing method "+plain(id))
				return
			}
			ids = append(ids, id)
		}
	}
	if err := x.p.client.Together(func() {
		for _, id := range ids {
			x.withdraw(x.offered[id], node.ReasonStreamClosed)
		}
	}); err != nil {
		x.p.failed(f, err)
		return
	}
	if len(ids) == 0 {
		x.methodsRemoved(x.p.id, nil)
	}
	x.sync()
	x.p.success(f, domainAGM)
}

// plain is the text of an id that is JSON text.
func plain(id string) string {
	if s, ok := wire.JSONString([]byte(id)); ok {
		return s
	}
	return id
}
