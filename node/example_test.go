package node_test

import (
	"context"
	"fmt"
	"time"

	"github.com/weft-fabric/weft/node"
)

// A node with an embedded server, an app that offers a method, and another
// that calls it.
func ExampleStart() {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Config{Realm: "desk", Node: "alice-pc"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer n.Stop()
	pricer, err := n.Join(ctx, node.Identity{Application: "pricer"})
	if err != nil {
		fmt.Println(err)
		return
	}
	type pair struct{ A, B int }
	err = node.Handle(ctx, pricer, node.Method{Name: "Add"}, func(_ context.Context, in pair, c *node.Call) (int, error) {
		fmt.Println("called by", c.Caller.Application, "on", c.Caller.Node)
		return in.A + in.B, nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	blotter, err := n.Join(ctx, node.Identity{Application: "blotter"})
	if err != nil {
		fmt.Println(err)
		return
	}
	sum, err := node.Invoke[int](ctx, blotter, "Add", pair{1, 2}, node.Best, node.Timeout(2*time.Second))
	fmt.Println(sum, err)
	_, err = blotter.Invoke(ctx, "Subtract", pair{1, 2})
	fmt.Println(err)
	// Output:
	// called by blotter on alice-pc
	// 3 <nil>
	// no-server: no app offers method "Subtract" to this target
}

// A stream that keeps the last message of each branch for late joiners.
func ExampleApp_Subscribe() {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Config{Realm: "desk", Node: "alice-pc"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer n.Stop()
	pricer, err := n.Join(ctx, node.Identity{Application: "pricer"})
	if err != nil {
		fmt.Println(err)
		return
	}
	prices, err := pricer.CreateStream(ctx, node.Method{Name: "Prices"}, node.StreamOptions{
		Snapshot: 1,
		OnRequest: func(_ context.Context, r *node.SubscriptionRequest) (string, error) {
			var args struct{ Symbol string }
			err := r.Args.Decode(&args)
			return args.Symbol, err // one branch for each symbol
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = prices.Push(72.375, "VOD.L") // nobody listens yet
	sub, err := pricer.Subscribe(ctx, "Prices", map[string]string{"Symbol": "VOD.L"})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = prices.Push(72.5, "VOD.L")
	prices.Close()
	for e := range sub.Events(ctx) {
		fmt.Println(e.Kind, e.Branch, e.Value, "snapshot:", e.Snapshot)
	}
	// Output:
	// subscribed VOD.L  snapshot: false
	// data VOD.L 72.375 snapshot: true
	// data VOD.L 72.5 snapshot: false
	// closed VOD.L  snapshot: false
}
