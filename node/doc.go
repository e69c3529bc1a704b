// Package node is a Weft node and its Go API: the process on a desktop that
// gives apps methods, streams, topics, contexts and channels, shared with every
// other machine of the fabric.
//
//	n, err := node.Start(ctx, node.Config{})          // embedded NATS, nothing to install
//	app, err := n.Join(ctx, node.Identity{Application: "blotter"})
//	err = node.Handle(ctx, app, node.Method{Name: "Add"}, func(ctx context.Context, in Pair, _ *node.Call) (Sum, error) {
//		return Sum{in.A + in.B}, nil
//	})
//	sum, err := node.Invoke[Sum](ctx, app, "Add", Pair{1, 2})
//
// # Parts
//
// A [Node] holds one [Realm], which is a connection pair, a directory, the
// methods and streams (package interop), the topics (package topics), the
// contexts (package contexts) and the channels (package channels); a second realm
// is a second instance of all of that. An [App] is one connected application;
// what it registered, subscribed to or watches, and its stay on a channel, ends
// when it leaves.
//
// # Start and stop
//
// [Start] opens the embedded server if no other NATS is configured, then the
// links, then reads the directory, claims the node's id, listens for calls, and
// only then writes its document, so that whoever finds the node can reach it.
// It joins the group that answers calls by name when it knows everyone's
// methods. [Node.Stop] is the mirror: leave that group, end the apps and wait
// for their handlers, purge the document, close the links, stop the server.
//
// # Offline
//
// A server that cannot be reached is not an error: the node is then in state
// offline, says why and since when ([Node.State], [Node.States]), its apps go
// on with each other, calls to other machines fail at once, and it comes back
// by itself. So it is when the store of an embedded server cannot be used because the
// disk is full, read-only or broken. Configuration that can never work is an error of Start: refused
// credentials, a server that is too old, JetStream or a bucket missing, a node
// id that is taken.
//
// # Alarms and status
//
// What is damaged and stays so is an alarm ([Node.Alarms], [Node.WatchAlarms], package
// alarm): a replica of a stream, keys or writes that a stream has lost, a store that
// was set aside or cannot be used. A node with a Store writes its [Status] there
// whenever it has changed, for `weft status` and [ReadStatus].
//
// All methods are safe for concurrent use. Errors are *wire.Error with a code;
// compare with errors.Is and wire's sentinels. Limits are in package wire.
//
// To test with it: start an embedded server without a listener, give it to
// several nodes as [Config.Server], all inside one testing/synctest bubble.
package node
