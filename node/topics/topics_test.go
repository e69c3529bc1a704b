package topics_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/node/topics"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

func TestMessageReachesAppsHereAndElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		here, elsewhere := subscribe(t, a, chart, "prices.eu"), subscribe(t, b, ticket, "prices.eu")
		own := subscribe(t, a, blotter, "prices.eu")
		json := wire.Payload{Format: wire.JSON, Data: []byte(`{ "bid": 1.5 }`)}
		if err := a.Publish(t.Context(), blotter, "prices.eu", json, topics.RoutingKey("Zürich 1")); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			sub    *topics.Subscription
			format wire.Format
		}{"same node": {here, wire.JSON}, "publisher": {own, wire.JSON}, "other node": {elsewhere, wire.Msgpack}} {
			evs := queued(c.sub)
			if len(evs) != 1 {
				t.Fatalf("%s: got %v, want one event", name, evs)
			}
			got := evs[0]
			var v map[string]float64
			if err := got.Value.Decode(&v); err != nil || v["bid"] != 1.5 || got.Value.Format != c.format {
				t.Errorf("%s: value %v in format %v, %v", name, v, got.Value.Format, err)
			}
			got.Value = wire.Payload{}
			if want := (topics.Event{Topic: "prices.eu", Publisher: blotter, RoutingKey: "Zürich 1"}); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, want %+v", name, got, want)
			}
		}
		if got, want := a.Stats(), (topics.Stats{Published: 1, Delivered: 2}); got != want {
			t.Errorf("stats of the publisher's node %+v, want %+v", got, want)
		}
	})
}

func TestOrderOfOnePublisher(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		subs := []*topics.Subscription{subscribe(t, a, chart, "n"), subscribe(t, b, ticket, "n")}
		var all []string
		for i := range 500 {
			all = append(all, fmt.Sprint(i))
			publish(t, a, blotter, "n", all[i])
		}
		for _, s := range subs {
			want(t, s, all...)
		}
	})
}

func TestNoValueIsNotNil(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		s := subscribe(t, b, ticket, "x")
		for _, p := range []wire.Payload{{}, {Data: []byte{0xc0}}} {
			if err := a.Publish(t.Context(), blotter, "x", p); err != nil {
				t.Fatal(err)
			}
		}
		if evs := queued(s); len(evs) != 2 || !evs[0].Value.IsZero() || evs[1].Value.IsZero() {
			t.Errorf("got %v", evs)
		}
	})
}

func TestPatterns(t *testing.T) {
	long := strings.Repeat("long name ", 12) + "end"
	tests := []struct {
		pattern string
		yes, no []string
	}{
		{"a.b", []string{"a.b"}, []string{"a", "a.b.c", "a.c", "A.b"}},
		{"a.*", []string{"a.b", "a.c", "a.*", "a.>", "a."}, []string{"a", "a.b.c", "b.a"}},
		{"*.b", []string{"a.b", "*.b"}, []string{"b", "a.b.b"}},
		{"a.>", []string{"a.b", "a.b.c", "a.>"}, []string{"a", "b.a"}},
		{">", []string{"a", "a.b", "", "*", "a b"}, nil},
		{"a*", []string{"a*"}, []string{"ab", "a"}},
		{"a.>.c", []string{"a.>.c"}, []string{"a.b.c"}},
		{"prices.EU/ann 50 %", []string{"prices.EU/ann 50 %"}, []string{"prices.EU"}},
		{long + ".*", []string{long + ".x", long + ".*"}, []string{"x.x"}},
		{"*." + long, []string{"x." + long}, []string{"x.x"}},
	}
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		for _, c := range tests {
			subs := map[string]*topics.Subscription{
				"here": subscribe(t, a, chart, c.pattern), "elsewhere": subscribe(t, b, ticket, c.pattern),
			}
			for i, topic := range append(c.yes, c.no...) {
				publish(t, a, blotter, topic, "v")
				for where, s := range subs {
					evs := queued(s)
					if got, want := len(evs), i < len(c.yes); got > 1 || (got == 1) != want {
						t.Errorf("%s: %q got %d messages of %q", where, c.pattern, got, topic)
					}
					if len(evs) == 1 && evs[0].Topic != topic {
						t.Errorf("%s: topic %q, want %q", where, evs[0].Topic, topic)
					}
				}
			}
			for _, s := range subs {
				s.Close()
			}
		}
		if n := b.Stats().Refused; n != 0 {
			t.Errorf("refused %d", n)
		}
	})
}

func TestOverlappingPatternsDeliverOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		var subs []*topics.Subscription
		for _, pattern := range []string{"a.*", "a.>", "a.b", "*.b", ">", "a.*", "a.b"} {
			subs = append(subs, subscribe(t, a, chart, pattern), subscribe(t, b, ticket, pattern))
		}
		publish(t, a, blotter, "a.b", "1")
		synctest.Wait() // two publishers have no order between them
		publish(t, b, ticket, "a.b", "2")
		for _, s := range subs {
			want(t, s, "1", "2")
		}
		if n := b.link.Conn().NumSubscriptions(); n != 5 {
			t.Errorf("%d NATS subscriptions, want one for each of 5 patterns", n)
		}
		// Each one that goes leaves the others as they were.
		for i, s := range subs {
			s.Close()
			publish(t, a, blotter, "a.b", "3")
			want(t, s)
			for _, s := range subs[i+1:] {
				want(t, s, "3")
			}
		}
		if n := b.link.Conn().NumSubscriptions(); n != 0 {
			t.Errorf("%d NATS subscriptions left", n)
		}
	})
}

func TestRoutingKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		for _, n := range []*node{a, b} {
			none := subscribe(t, n, chart, "x")
			one := subscribe(t, n, chart, "x", topics.RoutingKeyIs("one"))
			two := subscribe(t, n, chart, "x", topics.RoutingKeyIs("two"))
			publish(t, a, blotter, "x", "-")
			publish(t, a, blotter, "x", "1", topics.RoutingKey("one"))
			publish(t, a, blotter, "x", "2", topics.RoutingKey("two"))
			publish(t, a, blotter, "x", "T", topics.RoutingKey("Two"))
			want(t, none, "-", "1", "2", "T")
			want(t, one, "-", "1")
			want(t, two, "-", "2")
		}
	})
}

func TestTargetAndFrom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		here, elsewhere := subscribe(t, a, chart, "x"), subscribe(t, b, ticket, "x")
		for text, target := range map[string]wire.Filter{
			"all": {}, "eu": {"region": "eu"}, "us": {"Region": "US"}, "bob's in the us": {"user": "bob", "region": "us"},
			"node b": {"node": "b"}, "app": {"app": "aaa-2"}, "odd": {"application": "é\n\"\u2028"},
		} {
			publish(t, a, blotter, "x", text, topics.Target(target))
			for name, c := range map[string]struct {
				s    *topics.Subscription
				gets string
			}{"chart": {here, "all us app"}, "ticket": {elsewhere, "all eu node b"}} {
				if got, want := len(queued(c.s)) == 1, strings.Contains(c.gets, text); got != want {
					t.Errorf("%s for %s: %v, want %v", text, name, got, want)
				}
			}
		}
		for _, n := range []*node{a, b} {
			ann := subscribe(t, n, chart, "y", topics.From(wire.Filter{"user": "ANN"}))
			seven := subscribe(t, n, chart, "y", topics.From(wire.Filter{"user": "ann", "pid": "7"}))
			bob := subscribe(t, n, chart, "y", topics.From(wire.Filter{"user": "bob"}))
			publish(t, a, blotter, "y", "blotter")
			publish(t, a, chart, "y", "chart")
			publish(t, b, ticket, "y", "ticket")
			anns := texts(t, queued(ann))
			if len(anns) != 2 {
				t.Errorf("ann: %q", anns)
			}
			want(t, seven, "blotter")
			want(t, bob, "ticket")
		}
	})
}

