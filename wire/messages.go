package wire

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
)

// Raw is one msgpack value that is passed on without being decoded.
type Raw = msgpack.RawMessage

// DocVersion is the version of [NodeDoc]. Readers ignore fields that they do
// not know and refuse a document with a higher version.
const DocVersion = 1

// Identity is what an app says of itself, and what its node stamps on it. The
// node overwrites OSUser, Machine, Node and App; the rest is the app's claim.
// User is who has logged in: of a gateway client the login that it stated, of
// any other app the operating system's user. Decide by OSUser.
type Identity struct {
	Application     string `msgpack:"application" json:"application"`
	ApplicationName string `msgpack:"applicationName,omitempty" json:"applicationName,omitempty"`
	Instance        string `msgpack:"instance,omitempty" json:"instance,omitempty"`
	PID             int    `msgpack:"pid,omitempty" json:"pid,omitempty"`
	WindowID        string `msgpack:"windowId,omitempty" json:"windowId,omitempty"`
	Environment     string `msgpack:"environment,omitempty" json:"environment,omitempty"`
	Region          string `msgpack:"region,omitempty" json:"region,omitempty"`
	Service         string `msgpack:"service,omitempty" json:"service,omitempty"`
	API             string `msgpack:"api,omitempty" json:"api,omitempty"`

	User string `msgpack:"user,omitempty" json:"user,omitempty"`
	// Extra is what else a gateway client says of itself: the text of a JSON
	// object, "" for nothing. It is a string so that identities can be compared.
	Extra string `msgpack:"extra,omitempty" json:"extra,omitempty"`

	OSUser  string `msgpack:"osUser,omitempty" json:"osUser,omitempty"`
	Machine string `msgpack:"machine,omitempty" json:"machine,omitempty"`
	Node    string `msgpack:"node,omitempty" json:"node,omitempty"`
	App     string `msgpack:"app,omitempty" json:"app,omitempty"`
}

// property returns what an identity filter compares, and whether identities
// have such a property.
func (id *Identity) property(name string) (string, bool) {
	switch strings.ToLower(name) {
	case "application":
		return id.Application, true
	case "applicationname":
		return id.ApplicationName, true
	case "instance":
		return id.Instance, true
	case "pid", "process":
		return strconv.Itoa(id.PID), true
	case "windowid":
		return id.WindowID, true
	case "environment":
		return id.Environment, true
	case "region":
		return id.Region, true
	case "service":
		return id.Service, true
	case "api":
		return id.API, true
	case "user", "login":
		return id.User, true
	case "osuser":
		return id.OSUser, true
	case "machine":
		return id.Machine, true
	case "node":
		return id.Node, true
	case "app":
		return id.App, true
	}
	return "", false
}

// Attribute is what a restriction compares: a string, a number or a boolean. The
// names are those that gateway clients see, further claims among them.
func (id *Identity) Attribute(name string) (value any, found bool) {
	text := func(s string) (any, bool) { return s, s != "" }
	switch name {
	case "application":
		return text(id.Application)
	case "applicationName":
		return text(id.ApplicationName)
	case "instance":
		return text(id.Instance)
	case "windowId":
		return text(id.WindowID)
	case "environment":
		return text(id.Environment)
	case "region":
		return text(id.Region)
	case "service":
		return text(id.Service)
	case "api":
		return text(id.API)
	case "user", "login":
		return text(id.User)
	case "osUser":
		return text(id.OSUser)
	case "machine":
		return text(id.Machine)
	case "node":
		return text(id.Node)
	case "process", "pid":
		return float64(id.PID), id.PID > 0
	}
	return id.claimed(name)
}

// claimed is a further claim that is no object or array.
func (id *Identity) claimed(name string) (value any, found bool) {
	if id.Extra == "" {
		return nil, false
	}
	members, err := JSONMembers(nil, []byte(id.Extra))
	if err != nil {
		return nil, false
	}
	for _, m := range members {
		if m.Name != name {
			continue
		}
		if s, ok := JSONString(m.Value); ok {
			return s, true
		}
		switch string(m.Value) {
		case "true":
			return true, true
		case "false":
			return false, true
		}
		n, err := strconv.ParseFloat(string(m.Value), 64)
		return n, err == nil
	}
	return nil, false
}

// claim is a further claim as text: a string's, or the JSON text of anything else.
func (id *Identity) claim(name string) (text string, found bool) {
	if id.Extra == "" {
		return "", false
	}
	members, err := JSONMembers(nil, []byte(id.Extra))
	if err != nil {
		return "", false
	}
	for _, m := range members {
		if m.Name == name {
			if s, ok := JSONString(m.Value); ok {
				return s, true
			}
			return string(m.Value), true
		}
	}
	return "", false
}

// Filter selects identities: every named property must be equal, without
// regard to case. A name that is no property is looked for in the further claims.
// An empty filter selects all.
type Filter map[string]string

// Check refuses names of which only further claims could be meant.
func (f Filter) Check() error {
	var id Identity
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if _, ok := id.property(name); !ok {
			return Errorf(BadPayload, "an identity has no property %q: use application, applicationName, instance, pid, windowId, environment, region, service, api, user, osUser, machine, node or app", name)
		}
	}
	return nil
}

// Match says whether the filter selects id.
func (f Filter) Match(id *Identity) bool {
	for name, want := range f {
		got, ok := id.property(name)
		if !ok {
			got, ok = id.claim(name)
		}
		if !ok || !strings.EqualFold(got, want) {
			return false
		}
	}
	return true
}

