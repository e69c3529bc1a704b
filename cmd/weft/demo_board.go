package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// board is what there is to see of the demo. The apps write on it, the views
// show it.
type board struct {
	start time.Time
	news  chan happening // to the view; what finds no room is not shown

	mu    sync.Mutex // guards what follows
	state boardState
	away  map[string]time.Time // machines that were told to leave or return
	sent  map[string]time.Time // when the channel and the context were written last
}

// boardState is the board at one moment.
type boardState struct {
	machines []machineState
	calls    []callState // newest last
	prices   map[string]priceState
	topics   []topicState
	limits   map[string]limitState
	members  []node.ChannelMember // of the channel
	client   string               // picked on alice-pc
	blotter  blotterState
	story    []happening
	tally    tally
}

type machineState struct {
	name string
	here bool
	apps []*node.AppInfo
}

type callState struct {
	method       string
	server       string // empty if nobody was called
	result, code string
	took         time.Duration
	remote       bool
}

type priceState struct {
	price
	before float64
	at     time.Time
}

type topicState struct {
	topic, publisher, subscriber, value string
}

// limitState is a limit in the context, as the trader on alice-pc sees it.
type limitState struct {
	limit, before int
	by            string
	at            time.Time
}

// blotterState is what the blotter shows: of all fills those of the client.
type blotterState struct {
	client string
	fills  []order // newest last
}

func (s blotterState) shown() (list []order) {
	for _, o := range s.fills {
		if o.Client == s.client {
			list = append(list, o)
		}
	}
	return list
}

// happening is a line of the story.
type happening struct {
	at   time.Duration // since the start
	kind string        // machine, call, stream, topic, context, channel
	text string
	bad  bool
}

// tally counts.
type tally struct {
	answered, refused, unserved, failed int
	remote, local                       []time.Duration
	pushed, priced, gaps                int
	published, heard, unpublished       int
	set, limited                        int             // limits
	picked, followed, found             int             // clients
	changes                             []time.Duration // until a limit or client was on the other machine
	left, returned                      []time.Duration // until alice-pc saw it
}

// How much the board remembers.
const (
	keptCalls   = 12
	keptTopics  = 8
	keptFills   = 1000
	keptStory   = 12
	keptTimings = 10_000
)

func newBoard() *board {
	return &board{
		start: time.Now(), news: make(chan happening, 256), away: map[string]time.Time{}, sent: map[string]time.Time{},
		state: boardState{prices: map[string]priceState{}, limits: map[string]limitState{}, machines: []machineState{{name: alicePC}, {name: bobPC}}},
	}
}

// snapshot is a copy for a view.
func (b *board) snapshot() boardState {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state
	s.machines, s.calls, s.topics, s.story = slices.Clone(s.machines), slices.Clone(s.calls), slices.Clone(s.topics), slices.Clone(s.story)
	s.prices, s.limits = maps.Clone(s.prices), maps.Clone(s.limits)
	s.members, s.blotter.fills = slices.Clone(s.members), slices.Clone(s.blotter.fills)
	return s
}

// last appends to a list that keeps so many.
func last[T any](list []T, item T, most int) []T {
	list = append(list, item)
	return slices.Clone(list[max(0, len(list)-most):])
}

// tell adds a line to the story.
func (b *board) tell(kind, format string, args ...any) { b.say(kind, false, true, format, args...) }

// say sends a line to the view, and with story keeps it.
func (b *board) say(kind string, bad, story bool, format string, args ...any) {
	h := happening{time.Since(b.start), kind, fmt.Sprintf(format, args...), bad}
	if story {
		b.mu.Lock()
		b.state.story = last(b.state.story, h, keptStory)
		b.mu.Unlock()
	}
	select {
	case b.news <- h:
	default:
	}
}

