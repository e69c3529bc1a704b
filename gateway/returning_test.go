package gateway_test

import (
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/weft-fabric/weft/gateway"
	"github.com/weft-fabric/weft/gateway/edge"
	"github.com/weft-fabric/weft/node"
)

// trip is a client that has a context, loses its connection and comes back, while
// another, on another node, goes on with the context.
type trip struct {
	t      *testing.T
	fb     *fabric
	node   *node.Node
	home   *gateway.Gateway
	origin string // of a page
	me     frame
	id     string
	before *client
	after  *client
	other  *client
}

func newTrip(t *testing.T) *trip {
	t.Helper()
	return newTripOf(t, "", identity("blotter"))
}

// newTripOf is one of a page, if there is an origin.
func newTripOf(t *testing.T, origin string, me frame) *trip {
	t.Helper()
	fb := newFabric(t)
	n, err := fb.node(t.Context(), realm, "a")
	if err != nil {
		t.Fatal(err)
	}
	p := &trip{t: t, fb: fb, node: n, origin: origin, me: me}
	p.start()
	p.other = app(t, fb.desk(t, realm, "b"), "other")
	p.id = p.other.create("ctx", frame{"n": 1, "o": frame{"x": 1}, "same": true})
	p.before = p.connect()
	p.before.announced("ctx")
	p.before.open(p.id)
	p.before.update(p.id, commands(set("own", 1)))
	p.other.await(frame{"type": "context-updated", "updater_id": p.before.me})
	return p
}

// leave loses the connection, and has the other change what both know.
func (p *trip) leave() {
	p.before.close()
	p.other.update(p.id, commands(set("n", 2), set("o.x", 2)))
}

// back returns as a library does: it subscribes again.
func (p *trip) back() {
	p.t.Helper()
	p.after = p.connect()
	p.after.announced("ctx")
	p.after.mirror(p.id)
	p.after.open(p.id)
}

// repeat is what a library sends of what it knew before and finds changed.
func (p *trip) repeat() frame { return commands(set("n", 1), set("o", frame{"x": 1})) }

// restart stops the gateway and starts it on the same store, as that of a node that was
// killed would start.
func (p *trip) restart() {
	p.t.Helper()
	p.home.Stop()
	p.start()
}

