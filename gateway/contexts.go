package gateway

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// namesWithin is how long a hello waits for the list of contexts, for a client creates what
// it was not told of; later they are announced when it is there. While the fabric is away
// the node goes on without the list after two seconds.
const namesWithin = 10 * time.Second

// contexts is what a peer has of contexts.
type contexts struct {
	p   *peer
	app *node.Contexts
	// domain is the domain of pushes: global, or context for one that joined it.
	domain   string
	names    map[string]string // of the announced contexts, by id
	open     map[string]*shared
	returned *returned
	ghosts   map[string]string // names by id, see ghost
	// orphans are what waits for the end of a context that nobody holds any more.
	orphans map[string][]func()
}

// shared is one context that the peer is a member of, or writes to.
type shared struct {
	x        *contexts
	name, id string
	member   bool
	watch    *node.ContextWatch
	woken    atomic.Bool // a poll is on its way; any goroutine
	known    bool        // the first state is there
	ready    bool        // the client has an object
	// held is the object that the client has, view the one that it should have.
	held, view *kv.Value
	last       *kv.Value // the last view before the end of the context
	// doubts are the places in held at which the client's library can have made
	// something else, until the next push says what is there.
	doubts  [][]string
	state   node.ContextState // whose object is view
	sent    uint64            // of held
	updater subjects.App
	writes  []kv.Edit // what leads from base to view
	base    *kv.Value
	// want says that held and view may differ, and that somebody else is why; foreign
	// that somebody else has written since the peer had no update in flight.
	want, foreign bool
	// inflight are updates of the peer without an answer yet, in their order. answered is
	// the number of the frame with the last success: see package doc, "Races".
	inflight []*delta
	answered uint64
	parting  bool              // a pong is awaited before the next push
	draining bool              // drain has an event in hand that view does not have yet
	answers  []func()          // successes that wait for a push
	snapshot []snapshotRequest // requests that wait for the first state, or for earlier answers
	// started and settled count the updates of the peer.
	started, settledUpdates uint64
	// holding says that the peer holds the context, asking that it is about to.
	holding, asking bool
	// past is what the client had before its connection was lost, until its first
	// update after the return; see memory. Before the client has the state it cannot be
	// told what an update means, which waits.
	past      *past
	recalling bool // the past is not resolved yet
	updates   []func()
	// repeated are repetitions that were answered before the client has subscribed: it
	// applies them to the snapshot.
	repeated []delta
}

// snapshotRequest is a request for the whole object. It is answered after the updates
// that the peer has sent before it.
type snapshotRequest struct {
	*frame
	creator bool
	after   uint64
	until   time.Time // when to give up on a context that is not there yet
}

// comesWithin is how long a context may take to come to this node that another one
// says exists.
const comesWithin = 2 * time.Second

// startAgain is when to create again what there was when the list of contexts said there
// was none.
const startAgain = 10 * time.Millisecond

func newContexts(p *peer) *contexts {
	return &contexts{p: p, app: p.client.Contexts(), domain: domainGlobal, names: map[string]string{}, open: map[string]*shared{}, ghosts: map[string]string{}, orphans: map[string][]func(){}}
}

// contextID is what clients call a context. It is made of the name, which is what
// identifies it on every node, and at every time.
func contextID(name string) string {
	token, err := subjects.Encode(name)
	if err != nil {
		return "c-" + name
	}
	return "c-" + token.String()
}

// announce tells a new peer which contexts there are, and follows them.
func (x *contexts) announce() {
	ctx, cancel := context.WithTimeout(x.p.ctx, namesWithin)
	defer cancel()
	list, err := x.app.Names(ctx)
	if err != nil {
		x.p.log.Debug("contexts are announced later", slog.Any("error", err))
	}
	for _, name := range list {
		owner := subjects.App("")
		if m, ok := x.app.MetaOf(name); ok {
			owner = m.Owner
		}
		x.added(name, owner)
	}
	p := x.p
	go func() { // ends with p.ctx
		for e := range x.app.WatchNames(p.ctx) {
			p.s.out.await(p.ctx)
			p.post(func() { x.happened(e) })
		}
	}()
}

