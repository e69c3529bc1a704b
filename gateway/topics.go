package gateway

import (
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// maxUnpublished is how many messages of a peer wait to be published.
	maxUnpublished = 1024
	// lastWordsWithin is how long those of a peer that has gone may take.
	lastWordsWithin = 2 * time.Second
)

// topics is what a peer has of pub/sub.
type topics struct {
	p    *peer
	subs map[string]*node.TopicSubscription
	next uint64
	// publishing are messages for the goroutine that publishes them, which can have
	// to wait for NATS; nil before the first.
	publishing chan func()
	published  chan struct{} // closed when that goroutine has ended
}

func newTopics(p *peer) *topics {
	return &topics{p: p, subs: map[string]*node.TopicSubscription{}}
}

// bus handles requests about topics.
func (p *peer) bus(f *frame) {
	switch f.kind {
	case "subscribe":
		p.topics.subscribe(f)
	case "unsubscribe":
		p.topics.unsubscribe(f)
	case "publish":
		p.topics.publish(f)
	default:
		p.unhandled(f)
	}
}

// finish waits until what the peer has published is on its way.
func (x *topics) finish() {
	if x.publishing == nil {
		return
	}
	close(x.publishing)
	select {
	case <-x.published:
	case <-time.After(lastWordsWithin):
		x.p.log.Warn("messages of a client that has gone were not published", slog.Int("count", len(x.publishing)))
	}
}

// leave ends all subscriptions.
func (x *topics) leave() {
	for id, s := range x.subs {
		s.Close()
		delete(x.subs, id)
	}
}

func (x *topics) subscribe(f *frame) {
	p := x.p
	if _, member := p.joined[domainBus]; !member {
		p.fail(f, domainBus, domainBus+"."+uriFailure, "Unable to find peer with id "+string(p.id)+" in domain :bus-domain")
		return
	}
	pattern, err := readPattern(f.text("topic"))
	if err != nil {
		p.failed(f, err)
		return
	}
	var opts []node.SubscribeOption
	if key := f.text("routing_key"); key != "" {
		opts = append(opts, node.RoutingKeyIs(key))
	}
	sub, err := p.client.SubscribeTopic(p.ctx, pattern.filter, opts...)
	if err != nil {
		p.failed(f, err)
		return
	}
	x.next++
	id := "b-" + string(p.id) + "-" + string(decimal(x.next))
	x.subs[id] = sub
	p.s.send(begin(domainBus, "subscribed").raw("request_id", f.request).str("peer_id", string(p.id)).str("subscription_id", id))
	go x.pass(id, sub, pattern) // ends with the subscription, which ends with the peer
}

// pass passes on what comes for a subscription.
func (x *topics) pass(id string, sub *node.TopicSubscription, pattern pattern) {
	p := x.p
	for e := range sub.Events(p.ctx) {
		if e.Kind == node.TopicLost {
			p.s.g.gaps.Add(1)
			p.log.Warn("messages of a topic are missing", slog.String("pattern", pattern.text), slog.Uint64("count", e.Lost), slog.String("reason", e.Reason))
			continue
		}
		if !pattern.matches(e.Topic) || !x.visible(&e.Publisher) {
			continue
		}
		data, err := jsonOf(e.Value)
		if err != nil || data == nil {
			continue // the protocol has no message without data
		}
		p.s.out.await(p.ctx)
		p.s.send(begin(domainBus, "event").str("peer_id", string(p.id)).str("subscription_id", id).
			raw("publisher-identity", identityJSON(&e.Publisher)).raw("data", data))
	}
}

// visible says whether the peer may see a publisher. It runs on any goroutine.
func (x *topics) visible(id *node.Identity) bool {
	app, ok := x.p.s.g.realm.View().App(subjects.App(id.App))
	mine := x.p.restrictions(domainBus)
	if !permits(mine, &x.p.self, id) {
		return false
	}
	return !ok || permits(app.Domains[domainBus], id, &x.p.self)
}

