package topics_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node/topics"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

func TestHostileMessagesAreRefused(t *testing.T) {
	ok := []byte{0xa1, 'v'}
	long := strings.Repeat("n", 100)
	hashed, err := realm.TopicSubject("eve", long)
	if err != nil {
		t.Fatal(err)
	}
	const x = "weft.desk.topic.eve.x"
	header := func(kv ...string) nats.Header {
		h := nats.Header{}
		for i := 0; i < len(kv); i += 2 {
			h[kv[i]] = append(h[kv[i]], kv[i+1])
		}
		return h
	}
	tests := map[string]nats.Msg{
		"Nats-Stream":          {Subject: x, Header: header("Nats-Stream", "KV"), Data: ok},
		"Nats-Subject":         {Subject: x, Header: header("nats-subject", "x"), Data: ok},
		"Nats-Sequence":        {Subject: x, Header: header("NATS-SEQUENCE", "1"), Data: ok},
		"Status":               {Subject: x, Header: header("Status", "200"), Data: ok},
		"API answer":           {Subject: x, Header: header("Content-Type", "application/json"), Data: []byte(`{"type":"io.nats.jetstream.api.v1.x"}`)},
		"publish ack":          {Subject: x, Data: []byte(`{"stream":"KV", "seq":1}`)},
		"bad msgpack":          {Subject: x, Data: []byte{0xdd, 0xff, 0xff, 0xff, 0xff}},
		"trailing bytes":       {Subject: x, Data: []byte{1, 2}},
		"deep msgpack":         {Subject: x, Data: append(bytes.Repeat([]byte{0x91}, 10_000), 1)},
		"bad JSON":             {Subject: x, Header: header("Content-Type", "application/json"), Data: []byte(`{"a":`)},
		"unknown type":         {Subject: x, Header: header("Content-Type", "text/html"), Data: ok},
		"unknown type, empty":  {Subject: x, Header: header("Content-Type", "text/html")},
		"too large":            {Subject: x, Data: value(t, make([]byte, 8<<20-wire.PayloadReserve)).Data},
		"target not JSON":      {Subject: x, Header: header("Weft-Target", "region=EU"), Data: ok},
		"target not an object": {Subject: x, Header: header("Weft-Target", "null"), Data: ok},
		"target of numbers":    {Subject: x, Header: header("Weft-Target", `{"pid":7}`), Data: ok},
		"target of nobody":     {Subject: x, Header: header("Weft-Target", `{"colour":"red"}`), Data: ok},
		"empty target":         {Subject: x, Header: header("Weft-Target", ""), Data: ok},
		"long target":          {Subject: x, Header: header("Weft-Target", `{"region":"`+strings.Repeat("r", 5000)+`"}`), Data: ok},
		"two targets":          {Subject: x, Header: header("Weft-Target", `{}`, "Weft-Target", `{"region":"EU"}`), Data: ok},
		"long key":             {Subject: x, Header: header("Weft-Routing-Key", strings.Repeat("k", 256)), Data: ok},
		"key not UTF-8":        {Subject: x, Header: header("Weft-Routing-Key", "\xff"), Data: ok},
		"hash without name":    {Subject: string(hashed), Data: ok},
		"hash of another name": {Subject: string(hashed), Header: header("Weft-Name", long+"n"), Data: ok},
		"not canonical":        {Subject: "weft.desk.topic.eve.=41", Data: ok},
		"bad sender":           {Subject: "weft.desk.topic.e=2E.x", Data: ok},
		"own sender token":     {Subject: "weft.desk.topic.b.x", Data: ok},
	}
	bubble(t, func(t *testing.T) {
		h := start(t)
		b, eve := h.join(t, "b", nil), h.client(t)
		s := subscribe(t, b, ticket, ">")
		refused := uint64(0)
		for name, msg := range tests {
			if err := eve.PublishMsg(&msg); err != nil {
				t.Fatal(name, err)
			}
			if got := queued(s); len(got) != 0 {
				t.Errorf("%s: delivered %+v", name, got)
			}
			refused++
			if n := b.Stats().Refused; n != refused {
				t.Errorf("%s: refused %d, want %d", name, n, refused)
				refused = n
			}
		}
		if err := eve.PublishMsg(&nats.Msg{Subject: x, Header: header("Weft-Target", "{}", "Weft-Routing-Key", "k"), Data: ok}); err != nil {
			t.Fatal(err)
		}
		want(t, s, "v")
	})
}

