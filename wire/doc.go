// Package wire is what travels between nodes: payloads, headers, error codes
// and the messages of streams, and the check that all of it passes before
// anything decodes it. Together with package subjects, which describes
// subjects and keys, this page is the wire specification: a client in another
// language needs no more.
//
// The package owns the bytes: msgpack, JSON, the conversion between them,
// header names, and the closed list of error codes. It does not connect, send
// or route, and it knows no subjects; what a message causes is decided by
// those who receive it.
//
// All functions are safe to call from any goroutine; nothing is to be closed.
// Payloads and parsed messages share the bytes they were made from, so those
// bytes must not be changed afterwards. The package exports more names than
// others of this module because it is the vocabulary of the wire: every code,
// header and message has its name here and nowhere else.
//
// To test with it: testdata/vectors.json and testdata/stream-vectors.json hold
// values and messages as hex with their meaning, valid and refused, for any
// language (below).
//
// # Payloads
//
// The body of a call, reply, topic message or stream item is one application
// value, and a context stores such values. A body is
//
//   - msgpack, if the message has no Content-Type header or it says
//     application/msgpack;
//   - JSON (UTF-8), if the header says application/json. Parameters such as
//     "; charset=utf-8" are ignored. The reply comes in the form of the request.
//   - nothing, if it is empty: no value. That differs from nil. A reply that
//     carries an error has an empty body.
//
// Any other Content-Type is refused with bad-payload. Stream messages are
// always msgpack. Nodes pass payloads on without decoding them.
//
// # Types
//
//	msgpack                     JSON                      Go (decoded into any)
//	nil                         null                      nil
//	bool                        true, false               bool
//	int, uint (any width)       -9223372036854775808 to   int64; uint64 only
//	                            18446744073709551615      above the int64 range
//	float 64, float 32          a number with a fraction  float64
//	                            or an exponent, or an
//	                            integer beyond 64 bits
//	str (valid UTF-8)           string                    string
//	bin                         base64 string (standard   []byte
//	                            alphabet, padded)
//	extension -1, timestamp     RFC 3339 string, UTC,     time.Time in UTC
//	                            to the nanosecond
//	array                       array                     []any
//	map with str keys           object                    map[string]any
//
// All conversions are exact both ways except these:
//
//   - bin and timestamp become strings in JSON and come back as strings. Where
//     a Go program declares []byte or time.Time it can read either.
//   - A JSON number that is no integer of 64 bits becomes the nearest float64.
//     One beyond float64, such as 1e400, is refused.
//   - float 32 becomes float 64, and -0 written as an integer becomes 0.
//   - In a JSON string a lone surrogate and every invalid byte become U+FFFD.
//
// A float stays a float: 1.0 in msgpack is 1.0 in JSON, and 1.0 or 1e3 in JSON
// is a float 64 in msgpack. But a JavaScript client writes 1.0 as the integer 1
// and rounds integers beyond 2^53 unless it reads them as BigInt. Hence a
// receiver takes an integer where a float is declared and a whole float where
// an integer is, and equality of numbers is numeric.
//
// Not allowed in msgpack: NaN and infinities, keys that are not strings,
// strings that are not valid UTF-8, extensions other than the timestamp, and
// timestamps outside the years 0 to 9999 or with more than 999,999,999
// nanoseconds. Writers use the shortest integer form and never write a float
// as an integer; the width of strings, arrays and maps is free. Of a name that
// occurs twice in a map both are passed on and the last one counts.
//
// Fields of a message that a reader does not know are ignored.
//
// # Checks before decoding
//
// A few bytes of msgpack can claim gigabytes, and a megabyte can nest a million
// deep; decoders that believe them die. Every body that comes in passes these
// checks first, and is refused with bad-payload if it does not:
//
//   - Exactly one value, and nothing after it.
//   - At most 64 arrays and maps inside each other. The same holds for JSON.
//     A stream message, or one between nodes, may be that much deeper than the
//     payload in it as its own form needs.
//   - The length of every string, bin and extension is at most the bytes left;
//     so is the number of elements of an array, and twice the number of pairs
//     of a map, since each needs a byte.
//   - The byte 0xc1 does not occur, and everything of "not allowed" above.
//
// The walk is iterative, takes time linear in the bytes and allocates nothing.
// What passes can still take about 60 times its size when decoded into maps,
// so size limits stay necessary.
//
// A NATS server can be made to publish into subjects of ours: a request to its
// JetStream API whose reply subject is one of them, which an account's user
// may send, delivers stored bytes or an API answer there under nobody's name.
// A receiver on call, ask, ctl, data, push and topic subjects therefore drops,
// and counts, before anything else, a message
//
//   - with one of the headers Nats-Stream, Nats-Subject, Nats-Sequence or
//     Status, in any case; or
//   - whose body begins (white space aside) with {"type":"io.nats. ; or
//   - without Content-Type, whose body begins with {"stream":" or
//     {"error":{"code" .
//
// # Headers
//
// Names are case-sensitive and written as here. A value is one line of UTF-8
// without control characters.
//
//	header            on                        value, and who sets it
//	Weft-Id           call                      22-character id of the call, from the caller; the
//	                                            server's node refuses an id that it has seen
//	Weft-Deadline     call                      milliseconds left when it was sent, in decimal, from
//	                                            each node that sends or forwards; never a clock time
//	Weft-App          call, subscribe           id of the calling app, from its node
//	Weft-Caller       call                      node of the real caller, from the node that forwards
//	                                            an ask
//	Weft-Name         any                       the name whose token in the subject is a hash,
//	                                            spelled as subjects.EscapeName does (=XX for every
//	                                            byte outside [A-Za-z0-9_-]), from the sender; the
//	                                            receiver verifies it
//	Weft-Op           context write             operation id, from the writing node; the Nats-Msg-Id
//	                                            is this id and the key
//	Weft-By           context write             writing app and node, from the node
//	Weft-As-Of        context write             sequence at which the value takes its place, decimal
//	Weft-Compact      context write             sequence of the snapshot, decimal: a marker of
//	                                            compaction, which readers skip
//	Weft-Error-Code   reply                     a code of the list below, from the server's node
//	Weft-Error        reply                     a sentence for people, at most 4 KiB
//	Content-Type      call, ask, reply, topic   form of the body, from the sender
//	Weft-Routing-Key  topic                     routing key, from the publishing app
//	Weft-Target       topic                     whom the message is for, from the publishing app
//	Weft-Identity     topic                     who publishes, from its node
//	traceparent       any                       W3C trace context, passed on
//	tracestate        any                       W3C trace context, passed on
//
// Context writes also carry headers of NATS itself (Nats-Msg-Id, conditions,
// batches); package kv describes them.
//
// # Error codes
//
// A reply with Weft-Error-Code is an error; its body is empty. The list is
// closed. A reader that meets a code it does not know, from a later version,
// treats it as internal. "Again" says whether the same request may succeed
// later without a change.
//
//	code          meaning                                          again
//	no-server     nobody offers the method or stream               when one appears
//	target-gone   the server's app or node left; the call may      only if it is safe
//	              or may not have run                              to run twice
//	timeout       no answer in time; it may or may not have run    only if it is safe
//	                                                               to run twice
//	canceled      the caller gave up; it may or may not have run   if it is wanted
//	app-error     the method ran and answered with an error        as the app says
//	rejected      the stream's owner or the app said no            no
//	denied        no permission                                    no
//	busy          too much in flight at the receiver; not run      yes, after a pause
//	limit         larger or more than allowed; the text says       no
//	              the limit and the value
//	bad-name      a name that cannot be, or is not, legal          no
//	bad-payload   the body is not what this page allows, or does   no
//	              not fit what the receiver declared
//	bad-revision  a conditional write met another revision         after reading again
//	offline       this node has no connection to the fabric;       when online
//	              nothing was sent
//	unavailable   the fabric cannot do it now                      yes, after a pause
//	storage-full  the store has no room; the write did not happen  after someone made room
//	version       the two sides do not understand each other       no, upgrade one
//	internal      a fault of ours; the log of the node has more    perhaps
//
// # Streams
//
// On data and push subjects there are no headers. A message is a msgpack array
// whose length says its kind:
//
//	[epoch, seq, body]          data: an item; body is one msgpack value, embedded
//	                            as it is and not as bin
//	[epoch, seq]                mark: the branch has reached seq. The start of a
//	                            subscription, repeated until confirmed, and the
//	                            announcement of an idle branch
//	[epoch, seq, code, reason]  close: the subscription ends; code is one of the list
//	                            above, reason a sentence of at most 4 KiB
//
// epoch is a random unsigned integer of up to 64 bits, new for each start of a
// publisher's stream. seq is an unsigned integer that counts the items of a
// branch (on a push subject: of the subscription) within the epoch, from 1; it
// is 0 in a mark when there was none yet. A seq more than one above the last
// is a gap. An item without value has the body nil.
//
// Example: epoch 0xa1b2c3d4e5f60718, sequence 7, {"bid":1.1,"qty":1000}:
//
//	93                              array of 3
//	cf a1b2c3d4e5f60718             epoch, uint 64
//	07                              sequence
//	82                              body: map of 2
//	   a3 626964                    "bid"
//	   cb 3ff199999999999a          1.1
//	   a3 717479                    "qty"
//	   cd 03e8                      1000
//
// The mark at sequence 42 of that epoch is 92 cf a1b2c3d4e5f60718 2a. A reader
// accepts every width of the array and the integers; anything that does not
// have one of the three forms is dropped and counted.
//
// # Test vectors
//
// testdata/vectors.json is an array of {name, direction, hex, json, note}. json
// is a string that holds JSON text, so that no reader rounds its numbers; hex
// is msgpack. direction says what holds:
//
//	both             each becomes exactly the other
//	msgpack-to-json  hex becomes json (compact, names in order)
//	json-to-msgpack  json becomes hex
//	refused          error is true; hex or json, whichever is there, is refused
//
// An implementation that chooses other widths for strings, arrays and maps
// compares decoded values. testdata/stream-vectors.json is an array of {name,
// hex, kind, epoch, seq, body, code, reason, note}: kind is data, mark or close;
// epoch and seq are decimal in strings; body is JSON text; an entry with error
// true is refused.
package wire
