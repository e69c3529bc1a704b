// Package interop is methods and streams: request/response between apps, and
// feeds with branches, in one realm.
//
// It routes between apps of its own node in process, whether NATS is there or
// not, and uses NATS only for what crosses machines.
//
// # Methods
//
// [Interop.Invoke] resolves servers from the directory when it is called. Best
// is a server on this machine first, then round robin over equals; All and
// SkipMine call every server known, in parallel; Instances filters identities.
// A call ends in exactly one outcome per server: its result, its error, a
// timeout (it may or may not have run), or target-gone, which comes as soon as
// the server's app leaves. A call is sent at most once: it moves on to another
// server only when NATS said that nobody received it. The deadline travels
// with the call and ends the handler's context; so does the caller's
// cancellation. A repeated call id is refused.
//
// # Streams
//
// A subscriber asks the stream's node, which accepts (on a branch) or rejects.
// The subscriber's node then listens on the branch subject, and the stream's
// node repeats a mark there, "the branch has reached sequence n", until it is
// confirmed: contiguity starts at n, and the answer to the confirmation is the
// snapshot. From then on every message is delivered in order, or a gap notice
// says which sequences are missing and why. A branch that is idle repeats its
// mark every 5 s and after a reconnect, so that a lost tail shows as well;
// what the stream still keeps of a gap is fetched and delivered as snapshot.
// Private data is numbered per subscription in the same way.
//
// One push is one publish per branch, whatever the number of machines; each
// node listens once per branch and fans out to its own apps through bounded
// queues. A reader that is too slow gets gap notices and slows nobody.
//
// # Ownership
//
// Apps join and leave through package node. An [Interop] owns the handlers,
// streams and subscriptions of its apps; [Interop.Close] ends them all and
// waits. All methods are safe for concurrent use. Handlers run on goroutines
// of their own, one per call. To test with it: two nodes on one in-process
// server in a synctest bubble, as the tests of package node do.
package interop
