package contexts

import (
	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/restriction"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Lifetime is how long a context lives.
type Lifetime string

// The lifetimes. A retained context lives until it is destroyed; a ref-counted one
// until no app on any machine holds it any more, see [App.Hold]; one of ownership
// until its owner has left, and nobody else may destroy it before.
const (
	Retained   Lifetime = "retained"
	RefCounted Lifetime = "ref-counted"
	Ownership  Lifetime = "ownership"
)

// maxMeta is how many bytes metadata may have.
const maxMeta = 16 << 10

// Meta is what is known about a context beside its object: one msgpack value at
// its metadata key. It is written when the context is made with [App.Create]; one
// that was made by writing to it has none, and lives and is read and written as if
// it was retained and without permissions.
type Meta struct {
	// ID tells one context of a name from another of the same name, before or after.
	ID string `msgpack:"id"`
	// Creator is the app that made the context, on Node; Identity is what it said
	// of itself. They are empty for what a node made by itself.
	Creator  subjects.App  `msgpack:"creator"`
	Node     subjects.Node `msgpack:"node"`
	Identity wire.Identity `msgpack:"identity"`
	// Owner is the app with which a context of ownership ends.
	Owner    subjects.App `msgpack:"owner,omitempty"`
	Lifetime Lifetime     `msgpack:"lifetime"`
	// Read and Write are expressions (package restriction) of who may read and who
	// may write, about the creator and the app that wants to; everybody if empty.
	Read  string `msgpack:"read,omitempty"`
	Write string `msgpack:"write,omitempty"`
}

// Terms are what a context is created with beside its object. The zero Terms are
// those of a retained context that everybody may read and write.
type Terms struct {
	Lifetime Lifetime
	// Read and Write are as in [Meta].
	Read, Write string
}

// meta is the metadata of a context that an app creates.
func (a *App) meta(t Terms) (*Meta, error) {
	m := &Meta{ID: newID(), Creator: a.by.App, Node: a.by.Node, Lifetime: t.Lifetime, Read: t.Read, Write: t.Write}
	switch t.Lifetime {
	case "":
		m.Lifetime = Retained
	case Retained, RefCounted:
	case Ownership:
		m.Owner = a.by.App
	default:
		return nil, wire.Errorf(wire.BadPayload, "%q is no lifetime of a context: use %s, %s or %s", t.Lifetime, Retained, RefCounted, Ownership)
	}
	for _, text := range []string{t.Read, t.Write} {
		if _, err := restriction.Compiled(text); err != nil {
			return nil, err
		}
	}
	if a.c.cfg.Identity != nil {
		m.Identity, _ = a.c.cfg.Identity(a.id) // one that has left is nobody
	}
	return m, nil
}

// readMeta reads metadata, which anybody may have written. No entry is none, and
// so is what cannot be read.
func readMeta(e *kv.Entry) (*Meta, error) {
	if e == nil || e.Op != kv.Put {
		return nil, nil
	}
	if len(e.Value) > maxMeta {
		return nil, wire.Errorf(wire.Limit, "metadata of %d bytes, the limit is %d", len(e.Value), maxMeta)
	}
	m := &Meta{}
	if err := (wire.Payload{Format: e.Format, Data: e.Value}).Decode(m); err != nil {
		return nil, err
	}
	return m, nil
}

// value is the metadata, of which there may be none.
func (m *Meta) value() Meta {
	if m == nil {
		return Meta{}
	}
	return *m
}

// same says whether two are of the same context.
func (m *Meta) same(o *Meta) bool { return m.value().ID == o.value().ID }

// right is what an app wants to do with a context.
type right string

const (
	toRead    right = "read"
	toUpdate  right = "update"
	toDestroy right = "destroy"
)

// MayRead says whether the app may read a context with this metadata.
func (a *App) MayRead(m Meta) bool { return a.c.may(a.id, &m, toRead) }

// may says whether an app has a right on a context with this metadata.
func (c *Contexts) may(app subjects.App, m *Meta, r right) bool {
	switch {
	case m == nil || app == "": // no permissions, or the node itself
		return true
	case r == toDestroy && m.Lifetime == Ownership:
		return app == m.Owner
	case app == m.Creator || app == m.Owner:
		return true
	case r == toRead:
		return c.holds(m.Read, app, m) || m.Write != "" && c.holds(m.Write, app, m)
	}
	return c.holds(m.Write, app, m)
}

// holds evaluates a permission. One that cannot be understood holds for nobody.
func (c *Contexts) holds(permission string, app subjects.App, m *Meta) bool {
	if permission == "" {
		return true
	}
	e, err := restriction.Compiled(permission)
	return err == nil && e.Holds(c.attributes(m.Identity), c.attributesOf(app))
}

func (c *Contexts) attributesOf(app subjects.App) restriction.Attributes {
	if c.cfg.Identity == nil {
		return nil
	}
	id, ok := c.cfg.Identity(app)
	if !ok {
		return nil
	}
	return c.attributes(id)
}

func (c *Contexts) attributes(id wire.Identity) restriction.Attributes {
	if c.cfg.Attributes == nil {
		return nil
	}
	return c.cfg.Attributes(&id)
}

// denied is the error of an app that has not got a right.
func denied(r right, context string) error {
	return wire.Errorf(wire.Denied, "Not authorized to %s context %q", r, context)
}
