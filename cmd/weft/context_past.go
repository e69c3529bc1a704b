package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

const momentHelp = `A time is written as in 2026-11-20T14:03:07Z or 2026-11-20T15:03:07.5+01:00. It is
that of the NATS server.`

// contextHistoryCommand lists what was done to a context.
type contextHistoryCommand struct {
	Name   string        `arg:"" help:"Name of the context; it need not be there any more."`
	Path   string        `placeholder:"PATH" help:"Only what was written at, above or below this path."`
	Since  time.Duration `placeholder:"AGO" help:"Only what was written in the last 1h, 30m, ..."`
	Before uint64        `placeholder:"N" help:"Only what has a sequence below N, to read on towards the past."`
	Limit  int           `short:"n" default:"100" placeholder:"N" help:"The newest N operations (${default})."`
	contextFlags
}

// Help is the long help.
func (*contextHistoryCommand) Help() string {
	return `Each line is one operation: when (by the clock of the NATS server), its sequence, who
(application, user, node and machine), and each path with its new value. Where the
history lacks writes, of whatever context, a line says how many.

Examples:
  weft context history client --since 1h
  weft context history client --path address.city --json`
}

// historyLine is an operation with --json.
type historyLine struct {
	Kind        string         `json:"kind"`
	Sequence    uint64         `json:"sequence"`
	Time        *time.Time     `json:"time"`
	By          *contextWriter `json:"by"`
	Application string         `json:"application,omitempty"`
	User        string         `json:"user,omitempty"`
	Machine     string         `json:"machine,omitempty"`
	Changes     []changeLine   `json:"changes,omitempty"`
	From        uint64         `json:"from,omitempty"`
	Missing     uint64         `json:"missing,omitempty"`
}

