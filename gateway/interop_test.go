package gateway_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"testing"

	"github.com/weft-fabric/weft/gateway"
)

// method and stream are definitions as clients send them.
func method(id, name string) frame {
	return frame{"id": id, "name": name, "flags": frame{"streaming": false, "metadata": frame{}}}
}

func stream(id, name string) frame {
	return frame{"id": id, "name": name, "flags": frame{"streaming": true, "metadata": frame{}}}
}

func registering(defs ...frame) frame {
	return frame{"type": "register", "domain": "agm", "methods": defs}
}

func unregistering(ids ...any) frame {
	return frame{"type": "unregister", "domain": "agm", "methods": ids}
}

func calling(server, id string, args any) frame {
	return frame{"type": "call", "domain": "agm", "server_id": server, "method_id": id, "arguments_kv": args}
}

func yielding(invoke frame, result any) frame {
	return frame{"type": "yield", "domain": "agm", "invocation_id": invoke["invocation_id"], "result": result}
}

func (c *client) register(defs ...frame) {
	c.t.Helper()
	c.expect(registering(defs...), done("agm"))
}

// knows waits until the client was told of a method, or stream, of another, which was
// told of the client.
func (c *client) knows(server *client, id any) {
	c.t.Helper()
	if !c.until(patience, func() bool { return c.rules.methods[server.me][id] }) {
		c.fatal("not told of %v of %s", id, server.me)
	}
	if !server.until(patience, func() bool { return server.rules.known(c.me) }) {
		server.fatal("not told of %s", c.me)
	}
}

// meets waits until both were told of each other.
func meets(x, y *client) {
	x.t.Helper()
	for _, c := range [][2]*client{{x, y}, {y, x}} {
		if !c[0].until(patience, func() bool { return c[0].rules.methods[c[1].me] != nil }) {
			c[0].fatal("not told of %s", c[1].me)
		}
	}
}

// added is methods-added of a server, one of whose methods has this id.
func added(server *client, id any) frame {
	return frame{"domain": "agm", "type": "methods-added", "server_id": server.me, "methods": some(frame{"id": id})}
}

// definition is that with an id of methods-added.
func definition(f frame, id any) frame {
	for _, m := range list(f["methods"]) {
		if m, _ := m.(map[string]any); m["id"] == id {
			return m
		}
	}
	return nil
}

// some says whether an element of a list has a pattern in it.
func some(pattern frame) func(any) bool {
	return func(v any) bool {
		for _, e := range list(v) {
			if has(e, pattern) {
				return true
			}
		}
		return false
	}
}

func TestJoiningShowsWhoIsThere(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server := app(t, a, "pricer", "agm")
		server.register(method("0", unique("Add")), stream("1", unique("Prices")))
		other := app(t, b, "scout", "agm")
		other.knows(server, "1")
		c := app(t, b, "blotter", "agm")
		c.ordered(
			frame{"type": "peer-added", "domain": "agm", "new_peer_id": server.me, "identity": frame{"application": "pricer"}, "meta": frame{"local": a == b}},
			frame{"type": "methods-added", "domain": "agm", "source_type": "local", "server_id": server.me, "methods": []any{
				frame{"id": "0"}, frame{"id": "1"},
			}},
			done("agm"),
		)
		server.await(frame{"type": "peer-added", "new_peer_id": c.me, "identity": frame{"application": "blotter"}, "meta": frame{"local": a == b}})
		c.none(frame{"type": "peer-added", "new_peer_id": c.me})
	})
}

func TestWhoHasNotJoinedIsNotShown(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		quiet := app(t, a, "quiet", "bus", "context")
		c, d := app(t, b, "blotter", "agm"), app(t, a, "late", "agm")
		meets(c, d)
		c.none(frame{"type": "peer-added", "new_peer_id": quiet.me})
		quiet.none(frame{"domain": "agm"})
		quiet.join("agm")
		c.await(frame{"type": "peer-added", "new_peer_id": quiet.me})
		quiet.expect(leaving("agm"), done("agm"))
		got := c.await(frame{"type": "peer-removed", "removed_id": quiet.me})
		for _, name := range []string{"reason", "reason_uri"} {
			if v, ok := got[name]; v != nil || !ok {
				t.Errorf("%s of a plain leave: %v", name, v)
			}
		}
	})
}

