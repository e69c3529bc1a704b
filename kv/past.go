package kv

import (
	"context"
	"time"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// recordedWithin is how long a question about what was just written waits for the
// history to have it.
const recordedWithin = 2 * time.Second

// Past is a context as it was.
type Past struct {
	// Tree is the context, without any key if there was none.
	Tree *Tree
	// Sequence is the one of the bucket that was asked for, or the newest before it at
	// which no batch was half written. At is when the newest write in the context was made, zero if that is not
	// known.
	Sequence uint64
	At       time.Time
	// Metas are the metadata as of then and, if they can be another, of now. Hidden
	// says that there were some that are not known any more.
	Metas  []*Entry
	Hidden bool
}

// At folds what a context was at a sequence of the bucket. The answer is right, or an
// error: with [ErrNotRecorded] in its chain if the history does not have what is needed
// for it.
//
// What is needed is the newest write of the root and everything after its place, or,
// if it is a [Tree.Checkpoint], after what that has read. Where the history does not
// have it, a later checkpoint, or the bucket, may say that nothing was written since.
func (h *History) At(ctx context.Context, context subjects.Token, sequence uint64) (*Past, error) {
	info, err := h.bucket.info(ctx)
	if err != nil {
		return nil, err
	}
	sequence = min(sequence, info.State.LastSeq)
	s, err := h.reach(ctx, min(sequence+1, info.State.LastSeq)) // it may end inside of a batch
	if err != nil {
		return nil, err
	}
	return h.at(ctx, s, context, sequence)
}

// AtTime is [History.At] at the newest sequence that was written by a time.
func (h *History) AtTime(ctx context.Context, context subjects.Token, t time.Time) (*Past, error) {
	info, err := h.bucket.info(ctx)
	if err != nil {
		return nil, err
	}
	last := info.State.LastSeq
	s, err := h.reach(ctx, last)
	if err != nil {
		return nil, err
	}
	before, ok, err := h.findTime(ctx, s, t)
	switch {
	case err != nil:
		return nil, err
	case !ok && s.first.Seq != 1:
		return nil, h.unknown("it begins later, at %s", s.first.recorded.Format(time.RFC3339))
	case !ok:
		return h.at(ctx, s, context, 0)
	case before.at == s.last.at && s.last.Seq < last:
		return nil, h.unknown("it has recorded up to sequence %d of %d", s.last.Seq, last)
	}
	// What was recorded later may have been written before.
	after, _, err := h.findTime(ctx, s, t.Add(maxLate))
	if err != nil {
		return nil, err
	}
	sequence := before.Seq
	err = h.each(ctx, subjects.ContextKeys(context), before.at+1, after.at, func(r Record) bool {
		if r.Time.After(t) {
			return false
		}
		sequence = r.Seq
		return true
	})
	if err != nil {
		return nil, err
	}
	return h.at(ctx, s, context, sequence)
}

func (h *History) unknown(format string, args ...any) error {
	return wire.Errorf(wire.Unavailable, "stream %s: "+format+" (%w)", append(append([]any{h.stream}, args...), ErrNotRecorded)...)
}

// reach is the span once it includes a sequence, or as it is after a while.
func (h *History) reach(ctx context.Context, sequence uint64) (span, error) {
	for end := time.Now().Add(recordedWithin); ; {
		s, err := h.span(ctx)
		if err != nil || s.last.Seq >= sequence || time.Now().After(end) || !pause(ctx, 5*awaitRecorded) {
			return s, err
		}
	}
}

// at is At within a span.
func (h *History) at(ctx context.Context, s span, context subjects.Token, sequence uint64) (*Past, error) {
	if err := h.complete(ctx, subjects.ContextKeys(context)); err != nil {
		return nil, err
	}
	sequence, err := h.settled(ctx, s, sequence)
	if err != nil {
		return nil, err
	}
	p, err := h.fold(ctx, s, context, sequence)
	if p == nil && err == nil {
		p, err = h.later(ctx, s, context, sequence)
	}
	if p == nil && err == nil {
		p, err = h.present(ctx, context, sequence)
	}
	if p == nil && err == nil {
		err = h.why(ctx, s, sequence)
	}
	if err != nil {
		return nil, err
	}
	p.Sequence = sequence
	return p, h.metas(ctx, s, context, p)
}

// settled is a sequence, or what was there before the batch that it is inside of.
func (h *History) settled(ctx context.Context, s span, sequence uint64) (uint64, error) {
	end, ok, err := h.find(ctx, s, sequence)
	if err != nil || !ok || end.at >= s.last.at {
		return sequence, err
	}
	next, err := h.record(ctx, end.at+1)
	if err != nil || !end.sameOperation(&next) {
		return sequence, err
	}
	at, err := h.search(ctx, max(s.first.at, end.at-min(end.at, MaxBatch)), end.at, func(r Record) bool { return r.WriteID == end.WriteID })
	if err != nil {
		return sequence, err
	}
	first, err := h.record(ctx, at)
	return first.Seq - 1, err
}

// why says why nothing is known of a sequence.
func (h *History) why(ctx context.Context, s span, sequence uint64) error {
	switch {
	case s.empty() || s.last.Seq < sequence:
		return h.unknown("it has recorded up to sequence %d of %d", s.last.Seq, sequence)
	case s.first.Seq > sequence:
		return h.unknown("it begins later, at sequence %d of %s", s.first.Seq, s.first.recorded.Format(time.RFC3339))
	}
	r, _, err := h.find(ctx, s, sequence)
	if err != nil {
		return err
	}
	holes, err := h.holes(ctx, s.first, r)
	if err != nil {
		return err
	}
	if n := len(holes); n > 0 {
		return h.unknown("%d writes from sequence %d on are missing before sequence %d", holes[n-1].Missing, holes[n-1].From, sequence)
	}
	return h.unknown("it does not reach back far enough for sequence %d: it begins at sequence %d of %s", sequence, s.first.Seq, s.first.recorded.Format(time.RFC3339))
}

// fold is the past by the newest root before it, nil if that is not known.
func (h *History) fold(ctx context.Context, s span, context subjects.Token, sequence uint64) (*Past, error) {
	t := NewTree(context)
	switch {
	case sequence == 0:
		return &Past{Tree: t}, nil // there was nothing yet
	case s.empty() || s.last.Seq < sequence:
		return nil, nil
	}
	end, ok, err := h.find(ctx, s, sequence)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, nil
	}
	rootKey := subjects.ContextRoot(context)
	roots := map[subjects.Key]Record{}
	if err := h.lasts(ctx, []string{string(h.bucket.name.Subject(rootKey))}, s.first.at, end.at, roots); err != nil {
		return nil, err
	}
	root, had := roots[rootKey]
	newest, err := h.after(ctx, s, context, root.placeAt(), end, sequence)
	if err == nil && newest == nil && root.isCheckpoint() {
		newest, err = h.after(ctx, s, context, min(root.Read, root.Seq-1), end, sequence)
	}
	if err != nil || newest == nil {
		return nil, err
	}
	if had {
		newest[rootKey] = root
	}
	p := &Past{Tree: t}
	entries := make([]Entry, 0, len(newest))
	for _, r := range newest {
		entries = append(entries, r.Entry)
		if k, ok := r.Key.Context(); ok && !k.Meta && !r.skipped() && r.Compact == 0 && r.Time.After(p.At) {
			p.At = r.Time
		}
	}
	t.Apply(entries, nil)
	return p, nil
}

