package gateway_test

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/weft-fabric/weft/gateway"
)

// TestClaims: what a client says of itself reaches others as it is, and nothing else
// does.
func TestClaims(t *testing.T) {
	claims := frame{
		"application": "blotter", "applicationName": "Blotter ö", "windowId": "w-1", "instance": unique("instance"), "process": 4711, "region": "EMEA",
		"environment": "UAT", "service": "risk", "api": "6.10.4",
		"desk": "rates", "level": 5.5, "senior": true, "nothing": nil, "": "empty", "a.b": "dot", "roles": []any{"a", map[string]any{"b": nil}},
		"deep": map[string]any{"x": map[string]any{"y": []any{}}}, "quote\"\\": "\u2028",
	}
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		other := app(t, b, "other", "agm", "bus")
		c := dial(t, a)
		claims["instance"] = unique("instance")
		want := decoded(claims)
		maps.Copy(want, frame{"user": "ada", "login": "ada", "machine": "machine-a", "node": "a"})
		resolved := c.hello(claims).object("resolved_identity")
		c.join("agm")
		c.join("bus")
		topic := unique("topic")
		id := other.listen(subscribingTo(topic))
		reached(t, c, topic, other, id)
		for where, got := range map[string]frame{
			"welcome":            resolved,
			"peer-added":         other.await(frame{"type": "peer-added", "new_peer_id": c.me}).object("identity"),
			"publisher-identity": other.nth(other.at(frame{"type": "event", "subscription_id": id})).object("publisher-identity"),
		} {
			delete(got, "osUser")
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\n got %v\nwant %v", where, got, want)
			}
		}
	})
}

// TestOddClaims are of types that no library sends.
func TestOddClaims(t *testing.T) {
	for _, claims := range []frame{
		{"application": 5, "process": "x", "instance": []any{}, "windowId": nil, "region": map[string]any{}},
		{"process": -1},
		{"process": 1.5},
		{"process": 0},
		{"process": 1e300},
	} {
		c := dial(t, one(t))
		resolved := c.hello(claims).object("resolved_identity")
		for name, want := range decoded(claims) {
			if got, ok := resolved[name]; !ok && name != "instance" || ok && !reflect.DeepEqual(got, want) && name != "instance" {
				t.Errorf("%s of %v: got %v", name, claims, got)
			}
		}
	}
	for _, bad := range []any{"x", 1, []any{}, frame{"x": strings.Repeat("x", 100_000)}, frame{"application": strings.Repeat("x", 300)}} {
		m := helloOf(nil)
		m["identity"] = bad
		dial(t, one(t)).expect(m, frame{"type": "error", "domain": "global", "reason": anything})
	}
}

// TestQuestionMarks are replaced by the id of the peer.
func TestQuestionMarks(t *testing.T) {
	c := dial(t, one(t))
	got := c.hello(frame{"application": "?", "instance": "?", "windowId": "?", "own": "?", "text": "a?", "deep": frame{"x": "?"}, "list": []any{"?"}})
	id := got.object("resolved_identity")
	if !has(map[string]any(id), frame{"application": c.me, "instance": c.me, "windowId": c.me, "own": c.me, "text": "a?", "deep": frame{"x": "?"}, "list": []any{"?"}}) {
		t.Errorf("got %v", id)
	}
	d := dial(t, one(t)) // and are not the same identity twice
	d.hello(frame{"application": "?", "instance": "?", "windowId": "?", "own": "?", "text": "a?", "deep": frame{"x": "?"}, "list": []any{"?"}})
}
