// Package platform is the peer that the desktop libraries of Glue42 and io.Connect
// look for when they start: it stands for their container, which is not there. The
// gateway shows it to the sessions of its own node like any other peer. It is in no
// directory, and other machines have their own.
//
// The package owns what the peer offers, the preferences that apps keep, and the
// restrictions of sessions on channels. It does not connect: the gateway brings it
// calls and subscriptions, and does what [Host] says. Channels, contexts and who is
// where belong to the node.
//
// # What it offers
//
//	T42.Channels.Announce    on which channels an app is, and its restrictions there
//	T42.ACS.GetApplications  the running apps of all machines
//	T42.ACS.OnEvent          a stream: the same, and who comes and goes
//	T42.Prefs.Get, .Set      preferences of an app and a user
//	T42.Wnd.OnEvent          a stream: that there are no windows
//	T42.GD.Execute           Node programs announce there that they have started
//
// and some methods that answer at once with rejected, because clients would wait
// for them 90 seconds: see declined. What clients look for first and do without is
// not offered. Two methods go the other way, clients register them and the platform
// calls them: T42.Channels.Command and T42.Prefs.Update.
//
// # Channels
//
// A client subscribes to the context of its channel by itself and then tells the
// platform, which makes it a member for others to see. What a client is on it says
// itself when it is asked, since libraries differ in how they tell; only one that
// does not register T42.Channels.Command is believed. After a client has connected
// anew it is asked too: it does not tell. Several channels are separated by +++.
//
// # Restrictions
//
// A session can be kept from reading or writing channels. In the incumbent only the
// client's library holds to that; here the gateway asks [Platform.Allowed] before
// each write and each push, so that it holds for every client. A session may
// restrict itself and every other session of its node, as in the incumbent: apps of
// one person's desktop trust each other, and a session of another machine cannot be
// named. A restriction lasts until it is lifted or the session ends; one that
// connects anew begins without.
//
// # Preferences
//
// Preferences belong to a user, by login, and an app; every app of the user may
// read and change them. Each is one file of JSON below [Config.Store], mode 0600,
// replaced as a whole and synced before a change is answered, so that a crash leaves
// the old preferences or the new ones. A file that cannot be read is renamed, told
// in the log and left there; the app then begins without preferences. At most 1 MiB
// for an app and 10,000 files.
//
// # Concurrency
//
// All methods are safe for concurrent use. Calls may wait for other clients, 5
// seconds for each answer, and for the fabric. What changes one session happens in
// the order in which the calls come. One goroutine follows the running apps, and
// short ones ask and tell clients; [Platform.Close] ends them and waits. The gateway
// tells of sessions that leave, [Platform.Left], of methods that sessions register,
// [Platform.Registered], and of other running apps, [Platform.AppsChanged].
//
// # Errors
//
// Errors are *wire.Error with a sentence: no-server for a method that is not
// offered, bad-payload for arguments, bad-name for channels, windows and names that
// are not there or cannot be, limit, rejected for what Weft does not do, storage-full
// and unavailable for files, offline after Close, and what the host answers.
//
// To test with it: a Host is seven functions, and platform_test.go has one in memory.
package platform
