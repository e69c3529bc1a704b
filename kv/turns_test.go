package kv_test

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
)

// behindProxy is a provisioned realm's context bucket whose answers a test can change,
// and a connection beside it.
func behindProxy(t *testing.T, change func(down []byte) []byte) (*kv.Bucket, *nats.Conn) {
	t.Helper()
	h := start(t, server.Options{JetStream: true, MaxPayload: 8 << 20})
	nc := h.conn(t)
	if err := kv.Provision(within(t, time.Minute), nc, realm, 1); err != nil {
		t.Fatal(err)
	}
	l, err := link.Open(t.Context(), link.Config{Node: "a", Options: []nats.Option{nats.InProcessServer(&proxy{h, change})}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return kv.Contexts(l, realm), nc
}

// elsewhere changes the subject of what is republished and answered: nobody knows it.
func elsewhere(down []byte) []byte {
	return bytes.Replace(down, []byte("Nats-Subject: $KV."), []byte("Nats-Subject: $NO."), 1)
}

func named(i int) subjects.Token { return subjects.MustEncode(fmt.Sprint("context", i)) }

// putPath puts a property of a context, or with no name its object, and returns what is
// republished of it; seen is what the writer says that it knew.
func putPath(t *testing.T, b *kv.Bucket, context subjects.Token, name, json string, seen uint64) kv.Entry {
	t.Helper()
	key := subjects.ContextRoot(context)
	if name != "" {
		key, _ = subjects.ContextPath(context, []string{name})
	}
	id := fmt.Sprint(context, name, json)
	writes := []kv.Write{{Key: key, Value: value(t, json).Payload().Data, Seen: seen}}
	first, err := b.Commit(t.Context(), id, writes)
	if err != nil {
		t.Fatal(err)
	}
	return kv.Entries(id, first, writes)[0]
}

// TestCheckOfALateServer: a server that comes back after a loss answers with what it had.
// A check goes on until one answers with what the node has seen, or the hole would stay
// until the next.
func TestCheckOfALateServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var late atomic.Bool
		b, _ := behindProxy(t, func(down []byte) []byte {
			if late.Load() {
				down = bytes.Replace(elsewhere(down), []byte("Nats-UpTo-Sequence: 3"), []byte("Nats-UpTo-Sequence: 1"), 1)
			}
			return down
		})
		tree := kv.NewTree(client)
		r := kv.NewStillReplica(b, subjects.ContextKeys(client), true, func(u kv.Update) { tree.Apply(u.Entries, u.Removed) })
		other := kv.NewStillReplica(b, subjects.ContextKeys(named(1)), true, func(kv.Update) {})
		putPath(t, b, client, "", `{}`, 0)
		r.Read(t.Context(), true)
		putPath(t, b, client, "a", `1`, 0)                    // did not come
		other.Feed(putPath(t, b, named(1), "", `{"b":1}`, 0)) // did
		late.Store(true)
		time.AfterFunc(100*time.Millisecond, func() { late.Store(false) })
		r.Check(t.Context())
		if got := canonical(t, tree.View()); got != `{"a":1}` {
			t.Errorf("after the check: %s", got)
		}
		if got := r.Stats(); got.Caught != 1 || got.Snapshots != 1 {
			t.Errorf("%+v, want one write caught by the check", got)
		}
	})
}

// TestCheckGoesOn: a check whose answers stay late goes on, and does not read everything: that
// could be read no sooner.
func TestCheckGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mute, late atomic.Bool
		b, _ := behindProxy(t, func(down []byte) []byte {
			if mute.Load() || late.Load() {
				down = elsewhere(down)
			}
			if late.Load() {
				down = bytes.Replace(down, []byte("Nats-UpTo-Sequence: 3"), []byte("Nats-UpTo-Sequence: 1"), 1)
			}
			return down
		})
		tree := kv.NewTree(client)
		r := b.Replicate([]subjects.Key{subjects.ContextKeys(client)}, true, nil, func(u kv.Update) { tree.Apply(u.Entries, u.Removed) })
		defer r.Close()
		other := b.Replicate([]subjects.Key{subjects.ContextKeys(named(1))}, true, nil, func(kv.Update) {})
		defer other.Close()
		<-r.Ready()
		<-other.Ready()
		putPath(t, b, client, "", `{}`, 0)
		time.Sleep(12 * time.Second)
		before := r.Stats()
		mute.Store(true)
		putPath(t, b, client, "a", `1`, 0)
		synctest.Wait()
		mute.Store(false)
		putPath(t, b, named(1), "", `{"b":1}`, 0)
		synctest.Wait()
		late.Store(true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := canonical(t, tree.View()); got != `{}` {
			t.Fatalf("it was not late: %s", got)
		}
		late.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := canonical(t, tree.View()); got != `{"a":1}` {
			t.Errorf("when it is not late any more: %s", got)
		}
		if got := r.Stats(); got.Caught != before.Caught+1 || got.Snapshots != before.Snapshots {
			t.Errorf("%+v after %+v, want one write caught by a check", got, before)
		}
	})
}

