package gateway_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/weft-fabric/weft/gateway"
)

func creating(name string, data any) frame {
	return frame{"type": "create-context", "domain": "global", "name": name, "data": data, "lifetime": "retained"}
}

func updating(id string, delta any) frame {
	return frame{"type": "update-context", "domain": "global", "context_id": id, "delta": delta}
}

func about(kind, id string) frame {
	return frame{"type": kind, "domain": "global", "context_id": id}
}

// set and remove are commands of an update.
func set(path string, value any) frame { return frame{"type": "set", "path": path, "value": value} }

func remove(path string) frame { return frame{"type": "remove", "path": path} }

func commands(list ...frame) frame { return frame{"commands": list} }

// create makes a context and is its id.
func (c *client) create(name string, data any) (id string) {
	c.t.Helper()
	id = c.expect(creating(name, data), frame{"type": "context-created", "domain": "global", "context_id": anything}).str("context_id")
	c.t.Cleanup(func() { // the contexts of all tests would be announced to all clients
		_ = c.try(fmt.Sprintf(`{"type":"destroy-context","domain":"global","peer_id":%q,"context_id":%q}`, c.me, id)) // or it is gone
	})
	return id
}

// announced is the id of a context that the client was told of.
func (c *client) announced(name string) string {
	c.t.Helper()
	return c.nth(c.at(frame{"type": "context-added", "name": name})).str("context_id")
}

// open subscribes to a context and returns its object.
func (c *client) open(id string) (data any) {
	c.t.Helper()
	got := c.expect(about("subscribe-context", id), frame{"type": "subscribed-context", "domain": "global", "context_id": id})
	data, ok := got["data"]
	if !ok {
		c.t.Fatalf("a snapshot without data: %v", got)
	}
	return data
}

func (c *client) update(id string, delta any) {
	c.t.Helper()
	c.expect(updating(id, delta), done("global"))
}

func equal(t tester, what string, got, want any) {
	t.Helper()
	if g, w := jsonOf(got), jsonOf(want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// jsonOf is a value as JSON text in one form.
func jsonOf(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var again any
	if err := json.Unmarshal(text, &again); err != nil {
		return err.Error()
	}
	text, _ = json.Marshal(again) // it was JSON
	return string(text)
}

func TestCreateAContext(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		early := app(t, b, "early")
		early.fence() // it was told of what there is
		c := app(t, a, "blotter")
		name := unique("ctx")
		request := c.send(creating(name, frame{"a": 1, "deep": frame{"x": []any{1, nil}}}))
		created := c.answer(request)
		id := created.str("context_id")
		if !has(map[string]any(created), frame{"type": "context-created", "domain": "global"}) || id == "" {
			t.Fatalf("got %v", created)
		}
		if _, ok := created["data"]; ok {
			t.Error("context-created has data")
		}
		c.ordered(frame{"type": "context-added", "name": name, "context_id": id, "creator_id": c.me}, frame{"request_id": request})
		early.await(frame{"type": "context-added", "domain": "global", "name": name, "context_id": id, "creator_id": c.me})

		late := app(t, b, "late")
		got := late.await(frame{"type": "context-added", "domain": "global", "name": name, "context_id": id})
		if v, ok := got["creator_id"]; !ok || v != nil {
			t.Errorf("creator_id of an announcement at hello: %v", v)
		}
		late.ordered(welcome, frame{"type": "context-added"})
		for _, x := range []*client{early, late} {
			equal(t, "snapshot", x.open(id), frame{"a": 1, "deep": frame{"x": []any{1, nil}}})
		}
	})
}

func TestCreatingWhatIsThereJoinsIt(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d := app(t, a, "first"), app(t, b, "second")
		name := unique("ctx")
		id := c.create(name, frame{"a": 1})
		d.announced(name)
		d.expect(creating(name, frame{"a": 2}), frame{"type": "subscribed-context", "domain": "global", "context_id": id, "data": frame{"a": 2}})
		if n := d.count(frame{"type": "context-added", "name": name}); n != 1 {
			t.Errorf("announced %d times", n)
		}
		c.update(id, commands(set("b", 1)))
		d.await(frame{"type": "context-updated", "context_id": id, "updater_id": c.me})
	})
}