// Run prints the operations.
func (c *contextHistoryCommand) Run(ctx context.Context, p *program) error {
	path, err := optionalPath(c.Path)
	switch {
	case err != nil:
		return err
	case c.Since < 0:
		return usageError{fmt.Errorf("--since %s: want more than 0", c.Since)}
	case c.Limit < 1 || c.Limit > node.MaxContextHistory:
		return usageError{fmt.Errorf("--limit %d: want 1 to %d", c.Limit, node.MaxContextHistory)}
	}
	s, ctx, done, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	q := node.ContextHistoryQuery{Path: path, Before: c.Before, Limit: c.Limit}
	if c.Since > 0 {
		q.Since = s.app.Contexts().ServerTime().Add(-c.Since)
	}
	h, err := s.app.Contexts().History(ctx, c.Name, q)
	if err != nil {
		return c.late(err)
	}
	for i := range h.Entries {
		line, err := newHistoryLine(&h.Entries[i])
		if err != nil {
			return err
		}
		if p.json {
			err = p.printJSON(line)
		} else {
			p.printf("%s", line)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case p.json:
	case len(h.Entries) == 0:
		p.printf("Nothing is recorded of context %s.", label(c.Name))
	case h.More:
		p.errorf("There is more before: --before %d.", h.Entries[0].From)
	}
	return nil
}

func newHistoryLine(e *node.ContextHistoryEntry) (*historyLine, error) {
	line := &historyLine{
		Kind: string(e.Kind), Sequence: e.Sequence, Time: momentOrNull(e.Time), From: e.From, Missing: e.Missing,
		Application: e.Who.Application, User: e.Who.User, Machine: e.Who.Machine,
	}
	if e.By.Node != "" {
		line.By = &e.By
	}
	var err error
	line.Changes, err = newChangeLines(e.Changes)
	return line, err
}

// who is who wrote, for people.
func (l *historyLine) who() string {
	switch {
	case l.By == nil && l.Application == "":
		return "a foreign writer"
	case l.Application == "":
		return (&writerLine{App: l.By.App, Node: l.By.Node}).String()
	}
	who := label(l.Application)
	if l.By != nil {
		who += "@" + string(l.By.Node)
	}
	if l.User != "" || l.Machine != "" {
		who += " (" + strings.Join(slices.DeleteFunc([]string{labelOrNone(l.User), labelOrNone(l.Machine)}, func(s string) bool { return s == "" }), " on ") + ")"
	}
	return who
}

func labelOrNone(s string) string {
	if s == "" {
		return ""
	}
	return label(s)
}

// String is the line for people.
func (l *historyLine) String() string {
	at := "-"
	if l.Time != nil {
		at = l.Time.Local().Format("2006-01-02 15:04:05.000")
	}
	if l.Kind == string(node.ContextHistoryGap) {
		return fmt.Sprintf("%s gap: %d of the sequences %d to %d are not recorded", at, l.Missing, l.From, l.Sequence)
	}
	text := fmt.Sprintf("%s %d %s by %s", at, l.Sequence, l.Kind, l.who())
	if len(l.Changes) > 0 {
		text += ": " + changesText(l.Changes)
	}
	return text
}

// moment is a sequence of the context bucket, or a time.
type moment struct {
	sequence uint64
	time     time.Time
}

func parseMoment(arg string) (moment, error) {
	if n, err := strconv.ParseUint(arg, 10, 64); err == nil {
		return moment{sequence: n}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, arg)
	if err != nil {
		return moment{}, usageError{fmt.Errorf("%q is neither a sequence nor a time such as 2026-11-20T14:03:07Z", arg)}
	}
	return moment{time: t}, nil
}

// read reads a context as it was.
func (m moment) read(ctx context.Context, a *node.Contexts, name string) (node.ContextPast, error) {
	if !m.time.IsZero() {
		return a.AtTime(ctx, name, m.time)
	}
	return a.At(ctx, name, m.sequence)
}

// pastLine is a context as it was, with --json.
type pastLine struct {
	Name     string          `json:"name"`
	Path     []string        `json:"path,omitempty"`
	Exists   bool            `json:"exists"`
	Sequence uint64          `json:"sequence"`
	Revision uint64          `json:"revision"`
	Time     *time.Time      `json:"time"`
	Value    json.RawMessage `json:"value,omitempty"`
}

// moment is when the context is wanted, nil for now.
func (c *contextGetCommand) moment() (*moment, error) {
	switch {
	case c.At != "" && c.Seq != nil:
		return nil, usageError{errors.New("--at and --seq: want one of them")}
	case c.Seq != nil:
		return &moment{sequence: *c.Seq}, nil
	case c.At == "":
		return nil, nil
	}
	t, err := time.Parse(time.RFC3339Nano, c.At)
	if err != nil {
		return nil, usageError{fmt.Errorf("--at %s: want a time such as 2026-11-20T14:03:07Z", c.At)}
	}
	return &moment{time: t}, nil
}

// past prints the object as it was, or what was at a path in it.
func (c *contextGetCommand) past(ctx context.Context, p *program, a *node.Contexts, m *moment, path []string) error {
	past, err := m.read(ctx, a, c.Name)
	if err != nil {
		return c.late(err)
	}
	var value wire.Payload
	if v := past.Object.At(path); v != nil {
		value = v.Payload()
	}
	if p.json {
		raw, err := sortedJSON(value)
		if err != nil {
			return err
		}
		if err := p.printJSON(pastLine{c.Name, path, past.Exists, past.Sequence, past.Revision, momentOrNull(past.Time), raw}); err != nil {
			return err
		}
	}
	switch {
	case !past.Exists:
		return wire.Errorf(wire.BadName, "there was no context %q at sequence %d", c.Name, past.Sequence)
	case value.IsZero():
		return wire.Errorf(wire.BadName, "context %q had nothing at %s", c.Name, pathText(path))
	case p.json:
		return nil
	}
	return p.printSorted(value)
}

// contextDiffCommand compares two moments of a context.
type contextDiffCommand struct {
	Name string `arg:"" help:"Name of the context."`
	A    string `arg:"" help:"A sequence, or a time."`
	B    string `arg:"" help:"Another one."`
	contextFlags
}

// Help is the long help.
func (*contextDiffCommand) Help() string {
	return `Prints what leads from the object at A to that at B: a line for each path, with its
new value or that it was removed.

` + momentHelp + `

Examples:
  weft context diff client 18 25
  weft context diff client 2026-11-20T14:00:00Z 2026-11-20T15:00:00Z`
}

// diffLine is a difference with --json.
type diffLine struct {
	Name    string       `json:"name"`
	A       uint64       `json:"a"`
	B       uint64       `json:"b"`
	Changes []changeLine `json:"changes"`
}

// Run prints the differences.
func (c *contextDiffCommand) Run(ctx context.Context, p *program) error {
	var moments [2]moment
	for i, arg := range []string{c.A, c.B} {
		var err error
		if moments[i], err = parseMoment(arg); err != nil {
			return err
		}
	}
	s, ctx, done, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	var pasts [2]node.ContextPast
	for i, m := range moments {
		if pasts[i], err = m.read(ctx, s.app.Contexts(), c.Name); err != nil {
			return c.late(err)
		}
	}
	changes, err := newChangeLines(pasts[0].Diff(pasts[1]))
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(diffLine{c.Name, pasts[0].Sequence, pasts[1].Sequence, append([]changeLine{}, changes...)})
	}
	if len(changes) == 0 {
		p.printf("Context %s is the same at the sequences %d and %d.", label(c.Name), pasts[0].Sequence, pasts[1].Sequence)
	}
	for _, change := range changes {
		if len(change.Path) == 0 && change.Removed {
			p.printf("destroyed")
			continue
		}
		p.printf("%s", change)
	}
	return nil
}

// contextRevertCommand makes a context what it was.
type contextRevertCommand struct {
	contextWrite
	To uint64 `required:"" placeholder:"SEQ" help:"Sequence at which the object was as it shall be."`
}

// Help is the long help.
func (*contextRevertCommand) Help() string {
	return `Writes the object that was there at a sequence, which "weft context history" shows,
once more. That is one more write; nothing is taken from the history.

Example: weft context revert client --to 18`
}

// Run writes the object of the past.
func (c *contextRevertCommand) Run(ctx context.Context, p *program) error {
	return c.write(ctx, p, func(ctx context.Context, a *node.Contexts, opts ...contextOption) (node.ContextAck, error) {
		return a.Revert(ctx, c.Name, c.To, opts...)
	})
}
