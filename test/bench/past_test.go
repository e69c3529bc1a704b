package bench_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
)

// TestPastAfterBusyDay: after a day of writes to 500 contexts, what one of them was at
// any moment of it is told in less than a second, also right after a restart.
func TestPastAfterBusyDay(t *testing.T) {
	const contexts = 500
	store := t.TempDir()
	cfg := node.Config{Realm: "desk", Node: "a", Store: store, NoSync: true}
	n, err := node.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	fill(t, n, contexts)
	t.Logf("%d writes are loaded and recorded after %s", dayWrites, time.Since(began))
	ask := func(name string) {
		t.Helper()
		app, err := n.Join(t.Context(), node.Identity{Application: "auditor"})
		if err != nil {
			t.Fatal(err)
		}
		defer app.Leave()
		var took []time.Duration
		for i := range 40 {
			context, at := fmt.Sprint("client-", i*11%contexts), uint64(dayWrites/40*(i+1))
			began := time.Now()
			p, err := app.Contexts().At(t.Context(), context, at)
			took = append(took, time.Since(began))
			if err != nil || !p.Exists || p.Revision > at || p.Revision+2*contexts < at {
				t.Errorf("%s at %d: revision %d, %v", context, at, p.Revision, err)
			}
		}
		first := took[0]
		slices.Sort(took)
		t.Logf("%s: the first %s, median %s, worst %s", name, first, took[20], took[39])
		if took[39] > time.Second {
			t.Errorf("%s: %s", name, took[39])
		}
	}
	ask("warm")
	n.Stop()
	if n, err = node.Start(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	defer n.Stop()
	ask("after a restart")
}

// fill writes to contexts one after the other, as any NATS client can; a tenth of the
// paths of each are new every tenth of the day.
func fill(t *testing.T, n *node.Node, contexts int) {
	t.Helper()
	nc, err := nats.Connect("", n.Embedded().ConnectOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		t.Fatal(err)
	}
	bucket := subjects.Realm("desk").ContextBucket()
	put := func(key subjects.Key, value string, id int) {
		t.Helper()
		msg := &nats.Msg{Subject: string(bucket.Subject(key)), Data: []byte(value), Header: nats.Header{
			"Weft-By": {"abcdefghijklm-1@host-user"}, "Weft-Who": {"blotter.alice.0123456789ab"}, "Nats-Msg-Id": {fmt.Sprint(id)},
			"Weft-Time": {time.Now().UTC().Format(time.RFC3339Nano)},
		}}
		if _, err := js.PublishMsgAsync(msg, jetstream.WithStallWait(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	value := fmt.Sprintf(`"%0100d"`, 7)
	for i := range dayWrites {
		token := subjects.MustEncode(fmt.Sprint("client-", i%contexts))
		if i < contexts {
			put(subjects.ContextRoot(token), "{}", i)
			continue
		}
		key, _ := subjects.ContextPath(token, []string{fmt.Sprint("k", i/contexts%20+i*10/dayWrites*3)})
		put(key, value, i)
	}
	<-js.PublishAsyncComplete()
	app, err := n.Join(t.Context(), node.Identity{Application: "loader"})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Leave()
	for end := time.Now().Add(time.Minute); ; {
		_, err := app.Contexts().At(t.Context(), "client-0", dayWrites)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
