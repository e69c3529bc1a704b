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
	// announceWithin is how soon a returned client repeats what it knew of the next
	// context, since it has subscribed to all of them again, or repeated another one: it
	// goes through them one after the other. Later it means what it says.
	announceWithin = 5 * time.Second
	// pastWithin is how long the values of the past may take to be found.
	pastWithin = 2 * time.Second
	// pastMost is how many writes of others may be between what the node has noted
	// that a client has, and what it was sent last before the node was killed.
	pastMost = 100
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
	// later is what else it can have had: if only the revision was noted each state
	// since, and what its updates have made of it since it has left the context.
	later []*kv.Value
	// found says that only the revision was noted: of what was there then the client may
	// have had a part, what it wrote itself.
	found bool
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
	until    time.Time       // when the time is over for it to repeat what it had
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
	m.held[name] = held{revision: revision, value: v}
	if !had || old.revision != revision {
		m.book.journal.note(m.key, name, revision)
	}
}

// wrote notes an update, acknowledged at a revision, of a context that the client does not
// follow. Its library applies it to what it had when it left, or to nothing.
func (m *memory) wrote(name string, d delta, revision uint64) {
	h, had := m.held[name]
	if !had && m.client != "" && revision > 0 {
		m.note(name, kv.Object(), revision)
		h, had = m.held[name], true
	}
	if !had || h.value == nil {
		return
	}
	v := h.value
	if len(h.later) > 0 {
		v = h.later[0]
	}
	edits, err := d.edits(v)
	if err == nil {
		v, err = v.Edited(edits)
	}
	if err == nil {
		h.later = []*kv.Value{v}
		m.held[name] = h
	}
}

// forget forgets a context that the client has destroyed.
func (m *memory) forget(name string) {
	if _, had := m.held[name]; had {
		delete(m.held, name)
		m.book.journal.note(m.key, name, 0)
	}
}

// past is what a returned client can have had of a context.
type past struct {
	held []held
	told bool // the client has been sent what is there now
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
	return &past{held: list}
}

// recall finds out what the client can have had of the context before it returned, once,
// and then calls done; false if that is nothing.
func (c *shared) recall(done func()) bool {
	past := c.x.recall(c.name)
	if past == nil {
		return false
	}
	c.past, c.recalling = past, true
	past.resolve(c.x, c.name, func() {
		c.recalling = false
		done()
	})
	return true
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
		for i := range p.held {
			if p.held[i].value == nil {
				p.held[i].find(ctx, x.app, name)
			}
		}
		if err := x.app.CatchUp(ctx, name); err != nil { // then what it repeats may come before what it has missed
			peer.log.Debug("a context may be old", slog.String("context", name), slog.Any("error", err))
		}
		peer.post(done)
	}()
}

// find reads what the client had at the revision that was noted, and each state since:
// the node may have been killed before it had noted the last ones. What is not found
// leaves the revision to go by.
func (h *held) find(ctx context.Context, app *node.Contexts, name string) {
	was, err := app.At(ctx, name, h.revision)
	if err != nil {
		return
	}
	h.value, h.found = was.Object, true
	list, err := app.History(ctx, name, node.ContextHistoryQuery{Limit: pastMost})
	if err != nil {
		return
	}
	v := h.value
	for _, e := range list.Entries {
		if e.Sequence <= h.revision {
			continue
		}
		for _, c := range e.Changes {
			now, err := edited(v, c)
			if err != nil {
				return
			}
			v = now
		}
		h.later = append(h.later, v)
	}
}

// edited is an object after a change.
func edited(v *kv.Value, c node.ContextChange) (*kv.Value, error) {
	edit := kv.Edit{Path: c.Path}
	if !c.Value.IsZero() {
		value, err := kv.ParseValue(c.Value)
		if err != nil {
			return nil, err
		}
		edit.Value = value
	}
	return v.Edited([]kv.Edit{edit})
}

// resubscribed notes that the client was told what is there now of a context that it
// had. It repeats what has changed when it has that of all of them.
func (c *shared) resubscribed() {
	if c.past != nil {
		c.past.told = true
		c.x.returned.goesOn()
	}
}

// goesOn notes that the client is about to repeat what it had.
func (r *returned) goesOn() { r.until = time.Now().Add(announceWithin) }

// repeating says whether the client can still repeat what it had.
func (x *contexts) repeating() bool {
	if time.Now().Before(x.returned.until) {
		return true
	}
	for _, c := range x.open {
		if c.past != nil && !c.past.told {
			return true // it waits for that one
		}
	}
	return false
}

// repeats says whether an update only repeats what the client had before its
// connection was lost. Only the first update after the return is looked at.
func (c *shared) repeats(d delta) bool {
	p := c.past
	c.past = nil
	if p == nil || !c.known || !c.x.repeating() || d.reset != nil || len(d.commands) == 0 {
		return false
	}
	// Even if nothing of it has changed: the change may be on its way to this node.
	repeated := slices.ContainsFunc(p.held, func(h held) bool {
		return !slices.ContainsFunc(d.commands, func(cmd command) bool { return !c.had(h, cmd) })
	})
	if repeated {
		c.x.returned.goesOn()
	}
	return repeated
}

// had says whether the client had what a command of it sets.
func (c *shared) had(h held, cmd command) bool {
	switch {
	case len(cmd.path) != 1 || cmd.value == nil:
		return false
	case h.value == nil: // it can only be asked whether somebody has written there since
		return c.state.ChangedSince(h.revision, cmd.path...) || c.view.At(cmd.path).Equal(cmd.value)
	default:
		had := func(v *kv.Value) bool {
			v = v.At(cmd.path)
			return v.Equal(cmd.value) || h.found && contains(v, cmd.value)
		}
		return had(h.value) || slices.ContainsFunc(h.later, had)
	}
}

// contains says whether an object has all that is in another one.
func contains(v, part *kv.Value) bool {
	if !v.IsObject() || !part.IsObject() {
		return v.Equal(part)
	}
	return !slices.ContainsFunc(part.Members(), func(m kv.Member) bool { return !contains(v.At([]string{m.Name}), m.Value) })
}
