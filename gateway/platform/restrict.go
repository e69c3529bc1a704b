package platform

import (
	"cmp"
	"context"
	"log/slog"
	"slices"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// limits are the restrictions of a session. The zero limits allow everything.
type limits struct {
	all   limit // of the channels that are not named
	named map[string]limit
	// each says that restrictAll was called. From then on the list of restrictions
	// has every channel: clients hold back what they may not read until the list
	// says that they may.
	each bool
}

// limit is what a session may not do on a channel.
type limit struct{ noRead, noWrite bool }

func (l limits) of(channel string) limit {
	if one, ok := l.named[channel]; ok {
		return one
	}
	return l.all
}

// Allowed says whether a session may read a channel and write to it. The gateway
// asks before every write to the channel's context and before it sends the session
// anything of it.
func (p *Platform) Allowed(peer, channel string) (read, write bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s := p.sessions[peer]
	if s == nil {
		return true, true
	}
	l := s.limits.of(channel)
	return !l.noRead, !l.noWrite
}

// OnRestrictions has f told of each session whose restrictions have changed, so
// that the gateway stops what it sends, or goes on. It may call Allowed, but
// nothing else of the platform.
func (p *Platform) OnRestrictions(f func(peer string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, f)
}

// permission is what restrict and restrictAll say: what is absent stays as it is.
type permission struct {
	Name  string `json:"name"`
	Read  *bool  `json:"read"`
	Write *bool  `json:"write"`
}

func (r permission) change(l limit) limit {
	if r.Read != nil {
		l.noRead = !*r.Read
	}
	if r.Write != nil {
		l.noWrite = !*r.Write
	}
	return l
}

// restrict says what a session may do on one channel.
func (p *Platform) restrict(ctx context.Context, c Caller, a announcement) (any, error) {
	return p.setLimits(ctx, c, a, func(l *limits, r permission) error {
		if r.Name == "" {
			return wire.Errorf(wire.BadName, "a restriction needs the name of its channel")
		}
		if _, err := subjects.Encode(r.Name); err != nil {
			return wire.AsError(err)
		}
		if _, known := l.named[r.Name]; !known && len(l.named) >= wire.MaxContexts {
			return wire.Errorf(wire.Limit, "restrictions for %d channels, the limit is %d", len(l.named), wire.MaxContexts)
		}
		if l.named == nil {
			l.named = map[string]limit{}
		}
		l.named[r.Name] = r.change(l.of(r.Name))
		return nil
	})
}

// restrictAll says what a session may do on every channel, also on those that are
// made later.
func (p *Platform) restrictAll(ctx context.Context, c Caller, a announcement) (any, error) {
	return p.setLimits(ctx, c, a, func(l *limits, r permission) error {
		l.all, l.each = r.change(l.all), true
		for name, one := range l.named {
			l.named[name] = r.change(one)
		}
		return nil
	})
}

// setLimits changes the restrictions of a session, and tells the gateway and the
// client. A session may restrict itself and every session of its node.
func (p *Platform) setLimits(ctx context.Context, c Caller, a announcement, change func(*limits, permission) error) (any, error) {
	var r permission
	if err := decode(a.Data, &r); err != nil {
		return nil, err
	}
	if r.Read == nil && r.Write == nil {
		return nil, wire.Errorf(wire.BadPayload, "a restriction says whether to read or to write")
	}
	s, _, err := p.target(c, a.SwID)
	if err != nil {
		return nil, err
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	p.mu.Lock()
	err = change(&s.limits, r)
	told := p.told
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	p.tellRestrictions(ctx, s) // before what was held back comes: the client would not pass it on
	for _, f := range told {
		f(s.peer)
	}
	return struct{}{}, nil
}

// tellRestrictions tells a client of its restrictions. One that does not use
// channels cannot be told, and need not: the node holds it to them.
func (p *Platform) tellRestrictions(ctx context.Context, s *session) {
	list, err := p.restrictions(ctx, s)
	if err == nil {
		p.mu.RLock()
		id := s.id()
		p.mu.RUnlock()
		_, err = p.invoke(ctx, s.peer, commandMethod, map[string]any{"command": "restrictions-changed", "restrictions": list, "swId": id})
	}
	if err != nil {
		p.log.Debug("platform: a client was not told of its restrictions", slog.String("peer", s.peer), slog.Any("error", err))
	}
}

// restrictionsList is how clients see restrictions.
type restrictionsList struct {
	Channels []channelRestriction `json:"channels"`
}

type channelRestriction struct {
	Name     string `json:"name"`
	Read     bool   `json:"read"`
	Write    bool   `json:"write"`
	WindowID string `json:"windowId,omitempty"`
}

func (p *Platform) getRestrictions(ctx context.Context, c Caller, a announcement) (any, error) {
	s, _, err := p.target(c, a.SwID)
	if err != nil {
		return nil, err
	}
	return p.restrictions(ctx, s)
}

// restrictions lists those of a session.
func (p *Platform) restrictions(ctx context.Context, s *session) (restrictionsList, error) {
	p.mu.RLock()
	each := s.limits.each
	p.mu.RUnlock()
	var channels []ChannelInfo
	if each {
		var err error
		if channels, err = p.host.Channels(ctx); err != nil {
			return restrictionsList{}, err
		}
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	entry := func(name string) channelRestriction {
		l := s.limits.of(name)
		return channelRestriction{name, !l.noRead, !l.noWrite, s.caller.WindowID}
	}
	list := []channelRestriction{}
	for name := range s.limits.named {
		list = append(list, entry(name))
	}
	for _, c := range channels {
		if _, named := s.limits.named[c.Name]; !named {
			list = append(list, entry(c.Name))
		}
	}
	slices.SortFunc(list, func(a, b channelRestriction) int { return cmp.Compare(a.Name, b.Name) })
	return restrictionsList{list}, nil
}