// The client library hands on messages whose headers it cannot read as if
// they had none.
func TestUnreadableHeadersAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		b := h.join(t, "b", nil)
		s := subscribe(t, b, ticket, ">")
		c, err := h.InProcessConn()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r := bufio.NewReader(c)
		if _, err := r.ReadString('\n'); err != nil { // INFO
			t.Fatal(err)
		}
		const hdr = "NATS/1.0\r\nno colon here\r\nWeft-Target: {\"region\":\"US\"}\r\n\r\n"
		fmt.Fprintf(c, "CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB weft.desk.topic.eve.x %d %d\r\n%s\x01\r\n", len(hdr), len(hdr)+1, hdr)
		want(t, s)
		if n := b.Stats().Refused; n != 1 {
			t.Errorf("refused %d, want 1", n)
		}
	})
}

func TestPlainClients(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, nc := h.join(t, "a", nil), h.client(t)
		s := subscribe(t, a, chart, "x")
		for name, c := range map[string]struct {
			subject string
			header  nats.Header
			data    string
			from    wire.Identity
			format  wire.Format
		}{
			"msgpack":            {"weft.desk.topic.Mon-1.x", nil, "\xa1v", wire.Identity{Application: "Mon-1", Node: "Mon-1"}, wire.Msgpack},
			"JSON":               {"weft.desk.topic.mon.x", nats.Header{"Content-Type": {"application/json; charset=utf-8"}}, ` "v" `, wire.Identity{Application: "mon", Node: "mon"}, wire.JSON},
			"an app of its node": {"weft.desk.topic.b.x", nats.Header{"Weft-App": {"bbb-1"}}, "\xa1v", ticket, wire.Msgpack},
			"of another node":    {"weft.desk.topic.c.x", nats.Header{"Weft-App": {"bbb-1"}}, "\xa1v", wire.Identity{Application: "c", Node: "c"}, wire.Msgpack},
			"an unknown app":     {"weft.desk.topic.b.x", nats.Header{"Weft-App": {"bbb-9"}}, "\xa1v", wire.Identity{Application: "b", Node: "b"}, wire.Msgpack},
			"not an app id":      {"weft.desk.topic.b.x", nats.Header{"Weft-App": {"?"}}, "\xa1v", wire.Identity{Application: "b", Node: "b"}, wire.Msgpack},
		} {
			if err := nc.PublishMsg(&nats.Msg{Subject: c.subject, Header: c.header, Data: []byte(c.data)}); err != nil {
				t.Fatal(err)
			}
			evs := queued(s)
			if len(evs) != 1 || evs[0].Publisher != c.from || evs[0].Value.Format != c.format || texts(t, evs)[0] != "v" {
				t.Errorf("%s: got %+v", name, evs)
			}
		}
		// And what they see of a node.
		sub, err := nc.SubscribeSync("weft.desk.topic.*.y")
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		json := wire.Payload{Format: wire.JSON, Data: []byte(`"v"`)}
		if err := a.Publish(t.Context(), blotter, "y", json, topics.RoutingKey("k"), topics.Target(wire.Filter{"user": "bob"})); err != nil {
			t.Fatal(err)
		}
		m, err := sub.NextMsg(time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(m.Subject, m.Reply, m.Header, m.Data),
			fmt.Sprint("weft.desk.topic.a.y", "", nats.Header{"Weft-App": {"aaa-1"}, "Weft-Routing-Key": {"k"}, "Weft-Target": {`{"user":"bob"}`}}, []byte("\xa1v")); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestRefusalIsLoggedAtDebug(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		n, nc := h.join(t, "a", nil), h.client(t)
		var log bytes.Buffer
		tp := topics.New(topics.Config{Realm: realm, Self: "a", Data: n.link, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		defer tp.Close()
		if _, err := tp.Subscribe(t.Context(), chart, "x"); err != nil {
			t.Fatal(err)
		}
		if err := nc.Publish("weft.desk.topic.eve.x", []byte("secret\xc1")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := log.String(); !strings.Contains(s, "level=DEBUG") || !strings.Contains(s, "weft.desk.topic.eve.x") || strings.Contains(s, "secret") {
			t.Errorf("log: %s", s)
		}
	})
}

func TestServerGoneAndBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		here, elsewhere := subscribe(t, a, chart, "x"), subscribe(t, b, ticket, "x")
		publish(t, a, blotter, "x", "1")
		want(t, here, "1")
		want(t, elsewhere, "1")
		for range 2 {
			h.down()
			time.Sleep(time.Minute)
			if err := a.Publish(t.Context(), blotter, "x", value(t, "2")); !errors.Is(err, wire.ErrOffline) {
				t.Errorf("publish while offline: %v", err)
			}
			if err := a.Publish(t.Context(), blotter, "x", wire.Payload{Data: []byte{0xc1}}); !errors.Is(err, wire.ErrBadPayload) {
				t.Errorf("publish of rubbish while offline: %v", err)
			}
			want(t, here, "2")
			late := subscribe(t, b, ticket, "x.late")
			short := subscribe(t, b, ticket, "x.short")
			short.Close()
			if err := b.Publish(t.Context(), ticket, "x.late", value(t, "3")); !errors.Is(err, wire.ErrOffline) {
				t.Errorf("publish while offline: %v", err)
			}
			want(t, late, "3")
			h.up(t)
			time.Sleep(10 * time.Second)
			publish(t, a, blotter, "x", "4")
			publish(t, a, blotter, "x.late", "5")
			publish(t, a, blotter, "x.short", "6")
			want(t, here, "lost: disconnected", "4")
			want(t, elsewhere, "lost: disconnected", "4") // never "2"
			want(t, late, "lost: disconnected", "5")
			want(t, short)
			late.Close()
		}
		// Once per outage, whatever the link says, and without a count.
		for _, online := range []bool{true, false, false, true, true} {
			b.Connected(online, "test")
		}
		if evs := queued(elsewhere); len(evs) != 1 || evs[0] != (topics.Event{Kind: topics.Lost, Reason: topics.Disconnected}) {
			t.Errorf("got %+v", evs)
		}
		// A reader that stopped does not collect notices.
		for range 100 {
			b.Connected(false, "test")
			b.Connected(true, "")
		}
		want(t, elsewhere, "lost: disconnected")
	})
}

