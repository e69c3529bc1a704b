package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"log/slog"
	"os"
	"os/user"
	"runtime/debug"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Config says who a node is and where its NATS is. The zero value is a working
// fabric on one machine: an embedded server that nobody else can reach.
type Config struct {
	// Realm is the visibility scope; the OS user's name unless given.
	Realm string
	// Node is the node's id, unique in the realm; <host>-<user> unless given.
	Node string
	// Machine tells machines apart; a hash of the operating system's machine
	// id unless given.
	Machine string

	// NATS is the cluster to join. Without a URL the node uses Server, or else
	// hosts an embedded one.
	NATS NATS
	// Server is a running embedded server to share; its owner stops it.
	Server *embedded.Server
	// Listen is where an embedded server admits further nodes and plain NATS
	// clients: a loopback host:port; "" or "off" for nowhere.
	Listen string
	// Store is the directory of the node's state: its status, the embedded server's
	// streams, and the journal of what is written while the fabric is away. It is this
	// node's alone. If empty, an embedded server has a temporary one, and there is no
	// journal: such writes are refused with offline.
	Store string
	// Credentials is the directory of the embedded server's credentials files;
	// the user's data directory if empty.
	Credentials string
	// NoSync lets the embedded server acknowledge before its disk has it.
	NoSync bool

	// Policies say what becomes of writes of contexts while the fabric is away.
	Policies []ContextPolicy
	// CompactAt is how many keys a context gathers before it is compacted, 256
	// unless given.
	CompactAt int

	// Hidden marks a command-line tool, listed only when asked for.
	Hidden bool
	// Version is shown to others; the module's version unless given.
	Version string
	// Logger receives what no caller can be told; nil discards.
	Logger *slog.Logger
}

// NATS says where a cluster is and how to authenticate.
type NATS struct {
	// URL is one URL, or several separated by commas.
	URL string
	// Options are credentials and TLS.
	Options []nats.Option
}

// identity is what Config says after defaults and checks.
type identity struct {
	realm   subjects.Realm
	node    subjects.Node
	boot    string
	machine string
	host    string
	user    string
	version string
}

// resolve fills in defaults and refuses what cannot work.
func (c *Config) resolve() (identity, error) {
	id := identity{boot: newBoot(), machine: c.Machine, user: osUser(), version: c.Version}
	var err error
	if id.host, err = os.Hostname(); err != nil {
		id.host = "localhost"
	}
	id.realm = subjects.RealmFor(id.user)
	if c.Realm != "" {
		if id.realm, err = subjects.ParseRealm(c.Realm); err != nil {
			return id, wire.Errorf(wire.BadName, "realm: %w", err)
		}
	}
	id.node = subjects.NodeFor(id.host, id.user)
	if c.Node != "" {
		if id.node, err = subjects.ParseNode(c.Node); err != nil {
			return id, wire.Errorf(wire.BadName, "node: %w", err)
		}
	}
	if id.machine == "" {
		id.machine = machineHash()
	}
	if _, err := subjects.Encode(id.machine); err != nil {
		return id, wire.Errorf(wire.BadName, "machine: %w", err)
	}
	if id.version == "" {
		id.version = moduleVersion()
	}
	for _, p := range c.Policies {
		if err := p.Check(); err != nil {
			return id, err
		}
	}
	if c.NATS.URL != "" && c.Server != nil {
		return id, wire.Errorf(wire.Rejected, "a node joins either a NATS URL or an embedded server, not both")
	}
	return id, nil
}

var bootText = base32.StdEncoding.WithPadding(base32.NoPadding)

// newBoot is 13 random characters: one life of a node.
func newBoot() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(bootText.EncodeToString(b[:]))
}

func osUser() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	for _, name := range []string{"USER", "USERNAME"} {
		if u := os.Getenv(name); u != "" {
			return u
		}
	}
	return "default"
}

// machineHash is 12 characters that do not give the machine id away.
func machineHash() string {
	id, err := machineID()
	if err != nil || id == "" {
		id, _ = os.Hostname() // an empty name still hashes
	}
	sum := sha256.Sum256([]byte("weft machine " + strings.TrimSpace(id)))
	return hex.EncodeToString(sum[:6])
}

func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
