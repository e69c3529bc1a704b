package kv_test

import (
	"testing"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
)

// TestCommitAgainAfterCompaction: a batch whose acknowledgement was lost is known
// although a compaction has purged all of its keys since.
func TestCommitAgainAfterCompaction(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := contexts(t)
		x, _ := subjects.ContextPath(client, []string{"x"})
		y, _ := subjects.ContextPath(client, []string{"y"})
		root := kv.Write{Key: subjects.ContextRoot(client), Value: []byte{0x80}}
		if _, err := b.Commit(t.Context(), "root", []kv.Write{root}); err != nil {
			t.Fatal(err)
		}
		writes := []kv.Write{{Key: x, Value: []byte{1}}, {Key: y, Value: []byte{2}}}
		first, err := b.Commit(t.Context(), "op", writes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Commit(t.Context(), "compaction", fresh(t, b).Compaction(kv.MaxBatch, "other")); err != nil {
			t.Fatal(err)
		}
		last, err := b.Last(t.Context(), subjects.ContextKeys(client))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if again, err := b.Commit(t.Context(), "op", writes); again != first || err != nil {
				t.Errorf("again: %d, %v, want %d", again, err, first)
			}
		}
		time.Sleep(time.Second)
		if now, err := b.Last(t.Context(), subjects.ContextKeys(client)); now != last || err != nil {
			t.Errorf("to ask has written: %d, %v, want %d", now, err, last)
		}
	})
}
