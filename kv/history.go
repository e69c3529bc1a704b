package kv

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// historyPage is how many writes are asked for at a time.
	historyPage = 512
	// maxLate is how long before it was recorded a write can have been made by what
	// it says; what the bucket can lose without a trace takes as long.
	maxLate = markerTTL
	// clockError is how wrong a node's idea of the server's time may be.
	clockError = 2 * time.Second
	// awaitRecorded is how often one who waits for the history looks at it, at first
	// and at most.
	awaitRecorded     = 2 * time.Millisecond
	awaitRecordedMost = 100 * time.Millisecond
	// maxHoles bounds how many holes are told apart; more are told together.
	maxHoles = 100
)

// ErrNotRecorded is in the chain of an error when what is asked about the past is not
// known, or not all of it: the history does not reach back so far, or not that far
// yet, or has a hole.
var ErrNotRecorded = errors.New("not recorded")

// History is what was written to a realm's context bucket, of which the server keeps a
// copy of every message in the order of the bucket. The package documentation says
// what it can lack. It is safe for concurrent use.
type History struct {
	bucket *Bucket
	stream subjects.Stream
}

// Record is one write as the history has it. Its Seq is that in the bucket. Its Time is
// when it was sent, by the server's clock as the writer knew it, or, if that cannot be,
// when it was recorded.
type Record struct {
	Entry
	at       uint64    // the sequence in the history
	recorded time.Time // by the server
	origin   string    // tells one creation of the bucket from another, "" if unknown
}

// Hole is where the history lacks writes of the bucket: Missing of those with the
// sequences from From to To. Before is the record that follows.
type Hole struct {
	From, To, Missing uint64
	Before            Record
}

// History is the bucket's history, nil if it has none.
func (b *Bucket) History() *History { return b.history }

// verify checks that the history is there, and its options.
func (h *History) verify(ctx context.Context) error {
	info, err := h.bucket.infoOf(ctx, h.stream, "", 0)
	if err != nil {
		return err
	}
	if d := historyDifferences(info.Config, HistoryConfig(h.bucket.realm, 1)); len(d) > 0 {
		return wrongOptions(string(h.stream), d, h.bucket.realm)
	}
	return nil
}

// Age is for how long the history keeps what was written, 0 for ever.
func (h *History) Age(ctx context.Context) (time.Duration, error) {
	info, err := h.bucket.infoOf(ctx, h.stream, "", 0)
	if err != nil {
		return 0, err
	}
	return info.Config.MaxAge, nil
}

// Recorded is the sequence of the newest write of the bucket that the history has, 0
// for none. A replica that lags says less.
func (h *History) Recorded(ctx context.Context) (uint64, error) {
	body, err := json.Marshal(map[string]any{"last_by_subj": h.bucket.name.Filter()})
	if err != nil {
		return 0, err
	}
	var r Record
	err = h.direct(ctx, body, 1, func(m *nats.Msg) (bool, error) {
		if status(m) == "404" {
			return true, nil
		}
		r, err = h.answer(m)
		return true, err
	})
	return r.Seq, err
}

// Await returns when the history has recorded up to a sequence, or why it has not when
// ctx ends.
func (h *History) Await(ctx context.Context, sequence uint64) error {
	for wait := awaitRecorded; ; wait = min(2*wait, awaitRecordedMost) {
		seq, err := h.Recorded(ctx)
		if err == nil && seq >= sequence {
			return nil
		}
		if !pause(ctx, wait) {
			if err == nil {
				err = wire.Errorf(wire.Unavailable, "stream %s has recorded up to sequence %d of %d (%w)", h.stream, seq, sequence, ErrNotRecorded)
			}
			return err
		}
	}
}

// Purged is the highest sequence of a key that writes purge, 0 if they purge nothing:
// the history must have recorded that before they are committed.
func Purged(writes []Write) (highest uint64) {
	for i := range writes {
		if w := &writes[i]; w.Op == Purge && w.If != nil {
			highest = max(highest, *w.If)
		}
	}
	return highest
}

func (h *History) direct(ctx context.Context, body []byte, limit int, f func(*nats.Msg) (done bool, err error)) error {
	return h.bucket.directOf(ctx, string(h.stream), string(h.stream.DirectGet()), body, limit, f)
}

