package topics

import (
	"encoding/json"
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// maxTarget bounds the header Weft-Target.
const maxTarget = 4 << 10

// PublishOption says more about one message.
type PublishOption func(*publishing)

type publishing struct {
	key    string
	target wire.Filter
}

// RoutingKey gives the message a routing key: subscriptions with another one
// do not get it. The empty key is none.
func RoutingKey(key string) PublishOption {
	return func(p *publishing) { p.key = key }
}

// Target sends the message only to subscribers all of whose properties that
// are named here are equal.
func Target(f wire.Filter) PublishOption {
	return func(p *publishing) { p.target = f }
}

// SubscribeOption narrows a subscription.
type SubscribeOption func(*subscribing)

type subscribing struct {
	key  string
	from wire.Filter
}

// RoutingKeyIs leaves out messages with another routing key; those without
// one are delivered. The empty key is none.
func RoutingKeyIs(key string) SubscribeOption {
	return func(s *subscribing) { s.key = key }
}

// From selects by the publisher's identity.
func From(f wire.Filter) SubscribeOption {
	return func(s *subscribing) { s.from = maps.Clone(f) }
}

// checkKey refuses what does not pass through a header unchanged.
func checkKey(key string) error {
	if len(key) > subjects.MaxName {
		return wire.Errorf(wire.BadName, "routing key: longer than %d bytes", subjects.MaxName)
	}
	if !passesHeader(key) {
		return wire.Errorf(wire.BadName, "routing key %q: must be UTF-8 without control characters and without white space at either end", key)
	}
	return nil
}

func passesHeader(s string) bool {
	return utf8.ValidString(s) && strings.TrimSpace(s) == s && strings.IndexFunc(s, unicode.IsControl) < 0
}

// formatTarget returns the header value, "" for no target.
func formatTarget(f wire.Filter) (string, error) {
	if len(f) == 0 {
		return "", nil
	}
	for name, value := range f {
		if !utf8.ValidString(value) {
			return "", wire.Errorf(wire.BadPayload, "target: %s is not valid UTF-8", name)
		}
	}
	text, err := json.Marshal(f)
	if err != nil {
		return "", wire.Errorf(wire.BadPayload, "target: %w", err)
	}
	if len(text) > maxTarget {
		return "", wire.Errorf(wire.Limit, "target: %d bytes, the limit is %d", len(text), maxTarget)
	}
	return string(text), nil
}

func parseTarget(s string) (wire.Filter, error) {
	if len(s) > maxTarget || !strings.HasPrefix(s, "{") {
		return nil, wire.Errorf(wire.BadPayload, "the target is not a JSON object of at most %d bytes", maxTarget)
	}
	var f wire.Filter
	if err := json.Unmarshal([]byte(s), &f); err != nil {
		return nil, wire.Errorf(wire.BadPayload, "target: %w", err)
	}
	return f, nil
}
