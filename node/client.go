package node

import (
	"time"

	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/node/interop"
	"github.com/weft-fabric/weft/node/topics"
	"github.com/weft-fabric/weft/subjects"
)

// Client is an app that is connected through the gateway. What it has beyond an
// [App] does not wait: a session of the gateway must not. Create it with
// [Realm.JoinClient].
type Client struct{ *App }

// The parts of calls that do not wait; see package interop.
type (
	// Deferred serves methods without holding a goroutine for each call.
	Deferred = interop.Deferred
	// Pending is a call that a Deferred has not answered yet.
	Pending = interop.Pending
	// ContextWrite is a write to a context that does not wait; see package contexts.
	ContextWrite = contexts.Write
	// ContextCreation is a context that is made without waiting.
	ContextCreation = contexts.Creation
	// ContextTerms are what a context is created with beside its object.
	ContextTerms = contexts.Terms
	// PublishOption says more about one message on a topic.
	PublishOption = topics.PublishOption
	// SubscribeOption narrows a subscription to topics.
	SubscribeOption = topics.SubscribeOption
)

// The lifetimes of contexts.
const (
	ContextRetained   = contexts.Retained
	ContextRefCounted = contexts.RefCounted
	ContextOwnership  = contexts.Ownership
)

// ContextPeerLeft is the reason of a context that ended with whom it belonged to.
const ContextPeerLeft = contexts.PeerLeft

// TopicLost is the kind of the event that says that messages are missing.
const TopicLost = topics.Lost

// RoutingKey gives a message on a topic a routing key.
func RoutingKey(key string) PublishOption { return topics.RoutingKey(key) }

// RoutingKeyIs leaves out messages with another routing key.
func RoutingKeyIs(key string) SubscribeOption { return topics.RoutingKeyIs(key) }

// TopicTarget sends a message only to subscribers that the filter selects.
func TopicTarget(f Filter) PublishOption { return topics.Target(f) }

// The kinds of stream events, and why a stream has ended.
const (
	StreamSubscribed = interop.Subscribed
	StreamData       = interop.Data
	StreamGap        = interop.Gap
	StreamClosed     = interop.Closed

	ReasonStreamClosed = interop.ReasonStreamClosed
	ReasonAppLeft      = interop.ReasonAppLeft
)

// Exactly is one app, as a target.
func Exactly(app subjects.App) Target { return interop.Exactly(app) }

// Detail gives a stream's app a JSON object beside the arguments of a
// subscription.
func Detail(object string) Option { return interop.Detail(object) }

// Direct offers the events of a subscription to f as they come; see
// [interop.Direct].
func Direct(f func(StreamEvent) bool) Option { return interop.Direct(f) }

// SetDomains says which domains of the local protocol the client has joined, each
// with its restrictions.
func (c *Client) SetDomains(domains map[string]string) error {
	return c.realm.directory.SetDomains(c.id, domains)
}

// SetChannels says that the client is on several channels at once, which
// [Client.Channels] has no way to say.
func (c *Client) SetChannels(names []string) error {
	return c.realm.directory.SetChannels(c.id, names)
}

// Start calls a method of one app; done gets the outcome. See
// [interop.Interop.Start].
func (c *Client) Start(target subjects.App, method string, args Payload, detail string, timeout time.Duration, done func(Result)) (cancel func(error)) {
	return c.realm.interop.Start(c.id, target, method, args, detail, timeout, done)
}

// Offer is Register for a deferred server. Other nodes see the method when the
// directory has settled.
func (c *Client) Offer(m Method, d Deferred) error {
	return c.realm.interop.RegisterDeferred(c.id, m, d)
}

// Together tells the directory once of all that f offers and withdraws.
func (c *Client) Together(f func()) error { return c.realm.interop.Together(c.id, f) }

// OfferStream is CreateStream without waiting.
func (c *Client) OfferStream(m Method, o StreamOptions) (*Stream, error) {
	return c.realm.interop.CreateStream(c.id, m, o)
}

// Withdraw is Unregister without waiting.
func (c *Client) Withdraw(name string) error { return c.realm.interop.Unregister(c.id, name) }
