package kv_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

var (
	tokenX = subjects.MustEncode("x")
	rootX  = subjects.ContextRoot(tokenX)
)

// past is a context as apps write it, and what it was at each sequence.
type past struct {
	t      testing.TB
	b      *kv.Bucket
	nc     *nats.Conn
	random *rand.Rand
	n      int
	live   *kv.Tree
	states []string // by sequence
	times  []time.Time
}

func newPast(t testing.TB, b *kv.Bucket, nc *nats.Conn, seed uint64) *past {
	t.Helper()
	p := &past{t: t, b: b, nc: nc, random: rand.New(rand.NewPCG(seed, 1)), live: kv.NewTree(tokenX), states: []string{"none"}}
	p.times = []time.Time{{}}
	return p
}

func textOf(t testing.TB, tree *kv.Tree) string {
	t.Helper()
	if !tree.Exists() {
		return "none"
	}
	s, err := wire.Canonical(tree.View().Payload())
	if err != nil {
		t.Fatal(err)
	}
	return string(s)
}

// note notes what writes have made of the context. What was inside of a batch is as it
// was before.
func (p *past) note(first uint64, entries []kv.Entry) {
	p.t.Helper()
	before := p.states[len(p.states)-1]
	for uint64(len(p.states)) < first { // somebody else's
		p.states, p.times = append(p.states, before), append(p.times, time.Time{})
	}
	if uint64(len(p.states)) != first {
		p.t.Fatalf("sequence %d after %d", first, len(p.states)-1)
	}
	p.live.Apply(entries, nil)
	for range entries {
		p.states, p.times = append(p.states, before), append(p.times, time.Time{})
	}
	p.states[len(p.states)-1] = textOf(p.t, p.live)
	p.times[len(p.times)-1] = time.Now()
}

func (p *past) snapshot() (*kv.Tree, uint64) {
	p.t.Helper()
	s, err := p.b.Snapshot(p.t.Context(), subjects.ContextKeys(tokenX))
	if err != nil {
		p.t.Fatal(err)
	}
	tree, _ := s.Tree(tokenX)
	return tree, s.UpTo
}

