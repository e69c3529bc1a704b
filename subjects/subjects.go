package subjects

import "strings"

// Subject is a complete NATS subject or filter.
type Subject string

// Verb is what one node asks of another in a ctl request.
type Verb string

// The verbs.
const (
	VerbSubscribe   Verb = "subscribe"   // to a stream of the node's app
	VerbConfirm     Verb = "confirm"     // the first message on the branch has arrived
	VerbUnsubscribe Verb = "unsubscribe" // end a subscription
	VerbCancel      Verb = "cancel"      // stop a running call
	VerbPing        Verb = "ping"        // are you there
	VerbInfo        Verb = "info"        // who are you
)

// AskQueue is the queue group of all nodes on [Realm.AskFilter].
const AskQueue = "weft"

// The token after the realm.
const (
	kindCall  = "call"
	kindAsk   = "ask"
	kindCtl   = "ctl"
	kindData  = "data"
	kindPush  = "push"
	kindTopic = "topic"
	kindKV    = "kv"
)

const (
	one  = "*" // any one token
	rest = ">" // one token or more
)

// CallSubject is where from invokes method of the app on node to.
func (r Realm) CallSubject(to, from Node, app App, method Token) Subject {
	return r.subject(kindCall, safe(to), safe(from), safe(app), method.String())
}

// CallFilter matches all calls to self.
func (r Realm) CallFilter(self Node) Subject {
	return r.subject(kindCall, safe(self), rest)
}

// AskSubject is where from, usually a plain NATS client, calls method by name
// on whichever node takes it.
func (r Realm) AskSubject(from Node, method Token) Subject {
	return r.subject(kindAsk, safe(from), method.String())
}

// AskFilter matches all asks. Nodes subscribe to it in the group [AskQueue].
func (r Realm) AskFilter() Subject { return r.subject(kindAsk, rest) }

// CtlSubject is where from sends a control request to node to.
func (r Realm) CtlSubject(to, from Node, v Verb) Subject {
	return r.subject(kindCtl, safe(to), safe(from), safe(v))
}

// CtlFilter matches all control requests to self.
func (r Realm) CtlFilter(self Node) Subject {
	return r.subject(kindCtl, safe(self), rest)
}

// DataSubject is where owner publishes a branch of a stream of its app, and
// what each subscribed node subscribes to. The default branch is the zero
// Token.
func (r Realm) DataSubject(owner Node, app App, stream, branch Token) Subject {
	return r.subject(kindData, safe(owner), safe(app), stream.String(), branch.String())
}

// PushSubject is where owner sends private data of the subscription sub to
// one subscriber. A subscription id is 1 to 64 of [A-Za-z0-9_-].
func (r Realm) PushSubject(to, owner Node, sub string) (Subject, error) {
	if !isPlain(sub, maxShort) {
		return "", &BadNameError{sub, "a subscription id is 1 to 64 of A-Z, a-z, 0-9, _ and -"}
	}
	return r.subject(kindPush, safe(to), safe(owner), sub), nil
}

// PushFilter matches all private data for self.
func (r Realm) PushFilter(self Node) Subject {
	return r.subject(kindPush, safe(self), rest)
}

// InboxPrefix is the prefix of the reply subjects of n, without a dot at the
// end.
func InboxPrefix(n Node) string { return inboxRoot + safe(n) }

const inboxRoot = "_R."

// subject joins tokens, which must be safe, below the realm.
func (r Realm) subject(kind string, tokens ...string) Subject {
	realm := safe(r)
	size := len(rootToken) + 1 + len(realm) + 1 + len(kind)
	for _, t := range tokens {
		size += 1 + len(t)
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteString(rootToken)
	b.WriteByte('.')
	b.WriteString(realm)
	b.WriteByte('.')
	b.WriteString(kind)
	for _, t := range tokens {
		b.WriteByte('.')
		b.WriteString(t)
	}
	return Subject(b.String())
}

// safe returns s as one token whatever s holds. A checked id stays as it is;
// what a careless conversion such as Node("a.>") let in is escaped, so that
// it can widen no subject, and every parser refuses the result.
func safe[T ~string](s T) string {
	if s == "" {
		return emptyToken
	}
	return escape(string(s))
}
