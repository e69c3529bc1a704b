package gateway_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/weft-fabric/weft/gateway"
)

func subscribingTo(topic string) frame {
	return frame{"type": "subscribe", "domain": "bus", "topic": topic}
}

func publishingTo(topic string, data any) frame {
	return frame{"type": "publish", "domain": "bus", "topic": topic, "data": data}
}

// listen subscribes to a topic.
func (c *client) listen(m frame) (subscription string) {
	c.t.Helper()
	return c.expect(m, frame{"type": "subscribed", "domain": "bus", "subscription_id": anything}).str("subscription_id")
}

func message(subscription string, data any) frame {
	return frame{"type": "event", "domain": "bus", "subscription_id": subscription, "data": data}
}

// reached publishes until a message comes: a subscription is known to other nodes a
// moment after it was answered.
func reached(t *testing.T, publisher *client, topic string, c *client, subscription string) {
	t.Helper()
	mark := unique("ready")
	poll(t, "a message comes through", func() bool {
		publisher.send(publishingTo(topic, mark))
		return c.count(message(subscription, mark)) > 0
	})
}

func TestBus(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d := app(t, a, "publisher", "bus"), app(t, b, "listener", "bus")
		topic := unique("topic")
		id, mine := d.listen(subscribingTo(topic)), c.listen(subscribingTo(topic))
		reached(t, c, topic, d, id)
		for i, text := range []string{`{"a":1,"b":[null,"ö\u0000",1.5]}`, `"text"`, `0`, `true`, `[]`, `""`, `{"#":"#T42_DATE#1700000000000"}`} {
			var data any
			if err := json.Unmarshal([]byte(text), &data); err != nil {
				t.Fatal(err)
			}
			c.send(publishingTo(topic, data))
			for _, x := range []*client{c, d} {
				subscription := id
				if x == c {
					subscription = mine
				}
				got := x.await(frame{"type": "event", "domain": "bus", "subscription_id": subscription, "data": func(v any) bool { return reflect.DeepEqual(v, data) }})
				if !has(map[string]any(got), frame{"publisher-identity": frame{"application": "publisher", "machine": "machine-a", "user": "ada"}}) {
					t.Errorf("%d: got %v", i, got)
				}
			}
		}
		d.expect(frame{"type": "unsubscribe", "domain": "bus", "subscription_id": id}, done("bus"))
		c.send(publishingTo(topic, "late"))
		c.await(message(mine, "late"))
		d.expect(frame{"type": "unsubscribe", "domain": "bus", "subscription_id": "nobody's"}, done("bus"))
		d.none(message(id, "late"))
	})
}

func TestBusSaysNothingWithoutData(t *testing.T) {
	c := app(t, one(t), "publisher", "bus")
	topic := unique("topic")
	id := c.listen(subscribingTo(topic))
	c.send(frame{"type": "publish", "domain": "bus", "topic": topic})
	for _, data := range []any{nil, false, "end"} {
		c.send(publishingTo(topic, data))
	}
	c.await(message(id, "end"))
	if n := c.count(frame{"type": "event"}); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestBusErrors(t *testing.T) {
	c := app(t, one(t), "publisher")
	failure := frame{"type": "error", "domain": "bus", "reason_uri": "bus.errors.failure", "reason": anything}
	c.expect(subscribingTo("x"), failure) // not joined
	c.join("bus")
	for _, m := range []frame{subscribingTo(""), publishingTo("", 1), {"type": "subscribe", "domain": "bus"}, {"type": "publish", "domain": "bus", "data": 1}} {
		c.expect(m, failure)
	}
}

// TestBusPublishNeedsNoJoin: publishing alone does not.
func TestBusPublishNeedsNoJoin(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d := app(t, a, "publisher"), app(t, b, "listener", "bus")
		topic := unique("topic")
		reached(t, c, topic, d, d.listen(subscribingTo(topic)))
	})
}

