package kv

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
)

const (
	// lanes is how many requests of a kind a bucket makes at a time: what more of them ask
	// a server waits there, for longer than an answer may take.
	lanes = 4
	// joinFrom is how many questions about contexts have to wait until the leader is asked
	// for all keys of the bucket, and listingKeys how many of them it may have for each.
	joinFrom    = 8
	listingKeys = 100
	// maxListing bounds that; the server tells no more than 100,000 at a time.
	maxListing = 50_000
	// joinKeys is how many keys are read by one request for several contexts. The server
	// writes nothing while it reads them.
	joinKeys = 256
)

// joiner puts questions that wait together into one request. Q is a question, which its
// answer is put into.
type joiner[Q any] struct {
	// take picks from those that wait the first, and what the same request answers.
	take func(waiting []*asking[Q]) (taken, left []*asking[Q])
	// serve answers them all; those that it returns are asked again before others.
	serve func(ctx context.Context, taken []*asking[Q]) (again []*asking[Q])

	mu      sync.Mutex
	waiting []*asking[Q]
	busy    int // lanes
}

// asking is a question that somebody waits for.
type asking[Q any] struct {
	q    Q
	ctx  context.Context
	done chan struct{}
}

// ask returns the answered question, or an error when ctx has ended. The request for it is
// made after the call.
func (j *joiner[Q]) ask(ctx context.Context, q Q) (Q, error) {
	a := &asking[Q]{q, ctx, make(chan struct{})}
	j.mu.Lock()
	j.waiting = append(j.waiting, a)
	if j.busy < lanes {
		j.busy++
		go j.run()
	}
	j.mu.Unlock()
	select {
	case <-a.done:
		return a.q, nil
	case <-ctx.Done():
		return q, ctx.Err()
	}
}

// run makes requests until nobody waits.
func (j *joiner[Q]) run() {
	for {
		j.mu.Lock()
		j.waiting = slices.DeleteFunc(j.waiting, func(a *asking[Q]) bool { return a.ctx.Err() != nil })
		if len(j.waiting) == 0 {
			j.busy--
			j.mu.Unlock()
			return
		}
		var taken []*asking[Q]
		taken, j.waiting = j.take(j.waiting)
		j.mu.Unlock()
		again := j.answer(taken)
		j.mu.Lock()
		j.waiting = append(again, j.waiting...)
		for range min(lanes-j.busy, len(again)) {
			j.busy++
			go j.run()
		}
		j.mu.Unlock()
	}
}

// answer makes one request, which ends when nobody waits for it any more.
func (j *joiner[Q]) answer(taken []*asking[Q]) (again []*asking[Q]) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var waiting atomic.Int64
	waiting.Store(int64(len(taken)))
	for _, a := range taken {
		defer context.AfterFunc(a.ctx, func() {
			if waiting.Add(-1) == 0 {
				cancel()
			}
		})()
	}
	again = j.serve(ctx, taken)
	for _, a := range taken {
		if !slices.Contains(again, a) {
			close(a.done)
		}
	}
	return again
}

// wholeOf says whether a filter matches all keys of one context, and their first token.
func wholeOf(filter subjects.Key) (first string, ok bool) {
	first, ok = strings.CutSuffix(string(filter), ".>")
	return first, ok && !strings.ContainsAny(first, ".*>")
}

// firstOf is the first token of a key.
func firstOf(key subjects.Key) string {
	first, _, _ := strings.Cut(string(key), ".")
	return first
}

// listing asks the leader about the stream, and which keys it has below a filter.
type listing struct {
	filter subjects.Key // "" for none
	info   *jetstream.StreamInfo
	keys   []subjects.Key
	err    error
}

func (b *Bucket) takeListings(waiting []*asking[listing]) (taken, left []*asking[listing]) {
	joins := func(a *asking[listing]) bool {
		_, ok := wholeOf(a.q.filter)
		return ok || a.q.filter == ""
	}
	n := 0
	for _, a := range waiting {
		if a.q.filter != "" && joins(a) {
			n++
		}
	}
	first := waiting[0]
	all := joins(first) && n >= joinFrom && b.keys.Load() >= 0 && b.keys.Load() <= int64(min(maxListing, listingKeys*n))
	for _, a := range waiting {
		if all && joins(a) || a.q.filter == first.q.filter {
			taken = append(taken, a)
		} else {
			left = append(left, a)
		}
	}
	return taken, left
}

