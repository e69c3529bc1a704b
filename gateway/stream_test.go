package gateway_test

import (
	"fmt"
	"maps"
	"reflect"
	"testing"

	"github.com/weft-fabric/weft/gateway"
)

func subscribing(server *client, id string, args any) frame {
	return frame{"type": "subscribe", "domain": "agm", "server_id": server.me, "method_id": id, "arguments_kv": args}
}

func accepting(interest frame, branch any) frame {
	return frame{"type": "accepted", "domain": "agm", "subscription_id": interest["subscription_id"], "stream_id": branch}
}

func publishing(branch, data any) frame {
	return frame{"type": "publish", "domain": "agm", "stream_id": branch, "data": data}
}

// subscribe subscribes to the stream "1" of a server, which accepts it on branch "0".
func (c *client) subscribe(server *client) (subscription string) {
	c.t.Helper()
	return c.subscribeOn(server, "1", "0")
}

func (c *client) subscribeOn(server *client, id, branch string) string {
	c.t.Helper()
	request := c.send(subscribing(server, id, nil))
	server.send(accepting(server.await(frame{"type": "add-interest", "caller_id": c.me}), branch))
	return c.subscribed(request)
}

// subscribed is the id of a subscription that was asked for.
func (c *client) subscribed(request string) string {
	c.t.Helper()
	got := c.answer(request)
	if !has(map[string]any(got), frame{"type": "subscribed", "domain": "agm", "subscription_id": anything}) {
		c.fatal("not subscribed: %v", got)
	}
	return got.str("subscription_id")
}

func event(subscription string, data any) frame {
	return frame{"type": "event", "domain": "agm", "subscription_id": subscription, "data": data}
}

func TestStream(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		server.register(stream("1", unique("Prices")))
		c.knows(server, "1")
		m := subscribing(server, "1", frame{"instrument": "ö"})
		m["context"], m["flags"] = frame{"trace": "t"}, frame{"f": 1}
		request := c.send(m)
		interest := server.await(frame{"type": "add-interest", "domain": "agm", "caller_id": c.me, "method_id": "1", "subscription_id": anything})
		for name, want := range map[string]any{
			"arguments": nil, "arguments_kv": map[string]any{"instrument": "ö"}, "context": map[string]any{"trace": "t"}, "flags": map[string]any{"f": 1.0},
		} {
			if got, ok := interest[name]; !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
		quiet := []string{
			server.send(accepting(interest, "s1")),
			server.send(publishing("s1", frame{"bid": 1})), // in one go: it must not be missed
			server.send(frame{"type": "post", "domain": "agm", "subscription_id": interest["subscription_id"], "data": frame{"private": true}}),
		}
		id := c.subscribed(request)
		c.ordered(frame{"request_id": request}, event(id, frame{"bid": 1}), event(id, frame{"private": true}))
		got := c.await(event(id, frame{"bid": 1}))
		for _, name := range []string{"sequence", "snapshot"} {
			if v, ok := got[name]; !ok || v != nil {
				t.Errorf("%s is %v, want null", name, v)
			}
		}
		if got["oob"] != false {
			t.Errorf("oob of a broadcast is %v", got["oob"])
		}
		if got := c.await(event(id, frame{"private": true})); got["oob"] != true {
			t.Errorf("oob of a private message is %v", got["oob"])
		}
		server.silent(append(quiet,
			server.send(publishing("nobody's", frame{})),
			server.send(frame{"type": "post", "domain": "agm", "subscription_id": "nobody's", "data": frame{}}),
		)...)
		stopped := c.send(frame{"type": "unsubscribe", "domain": "agm", "subscription_id": id, "reason_uri": "", "reason": "ClientInitiated"})
		server.await(frame{
			"type": "remove-interest", "subscription_id": interest["subscription_id"], "method_id": "1", "caller_id": c.me, "reason_uri": "", "reason": "ClientInitiated",
		})
		if got := c.answer(stopped); !got.is("success") {
			t.Errorf("got %v", got)
		}
		c.fails(frame{"type": "unsubscribe", "domain": "agm", "subscription_id": id}, "agm", "agm.errors.subscription.invalid_subscription",
			"Unable to find subscription with id "+id+" on subscriber id "+c.me)
	})
}

func TestASubscriptionIsRejected(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		server.register(stream("1", unique("Prices")))
		c.knows(server, "1")
		for _, want := range []frame{
			{"reason_uri": "com.tick42.agm.errors.subscription.failure", "reason": "Subscription rejected by user. no"},
			{"reason_uri": "my.uri", "reason": "no", "context": map[string]any{"x": 1.0}},
		} {
			request := c.send(subscribing(server, "1", nil))
			failure := frame{"type": "error", "domain": "agm", "request_id": server.await(frame{"type": "add-interest"})["subscription_id"]}
			maps.Copy(failure, want)
			server.send(failure)
			if got := c.answer(request); !got.is("error") || !has(map[string]any(got), want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
	})
}