func TestUpdatesReachTheOtherMembers(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d, stranger := app(t, a, "writer"), app(t, b, "reader"), app(t, b, "stranger")
		name := unique("ctx")
		id := c.create(name, frame{"a": 1})
		d.announced(name)
		stranger.announced(name)
		d.open(id)
		c.update(id, commands(set("a", 2)))
		d.await(frame{"type": "context-updated", "domain": "global", "context_id": id, "updater_id": c.me, "delta": anything})
		stranger.update(id, commands(set("b", 3))) // need not be a member
		for _, x := range []*client{c, d} {
			x.await(frame{"type": "context-updated", "context_id": id, "updater_id": stranger.me})
		}
		stranger.none(frame{"type": "context-updated"})
		c.none(frame{"type": "context-updated", "updater_id": c.me})
		equal(t, "snapshot", stranger.open(id), frame{"a": 2, "b": 3})
		equal(t, "second snapshot", stranger.open(id), frame{"a": 2, "b": 3})
		d.expect(about("unsubscribe-context", id), done("global"))
		c.update(id, commands(set("a", 4))) // the rules complain if d is told
		stranger.await(frame{"type": "context-updated", "context_id": id, "updater_id": c.me})
		d.fence()
	})
}

func TestDestroyAContext(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d, other := app(t, a, "writer"), app(t, b, "reader"), app(t, b, "other")
		name := unique("ctx")
		id := c.create(name, frame{"a": 1})
		d.announced(name)
		other.announced(name)
		d.open(id)
		request := d.send(about("destroy-context", id))
		d.answer(request)
		destroyed := frame{"type": "context-destroyed", "domain": "global", "context_id": id, "reason_uri": "global.destroyed", "reason": "Context destroyed explicitly"}
		d.ordered(destroyed, frame{"request_id": request})
		for _, x := range []*client{c, d, other} {
			x.await(destroyed)
		}
		missing := "Unable to find context with id " + id
		for _, x := range []*client{c, d, other} {
			for _, kind := range []string{"subscribe-context", "unsubscribe-context", "update-context", "destroy-context"} {
				x.fails(about(kind, id), "global", "global.errors.failure", missing)
			}
		}
		again := c.create(name, frame{"b": 2}) // the name is free
		d.await(frame{"type": "context-added", "name": name, "context_id": again})
		equal(t, "snapshot of the new one", d.open(again), frame{"b": 2})
	})
}

func TestUnknownContext(t *testing.T) {
	c := app(t, one(t), "blotter", "context")
	for _, domain := range []string{"global", "context"} {
		for _, kind := range []string{"subscribe-context", "unsubscribe-context", "update-context", "destroy-context"} {
			m := about(kind, "c-nope")
			m["domain"] = domain
			c.fails(m, domain, domain+".errors.failure", "Unable to find context with id c-nope")
		}
	}
}

func TestLifetimes(t *testing.T) {
	c := app(t, one(t), "blotter")
	for _, bad := range []any{nil, "activity", "forever", 7} {
		m := creating(unique("ctx"), frame{})
		m["lifetime"] = bad
		text, _ := bad.(string)
		c.fails(m, "global", "global.errors.bad_lifetime", "Bad lifetime value "+text)
	}
}

func TestMembersOfTheContextDomain(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d := app(t, a, "writer"), app(t, b, "reader", "context")
		name := unique("ctx")
		id := c.create(name, frame{"a": 1})
		d.await(frame{"type": "context-added", "domain": "context", "name": name})
		m := about("subscribe-context", id)
		m["domain"] = "context"
		d.expect(m, frame{"type": "subscribed-context", "domain": "context"})
		c.update(id, commands(set("a", 2)))
		d.await(frame{"type": "context-updated", "domain": "context", "context_id": id})
		u := updating(id, commands(set("a", 3)))
		u["domain"] = "context"
		d.expect(u, done("context"))
		c.await(frame{"type": "context-added", "domain": "global"})
	})
}