// happened is told what was created and destroyed.
func (x *contexts) happened(e node.ContextName) {
	if e.Kind == node.ContextCreated {
		x.added(e.Name, e.By.App)
		return
	}
	switch {
	case x.orphans[e.Name] != nil: // it was this peer that left it
		x.gone(e.Name, x.domain, uriPeerLeft, textOrphaned)
	case e.Reason == node.ContextPeerLeft:
		x.gone(e.Name, domainContext, uriPeerLeft, textOrphaned)
	default:
		x.gone(e.Name, x.domain, uriDestroyed, textDestroyed)
	}
}

// added announces a context, once.
func (x *contexts) added(name string, creator subjects.App) {
	id := contextID(name)
	if _, known := x.names[id]; known {
		return
	}
	x.names[id] = name
	m := begin(x.domain, "context-added").str("peer_id", string(x.p.id))
	if creator == "" {
		m = m.raw("creator_id", nil)
	} else {
		m = m.str("creator_id", string(creator))
	}
	x.p.s.send(m.str("context_id", id).str("name", name))
}

// gone announces the end of a context, unless it is there again.
func (x *contexts) gone(name, domain, uri, reason string) {
	id := contextID(name)
	if _, known := x.names[id]; !known || x.app.Exists(name) {
		return
	}
	delete(x.names, id)
	x.drop(name)
	x.p.s.send(begin(x.domain, "context-destroyed").str("peer_id", string(x.p.id)).str("context_id", id).
		str("reason_uri", domain+"."+uri).str("reason", reason))
	x.settleOrphan(name)
}

// drop forgets a context that the peer had open.
func (x *contexts) drop(name string) {
	c := x.open[name]
	if c == nil {
		return
	}
	delete(x.open, name)
	c.watch.Close()
	if c.past != nil { // its first update is still to come
		delete(x.returned.recalled, name)
	}
	c.member, c.past = false, nil
	c.told() // answers that wait for a push that does not come any more
	c.unanswered()
}

// unanswered answers those who wait for a snapshot when there is no more to come: with
// the last state, or that there is none.
func (c *shared) unanswered() {
	waiting := c.snapshot
	c.snapshot = nil
	for _, f := range waiting {
		if c.last == nil || c.state.Denied {
			c.x.missing(f.frame, c.id)
			continue
		}
		c.sendSnapshot(f.frame, c.last)
	}
	c.goOn()
}

// waits says whether it cannot be told yet what an update means.
func (c *shared) waits() bool {
	return c.past != nil && (c.recalling || len(c.snapshot) > 0 || !c.known)
}

// goOn does the updates that have waited until the client has the state.
func (c *shared) goOn() {
	if c.waits() {
		return
	}
	updates := c.updates
	c.updates = nil
	for _, update := range updates {
		update()
	}
}

func (c *shared) sendSnapshot(f *frame, v *kv.Value) {
	c.x.p.s.send(begin(f.domain, "subscribed-context").raw("request_id", f.request).str("peer_id", string(c.x.p.id)).
		str("context_id", c.id).raw("data", valueJSON(v)))
}

// leave ends all memberships.
func (x *contexts) leave(domain string) {
	for name := range x.open {
		x.app.Release(name)
		x.drop(name)
	}
	if domain == domainContext {
		x.domain = domainGlobal
	}
}

func isContextKind(kind string) bool {
	switch kind {
	case "create-context", "subscribe-context", "unsubscribe-context", "update-context", "destroy-context":
		return true
	}
	return false
}

// context handles requests about contexts, in the domain global or context.
func (p *peer) context(f *frame) {
	x := p.contexts
	if f.kind == "create-context" {
		x.create(f)
		return
	}
	if !isContextKind(f.kind) {
		p.unhandled(f)
		return
	}
	id := plain(string(f.raw("context_id")))
	if x.ghost(f, id) {
		return
	}
	name, known := x.names[id]
	if !known {
		x.missing(f, id)
		return
	}
	switch f.kind {
	case "subscribe-context":
		x.subscribe(f, name)
	case "unsubscribe-context":
		x.unsubscribe(f, name)
	case "update-context":
		x.update(f, name)
	case "destroy-context":
		x.destroy(f, name)
	}
}

