package kv

import (
	"context"
	"encoding/json"
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
	// snapshotChunk keys are asked for at a time; the server allows 1,024.
	snapshotChunk = 512
	// snapshotPage bytes or a little more come at a time: the server closes a
	// connection that has more than its max_pending, 64 MiB, waiting.
	snapshotPage = 8 << 20
)

// Snapshot is every key below a filter as of one sequence.
type Snapshot struct {
	Entries map[subjects.Key]Entry
	// UpTo is the stream sequence up to which the snapshot is complete.
	UpTo uint64
	// Created tells one creation of the stream from another: a stream that was
	// made anew starts its sequences again.
	Created time.Time
}

// Snapshot reads all keys below filter. It returns only what the leader
// confirms to be complete; see the package documentation.
func (b *Bucket) Snapshot(ctx context.Context, filter subjects.Key) (Snapshot, error) {
	var last error
	for try := range snapshotTries {
		if try > 0 {
			select {
			case <-time.After(snapshotRetry << try):
			case <-ctx.Done():
				return Snapshot{}, last
			}
		}
		s, missing, err := b.snapshot(ctx, filter)
		if err != nil {
			return Snapshot{}, err
		}
		if missing == "" {
			return s, nil
		}
		last = wire.Errorf(wire.Unavailable, "stream %s: a replica answers with less than the leader has (%s)", b.name.Stream(), missing)
	}
	return Snapshot{}, last
}

// snapshot makes one attempt; missing says why it does not count.
func (b *Bucket) snapshot(ctx context.Context, filter subjects.Key) (s Snapshot, missing string, err error) {
	info, err := b.info(ctx, string(b.name.Subject(filter)))
	if err != nil {
		return s, "", err
	}
	s = Snapshot{Entries: map[subjects.Key]Entry{}, UpTo: info.State.LastSeq, Created: info.Created}
	keys := slices.Sorted(maps.Keys(info.State.Subjects))
	for chunk := range slices.Chunk(keys, snapshotChunk) {
		upTo, err := b.multiLast(ctx, chunk, s.Entries)
		if err != nil {
			return s, "", err
		}
		if upTo < info.State.LastSeq {
			return s, "up to sequence " + strconv.FormatUint(upTo, 10) + " of " + strconv.FormatUint(info.State.LastSeq, 10), nil
		}
	}
	if len(s.Entries) < len(keys) {
		return s, strconv.Itoa(len(s.Entries)) + " of " + strconv.Itoa(len(keys)) + " keys", nil
	}
	return s, "", nil
}

type multiLastRequest struct {
	MultiLast []string `json:"multi_last"`
	Seq       uint64   `json:"seq,omitempty"`
	UpTo      uint64   `json:"up_to_seq,omitempty"`
	Batch     int      `json:"batch"`
	MaxBytes  int      `json:"max_bytes"`
}

// multiLast reads the newest entry of each subject into entries and returns
// the sequence up to which the answering replica read.
func (b *Bucket) multiLast(ctx context.Context, subjs []string, entries map[subjects.Key]Entry) (uint64, error) {
	req := multiLastRequest{MultiLast: subjs, Batch: len(subjs), MaxBytes: snapshotPage}
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

// page reads one answer of Direct Get up to its end-of-batch message.
func (b *Bucket) page(ctx context.Context, body []byte, entries map[subjects.Key]Entry) (last, upTo, pending uint64, err error) {
	err = b.direct(ctx, string(b.name.DirectGet()), body, snapshotChunk+1, func(m *nats.Msg) (bool, error) {
		switch status(m) {
		case "204":
			upTo, _ = strconv.ParseUint(m.Header.Get(hdrUpTo), 10, 64)
			pending, _ = strconv.ParseUint(m.Header.Get(hdrNumPending), 10, 64)
			return true, nil
		case "404":
			// Nothing matches on this replica: complete only if the leader
			// has nothing either, which the caller's key count decides.
			upTo, pending = ^uint64(0), 0
			return true, nil
		}
		e, err := b.answer(m)
		entries[e.Key] = e
		last = max(last, e.Seq)
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
	nc := b.link.Conn()
	err := b.link.Do(ctx, subject, func(ctx context.Context) error {
		inbox := nc.NewInbox()
		// A channel: the client library's other ways to wait take a stored
		// message that has the header "Status: 503" for its own error.
		answers := make(chan *nats.Msg, limit)
		sub, err := nc.ChanSubscribe(inbox, answers)
		if err != nil {
			return err
		}
		defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is gone
		if err := nc.PublishMsg(&nats.Msg{Subject: subject, Reply: inbox, Data: body}); err != nil {
			return err
		}
		for {
			select {
			case m := <-answers:
				if done, err := h(m); done || err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	if err != nil {
		return typed(err, b.name.Stream(), b.realm)
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
	switch s := status(m); s {
	case "":
		return b.entry(m)
	case "503":
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
