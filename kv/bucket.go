package kv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Headers of NATS that Weft reads or writes.
const (
	hdrExpected       = "Nats-Expected-Last-Subject-Sequence"
	hdrExpectedLastID = "Nats-Expected-Last-Msg-Id"
	hdrOperation      = "KV-Operation"
	hdrRollup         = "Nats-Rollup"
	hdrTTL            = "Nats-TTL"
	hdrSchedule       = "Nats-Schedule"
	hdrScheduleTarget = "Nats-Schedule-Target"
	hdrScheduleTTL    = "Nats-Schedule-TTL"
	hdrScheduler      = "Nats-Scheduler"
	hdrSource         = "Nats-Stream-Source"
	hdrSequence       = "Nats-Sequence"
	hdrSubject        = "Nats-Subject"
	hdrTime           = "Nats-Time-Stamp"
	hdrMarker         = "Nats-Marker-Reason"
	hdrPrevious       = "Nats-Last-Sequence"
	hdrMsgID          = "Nats-Msg-Id"
	hdrBatch          = "Nats-Batch-Id"
	hdrBatchSeq       = "Nats-Batch-Sequence"
	hdrBatchCommit    = "Nats-Batch-Commit"
	hdrNumPending     = "Nats-Num-Pending"
	hdrUpTo           = "Nats-UpTo-Sequence"
	hdrStatus         = "Status"
	hdrTraceDest      = "Nats-Trace-Dest"
)

// timeValid is how long the server's time is carried on before it is asked again.
const timeValid = time.Minute

// detachBelow is the size below which a value is not much more than its headers.
const detachBelow = 4 << 10

// leadsFor is how long a leader may not have heard of most servers. They wait for four
// seconds before they choose another.
const leadsFor = 2500 * time.Millisecond

// electedTries is how often a new leader is asked what it has.
const electedTries = 5

// infoTimeout bounds one question to the leader; during an election nobody
// answers, and asking again is better than waiting.
const infoTimeout = 2 * time.Second

// Bucket is one bucket of a realm. Create it with [Directory] or [Contexts].
type Bucket struct {
	link      *link.Link
	realm     subjects.Realm
	name      subjects.Bucket
	want      jetstream.StreamConfig
	keyOf     func(subjects.Subject) (subjects.Key, error)
	republish func(subjects.Key) subjects.Subject
	foreign   atomic.Uint64
	// keeps says that a key which vanishes is lost unless the history proves that
	// it was removed.
	keeps   bool
	alarms  *alarm.Set // nil for nobody
	health  health
	history *History // nil for a bucket without

	listings joiner[listing]
	reads    joiner[lasts]
	keys     atomic.Int64 // how many the leader had, -1 if it was not asked yet

	mu     sync.Mutex
	server time.Time // the server's time ...
	at     time.Time // ... at this local time, whose monotonic part counts
	forgot bool      // the next lease asks again
}

// Directory is the realm's directory bucket.
func Directory(l *link.Link, r subjects.Realm) *Bucket {
	return newBucket(&Bucket{link: l, realm: r, name: r.DirectoryBucket(), want: DirectoryConfig(r, 1), keyOf: r.DirectoryKey, republish: r.DirectoryRepublish})
}

// Contexts is the realm's context bucket.
func Contexts(l *link.Link, r subjects.Realm) *Bucket {
	b := newBucket(&Bucket{link: l, realm: r, name: r.ContextBucket(), want: ContextConfig(r, 1), keyOf: r.ContextKeyOf, republish: r.ContextRepublish, keeps: true})
	b.history = &History{bucket: b, stream: r.HistoryStream()}
	return b
}

func newBucket(b *Bucket) *Bucket {
	h := &b.health
	h.auditing, h.again = make(chan struct{}, 1), make(chan struct{})
	h.replicas, h.suspects, h.born = map[*Replica]struct{}{}, map[string]*suspect{}, time.Now()
	b.listings.take, b.listings.serve = b.takeListings, b.serveListings
	b.reads.take, b.reads.serve = takeLasts, b.serveLasts
	b.keys.Store(-1)
	return b
}