func (x *contexts) missing(f *frame, id string) {
	x.p.fail(f, f.domain, f.domain+"."+uriFailure, textNoContext+id)
}

// failed answers a request with an error of the node.
func (x *contexts) failed(f *frame, err error) { x.refused(f, err, rightOf(f.kind)) }

// refused is failed for what needs a right.
func (x *contexts) refused(f *frame, err error, right string) {
	e := wire.AsError(err)
	switch e.Code {
	case wire.BadName:
		x.missing(f, plain(string(f.raw("context_id"))))
	case wire.Denied:
		x.p.fail(f, f.domain, f.domain+"."+uriNotAuthorized, "Not authorized to "+right+" context")
	default:
		x.p.failed(f, err)
	}
}

// rightOf is what a request needs.
func rightOf(kind string) string {
	switch kind {
	case "update-context":
		return "update"
	case "destroy-context":
		return "destroy"
	}
	return "read"
}

// create creates a context, or joins the one of its name.
func (x *contexts) create(f *frame) {
	name := f.text("name")
	if name == "" {
		x.p.fail(f, f.domain, f.domain+"."+uriFailure, "A context needs a name")
		return
	}
	terms, ok := termsOf(f)
	if !ok {
		x.p.fail(f, f.domain, f.domain+"."+uriBadLifetime, "Bad lifetime value "+f.text("lifetime"))
		return
	}
	data, err := kv.Object(), error(nil)
	if raw := f.raw("data"); raw != nil {
		data, err = readObject(raw)
	}
	if err == nil {
		err = x.p.mayWrite(name)
	}
	if err != nil {
		x.failed(f, err)
		return
	}
	if x.destroyedMeanwhile(f, name) {
		return
	}
	x.start(&creation{f, name, data, terms, time.Now().Add(comesWithin)})
}

// creation is a create-context that is not answered yet.
type creation struct {
	*frame
	name  string
	data  *kv.Value
	terms node.ContextTerms
	until time.Time // when to give up on a list of contexts that does not have it
}

// start starts a creation, also again when what was there has ended before the answer.
func (x *contexts) start(f *creation) {
	p := x.p
	x.app.StartCreate(node.ContextCreation{Name: f.name, Object: f.data, Terms: f.terms, Done: func(created bool, _ node.ContextAck, err error) {
		p.post(func() { x.created(f, created, err) })
	}})
}

// startSoon is start in a moment: what is there, or was, is not known here yet.
func (x *contexts) startSoon(f *creation) {
	p := x.p
	time.AfterFunc(startAgain, func() { p.post(func() { x.start(f) }) })
}

// created answers a create-context.
func (x *contexts) created(f *creation, created bool, err error) {
	name := f.name
	if err != nil {
		x.failed(f.frame, err)
		return
	}
	_, announced := x.names[contextID(name)]
	switch {
	case created:
	case !announced && !x.app.Exists(name) && time.Now().Before(f.until):
		x.startSoon(f) // it is too new for this node's list of contexts, or has just ended
		return
	default:
		x.added(name, "")
		x.joinExisting(f)
		return
	}
	x.added(name, x.p.id)
	c, err := x.openContext(name)
	if err != nil {
		x.failed(f.frame, err)
		return
	}
	c.member = true
	x.p.s.send(begin(f.domain, "context-created").raw("request_id", f.request).str("peer_id", string(x.p.id)).str("context_id", c.id))
	c.held, c.ready = f.data, true
	c.answered = x.p.s.out.count()
	c.poll()
}

