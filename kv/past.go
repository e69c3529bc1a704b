package kv

import (
	"context"

	"github.com/weft-fabric/weft/subjects"
)

// Past is the tree of a context as it was at a sequence, from what the bucket still
// holds. It is false if that is not enough: a key has had so many newer writes that
// an older one may have been dropped, or the context was compacted since.
func (b *Bucket) Past(ctx context.Context, token subjects.Token, upTo uint64) (*Tree, bool, error) {
	filter := subjects.ContextKeys(token)
	info, err := b.info(ctx, b.name.Subject(filter))
	if err != nil {
		return nil, false, err
	}
	now, past := map[subjects.Key]Entry{}, map[subjects.Key]Entry{}
	if _, err := b.multiLast(ctx, b.subjects([]subjects.Key{filter}), snapshotWhole+1, now); err != nil {
		return nil, false, err
	}
	req := multiLastRequest{MultiLast: b.subjects([]subjects.Key{filter}), UpTo: upTo, Batch: snapshotWhole + 1, MaxBytes: snapshotPage}
	if _, err := b.pages(ctx, req, past); err != nil {
		return nil, false, err
	}
	entries := make([]Entry, 0, len(past))
	for key, e := range now {
		if e.Seq > upTo && e.Compact > 0 {
			return nil, false, nil
		}
		_, known := past[key]
		if !known && info.State.Subjects[string(b.name.Subject(key))] >= revisions {
			return nil, false, nil
		}
	}
	for _, e := range past {
		if e.Seq <= upTo {
			entries = append(entries, e)
		}
	}
	t := NewTree(token)
	t.Apply(entries, nil)
	return t, true, nil
}
