package main

import (
	"context"
	"fmt"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
)

// adminCommand holds what needs an administrator's credentials.
type adminCommand struct {
	Provision provisionCommand `cmd:"" help:"Make the buckets of a realm and its history."`
}

// provisionCommand makes the buckets of a realm.
type provisionCommand struct {
	Name     string `arg:"" optional:"" name:"realm-name" help:"Realm; that of --realm, or yours, unless given."`
	Replicas int    `default:"3" help:"Servers that keep each bucket (${default})."`
	connectFlags
}

// Help is the long help.
func (*provisionCommand) Help() string {
	return `Needs credentials that may create streams. It may be repeated: what is there is
brought up to date and keeps its data. How long the history of contexts is kept (30
days), and how much of it, is yours to change: nats stream edit weft_<realm>_history
--max-age 90d --max-bytes 50GB.`
}

// Run makes the buckets.
func (c *provisionCommand) Run(ctx context.Context, p *program) error {
	if c.Replicas < 1 || c.Replicas > 5 {
		return usageError{fmt.Errorf("--replicas %d: want 1 to 5", c.Replicas)}
	}
	ctx, cancel := context.WithTimeout(ctx, 6*onlineWithin)
	defer cancel()
	at, err := c.find(ctx)
	if err != nil {
		return err
	}
	name := c.Name
	if name == "" {
		name = c.Realm
	}
	if name == "" {
		name = string(subjects.RealmFor(userName()))
	}
	realm, err := subjects.ParseRealm(name)
	if err != nil {
		return usageError{err}
	}
	if err := node.Provision(ctx, at.nats, name, c.Replicas); err != nil {
		return err
	}
	if p.json {
		return p.printJSON(map[string]any{
			"realm": name, "replicas": c.Replicas, "buckets": []subjects.Bucket{realm.ContextBucket(), realm.DirectoryBucket()},
			"history": realm.HistoryStream(),
		})
	}
	p.printf("Realm %s is ready: %s, %s and %s, %s.", name, realm.ContextBucket(), realm.DirectoryBucket(), realm.HistoryStream(), count(c.Replicas, "replica"))
	return nil
}
