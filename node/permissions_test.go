package node_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// inCluster runs f against a server on which each node and client has a user of
// its own, with the permissions of package subjects: nodes a, b and mallory, client Excel, admin.
func inCluster(t *testing.T, f func(t *testing.T, srv *server.Server)) {
	t.Helper()
	inBubble(t, func(t *testing.T) {
		user := func(name string, p subjects.Permissions) *server.User {
			return &server.User{Username: name, Password: "pw", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: p.Publish}, Subscribe: &server.SubjectPermission{Allow: p.Subscribe},
			}}
		}
		users := []*server.User{{Username: "admin", Password: "pw"}, user("Excel", subjects.ClientPermissions(realm, "Excel"))}
		for _, n := range []subjects.Node{"a", "b", "mallory"} {
			users = append(users, user(string(n), subjects.NodePermissions(realm, n)))
		}
		srv, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), MaxPayload: 8 << 20, Users: users})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		defer srv.WaitForShutdown()
		defer srv.Shutdown()
		admin := dial(t, srv, "admin")
		defer admin.Close()
		for _, r := range []subjects.Realm{realm, "other"} {
			if err := kv.Provision(t.Context(), admin, r, 1); err != nil {
				t.Fatal(err)
			}
		}
		f(t, srv)
	})
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, srv *server.Server, name string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("", append(opts, nats.InProcessServer(srv), nats.UserInfo(name, "pw"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func startAs(t *testing.T, srv *server.Server, id string) *node.Node {
	t.Helper()
	n, err := node.Start(t.Context(), node.Config{
		Realm: realm, Node: id, Machine: "machine-" + id, Logger: logger(t),
		NATS: node.NATS{URL: "nats://cluster", Options: []nats.Option{nats.InProcessServer(srv), nats.UserInfo(id, "pw")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNodesWithPermissions: the lists suffice for everything that nodes and
// plain clients do; nothing is denied in a working fabric.
func TestNodesWithPermissions(t *testing.T) {
	inCluster(t, func(t *testing.T, srv *server.Server) {
		a, b := startAs(t, srv, "a"), startAs(t, srv, "b")
		defer a.Stop()
		sees(t, a, time.Second, "a b")
		sees(t, b, time.Second, "a b")
		pricer, blotter := join(t, a, "pricer"), join(t, b, "blotter")
		registerAdd(t, pricer)
		if got, err := node.Invoke[sum](t.Context(), blotter, "Add", pair{1, 2}, node.Wait(time.Second)); err != nil || got.Sum != 3 {
			t.Errorf("method: %v, %v", got, err)
		}
		stream, err := pricer.CreateStream(t.Context(), node.Method{Name: "Ticks"}, node.StreamOptions{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		sub, err := blotter.Subscribe(t.Context(), "Ticks", nil, node.Wait(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Push(1); err != nil {
			t.Error(err)
		}
		topic, err := blotter.SubscribeTopic(t.Context(), "news.*")
		if err != nil {
			t.Fatal(err)
		}
		if err := pricer.Publish(t.Context(), "news.today", "x"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		for ev := range topic.Events(t.Context()) {
			if ev.Topic != "news.today" {
				t.Errorf("topic event %+v", ev)
			}
			break
		}
		sub.Close()
		for name, inbox := range map[string]string{"default inbox": "_INBOX", "own inbox": "_R.Excel"} {
			c := dial(t, srv, "Excel", nats.CustomInboxPrefix(inbox))
			m, err := c.RequestMsgWithContext(t.Context(), &nats.Msg{Subject: "weft.desk.ask.Excel.Add", Data: []byte(`{"A":1,"B":2}`), Header: nats.Header{"Content-Type": {"application/json"}}})
			if err != nil || string(m.Data) != `{"Sum":3}` {
				t.Errorf("ask, %s: %v, %v", name, m, err)
			}
			c.Close()
		}
		b.Stop()
		sees(t, a, time.Second, "a")
		time.Sleep(time.Minute)
		for _, n := range []*node.Node{a, b} {
			if s := n.Stats(); s.Denied != 0 || s.Rogue != 0 {
				t.Errorf("node %s: %d denied, %d rogue", n.ID(), s.Denied, s.Rogue)
			}
		}
	})
}

// TestDeniedToANode: what a node may not do with its own credentials.
func TestDeniedToANode(t *testing.T) {
	inCluster(t, func(t *testing.T, srv *server.Server) {
		a := startAs(t, srv, "a")
		defer a.Stop()
		registerAdd(t, join(t, a, "pricer"))
		l, err := link.Open(t.Context(), link.Config{Node: "mallory", Options: []nats.Option{nats.InProcessServer(srv), nats.UserInfo("mallory", "pw")}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		app := string(join(t, a, "x").ID())
		publish := []string{
			"weft.desk.call.a.b." + app + ".Add", "weft.desk.ask.b.Add", "weft.desk.ctl.a.b.cancel", "weft.desk.data.a." + app + ".Ticks.=",
			"weft.desk.push.b.a.s", "weft.desk.topic.a.news", "weft.desk.kv.dir.n.a", "weft.desk.kv.ctx.x",
			"$KV.weft_desk_dir.n.a", "$KV.weft_desk_dir.lease.a", "$KV.weft_desk_dir.n.b.c", "$KV.weft_desk_dir.other",
			"weft.other.ask.mallory.Add", "weft.other.topic.mallory.x", "weft.other.call.a.mallory.x-1.Add",
			"$KV.weft_other_dir.n.mallory", "$KV.weft_other_ctx.x", "$JS.API.DIRECT.GET.KV_weft_other_ctx", "$JS.API.STREAM.INFO.KV_weft_other_dir",
			"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$SYS.REQ.SERVER.PING", "$JS.API.META.LEADER.STEPDOWN",
			"$JS.API.CONSUMER.CREATE.KV_weft_desk_dir", "$JS.API.CONSUMER.CREATE.KV_weft_desk_ctx.c.>", "_X.a.1", "anything",
		}
		for _, op := range []string{"CREATE", "UPDATE", "DELETE", "PURGE", "MSG.GET", "MSG.DELETE", "SNAPSHOT", "RESTORE", "LEADER.STEPDOWN"} {
			for _, bucket := range []string{"dir", "ctx", "new"} {
				publish = append(publish, fmt.Sprintf("$JS.API.STREAM.%s.KV_weft_desk_%s", op, bucket))
			}
		}
		for _, subject := range publish {
			began := time.Now()
			ctx := within(t, 5*time.Second)
			if _, err := l.Request(ctx, &nats.Msg{Subject: subject, Header: nats.Header{}}); !errors.Is(err, wire.ErrDenied) || time.Since(began) != 0 {
				t.Errorf("publish %s: %v after %s", subject, err, time.Since(began))
			}
		}
		for _, subject := range []string{
			">", "weft.>", "weft.desk.>", "weft.desk.call.a.>", "weft.desk.call.>", "weft.desk.ctl.a.>", "weft.desk.push.a.>", "weft.desk.push.>",
			"_R.a.>", "_R.>", "_INBOX.>", "$KV.weft_desk_dir.>", "$KV.weft_desk_ctx.>", "weft.other.>", "weft.other.kv.>", "weft.other.ask.>", "$SYS.>", "$JS.EVENT.>",
		} {
			if _, err := l.Subscribe(t.Context(), subject, "", func(*nats.Msg) {}, nil); !errors.Is(err, wire.ErrDenied) {
				t.Errorf("subscribe %s: %v", subject, err)
			}
		}
		for _, queue := range []string{"", subjects.AskQueue} { // no way round by a group
			if _, err := l.Subscribe(t.Context(), "weft.desk.call.a.>", queue, func(*nats.Msg) {}, nil); !errors.Is(err, wire.ErrDenied) {
				t.Errorf("subscribe in group %q: %v", queue, err)
			}
		}
		// Its own schedule may name another's document, but nobody believes it.
		dir := kv.Directory(l, realm)
		if err := dir.Lease(within(t, time.Second), subjects.LeaseKey("mallory"), subjects.NodeKey("a"), time.Second); err != nil {
			t.Fatal(err)
		}
		b := startAs(t, srv, "b")
		defer b.Stop()
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			sees(t, b, 0, "a b")
		}
		if b.Stats().Rogue == 0 {
			t.Error("a foreign purge was not counted")
		}
	})
}

// TestDeniedToAClient: a plain client calls and listens, no more.
func TestDeniedToAClient(t *testing.T) {
	inCluster(t, func(t *testing.T, srv *server.Server) {
		l, err := link.Open(t.Context(), link.Config{Node: "Excel", Options: []nats.Option{nats.InProcessServer(srv), nats.UserInfo("Excel", "pw")}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for _, subject := range []string{
			"weft.desk.ask.a.Add", "weft.desk.call.a.b.x-1.Add", "weft.desk.ctl.a.b.ping", "weft.desk.topic.a.x", "weft.desk.data.Excel.x-1.s.=",
			"weft.desk.push.a.Excel.s", "weft.other.ask.Excel.Add", "$KV.weft_desk_ctx.x", "$KV.weft_desk_dir.n.Excel", "weft.desk.kv.dir.n.a",
			"$JS.API.STREAM.INFO.KV_weft_desk_dir", "$JS.API.DIRECT.GET.KV_weft_desk_ctx", "$JS.API.INFO", "_R.a.x", "_INBOX.x",
		} {
			if _, err := l.Request(within(t, 5*time.Second), &nats.Msg{Subject: subject}); !errors.Is(err, wire.ErrDenied) {
				t.Errorf("publish %s: %v", subject, err)
			}
		}
		for _, subject := range []string{">", "weft.desk.call.>", "weft.desk.ask.>", "weft.desk.ctl.>", "weft.desk.kv.>", "weft.desk.push.a.>", "_R.a.>", "$KV.>", "weft.other.topic.>"} {
			if _, err := l.Subscribe(t.Context(), subject, "", func(*nats.Msg) {}, nil); !errors.Is(err, wire.ErrDenied) {
				t.Errorf("subscribe %s: %v", subject, err)
			}
		}
	})
}

// TestMissingPermissionIsDenied: a node whose user lacks a right says which.
func TestMissingPermissionIsDenied(t *testing.T) {
	inCluster(t, func(t *testing.T, srv *server.Server) {
		n, err := node.Start(t.Context(), node.Config{Realm: realm, Node: "c", Logger: logger(t), NATS: node.NATS{
			URL: "nats://cluster", Options: []nats.Option{nats.InProcessServer(srv), nats.UserInfo("a", "pw")},
		}})
		if err == nil {
			n.Stop()
		}
		if !errors.Is(err, wire.ErrDenied) || !strings.Contains(err.Error(), "_R.c") && !strings.Contains(err.Error(), "weft.desk") && !strings.Contains(err.Error(), "weft_desk") {
			t.Errorf("got %v", err)
		}
	})
}
