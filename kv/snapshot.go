package kv

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	snapshotTries = 3
	snapshotRetry = 200 * time.Millisecond
	// snapshotOthers is how often another answer is asked for at once when keys were
	// missing from one: a server picks the replica at random.
	snapshotOthers = 6
	// snapshotChunk keys are asked for at a time; the server allows 1,024.
	snapshotChunk = 512
	// snapshotWhole keys or fewer are read by their common filter, as of one
	// moment; a context has no more.
	snapshotWhole = 1000
	// directTimeout is how long a Direct Get waits for the next message of its answer.
	directTimeout = 2 * time.Second
	// snapshotPage bytes or a little more come at a time: the server closes a
	// connection that has more than its max_pending, 64 MiB, waiting.
	snapshotPage = 8 << 20
)

// Snapshot is every key below some filters as of one sequence.
type Snapshot struct {
	Entries map[subjects.Key]Entry
	// UpTo is the stream sequence up to which the snapshot is complete. Of
	// filters with more than 1,000 keys some entries may be newer.
	UpTo uint64
	// Last is the leader's last sequence, as it was before anything was read.
	Last uint64
	// Created tells one creation of the stream from another: a stream that was
	// made anew starts its sequences again.
	Created time.Time
}

// Tree is the fold of a snapshot of one context. whole is false if its keys were
// too many to be read as of one moment, so that nothing may be planned on it.
func (s Snapshot) Tree(context subjects.Token) (t *Tree, whole bool) {
	t, whole = NewTree(context), true
	entries := make([]Entry, 0, len(s.Entries))
	for _, e := range s.Entries {
		entries, whole = append(entries, e), whole && e.Seq <= s.UpTo
	}
	t.Apply(entries, nil)
	return t, whole
}

// Snapshot reads all keys below the filters, of which no key may match two. It
// returns only what the leader confirms to be complete; see the package
// documentation.
func (b *Bucket) Snapshot(ctx context.Context, filters ...subjects.Key) (Snapshot, error) {
	return b.snapshotOf(ctx, filters, func(Snapshot) error { return nil })
}

// snapshotOf is Snapshot, which ends before anything is read if counts says that what the
// leader has does not count.
func (b *Bucket) snapshotOf(ctx context.Context, filters []subjects.Key, counts func(leader Snapshot) error) (Snapshot, error) {
	var last error
	var has *listed
	for try, others := 0, 0; try < snapshotTries; {
		if has == nil {
			var err error
			if has, err = b.listed(ctx, filters); err != nil {
				return Snapshot{}, err
			}
			if err := counts(has.leader); err != nil {
				return Snapshot{}, err
			}
		}
		s, err := b.snapshot(ctx, filters, has)
		short, ok := errors.AsType[*missingError](err)
		if !ok || !short.late {
			has = nil // only one that is late is asked for the same again: the leader is ahead by then
		}
		switch {
		case err == nil:
			if last = b.checkAhead(ctx, s); last == nil {
				return s, nil
			}
		case errors.Is(err, errUnreadable):
			short = &missingError{why: err.Error(), keys: true}
		case !ok:
			return Snapshot{}, err
		}
		if short != nil {
			last = b.short(ctx, s, short)
			if short.keys && others < snapshotOthers {
				others++
				continue
			}
		}
		if try++; try < snapshotTries && !pause(ctx, snapshotRetry<<try) {
			break
		}
	}
	return Snapshot{}, last
}

// short is the error that a replica has answered with less than the leader has. If that
// can be held against it all are audited, and the next attempt gets past it.
func (b *Bucket) short(ctx context.Context, s Snapshot, missing *missingError) error {
	err := error(wire.Errorf(wire.Unavailable, "stream %s: a replica answers with less than the leader has (%v)", b.name.Stream(), missing))
	b.health.doubt()
	info, infoErr := b.info(ctx)
	unchanged := infoErr == nil && info.State.LastSeq == s.Last // or it may be late
	if unchanged {
		err = shortError{err}
	}
	if b.keeps && (unchanged || missing.keys) {
		b.audit(ctx, true)
	}
	return err
}