// commit is what a node does: it waits for the history before it takes something away.
func (p *past) commit(writes []kv.Write) {
	p.t.Helper()
	if len(writes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	if err := p.b.History().Await(ctx, kv.Purged(writes)); err != nil {
		p.t.Fatal(err)
	}
	p.n++
	id := fmt.Sprint("op", p.n)
	first, err := p.b.Commit(ctx, id, writes)
	if err != nil {
		p.t.Fatal(err)
	}
	p.note(first, kv.Entries(id, first, writes))
}

// foreign is a write of a plain NATS client.
func (p *past) foreign(key subjects.Key, body string, header nats.Header) {
	p.t.Helper()
	js := stream(p.t, p.nc)
	ack, err := js.PublishMsg(p.t.Context(), &nats.Msg{Subject: string(realm.ContextBucket().Subject(key)), Data: []byte(body), Header: header})
	if err != nil {
		p.t.Fatal(err)
	}
	e := kv.Entry{Key: key, Value: []byte(body), Seq: ack.Sequence, Format: wire.JSON}
	switch header.Get("KV-Operation") {
	case "DEL":
		e.Op = kv.Delete
	case "PURGE":
		e.Op = kv.Purge
	}
	p.note(ack.Sequence, []kv.Entry{e})
}

func (p *past) value(text string) *kv.Value {
	p.t.Helper()
	v, err := kv.ParseValue(wire.Payload{Format: wire.JSON, Data: []byte(text)})
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func (p *past) edit() kv.Edit {
	p.n++
	e := kv.Edit{By: "@a", Path: [][]string{{"a"}, {"b"}, {"a", "a"}, {"b", "c"}, {"l"}}[p.random.IntN(5)]}
	if p.random.IntN(4) > 0 {
		e.Value = p.value(fmt.Sprintf([]string{`%d`, `{"a":%d}`, `[%d,1]`}[p.random.IntN(3)], p.n))
	}
	return e
}

// step does something, sometimes to another context.
func (p *past) step() {
	p.t.Helper()
	tree, upTo := p.snapshot()
	plan := func(writes []kv.Write, err error) {
		p.t.Helper()
		if err != nil {
			p.t.Fatal(err)
		}
		p.commit(writes)
	}
	switch n := p.random.IntN(20); {
	case n == 0 && tree.Exists():
		p.commit(tree.Destruction("@a"))
	case n <= 2 || !tree.Exists():
		plan(tree.Plan([]kv.Edit{{Value: p.value(fmt.Sprintf(`{"n":%d}`, p.n)), By: "@a"}}))
	case n == 3:
		p.commit(tree.Compaction(kv.MaxBatch, "@a"))
	case n == 4:
		p.commit(tree.Compaction(2, "@a"))
	case n == 5:
		p.commit(tree.Checkpoint("@a", upTo))
	case n <= 8:
		plan(tree.Rewrite([]kv.Edit{{Path: []string{"l"}, Value: p.value(fmt.Sprint("[", p.n, "]")), By: "@a"}}))
	case n == 9:
		p.foreign(subjects.Key("x.a"), `"foreign"`, nil)
	case n == 10:
		p.foreign(subjects.Key("x.b"), "", nats.Header{"KV-Operation": {"DEL"}})
	case n == 11:
		p.foreign(subjects.Key("other.k"), `{`, nats.Header{"Weft-Time": {"9999-01-01T00:00:00Z"}, "Weft-Who": {"a.b"}, "Weft-Op": {"op"}, "Weft-Read": {"-1"}})
	case n == 12:
		if _, err := stream(p.t, p.nc).Publish(p.t.Context(), "$KV.weft_desk_ctx.x.no@key", nil); err != nil {
			p.t.Fatal(err)
		}
	default:
		edits := []kv.Edit{p.edit()}
		if p.random.IntN(2) == 0 {
			edits = append(edits, p.edit())
		}
		if tree.NeedsSnapshot(edits) {
			plan(tree.Rewrite(edits))
			return
		}
		writes, err := tree.Plan(edits)
		if err == nil {
			p.commit(writes)
		}
	}
}

// check asks for every sequence that there was. Where the history may have holes, it
// need not know all.
func (p *past) check(holes bool) (unknown int) {
	p.t.Helper()
	h := p.b.History()
	for seq := range p.states {
		got, err := h.At(p.t.Context(), tokenX, uint64(seq))
		if holes && errors.Is(err, kv.ErrNotRecorded) {
			unknown++
			continue
		}
		if err != nil {
			p.t.Fatalf("at %d: %v", seq, err)
		}
		if text := textOf(p.t, got.Tree); text != p.states[seq] {
			p.t.Fatalf("at %d: got %s, want %s", seq, text, p.states[seq])
		}
	}
	return unknown
}

// contextBucket is a provisioned realm's context bucket.
func contextBucket(t testing.TB) (*hub, *kv.Bucket, *nats.Conn) {
	t.Helper()
	h := start(t, server.Options{JetStream: true, MaxPayload: 8 << 20})
	nc := h.conn(t)
	if err := kv.Provision(within(t, time.Minute), nc, realm, 1); err != nil {
		t.Fatal(err)
	}
	b := kv.Contexts(h.link(t), realm)
	if err := b.Verify(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	return h, b, nc
}

// TestPast: at every sequence the context is what all that was acknowledged up to it
// makes it, under compactions, rewrites, ends and new beginnings, and what hostile
// clients write; also when nothing of it is in the bucket any more, and after a restart.
func TestPast(t *testing.T) {
	for seed := range uint64(3) {
		bubble(t, func(t *testing.T) {
			h, b, nc := contextBucket(t)
			p := newPast(t, b, nc, seed)
			for range 60 {
				p.step()
				if p.random.IntN(4) == 0 {
					time.Sleep(time.Duration(p.random.IntN(5000)) * time.Millisecond)
				}
			}
			time.Sleep(20 * time.Minute) // the markers have run out
			p.check(false)
			for seq, at := range p.times {
				if at.IsZero() || p.times[min(seq+1, len(p.times)-1)].Sub(at) < time.Second {
					continue
				}
				got, err := b.History().AtTime(t.Context(), tokenX, at.Add(500*time.Millisecond))
				if err != nil {
					t.Fatalf("after %d: %v", seq, err)
				}
				if text := textOf(t, got.Tree); text != p.states[seq] {
					t.Fatalf("after %d at %s: at %d it was %s, want %s", seq, at, got.Sequence, text, p.states[seq])
				}
			}
			h.down()
			h.up(t)
			time.Sleep(time.Minute)
			for range 20 {
				p.step()
			}
			p.check(false)
		})
	}
}

// keepForever takes the age away from the history: the server's store compares the
// time of a bubble with that of the world, and would expire everything.
func keepForever(t testing.TB, nc *nats.Conn) {
	t.Helper()
	js := stream(t, nc)
	c := kv.HistoryConfig(realm, 1)
	c.MaxAge = 0
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// pauseHistory makes the history record nothing until the returned function is called.
func pauseHistory(t testing.TB, nc *nats.Conn) (resume func()) {
	t.Helper()
	js := stream(t, nc)
	s, err := js.Stream(t.Context(), "weft_desk_history")
	if err != nil {
		t.Fatal(err)
	}
	have := s.CachedInfo().Config
	without := have
	without.Sources = nil
	if _, err := js.UpdateStream(t.Context(), without); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if _, err := js.UpdateStream(t.Context(), have); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHole: what the history has not got is told, and never guessed.
func TestHole(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b, nc := contextBucket(t)
		keepForever(t, nc)
		time.Sleep(time.Second)
		p := newPast(t, b, nc, 1)
		put := func(path, value string) uint64 {
			t.Helper()
			tree, _ := p.snapshot()
			edits := []kv.Edit{{Value: p.value(value), By: "@a"}}
			if path != "" {
				edits[0].Path = strings.Split(path, ".")
			}
			writes, err := tree.Plan(edits)
			if err != nil {
				t.Fatal(err)
			}
			p.commit(writes)
			return uint64(len(p.states) - 1)
		}
		put("", `{}`)
		before := put("a", `1`)
		put("b", `1`)
		h := b.History()
		if err := h.Await(within(t, time.Minute), before+1); err != nil {
			t.Fatal(err)
		}
		resume := pauseHistory(t, nc)
		lost := put("a", `2`)
		p.foreign("x.a", "", nats.Header{"KV-Operation": {"PURGE"}, "Nats-Rollup": {"sub"}})
		after := put("a", `3`)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := h.Await(ctx, lost); !errors.Is(err, kv.ErrNotRecorded) || !errors.Is(err, wire.ErrUnavailable) {
			t.Errorf("while it is not recorded: %v", err)
		}
		cancel()
		want := func(seq uint64, known bool) {
			t.Helper()
			got, err := h.At(t.Context(), tokenX, seq)
			switch {
			case !known && !errors.Is(err, kv.ErrNotRecorded):
				t.Errorf("at %d: %v, %v", seq, got, err)
			case known && err != nil:
				t.Errorf("at %d: %v", seq, err)
			case known && textOf(t, got.Tree) != p.states[seq]:
				t.Errorf("at %d: got %s, want %s", seq, textOf(t, got.Tree), p.states[seq])
			}
		}
		want(before, true)
		want(lost, false)
		want(after, true) // it is what is there now
		time.Sleep(5 * time.Second)
		resume()
		time.Sleep(time.Minute)
		last := put("b", `4`) // the present is another
		want(before, true)
		want(lost, false)
		want(lost+1, false)
		want(after, false) // whether something of b was lost is not known
		want(last, true)   // it was written after the hole
		w, err := h.Writes(t.Context(), tokenX, kv.Span{Limit: 100})
		if err != nil || len(w.Holes) != 1 || w.Holes[0].From != lost || w.Holes[0].To != lost || w.Holes[0].Missing != 1 || w.More {
			t.Errorf("got %+v, %v", w.Holes, err)
		}
		// A checkpoint holds everything from then on, and what was before it.
		tree, upTo := p.snapshot()
		p.commit(tree.Checkpoint("@a", upTo))
		put("b", `5`)
		want(last, true)
		want(after, false)
		want(uint64(len(p.states)-1), true)
	})
}

// TestHistoryKeeps: the history keeps what the bucket has lost, in its order, and no
// marker or time to live runs out in it. Messages that look like copies, or like the
// server's own, are as all others.
func TestHistoryKeeps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b, nc := contextBucket(t)
		p := newPast(t, b, nc, 1)
		time.Sleep(time.Second)
		for i := range 30 {
			p.foreign("x.a", fmt.Sprint(i), nats.Header{"Nats-TTL": {"1h"}, "Nats-Msg-Id": {fmt.Sprint("id", i)}, "Weft-Time": {"never"}, "Weft-Read": {"x"}})
			time.Sleep(time.Second)
		}
		p.foreign("x.a", "", nats.Header{"KV-Operation": {"PURGE"}, "Nats-Rollup": {"sub"}, "Nats-TTL": {"10m"}, "Nats-Sequence": {"7"}, "Nats-Subject": {"x"}})
		time.Sleep(3 * time.Minute)
		// The bucket takes an id again after two minutes, and so does the history.
		p.foreign("x.a", "30", nats.Header{"Nats-Msg-Id": {"id29"}})
		_, err := stream(t, nc).PublishMsg(t.Context(), &nats.Msg{Subject: "$KV.weft_desk_ctx.x.a", Header: nats.Header{"Nats-Stream-Source": {"KV_weft_desk_ctx 1 > > x"}}})
		if err == nil {
			t.Error("a client can say that it is the server")
		}
		time.Sleep(2 * time.Hour)
		if _, ok, err := b.Get(t.Context(), "x.a"); !ok || err != nil {
			t.Fatal(ok, err)
		}
		w, err := b.History().Writes(t.Context(), tokenX, kv.Span{Limit: 100})
		if err != nil || w.More || len(w.Holes) > 0 || len(w.Records) != 32 {
			t.Fatalf("%d records, holes %v, %v", len(w.Records), w.Holes, err)
		}
		for i := range w.Records {
			r := &w.Records[i]
			if r.Seq != uint64(i+1) || r.Key != "x.a" || i < 30 && string(r.Value) != fmt.Sprint(i) {
				t.Errorf("%d is %+v", i, r.Entry)
			}
		}
		if w.Records[30].Op != kv.Purge || string(w.Records[31].Value) != "30" {
			t.Errorf("the end is %+v", w.Records[30:])
		}
	})
}