// TestDeltas sends each form of an update and compares what everybody has.
func TestDeltas(t *testing.T) {
	const start = `{"a":1,"o":{"x":1,"y":{"z":1}},"list":[1,{"k":2},3],"n":null,"":{"e":1}}`
	for i, tt := range []struct{ delta, want string }{
		{`{"added":{"b":2},"updated":{},"removed":[]}`, `{"a":1,"b":2,"o":{"x":1,"y":{"z":1}},"list":[1,{"k":2},3],"n":null,"":{"e":1}}`},
		{`{"added":{"o":{"w":1}}}`, `{"a":1,"o":{"w":1},"list":[1,{"k":2},3],"n":null,"":{"e":1}}`},
		{`{"updated":{"o":{"y":{"w":2}},"a":2}}`, `{"a":2,"o":{"x":1,"y":{"w":2}},"list":[1,{"k":2},3],"n":null,"":{"e":1}}`},
		{`{"updated":{"list":[9],"n":{"was":null},"new":1}}`, `{"a":1,"o":{"x":1,"y":{"z":1}},"list":[9],"n":{"was":null},"new":1,"":{"e":1}}`},
		{`{"updated":{"list":{"x":1}}}`, `{"a":1,"o":{"x":1,"y":{"z":1}},"list":{"x":1},"n":null,"":{"e":1}}`},
		{`{"removed":["a","nope",""]}`, `{"o":{"x":1,"y":{"z":1}},"list":[1,{"k":2},3],"n":null}`},
		{`{"reset":{"r":1}}`, `{"r":1}`},
		{`{"reset":{}}`, `{}`},
		{`{"reset":null,"added":{"b":2}}`, `{"a":1,"b":2,"o":{"x":1,"y":{"z":1}},"list":[1,{"k":2},3],"n":null,"":{"e":1}}`},
		{`{"commands":[{"type":"set","path":"o.y.z","value":{"q":[]}}],"added":{"ignored":1}}`, `{"a":1,"o":{"x":1,"y":{"z":{"q":[]}}},"list":[1,{"k":2},3],"n":null,"":{"e":1}}`},
		{
			`{"commands":[{"type":"set","path":"p.q.r","value":1},{"type":"set","path":"a.b","value":2},{"type":"set","path":"n.m","value":null}]}`,
			`{"a":{"b":2},"p":{"q":{"r":1}},"o":{"x":1,"y":{"z":1}},"list":[1,{"k":2},3],"n":{"m":null},"":{"e":1}}`,
		},
		{`{"commands":[{"type":"remove","path":"o.y.z"},{"type":"remove","path":"a"}]}`, `{"o":{"x":1,"y":{}},"list":[1,{"k":2},3],"n":null,"":{"e":1}}`},
		{
			`{"commands":[{"type":"set","path":"x","value":1},{"type":"remove","path":"x"},{"type":"set","path":"x","value":2}]}`,
			`{"a":1,"x":2,"o":{"x":1,"y":{"z":1}},"list":[1,{"k":2},3],"n":null,"":{"e":1}}`,
		},
		{`{"commands":[{"type":"set","path":"list.1.k","value":"v"},{"type":"set","path":"list.3","value":4}]}`, `{"a":1,"o":{"x":1,"y":{"z":1}},"list":[1,{"k":"v"},3,4],"n":null,"":{"e":1}}`},
		{`{"commands":[{"type":"set","path":".e","value":2},{"type":"set","path":"..","value":3}]}`, `{"a":1,"o":{"x":1,"y":{"z":1}},"list":[1,{"k":2},3],"n":null,"":{"e":2,"":{"":3}}}`},
		{`{"added":{"a.b":1},"removed":["o"]}`, `{"a":1,"a.b":1,"list":[1,{"k":2},3],"n":null,"":{"e":1}}`},
		{`{"commands":[{"type":"set","path":"","value":{"all":1}}]}`, `{"all":1}`},
		{`{"commands":[{"type":"remove","path":""}]}`, `{}`},
		{`{"__unknown":{"x":1},"added":{"b":2}}`, `{"a":1,"b":2,"o":{"x":1,"y":{"z":1}},"list":[1,{"k":2},3],"n":null,"":{"e":1}}`},
		{`{}`, start},
		{`null`, start},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			a, b := two(t)
			c, d, e := app(t, a, "writer"), app(t, a, "reader"), app(t, b, "reader")
			name := unique("ctx")
			id := c.create(name, json.RawMessage(start))
			for _, x := range []*client{d, e} {
				x.announced(name)
				x.mirror(id)
				x.open(id)
			}
			c.update(id, json.RawMessage(tt.delta))
			late := app(t, b, "late")
			late.mirror(late.announced(name))
			late.open(id) // its node may not have heard of the update yet
			for _, x := range []*client{d, e, late} {
				if !x.until(patience, func() bool { return x.mirrored(id) == jsonOf(json.RawMessage(tt.want)) }) {
					x.fatal("reader has %s, want %s", x.mirrored(id), tt.want)
				}
			}
		})
	}
}

