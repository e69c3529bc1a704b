package stress_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/test/model"
	"github.com/weft-fabric/weft/wire"
)

// kind is what an operation does.
type kind uint8

const (
	kindSet kind = iota
	kindUpdate
	kindSetPath
	kindRemovePath
	kindSetPaths
	kindTriple
	kindArray
	kindLong
	kindConditional
	kindCounter
	kindCreate
	kindDestroy
	kindCount
)

func (k kind) String() string {
	return [...]string{"set", "update", "set-path", "remove-path", "set-paths", "triple", "array", "long-path", "conditional", "counter", "create", "destroy"}[k]
}

// outcome is what the caller was told.
type outcome uint8

const (
	acknowledged outcome = iota
	refused
	unknown // a timeout: it may have been made
)

// change is what an operation wants at a path; the value nothing removes.
type change struct {
	path  []string
	value any
}

// op is one call of an app.
type op struct {
	id      int
	app     *app
	by      string
	context *shared
	kind    kind
	edits   []change
	joined  bool // create found a context
	counted int64

	outcome  outcome
	revision uint64
	code     wire.Code
	err      error
	took     time.Duration
}

func (o *op) String() string {
	var paths []string
	for _, e := range o.edits {
		what := "="
		if e.value == model.Nothing {
			what = "-"
		}
		paths = append(paths, what+strings.Join(e.path, "/"))
	}
	text := fmt.Sprintf("operation %d (%s %s of %s by %s)", o.id, o.kind, strings.Join(paths, " "), o.context.name, o.by)
	if o.outcome != acknowledged {
		text += fmt.Sprintf(", which failed with %v,", o.err)
	}
	return text
}

// conditional says whether the operation can be refused by its own condition.
func (o *op) conditional() bool { return o.kind == kindConditional || o.kind == kindCounter }

// rewrites says whether the operation reads before it writes, and then goes alone.
func (o *op) rewrites() bool { return o.conditional() || o.kind == kindArray || o.kind == kindLong }

// mayBeIdle says whether the operation can have had nothing to do.
func (o *op) mayBeIdle() bool {
	return o.joined || !slices.ContainsFunc(o.edits, func(e change) bool { return e.value != model.Nothing })
}

// in says whether a batch has a write of the operation.
func (o *op) in(b *batch) bool {
	if o.joined || b.messages[0].Context != o.context.token || !strings.HasSuffix(b.messages[0].By, o.app.app.Identity().Node) {
		return false
	}
	return slices.ContainsFunc(b.relevant(), func(m *model.Message) bool {
		return o.touches(m.Path) && (m.AsOf == 0 || m.By == o.by && o.rewrites())
	})
}

// touches says whether a write at path can be the operation's.
func (o *op) touches(path []string) bool {
	return slices.ContainsFunc(o.edits, func(e change) bool {
		return len(path) <= len(e.path) && slices.Equal(path, e.path[:len(path)])
	})
}

// touchesAny says whether the operation writes at, above or below path.
func (o *op) touchesAny(path []string) bool {
	return slices.ContainsFunc(o.edits, func(e change) bool { return model.Related(e.path, path) })
}

// The three paths that app i writes together and nobody else does.
func tripleA(i int) []string { return []string{"t" + strconv.Itoa(i)} }
func tripleB(i int) []string { return []string{"u", strconv.Itoa(i)} }
func tripleC(i int) []string { return []string{"v", "w.w", strconv.Itoa(i)} }

// longName has no key of its own.
var longName = strings.Repeat("x", 100)

// do makes one call and notes its outcome.
func (a *app) do(o *op, call func(context.Context, *node.Contexts, string) (node.ContextAck, error)) *op {
	o.app, o.by = a, a.by
	for i := range o.edits {
		if o.edits[i].value != model.Nothing {
			o.edits[i].value = model.Plain(o.edits[i].value)
		}
	}
	limit := 2 * wire.WriteTimeout
	if a.r.began && a.rng.IntN(40) == 0 {
		limit = time.Duration(a.rng.IntN(15_000)) * time.Microsecond // may end at any moment of the write
	}
	ctx, cancel := context.WithTimeout(a.r.t.Context(), limit)
	defer cancel()
	began := time.Now()
	ack, err := call(ctx, a.ctx, o.context.name)
	o.took = time.Since(began)
	o.revision, o.err, o.code = ack.Revision, err, wire.CodeOf(err)
	switch o.code {
	case "", wire.BadRevision, wire.BadName, wire.BadPayload, wire.Offline, wire.Unavailable, wire.Busy:
	case wire.Timeout:
		o.outcome = unknown
	default:
		o.outcome = refused
		a.r.violation("%s", o)
	}
	if err != nil && o.code != wire.Timeout {
		o.outcome = refused
	}
	if o.code == wire.Unavailable || o.took > 8*time.Second {
		a.r.t.Logf("%s took %s", o, o.took)
	}
	if err == nil && o.kind != kindCreate && o.kind != kindDestroy {
		s, err := a.ctx.Get(a.r.t.Context(), o.context.name)
		if err == nil && s.Exists && s.Revision < o.revision && (s.Revision > 0 || !s.Pending) {
			a.r.violation("%s was acknowledged with %d, and then the app reads revision %d", o, o.revision, s.Revision)
		}
	}
	a.r.mu.Lock()
	a.r.ops = append(a.r.ops, o)
	a.r.mu.Unlock()
	return o
}