func TestDefinitionsReachOthersUnchanged(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		for i, text := range []string{
			`{"id":"0","name":"$"}`,
			`{"id":7,"name":"$"}`,
			`{"id":"1","name":"$","flags":{}}`,
			`{"id":"2","name":"$","flags":{"metadata":{}}}`,
			`{"id":"3","name":"$","display_name":"Ädd","description":"line\nline","version":3,"flags":{"metadata":{"a":[1,{"b":null}],"intent":"x"},"streaming":false},
				"object_types":["a","b"],"input_signature":"int a, int b","result_signature":"int sum"}`,
			`{"id":"4","name":"$","flags":{"streaming":false,"returnTypes":["x"],"metadata":{"z":1.5}},"unknown":{"deep":[1,2,{"x":"ö"}]},"another":null}`,
			`{"id":"5","name":"$","version":0,"object_types":[],"display_name":"","description":null}`,
			`{"id":"6","name":"$","version":"1.2","object_types":null,"flags":null}`,
			`{"id":"7","name":"$","flags":{"streaming":true,"metadata":null}}`,
			`{"id":"8","name":"$","flags":[1,2],"intents":[{"name":"ViewChart","contexts":["fdc3.instrument"]}]}`,
		} {
			var def frame
			if err := json.Unmarshal([]byte(text), &def); err != nil {
				t.Fatal(err)
			}
			def["name"] = unique("Method")
			server.register(def)
			for _, to := range []*client{server, c} {
				to.knows(server, def["id"])
				if got := definition(to.await(added(server, def["id"])), def["id"]); !reflect.DeepEqual(got, def) {
					t.Errorf("%d:\n got %v\nwant %v", i, got, def)
				}
			}
		}
	})
}

func TestRegister(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		request := server.send(registering(method("0", unique("Add"))))
		server.answer(request)
		server.ordered(added(server, "0"), frame{"request_id": request})
		c.await(added(server, "0"))

		server.register() // none is fine
		server.expect(frame{"type": "register", "domain": "agm"}, done("agm"))

		again := unique("Again")
		server.register(method("0", again)) // an id that is there is replaced
		c.await(frame{"type": "methods-added", "server_id": server.me, "methods": []any{frame{"id": "0", "name": again}}})

		c.fails(unregistering("0"), "agm", "agm.errors.unregistration.failure", "Unable to unregister missing method 0")
		server.register(method("1", unique("Sub")))
		c.knows(server, "1")
		server.fails(unregistering("1", "2"), "agm", "agm.errors.unregistration.failure", "Unable to unregister missing method 2")
		server.none(frame{"type": "methods-removed", "methods": []any{"1"}}) // that which failed was all or nothing
		request = server.send(unregistering("1"))
		server.answer(request)
		server.ordered(frame{"type": "methods-removed", "server_id": server.me, "methods": []any{"1"}}, frame{"request_id": request})
		c.await(frame{"type": "methods-removed", "server_id": server.me, "methods": []any{"1"}})
	})
}

func TestCall(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		server.register(method("0", unique("Add")))
		c.knows(server, "0")
		for i, text := range []string{
			`{"arguments_kv":{"a":1,"b":{"c":[1,2.5,"ö\u0000 𝄞",null,true,-0.1,1e300,12345678901234567890],"":""}},"result":{"sum":3}}`,
			`{"arguments_kv":{},"result":{}}`,
			`{"result":{"x":"#T42_DATE#1700000000000"}}`,
			`{"arguments":[1,"x",{"y":[]}],"result":{"_value":5}}`,
			`{"arguments_kv":{"a":1},"arguments":[],"result":null}`,
			`{"arguments_kv":{"a":1},"context":{"trace":"t","deep":{"x":1}}}`,
			`{"arguments_kv":{"a":1},"result":[1,2]}`,
			`{"arguments_kv":{"a":1},"result":"text"}`,
		} {
			var in map[string]any
			if err := json.Unmarshal([]byte(text), &in); err != nil {
				t.Fatal(err)
			}
			m := calling(server.me, "0", nil)
			delete(m, "arguments_kv")
			for _, name := range []string{"arguments_kv", "arguments", "context"} {
				if v, ok := in[name]; ok {
					m[name] = v
				}
			}
			request := c.send(m)
			invoke := server.await(frame{"type": "invoke", "domain": "agm", "invocation_id": anything, "caller_id": c.me, "method_id": "0"})
			for _, name := range []string{"arguments_kv", "context"} {
				if got, ok := invoke[name]; !ok || !reflect.DeepEqual(got, in[name]) {
					t.Errorf("%d: %s: got %v, want %v", i, name, got, in[name])
				}
			}
			if got, ok := invoke["arguments"]; !ok || !reflect.DeepEqual(got, in["arguments"]) && len(list(in["arguments"])) > 0 {
				t.Errorf("%d: arguments: got %v, want %v", i, got, in["arguments"])
			}
			answer := yielding(invoke, in["result"])
			if _, ok := in["result"]; !ok {
				delete(answer, "result")
			}
			server.send(answer)
			got := c.answer(request)
			if v, ok := got["result"]; !ok || !got.is("result") || got["domain"] != "agm" || !reflect.DeepEqual(v, in["result"]) {
				t.Errorf("%d: got %v, want %v", i, got, in["result"])
			}
		}
	})
}