// Errors are typed, and nobody got the message.
func TestRefusedArguments(t *testing.T) {
	ok := wire.Payload{Data: []byte{1}}
	tall := strings.Repeat("x.", 510) + "x"
	tests := map[string]struct {
		from  wire.Identity
		topic string
		value wire.Payload
		opts  []topics.PublishOption
		want  error
	}{
		"no app id":        {wire.Identity{Application: "x"}, "x", ok, nil, wire.ErrBadName},
		"bad UTF-8":        {blotter, "x.\xff", ok, nil, wire.ErrBadName},
		"long token":       {blotter, strings.Repeat("x", 256), ok, nil, wire.ErrBadName},
		"long topic":       {blotter, tall, ok, nil, wire.ErrBadName},
		"key with newline": {blotter, "x", ok, []topics.PublishOption{topics.RoutingKey("a\nb")}, wire.ErrBadName},
		"key with space":   {blotter, "x", ok, []topics.PublishOption{topics.RoutingKey(" a")}, wire.ErrBadName},
		"long key":         {blotter, "x", ok, []topics.PublishOption{topics.RoutingKey(strings.Repeat("k", 256))}, wire.ErrBadName},
		"bad msgpack":      {blotter, "x", wire.Payload{Data: []byte{0xc1}}, nil, wire.ErrBadPayload},
		"bad JSON":         {blotter, "x", wire.Payload{Format: wire.JSON, Data: []byte("{")}, nil, wire.ErrBadPayload},
		"bad target":       {blotter, "x", ok, []topics.PublishOption{topics.Target(wire.Filter{"region": "\xff"})}, wire.ErrBadPayload},
		"long target":      {blotter, "x", ok, []topics.PublishOption{topics.Target(wire.Filter{"region": strings.Repeat("r", 5000)})}, wire.ErrLimit},
		"too large":        {blotter, "x", value(t, make([]byte, 8<<20-wire.PayloadReserve)), nil, wire.ErrLimit},
	}
	bubble(t, func(t *testing.T) {
		h := start(t)
		a := h.join(t, "a", nil)
		s := subscribe(t, a, chart, ">")
		for name, c := range tests {
			if err := a.Publish(t.Context(), c.from, c.topic, c.value, c.opts...); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Publish(ctx, blotter, "x", ok); !errors.Is(err, wire.ErrCanceled) {
			t.Errorf("ended context: %v", err)
		}
		want(t, s)
		for name, c := range map[string]struct {
			app     wire.Identity
			pattern string
			opt     topics.SubscribeOption
			want    error
		}{
			"no app id":    {wire.Identity{}, "x", nil, wire.ErrBadName},
			"bad UTF-8":    {chart, "\xff", nil, wire.ErrBadName},
			"long pattern": {chart, tall, nil, wire.ErrBadName},
			"bad key":      {chart, "x", topics.RoutingKeyIs("\x00"), wire.ErrBadName},
			"bad filter":   {chart, "x", topics.From(wire.Filter{"colour": "red"}), wire.ErrBadPayload},
		} {
			opts := []topics.SubscribeOption{}
			if c.opt != nil {
				opts = append(opts, c.opt)
			}
			_, err := a.Subscribe(t.Context(), c.app, c.pattern, opts...)
			if !errors.Is(err, c.want) {
				t.Errorf("subscribe, %s: got %v, want %v", name, err, c.want)
			}
			if c.opt == nil && !errors.Is(err, subjects.ErrBadName) {
				t.Errorf("subscribe, %s: the cause is lost", name)
			}
		}
		if got, want := a.Stats(), (topics.Stats{}); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
	})
}

func TestLargestMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		s := subscribe(t, b, ticket, ">")
		topic := strings.TrimSuffix(strings.Repeat(strings.Repeat("x", 253)+"\r\n.", 33), ".")
		publish(t, a, blotter, topic, make([]byte, 8<<20-wire.PayloadReserve-5), topics.RoutingKey(strings.Repeat("k", 255)),
			topics.Target(wire.Filter{"user": "bob"}))
		if evs := queued(s); len(evs) != 1 || evs[0].Topic != topic {
			t.Errorf("got %d events", len(evs))
		}
	})
}

func TestSubscriptionLimitIsPerApp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a := h.join(t, "a", nil)
		var last *topics.Subscription
		for range wire.MaxSubscriptions {
			last = subscribe(t, a, chart, "x")
		}
		if _, err := a.Subscribe(t.Context(), chart, "y"); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("one too many: %v", err)
		}
		subscribe(t, a, blotter, "x")
		last.Close()
		last.Close() // does nothing
		subscribe(t, a, chart, "y")
		if _, err := a.Subscribe(t.Context(), chart, "y"); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("one too many again: %v", err)
		}
	})
}

func TestLeaveAndClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		gone, stays := subscribe(t, b, chart, "x"), subscribe(t, b, ticket, "x")
		publish(t, a, blotter, "x", "1")
		time.Sleep(time.Second)
		b.Leave(subjects.App(chart.App))
		publish(t, a, blotter, "x", "2")
		var got []topics.Event
		for ev := range gone.Events(t.Context()) { // ends by itself
			got = append(got, ev)
		}
		if len(got) != 1 {
			t.Errorf("the one that left got %q, want what was queued", texts(t, got))
		}
		want(t, stays, "1", "2")
		b.Close()
		b.Close() // does nothing
		for range stays.Events(t.Context()) {
			t.Error("an event after Close")
		}
		if n := b.link.Conn().NumSubscriptions(); n != 0 {
			t.Errorf("%d NATS subscriptions left", n)
		}
		if _, err := b.Subscribe(t.Context(), ticket, "x"); !errors.Is(err, wire.ErrUnavailable) {
			t.Errorf("subscribe after Close: %v", err)
		}
		if err := b.Publish(t.Context(), ticket, "x", wire.Payload{}); !errors.Is(err, wire.ErrUnavailable) {
			t.Errorf("publish after Close: %v", err)
		}
	})
}

func TestEventsEndAndGoOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a := h.join(t, "a", nil)
		s := subscribe(t, a, chart, "x")
		for _, v := range []string{"1", "2", "3"} {
			publish(t, a, blotter, "x", v)
		}
		for range s.Events(t.Context()) {
			break
		}
		want(t, s, "2", "3")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range s.Events(ctx) {
			t.Error("an event of nothing")
		}
	})
}
