package kv

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// ErrNotProvisioned is in the chain of errors that only an operator can mend:
// JetStream is missing, a stream is missing, or its options are wrong.
var ErrNotProvisioned = errors.New("not provisioned")

const (
	minServer    = "2.12"
	maxConsumers = 10_000
	// markerTTL is how long the marker of a purged directory key stays; long
	// enough for every reader to have taken a snapshot since.
	markerTTL = 10 * time.Minute
	dedupe    = 2 * time.Minute
	revisions = 8
	// HistoryAge is how long the history keeps what was written, unless an operator
	// has chosen another age.
	HistoryAge = 30 * 24 * time.Hour
)

// DirectoryConfig is the stream of a realm's directory bucket: in memory,
// because every node asserts its own document again.
func DirectoryConfig(r subjects.Realm, replicas int) jetstream.StreamConfig {
	c := config(r.DirectoryBucket(), replicas, "weft directory of realm "+string(r))
	c.Storage = jetstream.MemoryStorage
	c.MaxMsgsPerSubject = 1
	c.AllowMsgSchedules = true
	c.RePublish = &jetstream.RePublish{
		Source:      string(r.DirectoryBucket().Subject(subjects.NodeKeys())),
		Destination: string(r.DirectoryRepublish(subjects.NodeKeys())),
	}
	return c
}

// ContextConfig is the stream of a realm's context bucket. Schedules stay off:
// a schedule's target is not checked against the permissions of its writer.
func ContextConfig(r subjects.Realm, replicas int) jetstream.StreamConfig {
	c := config(r.ContextBucket(), replicas, "weft contexts of realm "+string(r))
	c.Storage = jetstream.FileStorage
	c.MaxMsgsPerSubject = revisions
	c.AllowAtomicPublish = true
	c.Discard = jetstream.DiscardNew // a full bucket refuses writes, it does not forget
	c.RePublish = &jetstream.RePublish{
		Source:      string(r.ContextBucket().Filter()),
		Destination: string(r.ContextRepublishFilter()),
	}
	return c
}

// HistoryConfig is the stream that keeps what was written to a realm's context
// bucket. The server copies every message there. It takes no rollup, so that the
// purge of a key is one message more and takes nothing away, and no time to live.
func HistoryConfig(r subjects.Realm, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              string(r.HistoryStream()),
		Description:       "weft history of the contexts of realm " + string(r),
		Sources:           []*jetstream.StreamSource{{Name: r.ContextBucket().Stream()}},
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		MaxConsumers:      maxConsumers,
		Duplicates:        dedupe,
		MaxAge:            HistoryAge,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxBytes:          -1,
		MaxMsgSize:        -1,
		DenyDelete:        true,
		DenyPurge:         true,
		AllowDirect:       true,
	}
}

func config(b subjects.Bucket, replicas int, about string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:                   b.Stream(),
		Description:            about,
		Subjects:               []string{string(b.Filter())},
		Replicas:               replicas,
		MaxConsumers:           maxConsumers,
		Duplicates:             dedupe,
		MaxMsgs:                -1,
		MaxBytes:               -1,
		DenyDelete:             true,
		AllowRollup:            true,
		AllowDirect:            true,
		AllowMsgTTL:            true,
		SubjectDeleteMarkerTTL: markerTTL,
	}
}

// Provision makes the buckets of a realm and its history or brings their options up
// to date. What Weft has no opinion on stays as an operator has set it: sizes,
// placement, the age of duplicates and of the history, metadata. It needs the right
// to create streams.
func Provision(ctx context.Context, nc *nats.Conn, r subjects.Realm, replicas int) error {
	if err := serverVersion(nc); err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("kv: jetstream: %w", err)
	}
	for _, c := range []jetstream.StreamConfig{DirectoryConfig(r, replicas), ContextConfig(r, replicas), HistoryConfig(r, replicas)} {
		if err := provision(ctx, js, c); err != nil {
			if errors.Is(err, context.DeadlineExceeded) && errors.Is(nc.LastError(), nats.ErrPermissionViolation) {
				return wire.Errorf(wire.Denied, "these credentials may not create stream %s: provisioning needs admin credentials", c.Name)
			}
			return typed(err, c.Name, r)
		}
	}
	return nil
}

func provision(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = js.CreateStream(ctx, want)
		return err
	}
	if err != nil {
		return err
	}
	have := s.CachedInfo().Config
	if have.Storage != want.Storage {
		return wire.Errorf(wire.Unavailable, "stream %s has %s storage, must be %s, which cannot be changed: delete it with `nats stream rm %s` and provision again (%w)",
			want.Name, have.Storage, want.Storage, want.Name, ErrNotProvisioned)
	}
	if len(want.Sources) > 0 {
		have.Sources, have.MaxMsgSize, have.SubjectTransform = want.Sources, want.MaxMsgSize, nil
		want.MaxAge = have.MaxAge
	}
	_, err = js.UpdateStream(ctx, merge(have, want))
	return err
}

// merge is the stream as the operator has it, with the options that Weft needs.
func merge(have, want jetstream.StreamConfig) jetstream.StreamConfig {
	c := have
	c.Description, c.Subjects, c.Replicas, c.Retention = want.Description, want.Subjects, want.Replicas, want.Retention
	c.MaxMsgsPerSubject, c.MaxMsgs, c.MaxAge, c.Discard, c.DiscardNewPerSubject = want.MaxMsgsPerSubject, want.MaxMsgs, want.MaxAge, want.Discard, want.DiscardNewPerSubject
	c.DenyDelete, c.DenyPurge, c.AllowRollup, c.AllowDirect = want.DenyDelete, want.DenyPurge, want.AllowRollup, want.AllowDirect
	c.AllowMsgTTL, c.AllowMsgSchedules, c.AllowAtomicPublish = want.AllowMsgTTL, want.AllowMsgSchedules, want.AllowAtomicPublish
	c.SubjectDeleteMarkerTTL, c.RePublish = want.SubjectDeleteMarkerTTL, want.RePublish
	c.MaxConsumers = max(have.MaxConsumers, want.MaxConsumers)
	return c
}

