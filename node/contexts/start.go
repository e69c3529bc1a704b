package contexts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/wire"
)

// Write is one operation that [App.Start] begins.
type Write struct {
	Name string
	// Edit says what to write, given the object as local apps see it when the
	// operation takes effect, nil if there is no such context. The edits are the
	// operation's from then on. If there are none nothing is written, and Done
	// gets the present revision. Edit is called at most once, with a lock held: it
	// must not block or call back.
	Edit func(now *kv.Value) ([]kv.Edit, error)
	// MustExist refuses the write with bad-name where there is no context.
	MustExist bool
	// Done is called once, from any goroutine and maybe before Start returns,
	// with how safe the write is or why there is none. It may be called with a
	// lock held: it must not block or call back. It may be nil.
	Done func(ack Ack, err error)
}

// Start begins a write and does not wait for it. What one app starts on one
// context takes effect in the order of Start, also while the context is not open
// yet. If the context is open, local apps and watches see the write before Start
// returns.
func (a *App) Start(w Write) {
	o := &op{edit: w.Edit, mustExist: w.MustExist, by: a.by}
	o.done = func(o *op) {
		if w.Done != nil {
			w.Done(o.ack, o.err)
		}
	}
	a.c.start(w.Name, o)
}

// Creation is a context that [App.StartCreate] makes, unless there is one of its
// name.
type Creation struct {
	Name   string
	Object *kv.Value
	Terms
	// Done is as in [Write]; created says whether the context is new.
	Done func(created bool, ack Ack, err error)
}

// StartCreate is [App.CreateWith] without waiting, in the order of [App.Start].
func (a *App) StartCreate(c Creation) {
	o, err := a.creation(c.Object, c.Terms)
	if err == nil && !c.Object.IsObject() {
		err = errNoObject()
	}
	if err != nil {
		o = &op{}
	}
	o.done = func(o *op) {
		if c.Done != nil {
			c.Done(o.made, o.ack, o.err)
		}
	}
	if err != nil {
		a.c.end(o, Ack{}, err)
		return
	}
	a.c.start(c.Name, o)
}

// StartDestroy is [App.Destroy] without waiting, in the order of [App.Start].
func (a *App) StartDestroy(name string, done func(error)) {
	o := a.destruction()
	o.done = func(o *op) {
		if done != nil {
			done(o.err)
		}
	}
	a.c.start(name, o)
}

// start begins an operation, whose done is called when it has ended. The context
// stays open as long. It is nil if the operation has ended by then.
func (c *Contexts) start(name string, o *op) *shared {
	s, err := c.get(name)
	if err != nil {
		c.end(o, Ack{}, err)
		return nil
	}
	o.uses = s
	if err := c.online(); err != nil {
		if errors.Is(err, wire.ErrOffline) && c.isOpen() {
			err = c.refuses(o, name, err)
		}
		if err != nil {
			c.end(o, Ack{}, err)
			return nil
		}
	}
	s.start(o)
	return s
}

// end tells an operation what became of it.
func (c *Contexts) end(o *op, ack Ack, err error) {
	if err != nil {
		c.stats.refused.Add(1)
		o.err = wire.AsError(err)
	} else {
		c.stats.writes.Add(1)
		o.ack = ack
	}
	if o.holds {
		o.uses.held(o)
	}
	if o.uses != nil {
		c.release(o.uses)
	}
	o.done(o)
}

// do runs an operation and waits for its end.
func (c *Contexts) do(ctx context.Context, name string, o *op, opts []Option) error {
	for _, opt := range opts {
		opt(o)
	}
	ended := make(chan struct{})
	o.done = func(*op) { close(ended) }
	s := c.start(name, o)
	select {
	case <-ended:
		return o.err
	case <-ctx.Done():
	}
	if s != nil {
		s.withdraw(o, s.notWritten(ctx.Err()))
	}
	select {
	case <-ended:
		return o.err
	default:
	}
	return wire.Errorf(wire.Timeout, "context %q: the write was sent and is not acknowledged; it may have been made (%w)", name, ctx.Err())
}

// notWritten says that an operation was given up before it was sent, and why.
func (s *shared) notWritten(cause error) error {
	if _, failed := s.replica.State(); failed != nil && !errors.Is(cause, context.Canceled) {
		cause = failed
	}
	return wire.Errorf(wire.CodeOf(cause), "context %q: not written: %w", s.name, cause)
}

// start lets an operation in, at once where that is possible.
func (s *shared) start(o *op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.c.end(o, Ack{}, errStopped())
		return
	}
	o.until, o.read = time.Now().Add(wire.WriteTimeout), s.read[o.by.App]
	if s.known() && len(s.waiting) == 0 && (!s.needsRoom(o) || s.c.hasRoom() || s.supposing) {
		s.enter(o)
		return
	}
	s.waiting = append(s.waiting, o)
	if !s.admitting {
		s.admitting = true
		s.c.wg.Go(s.admit)
	}
}

// needsRoom says whether an operation makes one context more. mu is held.
func (s *shared) needsRoom(o *op) bool {
	return s.view == nil && o.task != destroy && !o.mustExist
}

// admit lets in those that wait, in their order, until none does.
func (s *shared) admit() {
	for {
		s.mu.Lock()
		if len(s.waiting) == 0 || s.closed {
			s.admitting = false
			s.mu.Unlock()
			return
		}
		o := s.waiting[0]
		s.mu.Unlock()
		err := s.prepare(o)
		s.mu.Lock()
		if len(s.waiting) > 0 && s.waiting[0] == o { // it was not given up meanwhile
			s.waiting = s.waiting[1:]
			if err != nil {
				s.c.end(o, Ack{}, err)
			} else {
				s.enter(o)
			}
		}
		s.mu.Unlock()
	}
}

