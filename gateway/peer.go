package gateway

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync/atomic"

	"github.com/weft-fabric/weft/gateway/edge"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/restriction"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// peer is the client on a connection, from its hello to the next one or to the
// end. All of it belongs to the session's goroutine, unless it says otherwise.
type peer struct {
	s      *session
	client *node.Client
	id     subjects.App
	self   node.Identity
	grant  edge.Grant
	log    *slog.Logger
	ctx    context.Context // ends when the peer leaves
	cancel context.CancelFunc
	// joined are the domains that it has joined, with its restrictions; domains is
	// the same for other goroutines.
	joined  map[string]string
	domains atomic.Pointer[map[string]string]
	// syncing says that a sync with the directory is on its way; any goroutine.
	syncing atomic.Bool
	memory  *memory
	// ended says that the app has said good-bye: what comes from it later is no return.
	ended bool

	interop  *interop
	contexts *contexts
	topics   *topics
}

// hello makes the client a peer. A second hello on a connection replaces the
// peer of the first.
func (s *session) hello(f *frame) {
	fail := func(uri string, err error) {
		s.send(begin(domainGlobal, "error").raw("request_id", f.request).raw("peer_id", nil).
			str("reason_uri", domainGlobal+"."+uri).str("reason", wire.AsError(err).Message))
	}
	grant, err := s.authenticate(f)
	if err != nil {
		uri := uriAuthentication
		refusal, ok := errors.AsType[*edge.AuthError](err)
		if !ok {
			fail(uriFailure, err)
			return
		}
		if refusal.BadGatewayToken {
			uri = uriFailure
		}
		fail(uri, wire.Errorf(wire.Denied, "%s", refusal.Reason))
		return
	}
	id, err := readIdentity(f.raw("identity"))
	if err != nil {
		fail(uriFailure, err)
		return
	}
	id.User = grant.Login
	p, err := s.g.enter(s, id, grant)
	if err != nil {
		uri := uriFailure
		switch wire.CodeOf(err) {
		case wire.Limit:
			uri = uriLimits
		case wire.Rejected:
			uri = uriAlreadySeen
		}
		fail(uri, err)
		return
	}
	s.leave() // who was here before
	s.peer = p
	p.welcome(f)
}

func (s *session) authenticate(f *frame) (edge.Grant, error) {
	c := edge.Credentials{}
	if object := f.raw("authentication"); isObject(object) {
		members, err := wire.JSONMembers(nil, object)
		if err != nil {
			return edge.Grant{}, err
		}
		a := frame{members: members}
		c = edge.Credentials{Method: a.text("method"), Token: a.text("token"), Provider: a.text("provider")}
		secret, ok := wire.JSONString(a.raw("secret"))
		c.Login, c.Secret, c.NoSecret = a.text("login"), secret, !ok
	}
	return s.g.edge.Authenticate(s.conn, c)
}

// domains is what a client needs to know of the gateway: without context 2 it
// would not use paths.
const domains = `[{"uri":"agm","description":"","version":1},{"uri":"global","description":"","version":1},` +
	`{"uri":"bus","description":"","version":1},{"uri":"context","description":"","version":2},{"uri":"metrics","description":"","version":1}]`

func (p *peer) welcome(f *frame) {
	m := begin(domainGlobal, "welcome").raw("request_id", f.request).str("peer_id", string(p.id)).
		raw("available_domains", []byte(domains)).raw("resolved_identity", identityJSON(&p.self))
	if p.grant.AccessToken != "" {
		options := message{}.str("access_token", p.grant.AccessToken)
		options[0] = '{'
		m = m.raw("options", options.end())
	}
	p.s.send(m)
	p.contexts.announce()
}

// global handles the requests of the domain global.
func (p *peer) global(f *frame) {
	switch f.kind {
	case "join":
		p.join(f)
	case "leave":
		p.leaveDomain(f)
	case "create-token":
		token := p.s.g.edge.GatewayToken(p.self.User, p.self.Application, p.s.conn)
		p.s.send(begin(domainGlobal, "token").raw("request_id", f.request).str("peer_id", string(p.id)).str("token", token))
	default:
		p.context(f)
	}
}

