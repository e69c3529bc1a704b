package embedded_test

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node/embedded"
)

// A node starts its server, makes its buckets in provision and then connects
// in process like any other client.
func ExampleStart() {
	ctx := context.Background()
	provision := func(context.Context, *nats.Conn) error {
		fmt.Println("provisioning, nobody else is here")
		return nil
	}
	s, err := embedded.Start(ctx, embedded.Config{Holder: "hub", NoSync: true}, provision)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Shutdown()
	nc, err := nats.Connect("", s.ConnectOptions()...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	fmt.Println(nc.Status())
	// Output:
	// provisioning, nobody else is here
	// CONNECTED
}