// joinExisting joins the second of two creators to the context that there is. Libraries
// make a creation of an update of a context that they were not told of, so it is one.
func (x *contexts) joinExisting(f *creation) {
	p, name := x.p, f.name
	if x.remembered(name) != nil {
		x.subscribe(f.frame, name)
		return
	}
	x.app.Start(node.ContextWrite{
		Name: name, MustExist: true,
		Edit: func(now *kv.Value) ([]kv.Edit, error) { return merged(now, f.data, nil), nil },
		Done: func(_ node.ContextAck, err error) {
			p.post(func() {
				if _, announced := x.names[contextID(name)]; !announced { // its end was told meanwhile
					x.start(f)
					return
				}
				switch {
				case errors.Is(err, wire.ErrBadName) && time.Now().Before(f.until): // it has ended
					x.startSoon(f)
				case err != nil:
					x.refused(f.frame, err, "update")
				default:
					x.join(f.frame, name, true)
				}
			})
		},
	})
}

// openContext follows a context.
func (x *contexts) openContext(name string) (*shared, error) {
	if c := x.open[name]; c != nil {
		return c, nil
	}
	c := &shared{x: x, name: name, id: contextID(name)}
	p := x.p
	watch, err := x.app.WatchFunc(name, func() {
		if c.woken.CompareAndSwap(false, true) {
			p.post(c.poll)
		}
	})
	if err != nil {
		return nil, err
	}
	c.watch = watch
	x.open[name] = c
	return c, nil
}

// subscribe makes the peer a member and answers with a snapshot.
func (x *contexts) subscribe(f *frame, name string) { x.join(f, name, false) }

// join is subscribe, also for a creator, who has to get what it has added.
func (x *contexts) join(f *frame, name string, creator bool) {
	if err := x.p.mayRead(name); err != nil {
		x.failed(f, err)
		return
	}
	c, err := x.openContext(name)
	if err != nil {
		x.failed(f, err)
		return
	}
	if c.member {
		c.joined(f, creator)
		return
	}
	c.member = true
	if !c.recall(func() { c.joined(f, creator) }) {
		c.joined(f, creator)
	}
}

// joined answers a subscribe-context as soon as the state is known.
func (c *shared) joined(f *frame, creator bool) {
	c.snapshot = append(c.snapshot, snapshotRequest{f, creator, c.started, time.Now().Add(comesWithin)})
	if c.x.open[c.name] != c { // its end was told first
		c.last = nil
		c.unanswered()
		return
	}
	c.letAnswersGo() // no push comes before the snapshot
	c.poll()
	if len(c.snapshot) > 0 {
		p := c.x.p
		time.AfterFunc(comesWithin, func() { p.post(c.answerSnapshots) })
	}
}

// isHeld says whether the peer holds the context, as far as that is needed; if not yet
// it sees to that, and to the answers.
func (c *shared) isHeld() bool {
	if c.holding || c.state.Denied || c.view == nil {
		return true
	}
	if c.state.Meta.Lifetime != node.ContextRefCounted {
		c.holding = true
		return true
	}
	if len(c.snapshot) > 0 && !c.asking {
		c.asking = true
		c.hold(func(error) {
			c.asking, c.holding = false, true
			c.answerSnapshots()
			c.flush()
		})
	}
	return len(c.snapshot) == 0
}

// answerSnapshots answers those who wait for the state, once it is there and what
// they have sent before is answered and read.
func (c *shared) answerSnapshots() {
	s := c.x.p.s
	for c.known && len(c.snapshot) > 0 && c.isHeld() {
		f := c.snapshot[0]
		if f.after > c.settledUpdates {
			return
		}
		if s.ponged < c.answered {
			c.part()
			return
		}
		if c.view == nil && !c.state.Denied && time.Now().Before(f.until) {
			return // it was just made, and is on its way to this node
		}
		c.snapshot = c.snapshot[1:]
		if c.view == nil && !c.state.Denied {
			c.x.missing(f.frame, c.id)
			continue
		}
		if c.state.Denied {
			c.x.p.fail(f.frame, f.domain, f.domain+"."+uriNotAuthorized, "Not authorized to read context")
			continue
		}
		if c.ready && !f.creator && c.held != nil && len(c.doubts) == 0 { // the rest is pushed, with who wrote it
			c.sendSnapshot(f.frame, c.held)
		} else {
			c.sendSnapshot(f.frame, c.view)
			c.has(c.view, c.state.Revision)
			c.want, c.ready = false, true
		}
		c.answered = s.out.count() // clients take it when they read the answer, like that to an update
		c.resubscribed()
		for _, d := range c.repeated {
			c.applied(d)
			c.want = true
		}
		c.repeated = nil
	}
	c.goOn()
}

