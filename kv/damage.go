package kv

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/wire"
)

const (
	// auditEvery is how often the messages of all replicas are counted, and auditSoon
	// when again after a doubt.
	auditEvery = 20 * time.Second
	auditSoon  = 4 * time.Second
	// suspectEvery is how often all replicas of a node may be made to look for what
	// they have missed.
	suspectEvery = time.Second
	// auditPatience is how long a reader waits for another that counts.
	auditPatience = time.Second
	// auditTries bounds the requests that are made until every replica has answered:
	// a server picks one of them at random.
	auditTries = 12
	// condemnAfter is how long a replica has to lack messages, without catching up,
	// until it counts as damaged.
	condemnAfter = 8 * time.Second
	// choiceTries is how often a page is asked for until a replica answers that may.
	choiceTries = 24
	// lagFor is how long a replica may take for the newest writes.
	lagFor    = 500 * time.Millisecond
	traceWait = 250 * time.Millisecond
	traceMost = 64
)

// shortError says that a replica answered with less than the leader has, although
// nothing was written meanwhile.
type shortError struct{ error }

func (e shortError) Unwrap() error { return e.error }

// errUnreadable is a replica's answer that it cannot read what it has.
var errUnreadable = errors.New("it cannot read what it has")

// tailError says that the leader has less than is known to have been written.
type tailError struct {
	leader, seen uint64
	err          error
}

func (e *tailError) Error() string { return e.err.Error() }
func (e *tailError) Unwrap() error { return e.err }

func (b *Bucket) newTailError(leader, seen uint64) *tailError {
	return &tailError{leader, seen, wire.Errorf(wire.Unavailable, "stream %s: the leader has writes up to %d, others were seen up to %d", b.name.Stream(), leader, seen)}
}

// health is what the readers of a bucket know of the replicas of its stream.
type health struct {
	auditing chan struct{} // has room while no messages are counted
	born     time.Time     // when the bucket was made
	top      atomic.Uint64 // the newest sequence that a replica of ours has seen

	mu       sync.Mutex
	replicas map[*Replica]struct{} // ours, which follow
	next     time.Time             // when to count again
	// suspected is when replicas were last made to look what they have missed.
	suspected time.Time
	// failing says that a replica could not read; again is closed when one can, at worked.
	failing bool
	again   chan struct{}
	worked  time.Time
	// audited says that messages were counted once at least.
	audited  bool
	hushed   int // how often in a row not all have answered
	leader   string
	servers  []string // that can answer, the leader first
	away     []string // that cannot, or of which the leader has not heard for leadsFor
	created  time.Time
	suspects map[string]*suspect // by server
	// tail says that the leader has lost writes that others may still have: then
	// only what the leader has counts.
	tail bool
	// low is since when every answer of the leader has been less than goal, which was seen
	// before it was asked, and no more than most. lowAt is the newest such answer, and cut
	// the least of them. With tail, cut is the last sequence that is still what it was.
	low, lowAt      time.Time
	goal, most, cut uint64
	// untraced says that servers do not tell who has answered.
	untraced bool
}

// suspect is a server whose replica does not have what the others have.
type suspect struct {
	since   time.Time
	off     uint64 // by how many messages, the least since
	wasOff  uint64 // at first
	certain bool
}

// Report makes the bucket and its replicas raise their alarms there. It must be called
// before anything else.
func (b *Bucket) Report(alarms *alarm.Set) { b.alarms = alarms }

// learnServers notes who has the stream.
func (b *Bucket) learnServers(info *jetstream.StreamInfo) {
	h := &b.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if info.Config.Name != b.name.Stream() {
		return // of another stream of the realm
	}
	if !h.created.Equal(info.Created) {
		h.created, h.tail, h.low = info.Created, false, time.Time{}
		h.top.Store(0)
		h.suspects = map[string]*suspect{}
		b.alarms.Clear(b, alarm.TailLost, b.name.Stream(), "")
		b.alarms.Clear(b, alarm.ReplicaDamaged, b.name.Stream(), "")
	}
	was := h.away
	h.leader, h.servers, h.away = b.link.Conn().ConnectedServerName(), nil, nil
	if c := info.Cluster; c != nil {
		if c.Leader != "" {
			h.leader = c.Leader
		}
		for _, p := range c.Replicas {
			if !p.Offline {
				h.servers = append(h.servers, p.Name)
			}
			switch {
			case p.Offline || p.Active >= leadsFor:
				h.away = append(h.away, p.Name)
			case slices.Contains(was, p.Name):
				h.next, h.hushed = time.Time{}, 0 // who knows what it has left
			}
		}
	}
	h.servers = append([]string{h.leader}, h.servers...)
}

