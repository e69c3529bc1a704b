package main

import (
	"context"
	"net"
	"path/filepath"
	"slices"

	"github.com/weft-fabric/weft/gateway"
	"github.com/weft-fabric/weft/gateway/edge"
	"github.com/weft-fabric/weft/node"
)

// gatewayFlags say where the gateway listens and who may connect.
type gatewayFlags struct {
	Gateway struct {
		Listen         []string `from:"WEFT_GATEWAY_LISTEN" default:"127.0.0.1:8385,[::1]:8385" placeholder:"HOST:PORT" help:"Where apps written for Glue42 and io.Connect connect (${default}), or off."`
		AllowedHosts   []string `placeholder:"NAME" help:"Further names of this machine that they may use."`
		AllowedOrigins []string `placeholder:"ORIGIN" help:"Web pages that may connect: scheme://host[:port]."`
		Auth           string   `enum:"auto,os-user,token" default:"auto" help:"What they must show: os-user (native apps of this user), or token; auto is token if there is an allowed origin."`
		ChannelsMode   string   `enum:"single,multi" default:"single" help:"Whether an app is on one channel at a time, or on several: single, multi."`
		AnyUser        bool     `help:"Let other users of this machine connect."`
	} `embed:"" prefix:"gateway-" group:"gateway"`
}

const gatewayGroup = "gateway"

// startGateway starts the gateway, unless it is off.
func (c *upCommand) startGateway(p *program, n *node.Node) (*gateway.Gateway, error) {
	g := c.Gateway
	if len(g.Listen) == 1 && g.Listen[0] == "off" {
		return nil, nil
	}
	store, err := c.gatewayStore()
	if err != nil {
		return nil, err
	}
	cfg := gateway.Config{
		Node: n, Store: store, ChannelsMode: g.ChannelsMode, Logger: p.log,
		Edge: edge.Config{
			Listen: reachable(g.Listen), Hosts: g.AllowedHosts, Origins: g.AllowedOrigins, Auth: edge.Auth(g.Auth), TokenFile: filepath.Join(store, "token"), AnyUser: g.AnyUser, Logger: p.log,
		},
	}
	if cfg.Edge.Auth == "auto" {
		cfg.Edge.Auth = edge.Auto
	}
	return gateway.Start(cfg)
}

// reachable leaves out the IPv6 loopback address on a machine that has none.
func reachable(addresses []string) []string {
	return slices.DeleteFunc(slices.Clone(addresses), func(a string) bool {
		host, _, err := net.SplitHostPort(a)
		if err != nil || host != "::1" || len(addresses) == 1 {
			return false
		}
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp6", "[::1]:0")
		if err != nil {
			return true
		}
		_ = l.Close() // it was only to see
		return false
	})
}

// gatewayStore is the directory of the gateway's state.
func (c *upCommand) gatewayStore() (string, error) {
	store := c.Store
	if store == "" {
		var err error
		if store, err = defaultStore(c.Node); err != nil {
			return "", err
		}
	}
	return filepath.Join(store, "gateway"), nil
}

// describe says how to point an app at the gateway.
func (c *upCommand) describe(p *program, gw *gateway.Gateway) {
	if gw == nil {
		return
	}
	for i, url := range gw.URLs() {
		if i == 0 {
			p.printf("  gateway  %s (Glue42 and io.Connect apps connect here%s)", url, defaultNote(url))
		} else {
			p.printf("           %s", url)
		}
	}
	if gw.Auth() == edge.Token {
		store, _ := c.gatewayStore() // it worked before
		p.printf("           clients show the token in %s", filepath.Join(store, "token"))
	}
}

// defaultNote says that an app needs no configuration.
func defaultNote(url string) string {
	if url == "ws://127.0.0.1:8385" {
		return " by default"
	}
	return ": set gateway.ws to this"
}

func (c *upCommand) describeJSON(line map[string]any, gw *gateway.Gateway) {
	if gw == nil {
		return
	}
	store, _ := c.gatewayStore() // it worked before
	line["gateway"], line["gatewayAuth"], line["tokenFile"] = gw.URLs()[0], gw.Auth(), filepath.Join(store, "token")
}
