package edge

import "time"

// The limits of the edge, in one place. What is above one is refused, and the
// refusal says which.
const (
	// MaxConnections is how many connections are open at a time, handshakes
	// included. One more is answered with HTTP 503.
	MaxConnections = 512
	// MaxPerOrigin is how many of them may have the same Origin. Connections
	// without an Origin are bounded by MaxConnections alone.
	MaxPerOrigin = 64
	// HandshakeTimeout is how long a client has for its HTTP request.
	HandshakeTimeout = 5 * time.Second
	// MaxHandshake is how large that request may be; net/http adds 4 KiB.
	MaxHandshake = 16 << 10
	// MaxMessage is how large a message from a client may be, in one frame or
	// in many, unless Config says otherwise. A larger one closes the
	// connection with 1009.
	MaxMessage = 8 << 20
	// MessageTimeout is how long a message may take from its first frame to its
	// last byte, so that fragments cannot go on for ever.
	MessageTimeout = 30 * time.Second
	// WriteTimeout is how long a client may leave untaken what was written.
	WriteTimeout = 10 * time.Second
	// PingInterval is the time between two pings to a client, and PongTimeout
	// how long it may be silent after one.
	PingInterval = 15 * time.Second
	PongTimeout  = 10 * time.Second
	// CloseTimeout is how long a client has to answer a close frame.
	CloseTimeout = time.Second

	// AccessTokenLife is how long a token of Grant.AccessToken is good.
	AccessTokenLife = 60_000 * time.Second
	// GatewayTokenLife is how long a token of GatewayToken is good, and
	// MaxGatewayTokens how many unused ones are remembered; the oldest go first.
	GatewayTokenLife = 30 * time.Second
	MaxGatewayTokens = 4096
	// MaxLogin is how many bytes a login may have.
	MaxLogin = 255

	// refusalInterval is the least time between two log lines of one reason.
	refusalInterval = time.Second
	// maxReasons is how many reasons are counted apart.
	maxReasons = 64

	// readBuffer is how much one read call can take from the kernel.
	readBuffer = 32 << 10
	// keptBuffer is how large a buffer may be that is kept for the next use.
	keptBuffer = 64 << 10
	// controlBacklog is how many bytes of control frames may wait behind a
	// write that the client does not take.
	controlBacklog = 4 << 10
)

// limits are those that tests make smaller.
type limits struct {
	connections, perOrigin         int
	message                        int64
	handshake, messageEnd, write   time.Duration
	pingInterval, pong, closeReply time.Duration
}

func defaultLimits() limits {
	return limits{
		connections: MaxConnections, perOrigin: MaxPerOrigin,
		message:   MaxMessage,
		handshake: HandshakeTimeout, messageEnd: MessageTimeout, write: WriteTimeout,
		pingInterval: PingInterval, pong: PongTimeout, closeReply: CloseTimeout,
	}
}
