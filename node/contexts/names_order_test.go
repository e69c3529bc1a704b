package contexts

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// TestNamesInAnyOrder gives the names what two nodes write in every order in which roots
// and metadata can come that keeps the order of each: a context is never without its
// metadata, and the ends are the same.
func TestNamesInAnyOrder(t *testing.T) {
	var seq uint64
	entry := func(batch uint64, meta bool, op kv.Operation, id string) kv.Entry {
		token := subjects.MustEncode("x")
		e := kv.Entry{Key: subjects.ContextRoot(token), Op: op, WriteID: "w", Batch: "b", BatchSeq: batch, By: "boot-1@n"}
		if meta {
			e.Key = subjects.ContextMeta(token)
			var err error
			if e.Value, err = wire.Marshal(Meta{ID: id, Lifetime: RefCounted}); err != nil {
				t.Fatal(err)
			}
		}
		if op == kv.Purge {
			e.Compact, e.Value = 1, nil
		}
		seq++
		e.Seq = seq
		return e
	}
	set := func() kv.Entry {
		e := entry(0, false, kv.Put, "")
		e.Batch = ""
		return e
	}
	var all []kv.Entry
	for i := range 3 {
		all = append(all, entry(1, true, kv.Put, fmt.Sprint("id", i)), entry(2, false, kv.Put, ""), set())
		if i < 2 {
			all = append(all, entry(1, true, kv.Purge, ""), entry(2, false, kv.Purge, ""))
		}
		if i == 0 { // and one without metadata
			all = append(all, set(), entry(1, false, kv.Purge, ""))
		}
	}
	var metas, roots []kv.Entry
	for _, e := range all {
		if k, _ := e.Key.Context(); k.Meta {
			metas = append(metas, e)
		} else {
			roots = append(roots, e)
		}
	}
	orders := 0
	var try func(order []kv.Entry, metas, roots []kv.Entry)
	try = func(order []kv.Entry, metas, roots []kv.Entry) {
		if len(metas) == 0 && len(roots) == 0 {
			orders++
			inOrder(t, order)
			return
		}
		if len(metas) > 0 {
			try(append(slices.Clip(order), metas[0]), metas[1:], roots)
		}
		if len(roots) > 0 {
			try(append(slices.Clip(order), roots[0]), metas, roots[1:])
		}
	}
	try(nil, metas, roots)
	if orders < 1000 {
		t.Errorf("only %d orders", orders)
	}
}

func inOrder(t *testing.T, order []kv.Entry) {
	n := &names{
		locals: &locals{}, outages: &outages{},
		replica: &kv.Replica{}, count: &atomic.Int64{}, exist: map[subjects.Token]named{}, metas: map[subjects.Token]metadata{},
		gone: map[subjects.Token]gone{}, held: map[subjects.Token]kv.Entry{}, changed: make(chan struct{}), ready: true,
	}
	seen := map[subjects.Token]named{}
	var events []string
	for _, e := range order {
		n.update(kv.Update{Entries: []kv.Entry{e}})
		for _, ev := range n.since(seen) {
			events = append(events, ev.Kind.String()+" "+ev.Meta.ID)
		}
	}
	// Each that was seen is seen to end, and none is taken for another.
	ids, next := []string{"id0", "", "id1", "id2"}, 0
	for i, ev := range events {
		kind, id, _ := strings.Cut(ev, " ")
		for i%2 == 0 && next < len(ids) && ids[next] != id {
			next++
		}
		if next == len(ids) || ids[next] != id || kind != []string{"created", "destroyed"}[i%2] {
			t.Fatalf("%s: %q", describeOrder(order), events)
		}
		next += i % 2
	}
	if len(events)%2 == 0 {
		t.Fatalf("%s: %q", describeOrder(order), events)
	}
	if last := events[len(events)-1]; last != "created id2" || len(n.held) > 0 {
		t.Fatalf("%s: %q, %d wait", describeOrder(order), events, len(n.held))
	}
}

func describeOrder(order []kv.Entry) (s string) {
	for _, e := range order {
		s += fmt.Sprintf("%d:%s:%d ", e.Seq, e.Key, e.Op)
	}
	return s
}

// TestNamesForget: what is remembered of contexts that are gone is bounded.
func TestNamesForget(t *testing.T) {
	n := &names{
		locals: &locals{}, outages: &outages{},
		replica: &kv.Replica{}, count: &atomic.Int64{}, exist: map[subjects.Token]named{}, metas: map[subjects.Token]metadata{},
		gone: map[subjects.Token]gone{}, held: map[subjects.Token]kv.Entry{}, changed: make(chan struct{}), ready: true,
	}
	for i := range 5 * maxGone {
		token := subjects.MustEncode(fmt.Sprint("x", i))
		seq := uint64(4 * i)
		n.update(kv.Update{Entries: []kv.Entry{
			{Key: subjects.ContextMeta(token), Seq: seq + 1, Op: kv.Put, Value: []byte{0x80}},
			{Key: subjects.ContextRoot(token), Seq: seq + 2, Op: kv.Put, Value: []byte{0x80}},
			{Key: subjects.ContextMeta(token), Seq: seq + 3, Op: kv.Purge, Compact: 1},
			{Key: subjects.ContextRoot(token), Seq: seq + 4, Op: kv.Purge, Compact: 1},
		}})
	}
	if len(n.exist) > 0 || len(n.held) > 0 || len(n.gone) > maxGone || len(n.metas) > maxGone+1 {
		t.Errorf("%d exist, %d wait, %d are gone, %d have metadata", len(n.exist), len(n.held), len(n.gone), len(n.metas))
	}
}
