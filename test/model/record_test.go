package model_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/test/model"
)

const realm = subjects.Realm("model")

// TestFetchFromTheHistory: what nobody heard and the stream has not any more is read from
// its history, with the ends of its batches.
func TestFetchFromTheHistory(t *testing.T) {
	s, err := embedded.Start(t.Context(), embedded.Config{Listen: "127.0.0.1:0", Credentials: t.TempDir(), NoSync: true},
		func(ctx context.Context, nc *nats.Conn) error { return kv.Provision(ctx, nc, realm, 1) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	nc, err := nats.Connect(s.URL(), nats.UserInfo(s.Credentials().User, s.Credentials().Password))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	// Two of one operation, one of another, and a fourth that stays.
	for _, x := range []struct{ key, op string }{{"c.a", "1"}, {"c.b", "1"}, {"c.a", "2"}, {"c.z", "3"}} {
		m := &nats.Msg{Subject: "$KV.weft_model_ctx." + x.key, Data: []byte{1}, Header: nats.Header{"Weft-Op": {x.op}}}
		if _, err := js.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	rec := model.Record(t, realm, t.Errorf, nc)
	for copied := uint64(0); copied < 4; copied, _ = rec.Copied(t.Context()) {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the history does not record")
		}
	}
	if err := js.PurgeStream(rec.Stream, &nats.StreamPurgeRequest{Sequence: 4}); err != nil {
		t.Fatal(err)
	}
	fresh := model.Record(t, realm, t.Errorf, nc)
	missing := fresh.Missing(3)
	if len(missing) != 3 {
		t.Fatalf("missing %v", missing)
	}
	for fresh.Get(4) == nil {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the last one does not come")
		}
	}
	if err := fresh.Fetch(t.Context(), missing); err != nil {
		t.Fatal(err)
	}
	for i, end := range []bool{false, true, true, true} {
		if m := fresh.Get(uint64(i + 1)); m == nil || m.End != end {
			t.Errorf("%d: got %v, end %t", i+1, m, m != nil && m.End)
		}
	}
	if err := fresh.Fetch(t.Context(), []uint64{9}); err == nil {
		t.Error("got what was never written")
	}
}
