package gateway_test

import (
	"maps"
	"testing"

	"github.com/weft-fabric/weft/gateway"
)

// with is a create-context with more than a name.
func with(name, lifetime string, more frame) frame {
	m := creating(name, frame{"a": 1})
	m["lifetime"] = lifetime
	maps.Copy(m, more)
	return m
}

func (c *client) createWith(name, lifetime string, more frame) (id string) {
	c.t.Helper()
	return c.expect(with(name, lifetime, more), frame{"type": "context-created", "context_id": anything}).str("context_id")
}

const orphaned = "Context destroyed because its owner/last peer left"

// TestRefCounted: such a context lives as long as somebody is a member.
func TestRefCounted(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d, watcher := app(t, a, "one"), app(t, b, "two"), app(t, b, "watcher")
		name := unique("ctx")
		id := c.createWith(name, "ref-counted", nil)
		d.announced(name)
		watcher.announced(name)
		d.open(id)
		c.expect(about("unsubscribe-context", id), done("global"))
		d.update(id, commands(set("a", 2))) // one member is left
		watcher.fence()
		for _, x := range []*client{c, d, watcher} {
			x.none(frame{"type": "context-destroyed", "context_id": id})
		}
		request := d.send(about("unsubscribe-context", id))
		d.answer(request)
		if a == b { // else node b may not have heard yet that d is the last
			d.ordered(frame{"type": "context-destroyed", "context_id": id, "reason_uri": "global.peer-left", "reason": orphaned}, frame{"request_id": request})
		}
		for _, x := range []*client{c, d, watcher} {
			x.await(frame{"type": "context-destroyed", "context_id": id, "reason": orphaned})
		}
		if again := c.createWith(name, "ref-counted", nil); again == "" {
			t.Error("the name is not free")
		}
		watcher.await(frame{"type": "context-added", "name": name})
		c.close() // and now its only member is gone
		watcher.await(frame{"type": "context-destroyed", "reason_uri": "context.peer-left", "reason": orphaned})
	})
}

// TestOwnership: such a context ends with its owner.
func TestOwnership(t *testing.T) {
	t.Parallel() // nodes wait ten seconds if they have hardly seen the owner
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		t.Parallel()
		owner, d := app(t, a, "owner"), app(t, b, "other")
		name := unique("ctx")
		id := owner.createWith(name, "ownership", nil)
		d.announced(name)
		d.open(id)
		late := app(t, b, "late")
		late.await(frame{"type": "context-added", "name": name, "creator_id": owner.me})
		d.update(id, commands(set("a", 2)))
		owner.await(frame{"type": "context-updated", "context_id": id, "updater_id": d.me})
		d.fails(about("destroy-context", id), "global", "global.errors.not_authorized", "Not authorized to destroy context")
		owner.close()
		for _, x := range []*client{d, late} {
			x.await(frame{"type": "context-destroyed", "context_id": id, "reason_uri": "context.peer-left", "reason": orphaned})
		}
		mine := d.createWith(name, "ownership", nil)
		late.await(frame{"type": "context-added", "name": name, "creator_id": d.me})
		d.expect(about("destroy-context", mine), done("global"))
		late.await(frame{"type": "context-destroyed", "context_id": mine, "reason_uri": "global.destroyed"})
	})
}

// TestRetained: such a context outlives everybody.
func TestRetained(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c := app(t, a, "creator")
		name := unique("ctx")
		id := c.createWith(name, "retained", nil)
		d := app(t, b, "other")
		d.announced(name)
		c.close()
		equal(t, "the object", d.open(id), frame{"a": 1})
		d.expect(about("unsubscribe-context", id), done("global"))
		d.fence()
		d.none(frame{"type": "context-destroyed", "context_id": id})
		d.expect(about("destroy-context", id), done("global"))
	})
}