// TestNewLeader: what a former leader did not republish comes within a second, and
// everything is read again until the next check but one.
func TestNewLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mute atomic.Bool
		b, _ := behindProxy(t, func(down []byte) []byte {
			if mute.Load() {
				return elsewhere(down)
			}
			return down
		})
		tree := kv.NewTree(client)
		r := b.Replicate([]subjects.Key{subjects.ContextKeys(client)}, true, nil, func(u kv.Update) { tree.Apply(u.Entries, u.Removed) })
		defer r.Close()
		<-r.Ready()
		putPath(t, b, client, "", `{}`, 0)
		time.Sleep(3 * time.Second) // the first check is over
		mute.Store(true)
		putPath(t, b, client, "a", `1`, 0)
		synctest.Wait()
		mute.Store(false)
		if got := canonical(t, tree.View()); got != `{}` {
			t.Fatalf("it was not lost: %s", got)
		}
		b.Elected(t.Context())
		time.Sleep(time.Second)
		synctest.Wait()
		if got := canonical(t, tree.View()); got != `{"a":1}` {
			t.Errorf("a second after the election: %s", got)
		}
		if got := r.Stats(); got.Snapshots != 1 || got.Caught != 1 {
			t.Errorf("%+v, want one write caught", got)
		}
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if got := r.Stats().Snapshots; got != 2 {
			t.Errorf("%d snapshots, want another", got)
		}
	})
}

// TestReadersTakeTurns: hundreds of replicas ask for no more at a time than a server can
// answer, and when one of those that could not read can, the others do, too.
func TestReadersTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var silent atomic.Bool
		var held []byte
		b, nc := behindProxy(t, func(down []byte) []byte {
			if held == nil && bytes.HasPrefix(down, []byte("MSG ")) {
				held = bytes.Clone(down)
				return nil
			}
			down, held = append(held, down...), nil
			if silent.Load() && bytes.Contains(down, []byte(`"config":`)) {
				return nil // the leader does not answer
			}
			return down
		})
		const replicas = 100
		list := make([]*kv.Replica, replicas)
		for i := range list {
			list[i] = b.Replicate([]subjects.Key{subjects.ContextKeys(named(i))}, true, nil, func(kv.Update) {})
			defer list[i].Close()
			<-list[i].Ready()
		}
		var asked atomic.Int64
		sub, err := nc.Subscribe("$JS.API.STREAM.INFO.KV_weft_desk_ctx", func(*nats.Msg) { asked.Add(1) })
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Unsubscribe()
		synced := func() (n int) {
			for _, r := range list {
				if ok, _ := r.State(); ok {
					n++
				}
			}
			return n
		}
		time.Sleep(3 * time.Second)
		silent.Store(true)
		for _, r := range list {
			r.Refresh("test")
		}
		before := asked.Load()
		time.Sleep(time.Second)
		if n := asked.Load() - before; n == 0 || n > kv.Lanes+1 { // and one audit
			t.Errorf("%d ask at a time, want %d", n, kv.Lanes)
		}
		time.Sleep(time.Minute) // they wait seconds by now between their attempts
		if n := synced(); n != 0 {
			t.Fatalf("%d can read", n)
		}
		silent.Store(false)
		for synced() == 0 {
			time.Sleep(time.Millisecond)
		}
		// Those that have asked shortly before it was answered again find out after two seconds.
		time.Sleep(2100 * time.Millisecond)
		if n := synced(); n != replicas {
			t.Errorf("%d of %d can read after the first could", n, replicas)
		}
	})
}