func TestEventsArriveInOrder(t *testing.T) {
	const events = 500
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c, d := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm"), app(t, b, "blotter", "agm")
		server.register(stream("1", unique("Prices")))
		c.knows(server, "1")
		d.knows(server, "1")
		all, red := c.subscribeOn(server, "1", "all"), d.subscribeOn(server, "1", "red")
		private := server.at(frame{"type": "add-interest", "caller_id": d.me})
		for i := range events {
			server.send(publishing("all", frame{"i": i}))
			server.send(publishing("red", frame{"i": i}))
			server.send(frame{"type": "post", "domain": "agm", "subscription_id": server.nth(private)["subscription_id"], "data": frame{"i": i, "p": 1}})
		}
		for i := range events {
			if got := c.await(frame{"type": "event"}); !has(map[string]any(got), event(all, frame{"i": i})) {
				t.Fatalf("event %d: got %v", i, got)
			}
			for _, oob := range []bool{false, true} { // branch and private, as they were sent
				if got := d.await(frame{"type": "event"}); !has(map[string]any(got), event(red, frame{"i": i})) || got["oob"] != oob {
					t.Fatalf("event %d: got %v", i, got)
				}
			}
		}
	})
}

func TestTheServerDropsASubscription(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		server.register(stream("1", unique("Prices")))
		c.knows(server, "1")
		const invalid = "agm.errors.subscription.invalid_subscription"
		drop := func(id any) frame {
			return frame{"type": "drop-subscription", "domain": "agm", "subscription_id": id, "reason": "closed by server"}
		}
		request := c.send(subscribing(server, "1", nil))
		interest := server.await(frame{"type": "add-interest"})
		id := interest["subscription_id"]
		server.send(drop("nobody's"))
		server.await(frame{"type": "error", "request_id": "nobody's", "reason_uri": invalid, "reason": "Trying to drop a non-existing subscription"})
		server.send(drop(id))
		server.await(frame{"type": "error", "request_id": id, "reason_uri": invalid, "reason": beginning("Trying to drop a subscription that wasnt established")})
		server.expect(frame{"type": "accepted", "domain": "agm", "subscription_id": id}, frame{"type": "error", "reason_uri": invalid, "reason": "Invalid or missing stream id"})
		server.send(accepting(frame{"subscription_id": "nobody's"}, "0"))
		server.send(accepting(interest, "0"))
		mine := c.subscribed(request)
		dropped := server.send(drop(id))
		c.await(frame{"type": "subscription-cancelled", "domain": "agm", "subscription_id": mine, "reason_uri": nil, "reason": "closed by server"})
		server.silent(dropped, server.send(publishing("0", frame{"x": 1})))
		c.fence()
		c.none(frame{"type": "event"})
	})
}

func TestUnregisteringAStreamCancelsItsSubscriptions(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server, c := app(t, a, "pricer", "agm"), app(t, b, "blotter", "agm")
		server.register(stream("1", unique("Prices")), stream("2", unique("Other")))
		c.knows(server, "2")
		live, other := c.subscribe(server), c.subscribeOn(server, "2", "other")
		pending := c.send(subscribing(server, "1", nil))
		server.await(frame{"type": "add-interest"})
		request := server.send(unregistering("1"))
		server.answer(request)
		removed := frame{"type": "methods-removed", "server_id": server.me, "methods": []any{"1"}}
		server.ordered(removed, frame{"request_id": request})
		c.ordered(frame{"type": "subscription-cancelled", "subscription_id": live, "reason_uri": "agm.method-removed", "reason": "Method has been removed"}, removed)
		c.ordered(frame{"type": "error", "request_id": pending}, removed)
		server.none(frame{"type": "remove-interest"})
		server.send(publishing("other", frame{"still": 1}))
		c.await(event(other, frame{"still": 1}))
	})
}

// TestNoEventBeforeSubscribed publishes all the time while others subscribe; the rules
// that every client checks say the rest.
func TestNoEventBeforeSubscribed(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server := app(t, a, "pricer", "agm")
		server.register(stream("1", unique("Prices")))
		const subscribers = 20
		for i := range subscribers {
			c := app(t, b, fmt.Sprint("blotter", i), "agm")
			c.knows(server, "1")
			request := c.send(subscribing(server, "1", nil))
			interest := server.await(frame{"type": "add-interest", "caller_id": c.me})
			server.send(publishing("0", frame{"i": "before"}))
			server.send(accepting(interest, "0"))
			server.send(publishing("0", frame{"i": i}))
			c.await(event(c.subscribed(request), frame{"i": i}))
			c.none(frame{"type": "event", "data": frame{"i": "before"}})
		}
	})
}

// TestASubscriptionRightAfterJoin: the server's node may not have heard of the
// subscriber yet.
func TestASubscriptionRightAfterJoin(t *testing.T) {
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		server := app(t, a, "pricer", "agm")
		server.register(stream("1", unique("Prices")))
		app(t, b, "scout", "agm").knows(server, "1")
		for range 20 {
			c := app(t, b, "blotter", "agm")
			request := c.send(subscribing(server, "1", nil))
			server.send(accepting(server.demand("add-interest", c, request), "0"))
			c.subscribed(request)
			c.close()
		}
	})
}