// candidates names every server that can have answered.
func (h *health) candidates() string { return strings.Join(h.servers, ", ") }

// choosy says whether it matters which replica answers.
func (h *health) choosy() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tail || len(h.suspects) > 0
}

// takes says whether an answer of a server counts; "" is an unknown one.
func (h *health) takes(server string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case server == "":
		return true
	case h.tail:
		return server == h.leader
	default:
		return h.suspects[server] == nil
	}
}

// isTail says whether the leader has lost writes, and the last sequence that is still what
// it was.
func (h *health) isTail() (cut uint64, tail bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cut, h.tail
}

// learnLast notes what the leader has, of which seen had been seen before it was asked.
// Under load it has less for a while than who follows it, as long as it has not stored what
// was agreed on, and so does one that was replaced and does not know it yet. It has lost
// writes if it does not get there, or no further; one that goes on with other writes is
// found out by these when it is there.
func (h *health) learnLast(last, seen uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.tail:
	case !h.low.IsZero() && last < h.goal && time.Since(h.lowAt) <= 2*tailFor:
		if h.lowAt, h.cut = time.Now(), min(h.cut, last); last > h.most {
			h.low, h.most = h.lowAt, last
		}
	case last < seen:
		h.low, h.lowAt, h.goal, h.most, h.cut = time.Now(), time.Now(), seen, last, last
	default:
		h.low = time.Time{}
	}
}

// isLow says whether the leader has had less than was seen for so long that it must have
// lost the rest, and the least that it had.
func (h *health) isLow() (cut uint64, low bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cut, !h.low.IsZero() && h.lowAt.Sub(h.low) >= tailFor
}

// doubt makes the next audit come soon.
func (h *health) doubt() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next = time.Time{}
}

func (h *health) add(r *Replica) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.replicas[r] = struct{}{}
}

func (h *health) remove(r *Replica) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.replicas, r)
}

// saw notes that the stream has reached a sequence.
func (h *health) saw(seq uint64) {
	for top := h.top.Load(); seq > top && !h.top.CompareAndSwap(top, seq); top = h.top.Load() {
	}
}

// refresh makes all replicas read again.
func (h *health) refresh(why string) {
	h.mu.Lock()
	replicas := slices.Collect(maps.Keys(h.replicas))
	h.mu.Unlock()
	for _, r := range replicas {
		r.Refresh(why)
	}
}

// elected makes all replicas look soon what the former leader has not republished, of
// what the stream has by seq, and read everything within the next checkEvery, which
// spreads that.
func (h *health) elected(seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.saw(seq)
	for r := range h.replicas {
		r.due.Store(true)
		r.look()
	}
	h.wake()
}

// fails notes that a replica could not read what it began to read at a time, and returns
// what is closed when another can, or could since.
func (h *health) fails(began time.Time) (works <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	again := h.again
	h.failing = true
	if h.worked.After(began) {
		again = make(chan struct{})
		close(again)
	}
	return again
}

// works notes that a replica could read: those that could not try again, at most every
// suspectEvery.
func (h *health) works() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failing && time.Since(h.worked) >= suspectEvery {
		h.wake()
	}
}

// until is the time to the next of the moments, so far apart, at which replicas do something:
// those of a node all at once, which makes few requests of it, and each node at others.
func (h *health) until(every time.Duration) time.Duration { return every - time.Since(h.born)%every }

