package gateway_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"pgregory.net/rapid"

	"github.com/weft-fabric/weft/gateway"
)

// promptly is how long an answer of the gateway itself may take: a second, on a machine
// with nothing else to do.
const promptly = 10 * time.Second

// TestAnySession has two clients, of two nodes, say anything in any order. Everything
// that demands an answer gets one, and the rules of clients' libraries hold, which every
// client of a test checks.
func TestAnySession(t *testing.T) {
	a, b := two(t)
	control := app(t, a, "control", "agm")
	checks(t, "rapid.checks", 40)
	checks(t, "rapid.steps", 100)
	rapid.Check(t, func(t *rapid.T) {
		s := &sessions{clients: []*client{app(t, a, "one"), app(t, b, "two")}, topic: unique("topic"), name: unique("ctx")}
		if rapid.IntRange(0, 4).Draw(t, "strangers") > 0 {
			s.acquaint()
		}
		t.Repeat(s.actions())
		s.end()
		control.fence()
	})
}

// sessions are the clients of a run and what they can refer to.
type sessions struct {
	clients     []*client
	topic, name string
}

// acquaint has both join, offer something and know of each other.
func (s *sessions) acquaint() {
	for _, c := range s.clients {
		c.join("agm")
		c.join("bus")
		c.register(method("0", "M0"), stream("s3", "Ms3"))
		c.create(s.name+c.me, frame{"a": 1})
	}
	s.clients[0].knows(s.clients[1], "s3")
	s.clients[1].knows(s.clients[0], "s3")
}

// client is one of them, and other the other.
func (s *sessions) client(t *rapid.T) (c, other *client) {
	i := rapid.IntRange(0, 1).Draw(t, "client")
	return s.clients[i], s.clients[1-i]
}

// got is a value that one of the client's frames of a type has, or now and then a made-up
// one.
func got(t *rapid.T, c *client, kind, name string) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := []any{"made-up", nil, 7.0}
	for _, a := range c.got {
		if a.is(kind) && a.frame[name] != nil {
			all = append(all, a.frame[name])
		}
	}
	back := rapid.SampledFrom([]int{0, 0, 0, 0, 1, 1, 2, 3, 4, 5}).Draw(t, name) // late ones are more often alive
	return all[max(0, len(all)-1-back)]
}

