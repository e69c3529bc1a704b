package kv_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
)

// TestFence: what was made is found, also when it was purged since; what was not made
// cannot be any more, single or in a batch; and to ask again gives the same answer.
func TestFence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := contexts(t)
		x, _ := subjects.ContextPath(client, []string{"x"})
		y, _ := subjects.ContextPath(client, []string{"y"})
		commit := func(id string, writes ...kv.Write) (uint64, error) { return b.Commit(t.Context(), id, writes) }
		fence := func(id string, want uint64) {
			t.Helper()
			for range 3 {
				seq, made, err := b.Fence(t.Context(), "node", id, x)
				if err != nil || made != (want > 0) || made && seq != want {
					t.Errorf("%s: %d, %v, %v, want %d", id, seq, made, err, want)
				}
			}
		}
		if _, err := commit("root", kv.Write{Key: subjects.ContextRoot(client), Value: []byte{0x80}}); err != nil {
			t.Fatal(err)
		}
		one := kv.Write{Key: x, Value: []byte{1}}
		two := []kv.Write{{Key: x, Value: []byte{1}}, {Key: y, Value: []byte{2}}}
		first, err := commit("made", two...)
		if err != nil {
			t.Fatal(err)
		}
		fence("made", first)
		if err := b.History().Await(t.Context(), first+1); err != nil { // as who compacts does
			t.Fatal(err)
		}
		if _, err := commit("compaction", fresh(t, b).Compaction(kv.MaxBatch, "other")...); err != nil {
			t.Fatal(err)
		}
		fence("made", first)
		fence("single", 0)
		fence("batch", 0)
		for i := range 50 { // of other contexts of the node
			fence(strconv.Itoa(i), 0)
		}
		fence("single", 0)
		fence("made", first)
		defer func() { // nothing of them stays
			time.Sleep(11 * time.Minute)
			if seq, err := b.Last(t.Context(), "=.fence.>"); seq != 0 || err != nil {
				t.Errorf("a fence is left: %d, %v", seq, err)
			}
		}()
		last, err := b.Last(t.Context(), subjects.ContextKeys(client))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = commit("single", one) // late: what counts is that nothing is written
		_, _ = commit("batch", two...)
		if now, err := b.Last(t.Context(), subjects.ContextKeys(client)); now != last || err != nil {
			t.Errorf("written after the fence: %d, %v, want %d", now, err, last)
		}
	})
}
