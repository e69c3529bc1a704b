package gateway

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node"
)

const (
	// returnWithin is how soon after its loss a client can be taken for the same,
	// and how long after its return what it had before is remembered.
	returnWithin = 10 * time.Second
	// announceWithin is how soon after it has subscribed again a returned client
	// repeats what it knew; later it means what it says.
	announceWithin = 5 * time.Second
	announceSoon   = time.Second
	// pastWithin is how long the value of the past may take to be found.
	pastWithin = 2 * time.Second
	// maxMemories is how many clients are remembered that were lost.
	maxMemories = 1024
)

// Clients' libraries repeat after a reconnect what they knew before: an update
// with the old values of what has changed meanwhile. A memory is what a client was
// last sent of each context, so that the gateway can tell such a repetition from a
// new value. It is kept in the node's store by revision, for the node can be killed.
type memory struct {
	key  string
	book *memories
	back time.Time // when the client returned

	mu   sync.Mutex
	held map[string]*past // by context
}

// past is what a client had of one context. A past that was read from the store
// has the revision only, until it is resolved.
type past struct {
	revision uint64
	value    *kv.Value
	until    time.Time // when the time is over for the client to repeat it
}

// memories are those of all clients of a gateway.
type memories struct {
	journal *journal

	mu      sync.Mutex
	lost    map[string]lostMemory
	current map[string]*memory // of the newest peer, by key
}

type lostMemory struct {
	*memory
	at time.Time
}

// identityKey is what tells a returning client: nothing else in its hello is the
// same. It is "" for a client that cannot be told.
func identityKey(id *node.Identity) string {
	if id.PID == 0 {
		return ""
	}
	return id.Application + "\x00" + strconv.Itoa(id.PID)
}

// openMemories reads what an earlier run of the node has left: its clients were
// lost when that ended, and return now.
func openMemories(j *journal) *memories {
	b := &memories{journal: j, lost: map[string]lostMemory{}, current: map[string]*memory{}}
	for key, contexts := range j.load() {
		m := &memory{key: key, book: b, held: map[string]*past{}}
		for name, revision := range contexts {
			m.held[name] = &past{revision: revision}
		}
		b.lost[key] = lostMemory{m, time.Now()}
	}
	return b
}

// begin is the memory of a new peer, and what it had before if it is one that
// returns.
func (b *memories) begin(id *node.Identity) (m, returned *memory) {
	m = &memory{key: identityKey(id), book: b, held: map[string]*past{}}
	if m.key == "" {
		return m, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current[m.key] = m
	l, ok := b.lost[m.key]
	delete(b.lost, m.key)
	if !ok || time.Since(l.at) > returnWithin {
		return m, nil
	}
	l.back = time.Now()
	return m, l.memory
}

// lose keeps the memory of a peer whose connection is gone.
func (b *memories) lose(m *memory) {
	m.mu.Lock()
	n := len(m.held)
	m.mu.Unlock()
	if m.key == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.end(m) {
		return
	}
	for key, l := range b.lost {
		if time.Since(l.at) > returnWithin {
			delete(b.lost, key)
			b.journal.drop(key)
		}
	}
	if n > 0 && len(b.lost) < maxMemories {
		b.lost[m.key] = lostMemory{m, time.Now()}
	}
}

// drop forgets a client that has ended.
func (b *memories) drop(m *memory) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.key != "" && b.end(m) {
		b.journal.drop(m.key)
	}
}

// end says whether the peer of a memory was the newest of its key. A process can
// connect again before its old connection is seen to end. mu is held.
func (b *memories) end(m *memory) bool {
	if b.current[m.key] != m {
		return false
	}
	delete(b.current, m.key)
	return true
}

// note remembers what the client has now of a context.
func (m *memory) note(name string, v *kv.Value, revision uint64) {
	if m.key == "" {
		return
	}
	m.mu.Lock()
	old := m.held[name]
	m.held[name] = &past{revision: revision, value: v}
	m.mu.Unlock()
	if old == nil || old.revision != revision {
		m.book.journal.note(m.key, name, revision)
	}
}