// checkAhead is an error if a replica has more than the leader, unless the leader has
// got it by now, too.
func (b *Bucket) checkAhead(ctx context.Context, s Snapshot) error {
	if !b.keeps || s.UpTo <= s.Last {
		return nil
	}
	info, err := b.info(ctx)
	if err != nil {
		return err
	}
	if info.State.LastSeq < s.UpTo && info.Created.Equal(s.Created) {
		return b.newTailError(info.State.LastSeq, s.UpTo)
	}
	return nil
}

// missingError is why what a replica has answered does not count.
type missingError struct {
	why string
	// keys says that it has not got some, or cannot read them: to be late does not
	// explain that, or only for a moment.
	keys bool
	// late says that it has not got that far.
	late bool
}

func (e *missingError) Error() string { return e.why }

// listed is what the leader has below some filters.
type listed struct {
	leader Snapshot // without entries
	keys   []subjects.Key
}

func (b *Bucket) listed(ctx context.Context, filters []subjects.Key) (*listed, error) {
	l := &listed{}
	for i, filter := range filters {
		info, below, err := b.list(ctx, filter)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			l.leader = Snapshot{UpTo: info.State.LastSeq, Last: info.State.LastSeq, Created: info.Created}
		}
		l.keys = append(l.keys, below...)
	}
	return l, nil
}

// snapshot makes one attempt to read what the leader has; a missingError is that it does
// not count.
func (b *Bucket) snapshot(ctx context.Context, filters []subjects.Key, has *listed) (s Snapshot, err error) {
	s, keys := has.leader, has.keys
	s.Entries = map[subjects.Key]Entry{}
	if n := len(keys); n > 0 && n <= snapshotWhole {
		return s, b.whole(ctx, filters, keys, &s)
	}
	keys = slices.Sorted(slices.Values(keys))
	for chunk := range slices.Chunk(keys, snapshotChunk) {
		upTo, err := b.multiLast(ctx, b.subjects(chunk), len(chunk), s.Entries)
		if err != nil {
			return s, err
		}
		if upTo < s.UpTo {
			return s, &missingError{why: behind(upTo, s.UpTo), late: true}
		}
	}
	if len(s.Entries) < len(keys) {
		return s, &missingError{why: strconv.Itoa(len(s.Entries)) + " of " + strconv.Itoa(len(keys)) + " keys", keys: true}
	}
	return s, nil
}

// subjects are the filters as the server knows them.
func (b *Bucket) subjects(filters []subjects.Key) []string {
	list := make([]string, len(filters))
	for i, filter := range filters {
		list[i] = string(b.name.Subject(filter))
	}
	return list
}

// whole reads all keys below the filters as of one moment. The leader has keys,
// and had written up to s.UpTo.
func (b *Bucket) whole(ctx context.Context, filters, keys []subjects.Key, s *Snapshot) error {
	entries, upTo, err := b.lastOf(ctx, filters, 0, len(keys))
	switch {
	case errors.Is(err, errTooMany):
		return &missingError{why: "more than " + strconv.Itoa(snapshotWhole) + " keys by now"}
	case err != nil:
		return err
	case upTo < s.UpTo:
		return &missingError{why: behind(upTo, s.UpTo), late: true}
	case upTo == nothing:
		return &missingError{why: "none of " + strconv.Itoa(len(keys)) + " keys", keys: true}
	}
	for _, key := range keys {
		if _, ok := entries[key]; !ok {
			return &missingError{why: "not the key " + string(key), keys: true}
		}
	}
	s.Entries, s.UpTo = entries, upTo
	if why := cut(*s); why != "" {
		return &missingError{why: why}
	}
	return nil
}

// since reads the keys below the filters that were written after a sequence, as
// of one moment, from any replica of the stream; missing says why the answer
// does not count. keys is how many there are, as far as is known.
func (b *Bucket) since(ctx context.Context, filters []subjects.Key, after uint64, keys int) (s Snapshot, missing string, err error) {
	s.Entries, s.UpTo, err = b.lastOf(ctx, filters, after, keys)
	switch {
	case errors.Is(err, errTooMany):
		return s, "many keys", nil
	case err != nil:
		return s, "", err
	case s.UpTo == nothing:
		return s, "no key at all", nil
	}
	return s, cut(s), nil
}