func (a *app) newOp(c *shared, k kind, edits ...change) *op {
	o := &op{id: int(a.r.nextOp.Add(1)), context: c, kind: k, edits: edits}
	return o
}

// paths writes the operation's edits in one call.
func (a *app) paths(o *op, opts ...contexts.Option) {
	a.do(o, func(ctx context.Context, c *node.Contexts, name string) (node.ContextAck, error) {
		var list []node.PathValue
		for _, e := range o.edits {
			pv := node.PathValue{Path: e.path}
			if e.value != model.Nothing {
				pv.Value = e.value
			}
			list = append(list, pv)
		}
		return c.SetPaths(ctx, name, list, opts...)
	})
}

// step makes one operation, or several that belong together.
func (a *app) step() {
	rng := a.rng
	u := rng.Float64()
	c := a.r.contexts[int(u*u*float64(len(a.r.contexts)))] // some are hot
	switch n := rng.IntN(100); {
	case n < 26:
		a.update(c)
	case n < 52:
		a.setPath(c)
	case n < 62:
		a.removePath(c)
	case n < 72:
		a.triple(c)
	case n < 78:
		a.setPaths(c)
	case n < 84 && c.arrays:
		a.array(c)
	case n < 86 && c.arrays:
		a.long(c)
	case n < 91 && len(c.counters) > 0:
		a.count(c)
	case n < 95 && (len(c.counters) > 0 || c.arrays || c.fleeting):
		a.conditional(c)
	case n < 97 && c.fleeting:
		a.destroy(c)
	case n < 99 && c.fleeting:
		a.create(c)
	case n < 98 && c.set:
		a.set(c)
	default:
		a.setPath(c)
	}
}

// leaf is a string that names its operation, now and then a long one.
func (a *app) leaf(o *op) string {
	n := a.rng.IntN(30)
	switch k := a.rng.IntN(100); {
	case k < 3:
		n = a.rng.IntN(2000)
	case k < 15:
		n = a.rng.IntN(300)
	}
	return model.Tag(o.id) + strings.Repeat("~", n)
}

// make makes a value; all of it that is a string names the operation.
func (a *app) value(o *op) any {
	switch a.rng.IntN(6) {
	case 0:
		return map[string]any{"x": a.leaf(o), "n": a.rng.IntN(1000), "f": float64(a.rng.IntN(100)) / 8, "ok": a.rng.IntN(2) == 0, "nil": nil}
	case 1:
		return map[string]any{"x": map[string]any{"y": a.leaf(o), "z": map[string]any{"w.w": a.leaf(o)}}}
	case 2:
		return []any{a.leaf(o), a.rng.IntN(100), map[string]any{"x": 1}}
	}
	return a.leaf(o)
}

func (a *app) key() string { return "k" + strconv.Itoa(a.rng.IntN(8)) }

func (a *app) path() []string {
	path := []string{a.key()}
	for range a.rng.IntN(4) {
		path = append(path, []string{"x", "y", "z", "w.w"}[a.rng.IntN(4)])
	}
	return path
}

func (a *app) update(c *shared) {
	o := a.newOp(c, kindUpdate)
	values := map[string]any{}
	for range 1 + a.rng.IntN(3) {
		if a.rng.IntN(5) == 0 {
			values[a.key()] = nil
		} else {
			values[a.key()] = a.value(o)
		}
	}
	for name, v := range values {
		if v == nil {
			v = model.Nothing
		}
		o.edits = append(o.edits, change{[]string{name}, v})
	}
	a.do(o, func(ctx context.Context, c *node.Contexts, name string) (node.ContextAck, error) {
		return c.Update(ctx, name, values)
	})
}

func (a *app) setPath(c *shared) {
	o := a.newOp(c, kindSetPath)
	o.edits = []change{{a.path(), a.value(o)}}
	a.do(o, func(ctx context.Context, c *node.Contexts, name string) (node.ContextAck, error) {
		return c.SetPath(ctx, name, o.edits[0].path, o.edits[0].value)
	})
}

func (a *app) removePath(c *shared) {
	o := a.newOp(c, kindRemovePath, change{a.path(), model.Nothing})
	a.do(o, func(ctx context.Context, c *node.Contexts, name string) (node.ContextAck, error) {
		return c.RemovePath(ctx, name, o.edits[0].path)
	})
}

// distinct are changes below different top-level keys.
func (a *app) distinct(o *op, n int) {
	for len(o.edits) < n {
		path := a.path()
		if slices.ContainsFunc(o.edits, func(e change) bool { return e.path[0] == path[0] }) {
			continue
		}
		v := model.Nothing
		if a.rng.IntN(5) > 0 {
			v = a.value(o)
		}
		o.edits = append(o.edits, change{path, v})
	}
}