// Operation is what a write did to its key.
type Operation uint8

// The operations. A marker that the server wrote for an expired key is a Purge.
const (
	Put Operation = iota
	Delete
	Purge
)

// Entry is the newest write of a key.
type Entry struct {
	Key   subjects.Key
	Value []byte
	Seq   uint64
	Op    Operation
	Time  time.Time
	// Expired marks a Purge that the server wrote for a key that ran out.
	Expired bool
	// Scheduler is the key whose schedule wrote this entry, "" for a client's.
	Scheduler subjects.Key
	// Previous is the sequence of the key's write before this one, 0 for none.
	// Only followers are told.
	Previous uint64
	// Format is how Value is written in a context: as Content-Type says, else
	// msgpack from a writer that says Weft-Op and JSON from any other.
	Format wire.Format
	// Name is the context's name where the key has only its hash.
	Name string
	// WriteID and By are the headers Weft-Op and Weft-By, "" for foreign writers.
	WriteID, By string
	// Who is the header Weft-Who.
	Who Who
	// AsOf, Compact and Read are the headers Weft-As-Of, Weft-Compact and Weft-Read,
	// 0 for none.
	AsOf, Compact, Read uint64
	// Seen is the header Weft-Seen: the newest sequence of the context's keys that its
	// writer knew of, 0 if that does not say.
	Seen uint64
	// TTL says that the server will expire this entry.
	TTL bool
	// Batch is the id of the batch that wrote the entry, "" for none, and
	// BatchSeq its number in it; Commit marks the last.
	Batch    string
	BatchSeq uint64
	Commit   bool
	// sent is the header Weft-Time.
	sent time.Time
	// bad is why a header cannot be read.
	bad error
}

// skipped says whether the fold leaves the entry out: the marker of a key that a
// compaction purged, or that expired.
func (e *Entry) skipped() bool { return e.Op != Put && (e.Compact > 0 || e.Expired) }

// value is what was put.
func (e *Entry) value() (*Value, error) {
	if e.bad != nil {
		return nil, e.bad
	}
	v, err := ParseValue(wire.Payload{Format: e.Format, Data: e.Value})
	if err == nil && v == nil {
		err = wire.Errorf(wire.BadPayload, "the value is empty")
	}
	return v, err
}

// Verify checks server version, that the bucket exists, and its options, and those
// of its history. It also learns the server's time.
func (b *Bucket) Verify(ctx context.Context) error {
	if err := b.link.Online(); err != nil {
		return err
	}
	if err := serverVersion(b.link.Conn()); err != nil {
		return err
	}
	info, err := b.info(ctx)
	if err != nil {
		return err
	}
	if d := differences(info.Config, b.want); len(d) > 0 {
		return wrongOptions(b.name.Stream(), d, b.realm)
	}
	if b.history != nil {
		return b.history.verify(ctx)
	}
	return nil
}

func wrongOptions(stream string, differences []string, r subjects.Realm) error {
	return wire.Errorf(wire.Unavailable, "stream %s has wrong options: %s; run `weft admin provision %s` (%w)", stream, strings.Join(differences, ", "), r, ErrNotProvisioned)
}

// info asks the stream's leader about it. The answer may not be changed.
func (b *Bucket) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	info, _, err := b.list(ctx, "")
	return info, err
}

// infoOf asks the leader of a stream of the realm, and for the subjects below a filter, if
// there is one, but the first.
func (b *Bucket) infoOf(ctx context.Context, stream subjects.Stream, filter subjects.Subject, offset int) (*jetstream.StreamInfo, error) {
	var body []byte
	if filter != "" {
		body, _ = json.Marshal(map[string]any{"subjects_filter": filter, "offset": offset}) // always encodes
	}
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	sent, seen := time.Now(), b.health.top.Load()
	reply, err := b.link.Request(ctx, &nats.Msg{Subject: string(stream.Info()), Data: body})
	var answer struct {
		Error *jetstream.APIError `json:"error"`
		jetstream.StreamInfo
	}
	if err == nil {
		err = json.Unmarshal(reply.Data, &answer)
	}
	if err == nil && answer.Error != nil {
		err = answer.Error
	}
	if err != nil {
		return nil, typed(err, string(stream), b.realm)
	}
	if err := leads(&answer.StreamInfo); err != nil {
		return nil, err
	}
	b.learn(answer.TimeStamp, sent)
	b.learnServers(&answer.StreamInfo)
	if b.keeps && string(stream) == b.name.Stream() {
		b.health.learnLast(answer.State.LastSeq, seen)
	}
	return &answer.StreamInfo, nil
}