// isCheckpoint says whether an entry is the root that [Tree.Checkpoint] makes.
func (e *Entry) isCheckpoint() bool {
	return e.Op == Put && e.Read > 0 && e.Compact > 0 && e.AsOf > 0 && e.AsOf < e.Seq
}

// after reads the newest write of each key of a context after a sequence of the bucket,
// up to another, of which end is the newest record; nil if some of them may be missing.
func (h *History) after(ctx context.Context, s span, context subjects.Token, from uint64, end Record, sequence uint64) (map[subjects.Key]Record, error) {
	begin, ok, err := h.find(ctx, s, from)
	if err != nil {
		return nil, err
	}
	if !ok {
		if s.first.Seq != from+1 {
			return nil, nil // it does not reach back so far
		}
		begin.at = s.first.at - 1
	}
	begin.Seq = from // what is missing before does not matter
	if whole, err := h.whole(ctx, begin, end, sequence); err != nil || !whole {
		return nil, err
	}
	return h.newest(ctx, subjects.ContextKeys(context), begin.at+1, end.at)
}

// whole says whether the history lacks nothing that can matter after begin.Seq, up to a
// sequence, of which end is the newest record. begin is the record before.
//
// A hole does not matter for what was written after the history had come past it:
// what the bucket has lost by then it has lost to newer writes of the same keys, which
// were recorded next. That is only so while markers, which expire, cannot be among it.
func (h *History) whole(ctx context.Context, begin, end Record, sequence uint64) (bool, error) {
	switch {
	case end.at < begin.at:
		return false, nil
	case end.at-begin.at == sequence-begin.Seq:
		return true, nil
	case end.Seq != sequence, !end.isTimed():
		return false, nil
	}
	holes, err := h.holes(ctx, begin, end)
	if err != nil || len(holes) == 0 || len(holes) >= maxHoles {
		return false, err
	}
	for _, hole := range holes {
		passed := &hole.Before
		late := !passed.isTimed() || passed.recorded.Sub(passed.Time) > maxLate/2
		if late || !end.Time.After(passed.recorded.Add(clockError)) {
			return false, nil
		}
	}
	return true, nil
}

