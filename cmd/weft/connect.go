package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natscontext"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// connectGroup gathers the flags of connectFlags in the help.
const connectGroup = "connect"

// connectFlags say where NATS is and who we are there. Names and variables are
// those of the nats command line; --nats is its --server, --nats-context its
// --context.
type connectFlags struct {
	NATS     string `name:"nats" short:"s" group:"connect" from:"NATS_URL" placeholder:"URL" help:"NATS server URLs."`
	Context  string `name:"nats-context" group:"connect" from:"NATS_CONTEXT" placeholder:"NAME" help:"Context of the nats command line."`
	User     string `name:"user" group:"connect" from:"NATS_USER" placeholder:"NAME" help:"User name."`
	Password string `name:"password" group:"connect" from:"NATS_PASSWORD" placeholder:"PASSWORD" help:"Password."`
	Token    string `name:"token" group:"connect" from:"NATS_TOKEN" placeholder:"TOKEN" help:"Token."`
	Creds    string `name:"creds" group:"connect" from:"NATS_CREDS" placeholder:"FILE" help:"Credentials file."`
	NKey     string `name:"nkey" group:"connect" from:"NATS_NKEY" placeholder:"FILE" help:"NKey seed file."`
	TLSCA    string `name:"tlsca" group:"connect" from:"NATS_CA" placeholder:"FILE" help:"Certificates to trust."`
	TLSCert  string `name:"tlscert" group:"connect" from:"NATS_CERT" placeholder:"FILE" help:"Client certificate."`
	TLSKey   string `name:"tlskey" group:"connect" from:"NATS_KEY" placeholder:"FILE" help:"Key of the client certificate."`
	Realm    string `name:"realm" group:"connect" from:"WEFT_REALM" placeholder:"NAME" help:"Realm; yours unless given."`
}

// place is a NATS server that was found, and the realm to use there.
type place struct {
	nats  node.NATS
	realm string
}

// named is the place that flags and environment name; false if they name none.
func (c *connectFlags) named() (place, bool, error) {
	var base []nats.Option
	url := c.NATS
	if c.Context != "" {
		settings, err := loadContext(c.Context)
		if err != nil {
			return place{}, false, err
		}
		base = append(base, settings.option)
		if url == "" {
			url = settings.url
		}
	}
	if url == "" {
		return place{}, false, nil
	}
	own, err := c.credentials()
	if err != nil {
		return place{}, false, err
	}
	if len(own) == 0 && len(base) == 0 && !strings.Contains(url, "@") {
		found, ok, err := embedded.FindURL("", url)
		if err != nil {
			return place{}, false, err
		}
		if ok {
			own = append(own, rereading(url, found))
		}
	}
	return place{node.NATS{URL: url, Options: append(base, own...)}, c.Realm}, true, nil
}

// rereading looks for the credentials of this user's server at each connect,
// because they are others when it was started again.
func rereading(url string, known embedded.Credentials) nats.Option {
	return nats.UserInfoHandler(func() (user, password string) {
		if now, ok, err := embedded.FindURL("", url); ok && err == nil {
			return now.User, now.Password
		}
		return known.User, known.Password
	})
}

// credentials are the options of the credential flags, none if none is given.
func (c *connectFlags) credentials() ([]nats.Option, error) {
	var opts []nats.Option
	switch {
	case c.User != "":
		opts = append(opts, nats.UserInfo(c.User, c.Password))
	case c.Password != "":
		return nil, usageError{errors.New("--password needs --user")}
	}
	if c.Token != "" {
		opts = append(opts, nats.Token(c.Token))
	}
	if c.Creds != "" {
		opts = append(opts, nats.UserCredentials(c.Creds))
	}
	if c.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, fmt.Errorf("--nkey %s: %w", c.NKey, err)
		}
		opts = append(opts, nkey)
	}
	if c.TLSCA != "" {
		opts = append(opts, nats.RootCAs(c.TLSCA))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return nil, usageError{errors.New("--tlscert and --tlskey belong together")}
	}
	if c.TLSCert != "" {
		opts = append(opts, nats.ClientCert(c.TLSCert, c.TLSKey))
	}
	return opts, nil
}

// find is the place to connect to, in the order of the package doc.
func (c *connectFlags) find(ctx context.Context) (place, error) {
	at, ok, err := c.named()
	if ok || err != nil {
		return at, err
	}
	h, ok, err := theHub(ctx)
	if err != nil {
		return place{}, err
	}
	if !ok {
		settings, err := loadContext("")
		if err == nil && settings.url != "" {
			own, err := c.credentials()
			return place{node.NATS{URL: settings.url, Options: append([]nats.Option{settings.option}, own...)}, c.Realm}, err
		}
		return place{}, wire.Errorf(wire.Offline, "no running node found: start one with \"weft up\", or give --nats")
	}
	opts := []nats.Option{rereading(h.URL, h.Credentials)}
	own, err := c.credentials()
	if len(own) > 0 {
		opts = own
	}
	return place{node.NATS{URL: h.URL, Options: opts}, h.realm(c.Realm)}, err
}

