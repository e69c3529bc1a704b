package queue_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weft-fabric/weft/node/queue"
)

func gap(source any, from, to uint64) string { return fmt.Sprintf("gap %v %d-%d", source, from, to) }

func drain(t *testing.T, q *queue.Queue[string]) []string {
	t.Helper()
	q.Close()
	return slices.Collect(q.All(t.Context()))
}

func TestNoticeComesBeforeTheNextItem(t *testing.T) {
	q := queue.New(2, 1000, gap)
	for i := range uint64(5) {
		q.Put(fmt.Sprint("a", i), 1, "a", i)
	}
	q.Put("b0", 1, "b", 0)
	for _, want := range []string{"a0", "a1"} {
		if got, ok := q.Next(t.Context()); !ok || got != want {
			t.Fatalf("got %q, %v, want %q", got, ok, want)
		}
	}
	q.Put("a5", 1, "a", 5)
	if got, want := drain(t, q), []string{"gap a 2-4", "a5", "gap b 0-0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if q.Dropped() != 4 {
		t.Errorf("dropped %d, want 4", q.Dropped())
	}
}

func TestControlIsNeverDroppedAndFollowsTheNotice(t *testing.T) {
	q := queue.New(1, 1000, gap)
	q.Put("a0", 1, "a", 0)
	q.Put("a1", 1, "a", 1)
	q.Control("closed", "a")
	if got, want := drain(t, q), []string{"a0", "gap a 1-1", "closed"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSkipsDoNotFillAFullQueue(t *testing.T) {
	q := queue.New(3, 1000, gap)
	q.Put("a0", 1, "a", 0)
	for i := uint64(1); i < 1000; i += 2 {
		q.Skip(fmt.Sprint("lost ", i), "a", i, i)
		q.Put(fmt.Sprint("a", i+1), 1, "a", i+1)
	}
	if n, _ := q.Len(); n > 3 {
		t.Errorf("%d items wait", n)
	}
	if got, want := drain(t, q), []string{"a0", "lost 1", "a2", "gap a 3-1000"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOneItemAboveTheByteLimitStillFits(t *testing.T) {
	q := queue.New(10, 100, gap)
	q.Put("big", 500, "a", 0)
	q.Put("small", 1, "a", 1)
	if got, want := drain(t, q), []string{"big", "gap a 1-1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	q := queue.New(1, 1, gap)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := q.Next(ctx); ok {
		t.Error("an empty queue gave an item")
	}
}

// Whatever the interleaving of writes and reads, each source's numbers are
// accounted for exactly once and in order, as items or in notices.
func TestEveryNumberIsAccountedFor(t *testing.T) {
	type ev struct {
		source   any
		from, to uint64
	}
	rapid.Check(t, func(t *rapid.T) {
		q := queue.New(rapid.IntRange(1, 5).Draw(t, "items"), rapid.IntRange(1, 20).Draw(t, "bytes"),
			func(s any, from, to uint64) ev { return ev{s, from, to} })
		next, seen := map[any]uint64{}, map[any]uint64{}
		read := func() bool {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			e, ok := q.Next(ctx)
			if ok && e.from != seen[e.source] {
				t.Fatalf("source %v: got %d-%d, want from %d", e.source, e.from, e.to, seen[e.source])
			}
			if ok {
				seen[e.source] = e.to + 1
			}
			return ok
		}
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "read") {
				read()
				continue
			}
			s := rapid.IntRange(0, 2).Draw(t, "source")
			if n := rapid.Uint64Range(0, 9).Draw(t, "skip"); n > 5 {
				q.Skip(ev{s, next[s], next[s] + n}, s, next[s], next[s]+n)
				next[s] += n + 1
				continue
			}
			q.Put(ev{s, next[s], next[s]}, rapid.IntRange(0, 30).Draw(t, "size"), s, next[s])
			next[s]++
		}
		q.Close()
		for read() {
		}
		for s, n := range next {
			if seen[s] != n {
				t.Fatalf("source %v: accounted for %d of %d", s, seen[s], n)
			}
		}
	})
}
