package gateway_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/weft-fabric/weft/gateway/edge"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/wire"
)

// sendDeep sends a message with so many arrays in each other in the place of "@".
func (c *client) sendDeep(m frame, levels int) (request string) {
	c.t.Helper()
	request, text := c.stamp(m)
	c.sendText(strings.Replace(text, `"@"`, strings.Repeat("[", levels)+strings.Repeat("]", levels), 1))
	return request
}

// stillGood checks that a gateway serves others.
func stillGood(t *testing.T, c *client) {
	t.Helper()
	d := app(t, c.g, "other", "agm")
	d.register(method("0", unique("Add")))
	request := d.send(calling(d.me, "0", frame{}))
	d.send(yielding(d.await(frame{"type": "invoke"}), frame{}))
	d.answer(request)
	d.close()
}

func TestOversizeFrames(t *testing.T) {
	c := app(t, one(t), "blotter", "agm")
	c.sendText(`{"type":"join","domain":"global","request_id":"big","x":"` + strings.Repeat("x", edge.MaxMessage) + `"}`)
	if got := c.closed(patience); got.Code != websocket.StatusMessageTooBig {
		t.Errorf("closed with %v", got)
	}
	stillGood(t, c)
}

// TestLargePayloads are below the limit of a frame; what is too large for the fabric is
// refused where it comes from.
func TestLargePayloads(t *testing.T) {
	fb := newFabric(t, func(cfg *embedded.Config) { cfg.MaxPayload = 1 << 20 })
	a, b := fb.desk(t, realm, "a"), fb.desk(t, realm, "b")
	server, c := app(t, a, "pricer", "agm", "bus"), app(t, b, "blotter", "agm", "bus")
	server.register(method("0", unique("Add")), stream("1", unique("Prices")))
	c.knows(server, "1")
	subscription := c.subscribe(server)
	large, huge := strings.Repeat("x", 900_000), strings.Repeat("x", 1_100_000)
	refused := func(domain string) frame { return frame{"type": "error", "domain": domain, "reason": anything} }

	request := c.send(calling(server.me, "0", frame{"large": large}))
	server.send(yielding(server.await(frame{"type": "invoke", "arguments_kv": frame{"large": large}}), frame{"large": large}))
	if got := c.answer(request); !has(map[string]any(got), frame{"type": "result", "result": frame{"large": large}}) {
		t.Errorf("got %.200v", got)
	}
	c.expect(calling(server.me, "0", frame{"huge": huge}), refused("agm"))
	request = c.send(calling(server.me, "0", frame{}))
	server.send(yielding(server.await(frame{"type": "invoke"}), frame{"huge": huge}))
	if got := c.answer(request); !got.is("error") {
		t.Errorf("got %.200v", got)
	}

	server.send(publishing("0", frame{"large": large}))
	c.await(event(subscription, frame{"large": large}))
	server.expect(publishing("0", frame{"huge": huge}), refused("agm"))
	server.send(publishing("0", frame{"after": 1}))
	c.await(event(subscription, frame{"after": 1}))
	c.expect(publishingTo("topic", huge), refused("bus"))

	c.expect(creating(unique("ctx"), frame{"huge": huge}), refused("global"))
	id := c.create(unique("ctx"), frame{"a": 1})
	c.expect(updating(id, commands(set("huge", huge))), refused("global"))
	equal(t, "the object", c.open(id), frame{"a": 1})
	c.update(id, commands(set("large", large)))
}

