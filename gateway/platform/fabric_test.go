package platform

import (
	"context"
	"encoding/json"
	"iter"
	"testing"
	"testing/synctest"
	"time"
)

var since = time.Date(2026, 11, 21, 9, 30, 0, 0, time.UTC)

func (h *fakeHost) Fabric() Fabric { return Fabric{Fabric: "online", Since: since} }

func (h *fakeHost) Fabrics(ctx context.Context) iter.Seq[Fabric] {
	return func(yield func(Fabric) bool) {
		for f := h.Fabric(); yield(f); {
			select {
			case f = <-h.fabric:
			case <-ctx.Done():
				return
			}
		}
	}
}

// TestFabric: a client can ask for the state of the fabric, and is told of each change until it
// unsubscribes or leaves.
func TestFabric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.fabric = make(chan Fabric)
		me, other := h.connect("blotter"), h.connect("chart")
		p := start(t, h, Config{})
		online := `{"fabric":"online","since":"2026-11-21T09:30:00Z"}`
		if got := call(t, p, me, "Weft.GetFabric", `{}`); got != online {
			t.Errorf("got %s", got)
		}
		subscribe := func(c Caller) (pushed chan string, cancel func()) {
			pushed = make(chan string, 8)
			cancel, err := p.Subscribe(c, "Weft.Fabric", nil, func(data json.RawMessage) { pushed <- string(data) })
			if err != nil {
				t.Fatal(err)
			}
			if got := <-pushed; got != online {
				t.Errorf("at first: %s", got)
			}
			return pushed, cancel
		}
		mine, cancel := subscribe(me)
		h.fabric <- Fabric{Fabric: "offline", Since: since, Reason: "timeout"}
		if got := <-mine; got != `{"fabric":"offline","since":"2026-11-21T09:30:00Z","reason":"timeout"}` {
			t.Errorf("got %s", got)
		}
		cancel()
		others, _ := subscribe(other)
		h.fabric <- Fabric{Fabric: "offline", Since: since}
		if got := <-others; got != `{"fabric":"offline","since":"2026-11-21T09:30:00Z"}` {
			t.Errorf("got %s", got)
		}
		p.Left(other.Peer)
		synctest.Wait()
		select {
		case h.fabric <- Fabric{Fabric: "online"}:
			t.Error("somebody still listens")
		default:
		}
		if len(mine)+len(others) > 0 {
			t.Errorf("pushed after the end: %d, %d", len(mine), len(others))
		}
	})
}
