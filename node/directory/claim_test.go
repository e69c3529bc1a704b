package directory_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/wire"
)

// TestTaken: an id that a live node has is refused, and free again when it goes.
func TestTaken(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, watcher := fb.join("a"), fb.join("watcher")
		a.app("x")
		second := fb.start("a")
		if err := <-second.synced; !errors.Is(err, directory.ErrTaken) || !errors.Is(err, wire.ErrRejected) {
			t.Fatalf("got %v", err)
		}
		second.app("y") // is not announced
		watcher.holds(30*time.Second, "a", "a/x", "watcher")
		a.stop()
		watcher.sees(20*time.Second, "a", "a/y", "watcher")
		watcher.holds(30*time.Second, "a", "a/y", "watcher")
	})
}

// TestTakenBySilentNode: one that does not answer in time is not alive.
func TestTakenBySilentNode(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		dead := fb.join("a")
		dead.app("x")
		watcher := fb.join("watcher")
		watcher.sees(time.Second, "a", "a/x", "watcher")
		dead.cable.pull()
		time.Sleep(time.Second)
		began := time.Now()
		again := fb.join("a")
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("joined after %s", d)
		}
		again.app("y")
		watcher.sees(time.Second, "a", "a/y", "watcher")
		watcher.holds(30*time.Second, "a", "a/y", "watcher")
	})
}

// TestTwoAtOnce: of two nodes that start with one id, exactly one is in.
func TestTwoAtOnce(t *testing.T) {
	for range 5 {
		inFabric(t, func(t *testing.T, fb *fabric) {
			watcher := fb.join("watcher")
			one, two := fb.start("a"), fb.start("a")
			results := map[error]int{}
			for _, m := range []*member{one, two} {
				err := <-m.synced
				switch {
				case err == nil:
					results[nil]++
					m.app("x")
				case errors.Is(err, directory.ErrTaken):
					results[directory.ErrTaken]++
					m.stop()
				default:
					t.Errorf("got %v", err)
				}
			}
			if results[nil] != 1 || results[directory.ErrTaken] != 1 {
				t.Errorf("results %v", results)
			}
			watcher.sees(time.Second, "a", "a/x", "watcher")
			watcher.holds(30*time.Second, "a", "a/x", "watcher")
		})
	}
}

// TestSettle waits for the server, not while it is away, and not for ever.
func TestSettle(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		for i := range 5 {
			a.app("x" + string(rune('0'+i)))
			if err := a.Settle(within(t, time.Second)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := b.View().Nodes["a"]; len(n.Apps) != i+1 {
				t.Errorf("after Settle b sees %d apps of %d", len(n.Apps), i+1)
			}
		}
		a.cable.pull()
		synctest.Wait()
		a.app("offline")
		began := time.Now()
		if err := a.Settle(within(t, time.Hour)); err != nil || time.Since(began) != 0 {
			t.Errorf("offline: %v after %s", err, time.Since(began))
		}
		a.cable.plug()
		time.Sleep(7 * time.Second)
		if err := a.Settle(within(t, time.Second)); err != nil {
			t.Error(err)
		}
		if n := b.View().Nodes["a"]; len(n.Apps) != 6 {
			t.Errorf("b sees %d apps", len(n.Apps))
		}
		a.stop()
		if err := a.Settle(within(t, time.Second)); err != nil {
			t.Errorf("after the end: %v", err)
		}
	})
}
