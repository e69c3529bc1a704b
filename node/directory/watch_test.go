package directory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/subjects"
)

// TestEventsFoldToTheView: whatever happens, and however slowly they are read,
// the events so far make the view, in an order that makes sense.
func TestEventsFoldToTheView(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inFabric(t, func(t *testing.T, fb *fabric) {
				rnd := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test must be repeatable
				watcher := fb.join("w")
				slow := watchSlowly(t, watcher)
				members := map[subjects.Node]*member{}
				apps := map[subjects.Node][]subjects.App{}
				for step := range 120 {
					id := subjects.Node(fmt.Sprintf("n%d", rnd.IntN(4)))
					m := members[id]
					switch k := rnd.IntN(10); {
					case m == nil:
						members[id] = fb.join(id)
					case k == 0:
						m.stop()
						delete(members, id)
						delete(apps, id)
					case k == 1: // dies, and another one takes its place
						m.cable.pull()
						time.Sleep(time.Duration(rnd.IntN(12)) * time.Second)
						m.cancel()
						delete(members, id)
						delete(apps, id)
					case k < 5:
						apps[id] = append(apps[id], m.app(fmt.Sprintf("app%d", len(apps[id])), names(rnd)...))
					case len(apps[id]) > 0 && k < 9:
						m.offer(apps[id][rnd.IntN(len(apps[id]))], names(rnd)...)
					case len(apps[id]) > 0:
						m.RemoveApp(apps[id][len(apps[id])-1])
						apps[id] = apps[id][:len(apps[id])-1]
					}
					if rnd.IntN(3) == 0 {
						time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
					}
					if step%10 == 0 {
						synctest.Wait()
						watcher.mu.Lock()
						got := fold(t, watcher.events)
						watcher.mu.Unlock()
						if want := picture(watcher.View()); got != want {
							t.Fatalf("step %d: events make\n%s, the view is\n%s", step, got, want)
						}
					}
				}
				time.Sleep(30 * time.Second)
				synctest.Wait()
				want := picture(watcher.View())
				if got := fold(t, slow()); got != want {
					t.Errorf("a slow reader's events make\n%s, the view is\n%s", got, want)
				}
				for id, m := range members {
					if got := picture(m.View()); got != want {
						t.Errorf("node %s sees\n%s, the watcher\n%s", id, got, want)
					}
				}
			})
		})
	}
}

// TestChannelsMakeNoEvents: they are in the view of every node, and only there.
func TestChannelsMakeNoEvents(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.join("a"), fb.join("b")
		id := b.app("x", "A", "B")
		a.sees(time.Second, "a", "b", "b/x", "b/x/A", "b/x/B")
		a.seen()
		b.seen()
		on := func(channels ...string) {
			t.Helper()
			if err := b.SetChannels(id, channels); err != nil {
				t.Fatal(err)
			}
			if err := b.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			for _, m := range []*member{a, b} {
				if app, ok := m.App(id); !ok || !slices.Equal(app.Channels, channels) || len(app.Methods) != 2 || len(m.Servers("a")) != 1 {
					t.Errorf("node %s has %+v, want %q", m.id, app, channels)
				}
				if events := m.seen(); len(events) > 0 {
					t.Errorf("node %s: %q", m.id, events)
				}
			}
		}
		on("Red")
		on("Blue", "Dark Yellow")
		b.cable.pull()
		time.Sleep(3 * time.Second)
		b.cable.plug()
		time.Sleep(10 * time.Second)
		on("Blue", "Dark Yellow")
		on()
		if late := fb.join("late"); late.View().Nodes["b"] == nil {
			t.Error("b is not there")
		}
	})
}

func names(rnd *rand.Rand) (methods []string) {
	for _, name := range []string{"A", "B", "C", "D"} {
		if rnd.IntN(2) == 0 {
			methods = append(methods, name)
		}
	}
	return methods
}

// watchSlowly reads one event per half second.
func watchSlowly(t *testing.T, m *member) func() []string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	var mu sync.Mutex
	var events []string
	go func() {
		defer close(ended)
		for ev := range m.Watch(ctx) {
			mu.Lock()
			events = append(events, describe(ev))
			mu.Unlock()
			time.Sleep(500 * time.Millisecond)
			if ctx.Err() != nil {
				return
			}
		}
	}()
	return func() []string {
		time.Sleep(5 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		return events
	}
}
