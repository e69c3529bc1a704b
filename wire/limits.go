package wire

import "time"

// The limits of Weft, in one place. Writer and reader both enforce them; what
// is above one is refused with a [Limit] error that says the limit, the value
// and the name, unless the comment says otherwise.
const (
	// PayloadReserve is what a body leaves of the server's max_payload for
	// headers and subjects.
	PayloadReserve = 64 << 10
	// BulkBody is the size above which a node sends a body on its data
	// connection, so that bulk does not delay calls.
	BulkBody = 64 << 10

	// MaxApps is how many apps a node carries.
	MaxApps = 512
	// MaxMethods is how many methods and streams an app offers.
	MaxMethods = 1000
	// MaxChannels is how many channels an app has joined at a time.
	MaxChannels = 64
	// MaxDomains is how many domains of the gateway's protocol there can be.
	MaxDomains = 8
	// MaxRestrictions is how long an expression that restricts may be.
	MaxRestrictions = 1024
	// MaxMembers is how many members an object may have that is read as a message.
	MaxMembers = 64
	// MaxDetail is how long the JSON object may be that gateway clients attach to a
	// call, a subscription or an error.
	MaxDetail = maxText
	// MaxExtra is how long the further claims of an identity may be.
	MaxExtra = 1 << 10
	// MaxDefinition is how many bytes a gateway client's definition of a method may
	// have, and MaxDefinitions all those of one client together.
	MaxDefinition  = 16 << 10
	MaxDefinitions = 512 << 10
	// MaxHolds is how many ref-counted contexts an app keeps alive.
	MaxHolds = 1000
	// MaxSubscriptions is how many stream and topic subscriptions an app has.
	MaxSubscriptions = 2000
	// MaxPendingCalls is how many calls of an app may be in flight, and how
	// many an app serves at a time; above it the answer is [Busy].
	MaxPendingCalls = 1000
	// MaxBranches is how many branches a stream has.
	MaxBranches = 10_000
	// MaxSnapshot is how many messages per branch a stream may keep, and
	// MaxSnapshotBytes how large they may be together; the oldest go first.
	MaxSnapshot      = 1000
	MaxSnapshotBytes = 512 << 10

	// CallTimeout is how long a call waits for its result unless told
	// otherwise, MaxCallTimeout the longest that may be asked for.
	CallTimeout    = 30 * time.Second
	MaxCallTimeout = 10 * time.Minute
	// CallMemory is how long a node remembers a call's id, to refuse it when
	// it comes twice; MaxCallMemory is how many ids it remembers, the newest.
	CallMemory    = MaxCallTimeout
	MaxCallMemory = 1 << 17

	// MaxContext is how many bytes of msgpack a context's object may have, or
	// what a message may carry if that is less. Concurrent writers can end a
	// little above it; it may then only shrink.
	MaxContext = 1 << 20
	// MaxContexts is how many contexts a realm has.
	MaxContexts = 10_000
	// MaxContextKeys is how many paths one operation may write.
	MaxContextKeys = 500
	// WriteTimeout is how long a context write waits for a stream that has no
	// leader, unless the caller's context ends before.
	WriteTimeout = 30 * time.Second
	// WatchStates is how many states of a context wait for one slow watch, and
	// WatchBytes how large they may be together; above either it gets only the
	// latest.
	WatchStates = 256
	WatchBytes  = 16 << 20

	// QueueMessages and QueueBytes bound what waits for one slow subscriber;
	// above them it gets a gap notice for what was dropped.
	QueueMessages = 10_000
	QueueBytes    = 16 << 20
)

// CheckSize refuses a body above what a message may carry. name says what it
// is a body of.
func CheckSize(name string, size int, maxPayload int64) error {
	if most := int(maxPayload) - PayloadReserve; size > most {
		return Errorf(Limit, "%s: %d bytes, the limit is %d (max_payload of the NATS server less %d)", name, size, most, PayloadReserve)
	}
	return nil
}
