package kv

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// ErrUnknown is in the chain of an error of [Bucket.Commit] when the writes may
// have been made, or may still be. [Bucket.Committed] finds out; to commit
// the same writes again under the same id is safe for [CommitMemory].
var ErrUnknown = errors.New("whether it was written is not known")

// CommitMemory is how long the server tells a repeated commit by its id; an
// operator may set it longer.
const CommitMemory = dedupe

const (
	// commitTimeout bounds one attempt: what was sent while the stream changed its
	// leader is lost, and to ask again under the same id is safe.
	commitTimeout = 2 * time.Second
	commitRetries = 20
	commitBackoff = 10 * time.Millisecond
	// maxRevisions bounds the search of a key's revisions.
	maxRevisions = 4 * revisions
)

// Errors of the JetStream API that nats.go has no name for.
const (
	errDuplicateInProcess = 10158
	errBatchIncomplete    = 10176
	errBatchDuplicate     = 10201
	errBatchesInflight    = 10210
)

// Commit makes writes under one id, all or none, and returns the sequence of
// the first; the others follow it without a gap. Each key may occur once. The
// error is bad-revision when a condition does not hold, storage-full, limit,
// denied, unavailable, or offline; with [ErrUnknown] in its chain the writes may
// have been made.
func (b *Bucket) Commit(ctx context.Context, id string, writes []Write) (first uint64, err error) {
	if err := b.checkWrites(writes); err != nil {
		return 0, err
	}
	if broken == "ack" && unsent.Add(1)%10 == 0 {
		return 1, nil
	}
	for try := 0; ; try++ {
		var last uint64
		if len(writes) == 1 {
			last, err = b.attempt(ctx, b.message(id, &writes[0]))
		} else {
			last, err = b.attemptBatch(ctx, id, writes)
		}
		if err == nil {
			return last - uint64(len(writes)) + 1, nil
		}
		if api, ok := errors.AsType[*jetstream.APIError](err); ok {
			switch api.ErrorCode {
			case errBatchesInflight, errBatchIncomplete:
				if try < commitRetries && pause(ctx, commitBackoff<<min(try, 4)) {
					continue
				}
				return 0, wire.Errorf(wire.Busy, "stream %s: %w", b.name.Stream(), err)
			case errBatchDuplicate:
				if first, err := b.remembered(ctx, id, &writes[0]); err == nil {
					return first, nil
				}
				return 0, errors.Join(err, ErrUnknown)
			case errDuplicateInProcess:
				return 0, errors.Join(err, ErrUnknown)
			}
		}
		return 0, err
	}
}

// jittered is up to d, not always the same.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// pause waits for up to d, not always the same time; false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool { return rest(ctx, jittered(d)) }

// rest waits for d; false when ctx has ended.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *Bucket) checkWrites(writes []Write) error {
	if len(writes) == 0 || len(writes) > MaxBatch {
		return wire.Errorf(wire.Limit, "%d writes in one batch, the limit is %d", len(writes), MaxBatch)
	}
	for i := range writes {
		if err := wire.CheckSize(string(writes[i].Key), len(writes[i].Value), b.link.MaxPayload()); err != nil {
			return err
		}
	}
	return nil
}

// message is a write as it is published.
func (b *Bucket) message(id string, w *Write) *nats.Msg {
	h := nats.Header{hdrMsgID: {id + "." + string(w.Key)}, wire.HeaderOp: {id}}
	if w.Name != "" {
		h[wire.HeaderName] = []string{subjects.EscapeName(w.Name)}
	}
	if w.By != "" {
		h[wire.HeaderBy] = []string{w.By}
	}
	if who := w.Who.header(); who != "" {
		h[wire.HeaderWho] = []string{who}
	}
	if now, ok := b.ServerTime(); ok {
		h[wire.HeaderTime] = []string{now.UTC().Round(time.Millisecond).Format(time.RFC3339Nano)}
	}
	switch w.Op {
	case Delete:
		h[hdrOperation] = []string{"DEL"}
	case Purge:
		h[hdrOperation], h[hdrRollup] = []string{"PURGE"}, []string{"sub"}
	case Put:
		if w.Format == wire.JSON {
			h[wire.HeaderContentType] = []string{wire.JSON.ContentType()}
		}
	}
	if w.AsOf > 0 {
		h[wire.HeaderAsOf] = []string{strconv.FormatUint(w.AsOf, 10)}
	}
	if w.Compact > 0 {
		h[wire.HeaderCompact] = []string{strconv.FormatUint(w.Compact, 10)}
	}
	if w.Read > 0 {
		h[wire.HeaderRead] = []string{strconv.FormatUint(w.Read, 10)}
	}
	if w.Seen > 0 {
		h[wire.HeaderSeen] = []string{strconv.FormatUint(w.Seen, 10)}
	}
	if w.TTL > 0 {
		h[hdrTTL] = []string{w.TTL.String()}
	}
	if w.If != nil {
		h[hdrExpected] = []string{strconv.FormatUint(*w.If, 10)}
	}
	return &nats.Msg{Subject: string(b.name.Subject(w.Key)), Data: w.Value, Header: h}
}

// attemptBatch is attempt for several messages. The client library has no batches.
func (b *Bucket) attemptBatch(ctx context.Context, id string, writes []Write) (last uint64, err error) {
	batch := nats.NewInbox()[len(nats.InboxPrefix):] // a new one for every attempt
	for i := range writes {
		msg := b.message(id, &writes[i])
		msg.Header[hdrBatch], msg.Header[hdrBatchSeq] = []string{batch}, []string{strconv.Itoa(i + 1)}
		if i == len(writes)-1 {
			msg.Header[hdrBatchCommit] = []string{"1"}
			return b.attempt(ctx, msg)
		}
		if err := b.link.Online(); err != nil {
			return 0, err
		}
		if err := b.link.Publish(msg); err != nil {
			return 0, typed(err, b.name.Stream(), b.realm) // what has no end is not written
		}
	}
	return 0, nil
}

