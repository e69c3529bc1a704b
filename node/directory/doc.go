// Package directory knows who is here: the nodes of a realm, their apps, the
// methods and streams that each app offers, and the channels that it has joined.
//
// Each node writes one document, n.<node> in the directory bucket, and renews
// a lease every 3 s. The lease is a dead man's switch in the server: unless it
// is renewed, the server purges the document after 10 s of its own time. So
// other nodes see only real changes, no heartbeats, and no janitor exists.
// Method definitions are in manifests, immutable and stored under their hash.
//
// # When somebody goes
//
// A document purged by its own node is a clean leave: gone at once. A purge by
// the lease, a call that found no responders, or a document that is missing
// from a snapshot only makes a node suspect: it is pinged every second, and
// removed when no one answers (at once after a lapsed lease, after 5 s
// otherwise, so that a reconnect does not flap). A scheduled purge of another
// node's document is accepted only from that node's own lease, because NATS
// does not check the target of a schedule against permissions.
//
// One that was removed because it could not be reached, while its lease goes on,
// is asked again every ten seconds or so.
//
// A node that loses NATS keeps its view of the others for 10 s and then
// removes them itself. On every reconnect, and when its document was purged,
// it asserts itself again. A lost message is found by comparing the newest
// sequence every ten seconds or so, and by a full snapshot every five minutes
// and a second more for each node.
//
// # An id has one node
//
// A node that starts pings the owner of a document under its id, and writes its
// first document on the condition that nobody has written one since: of two that
// start at once, one gets [ErrTaken]. Two nodes of one id that could not see each
// other do not fight: the last to write is seen, the other logs an error and
// counts it ([Directory.Rogue]).
//
// # Views and events
//
// [Directory.View] is an immutable picture. [Directory.Watch] derives events
// from the difference between two pictures, first of all everything that is
// there, so that a slow watcher costs nothing, misses nothing that lasts, and
// sees a state that came and went while it was busy not at all. Who joins or
// leaves a channel changes the picture and makes no event here; package channels
// has those.
//
// Local apps are in the view at once, whether NATS is there or not.
//
// The directory owns its documents and one goroutine, [Directory.Run], which
// waits for everything it started. All methods are safe for concurrent use. To
// test with it: two directories on one in-process server in a synctest bubble.
package directory
