package link

import (
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
)

// asks is the replies that [Link.Ask] waits for.
type asks struct {
	mu      sync.Mutex
	next    uint64
	waiting map[string]*Asking // by reply subject
	sub     *nats.Subscription
}

// Asking is a request that was sent with [Link.Ask].
type Asking struct {
	l       *Link
	subject string
	reply   string
	flight  *inflight
	once    sync.Once
	done    func(*nats.Msg, error)
}

// Ask sends msg and returns; done gets the reply, or why there will be none:
// the errors of [Link.Request] without timeout, which is for the caller to set
// with [Asking.Cancel]. done is called once, on any goroutine, and must not
// block. Requests on one subject arrive in the order in which they were sent.
func (l *Link) Ask(msg *nats.Msg, done func(*nats.Msg, error)) *Asking {
	a := &Asking{l: l, subject: msg.Subject, done: done}
	a.flight = &inflight{cancel: func(err error) { a.end(nil, err) }}
	if err := a.send(msg); err != nil {
		a.end(nil, err)
	}
	return a
}

func (a *Asking) send(msg *nats.Msg) error {
	l := a.l
	if err := l.Online(); err != nil {
		return err
	}
	if err := l.asks.add(l, a); err != nil {
		return err
	}
	if err := l.enlist(a.subject, a.flight); err != nil {
		return err
	}
	msg.Reply = a.reply
	return Typed(l.nc.PublishMsg(msg))
}

// Cancel ends the request with an error, unless it has ended.
func (a *Asking) Cancel(err error) { a.end(nil, err) }

func (a *Asking) end(m *nats.Msg, err error) {
	a.once.Do(func() {
		a.l.asks.remove(a.reply)
		a.l.delist(a.subject, a.flight)
		if err == nil && len(m.Data) == 0 && m.Header.Get("Status") == "503" {
			m, err = nil, ErrNoResponders
		}
		a.done(m, err)
	})
}

// add gives a request its reply subject. The first one subscribes.
func (s *asks) add(l *Link, a *Asking) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	prefix := subjects.InboxPrefix(l.cfg.Node) + ".ask."
	if s.sub == nil {
		sub, err := l.nc.Subscribe(prefix+"*", s.take)
		if err != nil {
			return Typed(err)
		}
		if err := sub.SetPendingLimits(pendingMsgs, pendingBytes); err != nil {
			return Typed(err)
		}
		s.sub, s.waiting = sub, map[string]*Asking{}
	}
	s.next++
	a.reply = prefix + strconv.FormatUint(s.next, 36)
	s.waiting[a.reply] = a
	return nil
}

func (s *asks) remove(reply string) {
	s.mu.Lock()
	delete(s.waiting, reply)
	s.mu.Unlock()
}

// take hands on a reply.
func (s *asks) take(m *nats.Msg) {
	s.mu.Lock()
	a := s.waiting[m.Subject]
	s.mu.Unlock()
	if a != nil {
		a.end(m, nil)
	}
}
