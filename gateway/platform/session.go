package platform

import (
	"context"

	"github.com/weft-fabric/weft/wire"
)

// session is what the platform knows of a local session of the gateway.
type session struct {
	peer string

	// order holds one value while the session's channels or restrictions change, so
	// that what its client, the realm and the platform think of them changes in the
	// same order. It is taken before Platform.mu and kept across I/O.
	order chan struct{}

	// Platform.mu guards what follows.
	caller Caller
	// alias is what the client calls itself, "" if it has not said: see target.
	alias    string
	channels []string
	// asking says that a question about the channels is on the way to the client.
	asking bool
	limits limits
}

// session is what is known of a caller.
func (p *Platform) session(c Caller) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.known(c.Peer)
	s.caller = c
	return s
}

// known finds or makes a session. mu is held.
func (p *Platform) known(peer string) *session {
	s := p.sessions[peer]
	if s == nil {
		s = &session{peer: peer, caller: Caller{Peer: peer}, order: make(chan struct{}, 1)}
		p.sessions[peer] = s
	}
	return s
}

// lock waits for what is changing of the session.
func (s *session) lock(ctx context.Context) error {
	select {
	case s.order <- struct{}{}:
		return nil
	case <-ctx.Done():
		return wire.AsError(ctx.Err())
	}
}

func (s *session) unlock() { <-s.order }

// target is the session that a command is about, and whether it is the caller's
// own. swID names it by its window or instance, "" is the caller.
//
// What a client calls itself it says when it announces itself. It is not always its
// instance: clients keep the one of their first connection, and several in one
// process the one of the first client. One that connects anew does not announce
// itself again; so the first id that it uses and nobody has is its own.
func (p *Platform) target(c Caller, swID string) (s *session, own bool, err error) {
	me := p.session(c)
	if swID == "" || p.hasAlias(me, swID) {
		return me, true, nil
	}
	peer, there := p.host.PeerOf(swID)
	switch {
	case there && peer != c.Peer:
		s, err := p.other(peer, swID)
		return s, false, err
	case !there && (!p.hasAlias(me, "") || !p.offers(c.Peer, commandMethod)):
		return nil, false, nobody(swID)
	}
	if p.hasAlias(me, "") {
		p.setAlias(me, swID)
	}
	return me, true, nil
}

// other is the session of somebody else, who may be leaving.
func (p *Platform) other(peer, swID string) (*session, error) {
	p.mu.Lock()
	s := p.known(peer)
	p.mu.Unlock()
	if _, still := p.host.PeerOf(swID); !still {
		p.Left(peer) // for the case that it was told before
		return nil, nobody(swID)
	}
	return s, nil
}

func nobody(swID string) error {
	return wire.Errorf(wire.BadName, "there is no window or instance %q on this machine", swID)
}

// hasAlias says whether a client calls itself so.
func (p *Platform) hasAlias(s *session, swID string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return s.alias == swID
}

// setAlias notes what a client calls itself.
func (p *Platform) setAlias(s *session, swID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.alias = swID
}

// offers says whether a session has registered a method.
func (p *Platform) offers(peer, method string) bool {
	for _, a := range p.host.Apps() {
		if a.Peer != peer {
			continue
		}
		for _, m := range a.Methods {
			if m.Name == method {
				return true
			}
		}
	}
	return false
}

// id is what the session's client calls itself.
func (s *session) id() string {
	switch {
	case s.alias != "":
		return s.alias
	case s.caller.WindowID != "":
		return s.caller.WindowID
	}
	return s.caller.Instance
}