// cut says whether a snapshot ends inside of a batch.
func cut(s Snapshot) string {
	for _, e := range s.Entries {
		if e.Seq == s.UpTo && e.Batch != "" && !e.Commit {
			return "a part of a batch"
		}
	}
	return ""
}

func behind(upTo, last uint64) string {
	return "up to sequence " + strconv.FormatUint(upTo, 10) + " of " + strconv.FormatUint(last, 10)
}

type multiLastRequest struct {
	MultiLast []string `json:"multi_last"`
	Seq       uint64   `json:"seq,omitempty"`
	UpTo      uint64   `json:"up_to_seq,omitempty"`
	Batch     int      `json:"batch"`
	MaxBytes  int      `json:"max_bytes"`
}

// nothing is the sequence up to which a replica read that found nothing.
const nothing = ^uint64(0)

// noResults is what the server says when no key matches at all.
const noResults = "No Results"

// errTooMany is the server's refusal of a filter that matches too many keys.
var errTooMany = errors.New("too many keys")

// multiLast reads the newest entry of each subject into entries and returns
// the sequence up to which the answering replica read.
func (b *Bucket) multiLast(ctx context.Context, subjs []string, most int, entries map[subjects.Key]Entry) (uint64, error) {
	return b.pages(ctx, multiLastRequest{MultiLast: subjs, Batch: most, MaxBytes: snapshotPage}, entries)
}

func (b *Bucket) pages(ctx context.Context, req multiLastRequest, entries map[subjects.Key]Entry) (uint64, error) {
	for {
		body, err := json.Marshal(req)
		if err != nil {
			return 0, err
		}
		last, upTo, pending, err := b.page(ctx, body, entries)
		if err != nil {
			return 0, err
		}
		if pending == 0 {
			return upTo, nil
		}
		req.Seq, req.UpTo = last+1, upTo
	}
}

// page reads one answer of Direct Get up to its end-of-batch message, from a replica
// that is not known to be damaged.
func (b *Bucket) page(ctx context.Context, body []byte, entries map[subjects.Key]Entry) (last, upTo, pending uint64, err error) {
	if !b.health.choosy() {
		return b.answers(entries, func(h func(*nats.Msg) (bool, error)) error {
			return b.direct(ctx, string(b.name.DirectGet()), body, snapshotWhole+2, h)
		})
	}
	for range choiceTries {
		server, some := "", map[subjects.Key]Entry{}
		last, upTo, pending, err = b.answers(some, func(h func(*nats.Msg) (bool, error)) (err error) {
			server, err = b.directFrom(ctx, string(b.name.DirectGet()), body, snapshotWhole+2, h)
			return err
		})
		switch {
		case b.health.takes(server):
			maps.Copy(entries, some)
			return last, upTo, pending, err
		case ctx.Err() != nil:
			return 0, 0, 0, ctx.Err()
		}
	}
	return 0, 0, 0, wire.Errorf(wire.Unavailable, "stream %s: only a damaged replica answers", b.name.Stream())
}

// answers reads the answers that ask gets.
func (b *Bucket) answers(entries map[subjects.Key]Entry, ask func(func(*nats.Msg) (bool, error)) error) (last, upTo, pending uint64, err error) {
	err = ask(func(m *nats.Msg) (bool, error) {
		switch status(m) {
		case "204":
			upTo, _ = strconv.ParseUint(m.Header.Get(hdrUpTo), 10, 64)
			pending, _ = strconv.ParseUint(m.Header.Get(hdrNumPending), 10, 64)
			return true, nil
		case "404":
			if d := m.Header.Get("Description"); d != noResults {
				return true, wire.Errorf(wire.Unavailable, "direct get: %s (%w)", d, errUnreadable)
			}
			// Nothing matches on this replica: complete only if the leader
			// has nothing either, which the caller's key count decides.
			upTo, pending = nothing, 0
			return true, nil
		case "413":
			return true, errTooMany
		}
		e, err := b.answer(m)
		last = max(last, e.Seq)
		if e.Key == "" && errors.Is(err, subjects.ErrBadName) {
			return false, nil // a client put it at a subject that is no key
		}
		entries[e.Key] = e
		return false, err
	})
	if err == nil && pending > 0 && last == 0 {
		err = wire.Errorf(wire.Unavailable, "direct get: an empty page with %d keys to come", pending)
	}
	return last, upTo, pending, err
}