func TestStartsOffline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		h.down()
		a := h.join(t, "a", nil)
		s := subscribe(t, a, chart, "x")
		if err := a.Publish(t.Context(), blotter, "x", value(t, "1")); !errors.Is(err, wire.ErrOffline) {
			t.Errorf("got %v", err)
		}
		want(t, s, "1")
		h.up(t)
		time.Sleep(10 * time.Second)
		b := h.join(t, "b", nil)
		publish(t, b, ticket, "x", "2")
		want(t, s, "lost: disconnected", "2")
	})
}

func TestSlowReaderLosesWithNotice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		slow, fast := subscribe(t, b, ticket, "x"), subscribe(t, b, ticket, "x")
		own := subscribe(t, a, chart, "x")
		const more = 100
		read := 0
		for range 10 {
			for range (wire.QueueMessages + more) / 10 {
				publish(t, a, blotter, "x", "v")
			}
			read += len(queued(fast))
		}
		if read != wire.QueueMessages+more {
			t.Errorf("the fast reader got %d", read)
		}
		for _, s := range []*topics.Subscription{slow, own} {
			evs := queued(s)
			last := evs[len(evs)-1]
			if want := (topics.Event{Kind: topics.Lost, Lost: more, Reason: topics.SlowConsumer}); len(evs) != wire.QueueMessages+1 || last != want {
				t.Errorf("got %d events, the last %+v, want %+v", len(evs), last, want)
			}
			publish(t, a, blotter, "x", "after")
			want(t, s, "after")
		}
		if st := b.Stats(); st.Dropped != more || st.Delivered != 2*wire.QueueMessages+more+3 {
			t.Errorf("stats %+v", st)
		}
		// Bytes count too.
		big := make([]byte, wire.QueueBytes/4)
		for range 6 {
			publish(t, a, blotter, "x", big)
		}
		lost := uint64(0)
		for _, ev := range queued(slow) {
			lost += ev.Lost
		}
		if lost < 2 || lost > 3 {
			t.Errorf("lost %d of 6 large messages", lost)
		}
	})
}