// has notes what the client has.
func (c *shared) has(v *kv.Value, revision uint64) {
	c.held, c.sent, c.doubts = v, revision, nil
	if c.member {
		c.x.p.memory.note(c.name, v, revision)
	}
}

// unsubscribe ends a membership.
func (x *contexts) unsubscribe(f *frame, name string) {
	c := x.open[name]
	if c == nil || !c.member {
		x.p.success(f, f.domain)
		return
	}
	c.member, c.holding, c.ready = false, false, false
	c.told()
	c.unanswered()
	owner := c.isOwner(x.p.id)
	if len(c.inflight) == 0 {
		x.drop(name)
	}
	p := x.p
	if owner { // it ends with its owner, and so when that leaves it
		x.orphans[name] = append(x.orphans[name], func() {})
		x.app.StartDestroy(name, func(error) {
			p.post(func() {
				x.gone(name, f.domain, uriPeerLeft, textOrphaned)
				x.settleOrphan(name)
				p.success(f, f.domain)
			})
		})
		return
	}
	x.release(c, name, func() { p.success(f, f.domain) })
}

// destroy ends a context for everybody.
func (x *contexts) destroy(f *frame, name string) {
	if err := x.p.mayWrite(name); err != nil {
		x.failed(f, err)
		return
	}
	p := x.p
	x.app.StartDestroy(name, func(err error) {
		p.post(func() {
			if err != nil {
				x.failed(f, err)
				return
			}
			p.memory.forget(name)
			x.gone(name, f.domain, uriDestroyed, textDestroyed)
			p.success(f, f.domain)
		})
	})
}

// update writes to a context.
func (x *contexts) update(f *frame, name string) {
	d, err := readDelta(f.raw("delta"))
	if err == nil {
		err = x.p.mayWrite(name)
	}
	if err != nil {
		x.failed(f, err)
		return
	}
	c, err := x.openContext(name)
	if err != nil {
		x.failed(f, err)
		return
	}
	if !c.member { // libraries repeat contexts of which they only have what they wrote
		c.recall(func() {
			c.resubscribed()
			c.poll()
		})
	}
	if len(c.updates) > 0 || c.waits() {
		c.updates = append(c.updates, func() { c.update(f, d) })
		return
	}
	c.update(f, d)
}

// update writes, unless the client only repeats what it had.
func (c *shared) update(f *frame, d delta) {
	x := c.x
	if c.repeats(d) {
		x.p.success(f, f.domain)
		c.answered = x.p.s.out.count()
		if !c.member {
			c.repeated = append(c.repeated, d)
			return
		}
		c.applied(d)
		c.want = true
		c.flush()
		return
	}
	c.inflight = append(c.inflight, &d)
	c.started++
	p := x.p
	x.app.Start(node.ContextWrite{
		Name: c.name, Edit: d.edits, MustExist: true,
		Done: func(ack node.ContextAck, err error) {
			p.post(func() { c.settled(f, &d, ack.Revision, err) })
		},
	})
}

// settled is told what became of an update of the peer.
func (c *shared) settled(f *frame, d *delta, revision uint64, err error) {
	c.answers = append(c.answers, func() { c.answer(f, d, revision, err) })
	c.letAnswersGo()
}

// letAnswersGo answers updates in their order, until a push has to come first.
func (c *shared) letAnswersGo() {
	for len(c.answers) > 0 && !c.pushesFirst() {
		answer := c.answers[0]
		c.answers = c.answers[1:]
		answer()
	}
}

// pushesFirst says whether answers wait for a push, which itself waits for a pong. Without
// that a client that never stops writing would never hear of others.
func (c *shared) pushesFirst() bool {
	if !c.member || !c.parting || !c.want || len(c.snapshot) > 0 || c.view == nil {
		return false
	}
	_, ok := c.due(c.certain())
	return ok
}