// remembered asks the server for the sequence of a write that it has just refused
// to make twice. The keys need not tell: a compaction may have purged them since.
// The condition, which the server checks after the id, cannot hold, so that nothing
// is written if it should have forgotten the id by now.
func (b *Bucket) remembered(ctx context.Context, id string, w *Write) (uint64, error) {
	return b.attempt(ctx, &nats.Msg{Subject: string(b.name.Subject(w.Key)), Header: nats.Header{
		hdrMsgID: {id + "." + string(w.Key)}, hdrExpectedLastID: {"none"},
	}})
}

// attempt publishes once. Unless the error says that nothing was written it has
// [ErrUnknown] in its chain.
func (b *Bucket) attempt(ctx context.Context, msg *nats.Msg) (last uint64, err error) {
	if err := b.link.Online(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	last, err = b.publish(ctx, msg)
	if err == nil {
		return last, nil
	}
	_, refused := errors.AsType[*jetstream.APIError](err)
	if refused || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, wire.ErrDenied) || errors.Is(err, wire.ErrLimit) || errors.Is(err, wire.ErrOffline) {
		return 0, err
	}
	return 0, errors.Join(err, ErrUnknown)
}

// Committed says whether writes were made under id, and the sequence of the
// first. after is a sequence that is older than the commit. What was made and
// has been overwritten since is found among the revisions that the bucket keeps.
func (b *Bucket) Committed(ctx context.Context, id string, writes []Write, after uint64) (first uint64, ok bool, err error) {
	k, known := writes[0].Key.Context()
	if !known {
		return 0, false, wire.Errorf(wire.BadName, "%q is not a key of a context", writes[0].Key)
	}
	s, err := b.Snapshot(ctx, subjects.ContextKeys(k.Context))
	if err != nil {
		return 0, false, err
	}
	for i := range writes {
		if e, found := s.Entries[writes[i].Key]; found && e.WriteID == id {
			return e.Seq - uint64(i), true, nil
		}
	}
	for i := range writes {
		seq, err := b.revision(ctx, writes[i].Key, id, after)
		if err != nil || seq > 0 {
			return seq - uint64(i), seq > 0, err
		}
	}
	return 0, false, nil
}

// Fence makes sure that what was sent under an id, the first write of it to key, is not
// made any more: it may wait in a server that stood still. made says that it was made
// before, at seq. It is of use for [CommitMemory] after the writes were sent.
//
// It is a message under the same id at a key that no context has, of the id's own so that
// no other fence takes its place, which expires.
func (b *Bucket) Fence(ctx context.Context, node subjects.Node, id string, key subjects.Key) (seq uint64, made bool, err error) {
	at, _ := subjects.ContextPath(subjects.Token{}, []string{"fence", string(node), id})
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	ack, err := b.publishAck(ctx, &nats.Msg{Subject: string(b.name.Subject(at)), Header: nats.Header{
		hdrMsgID: {id + "." + string(key)}, wire.HeaderOp: {id}, hdrOperation: {"PURGE"}, hdrTTL: {markerTTL.String()},
	}})
	if err != nil {
		return 0, false, err
	}
	if !ack.Duplicate {
		return ack.Sequence, false, nil
	}
	// It was made, or this is not the first attempt: what was stored there tells. What is
	// not there any more was made and purged since, or the replica that answers lacks it.
	for range snapshotTries {
		if e, ok, err := b.writeAt(ctx, ack.Sequence); ok || err != nil {
			return ack.Sequence, ok && e.Key != at, err
		}
		if !pause(ctx, snapshotRetry) {
			break
		}
	}
	r, err := b.history.recordOf(ctx, ack.Sequence)
	return ack.Sequence, err == nil && r.Key != at, err
}

// Between says whether a key was written after one sequence and before another,
// compactions not counted, as far as its kept revisions tell.
func (b *Bucket) Between(ctx context.Context, key subjects.Key, after, before uint64) (bool, error) {
	for range maxRevisions {
		e, err := b.next(ctx, key, after)
		if err != nil || e.Seq <= after || e.Seq >= before {
			return false, err
		}
		if e.Compact == 0 {
			return true, nil
		}
		after = e.Seq
	}
	return true, nil
}

// next reads the first kept write of a key after a sequence; an empty entry for none.
func (b *Bucket) next(ctx context.Context, key subjects.Key, after uint64) (e Entry, err error) {
	body, err := json.Marshal(map[string]any{"seq": after + 1, "next_by_subj": b.name.Subject(key)})
	if err != nil {
		return Entry{}, err
	}
	err = b.direct(ctx, string(b.name.DirectGet()), body, 1, func(m *nats.Msg) (bool, error) {
		if status(m) == "404" {
			return true, nil
		}
		e, err = b.answer(m)
		return true, err
	})
	return e, err
}

// revision looks for a write under id among the kept revisions of a key.
func (b *Bucket) revision(ctx context.Context, key subjects.Key, id string, after uint64) (seq uint64, err error) {
	for range maxRevisions {
		e, err := b.next(ctx, key, after)
		switch {
		case err != nil || e.Seq <= after:
			return 0, err
		case e.WriteID == id:
			return e.Seq, nil
		}
		after = e.Seq
	}
	return 0, nil
}
