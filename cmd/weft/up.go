package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/weft-fabric/weft/gateway"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/subjects"
)

// upCommand runs a node.
type upCommand struct {
	connectFlags
	Node     string   `placeholder:"ID" help:"Id of the node; <host>-<user> unless given."`
	Machine  string   `placeholder:"NAME" help:"Name of the machine; try two on one host."`
	Listen   string   `name:"nats-listen" default:"127.0.0.1:4222" placeholder:"HOST:PORT" help:"Where the embedded NATS server listens (${default}), or off."`
	Store    string   `placeholder:"DIR" help:"State of the node: the journal, and the streams of an embedded NATS server; of its own for each node."`
	Policies []string `name:"context-policy" sep:"none" placeholder:"PATTERN=POLICY" help:"What becomes of writes to contexts of these names while the fabric is away: remote-wins (unless given), local-wins or reject-offline. '*' stands for any text; the first that matches counts."`
	gatewayFlags
}

// Help is the long help.
func (*upCommand) Help() string {
	return `Without --nats the node runs a NATS server inside, which further nodes and
other NATS clients of this user on this machine may join.`
}

// Run is over when ctx ends and the node has stopped.
func (c *upCommand) Run(ctx context.Context, p *program) error {
	cfg, err := c.config(p)
	if err != nil {
		return err
	}
	n, err := node.Start(ctx, cfg)
	if err != nil {
		return explain(err)
	}
	defer n.Stop()
	gw, err := c.startGateway(p, n)
	if err != nil {
		return err
	}
	if gw != nil {
		defer gw.Stop()
	}
	if err := c.announce(p, n, gw); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { logStates(ctx, p.log, n) })
	wg.Go(func() { logNodes(ctx, p.log, n) })
	<-ctx.Done()
	p.log.Info("stopping")
	return nil
}

func (c *upCommand) config(p *program) (node.Config, error) {
	if c.Node == "" {
		c.Node = string(subjects.NodeFor(hostName(), userName()))
	}
	if _, err := subjects.ParseNode(c.Node); err != nil {
		return node.Config{}, usageError{fmt.Errorf("--node: %w", err)}
	}
	if c.Realm != "" {
		if _, err := subjects.ParseRealm(c.Realm); err != nil {
			return node.Config{}, usageError{fmt.Errorf("--realm: %w", err)}
		}
	}
	cfg := node.Config{Realm: c.Realm, Node: c.Node, Machine: c.Machine, Version: version(), Logger: p.log}
	for _, text := range c.Policies {
		policy, err := node.ParseContextPolicy(text)
		if err != nil {
			return cfg, usageError{fmt.Errorf("--context-policy: %w", err)}
		}
		cfg.Policies = append(cfg.Policies, policy)
	}
	at, ok, err := c.named()
	if err != nil {
		return cfg, err
	}
	if ok {
		cfg.NATS = at.nats
	} else {
		cfg.Listen = c.Listen
	}
	if cfg.Store = c.Store; cfg.Store == "" {
		cfg.Store, err = defaultStore(c.Node)
	}
	return cfg, err
}

func defaultStore(id string) (string, error) {
	dir := embedded.DataDir()
	if dir == "" {
		return "", errors.New("no home directory for the state of the node: name a directory with --store")
	}
	return filepath.Join(dir, id), nil
}

// announce says who runs where, and what to try.
func (c *upCommand) announce(p *program, n *node.Node, gw *gateway.Gateway) error {
	realm, machine := string(n.Realm().Name()), c.Machine
	for _, info := range n.Nodes() {
		if info.Local {
			machine = info.Machine
		}
	}
	where, url := c.where(n)
	if p.json {
		line := map[string]any{
			"node": n.ID(), "realm": realm, "machine": machine, "nats": url,
			"embedded": n.Embedded() != nil, "online": n.State().Online, "version": version(),
		}
		c.describeJSON(line, gw)
		return p.printJSON(line)
	}
	p.printf("weft %s", version())
	p.printf("  node     %s", n.ID())
	p.printf("  realm    %s", realm)
	p.printf("  machine  %s", machine)
	p.printf("  nats     %s", where)
	c.describe(p, gw)
	if srv := n.Embedded(); srv != nil && srv.URL() != "" {
		p.printf("  try      weft nodes")
		p.printf("           weft up --node second --machine second --nats %s --gateway-listen 127.0.0.1:8386", srv.URL())
		p.printf("           eval \"$(weft env)\"    for nats and other NATS clients")
	}
	p.printf("Ready. Ctrl-C stops the node.")
	return nil
}

// where says where NATS is, for people and as a URL.
func (c *upCommand) where(n *node.Node) (text, url string) {
	srv := n.Embedded()
	switch {
	case srv == nil:
		url = c.NATS
		if url == "" {
			at, _, err := c.named()
			if err == nil {
				url = at.nats.URL
			}
		}
		url = withoutPassword(url)
		text = url
		if s := n.State(); !s.Online {
			text += " (not reached yet: " + s.Reason + ")"
		}
	case srv.URL() == "":
		text = "in this process only (--nats-listen off)"
	default:
		url = srv.URL()
		text = url + " (runs in this process, for this user on this machine)"
	}
	return text, url
}

// logStates logs that the fabric is lost and comes back; why it stays away changes with
// every attempt to reach it and would flood the log.
func logStates(ctx context.Context, log *slog.Logger, n *node.Node) {
	online := true
	for s := range n.States(ctx) {
		why := slog.String("reason", s.Reason)
		switch {
		case !s.Online && online:
			log.Warn("fabric: offline", why)
		case !s.Online:
			log.Debug("fabric: still offline", why)
		case !online:
			log.Info("fabric: online")
		}
		online = s.Online
	}
}

// logNodes logs who comes and goes; command-line tools only with --verbose.
func logNodes(ctx context.Context, log *slog.Logger, n *node.Node) {
	for e := range n.Watch(ctx) {
		if e.Node == nil || e.Node.Local {
			continue
		}
		level := slog.LevelInfo
		if e.Node.Hidden {
			level = slog.LevelDebug
		}
		id := slog.String("node", string(e.Node.ID))
		switch e.Kind {
		case node.NodeAdded:
			log.Log(ctx, level, "node joined", id, slog.String("machine", e.Node.Machine), slog.String("host", e.Node.Host))
		case node.NodeRemoved:
			log.Log(ctx, level, "node gone", id, slog.String("reason", e.Reason))
		default:
		}
	}
}

// explain adds what to do to an error whose text does not say it.
func explain(err error) error {
	if errors.Is(err, embedded.ErrStoreInUse) {
		return fmt.Errorf("%w; run a second node with another --node, and --nats to join the first", err)
	}
	return err
}
