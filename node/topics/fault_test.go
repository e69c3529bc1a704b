package topics_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node/topics"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

func TestServerGoneAndBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		here, elsewhere := subscribe(t, a, chart, "x"), subscribe(t, b, ticket, "x")
		publish(t, a, blotter, "x", "1")
		want(t, here, "1")
		want(t, elsewhere, "1")
		for range 2 {
			h.down()
			time.Sleep(time.Minute)
			if err := a.Publish(t.Context(), blotter, "x", value(t, "2")); !errors.Is(err, wire.ErrOffline) {
				t.Errorf("publish while offline: %v", err)
			}
			if err := a.Publish(t.Context(), blotter, "x", wire.Payload{Data: []byte{0xc1}}); !errors.Is(err, wire.ErrBadPayload) {
				t.Errorf("publish of rubbish while offline: %v", err)
			}
			want(t, here, "2")
			late := subscribe(t, b, ticket, "x.late")
			short := subscribe(t, b, ticket, "x.short")
			short.Close()
			if err := b.Publish(t.Context(), ticket, "x.late", value(t, "3")); !errors.Is(err, wire.ErrOffline) {
				t.Errorf("publish while offline: %v", err)
			}
			want(t, late, "3")
			h.up(t)
			time.Sleep(10 * time.Second)
			publish(t, a, blotter, "x", "4")
			publish(t, a, blotter, "x.late", "5")
			publish(t, a, blotter, "x.short", "6")
			want(t, here, "lost: disconnected", "4")
			want(t, elsewhere, "lost: disconnected", "4") // never "2"
			want(t, late, "lost: disconnected", "5")
			want(t, short)
			late.Close()
		}
		// Once per outage, whatever the link says, and without a count.
		for _, online := range []bool{true, false, false, true, true} {
			b.Connected(online, "test")
		}
		if evs := queued(elsewhere); len(evs) != 1 || !reflect.DeepEqual(evs[0], topics.Event{Kind: topics.Lost, Reason: topics.Disconnected}) {
			t.Errorf("got %+v", evs)
		}
		// A reader that stopped does not collect notices.
		for range 100 {
			b.Connected(false, "test")
			b.Connected(true, "")
		}
		want(t, elsewhere, "lost: disconnected")
	})
}

func TestStartsOffline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		h.down()
		a := h.join(t, "a", nil)
		s := subscribe(t, a, chart, "x")
		if err := a.Publish(t.Context(), blotter, "x", value(t, "1")); !errors.Is(err, wire.ErrOffline) {
			t.Errorf("got %v", err)
		}
		want(t, s, "1")
		h.up(t)
		time.Sleep(10 * time.Second)
		b := h.join(t, "b", nil)
		publish(t, b, ticket, "x", "2")
		want(t, s, "lost: disconnected", "2")
	})
}

func TestSlowReaderLosesWithNotice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		slow, fast := subscribe(t, b, ticket, "x"), subscribe(t, b, ticket, "x")
		own := subscribe(t, a, chart, "x")
		const more = 100
		read := 0
		for range 10 {
			for range (wire.QueueMessages + more) / 10 {
				publish(t, a, blotter, "x", "v")
			}
			read += len(queued(fast))
		}
		if read != wire.QueueMessages+more {
			t.Errorf("the fast reader got %d", read)
		}
		for _, s := range []*topics.Subscription{slow, own} {
			evs := queued(s)
			last := evs[len(evs)-1]
			if want := (topics.Event{Kind: topics.Lost, Lost: more, Reason: topics.SlowConsumer}); len(evs) != wire.QueueMessages+1 || !reflect.DeepEqual(last, want) {
				t.Errorf("got %d events, the last %+v, want %+v", len(evs), last, want)
			}
		}
		publish(t, a, blotter, "x", "after")
		want(t, slow, "after")
		want(t, own, "after")
		if st := b.Stats(); st.Dropped != more || st.Delivered != 2*wire.QueueMessages+more+2 {
			t.Errorf("stats %+v", st)
		}
		// Bytes count too.
		big := make([]byte, wire.QueueBytes/4)
		for range 6 {
			publish(t, a, blotter, "x", big)
		}
		lost := uint64(0)
		for _, ev := range queued(slow) {
			lost += ev.Lost
		}
		if lost < 2 || lost > 3 {
			t.Errorf("lost %d of 6 large messages", lost)
		}
	})
}

