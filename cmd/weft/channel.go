package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// channelCommand holds the commands of channels.
type channelCommand struct {
	Ls      channelLsCommand      `cmd:"" help:"List the channels."`
	Get     channelGetCommand     `cmd:"" help:"Print what is published on a channel, or what is at a path in it."`
	Publish channelPublishCommand `cmd:"" help:"Publish on a channel."`
	Watch   channelWatchCommand   `cmd:"" help:"Print what is on a channel and then each change."`
	Join    channelJoinCommand    `cmd:"" help:"Be on a channel, and watch it, until interrupted."`
	Members channelMembersCommand `cmd:"" help:"List who is on a channel, or on any."`
	Add     channelAddCommand     `cmd:"" help:"Make a channel."`
	Rm      channelRmCommand      `cmd:"" help:"Remove a channel for everybody."`
}

// Help is the long help.
func (*channelCommand) Help() string {
	return `A channel is a shared context with a colour that people choose in their apps:
what one app publishes on it, all that are on it get. A realm begins with ten.

` + pathHelp
}

// channelFlags are common to the commands about one channel.
type channelFlags struct {
	Name string `arg:"" help:"Name of the channel."`
	contextFlags
}

// session joins; once is over after the timeout.
func (c *contextFlags) session(ctx context.Context, p *program, do func(s *session, once context.Context) error) error {
	s, once, done, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	return c.late(do(s, once))
}

// channelGetCommand prints a channel.
type channelGetCommand struct {
	channelFlags
	Path string `arg:"" optional:"" help:"What to print of its data."`
}

// Help is the long help.
func (*channelGetCommand) Help() string {
	return pathHelp + `

Examples:
  weft channel get Red
  weft channel get Red client.name`
}

// channelLine is a channel with --json. With a path there is Value and no Data.
type channelLine struct {
	Name     string          `json:"name"`
	Path     []string        `json:"path,omitempty"`
	Revision uint64          `json:"revision"`
	By       *writerLine     `json:"by"`
	Meta     json.RawMessage `json:"meta"`
	Data     json.RawMessage `json:"data,omitempty"`
	Value    json.RawMessage `json:"value,omitempty"`
	Since    *time.Time      `json:"since"`
}

// Run prints the data, or what is at a path in it.
func (c *channelGetCommand) Run(ctx context.Context, p *program) error {
	path, err := optionalPath(c.Path)
	if err != nil {
		return err
	}
	return c.session(ctx, p, func(s *session, once context.Context) error {
		ch, err := s.app.Channels().Get(once, c.Name)
		if err != nil {
			return err
		}
		data, err := kv.ParseValue(ch.Data)
		if err != nil {
			return err
		}
		value := data.At(path).Payload()
		if p.json {
			line, err := s.channelLine(ch)
			if err != nil {
				return err
			}
			if c.Path != "" {
				line.Path, line.Data = path, nil
				if line.Value, err = sortedJSON(value); err != nil {
					return err
				}
			}
			if err := p.printJSON(line); err != nil {
				return err
			}
		}
		switch {
		case value.IsZero():
			return wire.Errorf(wire.BadName, "channel %q has nothing at %s", c.Name, pathText(path))
		case p.json:
			return nil
		}
		return p.printSorted(value)
	})
}

func (s *session) channelLine(ch node.Channel) (*channelLine, error) {
	line := &channelLine{Name: ch.Name, Revision: ch.Revision, By: s.writer(ch.By), Since: momentOrNull(ch.Since)}
	var err error
	if line.Meta, err = sortedJSON(ch.Meta); err != nil {
		return nil, err
	}
	line.Data, err = sortedJSON(ch.Data)
	return line, err
}

// channelPublishCommand writes to a channel.
type channelPublishCommand struct {
	channelFlags
	Value string `arg:"" name:"json" help:"Object as JSON, @FILE, or - for the standard input; with --path any value."`
	Path  string `placeholder:"PATH" help:"Set only what is at this path in the channel's data; null removes it."`
}

