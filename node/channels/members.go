package channels

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Member is an app that is on a channel.
type Member struct {
	App      subjects.App  `json:"app"`
	Identity wire.Identity `json:"identity"`
	Node     subjects.Node `json:"node"`
	Machine  string        `json:"machine"`
	Host     string        `json:"host"`
	// Local says that the app is on this node, SameMachine on its machine.
	Local       bool `json:"local"`
	SameMachine bool `json:"sameMachine"`
}

func member(n *directory.Node, a *directory.App) Member {
	return Member{App: a.ID, Identity: a.Identity, Node: n.ID, Machine: n.Machine, Host: n.Host, Local: a.Local, SameMachine: a.SameMachine}
}

// Members lists who is on a channel, on whatever machine, as far as this node
// knows, in the order of the nodes' ids.
func (a *App) Members(name string) []Member {
	var list []Member
	for _, n := range a.c.cfg.Directory.View().Sorted() {
		for _, app := range n.Apps {
			if slices.Contains(app.Channels, name) {
				list = append(list, member(n, app))
			}
		}
	}
	return list
}

// Event is one change of the channels of the realm or of who is on them.
type Event struct {
	// Kind is Added, Removed, MemberJoined or MemberLeft.
	Kind Kind
	// Channel is the channel's name.
	Channel string
	// By is who added or removed the channel; empty for a foreign writer, and for
	// what existed before.
	By contexts.Writer
	// Member is who joined or left.
	Member Member
}

// Events yields an Added for each channel and a MemberJoined for each app that is
// on one, then every change, until ctx ends or the app leaves. A channel comes
// before its members, and the reverse when it goes. A slow reader does not hear of
// what was undone before it got there.
func (a *App) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		a.c.ready(ctx)
		s, err := a.c.session(a.id)
		if err != nil {
			return
		}
		names := make(chan contexts.NameEvent)
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		wg.Go(func() {
			for e := range a.contexts.WatchNames(ctx) {
				if _, ok := nameOf(e.Name); !ok {
					continue
				}
				select {
				case names <- e:
				case <-ctx.Done():
					return
				}
			}
			cancel() // the node has stopped
		})
		r := roster{yield: yield, channels: map[string]struct{}{}, members: map[memberKey]Member{}}
		d := a.c.cfg.Directory
		for {
			changed := d.Changed()
			if !r.update(d.View()) {
				return
			}
			select {
			case e := <-names:
				if !r.name(e) {
					return
				}
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// roster is what a reader of events was told.
type roster struct {
	yield    func(Event) bool
	channels map[string]struct{}
	members  map[memberKey]Member
}

type memberKey struct {
	channel string
	app     subjects.App
}

func (k memberKey) compare(o memberKey) int {
	return cmp.Or(compare(k.channel, o.channel), cmp.Compare(k.app, o.app))
}

// name takes a channel that was added or removed.
func (r *roster) name(e contexts.NameEvent) bool {
	channel, _ := nameOf(e.Name)
	if e.Kind == contexts.Created {
		r.channels[channel] = struct{}{}
		return r.yield(Event{Kind: Added, Channel: channel, By: e.By})
	}
	delete(r.channels, channel)
	return r.gone(func(k memberKey) bool { return k.channel == channel }) &&
		r.yield(Event{Kind: Removed, Channel: channel, By: e.By})
}

// update takes a picture of who is here. A member of a channel that is not there
// (yet, or any more) is none.
func (r *roster) update(v *directory.View) bool {
	now := map[memberKey]Member{}
	for _, n := range v.Sorted() {
		for _, a := range n.Apps {
			for _, channel := range a.Channels {
				if _, ok := r.channels[channel]; ok {
					now[memberKey{channel, a.ID}] = member(n, a)
				}
			}
		}
	}
	if !r.gone(func(k memberKey) bool { _, ok := now[k]; return !ok }) {
		return false
	}
	for _, k := range slices.SortedFunc(maps.Keys(now), memberKey.compare) {
		if _, known := r.members[k]; known {
			continue
		}
		r.members[k] = now[k]
		if !r.yield(Event{Kind: MemberJoined, Channel: k.channel, Member: now[k]}) {
			return false
		}
	}
	return true
}

// gone reports the members that have left.
func (r *roster) gone(left func(memberKey) bool) bool {
	for _, k := range slices.SortedFunc(maps.Keys(r.members), memberKey.compare) {
		if !left(k) {
			continue
		}
		m := r.members[k]
		delete(r.members, k)
		if !r.yield(Event{Kind: MemberLeft, Channel: k.channel, Member: m}) {
			return false
		}
	}
	return true
}
