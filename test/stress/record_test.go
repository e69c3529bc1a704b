package stress_test

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// operation is what a message of the stream does to its key.
type operation uint8

const (
	opPut operation = iota
	opDelete
	opPurge
)

// message is one message of the stream.
type message struct {
	seq           uint64
	context       string // its token
	path          []string
	meta          bool
	op            operation
	data          []byte
	value         any
	id, by        string
	asOf, compact uint64
	key           string
	end           bool // of its batch, or it has none
}

// recorder keeps every message of the stream.
type recorder struct {
	r      *run
	nc     *nats.Conn
	js     jetstream.JetStream
	stream string
	end    func()

	mu       sync.Mutex
	messages map[uint64]*message
	repeated map[uint64]bool // came on the republish subject
}

func record(r *run, nc *nats.Conn) *recorder {
	r.t.Helper()
	rec := &recorder{r: r, nc: nc, stream: subjects.Realm(realm).ContextBucket().Stream(), messages: map[uint64]*message{}, repeated: map[uint64]bool{}}
	var err error
	if rec.js, err = jetstream.New(nc); err != nil {
		r.t.Fatal(err)
	}
	sub, err := nc.Subscribe(string(subjects.Realm(realm).ContextRepublishFilter()), func(m *nats.Msg) {
		seq, err := strconv.ParseUint(last(m.Header, "Nats-Sequence"), 10, 64)
		if err != nil {
			r.violation("republished without a sequence: %v", m.Header)
			return
		}
		rec.mu.Lock()
		rec.repeated[seq] = true
		rec.mu.Unlock()
		rec.add(last(m.Header, "Nats-Subject"), m.Header, m.Data, seq)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		r.t.Fatal(err)
	}
	consumer, err := rec.js.OrderedConsumer(r.t.Context(), rec.stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		r.t.Fatal(err)
	}
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		md, err := m.Metadata()
		if err != nil {
			r.violation("no metadata: %v", err)
			return
		}
		rec.add(m.Subject(), m.Headers(), m.Data(), md.Sequence.Stream)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	rec.end = consuming.Stop
	return rec
}

func last(h nats.Header, name string) string {
	v := h[name]
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}

func (rec *recorder) add(subject string, h nats.Header, data []byte, seq uint64) {
	m, err := parse(subject, h, data, seq)
	if err != nil {
		rec.r.violation("sequence %d: %v", seq, err)
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	old := rec.messages[seq]
	if old == nil {
		rec.messages[seq] = m
		return
	}
	if old.key != m.key || old.id != m.id || !bytes.Equal(old.data, m.data) {
		rec.r.violation("sequence %d is two messages: %s and %s", seq, old, m)
	}
}

func parse(subject string, h nats.Header, data []byte, seq uint64) (*message, error) {
	key, err := subjects.Realm(realm).ContextKeyOf(subjects.Subject(subject))
	if err != nil {
		return nil, err
	}
	k, ok := key.Context()
	if !ok {
		return nil, fmt.Errorf("%q is no key of a context", key)
	}
	m := &message{
		seq: seq, context: k.Context.String(), path: k.Path, meta: k.Meta, data: data, key: string(key),
		id: h.Get(wire.HeaderOp), by: h.Get(wire.HeaderBy), end: h.Get("Nats-Batch-Id") == "" || h.Get("Nats-Batch-Commit") != "",
	}
	for name, n := range map[string]*uint64{wire.HeaderAsOf: &m.asOf, wire.HeaderCompact: &m.compact} {
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
		m.op = opDelete
	case kind == "PURGE":
		m.op = opPurge
	case kind != "":
		return nil, fmt.Errorf("operation %q", kind)
	default:
		m.value, err = decoded(wire.Payload{Data: data})
	}
	return m, err
}

// relevant says whether the fold counts the message: compactions do not.
func (m *message) relevant() bool {
	return !m.meta && (m.compact == 0 || m.op == opPurge && len(m.path) == 0)
}

func (m *message) String() string {
	what := "deletes"
	switch m.op {
	case opPut:
		what = "puts " + short(m.value) + " at"
	case opPurge:
		what = "purges"
	case opDelete:
	}
	text := fmt.Sprintf("%d: %s %s %s (%s)", m.seq, m.by, what, m.key, m.id)
	if m.asOf > 0 {
		text += fmt.Sprint(" as of ", m.asOf)
	}
	if m.compact > 0 {
		text += fmt.Sprint(" compact ", m.compact)
	}
	return text
}

// lastSeq asks the stream's leader.
func (rec *recorder) lastSeq(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := rec.js.Stream(ctx, rec.stream)
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.LastSeq, nil
}

// missing lists sequences up to last that were not recorded.
func (rec *recorder) missing(last uint64) (list []uint64) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for seq := uint64(1); seq <= last; seq++ {
		if rec.messages[seq] == nil {
			list = append(list, seq)
		}
	}
	return list
}

// fetch reads messages that neither way has brought and that the stream still has.
func (rec *recorder) fetch(ctx context.Context, list []uint64) error {
	s, err := rec.js.Stream(ctx, rec.stream)
	if err != nil {
		return err
	}
	for _, seq := range list {
		m, err := s.GetMsg(ctx, seq)
		if err != nil {
			return fmt.Errorf("sequence %d: %w", seq, err)
		}
		rec.add(m.Subject, m.Header, m.Data, seq)
	}
	return nil
}

// get returns a message.
func (rec *recorder) get(seq uint64) *message {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.messages[seq]
}

// unrepeated is how many messages up to last the server did not republish.
func (rec *recorder) unrepeated(last uint64) (n int) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for seq := uint64(1); seq <= last; seq++ {
		if !rec.repeated[seq] {
			n++
		}
	}
	return n
}
