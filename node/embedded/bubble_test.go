package embedded_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/node/embedded"
)

// TestBubble: everything in process runs on fake time, on memory and on file
// storage, and leaves nothing that would keep the bubble from ending.
func TestBubble(t *testing.T) {
	for name, storage := range map[string]jetstream.StorageType{"memory": jetstream.MemoryStorage, "file": jetstream.FileStorage} {
		t.Run(name, func(t *testing.T) {
			store := t.TempDir()
			runtime.GC() // timers that the client library pools must not cross bubbles
			runtime.GC()
			synctest.Test(t, func(t *testing.T) {
				provision := func(ctx context.Context, nc *nats.Conn) error {
					js, err := jetstream.New(nc)
					if err == nil {
						_, err = js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b", Storage: storage, TTL: 10 * time.Minute})
					}
					return err
				}
				for range 2 { // the second time on what the first one left
					s, err := embedded.Start(t.Context(), embedded.Config{Store: store}, provision)
					if err != nil {
						t.Fatal(err)
					}
					nc, js := inProcess(t, s)
					kv, err := js.KeyValue(t.Context(), "b")
					if err != nil {
						t.Fatal(err)
					}
					if _, err := kv.Put(t.Context(), "k", []byte("v")); err != nil {
						t.Fatal(err)
					}
					time.Sleep(9 * time.Minute)
					if _, err := kv.Get(t.Context(), "k"); err != nil {
						t.Error("after 9 min:", err)
					}
					time.Sleep(2 * time.Minute)
					if _, err := kv.Get(t.Context(), "k"); !errors.Is(err, jetstream.ErrKeyNotFound) {
						t.Error("after 11 min:", err)
					}
					nc.Close()
					s.Shutdown()
				}
			})
		})
	}
}