func (a *app) setPaths(c *shared) {
	o := a.newOp(c, kindSetPaths)
	a.distinct(o, 2+a.rng.IntN(3))
	a.paths(o)
}

func (a *app) triple(c *shared) {
	o := a.newOp(c, kindTriple)
	v := model.Nothing
	if a.rng.IntN(6) > 0 {
		v = a.leaf(o)
	}
	o.edits = []change{{tripleA(a.i), v}, {tripleB(a.i), v}, {tripleC(a.i), v}}
	a.paths(o)
}

// array edits an array through its elements; the first one names the operation.
func (a *app) array(c *shared) {
	o := a.newOp(c, kindArray)
	s, err := a.ctx.Get(a.r.t.Context(), c.name)
	if err != nil {
		return
	}
	v, err := model.Decoded(s.At("arr"))
	list, ok := v.([]any)
	if err != nil || !ok || len(list) == 0 || a.rng.IntN(10) == 0 {
		o.edits = []change{{[]string{"arr"}, []any{a.leaf(o), a.leaf(o), a.leaf(o)}}}
		a.paths(o)
		return
	}
	o.edits = []change{{[]string{"arr", "0"}, a.leaf(o)}}
	switch n := a.rng.IntN(4); {
	case len(list) == 1 || n < 2 && len(list) < 12:
		o.edits = append(o.edits, change{[]string{"arr", strconv.Itoa(len(list))}, a.value(o)})
	case n < 3:
		o.edits = append(o.edits, change{[]string{"arr", strconv.Itoa(1 + a.rng.IntN(len(list)-1))}, model.Nothing})
	default:
		o.edits = append(o.edits, change{[]string{"arr", strconv.Itoa(1 + a.rng.IntN(len(list)-1)), "x"}, a.value(o)})
	}
	a.paths(o)
}

// long writes at a path that has no key.
func (a *app) long(c *shared) {
	o := a.newOp(c, kindLong)
	o.edits = []change{{[]string{a.key(), longName}, a.value(o)}}
	if a.rng.IntN(4) == 0 {
		o.edits[0].value = model.Nothing
	}
	a.paths(o)
}

// conditional writes what must not have changed since it was read, and tries
// again a few times.
func (a *app) conditional(c *shared) {
	for range 4 {
		s, err := a.ctx.Get(a.r.t.Context(), c.name)
		if err != nil {
			return
		}
		o := a.newOp(c, kindConditional)
		a.distinct(o, 1+a.rng.IntN(3))
		if a.paths(o, node.IfRevision(s.Revision)); o.code != wire.BadRevision {
			return
		}
	}
}

// count raises a counter by one, whatever it takes. What is pending may be taken
// back, so only an acknowledged number can be raised.
func (a *app) count(c *shared) {
	path := c.counters[a.rng.IntN(len(c.counters))]
	tick := time.NewTicker(pulse / 4)
	defer tick.Stop()
	for range 200 {
		s, err := a.ctx.Get(a.r.t.Context(), c.name)
		if err != nil {
			return
		}
		if s.Pending {
			<-tick.C
			continue
		}
		v, err := model.Decoded(s.At(append(slices.Clone(path), "n")...))
		n, ok := v.(int64)
		if err != nil || !ok {
			a.r.violation("%s: counter %v of %s is %s", a.by, path, c.name, model.Short(v))
			return
		}
		o := a.newOp(c, kindCounter)
		o.counted = n + 1
		o.edits = []change{{path, map[string]any{"n": n + 1, "by": a.leaf(o)}}}
		if a.paths(o, node.IfRevision(s.Revision)); o.code != wire.BadRevision {
			return
		}
	}
}

// whole is a new object for a context.
func (a *app) whole(o *op) map[string]any {
	v := map[string]any{"arr": []any{a.leaf(o), a.leaf(o)}}
	for range 4 {
		v[a.key()] = a.value(o)
	}
	for _, path := range o.context.counters {
		v = model.Put(v, path, map[string]any{"n": 0, "by": a.leaf(o)}).(map[string]any)
	}
	return v
}

func (a *app) set(c *shared) {
	o := a.newOp(c, kindSet)
	v := a.whole(o)
	o.edits = []change{{nil, v}}
	a.do(o, func(ctx context.Context, c *node.Contexts, name string) (node.ContextAck, error) {
		return c.Set(ctx, name, v)
	})
}

func (a *app) create(c *shared) *op {
	o := a.newOp(c, kindCreate)
	v := a.whole(o)
	o.edits = []change{{nil, v}}
	return a.do(o, func(ctx context.Context, c *node.Contexts, name string) (node.ContextAck, error) {
		created, ack, err := c.Create(ctx, name, v)
		o.joined = !created
		return ack, err
	})
}

func (a *app) destroy(c *shared) {
	o := a.newOp(c, kindDestroy, change{nil, model.Nothing})
	a.do(o, func(ctx context.Context, c *node.Contexts, name string) (node.ContextAck, error) {
		return c.Destroy(ctx, name)
	})
}
