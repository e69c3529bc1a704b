package gateway_test

import (
	"strings"
	"testing"
)

// welcome is the answer to a hello.
var welcome = frame{"type": "welcome", "domain": "global"}

func joining(domain string) frame {
	return frame{"type": "join", "domain": "global", "destination": domain}
}

func leaving(domain string) frame {
	return frame{"type": "leave", "domain": "global", "destination": domain}
}

func done(domain string) frame { return frame{"type": "success", "domain": domain} }

func TestWelcome(t *testing.T) {
	g := one(t)
	c := dial(t, g)
	c.send(frame{
		"type": "hello", "domain": "global", "request_id": 17,
		"identity":       frame{"application": "blotter", "process": 7, "windowId": "w1"},
		"authentication": frame{"method": "secret", "login": "ada", "secret": "x"},
	})
	got := c.await(welcome)
	if !has(map[string]any(got), frame{
		"request_id": 17, "peer_id": anything,
		"resolved_identity": frame{
			"application": "blotter", "process": 7, "windowId": "w1", "user": "ada", "login": "ada", "machine": "machine-a", "instance": anything,
		},
		"options": frame{"access_token": anything},
	}) {
		t.Errorf("got %v", got)
	}
	versions := map[string]any{}
	for _, d := range list(got["available_domains"]) {
		d := d.(map[string]any)
		versions[d["uri"].(string)] = d["version"]
	}
	for _, domain := range []string{"agm", "global", "bus", "metrics"} {
		if versions[domain] == nil {
			t.Errorf("domain %s is not available", domain)
		}
	}
	if v, _ := versions["context"].(float64); v < 2 {
		t.Errorf("context has version %v: clients would not use paths", versions["context"])
	}
	if versions["activity"] != nil {
		t.Error("clients would join activity")
	}
}

func TestHelloWithoutIdentity(t *testing.T) {
	c := dial(t, one(t))
	c.expect(frame{"type": "hello", "domain": "global", "authentication": frame{"method": "secret", "login": "ada", "secret": ""}}, welcome)
}

func TestAMissingDomainIsGlobal(t *testing.T) {
	c := dial(t, one(t))
	c.expect(frame{"type": "hello", "authentication": frame{"method": "secret", "login": "ada", "secret": ""}}, welcome)
	c.expect(frame{"type": "join", "destination": "agm"}, done("agm"))
}

func TestHelloIsRefused(t *testing.T) {
	c := dial(t, one(t))
	const failure = "global.errors.authentication.failure"
	for name, tt := range map[string]struct {
		authentication frame
		uri, reason    string
	}{
		"no login":         {frame{"method": "secret", "secret": "x"}, failure, "Missing login/secret"},
		"no secret":        {frame{"method": "secret", "login": "ada"}, failure, "Missing login/secret"},
		"unknown method":   {frame{"method": "nope", "login": "ada", "secret": "x"}, failure, "Unknown authentication method nope"},
		"access token":     {frame{"method": "access-token", "token": "x.y.z"}, failure, "Invalid or expired token: "},
		"unknown provider": {frame{"provider": "win", "method": "access-token", "token": "x"}, failure, "Requested authentication provider :win is not available"},
		"gateway token":    {frame{"method": "gateway-token", "token": "x"}, "global.errors.failure", "invalid token"},
	} {
		got := c.ask(frame{"type": "hello", "domain": "global", "authentication": tt.authentication})
		peer, there := got["peer_id"]
		if !has(map[string]any(got), frame{"type": "error", "domain": "global", "reason_uri": tt.uri}) || peer != nil || !there {
			t.Errorf("%s: got %v", name, got)
		}
		if !strings.HasPrefix(got.str("reason"), tt.reason) {
			t.Errorf("%s: got %q, want %q", name, got["reason"], tt.reason)
		}
	}
	c.hello(identity("blotter")) // the connection is still good for one
	c.join("agm")
}

func TestHelloWithTokens(t *testing.T) {
	g := one(t)
	c := app(t, g, "blotter")
	access := c.nth(0).object("options").str("access_token")
	d := dial(t, g)
	d.expect(frame{"type": "hello", "domain": "global", "authentication": frame{"method": "access-token", "token": access}},
		frame{"type": "welcome", "resolved_identity": frame{"user": "ada", "login": "ada"}, "options": frame{"access_token": access}})

	token := c.expect(frame{"type": "create-token", "domain": "global"}, frame{"type": "token", "domain": "global", "peer_id": c.me, "token": anything}).str("token")
	withToken := func() frame {
		return frame{"type": "hello", "domain": "global", "authentication": frame{"method": "gateway-token", "token": token}}
	}
	got := dial(t, g).expect(withToken(), frame{"type": "welcome", "resolved_identity": frame{"user": "ada"}})
	if got["options"] != nil {
		t.Errorf("got options %v for a gateway token", got["options"])
	}
	dial(t, g).fails(withToken(), "global", "global.errors.failure", "invalid token") // it is good for once
}