// call invokes a method and shows what came of it.
func (b *board) call(ctx context.Context, app *node.App, method string, args any, opts ...node.Option) (node.Results, error) {
	began := time.Now()
	results, err := app.Invoke(ctx, method, args, append(opts, node.Timeout(2*time.Second))...)
	took := time.Since(began)
	if ctx.Err() != nil {
		return results, err // the demo is over
	}
	c := callState{method: method, took: took}
	for i, r := range results {
		if i > 0 {
			c.server += ", "
		}
		c.server += at(r.Server)
		c.remote = c.remote || r.Server.Node != app.Identity().Node
	}
	switch {
	case err != nil:
		c.code, c.result = string(wire.CodeOf(err)), sentenceOf(err)
	case len(results) > 1:
		c.result = fmt.Sprintf("%d answers: %s", len(results), c.server)
	default:
		c.result = results.Value().String()
	}
	b.called(c)
	return results, err
}

func (b *board) called(c callState) {
	b.mu.Lock()
	t := &b.state.tally
	switch wire.Code(c.code) {
	case "":
		t.answered++
		if c.remote {
			t.remote = last(t.remote, c.took, keptTimings)
		} else {
			t.local = last(t.local, c.took, keptTimings)
		}
	case wire.AppError:
		t.refused++
	case wire.NoServer, wire.TargetGone:
		t.unserved++
	default:
		t.failed++
	}
	b.state.calls = last(b.state.calls, c, keptCalls)
	b.mu.Unlock()
	b.say("call", c.code != "", false, "%s", c.line())
}

// line is a call in words.
func (c callState) line() string {
	said := c.result
	if c.code != "" {
		said = c.code + ": " + c.result
	}
	return fmt.Sprintf("%-13s → %-19s %8s  %s", c.method, c.who(), brief(c.took), said)
}

// who is whom the call reached.
func (c callState) who() string {
	switch {
	case c.server == "":
		return "nobody"
	case strings.Contains(c.server, ","):
		return "every server"
	}
	return c.server
}

func (b *board) pushed() {
	b.mu.Lock()
	b.state.tally.pushed++
	b.mu.Unlock()
}

func (b *board) priced(p price) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.tally.priced++
	old := b.state.prices[p.Symbol]
	if old.Bid != p.Bid {
		old.before = old.Bid
	}
	b.state.prices[p.Symbol] = priceState{p, old.before, time.Now()}
}

func (b *board) gap(symbol string, e node.StreamEvent) {
	b.mu.Lock()
	b.state.tally.gaps++
	b.mu.Unlock()
	b.say("stream", true, true, "gap: %s of Prices/%s will not come (%s)", missed(e.From, e.To), symbol, e.Reason)
}

func (b *board) published(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.state.tally.unpublished++
	} else {
		b.state.tally.published++
	}
}

// heard is a topic message that an app got.
func (b *board) heard(e node.TopicEvent, app *node.App) {
	t := topicState{e.Topic, at(e.Publisher), at(app.Identity()), e.Value.String()}
	var o order
	if e.Value.Decode(&o) == nil && o.Quantity > 0 {
		t.value = fmt.Sprintf("%d at %s", o.Quantity, figure(o.Price))
	}
	b.mu.Lock()
	b.state.tally.heard++
	b.state.topics = last(b.state.topics, t, keptTopics)
	b.mu.Unlock()
	b.say("topic", false, false, "%-15s %s → %s  %s", t.topic, t.publisher, t.subscriber, t.value)
}

// sending says that the context or channel of this name is about to be written.
func (b *board) sending(name string) {
	b.mu.Lock()
	b.sent[name] = time.Now()
	b.mu.Unlock()
}

// set is a limit that was written, picked a client.
func (b *board) set() {
	b.mu.Lock()
	b.state.tally.set++
	b.mu.Unlock()
}

func (b *board) picked(client string) {
	b.mu.Lock()
	b.state.tally.picked++
	b.state.client = client
	b.mu.Unlock()
}

