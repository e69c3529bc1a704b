package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// contextCommand holds the commands of shared contexts.
type contextCommand struct {
	Ls      contextLsCommand      `cmd:"" help:"List the contexts."`
	Get     contextGetCommand     `cmd:"" help:"Print a context, or what is at a path in it."`
	Set     contextSetCommand     `cmd:"" help:"Replace the whole object, or create the context."`
	Update  contextUpdateCommand  `cmd:"" help:"Replace some of the top-level keys; null removes one."`
	Path    contextPathCommand    `cmd:"" help:"Set the value at a path and leave everything beside it alone."`
	Rm      contextRmCommand      `cmd:"" help:"Remove what is at a path."`
	Destroy contextDestroyCommand `cmd:"" help:"End a context for everybody."`
	Watch   contextWatchCommand   `cmd:"" help:"Print a context and then each change."`
	History contextHistoryCommand `cmd:"" help:"List who changed what of a context, and when."`
	Diff    contextDiffCommand    `cmd:"" help:"Print what has changed between two moments."`
	Revert  contextRevertCommand  `cmd:"" help:"Make a context again what it was."`
}

// Help is the long help.
func (*contextCommand) Help() string {
	return `A context is a named JSON object that every app on every machine of the realm
reads, changes and watches. It stays until it is destroyed.

` + pathHelp
}

const pathHelp = `PATH names what is inside an object: a.b.c, or a JSON array of strings for names
that are empty or have dots in them: '["a.b","c"]'. In an array a number is the
element, and one past the last appends.`

const afterDashes = `A JSON argument that begins with - comes after --, as in -- -5.`

// contextFlags are common to the commands of contexts.
type contextFlags struct {
	Timeout time.Duration `default:"10s" help:"How long to wait for the answer (${default})."`
	connectFlags
}

// open joins; ctx is over after the timeout.
func (c *contextFlags) open(ctx context.Context, p *program) (*session, context.Context, context.CancelFunc, error) {
	return c.openAs(ctx, p, "weft-cli")
}

// openAs is open under a name for the app.
func (c *contextFlags) openAs(ctx context.Context, p *program, application string) (*session, context.Context, context.CancelFunc, error) {
	if err := positive("--timeout", c.Timeout); err != nil {
		return nil, nil, nil, err
	}
	s, err := p.join(ctx, &c.connectFlags, application)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	return s, ctx, func() { cancel(); s.close() }, nil
}

// late says what a bare deadline means.
func (c *contextFlags) late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && sentenceOf(err) == context.DeadlineExceeded.Error() {
		return wire.Errorf(wire.Timeout, "no answer within %s", c.Timeout)
	}
	return err
}

// contextGetCommand prints a context.
type contextGetCommand struct {
	Name string  `arg:"" help:"Name of the context."`
	Path string  `arg:"" optional:"" help:"What to print of it."`
	At   string  `placeholder:"TIME" help:"As it was at this time."`
	Seq  *uint64 `placeholder:"N" help:"As it was at this sequence."`
	contextFlags
}

// Help is the long help.
func (*contextGetCommand) Help() string {
	return pathHelp + `

` + momentHelp + `

Examples:
  weft context get client
  weft context get client address.city
  weft context get client --at 2026-11-20T14:03:07Z`
}

// contextLine is a context with --json.
type contextLine struct {
	Name     string          `json:"name"`
	Path     []string        `json:"path,omitempty"`
	Exists   bool            `json:"exists"`
	Revision uint64          `json:"revision"`
	By       *writerLine     `json:"by"`
	Value    json.RawMessage `json:"value,omitempty"`
	Since    *time.Time      `json:"since"`
}

// Run prints the object, or what is at a path in it.
func (c *contextGetCommand) Run(ctx context.Context, p *program) error {
	path, err := optionalPath(c.Path)
	if err != nil {
		return err
	}
	was, err := c.moment()
	if err != nil {
		return err
	}
	s, ctx, done, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	if was != nil {
		return c.past(ctx, p, s.app.Contexts(), was, path)
	}
	state, err := s.app.Contexts().Get(ctx, c.Name)
	if err != nil {
		return c.late(err)
	}
	value := state.At(path...)
	if p.json {
		raw, err := sortedJSON(value)
		if err != nil {
			return err
		}
		if err := p.printJSON(contextLine{
			Name: state.Name, Path: path, Exists: state.Exists, Revision: state.Revision,
			By: s.writer(state.By), Value: raw, Since: momentOrNull(state.Since),
		}); err != nil {
			return err
		}
	}
	switch {
	case !state.Exists:
		return noContext(c.Name)
	case value.IsZero():
		return wire.Errorf(wire.BadName, "context %q has nothing at %s", c.Name, pathText(path))
	case p.json:
		return nil
	}
	return p.printSorted(value)
}

func noContext(name string) error { return wire.Errorf(wire.BadName, "there is no context %q", name) }

// contextWrite is common to the commands that write.
type contextWrite struct {
	Name       string  `arg:"" help:"Name of the context."`
	IfRevision *uint64 `placeholder:"N" help:"Only if what is written to was not changed after revision N; 0: only if it was never written."`
	contextFlags
}

