package channels

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/node/directory"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Prefix is what the names of the contexts of channels begin with.
const Prefix = "___channel___"

// Config is what a Channels works with.
type Config struct {
	Self      subjects.Node
	Directory *directory.Directory
	Contexts  *contexts.Contexts
	// Hidden says that the node makes the default channels only when an app uses
	// channels.
	Hidden bool
	// Logger receives what no caller can be told; nil discards.
	Logger *slog.Logger
}

// Channels is the channels of one realm. Create it with [New].
type Channels struct {
	cfg Config
	log *slog.Logger
	ctx context.Context
	end context.CancelFunc
	wg  sync.WaitGroup

	// mu guards the fields that follow. It is taken before a session's, and never
	// held across I/O.
	mu       sync.Mutex
	sessions map[subjects.App]*session
	seeding  seeding
	closed   bool
}

// New makes the channels of a realm, offline until Connected is called.
func New(cfg Config) *Channels {
	c := &Channels{cfg: cfg, log: cfg.Logger, sessions: map[subjects.App]*session{}, seeding: seeding{wake: make(chan struct{}, 1), attempt: make(chan struct{})}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.ctx, c.end = context.WithCancel(context.Background())
	if err := cfg.Contexts.Suppose(seeds()); err != nil { // they always encode
		c.log.Error("default channels are not there while the fabric is away", slog.Any("error", err))
	}
	return c
}

// Close ends all watches and stays. It is called before the contexts and the
// directory are closed.
func (c *Channels) Close() {
	c.mu.Lock()
	c.closed = true
	sessions := slices.Collect(maps.Values(c.sessions))
	c.mu.Unlock()
	c.end()
	for _, s := range sessions {
		s.close()
	}
	c.wg.Wait()
}

// Leave ends what an app has here. It is called when the directory has forgotten
// the app, and with it on which channel it was.
func (c *Channels) Leave(app subjects.App) {
	c.mu.Lock()
	s := c.sessions[app]
	delete(c.sessions, app)
	c.mu.Unlock()
	if s != nil {
		s.close()
	}
}

// session is the app's part here, made when it is first needed.
func (c *Channels) session(app subjects.App) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, wire.Errorf(wire.Offline, "the node has stopped")
	}
	s := c.sessions[app]
	if s == nil {
		if _, here := c.cfg.Directory.App(app); !here {
			return nil, hasLeft(app)
		}
		s = newSession(c, app)
		c.sessions[app] = s
	}
	return s, nil
}

// on lists the sessions of the local apps that are on a channel.
func (c *Channels) on(channel string) (list []*session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		if s.channel() == channel {
			list = append(list, s)
		}
	}
	return list
}

// contextName is the context of a channel.
func contextName(channel string) (string, error) {
	if channel == "" {
		return "", wire.Errorf(wire.BadName, "a channel needs a name")
	}
	if _, err := subjects.Encode(Prefix + channel); err != nil {
		return "", wire.Errorf(wire.BadName, "channel: %w", err)
	}
	return Prefix + channel, nil
}

func hasLeft(app subjects.App) error { return wire.Errorf(wire.TargetGone, "app %s has left", app) }

func noChannel(name string) error { return wire.Errorf(wire.BadName, "there is no channel %q", name) }
