package topics

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

var (
	errInjected  = errors.New("written by a NATS server, not by a sender")
	errHeader    = errors.New("the headers cannot be read")
	errTwice     = errors.New("a header occurs twice")
	errOwn       = errors.New("it carries this node's own sender token")
	errUnmatched = errors.New("the topic is not one of the pattern")
)

// feed is one subscription on NATS.
type feed struct {
	topics   *Topics
	interest *interest
	dead     atomic.Bool // Subscribe failed, another attempt may have been made

	mu   sync.Mutex
	lost int // of the client library's count, what subscriptions were told
}

// receive handles one message of another node. It never blocks.
func (f *feed) receive(msg *nats.Msg) {
	if f.dead.Load() {
		return
	}
	// The library tells of the first drop of a series only; the others show
	// in the count when a message that waited before them is handled.
	if n, err := msg.Sub.Dropped(); err == nil && n > 0 {
		f.dropped(n)
	}
	t := f.topics
	ev, target, err := t.read(msg)
	if err == nil && !subjects.MatchTopic(f.interest.pattern, ev.Topic) {
		err = errUnmatched
	}
	if err != nil {
		t.refused.Add(1)
		t.log.Debug("topic message refused", slog.String("subject", msg.Subject), slog.Any("error", err))
		return
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	f.interest.deliver(ev, target)
}

// dropped takes the number that the client library has dropped in total.
func (f *feed) dropped(total int) {
	f.mu.Lock()
	n := total - f.lost
	f.lost = max(f.lost, total)
	f.mu.Unlock()
	if n <= 0 || f.dead.Load() {
		return
	}
	t := f.topics
	t.mu.RLock()
	defer t.mu.RUnlock()
	for s := range f.interest.subs {
		s.missing(uint64(n))
	}
}

// read checks a message and returns what subscribers see of it.
func (t *Topics) read(msg *nats.Msg) (*Event, wire.Filter, error) {
	if wire.Injected(msg.Header, msg.Data) {
		return nil, nil, errInjected
	}
	// The client library passes a message whose headers it cannot read on
	// without them; what they said, perhaps a target, would be ignored.
	if msg.Header == nil && msg.Size() > len(msg.Subject)+len(msg.Reply)+len(msg.Data) {
		return nil, nil, errHeader
	}
	for _, name := range []string{wire.HeaderApp, wire.HeaderName, wire.HeaderRoutingKey, wire.HeaderTarget, wire.HeaderContentType} {
		if len(msg.Header[name]) > 1 {
			return nil, nil, errTwice
		}
	}
	topic, err := subjects.ParseTopic(msg.Subject)
	if err == nil && !topic.NameKnown {
		var name string
		if name, err = subjects.UnescapeName(msg.Header.Get(wire.HeaderName)); err == nil {
			topic, err = topic.WithName(name)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if topic.From == t.cfg.Self {
		return nil, nil, errOwn
	}
	value, err := t.body(msg)
	if err != nil {
		return nil, nil, err
	}
	key := msg.Header.Get(wire.HeaderRoutingKey)
	if err := checkKey(key); err != nil {
		return nil, nil, err
	}
	var target wire.Filter
	if text, ok := msg.Header[wire.HeaderTarget]; ok {
		if target, err = parseTarget(text[0]); err != nil {
			return nil, nil, err
		}
	}
	ev := &Event{Topic: topic.Name, Value: value, RoutingKey: key}
	ev.Publisher = t.publisher(topic.From, msg.Header.Get(wire.HeaderApp))
	return ev, target, nil
}

func (t *Topics) body(msg *nats.Msg) (wire.Payload, error) {
	format, err := wire.ParseContentType(msg.Header.Get(wire.HeaderContentType))
	if err != nil || len(msg.Data) == 0 {
		return wire.Payload{}, err
	}
	if err := wire.CheckSize(msg.Subject, len(msg.Data), t.cfg.Data.MaxPayload()); err != nil {
		return wire.Payload{}, err
	}
	value := wire.Payload{Format: format, Data: msg.Data}
	return value, value.Check()
}

// publisher returns the identity of the app if it is one of the node that NATS
// vouches for, else what is known of that node or plain client.
func (t *Topics) publisher(from subjects.Node, app string) wire.Identity {
	if id, err := subjects.ParseApp(app); err == nil && t.cfg.Identity != nil {
		if who, ok := t.cfg.Identity(id); ok && who.Node == string(from) {
			return who
		}
	}
	return wire.Identity{Application: string(from), Node: string(from)}
}
