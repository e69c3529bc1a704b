// Package kv is Weft's state on JetStream KV: the two buckets of a realm, how
// they are made and verified, reads and writes that do not lie, replicas that
// follow, the tree that a context is, and its history.
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
// # Contexts
//
// A context is the fold of the newest write of each of its keys in the bucket
// weft_<realm>_ctx (stream KV_weft_<realm>_ctx). The key of a path is
// <context>.<p1>.<p2>..., each an encoded token (package subjects); the key of
// the whole object, the root, is <context>./ and that of the metadata, which is
// outside of the fold, <context>.// . A write puts a value at a path, or deletes
// it (KV-Operation DEL or PURGE); both replace all that is at and below the path,
// and make objects of what is missing, or is no object, above it. Any other key
// is ignored.
//
//   - Order: a write has a place, its Weft-As-Of if it has one that is smaller
//     than its sequence, else its sequence; of equal places the sequence decides.
//     Writes are folded in the order of their places. What the bucket still has is
//     enough for that, because a newer write of a key hides the older ones.
//   - Existence: a context exists while its root key holds a put. Without it what
//     is below does not show.
//   - Values: msgpack from a writer that says Weft-Op, JSON from any other, unless
//     Content-Type says. At most 64 levels, counted from the object. What cannot
//     be read folds as absent, which is as a delete, and at the root as {}: also
//     a value that is empty, a root that is no object, and a put whose
//     Weft-As-Of or Weft-Compact is no number.
//   - Markers: of a key whose newest entry is a delete or purge with Weft-Compact
//     (a number above 0), or with Nats-Marker-Reason, there is no write at all.
//     Every other marker is a write and stays.
//   - Revision: the highest sequence of a context's writes, where a put with
//     Weft-As-Of and Weft-Compact, both smaller than its sequence, counts as its
//     Weft-Compact. It is 0 while the context does not exist.
//
// [Tree] is the fold, [Value] an object in it. An update of several paths is one
// atomic batch ([Bucket.Commit]), each put at its own key and without condition,
// so that concurrent updates of different paths all survive. Where a path cannot
// be a key (it runs through an array, or is too long) the value that holds it is
// rewritten instead ([Tree.Rewrite]), and so is a conditional write: on the key
// that the value comes from, which therefore has a write, together with purges of
// the keys below, each on condition of its exact sequence, and in the place of
// the newest write that the writer saw. A compaction ([Tree.Compaction]) does the
// same to the root. Only exact-key conditions are used: on wildcards the server
// gets them wrong in batches.
//
// # Any NATS client
//
// To read a context (here "client" in realm "desk"): subscribe to
// weft.desk.kv.ctx.client.> and then request
//
//	$JS.API.DIRECT.GET.KV_weft_desk_ctx   {"multi_last":["$KV.weft_desk_ctx.client.>"],"batch":1000}
//
// and read replies until one has Status 204 (or 404 No Results: there is none); its
// header Nats-UpTo-Sequence says how far they reach, Nats-Num-Pending that there
// is more, to be asked for with "seq" (the last sequence + 1) and "up_to_seq" (that
// Nats-UpTo-Sequence). A reply's key is in Nats-Subject, without $KV.<bucket>. , its
// sequence in Nats-Sequence; of several values of these headers the last counts,
// and no Status does in a message that has them. If the highest sequence that was
// read is that of a batch's member which is not its last, read again. Any other
// Status is an error; 413 says that there are more than 1,024 keys (markers count,
// for ten minutes after a compaction): then ask $JS.API.STREAM.INFO.KV_weft_desk_ctx
// with {"subjects_filter":"$KV.weft_desk_ctx.client.>"} for the names of them, and
// read 512 at a time, "up_to_seq" being state.last_seq of that answer.
//
// Fold what was read. Then take what was republished: ignore what is not newer
// than its key, or was not sent to the subject of its key; members of a batch
// (Nats-Batch-Id) belong together, have the numbers Nats-Batch-Sequence from 1 on,
// and end with Nats-Batch-Commit. If one is missing, or the rest does not come
// within a second, and on a reconnect, read again: keys that are not there any
// more are gone, unless their sequence is beyond Nats-UpTo-Sequence (or a replica is damaged, see below). If that is
// below a sequence that was seen before, the server that answered lags, and should
// be asked again; if it stays so, the bucket was made anew: forget everything. A
// client that must not miss anything reads again every 10 s, with "seq" (the last
// Nats-UpTo-Sequence + 1) to get only what is newer; 204 then says that there is
// nothing newer, and No Results that there are no keys any more.
//
// To write a property: publish a JSON value to $KV.weft_desk_ctx.client.limit with
// a reply subject, or `nats kv put weft_desk_ctx client.limit 7`. The answer is
// the acknowledgement, {"seq":...} or {"error":{...}}. To set the object, put to
// client./ ; to remove a property, `nats kv del weft_desk_ctx client.limit`, which
// publishes an empty message with KV-Operation: DEL (a purge: KV-Operation: PURGE
// and Nats-Rollup: sub). That is one more writer, with the same rights as an app:
// last writer wins. A path through an array, as apps have it, is no key: put the
// whole array, because a put below it makes an object of it.
//
// A client may say who it is in Weft-By: <app>@<node> or @<node>, ids as in package
// subjects, otherwise it is nobody. With any new text of [A-Za-z0-9_-] in Weft-Op,
// the same for a whole batch, the value is msgpack. Weft-Who says the same for people:
// <application>.<user>.<machine>, each with =XX for every byte outside of [A-Za-z0-9_-]. A
// client that follows the context should say in Weft-Seen the highest sequence of its keys
// that it knows of.
//
// A value that shall expire (Nats-TTL, which the server stretches to ten minutes) is
// made permanent by the first node that sees it, because an app there uses the
// context: late readers and early ones could not agree otherwise.
//
// To end a context, delete client./ and client.// , its metadata; else one that is made
// with this name later has the metadata of the old one. Package contexts says what is
// in it. Whoever makes both puts the metadata before the root, in one batch.
//
// To write several properties at once, publish them with the headers Nats-Batch-Id
// (any unique text of at most 64 characters), Nats-Batch-Sequence (1, 2, ...), and
// on the last Nats-Batch-Commit: 1 and a reply subject. A batch has at most 1,000
// messages; its acknowledgement has the sequence of the last.
//
// NATS permissions for it: publish $JS.API.DIRECT.GET.KV_weft_<realm>_ctx and, to
// write, $KV.weft_<realm>_ctx.> ; subscribe to weft.<realm>.kv.ctx.> and the inbox.
// With more than 1,024 keys also publish $JS.API.STREAM.INFO.KV_weft_<realm>_ctx. To
// read the past, $JS.API.DIRECT.GET.weft_<realm>_history: {"multi_last":[...],
// "up_to_seq":N,"batch":1000} there is the newest write of each key as of N, a sequence
// of that stream.
//
// To test a client with it: testdata/fold.json is an array of {name, entries,
// exists, object, revision}, entries of the bucket and what the context "client" is
// by them. An entry is {key, seq, op, json or hex, asOf, compact, marker}: op is del
// or purge, absent for a put; json is text, hex msgpack; marker stands for
// Nats-Marker-Reason. object is JSON text, absent if there is no context.
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
// again, from whichever replica answers then: at once where keys are missing, which
// also has the messages of all replicas counted, up to six times, and after
// 0.4 s and 0.8 s where it may be late. Then it is an
// error that names the stream. "Not found" alone is never taken for deleted.
//
// A [Replica] does that for the keys below one or more filters. What is republished can be
// lost on its way; a replica reads again when the connection was made, when it
// was too slow, when a key's last sequence is not the one that it knows, and when the
// rest of a batch does not come within a second. A write says in Weft-Seen what its writer
// knew of the context; who has less reads again before it shows that write. A loss is
// seldom alone: the first that is found makes all replicas of the node ask within a second
// for what was written since the last time. They do that every 5 s as well (and 1 s after
// they began), which finds a loss that nothing else shows, and when the stream has a new
// leader, up to what that has; then they also read everything, within the next 5 s.
// An answer counts that has reached the newest sequence which any replica
// of the node has seen: a server that was cut off answers before it has caught up.
// A replica belongs to one creation of the stream: of another it reads everything afresh.
// What is republished between a reconnect and the snapshot after it waits for that.
//
// A node has hundreds of replicas, and an outage makes all of them read, while servers have
// much to do. So those of a node read at the same moments, each node at others, and at most
// 4 requests of a kind are under way: what is asked meanwhile waits and then goes together.
// One request reads contexts that have 256 keys, and one question tells what the leader has
// of all, unless the bucket has more than 100 keys for each that is asked for. Who finds
// only that an answer is late looks again, up to eight times, before it reads everything.
// Who could not read tries again after 0.1 to 5 s, and as soon as another could.
//
// A server that was frozen, or is cut off, takes itself for the leader for up to twenty
// seconds after the others have chosen another. So only an answer of a leader counts
// that has heard of most of the stream's servers within 2.5 s.
//
// [Bucket.Fence] finds out whether something was written, and else makes sure that it is
// not written any more, by a message under the same id at =.fence.<node>.<id>, a key that
// no context has and that expires after ten minutes.
//
// # Damage
//
// NATS does not notice when one server of a stream has lost messages, and lets it
// answer and lead. So who reads a context bucket counts: when it was connected, when
// a server comes back, when it can read again, when an answer was too short, and every
// 20 s, the messages of each replica are held against those of the majority, give or
// take what is written meanwhile. One that has missed writes can have fewer, or more, for
// it has missed removals, too. Without a majority the most count, if nothing is written
// meanwhile; else it is counted again 4 s later. What is off for half a second is not
// used, because it can also
// have old values; if it is not mended for 8 s it is an alarm (package alarm, see
// [Bucket.Report]) that names the stream and the server, and over when it has
// everything again. A server gives a Direct Get to any replica, not to its own, so
// that asking again gets past a damaged one; who has answered is found out by
// tracing the request (Nats-Trace-Dest), and where that is not permitted the alarm
// names all who can have. What two servers have lost, or the only one, is not
// found this way; nor is, for up to 20 s, an old value of a key that a server which
// was back at once has lost the newest of.
//
// A key that vanishes from the bucket counts as removed if it does not matter,
// because a write above it is on top of its place in the fold, or if the history, the
// stream weft_<realm>_history which sources the bucket, has a newer purge of it by a
// compaction, the end of the context, or expiry, from this creation of the bucket.
// Every other removal leaves a marker. A key without proof stays with who has seen
// it, and is an alarm until it is written again or proven to be gone. Readers
// that come later do not have it.
//
// A leader that has less than was acknowledged, republished or read before it was asked,
// and in no answer to the node more than before for 5 s, has lost its last writes and goes
// on from what it has; while it gets on it may be late. So do replicas: they take
// back what is beyond the lowest last sequence that it said, name the keys in the log,
// take from then on only what the leader itself answers, because NATS does not
// bring the others in line, and raise an alarm that stays until the node ends. One
// that comes back later finds it out by another write at a sequence that it knows.
// Nobody writes again what was lost: at the root of a context that has ended
// since, that would bring it back.
//
// The server appends its own headers (Nats-Subject, Nats-Sequence and the like)
// to those of the writer and removes none, so of several values of one header
// the last is the server's, and a Status counts only in a message that has no
// Nats-Subject. A message where followers listen counts only if its Nats-Subject
// belongs there, because a Direct Get makes the server publish stored entries on
// any subject. What does not count is counted by [Bucket.Foreign].
//
// # History
//
// The bucket keeps 8 writes of a key, and purges take away more. The stream
// weft_<realm>_history sources the bucket: the server copies every message there, under
// the same subject, and keeps it for 30 days, or as an operator says (max_age,
// max_bytes). It takes no rollup and no time to live, so that a purge is one message
// more there and nothing runs out. It is a source and not a mirror, because a mirror
// answers the Direct Gets of its bucket, with what the bucket has no more.
//
// Copying strips the headers Nats-Batch-... and Nats-Expected-..., so the writes of one
// operation are told by Weft-Op. The sequence in the bucket is in Nats-Stream-Source
// (<stream> <sequence> ...), the time is that of the copy: a few milliseconds later, or
// tens of seconds where servers were lost meanwhile (46 s were seen). So writers say in Weft-Time what the
// server's time was, which counts if it is up to ten minutes before the copy.
//
//   - Before a batch purges keys its writer waits until the history has what it takes
//     away ([Purged], [History.Await]): a compaction is put off otherwise.
//   - Holes are where sequences of the bucket are missing ([Hole]). They come from
//     keys that were written more than 8 times before they were copied, from purges by
//     other clients, and from writers that could not wait. One matters until the history
//     had come past it: what the bucket had lost by then it has lost to newer writes of
//     the same keys, which were copied next.
//   - What a context was at a sequence ([History.At]) is the fold of the newest root at
//     or before it and of the newest write since of each other key, if nothing that
//     matters is missing after the root's place. The root of a [Tree.Checkpoint] says in
//     Weft-Read up to where it holds everything, so that nothing before that matters, and
//     is also what the context was from its Weft-Compact on until then. Inside of a batch
//     the context is what it was before it. Anything else is [ErrNotRecorded].
//   - A context that is written to gets a checkpoint a day, or it could not be folded
//     any more once the history has forgotten its root.
//   - An answer counts only if the replica has as many writes of the context as the
//     leader counts. That is one more request, answered by the same replica where the
//     connected server has one.
//
// # Clock
//
// [Bucket.ServerTime] is the server's time, learned from the leader's answers
// and carried on by the machine's monotonic clock, so that a wall clock that
// is wrong or jumps changes nothing.
//
// A Bucket is safe for concurrent use and needs no Close: the goroutines that make
// joined requests (join.go) end when nobody waits for an answer. Followers end by [Link.Unsubscribe]. A Replica has a goroutine, and is
// closed by who made it; it may be used from several. A Tree is for one goroutine
// at a time, a Value never changes. To test with it: provision an
// in-process server (package node/embedded) in a testing/synctest bubble.
//
// [Link.Unsubscribe]: github.com/weft-fabric/weft/link
package kv
