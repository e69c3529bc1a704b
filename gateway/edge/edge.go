package edge

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os/user"
	"sync"

	"github.com/weft-fabric/weft/wire"
)

// Auth says how clients prove that they may be here, once their connection has
// passed the checks of OS user, Host and Origin.
type Auth string

const (
	// Auto is Token if there are allowed origins, and OSUser if there are none.
	// The empty Auth is Auto too.
	Auto Auth = "auto"
	// OSUser takes native apps of the node's own OS user at their word: any
	// login, whatever the secret. Pages still need a token.
	OSUser Auth = "os-user"
	// Token asks everybody for a token.
	Token Auth = "token"
)

// Errors of Open that a caller can act on; compare with errors.Is. The text of
// the error that wraps them is a sentence for people.
var (
	// ErrNotLoopback says that an address would be reachable from other machines.
	ErrNotLoopback = errors.New("not a loopback address")
	// ErrPortTaken says that something else listens on an address.
	ErrPortTaken = errors.New("address already in use")
	// ErrTokenFile says that the token file, or its directory, is not private
	// to the node's OS user.
	ErrTokenFile = errors.New("token file is not private")
)

// Config says where an edge listens and whom it lets in. Listen is needed; the
// zero value of everything else is the safe default.
type Config struct {
	// Listen has the addresses, host:port. The host is an IP address of the
	// loopback interface or "localhost", which is 127.0.0.1. With port 0 the
	// system chooses one.
	Listen []string
	// Hosts has names that clients may use in the Host header besides the
	// address itself, 127.0.0.1, localhost and [::1]. A name without a port may
	// come with the port of the edge or with none, one with a port exactly so.
	Hosts []string
	// Origins has the pages that may connect: scheme://host[:port] exactly as
	// browsers write it. "null" and "file://" count only if they are here.
	Origins []string
	// Auth is what clients need besides.
	Auth Auth
	// TokenFile is the file of the token. It is made when it is missing, and
	// refused when others could have read or written it. Token needs it, and in
	// OSUser it lets clients with tokens in as well.
	TokenFile string
	// AnyUser lets other users of this machine in. It is for machines that
	// nobody else uses, and logged as a warning.
	AnyUser bool
	// MaxMessage replaces the limit of the same name if it is not 0.
	MaxMessage int64
	// Logger gets refusals and warnings. Without one they are lost.
	Logger *slog.Logger
}

// Edge is the door of a gateway. Make it with Open and run it with Serve.
type Edge struct {
	cfg      Config
	system   system
	log      *slog.Logger
	refusals *refusals
	auth     Auth
	tokens   *tokens
	account  string // whom a client is that shows the file's token and no login
	origins  map[string]bool
	gates    []*gate
	slots    chan struct{} // one per connection

	mu        sync.Mutex
	served    bool
	stopping  bool
	perOrigin map[string]int
	handlers  sync.WaitGroup
}

// Open reads the token and listens, but lets nobody in before Serve. Whoever
// does not call Serve calls Close.
func Open(cfg Config) (*Edge, error) { return open(cfg, thisSystem()) }

func open(cfg Config, sys system) (*Edge, error) {
	e := &Edge{cfg: cfg, system: sys, log: cfg.Logger, perOrigin: map[string]int{}}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxMessage != 0 {
		e.system.message = cfg.MaxMessage
	}
	e.refusals = newRefusals(e.log)
	e.slots = make(chan struct{}, e.system.connections)
	if err := e.configure(); err != nil {
		return nil, err
	}
	if err := e.listen(); err != nil {
		_ = e.Close() // the error of listening is the one to tell
		return nil, err
	}
	if cfg.AnyUser {
		e.log.Warn("every user of this machine may connect to the gateway", "auth", string(e.auth))
	}
	return e, nil
}

