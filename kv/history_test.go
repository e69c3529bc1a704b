package kv

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weft-fabric/weft/subjects"
)

// history is what the bucket still has of all that was written: the newest writes of
// each key, less what purges took away. Without markers those of compactions have
// run out.
func (w *world) history(markers bool) (list []Entry) {
	kept := map[subjects.Key][]Entry{}
	for _, e := range w.all {
		l := append(kept[e.Key], e)
		if e.Op == Purge {
			l = l[len(l)-1:]
		}
		kept[e.Key] = l[max(0, len(l)-revisions):]
	}
	for key, l := range kept {
		_, is := w.newest[key]
		l = slices.DeleteFunc(l, func(e Entry) bool { return e.skipped() && (!markers || !is) })
		list = append(list, l...)
	}
	slices.SortFunc(list, func(a, b Entry) int { return int(a.Seq) - int(b.Seq) })
	return list
}

// TestPast: what a context was is either known, and then right, or not known.
func TestPast(t *testing.T) {
	known, unknown := 0, 0
	many(t, 30, func(t *rapid.T) {
		w := newWorld(t)
		w.states = map[uint64]string{}
		w.run(rapid.SliceOfN(genStep, 1, 40).Draw(t, "steps"))
		for _, markers := range []bool{true, false} {
			h := w.history(markers)
			for at, want := range w.states {
				tree, ok := Past(testContext, h, at)
				if !ok {
					unknown++
					continue
				}
				known++
				if got := text(tree.View()); got != want {
					w.fatalf("at %d, markers %t: %s, want %s", at, markers, got, want)
				}
			}
		}
	})
	if known < unknown/4 {
		t.Errorf("%d are known, %d are not", known, unknown)
	}
	t.Logf("%d are known, %d are not", known, unknown)
}
