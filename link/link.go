package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// ErrNoResponders is what a request gets when nobody listens on its subject.
// The request was executed nowhere.
var ErrNoResponders = nats.ErrNoResponders

const (
	pingInterval   = 3 * time.Second
	maxPingsOut    = 2
	connectTimeout = 4 * time.Second
	// writeTimeout bounds how long a publish waits for a peer that does not
	// read; then the connection counts as broken.
	writeTimeout = 4 * time.Second
	reconnectMin = 50 * time.Millisecond
	reconnectMax = 5 * time.Second
	// For about the first 7 s the bound is soonMax: a node whose connection was
	// gone for a moment is back before the others take it for lost.
	soonAttempts = 16
	soonMax      = time.Second
	pendingMsgs  = 1 << 16
	pendingBytes = 64 << 20
)

// Config says where and how to connect.
type Config struct {
	// URL is one NATS URL or several, separated by commas. It is ignored where
	// Options carry an in-process server.
	URL string
	// Options are credentials, TLS, or an in-process server; not handlers, which
	// are the link's.
	Options []nats.Option
	// Node names the private inbox prefix.
	Node subjects.Node
	// Name is what `nats server report connections` shows.
	Name string
	// NoEcho asks the server not to send this connection its own messages.
	NoEcho bool
	// Logger receives what no caller can be told; nil discards.
	Logger *slog.Logger
	// OnState is called after every change, in order, on the client library's
	// callback goroutine; it must not block.
	OnState func(State)
}

// State is whether the link is usable, since when, and if not, why.
type State struct {
	Online bool
	Since  time.Time
	// Reason is empty while online.
	Reason string
	// Connects counts established connections: it grows with every reconnect.
	Connects uint64
}

// Link is one NATS connection. Create it with [Open].
type Link struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	cfg Config
	log *slog.Logger

	mu       sync.Mutex
	state    State
	inflight map[string]map[*inflight]struct{}
	deaf     error // why no reply can arrive: the inbox is denied
	// What Subscribe needs to learn of its own violation: the subscriptions
	// that are being made, the last error that was reported, and a signal.
	making   map[*making]struct{}
	reported error
	news     chan struct{}

	denied  atomic.Uint64
	slow    sync.Map // *nats.Subscription -> func(dropped int)
	closing atomic.Bool
	dialer  *dialer
	payload atomic.Int64 // the server's max_payload
	asks    asks
	first   chan struct{} // closed when connected for the first time
	once    sync.Once
}

type inflight struct{ cancel context.CancelCauseFunc }

// Open connects. A server that cannot be reached is not an error: the link is
// then offline and keeps trying. Credentials that the server refuses, and
// options that cannot work, are errors.
func Open(ctx context.Context, cfg Config) (*Link, error) {
	l := &Link{cfg: cfg, log: cfg.Logger, inflight: map[string]map[*inflight]struct{}{}, making: map[*making]struct{}{}, news: make(chan struct{}), first: make(chan struct{})}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.state = State{Since: time.Now(), Reason: "connecting"}
	l.dialer = newDialer(cfg.URL, cfg.Options)
	opts := append(l.options(), cfg.Options...)
	// The first attempt is made without retry, because with it the client
	// library reports refused credentials as "not yet connected".
	nc, err := nats.Connect(cfg.URL, opts...)
	switch {
	case err == nil:
		<-l.first // all changes of state come from the callback queue, in order
	case authError(err):
		return nil, wire.Errorf(wire.Denied, "%s refuses these credentials (%w): check --creds, --user and --password, or the NATS context", where(cfg), err)
	case !unreachable(err):
		return nil, fmt.Errorf("link: connect %s: %w", where(cfg), err)
	default:
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		l.setState(false, reason(err))
		l.dialer.detach()
		nc, err = nats.Connect(cfg.URL, append(opts, nats.RetryOnFailedConnect(true))...)
		if err != nil {
			return nil, fmt.Errorf("link: connect %s: %w", where(cfg), err)
		}
	}
	l.dialer.detach()
	l.nc = nc
	l.js, err = jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("link: jetstream: %w", err)
	}
	return l, nil
}

