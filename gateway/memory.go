package gateway

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
)

const (
	// returnWithin is how soon after its loss a client can be taken for the same,
	// and how long after its return what it had before is remembered.
	returnWithin = 10 * time.Second
	// announceWithin is how soon after it has subscribed again a returned client
	// repeats what it knew; later it means what it says.
	announceWithin = 5 * time.Second
	announceSoon   = time.Second
	// announceEach is how much longer for each context that it had: it goes through
	// them one after the other.
	announceEach = 200 * time.Millisecond
	announceMost = 15 * time.Second
	// pastWithin is how long the value of the past may take to be found.
	pastWithin = 2 * time.Second
	// maxMemories is how many clients are remembered that were lost.
	maxMemories = 1024
)

// Clients' libraries repeat after a reconnect what they knew before: an update
// with the old values of what has changed meanwhile. A memory is what a client was
// last sent of each context, so that the gateway can tell such a repetition from a
// new value. It is kept in the node's store by revision, for the node can be killed.
// The goroutine of the session owns it; once the session is lost it does not change.
type memory struct {
	client string // see clientKey
	key    string // of the client's connection, in the journal
	book   *memories
	held   map[string]held // by context
}

// held is what a client has of one context. The journal has the revision only.
type held struct {
	revision uint64
	value    *kv.Value
}

// memories are those of the clients that were lost within returnWithin.
type memories struct {
	journal *journal

	mu   sync.Mutex
	n    int
	lost map[string][]*memory // by clientKey, as nothing tells pages in several tabs from each other
}

// returned is what a client can have had before its connection, if it has returned.
// It is looked up when it is asked for, for a client can be back before the end of its
// old connection was seen.
type returned struct {
	book     *memories
	client   string
	at       time.Time
	recalled map[string]bool // by context
}

// clientKey is what tells a returning client, for nothing else in its hello is the
// same: application and process id, or the origin for a page, which has no process id.
// It is "" for a client that cannot be told.
func clientKey(id *node.Identity, origin string) string {
	switch {
	case id.PID != 0:
		return id.Application + "\x00" + strconv.Itoa(id.PID)
	case origin != "":
		return id.Application + "\x00" + origin
	}
	return ""
}

// openMemories reads what an earlier run of the node has left: its clients were
// lost when that ended, and return now.
func openMemories(j *journal) *memories {
	b := &memories{journal: j, lost: map[string][]*memory{}}
	for key, contexts := range j.load() {
		m := &memory{client: key[:max(0, strings.LastIndexByte(key, 0))], key: key, book: b, held: map[string]held{}}
		for name, revision := range contexts {
			m.held[name] = held{revision: revision}
		}
		b.lose(m)
	}
	return b
}

// begin is the memory of a new peer, and what it had before.
func (b *memories) begin(client string, id subjects.App) (*memory, *returned) {
	return &memory{client: client, key: client + "\x00" + string(id), book: b, held: map[string]held{}},
		&returned{book: b, client: client, at: time.Now(), recalled: map[string]bool{}}
}

// of is what was lost of a context.
func (b *memories) of(client, name string) (list []held) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.lost[client] {
		if h, had := m.held[name]; had {
			list = append(list, h)
		}
	}
	return list
}

// most is how many contexts a client can have had.
func (b *memories) most(client string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.lost[client] {
		n = max(n, len(m.held))
	}
	return n
}

// lose keeps the memory of a peer whose connection is gone for returnWithin.
func (b *memories) lose(m *memory) {
	if m.client == "" || len(m.held) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n == maxMemories {
		b.journal.drop(m.key)
		return
	}
	b.n++
	b.lost[m.client] = append(b.lost[m.client], m)
	time.AfterFunc(returnWithin, func() { b.expire(m) })
}

// expire forgets a client that was lost and cannot return any more.
func (b *memories) expire(m *memory) {
	b.journal.drop(m.key)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n--
	b.lost[m.client] = slices.DeleteFunc(b.lost[m.client], func(other *memory) bool { return other == m })
	if len(b.lost[m.client]) == 0 {
		delete(b.lost, m.client)
	}
}

// drop forgets a client that has ended.
func (b *memories) drop(m *memory) {
	if m.client != "" {
		b.journal.drop(m.key)
	}
}

// note remembers what the client has now of a context.
func (m *memory) note(name string, v *kv.Value, revision uint64) {
	if m.client == "" {
		return
	}
	old, had := m.held[name]
	m.held[name] = held{revision, v}
	if !had || old.revision != revision {
		m.book.journal.note(m.key, name, revision)
	}
}