// Method describes a method, or with Streaming a stream. Two definitions with
// equal Name, Accepts and Returns are the same method. The last three fields are
// those of gateway clients.
type Method struct {
	Name        string         `msgpack:"name" json:"name"`
	Accepts     string         `msgpack:"accepts,omitempty" json:"accepts,omitempty"`
	Returns     string         `msgpack:"returns,omitempty" json:"returns,omitempty"`
	DisplayName string         `msgpack:"displayName,omitempty" json:"displayName,omitempty"`
	Description string         `msgpack:"description,omitempty" json:"description,omitempty"`
	ObjectTypes []string       `msgpack:"objectTypes,omitempty" json:"objectTypes,omitempty"`
	Version     int            `msgpack:"version,omitempty" json:"version,omitempty"`
	Streaming   bool           `msgpack:"streaming,omitempty" json:"streaming,omitempty"`
	Flags       map[string]any `msgpack:"flags,omitempty" json:"flags,omitempty"`

	// ID is what the offering app calls the method, unique in it.
	ID string `msgpack:"id,omitempty" json:"id,omitempty"`
	// Restrictions is an expression, see package restriction: an app for which
	// it does not hold does not see the method and cannot call it.
	Restrictions string `msgpack:"restrictions,omitempty" json:"restrictions,omitempty"`
	// Extra is what else the definition says: the text of a JSON object.
	Extra string `msgpack:"extra,omitempty" json:"extra,omitempty"`
}

// Manifest is an immutable list of methods, kept in the directory bucket under
// the hash of its bytes and fetched once by each node.
type Manifest struct {
	Methods []Method `msgpack:"methods"`
}

// AppDoc is one app in its node's document.
type AppDoc struct {
	Identity Identity `msgpack:"identity"`
	// Manifests are the hashes of the manifests with the app's methods.
	Manifests []string `msgpack:"manifests,omitempty"`
	// Channels are the names of the channels that the app has joined.
	Channels []string `msgpack:"channels,omitempty"`
	// Domains are the domains of the gateway's protocol that a client has joined,
	// each with its restrictions, "" for none. It is nil for every other app:
	// those take part in everything.
	Domains map[string]string `msgpack:"domains"`
	// Holds are the ref-counted contexts that the app keeps alive.
	Holds []string `msgpack:"holds,omitempty"`
}

// NodeDoc is a node's document in the directory: who is on it and what they
// offer. The node is its only writer.
type NodeDoc struct {
	V       int    `msgpack:"v"`
	Node    string `msgpack:"node"`
	Boot    string `msgpack:"boot"`
	Machine string `msgpack:"machine"`
	Host    string `msgpack:"host"`
	User    string `msgpack:"user"`
	Version string `msgpack:"version"`
	// Hidden marks a command-line tool: listed only when asked for.
	Hidden bool `msgpack:"hidden,omitempty"`
	// ClockOffset is the machine's wall clock minus the server's, in ms.
	ClockOffset int64    `msgpack:"clockOffset"`
	Apps        []AppDoc `msgpack:"apps,omitempty"`
}

// SubscribeRequest asks a stream's node for a subscription, or with Resume for
// the continuation of one that it knows.
type SubscribeRequest struct {
	// ID is the subscription's id, chosen by the subscriber.
	ID string `msgpack:"id"`
	// App is the subscribing app, Server the app that owns the stream.
	App    string `msgpack:"app"`
	Server string `msgpack:"server"`
	Stream string `msgpack:"stream"`
	// Args are the subscription's arguments: one msgpack value, or absent.
	Args   Raw  `msgpack:"args,omitempty"`
	Resume bool `msgpack:"resume,omitempty"`
	// Detail is a JSON object that a gateway client sent beside the arguments.
	Detail string `msgpack:"detail,omitempty"`
}

// SubscribeReply accepts a subscription. A refusal is an error reply.
type SubscribeReply struct {
	Branch string `msgpack:"branch"`
	Epoch  uint64 `msgpack:"epoch"`
}

// ConfirmRequest tells a stream's node that a mark arrived: the subscription
// is contiguous from Seq on. After is the last sequence that the subscriber
// has in this epoch, 0 for none.
type ConfirmRequest struct {
	ID    string `msgpack:"id"`
	Epoch uint64 `msgpack:"epoch"`
	Seq   uint64 `msgpack:"seq"`
	After uint64 `msgpack:"after,omitempty"`
}

// ConfirmReply carries the snapshot: what the stream keeps of the sequences
// above After up to Seq, oldest first.
type ConfirmReply struct {
	Items []SnapshotItem `msgpack:"items,omitempty"`
}

// SnapshotItem is one kept message of a branch. Live says that it was pushed while
// the subscription was being made, and is no part of the past; Private is then the
// sequence of the private data that went before it.
type SnapshotItem struct {
	Seq  uint64 `msgpack:"seq"`
	Body Raw    `msgpack:"body"`
	Live bool   `msgpack:"live,omitempty"`

	Private uint64 `msgpack:"private,omitempty"`
}

// UnsubscribeRequest ends a subscription. Left says that the app has left.
type UnsubscribeRequest struct {
	ID   string `msgpack:"id"`
	Left bool   `msgpack:"left,omitempty"`
}

// CancelRequest tells a call's server that nobody waits for its result.
type CancelRequest struct {
	ID string `msgpack:"id"`
}

// PingReply says who is there.
type PingReply struct {
	Node string `msgpack:"node"`
	Boot string `msgpack:"boot"`
}

// InfoRequest asks a node for a manifest that the directory bucket lost.
type InfoRequest struct {
	Manifest string `msgpack:"manifest"`
}

// InfoReply carries the manifest's bytes, which hash to its name.
type InfoReply struct {
	Manifest []byte `msgpack:"manifest"`
}
