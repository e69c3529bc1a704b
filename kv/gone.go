package kv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// maxProbes bounds how many places in the stream are looked at for one snapshot.
const maxProbes = 64

// proof is what is known of keys that a snapshot has not got, or has older.
type proof struct {
	// gone are keys that were removed after the sequence that is known of them.
	gone map[subjects.Key]uint64
	// cut is the last sequence of the stream that is still what it was.
	cut uint64
}

// newest is what the replica has seen.
func (r *Replica) newest() (top uint64, created time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.top, r.created
}

// read takes one snapshot, and looks for what proves that keys are gone.
func (r *Replica) read(ctx context.Context) error {
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.bucket.keeps {
		r.bucket.audit(ctx, false)
	}
	for {
		top, created := r.newest()
		s, err := r.bucket.snapshotOf(ctx, r.filters, func(leader Snapshot) error {
			if _, tail := r.bucket.health.isTail(); !tail && r.bucket.keeps && leader.Last < top && leader.Created.Equal(created) {
				return r.bucket.newTailError(leader.Last, top)
			}
			return nil
		})
		r.judge(err)
		leader, isLow := s.Last, err == nil && r.bucket.keeps && s.Last < top && s.Created.Equal(created)
		if t, ok := errors.AsType[*tailError](err); ok {
			leader, top, isLow = t.leader, max(top, t.seen), true
		}
		if !isLow {
			if err == nil {
				r.merge(s, r.prove(ctx, s))
			}
			return err
		}
		h := &r.bucket.health
		cut, tail := h.isTail()
		lowest, low := h.isLow()
		switch {
		case tail && err == nil: // and so it is from the leader
			r.merge(s, proof{cut: min(cut, leader)})
			return nil
		case tail:
			return err
		case !low:
			r.Refresh("the leader has less than was seen") // until it has not, or has lost it
			return r.bucket.newTailError(leader, top)
		}
		r.bucket.lost(lowest, top)
	}
}

// judge raises an alarm if nothing can be read for a while because replicas have less
// than the leader. The audit finds out what one of them lacks although it can be read
// around it.
func (r *Replica) judge(err error) {
	h := &r.bucket.health
	if _, ok := errors.AsType[shortError](err); !ok {
		if err == nil && !r.short.IsZero() {
			r.short = time.Time{}
			r.bucket.alarms.Clear(r, alarm.ReplicaDamaged, r.bucket.name.Stream(), "")
		}
		return
	}
	if r.short.IsZero() {
		r.short = time.Now()
	}
	if time.Since(r.short) < shortFor {
		return
	}
	h.mu.Lock()
	server := h.candidates()
	h.mu.Unlock()
	r.bucket.alarms.Raise(r, alarm.Alarm{Kind: alarm.ReplicaDamaged, Stream: r.bucket.name.Stream(), Server: server, Text: err.Error()})
}

// warn raises an alarm while keys are missing without a proof that they were removed.
// mu is held.
func (r *Replica) warn(missing int) {
	stream := r.bucket.name.Stream()
	switch {
	case missing > 0:
		h := &r.bucket.health
		h.mu.Lock()
		leader := h.leader
		h.mu.Unlock()
		r.bucket.alarms.Raise(r, alarm.Alarm{
			Kind: alarm.KeysMissing, Stream: stream, Server: leader,
			Text: fmt.Sprintf("the stream has lost %d keys below %s, or their newest values, and nothing proves that somebody removed them; they are kept as they were seen", missing, r.filters[0]),
		})
	case r.missing > 0:
		r.bucket.alarms.Clear(r, alarm.KeysMissing, stream, "")
	}
	r.missing = missing
}

// forget ends what the replica has to do with its bucket's alarms.
func (r *Replica) forget() {
	r.bucket.health.remove(r)
	r.bucket.alarms.Clear(r, alarm.ReplicaDamaged, r.bucket.name.Stream(), "")
	r.bucket.alarms.Clear(r, alarm.KeysMissing, r.bucket.name.Stream(), "")
}

// doubts are the keys that a snapshot has not got although it should, or has older.
func (r *Replica) doubts(s Snapshot) map[subjects.Key]mark {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.bucket.keeps || !r.created.Equal(s.Created) {
		return nil
	}
	list := map[subjects.Key]mark{}
	for key, m := range r.seqs {
		e, ok := s.Entries[key]
		switch {
		case m.seq > s.UpTo, ok && e.Seq > m.seq, ok && m.isOf(&e), !ok && isHidden(key, m, s.Entries):
		default:
			list[key] = m
		}
	}
	return list
}

// isHidden says whether a write of a key that vanished would not show: something newer
// is above it. A compaction, a conditional write and a new object leave that.
func isHidden(key subjects.Key, m mark, entries map[subjects.Key]Entry) bool {
	k, ok := key.Context()
	if !ok {
		return true // the fold does not know it
	}
	for n := range k.Path {
		above := subjects.ContextRoot(k.Context)
		if n > 0 {
			above, _ = subjects.ContextPath(k.Context, k.Path[:n])
		}
		e, ok := entries[above]
		if ok && !e.skipped() && (place{m.at, m.seq}).compare(place{e.placeAt(), e.Seq}) < 0 {
			return true
		}
	}
	return false
}