// answer answers an update. The client applies it to its object when it reads the
// answer.
func (c *shared) answer(f *frame, d *delta, revision uint64, err error) {
	c.inflight = slices.DeleteFunc(c.inflight, func(other *delta) bool { return other == d })
	c.settledUpdates++
	x := c.x
	if err != nil {
		x.failed(f, err)
	} else {
		x.p.success(f, f.domain)
	}
	if !c.member {
		if err == nil {
			x.p.memory.wrote(c.name, *d, revision)
		}
		if len(c.inflight) == 0 && x.open[c.name] == c {
			x.drop(c.name)
		}
		return
	}
	if err == nil { // before anything is pushed
		c.answered = x.p.s.out.count()
		c.applied(*d)
	}
	c.drain()
	// What the client has sent and was not answered for yet is in the view and not
	// in its object; that is no reason to push as long as nobody else writes.
	switch held := c.certain(); {
	case held == c.view:
	case held != nil && c.view != nil && len(c.doubts) == 0 && len(kv.Diff(held, c.view)) == 0:
		c.has(c.view, c.state.Revision)
	case len(c.inflight) == 0 || c.foreign:
		c.want = true
	}
	c.foreign = c.foreign && len(c.inflight) > 0
	c.answerSnapshots()
	c.flush()
}

// applied follows what the client does with its own update. Where its library does
// something else than the node it gets what is right as a whole.
func (c *shared) applied(d delta) {
	if c.held == nil {
		return
	}
	unsure, all := d.unsure(c.held)
	doubts := append(c.doubts, unsure...)
	if d.reset != nil {
		doubts = nil
	}
	edits, err := d.edits(c.held)
	now := c.held
	if err == nil {
		now, err = c.held.Edited(edits)
	}
	if err != nil || all || d.touches(c.doubts) {
		c.held, c.doubts = nil, nil // nobody knows: it gets everything
		return
	}
	c.has(now, c.sent)
	c.doubts = doubts
}

// certain is held without what is in doubt.
func (c *shared) certain() *kv.Value {
	if c.held == nil || len(c.doubts) == 0 {
		return c.held
	}
	var edits []kv.Edit
	for _, path := range c.doubts {
		edits = append(edits, kv.Edit{Path: path})
	}
	v, err := c.held.Edited(edits)
	if err != nil {
		return nil
	}
	return v
}

// poll takes what the watch has and tells the client.
func (c *shared) poll() {
	c.drain()
	c.answerSnapshots()
	c.flush()
}

// drain takes what the watch has.
func (c *shared) drain() {
	c.woken.Store(false)
	if c.x.open[c.name] != c {
		return
	}
	if space := c.x.p.s.out.full(); space != nil {
		c.later(space)
		return
	}
	if c.draining { // by an answer that take has let go: it has a later event than view
		return
	}
	c.draining = true
	defer func() { c.draining = false }()
	for {
		e, ok := c.watch.Poll()
		if !ok {
			return
		}
		c.take(e)
	}
}

// later polls again when the client has read what waits for it.
func (c *shared) later(space <-chan struct{}) {
	p := c.x.p
	if !c.woken.CompareAndSwap(false, true) {
		return
	}
	go func() { // ends with p.ctx
		select {
		case <-space:
			p.post(c.poll)
		case <-p.ctx.Done():
		}
	}()
}

// take takes one event. Between two events of others the client is told, so that
// it sees every state.
func (c *shared) take(e node.ContextEvent) {
	mine := e.By.App == c.x.p.id && e.Conflated == 0
	switch e.Kind {
	case node.ContextOffline, node.ContextOnline:
		return
	case node.ContextDestroyed:
		c.view, c.known = nil, true // the names say why
		return
	}
	if c.want {
		c.flush()
	}
	c.base, c.writes = c.view, e.Edits
	c.view, c.state, c.updater = e.View(), e.State, e.By.App
	c.last = c.view
	if !c.known {
		c.known = true
		// The creator has an object already.
		c.want = c.held != nil && (!mine || len(c.inflight) == 0) && len(kv.Diff(c.held, c.view)) > 0
		return
	}
	if !mine || len(c.inflight) == 0 {
		c.want = true
		c.foreign = true
	}
}

