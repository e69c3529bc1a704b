package topics_test

import (
	"context"
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/node/topics"
	"github.com/weft-fabric/weft/wire"
)

func Example() {
	ctx := context.Background()
	srv, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true})
	if err != nil {
		panic(err)
	}
	srv.Start()
	defer srv.WaitForShutdown()
	defer srv.Shutdown()
	data, err := link.Open(ctx, link.Config{Options: []nats.Option{nats.InProcessServer(srv)}, Node: "pc1-ann", NoEcho: true})
	if err != nil {
		panic(err)
	}
	defer data.Close()

	t := topics.New(topics.Config{Realm: "ann", Self: "pc1-ann", Data: data})
	defer t.Close()
	blotter := wire.Identity{Application: "blotter", Node: "pc1-ann", App: "k7f-1"}
	chart := wire.Identity{Application: "chart", Node: "pc1-ann", App: "k7f-2"}
	sub, err := t.Subscribe(ctx, chart, "orders.*")
	if err != nil {
		panic(err)
	}
	order, err := wire.Encode(map[string]int{"size": 100})
	if err != nil {
		panic(err)
	}
	if err := t.Publish(ctx, blotter, "orders.new", order); err != nil {
		panic(err)
	}
	for ev := range sub.Events(ctx) {
		fmt.Println(ev.Publisher.Application, ev.Topic, ev.Value)
		break
	}
	// Output: blotter orders.new {"size":100}
}
