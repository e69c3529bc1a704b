package gateway_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-fabric/weft/gateway"
	"github.com/weft-fabric/weft/node"
)

// heap is how much memory is in use after everything that is not was collected.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// feed is a publisher on a node, for more than the race detector lets through a
// connection, and a context that changes as well.
type feed struct {
	t      *testing.T
	a, b   *gateway.Gateway
	stream *node.Stream
	app    *node.App
	name   string
	// server serves calls to caller, both on gateway a: nobody may wait for a slow client.
	server, caller *client
	id             string
	pushed         int
}

func newFeed(t *testing.T, log *slog.Logger) *feed {
	t.Helper()
	fb := newFabric(t)
	n, err := fb.node(t.Context(), realm, "a")
	if err != nil {
		t.Fatal(err)
	}
	d := &feed{t: t, name: unique("Prices")}
	if d.a, err = fb.gateway(n, "a", func(cfg *gateway.Config) { cfg.Logger = log }); err != nil {
		t.Fatal(err)
	}
	d.b = fb.desk(t, realm, "b")
	if d.app, err = n.Join(t.Context(), node.Identity{Application: "feed"}); err != nil {
		t.Fatal(err)
	}
	if d.stream, err = d.app.CreateStream(t.Context(), node.Method{Name: d.name}, node.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	d.server, d.caller = app(t, d.a, "pricer", "agm"), app(t, d.a, "caller", "agm")
	d.server.register(method("0", unique("Add")))
	d.caller.knows(d.server, "0")
	d.id = d.server.create("ctx", frame{"i": 0})
	return d
}

// subscriber is a client that has the stream and the context.
func (d *feed) subscriber(g *gateway.Gateway, change ...func(*line)) (c *client, subscription string) {
	d.t.Helper()
	c = dial(d.t, g, change...)
	c.omit = padding
	c.hello(identity("reluctant"))
	c.join("agm")
	server := string(d.app.ID())
	if !c.until(patience, func() bool { return c.rules.methods[server][d.name] }) {
		c.fatal("not told of the stream")
	}
	subscription = c.subscribed(c.send(frame{"type": "subscribe", "domain": "agm", "server_id": server, "method_id": d.name}))
	c.mirror(c.announced("ctx"))
	c.open(d.id)
	return c, subscription
}

var padding = strings.Repeat("x", 100_000)

func (d *feed) push() {
	d.t.Helper()
	if err := d.stream.Push(map[string]any{"i": d.pushed, "padding": padding}); err != nil {
		d.t.Fatal(err)
	}
	d.pushed++
}

// latency is the 99th percentile of the times that calls take.
func (d *feed) latency(calls int) time.Duration {
	d.t.Helper()
	times := make([]time.Duration, calls)
	for i := range times {
		begin := time.Now()
		request := d.caller.send(calling(d.server.me, "0", frame{}))
		d.server.send(yielding(d.server.await(frame{"type": "invoke"}), frame{}))
		d.caller.answer(request)
		times[i] = time.Since(begin)
	}
	slices.Sort(times)
	return times[calls*99/100]
}

// TestASlowClientMissesAndIsTold: a client that reads again in time misses messages,
// and is told which; of contexts it gets the latest. Meanwhile nobody waits for it, and
// little is kept for it.
func TestASlowClientMissesAndIsTold(t *testing.T) {
	d := newFeed(t, logger(t))
	for _, g := range []*gateway.Gateway{d.a, d.b} {
		slow, subscription := d.subscriber(g)
		before, held, first := d.latency(100), heap(), d.pushed
		slow.line.pause()
		var during time.Duration
		for i := range 300 { // more than waits for it
			d.push()
			if i%10 == 0 {
				d.server.send(updating(d.id, commands(set("i", i+1))))
				during = max(during, d.latency(5))
			}
		}
		d.server.fence()
		if grown := heap() - held; grown > 32<<20 {
			t.Errorf("the heap has grown by %d MiB", grown>>20)
		}
		if most := time.Second + 10*before; during > most {
			t.Errorf("others wait %v, before it was %v", during, before)
		}
		slow.line.resume()
		poll(t, "what is pushed now arrives", func() bool { // what has no next message is told with none
			d.push()
			return slow.count(event(subscription, frame{"i": func(i any) bool { return i.(float64) >= float64(first+300) }})) > 0
		})
		checkGaps(t, slow, subscription, first)
		agree(t, []*client{slow}, d.id)
		slow.close()
	}
}

// checkGaps checks that what is missing of a stream from a message on is said to be
// missing, to the message, and that something is.
func checkGaps(t *testing.T, c *client, subscription string, first int) {
	t.Helper()
	next, gaps := first, 0
	for i := range c.received() {
		f := c.nth(i)
		if !has(map[string]any(f), frame{"type": "event", "subscription_id": subscription}) {
			continue
		}
		got := int(f.object("data")["i"].(float64))
		if gap := f.object("gap"); gap != nil {
			gaps++
			from, to := gap["from"].(float64), gap["to"].(float64)
			if missing := int(to-from) + 1; next+missing != got || gap.str("reason") == "" {
				t.Errorf("a gap of %d from message %d to %d: %v", missing, next, got, gap)
			}
		} else if got != next {
			t.Errorf("message %d after %d, and no gap", got, next-1)
		}
		next = got + 1
	}
	if gaps == 0 {
		t.Error("nothing was missed: the client was not slow enough for this test")
	}
}

// TestADeadClientIsDisconnected: who does not read at all is disconnected ten seconds
// later, and why is logged; others go on.
func TestADeadClientIsDisconnected(t *testing.T) {
	t.Parallel()
	logged := &lines{}
	d := newFeed(t, slog.New(slog.NewJSONHandler(logged, nil)))
	dead, _ := d.subscriber(d.a, func(l *line) { l.small = true })
	before := d.latency(100)
	dead.line.pause()
	begin := time.Now()
	for i := 0; d.caller.count(frame{"type": "peer-removed", "removed_id": dead.me}) == 0; i++ {
		if i < 300 {
			d.push()
		}
		d.server.update(d.id, commands(set("i", i)))
		if took := d.latency(20); took > time.Second+10*before {
			t.Errorf("others wait %v, before it was %v", took, before)
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("still connected")
		}
	}
	logged.disconnected(t)
	stillGood(t, d.caller)
}

// TestTooManyAnswersForASlowClient: what cannot be left out is bounded too.
func TestTooManyAnswersForASlowClient(t *testing.T) {
	logged := &lines{}
	g := newFabric(t).desk(t, realm, "a", func(cfg *gateway.Config) { cfg.Logger = slog.New(slog.NewJSONHandler(logged, nil)) })
	other := app(t, g, "other")
	c := dial(t, g, func(l *line) { l.small = true })
	c.hello(identity("asks much"))
	id := c.create("ctx", frame{"large": strings.Repeat("x", 500_000)})
	held := heap()
	c.line.pause()
	request := fmt.Sprintf(`{"type":"subscribe-context","domain":"global","context_id":%q,"peer_id":%q,"request_id":"x"}`, id, c.me)
	for range 150 {
		if c.try(request) != nil {
			break
		}
	}
	other.fence()
	if grown := heap() - held; grown > 32<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
	t.Parallel() // the rest takes ten seconds, and no care
	poll(t, "it is disconnected", func() bool { return g.Stats().Clients == 1 })
	logged.disconnected(t)
	other.fence()
	c.line.resume()
}

// lines are what was logged as JSON.
type lines struct {
	mu  sync.Mutex
	all []frame
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var f frame
	if err := json.Unmarshal(p, &f); err != nil {
		return 0, err
	}
	l.all = append(l.all, f)
	return len(p), nil
}

// disconnected checks that the log says why a client was disconnected.
func (l *lines) disconnected(t *testing.T) {
	t.Helper()
	poll(t, "it is logged", func() bool { return l.find("gateway client disconnected") != nil })
	if reason := l.find("gateway client disconnected").str("reason"); reason == "" {
		t.Error("no reason was logged")
	}
}

// find is the first line with a message.
func (l *lines) find(message string) frame {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.all {
		if f["msg"] == message {
			return f
		}
	}
	return nil
}
