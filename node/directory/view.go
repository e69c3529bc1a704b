package directory

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Node is one node as this one sees it. It is immutable.
type Node struct {
	ID      subjects.Node
	Boot    string
	Machine string
	Host    string
	User    string
	Version string
	Hidden  bool
	// Local marks the node that is looking.
	Local bool
	// Suspect says that the node may be gone; it is being asked.
	Suspect bool
	// ClockOffset is its wall clock minus the server's.
	ClockOffset time.Duration
	Apps        []*App

	apps map[subjects.App]*App
}

// App is one app. It is immutable.
type App struct {
	ID       subjects.App
	Identity wire.Identity
	Node     subjects.Node
	// SameMachine says that the app runs on the looking node's machine, Local
	// that it is on the looking node itself.
	SameMachine bool
	Local       bool
	Methods     []*wire.Method
	// Channels are the names of the channels that the app has joined.
	Channels []string
	// Domains are the domains of the gateway's protocol that a client has joined,
	// with its restrictions; nil for an app that is no gateway client.
	Domains map[string]string
	// Holds are the ref-counted contexts that the app keeps alive.
	Holds []string
}

// Method returns the app's definition of a method or stream.
func (a *App) Method(name string) (*wire.Method, bool) {
	for _, m := range a.Methods {
		if strings.EqualFold(m.Name, name) {
			return m, true
		}
	}
	return nil, false
}

// View is who is here at one moment. It is immutable.
type View struct {
	Nodes map[subjects.Node]*Node
	boots map[string]*Node
}

// App returns an app by its id.
func (v *View) App(id subjects.App) (*App, bool) {
	n := v.boots[id.Boot()]
	if n == nil {
		return nil, false
	}
	a, ok := n.apps[id]
	return a, ok
}

// Sorted returns the nodes by id.
func (v *View) Sorted() []*Node {
	return slices.SortedFunc(maps.Values(v.Nodes), func(a, b *Node) int { return strings.Compare(string(a.ID), string(b.ID)) })
}

// Server is an app that offers a method or stream.
type Server struct {
	App    *App
	Method *wire.Method
	// Suspect says that the app's node may be gone.
	Suspect bool
}

// Kind is what an [Event] reports.
type Kind uint8

// The kinds. A method is added with its first server and removed with its last.
const (
	NodeAdded Kind = iota
	NodeRemoved
	AppAdded
	AppRemoved
	ServerMethodAdded
	ServerMethodRemoved
	MethodAdded
	MethodRemoved
)

// String is the kind's name in logs and on the command line.
func (k Kind) String() string {
	return [...]string{"node-added", "node-removed", "app-added", "app-removed", "server-method-added", "server-method-removed", "method-added", "method-removed"}[k]
}

// Event is one change. Fields that do not apply to the kind are nil.
type Event struct {
	Kind   Kind
	Node   *Node
	App    *App
	Method *wire.Method
	// Reason says why a node was removed: left, lost or offline.
	Reason string
}

// Watch yields what is there, then every change, until ctx ends. Events come
// in an order that makes sense: a node before its apps, an app before its
// methods, and the reverse when they go.
func (d *Directory) Watch(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		w := watcher{d: d, seen: &View{}, servers: map[string]int{}, yield: yield}
		for {
			changed := d.Changed()
			if !w.advance(d.View()) {
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

type watcher struct {
	d       *Directory
	seen    *View
	servers map[string]int // by method identity
	yield   func(Event) bool
}

func (w *watcher) advance(v *View) bool {
	for id, old := range w.seen.Nodes {
		if now := v.Nodes[id]; now == nil || now.Boot != old.Boot {
			if !w.node(old, nil) || !w.yield(Event{Kind: NodeRemoved, Node: old, Reason: w.d.reason(id)}) {
				return false
			}
		}
	}
	for _, now := range v.Sorted() {
		old := w.seen.Nodes[now.ID]
		switch {
		case old == now:
			continue
		case old == nil || old.Boot != now.Boot:
			if !w.yield(Event{Kind: NodeAdded, Node: now}) || !w.node(nil, now) {
				return false
			}
		case !w.node(old, now):
			return false
		}
	}
	w.seen = v
	return true
}

// node reports the difference between two states of one node; nil is none.
func (w *watcher) node(old, now *Node) bool {
	was, is := appsOf(old), appsOf(now)
	for id, a := range was {
		b := is[id]
		if a == b {
			continue
		}
		for _, m := range missing(a, b) {
			if !w.method(now, old, a, m, -1) {
				return false
			}
		}
		if b == nil && !w.yield(Event{Kind: AppRemoved, Node: old, App: a}) {
			return false
		}
	}
	if now == nil {
		return true
	}
	for _, b := range now.Apps {
		a := was[b.ID]
		if a == b {
			continue
		}
		if a == nil && !w.yield(Event{Kind: AppAdded, Node: now, App: b}) {
			return false
		}
		for _, m := range missing(b, a) {
			if !w.method(now, old, b, m, +1) {
				return false
			}
		}
	}
	return true
}

// method reports one server's method, and the method itself when it is the
// first or the last.
func (w *watcher) method(now, old *Node, a *App, m *wire.Method, by int) bool {
	n := now
	if n == nil {
		n = old
	}
	key := methodKey(m)
	before := w.servers[key]
	w.servers[key] = before + by
	switch {
	case by > 0:
		if before == 0 && !w.yield(Event{Kind: MethodAdded, Node: n, App: a, Method: m}) {
			return false
		}
		return w.yield(Event{Kind: ServerMethodAdded, Node: n, App: a, Method: m})
	default:
		if !w.yield(Event{Kind: ServerMethodRemoved, Node: n, App: a, Method: m}) {
			return false
		}
		if before > 1 {
			return true
		}
		delete(w.servers, key)
		return w.yield(Event{Kind: MethodRemoved, Node: n, App: a, Method: m})
	}
}

func appsOf(n *Node) map[subjects.App]*App {
	if n == nil {
		return nil
	}
	m := make(map[subjects.App]*App, len(n.Apps))
	for _, a := range n.Apps {
		m[a.ID] = a
	}
	return m
}

// missing lists the methods of a that b does not have; b may be nil.
func missing(a, b *App) []*wire.Method {
	if b == nil {
		return a.Methods
	}
	have := make(map[string]bool, len(b.Methods))
	for _, m := range b.Methods {
		have[methodKey(m)] = true
	}
	var out []*wire.Method
	for _, m := range a.Methods {
		if !have[methodKey(m)] {
			out = append(out, m)
		}
	}
	return out
}

// methodKey is what makes two definitions the same method.
func methodKey(m *wire.Method) string {
	return strings.ToLower(m.Name + "\x00" + m.Accepts + "\x00" + m.Returns)
}
