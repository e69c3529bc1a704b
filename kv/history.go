package kv

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// historyPage is how many writes of a history are asked for at a time.
const historyPage = 512

// History reads every write below a filter that the bucket still has, in their
// order. It returns only what the leader confirms to be complete; of what was
// written meanwhile some may be there.
func (b *Bucket) History(ctx context.Context, filter subjects.Key) ([]Entry, error) {
	missing := ""
	for try := range snapshotTries {
		if try > 0 && !pause(ctx, snapshotRetry<<try) {
			break
		}
		info, err := b.info(ctx, b.name.Subject(filter))
		if err != nil {
			return nil, err
		}
		list, err := b.writes(ctx, filter)
		if err != nil {
			return nil, err
		}
		if missing = lacks(b, list, info.State.Subjects); missing == "" {
			return list, nil
		}
	}
	return nil, wire.Errorf(wire.Unavailable, "stream %s: a replica answers with less than the leader has (%s)", b.name.Stream(), missing)
}

// lacks says of which key there are fewer writes than the leader has counted. A write
// that came meanwhile may have taken the place of an old one.
func lacks(b *Bucket, list []Entry, counted map[string]uint64) string {
	have := map[string]uint64{}
	for i := range list {
		have[string(b.name.Subject(list[i].Key))]++
	}
	for subject, n := range counted {
		if _, err := b.keyOf(subjects.Subject(subject)); err == nil && have[subject] < n {
			return strconv.FormatUint(have[subject], 10) + " of " + strconv.FormatUint(n, 10) + " writes of " + subject
		}
	}
	return ""
}

// writes reads what one replica has.
func (b *Bucket) writes(ctx context.Context, filter subjects.Key) (list []Entry, err error) {
	for next := uint64(1); ; {
		body, err := json.Marshal(map[string]any{"seq": next, "next_by_subj": b.name.Subject(filter), "batch": historyPage, "max_bytes": snapshotPage})
		if err != nil {
			return nil, err
		}
		more := false
		err = b.direct(ctx, string(b.name.DirectGet()), body, historyPage+1, func(m *nats.Msg) (bool, error) {
			switch status(m) {
			case "204":
				pending := m.Header.Get(hdrNumPending)
				more = pending != "" && pending != "0"
				return true, nil
			case "404":
				return true, nil
			}
			e, err := b.answer(m)
			if err == nil && e.Seq < next {
				err = wire.Errorf(wire.Unavailable, "direct get: sequence %d, asked for %d and later", e.Seq, next)
			}
			list, next = append(list, e), e.Seq+1
			return false, err
		})
		if err != nil || !more {
			return list, err
		}
	}
}

// Past is a context as it was at a sequence, folded from all that the bucket still has
// of its keys. ok is false if something that may be needed is not there any more:
// the bucket keeps 8 writes of each key, and a compaction, a conditional write or an
// end takes away those of the keys below. So it is if the context was not there yet.
//
// One trace is missing: what a compaction of more than 1,000 keys took away, after the
// whole object was replaced, is not noticed any more after ten minutes.
func Past(context subjects.Token, history []Entry, sequence uint64) (t *Tree, ok bool) {
	keys := map[subjects.Key][]Entry{}
	for _, e := range slices.SortedFunc(slices.Values(history), func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) }) {
		if k, ok := e.Key.Context(); ok && !k.Meta && k.Context.String() == context.String() {
			keys[e.Key] = append(keys[e.Key], e)
		}
	}
	p := past{sequence: sequence, rootKey: subjects.ContextRoot(context), folded: map[string]bool{}}
	at, ok := p.root(keys[p.rootKey])
	if !ok {
		return nil, false
	}
	entries := []Entry{at}
	for key, list := range keys {
		e, was, ok := p.key(list)
		if !ok || was && key != p.rootKey && at.Seq > sequence && e.placeAt() <= at.placeAt() {
			return nil, false // or it would be below the root of a compaction that has not got it
		}
		if was && key != p.rootKey {
			entries = append(entries, e)
		}
	}
	t = NewTree(context)
	t.Apply(entries, nil)
	return t, true
}

// placeAt is the entry's place in the fold, but for the order of equal ones.
func (e *Entry) placeAt() uint64 {
	if e.AsOf > 0 && e.AsOf < e.Seq && broken != "fold" {
		return e.AsOf
	}
	return e.Seq
}

// past looks for what the writes of keys were at a sequence.
type past struct {
	sequence uint64
	rootKey  subjects.Key
	// folded are the batches of the compactions after it that have nothing newer in
	// them: what they took away is in the root.
	folded map[string]bool
}

// root finds the root's write: the newest before the sequence, or of a compaction
// after it that has nothing newer in it.
func (p past) root(list []Entry) (at Entry, ok bool) {
	for _, e := range list {
		switch {
		case e.Seq <= p.sequence:
		case isCompaction(&e) && e.Compact <= p.sequence:
			p.folded[e.Batch] = true
		default:
			continue
		}
		at, ok = e, true
	}
	return at, ok
}

func isCompaction(e *Entry) bool {
	return e.Op == Put && e.Batch != "" && e.AsOf > 0 && e.AsOf < e.Seq && e.Compact > 0 && e.Compact < e.Seq
}

// key finds the newest write of a key before the sequence; was is false if there was
// none, and ok if that is not known.
func (p past) key(list []Entry) (at Entry, was, ok bool) {
	for i := range list {
		e := &list[i]
		switch {
		case e.Seq <= p.sequence:
			at, was = *e, true
		case p.folded[e.Batch]:
		case e.Op == Purge, e.Expired, e.AsOf > 0 && e.Batch != "", e.Op != Put && e.Key == p.rootKey:
			return at, false, false // it took something away, or let a compaction do that
		}
	}
	first := &list[0]
	return at, was, was || p.folded[first.Batch] || len(list) < revisions && first.AsOf == 0
}