// The handler of node b is held up, which only this test's lookup can do, until
// the client library has dropped messages.
func TestClientLibraryDropsWithNotice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		held := make(chan struct{})
		b := h.join(t, "b", func(subjects.App) (wire.Identity, bool) {
			<-held
			return wire.Identity{}, false
		})
		nc := h.client(t)
		subs := []*topics.Subscription{subscribe(t, b, ticket, "x"), subscribe(t, b, ticket, "x", topics.RoutingKeyIs("k"))}
		other := subscribe(t, b, ticket, "y")
		const total = 1<<16 + 1000
		if err := nc.PublishMsg(&nats.Msg{Subject: "weft.desk.topic.c.x", Header: nats.Header{"Weft-App": {"ccc-1"}}}); err != nil {
			t.Fatal(err)
		}
		for range total - 1 {
			if err := nc.Publish("weft.desk.topic.c.x", nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(held)
		for _, s := range subs {
			got, lost, notices := 0, uint64(0), 0
			for _, ev := range queued(s) {
				if ev.Kind == topics.Message {
					got++
					continue
				}
				if ev.Reason != topics.SlowConsumer {
					t.Errorf("reason %q", ev.Reason)
				}
				notices++
				lost += ev.Lost
			}
			if uint64(got)+lost != total || lost < 1000 || notices > 3 {
				t.Errorf("%d messages and %d lost in %d notices, want %d together", got, lost, notices, total)
			}
		}
		want(t, other)
	})
}

func user(name string, publish, subscribe []string) *server.User {
	return &server.User{Username: name, Password: "x", Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
	}}
}

func TestDenied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := subjects.NodePermissions(realm, "b")
		h := start(t,
			user("a", []string{"weft.desk.topic.a.ok.>"}, []string{"weft.desk.topic.*.ok.>"}),
			user("b", p.Publish, p.Subscribe))
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)

		for range 2 {
			if _, err := a.Subscribe(t.Context(), chart, "secret"); !errors.Is(err, wire.ErrDenied) {
				t.Errorf("subscribe: %v", err)
			}
		}
		if n := a.link.Conn().NumSubscriptions(); n != 0 {
			t.Errorf("%d NATS subscriptions left", n)
		}
		here, elsewhere := subscribe(t, a, chart, "ok.x"), subscribe(t, b, ticket, "*")
		publish(t, b, ticket, "ok.x", "1")
		want(t, here, "1")

		// The first one notices, the second is not even sent, and after a
		// while it is tried again.
		counts := []uint64{}
		local := subscribe(t, b, ticket, "ok.*")
		publish(t, a, blotter, "ok.x", "2")
		publish(t, a, blotter, "ok.x", "3")
		want(t, local, "1"[:0]+"2", "3")
		for range 2 {
			for range 2 {
				if err := a.Publish(t.Context(), blotter, "no", value(t, "4")); !errors.Is(err, wire.ErrDenied) {
					t.Errorf("publish: %v", err)
				}
				synctest.Wait()
				counts = append(counts, a.link.Denied())
			}
			publish(t, a, blotter, "ok.x", "5")
			want(t, local, "5")
			time.Sleep(time.Minute)
		}
		if counts[1] != counts[0] || counts[2] != counts[1]+1 || counts[3] != counts[2] {
			t.Errorf("the link counted %v denials", counts)
		}
		want(t, elsewhere)
		if st := a.Stats(); st.Denied != 6 || st.Published != 8 {
			t.Errorf("stats %+v", st)
		}
		if n := b.Stats().Denied + b.link.Denied(); n != 0 {
			t.Errorf("%d denials under NodePermissions", n)
		}
	})
}

