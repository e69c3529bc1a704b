// Package topics is publish and subscribe between apps: an app publishes a
// value on a topic, every app that subscribed to a pattern of it gets it.
//
// # What is promised
//
// Topics are fire and forget. A message goes to who listens now; nothing is
// stored, repeated or acknowledged, and [Topics.Publish] returning nil says
// only that the apps of this node have it in their queues and that it was
// handed to NATS for the others. Who needs an answer calls a method, who needs
// a last value uses a context, who needs numbered delivery a stream.
//
// Local first: apps of one node reach each other in process, also when NATS is
// away. Publish then still delivers on this node and returns offline, so that
// the caller knows that other machines did not get the message, now or later.
// The same holds for denied: NATS permissions are about what leaves the node.
// After any other error nobody got it.
//
// One publisher's messages arrive in order, save for those that are lost. What
// was lost shows: a subscription gets a [Lost] event
//
//   - with a count and the reason [SlowConsumer] in the place of messages for
//     which its queue (wire.QueueMessages, wire.QueueBytes) had no room;
//   - with a count and [SlowConsumer] when the NATS client library dropped
//     messages of its pattern before anyone looked at them, so at most that
//     many were for it;
//   - with count 0 and [Disconnected] once per outage, when the connection to
//     NATS is back: nobody knows what other machines published meanwhile.
//
// Losses of the last two kinds that happen before the reader got to the notice
// of an earlier one share that notice.
//
// # Who gets a message
//
// An app subscription gets a message exactly once, whatever other patterns its
// app or node has, if all of these hold:
//
//   - The pattern matches the topic. In a pattern the whole token "*" stands
//     for any one token and ">" as the last one for one or more, as in NATS;
//     anything else, a* too, is a literal. A topic to publish has no wildcards:
//     there * and > are characters like any other.
//   - The routing keys are equal, or either side has none.
//   - The message has no target, or every property that its target names is
//     equal, without regard to case, to the subscriber's.
//   - The subscriber did not ask for certain publishers, or this is one.
//
// The publisher itself is no exception: it gets what it subscribed to.
//
// # The wire
//
// A message is published, without a reply subject, on
//
//	weft.<realm>.topic.<node>.<topic tokens>
//
// as package subjects describes. A node subscribes to weft.<realm>.topic.*.
// and the pattern, once per pattern, on its data connection, which has NoEcho.
// Headers, each at most once, in one line of UTF-8 without control characters:
//
//	Weft-App          the publishing app's id; plain NATS clients have none
//	Weft-Name         the escaped topic, if a token of it is a hash
//	Weft-Routing-Key  the routing key, 1 to 255 bytes without white space at
//	                  either end; absent for none
//	Weft-Target       the target as a JSON object of strings, at most 4 KiB;
//	                  absent for none
//	Content-Type      absent, as nodes send it, for msgpack, or application/json
//
// The body is one value, or empty for no value. Between apps of one node the
// value passes in the form in which it was published.
//
// The publisher that a subscriber sees is looked up in the directory by
// Weft-App and believed only if that app is on the node of the subject's
// sender token. In all other cases, plain NATS clients among them, application
// and node are the sender token and the rest is empty.
//
// A receiver refuses, counts ([Stats].Refused) and logs at debug level: what
// wire.Injected tells of, a subject, header or body other than described here,
// a body above the limit, and what carries its own sender token (the
// connection has NoEcho, and its own apps have had the message already).
//
// # Permissions
//
// NATS answers a publish that it denies with an error of its own, later. So
// the first publish on a subject, per connection, is flushed and waits up to a
// second for that error; denied subjects are then refused without sending for
// 30 s. Whenever the link counts a new denial, subjects that were in order are
// asked about again. A subscription that is denied is an error of [Topics.Subscribe];
// one that was made while offline and is denied on the reconnect works between
// the apps of this node, and the link logs the denial.
//
// # Ownership
//
// The package owns the subscriptions and their queues. It starts no goroutine:
// messages of other nodes are handled on the NATS client library's, which
// never wait for a reader. It does not own the link, does not know who is here
// (Config.Identity does), and does not know patterns beyond those above; the
// gateway filters the incumbents' further ones itself.
//
// All methods are safe for concurrent use; a subscription has one reader at a
// time. Whoever made a Topics closes it, before its link; that ends all
// subscriptions.
//
// To test with it: two of them, each on a link of its own to one in-process
// NATS server, in a testing/synctest bubble where time matters. The tests of
// this package do.
package topics
