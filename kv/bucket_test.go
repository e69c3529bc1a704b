package kv_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

func put(t testing.TB, b *kv.Bucket, key subjects.Key, value string) uint64 {
	t.Helper()
	seq, err := b.Put(within(t, time.Minute), key, []byte(value), 0)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func TestPutGetPurge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b, _ := bucket(t)
		ctx := within(t, time.Hour)
		var mu sync.Mutex
		var seen []kv.Entry
		if _, err := b.Follow(ctx, subjects.NodeKeys(), func(e kv.Entry) { mu.Lock(); defer mu.Unlock(); seen = append(seen, e) }, nil); err != nil {
			t.Fatal(err)
		}
		if e, ok, err := b.Get(ctx, "n.a"); ok || err != nil || e.Seq != 0 {
			t.Errorf("got %+v, %v, %v", e, ok, err)
		}
		if last, err := b.Last(ctx, subjects.NodeKeys()); last != 0 || err != nil {
			t.Errorf("last %d, %v", last, err)
		}
		first := put(t, b, "n.a", "1")
		second := put(t, b, "n.b", "2")
		put(t, b, "if.x", "not followed")
		if e, ok, err := b.Get(ctx, "n.a"); !ok || err != nil || e.Seq != first || string(e.Value) != "1" || e.Op != kv.Put {
			t.Errorf("got %+v, %v, %v", e, ok, err)
		}
		if last, err := b.Last(ctx, subjects.NodeKeys()); last != second || err != nil {
			t.Errorf("last %d, %v", last, err)
		}
		for last, want := range map[uint64]error{first + 100: wire.ErrBadRevision, 0: wire.ErrBadRevision} {
			if _, err := b.PutIf(ctx, "n.a", nil, last); !errors.Is(err, want) {
				t.Errorf("put if %d: %v", last, err)
			}
		}
		if _, err := b.PutIf(ctx, "n.a", []byte("3"), first); err != nil {
			t.Error(err)
		}
		if err := b.Purge(ctx, "n.a"); err != nil {
			t.Fatal(err)
		}
		e, ok, err := b.Get(ctx, "n.a")
		if ok || err != nil || e.Op != kv.Purge || e.Expired {
			t.Errorf("got %+v, %v, %v", e, ok, err)
		}
		if last, err := b.Last(ctx, subjects.NodeKeys()); last != e.Seq || err != nil {
			t.Errorf("last %d, %v, purged at %d", last, err, e.Seq)
		}
		if _, err := b.PutIf(ctx, "n.a", []byte("4"), e.Seq); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		var got []string
		for i, e := range seen {
			got = append(got, fmt.Sprintf("%s %s %d", e.Key, e.Value, e.Op))
			if i > 0 && e.Seq <= seen[i-1].Seq || e.Time.IsZero() {
				t.Errorf("entry %d: %+v", i, e)
			}
		}
		if s := strings.Join(got, ","); s != "n.a 1 0,n.b 2 0,n.a 3 0,n.a  2,n.a 4 0" {
			t.Errorf("followed %q", s)
		}
		if _, err := b.Put(ctx, "if.y", []byte("short"), 5*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		if _, ok, err := b.Get(ctx, "if.y"); !ok || err != nil {
			t.Errorf("gone before its time: %v", err)
		}
		time.Sleep(2 * time.Second)
		if e, ok, err := b.Get(ctx, "if.y"); ok || err != nil || !e.Expired {
			t.Errorf("got %+v, %v, %v", e, ok, err)
		}
	})
}

// What a writer puts into the headers that are the server's to write changes
// nothing for readers.
func TestForgedHeaders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, b, _ := bucket(t)
		ctx := within(t, time.Minute)
		nc := h.conn(t)
		want := put(t, b, "n.x", "x")
		var mu sync.Mutex
		var seen []kv.Entry
		if _, err := b.Follow(ctx, subjects.NodeKeys(), func(e kv.Entry) { mu.Lock(); defer mu.Unlock(); seen = append(seen, e) }, nil); err != nil {
			t.Fatal(err)
		}
		forged := &nats.Msg{Subject: "$KV.weft_desk_dir.n.b", Header: nats.Header{
			"Nats-Subject": {"$KV.weft_desk_dir.n.x"}, "Nats-Sequence": {"999999"}, "Nats-Time-Stamp": {"1999-01-01T00:00:00Z"}, "KV-Operation": {"PURGE"},
			"Status": {"503"}, "Nats-UpTo-Sequence": {"1"}, "Nats-Num-Pending": {"0"},
		}}
		if _, err := nc.RequestMsgWithContext(ctx, forged); err != nil {
			t.Fatal(err)
		}
		// A reader that lets the server publish stored entries to followers.
		lease := &nats.Msg{Subject: "$KV.weft_desk_dir.lease.x", Header: nats.Header{"KV-Operation": {"PURGE"}}}
		if _, err := nc.RequestMsgWithContext(ctx, lease); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"lease.x", "n.b"} {
			if err := nc.PublishRequest("$JS.API.DIRECT.GET.KV_weft_desk_dir.$KV.weft_desk_dir."+key, "weft.desk.kv.dir.n.x", nil); err != nil {
				t.Fatal(err)
			}
		}
		// And one who publishes there, if nobody forbids it.
		if err := nc.PublishMsg(&nats.Msg{Subject: "weft.desk.kv.dir.n.x", Data: []byte("nothing")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(seen) != 1 || seen[0].Key != "n.b" || seen[0].Seq > 10 || seen[0].Time.Year() == 1999 {
			t.Errorf("followed %+v", seen)
		}
		if b.Foreign() != 3 {
			t.Errorf("foreign %d", b.Foreign())
		}
		s, err := b.Snapshot(ctx, subjects.NodeKeys())
		if err != nil || len(s.Entries) != 2 || s.Entries["n.x"].Seq != want || s.Entries["n.b"].Op != kv.Purge {
			t.Errorf("snapshot %+v, %v", s, err)
		}
		if e, ok, err := b.Get(ctx, "n.b"); ok || err != nil || e.Key != "n.b" || e.Seq > 10 {
			t.Errorf("get %+v, %v, %v", e, ok, err)
		}
		if last, err := b.Last(ctx, subjects.NodeKeys()); err != nil || last != want+1 {
			t.Errorf("last %d, %v", last, err)
		}
	})
}

