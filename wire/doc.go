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
//	Weft-Id           call, ask                 22-character id of the call, from the caller; the
//	                                            server's node refuses an id that it has seen from
//	                                            the same caller (optional)
//	Weft-Deadline     call, ask                 milliseconds left when it was sent, in decimal, from
//	                                            each node that sends or forwards; never a clock time
//	                                            (optional; 30000 if absent, at most 600000)
//	Weft-App          call, topic               id of the calling or publishing app, from its node
//	Weft-Caller       call                      node of the real caller, from the node that forwards
//	                                            an ask
//	Weft-Name         any, and puts of the      the name whose token in the subject is a hash,
//	                  root of a context         spelled as subjects.EscapeName does (=XX for every
//	                                            byte outside [A-Za-z0-9_-]; of a topic the whole
//	                                            name, "." as =2E), from the sender; the receiver
//	                                            verifies it
//	Weft-Op           context write             operation id, from the writing node; the Nats-Msg-Id
//	                                            is this id, a dot and the key
//	Weft-By           context write             <app>@<node> of the writer, from the node; @<node>
//	                                            where a node writes by itself
//	Weft-Who          context write             <application>.<user>.<machine> of the writing app,
//	                                            each of at most 128 bytes and spelled as Weft-Name
//	                                            is, from the node; absent where a node writes
//	Weft-Time         context write             the server's time when it was sent, as the node
//	                                            knows it, RFC 3339
//	Weft-As-Of        context write             sequence at which the value takes its place, decimal
//	Weft-Compact      context write             on a marker: its key has no write any more; on a put
//	                                            of the root: the revision that it holds; decimal
//	Weft-Read         context write             on a put of the root with Weft-Compact: it holds all
//	                                            that the context was at this sequence; decimal
//	Weft-Seen         context write             the highest sequence of the context's keys that the
//	                                            writer knew of: a reader that has less has missed
//	                                            something; decimal, ignored unless below the write's
//	Weft-Error-Code   reply                     a code of the list below, from the server's node
//	Weft-Error        reply                     a sentence for people, at most 4 KiB
//	Content-Type      call, ask, reply, topic,  form of the body, from the sender
//	                  context write
//	Weft-Routing-Key  topic                     routing key, from the publishing app
//	Weft-Target       topic                     whom the message is for, from the publishing app: a
//	                                            JSON object of identity properties that must all be
//	                                            equal, at most 4 KiB
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
// epoch is a random unsigned integer, new for each start of a publisher's
// stream; writers keep it below 2^53, readers accept 64 bits. seq is an
// unsigned integer that counts the items of a branch (on a push subject: of the
// subscription) within the epoch, from 1; it is 0 in a mark when there was none
// yet. A seq more than one above the last
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
// # Calls
//
// A call is a NATS request to weft.<realm>.call.<node>.<caller>.<app>.<method>,
// where node and app are the server's as the directory has them, and method is
// the token of the name as the server spells it. Names are compared without
// regard to case, so whoever resolves a name looks the server's spelling up. An
// ask, weft.<realm>.ask.<caller>.<method>, is resolved by the node that gets it
// and takes any spelling. The body is the arguments, the reply's body the
// result or, with Weft-Error-Code, nothing. NATS answering 503 (no responders)
// means that nobody got the call: another server may be tried. A caller that
// gives up sends cancel (below). A caller may call by ask or directly; it needs
// no entry in the directory. An id that is repeated to the same server by the
// same caller is refused with rejected; an ask that is repeated may be resolved
// to another server, which does not know the id.
//
// # Control messages
//
// On weft.<realm>.ctl.<node>.<caller>.<verb>, as NATS requests; request and reply
// are msgpack maps with these names. A refusal is a reply with Weft-Error-Code.
//
//	verb         request                                        reply
//	ping         (empty)                                        {node, boot}
//	info         {manifest: hash}                               {manifest: bin}
//	cancel       {id: the call's Weft-Id}                       (empty)
//	subscribe    {id, app, server, stream, args?, resume?}      {branch, epoch}
//	confirm      {id, epoch, seq, after?}                       {items?: [{seq, body}]}
//	unsubscribe  {id}                                           (empty)
//
// cancel and unsubscribe may be published without a reply subject.
// subscribe answers busy when too many wait for the publisher's decision;
// confirm answers bad-payload for another epoch or a sequence that the branch
// has not reached. id of a subscription is chosen by the subscriber, 1 to 64 of [A-Za-z0-9_-], best 22
// random ones. app is the subscribing app, empty if it is not in the directory;
// server is the app that owns the stream; args, and body of an item, are one
// embedded msgpack value.
//
// # Subscribing to a stream
//
//  1. Subscribe to weft.<realm>.push.<self>.> on NATS, once, for private data and
//     closings.
//  2. Send subscribe to the node of the app that offers the stream. The answer
//     is the branch, or rejected with the publisher's reason.
//  3. Subscribe to weft.<realm>.data.<node>.<server>.<stream>.<branch>. The node
//     repeats a mark there, after 2 ms and then at intervals that double up to
//     500 ms. Ignore items until the first mark of the epoch has come.
//  4. Answer the mark with confirm, seq being the mark's, after 0. The reply is
//     the snapshot: what the stream keeps up to seq. The subscription is
//     contiguous from seq: hold items above it back until the reply is there.
//     A subscription that is not confirmed within 30 s is dropped.
//  5. An item with the next sequence is delivered. An item further ahead, or a
//     mark above the last sequence, is a gap: send confirm with after = the last
//     sequence that you have and seq = the last one missing; deliver the items
//     of the reply, and announce what they do not cover as missing.
//  6. An idle branch repeats its mark every 5 s. After 15 s without a message,
//     and after each reconnect, send subscribe again with the same id and
//     resume: the node answers and marks the branch at once. Where the answer
//     to resume or confirm is target-gone the node has forgotten the
//     subscription: subscribe again under a new id.
//  7. A subscriber that is not in the directory resumes at least every 30 s, or
//     is dropped.
//  8. A close message on the push subject ends the subscription; seq is that of
//     the last private item. The node marks the branch just before it, so a
//     lost tail shows; what NATS delivered before the close still counts. To end a subscription yourself, send unsubscribe.
//
// # The directory
//
// The bucket weft_<realm>_dir (stream KV_weft_<realm>_dir, in memory: after a
// restart of its servers it is empty and its sequences begin again) holds
//
//	n.<node>      the node's document
//	if.<hash>     a manifest: {methods: [...]}
//	lease.<node>  the node's lease
//
// A document is a map {v: 1, node, boot, machine, host, user, version, hidden?,
// clockOffset, apps: [{identity, manifests?: [hash], channels?: [name]}]}. node equals the key; boot is
// 1 to 32 of [a-z0-9], new for each start; clockOffset is the wall clock minus
// the server's in ms. identity is {application, applicationName?, instance?, pid?,
// windowId?, environment?, region?, service?, api?, user, machine, node, app}; app
// is the app's id, "<boot>-<number>" with the document's boot; readers take user,
// machine and node from the document. channels are the channels that the app has
// joined, at most 64, each once: name stands for the context ___channel___<name>. A method is {name, accepts?, returns?,
// displayName?, description?, objectTypes?, version?, streaming?, flags?}; a stream is
// one with streaming true. hash is the first 26 characters of the lower-case
// base32 of the SHA-256 of the manifest's bytes; a manifest is put with Nats-TTL
// 24h and again every 8 h while it is named.
//
// To read the directory: subscribe to weft.<realm>.kv.dir.n.*, then request
// {"multi_last":["$KV.weft_<realm>_dir.n.*"],"batch":1000} from
// $JS.API.DIRECT.GET.KV_weft_<realm>_dir, and read replies until one has Status 204
// (404: there is none). Headers of both: Nats-Subject (the key), Nats-Sequence;
// a removal has KV-Operation PURGE or DEL, or Nats-Marker-Reason. Apply what has a
// higher sequence for its key. A removal with Nats-Scheduler counts only if that
// is the lease of the same node, and then only means: ask the node by ping.
//
// To be a node (to serve methods or own streams), in this order: ping your own
// id (an answer with another boot: it is taken); subscribe to
// weft.<realm>.call.<self>.> and .ctl.<self>.> and answer ping; put the lease; put the
// manifests; put the document. The lease is an empty message to
// $KV.weft_<realm>_dir.lease.<self>, repeated every 3 s, with
//
//	Nats-Schedule         @at <the server's time + 10 s, RFC 3339>
//	Nats-Schedule-Target  $KV.weft_<realm>_dir.n.<self>
//	Nats-Schedule-TTL     10m0s
//	KV-Operation          PURGE
//
// The server's time is ts in the answer of $JS.API.STREAM.INFO.<stream>, carried
// on by a monotonic clock. Put the document again after each change, each
// reconnect, and when it was purged. To leave, publish n.<self> and then
// lease.<self> with KV-Operation PURGE, Nats-Rollup sub and Nats-TTL 10m0s.
// Answering asks (queue group "weft" on weft.<realm>.ask.>) is for nodes that
// know the whole directory; it is optional.
//
// # JavaScript
//
// @msgpack/msgpack refuses the key __proto__, writes lone surrogates as invalid
// UTF-8 (use String.prototype.toWellFormed first), and with useBigInt64 writes
// integers from 2^32 on as floats unless they are BigInt.
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