func (l *Link) options() []nats.Option {
	opts := []nats.Option{
		nats.Name(l.cfg.Name),
		nats.MaxReconnects(-1),
		nats.SetCustomDialer(l.dialer),
		nats.SkipHostLookup(),
		nats.CustomReconnectDelay(l.dialer.delay),
		nats.ReconnectJitter(0, 0),
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPingsOut),
		nats.FlusherTimeout(writeTimeout),
		nats.Timeout(connectTimeout),
		nats.CustomInboxPrefix(subjects.InboxPrefix(l.cfg.Node)),
		nats.IgnoreAuthErrorAbort(),
		nats.ConnectHandler(l.established),
		nats.ReconnectHandler(l.established),
		nats.DisconnectErrHandler(l.disconnected),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if !errors.Is(err, errDialing) {
				l.setState(false, reason(err))
			}
		}),
		nats.ClosedHandler(func(*nats.Conn) { l.setState(false, "closed") }),
		nats.ErrorHandler(l.asyncError),
	}
	if l.cfg.NoEcho {
		opts = append(opts, nats.NoEcho())
	}
	return opts
}

// delay is full jitter: any time between the minimum and a bound that doubles up
// to soonMax, and later is reconnectMax.
func delay(attempts int) time.Duration {
	bound := reconnectMax
	if attempts < soonAttempts {
		bound = min(soonMax, reconnectMin<<attempts)
	}
	return min(reconnectMax, reconnectMin+rand.N(bound))
}

func (l *Link) established(nc *nats.Conn) {
	l.dialer.established()
	l.payload.Store(nc.MaxPayload())
	l.setState(true, "")
}

func (l *Link) disconnected(_ *nats.Conn, err error) {
	why := "disconnected"
	if err != nil {
		why = reason(err)
	}
	l.setState(false, why)
}

func (l *Link) setState(online bool, why string) {
	l.mu.Lock()
	s := l.state
	if s.Online != online {
		s.Since = time.Now()
	}
	if online && !s.Online {
		s.Connects++
	}
	if !online {
		l.deaf = nil
	}
	changed := s.Online != online || s.Reason != why
	s.Online, s.Reason = online, why
	l.state = s
	l.mu.Unlock()
	if online {
		l.once.Do(func() { close(l.first) }) // Open does not wait for OnState
	}
	if changed && l.cfg.OnState != nil && !l.closing.Load() {
		l.cfg.OnState(s)
	}
}

var violation = regexp.MustCompile(`Publish to "(\S+)"`)

func (l *Link) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	switch {
	case errors.Is(err, nats.ErrSlowConsumer) && sub != nil:
		dropped, _ := sub.Dropped()
		if f, ok := l.slow.Load(sub); ok {
			f.(func(int))(dropped)
		}
		l.log.Warn("subscription too slow, messages dropped", slog.String("subject", sub.Subject), slog.Int("dropped", dropped))
	case errors.Is(err, nats.ErrPermissionViolation):
		l.denied.Add(1)
		m := violation.FindStringSubmatch(err.Error())
		told := m != nil && l.refuse(m[1], err)
		if !l.report(err) && !told {
			l.log.Warn("denied by NATS permissions", slog.Any("error", err))
		}
	default:
		l.log.Warn("nats", slog.Any("error", err))
	}
}

// refuse ends the requests in flight on a subject and says whether any was.
func (l *Link) refuse(subject string, err error) bool {
	l.mu.Lock()
	calls := l.inflight[subject]
	delete(l.inflight, subject)
	l.mu.Unlock()
	for c := range calls {
		c.cancel(wire.Errorf(wire.Denied, "NATS permissions do not allow publishing to %s: %w", subject, err))
	}
	return len(calls) > 0
}

