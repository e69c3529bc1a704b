package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/weft-fabric/weft/wire"
)

// benchCommand holds the benchmarks.
type benchCommand struct {
	Gateway benchGatewayCommand `cmd:"" help:"Put one load on Weft's gateway and on the reference gateway."`
}

// benchGatewayCommand measures two gateways with one load.
type benchGatewayCommand struct {
	Weft         string  `placeholder:"URL" help:"Gateway of a node that runs, ws://...; or off. A node is started unless given."`
	Reference    string  `placeholder:"URL" help:"Reference gateway that runs, ws://...; or off. It is started unless given."`
	ReferenceDir string  `placeholder:"DIR" help:"Where the reference gateway is, or is to be, installed; in the user's cache unless given."`
	Rounds       int     `default:"3" placeholder:"N" help:"How many rounds (${default})."`
	Seconds      float64 `default:"2" placeholder:"S" help:"How long each of the four loads of a round takes (${default})."`
}

// Help is the long help.
func (*benchGatewayCommand) Help() string {
	return `The same load goes in turns to the gateway of a node and to the reference gateway,
which is the npm package ` + referencePackage + ` ` + referenceVersion + `. Both run on this machine as children
of this command, unless a URL says where one runs. The reference gateway needs
Node.js and is installed with npm when it is used first.

In a round each gateway gets four loads, each for --seconds:
  invoke   one call at a time, from the call to its result
  invoke   64 calls in flight on one connection
  stream   one publisher, 20 subscribers: half of the time with at most 64
           messages on their way, half of the time with one message at a time,
           from its publish to its event at the 20th subscriber
  context  one update at a time, from the update to when it is seen: half of the
           time by one observer, half of the time by the last of 20

The clients that make the load share this machine with the gateway, and take
from it what they need: compare the two gateways, and do not read the numbers as
the most that one can do. A number is the median of all rounds, then come the
least and the most of them. A ratio is Weft's number divided by that of the
reference in the same round. Goals are the ratios that the project has set
itself. Before the rounds comes a short one that does not count.

Example: weft bench gateway --rounds 5`
}

// off leaves a gateway out.
const off = "off"

// Run measures and prints.
func (c *benchGatewayCommand) Run(ctx context.Context, p *program) error {
	if err := c.check(); err != nil {
		return err
	}
	b := &gatewayBench{
		rounds: c.Rounds, seconds: time.Duration(c.Seconds * float64(time.Second)),
		patience: 15 * time.Second, progress: p.errorf,
	}
	for _, side := range []struct {
		name, url string
		start     func(context.Context, *program) (*benchChild, error)
	}{
		{"weft", c.Weft, startWeft},
		{"reference", c.Reference, c.startReference},
	} {
		url := side.url
		if url == off {
			continue
		}
		if url == "" {
			child, err := side.start(ctx, p)
			if err != nil {
				return interrupted(ctx, err)
			}
			defer child.stop()
			url = child.url
		}
		b.sides = append(b.sides, benchSide{side.name, url})
	}
	results, err := b.run(ctx)
	if err != nil {
		return interrupted(ctx, err)
	}
	if p.json {
		return printBenchJSON(p, results)
	}
	p.printf("%s, %s of 4 x %gs; the clients share %s with the gateway.",
		version(), count(c.Rounds, "round"), c.Seconds, count(runtime.NumCPU(), "CPU"))
	printBenchTable(p, results)
	return nil
}

// check refuses what cannot be meant.
func (c *benchGatewayCommand) check() error {
	switch {
	case c.Weft == off && c.Reference == off:
		return usageError{errors.New("--weft off and --reference off leave nothing to measure")}
	case c.Rounds < 1:
		return usageError{fmt.Errorf("--rounds %d: want 1 or more", c.Rounds)}
	case !(c.Seconds > 0 && c.Seconds <= 3600): // NaN is neither
		return usageError{fmt.Errorf("--seconds %g: want more than 0, and 3600 at most", c.Seconds)}
	}
	for flag, url := range map[string]string{"--weft": c.Weft, "--reference": c.Reference} {
		if url != "" && url != off && !strings.HasPrefix(url, "ws://") && !strings.HasPrefix(url, "wss://") {
			return usageError{fmt.Errorf("%s %s: want a URL that begins with ws:// or wss://, or %s", flag, url, off)}
		}
	}
	return nil
}

// interrupted is err, unless the person at the keyboard is the cause.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return wire.Errorf(wire.Canceled, "interrupted")
	}
	return err
}