// The handler of node b is held up, which only this test's lookup can do, until
// the client library has dropped messages.
func TestClientLibraryDropsWithNotice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		held := make(chan struct{})
		b := h.join(t, "b", func(subjects.App) (wire.Identity, bool) {
			<-held
			return wire.Identity{}, false
		})
		nc := h.client(t)
		subs := []*topics.Subscription{subscribe(t, b, ticket, "x"), subscribe(t, b, ticket, "x", topics.RoutingKeyIs("k"))}
		other := subscribe(t, b, ticket, "y")
		const total = 1<<16 + 1000
		if err := nc.PublishMsg(&nats.Msg{Subject: "weft.desk.topic.c.x", Header: nats.Header{"Weft-App": {"ccc-1"}}}); err != nil {
			t.Fatal(err)
		}
		for range total - 1 {
			if err := nc.Publish("weft.desk.topic.c.x", nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(held)
		for _, s := range subs {
			got, lost, notices := 0, uint64(0), 0
			for _, ev := range queued(s) {
				if ev.Kind == topics.Message {
					got++
					continue
				}
				if ev.Reason != topics.SlowConsumer {
					t.Errorf("reason %q", ev.Reason)
				}
				notices++
				lost += ev.Lost
			}
			if uint64(got)+lost != total || lost < 1000 || notices > 3 {
				t.Errorf("%d messages and %d lost in %d notices, want %d together", got, lost, notices, total)
			}
		}
		want(t, other)
	})
}

func user(name string, publish, subscribe []string) *server.User {
	return &server.User{Username: name, Password: "x", Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
	}}
}

func TestDenied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := subjects.NodePermissions(realm, "b")
		h := start(t,
			user("a", []string{"weft.desk.topic.a.ok.>"}, []string{"weft.desk.topic.*.ok.>"}),
			user("b", p.Publish, p.Subscribe))
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)

		for range 2 {
			if _, err := a.Subscribe(t.Context(), chart, "secret"); !errors.Is(err, wire.ErrDenied) {
				t.Errorf("subscribe: %v", err)
			}
		}
		if n := a.link.Conn().NumSubscriptions(); n != 0 {
			t.Errorf("%d NATS subscriptions left", n)
		}
		here, elsewhere := subscribe(t, a, chart, "ok.x"), subscribe(t, b, ticket, "*")
		publish(t, b, ticket, "ok.x", "1")
		want(t, here, "1")

		// The first one notices, the second is not even sent, and after a
		// while it is tried again.
		counts := []uint64{}
		local := subscribe(t, b, ticket, "ok.*")
		publish(t, a, blotter, "ok.x", "2")
		publish(t, a, blotter, "ok.x", "3")
		want(t, local, "2", "3")
		for range 2 {
			for range 2 {
				if err := a.Publish(t.Context(), blotter, "no", value(t, "4")); !errors.Is(err, wire.ErrDenied) {
					t.Errorf("publish: %v", err)
				}
				synctest.Wait()
				counts = append(counts, a.link.Denied())
			}
			publish(t, a, blotter, "ok.x", "5")
			want(t, local, "5")
			time.Sleep(time.Minute)
		}
		if counts[1] != counts[0] || counts[2] != counts[1]+1 || counts[3] != counts[2] {
			t.Errorf("the link counted %v denials", counts)
		}
		want(t, elsewhere)
		if st := a.Stats(); st.Denied != 6 || st.Published != 8 {
			t.Errorf("stats %+v", st)
		}
		if n := b.Stats().Denied + b.link.Denied(); n != 0 {
			t.Errorf("%d denials under NodePermissions", n)
		}
	})
}

func TestDeniedManyAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, user("a", []string{"none"}, []string{"none"}))
		a := h.join(t, "a", nil)
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if _, err := a.Subscribe(t.Context(), chart, fmt.Sprint("x.", i)); !errors.Is(err, wire.ErrDenied) {
					t.Errorf("subscribe: %v", err)
				}
			})
			all.Go(func() {
				if err := a.Publish(t.Context(), chart, fmt.Sprint("y.", i), wire.Payload{}); !errors.Is(err, wire.ErrDenied) {
					t.Errorf("publish: %v", err)
				}
			})
		}
		all.Wait()
	})
}