// wake makes the replicas try again that could not read. mu is held.
func (h *health) wake() {
	close(h.again)
	h.failing, h.again, h.worked = false, make(chan struct{}), time.Now()
	h.next, h.hushed = time.Time{}, 0 // who knows what the servers have left
}

// suspectLoss makes all replicas but one look soon what they have missed, at most every
// suspectEvery. seq is a sequence that the stream has reached.
func (h *health) suspectLoss(but *Replica, seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.suspected) < suspectEvery {
		return
	}
	h.suspected = time.Now()
	h.saw(seq)
	for r := range h.replicas {
		if r != but {
			r.look()
		}
	}
}

// lost notes that the leader has lost the last writes.
func (b *Bucket) lost(cut, seen uint64) {
	h := &b.health
	h.mu.Lock()
	if h.tail {
		h.mu.Unlock()
		return
	}
	h.tail, h.cut = true, cut
	leader := h.leader
	h.mu.Unlock()
	b.alarms.Raise(b, alarm.Alarm{
		Kind: alarm.TailLost, Stream: b.name.Stream(), Server: leader,
		Text: "the leader has lost the writes after sequence " + strconv.FormatUint(cut, 10) + ", which were seen up to " + strconv.FormatUint(seen, 10) +
			"; contexts go on from what it has left",
	})
	h.refresh("the leader has lost writes")
}

