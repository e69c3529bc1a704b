package gateway_test

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/weft-fabric/weft/gateway"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// restricted is a client that joins a domain with an expression.
func restricted(t *testing.T, g *gateway.Gateway, claims frame, domain, expression string) *client {
	t.Helper()
	c := dial(t, g)
	me := identity("app")
	maps.Copy(me, claims)
	c.hello(me)
	m := joining(domain)
	if expression != "" {
		m["restrictions"] = expression
	}
	c.expect(m, done(domain))
	return c
}

// TestJoinRestrictions: two see each other if the restrictions of both hold.
func TestJoinRestrictions(t *testing.T) {
	for _, tt := range []struct {
		mine, theirs string
		sees         bool
	}{
		{"$region == #region", "", false},
		{"$desk == 'fx'", "", true},
		{"$desk == 'fx'", "$desk == 'rates'", true},
		{"$desk == 'fx'", "$desk == 'fx'", false},
		{"", "$desk == 'fx'", false},
		{"$desk ? 'f.'", "$desk != 'fx' && $application == 'app'", true},
		{"$level == 3", "", true},
		{"($level == 4) || ($desk == #desk)", "", false},
	} {
		t.Run(tt.mine+"/"+tt.theirs, func(t *testing.T) {
			everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
				mine := restricted(t, a, frame{"desk": "rates", "region": "EMEA"}, "agm", tt.mine)
				theirs := restricted(t, b, frame{"desk": "fx", "region": "APAC", "level": 3}, "agm", tt.theirs)
				mine.register(method("0", unique("Add")), stream("1", unique("Prices")))
				if tt.sees {
					theirs.knows(mine, "1")
					request := theirs.send(calling(mine.me, "0", frame{}))
					mine.send(yielding(mine.await(frame{"type": "invoke"}), frame{}))
					theirs.answer(request)
					return
				}
				x, y := app(t, a, "x", "agm"), app(t, b, "y", "agm") // what both were told of came later
				meets(x, y)
				for _, c := range []*client{mine, theirs} {
					other := theirs.me
					if c == theirs {
						other = mine.me
					}
					for _, kind := range []string{"call", "subscribe"} { // it need not care what it sees
						m := calling(other, "0", frame{})
						m["type"] = kind
						c.fails(m, "agm", "agm.errors.failure", "Unable to find peer with id "+other+" in domain :agm-domain")
					}
					c.fence()
					c.none(frame{"new_peer_id": other})
					c.none(frame{"server_id": other})
					c.none(frame{"type": "invoke"})
				}
			})
		})
	}
}

func TestMethodRestrictions(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server := restricted(t, a, frame{"desk": "rates"}, "agm", "")
		only := method("0", unique("Secret"))
		only["restrictions"] = "$desk == #desk"
		onlyStream := stream("1", unique("SecretPrices"))
		onlyStream["restrictions"] = "$desk == 'rates'"
		server.register(only, onlyStream, method("2", unique("Public")))
		friend := restricted(t, b, frame{"desk": "rates"}, "agm", "")
		stranger := restricted(t, b, frame{"desk": "fx"}, "agm", "")
		friend.knows(server, "1")
		stranger.knows(server, "2")
		stranger.none(some0("methods-added", server, "0"))
		stranger.none(some0("methods-added", server, "1"))
		for _, id := range []string{"0", "1"} {
			for _, kind := range []string{"call", "subscribe"} { // it has guessed the id
				m := calling(server.me, id, frame{})
				m["type"] = kind
				stranger.fails(m, "agm", "agm.errors.invocation.failure", "Unable to find method with id "+id+" on server id "+server.me+" registered with this peer")
			}
		}
		friend.subscribe(server)
		request := friend.send(calling(server.me, "0", frame{}))
		server.send(yielding(server.await(frame{"type": "invoke"}), frame{}))
		friend.answer(request)
		server.expect(unregistering("0", "1"), done("agm"))
		friend.await(frame{"type": "methods-removed", "server_id": server.me})
		stranger.fence()
		stranger.none(frame{"type": "methods-removed"})
		server.register(method("0", unique("Secret"))) // now without restrictions
		stranger.knows(server, "0")
	})
}

func some0(kind string, server *client, id string) frame {
	return frame{"type": kind, "server_id": server.me, "methods": some(frame{"id": id})}
}

