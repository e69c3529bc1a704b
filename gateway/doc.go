// Package gateway lets apps that were written for Glue42 or io.Connect join
// unmodified: a WebSocket server on every node that speaks their local protocol,
// and makes each client an app of the node like any other.
//
// # Parts
//
// A connection that package edge lets in is a session, whose goroutine owns its
// state; a reader and a writer only pass frames. The client that says hello on it is
// a peer, which has methods and streams (interop), contexts and topics. What happens
// elsewhere is posted to the session's inbox. What is written to a client waits in
// its outbox, which is bounded: above the first bound streams, topics and contexts
// wait for the client (and announce what they dropped), above the second, or when
// the client takes nothing for ten seconds, it is disconnected and told why.
// Package platform is a further peer that only the clients of this gateway see. Its method
// Weft.GetFabric and its stream Weft.Fabric say {fabric, since, reason}: whether this node
// reaches the others.
//
// Frames are decoded once, down to the members of the message; payloads stay JSON
// text and are transcoded only when they leave the machine.
//
// # Contexts
//
// A context is known by its name, on every machine and at every time, and its id is
// made of the name. An update becomes writes of a context tree (package kv), and
// every push is the difference between what the client was last sent and what it
// should have, in a form that the clients' libraries apply exactly: commands with
// paths; added and removed keys where a name has a dot; the whole as reset. Where
// the writes themselves lead from one to the other they are sent instead of the
// difference, because apps are shown them.
//
// # Races
//
// A client applies its own update when the answer to it arrives, which in Node.js is
// after the frames that came in the same read of its socket. So a push that follows
// such an answer is held back until a pong says that the client has read it, and
// answers that come meanwhile wait for the push. What is newer than an update without an
// answer, and at its place, is pushed after the answer, for the client would put the older
// one on top of it. The gateway follows what the client
// does with its update, and repeats what is right where that is something else.
//
// # Returning clients
//
// After a reconnect the libraries send what they knew before as an update. The first
// update of a context after the return of a client (same application and process, or
// origin for a page, within 10 s) is compared with what the client had: if it only
// repeats that, it is answered and not applied, and the client gets the present values.
// Libraries do so one context after the other, once they have subscribed to all, also with
// contexts that they have left again, or have only written to.
// What each client has is kept by revision in the node's store, for the node can be
// killed too. What a client has said before its connection ended is done.
//
// # Deliberate differences
//
// Compared with @glue42/gateway-ws 3.0.19, and checked by the differential test:
//
//   - second-hello: a second hello on a connection replaces the peer of the first,
//     whose methods would attract calls that nobody answers.
//   - json-errors: what is not a message is answered with an error message; the
//     reference sends a bare text, on which clients fail.
//   - activity: there are no activities: joining them is a success, for clients would
//     not start otherwise, and everything else there is refused.
//   - stamped-identity: an identity has the node, the machine and the OS user as the
//     node knows them, whatever the client claims.
//   - realm: who sees whom is decided by the realm, not by a claimed login.
//   - agm-join: registering needs a join, for others cannot use the methods of a peer
//     that they do not know.
//   - spoof-domain: an error about a foreign peer has the domain of the request.
//   - accepted-twice: the second acceptance of a subscription is ignored.
//   - leave-quiet: leaving a domain without having joined it is not announced.
//   - nameless-context: a context needs a name; one without stops later clients.
//   - absent-remove: removing what is not there changes nothing.
//   - array-elements: a number in a path selects an element of an array.
//   - one-name: a client registers a name once.
//   - own-differences: pushes are the gateway's differences, not foreign deltas.
//   - no-empty-push: an update that changes nothing is not pushed.
//   - second-creator: what the second of two creators of a context says is written,
//     instead of being dropped: libraries make a creation of the update of a context that
//     they were not told of yet. Objects in it are merged.
//   - stream-or-method: streams cannot be called, and methods not subscribed to.
//   - platform-peer: the platform is one more peer.
//   - origin-403: a page that may not connect gets 403.
//   - channels-exist: the contexts of the ten channels are there from the start.
//   - own-words: reasons are sentences, not dumps of internals.
//   - own-update: who updates a context may be told after the answer what it became.
//   - net-announcements: registrations may be announced in parts, and not at all if
//     they are gone or back at once.
//   - method-order: methods announced together come in the order of their names.
//   - strict-input: identities, definitions, contexts, paths, names and topics of the
//     wrong type, or empty, are refused.
//   - arguments: arguments are an object or a list, the other is null; a single value
//     is {_value}.
//   - own-reasons: reasons of clients that leave or unsubscribe are not forwarded; of a
//     drop, the text is.
//   - pending-subscription: before it is accepted a subscription has no id for its
//     subscriber; its end fails the request, its publisher hears of a gone subscriber
//     when it accepts, and private data is dropped.
//   - no-sequence: sequence and snapshot of a push are not forwarded.
//   - same-method: the same definition is not announced again; another one under its id
//     ends its subscriptions.
//   - context-id: a context that is created again has its old id.
//   - context-domain: members of domain context are not announced, and a push has the
//     domain of its receiver.
//   - lists-replace: an updated list and an object replace each other.
//   - whole-path: the empty path is the whole, for every member.
//   - empty-key: a path that ends in a dot ends in the empty key, as in clients.
//   - mixed-delta: reset counts alone, or commands alone, as in clients.
//   - literal-topics: only *, > and . mean something in a topic.
//   - own-snapshot: a snapshot has what its client has sent since it asked for it.
//   - hidden-peer: a peer that restrictions hide is not found.
//   - hidden-context: a context that a peer may not read is not found.
//   - peer-left: why a context ended with whom it belonged to is the same for everybody:
//     context.peer-left if that left, global.destroyed if an owner only unsubscribed.
//
// # Use
//
// [Start] listens, [Gateway.Stop] disconnects all clients. All methods are safe for
// concurrent use. To test with it: start a node in process, a gateway on port 0, and
// connect with any WebSocket client or with the libraries from npm.
package gateway