// answer reads a stored message that must be one. What a foreign writer put at a
// subject that is no key has no Key.
func (h *History) answer(m *nats.Msg) (Record, error) {
	if s := status(m); s != "" {
		return Record{}, wire.Errorf(wire.Unavailable, "stream %s: direct get: status %s %s", h.stream, s, m.Header.Get("Description"))
	}
	var r Record
	var err error
	if r.at, err = strconv.ParseUint(last(m, hdrSequence), 10, 64); err != nil {
		return Record{}, wire.Errorf(wire.Unavailable, "stream %s: a message without a sequence", h.stream)
	}
	source := strings.Fields(last(m, hdrSource))
	if len(source) < 2 {
		return Record{}, wire.Errorf(wire.Unavailable, "stream %s: sequence %d was not copied from %s", h.stream, r.at, h.bucket.name.Stream())
	}
	if r.recorded, err = time.Parse(time.RFC3339Nano, last(m, hdrTime)); err != nil {
		return Record{}, wire.Errorf(wire.Unavailable, "stream %s: sequence %d has no time", h.stream, r.at)
	}
	if e, err := h.bucket.entry(m); err == nil {
		r.Entry = e
	}
	if r.Seq, err = strconv.ParseUint(source[1], 10, 64); err != nil || source[0] != h.bucket.name.Stream() {
		return Record{}, wire.Errorf(wire.Unavailable, "stream %s: sequence %d was not copied from %s", h.stream, r.at, h.bucket.name.Stream())
	}
	if len(source) > 5 {
		r.origin = source[5]
	}
	r.Time = r.recorded
	if r.sent.Before(r.recorded) && r.sent.After(r.recorded.Add(-maxLate)) {
		r.Time = r.sent
	}
	return r, nil
}

// record reads what is at a sequence of the history, or next after it.
func (h *History) record(ctx context.Context, at uint64) (r Record, err error) {
	body, err := json.Marshal(map[string]any{"seq": at, "batch": 1})
	if err != nil {
		return r, err
	}
	for try := range snapshotTries {
		if try > 0 && !pause(ctx, snapshotRetry<<try) {
			break
		}
		err = h.direct(ctx, body, 2, func(m *nats.Msg) (done bool, err error) {
			if s := status(m); s == "404" || s == "204" {
				return true, nil
			}
			r, err = h.answer(m)
			return true, err
		})
		if err != nil || r.at > 0 {
			return r, err
		}
		err = wire.Errorf(wire.Unavailable, "stream %s: a replica has nothing from sequence %d on", h.stream, at)
	}
	return r, err
}

// span is what the history has of the present bucket.
type span struct{ first, last Record }

func (s span) empty() bool { return s.last.at == 0 }

// span asks the leader how far the history reaches, and reads both ends.
func (h *History) span(ctx context.Context) (s span, err error) {
	info, err := h.bucket.infoOf(ctx, h.stream, "", 0)
	if err != nil || info.State.Msgs == 0 {
		return s, err
	}
	if s.last, err = h.record(ctx, info.State.LastSeq); err != nil {
		return s, err
	}
	s.first, err = h.record(ctx, info.State.FirstSeq)
	if err != nil || s.first.origin == s.last.origin {
		return s, err
	}
	// The bucket was made anew since the first.
	at, err := h.search(ctx, s.first.at, s.last.at, func(r Record) bool { return r.origin == s.last.origin })
	if err == nil {
		s.first, err = h.record(ctx, at)
	}
	return s, err
}

// search finds the first sequence of the history from low to high at which f is true,
// which it must be at high, and from the first on.
func (h *History) search(ctx context.Context, low, high uint64, f func(Record) bool) (at uint64, err error) {
	n := sort.Search(int(high-low), func(i int) bool {
		if err != nil {
			return true
		}
		var r Record
		r, err = h.record(ctx, low+uint64(i))
		return err == nil && f(r)
	})
	return low + uint64(n), err
}

// find finds the newest record of a span that is not newer than a sequence of the
// bucket; false if there is none.
func (h *History) find(ctx context.Context, s span, sequence uint64) (r Record, ok bool, err error) {
	switch {
	case s.empty() || s.first.Seq > sequence:
		return r, false, nil
	case s.last.Seq <= sequence:
		return s.last, true, nil
	}
	// Where nothing is missing behind it, it is here.
	low, high := s.first.at, s.last.at
	if d := s.last.Seq - sequence; d < high-low {
		guess, err := h.record(ctx, high-d)
		if err != nil || guess.Seq == sequence {
			return guess, true, err
		}
		if guess.Seq < sequence { // it is not the newest yet: there are holes behind it
			low = guess.at
		}
	}
	at, err := h.search(ctx, low, high, func(r Record) bool { return r.Seq > sequence })
	if err != nil {
		return r, false, err
	}
	r, err = h.record(ctx, at-1)
	return r, true, err
}