// audit counts the messages of all replicas when it is time: one that has not as many as
// the others has missed some, which nothing else of NATS shows. While somebody else counts
// it waits if the caller is in doubt, or nobody has counted yet: otherwise what comes of
// it is in time when it is there, see judge.
func (b *Bucket) audit(ctx context.Context, inDoubt bool) {
	h := &b.health
	if !h.turn(ctx, inDoubt) {
		return
	}
	defer func() { <-h.auditing }()
	h.mu.Lock()
	due := !time.Now().Before(h.next)
	h.mu.Unlock()
	if !due {
		return
	}
	wait, hushed := auditEvery, 0
	t, err := b.tally(ctx)
	if err == nil && t.isOff() && pause(ctx, lagFor) {
		before := t.off
		if t, err = b.tally(ctx); err == nil {
			for server, n := range t.off { // it may have been late with the newest writes
				if was, answered := before[server]; answered {
					t.off[server] = min(n, was)
				} else {
					delete(t.off, server)
				}
			}
		}
	}
	switch {
	case err != nil:
		wait = auditSoon
	case !b.judge(&t), !t.exact:
		wait = auditSoon
	case !t.all:
		h.mu.Lock()
		hushed = h.hushed + 1
		h.mu.Unlock()
		wait = min(auditSoon<<min(hushed-1, 10), auditEvery)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hushed, h.next, h.audited = hushed, time.Now().Add(wait), h.audited || err == nil
}

// turn says whether it is the caller's to count; who counts may be held up, and that
// must not hold up readers.
func (h *health) turn(ctx context.Context, inDoubt bool) bool {
	select {
	case h.auditing <- struct{}{}:
		return true
	default:
	}
	h.mu.Lock()
	audited := h.audited
	h.mu.Unlock()
	if audited && !inDoubt {
		return false
	}
	select {
	case h.auditing <- struct{}{}:
		return true
	case <-time.After(auditPatience):
	case <-ctx.Done():
	}
	return false
}

// errMoving is when the stream was made anew while messages were counted.
var errMoving = errors.New("the stream has changed")

// tally is by how many messages each replica is off.
type tally struct {
	off  map[string]uint64 // by server, at least; nil if that cannot be told
	have uint64            // what it is held against
	// exact says that nothing was written meanwhile. Otherwise 0 is little or nothing.
	exact bool
	slack uint64 // what counts as nothing
	all   bool   // every one has answered that can
}

// isOff says whether any replica is.
func (t *tally) isOff() bool {
	for _, n := range t.off {
		if n > 0 {
			return true
		}
	}
	return false
}

// tally counts the messages of each replica. It tries to do that while nothing is written;
// else what two that are sound can differ by counts as nothing.
func (b *Bucket) tally(ctx context.Context) (t tally, err error) {
	err = errMoving
	for range snapshotTries {
		before, infoErr := b.info(ctx)
		if infoErr != nil {
			return t, infoErr
		}
		counts, all := b.counts(ctx, before.State.Msgs)
		after, infoErr := b.info(ctx)
		if infoErr != nil {
			return t, infoErr
		}
		if !after.Created.Equal(before.Created) || after.State.LastSeq < before.State.LastSeq {
			continue
		}
		// What was added is in one count and not in the other, and the other way round
		// what was removed, which is as much, and by how much less there is now.
		slack := 2*(after.State.LastSeq-before.State.LastSeq) + before.State.Msgs - min(before.State.Msgs, after.State.Msgs)
		exact := slack == 0 && after.State.Msgs == before.State.Msgs || all && len(counts) == 1
		replicas := 1
		if after.Cluster != nil {
			replicas += len(after.Cluster.Replicas)
		}
		t, err = tally{exact: exact, slack: slack, all: all}, nil
		t.off, t.have = off(counts, replicas, slack, exact)
		if t.exact || t.isOff() {
			break
		}
	}
	return t, err
}

// off holds the messages of each replica against those of the majority. One that has missed
// writes can have fewer than the others, or more, for it has missed removals, too. Without
// a majority the most count, if nothing was written meanwhile; else it cannot be told.
func off(counts map[string]uint64, replicas int, slack uint64, exact bool) (off map[string]uint64, have uint64) {
	list := slices.Sorted(maps.Values(counts))
	low, have, agree := list[len(list)-1], list[len(list)-1], 0
	for i, from := range list {
		to, _ := slices.BinarySearch(list, from+slack+1)
		if n := to - i; n > agree && 2*n > replicas {
			low, have, agree = from, list[to-1], n
		}
	}
	if agree == 0 && !exact {
		return nil, have
	}
	off = map[string]uint64{}
	for server, n := range counts {
		off[server] = max(low-min(low, n+slack), n-min(n, have+slack))
	}
	return off, have
}

// counts is how many messages each replica has, of which the leader has said it.
func (b *Bucket) counts(ctx context.Context, leads uint64) (counts map[string]uint64, all bool) {
	h := &b.health
	h.mu.Lock()
	leader, servers := h.leader, slices.Clone(h.servers)
	h.mu.Unlock()
	counts = map[string]uint64{leader: leads}
	for try := 0; try < auditTries && len(counts) < len(servers); try++ {
		server, n, err := b.size(ctx)
		if err != nil {
			continue // of a replica that has gone, or does not answer
		}
		if server == "" {
			server = strings.Join(servers, ", ")
		}
		if old, ok := counts[server]; ok {
			n = min(n, old)
		}
		counts[server] = n
	}
	return counts, len(counts) >= len(servers)
}

// size is how many messages the replica has that answers.
func (b *Bucket) size(ctx context.Context) (server string, n uint64, err error) {
	server, err = b.directFrom(ctx, string(b.name.DirectGet()), []byte(`{"seq":1,"next_by_subj":">","batch":1}`), 3, func(m *nats.Msg) (bool, error) {
		switch s := status(m); {
		case s == "" && m.Header.Get(hdrSubject) != "":
			pending, err := strconv.ParseUint(last(m, hdrNumPending), 10, 64)
			n = pending + 1
			return false, err
		case s == "204", s == "404":
			return true, nil
		default:
			_, err := b.answer(m)
			return true, err
		}
	})
	return server, n, err
}

// judge takes by how much the replicas are off that have answered, and says whether there is no
// doubt left.
func (b *Bucket) judge(t *tally) (clear bool) {
	h := &b.health
	stream, now, why := b.name.Stream(), time.Now(), ""
	h.mu.Lock()
	for server, s := range h.suspects {
		// It has caught up, has the stream no more, or is down.
		n, answered := t.off[server]
		if answered && n == 0 && (t.exact || s.wasOff > 2*t.slack) || !answered && !slices.Contains(h.servers, server) && !strings.Contains(server, ", ") {
			delete(h.suspects, server)
			b.alarms.Clear(b, alarm.ReplicaDamaged, stream, server)
		}
	}
	for server, n := range t.off {
		s := h.suspects[server]
		switch {
		case n == 0:
		case s == nil:
			h.suspects[server] = &suspect{since: now, off: n, wasOff: n}
			why = "a replica has not got what the others have" // what it has answered so far may be old
		case s.certain:
		case n < s.off: // it catches up
			s.since, s.off = now, n
		case now.Sub(s.since) >= condemnAfter:
			s.certain = true
			b.alarms.Raise(b, alarm.Alarm{
				Kind: alarm.ReplicaDamaged, Stream: stream, Server: server,
				Text: "the replica is off by " + strconv.FormatUint(n, 10) + " from the " + strconv.FormatUint(t.have, 10) +
					" messages that others have, and is not mended by itself; what it answers is not used. Take it out of the stream and in again",
			})
		}
	}
	clear = true
	for _, s := range h.suspects {
		clear = clear && s.certain
	}
	h.mu.Unlock()
	if why != "" {
		h.refresh(why)
	}
	return clear
}

// directFrom is direct, and says which server has answered; "" if that cannot be
// found out. NATS traces the request for that: every server that it passed tells
// to whom it gave it.
func (b *Bucket) directFrom(ctx context.Context, subject string, body []byte, limit int, h func(*nats.Msg) (bool, error)) (server string, err error) {
	b.health.mu.Lock()
	untraced := b.health.untraced
	b.health.mu.Unlock()
	if untraced {
		return "", b.direct(ctx, subject, body, limit, h)
	}
	nc := b.link.Conn()
	inbox := nc.NewInbox()
	events := make(chan *nats.Msg, traceMost)
	sub, err := nc.ChanSubscribe(inbox, events)
	if err != nil {
		return "", typed(err, b.name.Stream(), b.realm)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is gone
	answered := false
	// A trace that these credentials may not ask for ends the whole request.
	err = b.link.Do(ctx, inbox, func(ctx context.Context) error {
		return b.ask(ctx, b.name.Stream(), &nats.Msg{Subject: subject, Data: body, Header: nats.Header{hdrTraceDest: {inbox}}}, limit, func(m *nats.Msg) (bool, error) {
			answered = true
			return h(m)
		})
	})
	if errors.Is(err, wire.ErrDenied) && !answered {
		b.health.mu.Lock()
		b.health.untraced = true
		b.health.mu.Unlock()
		return "", b.direct(ctx, subject, body, limit, h)
	}
	if err != nil {
		return "", err
	}
	return answerer(events), nil
}

// trace is what a server says of a request that has passed it.
type trace struct {
	Server struct {
		Name string `json:"name"`
	} `json:"server"`
	Hops   int `json:"hops"`
	Events []struct {
		Type string `json:"type"`
		Kind int    `json:"kind"`
	} `json:"events"`
}

// isPassedOn says whether the server gave the request to another.
func (t *trace) isPassedOn() bool {
	for _, e := range t.Events {
		if e.Type == "eg" && (e.Kind == 1 || e.Kind == 2 || e.Kind == 4) { // a route, gateway or leaf node
			return true
		}
	}
	return false
}

// isFirst says whether the request came to the server from a client.
func (t *trace) isFirst() bool {
	return len(t.Events) > 0 && t.Events[0].Type == "in" && t.Events[0].Kind == 0
}

// answerer is the one server that did not pass a request on, "" if that is not clear.
func answerer(events <-chan *nats.Msg) (server string) {
	timeout := time.NewTimer(traceWait)
	defer timeout.Stop()
	found, seen, due, begun := 0, 0, 1, false
	for ; seen < due || !begun; seen++ {
		select {
		case m := <-events:
			var t trace
			if err := json.Unmarshal(m.Data, &t); err != nil {
				return ""
			}
			due += t.Hops
			begun = begun || t.isFirst()
			if !t.isPassedOn() {
				server = t.Server.Name
				found++
			}
		case <-timeout.C:
			return ""
		}
	}
	if found != 1 {
		return "" // somebody else listens to requests, too
	}
	return server
}
