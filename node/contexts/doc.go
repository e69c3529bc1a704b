// Package contexts is shared contexts: named objects that the apps on every machine
// of a realm read, change and watch.
//
// A context is a tree of last-writer-wins registers in the realm's context
// bucket; package kv has the rules. This package keeps a replica of each context
// that a local app uses, puts the writes of local apps on top of it, sends them,
// and tells watches; and one of all root and metadata keys, which is the list of
// contexts. It stores nothing else. Who is here it is told by its Config.
//
// # Writing
//
// A write is checked (name, size, depth, paths), then shown to all apps of this
// node, then sent; it returns when JetStream has acknowledged it. If the stream
// refuses it after all, it is taken back, watches get the correction and the
// writer the error. Of each context one operation is in flight; those that come
// meanwhile wait in their order and go together as one batch. What a local app
// has written stays on top until it is settled, so a remote write to the same
// path cannot flicker in between.
//
// Without a journal, a write is refused with offline and not shown while the fabric is
// offline. A write that was sent when the connection broke is settled after the return,
// under the same id, so that it is made once or not at all; its caller may have
// got a timeout, which says that it may have been made.
//
// Set replaces the object, Update replaces or (with nil) removes top-level keys,
// paths are written without touching their siblings. Names of keys are literal: a
// dot in one is a dot. A path through an array selects an element by number, one
// past its end appends, and removing closes the gap. Concurrent writes to
// different paths all survive; on the same path the last one wins, in an order
// that all nodes share.
//
// [IfRevision] makes a write conditional: it is refused with bad-revision if
// something at, above or below one of its paths was changed after that revision.
//
// A context exists from its first write, or [App.Create], to [App.Destroy]. What is
// written by somebody who does not yet know that it was destroyed is not shown
// and gone when it is created again.
//
// [App.Start] and its like do not wait. What one app starts on one context, and what
// it writes while it waits, takes effect in the order of the calls, also before the
// context was read for the first time. Where it is open, Start computes the write from
// the object as local apps see it and shows it before it returns. An operation that
// cannot be sent within 30 s is unavailable; one whose outcome is not known then is a
// timeout later.
//
// # Outages
//
// With a journal (package journal) the apps of a node go on while the fabric is away. A
// write then is shown, put into the journal with a sync of the disk, and acknowledged as
// Journalled; so are those that wait, or were sent and not answered, when the connection
// breaks, and one that the stream has not answered for 30 s. Of writes to one path the
// journal keeps the newest. A context that was never read is taken for what
// [Contexts.Suppose] says, or for one that does not exist, once the fabric has been away
// for two seconds; State.Since says that it may be something else. A full journal, or
// disk, refuses with storage-full. Conditional writes are refused with offline.
//
// When the fabric is back, what was sent before is looked for, and fenced off if it has not
// arrived (kv.Bucket.Fence). Then each path that was written is compared with a snapshot
// that the leader confirms. If nobody but this node has written at, above or below it since
// the revision that it was written on, it is written, in the place of what the snapshot
// has, so that whatever slips in stays on top; of what a compaction has taken away the
// history tells, or if that is late the values at the path. Otherwise it is dropped: remote wins, apps
// get the remote value, and one [Overwritten] for the write says what was not made. So ends
// what cannot be written for another reason. It is kept in the journal until it is
// dismissed, or 1,000 newer ones have come. Of a context that was not known only what is not
// there is added. Several paths of one write are merged each for itself.
//
// Another [Policy] is local-wins, which writes whatever others have done, and
// reject-offline, which journals nothing.
//
// # Metadata
//
// Beside its object a context has [Meta], which says who made it, how long it lives
// and who may read and write it. It is written by [App.CreateWith] alone, in one batch
// with the object, and a [NameEvent] never comes before it. A context that was made by
// writing to it, or by a foreign writer, has none: it is retained and for everybody.
//
// # Permissions
//
// Every app is held to them by its own node, for reading (Get, watches, At, and the
// names, which leave out what the app may not read), writing and destroying, before
// anything shows; the error is denied. The creator and the owner may do everything,
// others what an expression of package restriction says about them and the creator;
// who may write by an expression may read. A context of ownership is destroyed by its
// owner alone. An expression that cannot be understood holds for nobody. A plain NATS
// client is held to nothing but its NATS permissions.
//
// # Lifetimes
//
// A retained context lives until it is destroyed. One of ownership ends when its owner
// is gone from the directory, a ref-counted one when no app on any machine holds it any
// more: its creator, and who has called [App.Hold]. The node of the last one ends it
// at once. When a node dies the others whose apps use contexts do, within half a second
// after the directory has removed its apps; what was left while there was none is ended
// by the first one that has seen the whole directory for ten seconds. NameEvent.Reason
// is then [PeerLeft].
//
// Nobody ends a context while it does not see everybody: while the fabric is offline,
// the directory is being read, or within ten seconds of that, unless the context was
// made since. A hold is in the directory first and then in the metadata, which is
// written again; an end is conditional on the metadata that was looked at. So a hold
// that has returned is not overlooked, also by a node that the directory's news have not
// reached yet. What others write meanwhile does not save a context.
//
// # Reading
//
// A read is answered from the replica, without a network round trip once it is
// there; the first one waits for a snapshot that the leader confirms, so a
// context is never reported missing while that is pending. A [Watch] gets one
// snapshot, then each change as the difference from what it got before, with
// who wrote it; a reader that is too slow gets the latest state instead of all
// on the way. While offline, reads and watches go on with what is known, and
// State.Since says since when it may be old.
//
// [App.WatchFunc] makes a watch without a goroutine, which is polled. An Event has the
// writes themselves where it is of exactly one operation, see Event.Edits.
//
// # The past
//
// [App.History] lists who changed what and when, [App.At] and [App.AtTime] are what a
// context was, [App.Revert] makes it that again by one more write. They are answered from
// the realm's history, see package kv, and are right or an error: what is not known has
// [kv.ErrNotRecorded] in its chain, and History says where something is missing. An app
// is held to the permissions of now and to those of then.
//
// Before a write takes something away, this node waits until the history has it: a
// compaction is put off otherwise, and the write of an app made after three seconds, with
// a warning, and counted in Stats.Unrecorded. Before a context is written to whose root
// was not written for a day, or an eighth of the history's age, it gets a checkpoint.
//
// # Concurrency
//
// All methods are safe for concurrent use. Whoever made a watch closes it; an app
// that leaves has its watches closed and holds nothing. Callbacks (Edit, Done, wake,
// and those of Config but Settle) are called with locks held and must not call back.
// To test with it: start nodes on one in-process server in a testing/synctest bubble.
package contexts
