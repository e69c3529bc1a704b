// Package channels is channels: shared contexts with a colour, which people
// choose in a user interface, and which app is on which.
//
// A channel is the context ___channel___<name> with {name, meta, data}: meta has at
// least a color, data is what is published. Package contexts keeps it. That an
// app is on a channel is announced in the directory, so every node knows who is
// on it and from which machine; package directory keeps that. This package owns
// neither: it has the rules between the two, and one [session] for each local
// app that uses channels.
//
// # The ten defaults
//
// A realm has ten channels from its beginning, Red to Cyan, eight of them with
// the ids of the FDC3 recommendation in meta.fdc3. A node makes them when it has
// come online, one that is hidden when an app first uses channels. That happens
// once in the life of the realm's context bucket, whoever comes first (see
// [contexts.Contexts.Seed]): a default that was removed stays removed. Where it
// fails it is tried again while the node is online, and the log says so; only
// the first use of channels after a connection waits for it.
//
// # On a channel
//
// An app is on one channel or none. [App.Join] leaves the former. It ends with
// [App.Leave], when the app leaves its node, and when somebody removes the
// channel, on whatever machine. What was published stays in the channel, and
// whoever comes later reads it.
//
// Publishing writes each top-level key of the data by itself: apps that publish
// different keys do not disturb each other, on the same key the last one wins.
// A value replaces the one that was there, nothing is merged below a key.
//
// # Watching
//
// A [Watch] made by [App.Watch] goes where the app goes: Joined, a Snapshot of the
// channel, its changes, and Left or Removed. After [App.Join] or [App.Leave] has
// returned, the next read gives nothing of the former channel any more. One made
// by [App.WatchChannel] stays where it is. [App.Events] tells of all channels and
// of everybody on them.
//
// A reader that is slow gets the latest state instead of all on the way, and does
// not hear of a stay on a channel that was over before it got there.
//
// # Errors
//
// bad-name is a channel that is not there, or is there already, a name that cannot
// be, and publishing on no channel. All others are those of package contexts.
// While the fabric is offline, reading and watching go on with what is known,
// joining a channel that is known works and is announced on the return, and
// whatever writes is refused with offline.
//
// # Concurrency
//
// All methods are safe for concurrent use; a watch has one reader at a time.
// Whoever made a watch closes it; an app that leaves has its watches closed. The
// package has a goroutine for each app that is on a channel and one that makes
// the defaults; [Channels.Close] waits for them. To test with it: start nodes on
// one in-process server in a testing/synctest bubble, as node/channels_test.go.
package channels
