package kv_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const ctxStream = "KV_weft_desk_ctx"

// desk is a realm on a server whose store a test damages, and a replica of one context.
type desk struct {
	t       *testing.T
	hub     *hub
	admin   jetstream.JetStream
	link    *link.Link
	bucket  *kv.Bucket
	alarms  *alarm.Set
	log     *buffer
	replica *kv.Replica
	awake   atomic.Pointer[kv.Replica] // is told of the connection

	mu   sync.Mutex
	tree *kv.Tree
}

// buffer is a log.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Split(strings.TrimSpace(b.b.String()), "\n")
}

// newDesk is a realm with its history, or without.
func newDesk(t *testing.T, history bool) *desk {
	t.Helper()
	d := &desk{t: t, hub: start(t, server.Options{JetStream: true, MaxPayload: 8 << 20, ServerName: "s1"}), tree: kv.NewTree(client), log: &buffer{}}
	nc := d.hub.conn(t, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err := kv.Provision(within(t, time.Minute), nc, realm, 1); err != nil {
		t.Fatal(err)
	}
	d.admin = stream(t, nc)
	if !history {
		if err := d.admin.DeleteStream(t.Context(), string(realm.HistoryStream())); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	d.link, err = link.Open(t.Context(), link.Config{Node: "a", Options: []nats.Option{nats.InProcessServer(d.hub)}, OnState: func(s link.State) {
		if r := d.awake.Load(); r != nil {
			r.Wake(s.Online)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.link.Close)
	log := slog.New(slog.NewTextHandler(d.log, nil))
	d.alarms = alarm.New(log)
	d.bucket = kv.Contexts(d.link, realm)
	d.bucket.Report(d.alarms)
	d.replica = d.bucket.Replicate([]subjects.Key{subjects.ContextKeys(client)}, true, log, d.update)
	following := d.replica
	t.Cleanup(following.Close)
	d.awake.Store(d.replica)
	<-d.replica.Ready()
	return d
}

func (d *desk) update(u kv.Update) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tree.Apply(u.Entries, u.Removed)
}

// away puts a replica in the place of the present one that knows as much, and learns
// nothing until it is told to read.
func (d *desk) away() {
	d.t.Helper()
	d.awake.Store(nil)
	d.replica.Close()
	d.tree = kv.NewTree(client)
	d.replica = kv.NewStillReplica(d.bucket, subjects.ContextKeys(client), true, d.update)
	d.replica.Read(d.t.Context(), true)
}

func (d *desk) view() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tree.View() == nil {
		return "none"
	}
	return canonical(d.t, d.tree.View())
}

// set puts JSON at a path, as another node does.
func (d *desk) set(path, json string) uint64 {
	d.t.Helper()
	var segments []string
	if path != "" {
		segments = strings.Split(path, ".")
	}
	key, _ := subjects.ContextPath(client, segments)
	seq, err := d.bucket.Commit(d.t.Context(), "set-"+path+json, []kv.Write{{Key: key, Value: []byte(json), Format: wire.JSON, By: "app@b"}})
	if err != nil {
		d.t.Fatal(err)
	}
	synctest.Wait()
	return seq
}

// lose makes the stream forget a key without a trace, as a damaged store does.
func (d *desk) lose(key subjects.Key) {
	d.t.Helper()
	s, err := d.admin.Stream(d.t.Context(), ctxStream)
	if err == nil {
		err = s.Purge(d.t.Context(), jetstream.WithPurgeSubject("$KV.weft_desk_ctx."+string(key)))
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// restart stops the server, lets a test change its store, and starts it again.
func (d *desk) restart(change func()) {
	d.t.Helper()
	d.hub.down()
	if change != nil {
		change()
	}
	d.hub.up(d.t)
	time.Sleep(3 * time.Second) // links come back
}

// cut takes the newest bytes away from the stream's newest block.
func (d *desk) cut(bytes int64) {
	d.t.Helper()
	msgs := filepath.Join(d.hub.opts.StoreDir, "jetstream", "$G", "streams", ctxStream, "msgs")
	blocks, err := filepath.Glob(filepath.Join(msgs, "*.blk"))
	if err != nil || len(blocks) == 0 {
		d.t.Fatal("no blocks", err)
	}
	block := slices.Max(blocks)
	info, err := os.Stat(block)
	if err == nil {
		err = os.Truncate(block, info.Size()-bytes)
	}
	if err == nil {
		err = os.Remove(filepath.Join(msgs, "index.db"))
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) last() uint64 {
	d.t.Helper()
	s, err := d.admin.Stream(d.t.Context(), ctxStream)
	if err != nil {
		d.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

func (d *desk) want(view string) {
	d.t.Helper()
	if got := d.view(); got != view {
		d.t.Errorf("the replica has %s, want %s", got, view)
	}
}

// raised wants one alarm, which names the stream and the server.
func (d *desk) raised(kind alarm.Kind) {
	d.t.Helper()
	list := d.alarms.Active()
	if len(list) != 1 || list[0].Kind != kind || list[0].Stream != ctxStream || list[0].Server != "s1" {
		d.t.Fatalf("alarms %+v, want one %s of stream %s on s1", list, kind, ctxStream)
	}
}

func (d *desk) quiet() {
	d.t.Helper()
	if list := d.alarms.Active(); len(list) > 0 {
		d.t.Errorf("alarms: %+v", list)
	}
}

// TestNotFoundIsNotRemoved: keys that the stream has lost stay, with an alarm that is
// one line in the log, until somebody writes them again.
func TestNotFoundIsNotRemoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t, true)
		d.set("", `{"r":1}`)
		d.set("a", `1`)
		d.set("b", `2`)
		d.set("b.c", `3`)
		const full = `{"a":1,"b":{"c":3},"r":1}`
		d.want(full)
		for _, key := range []subjects.Key{"client.a", "client.b.c"} {
			d.lose(key)
		}
		d.replica.Refresh("test")
		time.Sleep(time.Minute)
		d.want(full)
		d.raised(alarm.KeysMissing)
		time.Sleep(time.Hour)
		d.want(full)
		d.raised(alarm.KeysMissing)
		if lines := d.log.lines(); len(lines) != 1 {
			t.Errorf("%d lines in the log: %q", len(lines), lines)
		}
		d.set("a", `7`)
		d.set("b", `8`) // and nothing below b shows
		time.Sleep(time.Minute)
		d.want(`{"a":7,"b":8,"r":1}`)
		d.quiet()
		if lines := d.log.lines(); len(lines) != 2 {
			t.Errorf("%d lines in the log: %q", len(lines), lines)
		}
	})
}

// TestRemovalIsProven: what was removed while nobody looked, and has left no marker in
// the bucket any more, is known by the history.
func TestRemovalIsProven(t *testing.T) {
	for name, history := range map[string]bool{"history": true, "no history": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				d := newDesk(t, history)
				d.set("", `{"r":1}`)
				d.set("a", `1`)
				d.away()
				tree := fresh(t, d.bucket)
				if _, err := d.bucket.Commit(t.Context(), "end", tree.Destruction("app@b")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(kv.AwayFor)
				d.replica.Read(t.Context(), true)
				if history {
					d.want("none")
					d.quiet()
				} else {
					d.want(`{"a":1,"r":1}`)
					d.raised(alarm.KeysMissing)
				}
			})
		})
	}
}

// TestTailLost: a server that comes back without its last writes is followed from what
// it has left, and what it has lost is told.
func TestTailLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t, false)
		d.set("", `{"r":1}`)
		d.set("a", `1`)
		for _, v := range []string{"2", "3", "4"} {
			d.set("a", v)
			d.set("b", v)
		}
		before := d.last()
		d.restart(func() { d.cut(150) })
		after := d.last()
		if after >= before || after < 3 {
			t.Fatalf("the server has %d of %d writes: the fault did not happen", after, before)
		}
		if d.view() != `{"a":4,"b":4,"r":1}` {
			t.Error("taken back before it is sure:", d.view())
		}
		time.Sleep(20 * time.Second)
		if got, want := d.view(), canonical(t, fresh(t, d.bucket).View()); got != want || strings.Contains(got, `"b":4`) {
			t.Errorf("the replica has %s, a fresh reader %s", got, want)
		}
		d.raised(alarm.TailLost)
		// The new writes have sequences that the replica has seen already.
		if seq := d.set("c", `9`); seq > before {
			t.Fatalf("sequence %d", seq)
		}
		d.set("a", `9`)
		if got, want := d.view(), canonical(t, fresh(t, d.bucket).View()); got != want || !strings.Contains(got, `"c":9`) || !strings.Contains(got, `"a":9`) {
			t.Errorf("the replica has %s, a fresh reader %s", got, want)
		}
		time.Sleep(time.Hour)
		d.raised(alarm.TailLost)
		if n := len(slices.DeleteFunc(d.log.lines(), func(l string) bool { return !strings.Contains(l, "level=ERROR") })); n != 2 { // the alarm, and which keys
			t.Errorf("%d errors in the log: %q", n, d.log.lines())
		}
	})
}

