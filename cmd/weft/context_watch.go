package main

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/weft-fabric/weft/node"
)

// contextLsCommand lists the contexts.
type contextLsCommand struct {
	Pattern string `arg:"" optional:"" help:"Only names like this; * is any text, ? any one character."`
	Watch   bool   `short:"w" help:"Print what is there and then each change."`
	All     bool   `short:"a" help:"Those of channels too, named ___channel___..."`
	contextFlags
}

// nameLine is a context in a list with --json.
type nameLine struct {
	Name string `json:"name"`
}

// nameEventLine is the beginning or end of a context with --json.
type nameEventLine struct {
	Event string      `json:"event"`
	Name  string      `json:"name"`
	By    *writerLine `json:"by"`
}

// Run lists once, or follows what is created and destroyed.
func (c *contextLsCommand) Run(ctx context.Context, p *program) error {
	wanted := like(c.Pattern)
	show := func(name string) bool { return wanted(name) && (c.All || !strings.HasPrefix(name, channelPrefix)) }
	s, once, done, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	names, err := s.app.Contexts().Names(once)
	if err != nil {
		return c.late(err)
	}
	if c.Watch {
		return c.watch(ctx, p, s, show, names)
	}
	var rows []table.Row
	for _, name := range names {
		if !show(name) {
			continue
		}
		if p.json {
			if err := p.printJSON(nameLine{name}); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, table.Row{label(name)})
	}
	if !p.json {
		none := "No contexts in realm "
		if c.Pattern != "" {
			none = "No context is called " + label(c.Pattern) + " in realm "
		}
		none += string(s.node.Realm().Name()) + "."
		p.printTable(none, table.Row{"context"}, rows)
	}
	return nil
}

// watch prints until ctx ends. Who made those of before is not known.
func (c *contextLsCommand) watch(ctx context.Context, p *program, s *session, show func(string) bool, before []string) error {
	for e := range s.app.Contexts().WatchNames(ctx) {
		by := s.writer(e.By)
		i, old := slices.BinarySearch(before, e.Name)
		if old {
			before, by = slices.Delete(before, i, i+1), nil
		}
		if !show(e.Name) {
			continue
		}
		if p.json {
			if err := p.printJSON(nameEventLine{e.Kind.String(), e.Name, by}); err != nil {
				return err
			}
			continue
		}
		text := "+"
		if e.Kind == node.ContextDestroyed {
			text = "-"
		}
		text += " context " + label(e.Name)
		if !old {
			text += " by " + by.String()
		}
		p.printf("%s", text)
	}
	return nil
}

// like matches names with a pattern of * and ?; an empty one matches all.
func like(pattern string) func(string) bool {
	if pattern == "" {
		return func(string) bool { return true }
	}
	text := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
	re, err := regexp.Compile(`(?s)\A` + text + `\z`)
	if err != nil { // not valid UTF-8, as no name is
		return func(string) bool { return false }
	}
	return re.MatchString
}

// contextWatchCommand prints a context and its changes.
type contextWatchCommand struct {
	Name  string `arg:"" help:"Name of the context; it need not be there yet."`
	Count int    `short:"n" default:"0" placeholder:"N" help:"End after N lines, the first one with the context as it is."`
	contextFlags
}

// Help is the long help.
func (*contextWatchCommand) Help() string {
	return `The first line is the context as it is, or that there is none. Then each change
has a line: when it came here, the revision, who wrote it, and each path with
its new value. A reader that is too slow gets the latest state, and the line says how many
states were left out.`
}

// Run prints until ctx ends or so many lines are printed.
func (c *contextWatchCommand) Run(ctx context.Context, p *program) error {
	s, first, done, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	// This tells why, if the context cannot be read.
	if _, err := s.app.Contexts().Get(first, c.Name); err != nil {
		return c.late(err)
	}
	w, err := s.app.Contexts().Watch(ctx, c.Name)
	if err != nil {
		return err
	}
	defer w.Close()
	seen, offline := 0, false
	for e := range w.Events(ctx) {
		line, err := newContextEventLine(s, e)
		if err != nil {
			return err
		}
		line.back, offline = offline && e.Since.IsZero(), !e.Since.IsZero()
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
	}
	return nil
}

// contextEventLine is a step of a watch with --json. Value is there with a
// snapshot; what comes later is in Changes.
type contextEventLine struct {
	Event     string          `json:"event"`
	Time      time.Time       `json:"time"`
	Name      string          `json:"name"`
	Exists    bool            `json:"exists"`
	Revision  uint64          `json:"revision"`
	By        *writerLine     `json:"by"`
	Value     json.RawMessage `json:"value,omitempty"`
	Changes   []changeLine    `json:"changes,omitempty"`
	Conflated int             `json:"conflated,omitempty"`
	Since     *time.Time      `json:"since"`

	kind contextKind
	back bool // the fabric was lost before this
}

func newContextEventLine(s *session, e node.ContextEvent) (*contextEventLine, error) {
	line := &contextEventLine{
		Event: e.Kind.String(), Time: time.Now().UTC(), Name: e.Name, Exists: e.Exists, Revision: e.Revision,
		By: s.writer(e.By), Conflated: e.Conflated, Since: momentOrNull(e.Since), kind: e.Kind,
	}
	var err error
	if e.Kind == node.ContextSnapshot {
		if line.Value, err = sortedJSON(e.Value()); err != nil {
			return nil, err
		}
	}
	line.Changes, err = newChangeLines(e.Changes)
	return line, err
}

// String is the line for people.
func (l *contextEventLine) String() string {
	what := ""
	switch l.kind {
	case node.ContextSnapshot:
		what = ": there is no context " + label(l.Name)
		if l.Exists {
			what = origin(l.Revision, l.By) + ": " + string(l.Value)
		}
	case node.ContextOffline:
		what = unseen
	case node.ContextOnline:
		what = unchanged
	case node.ContextDestroyed:
		what = " by " + l.By.String()
	default:
		what = origin(l.Revision, l.By) + ": " + changesText(l.Changes)
	}
	return clock(l.Time) + " " + l.Event + what + remarks(l.back && l.kind != node.ContextOnline, l.Conflated)
}