// deafen ends all requests, because none can get its reply.
func (l *Link) deafen(inbox string, err error) {
	denied := wire.Errorf(wire.Denied, "NATS permissions do not allow subscribing to the replies on %s: is %q the name of the NATS user? (%w)", inbox, l.cfg.Node, err)
	l.mu.Lock()
	l.deaf = denied
	calls := l.inflight
	l.inflight = map[string]map[*inflight]struct{}{}
	l.mu.Unlock()
	for _, m := range calls {
		for c := range m {
			c.cancel(denied)
		}
	}
}

// Do runs fn, which publishes to subject and waits for an answer. When NATS
// denies the publish, fn's context is cancelled and Do returns that error.
// Every other error of the client library is translated by [Typed].
func (l *Link) Do(ctx context.Context, subject string, fn func(context.Context) error) error {
	if err := l.Online(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &inflight{cancel}
	if err := l.enlist(subject, c); err != nil {
		return err
	}
	err := fn(ctx)
	l.delist(subject, c)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		return Typed(cause)
	}
	return Typed(err)
}

// enlist notes a request in flight, so that a denial of its subject ends it.
func (l *Link) enlist(subject string, c *inflight) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deaf != nil {
		return l.deaf
	}
	if l.inflight[subject] == nil {
		l.inflight[subject] = map[*inflight]struct{}{}
	}
	l.inflight[subject][c] = struct{}{}
	return nil
}

func (l *Link) delist(subject string, c *inflight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.inflight[subject]; m != nil {
		delete(m, c)
		if len(m) == 0 {
			delete(l.inflight, subject)
		}
	}
}

// Request sends msg and waits for one reply. The errors are [ErrNoResponders],
// offline, denied, limit, timeout and canceled.
func (l *Link) Request(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	var reply *nats.Msg
	err := l.Do(ctx, msg.Subject, func(ctx context.Context) (err error) {
		reply, err = l.nc.RequestMsgWithContext(ctx, msg)
		return err
	})
	return reply, err
}

// Publish sends msg. An error means that it was not sent; nil means handed to
// the connection, nothing more.
func (l *Link) Publish(msg *nats.Msg) error {
	if err := l.Online(); err != nil {
		return err
	}
	return Typed(l.nc.PublishMsg(msg))
}

// PublishBytes is [Link.Publish] for a message without headers.
func (l *Link) PublishBytes(subject string, data []byte) error {
	if err := l.Online(); err != nil {
		return err
	}
	return Typed(l.nc.Publish(subject, data))
}

// Flush waits until the server has seen everything sent before.
func (l *Link) Flush(ctx context.Context) error {
	if err := l.Online(); err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		c, cancel := context.WithTimeout(ctx, 2*pingInterval)
		defer cancel()
		ctx = c
	}
	return Typed(l.nc.FlushWithContext(ctx))
}

// Online returns nil, or why the link cannot be used, as [wire.ErrOffline].
func (l *Link) Online() error {
	if s := l.State(); !s.Online {
		return wire.Errorf(wire.Offline, "not connected to NATS since %s: %s", s.Since.UTC().Format(time.TimeOnly), s.Reason)
	}
	return nil
}

// State returns the present state.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Conn is the connection itself, for what a Link does not wrap.
func (l *Link) Conn() *nats.Conn { return l.nc }

// JetStream is the connection's JetStream API.
func (l *Link) JetStream() jetstream.JetStream { return l.js }

// MaxPayload is the most that one message may carry, headers included.
func (l *Link) MaxPayload() int64 {
	if n := l.payload.Load(); n > 0 {
		return n
	}
	return 1 << 20
}

// Denied counts what NATS permissions refused.
func (l *Link) Denied() uint64 { return l.denied.Load() }

// Close flushes what was published and closes the connection. OnState is not
// called any more.
func (l *Link) Close() {
	l.closing.Store(true)
	if l.State().Online {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = l.nc.FlushWithContext(ctx) // best effort: the connection is going away
		cancel()
	}
	l.nc.Close()
	l.dialer.close()
}

func where(cfg Config) string {
	if cfg.URL == "" {
		return "the embedded NATS server"
	}
	return cfg.URL
}
