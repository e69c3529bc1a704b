package topics

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// probeTime is how long the first publish on a subject waits to hear whether
// NATS denies it.
const probeTime = time.Second

// Publish sends value on topic, fire and forget, in the name of from, an app
// of this node. Its data must not be changed afterwards.
//
// nil means that it was put into the queues of this node's subscribers and
// handed to NATS. The errors offline and denied mean that this node's
// subscribers have it and others do not; bad-name, bad-payload, limit,
// unavailable and canceled that nobody does.
func (t *Topics) Publish(ctx context.Context, from wire.Identity, topic string, value wire.Payload, opts ...PublishOption) error {
	var o publishing
	for _, opt := range opts {
		opt(&o)
	}
	msg, err := t.message(from, topic, value, o)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return wire.AsError(err)
	}
	ev := &Event{Topic: topic, Value: value, Publisher: from, RoutingKey: o.key}
	if !t.deliver(ev, o.target) {
		return errClosed()
	}
	t.published.Add(1)
	return t.send(ctx, topic, msg)
}

// message checks everything and returns what leaves the node.
func (t *Topics) message(from wire.Identity, topic string, value wire.Payload, o publishing) (*nats.Msg, error) {
	if _, err := subjects.ParseApp(from.App); err != nil {
		return nil, badName("publisher", err)
	}
	subject, err := t.cfg.Realm.TopicSubject(t.cfg.Self, topic)
	if err != nil {
		return nil, badName("topic", err)
	}
	msg := nats.NewMsg(string(subject))
	msg.Header.Set(wire.HeaderApp, from.App)
	if parsed, err := subjects.ParseTopic(msg.Subject); err != nil {
		return nil, badName("topic", err)
	} else if !parsed.NameKnown {
		msg.Header.Set(wire.HeaderName, subjects.EscapeName(topic))
	}
	if err := checkKey(o.key); err != nil {
		return nil, err
	}
	if o.key != "" {
		msg.Header.Set(wire.HeaderRoutingKey, o.key)
	}
	target, err := formatTarget(o.target)
	if err != nil {
		return nil, err
	}
	if target != "" {
		msg.Header.Set(wire.HeaderTarget, target)
	}
	out, err := value.As(wire.Msgpack)
	if err == nil {
		err = out.Check()
	}
	if err != nil {
		return nil, wire.Errorf(wire.BadPayload, "topic %q: %w", topic, err)
	}
	msg.Data = out.Data
	return msg, wire.CheckSize(topic, len(msg.Data), t.cfg.Data.MaxPayload())
}

// deliver puts ev into the queues of this node's subscribers. It is false
// when t is closed.
func (t *Topics) deliver(ev *Event, target wire.Filter) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.closed {
		return false
	}
	if it := t.interests[ev.Topic]; it != nil && !it.wild {
		it.deliver(ev, target)
	}
	for it := range t.wild {
		if subjects.MatchTopic(it.pattern, ev.Topic) {
			it.deliver(ev, target)
		}
	}
	return true
}

// deliver is called with Topics.mu held.
func (it *interest) deliver(ev *Event, target wire.Filter) {
	for s := range it.subs {
		s.offer(ev, target)
	}
}

// send hands msg to NATS. Local subscribers have it already.
func (t *Topics) send(ctx context.Context, topic string, msg *nats.Msg) error {
	data := t.cfg.Data
	err := data.Online()
	if err == nil {
		switch t.permits.verdict(msg.Subject, data.State().Connects, data.Denied()) {
		case allowed:
			err = data.Publish(msg)
		case refused:
			err = deniedError(msg.Subject)
		default:
			err = t.probe(ctx, msg)
		}
	}
	switch code := wire.CodeOf(err); code {
	case "":
		return nil
	case wire.Denied:
		t.denied.Add(1)
		fallthrough
	default:
		return wire.Errorf(code, "topic %q reached only subscribers on this node: %w", topic, err)
	}
}

// probe publishes and waits until the server has seen it, so that a denial has
// arrived. Without news in time the message counts as sent.
func (t *Topics) probe(ctx context.Context, msg *nats.Msg) error {
	data, conn := t.cfg.Data, t.cfg.Data.Conn()
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	select {
	case t.asking <- struct{}{}:
		defer func() { <-t.asking }()
	case <-ctx.Done():
		return data.Publish(msg)
	}
	connects := data.State().Connects
	before := conn.LastError()
	sent := false
	err := data.Do(ctx, msg.Subject, func(ctx context.Context) error {
		if err := conn.PublishMsg(msg); err != nil {
			return err
		}
		sent = true
		return conn.FlushWithContext(ctx)
	})
	// The link learns of a denial on another goroutine, perhaps after the
	// flush; the connection's last error is set before the flush returns.
	last := conn.LastError()
	fresh := last != before //nolint:errorlint // identity tells a new denial from an old one
	switch {
	case errors.Is(err, wire.ErrDenied), fresh && isPublishDenial(last, msg.Subject):
		t.permits.set(msg.Subject, connects, refused)
		return deniedError(msg.Subject)
	case err == nil:
		t.permits.set(msg.Subject, connects, allowed)
		return nil
	case sent && !errors.Is(err, wire.ErrOffline):
		return nil
	}
	return err
}

func isPublishDenial(err error, subject string) bool {
	return errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), fmt.Sprintf("Publish to %q", subject))
}

func deniedError(subject string) error {
	return wire.Errorf(wire.Denied, "NATS permissions do not allow publishing to %s", subject)
}
