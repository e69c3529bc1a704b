// Package edge is the door of the gateway: it listens, decides who may connect,
// and turns accepted WebSockets into fast connections.
//
//	e, err := edge.Open(edge.Config{Listen: []string{"127.0.0.1:8385"}, TokenFile: file})
//	err = e.Serve(ctx, func(ctx context.Context, c *edge.Conn) {
//		frame, err := c.Read(ctx)  // until err; then return
//		grant, err := e.Authenticate(c, edge.Credentials{Method: "secret", Login: login, Secret: secret})
//		err = c.Write(reply, announcement)
//	})
//
// # What it owns
//
// The listeners, the token file, the tokens it has made, every check before and
// including authentication, the limits of a connection, its keepalive, and the
// log lines of refusals.
//
// # What it does not do
//
// It knows nothing of the messages: it does not parse JSON, does not answer a
// hello, does not wait for one, and queues nothing. It keeps no list of
// connections for others. It speaks no TLS, because it listens on the loopback
// interface alone.
//
// # Who may connect
//
// Each check comes before everything below it:
//
//  1. The OS user of the client's process is the node's. The kernel's table of
//     sockets says so, at accept, before a byte is read: netlink or /proc on
//     Linux, the table of TCP connections and the process's token on Windows
//     (there also in the same session), the list of sockets on macOS. Who
//     cannot be told is refused. Root is not another user's friend either.
//  2. There are not too many connections.
//  3. The Host header is one of ours, exactly. A page that points its own name at
//     127.0.0.1 comes with that name.
//  4. The Origin header is missing, or one of Config.Origins byte for byte.
//     Browsers always send one, native apps do not.
//  5. There are not too many connections of that Origin.
//  6. The client authenticates, when its hello has come: [Edge.Authenticate].
//
// 1, 3 and 4 are answered with HTTP 403, 2 and 5 with 503, and a request that is
// no WebSocket handshake with what the WebSocket library says. Refusals before
// the request is read are written and the connection closed; a client that
// still sends may see a reset in place of the answer.
//
//	                         os-user                       token
//	secret, no Origin        any secret, also empty        the file's token
//	secret, allowed Origin   the file's token              the file's token
//	access-token             the file's token, or one of Grant.AccessToken
//	gateway-token            one of GatewayToken: once, within 30 s, same Origin
//
// Comparisons of secrets take the same time whether they match or not. Nothing
// secret is logged. A client may try again on the same connection; a token has
// 256 random bits, so the number of tries is not what protects it.
//
// # The token file
//
// It holds one line: 43 characters of base64url. Its directory is made with mode
// 0700, the file with 0600, and it is refused with [ErrTokenFile] if other users
// can read or write it, if it is another user's, or if others may write in the
// directory. On Windows the file's access list names this user alone. Access
// tokens are signed with a key made from the token: they stay good when the node
// starts again, and end when the file is deleted for a new token.
//
// # Connections
//
// [Conn.Write] makes a batch of messages one system call, and [Conn.Read] takes
// many small frames from the kernel with one. Reading, fragments, control frames
// and the closing handshake are the work of the WebSocket library; text frames
// to the client are put together here, because the library flushes each.
// Compression is never negotiated. Any path and query is accepted; of the
// sub-protocols that a client offers the first is answered.
//
// Contexts that are given to Read again and again should be the same one:
// watching a new one costs more than reading a small frame.
//
// # Concurrency
//
// An [Edge] may be used from any goroutine. Serve runs each handle function in a
// goroutine of its own, and waits for all of them. Of a [Conn], Read is for one
// goroutine at a time, and not after handle has returned; the rest is for any.
// Writes of several goroutines are not mixed, and come in the order of the calls.
//
// # Errors and limits
//
// Errors of Open are of package wire, with [ErrNotLoopback], [ErrPortTaken] or
// [ErrTokenFile] where a program may want to know. Errors of a connection are
// described at [Conn], those of authentication at [AuthError]. Limits are
// constants of this package; above each is what happens beyond it.
//
// # Testing with it
//
// Listen on 127.0.0.1:0 and read [Edge.Addresses]; a test's own connection is of
// the right user. Put the token file into a directory below t.TempDir(), and end
// the context of Serve at the end of the test. Connections are real, so that no
// part of it runs in a testing/synctest bubble, but for the limiting of log lines.
package edge
