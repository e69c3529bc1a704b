package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// callCommand calls a method.
type callCommand struct {
	Method string `arg:"" help:"Name of the method."`
	Args   string `arg:"" optional:"" name:"json" help:"Arguments as JSON, @FILE, or - for the standard input."`
	targetFlag
	Timeout time.Duration `default:"30s" help:"How long to wait for the result (${default})."`
	Wait    time.Duration `default:"0s" help:"How long to wait for a server to appear (${default})."`
	connectFlags
}

// Help is the long help.
func (*callCommand) Help() string {
	return `Examples:
  weft call Add '{"a":1,"b":2}'
  weft call Desk.Status --target all
  weft call Pricer.Quote @request.json --target application=pricer,machine=bob-pc`
}

// Run prints the result: of best the value, otherwise one row or with --json
// one object per server.
func (c *callCommand) Run(ctx context.Context, p *program) error {
	args, err := p.argument(c.Args)
	if err != nil {
		return err
	}
	target, single, err := c.target()
	if err != nil {
		return err
	}
	if err := positive("--timeout", c.Timeout); err != nil {
		return err
	}
	s, err := p.join(ctx, &c.connectFlags, "weft-cli")
	if err != nil {
		return err
	}
	defer s.close()
	results, err := s.app.Invoke(ctx, c.Method, args, target, node.Timeout(c.Timeout), node.Wait(c.Wait))
	if single {
		if err != nil {
			return err
		}
		return p.printValue(results.Value())
	}
	if len(results) == 0 {
		return err
	}
	return p.printResults(results)
}

// resultLine is a result with --json.
type resultLine struct {
	Server node.Identity   `json:"server"`
	Value  json.RawMessage `json:"value,omitempty"`
	Error  *errorLine      `json:"error,omitempty"`
}

type errorLine struct {
	Code    wire.Code `json:"code"`
	Message string    `json:"message"`
}

func errorOf(err error) *errorLine {
	if err == nil {
		return nil
	}
	e := wire.AsError(err)
	return &errorLine{e.Code, e.Message}
}

// printResults shows what each server said. The error is that of the first
// server that failed.
func (p *program) printResults(results node.Results) error {
	var first error
	var rows []table.Row
	for _, r := range results {
		value, err := jsonOf(r.Value)
		if r.Err == nil {
			r.Err = err
		}
		if r.Err != nil && first == nil {
			first = r.Err
		}
		if p.json {
			if err := p.printJSON(resultLine{r.Server, value, errorOf(r.Err)}); err != nil {
				return err
			}
			continue
		}
		said := string(value)
		if r.Err != nil {
			said = oneLine(wire.AsError(r.Err).Error())
		}
		rows = append(rows, table.Row{r.Server.Application, r.Server.Node, r.Server.Machine, said})
	}
	if !p.json {
		p.printTable("", table.Row{"application", "node", "machine", "result"}, rows)
	}
	return first
}