// configure checks what can be wrong before anything is opened.
func (e *Edge) configure() error {
	if len(e.cfg.Listen) == 0 {
		return wire.Errorf(wire.Rejected, "the gateway has no address to listen on")
	}
	if !e.cfg.AnyUser && e.system.selfErr != nil {
		return wire.Errorf(wire.Unavailable, "this system does not say which user a connection is from: %w", e.system.selfErr)
	}
	if err := checkHosts(e.cfg.Hosts); err != nil {
		return err
	}
	var err error
	if e.origins, err = parseOrigins(e.cfg.Origins); err != nil {
		return err
	}
	if e.auth, err = e.cfg.Auth.resolve(len(e.origins) > 0); err != nil {
		return err
	}
	if e.auth == Token && e.cfg.TokenFile == "" {
		return wire.Errorf(wire.Rejected, "authentication by token needs a token file")
	}
	if u, err := user.Current(); err == nil {
		e.account = u.Username
	} else {
		e.account = e.system.self.id
	}
	e.tokens, err = openTokens(e.cfg.TokenFile, e.system.now)
	return err
}

func (a Auth) resolve(origins bool) (Auth, error) {
	switch a {
	case OSUser, Token:
		return a, nil
	case Auto, "":
		if origins {
			return Token, nil
		}
		return OSUser, nil
	}
	return "", wire.Errorf(wire.BadName, "authentication %q: want %s, %s or %s", string(a), Auto, OSUser, Token)
}

// Addresses returns where the edge listens, host:port, in the order of
// Config.Listen and with the real ports.
func (e *Edge) Addresses() []string {
	list := make([]string, len(e.gates))
	for i, g := range e.gates {
		list[i] = g.Addr().String()
	}
	return list
}

// Token returns the token of Config.TokenFile, or "" without one. It must not
// be logged.
func (e *Edge) Token() string { return e.tokens.file }

// Auth returns OSUser or Token.
func (e *Edge) Auth() Auth { return e.auth }

// Close stops to listen. Serve does it by itself when it ends.
func (e *Edge) Close() error {
	var errs []error
	for _, g := range e.gates {
		errs = append(errs, g.Listener.Close())
	}
	return errors.Join(errs...)
}

// Serve lets clients in until ctx ends, which is no error. Each connection has
// one goroutine, which runs handle; the connection ends with it. The context
// of handle ends with the connection, and its cause says why. At the end
// clients are told that the gateway goes away, and Serve returns when all
// handle functions have. It can be called once.
func (e *Edge) Serve(ctx context.Context, handle func(ctx context.Context, c *Conn)) error {
	e.mu.Lock()
	again := e.served
	e.served = true
	e.mu.Unlock()
	if again {
		return wire.Errorf(wire.Rejected, "the gateway's edge serves already, or has")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := e.server(ctx, handle)
	ended := make(chan error, len(e.gates))
	var listening sync.WaitGroup
	for _, g := range e.gates {
		listening.Go(func() { ended <- server.Serve(g) })
	}

	var failure error
	select {
	case <-ctx.Done():
	case err := <-ended:
		failure = wire.Errorf(wire.Unavailable, "the gateway cannot listen any more: %w", err)
	}
	cancel()
	e.stop()
	_ = e.Close() // may be closed already
	listening.Wait()
	// Before server.Close, which would cut a connection off that becomes a
	// WebSocket right now.
	e.handlers.Wait()
	_ = server.Close() // connections that have sent no request
	e.refusals.close()
	return failure
}

func (e *Edge) server(ctx context.Context, handle func(context.Context, *Conn)) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			e.enter(ctx, w, r, handle)
		}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, visitorKey{}, c)
		},
		DisableGeneralOptionsHandler: true, // it would answer before our checks
		ReadTimeout:                  e.system.handshake,
		WriteTimeout:                 e.system.handshake,
		MaxHeaderBytes:               MaxHandshake,
		Protocols:                    &protocols,
		ErrorLog:                     slog.NewLogLogger(e.log.Handler(), slog.LevelError),
	}
	server.SetKeepAlivesEnabled(false)
	return server
}

// join counts a connection in, or says why it may not come in.
func (e *Edge) join(origin string) (reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping {
		return "the gateway stops"
	}
	if origin != "" {
		if e.perOrigin[origin] >= e.system.perOrigin {
			return "too many connections of one origin"
		}
		e.perOrigin[origin]++
	}
	e.handlers.Add(1)
	return ""
}

func (e *Edge) leave(origin string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.perOrigin[origin]--; e.perOrigin[origin] <= 0 { // also for no origin, which has no count
		delete(e.perOrigin, origin)
	}
	e.handlers.Done()
}

func (e *Edge) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopping = true
}