// TestTailLostWhileAway: the sequences that were lost have other writes by the time
// that the replica comes back.
func TestTailLostWhileAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t, false)
		d.set("", `{"r":1}`)
		for _, v := range []string{"2", "3", "4"} {
			d.set("a", v)
			d.set("b", v)
		}
		before := d.last()
		d.away()
		d.restart(func() { d.cut(150) })
		if after := d.last(); after >= before || after < 3 {
			t.Fatalf("the server has %d of %d writes: the fault did not happen", after, before)
		}
		other := kv.Contexts(d.link, realm)
		for d.last() <= before+2 {
			key, _ := subjects.ContextPath(client, []string{"x"})
			if _, err := other.Commit(t.Context(), time.Now().String(), []kv.Write{{Key: key, Value: []byte("5"), Format: wire.JSON}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		d.replica.Read(t.Context(), true)
		if got, want := d.view(), canonical(t, fresh(t, d.bucket).View()); got != want || !strings.Contains(got, `"x":5`) || strings.Contains(got, `"b":4`) {
			t.Errorf("the replica has %s, a fresh reader %s", got, want)
		}
		d.raised(alarm.TailLost)
	})
}

// TestShortAnswersAreAnAlarm: nothing is shown of a replica that answers with less than
// the leader has, there is an alarm within a minute, and it is over when the replica is
// mended.
func TestShortAnswersAreAnAlarm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		good := newDesk(t, false)
		good.set("", `{"r":1}`)
		good.set("a", `1`)
		good.set("b", `2`)
		var damaged atomic.Bool
		damaged.Store(true)
		p := &proxy{good.hub, func(down []byte) []byte {
			if damaged.Load() && bytes.HasPrefix(down, []byte("Nats-Subject: $KV.weft_desk_ctx.client.b")) {
				return bytes.Replace(down, []byte("client.b"), []byte("client.a"), 1)
			}
			return down
		}}
		l, err := link.Open(t.Context(), link.Config{Node: "a", Options: []nats.Option{nats.InProcessServer(p)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		log := &buffer{}
		alarms := alarm.New(slog.New(slog.NewTextHandler(log, nil)))
		b := kv.Contexts(l, realm)
		b.Report(alarms)
		started := time.Now()
		r := b.Replicate([]subjects.Key{subjects.ContextKeys(client)}, true, nil, func(u kv.Update) {
			if damaged.Load() {
				t.Errorf("shown: %+v", u)
			}
		})
		defer r.Close()
		for len(alarms.Active()) == 0 && time.Since(started) < time.Minute {
			time.Sleep(time.Second)
		}
		if list := alarms.Active(); len(list) != 1 || list[0].Kind != alarm.ReplicaDamaged || list[0].Stream != ctxStream || list[0].Server != "s1" {
			t.Errorf("after %s: %+v", time.Since(started), list)
		}
		time.Sleep(10 * time.Minute)
		if n := len(log.lines()); n != 1 {
			t.Errorf("%d lines in the log", n)
		}
		damaged.Store(false)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		select {
		case <-r.Ready():
		case <-ctx.Done():
			t.Error("not read after the replica was mended")
		}
		if list := alarms.Active(); len(list) > 0 {
			t.Errorf("still there: %+v", list)
		}
	})
}