// flush pushes the difference between what the client has and should have. Never
// in one read with the success of an update of its own: see package doc, "Races".
func (c *shared) flush() {
	if !c.want || !c.member || !c.ready || c.view == nil || len(c.snapshot) > 0 {
		return
	}
	held := c.certain()
	if held == c.view {
		c.told()
		return
	}
	s := c.x.p.s
	if s.ponged < c.answered {
		c.part()
		return
	}
	due, ok := c.due(held)
	if !ok || !c.x.p.readable(c.name) {
		c.letAnswersGo()
		return
	}
	writes := c.writes
	if c.base != held || due != c.view {
		writes = nil
	}
	if held == nil || len(kv.Diff(held, due)) > 0 {
		m := begin(c.x.domain, "context-updated").str("peer_id", string(c.x.p.id)).str("updater_id", string(c.updater)).str("context_id", c.id)
		s.send(m.raw("delta", deltaJSON(held, due, writes)))
	}
	c.has(due, c.state.Revision)
	c.told()
}

// due is what the client should have now: the view, but where the client has updates in
// flight what it has there, for it puts them there itself, one after the other, when it
// reads their answers. Where something newer is in the view nothing is due before these.
func (c *shared) due(held *kv.Value) (due *kv.Value, ok bool) {
	var back []kv.Edit
	v := c.view
	for _, d := range c.inflight {
		edits, err := d.edits(v)
		if err == nil {
			v, err = v.Edited(edits)
		}
		if err != nil {
			return nil, false
		}
		for _, e := range edits {
			if n := arrayOn(c.view, e.Path); n >= 0 {
				e.Path = e.Path[:n]
			}
			back = append(back, kv.Edit{Path: e.Path, Value: held.At(e.Path)})
		}
	}
	switch {
	case v != c.view && len(kv.Diff(c.view, v)) > 0:
		return nil, false
	case held == nil || len(back) == 0:
		return c.view, true
	}
	due, err := c.view.Edited(back)
	return due, err == nil && due != nil
}

// told notes that the client has what it should have.
func (c *shared) told() {
	c.want = false
	c.letAnswersGo()
}

// part waits until the client has read its last success, then flushes.
func (c *shared) part() {
	if c.parting {
		return
	}
	c.parting = true
	c.x.p.s.afterReadUpTo(c.answered, func() {
		c.parting = false
		if c.x.open[c.name] == c {
			c.answerSnapshots()
			c.poll()
		}
	})
}

// termsOf reads the terms of a create-context.
func termsOf(f *frame) (node.ContextTerms, bool) {
	t := node.ContextTerms{Read: f.text("read_permissions"), Write: f.text("write_permissions")}
	switch f.text("lifetime") {
	case "retained":
		t.Lifetime = node.ContextRetained
	case "ref-counted":
		t.Lifetime = node.ContextRefCounted
	case "ownership":
		t.Lifetime = node.ContextOwnership
	default:
		return t, false
	}
	return t, true
}

const channelPrefix = "___channel___"

// errRestricted is what a channel restriction answers.
var errRestricted = errors.New("restricted")

// mayWrite refuses writes to a channel that the peer is restricted from.
func (p *peer) mayWrite(name string) error {
	if channel, ok := strings.CutPrefix(name, channelPrefix); ok {
		if _, write := p.s.g.platform.Allowed(string(p.id), channel); !write {
			return wire.Errorf(wire.Denied, "Not authorized to update context: the channel %q is %w for this app", channel, errRestricted)
		}
	}
	return nil
}

// mayRead refuses reading a channel that the peer is restricted from.
func (p *peer) mayRead(name string) error {
	if !p.readable(name) {
		return wire.Errorf(wire.Denied, "Not authorized to read context: the channel is %w for this app", errRestricted)
	}
	return nil
}

func (p *peer) readable(name string) bool {
	channel, ok := strings.CutPrefix(name, channelPrefix)
	if !ok {
		return true
	}
	read, _ := p.s.g.platform.Allowed(string(p.id), channel)
	return read
}
