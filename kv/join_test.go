package kv_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// counted is how many messages come to a subject.
func counted(t *testing.T, nc *nats.Conn, subject string) *atomic.Int64 {
	t.Helper()
	n := new(atomic.Int64)
	sub, err := nc.Subscribe(subject, func(*nats.Msg) { n.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() }) // fails only when the connection is gone
	return n
}

// TestReadersJoin: hundreds of replicas that read at a time make few requests, and each gets
// what is its own.
func TestReadersJoin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mute atomic.Bool
		b, nc := behindProxy(t, func(down []byte) []byte {
			if mute.Load() {
				return elsewhere(down)
			}
			return down
		})
		const contexts = 200
		trees := make([]*kv.Tree, contexts)
		replicas := make([]*kv.Replica, contexts)
		for i := range contexts {
			trees[i] = kv.NewTree(named(i))
			replicas[i] = b.Replicate([]subjects.Key{subjects.ContextKeys(named(i))}, true, nil, func(u kv.Update) { trees[i].Apply(u.Entries, u.Removed) })
			defer replicas[i].Close()
			<-replicas[i].Ready()
			putPath(t, b, named(i), "", `{}`, 0)
			putPath(t, b, named(i), "a", `1`, 0)
		}
		infos, reads := counted(t, nc, "$JS.API.STREAM.INFO.KV_weft_desk_ctx"), counted(t, nc, "$JS.API.DIRECT.GET.KV_weft_desk_ctx")
		requests := func() int64 { return infos.Swap(0) + reads.Swap(0) }
		shows := func(what string, want func(i int) string) {
			t.Helper()
			synctest.Wait()
			for i, tree := range trees {
				if got := canonical(t, tree.View()); got != want(i) {
					t.Fatalf("%s: context %d is %s, want %s", what, i, got, want(i))
				}
			}
		}
		caught := func() (n uint64) {
			for _, r := range replicas {
				n += r.Stats().Caught
			}
			return n
		}
		time.Sleep(12 * time.Second)
		shows("before", func(int) string { return `{"a":1}` })

		// A regular check finds what was not republished.
		mute.Store(true)
		for i := range contexts {
			putPath(t, b, named(i), "b", fmt.Sprint(i), 0)
		}
		synctest.Wait()
		mute.Store(false)
		before := caught()
		requests()
		time.Sleep(5 * time.Second)
		shows("after the check", func(i int) string { return fmt.Sprintf(`{"a":1,"b":%d}`, i) })
		if got := caught() - before; got != contexts {
			t.Errorf("the checks caught %d writes, want %d", got, contexts)
		}
		if n := requests(); n > 3*kv.Lanes {
			t.Errorf("%d requests for one check of all", n)
		}

		// So does reading everything.
		mute.Store(true)
		for i := range contexts {
			putPath(t, b, named(i), "c", fmt.Sprint(i), 0)
		}
		synctest.Wait()
		mute.Store(false)
		requests()
		for _, r := range replicas {
			r.Refresh("test")
		}
		time.Sleep(time.Second)
		shows("after all was read", func(i int) string { return fmt.Sprintf(`{"a":1,"b":%d,"c":%d}`, i, i) })
		if n := requests(); n > contexts { // they begin within a tenth of a second, and one alone makes two
			t.Errorf("%d requests to read everything", n)
		}
	})
}

// TestJoinedTooLarge: what is too much for one request is asked for in several, and the end
// of who asks is not that of the others.
func TestJoinedTooLarge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, nc := behindProxy(t, func(down []byte) []byte { return down })
		const contexts, keys = 40, 100
		for i := range contexts {
			writes := make([]kv.Write, keys)
			for k := range writes {
				key, _ := subjects.ContextPath(named(i), []string{fmt.Sprint("key", k)})
				writes[k] = kv.Write{Key: key, Value: value(t, fmt.Sprint(i)).Payload().Data}
			}
			if _, err := b.Commit(t.Context(), fmt.Sprint("w", i), writes); err != nil {
				t.Fatal(err)
			}
		}
		reads := counted(t, nc, "$JS.API.DIRECT.GET.KV_weft_desk_ctx")
		var wg sync.WaitGroup
		for i := range contexts {
			for _, canceled := range []bool{false, true} {
				wg.Go(func() {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if canceled {
						cancel()
					}
					entries, err := b.LastOf(ctx, subjects.ContextKeys(named(i)), 0)
					switch {
					case canceled && errors.Is(err, wire.ErrCanceled), canceled && err == nil:
					case err != nil || len(entries) != keys:
						t.Errorf("context %d: %d keys, %v", i, len(entries), err)
					}
					for _, e := range entries {
						if k, _ := e.Key.Context(); k.Context != named(i) {
							t.Errorf("context %d: the key %s", i, e.Key)
						}
					}
				})
			}
		}
		wg.Wait()
		if n := reads.Load(); n > 2*contexts {
			t.Errorf("%d requests", n)
		}
		newest, err := b.LastOf(t.Context(), subjects.ContextKeys(named(3)), 350)
		if err != nil {
			t.Fatal(err)
		}
		if len(newest) != 50 || slices.ContainsFunc(slices.Collect(maps.Values(newest)), func(e kv.Entry) bool { return e.Seq <= 350 }) {
			t.Errorf("after 350: %d entries", len(newest))
		}
	})
}
