package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node/statedir"
)

// Config says what a server keeps, where, and who may reach it. The zero value
// is a server on a temporary store that does not listen.
type Config struct {
	// Store is the directory for JetStream and the lock; "" means a temporary
	// directory that Shutdown removes.
	Store string
	// State is the directory instead of Store, if the node has opened it already; it
	// stays open.
	State *statedir.Dir
	// Listen is the loopback host:port for further nodes and plain NATS
	// clients; "" or "off" means nobody. With port 0 the system chooses, and
	// Shutdown removes the credentials file.
	Listen string
	// Credentials is the directory of the credentials files; "" means
	// DataDir()/servers. It is not touched when nothing listens.
	Credentials string
	// Holder is the name of the node, for the message to a second one.
	Holder string
	// MaxPayload is the largest message; 0 means 8 MiB.
	MaxPayload int32
	// NoSync leaves out 'sync always', for tests and demonstrations: a power
	// cut then loses acknowledged writes, a killed process does not.
	NoSync bool
	// Logger takes what nats-server says; nil discards it.
	Logger *slog.Logger
}

// Server is a running nats-server of this process. All methods are safe for
// concurrent use.
type Server struct {
	cfg       Config
	store     *store
	ns        *server.Server // nil until open has succeeded
	log       *logger
	addr      address // with the bound port once listening
	ephemeral bool    // the system chose the port
	creds     Credentials
	credsFile string // "" until written
	damaged   string
	lost      []string // streams in damaged
	stop      sync.Once
	done      chan struct{} // closed when the server is being shut down
}

// Start locks the store, starts nats-server, connects in process and calls
// provision, which may be nil; only then does the server listen, so nobody else
// sees it unprovisioned. When Start returns an error nothing is left running or
// locked. The recovery of the store itself does not stop when ctx ends.
func Start(ctx context.Context, cfg Config, provision func(ctx context.Context, nc *nats.Conn) error) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxPayload == 0 {
		cfg.MaxPayload = 8 << 20
	}
	addr, err := parseListen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embedded: start: %w", err)
	}
	s := &Server{cfg: cfg, addr: addr, ephemeral: addr.port == 0, done: make(chan struct{})}
	if err := s.start(ctx, provision); err != nil {
		s.Shutdown()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, provision func(context.Context, *nats.Conn) error) (err error) {
	// First the store, since a second "up" of the same node finds both taken
	// and the holder's name is the better answer.
	if s.store, err = openStore(s.cfg.State, s.cfg.Store, s.cfg.Holder); err != nil {
		return err
	}
	if err := s.addr.probe(ctx); err != nil {
		return err
	}
	if err := s.loadCredentials(); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	if err := s.provision(ctx, provision); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("embedded: start: %w", err)
	}
	return s.listen(ctx)
}

func (s *Server) options() *server.Options {
	port := s.addr.port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return &server.Options{
		ServerName: strings.ReplaceAll(strings.TrimSuffix("weft-"+s.cfg.Holder, "-"), " ", "-"),
		Host:       s.addr.host,
		Port:       port,
		DontListen: true, // listen() does, after provision
		Username:   s.creds.User,
		Password:   s.creds.Password,

		JetStream:              true,
		StoreDir:               s.store.dir,
		SyncAlways:             !s.cfg.NoSync,
		DisableJetStreamBanner: true,

		MaxPayload:    s.cfg.MaxPayload,
		MaxPending:    64 << 20,
		WriteDeadline: 2 * time.Second,
		PingInterval:  3 * time.Second,
		MaxPingsOut:   2,

		NoSigs: true,
	}
}

// loadCredentials decides the password before the server starts. The file is
// written by listen only: of two servers that start at one address at once, the
// one that got the port must own it.
func (s *Server) loadCredentials() error {
	s.creds = Credentials{User: userName, Node: s.cfg.Holder, PID: os.Getpid()}
	if !s.addr.on() {
		s.creds.Password = newPassword()
		return nil
	}
	dir, err := serversDir(s.cfg.Credentials)
	if err != nil {
		return err
	}
	if err := secureDir(dir); err != nil {
		return err
	}
	s.cfg.Credentials = dir
	if s.ephemeral {
		s.creds.Password = newPassword()
		return nil
	}
	s.creds.Password, err = passwordFor(credentialsFile(dir, s.addr))
	return err
}

