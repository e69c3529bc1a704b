package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/node/statedir"
	"github.com/weft-fabric/weft/wire"
)

// hostRetry is how often a store is tried again that could not be used.
const hostRetry = 15 * time.Second

// host is the embedded server of a node, also while it cannot be started: local apps
// work without, and the node is offline until its disk is mended.
type host struct {
	cfg    Config
	id     identity
	alarms *alarm.Set
	stop   context.CancelFunc
	trying sync.WaitGroup // for retry
	wg     sync.WaitGroup // for watch

	mu     sync.Mutex
	server *embedded.Server // nil while there is none
	state  *statedir.Dir    // nil while there is none
	why    error            // of server being nil
}

// isBadDisk says whether a node may come up without its store: nobody has to decide
// anything, the disk is full, read-only or broken.
func isBadDisk(err error) bool {
	return errors.Is(err, embedded.ErrStoreUnusable) || errors.Is(err, wire.ErrStorageFull)
}

// startHost starts the embedded server, or goes on trying. Errors are those that a
// person has to deal with.
func startHost(ctx context.Context, cfg Config, id identity, alarms *alarm.Set) (*host, error) {
	h := &host{cfg: cfg, id: id, alarms: alarms, stop: func() {}}
	err := h.start(ctx)
	switch {
	case err == nil:
		return h, nil
	case !isBadDisk(err):
		h.shutdown()
		return nil, err
	}
	alarms.Raise(h, alarm.Alarm{Kind: alarm.StoreUnusable, Server: h.name(), Text: err.Error()})
	var again context.Context
	again, h.stop = context.WithCancel(context.Background())
	h.trying.Go(func() { h.retry(again) })
	return h, nil
}

// name is what alarms call the server.
func (h *host) name() string { return "weft-" + string(h.id.node) }

// start makes one attempt. What it has opened of the state directory stays open.
func (h *host) start(ctx context.Context) error {
	h.mu.Lock()
	state := h.state
	h.mu.Unlock()
	var err error
	if state == nil {
		state, err = embedded.OpenState(h.cfg.Store, string(h.id.node))
	}
	var server *embedded.Server
	if err == nil {
		server, err = embedded.Start(ctx, embedded.Config{
			State: state, Listen: h.cfg.Listen, Credentials: h.cfg.Credentials, Holder: string(h.id.node), NoSync: h.cfg.NoSync, Logger: h.cfg.Logger,
		}, func(ctx context.Context, nc *nats.Conn) error { return kv.Provision(ctx, nc, h.id.realm, 1) })
	}
	h.mu.Lock()
	h.server, h.state, h.why = server, state, err
	h.mu.Unlock()
	if err != nil {
		return err
	}
	if path := server.Damaged(); path != "" {
		h.alarms.Raise(h, alarm.Alarm{
			Kind: alarm.StoreSetAside, Stream: strings.Join(server.Lost(), ", "), Server: h.name(),
			Text: fmt.Sprintf("the store was damaged; what could not be opened was moved to %s and is not in use", path),
		})
	}
	h.wg.Go(func() { h.watch(server) })
	return nil
}

// watch notices that the server gives up.
func (h *host) watch(server *embedded.Server) {
	select {
	case <-server.Failed():
		h.alarms.Raise(h, alarm.Alarm{Kind: alarm.ServerFailed, Server: h.name(), Text: server.Failure()})
	case <-server.Done():
	}
}

// retry starts the server as soon as that is possible.
func (h *host) retry(ctx context.Context) {
	for {
		select {
		case <-time.After(hostRetry):
		case <-ctx.Done():
			return
		}
		if err := h.start(ctx); err == nil {
			h.alarms.Clear(h, alarm.StoreUnusable, "", "")
			return
		}
	}
}

// InProcessConn connects to the server; it is what nats.InProcessServer asks for.
func (h *host) InProcessConn() (net.Conn, error) {
	h.mu.Lock()
	server, why := h.server, h.why
	h.mu.Unlock()
	if server == nil {
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: why}
	}
	return server.InProcessConn()
}

// options are what links connect with.
func (h *host) options() []nats.Option {
	return []nats.Option{nats.InProcessServer(h), nats.UserInfoHandler(func() (user, password string) {
		if s := h.running(); s != nil {
			c := s.Credentials()
			return c.User, c.Password
		}
		return "", ""
	})}
}

// running is the server, nil while there is none.
func (h *host) running() *embedded.Server {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.server
}

// dir is the state directory, nil while there is none.
func (h *host) dir() *statedir.Dir {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state
}

// shutdown ends the server and gives the state directory back.
func (h *host) shutdown() {
	h.stop()
	h.trying.Wait()
	if s := h.running(); s != nil {
		s.Shutdown()
	}
	h.wg.Wait()
	closeState(h.dir(), h.cfg.Logger)
}