// errSettled stops natscontext before it connects.
var errSettled = errors.New("settled")

// contextSettings is a context of the nats command line.
type contextSettings struct {
	url    string
	option nats.Option
}

// loadContext reads a context, "" for the selected one. natscontext can only
// connect, so an option of ours looks at what the others have set and then
// stops it.
func loadContext(name string) (contextSettings, error) {
	var got nats.Options
	_, _, err := natscontext.Connect(name, func(o *nats.Options) error {
		got = *o
		return errSettled
	})
	if !errors.Is(err, errSettled) {
		return contextSettings{}, fmt.Errorf("context of the nats command line: %w", err)
	}
	url := strings.Join(got.Servers, ",")
	return contextSettings{url: url, option: func(o *nats.Options) error {
		o.User, o.Password, o.Token = got.User, got.Password, got.Token
		o.Nkey, o.UserJWT, o.SignatureCB = got.Nkey, got.UserJWT, got.SignatureCB
		o.Secure, o.TLSConfig, o.TLSHandshakeFirst = got.Secure, got.TLSConfig, got.TLSHandshakeFirst
		o.TLSCertCB, o.RootCAsCB = got.TLSCertCB, got.RootCAsCB
		o.CustomDialer = got.CustomDialer
		return nil
	}}, nil
}

// onlineWithin is how long a command waits for its connection.
const onlineWithin = 5 * time.Second

// session is the short-lived node of a command, with one app.
type session struct {
	node *node.Node
	app  *node.App
}

// join starts the node of a command and joins it with one app. The caller
// closes the session.
func (p *program) join(ctx context.Context, c *connectFlags, application string) (*session, error) {
	start, cancel := context.WithTimeout(ctx, onlineWithin)
	defer cancel()
	at, err := c.find(start)
	if err != nil {
		return nil, err
	}
	n, err := node.Start(start, node.Config{
		Realm: at.realm, Node: toolID(), NATS: at.nats, Listen: "off",
		Hidden: true, Version: version(), Logger: p.quietLogger(),
	})
	if err != nil {
		if start.Err() != nil && ctx.Err() == nil && wire.CodeOf(err) != wire.Offline {
			err = wire.Errorf(wire.Offline, "no answer from NATS at %s within %s", withoutPassword(at.nats.URL), onlineWithin)
		}
		return nil, err
	}
	s := &session{node: n}
	if err := s.online(start, withoutPassword(at.nats.URL)); err != nil {
		n.Stop()
		return nil, err
	}
	s.app, err = n.Join(ctx, node.Identity{Application: application, PID: os.Getpid()})
	if err != nil {
		n.Stop()
		return nil, err
	}
	return s, nil
}

// online waits until the node is, or ctx ends.
func (s *session) online(ctx context.Context, url string) error {
	var last node.State
	for last = range s.node.States(ctx) {
		if last.Online {
			return nil
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return wire.Errorf(wire.Canceled, "interrupted")
	}
	reason := last.Reason
	if reason == "" {
		reason = "no answer"
	}
	return wire.Errorf(wire.Offline, "NATS at %s: %s", url, reason)
}

func (s *session) close() { s.node.Stop() }

// toolID is a node id of our own: cli-<host>-<user>-<random>.
func toolID() string {
	const digits, most = "abcdefghijklmnopqrstuvwxyz0123456789", 54
	var random [4]byte
	for i := range random {
		random[i] = digits[rand.IntN(len(digits))]
	}
	id := string(subjects.NodeFor(hostName(), userName()))
	id = strings.Trim(id[:min(len(id), most)], "-")
	return "cli-" + id + "-" + string(random[:])
}

func hostName() string {
	host, err := os.Hostname()
	if err != nil {
		return ""
	}
	return host
}

func userName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return os.Getenv("USER")
}

// withoutPassword hides what may stand in a URL before the @.
func withoutPassword(urls string) string {
	parts := strings.Split(urls, ",")
	for i, part := range parts {
		scheme, rest, ok := strings.Cut(part, "://")
		if !ok {
			scheme, rest = "nats", part
		}
		if at := strings.LastIndex(rest, "@"); at >= 0 {
			rest = rest[at+1:]
		}
		parts[i] = scheme + "://" + rest
	}
	return strings.Join(parts, ",")
}