func (p *trip) start() {
	p.t.Helper()
	var err error
	p.home, err = p.fb.gateway(p.node, "a", func(cfg *gateway.Config) {
		if p.origin != "" {
			cfg.Edge.Origins, cfg.Edge.Auth = []string{p.origin}, edge.OSUser
		}
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// connect is a connection that has said hello.
func (p *trip) connect() *client {
	p.t.Helper()
	if p.origin == "" {
		c := dial(p.t, p.home)
		c.hello(p.me)
		return c
	}
	c, err := tryDial(p.t, p.home.URLs()[0], http.Header{"Origin": {p.origin}})
	if err != nil {
		p.t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(p.fb.dir, "a", "token"))
	if err != nil {
		p.t.Fatal(err)
	}
	m := helloOf(p.me)
	m["authentication"] = frame{"method": "secret", "login": "ada", "secret": strings.TrimSpace(string(token))}
	c.g = p.home
	c.expect(m, frame{"type": "welcome"})
	return c
}

// present is what the context is by now.
func (p *trip) present(want frame) {
	p.t.Helper()
	within(p.t, jsonOf(want), func() string { return jsonOf(p.other.open(p.id)) }) // it may be on another node
	agree(p.t, []*client{p.after}, p.id)
}

var tripped = frame{"n": 2, "o": frame{"x": 2}, "same": true, "own": 1}

// TestAReturnedClientRepeats: what it knew before does not overwrite what is newer.
func TestAReturnedClientRepeats(t *testing.T) {
	for name, away := range map[string]func(*trip){
		"connection lost": (*trip).leave,
		"gateway restarted": func(p *trip) {
			p.restart()
			p.leave()
		},
		"changed, then restarted": func(p *trip) {
			p.leave()
			p.restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTrip(t)
			away(p)
			p.back()
			request := p.after.send(updating(p.id, p.repeat()))
			if got := p.after.answer(request); !got.is("success") {
				t.Fatalf("got %v", got)
			}
			p.after.await(frame{"type": "context-updated", "context_id": p.id})
			p.after.ordered(frame{"request_id": request}, frame{"type": "context-updated", "context_id": p.id})
			p.present(tripped)
			p.other.none(frame{"type": "context-updated", "updater_id": p.after.me})
		})
	}
}

// TestAReturnedClientRepeatsWhatWasNotNoted: the node was killed before it had noted what
// it sent last. What the client had is then one of the states since what was noted.
func TestAReturnedClientRepeatsWhatWasNotNoted(t *testing.T) {
	p := newTrip(t)
	p.fb.recording(t)
	journal := filepath.Join(p.fb.dir, "a", "sent", "sent.jsonl")
	poll(t, "what it was sent is noted", func() bool {
		text, err := os.ReadFile(journal)
		return err == nil && strings.Contains(string(text), p.before.me)
	})
	noted, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	p.other.update(p.id, commands(set("n", 7)))
	p.before.await(frame{"type": "context-updated", "context_id": p.id})
	p.other.update(p.id, commands(set("o.x", 7)))
	p.leave()
	p.home.Stop()
	if err := os.WriteFile(journal, noted, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.back()
	p.after.update(p.id, commands(set("n", 7), set("o", frame{"x": 1})))
	p.present(tripped)
	p.other.none(frame{"type": "context-updated", "updater_id": p.after.me})
}

// TestAReturnedClientRepeatsFirst: of a context to which an app has only written, a library
// repeats what it knew, subscribes after that, and then puts its update on the snapshot.
func TestAReturnedClientRepeatsFirst(t *testing.T) {
	p := newTrip(t)
	p.leave()
	p.after = p.connect()
	p.after.announced("ctx")
	p.after.update(p.id, commands(set("n", 1), set("o", frame{"x": 1}), set("same", true), set("own", 1)))
	equal(t, "the snapshot", p.after.open(p.id), tripped)
	push := p.after.await(frame{"type": "context-updated", "context_id": p.id})
	equal(t, "the correction", push["delta"], commands(set("n", 2), set("o.x", 2)))
	p.other.none(frame{"type": "context-updated", "updater_id": p.after.me})
	p.after.update(p.id, commands(set("n", 3)))
	p.other.await(frame{"type": "context-updated", "updater_id": p.after.me})
}

// lostOrRestarted runs a test for a client that has lost its connection, and for one whose
// gateway was restarted and has only noted revisions.
func lostOrRestarted(t *testing.T, test func(t *testing.T, p *trip, away func(*trip))) {
	for name, away := range map[string]func(*trip){"connection lost": func(*trip) {}, "gateway restarted": (*trip).restart} {
		t.Run(name, func(t *testing.T) {
			p := newTrip(t)
			p.fb.recording(t)
			test(t, p, away)
		})
	}
}

// TestAReturnedClientRepeatsWhatItHasLeft: a library that has only looked at a context
// keeps what it saw, puts its own updates on that, and repeats it all the same.
func TestAReturnedClientRepeatsWhatItHasLeft(t *testing.T) {
	lostOrRestarted(t, func(t *testing.T, p *trip, away func(*trip)) {
		p.before.expect(about("unsubscribe-context", p.id), done("global"))
		p.before.update(p.id, commands(set("mine", 1)))
		p.other.update(p.id, commands(set("mine", 2)))
		p.leave()
		away(p)
		p.back() // it looks again, to find out what has changed
		p.after.expect(about("unsubscribe-context", p.id), done("global"))
		p.after.update(p.id, commands(set("n", 1), set("o", frame{"x": 1}), set("mine", 1)))
		p.after.open(p.id)
		want := maps.Clone(tripped)
		want["mine"] = 2
		p.present(want)
		p.other.none(frame{"type": "context-updated", "updater_id": p.after.me})
	})
}

// TestAReturnedClientRepeatsWhatItWrote: of a context that it has never read a library
// knows what it wrote, and repeats that.
func TestAReturnedClientRepeatsWhatItWrote(t *testing.T) {
	lostOrRestarted(t, func(t *testing.T, p *trip, away func(*trip)) {
		id := p.other.create("unread", frame{"v": frame{"a": 1, "b": 1}})
		p.before.announced("unread")
		p.before.update(id, commands(set("v.a", 2), set("t", 2)))
		p.other.await(frame{"type": "context-updated", "context_id": id})
		p.before.close()
		p.other.update(id, commands(set("v.a", 3), set("t", 3)))
		away(p)
		p.after = p.connect()
		p.after.announced("unread")
		p.after.update(id, commands(set("t", 2), set("v", frame{"a": 2})))
		equal(t, "the context", p.other.open(id), frame{"v": frame{"a": 3, "b": 1}, "t": 3})
	})
}

// TestAReturnedClientDoesNotWait: it repeats what it knew before it has heard what is
// there now, as libraries do that hear of the context late.
func TestAReturnedClientDoesNotWait(t *testing.T) {
	p := newTrip(t)
	p.leave()
	p.restart()
	p.after = p.connect()
	p.after.announced("ctx")
	p.after.mirror(p.id)
	snapshot := p.after.send(about("subscribe-context", p.id))
	update := p.after.send(updating(p.id, p.repeat()))
	second := p.after.send(updating(p.id, commands(set("later", 1))))
	p.after.ordered(frame{"request_id": snapshot, "type": "subscribed-context"}, frame{"request_id": update, "type": "success"}, frame{"request_id": second, "type": "success"})
	want := maps.Clone(tripped)
	want["later"] = 1
	p.present(want)
}

// TestPagesReturn: nothing tells two pages of an application from each other.
func TestPagesReturn(t *testing.T) {
	for name, tt := range map[string]struct {
		away  func(*trip)
		close func(*client)
		want  frame
	}{
		"connection lost":   {func(*trip) {}, (*client).close, tripped},
		"gateway restarted": {(*trip).restart, (*client).close, tripped},
		"page closed": {
			func(*trip) {}, func(c *client) { _ = c.ws.Close(websocket.StatusGoingAway, "") },
			frame{"n": 1, "o": frame{"x": 1}, "same": true, "own": 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTripOf(t, "https://desk.example", frame{"application": "blotter", "api": "6.10.4"})
			tab := p.connect() // has not heard of the context yet
			tt.close(tab)
			tt.close(p.before)
			poll(t, "they are gone", func() bool { return p.home.Stats().Clients == 0 })
			p.leave()
			tt.away(p)
			p.connect()
			p.back()
			p.after.update(p.id, p.repeat())
			p.present(tt.want)
		})
	}
}

// TestAnotherOrigin is another page.
func TestAnotherOrigin(t *testing.T) {
	p := newTripOf(t, "https://desk.example", frame{"application": "blotter", "api": "6.10.4"})
	p.leave()
	p.origin = "https://other.example"
	p.restart()
	p.back()
	p.after.update(p.id, p.repeat())
	p.present(frame{"n": 1, "o": frame{"x": 1}, "same": true, "own": 1})
}

// TestAReturnedClientSaysSomethingNew: only what repeats is held back, and only once.
func TestAReturnedClientSaysSomethingNew(t *testing.T) {
	with := func(name string, v any) frame {
		want := frame{}
		maps.Copy(want, tripped)
		want[name] = v
		return want
	}
	for name, tt := range map[string]struct {
		updates []frame
		want    frame
	}{
		"a new value":                {[]frame{commands(set("n", 3))}, with("n", 3)},
		"a new key":                  {[]frame{commands(set("fresh", 1))}, with("fresh", 1)},
		"an old value a second time": {[]frame{commands(set("n", 1)), commands(set("n", 1))}, with("n", 1)},
		"an old value after another": {[]frame{commands(set("fresh", 1)), commands(set("n", 1)), commands(remove("fresh"))}, with("n", 1)},
		"a path":                     {[]frame{commands(set("o.x", 1))}, with("o", frame{"x": 1})},
		"a removal":                  {[]frame{commands(remove("own")), commands(set("own", nil))}, with("own", nil)},
		"a new object":               {[]frame{{"reset": frame{"n": 1}}}, frame{"n": 1}},
		"an old value and a new one": {[]frame{commands(set("n", 1), set("fresh", 1)), commands(remove("fresh"))}, with("n", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTrip(t)
			p.leave()
			p.back()
			for _, u := range tt.updates {
				p.after.update(p.id, u)
			}
			p.present(tt.want)
		})
	}
}

// TestNothingHasChangedMeanwhile: then the first update of a returned client is one like
// any other.
func TestNothingHasChangedMeanwhile(t *testing.T) {
	p := newTrip(t)
	p.before.close()
	p.back()
	p.after.update(p.id, commands(set("n", 5)))
	p.present(frame{"n": 5, "o": frame{"x": 1}, "same": true, "own": 1})
	p.after.update(p.id, commands(set("n", 1)))
	p.present(frame{"n": 1, "o": frame{"x": 1}, "same": true, "own": 1})
}

// TestSomebodyElse is no returned client.
func TestSomebodyElse(t *testing.T) {
	for name, change := range map[string]func(me frame){
		"another process":     func(me frame) { me["process"] = 1 },
		"another application": func(me frame) { me["application"] = "scout" },
		"no process":          func(me frame) { delete(me, "process") },
	} {
		t.Run(name, func(t *testing.T) {
			p := newTrip(t)
			p.leave()
			change(p.me)
			p.back()
			p.after.update(p.id, p.repeat())
			p.present(frame{"n": 1, "o": frame{"x": 1}, "same": true, "own": 1})
		})
	}
}

// TestBackTooLate: after ten seconds a client is a new one.
func TestBackTooLate(t *testing.T) {
	t.Parallel()
	p := newTrip(t)
	p.leave()
	<-time.After(10500 * time.Millisecond)
	p.back()
	p.after.update(p.id, p.repeat())
	p.present(frame{"n": 1, "o": frame{"x": 1}, "same": true, "own": 1})
}

// TestDestroyedMeanwhile: a returned client that creates again what it knew does not
// bring back what somebody has destroyed.
func TestDestroyedMeanwhile(t *testing.T) {
	p := newTrip(t)
	p.before.close()
	poll(t, "it is gone", func() bool { return p.home.Stats().Clients == 0 })
	p.other.expect(about("destroy-context", p.id), done("global"))
	p.after = dial(t, p.home)
	p.after.hello(p.me)
	p.after.expect(creating("ctx", frame{"n": 1}), frame{"type": "context-created", "context_id": p.id})
	p.after.await(frame{"type": "context-destroyed", "context_id": p.id})
	p.other.fence()
	if n := p.other.count(frame{"type": "context-added", "name": "ctx"}); n != 1 {
		t.Errorf("the other was told of it %d times", n)
	}
	missing := frame{"type": "error", "domain": "global", "reason": "Unable to find context with id " + p.id}
	poll(t, "it is told that there is none", func() bool {
		return has(map[string]any(p.after.ask(updating(p.id, commands(set("n", 8))))), missing)
	})
	p.after.create("ctx", frame{"n": 7}) // the second time it means it
}