func (x *topics) unsubscribe(f *frame) {
	id := f.text("subscription_id")
	if s := x.subs[id]; s != nil {
		s.Close()
		delete(x.subs, id)
	}
	x.p.success(f, domainBus)
}

// publish publishes a message: fire and forget, so that only an error is answered.
func (x *topics) publish(f *frame) {
	p := x.p
	topic, data := f.text("topic"), f.raw("data")
	if topic == "" {
		p.failed(f, wire.Errorf(wire.BadName, "a message needs a topic"))
		return
	}
	if data == nil || string(data) == "false" {
		return // there is no such message
	}
	var opts []node.PublishOption
	if key := f.text("routing_key"); key != "" {
		opts = append(opts, node.RoutingKey(key))
	}
	target, err := readTarget(f.raw("target_identity"))
	if err != nil {
		p.failed(f, err)
		return
	}
	if len(target) > 0 {
		opts = append(opts, node.TopicTarget(target))
	}
	if x.publishing == nil {
		x.publishing, x.published = make(chan func(), maxUnpublished), make(chan struct{})
		go x.publishAll() // ends with finish, or with p.ctx
	}
	select {
	case x.publishing <- func() {
		err := p.client.Publish(p.ctx, topic, wire.Payload{Format: wire.JSON, Data: data}, opts...)
		if err != nil && p.ctx.Err() == nil {
			p.failed(f, err)
		}
	}:
	case <-p.ctx.Done():
	}
}

func (x *topics) publishAll() {
	defer close(x.published)
	for publish := range x.publishing {
		if publish(); x.p.ctx.Err() != nil {
			return
		}
	}
}

// readTarget reads what the identity of subscribers must have.
func readTarget(object []byte) (node.Filter, error) {
	if object == nil {
		return nil, nil
	}
	members, err := wire.JSONMembers(nil, object)
	if err != nil {
		return nil, wire.Errorf(wire.BadPayload, "target_identity: %w", err)
	}
	target := node.Filter{}
	for _, m := range members {
		s, ok := wire.JSONString(m.Value)
		if !ok {
			s = string(compactJSON(m.Value))
		}
		target[m.Name] = s
	}
	return target, nil
}

// pattern is what a client subscribes to: a topic, or with * and > a pattern, in
// which * is any number of letters, digits and underscores, and > is anything.
type pattern struct {
	text   string
	filter string // the narrowest pattern of package topics that has all of it
	match  *regexp.Regexp
}

func readPattern(text string) (pattern, error) {
	p := pattern{text: text, filter: text}
	if text == "" {
		return p, wire.Errorf(wire.BadName, "a subscription needs a topic")
	}
	if !strings.ContainsAny(text, "*>") {
		return p, nil
	}
	if len(text) > maxClaim {
		return p, wire.Errorf(wire.BadName, "a pattern of %d bytes, the limit is %d", len(text), maxClaim)
	}
	expression := strings.NewReplacer(`\*`, `[a-zA-Z_0-9]+`, `>`, `(?s:.*)`).Replace(regexp.QuoteMeta(text))
	match, err := regexp.Compile(`\A(?:` + expression + `)\z`)
	if err != nil {
		return p, wire.Errorf(wire.BadName, "pattern %q: %w", text, err)
	}
	p.match = match
	tokens := strings.Split(text, ".")
	at := 0
	for !strings.ContainsAny(tokens[at], "*>") {
		at++
	}
	switch {
	case tokens[at] == "*" && at == len(tokens)-1, tokens[at] == ">" && at == len(tokens)-1:
		p.filter = text
	default:
		p.filter = strings.Join(append(tokens[:at:at], ">"), ".")
	}
	return p, nil
}

func (p pattern) matches(topic string) bool {
	if p.match == nil {
		return topic == p.text
	}
	return p.match.MatchString(topic)
}