// TestPermissions: who may not read a context does not know of it, and who may not
// write cannot change or destroy it.
func TestPermissions(t *testing.T) {
	const read, write, destroy = "Not authorized to read context", "Not authorized to update context", "Not authorized to destroy context"
	const me = "$desk == #desk"
	for name, tt := range map[string]struct {
		more              frame
		reads, writes     bool // a stranger
		peerReads, peerWr bool // somebody of the same desk
	}{
		"none":            {frame{}, true, true, true, true},
		"read":            {frame{"read_permissions": me}, false, true, true, true},
		"write":           {frame{"write_permissions": me}, true, false, true, true},
		"both":            {frame{"read_permissions": me, "write_permissions": me}, false, false, true, true},
		"write for all":   {frame{"read_permissions": me, "write_permissions": "$desk != 'x'"}, true, true, true, true},
		"read and nobody": {frame{"read_permissions": me, "write_permissions": "$desk == 'x'"}, false, false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
				as := func(g *gateway.Gateway, desk string) *client {
					c := dial(t, g)
					id := identity("app")
					id["desk"] = desk
					c.hello(id)
					c.fence()
					return c
				}
				creator, peer, stranger := as(a, "rates"), as(b, "rates"), as(b, "fx")
				name, plain := unique("ctx"), unique("ctx")
				id := creator.createWith(name, "retained", tt.more)
				creator.create(plain, frame{}) // everybody hears of it, and later than of the other
				creator.update(id, commands(set("b", 1)))
				equal(t, "for the creator", creator.open(id), frame{"a": 1, "b": 1})
				for _, x := range []struct {
					*client
					reads, writes bool
				}{{peer, tt.peerReads, tt.peerWr}, {stranger, tt.reads, tt.writes}} {
					x.announced(plain)
					if (x.count(frame{"type": "context-added", "name": name}) == 1) != x.reads {
						t.Errorf("announced: want %v", x.reads)
					}
					checkRight(t, x.client, about("subscribe-context", id), x.reads, x.reads, read)
					checkRight(t, x.client, updating(id, commands(set("c", 1))), x.reads, x.writes, write)
					if !x.writes {
						checkRight(t, x.client, about("destroy-context", id), x.reads, false, destroy)
					}
				}
				if !tt.reads {
					stranger.expect(with(name, "retained", nil), frame{"type": "error", "reason_uri": "global.errors.not_authorized"})
				}
				if tt.reads && !tt.writes { // a library creates what it was not told of
					stranger.fails(creating(name, frame{"c": 1}), "global", "global.errors.not_authorized", write)
				}
				creator.expect(about("destroy-context", id), done("global"))
				if tt.reads {
					stranger.await(frame{"type": "context-destroyed", "context_id": id})
				}
				stranger.fence()
				if !tt.reads {
					stranger.none(frame{"type": "context-destroyed", "context_id": id})
				}
			})
		})
	}
}

// checkRight sends a request with a guessed id. Who may not know of the context is told
// either that there is none, or that it may not.
func checkRight(t *testing.T, c *client, m frame, knows, may bool, denied string) {
	t.Helper()
	got := c.ask(m)
	refused := has(map[string]any(got), frame{"type": "error", "domain": "global", "reason_uri": "global.errors.not_authorized", "reason": denied})
	missing := has(map[string]any(got), frame{"type": "error", "domain": "global", "reason": beginning("Unable to find context with id ")})
	switch {
	case may && knows && !got.is("error"), !may && refused, !knows && missing:
	default:
		t.Errorf("%v: knows %v, may %v: got %v", m, knows, may, got)
	}
}

func TestBadPermissions(t *testing.T) {
	c := app(t, one(t), "blotter")
	for _, name := range []string{"read_permissions", "write_permissions"} {
		c.expect(with(unique("ctx"), "retained", frame{name: "$a = "}), frame{"type": "error", "domain": "global", "reason": anything})
	}
}

// TestWhatEndsMeanwhile: whoever subscribes to a context, or creates it, at the moment
// of its end gets it, and hears of the end then, or hears that there is none, or has made
// another one.
func TestWhatEndsMeanwhile(t *testing.T) {
	const rounds = 40
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d := app(t, a, "creator"), app(t, b, "reader")
		for round := range rounds {
			name := unique("ctx")
			id := c.createWith(name, "retained", nil)
			d.announced(name)
			m := about("subscribe-context", id)
			if round%2 == 0 {
				m = creating(name, frame{"a": 1})
			}
			asked := make(chan string, 1)
			go func() { asked <- d.send(m) }()
			c.expect(about("destroy-context", id), done("global"))
			got := d.answer(<-asked)
			if !got.is("subscribed-context") && !got.is("context-created") && !has(map[string]any(got), frame{"type": "error", "reason": "Unable to find context with id " + id}) {
				t.Errorf("got %v", got)
			}
			d.at(frame{"type": "context-destroyed", "context_id": id})
			_ = d.ask(about("destroy-context", id)) // if it is a new one
		}
	})
}