// forget forgets a context that the client has left.
func (m *memory) forget(name string) {
	if _, had := m.held[name]; had {
		delete(m.held, name)
		m.book.journal.note(m.key, name, 0)
	}
}

// past is what a returned client can have had of a context.
type past struct {
	held  []held
	among int       // how many contexts the client can have had
	until time.Time // when the time is over for the client to repeat it
}

// remembered is what the client can have had of a context before it returned.
func (x *contexts) remembered(name string) []held {
	r := x.returned
	if r.recalled[name] || time.Since(r.at) > returnWithin {
		return nil
	}
	return r.book.of(r.client, name)
}

// recall is what the client can have had of a context before it returned, once.
func (x *contexts) recall(name string) *past {
	list := x.remembered(name)
	if list == nil {
		return nil
	}
	x.returned.recalled[name] = true
	return &past{held: list, among: x.returned.book.most(x.returned.client)}
}

// destroyedMeanwhile answers a returned client that creates a context again which
// was destroyed while it was away: it is told that it has it, and that it is gone.
func (x *contexts) destroyedMeanwhile(f *frame, name string) bool {
	if x.app.Exists(name) || x.recall(name) == nil {
		return false
	}
	id := contextID(name)
	x.ghosts[id] = name
	x.added(name, x.p.id)
	x.p.s.send(begin(f.domain, "context-created").raw("request_id", f.request).str("peer_id", string(x.p.id)).str("context_id", id))
	x.p.s.afterRead(func() {
		x.gone(name, x.domain, uriDestroyed, textDestroyed)
		x.p.s.afterRead(func() { delete(x.ghosts, id) })
	})
	return true
}

// ghost answers what a returned client asks of a context that destroyedMeanwhile has
// given it, until it has heard of the end.
func (x *contexts) ghost(f *frame, id string) bool {
	name, ok := x.ghosts[id]
	if !ok || x.app.Exists(name) {
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

// resolve finds the values of a past that only has revisions, and sees to it that this
// node knows what was written while the client was away, then calls done.
func (p *past) resolve(x *contexts, name string, done func()) {
	peer := x.p
	go func() { // ends within pastWithin
		ctx, cancel := context.WithTimeout(peer.ctx, pastWithin)
		defer cancel()
		for i, h := range p.held {
			if h.value == nil {
				was, _ := x.app.At(ctx, name, h.revision) // or it is not known, and only the revision counts
				p.held[i].value = was.Object
			}
		}
		if err := x.app.CatchUp(ctx, name); err != nil { // then what it repeats may come before what it has missed
			peer.log.Debug("a context may be old", slog.String("context", name), slog.Any("error", err))
		}
		peer.post(done)
	}()
}

// seen says that the client was told what is there now. A client only repeats what
// has changed, so that the time for it is short if nothing has; it is not over, for
// the change may be on its way to this node.
func (p *past) seen(now *kv.Value) {
	if p == nil {
		return
	}
	within := announceSoon
	if slices.ContainsFunc(p.held, func(h held) bool { return h.value == nil || differs(h.value, now) }) {
		within = announceWithin
	}
	p.until = time.Now().Add(within + min(time.Duration(p.among)*announceEach, announceMost))
}

// differs says whether a member of an object is another one now.
func differs(was, now *kv.Value) bool {
	return slices.ContainsFunc(was.Members(), func(m kv.Member) bool { return !now.At([]string{m.Name}).Equal(m.Value) })
}

// repeats says whether an update only repeats what the client had before its
// connection was lost. Only the first update after the return is looked at.
func (c *shared) repeats(d delta) bool {
	p := c.past
	c.past = nil
	if p == nil || !c.known || time.Now().After(p.until) || d.reset != nil || len(d.commands) == 0 {
		return false
	}
	// Even if nothing of it has changed: the change may be on its way to this node.
	return slices.ContainsFunc(p.held, func(h held) bool {
		return !slices.ContainsFunc(d.commands, func(cmd command) bool { return !c.had(h, cmd) })
	})
}

// had says whether the client had what a command of it sets.
func (c *shared) had(h held, cmd command) bool {
	switch {
	case len(cmd.path) != 1 || cmd.value == nil:
		return false
	case h.value == nil: // it can only be asked whether somebody has written there since
		return c.state.ChangedSince(h.revision, cmd.path...) || c.view.At(cmd.path).Equal(cmd.value)
	default:
		return h.value.At(cmd.path).Equal(cmd.value)
	}
}
