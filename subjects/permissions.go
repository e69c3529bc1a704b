package subjects

// Permissions are the subjects that a NATS user may publish and subscribe to.
// Everything else is denied.
type Permissions struct{ Publish, Subscribe []string }

// NodePermissions are the rights of the NATS user of node n in one realm. The
// sender token of everything it publishes is n. It may put into the context
// bucket and read both buckets and the history, but of the directory write only its own
// document and heartbeat, and manifests; it may not read by STREAM.MSG.GET
// nor create, change, purge or delete a stream or a message. It answers
// nodes below _R and plain NATS clients below _INBOX.
func NodePermissions(r Realm, n Node) Permissions {
	self := safe(n)
	context, directory := r.ContextBucket(), r.DirectoryBucket()
	return Permissions{
		Publish: list(
			r.subject(kindCall, one, self, rest),
			r.subject(kindAsk, self, rest),
			r.subject(kindCtl, one, self, rest),
			r.subject(kindData, self, rest),
			r.subject(kindPush, one, self, rest),
			r.subject(kindTopic, self, rest),
			inboxRoot+"*.>",
			clientInbox,
			context.Filter(),
			directory.Subject(NodeKey(n)),
			directory.Subject(LeaseKey(n)),
			directory.Subject(manifestPrefix+rest),
			context.DirectGet(),
			context.DirectGet()+".>",
			context.Info(),
			r.HistoryStream().DirectGet(),
			r.HistoryStream().Info(),
			directory.DirectGet(),
			directory.DirectGet()+".>",
			directory.Info(),
		),
		Subscribe: list(
			r.CallFilter(n),
			r.AskFilter(),
			r.CtlFilter(n),
			r.subject(kindData, rest),
			r.PushFilter(n),
			r.subject(kindTopic, rest),
			r.subject(kindKV, rest),
			context.LeaderElected(),
			Subject(InboxPrefix(n)+".>"),
		),
	}
}

// ClientPermissions are the rights of a plain NATS client in one realm. Its
// name is its sender token: 1 to 63 of [A-Za-z0-9_-], and not the id of a
// node. (Nodes drop what a client with any other name sends.)
//
// A client with the inbox prefix of its name, _R.<name>, has its replies to
// itself. The default prefix _INBOX is allowed too, so that every tool works
// as it comes, and lets such clients read each other's replies: where they
// may not, leave that line out.
func ClientPermissions(r Realm, name string) Permissions {
	self := safe(name)
	return Permissions{
		Publish: list(
			r.subject(kindCall, one, self, rest),
			r.subject(kindAsk, self, rest),
			r.subject(kindCtl, one, self, rest),
			r.subject(kindTopic, self, rest),
		),
		Subscribe: list(
			r.subject(kindData, rest),
			r.subject(kindPush, self, rest),
			r.subject(kindTopic, rest),
			Subject(InboxPrefix(Node(name))+".>"),
			clientInbox,
		),
	}
}

const clientInbox = "_INBOX.>"

func list(subjects ...Subject) []string {
	s := make([]string, len(subjects))
	for i := range subjects {
		s[i] = string(subjects[i])
	}
	return s
}