// TestWho: what is said of the writer is one header, whatever is in it.
func TestWho(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b, nc := contextBucket(t)
		long := strings.Repeat("ü", 500)
		for i, who := range []kv.Who{{}, {Application: "blotter", User: "ann", Machine: "m1"}, {Application: "a.b c\r\nX: y", User: "", Machine: "ü"}, {Application: long, User: long, Machine: long}} {
			id := fmt.Sprint("id", i)
			if _, err := b.Commit(t.Context(), id, []kv.Write{{Key: rootX, Value: []byte{0x80}, By: "@a", Who: who}}); err != nil {
				t.Fatal(err)
			}
			e, ok, err := b.Get(t.Context(), rootX)
			if err != nil || !ok {
				t.Fatal(err)
			}
			want := who
			if len(want.Application) > 128 {
				want = kv.Who{Application: long[:128], User: long[:128], Machine: long[:128]}
			}
			if e.Who != want || e.WriteID != id {
				t.Errorf("got %+v, want %+v", e.Who, want)
			}
		}
		for _, header := range []string{"a", "a.b", "a.b.c.d", "=zz.b.c", "=FF.b.c", strings.Repeat("a", 2000) + ".b.c"} {
			p := newPast(t, b, nc, 1)
			if _, err := stream(t, nc).PublishMsg(t.Context(), &nats.Msg{Subject: "$KV.weft_desk_ctx.x./", Header: nats.Header{"Weft-Who": {header}}}); err != nil {
				t.Fatal(err)
			}
			e, _, err := p.b.Get(t.Context(), rootX)
			if err != nil || e.Who != (kv.Who{}) {
				t.Errorf("%q: got %+v, %v", header, e.Who, err)
			}
		}
	})
}

