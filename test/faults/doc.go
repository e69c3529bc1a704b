// Package faults holds what Weft promises about state against what breaks: servers
// and nodes that are killed or frozen, networks that lose, stall and cut, and power
// that goes away. Everything is a real process, and what the apps were told is kept
// by the test, which survives.
//
// # How to run
//
//	go test ./test/faults                              all of it, in about five minutes
//	make e2e RUN=TestFaults SEED=42 MINUTES=30         the long run
//	make e2e RUN=TestTenPowerCuts                      ten power cuts
//	make e2e RUN=TestSeeds SEED=7                      one of the short runs again
//	make e2e RUN=TestFaults FAULT='desk killed'        with faults of one kind only
//
// The power cuts need root, loop devices and mkfs.ext4, and fail where these are
// missing, saying so. The JavaScript clients need Node.js and `npm ci` in
// test/clients, which `make test` does.
//
// # The fault run
//
// Three nats-server processes with three replicas and sync_interval always, and
// desks, which are processes with a node, a gateway and Go apps. Between every node
// and every server, and between every two servers, is a proxy (package proxy). Apps
// and gateway clients, which are the published JavaScript libraries, write to
// shared contexts at a steady rate. A schedule made of the seed begins faults and
// ends them: kill -9, SIGSTOP and restart of a server or a node, the leader steps
// down, a server is cut off from the others, the link of a node is delayed, stalled,
// black, refused, reset, cut or throttled, all servers restart one by one, and one
// context gets so many writes that it is compacted again and again. A fault that
// touched nothing fails the run.
//
// # What is checked
//
//   - Audit: each write that was acknowledged as durable is in the stream at the
//     revision that the app was told, with its value; each path of one that was
//     acknowledged as journalled is in the stream, or superseded by a later write of
//     the same node, or in its overwritten notice, and not on top of what another
//     node wrote after it. What was refused is not in the stream, and nothing is there
//     that nobody wrote, or twice.
//   - Order: a write that began after another one was acknowledged has a higher
//     revision, and reads of what the leader has, with all writes, are linearizable
//     (porcupine).
//   - Observers: what a watch is told is confirmed is a fold of a prefix of the
//     stream, whole batches, never back; what is pending on top of that, and what
//     JavaScript clients see, never shows an older value of a path after a newer one.
//     What is tolerated is in track-record.md.
//   - Convergence: 2 s after the last write, and 15 s after the last fault, the fold
//     of the record, the leader, every node and every client have the same of every
//     context, by the hash of its canonical JSON.
//   - Memory: the nodes of a long run are not larger at its end than they were.
//
// Each checker has a test that feeds it sound and broken histories
// (checkers_test.go), and TestBroken has nodes that are broken on purpose, through a
// variable that only the linker reaches (kv/broken.go): the fold, the merge after an
// outage, the reading after a reconnect, the acknowledgement. The run must find each.
//
// # Power cuts
//
// A node with the embedded default keeps its store on an ext4 filesystem in a file.
// At a moment of the seed's choice its process is stopped, the file is copied, and a
// node is started on the copy: whatever had not been synced is not in it. All that
// was acknowledged must be there, also by a node whose fabric is away, and which has
// only its journal. The control is the same with NATS's own sync of two
// minutes, and must lose something.
//
// # Damage
//
// One server of three has its store damaged while it is down (rot_test.go): apps
// never see less than was acknowledged, and an alarm says which server it is.
//
// # To reproduce
//
// A failing run prints its seed and the command. The schedule and the writes are
// made of the seed alone; when things happen within a fault is not, so a rare
// failure may take more than one attempt.
package faults