// TestAnswerer names the server that did not pass a request on.
func TestAnswerer(t *testing.T) {
	const (
		near    = `{"server":{"name":"s1"},"events":[{"type":"in","kind":0}]}`
		passes  = `{"server":{"name":"s1"},"hops":1,"events":[{"type":"in","kind":0},{"type":"eg","kind":1,"name":"s2"}]}`
		both    = `{"server":{"name":"s1"},"hops":2,"events":[{"type":"in","kind":0},{"type":"eg","kind":1,"name":"s2"},{"type":"eg","kind":1,"name":"s3"}]}`
		far     = `{"server":{"name":"s2"},"events":[{"type":"in","kind":1,"name":"s1"}]}`
		further = `{"server":{"name":"s3"},"events":[{"type":"in","kind":1,"name":"s1"},{"type":"eg","kind":0}]}`
		leaf    = `{"server":{"name":"l1"},"hops":1,"events":[{"type":"in","kind":0},{"type":"eg","kind":4,"name":"s1"}]}`
		tapped  = `{"server":{"name":"s1"},"events":[{"type":"in","kind":0},{"type":"eg","kind":0,"name":"tap"}]}`
	)
	for name, c := range map[string]struct {
		events []string
		want   string
	}{
		"near":          {[]string{near}, "s1"},
		"near, tapped":  {[]string{tapped}, "s1"},
		"far":           {[]string{passes, far}, "s2"},
		"far first":     {[]string{far, passes}, "s2"},
		"over a leaf":   {[]string{leaf, near}, "s1"},
		"two take it":   {[]string{both, far, further}, ""},
		"one is late":   {[]string{passes}, ""},
		"nobody tells":  {nil, ""},
		"something odd": {[]string{"{"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := kv.Answerer(c.events); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
}
