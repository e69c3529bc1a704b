package kv

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
)

// NewStillReplica is a replica that does nothing by itself: a test gives it
// what is republished, in whatever order, and lets it read.
func NewStillReplica(b *Bucket, filter subjects.Key, whole bool, update func(Update)) *Replica {
	r := newReplica(b, []subjects.Key{filter}, whole, slog.New(slog.DiscardHandler), update)
	r.cancel = func() {}
	return r
}

// Feed is a republished write.
func (r *Replica) Feed(e Entry) { r.follow(e) }

// Read takes a snapshot if one was asked for, or if always is set.
func (r *Replica) Read(ctx context.Context, always bool) {
	select {
	case <-r.refresh:
		always = true
	default:
	}
	if always {
		r.snapshot(ctx)
	}
}

// Check is the regular check.
func (r *Replica) Check(ctx context.Context) {
	if r.check(ctx) {
		r.snapshot(ctx)
	}
}

// Known is how many keys the replica remembers.
func (r *Replica) Known() (keys, purged int) { return len(r.seqs), len(r.purged) }

// AwayFor is longer than the bucket keeps the marker of a purged key.
const AwayFor = markerTTL + time.Minute

// Answerer is the server that answered, by what servers say of a request.
func Answerer(events []string) string {
	c := make(chan *nats.Msg, len(events))
	for _, e := range events {
		c <- &nats.Msg{Data: []byte(e)}
	}
	return answerer(c)
}

// Lanes is how many requests of a kind a bucket makes at a time.
const Lanes = lanes

// LastOf reads the newest entries below a filter that were written after a sequence.
func (b *Bucket) LastOf(ctx context.Context, filter subjects.Key, after uint64) (map[subjects.Key]Entry, error) {
	entries, _, err := b.lastOf(ctx, []subjects.Key{filter}, after, 0)
	return entries, err
}