// What may be published locally does not depend on NATS.
func TestDeniedPublishReachesThisNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, user("a", nil, []string{">"}), user("b", []string{"none"}, []string{">"}))
		b := h.join(t, "b", nil)
		s := subscribe(t, b, ticket, "x")
		for range 2 {
			if err := b.Publish(t.Context(), ticket, "x", value(t, "v")); !errors.Is(err, wire.ErrDenied) {
				t.Errorf("got %v", err)
			}
		}
		want(t, s, "v", "v")
		// Permissions that change show, although NATS closes no connection.
		h.opts.Users = []*server.User{user("b", []string{">"}, []string{">"})}
		opts := h.opts
		if err := h.srv.ReloadOptions(&opts); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		publish(t, b, ticket, "x", "w")
		publish(t, b, ticket, "x", "w")
		h.opts.Users = []*server.User{user("b", []string{"none"}, []string{">"})}
		opts = h.opts
		if err := h.srv.ReloadOptions(&opts); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		_ = b.Publish(t.Context(), ticket, "x", value(t, "x")) // may go unnoticed
		synctest.Wait()
		if err := b.Publish(t.Context(), ticket, "x", value(t, "x")); !errors.Is(err, wire.ErrDenied) {
			t.Errorf("after the permission was taken away: %v", err)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	h := start(t)
	a, b := h.join(t, "a", nil), h.join(t, "b", nil)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var readers sync.WaitGroup
	for i := range 8 {
		n, app := a, chart
		if i%2 == 1 {
			n, app = b, ticket
		}
		all.Go(func() {
			for j := range 50 {
				s, err := n.Subscribe(ctx, app, []string{"x.*", "x.>", "x.1"}[j%3])
				if err != nil {
					t.Error(err)
					return
				}
				readers.Go(func() {
					for range s.Events(ctx) {
					}
				})
				if err := n.Publish(ctx, app, fmt.Sprint("x.", j%4), value(t, j)); err != nil {
					t.Error(err)
				}
				switch j % 5 {
				case 0:
					n.Leave(subjects.App(app.App))
				case 1:
					n.Connected(j%2 == 0, "test")
				default:
					s.Close()
				}
				_ = n.Stats()
			}
		})
	}
	all.Wait()
	a.Close()
	b.Close()
	readers.Wait()
	cancel()
	for _, n := range []*node{a, b} {
		if c := n.link.Conn().NumSubscriptions(); c != 0 {
			t.Errorf("%d NATS subscriptions left", c)
		}
	}
}

// Who waits for somebody else's attempt to subscribe gives up with ctx, and
// tries itself when that attempt failed.
func TestSubscribeGivesUpWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a := h.join(t, "a", nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if s, err := a.Subscribe(ctx, chart, "x"); !errors.Is(err, wire.ErrCanceled) {
			t.Errorf("got %v, %v", s, err)
		}
		if n := a.link.Conn().NumSubscriptions(); n != 0 {
			t.Errorf("%d NATS subscriptions left", n)
		}
		s := subscribe(t, a, chart, "x")
		publish(t, a, blotter, "x", "1")
		want(t, s, "1")
	})
}