// name is application@node of a writer; the machines are up to date. mu is held.
func (b *board) name(w contextWriter) string {
	for _, m := range b.state.machines {
		for _, a := range m.apps {
			if a.ID == w.App {
				return at(a.Identity)
			}
		}
	}
	return string(w.Node)
}

// limited is what an app got of the context with the limits.
func (b *board) limited(e node.ContextEvent, app *node.App) {
	var now deskState
	if !e.Exists || e.Value().Decode(&now) != nil {
		return
	}
	b.mu.Lock()
	by, after := b.name(e.By), time.Since(b.sent[desk])
	for symbol, limit := range now.Limits {
		if old, ok := b.state.limits[symbol]; !ok || old.limit != limit {
			b.state.limits[symbol] = limitState{limit, old.limit, by, time.Now()}
		}
	}
	changed := e.Kind == node.ContextChanged
	if changed {
		b.state.tally.limited++
		b.state.tally.changes = last(b.state.tally.changes, after, keptTimings)
	}
	b.mu.Unlock()
	if !changed {
		return
	}
	for _, c := range e.Changes {
		b.say("context", false, false, "%-15s %s → %s  %s = %s after %s", desk, by, at(app.Identity()), pathText(c.Path), c.Value, brief(after))
	}
}

// follows is what the blotter got of the channel. A snapshot is what was there
// before it came.
func (b *board) follows(u node.ChannelUpdate, client string, app *node.App) {
	b.mu.Lock()
	by, after := b.name(u.Channel.By), time.Since(b.sent[channel])
	b.state.blotter.client = client
	live := u.Kind == node.ChannelChanged
	if live {
		b.state.tally.followed++
		b.state.tally.changes = last(b.state.tally.changes, after, keptTimings)
	} else {
		b.state.tally.found++
		b.state.blotter.fills = nil
	}
	shown, all := len(b.state.blotter.shown()), len(b.state.blotter.fills)
	b.mu.Unlock()
	if !live {
		b.tell("channel", "%s finds client %s on %s, by %s", at(app.Identity()), client, channel, by)
		return
	}
	b.say("channel", false, false, "%-15s %s → %s  client %s after %s, shows %d of %s",
		channel, by, at(app.Identity()), client, brief(after), shown, count(all, "fill"))
}

// listed is a fill in the blotter.
func (b *board) listed(o order) {
	b.mu.Lock()
	b.state.blotter.fills = last(b.state.blotter.fills, o, keptFills)
	b.mu.Unlock()
}

// member keeps who is on the channel.
func (b *board) member(e node.ChannelEvent) {
	if e.Channel != channel || e.Member.App == "" {
		return
	}
	what := "joined"
	b.mu.Lock()
	b.state.members = slices.DeleteFunc(slices.Clone(b.state.members), func(m node.ChannelMember) bool { return m.App == e.Member.App })
	if e.Kind == node.ChannelMemberJoined {
		b.state.members = append(b.state.members, e.Member)
	} else {
		what = "left"
	}
	b.mu.Unlock()
	b.tell("channel", "%s %s %s", at(e.Member.Identity), what, channel)
}

// leaving and returning say what the script is about to do.
func (b *board) leaving(machine string) {
	b.mark(machine)
	b.tell("machine", "%s leaves: its node stops", machine)
}

func (b *board) returning(machine string) {
	b.mark(machine)
	b.tell("machine", "%s starts again", machine)
}

func (b *board) mark(machine string) {
	b.mu.Lock()
	b.away[machine] = time.Now()
	b.mu.Unlock()
}

