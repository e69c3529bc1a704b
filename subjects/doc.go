// Package subjects makes NATS subjects and KV keys from names and names from
// subjects and keys. Together with package wire, which describes headers and
// bodies, this page is the wire specification: a client in another language
// needs no more.
//
// The package owns the grammar: the alphabets and limits of ids, the encoding
// of names, every subject, bucket, key and inbox prefix, and the lists of
// subjects that a NATS user may use. No other package joins such strings
// itself. It does not connect, send, store or route, and it decides nothing:
// a permission here is a list of subjects that NATS enforces.
//
// All functions are pure and safe to call from any goroutine; nothing is to
// be closed. The package exports more names than others of this module
// because each kind of subject has its own builder, parser and type, so that
// mixed-up arguments do not compile.
//
// # Alphabets and limits
//
//	id            grammar                                        bytes
//	realm         a-z 0-9 -, no - at either end                  1 to 63
//	node          a-z 0-9 -, no - at either end                  1 to 63
//	owner         the node id of a publishing app
//	caller        A-Z a-z 0-9 _ -  (a node id, or the name
//	              of a plain NATS client)                        1 to 63
//	app           <boot>-<n>: boot is a-z 0-9, n a decimal       boot 1 to 32,
//	              number without leading zeros                   n below 2^64
//	subscription  A-Z a-z 0-9 _ -                                1 to 64
//	hash          of a manifest: A-Z a-z 0-9 _ -                 1 to 64
//	verb          subscribe confirm unsubscribe cancel ping info
//	name          any UTF-8 text; see below                      0 to 255
//	subject       one that begins with weft.                     at most 1024
//	key           without its $KV.<bucket>. prefix               at most 1024
//
// Letters are ASCII and case counts. A receiver drops whatever does not match
// this page exactly.
//
// # Names
//
// The names of methods, streams, branches, contexts and topics are chosen by
// people and may hold anything. Each becomes one token:
//
//   - The bytes A-Z a-z 0-9 _ and - stand for themselves.
//   - Every other byte of the UTF-8 text is = and two upper-case hex digits.
//   - The empty name is a single =.
//   - If the result is longer than 96 characters the token is instead =h and
//     the first 26 characters of the base32 form (RFC 4648, in lower case) of
//     the SHA-256 of the name. The name itself then travels in the header
//     Weft-Name, spelled like a token but without the length limit (=XX for
//     every byte that does not stand for itself, "." included); a receiver
//     checks that it gives the same token. Stream data
//     has no headers: its receiver subscribed to the token and knows the name.
//   - A name over 255 bytes, or one that is not valid UTF-8, is refused: the
//     error is bad-name.
//
// Examples:
//
//	name                  token
//	GetPortfolio          GetPortfolio
//	T42.Demo              T42=2EDemo
//	___channel___Red      ___channel___Red
//	(empty)               =
//	*                     =2A
//	50 %                  50=20=25
//	a=b                   a=3Db
//	Zürich                Z=C3=BCrich
//	a, 97 times           =hfiwgb7uwv6wjcuouxwjs7w2fxy
//
// For the last one, the SHA-256 is
//
//	2a2c60fe96afac9151d4bd932fdb45be2c7e175e02b0598426cac15c38511cb4
//
// The encoding is reversible and case-preserving, and two names never share a
// token; of hashed ones, not short of a 130-bit collision. A token has one
// spelling: a decoder refuses =41 (A stands for itself), =2e (lower case) and
// bytes that are not UTF-8. A hash cannot be taken for an escape, because h is
// not a hex digit.
//
// # Subjects
//
// <name> in angle brackets is an id or a token as above; "request" has a
// reply, "publish" has none.
//
//	weft.<realm>.call.<node>.<caller>.<app>.<method>
//	    request. The caller invokes a method of one app, which runs on node.
//	    Each node subscribes to weft.<realm>.call.<self>.>
//
//	weft.<realm>.ask.<caller>.<method>
//	    request. A plain NATS client calls a method by its name. All nodes
//	    subscribe to weft.<realm>.ask.> in the queue group "weft"; the one
//	    that gets the request chooses the app and forwards it.
//
//	weft.<realm>.ctl.<node>.<caller>.<verb>
//	    request. Node to node: subscribe to a stream, confirm that its data
//	    arrives, unsubscribe, cancel a call, ping, info.
//	    Each node subscribes to weft.<realm>.ctl.<self>.>
//
//	weft.<realm>.data.<owner>.<app>.<stream>.<branch>
//	    publish. The owner, the publishing app's node, sends one branch of a
//	    stream of its <app>. Each node with a subscriber subscribes to exactly
//	    this subject. The default branch is the empty name, so the token =.
//
//	weft.<realm>.push.<caller>.<owner>.<subscription>
//	    publish. The owner sends private data and closings to one subscriber,
//	    the caller that asked for the stream.
//	    Each node subscribes to weft.<realm>.push.<self>.>
//
//	weft.<realm>.topic.<caller>.<topic>
//	    publish. The topic is split at each '.' and its parts, encoded one by
//	    one, are the tokens: prices.EU/ann is prices.EU=2Fann. To subscribe,
//	    weft.<realm>.topic.*.<pattern>, where a part of the pattern that is
//	    just * matches any one token and a last part that is just > one or
//	    more. Anything else, such as a*, is a literal. If any token is a
//	    hash, Weft-Name holds the whole topic.
//
//	weft.<realm>.kv.ctx.<key>    weft.<realm>.kv.dir.<key>
//	    The server repeats here, at most once, what is put into the two
//	    buckets. Only the server publishes. Nodes subscribe to the keys that
//	    they need.
//
//	_R.<node>.<anything>
//	    The replies to a node's requests; _R.<node> is its inbox prefix. A
//	    plain NATS client uses _INBOX or, better, _R.<its name>.
//
// In call, ask, ctl and topic <caller>, and in data and push <owner>, names
// the sender. NATS permissions hold it to the truth where each node and
// client has a NATS user of its own; [NodePermissions] and
// [ClientPermissions] are those permissions. The name of a client must not be
// the id of a node.
//
// # Buckets and keys
//
// A realm has two KV buckets. The stream of a bucket is KV_<bucket>, a key is
// stored at $KV.<bucket>.<key>, and a read that any replica may answer goes
// to $JS.API.DIRECT.GET.KV_<bucket>, or to that, a dot and the subject of the
// key for its last value. A key is tokens of A-Z a-z 0-9 _ - = / separated by
// single dots.
//
//	bucket              key                       holds
//	weft_<realm>_ctx    <context>./               the object of a context
//	                    <context>.//              its metadata
//	                    <context>.<p1>...<pN>     the value at a path in it
//	weft_<realm>_dir    n.<node>                  the document of a node
//	                    lease.<node>              its heartbeat
//	                    if.<hash>                 a method manifest
//
// The stream weft_<realm>_history keeps what was written to the context bucket,
// under the same subjects; it is read at $JS.API.DIRECT.GET.weft_<realm>_history.
//
// The context bucket is republished from $KV.weft_<realm>_ctx.> to
// weft.<realm>.kv.ctx.>, of the directory bucket only the documents, from
// $KV.weft_<realm>_dir.n.> to weft.<realm>.kv.dir.n.>
//
// <context> and the segments of a path are encoded names. A / cannot occur in
// one, so the root keys of all contexts are *./ and nothing else matches. A
// context name may be hashed; a segment may not. A path that has a longer
// segment, more than 16 segments, or would make a key over 1,024 bytes has no
// key of its own: its value is written as part of its nearest ancestor's.
//
// # Reserved
//
// First tokens: weft, _R, and what NATS keeps for itself ($..., _INBOX).
// After weft.<realm>: call, ask, ctl, data, push, topic and kv; further words
// may be added, and clients ignore what they do not know. Contexts named
// ___channel___<Name> are channels. The context without a name is none: keys
// below it are marks that nodes leave each other (=.channels: the default
// channels were made). Buckets named weft_... belong to Weft.
//
// # Errors
//
// Every error is a [*BadNameError] and matches [ErrBadName]. A Realm, Node, App
// or Verb that was converted from a string instead of parsed cannot widen a
// subject: a builder escapes what is not legal in it, and no parser accepts
// the result. A Key or Bucket is used as it is.
//
// # Testing
//
// The package needs nothing to test with: call it. "go test -fuzz=FuzzEncode"
// and the other fuzz targets check that no name makes a wildcard, a dot, a
// '$', a space or a control byte, and that each parser accepts only what its
// builder makes.
package subjects