// TestDeepJSON is nested deeper than JSON of a client may be.
func TestDeepJSON(t *testing.T) {
	for _, levels := range []int{70, 1000, 100_000} {
		c := app(t, one(t), "blotter", "agm", "bus")
		c.register(method("0", unique("Add")), stream("1", unique("Prices")))
		id := c.create(unique("ctx"), frame{"a": 1})
		subscription := c.subscribe(c)
		listens := c.listen(subscribingTo("deep"))
		for _, m := range []frame{
			calling(c.me, "0", frame{"x": "@"}),
			creating(unique("ctx"), frame{"x": "@"}),
			updating(id, commands(set("x", "@"))),
			updating(id, frame{"reset": frame{"x": "@"}}),
			registering(frame{"id": "9", "name": "Deep", "x": "@"}),
			{"type": "create-context", "domain": "global", "name": "@"},
			{"type": "join", "domain": "global", "destination": "@"},
			{"type": "@", "domain": "global"},
		} {
			from := c.received()
			request := c.sendDeep(m, levels)
			if at, ok := c.find(from, frame{"type": "error"}); !ok {
				c.fatal("%v was not refused", m["type"])
			} else if got := c.nth(at)["request_id"]; got != request && got != nil {
				t.Errorf("the error is for %v, not %v", got, request)
			}
		}
		c.sendDeep(publishing("0", frame{"x": "@"}), levels)
		c.sendDeep(publishingTo("deep", frame{"x": "@"}), levels)
		c.send(publishing("0", frame{"x": 1}))
		c.send(publishingTo("deep", frame{"x": 1}))
		c.await(event(subscription, frame{"x": 1}))
		c.await(message(listens, frame{"x": 1}))
		equal(t, "the object", c.open(id), frame{"a": 1})
		path := strings.Repeat("a.", levels) + "a"
		c.expect(updating(id, commands(set(path, 1))), frame{"type": "error", "domain": "global"})
		c.update(id, commands(remove(path)))
	}
}

func TestTooManyMembers(t *testing.T) {
	c := app(t, one(t), "blotter", "agm")
	m := leaving("bus")
	for i := range wire.MaxMembers {
		m[fmt.Sprint("m", i)] = i
	}
	c.send(m)
	c.await(frame{"type": "error", "domain": "global"})
	id := c.create(unique("ctx"), frame{})
	var many []frame
	for i := range wire.MaxContextKeys + 1 {
		many = append(many, set(fmt.Sprint("k", i), i))
	}
	c.expect(updating(id, commands(many...)), frame{"type": "error", "domain": "global", "reason": anything})
	c.update(id, commands(many[:wire.MaxContextKeys]...))
}

func TestTooManyMethods(t *testing.T) {
	c := app(t, one(t), "blotter", "agm")
	var defs []frame
	for i := range wire.MaxMethods + 1 {
		defs = append(defs, frame{"id": fmt.Sprint(i), "name": unique("M")})
	}
	refused := frame{"type": "error", "domain": "agm", "reason": anything}
	c.expect(registering(defs...), refused)
	c.register(defs[:wire.MaxMethods]...)
	c.expect(registering(defs[wire.MaxMethods]), refused)
	c.expect(unregistering("0"), done("agm"))
	c.register(defs[wire.MaxMethods])

	d := app(t, c.g, "large", "agm")
	d.expect(registering(frame{"id": "0", "name": "Large", "x": strings.Repeat("x", wire.MaxDefinition)}), refused)
	n := 0
	for ; n < 100; n++ {
		if !d.ask(registering(frame{"id": fmt.Sprint(n), "name": unique("Large"), "x": strings.Repeat("x", wire.MaxDefinition-200)})).is("success") {
			break
		}
	}
	if most := wire.MaxDefinitions / (wire.MaxDefinition - 200); n < most-2 || n > most {
		t.Errorf("%d large definitions, want about %d", n, most)
	}
	for _, bad := range []string{`{"id":null,"name":"x"}`, `{"id":{},"name":"x"}`, `{"id":[],"name":"x"}`, `{"id":true,"name":"x"}`, `{"id":"0"}`, `{"name":"x"}`, `{"id":"0","name":""}`, `{"id":"0","name":7}`, `7`, `[]`, `null`} {
		got := d.ask(registering(nil, nil)) // two that are null
		if !got.is("error") {
			t.Errorf("null: %v", got)
		}
		m := frame{"type": "register", "domain": "agm", "methods": []json.RawMessage{json.RawMessage(bad)}}
		if got := d.ask(m); !got.is("error") {
			t.Errorf("%s: %v", bad, got)
		}
	}
	d.expect(frame{"type": "register", "domain": "agm", "methods": "x"}, refused)
	d.expect(frame{"type": "unregister", "domain": "agm", "methods": 7}, refused)
}