// actions are what a client can say. None waits for an answer.
func (s *sessions) actions() map[string]func(*rapid.T) {
	domains := rapid.SampledFrom([]string{"agm", "agm", "bus", "context", "metrics", "activity", "global", "zzz"})
	ids := rapid.SampledFrom([]any{"0", "0", "0", "s3", "s3", "s3", "1", "s4", 5, nil})
	values := rapid.SampledFrom([]any{nil, false, 0, "x", frame{"a": 1}, []any{1}, frame{"deep": frame{"list": []any{1}}}})
	say := func(f func(t *rapid.T, c, other *client) frame) func(*rapid.T) {
		return func(t *rapid.T) {
			c, other := s.client(t)
			m := f(t, c, other)
			if rapid.IntRange(0, 30).Draw(t, "odd") == 0 {
				m["peer_id"] = rapid.SampledFrom([]any{other.me, "nobody", nil, 7}).Draw(t, "peer_id")
			}
			c.send(m)
		}
	}
	agm := func(kind string, f func(t *rapid.T, c, other *client) frame) func(*rapid.T) {
		return say(func(t *rapid.T, c, other *client) frame {
			m := f(t, c, other)
			m["type"], m["domain"] = kind, "agm"
			return m
		})
	}
	context := func(kind string, f func(t *rapid.T) frame) func(*rapid.T) {
		return say(func(t *rapid.T, c, _ *client) frame {
			m := frame{}
			if f != nil {
				m = f(t)
			}
			m["type"], m["domain"] = kind, rapid.SampledFrom([]string{"global", "global", "context"}).Draw(t, "domain")
			if kind != "create-context" {
				m["context_id"] = got(t, c, "context-added", "context_id")
			}
			return m
		})
	}
	branches := rapid.SampledFrom([]any{"b1", "b1", "b2", nil})
	target := func(t *rapid.T, c, other *client) frame {
		server := rapid.SampledFrom([]any{other.me, other.me, other.me, other.me, other.me, c.me, c.me, "p-weft", "nobody", nil}).Draw(t, "server")
		return frame{"server_id": server, "method_id": ids.Draw(t, "method"), "arguments_kv": frame{"x": values.Draw(t, "x")}}
	}
	return map[string]func(*rapid.T){
		"hello again": rarely(rarely(func(t *rapid.T) {
			c, _ := s.client(t)
			s.answered(c, false)
			c.hello(identity("again"))
		})),
		"garbage": func(t *rapid.T) {
			c, _ := s.client(t)
			c.sendText(rapid.SampledFrom([]string{``, `{`, `[]`, `null`, `{"a":1,"a":2}`, strings.Repeat("[", 1000), `{"type":{"x":1},"domain":7}`}).Draw(t, "garbage"))
		},
		"unknown": say(func(t *rapid.T, _, _ *client) frame { return frame{"type": "zzz", "domain": domains.Draw(t, "domain")} }),
		"ping":    say(func(*rapid.T, *client, *client) frame { return frame{"type": "ping", "domain": "global"} }),
		"join": say(func(t *rapid.T, _, _ *client) frame {
			m := joining(domains.Draw(t, "domain"))
			if r := rapid.SampledFrom([]any{nil, nil, "$application == 'two'", "$nope == 'x'", "$bad =", 7}).Draw(t, "restrictions"); r != nil {
				m["restrictions"] = r
			}
			return m
		}),
		"leave": rarely(say(func(t *rapid.T, _, _ *client) frame { return leaving(domains.Draw(t, "domain")) })),
		"token": say(func(*rapid.T, *client, *client) frame { return frame{"type": "create-token", "domain": "global"} }),
		"register": say(func(t *rapid.T, c, _ *client) frame {
			id := ids.Draw(t, "id")
			name := fmt.Sprint("M", id)
			def := method("", name)
			def["id"] = id
			if strings.Contains(name, "s") {
				def = stream(id.(string), name)
			}
			return registering(def)
		}),
		"unregister": rarely(say(func(t *rapid.T, _, _ *client) frame { return unregistering(ids.Draw(t, "id")) })),
		"call":       agm("call", target),
		"yield": agm("yield", func(t *rapid.T, c, _ *client) frame {
			return frame{"invocation_id": got(t, c, "invoke", "invocation_id"), "result": values.Draw(t, "result")}
		}),
		"fail": agm("error", func(t *rapid.T, c, _ *client) frame {
			return frame{"request_id": got(t, c, "invoke", "invocation_id"), "reason": "no", "reason_uri": "uri"}
		}),
		"subscribe": agm("subscribe", func(t *rapid.T, c, other *client) frame {
			m := target(t, c, other)
			if m["method_id"] == "0" {
				m["method_id"] = "s3"
			}
			return m
		}),
		"accept": agm("accepted", func(t *rapid.T, c, _ *client) frame {
			return frame{"subscription_id": got(t, c, "add-interest", "subscription_id"), "stream_id": branches.Draw(t, "branch")}
		}),
		"reject": agm("error", func(t *rapid.T, c, _ *client) frame {
			return frame{"request_id": got(t, c, "add-interest", "subscription_id"), "reason": "no"}
		}),
		"publish": agm("publish", func(t *rapid.T, _, _ *client) frame {
			return frame{"stream_id": branches.Draw(t, "branch"), "data": values.Draw(t, "data")}
		}),
		"post": agm("post", func(t *rapid.T, c, _ *client) frame {
			return frame{"subscription_id": got(t, c, "add-interest", "subscription_id"), "data": values.Draw(t, "data")}
		}),
		"drop": agm("drop-subscription", func(t *rapid.T, c, _ *client) frame {
			return frame{"subscription_id": got(t, c, "add-interest", "subscription_id"), "reason": "no"}
		}),
		"unsubscribe": agm("unsubscribe", func(t *rapid.T, c, _ *client) frame {
			return frame{"subscription_id": got(t, c, "subscribed", "subscription_id")}
		}),
		"listen": say(func(*rapid.T, *client, *client) frame { return subscribingTo(s.topic) }),
		"unlisten": say(func(t *rapid.T, c, _ *client) frame {
			return frame{"type": "unsubscribe", "domain": "bus", "subscription_id": got(t, c, "subscribed", "subscription_id")}
		}),
		"say": say(func(t *rapid.T, _, _ *client) frame { return publishingTo(s.topic, values.Draw(t, "data")) }),
		"create context": context("create-context", func(t *rapid.T) frame {
			return frame{
				"name": rapid.SampledFrom([]any{s.name, s.name + "x", nil}).Draw(t, "name"), "data": values.Draw(t, "data"),
				"lifetime": rapid.SampledFrom([]any{"retained", "ref-counted", "ownership", "forever"}).Draw(t, "lifetime"),
			}
		}),
		"subscribe context":   context("subscribe-context", nil),
		"unsubscribe context": context("unsubscribe-context", nil),
		"destroy context":     rarely(context("destroy-context", nil)),
		"update context": context("update-context", func(t *rapid.T) frame {
			return frame{"delta": rapid.SampledFrom([]any{
				nil, 7, frame{}, commands(set("a", 1)), commands(set("a.b", 2), remove("c")), frame{"added": frame{"c": []any{1}}}, frame{"reset": frame{"a": []any{1}}}, commands(set("a.0", 3)),
			}).Draw(t, "delta")}
		}),
		"": func(t *rapid.T) { // now and then all must have come
			c, _ := s.client(t)
			rarely(func(*rapid.T) { s.answered(c, false) })(t)
		},
	}
}

