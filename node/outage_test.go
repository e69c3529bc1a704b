package node_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node"
)

// TestDesktopWithoutFabric: the apps of a node that has never seen the fabric share the
// default channels and contexts, which become everybody's when it appears.
func TestDesktopWithoutFabric(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := &hub{t: t, store: t.TempDir(), anew: true, lines: map[string]*line{}}
		n, err := node.Start(t.Context(), node.Config{
			Realm: realm, Node: "a", Machine: "machine-a", Logger: logger(t), Store: t.TempDir(),
			NATS: node.NATS{URL: "nats://hub", Options: []nats.Option{nats.InProcessServer(h.line("a"))}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Stop()
		if n.State().Online {
			t.Fatal("it is online")
		}
		ann, amy := join(t, n, "ann"), join(t, n, "amy")
		wantChannels(t, ann, defaultNames)
		must(t, ann.Channels().Join(t.Context(), "Red"))
		must(t, amy.Channels().Join(t.Context(), "Red"))
		next := watchChannel(t, amy, "Red")
		next()
		ack, err := ann.Channels().Publish(t.Context(), object{"client": "ACME"})
		if err != nil || !ack.Journalled {
			t.Fatalf("%+v, %v", ack, err)
		}
		if got := next(); !strings.Contains(got, "ACME") {
			t.Errorf("amy has seen %q", got)
		}
		if got := who(ann, "Red"); got != "ann@a amy@a" {
			t.Errorf("on Red: %s", got)
		}
		must(t, ann.Channels().Add(t.Context(), "Mine", object{"color": "gold"}, nil))
		wantChannels(t, amy, defaultNames+" Mine")
		if _, err := ann.Contexts().Set(t.Context(), "limits", object{"BMW": 6000}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		h.up()
		defer h.down()
		eventually(t, 20*time.Second, "the node is online", func() bool { return n.State().Online && n.Stats().Contexts.Waiting == 0 })
		b := h.node("b")
		defer b.Stop()
		bob := join(t, b, "bob")
		wantChannels(t, bob, defaultNames+" Mine")
		wantData(t, `{"client":"ACME"}`, "Red", ann, amy, bob)
		wantContext(t, `{"BMW":6000}`, "limits", ann, bob)
		if list := ann.Contexts().Overwritten(""); len(list) > 0 {
			t.Errorf("overwritten: %+v", list)
		}
	})
}