func TestCallFails(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		server.register(method("0", unique("Add")))
		c.knows(server, "0")
		for i, want := range []frame{
			{"reason_uri": "agm.errors.client_error", "reason": "no price", "context": map[string]any{"code": 5.0}},
			{"reason_uri": "agm.errors.client_error", "reason": ""},
			{"reason_uri": "my.own.uri", "reason": "text with ö and \n"},
		} {
			request := c.send(calling(server.me, "0", frame{"i": i}))
			failure := frame{"type": "error", "domain": "agm", "request_id": server.await(frame{"type": "invoke"})["invocation_id"]}
			maps.Copy(failure, want)
			server.send(failure)
			got := c.answer(request)
			_, hasContext := got["context"]
			if !has(map[string]any(got), want) || !got.is("error") || got["domain"] != "agm" || hasContext != (want["context"] != nil) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		const invocation = "agm.errors.invocation.failure"
		missing := "Unable to find method with id 9 on server id " + server.me + " registered with this peer"
		for _, kind := range []string{"call", "subscribe"} {
			as := func(m frame) frame { m["type"] = kind; return m }
			c.fails(as(calling(server.me, "9", frame{})), "agm", invocation, missing)
			c.fails(as(calling("nobody", "0", frame{})), "agm", "agm.errors.failure", "Unable to find peer with id nobody in domain :agm-domain")
			c.fails(as(frame{"domain": "agm", "method_id": "0"}), "agm", "agm.errors.failure", "Peer id is missing")
			both := as(calling(server.me, "0", frame{"a": 1}))
			both["arguments"] = []int{1}
			c.expect(both, frame{"type": "error", "domain": "agm", "reason_uri": invocation})
		}
		server.fails(frame{"type": "error", "domain": "agm", "reason": "x"}, "agm", "agm.errors.subscription.invalid_subscription", "Trying to drop a non-existing subscription")
	})
}

func TestASecondYieldIsDropped(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		server.register(method("0", unique("Add")))
		c.knows(server, "0")
		request := c.send(calling(server.me, "0", frame{}))
		invoke := server.await(frame{"type": "invoke"})
		server.silent(
			server.send(yielding(invoke, frame{"i": 0})),
			server.send(yielding(invoke, frame{"i": 1})),
			server.send(yielding(frame{"invocation_id": "nobody's"}, frame{})),
		)
		if got := c.answer(request); got.object("result")["i"] != 0.0 {
			t.Errorf("got %v, want the first result", got)
		}
		c.fence()
	})
}

func TestACallOfOneself(t *testing.T) {
	c := app(t, one(t), "blotter", "agm")
	c.register(method("0", unique("Add")))
	request := c.send(calling(c.me, "0", frame{"a": 1}))
	invoke := c.await(frame{"type": "invoke", "caller_id": c.me, "arguments_kv": frame{"a": 1}})
	c.send(yielding(invoke, frame{"b": 2}))
	if got := c.answer(request); got.object("result")["b"] != 2.0 {
		t.Errorf("got %v", got)
	}
}

func TestAPendingCallSurvivesUnregister(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		server.register(method("0", unique("Add")))
		c.knows(server, "0")
		request := c.send(calling(server.me, "0", frame{}))
		invoke := server.await(frame{"type": "invoke"})
		server.expect(unregistering("0"), done("agm"))
		c.await(frame{"type": "methods-removed", "server_id": server.me})
		server.send(yielding(invoke, frame{"late": true}))
		if got := c.answer(request); got.object("result")["late"] != true {
			t.Errorf("got %v", got)
		}
	})
}

// TestCallsArriveInOrder sends calls without waiting, as any app may.
func TestCallsArriveInOrder(t *testing.T) {
	const calls = 1000
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		server.register(method("0", unique("Buy")), method("1", unique("Sell")))
		c.knows(server, "1")
		var sent []string
		for i := range calls {
			sent = append(sent, c.send(calling(server.me, fmt.Sprint(i%2), frame{"i": i})))
		}
		for i := range calls {
			invoke := server.await(frame{"type": "invoke"})
			if got := invoke.object("arguments_kv")["i"]; got != float64(i) {
				t.Fatalf("call %v came as number %d", got, i)
			}
			server.send(yielding(invoke, frame{"i": i}))
		}
		for i, request := range sent {
			if got := c.answer(request); got.object("result")["i"] != float64(i) {
				t.Fatalf("call %d: got %v", i, got)
			}
		}
	})
}