// join makes the peer a member of a domain; what it must know of it comes before
// the success.
func (p *peer) join(f *frame) {
	domain := plain(string(f.raw("destination")))
	restrictions := f.text("restrictions")
	switch domain {
	case domainAGM, domainBus, domainContext, domainMetrics, domainActivity:
	case domainGlobal:
		p.unhandled(f)
		return
	default:
		p.fail(f, domainGlobal, domainGlobal+"."+uriInvalidDomain, "Unable to join missing domain "+domain)
		return
	}
	if _, again := p.joined[domain]; again {
		p.success(f, domain)
		return
	}
	if _, err := restriction.Compiled(restrictions); err != nil {
		p.fail(f, domain, domain+"."+uriFailure, wire.AsError(err).Message)
		return
	}
	p.joined[domain] = restrictions
	p.ended = false
	p.publishDomains()
	switch domain {
	case domainAGM:
		p.interop.join()
	case domainContext:
		p.contexts.domain = domainContext
	}
	p.success(f, domain)
}

// leaveDomain is the reverse of join.
func (p *peer) leaveDomain(f *frame) {
	domain := plain(string(f.raw("destination")))
	switch domain {
	case domainAGM, domainBus, domainContext, domainMetrics, domainActivity:
	default:
		p.fail(f, domainGlobal, domainGlobal+"."+uriInvalidDomain, "Unable to leave missing domain "+domain)
		return
	}
	if _, member := p.joined[domain]; member {
		delete(p.joined, domain)
		p.ended = true
		switch domain {
		case domainAGM:
			p.interop.leave()
		case domainBus:
			p.topics.leave()
		case domainContext:
			p.contexts.leave(domainContext)
		}
		p.publishDomains()
	}
	p.success(f, domain)
}

// publishDomains tells the directory which domains the peer is in.
func (p *peer) publishDomains() {
	joined := maps.Clone(p.joined)
	p.domains.Store(&joined)
	if err := p.client.SetDomains(p.joined); err != nil {
		p.log.Warn("domains not published", slog.Any("error", err))
	}
}

// restrictions are those with which the peer has joined a domain. Any goroutine
// may ask.
func (p *peer) restrictions(domain string) string { return (*p.domains.Load())[domain] }

// post has the session's goroutine call f, unless the peer has left by then.
func (p *peer) post(f func()) {
	p.s.in.post(func() {
		if p.s.peer == p {
			f()
		}
	})
}

// syncSoon has the peer told of what has changed in the directory. Any goroutine
// may call it.
func (p *peer) syncSoon() {
	if p.syncing.CompareAndSwap(false, true) {
		p.post(func() {
			p.syncing.Store(false)
			p.interop.sync()
		})
	}
}

// leave ends the peer: its connection is gone, or says hello again.
func (p *peer) leave() {
	p.topics.finish()
	p.cancel()
	p.contexts.leave(domainGlobal)
	p.s.g.forget(p)
	p.client.Leave()
	p.s.g.platform.Left(string(p.id))
}

// success answers a request in a domain.
func (p *peer) success(f *frame, domain string) {
	p.s.send(begin(domain, "success").raw("request_id", f.request).str("peer_id", string(p.id)))
}

// fail answers a request with an error.
func (p *peer) fail(f *frame, domain, uri, reason string) { p.s.refuse(f, domain, uri, reason) }

// failed answers a request with an error of the node.
func (p *peer) failed(f *frame, err error) {
	p.fail(f, f.domain, f.domain+"."+uriFailure, wire.AsError(err).Error())
}

func (p *peer) unhandled(f *frame) {
	p.fail(f, f.domain, f.domain+"."+uriUnhandled, "Unhandled message of type "+f.kind)
}

// sees says whether the peer and an app see each other in a domain: both are in
// it, and the restrictions of both hold.
func (p *peer) sees(a *node.AppInfo, domain string) bool {
	mine, in := p.joined[domain]
	if !in {
		return false
	}
	theirs := ""
	if a.Domains != nil {
		if theirs, in = a.Domains[domain]; !in {
			return false
		}
	}
	return permits(mine, &p.self, &a.Identity) && permits(theirs, &a.Identity, &p.self)
}

// permits evaluates a restriction of an owner for another; one that cannot be
// read permits nothing.
func permits(restrictions string, owner, other *node.Identity) bool {
	if restrictions == "" {
		return true
	}
	e, err := restriction.Compiled(restrictions)
	return err == nil && e.Holds(owner.Attribute, other.Attribute)
}