// prepare waits until the context is known and has room.
func (s *shared) prepare(o *op) error {
	ctx, cancel := context.WithDeadline(s.c.ctx, o.until)
	defer cancel()
	err := s.await(ctx)
	if err == nil {
		s.mu.Lock()
		needsRoom := s.needsRoom(o)
		s.mu.Unlock()
		if needsRoom && !(s.c.keeps() && s.c.away() != nil) {
			err = s.c.room(ctx)
		}
	}
	if wire.CodeOf(err) == wire.Timeout { // nothing was sent that may have been made
		return wire.Errorf(wire.Unavailable, "context %q: not written: %w", s.name, err)
	}
	return err
}

// enter checks an operation, shows it to local apps, and has it sent. mu is held.
func (s *shared) enter(o *op) {
	err := s.check(o)
	if err == nil {
		err = s.hold(o)
	}
	if err != nil {
		s.c.end(o, Ack{}, err)
		return
	}
	if len(o.edits) == 0 {
		s.c.end(o, Ack{Revision: s.tree.Revision()}, nil)
		return
	}
	o.who = s.c.whoIs(o.by.App)
	s.pending = append(s.pending, o)
	if !o.quiet {
		s.by = o.by
		s.show(o.edits)
	}
	if !s.sending {
		s.sending = true
		s.c.wg.Go(s.send)
	}
}

// hold lets the creator of a ref-counted context hold it, before anybody can see that
// nobody does. mu is held.
func (s *shared) hold(o *op) error {
	if k := s.c.keeper; k != nil && o.task == create && s.view == nil && o.meta.Lifetime == RefCounted {
		_, err := k.add(o.by.App, s.name)
		o.holds = err == nil
		return err
	}
	return nil
}

// held ends what hold began.
func (s *shared) held(o *op) {
	switch k := s.c.keeper; {
	case o.err == nil && o.made:
		k.confirm(o.by.App, s.name, hold{o.ack.Revision, o.meta.ID})
	default:
		k.remove(o.by.App, s.name)
	}
}

// check refuses what cannot be written, and finds out what an operation's edits
// are. mu is held.
func (s *shared) check(o *op) error {
	view := s.view
	if err := s.authorize(o, view != nil, s.meta); err != nil {
		return err
	}
	switch {
	case view == nil && (o.task == destroy || o.mustExist):
		return s.missing()
	case o.task == destroy, o.task == create && view != nil:
		return nil
	}
	if o.edit != nil {
		edits, err := o.edit(view)
		if err != nil || len(edits) == 0 {
			return err
		}
		if err := o.take(s.name, edits); err != nil {
			return err
		}
	}
	if err := s.checkRevision(o, s.tree); err != nil {
		return err
	}
	before := view
	if view == nil && len(o.edits[0].Path) > 0 {
		view = kv.Object()
	}
	now, err := view.Edited(o.edits)
	if err != nil {
		return wire.AsError(fmt.Errorf("context %q: %w", s.name, err))
	}
	most := min(wire.MaxContext, int(s.c.cfg.Link.MaxPayload())-wire.PayloadReserve)
	if n := now.Size(); n > most && n > before.Size() {
		return wire.Errorf(wire.Limit, "context %q: %d bytes, the limit is %d", s.name, n, most)
	}
	return kv.CheckEdits(o.edits)
}

// authorize refuses what the app may not do with a context of this metadata.
func (s *shared) authorize(o *op, exists bool, m *Meta) error {
	r := toUpdate
	switch o.task {
	case edit:
	case create: // it joins what is there
		r = toRead
	case destroy:
		r = toDestroy
	}
	if exists && !s.c.may(o.by.App, m, r) {
		return denied(r, s.name)
	}
	return nil
}

func (s *shared) missing() error {
	return wire.Errorf(wire.BadName, "there is no context %q", s.name)
}

// checkRevision holds the revision of a conditional write against a tree that has been
// learned here. mu is held.
func (s *shared) checkRevision(o *op, t *kv.Tree) error {
	switch {
	case o.ifRevision == nil || o.task == create:
		return nil
	case t.Changed(o.edits, *o.ifRevision):
		return s.changed(*o.ifRevision, t)
	case s.isLate(o):
		return wire.Errorf(wire.BadRevision, "context %q: a write that is older than revision %d had not come when the app read it: read it again", s.name, *o.ifRevision)
	}
	return nil
}

func (s *shared) changed(revision uint64, tree *kv.Tree) error {
	return wire.Errorf(wire.BadRevision, "context %q was changed after revision %d; it is now at %d", s.name, revision, tree.Revision())
}

// withdraw ends an operation that was not sent.
func (s *shared) withdraw(o *op, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.waiting {
		if w == o {
			s.waiting = append(s.waiting[:i:i], s.waiting[i+1:]...)
			s.c.end(o, Ack{}, why)
			return
		}
	}
	sent := s.keeping
	if s.flight != nil && !s.flight.settled {
		sent = max(sent, len(s.flight.ops))
	}
	for i, p := range s.pending {
		if p == o && i >= sent {
			s.pending = append(s.pending[:i:i], s.pending[i+1:]...)
			s.show(nil)
			s.c.end(o, Ack{}, why)
			return
		}
	}
}