// What may be published locally does not depend on NATS.
func TestDeniedPublishReachesThisNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, user("a", nil, []string{">"}), user("b", []string{"none"}, []string{">"}))
		b := h.join(t, "b", nil)
		s := subscribe(t, b, ticket, "x")
		for range 2 {
			if err := b.Publish(t.Context(), ticket, "x", value(t, "v")); !errors.Is(err, wire.ErrDenied) {
				t.Errorf("got %v", err)
			}
		}
		want(t, s, "v", "v")
		// Permissions that change show, although NATS closes no connection.
		h.reload(t, user("b", []string{">"}, []string{">"}))
		time.Sleep(time.Minute)
		publish(t, b, ticket, "x", "w")
		publish(t, b, ticket, "x", "w")
		h.reload(t, user("b", []string{"none"}, []string{">"}))
		time.Sleep(time.Minute)
		_ = b.Publish(t.Context(), ticket, "x", value(t, "x")) // may go unnoticed
		synctest.Wait()
		if err := b.Publish(t.Context(), ticket, "x", value(t, "x")); !errors.Is(err, wire.ErrDenied) {
			t.Errorf("after the permission was taken away: %v", err)
		}
		if n := b.link.State().Connects; n != 1 {
			t.Errorf("the link connected %d times, so this tested nothing", n)
		}
	})
}

// A server that does not answer holds the first publish on a subject up for a
// second, and what was published in time arrives.
func TestServerThatDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a, b := h.join(t, "a", nil), h.join(t, "b", nil)
		s := subscribe(t, b, ticket, "*")
		publish(t, a, blotter, "known", "1")
		thaw := h.freeze()
		begin := time.Now()
		publish(t, a, blotter, "known", "2")
		if d := time.Since(begin); d != 0 {
			t.Errorf("took %v on a known subject", d)
		}
		publish(t, a, blotter, "new", "3")
		if d := time.Since(begin); d != time.Second {
			t.Errorf("took %v on a new subject", d)
		}
		var both sync.WaitGroup
		for _, topic := range []string{"other", "another"} {
			both.Go(func() { publish(t, a, blotter, topic, "4") })
		}
		both.Wait()
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("took %v on two new subjects at once", d-time.Second)
		}
		thaw()
		want(t, s, "1", "2", "3", "4", "4")
	})
}

// The server goes away between a publish and the answer to its flush.
func TestServerGoneDuringPublish(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a := h.join(t, "a", nil)
		thaw := h.freeze()
		time.AfterFunc(500*time.Millisecond, func() {
			go h.down()
			time.Sleep(time.Millisecond)
			thaw()
		})
		if err := a.Publish(t.Context(), blotter, "x", value(t, "v")); err != nil && !errors.Is(err, wire.ErrOffline) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Second)
		if err := a.Publish(t.Context(), blotter, "x", value(t, "v")); !errors.Is(err, wire.ErrOffline) {
			t.Errorf("then %v", err)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	h := start(t)
	a, b := h.join(t, "a", nil), h.join(t, "b", nil)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var readers sync.WaitGroup
	for i := range 8 {
		n, app := a, chart
		if i%2 == 1 {
			n, app = b, ticket
		}
		all.Go(func() {
			for j := range 50 {
				s, err := n.Subscribe(ctx, app, []string{"x.*", "x.>", "x.1"}[j%3])
				if err != nil {
					t.Error(err)
					return
				}
				readers.Go(func() {
					for range s.Events(ctx) {
					}
				})
				if err := n.Publish(ctx, app, fmt.Sprint("x.", j%4), value(t, j)); err != nil {
					t.Error(err)
				}
				switch j % 5 {
				case 0:
					n.Leave(subjects.App(app.App))
				case 1:
					n.Connected(j%2 == 0, "test")
				default:
					s.Close()
				}
				_ = n.Stats()
			}
		})
	}
	all.Wait()
	a.Close()
	b.Close()
	readers.Wait()
	cancel()
	for _, n := range []*node{a, b} {
		if c := n.link.Conn().NumSubscriptions(); c != 0 {
			t.Errorf("%d NATS subscriptions left", c)
		}
	}
}

// Who waits for somebody else's attempt to subscribe gives up with ctx, and
// tries itself when that attempt failed.
func TestSubscribeGivesUpWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t)
		a := h.join(t, "a", nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if s, err := a.Subscribe(ctx, chart, "x"); !errors.Is(err, wire.ErrCanceled) {
			t.Errorf("got %v, %v", s, err)
		}
		if n := a.link.Conn().NumSubscriptions(); n != 0 {
			t.Errorf("%d NATS subscriptions left", n)
		}
		s := subscribe(t, a, chart, "x")
		publish(t, a, blotter, "x", "1")
		want(t, s, "1")
	})
}