// provision connects as every client does, so that a server which cannot be
// used in process fails here.
func (s *Server) provision(ctx context.Context, provision func(context.Context, *nats.Conn) error) error {
	closed := make(chan struct{})
	nc, err := nats.Connect("", append(s.ConnectOptions(), nats.Name("weft-provision"), nats.NoReconnect(),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))...)
	if err != nil {
		return fmt.Errorf("embedded: connect in process: %w", err)
	}
	defer func() {
		nc.Close()
		<-closed // or its goroutine could outlive Start
	}()
	if provision == nil {
		return nil
	}
	if err := provision(ctx, nc); err != nil {
		return fmt.Errorf("embedded: provision: %w", err)
	}
	return nil
}

// listen lets others in. AcceptLoop returns as soon as it is bound, or after
// Fatalf; Shutdown of nats-server closes its listener and waits for it.
func (s *Server) listen(ctx context.Context) error {
	if !s.addr.on() {
		return nil
	}
	s.ns.AcceptLoop(make(chan struct{}))
	tcp, ok := s.ns.Addr().(*net.TCPAddr)
	if !ok {
		if err := s.addr.probe(ctx); err != nil { // somebody was faster
			return err
		}
		return fmt.Errorf("nats: cannot listen on %s: %s", s.addr, s.log.fatal())
	}
	s.addr.port = tcp.Port
	s.creds.URL = s.addr.url()
	file := credentialsFile(s.cfg.Credentials, s.addr)
	if err := s.creds.write(file); err != nil {
		return err
	}
	s.credsFile = file
	return nil
}

// ConnectOptions are what a client in this process connects with; the URL given
// to nats.Connect is then ignored. They work whether or not the server listens.
func (s *Server) ConnectOptions() []nats.Option {
	return []nats.Option{nats.InProcessServer(s.ns), nats.UserInfo(s.creds.User, s.creds.Password)}
}

// URL is the address that the server is bound to, such as nats://127.0.0.1:4222,
// or "" when it does not listen.
func (s *Server) URL() string { return s.creds.URL }

// Credentials returns the user and the password.
func (s *Server) Credentials() Credentials { return s.creds }

// Damaged is where the store, or the streams in it that could not be opened,
// was moved to at this start; "" if all was well.
func (s *Server) Damaged() string { return s.damaged }

// Lost names the streams in what was moved to Damaged, as far as they have names.
func (s *Server) Lost() []string { return s.lost }

// Failed is closed when nats-server gives up while it runs, which would end a
// process of its own; it may go on in part.
func (s *Server) Failed() <-chan struct{} { return s.log.failed }

// Failure is what nats-server said when it gave up, "" if it has not.
func (s *Server) Failure() string { return s.log.fatal() }

// Done is closed when Shutdown begins.
func (s *Server) Done() <-chan struct{} { return s.done }

// InProcessConn connects to the server; it is what nats.InProcessServer asks for.
func (s *Server) InProcessConn() (net.Conn, error) { return s.ns.InProcessConn() }

// Shutdown stops the server, waits for its goroutines and releases the store.
// It may be called more than once; every call returns when it is done.
func (s *Server) Shutdown() {
	s.stop.Do(func() {
		close(s.done)
		// While the port is still ours: afterwards the file may be another's.
		s.retireCredentials()
		if s.ns != nil {
			s.ns.Shutdown()
			s.ns.WaitForShutdown()
		}
		if s.store == nil {
			return
		}
		if err := s.store.close(); err != nil {
			s.cfg.Logger.Warn("the store was not released cleanly", slog.String("store", s.store.dir), slog.Any("error", err))
		}
	})
}

// retireCredentials marks the file as nobody's process but keeps the password,
// so that clients come back to the next server at this address.
func (s *Server) retireCredentials() {
	if s.credsFile == "" {
		return
	}
	var err error
	if s.ephemeral {
		err = os.Remove(s.credsFile)
	} else {
		c := s.creds
		c.PID = 0
		err = c.write(s.credsFile)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Logger.Warn("the credentials file was not updated", slog.String("file", s.credsFile), slog.Any("error", err))
	}
}
