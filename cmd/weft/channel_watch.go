package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// channelWatchCommand prints a channel and its changes.
type channelWatchCommand struct {
	Count int `short:"n" default:"0" placeholder:"N" help:"End after N lines, the first one with the channel as it is."`
	channelFlags
}

// Help is the long help.
func (*channelWatchCommand) Help() string {
	return `The first line is what is on the channel. Then each change has a line: when it
came here, the revision, who wrote it, and each path of the data with its new
value. When the channel is removed the watch goes on, and shows when it is added
again.`
}

// Run prints until ctx ends or so many lines are printed.
func (c *channelWatchCommand) Run(ctx context.Context, p *program) error {
	return c.session(ctx, p, func(s *session, once context.Context) error {
		return c.watch(ctx, once, p, s, nil)
	})
}

// channelJoinCommand is a watch that is a member.
type channelJoinCommand struct {
	Application string `default:"weft-join" placeholder:"NAME" help:"Name of the app that joins (${default})."`
	channelWatchCommand
}

// Help is the long help.
func (*channelJoinCommand) Help() string {
	return `Others see the app with "weft channel members". The output is that of "weft
channel watch". It ends when the channel is removed.

To try it, each in a terminal of its own:
  weft channel join Red
  weft channel publish Red '{"client":"ACME"}'`
}

// Run is on the channel until ctx ends, so many lines are printed, or somebody
// removes the channel.
func (c *channelJoinCommand) Run(ctx context.Context, p *program) error {
	s, once, done, err := c.openAs(ctx, p, c.Application)
	if err != nil {
		return err
	}
	defer done()
	if err := s.app.Channels().Join(once, c.Name); err != nil {
		return c.late(err)
	}
	p.errorf("Joined %s as %s on %s. Ctrl-C leaves.", label(c.Name), label(c.Application), s.node.ID())
	removed := wire.Errorf(wire.BadName, "channel %q was removed", c.Name)
	return c.late(c.watch(ctx, once, p, s, removed))
}

// watch prints the channel's updates. When it is removed the watch ends with
// removed, or goes on if that is nil.
func (c *channelWatchCommand) watch(ctx, once context.Context, p *program, s *session, removed error) error {
	w, err := s.app.Channels().WatchChannel(once, c.Name)
	if err != nil {
		return err
	}
	defer w.Close()
	seen, offline := 0, false
	for u := range w.Updates(ctx) {
		line, err := newChannelUpdateLine(s, u)
		if err != nil {
			return err
		}
		line.back, offline = offline && u.Channel.Since.IsZero(), !u.Channel.Since.IsZero()
		if p.json {
			if err := p.printJSON(line); err != nil {
				return err
			}
		} else {
			p.printf("%s", line)
		}
		if seen++; seen == c.Count {
			break
		}
		if u.Kind == node.ChannelRemoved && removed != nil {
			return removed
		}
	}
	return nil
}

// channelUpdateLine is a step of a watch with --json. Meta and Data are there with
// a snapshot, Meta also when something beside the data has changed; what else
// comes later is in Changes, whose paths are relative to the data.
type channelUpdateLine struct {
	Event     string          `json:"event"`
	Time      time.Time       `json:"time"`
	Name      string          `json:"name"`
	Revision  uint64          `json:"revision"`
	By        *writerLine     `json:"by"`
	Meta      json.RawMessage `json:"meta,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	Changes   []changeLine    `json:"changes,omitempty"`
	Conflated int             `json:"conflated,omitempty"`
	Since     *time.Time      `json:"since"`

	kind channelKind
	back bool // the fabric was lost before this
}

func newChannelUpdateLine(s *session, u node.ChannelUpdate) (*channelUpdateLine, error) {
	ch, err := s.channelLine(u.Channel)
	if err != nil {
		return nil, err
	}
	line := &channelUpdateLine{
		Event: u.Kind.String(), Time: time.Now().UTC(), Name: ch.Name, Revision: ch.Revision, By: ch.By,
		Conflated: u.Conflated, Since: ch.Since, kind: u.Kind,
	}
	switch {
	case u.Kind == node.ChannelSnapshot:
		line.Meta, line.Data = ch.Meta, ch.Data
	case u.Kind == node.ChannelChanged && len(u.Changes) == 0:
		line.Meta = ch.Meta
	}
	line.Changes, err = newChangeLines(u.Changes)
	return line, err
}

// String is the line for people.
func (l *channelUpdateLine) String() string {
	what := ""
	switch {
	case l.kind == node.ChannelSnapshot:
		what = origin(l.Revision, l.By) + ": " + string(l.Data)
	case l.kind == node.ChannelRemoved:
		what = " by " + l.By.String()
	case l.kind == node.ChannelOffline:
		what = unseen
	case l.kind == node.ChannelOnline:
		what = unchanged
	case len(l.Changes) == 0:
		what = origin(l.Revision, l.By) + ", beside the data: meta is " + string(l.Meta)
	default:
		what = origin(l.Revision, l.By) + ": " + changesText(l.Changes)
	}
	return clock(l.Time) + " " + l.Event + what + remarks(l.back && l.kind != node.ChannelOnline, l.Conflated)
}
