// Package kv is Weft's state on JetStream KV: the two buckets of a realm, how
// they are made and verified, and reads and writes that do not lie.
//
// A realm has a context bucket (contexts and channels) and a directory bucket
// (who is here). Both are managed through the stream API only, because the
// client library's KV API silently resets options it does not know. Nodes
// never create buckets on a cluster that they do not own: [Provision] is what
// `weft admin provision` and the node that hosts an embedded server run.
// What an operator may choose (replicas, sizes, placement, the age of duplicates)
// Provision leaves as it is, except for the replicas that it is given.
// [Bucket.Verify] refuses a server that is too old, a missing bucket and wrong
// options, each with the command that mends it.
//
// # Reading
//
// A reader subscribes to the subject on which the server republishes each
// committed write ([Bucket.Follow]), then takes a snapshot ([Bucket.Snapshot])
// and applies an entry only if its sequence is newer for its key. A snapshot
// is taken by batch Direct Get, which any replica of the stream answers, also
// one that lags or is damaged. So it counts only when its up-to sequence has
// reached the last sequence that the leader reported after the subscription,
// and when it holds every key that the leader counts; otherwise it is taken
// again, and after three attempts it is an error that names the stream.
// "Not found" alone is never taken for deleted.
//
// The server appends its own headers (Nats-Subject, Nats-Sequence and the like)
// to those of the writer and removes none, so of several values of one header
// the last is the server's, and a Status counts only in a message that has no
// Nats-Subject. A message where followers listen counts only if its Nats-Subject
// belongs there, because a Direct Get makes the server publish stored entries on
// any subject. What does not count is counted by [Bucket.Foreign].
//
// # Clock
//
// [Bucket.ServerTime] is the server's time, learned from the leader's answers
// and carried on by the machine's monotonic clock, so that a wall clock that
// is wrong or jumps changes nothing.
//
// A Bucket is safe for concurrent use; it holds no goroutine and needs no
// Close. Followers end by [Link.Unsubscribe]. To test with it: provision an
// in-process server (package node/embedded) in a testing/synctest bubble.
//
// [Link.Unsubscribe]: github.com/weft-fabric/weft/link
package kv