// recordOf finds the record of a sequence of the bucket; ErrNotRecorded if there is none, or not
// before ctx ends.
func (h *History) recordOf(ctx context.Context, sequence uint64) (Record, error) {
	if err := h.Await(ctx, sequence); err != nil {
		return Record{}, err
	}
	s, err := h.span(ctx)
	if err != nil {
		return Record{}, err
	}
	r, ok, err := h.find(ctx, s, sequence)
	if err == nil && (!ok || r.Seq != sequence) {
		err = wire.Errorf(wire.Unavailable, "stream %s has not recorded sequence %d (%w)", h.stream, sequence, ErrNotRecorded)
	}
	return r, err
}

// findTime finds the newest record of a span that was recorded before a time; false if
// there is none.
func (h *History) findTime(ctx context.Context, s span, t time.Time) (r Record, ok bool, err error) {
	switch {
	case s.empty() || s.first.recorded.After(t):
		return r, false, nil
	case !s.last.recorded.After(t):
		return s.last, true, nil
	}
	at, err := h.search(ctx, s.first.at, s.last.at, func(r Record) bool { return r.recorded.After(t) })
	if err != nil {
		return r, false, err
	}
	r, err = h.record(ctx, at-1)
	return r, true, err
}

// complete is nil if the replica that answers has as many writes below a filter as the
// leader counts. A server that has a replica answers itself, so that what this
// connection reads next comes from the same one.
func (h *History) complete(ctx context.Context, filter subjects.Key) error {
	var have, want uint64
	for try := range snapshotTries {
		if try > 0 && !pause(ctx, snapshotRetry<<try) {
			break
		}
		names, err := h.names(ctx, filter)
		if err != nil {
			return err
		}
		want = 0
		for _, n := range names {
			want += n
		}
		if have, err = h.count(ctx, filter); err != nil {
			return err
		}
		if have >= want {
			return nil
		}
	}
	return wire.Errorf(wire.Unavailable, "stream %s: a replica answers with less than the leader has (%d of %d writes of %s)", h.stream, have, want, filter)
}

// names are the subjects below a filter, and how many writes the leader has of each.
func (h *History) names(ctx context.Context, filter subjects.Key) (map[string]uint64, error) {
	all := map[string]uint64{}
	for {
		info, err := h.bucket.infoOf(ctx, h.stream, h.bucket.name.Subject(filter), len(all))
		if err != nil {
			return nil, err
		}
		maps.Copy(all, info.State.Subjects)
		if len(info.State.Subjects) < maxDetails {
			return all, nil
		}
	}
}

// maxDetails is how many subjects the server names at a time.
const maxDetails = 100_000

// count is how many writes below a filter a replica has.
func (h *History) count(ctx context.Context, filter subjects.Key) (n uint64, err error) {
	body, err := json.Marshal(map[string]any{"seq": 1, "next_by_subj": h.bucket.name.Subject(filter), "batch": 1})
	if err != nil {
		return 0, err
	}
	err = h.direct(ctx, body, 2, func(m *nats.Msg) (bool, error) {
		switch status(m) {
		case "404", "204":
			return true, nil
		case "":
			pending, err := strconv.ParseUint(last(m, hdrNumPending), 10, 64)
			n = pending + 1
			return false, err
		}
		_, err := h.answer(m)
		return true, err
	})
	return n, err
}