// rarely does something one time out of eight.
func rarely(f func(*rapid.T)) func(*rapid.T) {
	return func(t *rapid.T) {
		if rapid.IntRange(0, 7).Draw(t, "rarely") == 0 {
			f(t)
		}
	}
}

// answered checks that all requests of a client have their answer; of calls and
// subscriptions only if others have left.
func (s *sessions) answered(c *client, all bool) {
	missing := ""
	if !c.until(promptly, func() bool {
		missing = ""
		for id, m := range c.sent {
			waits := m["domain"] == "agm" && (m.is("call") || m.is("subscribe"))
			if !c.rules.answered[id] && !unanswered[m.str("type")] && !m.is("error") && m["request_id"] != nil && (all || !waits) {
				missing = fmt.Sprint(m)
				return false
			}
		}
		return true
	}) {
		c.fatal("no answer to %s", missing)
	}
}

// end has all leave what they are in, and checks that everything was answered.
func (s *sessions) end() {
	for _, c := range s.clients {
		c.send(leaving("agm"))
	}
	for _, c := range s.clients {
		s.answered(c, true)
		c.close()
	}
}

// TestLastWords: what a client says just before it goes is heard. Of a call the outcome is
// nobody's by then.
func TestLastWords(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server := app(t, a, "pricer", "bus")
		topic, name := unique("topic"), unique("ctx")
		id := server.create(name, frame{})
		listens := server.listen(subscribingTo(topic))
		for i := range 30 {
			c := app(t, b, "blotter", "bus")
			c.announced(name)
			reached(t, c, topic, server, listens)
			for range 100 {
				c.send(publishingTo(topic, frame{"i": -1}))
			}
			c.send(publishingTo(topic, frame{"i": i}))
			c.send(updating(id, commands(set("i", i))))
			if i%2 == 0 {
				_ = c.ws.Close(websocket.StatusNormalClosure, "") // the gateway may be first
			} else {
				c.close()
			}
			server.await(message(listens, frame{"i": i}))
			server.at(frame{"type": "context-updated", "context_id": id, "updater_id": c.me})
		}
	})
}

// TestNeverAHello: who never says hello is disconnected after half a minute. The
// connection is as old as the gateways that all tests use.
func TestNeverAHello(t *testing.T) {
	a, _ := two(t)
	var e websocket.CloseError
	select {
	case err := <-common.muted:
		if !errors.As(err, &e) || e.Code != websocket.StatusPolicyViolation || !strings.Contains(e.Reason, "hello") {
			t.Errorf("closed with %v", err)
		}
	case <-time.After(30*time.Second + patience):
		t.Error("still connected")
	}
	if took := time.Since(common.since); took < 30*time.Second {
		t.Errorf("after %v", took)
	}
	stillGood(t, app(t, a, "other"))
}
