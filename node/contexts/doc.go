// Package contexts is shared contexts: named objects that every app on every
// machine of a realm reads, changes and watches.
//
// A context is a tree of last-writer-wins registers in the realm's context
// bucket; package kv has the rules. This package keeps a replica of each context
// that a local app uses, puts the writes of local apps on top of it, sends them,
// and tells watches. It stores nothing else.
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
// While the fabric is offline a write is refused with offline and not shown. A
// write that was sent when the connection broke is settled after the return,
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
// # Concurrency
//
// All methods are safe for concurrent use. Whoever made a watch closes it; an app
// that leaves has its watches closed. To test with it: start nodes on one
// in-process server in a testing/synctest bubble.
package contexts