// forget forgets a context that the client has left.
func (m *memory) forget(name string) {
	m.mu.Lock()
	_, had := m.held[name]
	delete(m.held, name)
	m.mu.Unlock()
	if had {
		m.book.journal.note(m.key, name, 0)
	}
}

// recall is what the client had of a context before it returned, once.
func (x *contexts) recall(name string) *past {
	m := x.returned
	if m == nil || time.Since(m.back) > returnWithin {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.held[name]
	delete(m.held, name)
	return p
}

// remembers says whether the client had a context before it returned.
func (x *contexts) remembers(name string) bool {
	m := x.returned
	if m == nil || time.Since(m.back) > returnWithin {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held[name] != nil
}

// destroyedMeanwhile answers a returned client that creates a context again which
// was destroyed while it was away: it is told that it has it, and that it is gone.
func (x *contexts) destroyedMeanwhile(f *frame, name string) bool {
	if x.app.Exists(name) || x.recall(name) == nil {
		return false
	}
	x.ghosts[contextID(name)] = name
	x.added(name, x.p.id)
	x.p.s.send(begin(f.domain, "context-created").raw("request_id", f.request).str("peer_id", string(x.p.id)).str("context_id", contextID(name)))
	x.p.s.afterRead(func() { x.gone(name, x.domain, uriDestroyed, textDestroyed) })
	return true
}

// ghost answers what a returned client asks of a context that destroyedMeanwhile has
// given it, for it asks before it has heard of the end.
func (x *contexts) ghost(f *frame, id string) bool {
	name, ok := x.ghosts[id]
	if !ok {
		return false
	}
	if time.Since(x.returned.back) > returnWithin || x.app.Exists(name) {
		delete(x.ghosts, id)
		return false
	}
	if f.kind == "subscribe-context" {
		x.p.s.send(begin(f.domain, "subscribed-context").raw("request_id", f.request).str("peer_id", string(x.p.id)).
			str("context_id", id).raw("data", []byte("{}")))
	} else {
		x.p.success(f, f.domain)
	}
	return true
}

// resolve finds the value of a past that only has a revision, then calls done.
func (p *past) resolve(x *contexts, name string, done func()) {
	if p.value != nil {
		done()
		return
	}
	peer := x.p
	go func() { // ends within pastWithin
		ctx, cancel := context.WithTimeout(peer.ctx, pastWithin)
		defer cancel()
		v, _, _ := x.app.At(ctx, name, p.revision) // or it is gone, and only the revision counts
		peer.post(func() {
			p.value = v
			done()
		})
	}()
}

// seen says that the client was told what is there now. A client only repeats what
// has changed, so that the time for it is short if nothing has; it is not over, for
// the change may be on its way to this node.
func (p *past) seen(now *kv.Value) {
	if p == nil {
		return
	}
	p.until = time.Now().Add(announceSoon)
	if p.value == nil {
		p.until = time.Now().Add(announceWithin)
		return
	}
	for _, m := range p.value.Members() {
		if !now.At([]string{m.Name}).Equal(m.Value) {
			p.until = time.Now().Add(announceWithin)
			return
		}
	}
}

// repeats says whether an update only repeats what the client had before its
// connection was lost. Only the first update after the return is looked at.
func (c *shared) repeats(d delta) bool {
	p := c.past
	if p == nil || !c.known || len(c.snapshot) > 0 {
		return false
	}
	c.past = nil
	if time.Now().After(p.until) || d.reset != nil || len(d.commands) == 0 {
		return false
	}
	for _, cmd := range d.commands {
		if len(cmd.path) != 1 || cmd.value == nil {
			return false
		}
		if p.value == nil { // it can only be asked whether somebody has written there since
			if !c.state.ChangedSince(p.revision, cmd.path...) && !c.view.At(cmd.path).Equal(cmd.value) {
				return false
			}
			continue
		}
		if !p.value.At(cmd.path).Equal(cmd.value) {
			return false
		}
	}
	return true // even if nothing of it has changed: the change may be on its way to this node
}