// prove looks for what became of the keys in doubt.
func (r *Replica) prove(ctx context.Context, s Snapshot) proof {
	p := proof{gone: map[subjects.Key]uint64{}, cut: math.MaxUint64}
	doubts := r.doubts(s)
	vanished := map[subjects.Key]uint64{}
	for key, m := range doubts {
		if _, ok := s.Entries[key]; !ok {
			vanished[key] = m.seq
		}
	}
	if len(vanished) > 0 {
		proven, err := r.gone(ctx, vanished, s.Created)
		if err != nil {
			r.log.DebugContext(ctx, "no history to prove that keys were removed", slog.Any("filters", r.filters), slog.Any("error", err))
		}
		for _, key := range proven {
			p.gone[key] = vanished[key]
			delete(doubts, key)
		}
	}
	if cut, ok := r.probe(ctx, doubts, s); ok {
		p.cut = cut
		r.bucket.lost(cut, s.UpTo)
	}
	return p
}

// probe looks whether the stream has other writes by now where the keys' were seen:
// then its leader has lost its last writes, and has given their sequences to others.
func (r *Replica) probe(ctx context.Context, doubts map[subjects.Key]mark, s Snapshot) (cut uint64, lost bool) {
	keys := slices.SortedFunc(maps.Keys(doubts), func(a, b subjects.Key) int { return cmp.Compare(doubts[a].seq, doubts[b].seq) })
	for _, key := range keys[:min(len(keys), maxProbes)] {
		m := doubts[key]
		e, ok := s.Entries[key]
		if !ok || e.Seq != m.seq {
			var err error
			if e, ok, err = r.bucket.writeAt(ctx, m.seq); err != nil {
				return 0, false
			}
		}
		if ok && (e.Key != key || !m.isOf(&e)) {
			return m.seq - 1, true
		}
	}
	return 0, false
}

// rewind forgets what the leader has lost, and returns its keys. mu is held.
func (r *Replica) rewind(s Snapshot, p proof) (lost []subjects.Key) {
	if p.cut >= r.top {
		return nil
	}
	for key, m := range r.seqs {
		if e, ok := s.Entries[key]; m.seq > p.cut && !(ok && m.isOf(&e)) && (m.seq <= s.UpTo || p.gone == nil) {
			lost = append(lost, key)
			delete(r.seqs, key)
		}
	}
	maps.DeleteFunc(r.purged, func(_ subjects.Key, seq uint64) bool { return seq > p.cut })
	r.flow, r.upTo, r.top = min(r.flow, s.UpTo), s.UpTo, s.UpTo
	r.bucket.health.top.Store(s.UpTo)
	r.release()
	if len(lost) > 0 {
		slices.Sort(lost)
		r.log.Error("writes were lost by the leader of the stream and are taken back", slog.String("stream", r.bucket.name.Stream()), slog.Any("keys", lost[:min(len(lost), maxProbes)]), slog.Int("count", len(lost)))
	}
	return lost
}

// writeAt reads the write at a sequence; false if the replica that answers has none.
func (b *Bucket) writeAt(ctx context.Context, seq uint64) (e Entry, ok bool, err error) {
	err = b.direct(ctx, string(b.name.DirectGet()), []byte(`{"seq":`+strconv.FormatUint(seq, 10)+`}`), 1, func(m *nats.Msg) (bool, error) {
		if status(m) == "404" {
			return true, nil
		}
		e, err = b.answer(m)
		ok = err == nil
		return true, err
	})
	return e, ok, err
}

// removed says which of some keys the history knows to be purged after the sequences
// that are given, in this creation of the bucket: by a compaction, the end of their
// context, or because they expired. Such a purge leaves nothing in the bucket after
// ten minutes. Every other removal leaves a marker there, which is an entry.
func (b *Bucket) removed(ctx context.Context, keys map[subjects.Key]uint64, created time.Time) (proven []subjects.Key, err error) {
	names := slices.Sorted(maps.Keys(keys))
	for chunk := range slices.Chunk(names, snapshotChunk) {
		found, err := b.removedSome(ctx, chunk, keys, created)
		if err != nil {
			return proven, err
		}
		proven = append(proven, found...)
	}
	return proven, nil
}

func (b *Bucket) removedSome(ctx context.Context, names []subjects.Key, keys map[subjects.Key]uint64, created time.Time) (proven []subjects.Key, err error) {
	req := multiLastRequest{MultiLast: b.subjects(names), Batch: len(names), MaxBytes: snapshotPage}
	for more := true; more; {
		body, err := json.Marshal(req)
		if err != nil {
			return nil, err
		}
		more, err = false, b.history.direct(ctx, body, snapshotWhole+2, func(m *nats.Msg) (bool, error) {
			switch status(m) {
			case "204":
				if pending := m.Header.Get(hdrNumPending); pending != "" && pending != "0" {
					more = true
					req.UpTo, _ = strconv.ParseUint(m.Header.Get(hdrUpTo), 10, 64)
				}
				return true, nil
			case "404":
				return true, nil
			}
			e, err := b.answer(m)
			if err != nil {
				return false, err
			}
			req.Seq = e.Seq + 1
			if seq, ok := keys[e.Key]; ok && e.skipped() && origin(m, b.name.Stream()) > seq && !e.Time.Before(created) {
				proven = append(proven, e.Key)
			}
			return false, nil
		})
		if err != nil {
			return nil, wire.Errorf(wire.Unavailable, "stream %s: %w", b.history.stream, err)
		}
	}
	return proven, nil
}

// origin is the sequence that a sourced message had in its stream, 0 if it is not
// from there.
func origin(m *nats.Msg, stream string) uint64 {
	fields := strings.Fields(last(m, hdrSource))
	if len(fields) < 2 || fields[0] != stream {
		return 0
	}
	seq, _ := strconv.ParseUint(fields[1], 10, 64) // 0 proves nothing
	return seq
}
