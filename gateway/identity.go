package gateway

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// claimed are the claims of an identity that the node knows by name; what else a
// client says of itself travels as it is.
var claimed = []struct {
	name string
	of   func(*node.Identity) *string
}{
	{"application", func(id *node.Identity) *string { return &id.Application }},
	{"applicationName", func(id *node.Identity) *string { return &id.ApplicationName }},
	{"instance", func(id *node.Identity) *string { return &id.Instance }},
	{"windowId", func(id *node.Identity) *string { return &id.WindowID }},
	{"environment", func(id *node.Identity) *string { return &id.Environment }},
	{"region", func(id *node.Identity) *string { return &id.Region }},
	{"service", func(id *node.Identity) *string { return &id.Service }},
	{"api", func(id *node.Identity) *string { return &id.API }},
}

// stamped are what the node says; a client that claims one of them is not heard.
var stamped = []string{"user", "login", "osUser", "machine", "node", "app"}

// readIdentity reads the identity of a hello.
func readIdentity(object []byte) (id node.Identity, err error) {
	if object == nil {
		return id, nil
	}
	members, err := wire.JSONMembers(nil, object)
	if err != nil {
		return id, wire.Errorf(wire.BadPayload, "identity: %w", err)
	}
	extra := message{}
	for _, m := range members {
		if readClaim(&id, m) || isStamped(m.Name) {
			continue
		}
		if err := wire.CheckJSON(m.Value); err != nil {
			return id, wire.Errorf(wire.BadPayload, "identity: %s: %w", m.Name, err)
		}
		extra = append(extra, ',')
		extra = wire.AppendJSONString(extra, m.Name)
		extra = append(extra, ':')
		extra = append(extra, compactJSON(m.Value)...)
	}
	if len(extra) > 0 {
		extra[0] = '{'
		id.Extra = string(append(extra, '}'))
	}
	if n := len(id.Extra); n > wire.MaxExtra {
		return id, wire.Errorf(wire.Limit, "identity: %d bytes of further claims, the limit is %d", n, wire.MaxExtra)
	}
	for _, c := range claimed {
		if n := len(*c.of(&id)); n > maxClaim {
			return id, wire.Errorf(wire.Limit, "identity: %s of %d bytes, the limit is %d", c.name, n, maxClaim)
		}
	}
	return id, nil
}

// maxClaim is how long one claim may be: as long as a name.
const maxClaim = 255

// readClaim takes a claim that the node knows by name and type.
func readClaim(id *node.Identity, m wire.JSONMember) bool {
	for _, c := range claimed {
		if c.name != m.Name {
			continue
		}
		s, ok := wire.JSONString(m.Value)
		if ok && s != "" {
			*c.of(id) = s
			return true
		}
		return false
	}
	if m.Name == "process" {
		if n, err := strconv.Atoi(string(m.Value)); err == nil && n > 0 {
			id.PID = n
			return true
		}
	}
	return false
}

func isStamped(name string) bool {
	for _, s := range stamped {
		if strings.EqualFold(s, name) {
			return true
		}
	}
	return false
}

// resolve puts the peer's id in the place of claims that are "?".
func resolve(id *node.Identity, peer string) {
	for _, c := range claimed {
		if v := c.of(id); *v == "?" {
			*v = peer
		}
	}
	if strings.Contains(id.Extra, `"?"`) {
		id.Extra = resolveExtra(id.Extra, peer)
	}
}

func resolveExtra(extra, peer string) string {
	members, err := wire.JSONMembers(nil, []byte(extra))
	if err != nil {
		return extra
	}
	m := message{}
	for _, e := range members {
		m = append(m, ',')
		m = wire.AppendJSONString(m, e.Name)
		m = append(m, ':')
		if s, ok := wire.JSONString(e.Value); ok && s == "?" {
			m = wire.AppendJSONString(m, peer)
		} else {
			m = append(m, e.Value...)
		}
	}
	m[0] = '{'
	return string(append(m, '}'))
}

// identityJSON is an identity as clients see it.
func identityJSON(id *node.Identity) []byte {
	m := message{}
	add := func(name, value string) {
		if value != "" {
			m = m.str(name, value)
		}
	}
	for _, c := range claimed {
		add(c.name, *c.of(id))
	}
	if id.PID > 0 {
		m = m.raw("process", strconv.AppendInt(nil, int64(id.PID), 10))
	}
	add("user", id.User)
	add("login", id.User)
	add("machine", id.Machine)
	add("node", id.Node)
	add("osUser", id.OSUser)
	if inner := strings.TrimSuffix(strings.TrimPrefix(id.Extra, "{"), "}"); inner != "" && wire.CheckJSON([]byte(id.Extra)) == nil {
		m = append(m, ',')
		m = append(m, inner...)
	}
	if len(m) == 0 {
		return []byte("{}")
	}
	m[0] = '{'
	return append(m, '}')
}

// compactJSON is JSON text without white space around its tokens.
func compactJSON(value []byte) []byte {
	if !bytes.ContainsAny(value, " \t\r\n") {
		return value
	}
	p := wire.Payload{Format: wire.JSON, Data: value}
	packed, err := p.As(wire.Msgpack)
	if err != nil {
		return value
	}
	if p, err = packed.As(wire.JSON); err != nil {
		return value
	}
	return p.Data
}