func (b *Bucket) serveListings(ctx context.Context, taken []*asking[listing]) (again []*asking[listing]) {
	filter := taken[0].q.filter
	all := slices.ContainsFunc(taken, func(a *asking[listing]) bool { return a.q.filter != filter })
	var subject subjects.Subject
	switch {
	case all:
		subject = b.name.Subject(">")
	case filter != "":
		subject = b.name.Subject(filter)
	}
	info, err := b.infoOf(ctx, subjects.Stream(b.name.Stream()), subject, 0)
	if err != nil {
		for _, a := range taken {
			a.q.err = err
		}
		return nil
	}
	b.keys.Store(int64(info.State.NumSubjects))
	if all && info.State.NumSubjects > maxListing {
		return taken // many were added since, and the server may not have told all
	}
	below := map[string][]subjects.Key{}
	for subject := range info.State.Subjects {
		if key, err := b.keyOf(subjects.Subject(subject)); err == nil { // or nobody can read it
			first := ""
			if all {
				first = firstOf(key)
			}
			below[first] = append(below[first], key)
		}
	}
	info.State.Subjects = nil
	for _, a := range taken {
		first := ""
		if all {
			first, _ = wholeOf(a.q.filter)
		}
		if a.q.info = info; a.q.filter != "" {
			a.q.keys = below[first]
		}
	}
	return nil
}

// list asks the leader about the stream, and which keys it has below a filter; "" for none.
// Neither may be changed.
func (b *Bucket) list(ctx context.Context, filter subjects.Key) (*jetstream.StreamInfo, []subjects.Key, error) {
	l, err := b.listings.ask(ctx, listing{filter: filter})
	if err != nil {
		return nil, nil, typed(link.Typed(err), b.name.Stream(), b.realm)
	}
	return l.info, l.keys, l.err
}

// lasts asks any replica for the newest entries of the keys below filters that were written
// after a sequence, as of one moment.
type lasts struct {
	filters []subjects.Key
	after   uint64
	keys    int // as far as is known, how many there are
	alone   bool
	entries map[subjects.Key]Entry
	upTo    uint64
	err     error
}

// first is the first token of the keys, if they can be read with those of others.
func (q *lasts) first() (first string, ok bool) {
	if q.alone || len(q.filters) != 1 {
		return "", false
	}
	return wholeOf(q.filters[0])
}

// joins says whether one request reads both: everything, or what is new.
func (q *lasts) joins(other *lasts) bool {
	_, ok := q.first()
	_, too := other.first()
	return ok && too && (q.after == 0) == (other.after == 0)
}

func takeLasts(waiting []*asking[lasts]) (taken, left []*asking[lasts]) {
	keys := 0
	for i, a := range waiting {
		if i > 0 && (keys+a.q.keys > joinKeys || !waiting[0].q.joins(&a.q)) {
			left = append(left, a)
			continue
		}
		taken = append(taken, a)
		keys += a.q.keys
	}
	return taken, left
}

func (b *Bucket) serveLasts(ctx context.Context, taken []*asking[lasts]) (again []*asking[lasts]) {
	req := multiLastRequest{Seq: taken[0].q.after, Batch: snapshotWhole + 1, MaxBytes: snapshotPage}
	var filters []subjects.Key
	for _, a := range taken {
		req.Seq = min(req.Seq, a.q.after)
		filters = append(filters, a.q.filters...)
	}
	slices.Sort(filters)
	req.MultiLast = b.subjects(slices.Compact(filters))
	req.Seq++
	entries := map[subjects.Key]Entry{}
	upTo, err := b.pages(ctx, req, entries)
	if len(taken) == 1 {
		q := &taken[0].q
		q.entries, q.upTo, q.err = entries, upTo, err
		return nil
	}
	if errors.Is(err, errTooMany) {
		for _, a := range taken {
			a.q.alone = true
		}
		return taken
	}
	below := map[string][]Entry{}
	for key, e := range entries {
		first := firstOf(key)
		below[first] = append(below[first], e)
	}
	for _, a := range taken {
		first, _ := a.q.first()
		a.q.entries, a.q.upTo, a.q.err = map[subjects.Key]Entry{}, upTo, err
		for _, e := range below[first] {
			if e.Seq > a.q.after {
				a.q.entries[e.Key] = e
			}
		}
	}
	return nil
}

// lastOf reads the newest entries of the keys below filters that were written after a
// sequence, and returns the sequence up to which the answering replica read. keys is how
// many there are, as far as is known.
func (b *Bucket) lastOf(ctx context.Context, filters []subjects.Key, after uint64, keys int) (map[subjects.Key]Entry, uint64, error) {
	q, err := b.reads.ask(ctx, lasts{filters: filters, after: after, keys: keys})
	if err != nil {
		return nil, 0, typed(link.Typed(err), b.name.Stream(), b.realm)
	}
	return q.entries, q.upTo, q.err
}