// leads is nil if the server that answers as the leader can be it. One that was frozen, or
// cut off, takes itself for the leader for up to twenty seconds after the others have
// another: only one counts that has heard of most servers in less time than they wait
// before they choose one.
func leads(info *jetstream.StreamInfo) error {
	c := info.Cluster
	if c == nil || len(c.Replicas) == 0 {
		return nil
	}
	near := 1
	for _, p := range c.Replicas {
		if !p.Offline && p.Active < leadsFor && (p.Active > 0 || p.Current) {
			near++
		}
	}
	if near <= (len(c.Replicas)+1)/2 {
		return wire.Errorf(wire.Unavailable, "stream %s: %s answers as its leader and has not heard of most servers for %s", info.Config.Name, c.Leader, leadsFor)
	}
	return nil
}

// learn notes the server's time; half the round trip is its error.
func (b *Bucket) learn(server, sent time.Time) {
	if server.IsZero() {
		return
	}
	now := time.Now()
	b.mu.Lock()
	b.server, b.at, b.forgot = server.Add(now.Sub(sent)/2), now, false
	b.mu.Unlock()
}

// ServerTime is the server's present time; false before the first contact.
func (b *Bucket) ServerTime() (time.Time, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server.IsZero() {
		return time.Time{}, false
	}
	return b.server.Add(time.Since(b.at)), true
}

// ForgetTime makes the next lease ask for the server's time again: the server's
// clock was set, or this machine slept.
func (b *Bucket) ForgetTime() {
	b.mu.Lock()
	b.forgot = true
	b.mu.Unlock()
}

// leaseTime is the server's time as of not long ago: clocks drift, and a server's
// clock can be set.
func (b *Bucket) leaseTime(ctx context.Context) (time.Time, error) {
	b.mu.Lock()
	old := b.forgot || b.server.IsZero() || time.Since(b.at) > timeValid
	b.mu.Unlock()
	if old {
		if _, err := b.info(ctx); err != nil {
			return time.Time{}, err
		}
	}
	now, _ := b.ServerTime()
	return now, nil
}

// ClockOffset is the machine's wall clock minus the server's.
func (b *Bucket) ClockOffset() time.Duration {
	s, ok := b.ServerTime()
	if !ok {
		return 0
	}
	return time.Now().Round(0).Sub(s.Round(0)) // Round(0): compare wall clocks
}

// Put writes a value and returns its sequence. A ttl above zero lets the
// server expire it.
func (b *Bucket) Put(ctx context.Context, key subjects.Key, value []byte, ttl time.Duration) (uint64, error) {
	msg := &nats.Msg{Subject: string(b.name.Subject(key)), Data: value, Header: nats.Header{}}
	if ttl > 0 {
		msg.Header.Set(hdrTTL, ttl.String())
	}
	return b.publish(ctx, msg)
}

// PutIf is [Bucket.Put] if the key's newest sequence is still last, 0 for a
// key that was never written; otherwise the error is [wire.ErrBadRevision].
func (b *Bucket) PutIf(ctx context.Context, key subjects.Key, value []byte, last uint64) (uint64, error) {
	msg := &nats.Msg{Subject: string(b.name.Subject(key)), Data: value, Header: nats.Header{}}
	msg.Header.Set(hdrExpected, strconv.FormatUint(last, 10))
	return b.publish(ctx, msg)
}