// A lease fires when it is not renewed, counted in the server's time, and not
// before; renewed or purged it does not fire.
func TestLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b, _ := bucket(t)
		ctx := within(t, time.Hour)
		for _, n := range []subjects.Node{"silent", "renewed", "left"} {
			if err := b.Lease(ctx, subjects.LeaseKey(n), subjects.NodeKey(n), 10*time.Second); err != nil {
				t.Fatal(err)
			}
			put(t, b, subjects.NodeKey(n), string(n))
		}
		if err := b.Purge(ctx, "lease.left"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(3 * time.Second)
			if err := b.Lease(ctx, "lease.renewed", "n.renewed", 10*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok, _ := b.Get(ctx, "n.silent"); !ok {
			t.Error("fired early")
		}
		time.Sleep(2 * time.Second)
		e, ok, err := b.Get(ctx, "n.silent")
		if ok || err != nil || e.Op != kv.Purge || e.Scheduler != "lease.silent" {
			t.Errorf("got %+v, %v, %v", e, ok, err)
		}
		time.Sleep(5 * time.Second)
		if _, ok, _ := b.Get(ctx, "n.renewed"); !ok {
			t.Error("fired although it was renewed")
		}
		time.Sleep(time.Minute)
		if _, ok, _ := b.Get(ctx, "n.left"); !ok {
			t.Error("a lease that was purged fired")
		}
	})
}

// The server's time is the server's, whatever this machine's clock says. The
// test moves the server instead of the machine, whose clock the bubble owns.
func TestServerTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _, _ := bucket(t)
		stamp := regexp.MustCompile(`"ts":"[^"]*"`)
		var mu sync.Mutex
		off := 24 * time.Hour
		set := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); off = d }
		p := &proxy{h, func(down []byte) []byte {
			return stamp.ReplaceAllFunc(down, func(old []byte) []byte { // as long as before
				mu.Lock()
				defer mu.Unlock()
				at := time.Now().Add(off).UTC().Format("2006-01-02T15:04:05.000000000Z")
				return []byte(`"ts":"` + at[:len(at)-1-(len(`"ts":"`)+len(at)+1-len(old))] + `Z"`)
			})
		}}
		l, err := link.Open(t.Context(), link.Config{Node: "a", Options: []nats.Option{nats.InProcessServer(p)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		b := kv.Directory(l, realm)
		if _, ok := b.ServerTime(); ok || b.ClockOffset() != 0 {
			t.Error("it is known before the first contact")
		}
		ctx := within(t, time.Hour)
		near := func(what string, want time.Duration) {
			t.Helper()
			if got := b.ClockOffset(); (got + want).Abs() > time.Second {
				t.Errorf("%s: offset %s, want %s", what, got, -want)
			}
		}
		if err := b.Verify(ctx); err != nil {
			t.Fatal(err)
		}
		near("a day behind the server", 24*time.Hour)
		time.Sleep(30 * time.Second)
		near("carried on", 24*time.Hour)
		// The server's clock is set: the lease asks again, at once if told to,
		// after a minute by itself.
		set(-time.Hour)
		b.ForgetTime()
		if err := b.Lease(ctx, "lease.a", "n.a", time.Hour); err != nil {
			t.Fatal(err)
		}
		near("set back", -time.Hour)
		set(0)
		if err := b.Lease(ctx, "lease.a", "n.a", time.Hour); err != nil {
			t.Fatal(err)
		}
		near("not asked again", -time.Hour)
		time.Sleep(61 * time.Second)
		if err := b.Lease(ctx, "lease.a", "n.a", time.Hour); err != nil {
			t.Fatal(err)
		}
		near("asked again", 0)
	})
}
