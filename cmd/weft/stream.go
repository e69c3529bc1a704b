package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// streamCommand holds the commands of streams.
type streamCommand struct {
	Publish publishCommand `cmd:"" help:"Push each JSON line of the standard input."`
	Watch   watchCommand   `cmd:"" help:"Print what a stream sends."`
}

// publishCommand offers a stream.
type publishCommand struct {
	Stream      string   `arg:"" help:"Name of the stream."`
	Branch      []string `placeholder:"B" help:"Branches to push to; all unless given. A subscriber asks for one with the argument {\"branch\":\"B\"}."`
	Snapshot    int      `default:"0" placeholder:"N" help:"Keep the last N messages of each branch for late joiners."`
	Subscribers int      `default:"0" placeholder:"N" help:"Read nothing before N subscribers are there."`
	Keep        bool     `help:"Stay after the end of the input, until interrupted."`
	Application string   `default:"weft-publish" placeholder:"NAME" help:"Name of the publishing app (${default})."`
	connectFlags
}

// Run pushes until the input ends.
func (c *publishCommand) Run(ctx context.Context, p *program) error {
	s, err := p.join(ctx, &c.connectFlags, c.Application)
	if err != nil {
		return err
	}
	defer s.close()
	added := make(chan struct{}, wire.MaxSubscriptions)
	stream, err := s.app.CreateStream(ctx, node.Method{Name: c.Stream}, node.StreamOptions{
		Snapshot:  c.Snapshot,
		OnRequest: branchOf,
		OnAdded: func(sub *node.Subscriber) {
			p.errorf("+ %s%s", at(sub.Identity()), onBranch(sub.Branch()))
			select {
			case added <- struct{}{}:
			default: // only the first ones are counted
			}
		},
		OnRemoved: func(sub *node.Subscriber) { p.errorf("- %s%s", at(sub.Identity()), onBranch(sub.Branch())) },
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	p.errorf("Publishing %s on %s.", c.Stream, s.node.ID())
	for range c.Subscribers {
		select {
		case <-added:
		case <-ctx.Done():
			return nil
		}
	}
	if err := c.push(ctx, p, stream); err != nil || !c.Keep {
		return err
	}
	<-ctx.Done()
	return nil
}

// push sends each line, until the input or ctx ends.
func (c *publishCommand) push(ctx context.Context, p *program, stream *node.Stream) error {
	lines, failed := make(chan []byte), make(chan error, 1)
	go readLines(ctx, p.stdin, lines, failed) // a blocked read ends with the process
	for n := 1; ; n++ {
		select {
		case line, ok := <-lines:
			if !ok {
				return <-failed
			}
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			if err := stream.Push(json.RawMessage(line), c.Branch...); err != nil {
				return fmt.Errorf("line %d of the input: %w", n, err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// readLines sends each line of r; failed gets why it ended, nil at the end of r.
func readLines(ctx context.Context, r io.Reader, lines chan<- []byte, failed chan<- error) {
	const longest = 8 << 20
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, longest)
	for scanner.Scan() {
		select {
		case lines <- bytes.Clone(scanner.Bytes()):
		case <-ctx.Done():
			return
		}
	}
	err := scanner.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = wire.Errorf(wire.Limit, "a line of the input is longer than %d bytes", longest)
	}
	failed <- err
	close(lines)
}

// branchOf is the branch that a subscriber asks for in its arguments.
func branchOf(_ context.Context, r *node.SubscriptionRequest) (string, error) {
	var args any
	if err := r.Args.Decode(&args); err != nil {
		return "", err
	}
	object, _ := args.(map[string]any)
	branch, _ := object["branch"].(string)
	return branch, nil
}

func onBranch(branch string) string {
	if branch == "" {
		return ""
	}
	return fmt.Sprintf(" on branch %q", branch)
}

// watchCommand prints a stream.
type watchCommand struct {
	Stream string `arg:"" help:"Name of the stream."`
	Args   string `arg:"" optional:"" name:"json" help:"Arguments as JSON, @FILE, or - for the standard input."`
	targetFlag
	Count   int           `short:"n" default:"0" placeholder:"N" help:"End after N messages."`
	Timeout time.Duration `default:"30s" help:"How long to wait for the publisher's answer (${default})."`
	Wait    time.Duration `default:"0s" help:"How long to wait for the stream to appear (${default})."`
	connectFlags
}

// Run prints until the subscription or ctx ends.
func (c *watchCommand) Run(ctx context.Context, p *program) error {
	args, err := p.argument(c.Args)
	if err != nil {
		return err
	}
	target, _, err := c.target()
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
	sub, err := s.app.Subscribe(ctx, c.Stream, args, target, node.Timeout(c.Timeout), node.Wait(c.Wait))
	if err != nil {
		return err
	}
	defer sub.Close()
	seen := 0
	var last error
	for e := range sub.Events(ctx) {
		if e.Kind == streamClosed {
			last = e.Err
		}
		if err := p.printStreamEvent(e); err != nil {
			return err
		}
		if e.Kind != streamData {
			continue
		}
		if seen++; seen == c.Count {
			return nil
		}
	}
	if ctx.Err() != nil || last == nil {
		return nil
	}
	return errReported
}

// streamLine is an event of a stream with --json.
type streamLine struct {
	Event    string          `json:"event"`
	Server   node.Identity   `json:"server"`
	Branch   string          `json:"branch"`
	Seq      uint64          `json:"seq,omitempty"`
	Snapshot bool            `json:"snapshot,omitempty"`
	Private  bool            `json:"private,omitempty"`
	Value    json.RawMessage `json:"value,omitempty"`
	From     uint64          `json:"from,omitempty"`
	To       uint64          `json:"to,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Error    *errorLine      `json:"error,omitempty"`
}

// printStreamEvent writes data to the standard output, and for people the rest
// to the standard error.
func (p *program) printStreamEvent(e node.StreamEvent) error {
	value, err := jsonOf(e.Value)
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(streamLine{
			Event: e.Kind.String(), Server: e.Server, Branch: e.Branch, Seq: e.Seq, Snapshot: e.Snapshot, Private: e.Private,
			Value: value, From: e.From, To: e.To, Reason: e.Reason, Error: errorOf(e.Err),
		})
	}
	switch e.Kind {
	case streamData:
		p.printf("%s", value)
	case streamSubscribed:
		p.errorf("Subscribed at %s%s.", at(e.Server), onBranch(e.Branch))
	case streamGap:
		p.errorf("gap: %s from %s%s will not come (%s)", missed(e.From, e.To), at(e.Server), onBranch(e.Branch), e.Reason)
	case streamClosed:
		why := e.Reason
		if e.Err != nil {
			why = oneLine(wire.AsError(e.Err).Error())
		}
		p.errorf("closed: %s ended it: %s", at(e.Server), why)
	}
	return nil
}

// missed names the messages from one number to another.
func missed(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("message %d", from)
	}
	return fmt.Sprintf("messages %d to %d (%d)", from, to, to-from+1)
}