// isTimed says whether the time is what the writer said.
func (r *Record) isTimed() bool { return r.Time.Equal(r.sent) }

// later is the past by a checkpoint that came later and has nothing newer in it, nil
// if there is none.
func (h *History) later(ctx context.Context, s span, context subjects.Token, sequence uint64) (*Past, error) {
	if s.empty() {
		return nil, nil
	}
	end, ok, err := h.find(ctx, s, sequence)
	if err != nil {
		return nil, err
	}
	from := s.first.at
	if ok {
		from = end.at + 1
	}
	var p *Past
	err = h.each(ctx, subjects.ContextRoot(context), from, s.last.at, func(r Record) bool {
		if r.isCheckpoint() && r.Compact <= sequence {
			p = &Past{Tree: NewTree(context)}
			p.Tree.Apply([]Entry{r.Entry}, nil)
		}
		return false
	})
	return p, err
}

// present is the past by what is in the bucket now, nil if something was written since.
func (h *History) present(ctx context.Context, context subjects.Token, sequence uint64) (*Past, error) {
	snapshot, err := h.bucket.Snapshot(ctx, subjects.ContextKeys(context))
	if err != nil {
		return nil, err
	}
	t, whole := snapshot.Tree(context)
	if !whole || !t.Exists() || t.Revision() > sequence {
		return nil, nil
	}
	return &Past{Tree: t}, nil
}

// metas finds the metadata by which the past may be read.
func (h *History) metas(ctx context.Context, s span, context subjects.Token, p *Past) error {
	if s.empty() {
		return nil
	}
	key := subjects.ContextMeta(context)
	end, ok, err := h.find(ctx, s, p.Sequence)
	if err != nil {
		return err
	}
	from := s.first.at
	if ok {
		from = end.at + 1
		found := map[subjects.Key]Record{}
		if err := h.lasts(ctx, []string{string(h.bucket.name.Subject(key))}, s.first.at, end.at, found); err != nil {
			return err
		}
		if r, was := found[key]; was {
			if r.Op == Put {
				p.Metas = append(p.Metas, &r.Entry)
			}
			return nil
		}
	}
	return h.each(ctx, key, from, s.last.at, func(r Record) bool {
		p.Hidden = r.Op != Put
		return false
	})
}