// TestProvisionHistory: the history is made with the buckets; what an operator chose
// stays, what would lose something is refused and mended.
func TestProvisionHistory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b, nc := contextBucket(t)
		js, ctx := stream(t, nc), within(t, time.Hour)
		const name = "weft_desk_history"
		s, err := js.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		c := s.CachedInfo().Config
		if c.MaxAge != kv.HistoryAge || c.AllowRollup || c.AllowMsgTTL || !c.DenyDelete || !c.DenyPurge || len(c.Subjects) > 0 || c.Storage != jetstream.FileStorage {
			t.Errorf("it is %+v", c)
		}
		c.MaxAge, c.MaxBytes, c.Metadata = time.Hour, 1<<30, map[string]string{"owner": "ann"}
		if _, err := js.UpdateStream(ctx, c); err != nil {
			t.Fatal(err)
		}
		if err := b.Verify(ctx); err != nil {
			t.Errorf("what an operator may choose: %v", err)
		}
		for option, spoil := range map[string]func(*jetstream.StreamConfig){
			"source":               func(c *jetstream.StreamConfig) { c.Sources = nil },
			"must source all":      func(c *jetstream.StreamConfig) { c.Sources[0].FilterSubject = "$KV.weft_desk_ctx.a.>" },
			"max_msgs is":          func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 },
			"max_msgs_per_subject": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 10 },
			"max_msg_size":         func(c *jetstream.StreamConfig) { c.MaxMsgSize = 10 },
			"discard":              func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardNew },
			"allow_direct":         func(c *jetstream.StreamConfig) { c.AllowDirect = false },
			"republish":            func(c *jetstream.StreamConfig) { c.RePublish = &jetstream.RePublish{Source: ">", Destination: "x.>"} },
		} {
			c := kv.HistoryConfig(realm, 1)
			c.MaxAge, c.MaxBytes = time.Hour, 1<<30
			spoil(&c)
			if _, err := js.UpdateStream(ctx, c); err != nil {
				t.Fatalf("%s: %v", option, err)
			}
			if err := b.Verify(ctx); !errors.Is(err, kv.ErrNotProvisioned) || !strings.Contains(err.Error(), option) || !strings.Contains(err.Error(), "weft admin provision desk") {
				t.Errorf("%s: got %v", option, err)
			}
			if err := kv.Provision(ctx, nc, realm, 1); err != nil {
				t.Fatalf("%s: %v", option, err)
			}
			if err := b.Verify(ctx); err != nil {
				t.Errorf("%s, mended: %v", option, err)
			}
		}
		s, err = js.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if c := s.CachedInfo().Config; c.MaxAge != time.Hour || c.MaxBytes != 1<<30 {
			t.Errorf("the operator's choice is lost: %+v", c)
		}
		if err := js.DeleteStream(ctx, name); err != nil {
			t.Fatal(err)
		}
		if err := b.Verify(ctx); !errors.Is(err, kv.ErrNotProvisioned) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "weft admin provision desk") {
			t.Errorf("missing: %v", err)
		}
	})
}
