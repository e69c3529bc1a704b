// Package stress runs three nodes with eight apps each on a cluster of three NATS
// servers and lets them write to twenty shared contexts for a minute, while the
// stream changes its leader, connections are cut, and contexts are compacted
// every few seconds. It is part of `make test`; SEED and STRESS_SECONDS choose another
// run. A failing run prints its seed and what differs.
//
// # The referee
//
// That all agree proves little, for all can agree on having lost a write. So the
// end is compared with what the apps were told. The test records the whole stream,
// from the subject on which the server repeats each write and from a consumer, and
// folds it by the rules of the design in a naive way of its own: plain maps, and
// nothing of package kv. What compactions write is left out of that fold
// altogether, so a compaction that loses something differs from it; only the purge
// of a root key counts, which destroys a context. What a compaction wrote must be
// the fold up to its place.
//
// The fold is tied to the acknowledgements. Each write returns the sequence of the
// last write of its batch, so the batch is known. Directly after the batch, in the
// order of places, every path of the operation must have the operation's
// value, or be gone, unless another operation of the same batch wrote there too, or
// the node had nothing there to remove and so wrote nothing. An
// operation that rewrote a value (Weft-As-Of: edits through arrays, conditional
// writes) must turn the whole object before its place into the whole object after
// it, as a naive edit does. The other way round, each write of the record must
// belong to an acknowledged operation of the app that it names, or to one that
// ended in a timeout; a batch may be written once. What was refused may be in the
// record only if nobody can ever have seen it: a conditional write that lost its
// race. Counters that are raised by conditional writes count exactly.
//
// At the end that fold, every app's Get, every object that a watch has built from
// its changes, a node that starts afresh, and a plain reader of a snapshot must be
// equal to the byte in canonical JSON.
//
// # What a watch may see
//
// Every string in a value names the operation that wrote it. The place of an
// operation is that of its first write in the record. At each path a watch must not
// see an operation after one with a later place; what its own node has pending does
// not count, because it shows before it has a place. It must never see an operation
// that was refused, unless that is pending on its own node. The revision of a
// context that exists never decreases. Each app writes three keys in one batch
// with one tag: in no state of any watch do the three differ.
package stress
