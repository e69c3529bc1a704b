package platform

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/weft-fabric/weft/wire"
)

const (
	// commandMethod is what clients that use channels register.
	commandMethod = "T42.Channels.Command"
	// separator stands between the names of channels.
	separator = "+++"

	single = "single"
	multi  = "multi"
)

// announcement are the arguments of T42.Channels.Announce. Without a command the
// client says that it is there.
type announcement struct {
	Command string          `json:"command"`
	SwID    string          `json:"swId"`
	Data    json.RawMessage `json:"data"`
}

// command does what T42.Channels.Announce is called for.
type command func(ctx context.Context, c Caller, a announcement) (any, error)

// announce is T42.Channels.Announce.
func (p *Platform) announce(ctx context.Context, c Caller, args json.RawMessage) (any, error) {
	var a announcement
	if err := decode(args, &a); err != nil {
		return nil, err
	}
	if a.Command == "" {
		return p.announced(ctx, c, a)
	}
	f := p.commands[a.Command]
	if f == nil {
		return nil, wire.Errorf(wire.BadPayload, "T42.Channels.Announce has no command %q", a.Command)
	}
	return f(ctx, c, a)
}

// announced answers a client that says that it is there. The answer has
// restrictions in any case: the client then keeps them, and asks again before each
// publish and each delivery if it has none.
func (p *Platform) announced(ctx context.Context, c Caller, a announcement) (any, error) {
	s := p.session(c)
	p.setAlias(s, a.SwID)
	p.Registered(c, commandMethod)
	list, err := p.restrictions(ctx, s)
	if err != nil {
		return nil, err
	}
	return map[string]any{"restrictions": list}, nil
}