// Purge removes a key and its history and leaves a marker.
func (b *Bucket) Purge(ctx context.Context, key subjects.Key) error {
	_, err := b.publish(ctx, &nats.Msg{Subject: string(b.name.Subject(key)), Header: nats.Header{
		hdrOperation: {"PURGE"}, hdrRollup: {"sub"}, hdrTTL: {markerTTL.String()},
	}})
	return err
}

// Lease writes key so that the server purges target by itself after d, counted
// in server time, unless the lease is written again before. It is a dead man's
// switch: whoever stops renewing disappears.
func (b *Bucket) Lease(ctx context.Context, key, target subjects.Key, d time.Duration) error {
	now, err := b.leaseTime(ctx)
	if err != nil {
		return err
	}
	_, err = b.publish(ctx, &nats.Msg{Subject: string(b.name.Subject(key)), Header: nats.Header{
		hdrSchedule:       {"@at " + now.Add(d).UTC().Format(time.RFC3339Nano)},
		hdrScheduleTarget: {string(b.name.Subject(target))},
		hdrScheduleTTL:    {markerTTL.String()},
		hdrOperation:      {"PURGE"},
	}})
	return err
}

func (b *Bucket) publish(ctx context.Context, msg *nats.Msg) (uint64, error) {
	ack, err := b.publishAck(ctx, msg)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

func (b *Bucket) publishAck(ctx context.Context, msg *nats.Msg) (ack *jetstream.PubAck, err error) {
	err = b.link.Do(ctx, msg.Subject, func(ctx context.Context) (err error) {
		ack, err = b.link.JetStream().PublishMsg(ctx, msg, jetstream.WithRetryAttempts(1))
		return err
	})
	if err != nil {
		return nil, typed(err, b.name.Stream(), b.realm)
	}
	return ack, nil
}

// Get reads one key by Direct Get. False means that the answering replica has
// no value for it, which is not proof that it was deleted; the entry is then the
// marker that says so, or empty.
func (b *Bucket) Get(ctx context.Context, key subjects.Key) (e Entry, ok bool, err error) {
	err = b.direct(ctx, string(b.name.DirectGetLast(key)), nil, 1, func(m *nats.Msg) (bool, error) {
		if status(m) == "404" {
			return true, nil
		}
		e, err = b.answer(m)
		return true, err
	})
	return e, err == nil && e.Key == key && e.Op == Put, err
}

// Follow calls h for each committed write below the filter, in order, at most
// once; slow is told when writes were missed because h was too slow.
func (b *Bucket) Follow(ctx context.Context, filter subjects.Key, h func(Entry), slow func(int)) (*nats.Subscription, error) {
	return b.link.Subscribe(ctx, string(b.republish(filter)), "", func(m *nats.Msg) {
		e, err := b.entry(m)
		// Only the server publishes here, but a reader can make it do so: a
		// Direct Get with this subject as its reply repeats any stored entry.
		if err != nil || string(b.republish(e.Key)) != m.Subject {
			b.foreign.Add(1)
			return
		}
		h(e)
	}, slow)
}

// FollowLeader calls h whenever the stream has a new leader, which should then call
// [Bucket.Elected]. Credentials that may not listen to that are no error; a replica's
// regular check finds out later.
func (b *Bucket) FollowLeader(ctx context.Context, h func()) (*nats.Subscription, error) {
	sub, err := b.link.Subscribe(ctx, string(b.name.LeaderElected()), "", func(*nats.Msg) { h() }, nil)
	if errors.Is(err, wire.ErrDenied) {
		return nil, nil
	}
	return sub, err
}

// Elected makes the replicas of the bucket look what they have missed, after a new leader
// was elected: what the former one committed last may not have been republished.
func (b *Bucket) Elected(ctx context.Context) {
	for try := range electedTries {
		if info, err := b.info(ctx); err == nil {
			b.health.elected(info.State.LastSeq)
			return
		}
		if !pause(ctx, refreshRetry<<try) {
			return
		}
	}
	b.health.refresh("new leader")
}

// Count is how many keys below filter the leader has, markers included.
func (b *Bucket) Count(ctx context.Context, filter subjects.Key) (int, error) {
	_, keys, err := b.list(ctx, filter)
	return len(keys), err
}

// Foreign counts messages where followers listen that are not the server's
// republished writes; they are ignored.
func (b *Bucket) Foreign() uint64 { return b.foreign.Load() }

// entry reads a message of the republish subject or of Direct Get. At a subject that is
// no key the entry has none, and the error is [subjects.ErrBadName].
func (b *Bucket) entry(m *nats.Msg) (Entry, error) {
	key, noKey := b.keyOf(subjects.Subject(last(m, hdrSubject)))
	seq, err := strconv.ParseUint(last(m, hdrSequence), 10, 64)
	if err != nil {
		return Entry{}, fmt.Errorf("kv: %s without a sequence: %w", key, err)
	}
	if noKey != nil {
		return Entry{Seq: seq}, fmt.Errorf("kv: %w", noKey)
	}
	e := Entry{Key: key, Value: m.Data, Seq: seq}
	e.Time, _ = time.Parse(time.RFC3339Nano, last(m, hdrTime)) // informative only
	switch {
	case m.Header.Get(hdrOperation) == "DEL":
		e.Op = Delete
	case m.Header.Get(hdrOperation) == "PURGE" || m.Header.Get(hdrMarker) != "":
		e.Op, e.Expired = Purge, m.Header.Get(hdrMarker) != ""
	}
	e.Previous, _ = strconv.ParseUint(last(m, hdrPrevious), 10, 64) // followers only
	b.writer(&e, m.Header)
	if s := last(m, hdrScheduler); s != "" {
		if e.Scheduler, err = b.keyOf(subjects.Subject(s)); err != nil {
			return Entry{}, fmt.Errorf("kv: scheduler of %s: %w", key, err)
		}
	}
	e.detach()
	return e, nil
}

// detach copies what readers keep of an entry, which is a part of its message: a small
// value would hold all of that in memory, and an id all headers.
func (e *Entry) detach() {
	e.Key, e.WriteID, e.By = subjects.Key(strings.Clone(string(e.Key))), strings.Clone(e.WriteID), strings.Clone(e.By)
	if len(e.Value) < detachBelow {
		e.Value = bytes.Clone(e.Value)
	}
}

// writer reads what the writer of an entry said.
func (b *Bucket) writer(e *Entry, h nats.Header) {
	e.WriteID, e.By, e.Who = h.Get(wire.HeaderOp), h.Get(wire.HeaderBy), parseWho(h.Get(wire.HeaderWho))
	e.Read, _ = strconv.ParseUint(h.Get(wire.HeaderRead), 10, 64)    // the fold has no use for it
	e.Seen, _ = strconv.ParseUint(h.Get(wire.HeaderSeen), 10, 64)    // one that cannot be is ignored
	e.sent, _ = time.Parse(time.RFC3339Nano, h.Get(wire.HeaderTime)) // zero if it says nothing
	e.TTL = h.Get(hdrTTL) != ""
	if s := h.Get(wire.HeaderName); s != "" {
		e.Name, _ = subjects.UnescapeName(s) // whoever uses it holds it against the hash
	}
	e.Batch, e.Commit = h.Get(hdrBatch), h.Get(hdrBatchCommit) != ""
	e.BatchSeq, _ = strconv.ParseUint(h.Get(hdrBatchSeq), 10, 64) // the server has checked it
	if kind := h.Get(wire.HeaderContentType); kind != "" {
		e.Format, e.bad = wire.ParseContentType(kind)
	} else if e.WriteID == "" {
		e.Format = wire.JSON
	}
	for name, n := range map[string]*uint64{wire.HeaderAsOf: &e.AsOf, wire.HeaderCompact: &e.Compact} {
		if s := h.Get(name); s != "" {
			var err error
			if *n, err = strconv.ParseUint(s, 10, 64); err != nil {
				e.bad = wire.Errorf(wire.BadPayload, "%s: %q is not a sequence", name, s)
			}
		}
	}
}

// last is the value that the server gave a header: it adds its own behind what
// the writer may have put there.
func last(m *nats.Msg, header string) string {
	v := m.Header.Values(header)
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}
