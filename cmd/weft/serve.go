package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// serveCommand offers a method.
type serveCommand struct {
	Method      string `arg:"" help:"Name of the method."`
	Echo        bool   `xor:"what" required:"" help:"Answer with the arguments."`
	Exec        string `xor:"what" required:"" placeholder:"CMD" help:"Run CMD in a shell for each call."`
	Application string `default:"weft-serve" placeholder:"NAME" help:"Name of the serving app (${default})."`
	Accepts     string `placeholder:"SIGNATURE" help:"What the method takes, such as \"int a, int b\"."`
	Returns     string `placeholder:"SIGNATURE" help:"What it answers, such as \"int sum\"."`
	Description string `placeholder:"TEXT" help:"What it does."`
	connectFlags
}

// Help is the long help.
func (*serveCommand) Help() string {
	return `CMD gets the arguments as JSON on its standard input and prints the result as
JSON. If it fails, the caller gets app-error with what CMD wrote to its standard
error. WEFT_METHOD, WEFT_CALLER_APPLICATION and WEFT_CALLER_NODE are set. A call
that is canceled or out of time ends CMD and all that it started.

Example: weft serve Add --exec examples/add.sh`
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, p *program) error {
	s, err := p.join(ctx, &c.connectFlags, c.Application)
	if err != nil {
		return err
	}
	defer s.close()
	method := node.Method{Name: c.Method, Accepts: c.Accepts, Returns: c.Returns, Description: c.Description}
	if err := s.app.Register(ctx, method, c.logged(p)); err != nil {
		return err
	}
	p.errorf("Serving %s as %s on %s. Ctrl-C stops.", c.Method, c.Application, s.node.ID())
	logStates(ctx, p.log, s.node)
	return nil
}

// logged handles a call and logs it on one line.
func (c *serveCommand) logged(p *program) node.Handler {
	return func(ctx context.Context, call *node.Call) (any, error) {
		began := time.Now()
		value, err := call.Args, error(nil)
		if !c.Echo {
			value, err = c.run(ctx, call, p)
		}
		attrs := []any{
			slog.String("method", call.Method), slog.String("caller", at(call.Caller)),
			slog.String("took", brief(time.Since(began))),
		}
		if err != nil {
			p.log.Warn("call failed", append(attrs, slog.String("error", oneLine(err.Error())))...)
			return nil, err
		}
		p.log.Info("call served", attrs...)
		return value, nil
	}
}

// Bounds of what a command may write; more is an error, not cut off.
const (
	maxOutput = 8 << 20
	maxStderr = 64 << 10
)

// run is one call of the command.
func (c *serveCommand) run(ctx context.Context, call *node.Call, p *program) (wire.Payload, error) {
	args, err := call.Args.As(wire.JSON)
	if err != nil {
		return wire.Payload{}, err
	}
	out, stderr := &bounded{most: maxOutput}, &bounded{most: maxStderr, cut: true}
	cmd := shell(ctx, c.Exec)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(args.Data), out, stderr
	cmd.Env = append(p.environ(), "WEFT_METHOD="+call.Method,
		"WEFT_CALLER_APPLICATION="+call.Caller.Application, "WEFT_CALLER_NODE="+call.Caller.Node)
	cmd.WaitDelay = time.Second // for what a killed command's children hold open
	if err := cmd.Run(); err != nil {
		return wire.Payload{}, runError(ctx, err, stderr.String())
	}
	data := bytes.TrimSpace(out.Bytes())
	if len(data) == 0 {
		return wire.Payload{}, nil
	}
	if err := wire.CheckJSON(data); err != nil {
		return wire.Payload{}, wire.Errorf(wire.AppError, "the command printed what is not JSON: %s", sentenceOf(err))
	}
	return wire.Payload{Format: wire.JSON, Data: data}, nil
}

// runError says why a command failed.
func runError(ctx context.Context, err error, stderr string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errTooMuch) {
		return wire.Errorf(wire.Limit, "the command printed more than %d bytes", maxOutput)
	}
	if stderr = strings.TrimSpace(stderr); stderr == "" {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			stderr = "the command failed with " + exit.String()
		} else {
			stderr = fmt.Sprintf("the command could not be run: %v", err)
		}
	}
	return wire.Errorf(wire.AppError, "%s", stderr)
}

var errTooMuch = errors.New("too much output")

// bounded keeps at most so many bytes; beyond them it cuts or fails.
type bounded struct {
	bytes.Buffer
	most int
	cut  bool
}

func (b *bounded) Write(data []byte) (int, error) {
	room := b.most - b.Len()
	if len(data) <= room {
		return b.Buffer.Write(data)
	}
	if !b.cut {
		return 0, errTooMuch
	}
	_, _ = b.Buffer.Write(data[:room]) // never fails
	return len(data), nil
}

// environ is the environment as a child gets it.
func (p *program) environ() []string {
	env := make([]string, 0, len(p.env)+3)
	for name, value := range p.env {
		env = append(env, name+"="+value)
	}
	return env
}

// positive refuses a duration that cannot be meant.
func positive(flag string, d time.Duration) error {
	if d <= 0 {
		return usageError{fmt.Errorf("%s %s: want more than 0", flag, d)}
	}
	return nil
}