// each calls f for every write below a filter that the history has from one of its
// sequences to another, in their order, until f returns false.
func (h *History) each(ctx context.Context, filter subjects.Key, from, to uint64, f func(Record) bool) error {
	for from <= to {
		body, err := json.Marshal(map[string]any{"seq": from, "next_by_subj": h.bucket.name.Subject(filter), "batch": historyPage, "max_bytes": snapshotPage})
		if err != nil {
			return err
		}
		more := false
		err = h.direct(ctx, body, historyPage+1, func(m *nats.Msg) (bool, error) {
			switch status(m) {
			case "204":
				pending := m.Header.Get(hdrNumPending)
				more = pending != "" && pending != "0"
				return true, nil
			case "404":
				return true, nil
			}
			r, err := h.answer(m)
			if err == nil && r.at < from {
				err = wire.Errorf(wire.Unavailable, "stream %s: direct get: sequence %d, asked for %d and later", h.stream, r.at, from)
			}
			if err != nil {
				return true, err
			}
			from = r.at + 1
			if r.at > to || r.Key != "" && !f(r) {
				from = to + 1 // what else was asked for is dropped with the subscription
				return true, nil
			}
			return false, nil
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// Made looks for a write of a context under an id and after a sequence of the bucket, also
// one that the bucket has not got any more. That there is none says little where the
// history has holes.
func (h *History) Made(ctx context.Context, context subjects.Token, id string, after uint64) (made bool, err error) {
	err = h.eachSince(ctx, context, after, func(r Record) bool {
		made = r.WriteID == id
		return !made
	})
	return made, err
}

// Touched is what was written to a context after one sequence of the bucket, up to another,
// also what the bucket has not got any more: what rewrites everything is left out, as
// compactions and conditional writes do. The error is unavailable until that is recorded.
func (h *History) Touched(ctx context.Context, context subjects.Token, after, upTo uint64) (list []Record, err error) {
	if err := h.Await(ctx, upTo); err != nil {
		return nil, err
	}
	err = h.eachSince(ctx, context, after, func(r Record) bool {
		if r.Seq > after && !r.skipped() && r.Compact == 0 && r.placeAt() == r.Seq {
			list = append(list, r)
		}
		return true
	})
	return list, err
}

// eachSince calls f for every write of a context that the history has from about a sequence
// of the bucket on, until f returns false.
func (h *History) eachSince(ctx context.Context, context subjects.Token, after uint64, f func(Record) bool) error {
	s, err := h.span(ctx)
	if err != nil || s.empty() {
		return err
	}
	from := s.first.at
	if r, ok, err := h.find(ctx, s, after); err != nil {
		return err
	} else if ok {
		from = r.at
	}
	return h.each(ctx, subjects.ContextKeys(context), from, s.last.at, f)
}

// newest reads the newest write of each key below a filter from one sequence of the
// history to another.
func (h *History) newest(ctx context.Context, filter subjects.Key, from, to uint64) (map[subjects.Key]Record, error) {
	entries := map[subjects.Key]Record{}
	err := h.lasts(ctx, []string{string(h.bucket.name.Subject(filter))}, from, to, entries)
	if !errors.Is(err, errTooMany) {
		return entries, err
	}
	names, err := h.names(ctx, filter)
	if err != nil {
		return nil, err
	}
	list := make([]string, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	slices.Sort(list)
	for chunk := range slices.Chunk(list, snapshotChunk) {
		if err := h.lasts(ctx, chunk, from, to, entries); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// lasts reads the newest write of each subject into entries.
func (h *History) lasts(ctx context.Context, list []string, from, to uint64, entries map[subjects.Key]Record) error {
	for from <= to {
		body, err := json.Marshal(multiLastRequest{MultiLast: list, Seq: from, UpTo: to, Batch: snapshotWhole + 1, MaxBytes: snapshotPage})
		if err != nil {
			return err
		}
		pending := uint64(0)
		err = h.direct(ctx, body, snapshotWhole+2, func(m *nats.Msg) (bool, error) {
			switch status(m) {
			case "204":
				pending, _ = strconv.ParseUint(m.Header.Get(hdrNumPending), 10, 64)
				return true, nil
			case "404":
				if d := m.Header.Get("Description"); d != noResults {
					return true, wire.Errorf(wire.Unavailable, "stream %s: direct get: %s", h.stream, d)
				}
				return true, nil
			case "413":
				return true, errTooMany
			}
			r, err := h.answer(m)
			if err == nil && r.Key != "" {
				entries[r.Key] = r
			}
			from = max(from, r.at+1)
			return false, err
		})
		if err != nil || pending == 0 {
			return err
		}
	}
	return nil
}

// holes finds what the history lacks between two records.
func (h *History) holes(ctx context.Context, a, b Record) (list []Hole, err error) {
	var look func(a, b Record) error
	look = func(a, b Record) error {
		n := (b.Seq - a.Seq) - (b.at - a.at)
		switch {
		case b.Seq <= a.Seq || b.Seq-a.Seq <= b.at-a.at:
			return nil
		case b.at == a.at+1 || len(list) >= maxHoles:
			list = append(list, Hole{From: a.Seq + 1, To: b.Seq - 1, Missing: n, Before: b})
			return nil
		}
		middle, err := h.record(ctx, a.at+(b.at-a.at)/2)
		if err == nil && middle.at >= b.at {
			err = wire.Errorf(wire.Unavailable, "stream %s: a replica has nothing between the sequences %d and %d", h.stream, a.at, b.at)
		}
		if err == nil {
			err = look(a, middle)
		}
		if err == nil {
			err = look(middle, b)
		}
		return err
	}
	return list, look(a, b)
}