func serverVersion(nc *nats.Conn) error {
	v := nc.ConnectedServerVersion()
	if v != "" && olderThan(v, minServer) {
		return wire.Errorf(wire.Version, "nats-server %s at %s is too old: Weft needs %s or newer (message schedules and atomic batches)", v, nc.ConnectedUrlRedacted(), minServer)
	}
	return nil
}

// olderThan compares major and minor version numbers.
func olderThan(v, than string) bool {
	a, b := numbers(v), numbers(than)
	return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
}

func numbers(v string) (n [2]int) {
	for i, part := range strings.SplitN(strings.TrimPrefix(v, "v"), ".", 3) {
		if i < len(n) {
			n[i], _ = strconv.Atoi(part) // a strange version counts as old and is refused
		}
	}
	return n
}

// differences names the options that are not as Weft needs them. Limits that
// operators may choose (replicas, bytes, age of duplicates) are theirs.
func differences(have, want jetstream.StreamConfig) []string {
	var d []string
	check := func(name string, have, want any) {
		if have != want {
			d = append(d, fmt.Sprintf("%s is %v, must be %v", name, have, want))
		}
	}
	check("storage", have.Storage, want.Storage)
	check("retention", have.Retention, want.Retention)
	check("subjects", strings.Join(have.Subjects, " "), strings.Join(want.Subjects, " "))
	check("max_age", have.MaxAge, want.MaxAge)
	check("max_msgs", have.MaxMsgs, want.MaxMsgs)
	check("discard", have.Discard, want.Discard)
	check("deny_purge", have.DenyPurge, want.DenyPurge)
	check("allow_direct", have.AllowDirect, want.AllowDirect)
	check("allow_msg_ttl", have.AllowMsgTTL, want.AllowMsgTTL)
	check("allow_rollup_hdrs", have.AllowRollup, want.AllowRollup)
	check("allow_atomic", have.AllowAtomicPublish, want.AllowAtomicPublish)
	check("allow_msg_schedules", have.AllowMsgSchedules, want.AllowMsgSchedules)
	check("max_msgs_per_subject", have.MaxMsgsPerSubject, want.MaxMsgsPerSubject)
	switch {
	case have.RePublish == nil:
		d = append(d, "republish is off")
	default:
		check("republish source", have.RePublish.Source, want.RePublish.Source)
		check("republish destination", have.RePublish.Destination, want.RePublish.Destination)
		check("republish headers_only", have.RePublish.HeadersOnly, false)
	}
	if have.MaxConsumers != -1 && have.MaxConsumers < want.MaxConsumers {
		check("max_consumers", have.MaxConsumers, want.MaxConsumers)
	}
	return d
}

// historyDifferences is differences for the history stream. Its age is the operator's.
func historyDifferences(have, want jetstream.StreamConfig) []string {
	have.MaxAge, want.MaxAge = 0, 0
	var d []string
	if len(have.Sources) != 1 || !isWhole(have.Sources[0], want.Sources[0].Name) {
		d = append(d, "it must source all of "+want.Sources[0].Name+" as it is")
	}
	if have.SubjectTransform != nil || have.RePublish != nil || have.Mirror != nil || have.Sealed {
		d = append(d, "it must not transform, republish, mirror or be sealed")
	}
	if have.MaxMsgSize > 0 {
		d = append(d, fmt.Sprintf("max_msg_size is %d, must be -1", have.MaxMsgSize))
	}
	if !have.DenyDelete {
		d = append(d, "deny_delete is false, must be true")
	}
	have.RePublish, want.RePublish = &jetstream.RePublish{}, &jetstream.RePublish{}
	return append(d, differences(have, want)...)
}

// isWhole says whether a source copies everything of a stream unchanged.
func isWhole(s *jetstream.StreamSource, stream string) bool {
	return s.Name == stream && s.FilterSubject == "" && len(s.SubjectTransforms) == 0 && s.External == nil && s.OptStartSeq == 0 && s.OptStartTime == nil
}

// typed says what to do about an error of the JetStream API.
func typed(err error, stream string, r subjects.Realm) error {
	var w *wire.Error
	switch {
	case errors.As(err, &w) && w.Code == wire.Unavailable:
		return err // it names the stream
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return wire.Errorf(wire.Unavailable, "realm %q is not provisioned on this NATS: stream %s is missing; run `weft admin provision %s` with admin credentials (%w)", r, stream, r, ErrNotProvisioned)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		return wire.Errorf(wire.Unavailable, "JetStream does not answer for stream %s: enable it on the server and for this account (%w: %w)", stream, ErrNotProvisioned, err)
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return wire.Errorf(wire.Unavailable, "stream %s has no leader or is missing: %w", stream, err)
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch {
		case api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == 10164: // the same, without the number
			return wire.Errorf(wire.BadRevision, "stream %s: %w", stream, err)
		case api.ErrorCode == 10047 || api.ErrorCode == 10023 || api.ErrorCode == 10077: // storage, resources, stream limits
			return wire.Errorf(wire.StorageFull, "stream %s: %w", stream, err)
		case api.Code == 503:
			return wire.Errorf(wire.Unavailable, "stream %s: %w", stream, err)
		}
	}
	return fmt.Errorf("kv: stream %s: %w", stream, err)
}
