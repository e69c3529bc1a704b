package topics_test

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node/topics"
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
