package stress_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/test/model"
)

// lag is how long a slow reader needs for an event.
const lag = 30 * time.Millisecond

// watch is one app's watch of one context, and what it has seen.
type watch struct {
	a     *app
	c     *shared
	hurry chan struct{} // closed when slow readers may be fast

	mu      sync.Mutex
	value   any
	current bool // the node is online

	// The fields that follow may be read when the reader has ended, or after
	// mu was held and nothing more comes.
	events   int
	revision uint64
	seen     []seen
	paths    map[string]int32
	names    []string
}

// seen is one value at one path; pending when it is one of the node's own that
// may not have a place yet.
type seen struct {
	path, op int32
	pending  bool
	revision uint64
}

func newWatch(a *app, c *shared, slow bool) *watch {
	w := &watch{a: a, c: c, hurry: make(chan struct{}), value: model.Nothing, paths: map[string]int32{}}
	src, err := a.ctx.Watch(a.r.t.Context(), c.name)
	if err != nil {
		a.r.t.Fatal(err)
	}
	ended := make(chan struct{})
	a.r.t.Cleanup(func() {
		src.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		tick := time.NewTicker(lag)
		defer tick.Stop()
		for e := range src.Events(context.Background()) { // ends with Close
			w.take(e)
			if slow {
				select {
				case <-tick.C:
				case <-w.hurry:
				}
			}
		}
	}()
	return w
}

// take applies an event.
func (w *watch) take(e node.ContextEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events++
	complain := func(format string, args ...any) {
		w.a.r.violation("watch of %s by %s, event %d, %s at revision %d: %s", w.c.name, w.a.by, w.events, e.Kind, e.Revision, fmt.Sprintf(format, args...))
	}
	if (e.Kind == node.ContextSnapshot) != (w.events == 1) {
		complain("a snapshot is the first event and no other")
	}
	if e.Exists && (e.Revision > 0 || !e.Pending) { // 0 is an object of which nothing is acknowledged yet
		if e.Revision < w.revision {
			complain("the revision was %d before", w.revision)
		}
		w.revision = e.Revision
	}
	existed := w.value != model.Nothing
	if e.Kind == node.ContextSnapshot {
		v, err := model.Decoded(e.Value())
		if err != nil {
			complain("%v", err)
		}
		w.value = v
		w.note(v, nil, e)
	}
	for _, ch := range e.Changes {
		v, err := model.Decoded(ch.Value)
		if err != nil {
			complain("%v", err)
		}
		w.value = model.Put(w.value, ch.Path, v)
		w.note(v, ch.Path, e)
	}
	exists := w.value != model.Nothing
	if exists != e.Exists || e.Kind == node.ContextCreated && existed || e.Kind == node.ContextDestroyed && !existed || e.Kind == node.ContextChanged && (!existed || !exists) {
		complain("existed %v, exists %v, says %v", existed, exists, e.Exists)
	}
	if w.events%64 == 0 {
		if v, err := model.Decoded(e.Value()); err != nil || model.Canonical(v) != model.Canonical(w.value) {
			complain("the changes do not lead to the value: %s", model.Differences(v, w.value, nil, 3))
		}
	}
	for i := range w.a.r.apps {
		a, b, c := model.At(w.value, tripleA(i)), model.At(w.value, tripleB(i)), model.At(w.value, tripleC(i))
		if a != b || b != c {
			complain("a batch is not whole: %s, %s, %s", model.Short(a), model.Short(b), model.Short(c))
		}
	}
	w.current = e.Since.IsZero()
}

// note remembers which operations are seen where.
func (w *watch) note(v any, path []string, e node.ContextEvent) {
	model.Leaves(model.Put(model.Nothing, path, v), "", func(path string, fixed bool, op int) {
		id := int32(-1)
		if fixed {
			var ok bool
			if id, ok = w.paths[path]; !ok {
				id = int32(len(w.names))
				w.paths[path] = id
				w.names = append(w.names, path)
			}
		}
		w.seen = append(w.seen, seen{id, int32(op), e.Pending, e.Revision})
	})
}

// object is what the changes have built, and whether that is said to be current.
func (w *watch) object() (any, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.value, w.current
}

// judge checks that nothing was seen that was refused, or after something newer.
func (w *watch) judge(f *referee) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ops := map[int32]*op{}
	for _, o := range w.a.r.ops {
		ops[int32(o.id)] = o
	}
	type newest struct {
		model.Place
		op int32
	}
	newestAt := map[int32]newest{}
	for _, s := range w.seen {
		o := ops[s.op]
		if o == nil {
			w.a.r.violation("%s has seen an operation that there is not: %d", w.a.by, s.op)
			continue
		}
		if s.pending && o.app.node == w.a.node {
			continue
		}
		p, made := f.places[o.id]
		if !made || o.outcome == refused {
			w.a.r.violation("%s has seen %s at revision %d of %s, which was refused or was not made; the record:\n%s", w.a.by, o, s.revision, w.c.name, f.made(o))
			continue
		}
		if s.path < 0 {
			continue
		}
		if old := newestAt[s.path]; p.Before(old.Place) {
			w.a.r.violation("%s has seen at %q of %s, at revision %d, %s with place %d after %s with place %d",
				w.a.by, w.names[s.path], w.c.name, s.revision, o, p, ops[old.op], old.Place)
		} else {
			newestAt[s.path] = newest{p, s.op}
		}
	}
}