// TestTheServerGoes has a caller with a pending call and a subscription see, in this
// order, the ends of both, of the methods and of the peer.
func TestTheServerGoes(t *testing.T) {
	for name, tt := range map[string]struct {
		go_         func(*client)
		uri, reason any
	}{
		"disconnects": {(*client).close, "agm.peer-removed", "Peer has been removed"},
		"leaves":      {func(c *client) { c.expect(leaving("agm"), done("agm")) }, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
				server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
				server.register(method("0", unique("Add")), stream("1", unique("Prices")))
				c.knows(server, "1")
				subscription := c.subscribe(server)
				pending := c.send(frame{"type": "subscribe", "domain": "agm", "server_id": server.me, "method_id": "1"})
				server.await(frame{"type": "add-interest"})
				request := c.send(calling(server.me, "0", frame{}))
				server.await(frame{"type": "invoke"})
				tt.go_(server)
				gone := c.await(frame{"type": "peer-removed", "removed_id": server.me})
				if gone["reason_uri"] != tt.uri || gone["reason"] != tt.reason {
					t.Errorf("got %v, want %v %v", gone, tt.uri, tt.reason)
				}
				left := frame{"type": "error", "domain": "agm", "request_id": request, "reason_uri": "agm.errors.invocation.failure", "reason": "Peer has left while waiting for result"}
				cancelled := frame{"type": "subscription-cancelled", "subscription_id": subscription, "reason_uri": "agm.peer-removed", "reason": "Peer has been removed"}
				removed := frame{"type": "methods-removed", "server_id": server.me}
				c.ordered(left, removed, frame{"type": "peer-removed", "removed_id": server.me})
				c.ordered(cancelled, removed)
				c.ordered(frame{"type": "error", "request_id": pending}, removed)
				if n := c.count(removed); n != 1 {
					t.Errorf("%d times methods-removed, want all in one", n)
				}
			})
		})
	}
}

func TestTheCallerGoes(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		server.register(method("0", unique("Add")), stream("1", unique("Prices")))
		c.knows(server, "1")
		subscription := c.subscribe(server)
		c.send(calling(server.me, "0", frame{}))
		invoke := server.await(frame{"type": "invoke"})
		c.close()
		server.ordered(
			frame{"type": "remove-interest", "subscription_id": subscription, "caller_id": c.me, "method_id": "1", "reason_uri": "agm.peer-removed", "reason": "Peer has been removed"},
			frame{"type": "peer-removed", "removed_id": c.me},
		)
		server.silent(server.send(yielding(invoke, frame{})))
	})
}

// TestRegisteringMoreRemovesNothing: at methods-removed libraries drop what they have
// of a method, subscriptions too.
func TestRegisteringMoreRemovesNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		for i := range 5 {
			id := fmt.Sprint(i)
			server.register(method(id, unique("Add")))
			c.knows(server, id)
		}
		server.expect(unregistering("2"), done("agm"))
		c.await(frame{"type": "methods-removed", "server_id": server.me, "methods": []any{"2"}})
		if n := c.count(frame{"type": "methods-removed", "server_id": server.me}); n != 1 {
			t.Errorf("%d times methods-removed", n)
		}
		if n := c.count(frame{"type": "methods-added", "server_id": server.me}); n != 5 {
			t.Errorf("%d times methods-added", n)
		}
	})
}

// demand is what a request of another makes a server get.
func (c *client) demand(kind string, caller *client, request string) (demand frame) {
	c.t.Helper()
	poll(c.t, "the server is asked", func() bool {
		if at, ok := caller.seen(frame{"request_id": request}); ok {
			c.t.Fatalf("answered by the gateway: %v", caller.nth(at))
		}
		at, ok := c.seen(frame{"type": kind, "caller_id": caller.me})
		if ok {
			demand = c.nth(at)
		}
		return ok
	})
	return demand
}

// TestACallRightAfterJoin: the server's node may not have heard of the caller yet.
func TestACallRightAfterJoin(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server := app(t, a, "pricer", "agm")
		server.register(method("0", unique("Add")))
		app(t, b, "scout", "agm").knows(server, "0")
		for range 20 {
			c := app(t, b, "blotter", "agm")
			request := c.send(calling(server.me, "0", frame{}))
			server.send(yielding(server.demand("invoke", c, request), frame{}))
			c.answer(request)
			c.close()
		}
	})
}
