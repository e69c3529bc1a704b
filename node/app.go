package node

import (
	"context"

	"github.com/weft-fabric/weft/node/topics"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// App is one connected application. Create it with [Node.Join]; whoever made
// it calls [App.Leave].
type App struct {
	realm    *Realm
	id       subjects.App
	identity Identity
}

// ID is the app's id, never used again.
func (a *App) ID() subjects.App { return a.id }

// Identity is the app's identity with what the node stamped on it.
func (a *App) Identity() Identity { return a.identity }

// Leave disconnects the app: what it registered, subscribed or waits for ends.
func (a *App) Leave() {
	a.realm.interop.Leave(a.id)
	a.realm.topics.Leave(a.id)
	a.realm.channels.Leave(a.id) // after interop, which takes the app out of the directory
	a.realm.contexts.Leave(a.id)
}

// Contexts is the shared contexts of the realm; see package contexts.
func (a *App) Contexts() *Contexts { return a.realm.contexts.For(a.id) }

// Channels is the channels of the realm; see package channels.
func (a *App) Channels() *Channels { return a.realm.channels.For(a.id) }

// Register offers a method. It returns when other nodes can see it, or at once
// while the fabric is offline.
func (a *App) Register(ctx context.Context, m Method, h Handler) error {
	if err := a.realm.interop.Register(a.id, m, h); err != nil {
		return err
	}
	return a.Settle(ctx)
}

// Settle returns when other nodes can see what apps of this node did so far, or
// at once while the fabric is offline.
func (a *App) Settle(ctx context.Context) error { return a.realm.directory.Settle(ctx) }

// Unregister withdraws a method; calls that it is serving go on.
func (a *App) Unregister(ctx context.Context, name string) error {
	if err := a.realm.interop.Unregister(a.id, name); err != nil {
		return err
	}
	return a.Settle(ctx)
}

// Invoke calls a method. args is any value that encodes to msgpack, a Payload,
// json.RawMessage, or nil. The error is not nil when nothing was called or
// every server failed; the results then say which.
func (a *App) Invoke(ctx context.Context, method string, args any, opts ...Option) (Results, error) {
	return a.realm.interop.Invoke(ctx, a.id, method, args, opts...)
}

// CreateStream offers a stream. It returns when other nodes can see it, or at
// once while the fabric is offline.
func (a *App) CreateStream(ctx context.Context, m Method, o StreamOptions) (*Stream, error) {
	s, err := a.realm.interop.CreateStream(a.id, m, o)
	if err != nil {
		return nil, err
	}
	return s, a.Settle(ctx)
}

// Subscribe subscribes to a stream. It returns when a server has accepted and
// everything that it pushes from then on will arrive.
func (a *App) Subscribe(ctx context.Context, stream string, args any, opts ...Option) (*Subscription, error) {
	return a.realm.interop.Subscribe(ctx, a.id, stream, args, opts...)
}

// Publish publishes on a topic: fire and forget. While the fabric is offline
// the apps of this node get the message and the error is offline.
func (a *App) Publish(ctx context.Context, topic string, value any, opts ...topics.PublishOption) error {
	p, ok := value.(Payload)
	if !ok {
		var err error
		if p, err = wire.Encode(value); err != nil {
			return err
		}
	}
	return a.realm.topics.Publish(ctx, a.identity, topic, p, opts...)
}

// SubscribeTopic subscribes to the topics that a pattern matches: '*' stands
// for one word, a final '>' for the rest.
func (a *App) SubscribeTopic(ctx context.Context, pattern string, opts ...topics.SubscribeOption) (*TopicSubscription, error) {
	return a.realm.topics.Subscribe(ctx, a.identity, pattern, opts...)
}

// Handle registers a method whose arguments and result are Go types.
// Arguments that do not decode are the caller's bad-payload.
func Handle[In, Out any](ctx context.Context, a *App, m Method, f func(context.Context, In, *Call) (Out, error)) error {
	return a.Register(ctx, m, func(ctx context.Context, c *Call) (any, error) {
		var in In
		if err := c.Args.Decode(&in); err != nil {
			return nil, err
		}
		return f(ctx, in, c)
	})
}

// Invoke calls a method and decodes the first successful result.
func Invoke[Out any](ctx context.Context, a *App, method string, args any, opts ...Option) (Out, error) {
	var out Out
	results, err := a.Invoke(ctx, method, args, opts...)
	if err != nil {
		return out, err
	}
	return out, results.Value().Decode(&out)
}