func TestPatterns(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d := app(t, a, "publisher", "bus"), app(t, b, "listener", "bus")
		root := unique("t")
		topics := []string{"a", "a.", "a.b", "a.b.c", "a.b_2.c", "a.-.c", "ab", "a.B.cc", "x.a.b", "a..c", "a b", "a.ö", "a.b*"}
		matches := map[string][]string{
			"a.b":   {"a.b"},
			"a.*":   {"a.b"},
			"a.>":   {"a.", "a.b", "a.b.c", "a.b_2.c", "a.-.c", "a.B.cc", "a..c", "a.ö", "a.b*"},
			"a.*.c": {"a.b.c", "a.b_2.c"},
			">":     topics,
			"a*":    {"ab"},
			"a>":    {"a", "a.", "a.b", "a.b.c", "a.b_2.c", "a.-.c", "ab", "a.B.cc", "a..c", "a b", "a.ö", "a.b*"},
			"*.b":   {"a.b"},
			"a.*.>": {"a.b.c", "a.b_2.c", "a.B.cc"},
			">.c":   {"a.b.c", "a.b_2.c", "a.-.c", "a..c"},
			"a.?":   nil,
			"a.b.":  nil,
		}
		ids := map[string]string{}
		for pattern := range matches {
			ids[d.listen(subscribingTo(root+"."+pattern))] = pattern
		}
		end := d.listen(subscribingTo(root + "end"))
		reached(t, c, root+"end", d, end)
		for _, topic := range topics {
			c.send(publishingTo(root+"."+topic, topic))
		}
		mark := unique("mark")
		c.send(publishingTo(root+"end", mark))
		d.await(message(end, mark))
		poll(t, "all are here", func() bool {
			return d.count(frame{"type": "event", "data": topics[len(topics)-1]}) >= 3
		})
		got := map[string][]string{}
		for i := range d.received() {
			if f := d.nth(i); f.is("event") && ids[f.str("subscription_id")] != "" {
				pattern := ids[f.str("subscription_id")]
				got[pattern] = append(got[pattern], f.str("data"))
			}
		}
		for pattern, want := range matches {
			if !slices.Equal(got[pattern], want) {
				t.Errorf("%s:\n got %q\nwant %q", pattern, got[pattern], want)
			}
		}
	})
}

func TestRoutingKeysAndTargets(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c := app(t, a, "publisher", "bus")
		topic := unique("topic")
		listener := func(application string, process int, claims frame, key any) (*client, string) {
			d := dial(t, b)
			id := frame{"application": application, "process": process}
			maps.Copy(id, claims)
			d.hello(id)
			d.join("bus")
			m := subscribingTo(topic)
			if key != nil {
				m["routing_key"] = key
			}
			return d, d.listen(m)
		}
		red, redID := listener("red", 4001, frame{"desk": "rates", "level": 5, "senior": true}, "k1")
		blue, blueID := listener("blue", 4002, frame{"desk": "fx"}, nil)
		for _, x := range []*client{red, blue} {
			id := redID
			if x == blue {
				id = blueID
			}
			reached(t, c, topic, x, id)
		}
		for i, tt := range []struct {
			key, target any
			red, blue   bool
		}{
			{nil, nil, true, true},
			{"k1", nil, true, true},
			{"k2", nil, false, true},
			{nil, frame{"application": "red"}, true, false},
			{nil, frame{"desk": "fx"}, false, true},
			{nil, frame{"desk": "rates", "application": "red"}, true, false},
			{nil, frame{"desk": "rates", "application": "blue"}, false, false},
			{nil, frame{"process": 4001}, true, false},
			{nil, frame{"level": 5}, true, false},
			{nil, frame{"level": 6}, false, false},
			{nil, frame{"senior": true}, true, false},
			{nil, frame{"user": "ada", "machine": blue.machine()}, true, true},
			{nil, frame{"nope": "x"}, false, false},
			{nil, frame{}, true, true},
			{"k2", frame{"application": "red"}, false, false},
		} {
			m := publishingTo(topic, fmt.Sprint("m", i))
			if tt.key != nil {
				m["routing_key"] = tt.key
			}
			if tt.target != nil {
				m["target_identity"] = tt.target
			}
			c.send(m)
			mark := unique("mark")
			c.send(publishingTo(topic, mark))
			for _, x := range []struct {
				*client
				id   string
				want bool
			}{{red, redID, tt.red}, {blue, blueID, tt.blue}} {
				x.await(message(x.id, mark))
				if got := x.count(message(x.id, fmt.Sprint("m", i))) == 1; got != x.want {
					t.Errorf("%d: to %s %v, want %v", i, x.id, got, x.want)
				}
			}
		}
	})
}

func TestMessagesArriveInOrder(t *testing.T) {
	const messages = 500
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d := app(t, a, "publisher", "bus"), app(t, b, "listener", "bus")
		topic := unique("topic")
		id := d.listen(subscribingTo(topic + ".>"))
		reached(t, c, topic+".x", d, id)
		for i := range messages {
			c.send(publishingTo(fmt.Sprint(topic, ".", i%3), i))
		}
		from := 0
		for i := range messages {
			at, ok := d.find(from, frame{"type": "event", "data": func(v any) bool { _, ok := v.(float64); return ok }})
			if !ok || d.nth(at)["data"] != float64(i) {
				t.Fatalf("message %d: got %v", i, d.nth(at))
			}
			from = at + 1
		}
	})
}
