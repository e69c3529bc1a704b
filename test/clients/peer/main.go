// Command peer is an app that stays, which no command of weft that writes to a
// context does: for each line {"path":[…],"value":…} of its standard input it
// writes to the context that its argument names, and says the revision. It
// finds its NATS server as weft env describes one.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node"
)

func main() {
	if err := run(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string) error {
	n, err := node.Start(ctx, node.Config{
		Realm: os.Getenv("WEFT_REALM"), Node: "peer", Listen: "off",
		NATS: node.NATS{
			URL:     os.Getenv("NATS_URL"),
			Options: []nats.Option{nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD"))},
		},
	})
	if err != nil {
		return err
	}
	defer n.Stop()
	for s := range n.States(ctx) {
		if s.Online {
			break
		}
	}
	app, err := n.Join(ctx, node.Identity{Application: "peer"})
	if err != nil {
		return err
	}
	if _, err := app.Contexts().Get(ctx, name); err != nil {
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var w struct {
			Path  []string        `json:"path"`
			Value json.RawMessage `json:"value"`
		}
		if err := json.Unmarshal(lines.Bytes(), &w); err != nil {
			return err
		}
		ack, err := app.Contexts().SetPath(ctx, name, w.Path, w.Value)
		if err != nil {
			return err
		}
		fmt.Println("revision", ack.Revision)
	}
	return nil
}