func TestBadRestrictions(t *testing.T) {
	c := app(t, one(t), "blotter")
	for _, bad := range []string{"$", "==", "$a == ", "($a == 'x'", "$a = 'x'", "'x", "$a == #b extra"} {
		for _, domain := range []string{"agm", "bus", "context"} {
			m := joining(domain)
			m["restrictions"] = bad
			c.expect(m, frame{"type": "error", "domain": domain, "reason_uri": domain + ".errors.failure", "reason": anything})
		}
	}
	c.join("agm")
	def := method("0", unique("Add"))
	def["restrictions"] = "$a = 'x'"
	c.expect(registering(def), frame{"type": "error", "domain": "agm", "reason": anything})
}

func TestBusRestrictions(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		topic := unique("topic")
		fx := restricted(t, a, frame{"desk": "fx"}, "bus", "$desk == 'rates'")
		rates := restricted(t, b, frame{"desk": "rates"}, "bus", "")
		credit := restricted(t, b, frame{"desk": "credit"}, "bus", "")
		ids := map[*client]string{}
		for _, c := range []*client{fx, rates, credit} {
			ids[c] = c.listen(subscribingTo(topic))
		}
		reached(t, credit, topic, rates, ids[rates])
		reached(t, rates, topic, fx, ids[fx])
		reached(t, fx, topic, rates, ids[rates])
		credit.send(publishingTo(topic, "from credit"))
		fx.send(publishingTo(topic, "from fx"))
		rates.at(message(ids[rates], "from credit")) // of two publishers, in any order
		rates.at(message(ids[rates], "from fx"))
		reached(t, rates, topic, fx, ids[fx])
		reached(t, rates, topic, credit, ids[credit])
		fx.none(message(ids[fx], "from credit"))
		credit.none(message(ids[credit], "from fx"))
	})
}

// TestRestrictionsHoldForOtherApps: whoever does not come through a gateway is held to
// them too.
func TestRestrictionsHoldForOtherApps(t *testing.T) {
	fb := newFabric(t)
	g := fb.desk(t, realm, "a")
	n, err := fb.node(t.Context(), realm, "b")
	if err != nil {
		t.Fatal(err)
	}
	server := restricted(t, g, frame{"desk": "rates"}, "agm", "$application != 'banned'")
	name := unique("Secret")
	only := method("0", name)
	only["restrictions"] = "$application == 'friend'"
	server.register(only)
	for application, may := range map[string]bool{"friend": true, "stranger": false, "banned": false} {
		other, err := n.Join(t.Context(), node.Identity{Application: application})
		if err != nil {
			t.Fatal(err)
		}
		if may {
			go func() { server.send(yielding(server.await(frame{"type": "invoke"}), frame{"ok": true})) }()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = node.Invoke[map[string]any](ctx, other, name, nil, node.Exactly(subjects.App(server.me)))
		cancel()
		if may != (err == nil) || !may && !errors.Is(err, wire.ErrNoServer) {
			t.Errorf("%s: %v", application, err)
		}
		if !may {
			server.fence()
		}
	}
	if n := server.count(frame{"type": "invoke"}); n != 1 {
		t.Errorf("%d calls came through", n)
	}
}

// TestRealms: two realms on one fabric have nothing in common.
func TestRealms(t *testing.T) {
	fb := newFabric(t)
	a, b := fb.desk(t, realm, "a"), fb.desk(t, otherRealm, "b")
	c, d := app(t, a, "blotter", "agm", "bus"), app(t, b, "blotter", "agm", "bus")
	name, topic := unique("ctx"), unique("topic")
	c.register(method("0", "Add"), stream("1", "Prices"))
	d.register(method("0", "Add"))
	id := c.create(name, frame{"mine": 1})
	mine, theirs := c.listen(subscribingTo(topic)), d.listen(subscribingTo(topic))
	for i := range 20 {
		c.send(publishingTo(topic, frame{"i": i}))
	}
	c.await(message(mine, frame{"i": 19}))
	if got := d.create(name, frame{"theirs": 1}); got == "" {
		t.Error("the name is taken")
	}
	equal(t, "the object of the one", c.open(id), frame{"mine": 1})
	for _, kind := range []string{"call", "subscribe"} {
		m := calling(c.me, "0", frame{})
		m["type"] = kind
		d.fails(m, "agm", "agm.errors.failure", "Unable to find peer with id "+c.me+" in domain :agm-domain")
	}
	late := app(t, b, "late", "agm")
	late.fence()
	d.fence()
	for _, x := range []*client{d, late} {
		x.none(frame{"new_peer_id": c.me})
		x.none(message(theirs, anything))
		if n := x.count(frame{"type": "context-added"}); n != 1 {
			t.Errorf("told of %d contexts, there is one", n)
		}
	}
}