// follow keeps the machines up to date, as the directory of one node sees them.
func (b *board) follow(ctx context.Context, n *node.Node) {
	for e := range n.Watch(ctx) {
		b.arrange(n.Nodes())
		if e.Node.Local || e.Kind != node.NodeAdded && e.Kind != node.NodeRemoved {
			continue
		}
		name := string(e.Node.ID)
		b.mu.Lock()
		since, told := b.away[name]
		after := time.Since(since)
		t := &b.state.tally
		if told && e.Kind == node.NodeRemoved {
			t.left = append(t.left, after)
		}
		if told && e.Kind == node.NodeAdded {
			t.returned = append(t.returned, after)
		}
		b.mu.Unlock()
		switch {
		case e.Kind == node.NodeRemoved && told:
			b.say("machine", true, true, "%s sees %s gone after %s (%s)", n.ID(), name, brief(after), e.Reason)
		case told:
			b.tell("machine", "%s sees %s again after %s", n.ID(), name, brief(after))
		default:
			b.tell("machine", "%s sees %s", n.ID(), name)
		}
	}
}

// arrange shows who is here.
func (b *board) arrange(nodes []*node.Info) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.state.machines {
		m := &b.state.machines[i]
		m.here = false
		for _, n := range nodes {
			if string(n.ID) == m.name {
				m.here, m.apps = true, slices.Clone(n.Apps)
			}
		}
	}
}

// summary says in the end what happened.
func (b *board) summary(p *program) error {
	b.mu.Lock()
	t := b.state.tally
	b.mu.Unlock()
	took := time.Since(b.start).Round(100 * time.Millisecond)
	if p.json {
		return p.printJSON(map[string]any{
			"seconds": took.Seconds(), "answered": t.answered, "refused": t.refused, "unserved": t.unserved, "failed": t.failed,
			"remoteP50Us": median(t.remote).Microseconds(), "localP50Us": median(t.local).Microseconds(),
			"pushed": t.pushed, "received": t.priced, "gaps": t.gaps, "published": t.published, "heard": t.heard,
			"limits": t.set, "limitsSeen": t.limited, "clients": t.picked, "clientsFollowed": t.followed, "clientsFound": t.found,
			"changeP50Us": median(t.changes).Microseconds(), "left": len(t.left), "returned": len(t.returned),
		})
	}
	p.printf("")
	p.printf("In %s, on two machines:", brief(took))
	p.printf("  methods   %s", strings.Join(t.callWords(), ", "))
	if len(t.remote) > 0 {
		p.printf("            half within %s across machines, %s on the same machine", brief(median(t.remote)), brief(median(t.local)))
	}
	p.printf("  streams   %s pushed on %s, %d received by trader and chart on %s, %s",
		count(t.pushed, "price"), bobPC, t.priced, alicePC, count(t.gaps, "gap"))
	p.printf("  topics    %s published, %d received on the other machine", count(t.published, "message"), t.heard)
	p.printf("  contexts  %s set by risk on %s, %d seen by trader on %s", count(t.set, "limit"), bobPC, t.limited, alicePC)
	found := ""
	if t.found > 0 {
		found = fmt.Sprintf(", %d found when it came back", t.found)
	}
	p.printf("  channels  %s picked on %s, %d followed by blotter on %s%s", count(t.picked, "client"), alicePC, t.followed, bobPC, found)
	if len(t.changes) > 0 {
		p.printf("            half of the changes within %s on the other machine", brief(median(t.changes)))
	}
	for i, after := range t.left {
		line := fmt.Sprintf("%s saw %s leave after %s", alicePC, bobPC, brief(after))
		if i < len(t.returned) {
			line += fmt.Sprintf(", and return after %s", brief(t.returned[i]))
		}
		p.printf("  fault     %s", line)
	}
	p.printf("")
	p.printf("Next, each in a terminal of its own:")
	p.printf("  weft up")
	p.printf("  weft serve Add --exec examples/add.sh")
	p.printf("  weft call Add '{\"a\":1,\"b\":2}'")
	return nil
}

func (t *tally) callWords() []string {
	words := []string{count(t.answered, "call") + " answered"}
	for _, w := range []struct {
		n    int
		text string
	}{{t.refused, "refused by risk"}, {t.unserved, "without a server"}, {t.failed, "failed"}} {
		if w.n > 0 {
			words = append(words, fmt.Sprintf("%d %s", w.n, w.text))
		}
	}
	return words
}

func median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
