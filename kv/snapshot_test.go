package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

func snapshot(t testing.TB, b *kv.Bucket) kv.Snapshot {
	t.Helper()
	s, err := b.Snapshot(within(t, time.Minute), subjects.NodeKeys())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b, _ := bucket(t)
		if s := snapshot(t, b); len(s.Entries) != 0 || s.UpTo != 0 || s.Created.IsZero() {
			t.Errorf("empty: %+v", s)
		}
		put(t, b, "if.other", "not below the filter")
		if s := snapshot(t, b); len(s.Entries) != 0 || s.UpTo != 1 {
			t.Errorf("nothing below the filter: %+v", s)
		}
		const keys = 2500 // the server answers for 1,024 at a time
		var last uint64
		for i := range keys {
			last = put(t, b, subjects.Key(fmt.Sprintf("n.%d", i)), fmt.Sprint(i))
		}
		check := func(want int, upTo uint64) {
			t.Helper()
			s := snapshot(t, b)
			if len(s.Entries) != want || s.UpTo != upTo {
				t.Errorf("%d entries up to %d, want %d, %d", len(s.Entries), s.UpTo, want, upTo)
			}
			for k, e := range s.Entries {
				if e.Key != k || e.Op == kv.Put && string(k) != "n."+string(e.Value) {
					t.Errorf("%s: %+v", k, e)
				}
			}
		}
		check(keys, last)
		if err := b.Purge(within(t, time.Minute), "n.7"); err != nil {
			t.Fatal(err)
		}
		check(keys, last+1) // the marker is there for ten minutes
		if e := snapshot(t, b).Entries["n.7"]; e.Op != kv.Purge {
			t.Errorf("got %+v", e)
		}
		time.Sleep(11 * time.Minute)
		check(keys-1, last+1)
	})
}

// A page ends after so many bytes, too.
func TestSnapshotInPages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b, _ := bucket(t)
		const keys, size = 20, 1 << 20 // a page is 8 MiB
		value := string(bytes.Repeat([]byte{1}, size))
		for i := range keys {
			put(t, b, subjects.Key(fmt.Sprintf("n.%d", i)), value)
		}
		s := snapshot(t, b)
		for k, e := range s.Entries {
			if len(e.Value) != size {
				t.Errorf("%s: %d bytes", k, len(e.Value))
			}
		}
		if len(s.Entries) != keys {
			t.Errorf("%d entries", len(s.Entries))
		}
	})
}

// A replica that answers with less than the leader has is noticed: whether it
// says so, lacks keys, or has none. One that has caught up is believed.
func TestSnapshotOfLaggingReplica(t *testing.T) {
	tests := map[string]func([]byte) []byte{
		"lags": func(down []byte) []byte {
			return bytes.Replace(down, []byte("Nats-UpTo-Sequence: 5"), []byte("Nats-UpTo-Sequence: 4"), 1)
		},
		"lacks a key": func(down []byte) []byte { // under another key it is one too few
			return bytes.Replace(down, []byte("Nats-Subject: $KV.weft_desk_dir.n.3"), []byte("Nats-Subject: $KV.weft_desk_dir.n.2"), 1)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h, good, _ := bucket(t)
				for i := range 5 {
					put(t, good, subjects.Key(fmt.Sprintf("n.%d", i)), "v")
				}
				var damaged atomic.Bool
				damaged.Store(true)
				p := &proxy{h, func(down []byte) []byte {
					if damaged.Load() {
						return change(down)
					}
					return down
				}}
				l, err := link.Open(t.Context(), link.Config{Node: "a", Options: []nats.Option{nats.InProcessServer(p)}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(l.Close)
				b := kv.Directory(l, realm)
				if s, err := b.Snapshot(within(t, time.Minute), subjects.NodeKeys()); !errors.Is(err, wire.ErrUnavailable) {
					t.Errorf("damaged: got %+v, %v", s, err)
				}
				time.AfterFunc(500*time.Millisecond, func() { damaged.Store(false) })
				if s := snapshot(t, b); len(s.Entries) != 5 {
					t.Errorf("mended: %+v", s)
				}
			})
		})
	}
}

// A server picks the replica that answers at random, so one without some keys may answer
// several times in a row: a reader gets past it at once.
func TestSnapshotOfOneReplicaOfThree(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var asked, damaged atomic.Int64
		b, _ := behindProxy(t, func(down []byte) []byte {
			if bytes.HasPrefix(down, []byte("Nats-Subject: $KV.weft_desk_ctx.client.a")) && asked.Add(1) <= damaged.Load() {
				return bytes.Replace(down, []byte("client.a"), []byte("client.b"), 1)
			}
			return down
		})
		putPath(t, b, client, "a", `1`, 0)
		putPath(t, b, client, "b", `2`, 0)
		synctest.Wait()
		damaged.Store(asked.Load() + 5)
		began := time.Now()
		s, err := b.Snapshot(t.Context(), subjects.ContextKeys(client))
		if err != nil || len(s.Entries) != 2 {
			t.Errorf("got %+v, %v", s, err)
		}
		if took := time.Since(began); took >= 200*time.Millisecond {
			t.Errorf("took %s", took)
		}
		if asked.Load() <= damaged.Load() {
			t.Errorf("only %d of %d answers lacked a key", asked.Load(), damaged.Load())
		}
	})
}
