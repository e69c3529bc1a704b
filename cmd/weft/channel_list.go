package main

import (
	"context"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
)

// channelLsCommand lists the channels.
type channelLsCommand struct {
	Watch bool `short:"w" help:"Print what is there and then each change."`
	contextFlags
}

// channelMeta is what is known of the meta of channels.
type channelMeta struct {
	Color string `msgpack:"color"`
	Label string `msgpack:"label"`
	FDC3  struct {
		ID string `msgpack:"id"`
	} `msgpack:"fdc3"`
}

// channelRow is a channel in a list with --json.
type channelRow struct {
	Name     string `json:"name"`
	Color    string `json:"color"`
	Label    string `json:"label,omitempty"`
	FDC3     string `json:"fdc3,omitempty"`
	Members  int    `json:"members"`
	Revision uint64 `json:"revision"`
}

// Run lists once, or follows what is added and removed.
func (c *channelLsCommand) Run(ctx context.Context, p *program) error {
	return c.session(ctx, p, func(s *session, once context.Context) error {
		channels := s.app.Channels()
		if c.Watch {
			before, err := channels.Names(once)
			if err != nil {
				return err
			}
			return p.watchChannels(ctx, s, before, func(e node.ChannelEvent) bool {
				return e.Kind == node.ChannelAdded || e.Kind == node.ChannelRemoved
			})
		}
		list, err := channels.List(once)
		if err != nil {
			return err
		}
		var rows []table.Row
		for _, ch := range list {
			row := channelRow{Name: ch.Name, Color: ch.Color(), Members: len(channels.Members(ch.Name)), Revision: ch.Revision}
			var meta channelMeta
			if ch.Meta.Decode(&meta) == nil { // anybody may have written it
				row.Label, row.FDC3 = meta.Label, meta.FDC3.ID
			}
			if p.json {
				if err := p.printJSON(row); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, table.Row{label(row.Name), shown(row.Color), shown(row.Label), shown(row.FDC3), row.Members})
		}
		if !p.json {
			p.printTable("No channels in realm "+string(s.node.Realm().Name())+".", table.Row{"channel", "color", "label", "fdc3", "members"}, rows)
		}
		return nil
	})
}

// shown is label of a text that may be empty.
func shown(text string) string {
	if text == "" {
		return ""
	}
	return label(text)
}

// channelMembersCommand lists who is on channels.
type channelMembersCommand struct {
	Name  string `arg:"" optional:"" help:"Name of the channel; all unless given."`
	Watch bool   `short:"w" help:"Print who is there and then who joins and leaves."`
	contextFlags
}

// memberLine is a member with --json.
type memberLine struct {
	Channel  string        `json:"channel"`
	App      subjects.App  `json:"app"`
	Node     subjects.Node `json:"node"`
	Machine  string        `json:"machine"`
	Host     string        `json:"host"`
	Identity node.Identity `json:"identity"`
}

func newMemberLine(channel string, m node.ChannelMember) *memberLine {
	return &memberLine{Channel: channel, App: m.App, Node: m.Node, Machine: m.Machine, Host: m.Host, Identity: m.Identity}
}

// Run lists once, or follows who joins and leaves.
func (c *channelMembersCommand) Run(ctx context.Context, p *program) error {
	return c.session(ctx, p, func(s *session, once context.Context) error {
		channels := s.app.Channels()
		names := []string{c.Name}
		none := "Nobody is on channel " + label(c.Name) + "."
		var err error
		if c.Name != "" {
			_, err = channels.Get(once, c.Name)
		} else {
			none = "Nobody is on a channel in realm " + string(s.node.Realm().Name()) + "."
			names, err = channels.Names(once)
		}
		if err != nil {
			return err
		}
		if c.Watch {
			return p.watchChannels(ctx, s, nil, func(e node.ChannelEvent) bool {
				return (e.Kind == node.ChannelMemberJoined || e.Kind == node.ChannelMemberLeft) && (c.Name == "" || e.Channel == c.Name)
			})
		}
		var rows []table.Row
		for _, name := range names {
			for _, m := range channels.Members(name) {
				if p.json {
					if err := p.printJSON(newMemberLine(name, m)); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, table.Row{label(name), label(m.Identity.Application), m.Machine, string(m.Node), string(m.App)})
			}
		}
		if !p.json {
			p.printTable(none, table.Row{"channel", "application", "machine", "node", "app"}, rows)
		}
		return nil
	})
}

// channelEventLine is a change of the channels, or of who is on them, with --json.
type channelEventLine struct {
	Event   string      `json:"event"`
	Channel string      `json:"channel"`
	By      *writerLine `json:"by,omitempty"`
	Member  *memberLine `json:"member,omitempty"`
}

// watchChannels prints the events that are to be shown, until ctx ends. Who added
// the channels of before is not told.
func (p *program) watchChannels(ctx context.Context, s *session, before []string, show func(node.ChannelEvent) bool) error {
	for e := range s.app.Channels().Events(ctx) {
		if !show(e) {
			continue
		}
		line := channelEventLine{Event: e.Kind.String(), Channel: e.Channel}
		text := "channel " + label(e.Channel)
		switch i := slices.Index(before, e.Channel); {
		case e.Member.App != "":
			line.Member = newMemberLine(e.Channel, e.Member)
			text = label(e.Member.Identity.Application) + "@" + string(e.Member.Node) + " on " + text +
				" (machine " + e.Member.Machine + ", app " + string(e.Member.App) + ")"
		case i >= 0:
			before = slices.Delete(before, i, i+1)
		default:
			line.By = s.writer(e.By)
			text += " by " + line.By.String()
		}
		if p.json {
			if err := p.printJSON(line); err != nil {
				return err
			}
			continue
		}
		sign := "+"
		if e.Kind == node.ChannelRemoved || e.Kind == node.ChannelMemberLeft {
			sign = "-"
		}
		p.printf("%s %s", sign, text)
	}
	return nil
}