// Registered tells the platform that a session has registered a method. One that
// uses channels is then asked on which it is: it begins on the initial one, and
// after it has connected anew is where it was, without saying so.
func (p *Platform) Registered(c Caller, method string) {
	if method != commandMethod {
		return
	}
	s := p.session(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.asking {
		s.asking = true
		p.start(func() { p.askChannels(s) })
	}
}

// askChannels makes the session a member of the channels that its client is on.
// What the client tells of them meanwhile comes later.
func (p *Platform) askChannels(s *session) {
	if s.lock(p.ctx) != nil {
		return // the platform ends
	}
	defer s.unlock()
	p.mu.Lock()
	s.asking = false
	on := s.channels
	p.mu.Unlock()
	is, err := p.ask(p.ctx, s.peer)
	if err == nil && !slices.Equal(is, on) {
		err = p.join(p.ctx, s, is)
	}
	if err != nil && p.ctx.Err() == nil {
		p.log.Debug("platform: on which channels a client is, is not known", slog.String("peer", s.peer), slog.Any("error", err))
	}
}

// ask asks a client on which channels it is.
func (p *Platform) ask(ctx context.Context, peer string) ([]string, error) {
	answer, err := p.invoke(ctx, peer, commandMethod, map[string]any{"command": "get"})
	if err != nil {
		return nil, err
	}
	var now struct {
		ID string `json:"id"`
	}
	if err := decode(answer, &now); err != nil {
		return nil, err
	}
	return split(now.ID), nil
}

func (p *Platform) getChannelsMode(_ context.Context, c Caller, _ announcement) (any, error) {
	p.session(c)
	answer := map[string]any{"mode": p.mode}
	if p.initial != "" {
		answer["initialChannel"] = p.initial
	}
	return answer, nil
}

// switchChannel takes a session to a channel; to none is leaving.
func (p *Platform) switchChannel(ctx context.Context, c Caller, a announcement) (any, error) {
	var data struct {
		NewChannel string `json:"newChannel"`
	}
	if err := decode(a.Data, &data); err != nil {
		return nil, err
	}
	to := split(data.NewChannel)
	order := func(peer string, on []string) error {
		if len(to) == 0 {
			return p.orderOff(ctx, peer, on)
		}
		return p.orderTo(ctx, peer, to)
	}
	result, err := p.move(ctx, c, a.SwID, order, func([]string) []string { return to })
	if _, here := p.host.PeerOf(a.SwID); wire.CodeOf(err) == wire.BadName && (here || a.SwID == "") {
		// The channel has just been removed. The old client does not wait for the
		// answer, and would end its app with an error that nobody handles.
		return struct{}{}, nil
	}
	return result, err
}

// leaveChannel takes a session off channels, or off all of them.
func (p *Platform) leaveChannel(ctx context.Context, c Caller, a announcement) (any, error) {
	var data struct {
		Channel string `json:"channel"`
	}
	if err := decode(a.Data, &data); err != nil {
		return nil, err
	}
	off := split(data.Channel)
	rest := func(on []string) []string {
		if len(off) == 0 {
			return nil
		}
		return without(on, off)
	}
	order := func(peer string, on []string) error { return p.orderOff(ctx, peer, without(on, rest(on))) }
	return p.move(ctx, c, a.SwID, order, rest)
}

// move changes on which channels a session is. The caller's own client has done it
// already, that of another session is given orders. On which channels the client is
// then, it knows best: one may be in mode multi and another not. Of a client that
// cannot be asked, next says it.
func (p *Platform) move(ctx context.Context, c Caller, swID string, order func(peer string, on []string) error, next func(on []string) []string) (any, error) {
	s, own, err := p.target(c, swID)
	if err != nil {
		return nil, err
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	if !own {
		on, err := p.ask(ctx, s.peer)
		if err == nil {
			err = order(s.peer, on)
		}
		if err != nil {
			return nil, err
		}
	}
	to, err := p.ask(ctx, s.peer)
	if err != nil {
		p.mu.RLock()
		to = next(s.channels)
		p.mu.RUnlock()
	}
	if err := p.join(ctx, s, to); err != nil {
		return nil, err
	}
	return struct{}{}, nil
}

// orderTo has a client join channels.
func (p *Platform) orderTo(ctx context.Context, peer string, to []string) error {
	for _, name := range to {
		if _, err := p.invoke(ctx, peer, commandMethod, map[string]any{"command": "join", "channel": name}); err != nil {
			return err
		}
	}
	return nil
}

// orderOff has a client leave channels that it is on. In mode multi it leaves them
// one at a time, which it understands, unless it is an old one.
func (p *Platform) orderOff(ctx context.Context, peer string, off []string) error {
	if p.mode == multi {
		for len(off) > 0 {
			if _, err := p.invoke(ctx, peer, commandMethod, map[string]any{"command": "leave-multi", "channelsToLeave": off[:1]}); err != nil {
				break
			}
			off = off[1:]
		}
	}
	if len(off) == 0 {
		return nil
	}
	_, err := p.invoke(ctx, peer, commandMethod, map[string]any{"command": "leave"})
	return err
}

// join makes the session a member of channels in the realm. Its order is held.
func (p *Platform) join(ctx context.Context, s *session, to []string) error {
	if len(to) > wire.MaxChannels {
		return wire.Errorf(wire.Limit, "on %d channels, the limit is %d", len(to), wire.MaxChannels)
	}
	if len(to) > 1 {
		to = p.existing(ctx, to)
	}
	if err := p.host.Join(ctx, s.peer, strings.Join(to, separator)); err != nil {
		return err
	}
	p.mu.Lock()
	s.channels = to
	p.mu.Unlock()
	return nil
}

// existing leaves out channels that somebody has removed: a client stays on them,
// which must not keep it off others. Where they are not known all of them stay.
func (p *Platform) existing(ctx context.Context, names []string) []string {
	all, err := p.host.Channels(ctx)
	if err != nil {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return !slices.ContainsFunc(all, func(c ChannelInfo) bool { return c.Name == name })
	})
}

// getChannelsInfo lists the windows that use channels, which are the sessions that
// have a window id, one entry for each of their channels.
func (p *Platform) getChannelsInfo(_ context.Context, _ Caller, a announcement) (any, error) {
	var data struct {
		Filter windowFilter `json:"filter"`
	}
	if err := decode(a.Data, &data); err != nil {
		return nil, err
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	list := []windowInfo{}
	for _, s := range p.sessions {
		for _, name := range s.channels {
			w := windowInfo{s.caller.WindowID, name, s.caller.Application}
			if data.Filter.match(w) {
				list = append(list, w)
			}
		}
		if w := (windowInfo{s.caller.WindowID, "", s.caller.Application}); len(s.channels) == 0 && data.Filter.match(w) {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b windowInfo) int { return strings.Compare(a.WindowID+a.Channel, b.WindowID+b.Channel) })
	return map[string]any{"windows": list}, nil
}

type windowInfo struct {
	WindowID    string `json:"windowId"`
	Channel     string `json:"channel,omitempty"`
	Application string `json:"application"`
}

type windowFilter struct {
	Application string   `json:"application"`
	WindowIDs   []string `json:"windowIds"`
	Channels    []string `json:"channels"`
}

func (f windowFilter) match(w windowInfo) bool {
	return w.WindowID != "" && (f.Application == "" || f.Application == w.Application) &&
		(f.WindowIDs == nil || slices.Contains(f.WindowIDs, w.WindowID)) &&
		(f.Channels == nil || slices.Contains(f.Channels, w.Channel))
}

// addChannel makes a channel. Clients differ: io.Connect asks before it writes the
// channel's context, and looks for these words if there is one; Glue42 asks after.
func (p *Platform) addChannel(ctx context.Context, c Caller, a announcement) (any, error) {
	var data struct {
		ID    string `json:"id"`
		Color string `json:"color"`
		Label string `json:"label"`
	}
	if err := decode(a.Data, &data); err != nil {
		return nil, err
	}
	meta := map[string]any{"color": data.Color}
	if data.Label != "" {
		meta["label"] = data.Label
	}
	err := p.host.AddChannel(ctx, c, data.ID, meta, nil)
	if !errors.Is(err, wire.ErrBadName) {
		return struct{}{}, err
	}
	all, cannot := p.host.Channels(ctx)
	i := slices.IndexFunc(all, func(info ChannelInfo) bool { return info.Name == data.ID })
	switch {
	case cannot != nil || i < 0:
		return nil, err
	case all[i].By != c.Peer:
		return nil, wire.Errorf(wire.BadName, "Channel with name '%s' already exists.", data.ID)
	}
	return struct{}{}, nil
}

// removeChannel removes a channel. Clients have destroyed its context before they
// ask, so that there usually is none.
func (p *Platform) removeChannel(ctx context.Context, c Caller, a announcement) (any, error) {
	var data struct {
		ID string `json:"id"`
	}
	if err := decode(a.Data, &data); err != nil {
		return nil, err
	}
	if err := p.host.RemoveChannel(ctx, c, data.ID); err != nil && !errors.Is(err, wire.ErrBadName) {
		return nil, err
	}
	return struct{}{}, nil
}

// split reads names of channels.
func split(names string) []string { return union(nil, strings.Split(names, separator)) }

// union is a and what of b is not in it, without empty names.
func union(a, b []string) []string {
	a = slices.Clone(a)
	for _, name := range b {
		if name != "" && !slices.Contains(a, name) {
			a = append(a, name)
		}
	}
	return a
}

// without is what of a is not in b.
func without(a, b []string) []string {
	var rest []string
	for _, name := range a {
		if !slices.Contains(b, name) {
			rest = append(rest, name)
		}
	}
	return rest
}
