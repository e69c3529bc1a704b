package node_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// client is a plain NATS client.
func (fb *fabric) client() *nats.Conn {
	fb.t.Helper()
	nc, err := nats.Connect("", fb.server.ConnectOptions()...)
	if err != nil {
		fb.t.Fatal(err)
	}
	return nc
}

func request(t *testing.T, nc *nats.Conn, m *nats.Msg) *nats.Msg {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	reply, err := nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		t.Fatalf("%s: %v", m.Subject, err)
	}
	return reply
}

func TestAsk(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		nc := fb.client()
		defer nc.Close()
		var runs atomic.Int64
		app := join(t, b, "pricer")
		if err := app.Register(t.Context(), node.Method{Name: "T42.Add it"}, func(_ context.Context, c *node.Call) (any, error) {
			runs.Add(1)
			var in struct{ A, B int }
			if err := c.Args.Decode(&in); err != nil {
				return nil, err
			}
			return map[string]any{"sum": in.A + in.B, "caller": c.Caller.Application}, nil
		}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(2 * time.Second) // fake: both nodes have joined the group
		subject := string(subjects.Realm(realm).AskSubject("me", subjects.MustEncode("T42.Add it")))
		jsonType := nats.Header{"Content-Type": {"application/json"}}
		for range 20 { // whichever node gets it
			reply := request(t, nc, &nats.Msg{Subject: subject, Header: jsonType, Data: []byte(`{"A":1,"B":2}`)})
			if string(reply.Data) != `{"caller":"me","sum":3}` && string(reply.Data) != `{"sum":3,"caller":"me"}` {
				t.Fatalf("got %s %v", reply.Data, reply.Header)
			}
		}
		if n := runs.Load(); n != 20 {
			t.Errorf("ran %d times, asked 20", n)
		}
		for name, c := range map[string]struct {
			msg  *nats.Msg
			code wire.Code
		}{
			"nobody":       {&nats.Msg{Subject: "weft.desk.ask.me.Nobody", Data: []byte{0xc0}}, wire.NoServer},
			"bomb":         {&nats.Msg{Subject: subject, Data: []byte{0xdd, 0x7f, 0xff, 0xff, 0xff, 0xc0}}, wire.BadPayload},
			"bad JSON":     {&nats.Msg{Subject: subject, Header: jsonType, Data: []byte(`{"A":`)}, wire.BadPayload},
			"other type":   {&nats.Msg{Subject: subject, Header: nats.Header{"Content-Type": {"text/plain"}}}, wire.BadPayload},
			"bad deadline": {&nats.Msg{Subject: subject, Header: nats.Header{wire.HeaderDeadline: {"soon"}}}, wire.BadPayload},
			"long":         {&nats.Msg{Subject: subject, Header: nats.Header{wire.HeaderDeadline: {"600001"}}}, wire.Limit},
		} {
			reply := request(t, nc, c.msg)
			if got := reply.Header.Get(wire.HeaderErrorCode); got != string(c.code) || reply.Header.Get(wire.HeaderError) == "" {
				t.Errorf("%s: got %q %q, want %q", name, got, reply.Header.Get(wire.HeaderError), c.code)
			}
		}
	})
}

func TestARepeatedCallRunsOnce(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		nc := fb.client()
		defer nc.Close()
		var runs atomic.Int64
		app := join(t, a, "server")
		if err := app.Register(t.Context(), node.Method{Name: "Buy"}, func(context.Context, *node.Call) (any, error) {
			return runs.Add(1), nil
		}); err != nil {
			t.Fatal(err)
		}
		r := subjects.Realm(realm)
		for i, subject := range []subjects.Subject{
			r.CallSubject("a", "me", app.ID(), subjects.MustEncode("Buy")), r.AskSubject("me", subjects.MustEncode("Buy")),
		} {
			before := runs.Load()
			m := &nats.Msg{Subject: string(subject), Header: nats.Header{wire.HeaderID: {fmt.Sprintf("%022d", i)}}}
			if first := request(t, nc, m); first.Header.Get(wire.HeaderErrorCode) != "" {
				t.Fatalf("first: %v", first.Header)
			}
			if again := request(t, nc, m); again.Header.Get(wire.HeaderErrorCode) != string(wire.Rejected) {
				t.Errorf("again: %v", again.Header)
			}
			if got := runs.Load() - before; got != 1 {
				t.Errorf("%s ran %d times", subject, got)
			}
		}
	})
}

// A Direct Get or a publish with a reply subject makes the server send stored
// bytes anywhere. They must reach no handler.
func TestInjectedMessagesAreDropped(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		nc := fb.client()
		defer nc.Close()
		var runs atomic.Int64
		app := join(t, a, "server")
		if err := app.Register(t.Context(), node.Method{Name: "Buy"}, func(context.Context, *node.Call) (any, error) {
			return runs.Add(1), nil
		}); err != nil {
			t.Fatal(err)
		}
		r := subjects.Realm(realm)
		victim := string(r.CallSubject("a", "me", app.ID(), subjects.MustEncode("Buy")))
		before := a.Stats().Interop.Refused
		for _, m := range []*nats.Msg{
			{Subject: string(r.DirectoryBucket().DirectGetLast(subjects.NodeKey("a"))), Reply: victim},
			{Subject: string(r.DirectoryBucket().Subject("if.aaaaaaaaaaaaaaaaaaaaaaaaaa")), Reply: victim, Data: []byte("x")},
			{Subject: string(r.DirectoryBucket().Info()), Reply: victim},
			{Subject: victim, Reply: nc.NewInbox(), Header: nats.Header{"Nats-Stream": {"x"}}},
			{Subject: victim, Reply: nc.NewInbox(), Header: nats.Header{"Status": {"100"}}},
		} {
			if err := nc.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := a.Stats().Interop.Refused - before; runs.Load() != 0 || got != 5 {
			t.Errorf("ran %d times, refused %d of 5", runs.Load(), got)
		}
	})
}
