package kv

import (
	"context"
	"slices"
	"time"

	"github.com/weft-fabric/weft/subjects"
)

const (
	// firstWindow is how much of the history is looked at first for what was written
	// last; each further window is windowGrowth times as large.
	firstWindow  = 256
	windowGrowth = 4
	// maxWrites is how many bytes of writes are read at a time, or a little more.
	maxWrites = 32 << 20
)

// Span says which writes of a context are wanted: the newest Limit operations that were
// written at Since or later, at Until or before, and have sequences below Before. The
// zero values of all but Limit leave it open.
type Span struct {
	Since, Until time.Time
	Before       uint64
	Limit        int
}

// Writes are writes of a context as the history has them.
type Writes struct {
	// Records are in the order of the bucket, and More says that there are older ones
	// in the span.
	Records []Record
	More    bool
	// Root and Meta are the writes of these keys before, nil for none.
	Root, Meta *Entry
	// Holes are what the history lacks in the span, of whatever context.
	Holes []Hole
}

// Writes reads writes of a context.
func (h *History) Writes(ctx context.Context, context subjects.Token, q Span) (Writes, error) {
	var w Writes
	info, err := h.bucket.info(ctx)
	if err != nil {
		return w, err
	}
	s, err := h.reach(ctx, info.State.LastSeq)
	if err != nil {
		return w, err
	}
	if s.last.Seq < info.State.LastSeq && q.Before == 0 {
		w.Holes = []Hole{{From: s.last.Seq + 1, To: info.State.LastSeq, Missing: info.State.LastSeq - s.last.Seq, Before: Record{Entry: Entry{Time: info.TimeStamp}}}}
	}
	if s.empty() {
		return w, nil
	}
	if err := h.complete(ctx, subjects.ContextKeys(context)); err != nil {
		return w, err
	}
	first, last, ok, err := h.ends(ctx, s, q)
	if err != nil || !ok {
		return w, err
	}
	if q.Before <= s.last.Seq && last.Seq+1 < q.Before {
		w.Holes = []Hole{{From: last.Seq + 1, To: q.Before - 1, Missing: q.Before - 1 - last.Seq, Before: last}}
	}
	if err := h.fill(ctx, &w, context, q, first, last); err != nil {
		return w, err
	}
	begin := first
	if w.More {
		begin = w.Records[0]
	} else if first.at == s.first.at && s.first.Seq > 1 {
		w.Holes = append([]Hole{{From: 1, To: s.first.Seq - 1, Missing: s.first.Seq - 1, Before: s.first}}, w.Holes...)
	}
	holes, err := h.holes(ctx, begin, last)
	if err != nil {
		return w, err
	}
	w.Holes = append(w.Holes, holes...)
	slices.SortFunc(w.Holes, func(a, b Hole) int { return int(int64(a.From) - int64(b.From)) })
	if len(w.Records) > 0 {
		begin = w.Records[0]
	}
	return w, h.before(ctx, &w, context, s, begin)
}

// ends finds the first and the last record of a span; false if nothing is between.
func (h *History) ends(ctx context.Context, s span, q Span) (first, last Record, ok bool, err error) {
	first, last = s.first, s.last
	if q.Before > 0 {
		if last, ok, err = h.find(ctx, s, q.Before-1); err != nil || !ok {
			return first, last, false, err
		}
	}
	if !q.Until.IsZero() {
		until, ok, err := h.findTime(ctx, s, q.Until.Add(maxLate))
		if err != nil || !ok {
			return first, last, false, err
		}
		if until.at < last.at {
			last = until
		}
	}
	if !q.Since.IsZero() {
		since, ok, err := h.findTime(ctx, s, q.Since)
		if err != nil {
			return first, last, false, err
		}
		if ok {
			first = since
		}
	}
	return first, last, first.at <= last.at, nil
}

// fill reads the newest records of a span.
func (h *History) fill(ctx context.Context, w *Writes, context subjects.Token, q Span, first, last Record) error {
	bytes := 0
	size := uint64(firstWindow)
	for high := last.at; ; size *= windowGrowth {
		low := first.at
		if high-low >= size {
			low = high - size + 1
		}
		var list []Record
		err := h.each(ctx, subjects.ContextKeys(context), low, high, func(r Record) bool {
			if !r.Time.Before(q.Since) && (q.Until.IsZero() || !r.Time.After(q.Until)) {
				list, bytes = append(list, r), bytes+len(r.Value)
			}
			return true
		})
		if err != nil {
			return err
		}
		w.Records = append(list, w.Records...)
		if n := operations(w.Records); n > q.Limit || bytes > maxWrites && n > 1 {
			w.Records, w.More = newestOf(w.Records, q.Limit), true
			return nil
		}
		if low == first.at {
			return nil
		}
		high = low - 1
	}
}

// sameOperation says whether two records that follow each other were made by one
// operation.
func (r *Record) sameOperation(next *Record) bool {
	return r.WriteID != "" && r.WriteID == next.WriteID && r.origin == next.origin
}

// operations counts operations.
func operations(list []Record) (n int) {
	for i := range list {
		if i == 0 || !list[i-1].sameOperation(&list[i]) {
			n++
		}
	}
	return n
}

// newestOf is the newest operations of a list, of which the first may not be whole.
func newestOf(list []Record, n int) []Record {
	n = min(n, operations(list)-1)
	for i := len(list) - 1; i > 0; i-- {
		if !list[i-1].sameOperation(&list[i]) {
			if n--; n <= 0 {
				return list[i:]
			}
		}
	}
	return list
}

// Operations are the records of each operation.
func (w *Writes) Operations() (ops [][]Record) {
	begin := 0
	for i := range w.Records {
		if i+1 == len(w.Records) || !w.Records[i].sameOperation(&w.Records[i+1]) {
			ops = append(ops, w.Records[begin:i+1])
			begin = i + 1
		}
	}
	return ops
}

// before reads what the root and the metadata were before a record.
func (h *History) before(ctx context.Context, w *Writes, context subjects.Token, s span, begin Record) error {
	root, meta := subjects.ContextRoot(context), subjects.ContextMeta(context)
	found := map[subjects.Key]Record{}
	err := h.lasts(ctx, []string{string(h.bucket.name.Subject(root)), string(h.bucket.name.Subject(meta))}, s.first.at, begin.at-1, found)
	if err != nil {
		return err
	}
	if r, ok := found[root]; ok {
		w.Root = &r.Entry
	}
	if r, ok := found[meta]; ok {
		w.Meta = &r.Entry
	}
	return nil
}

// Changed are the writes of an operation as what they say, a nil Value for what is
// gone: without those of a compaction, of metadata, and of keys that a rewrite purged.
// What cannot be read is an error.
func Changed(entries []Entry) (changes []Change, err error) {
	for i := range entries {
		e := &entries[i]
		k, ok := e.Key.Context()
		if !ok || k.Meta || e.skipped() || e.Op == Put && e.Compact > 0 && e.AsOf > 0 {
			continue
		}
		c := Change{Path: k.Path}
		if e.Op == Put {
			if c.Value, err = e.value(); err != nil {
				return nil, err
			}
		}
		changes = append(changes, c)
	}
	return changes, nil
}
