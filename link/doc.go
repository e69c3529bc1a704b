// Package link is one connection to NATS as Weft uses it: the options that a
// desktop needs, its state, and requests whose failures are typed errors.
//
// It owns the *nats.Conn and the state that callers may wait for. A call made
// while the connection is down fails at once with [wire.ErrOffline] and is
// never replayed later (the client library's reconnect buffer is off). A
// permission violation, which NATS reports asynchronously, is mapped to the
// request that caused it ([wire.ErrDenied]) instead of becoming a timeout; if it
// is the inbox that is denied, to every request.
// A link never gives up: it reconnects for ever with full jitter between 50 ms
// and 1 s, after about 7 s between 50 ms and 5 s, and notices a dead peer after two
// missed pings (3 s each).
//
// It does not know what travels: subjects come from package subjects, bodies
// from package wire. A node has two links, one for control and one for bulk,
// so that bulk does not delay calls.
//
// All methods are safe for concurrent use. Whoever opened a link closes it;
// Close waits for running callbacks to have been told to stop. Handlers run on
// one goroutine per subscription and must not block.
//
// To test with it: open it on an in-process server (package node/embedded)
// with [Config.Options], inside a testing/synctest bubble if time matters.
package link
