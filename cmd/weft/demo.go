package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/embedded"
)

// demoCommand shows two machines that share a fabric.
type demoCommand struct {
	For time.Duration `name:"for" default:"0s" placeholder:"20s" help:"How long; until Ctrl-C unless given."`
}

// Help is the long help.
func (*demoCommand) Help() string {
	return `Two nodes run in this process, as the machines alice-pc and bob-pc, on one NATS
server that nobody else can reach. Apps on both call methods, stream prices,
publish fills, and share the desk's limits in a context. The client that is
picked on alice-pc is what the blotter on bob-pc shows: both are on the channel
Red. After a while bob-pc leaves and comes back.`
}

// The machines of the demo; each is a node of the same name.
const (
	alicePC = "alice-pc"
	bobPC   = "bob-pc"
)

// Run plays the demo.
func (c *demoCommand) Run(ctx context.Context, p *program) error {
	if c.For < 0 {
		return positive("--for", c.For)
	}
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	d := &demo{log: p.quietLogger(), board: newBoard()}
	view, end := d.view(p)
	var viewing sync.WaitGroup
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	viewing.Go(func() { view.show(watching, d.board) })
	err := d.play(ctx, newScript(c.For))
	stop()
	viewing.Wait()
	end()
	if err != nil {
		return err
	}
	return d.board.summary(p)
}

// demo is the two machines and what happens on them.
type demo struct {
	log    *slog.Logger
	board  *board
	server *embedded.Server // alice-pc hosts it
}

// script says when things happen. What is due after the end does not.
type script struct {
	late, leave, back, again time.Duration
}

// newScript fits what there is to see into the time there is.
func newScript(total time.Duration) script {
	s := script{late: 3 * time.Second, leave: 8 * time.Second, back: 12 * time.Second, again: 40 * time.Second}
	if total > 0 && total < 20*time.Second {
		s.late, s.leave, s.back = total*2/10, total*4/10, total*6/10
	}
	return s
}

// play starts alice-pc and bob-pc and lets the script run until ctx ends.
func (d *demo) play(ctx context.Context, s script) error {
	alice, err := d.start(ctx, alicePC)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	defer alice.stop()
	d.server = alice.node.Embedded()
	alice.run(func(ctx context.Context) { d.board.follow(ctx, alice.node) })

	bob, err := d.start(ctx, bobPC)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	defer func() { bob.stop() }()
	d.board.tell("machine", "%s and %s share one fabric; each runs a node and some apps", alicePC, bobPC)
	if err := alice.open(ctx, clients); err != nil {
		return ignoreEnd(ctx, err)
	}

	return ignoreEnd(ctx, d.follow(ctx, s, alice, &bob))
}

// follow is the script: a late joiner, and bob-pc leaving and coming back.
func (d *demo) follow(ctx context.Context, s script, alice *machine, bob **machine) error {
	if !pause(ctx, s.late) {
		return nil
	}
	if err := alice.open(ctx, chart); err != nil {
		return err
	}
	for wait := s.leave - s.late; pause(ctx, wait); wait = s.again {
		d.board.leaving(bobPC)
		(*bob).stop()
		if !pause(ctx, s.back-s.leave) {
			return nil
		}
		d.board.returning(bobPC)
		back, err := d.start(ctx, bobPC)
		if err != nil {
			return err
		}
		*bob = back
	}
	return nil
}

// ignoreEnd drops errors that only say that the demo is over.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// pause waits, and is false if ctx ends meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// machine is a node with the apps that run on it.
type machine struct {
	board  *board
	node   *node.Node
	ctx    context.Context // ends when the machine stops
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// start runs a node and the apps of its machine.
func (d *demo) start(ctx context.Context, name string) (*machine, error) {
	cfg := node.Config{
		Realm: "demo", Node: name, Machine: name, Server: d.server, Listen: "off", NoSync: true,
		Version: version(), Logger: d.log.With(slog.String("machine", name)),
	}
	n, err := node.Start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	m := &machine{board: d.board, node: n}
	m.ctx, m.cancel = context.WithCancel(ctx)
	for _, part := range parts[name] {
		if err := m.open(ctx, part); err != nil {
			m.stop()
			return nil, err
		}
	}
	return m, nil
}

// open starts an app.
func (m *machine) open(ctx context.Context, part part) error {
	app, err := m.node.Join(ctx, node.Identity{Application: part.name})
	if err != nil {
		return fmt.Errorf("%s on %s: %w", part.name, m.node.ID(), err)
	}
	work, err := part.start(m.ctx, app, m.board)
	if err != nil {
		return fmt.Errorf("%s on %s: %w", part.name, m.node.ID(), err)
	}
	m.run(work)
	return nil
}

// run does something until the machine stops.
func (m *machine) run(work func(ctx context.Context)) {
	if work != nil {
		m.wg.Go(func() { work(m.ctx) })
	}
}

// stop ends the apps and then the node. It may be called more than once.
func (m *machine) stop() {
	m.cancel()
	m.wg.Wait()
	m.node.Stop()
}
