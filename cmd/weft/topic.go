package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/weft-fabric/weft/node"
)

// pubCommand publishes on a topic.
type pubCommand struct {
	Topic      string `arg:"" help:"Topic; dots make a hierarchy."`
	Value      string `arg:"" optional:"" name:"json" help:"Message as JSON, @FILE, or - for the standard input."`
	RoutingKey string `placeholder:"KEY" help:"Only for subscribers with this key, or with none."`
	connectFlags
}

// Run publishes one message.
func (c *pubCommand) Run(ctx context.Context, p *program) error {
	value, err := p.argument(c.Value)
	if err != nil {
		return err
	}
	s, err := p.join(ctx, &c.connectFlags, "weft-cli")
	if err != nil {
		return err
	}
	defer s.close()
	return s.app.Publish(ctx, c.Topic, value, routingKey(c.RoutingKey))
}

// subCommand prints what is published.
type subCommand struct {
	Pattern    string `arg:"" help:"Topic; * is any one word of it, > at the end one or more."`
	RoutingKey string `placeholder:"KEY" help:"Leave out messages with another routing key."`
	Count      int    `short:"n" default:"0" placeholder:"N" help:"End after N messages."`
	connectFlags
}

// topicLine is a message with --json.
type topicLine struct {
	Topic      string          `json:"topic"`
	Publisher  node.Identity   `json:"publisher"`
	RoutingKey string          `json:"routingKey,omitempty"`
	Value      json.RawMessage `json:"value"`
}

// lostLine says with --json that messages are missing.
type lostLine struct {
	Lost   uint64 `json:"lost"` // 0: nobody knows how many
	Reason string `json:"reason"`
}

// Run prints until ctx ends or so many messages have come.
func (c *subCommand) Run(ctx context.Context, p *program) error {
	s, err := p.join(ctx, &c.connectFlags, "weft-cli")
	if err != nil {
		return err
	}
	defer s.close()
	sub, err := s.app.SubscribeTopic(ctx, c.Pattern, routingKeyIs(c.RoutingKey))
	if err != nil {
		return err
	}
	defer sub.Close()
	p.errorf("Subscribed to %s.", c.Pattern)
	seen := 0
	for e := range sub.Events(ctx) {
		if err := p.printTopicEvent(e); err != nil {
			return err
		}
		if e.Kind == topicLost {
			continue
		}
		if seen++; seen == c.Count {
			break
		}
	}
	return nil
}

func (p *program) printTopicEvent(e node.TopicEvent) error {
	if e.Kind == topicLost {
		if p.json {
			return p.printJSON(lostLine{e.Lost, e.Reason})
		}
		number := "some messages"
		if e.Lost > 0 {
			number = count(int(e.Lost), "message")
		}
		p.errorf("lost: %s did not arrive here (%s)", number, e.Reason)
		return nil
	}
	value, err := jsonOf(e.Value)
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(topicLine{e.Topic, e.Publisher, e.RoutingKey, value})
	}
	key := ""
	if e.RoutingKey != "" {
		key = fmt.Sprintf(" [%s]", e.RoutingKey)
	}
	p.printf("%s%s from %s: %s", e.Topic, key, at(e.Publisher), value)
	return nil
}
