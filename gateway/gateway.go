package gateway

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/coder/websocket"

	"github.com/weft-fabric/weft/gateway/edge"
	"github.com/weft-fabric/weft/gateway/platform"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Config is what a Gateway works with.
type Config struct {
	// Edge says where it listens and who may connect.
	Edge edge.Config
	// Node is the node whose apps the clients become.
	Node *node.Node
	// Store is the directory of what survives a restart of the node; "" keeps
	// nothing.
	Store string
	// ChannelsMode is "single", which is the default, or "multi"; see package
	// platform.
	ChannelsMode string
	// Logger receives what no client can be told; nil discards.
	Logger *slog.Logger
}

// Gateway is a running gateway. Create it with [Start].
type Gateway struct {
	realm    *node.Realm
	edge     *edge.Edge
	platform *builtin
	memories *memories
	journal  *journal
	log      *slog.Logger
	gaps     atomic.Uint64
	ids      atomic.Uint64
	ctx      context.Context // ends with Stop
	end      context.CancelFunc
	wg       sync.WaitGroup

	mu    sync.Mutex
	peers map[subjects.App]*peer
}

// Stats are counters since the start.
type Stats struct {
	// Clients is how many are connected.
	Clients int `json:"clients"`
	// Gaps is how often a client missed messages of a stream or a topic.
	Gaps uint64 `json:"gaps"`
}

// Start listens and serves until Stop.
func Start(cfg Config) (*Gateway, error) {
	g := &Gateway{realm: cfg.Node.Realm(), log: cfg.Logger, peers: map[subjects.App]*peer{}}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	sent, prefs := "", ""
	if cfg.Store != "" {
		sent, prefs = filepath.Join(cfg.Store, "sent"), filepath.Join(cfg.Store, "prefs")
	}
	var err error
	if g.journal, err = openJournal(sent, g.log); err != nil {
		return nil, err
	}
	g.memories = openMemories(g.journal)
	if g.platform, err = newBuiltin(g, platform.Config{Store: prefs, Mode: cfg.ChannelsMode, Logger: g.log}); err != nil {
		g.journal.close()
		return nil, err
	}
	if g.edge, err = edge.Open(cfg.Edge); err != nil {
		_ = g.platform.Close() // it has done nothing yet
		g.journal.close()
		return nil, err
	}
	g.ctx, g.end = context.WithCancel(context.Background())
	g.wg.Go(func() {
		if err := g.edge.Serve(g.ctx, g.serve); err != nil {
			g.log.Error("the gateway has ended", slog.Any("error", err))
		}
	})
	g.wg.Go(func() { g.follow(g.ctx) })
	return g, nil
}

func (g *Gateway) stopping() bool { return g.ctx.Err() != nil }

// Stop disconnects all clients and waits until everything has ended.
func (g *Gateway) Stop() {
	g.end()
	g.wg.Wait()
	if err := g.platform.Close(); err != nil {
		g.log.Warn("preferences", slog.Any("error", err))
	}
	g.journal.close()
}

// URLs are where clients connect.
func (g *Gateway) URLs() []string {
	var list []string
	for _, address := range g.edge.Addresses() {
		list = append(list, "ws://"+address)
	}
	return list
}

// Auth is how clients show that they may connect.
func (g *Gateway) Auth() edge.Auth { return g.edge.Auth() }

// Stats returns the counters.
func (g *Gateway) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Stats{Clients: len(g.peers), Gaps: g.gaps.Load()}
}

func (g *Gateway) serve(ctx context.Context, conn *edge.Conn) { newSession(ctx, g, conn).run() }

// follow tells all peers when the directory has changed.
func (g *Gateway) follow(ctx context.Context) {
	for {
		changed := g.realm.Changed()
		g.mu.Lock()
		for _, p := range g.peers {
			p.syncSoon()
		}
		g.mu.Unlock()
		g.platform.AppsChanged()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// enter makes a peer of a client that may connect.
func (g *Gateway) enter(s *session, id node.Identity, grant edge.Grant) (*peer, error) {
	if id.Instance != "" && id.Instance != "?" && g.seen(id, s.peer) {
		return nil, wire.Errorf(wire.Rejected, "Hello already received once")
	}
	client, err := g.realm.JoinClient(func(app subjects.App) node.Identity {
		if id.Instance == "" {
			id.Instance = "i-" + string(app)
		}
		resolve(&id, string(app))
		return id
	})
	if err != nil {
		return nil, err
	}
	p := &peer{s: s, client: client, id: client.ID(), self: client.Identity(), grant: grant, joined: map[string]string{domainGlobal: ""}}
	p.log = s.log.With(slog.String("app", string(p.id)), slog.String("application", p.self.Application))
	p.ctx, p.cancel = context.WithCancel(s.ctx)
	p.interop, p.contexts, p.topics = newInterop(p), newContexts(p), newTopics(p)
	p.memory, p.contexts.returned = g.memories.begin(clientKey(&p.self, s.conn.Origin()), p.id)
	p.publishDomains()
	g.mu.Lock()
	g.peers[p.id] = p
	g.mu.Unlock()
	p.log.Info("gateway client connected", slog.String("api", p.self.API))
	return p, nil
}

// seen says whether another client than one with this identity is connected.
func (g *Gateway) seen(id node.Identity, except *peer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.peers {
		was := p.self
		was.App, was.Node, was.Machine, was.OSUser = id.App, id.Node, id.Machine, id.OSUser
		if was == id && p != except {
			return true
		}
	}
	return false
}

// forget is told that a peer leaves.
func (g *Gateway) forget(p *peer) {
	if p.ended || websocket.CloseStatus(p.s.cause) == websocket.StatusGoingAway { // of a page that is closed
		g.memories.drop(p.memory)
	} else {
		g.memories.lose(p.memory)
	}
	g.mu.Lock()
	delete(g.peers, p.id)
	g.mu.Unlock()
	p.log.Info("gateway client left")
}

// has says whether a peer of this id is connected.
func (g *Gateway) has(id string) bool {
	return g.peer(id) != nil
}

func (g *Gateway) peer(id string) *peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peers[subjects.App(id)]
}

func (g *Gateway) all() []*peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.peers))
}

// isClient says whether an app is a client of a gateway, on whatever node.
func (g *Gateway) isClient(app string) bool {
	a, ok := g.realm.View().App(subjects.App(app))
	return ok && a.Domains != nil
}

func (g *Gateway) newID(kind string) string {
	return kind + strconv.FormatUint(g.ids.Add(1), 10)
}

func decimal(n uint64) []byte { return strconv.AppendUint(nil, n, 10) }