// commit joins and writes.
func (c *contextWrite) commit(ctx context.Context, p *program, do func(context.Context, *node.Contexts, ...contextOption) error) error {
	s, ctx, done, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	var opts []contextOption
	if c.IfRevision != nil {
		opts = append(opts, node.IfRevision(*c.IfRevision))
	}
	return c.late(do(ctx, s.app.Contexts(), opts...))
}

// write joins, writes, and prints the revision.
func (c *contextWrite) write(ctx context.Context, p *program, do func(context.Context, *node.Contexts, ...contextOption) (node.ContextAck, error)) error {
	var ack node.ContextAck
	err := c.commit(ctx, p, func(ctx context.Context, a *node.Contexts, opts ...contextOption) (err error) {
		ack, err = do(ctx, a, opts...)
		return err
	})
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(writtenLine{c.Name, ack.Revision})
	}
	p.printf("Context %s is at revision %d.", label(c.Name), ack.Revision)
	return nil
}

// writtenLine is a write with --json.
type writtenLine struct {
	Name     string `json:"name"`
	Revision uint64 `json:"revision"`
}

// contextSetCommand replaces the object.
type contextSetCommand struct {
	contextWrite
	Value string `arg:"" name:"json" help:"Object as JSON, @FILE, or - for the standard input."`
}

// Help is the long help.
func (*contextSetCommand) Help() string {
	return `Examples:
  weft context set client '{"name":"ACME","limit":5}'
  weft context set client @client.json
  weft context set client '{}' --if-revision 0      only if there is none`
}

// Run replaces the object.
func (c *contextSetCommand) Run(ctx context.Context, p *program) error {
	v, err := p.object(c.Value)
	if err != nil {
		return err
	}
	return c.write(ctx, p, func(ctx context.Context, a *node.Contexts, opts ...contextOption) (node.ContextAck, error) {
		return a.Set(ctx, c.Name, v, opts...)
	})
}

// contextUpdateCommand replaces top-level keys.
type contextUpdateCommand struct {
	contextWrite
	Value string `arg:"" name:"json" help:"Object with the keys to replace, as JSON, @FILE, or - for the standard input."`
}

// Help is the long help.
func (*contextUpdateCommand) Help() string {
	return `A key whose value is null is removed; keys that are not given stay as they are.

Example: weft context update client '{"limit":7,"name":null}'`
}

// Run replaces top-level keys.
func (c *contextUpdateCommand) Run(ctx context.Context, p *program) error {
	v, err := p.object(c.Value)
	if err != nil {
		return err
	}
	return c.write(ctx, p, func(ctx context.Context, a *node.Contexts, opts ...contextOption) (node.ContextAck, error) {
		return a.Update(ctx, c.Name, v, opts...)
	})
}

// contextPathCommand sets one path.
type contextPathCommand struct {
	contextWrite
	Path  string `arg:"" help:"Where to put the value."`
	Value string `arg:"" name:"json" help:"Value as JSON, @FILE, or - for the standard input; null removes what is there."`
}

// Help is the long help.
func (*contextPathCommand) Help() string {
	return pathHelp + `
` + afterDashes + `

Examples:
  weft context path client address.city '"Bern"'
  weft context path client '["limits","BMW.DE"]' 500`
}

// Run sets one path.
func (c *contextPathCommand) Run(ctx context.Context, p *program) error {
	path, err := parsePath(c.Path)
	if err != nil {
		return err
	}
	v, err := p.required(c.Value)
	if err != nil {
		return err
	}
	return c.write(ctx, p, func(ctx context.Context, a *node.Contexts, opts ...contextOption) (node.ContextAck, error) {
		return a.SetPath(ctx, c.Name, path, v, opts...)
	})
}

// contextRmCommand removes one path.
type contextRmCommand struct {
	contextWrite
	Path string `arg:"" help:"What to remove."`
}

// Help is the long help.
func (*contextRmCommand) Help() string {
	return `Nothing being there is no error.

` + pathHelp + `

Example: weft context rm client address.city`
}

// Run removes one path.
func (c *contextRmCommand) Run(ctx context.Context, p *program) error {
	path, err := parsePath(c.Path)
	if err != nil {
		return err
	}
	if len(path) == 0 {
		return usageError{errors.New("an empty path is the whole object: \"weft context destroy\" ends a context")}
	}
	return c.write(ctx, p, func(ctx context.Context, a *node.Contexts, opts ...contextOption) (node.ContextAck, error) {
		// A mistyped name must not make a context.
		if state, err := a.Get(ctx, c.Name); err != nil || !state.Exists {
			return node.ContextAck{}, cmp.Or(err, noContext(c.Name))
		}
		return a.RemovePath(ctx, c.Name, path, opts...)
	})
}

// contextDestroyCommand ends a context.
type contextDestroyCommand struct {
	contextWrite
}

// destroyedLine is the end of a context with --json.
type destroyedLine struct {
	Name      string `json:"name"`
	Destroyed bool   `json:"destroyed"`
}

// Run ends a context.
func (c *contextDestroyCommand) Run(ctx context.Context, p *program) error {
	err := c.commit(ctx, p, func(ctx context.Context, a *node.Contexts, opts ...contextOption) error {
		_, err := a.Destroy(ctx, c.Name, opts...)
		return err
	})
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(destroyedLine{c.Name, true})
	}
	p.printf("Context %s is destroyed.", label(c.Name))
	return nil
}
