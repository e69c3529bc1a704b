package contexts

import (
	"strings"

	"github.com/weft-fabric/weft/wire"
)

// Outage is what becomes of writes while the fabric is away.
type Outage string

// The outages. A write is journalled, and made when the fabric is back unless somebody
// else has written at, above or below one of its paths meanwhile (remote-wins), or in any
// case (local-wins); or it is refused with offline (reject-offline).
const (
	RemoteWins    Outage = "remote-wins"
	LocalWins     Outage = "local-wins"
	RejectOffline Outage = "reject-offline"
)

// Policy says what becomes of writes of some contexts.
type Policy struct {
	// Pattern matches whole names; '*' stands for any text, also none.
	Pattern string
	Outage  Outage
}

// ParsePolicy reads PATTERN=OUTAGE. The last '=' counts.
func ParsePolicy(text string) (Policy, error) {
	i := strings.LastIndexByte(text, '=')
	if i < 1 {
		return Policy{}, wire.Errorf(wire.BadPayload, "%q: want PATTERN=OUTAGE, such as orders*=%s", text, RejectOffline)
	}
	p := Policy{text[:i], Outage(text[i+1:])}
	return p, p.Check()
}

// Check refuses an outage that there is not.
func (p Policy) Check() error {
	switch p.Outage {
	case RemoteWins, LocalWins, RejectOffline:
		return nil
	}
	return wire.Errorf(wire.BadPayload, "%q is no outage: use %s, %s or %s", p.Outage, RemoteWins, LocalWins, RejectOffline)
}

func (p Policy) matches(name string) bool {
	first, rest, star := strings.Cut(p.Pattern, "*")
	if !star {
		return name == p.Pattern
	}
	name, ok := strings.CutPrefix(name, first)
	parts := strings.Split(rest, "*")
	for _, part := range parts[:len(parts)-1] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return ok && strings.HasSuffix(name, parts[len(parts)-1])
}

// outage is what a context's writes become; the first policy that matches decides.
func (c *Contexts) outage(name string) Outage {
	for _, p := range c.cfg.Policies {
		if p.matches(name) {
			return p.Outage
		}
	}
	return RemoteWins
}