func TestTooManySubscriptions(t *testing.T) {
	c := app(t, one(t), "blotter", "agm", "bus")
	topic := unique("topic")
	var sent []string
	for i := range wire.MaxSubscriptions + 10 {
		sent = append(sent, c.send(subscribingTo(fmt.Sprint(topic, i))))
	}
	refused := 0
	for _, request := range sent {
		if c.answer(request).is("error") {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d were refused, want 10", refused)
	}
	c.close()
	app(t, c.g, "next", "bus").listen(subscribingTo(topic))
}

func TestTooManyCalls(t *testing.T) {
	everyone := one(t)
	server, c := app(t, everyone, "pricer", "agm"), app(t, everyone, "blotter", "agm")
	server.register(method("0", unique("Never")))
	c.knows(server, "0")
	var sent []string
	for range wire.MaxPendingCalls + 10 {
		sent = append(sent, c.send(calling(server.me, "0", frame{})))
	}
	c.fence()
	if n := c.count(frame{"type": "error", "domain": "agm"}); n != 10 {
		t.Errorf("%d were refused, want 10", n)
	}
	other := app(t, everyone, "other", "agm")
	other.knows(server, "0")
	other.expect(calling(server.me, "0", frame{}), frame{"type": "error", "domain": "agm"}) // it serves no more at a time
	server.close()
	for _, request := range sent {
		if got := c.answer(request); !got.is("error") {
			t.Fatalf("got %v", got)
		}
	}
	stillGood(t, c)
}

// TestGarbage is what no client sends, by many at a time.
func TestGarbage(t *testing.T) {
	g := own(t)
	c := app(t, g, "blotter", "agm")
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		d := dial(t, g)
		for range 200 {
			text := make([]byte, r.IntN(100))
			for i := range text {
				text[i] = `{}[]":,\truefalsn0123.-eE typedomainpeer_id`[r.IntN(43)]
			}
			if d.try(string(text)) != nil {
				break
			}
		}
	}
	binary := dial(t, g)
	_ = binary.ws.Write(t.Context(), websocket.MessageBinary, []byte{0xff, 0xfe, 0, 1}) // it may be closed by then
	if got := binary.closed(patience); got.Code != websocket.StatusInvalidFramePayloadData {
		t.Errorf("not UTF-8: closed with %v", got)
	}
	ok := dial(t, g)
	text, err := json.Marshal(helloOf(identity("binary")))
	if err != nil {
		t.Fatal(err)
	}
	if err := ok.ws.Write(t.Context(), websocket.MessageBinary, text); err != nil {
		t.Fatal(err)
	}
	ok.await(welcome) // a binary frame with JSON is fine
	begin := time.Now()
	c.fence()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("an answer took %v", took)
	}
	stillGood(t, c)
}

// TestNothingIsLeft: when all have left, nothing of them remains.
func TestNothingIsLeft(t *testing.T) {
	fb := newFabric(t)
	fb.recording(t)
	g := fb.desk(t, realm, "a")
	idle := func() { // what a gateway starts when it is first used
		c := app(t, g, "first", "agm", "bus", "context")
		c.open(c.create(unique("ctx"), frame{}))
		c.listen(subscribingTo("x"))
		stillGood(t, c)
		c.close()
		poll(t, "the first is gone", func() bool { return g.Stats().Clients == 0 })
	}
	idle()
	var before int
	poll(t, "it is quiet", func() bool {
		n := runtime.NumGoroutine()
		quiet := n == before
		before = n
		return quiet
	})
	server := app(t, g, "pricer", "agm")
	server.register(method("0", unique("Never")), stream("1", unique("Prices")))
	ids := server.create(unique("ctx"), frame{"a": 1})
	for i := range 40 {
		c := app(t, g, fmt.Sprint("app", i), "agm", "bus", "context")
		c.knows(server, "1")
		c.open(ids)
		c.listen(subscribingTo("x.>"))
		c.subscribe(server)
		c.send(calling(server.me, "0", frame{}))
		c.send(subscribing(server, "1", nil))
		c.send(updating(ids, commands(set("a", i))))
		if i%2 == 0 {
			c.close()
		} else {
			_ = c.ws.Close(websocket.StatusNormalClosure, "") // it may be answered late
			c.close()
		}
	}
	server.close()
	poll(t, "all are gone", func() bool { return g.Stats().Clients == 0 })
	poll(t, "their goroutines are gone", func() bool { return runtime.NumGoroutine() <= before+3 })
}
