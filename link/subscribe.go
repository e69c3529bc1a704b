package link

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Subscribe calls h for each message, in order, on one goroutine. With a queue
// name one member of the group gets each message. slow, which may be nil, is
// told when the client library had to drop messages because h was too slow.
// The subscription is known to the server when Subscribe returns; one that
// NATS permissions forbid is [wire.ErrDenied]. One that is made offline reaches
// the server with the connection.
func (l *Link) Subscribe(ctx context.Context, subject, queue string, h nats.MsgHandler, slow func(dropped int)) (*nats.Subscription, error) {
	return l.subscribe(ctx, subject, queue, slow, func() (*nats.Subscription, error) {
		sub, err := l.nc.QueueSubscribe(subject, queue, h)
		if err == nil {
			err = sub.SetPendingLimits(pendingMsgs, pendingBytes)
		}
		return sub, err
	})
}

func (l *Link) subscribe(ctx context.Context, subject, queue string, slow func(dropped int), begin func() (*nats.Subscription, error)) (*nats.Subscription, error) {
	m := &making{subject: subject, queue: queue}
	l.mu.Lock()
	l.making[m] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.making, m)
		l.mu.Unlock()
	}()
	before := l.nc.LastError()
	sub, err := begin()
	if err != nil {
		return nil, Typed(err)
	}
	if slow != nil {
		l.slow.Store(sub, slow)
	}
	err = l.Flush(ctx)
	if errors.Is(err, wire.ErrOffline) {
		return sub, nil
	}
	if err == nil {
		err = l.await(ctx, m, before)
	}
	if err != nil {
		l.Unsubscribe(sub)
		return nil, Typed(err)
	}
	return sub, nil
}

// Unsubscribe ends a subscription made with [Link.Subscribe].
func (l *Link) Unsubscribe(sub *nats.Subscription) {
	l.slow.Delete(sub)
	_ = sub.Unsubscribe() // only fails when it is gone already
}

// making is a subscription that the server has not confirmed yet.
type making struct {
	subject, queue string
	denied         error
}

var (
	subscription = regexp.MustCompile(`Subscription to "(\S+)"`)
	queueGroup   = regexp.MustCompile(`using queue "(\S+)"`)
)

// report notes a violation and says whether it ends a subscription in making.
func (l *Link) report(err error) (told bool) {
	var subject, queue string
	if m := subscription.FindStringSubmatch(err.Error()); m != nil {
		subject = m[1]
	}
	if m := queueGroup.FindStringSubmatch(err.Error()); m != nil {
		queue = m[1]
	}
	if strings.HasPrefix(subject, subjects.InboxPrefix(l.cfg.Node)+".") {
		l.deafen(subject, err)
		told = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for m := range l.making {
		if m.subject == subject && m.queue == queue {
			m.denied, told = err, true
		}
	}
	l.reported = err
	close(l.news)
	l.news = make(chan struct{})
	return told
}

// await returns why a subscription was denied. The server's answer to the flush
// came after its violation, if there was one, and the connection then had a
// new last error; so what has to be waited for is only that this error and
// those before it have passed through the callback queue.
func (l *Link) await(ctx context.Context, m *making, before error) error {
	for {
		l.mu.Lock()
		denied, reported, news := m.denied, l.reported, l.news
		l.mu.Unlock()
		last := l.nc.LastError() // after reported: one that is newer is still to come
		if denied != nil {
			return wire.Errorf(wire.Denied, "NATS permissions do not allow subscribing to %s: %w", m.subject, denied)
		}
		if !errors.Is(last, nats.ErrPermissionViolation) || last == before || last == reported { //nolint:errorlint // identity on purpose: is it that one
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
