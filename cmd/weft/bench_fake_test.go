package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// fakeGateway speaks so much of the gateway protocol as the load needs. All that
// it does happens under one lock, as in the reference gateway.
type fakeGateway struct {
	url    string
	spoil  func(to string, m object) (keep bool) // may change or drop what is sent
	refuse string                                // the second request of this type gets an error
	hold   holding

	mu       sync.Mutex
	ids      int
	peers    []*fakePeer
	pending  map[string]object // calls and subscriptions, by the id that the gateway gave them
	streams  map[string][]string
	contexts map[string][]*fakePeer // members
	seen     map[string]int         // requests by type
}

// holding keeps messages back until there are some, and then for a while, to see
// whether more come. It does so once.
type holding struct {
	kind, to string
	until    int
	held     []func()
	most     int
	over     bool
}

type object map[string]any

func (o object) text(key string) string { s, _ := o[key].(string); return s }

type fakePeer struct {
	id, app string
	conn    *websocket.Conn
	t       *testing.T
}

func (p *fakePeer) write(m object) {
	data, err := json.Marshal(m)
	if err != nil {
		p.t.Error(err)
	}
	_ = p.conn.Write(p.t.Context(), websocket.MessageText, data) // the peer may have gone
}

func newFakeGateway(t *testing.T) *fakeGateway {
	t.Helper()
	g := &fakeGateway{
		pending: map[string]object{}, streams: map[string][]string{}, contexts: map[string][]*fakePeer{}, seen: map[string]int{},
	}
	var clients sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clients.Add(1)
		defer clients.Done()
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		g.attend(&fakePeer{conn: conn, t: t})
	}))
	t.Cleanup(func() {
		server.Close()
		clients.Wait()
	})
	g.url = "ws" + strings.TrimPrefix(server.URL, "http") + "/"
	return g
}

// attend serves a client until it goes.
func (g *fakeGateway) attend(p *fakePeer) {
	defer p.conn.CloseNow()
	for {
		_, data, err := p.conn.Read(p.t.Context())
		if err != nil {
			break
		}
		var m object
		if err := json.Unmarshal(data, &m); err != nil {
			p.t.Errorf("%s sent %.100s: %v", p.app, data, err)
			break
		}
		g.mu.Lock()
		g.handle(p, m)
		g.mu.Unlock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.peers = slices.DeleteFunc(g.peers, func(other *fakePeer) bool { return other == p })
}

func (g *fakeGateway) handle(p *fakePeer, m object) {
	kind := m.text("type")
	g.seen[kind]++
	if want := m.text("peer_id"); want != p.id {
		p.t.Errorf("%s sent %s with peer_id %q, want %q", p.app, kind, want, p.id)
	}
	switch {
	case kind == g.refuse && g.seen[kind] == 2:
		g.send(p, object{"domain": m["domain"], "type": "error", "request_id": m["request_id"], "reason": "no"})
	case kind == "hello":
		g.welcome(p, m)
	case m["domain"] == "agm":
		g.handleInterop(p, kind, m)
	default:
		g.handleGlobal(p, kind, m)
	}
}

func (g *fakeGateway) welcome(p *fakePeer, m object) {
	identity, _ := m["identity"].(map[string]any)
	p.id, p.app = g.id("p"), object(identity).text("application")
	g.send(p, object{"domain": "global", "type": "welcome", "request_id": m["request_id"]})
	g.peers = append(g.peers, p)
}

func (g *fakeGateway) handleGlobal(p *fakePeer, kind string, m object) {
	id := m.text("context_id")
	answer := object{"domain": "global", "type": "success", "request_id": m["request_id"], "context_id": id}
	switch kind {
	case "join":
		answer["domain"] = m["destination"]
		g.announce(object{"domain": "agm", "type": "peer-added", "new_peer_id": p.id, "identity": object{"request_id": m["request_id"]}})
	case "create-context":
		id = g.id("c")
		g.contexts[id] = []*fakePeer{p}
		g.announce(object{"domain": "global", "type": "context-added", "context_id": g.id("c"), "name": "of another app"})
		g.announce(object{"domain": "global", "type": "context-added", "context_id": id, "name": m["name"]})
		answer["type"], answer["context_id"] = "context-created", id
	case "subscribe-context":
		g.contexts[id] = append(g.contexts[id], p)
		answer["type"] = "subscribed-context"
	case "update-context":
		for _, member := range g.contexts[id] {
			if member != p {
				g.send(member, object{"domain": "global", "type": "context-updated", "context_id": id, "delta": m["delta"]})
			}
		}
	case "destroy-context":
		delete(g.contexts, id)
		g.announce(object{"domain": "global", "type": "context-destroyed", "context_id": id})
	}
	g.send(p, answer)
}

func (g *fakeGateway) handleInterop(p *fakePeer, kind string, m object) {
	switch kind {
	case "register":
		g.announce(object{"domain": "agm", "type": "methods-added", "server_id": p.id, "methods": m["methods"]})
		g.send(p, object{"domain": "agm", "type": "success", "request_id": m["request_id"]})
	case "call":
		g.forward(m, object{"type": "invoke", "invocation_id": g.id("r"), "arguments_kv": m["arguments_kv"]})
	case "yield":
		call := g.pending[m.text("invocation_id")]
		g.send(g.peer(call.text("peer_id")), object{"domain": "agm", "type": "result", "request_id": call["request_id"], "result": m["result"]})
	case "subscribe":
		g.forward(m, object{"type": "add-interest", "subscription_id": g.id("r")})
	case "accepted":
		id := m.text("subscription_id")
		subscribe := g.pending[id]
		stream := p.id + m.text("stream_id")
		g.streams[stream] = append(g.streams[stream], id)
		g.send(g.peer(subscribe.text("peer_id")), object{"domain": "agm", "type": "subscribed", "request_id": subscribe["request_id"], "subscription_id": id})
	case "publish":
		for _, id := range g.streams[p.id+m.text("stream_id")] {
			g.send(g.peer(g.pending[id].text("peer_id")), object{"domain": "agm", "type": "event", "subscription_id": id, "data": m["data"]})
		}
	}
}

// forward sends a call or subscription on to the server.
func (g *fakeGateway) forward(m, to object) {
	id := to.text("invocation_id") + to.text("subscription_id")
	g.pending[id] = m
	to["domain"], to["method_id"], to["caller_id"] = "agm", m["method_id"], m["peer_id"]
	g.send(g.peer(m.text("server_id")), to)
}

func (g *fakeGateway) announce(m object) {
	for _, p := range g.peers {
		g.send(p, m)
	}
}

func (g *fakeGateway) send(p *fakePeer, m object) {
	if p == nil { // who has gone
		return
	}
	m["peer_id"] = p.id
	if g.spoil != nil && !g.spoil(p.app, m) {
		return
	}
	if h := &g.hold; !h.over && m["type"] == h.kind && p.app == h.to {
		h.held = append(h.held, func() { p.write(m) })
		if h.most = len(h.held); h.most == h.until {
			time.AfterFunc(20*time.Millisecond, g.release)
		}
		return
	}
	p.write(m)
}

func (g *fakeGateway) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, write := range g.hold.held {
		write()
	}
	g.hold.over = true
}

func (g *fakeGateway) peer(id string) *fakePeer {
	i := slices.IndexFunc(g.peers, func(p *fakePeer) bool { return p.id == id })
	if i < 0 {
		return nil
	}
	return g.peers[i]
}

func (g *fakeGateway) id(prefix string) string {
	g.ids++
	return prefix + "-" + strconv.Itoa(g.ids)
}