// direct sends a Direct Get request and gives h its at most limit answers until
// h says that it was the last.
func (b *Bucket) direct(ctx context.Context, subject string, body []byte, limit int, h func(*nats.Msg) (done bool, err error)) error {
	return b.directOf(ctx, b.name.Stream(), subject, body, limit, h)
}

// directOf is direct for another stream of the realm.
func (b *Bucket) directOf(ctx context.Context, stream, subject string, body []byte, limit int, h func(*nats.Msg) (done bool, err error)) error {
	return b.ask(ctx, stream, &nats.Msg{Subject: subject, Data: body}, limit, h)
}

// ask is directOf with a message of the caller's.
func (b *Bucket) ask(ctx context.Context, stream string, request *nats.Msg, limit int, h func(*nats.Msg) (done bool, err error)) error {
	nc := b.link.Conn()
	err := b.link.Do(ctx, request.Subject, func(ctx context.Context) error {
		inbox := nc.NewInbox()
		// A channel: the client library's other ways to wait take a stored
		// message that has the header "Status: 503" for its own error.
		answers := make(chan *nats.Msg, limit)
		sub, err := nc.ChanSubscribe(inbox, answers)
		if err != nil {
			return err
		}
		defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is gone
		request.Reply = inbox
		if err := nc.PublishMsg(request); err != nil {
			return err
		}
		// An answer is lost with the connection, or with the replica that was asked.
		silence := time.NewTimer(directTimeout)
		defer silence.Stop()
		for {
			select {
			case m := <-answers:
				if done, err := h(m); done || err != nil {
					return err
				}
				silence.Reset(directTimeout)
			case <-silence.C:
				return nats.ErrTimeout
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	if err != nil {
		return typed(err, stream, b.realm)
	}
	return nil
}

// status is the status of a message that the server made itself, and "" for a
// stored one, whose writer can have given it any header.
func status(m *nats.Msg) string {
	if m.Header.Get(hdrSubject) != "" {
		return ""
	}
	return m.Header.Get(hdrStatus)
}

// answer reads a stored message that must be one.
func (b *Bucket) answer(m *nats.Msg) (Entry, error) {
	switch s := status(m); {
	case s == "" && m.Header.Get(hdrSequence) == "": // its headers were lost between servers that do not know each other yet
		return Entry{}, wire.Errorf(wire.Unavailable, "direct get: an answer of stream %s without headers", b.name.Stream())
	case s == "":
		return b.entry(m)
	case s == "503":
		return Entry{}, wire.Errorf(wire.Unavailable, "no replica of stream %s answers", b.name.Stream())
	default:
		return Entry{}, wire.Errorf(wire.Unavailable, "direct get: status %s %s", s, m.Header.Get("Description"))
	}
}

// Last is the highest sequence of any key below filter, 0 for none: a digest
// that tells a reader whether it missed a write. The answer may come from a
// replica that lags.
func (b *Bucket) Last(ctx context.Context, filter subjects.Key) (uint64, error) {
	body, err := json.Marshal(map[string]string{"last_by_subj": string(b.name.Subject(filter))})
	if err != nil {
		return 0, err
	}
	var seq uint64
	err = b.direct(ctx, string(b.name.DirectGet()), body, 1, func(m *nats.Msg) (bool, error) {
		if status(m) == "404" {
			return true, nil
		}
		e, err := b.answer(m)
		seq = e.Seq
		return true, err
	})
	return seq, err
}