// Help is the long help.
func (*channelPublishCommand) Help() string {
	return `Each top-level key of the object replaces the one on the channel, null removes
it, and keys that are not given stay as they are.

` + pathHelp + `
` + afterDashes + `

Examples:
  weft channel publish Red '{"client":{"name":"ACME"}}'
  weft channel publish Red --path client.name '"Globex"'`
}

// Run publishes once.
func (c *channelPublishCommand) Run(ctx context.Context, p *program) error {
	path, err := optionalPath(c.Path)
	if err != nil {
		return err
	}
	read := p.object
	if c.Path != "" {
		read = p.required
	}
	v, err := read(c.Value)
	if err != nil {
		return err
	}
	return c.session(ctx, p, func(s *session, once context.Context) error {
		var ack node.ContextAck
		var err error
		if c.Path == "" {
			ack, err = s.app.Channels().PublishTo(once, c.Name, v)
		} else {
			ack, err = s.app.Channels().SetPathsTo(once, c.Name, []node.PathValue{{Path: path, Value: v}})
		}
		switch {
		case err != nil:
			return err
		case p.json:
			return p.printJSON(writtenLine{c.Name, ack.Revision})
		}
		p.printf("Channel %s is at revision %d.", label(c.Name), ack.Revision)
		return nil
	})
}

// channelAddCommand makes a channel.
type channelAddCommand struct {
	channelFlags
	Color string `required:"" placeholder:"COLOR" help:"Colour: an HTML name or #RRGGBB."`
	Label string `placeholder:"TEXT" help:"Short text for where people choose a channel."`
	Meta  string `placeholder:"JSON" help:"Object with what else describes the channel, as JSON or @FILE."`
	Data  string `placeholder:"JSON" help:"Object that is on it from the beginning, as JSON or @FILE."`
}

// Help is the long help.
func (*channelAddCommand) Help() string {
	return `Examples:
  weft channel add Bonds --color '#b09b00' --label B
  weft channel add Bonds --color gold --meta '{"desk":"rates"}' --data '{"isin":"DE0001102580"}'`
}

// addedLine is a new channel with --json.
type addedLine struct {
	Name  string `json:"name"`
	Added bool   `json:"added"`
}

// Run makes a channel.
func (c *channelAddCommand) Run(ctx context.Context, p *program) error {
	meta := map[string]any{}
	given, err := p.objectFlag("--meta", c.Meta)
	if err != nil {
		return err
	}
	if c.Meta != "" {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(given.Data, &members); err != nil {
			return usageError{fmt.Errorf("--meta: %w", err)}
		}
		for name, value := range members {
			meta[name] = wire.Payload{Format: wire.JSON, Data: value}
		}
	}
	meta["color"] = c.Color
	if c.Label != "" {
		meta["label"] = c.Label
	}
	data, err := p.objectFlag("--data", c.Data)
	if err != nil {
		return err
	}
	return c.session(ctx, p, func(s *session, once context.Context) error {
		if err := s.app.Channels().Add(once, c.Name, meta, data); err != nil {
			return err
		}
		if p.json {
			return p.printJSON(addedLine{c.Name, true})
		}
		p.printf("Channel %s is added.", label(c.Name))
		return nil
	})
}

// channelRmCommand removes a channel.
type channelRmCommand struct {
	channelFlags
}

// Help is the long help.
func (*channelRmCommand) Help() string {
	return `Whoever is on the channel is then on none. One of the ten that a realm begins
with does not come back by itself.`
}

// removedLine is the end of a channel with --json.
type removedLine struct {
	Name    string `json:"name"`
	Removed bool   `json:"removed"`
}

// Run removes a channel.
func (c *channelRmCommand) Run(ctx context.Context, p *program) error {
	return c.session(ctx, p, func(s *session, once context.Context) error {
		if err := s.app.Channels().Remove(once, c.Name); err != nil {
			return err
		}
		if p.json {
			return p.printJSON(removedLine{c.Name, true})
		}
		p.printf("Channel %s is removed.", label(c.Name))
		return nil
	})
}
