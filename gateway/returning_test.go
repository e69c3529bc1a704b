package gateway_test

import (
	"maps"
	"testing"
	"time"

	"github.com/weft-fabric/weft/gateway"
	"github.com/weft-fabric/weft/node"
)

// trip is a client that has a context, loses its connection and comes back, while
// another, on another node, goes on with the context.
type trip struct {
	t      *testing.T
	fb     *fabric
	node   *node.Node
	home   *gateway.Gateway
	me     frame
	id     string
	before *client
	after  *client
	other  *client
}

func newTrip(t *testing.T) *trip {
	t.Helper()
	fb := newFabric(t)
	n, err := fb.node(t.Context(), realm, "a")
	if err != nil {
		t.Fatal(err)
	}
	home, err := fb.gateway(n, "a")
	if err != nil {
		t.Fatal(err)
	}
	p := &trip{t: t, fb: fb, node: n, home: home, me: identity("blotter")}
	p.other = app(t, fb.desk(t, realm, "b"), "other")
	p.id = p.other.create("ctx", frame{"n": 1, "o": frame{"x": 1}, "same": true})
	p.before = dial(t, home)
	p.before.hello(p.me)
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
	p.after = dial(p.t, p.home)
	p.after.hello(p.me)
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
	var err error
	if p.home, err = p.fb.gateway(p.node, "a"); err != nil {
		p.t.Fatal(err)
	}
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
	p.other.expect(about("destroy-context", p.id), done("global"))
	p.after = dial(t, p.home)
	p.after.hello(p.me)
	p.after.expect(creating("ctx", frame{"n": 1}), frame{"type": "context-created", "context_id": p.id})
	p.after.await(frame{"type": "context-destroyed", "context_id": p.id})
	p.other.fence()
	if n := p.other.count(frame{"type": "context-added", "name": "ctx"}); n != 1 {
		t.Errorf("the other was told of it %d times", n)
	}
	p.after.create("ctx", frame{"n": 7}) // the second time it means it
}
