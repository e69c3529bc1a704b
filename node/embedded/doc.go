// Package embedded runs a nats-server inside the node's process, so that one
// command on a fresh machine is a working fabric.
//
// # What it owns
//
// The server and its goroutines, the lock on the store directory, the
// credentials of the server and their file, and the decision what happens to a
// store that cannot be opened. The process never exits because of the server.
//
// # What it does not do
//
// It knows nothing of realms, buckets or subjects: the caller's provision
// function makes what the fabric needs. It never clusters, has no monitoring
// port, and is never reachable from another machine. It does not say whether a
// server that [Find] lists answers.
//
// # Start and stop
//
// [Start] goes in this order, each step before what it protects:
//
//  1. lock the store and write a block to it: a second node is told who holds
//     it, and a full disk or a missing right is never taken for damage;
//  2. bind the port for a moment: a taken port is told before JetStream has
//     read the store;
//  3. read or make up the password;
//  4. start nats-server without a listener, set aside what cannot be opened;
//  5. connect in process and provision;
//  6. listen, and write the credentials file: nobody else ever sees a server
//     that is not provisioned, and of two servers that race for one address
//     the one that got it writes the file.
//
// The password is in force from step 4, for the in-process clients too.
// [Server.Shutdown] marks the credentials file as without a process while the
// port is still its own, stops nats-server and waits for it, then releases the
// lock. Close in-process clients first, or they see a disconnect.
//
// # On disk
//
//	<Store>/             0700
//	  jetstream/         0700  nats-server's
//	  jetstream.damaged-<UTC time>/   what could not be opened, same layout
//	  jetstream.opening/ 0700  hard links to the streams while they are opened
//	  lock, holder             package statedir's
//	<Credentials>/       0700  (an existing directory must not be writable by all)
//	  <host>-<port>.json 0600  JSON {url, user, password, node, pid}
//
// The password is made once for an address and used again by every later
// server there, so that clients come back after a restart; delete the file for
// a new one. A file that others can read is refused with [ErrPermissions]. On
// Windows, which has no such modes, the user's profile protects both. A process
// that is killed leaves its temporary store and its holder file behind; neither
// is in anybody's way.
//
// # Damage
//
// nats-server ends its start when the JetStream directory is no usable
// directory, and only warns when it cannot recover one stream and goes on
// without. In the first case the whole JetStream directory is set aside and a
// fresh one tried once; in the second only the streams concerned, so that the
// others keep their data. Both are logged as an error and told by
// [Server.Damaged]. Nothing is deleted, although nats-server itself deletes a
// stream whose message store it cannot open: hard links made before every start
// bring it back. A disk that is full or broken, or too many open files, is
// [ErrStoreUnusable], with which a node goes on without a server and tries again; it and a
// missing right leave the store as it is. Streams that nats-server keeps offline
// because a newer version wrote them stay where they are. What nats-server does
// not notice this package does not either: a message block with flipped or
// missing bytes is opened without the messages in them. A fatal error of nats-server
// after the start ends nothing; [Server.Failed] tells.
//
// # Concurrency
//
// A [Server] may be used from several goroutines and closed from any. Everything
// that Start began has ended when Shutdown returns.
//
// # Testing with it
//
// A test that does not listen runs in a testing/synctest bubble with a zero
// [Config] (NoSync makes file streams fast). Call ats.Register, of
// nats-server/v2/server/ats, in TestMain, and make requests with
// nats.Conn.RequestWithContext. Shut down inside the bubble. A test that
// listens needs real time: set Listen to 127.0.0.1:0 and Credentials to a
// temporary directory, and read [Server.URL].
package embedded
