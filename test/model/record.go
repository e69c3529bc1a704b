package model

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Operation is what a message of the stream does to its key.
type Operation uint8

// The operations.
const (
	OpPut Operation = iota
	OpDelete
	OpPurge
)

// Message is one message of the stream.
type Message struct {
	Seq           uint64
	Context       string // its token
	Path          []string
	Meta          bool
	Op            Operation
	Data          []byte
	Value         any
	ID, By        string
	AsOf, Compact uint64
	Key           string
	End           bool // of its batch, or it has none
}

// Recorder keeps every message of a realm's context stream. Create it with [Record].
type Recorder struct {
	// Stream is the stream's name.
	Stream string

	realm     subjects.Realm
	js        jetstream.JetStream
	violation func(string, ...any)

	mu       sync.Mutex
	messages map[uint64]*Message
	whole    uint64 // up to where nothing is missing
	highest  uint64
	repeated map[uint64]bool // came on the republish subject
	// fromHistory are those that only the history had.
	fromHistory map[uint64]bool
}

// Record keeps what each of the connections hears on the subject on which the
// server repeats every write, and what a consumer gets on the first, until they
// are closed. violation is told of what cannot be.
func Record(t testing.TB, realm subjects.Realm, violation func(string, ...any), conns ...*nats.Conn) *Recorder {
	t.Helper()
	rec := &Recorder{realm: realm, Stream: realm.ContextBucket().Stream(), violation: violation, messages: map[uint64]*Message{}, repeated: map[uint64]bool{}, fromHistory: map[uint64]bool{}}
	var err error
	if rec.js, err = jetstream.New(conns[0]); err != nil {
		t.Fatal(err)
	}
	for _, nc := range conns {
		sub, err := nc.Subscribe(string(realm.ContextRepublishFilter()), rec.take)
		if err == nil {
			err = sub.SetPendingLimits(-1, -1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	consumer, err := rec.js.OrderedConsumer(t.Context(), rec.Stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = consumer.Consume(func(m jetstream.Msg) {
		md, err := m.Metadata()
		if err != nil {
			violation("no metadata: %v", err)
			return
		}
		rec.add(m.Subject(), m.Headers(), m.Data(), md.Sequence.Stream)
	})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// take is told what the server repeats.
func (rec *Recorder) take(m *nats.Msg) {
	seq, err := strconv.ParseUint(last(m.Header, "Nats-Sequence"), 10, 64)
	if err != nil {
		rec.violation("republished without a sequence: %v", m.Header)
		return
	}
	rec.mu.Lock()
	rec.repeated[seq] = true
	rec.mu.Unlock()
	rec.add(last(m.Header, "Nats-Subject"), m.Header, m.Data, seq)
}

func last(h nats.Header, name string) string {
	v := h[name]
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}

func (rec *Recorder) add(subject string, h nats.Header, data []byte, seq uint64) {
	m, err := parse(rec.realm, subject, h, data, seq)
	if err != nil {
		rec.violation("sequence %d: %v", seq, err)
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	old := rec.messages[seq]
	if old == nil {
		rec.messages[seq] = m
		rec.highest = max(rec.highest, seq)
		return
	}
	if old.Key != m.Key || old.ID != m.ID || !bytes.Equal(old.Data, m.Data) {
		rec.violation("sequence %d is two messages: %s and %s", seq, old, m)
	}
}

func parse(realm subjects.Realm, subject string, h nats.Header, data []byte, seq uint64) (*Message, error) {
	key, err := realm.ContextKeyOf(subjects.Subject(subject))
	if err != nil {
		return nil, err
	}
	k, ok := key.Context()
	if !ok {
		return nil, fmt.Errorf("%q is no key of a context", key)
	}
	m := &Message{
		Seq: seq, Context: k.Context.String(), Path: k.Path, Meta: k.Meta, Data: data, Key: string(key),
		ID: h.Get(wire.HeaderOp), By: h.Get(wire.HeaderBy), End: h.Get("Nats-Batch-Id") == "" || h.Get("Nats-Batch-Commit") != "",
	}
	for name, n := range map[string]*uint64{wire.HeaderAsOf: &m.AsOf, wire.HeaderCompact: &m.Compact} {
		if s := h.Get(name); s != "" {
			if *n, err = strconv.ParseUint(s, 10, 64); err != nil {
				return nil, err
			}
		}
	}
	switch kind := h.Get("KV-Operation"); {
	case h.Get("Nats-Marker-Reason") != "":
		return nil, fmt.Errorf("the key %q has expired", key)
	case kind == "DEL":
		m.Op = OpDelete
	case kind == "PURGE":
		m.Op = OpPurge
	case kind != "":
		return nil, fmt.Errorf("operation %q", kind)
	default:
		m.Value, err = Decoded(wire.Payload{Data: data})
	}
	return m, err
}

// Relevant says whether the fold counts the message: compactions do not.
func (m *Message) Relevant() bool {
	return !m.Meta && (m.Compact == 0 || m.Op == OpPurge && len(m.Path) == 0)
}

func (m *Message) String() string {
	what := "deletes"
	switch m.Op {
	case OpPut:
		what = "puts " + Short(m.Value) + " at"
	case OpPurge:
		what = "purges"
	case OpDelete:
	}
	text := fmt.Sprintf("%d: %s %s %s (%s)", m.Seq, m.By, what, m.Key, m.ID)
	if m.AsOf > 0 {
		text += fmt.Sprint(" as of ", m.AsOf)
	}
	if m.Compact > 0 {
		text += fmt.Sprint(" compact ", m.Compact)
	}
	return text
}

// LastSeq asks the stream's leader.
func (rec *Recorder) LastSeq(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := rec.js.Stream(ctx, rec.Stream)
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.LastSeq, nil
}

// Copied is the sequence up to which the history has what was written.
func (rec *Recorder) Copied(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := rec.js.Stream(ctx, string(rec.realm.HistoryStream()))
	if err != nil {
		return 0, err
	}
	m, err := s.GetMsg(ctx, s.CachedInfo().State.LastSeq)
	if err != nil {
		return 0, err
	}
	return origin(m.Header)
}

// origin is the sequence that a message of the history had in its stream.
func origin(h nats.Header) (seq uint64, err error) {
	var stream string
	_, err = fmt.Sscan(last(h, "Nats-Stream-Source"), &stream, &seq)
	return seq, err
}

// copyOf finds a message in the history, whose sequences are other ones in the same order.
func (rec *Recorder) copyOf(ctx context.Context, seq uint64) (*jetstream.RawStreamMsg, error) {
	s, err := rec.js.Stream(ctx, string(rec.realm.HistoryStream()))
	if err != nil {
		return nil, err
	}
	low, high := s.CachedInfo().State.FirstSeq, s.CachedInfo().State.LastSeq
	for low <= high {
		middle := low + (high-low)/2
		m, err := s.GetMsg(ctx, middle)
		if err != nil {
			return nil, err
		}
		switch at, err := origin(m.Header); {
		case err != nil:
			return nil, err
		case at == seq:
			return m, nil
		case at < seq:
			low = middle + 1
		default:
			high = middle - 1
		}
	}
	return nil, jetstream.ErrMsgNotFound
}

// copied sees to the end of a batch of which a message is from the history, where nothing
// says which is the last: the next one is of another operation.
func (rec *Recorder) copied(seq uint64) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.fromHistory[seq] = true
	for _, at := range []uint64{seq - 1, seq} {
		m, next := rec.messages[at], rec.messages[at+1]
		if m != nil && next != nil && rec.fromHistory[at] {
			m.End = m.ID == "" || m.ID != next.ID
		}
	}
}

// Last is the highest sequence that was recorded.
func (rec *Recorder) Last() uint64 {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.highest
}

// Missing lists sequences up to last that were not recorded.
func (rec *Recorder) Missing(last uint64) (list []uint64) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for rec.messages[rec.whole+1] != nil {
		rec.whole++
	}
	for seq := rec.whole + 1; seq <= last; seq++ {
		if rec.messages[seq] == nil {
			list = append(list, seq)
		}
	}
	return list
}

// Follow fetches what is missing every now and then until ctx ends: later the stream
// may not have it any more.
func (rec *Recorder) Follow(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if missing := rec.Missing(rec.Last()); len(missing) > 0 {
				some, cancel := context.WithTimeout(ctx, 2*time.Second)
				_ = rec.Fetch(some, missing) // the next one may succeed
				cancel()
			}
		case <-ctx.Done():
			return
		}
	}
}

// Fetch reads messages that neither way has brought: from the stream, or what that has
// not any more from its history. One that it cannot get does not keep it from the others.
func (rec *Recorder) Fetch(ctx context.Context, list []uint64) error {
	s, err := rec.js.Stream(ctx, rec.Stream)
	if err != nil {
		return err
	}
	for _, seq := range list {
		m, getErr := s.GetMsg(ctx, seq)
		if getErr == nil {
			rec.add(m.Subject, m.Header, m.Data, seq)
			continue
		}
		if errors.Is(getErr, jetstream.ErrMsgNotFound) {
			if m, err := rec.copyOf(ctx, seq); err == nil {
				rec.add(m.Subject, m.Header, m.Data, seq)
				rec.copied(seq)
				continue
			}
		}
		err = cmp.Or(err, fmt.Errorf("sequence %d: %w", seq, getErr))
		if !errors.Is(getErr, jetstream.ErrMsgNotFound) {
			return err
		}
	}
	return err
}

// Get returns a message.
func (rec *Recorder) Get(seq uint64) *Message {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.messages[seq]
}

// Unrepeated is how many messages up to last the server did not republish.
func (rec *Recorder) Unrepeated(last uint64) (n int) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for seq := uint64(1); seq <= last; seq++ {
		if !rec.repeated[seq] {
			n++
		}
	}
	return n
}