func TestBadDeltas(t *testing.T) {
	c := app(t, one(t), "writer")
	id := c.create(unique("ctx"), frame{"a": 1, "list": []int{1}})
	for _, text := range []string{
		`[]`, `1`, `{"commands":{}}`, `{"commands":[{"type":"zap","path":"a"}]}`, `{"commands":[{"type":"set","path":"b","value":1},{"type":"zap","path":"a"}]}`,
		`{"commands":[{"type":"set"}]}`, `{"commands":[{"type":"set","path":7,"value":1}]}`, `{"commands":[1]}`, `{"commands":[{"type":"set","path":"","value":1}]}`,
		`{"reset":1}`, `{"reset":[]}`, `{"added":[]}`, `{"updated":1}`, `{"removed":{}}`, `{"removed":[1]}`,
		`{"commands":[{"type":"set","path":"list.7","value":1}]}`,
	} {
		c.expect(updating(id, json.RawMessage(text)), frame{"type": "error", "domain": "global", "reason_uri": "global.errors.failure", "reason": anything})
	}
	equal(t, "the object", c.open(id), frame{"a": 1, "list": []int{1}})
	for _, data := range []string{`[]`, `1`, `"x"`} {
		c.expect(creating(unique("ctx"), json.RawMessage(data)), frame{"type": "error", "domain": "global", "reason_uri": "global.errors.failure"})
	}
}

// TestWhatTheWriterSaidIsPushed: apps are shown the delta, so that it should be what
// the writer said where that does the same.
func TestWhatTheWriterSaidIsPushed(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d := app(t, a, "writer"), app(t, b, "reader")
		name := unique("ctx")
		id := c.create(name, frame{"a": 1, "o": frame{"x": 1}})
		d.announced(name)
		d.open(id)
		for _, tt := range []struct{ sent, want any }{
			{commands(set("o", frame{"x": 1, "y": 2})), commands(set("o", frame{"x": 1, "y": 2}))},
			{commands(set("o.y", 3), remove("a")), commands(set("o.y", 3), remove("a"))},
			{frame{"reset": frame{"o": frame{"x": 1}, "z": 1}}, frame{"reset": frame{"o": frame{"x": 1}, "z": 1}}},
		} {
			c.update(id, tt.sent)
			got := d.await(frame{"type": "context-updated", "context_id": id})["delta"]
			if !reflect.DeepEqual(jsonOf(got), jsonOf(tt.want)) {
				t.Errorf("got %s, want %s", jsonOf(got), jsonOf(tt.want))
			}
		}
	})
}
