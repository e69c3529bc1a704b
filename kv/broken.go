package kv

import "sync/atomic"

// broken is the part that does not do its work, so that test/faults can see whether its
// checkers notice: "fold" ignores Weft-As-Of, "merge" sees no change by others, "ack"
// acknowledges some writes without sending them, "resync" reads nothing again. Only the
// linker reaches it, from that test; everywhere else it is empty.
var broken string

// unsent counts commits, of which a broken node sends all but every tenth.
var unsent atomic.Uint64
