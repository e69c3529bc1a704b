package gateway_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/weft-fabric/weft/gateway"
)

// TestDifferences has a test for each deliberate difference that the documentation of
// the package lists, by its id.
func TestDifferences(t *testing.T) {
	tests := map[string]func(t *testing.T, a, b *gateway.Gateway){
		"second-hello":     secondHello,
		"json-errors":      jsonErrors,
		"activity":         activity,
		"stamped-identity": stampedIdentity,
		"realm":            realms,
		"agm-join":         agmJoin,
		"spoof-domain":     spoofDomain,
		"accepted-twice":   acceptedTwice,
		"leave-quiet":      leaveQuiet,
		"nameless-context": namelessContext,
		"absent-remove":    absentRemove,
		"array-elements":   arrayElements,
		"one-name":         oneName,
		"own-differences":  ownDifferences,
		"no-empty-push":    noEmptyPush,
		"second-creator":   secondCreator,
		"stream-or-method": streamOrMethod,
		"platform-peer":    platformPeer,
		"origin-403":       origin403,
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	listed := regexp.MustCompile(`(?m)^//   - ([a-z0-9-]+): `).FindAllStringSubmatch(string(doc), -1)
	played, err := os.ReadFile("../test/clients/differential/differences.mjs")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range listed {
		test := tests[id[1]]
		if test == nil {
			if !strings.Contains(string(played), `id: "`+id[1]+`"`) { // the differential test observes it
				t.Errorf("%s has no test", id[1])
			}
			continue
		}
		delete(tests, id[1])
		t.Run(id[1], func(t *testing.T) { everywhere(t, test) })
	}
	for id := range tests {
		t.Errorf("%s is not in doc.go", id)
	}
}

func secondHello(t *testing.T, a, b *gateway.Gateway) {
	c, other := app(t, a, "first", "agm"), app(t, b, "other", "agm")
	old := c.me
	c.register(method("0", unique("Add")))
	other.knows(c, "0")
	request := other.send(calling(old, "0", frame{}))
	c.await(frame{"type": "invoke"})
	again := identity("second")
	c.expect(helloOf(again), frame{"type": "welcome", "resolved_identity": frame{"application": "second"}})
	if c.me == old {
		t.Error("the second peer has the id of the first")
	}
	if got := other.answer(request); got["reason"] != "Peer has left while waiting for result" {
		t.Errorf("got %v", got)
	}
	other.await(frame{"type": "peer-removed", "removed_id": old})
	m := joining("agm")
	m["peer_id"] = old
	c.fails(m, "global", "global.errors.invalid_peer", "Unable to find peer with id "+old)
	c.join("agm")
	other.await(frame{"type": "peer-added", "new_peer_id": c.me})
}

func jsonErrors(t *testing.T, a, _ *gateway.Gateway) {
	c := app(t, a, "blotter")
	for _, text := range []string{
		``, ` `, `{`, `}`, `nonsense`, `[]`, `[{}]`, `null`, `true`, `"text"`, `12`, `{"a":1}{"b":2}`, `{"a":1,}`, `{'a':1}`, `{"a":NaN}`, "{\"a\":\"\x01\"}",
		`{"type":"join","type":"leave"}`, `{"type":"join","Type":"leave"}`,
	} {
		from := c.received()
		c.sendText(text)
		at, ok := c.find(from, frame{"type": "error", "domain": "global", "reason_uri": "global.errors.failure", "reason": anything})
		if !ok {
			c.fatal("no error for %q", text)
		}
		if id, ok := c.nth(at)["request_id"]; !ok || id != nil {
			t.Errorf("request_id %v", id)
		}
	}
	c.sendText(`{}`) // a message of no known type
	c.await(frame{"type": "error", "domain": "global"})
	c.join("agm") // and all goes on
}

func activity(t *testing.T, a, _ *gateway.Gateway) {
	c := app(t, a, "blotter")
	if some(frame{"uri": "activity"})(c.nth(0)["available_domains"]) {
		t.Error("activity is available")
	}
	c.expect(joining("activity"), done("activity"))
	c.expect(leaving("activity"), done("activity"))
}

func stampedIdentity(t *testing.T, a, b *gateway.Gateway) {
	other := app(t, b, "other", "agm")
	for _, claims := range [][]string{{"user", "login", "osUser", "machine", "node", "app"}, {"User", "LOGIN", "osuser", "Machine", "NODE", "App"}} {
		c := dial(t, a)
		claimed := frame{"application": "blotter"}
		for _, name := range claims {
			claimed[name] = "forged"
		}
		got := c.hello(claimed)
		c.join("agm")
		added := other.await(frame{"type": "peer-added", "new_peer_id": c.me})
		for _, id := range []frame{got.object("resolved_identity"), added.object("identity")} {
			if strings.Contains(jsonOf(id), "forged") {
				t.Errorf("got %v", id)
			}
			if !has(map[string]any(id), frame{"application": "blotter", "user": "ada", "login": "ada", "machine": "machine-a", "node": "a"}) {
				t.Errorf("got %v", id)
			}
		}
	}
}

// realms: clients with different logins see each other, for the OS user is the same;
// see TestRealms for the other half.
func realms(t *testing.T, a, b *gateway.Gateway) {
	other := app(t, b, "other", "agm")
	c := dial(t, a)
	m := helloOf(identity("blotter"))
	m["authentication"] = frame{"method": "secret", "login": "bob", "secret": "x"}
	c.expect(m, frame{"type": "welcome", "resolved_identity": frame{"user": "bob", "login": "bob"}})
	c.join("agm")
	meets(c, other)
	c.register(method("0", unique("Add")))
	other.knows(c, "0")
	request := other.send(calling(c.me, "0", frame{}))
	c.send(yielding(c.await(frame{"type": "invoke", "caller_id": other.me}), frame{}))
	if got := other.answer(request); !got.is("result") {
		t.Errorf("got %v", got)
	}
}

func agmJoin(t *testing.T, a, b *gateway.Gateway) {
	c, other := app(t, a, "blotter"), app(t, b, "other", "agm")
	c.expect(registering(method("0", unique("Add"))), frame{"type": "error", "domain": "agm", "reason_uri": "agm.errors.failure"})
	c.expect(calling(other.me, "0", frame{}), frame{"type": "error", "domain": "agm"})
	c.fence()
	other.fence()
	other.none(frame{"new_peer_id": c.me})
	other.none(frame{"server_id": c.me})
	c.join("agm")
	c.register(method("0", unique("Add")))
	c.expect(leaving("agm"), done("agm"))
	c.expect(registering(method("1", unique("Add"))), frame{"type": "error", "domain": "agm", "reason_uri": "agm.errors.failure"})
}

func spoofDomain(t *testing.T, a, _ *gateway.Gateway) {
	c, victim := app(t, a, "blotter", "agm", "bus", "context"), app(t, a, "victim", "agm")
	for domain, kind := range map[string]string{"global": "leave", "agm": "register", "bus": "subscribe", "context": "create-context"} {
		c.fails(frame{"type": kind, "domain": domain, "peer_id": victim.me}, domain, "global.errors.failure",
			"The original source of peer "+victim.me+" doesnt match the current source")
	}
	victim.register(method("0", unique("Add"))) // still in agm
}

func acceptedTwice(t *testing.T, a, b *gateway.Gateway) {
	server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
	server.register(stream("1", unique("Prices")))
	c.knows(server, "1")
	request := c.send(subscribing(server, "1", nil))
	interest := server.await(frame{"type": "add-interest"})
	for _, branch := range []string{"s1", "s2", "s1"} {
		server.send(accepting(interest, branch))
	}
	id := c.subscribed(request)
	server.send(publishing("s2", frame{"no": 1}))
	server.send(publishing("s1", frame{"yes": 1}))
	c.await(event(id, frame{"yes": 1}))
	c.none(event(id, frame{"no": 1}))
	if n := c.count(frame{"type": "subscribed"}); n != 1 {
		t.Errorf("subscribed %d times", n)
	}
	if n := c.count(event(id, frame{"yes": 1})); n != 1 {
		t.Errorf("%d events for one", n)
	}
}

func leaveQuiet(t *testing.T, a, b *gateway.Gateway) {
	c, other, late := app(t, a, "blotter"), app(t, b, "other", "agm"), app(t, a, "late")
	c.expect(leaving("agm"), done("agm"))
	c.join("agm")
	c.expect(leaving("agm"), done("agm"))
	c.expect(leaving("agm"), done("agm"))
	late.join("agm")
	meets(late, other)
	if n := other.count(frame{"type": "peer-removed", "removed_id": c.me}); n > 1 {
		t.Errorf("removed %d times", n)
	}
	if other.count(frame{"type": "peer-added", "new_peer_id": c.me}) != other.count(frame{"type": "peer-removed", "removed_id": c.me}) {
		t.Error("added and removed do not match")
	}
}

func namelessContext(t *testing.T, a, b *gateway.Gateway) {
	c := app(t, a, "blotter")
	for _, name := range []any{nil, "", 7, false, frame{}} {
		m := creating("", frame{})
		m["name"] = name
		c.expect(m, frame{"type": "error", "domain": "global", "reason_uri": "global.errors.failure", "reason": anything})
	}
	app(t, b, "later").fence() // its rules complain about one that was announced
}

func absentRemove(t *testing.T, a, b *gateway.Gateway) {
	c, d := app(t, a, "writer"), app(t, b, "reader")
	name := unique("ctx")
	id := c.create(name, frame{"a": 1})
	d.announced(name)
	d.open(id)
	c.update(id, commands(remove("not.there"), remove("nope"), remove("a.b")))
	c.update(id, frame{"removed": []string{"nope"}})
	equal(t, "the object", d.open(id), frame{"a": 1})
	d.none(frame{"type": "context-updated"})
}

func arrayElements(t *testing.T, a, b *gateway.Gateway) {
	c, d := app(t, a, "writer"), app(t, b, "reader")
	name := unique("ctx")
	id := c.create(name, frame{"list": []any{1, frame{"x": 1}, 3}})
	d.announced(name)
	d.mirror(id)
	d.open(id)
	for _, tt := range []struct {
		delta frame
		want  []any
	}{
		{commands(set("list.1.x", 2)), []any{1, frame{"x": 2}, 3}},
		{commands(set("list.0", "v")), []any{"v", frame{"x": 2}, 3}},
		{commands(set("list.3", 4)), []any{"v", frame{"x": 2}, 3, 4}},
		{commands(remove("list.0")), []any{frame{"x": 2}, 3, 4}},
		{commands(remove("list.7")), []any{frame{"x": 2}, 3, 4}},
	} {
		c.update(id, tt.delta)
		if want := jsonOf(frame{"list": tt.want}); !d.until(patience, func() bool { return d.mirrored(id) == want }) {
			d.fatal("%s: got %s, want %s", jsonOf(tt.delta), d.mirrored(id), want)
		}
		equal(t, "for its writer", c.open(id), frame{"list": tt.want})
	}
	c.expect(updating(id, commands(set("list.9", 1))), frame{"type": "error", "domain": "global", "reason_uri": "global.errors.failure"})
}

func oneName(t *testing.T, a, _ *gateway.Gateway) {
	c := app(t, a, "pricer", "agm")
	name := unique("Add")
	c.register(method("0", name))
	for _, defs := range [][]frame{
		{method("1", name)}, {method("1", strings.ToUpper(name))}, {stream("1", name)}, {method("1", unique("Sub")), method("2", name)},
	} {
		before := c.count(frame{"server_id": c.me})
		c.expect(registering(defs...), frame{"type": "error", "domain": "agm", "reason_uri": "agm.errors.registration.failure"})
		if c.count(frame{"server_id": c.me}) != before {
			t.Errorf("%v: something was registered", defs)
		}
	}
	c.register(method("1", unique("Sub"))) // the id is not used up
	c.register(method("0", name))          // and this is the same again
}

// ownDifferences: what a reader that is behind gets is the difference to what it has.
func ownDifferences(t *testing.T, a, b *gateway.Gateway) {
	c, d := app(t, a, "writer"), app(t, b, "reader")
	name := unique("ctx")
	id := c.create(name, frame{"o": frame{"x": 1, "y": 2}, "z": 1})
	d.announced(name)
	d.open(id)
	for _, tt := range []struct{ sent, want string }{
		// the whole of what a merge does, not the merge
		{`{"updated":{"o":{"x":3}}}`, `{"commands":[{"type":"set","path":"o.x","value":3}]}`},
		// nothing that the writer said besides
		{`{"commands":[{"type":"set","path":"z","value":2}],"__trace":{"id":1}}`, `{"commands":[{"type":"set","path":"z","value":2}]}`},
		{`{"added":{"k":1},"removed":["nope"]}`, `{"commands":[{"type":"set","path":"k","value":1}]}`},
		// a key with a dot in no command
		{`{"added":{"a.b":1}}`, `{"added":{"a.b":1},"updated":{},"removed":[]}`},
	} {
		c.update(id, json.RawMessage(tt.sent))
		got := d.await(frame{"type": "context-updated", "context_id": id})
		equal(t, tt.sent, got["delta"], json.RawMessage(tt.want))
	}
}

func noEmptyPush(t *testing.T, a, b *gateway.Gateway) {
	c, d := app(t, a, "writer"), app(t, b, "reader")
	name := unique("ctx")
	id := c.create(name, frame{"a": 1, "o": frame{"x": []any{1.0, nil}}})
	d.announced(name)
	d.open(id)
	for _, delta := range []string{
		`{}`, `null`, `{"added":{},"updated":{},"removed":[]}`, `{"commands":[]}`, `{"commands":[{"type":"set","path":"a","value":1.0}]}`,
		`{"reset":{"o":{"x":[1,null]},"a":1}}`, `{"updated":{"o":{"x":[1,null]}}}`, `{"commands":[{"type":"set","path":"a","value":2},{"type":"set","path":"a","value":1}]}`,
	} {
		c.update(id, json.RawMessage(delta))
	}
	c.update(id, commands(set("end", 1)))
	d.await(frame{"type": "context-updated", "delta": commands(set("end", 1))})
	if n := d.count(frame{"type": "context-updated"}); n != 1 {
		t.Errorf("%d pushes", n)
	}
}

func secondCreator(t *testing.T, a, b *gateway.Gateway) {
	c, d := app(t, a, "first"), app(t, b, "second")
	name := unique("ctx")
	id := c.create(name, frame{"a": 1, "o": frame{"x": 1}})
	d.announced(name)
	want := frame{"a": 2, "o": frame{"x": 1, "z": 1}, "b": frame{"y": 1}}
	got := d.expect(creating(name, frame{"a": 2, "o": frame{"z": 1}, "b": frame{"y": 1}}), frame{"type": "subscribed-context", "context_id": id})
	equal(t, "what the second creator gets", got["data"], want)
	c.await(frame{"type": "context-updated", "context_id": id, "updater_id": d.me})
	equal(t, "what the first has", c.open(id), want)
}

func streamOrMethod(t *testing.T, a, b *gateway.Gateway) {
	server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
	server.register(method("0", unique("Add")), stream("1", unique("Prices")))
	c.knows(server, "1")
	c.expect(calling(server.me, "1", frame{}), frame{"type": "error", "domain": "agm", "reason_uri": "agm.errors.invocation.failure", "reason": anything})
	c.expect(subscribing(server, "0", nil), frame{"type": "error", "domain": "agm", "reason_uri": "agm.errors.invocation.failure", "reason": anything})
	server.fence()
	server.none(frame{"type": "invoke"})
	server.none(frame{"type": "add-interest"})
}

func platformPeer(t *testing.T, a, _ *gateway.Gateway) {
	c := app(t, a, "blotter", "agm")
	peer := c.nth(c.at(frame{"type": "peer-added", "meta": frame{"local": true}, "identity": frame{"application": "weft"}})).str("new_peer_id")
	methods := list(c.nth(c.at(frame{"type": "methods-added", "server_id": peer}))["methods"])
	for _, name := range []string{"T42.Channels.Announce", "T42.ACS.GetApplications", "T42.Prefs.Get", "T42.Prefs.Set"} {
		if !slices.ContainsFunc(methods, func(m any) bool { return has(m, frame{"name": name, "flags": frame{"streaming": false}}) }) {
			t.Errorf("no method %s", name)
		}
	}
	for _, name := range []string{"T42.Wnd.OnEvent", "T42.ACS.OnEvent"} {
		if !slices.ContainsFunc(methods, func(m any) bool { return has(m, frame{"name": name, "flags": frame{"streaming": true}}) }) {
			t.Errorf("no stream %s", name)
		}
	}
	c.expect(calling(peer, "T42.Channels.Announce", frame{"command": "getChannelsMode"}), frame{"type": "result", "result": frame{"mode": "single"}})
	c.fails(calling(peer, "T42.Nope", frame{}), "agm", "agm.errors.invocation.failure", "Unable to find method with id T42.Nope on server id "+peer+" registered with this peer")
	id := c.subscribed(c.send(frame{"type": "subscribe", "domain": "agm", "server_id": peer, "method_id": "T42.Wnd.OnEvent", "arguments_kv": frame{"withConfig": true}}))
	c.await(event(id, frame{"type": "Configuration", "windowAvailableOnURLChanged": true}))
	c.await(event(id, frame{"type": "Snapshot", "windows": []any{}}))
	c.expect(frame{"type": "unsubscribe", "domain": "agm", "subscription_id": id}, done("agm"))
}

func origin403(t *testing.T, a, _ *gateway.Gateway) {
	_, err := tryDial(t, a.URLs()[0], http.Header{"Origin": {"https://evil.example"}})
	if err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("got %v", err)
	}
}