func TestTheSameIdentityTwice(t *testing.T) {
	g := one(t)
	me := identity("blotter")
	me["instance"] = unique("instance")
	first := dial(t, g)
	first.hello(me)
	second := dial(t, g)
	second.fails(helloOf(me), "global", "global.errors.already_seen", "Hello already received once")
	first.close()
	poll(t, "the first is forgotten", func() bool {
		return second.ask(helloOf(me)).is("welcome")
	})
}

func TestJoinAndLeave(t *testing.T) {
	c := app(t, one(t), "blotter")
	for _, domain := range []string{"agm", "bus", "context"} {
		c.expect(joining(domain), done(domain))
		before := c.count(frame{"new_peer_id": "p-weft"})
		c.expect(joining(domain), done(domain))
		if c.count(frame{"new_peer_id": "p-weft"}) != before {
			t.Errorf("joining %s again announces again", domain)
		}
		c.expect(leaving(domain), done(domain))
		c.expect(leaving(domain), done(domain))
	}
	metrics := joining("metrics")
	metrics["options"] = frame{"system": "s", "service": "s", "instance": "i"}
	c.expect(metrics, done("metrics"))
	c.expect(joining("metrics"), done("metrics"))
	c.fails(joining("zzz"), "global", "global.errors.invalid_domain", "Unable to join missing domain zzz")
	c.fails(leaving("zzz"), "global", "global.errors.invalid_domain", "Unable to leave missing domain zzz")
	c.expect(joining("global"), frame{"type": "error", "domain": "global", "reason_uri": "global.errors.unhandled_message"})
}

func TestUnknownPeer(t *testing.T) {
	c := app(t, one(t), "blotter")
	for _, peer := range []any{"nobody", nil, 7} {
		name, _ := peer.(string)
		m := joining("agm")
		m["peer_id"] = peer
		c.fails(m, "global", "global.errors.invalid_peer", "Unable to find peer with id "+name)
	}
	silent := dial(t, c.g)
	silent.fails(joining("agm"), "global", "global.errors.invalid_peer", "Unable to find peer with id ")
}

func TestPingsAreNotAnswered(t *testing.T) {
	c := app(t, one(t), "blotter")
	c.sendText(`{"type":"ping"}`)
	c.sendText(`{"type":"ping","domain":"global"}`)
	c.silent(c.send(frame{"type": "ping", "domain": "global"}), c.send(frame{"type": "ping"}))
	c.none(frame{"type": "error"})
}

func TestMetricsAreNotAnswered(t *testing.T) {
	c := app(t, one(t), "blotter")
	m := joining("metrics")
	m["options"] = frame{"system": "s", "service": "s", "instance": "i"}
	c.expect(m, done("metrics"))
	c.silent(
		c.send(frame{"type": "define", "domain": "metrics", "metrics": []any{}}),
		c.send(frame{"type": "publish", "domain": "metrics", "values": []any{}}),
	)
	c.expect(frame{"type": "zzz", "domain": "metrics"}, frame{"type": "error", "domain": "metrics", "reason_uri": "metrics.errors.unhandled_message"})
}

func TestUnknownMessages(t *testing.T) {
	c := app(t, one(t), "blotter", "agm", "bus", "context")
	c.expect(frame{"type": "join", "domain": "zzz"}, frame{"type": "error", "domain": "zzz", "reason_uri": "global.errors.failure"})
	for _, domain := range []string{"global", "agm", "bus", "context"} {
		unhandled := frame{"type": "error", "domain": domain, "reason_uri": domain + ".errors.unhandled_message"}
		c.expect(frame{"type": "zzz", "domain": domain}, unhandled)
		c.send(frame{"type": "zzz", "domain": domain, "request_id": nil})
		unhandled["request_id"] = -1
		c.await(unhandled)
	}
}

func TestRequestIDsAreEchoed(t *testing.T) {
	c := app(t, one(t), "blotter")
	for _, id := range []any{"x", "ö\u2028\"\\", 7, 1.5, 0, -3, "", "12345678901234567890"} {
		m := leaving("bus")
		m["request_id"] = id
		c.send(m)
		if n, ok := id.(float64); ok {
			c.await(frame{"request_id": n})
			continue
		}
		c.await(frame{"type": "success", "domain": "bus", "request_id": id})
	}
	c.send(frame{"type": "leave", "domain": "global", "destination": "bus", "request_id": nil})
	c.await(frame{"type": "success", "domain": "bus", "request_id": nil})
}

func TestASecondHelloThatFailsChangesNothing(t *testing.T) {
	g := one(t)
	me := identity("blotter")
	me["instance"] = unique("instance")
	dial(t, g).hello(me)
	c := app(t, g, "pricer", "agm")
	bad := helloOf(identity("pricer"))
	bad["authentication"] = frame{"method": "nope"}
	for _, m := range []frame{bad, helloOf(me)} {
		m["peer_id"] = nil
		c.expect(m, frame{"type": "error", "domain": "global"})
		c.expect(leaving("bus"), done("bus"))
	}
}
