package kv

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// many runs a property several times as often as rapid does by itself.
func many(t *testing.T, times int, property func(*rapid.T)) {
	t.Helper()
	for range times {
		if rapid.Check(t, property); t.Failed() {
			return
		}
	}
}

var (
	testContext = subjects.MustEncode("T42.Demo")
	rootKey     = subjects.ContextRoot(testContext)
	metaKey     = subjects.ContextMeta(testContext)
	// long cannot be a segment of a key.
	long = strings.Repeat("x", subjects.MaxToken+1)
)

// paths are all of three levels of three names, the root first, and some
// that cannot be keys.
var paths = func() [][]string {
	all := [][]string{nil}
	for from, level := 0, 0; level < 3; level++ {
		to := len(all)
		for _, p := range all[from:to] {
			for _, name := range []string{"a", "b", "0"} {
				all = append(all, append(slices.Clone(p), name))
			}
		}
		from = to
	}
	return append(all, []string{long}, []string{"a", long}, []string{"a", "b", long, "a"}, []string{long, "a"}, []string{"a", "1"}, []string{"b", "0", long})
}()

// valueFor is one of the values that a test writes; n makes it its own.
func valueFor(kind, n int) any {
	k := int64(n)
	switch kind {
	case 0:
		return k
	case 1:
		return map[string]any{}
	case 2:
		return map[string]any{"a": k}
	case 3:
		return []any{k, k}
	case 4:
		return map[string]any{"a": []any{k}, "b": map[string]any{"b": k}}
	case 5:
		return []any{map[string]any{"a": k}}
	case 6:
		return []any{}
	case 7:
		return nil
	}
	return map[string]any{"a": map[string]any{"a": map[string]any{"b": []any{k}}}, "0": k, long: k}
}

const valueKinds = 9

func valueOf(t rapid.TB, m any) *Value {
	t.Helper()
	if isGone(m) {
		return nil
	}
	// A JSON null is a value; wire.Encode(nil) would be none.
	v, err := ParseValue(wire.Payload{Format: wire.JSON, Data: []byte(textOf(m))})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func keyOf(t rapid.TB, path []string) subjects.Key {
	t.Helper()
	k, covered := subjects.ContextPath(testContext, path)
	if covered < len(path) {
		t.Fatalf("%q is no key", path)
	}
	return k
}

func isKey(path []string) bool {
	_, covered := subjects.ContextPath(testContext, path)
	return covered == len(path)
}

// wish is what an app wants, in the model.
type wish struct {
	path []string
	x    any
}

func (e wish) String() string {
	return fmt.Sprintf("%s=%s", strings.ReplaceAll(strings.Join(e.path, "/"), long, "LONG"), strings.ReplaceAll(textOf(e.x), long, "LONG"))
}

// real is one write that somebody meant: everything but what a compaction did.
// Its edits have their effect at its place.
type real struct {
	at, seq uint64
	first   uint64 // of its batch
	edits   []wish
	fold    bool // by the rule of the fold and not by that of the editor
	bad     bool
}

// world is a stream, what was really written to it, and its readers.
type world struct {
	t        *rapid.T
	seq      uint64
	newest   map[subjects.Key]Entry // what is in the stream
	expires  map[subjects.Key]bool  // markers that the server will remove
	all      []Entry                // everything that was ever written
	reals    []real
	live     *Tree // gets each batch at once
	late     *Tree // gets snapshots and what comes between
	log      []string
	revised  uint64
	rewrites []real            // that changed what was there
	states   map[uint64]string // what the context was at each sequence, if it is not nil
}

func newWorld(t *rapid.T) *world {
	return &world{t: t, newest: map[subjects.Key]Entry{}, expires: map[subjects.Key]bool{}, live: NewTree(testContext), late: NewTree(testContext)}
}

func (w *world) logf(format string, args ...any) {
	w.log = append(w.log, strings.ReplaceAll(fmt.Sprintf(format, args...), long, "LONG"))
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

// commit writes a batch as the server does: all of it, or nothing if a condition
// does not hold.
func (w *world) commit(writes []Write) (first, last uint64, ok bool) {
	seen := map[subjects.Key]bool{}
	for _, x := range writes {
		if seen[x.Key] {
			w.fatalf("%s twice in a batch", x.Key)
		}
		seen[x.Key] = true
		if x.If != nil && *x.If != w.newest[x.Key].Seq {
			w.logf("  refused: %s is at %d, not %d", x.Key, w.newest[x.Key].Seq, *x.If)
			return 0, 0, false
		}
	}
	var batch []Entry
	first = w.seq + 1
	for _, x := range writes {
		w.seq++
		e := Entry{Key: x.Key, Value: x.Value, Seq: w.seq, Op: x.Op, Format: x.Format, WriteID: "op", By: x.By, AsOf: x.AsOf, Compact: x.Compact, TTL: x.TTL > 0}
		if len(writes) > 1 {
			e.Batch = fmt.Sprint("batch", first)
		}
		if x.TTL > 0 && (x.Op == Put || x.Compact == 0) {
			w.fatalf("%s would expire", x.Key)
		}
		w.expires[x.Key] = x.TTL > 0
		w.newest[x.Key] = e
		w.all, batch = append(w.all, e), append(batch, e)
		w.logf("  %d %s op %d as-of %d compact %d %s", e.Seq, e.Key, e.Op, e.AsOf, e.Compact, textOfEntry(e))
	}
	w.live.Apply(batch, nil)
	return first, w.seq, true
}

func textOfEntry(e Entry) string {
	v, err := e.value()
	if err != nil {
		return "unreadable"
	}
	return text(v)
}

func (w *world) real(r real) {
	if r.first == 0 {
		r.first = r.seq
	}
	w.reals = append(w.reals, r)
}

// fresh is a reader who comes now.
func (w *world) fresh() *Tree {
	t := NewTree(testContext)
	list := slices.Collect(maps.Values(w.newest))
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	rand.New(rand.NewPCG(w.seq, 1)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	t.Apply(list, nil)
	return t
}

// refresh gives a reader who missed some writes a snapshot.
func (w *world) refresh(t *Tree) {
	var removed []subjects.Key
	for key := range t.registers {
		if _, ok := w.newest[key]; !ok {
			removed = append(removed, key)
		}
	}
	if _, ok := w.newest[rootKey]; !ok {
		removed = append(removed, rootKey)
	}
	t.Apply(slices.Collect(maps.Values(w.newest)), removed)
}

// expected folds everything that was ever meant.
func (w *world) expected() (view any, exists bool) {
	reals := slices.Clone(w.reals)
	slices.SortStableFunc(reals, func(a, b real) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.seq, b.seq)) })
	view = gone{}
	for _, r := range reals {
		for _, e := range r.edits {
			if r.fold || len(e.path) == 0 {
				view = modelPut(view, e.path, e.x)
			} else if now, ok := modelEdit(view, e.path, e.x); ok {
				view = now
			}
			if len(e.path) == 0 {
				exists = !isGone(e.x)
			}
		}
	}
	if !exists {
		view = gone{}
	}
	return view, exists
}

// check compares every reader with what was meant.
func (w *world) check() {
	w.t.Helper()
	want, exists := w.expected()
	fresh := w.fresh()
	w.refresh(w.late)
	for name, tree := range map[string]*Tree{"live": w.live, "fresh": fresh, "late": w.late} {
		if tree.Exists() != exists || text(tree.View()) != textOf(want) {
			w.fatalf("%s: exists %t, %s\nwant %t, %s", name, tree.Exists(), text(tree.View()), exists, textOf(want))
		}
		if tree.Revision() != fresh.Revision() || tree.Keys() != fresh.Keys() || tree.Bytes() != fresh.Bytes() {
			w.fatalf("%s: revision %d, keys %d, bytes %d; fresh %d, %d, %d", name, tree.Revision(), tree.Keys(), tree.Bytes(), fresh.Revision(), fresh.Keys(), fresh.Bytes())
		}
		bytes := 0
		for key, r := range tree.registers {
			if tree.Seq(key) != r.place.seq || w.newest[key].Seq != r.place.seq {
				w.fatalf("%s: %s is at %d, seq %d, %d in the stream", name, key, r.place.seq, tree.Seq(key), w.newest[key].Seq)
			}
			bytes += len(key) + len(w.newest[key].Value)
		}
		if bytes != tree.Bytes() {
			w.fatalf("%s: %d bytes, want %d", name, tree.Bytes(), bytes)
		}
	}
	if !exists {
		w.revised = 0
	}
	if fresh.Revision() < w.revised {
		w.fatalf("revision %d after %d", fresh.Revision(), w.revised)
	}
	if exists {
		w.revised = fresh.Revision()
	}
	if exists {
		w.acknowledged(fresh)
	}
	w.landed(fresh)
	w.changed(fresh)
	if w.states != nil {
		w.states[w.seq] = text(fresh.View())
	}
}

// acknowledged looks for a write that is gone although nobody replaced it.
func (w *world) acknowledged(tree *Tree) {
	w.t.Helper()
	type touch struct {
		real
		nth  int
		path []string
		x    any
		deep bool // through an array: other elements may have moved it
	}
	var all []touch
	for _, r := range w.reals {
		for i, e := range r.edits {
			all = append(all, touch{r, i, e.path, e.x, !r.fold && slices.ContainsFunc(e.path, decimal.MatchString)})
		}
	}
	for _, a := range all {
		if a.bad || a.deep {
			continue
		}
		replaced := slices.ContainsFunc(all, func(b touch) bool {
			n := min(len(a.path), len(b.path))
			after := cmp.Or(cmp.Compare(b.at, a.at), cmp.Compare(b.seq, a.seq), cmp.Compare(b.nth, a.nth)) > 0
			return after && slices.Equal(a.path[:n], b.path[:n])
		})
		if got := tree.View().At(a.path); !replaced && text(got) != textOf(a.x) {
			w.fatalf("lost: %v written at %d as of %d: %s", a.edits[a.nth], a.seq, a.at, text(got))
		}
	}
}

// replaced says whether a write at or above path is on top of r.
func (w *world) replaced(r real, path []string) bool {
	return slices.ContainsFunc(w.reals, func(o real) bool {
		return o.seq != r.seq && cmp.Or(cmp.Compare(o.at, r.at), cmp.Compare(o.seq, r.seq)) > 0 &&
			slices.ContainsFunc(o.edits, func(e wish) bool { return len(e.path) <= len(path) && slices.Equal(e.path, path[:len(e.path)]) })
	})
}

// landed checks what a reader is told about a rewrite: either that it shows, or
// that something hid it at once, or that the tree cannot tell.
func (w *world) landed(tree *Tree) {
	w.t.Helper()
	for _, r := range w.rewrites {
		for _, e := range r.edits {
			if slices.ContainsFunc(e.path, decimal.MatchString) {
				continue // the other edits of the batch may be above it
			}
			above := w.replaced(r, e.path)
			shows, later := tree.Landed(e.path, r.first, r.seq)
			if shows && (above || later) || !shows && !later && !above {
				w.fatalf("%v of %d to %d: replaced %t, shows %t, later %t", e, r.first, r.seq, above, shows, later)
			}
		}
	}
}

// changed checks that no change is overlooked.
func (w *world) changed(tree *Tree) {
	w.t.Helper()
	if !tree.Exists() {
		if edits := []Edit{{[]string{"a"}, nil, ""}}; tree.Changed(edits, 0) || !tree.Changed(edits, 1) || tree.Revision() != 0 {
			w.fatalf("it does not exist: changed %t, %t, revision %d", tree.Changed(edits, 0), tree.Changed(edits, 1), tree.Revision())
		}
		return
	}
	for _, path := range paths[:8] {
		newest := uint64(0)
		for _, r := range w.reals {
			for _, e := range r.edits {
				n := min(len(e.path), len(path))
				above := w.replaced(r, e.path)
				if slices.Equal(e.path[:n], path[:n]) && !above {
					newest = max(newest, r.first)
				}
			}
		}
		edits := []Edit{{path, nil, ""}}
		if newest > 0 && !tree.Changed(edits, newest-1) || tree.Changed(edits, tree.Revision()) {
			w.fatalf("%q, written at %d, revision %d: changed %t, %t", path, newest, tree.Revision(), tree.Changed(edits, newest-1), tree.Changed(edits, tree.Revision()))
		}
	}
}

// step is what happens next; the fields mean what its kind makes of them.
type step struct {
	Kind, Slot, Path, Value, N int
	More                       []int
}

// What can happen.
const (
	stepNone = iota
	stepPut
	stepDelete
	stepTake
	stepCommit
	stepRoot
	stepExpire
	stepBatch
	stepForeign
	stepRootDelete
	stepLate
)

// The first is what rapid shrinks to.
var stepKinds = []int{
	stepNone, stepPut, stepPut, stepPut, stepTake, stepTake, stepTake, stepTake, stepTake, stepCommit, stepCommit, stepCommit, stepCommit, stepCommit,
	stepPut, stepDelete, stepDelete, stepRoot, stepExpire, stepBatch, stepBatch, stepForeign, stepRootDelete, stepLate,
}

var genStep = rapid.Custom(func(t *rapid.T) step {
	return step{
		Kind: rapid.SampledFrom(stepKinds).Draw(t, "kind"),
		Slot: rapid.IntRange(0, 2).Draw(t, "slot"),
		Path: rapid.IntRange(0, len(paths)-1).Draw(t, "path"), Value: rapid.IntRange(0, valueKinds-1).Draw(t, "value"),
		N:    rapid.IntRange(0, 15).Draw(t, "n"),
		More: rapid.SliceOfN(rapid.IntRange(0, len(paths)*valueKinds*2-1), 0, 3).Draw(t, "more"),
	}
})

// keyPath is the step's path, or the nearest one that can be a key.
func (s step) keyPath() []string {
	p := paths[s.Path]
	_, n := subjects.ContextPath(testContext, p)
	return p[:n]
}

func (w *world) value(kind int) any { return valueFor(kind, int(w.seq)+1) }

// edits are the step's: at least one.
func (s step) edits(w *world) (model []wish, edits []Edit) {
	for i, m := range append([]int{s.Path*valueKinds*2 + s.Value}, s.More...) {
		e := wish{paths[m/(valueKinds*2)], gone{}}
		if m%(valueKinds*2) < valueKinds {
			e.x = valueFor(m%valueKinds, 1000*len(w.log)+i)
		}
		if len(e.path) == 0 {
			e.x = map[string]any{"a": []any{int64(1000*len(w.log) + i)}}
		}
		model = append(model, e)
		edits = append(edits, Edit{e.path, valueOf(w.t, e.x), "app"})
	}
	return model, edits
}

func editAll(view any, edits []wish) (any, bool) {
	for _, e := range edits {
		var ok bool
		if view, ok = modelEdit(view, e.path, e.x); !ok {
			return nil, false
		}
	}
	return view, true
}

// plan is what somebody will commit, made of an old snapshot.
type plan struct {
	what   string
	writes []Write
	done   func(first, last uint64)
}

// take makes a snapshot and plans with it.
func (w *world) take(s step) *plan {
	tree := w.fresh()
	switch s.N % 8 {
	case 0, 1, 2:
		most := []int{1000, 2, 3, 4, 5}[(s.Value+s.Path)%5]
		writes := tree.Compaction(most, "compactor")
		if len(writes) > most {
			w.fatalf("%d writes, want %d at most", len(writes), most)
		}
		if w.states != nil && tree.Exists() && !slices.ContainsFunc(writes, func(x Write) bool { return x.Key == rootKey }) {
			return nil // the one that leaves no trace, see Past
		}
		return &plan{fmt.Sprintf("compaction of %d", most), writes, nil}
	case 7:
		if !tree.Exists() {
			return nil
		}
		return &plan{"destruction", tree.Destruction("destroyer"), func(_, last uint64) {
			w.real(real{at: last, seq: last, edits: []wish{{nil, gone{}}}, fold: true})
		}}
	}
	model, edits := s.edits(w)
	view := any(map[string]any{})
	if tree.Exists() {
		view = modelOf(w.t, tree.View())
	}
	if _, ok := editAll(view, model); !ok {
		return nil
	}
	writes, err := tree.Rewrite(edits)
	if err != nil {
		w.fatalf("%v: %v", model, err)
	}
	return &plan{fmt.Sprintf("rewrite %v", model), writes, func(first, last uint64) {
		r := real{at: last, seq: last, first: first, edits: model}
		if !tree.Exists() {
			r.edits, r.fold = []wish{{nil, modelOf(w.t, tree.created(w.t, edits))}}, true
		} else {
			for _, x := range writes {
				if x.Op != Purge {
					r.at = x.AsOf
				}
			}
		}
		w.real(r)
		if tree.Exists() {
			w.rewrites = append(w.rewrites, r)
		}
	}}
}

// created is the value that a first update makes.
func (t *Tree) created(tb rapid.TB, edits []Edit) *Value {
	v, err := Object().Edited(edits)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func (w *world) run(steps []step) {
	var slots [3]*plan
	if len(steps) > 0 { // most of the time there is something to plan with
		steps = append([]step{{Kind: stepRoot, N: steps[0].N}}, steps...)
	}
	for _, s := range steps {
		switch s.Kind {
		case stepNone:
			continue
		case stepPut, stepDelete:
			path := s.keyPath()
			x := Write{Key: keyOf(w.t, path), Op: Delete}
			m := any(gone{})
			if s.Kind == stepPut || len(path) == 0 {
				if m = w.value(s.Value); len(path) == 0 {
					m = w.value(4)
				}
				x.Op, x.Value = Put, valueOf(w.t, m).Payload().Data
			}
			w.logf("write %q", path)
			_, last, _ := w.commit([]Write{x})
			w.real(real{at: last, seq: last, edits: []wish{{path, m}}, fold: true})
		case stepRoot:
			m := w.value([]int{1, 2, 4, 8}[s.N%4])
			w.logf("set")
			_, last, _ := w.commit([]Write{{Key: rootKey, Value: valueOf(w.t, m).Payload().Data}})
			w.real(real{at: last, seq: last, edits: []wish{{nil, m}}, fold: true})
		case stepRootDelete:
			if s.N > 3 {
				continue
			}
			w.logf("delete the root")
			_, last, _ := w.commit([]Write{{Key: rootKey, Op: []Operation{Delete, Purge}[s.N%2]}})
			w.real(real{at: last, seq: last, edits: []wish{{nil, gone{}}}, fold: true})
		case stepBatch:
			w.batch(s)
		case stepForeign:
			w.foreign(s)
		case stepExpire:
			keys := slices.Sorted(maps.Keys(w.expires))
			for i, key := range keys {
				if w.expires[key] && (s.N>>(i%4))&1 == 0 {
					w.logf("%s: the marker is gone", key)
					delete(w.newest, key)
					delete(w.expires, key)
				}
			}
		case stepLate:
			w.logf("a snapshot for the late one")
			w.refresh(w.late)
			continue
		case stepTake:
			if slots[s.Slot] = w.take(s); slots[s.Slot] != nil {
				w.logf("slot %d takes a snapshot: %s", s.Slot, slots[s.Slot].what)
			}
			continue
		case stepCommit:
			p := slots[s.Slot]
			if p == nil || len(p.writes) == 0 {
				continue
			}
			slots[s.Slot] = nil
			w.logf("slot %d commits", s.Slot)
			if first, last, ok := w.commit(p.writes); ok && p.done != nil {
				p.done(first, last)
			}
		}
		w.check()
	}
}

// batch writes an update of several paths that was planned just now.
func (w *world) batch(s step) {
	model, edits := s.edits(w)
	tree := w.fresh()
	view := any(map[string]any{})
	if tree.Exists() {
		view = modelOf(w.t, tree.View())
	}
	if _, ok := editAll(view, model); !ok || tree.NeedsSnapshot(edits) {
		return
	}
	writes, err := tree.Plan(edits)
	if err != nil {
		w.fatalf("%v: %v", model, err)
	}
	w.logf("update %v", model)
	first, _, ok := w.commit(writes)
	for i, x := range writes {
		if k, _ := x.Key.Context(); ok {
			m := any(gone{})
			if x.Op == Put {
				m = modelOf(w.t, parseMsgpack(w.t, x.Value))
			}
			seq := first + uint64(i)
			w.real(real{at: seq, seq: seq, edits: []wish{{k.Path, m}}, fold: true})
		}
	}
}

func parseMsgpack(t rapid.TB, data []byte) *Value {
	t.Helper()
	v, err := ParseValue(wire.Payload{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// foreign writes what tools and other clients may.
func (w *world) foreign(s step) {
	path := s.keyPath()
	e := Entry{Key: keyOf(w.t, path), Format: wire.JSON}
	bad := any(gone{})
	if len(path) == 0 {
		bad = map[string]any{}
	}
	x, isBad := bad, true
	switch s.N % 8 {
	case 0, 1:
		x, isBad = w.value(s.Value), false
		if len(path) == 0 {
			x = w.value(2)
		}
		e.Value = []byte(" " + textOf(x) + "\n")
	case 2:
		e.Value = []byte("{")
	case 3:
		e.Format, e.Value = wire.Msgpack, []byte{0xc1}
	case 4: // too deep only at its place
		depth := wire.MaxDepth - len(path) + 1
		e.Value = []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth))
	case 5:
		e.Value = nil
	case 6:
		if len(path) == 0 {
			return
		}
		x, isBad, e.Op = gone{}, false, Purge
	case 7: // as deep as it may be
		depth := wire.MaxDepth - len(path)
		e.Value = []byte(strings.Repeat(`{"a":`, depth-1) + "{}" + strings.Repeat("}", depth-1))
		x, isBad = modelOf(w.t, parse(w.t, string(e.Value))), false
	}
	w.seq++
	e.Seq = w.seq
	w.newest[e.Key], w.expires[e.Key] = e, false
	w.all = append(w.all, e)
	w.logf("foreign\n  %d %s op %d %.60s", e.Seq, e.Key, e.Op, e.Value)
	found := w.live.Apply([]Entry{e}, nil)
	if len(found) > 0 != isBad || isBad && (found[0].Key != e.Key || found[0].Seq != e.Seq || !errors.Is(found[0].Err, wire.ErrBadPayload)) {
		w.fatalf("%.60s at %q is bad: %v", e.Value, path, found)
	}
	w.real(real{at: e.Seq, seq: e.Seq, edits: []wish{{path, x}}, fold: true, bad: isBad})
}

// What all readers see is the fold of everything that was acknowledged, also
// under compactions, rewrites and destructions that were planned earlier.
func TestTreeHistories(t *testing.T) {
	many(t, 8, func(t *rapid.T) {
		w := newWorld(t)
		w.run(rapid.SliceOfN(genStep, 50, 50).Draw(t, "steps"))
	})
}

// Entries of one key come in their order, those of several in any, and more
// than once.
func TestTreeAnyOrder(t *testing.T) {
	many(t, 3, func(t *rapid.T) {
		w := newWorld(t)
		w.run(rapid.SliceOfN(genStep, 20, 20).Draw(t, "steps"))
		waiting, done := map[subjects.Key][]Entry{}, []Entry(nil)
		for _, e := range w.all {
			waiting[e.Key] = append(waiting[e.Key], e)
		}
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
		tree := NewTree(testContext)
		for len(waiting) > 0 {
			var entries []Entry
			for range 1 + random.IntN(3) {
				keys := slices.Sorted(maps.Keys(waiting))
				if len(keys) == 0 {
					break
				}
				key := keys[random.IntN(len(keys))]
				n := random.IntN(len(waiting[key])) // some never come
				entries = append(entries, waiting[key][n])
				if waiting[key] = waiting[key][n+1:]; len(waiting[key]) == 0 {
					delete(waiting, key)
				}
				// What was purged must not come again.
				if again := done[:0:0]; len(done) > 0 {
					if again = append(again, done[random.IntN(len(done))]); tree.registers[again[0].Key] != nil {
						entries = append(again, entries...)
					}
				}
			}
			tree.Apply(entries, nil)
			done = append(done, entries...)
		}
		want, exists := w.expected()
		if tree.Exists() != exists || text(tree.View()) != textOf(want) || tree.Revision() != w.fresh().Revision() || tree.Keys() != w.fresh().Keys() {
			var order []uint64
			for _, e := range done {
				order = append(order, e.Seq)
			}
			w.fatalf("in the order %v: exists %t, %s\nwant %t, %s", order, tree.Exists(), text(tree.View()), exists, textOf(want))
		}
	})
}

func TestTreeMeta(t *testing.T) {
	tree := NewTree(testContext)
	apply := func(e Entry) {
		t.Helper()
		e.Key = metaKey
		if bad := tree.Apply([]Entry{e}, nil); bad != nil {
			t.Errorf("%+v", bad)
		}
	}
	seq := func() uint64 {
		if m := tree.Meta(); m != nil {
			return m.Seq
		}
		return 0
	}
	apply(Entry{Seq: 5, Value: []byte("not looked at")})
	apply(Entry{Seq: 4, Value: []byte("old")})
	if seq() != 5 || tree.Keys() != 0 || tree.Revision() != 0 || tree.Exists() {
		t.Errorf("meta %d, %d keys, revision %d", seq(), tree.Keys(), tree.Revision())
	}
	apply(Entry{Seq: 6, Op: Purge, Compact: 1})
	if seq() != 0 {
		t.Errorf("meta %d was purged", seq())
	}
	apply(Entry{Seq: 7})
	tree.Apply(nil, []subjects.Key{metaKey})
	if seq() != 0 {
		t.Errorf("meta %d stayed", seq())
	}
}

func TestTreeForeignKeys(t *testing.T) {
	tree := NewTree(testContext)
	for _, key := range []subjects.Key{"other./", "T42=2EDemo", "T42=2EDemo.///", "n.a", "T42=2EDemo.a..b", "T42=2EDemo.=haaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		bad := tree.Apply([]Entry{{Key: key, Seq: 1, Value: []byte{0x80}, By: "x"}}, []subjects.Key{key})
		if len(bad) != 1 || bad[0].Key != key || bad[0].By != "x" || !errors.Is(bad[0].Err, subjects.ErrBadName) && wire.CodeOf(bad[0].Err) != wire.BadName {
			t.Errorf("%s: %v", key, bad)
		}
	}
	if len(tree.registers) != 0 {
		t.Errorf("%d keys", len(tree.registers))
	}
}

// A destroyed context is gone whatever slipped in, and starts clean.
func TestTreeDestruction(t *testing.T) {
	many(t, 3, func(t *rapid.T) {
		w := newWorld(t)
		w.run(rapid.SliceOfN(genStep, 12, 12).Draw(t, "before"))
		if w.seq++; rapid.Bool().Draw(t, "meta") {
			w.newest[metaKey] = Entry{Key: metaKey, Seq: w.seq, Value: []byte("m")}
			w.live.Apply([]Entry{w.newest[metaKey]}, nil)
		}
		p := w.take(step{N: 7})
		if p == nil {
			return
		}
		// New keys slip in, and nothing else.
		for _, path := range [][]string{{"new"}, {"a", "new"}, {"new", "a"}} {
			w.logf("write %q", path)
			_, last, _ := w.commit([]Write{{Key: keyOf(t, path), Value: []byte{1}}})
			w.real(real{at: last, seq: last, edits: []wish{{path, int64(1)}}, fold: true})
		}
		first, last, ok := w.commit(p.writes)
		if !ok {
			w.fatalf("refused")
		}
		p.done(first, last)
		w.check()
		for name, tree := range map[string]*Tree{"live": w.live, "fresh": w.fresh()} {
			if tree.Exists() || tree.View() != nil || tree.Meta() != nil {
				w.fatalf("%s: exists", name)
			}
		}
		if rapid.Bool().Draw(t, "expire") {
			for key, yes := range w.expires {
				if yes {
					delete(w.newest, key)
				}
			}
		}
		edits := []Edit{{[]string{"z"}, parse(t, "1"), "app"}}
		writes, err := w.fresh().Plan(edits)
		if err != nil {
			t.Fatal(err)
		}
		if _, last, ok = w.commit(writes); !ok {
			w.fatalf("not created again")
		}
		w.real(real{at: last, seq: last, edits: []wish{{nil, map[string]any{"z": int64(1)}}}, fold: true})
		w.check()
		if text(w.live.View()) != `{"z":1}` {
			w.fatalf("%s", text(w.live.View()))
		}
		// Who had seen nothing of it may not create it once more.
		if _, _, ok := w.commit(writes); ok {
			w.fatalf("created twice")
		}
	})
}

// What is planned on a stream that does not change is what was wanted.
func TestTreePlan(t *testing.T) {
	many(t, 10, func(t *rapid.T) {
		w := newWorld(t)
		w.run(rapid.SliceOfN(genStep, 8, 8).Draw(t, "before"))
		tree := w.fresh()
		model, edits := genStep.Draw(t, "edits").edits(w)
		view, has := any(map[string]any{}), (*Value)(nil)
		if has = tree.View(); has != nil {
			view = modelOf(t, has)
		} else {
			has = Object()
		}
		unkeyable := false
		for v, ok, i := view, true, 0; ok && i < len(model); i++ {
			for n := range model[i].path {
				_, isArray := modelAt(v, model[i].path[:n]).([]any)
				unkeyable = unkeyable || isArray && decimal.MatchString(model[i].path[n])
			}
			unkeyable = unkeyable || !isKey(model[i].path)
			v, ok = modelEdit(v, model[i].path, model[i].x)
		}
		want, ok := editAll(view, model)
		edited, err := has.Edited(edits)
		if ok != (err == nil) || !ok && !errors.Is(err, wire.ErrBadPayload) {
			w.fatalf("%v in %s: %v", model, textOf(view), err)
		}
		need := tree.NeedsSnapshot(edits)
		if ok && need != (unkeyable && tree.Exists()) {
			w.fatalf("%v in %s: needs a snapshot: %t", model, textOf(view), need)
		}
		for name, f := range map[string]func([]Edit) ([]Write, error){"plan": tree.Plan, "rewrite": tree.Rewrite} {
			if name == "plan" && need {
				continue
			}
			writes, err := f(edits)
			if !ok {
				if !errors.Is(err, wire.ErrBadPayload) || len(writes) > 0 {
					w.fatalf("%s of %v in %s: %v, %v; want it refused", name, model, textOf(view), writes, err)
				}
				continue
			}
			if err != nil {
				w.fatalf("%s of %v in %s: %v", name, model, textOf(view), err)
			}
			for i, x := range writes {
				for _, earlier := range writes[:i] {
					if name == "plan" && (strings.HasPrefix(string(earlier.Key), string(x.Key)+".") || x.Key == rootKey) {
						w.fatalf("%s of %v: %s hides %s", name, model, x.Key, earlier.Key)
					}
				}
			}
			other := newWorld(t)
			other.seq, other.newest, other.live, other.log = w.seq, maps.Clone(w.newest), w.fresh(), slices.Clone(w.log)
			other.logf("%s of %v", name, model)
			first, last, ok := other.commit(writes)
			if !ok {
				other.fatalf("refused")
			}
			for _, after := range []*Tree{other.live, other.fresh()} {
				// Nothing that is removed from nothing makes no context.
				if len(writes) > 0 && (text(after.View()) != textOf(want) || text(after.View()) != text(edited)) {
					other.fatalf("got %s, want %s, edited %s", text(after.View()), textOf(want), text(edited))
				}
				if name == "rewrite" && tree.Exists() {
					for _, e := range edits {
						if shows, later := after.Landed(e.Path, first, last); !shows || later {
							other.fatalf("%q: shows %t, later %t", e.Path, shows, later)
						}
					}
				}
			}
			if len(writes) == 0 && tree.Exists() && textOf(want) != textOf(view) {
				other.fatalf("nothing is written")
			}
		}
	})
}

func TestTreePlanRefuses(t *testing.T) {
	deep := parse(t, strings.Repeat("[", wire.MaxDepth)+strings.Repeat("]", wire.MaxDepth))
	far := make([]string, 100)
	for i := range far {
		far[i] = "a"
	}
	for what, edits := range map[string][]Edit{
		"an array as the root":       {{nil, parse(t, "[]"), ""}},
		"no root":                    {{nil, nil, ""}},
		"no root in between":         {{nil, nil, ""}, {nil, Object(), ""}},
		"a value too deep":           {{[]string{"z"}, deep, ""}},
		"a value too deep in arrays": {{[]string{"l", "0"}, deep, ""}},
		"a path too deep":            {{far, parse(t, "1"), ""}},
		"a name that is not UTF-8":   {{[]string{"a", "\xff"}, parse(t, "1"), ""}},
		"an element beyond the end":  {{[]string{"l", "7"}, parse(t, "1"), ""}},
	} {
		for _, root := range []string{`{"l":[1]}`, "-"} {
			tree := NewTree(testContext)
			if v := parse(t, root); v != nil {
				tree.Apply([]Entry{{Key: rootKey, Seq: 1, Value: v.Payload().Data}}, nil)
			} else if what == "an element beyond the end" {
				continue
			}
			plan := tree.Plan
			if tree.NeedsSnapshot(edits) {
				plan = tree.Rewrite
			}
			if writes, err := plan(edits); !errors.Is(err, wire.ErrBadPayload) || len(writes) > 0 {
				t.Errorf("%s in %s: %v, %v", what, root, writes, err)
			}
			if writes, err := tree.Rewrite(edits); !errors.Is(err, wire.ErrBadPayload) || len(writes) > 0 {
				t.Errorf("%s in %s, rewritten: %v, %v", what, root, writes, err)
			}
		}
	}
	for _, tree := range []*Tree{NewTree(testContext), one(t)} {
		if writes, err := tree.Plan(nil); len(writes) > 0 || err != nil || tree.NeedsSnapshot(nil) {
			t.Errorf("nothing: %v, %v", writes, err)
		}
		if writes, err := tree.Rewrite(nil); len(writes) > 0 || err != nil {
			t.Errorf("nothing, rewritten: %v, %v", writes, err)
		}
	}
	fits := parse(t, strings.Repeat("[", wire.MaxDepth-1)+strings.Repeat("]", wire.MaxDepth-1))
	if _, err := one(t).Plan([]Edit{{[]string{"z"}, fits, ""}}); err != nil {
		t.Error(err)
	}
}

// one is a context with a few values.
func one(t testing.TB) *Tree {
	t.Helper()
	tree := NewTree(testContext)
	tree.Apply([]Entry{{Key: rootKey, Seq: 1, Value: parse(t, `{"l":[1],"o":{"x":1}}`).Payload().Data}}, nil)
	return tree
}

// Whatever foreign writers put into the headers, a reader who was there sees
// what one sees who comes later: the newest of each key in order of their places.
func TestTreeHostileHeaders(t *testing.T) {
	many(t, 20, func(t *rapid.T) {
		live, newest := NewTree(testContext), map[subjects.Key]Entry{}
		n := rapid.Uint64Range(0, 40)
		for seq := range rapid.Uint64Range(1, 15).Draw(t, "writes") {
			e := Entry{
				Key: keyOf(t, rapid.SampledFrom(paths[:6]).Draw(t, "path")), Seq: seq + 1, Op: rapid.SampledFrom([]Operation{Put, Put, Put, Delete, Purge}).Draw(t, "op"),
				Format: wire.JSON, AsOf: n.Draw(t, "as of") / 2, Compact: n.Draw(t, "compact") / 2, Expired: rapid.IntRange(0, 9).Draw(t, "expired") == 9,
			}
			if e.Op == Put {
				e.Value, e.Expired = []byte(textOf(valueFor(rapid.IntRange(0, valueKinds-1).Draw(t, "value"), int(seq)))), false
			}
			live.Apply([]Entry{e}, nil)
			newest[e.Key] = e
		}
		var list []Entry
		for _, e := range newest {
			if e.Op == Put || e.Compact == 0 && !e.Expired {
				list = append(list, e)
			}
		}
		at := func(e Entry) uint64 {
			if e.AsOf > 0 && e.AsOf < e.Seq {
				return e.AsOf
			}
			return e.Seq
		}
		slices.SortFunc(list, func(a, b Entry) int { return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a.Seq, b.Seq)) })
		view, exists := any(gone{}), false
		for _, e := range list {
			k, _ := e.Key.Context()
			x := any(gone{})
			if e.Op == Put {
				x = modelOf(t, parse(t, string(e.Value)))
			}
			if len(k.Path) == 0 {
				if exists = e.Op == Put; exists {
					if _, ok := x.(map[string]any); !ok {
						x = map[string]any{}
					}
				}
			}
			view = modelPut(view, k.Path, x)
		}
		if !exists {
			view = gone{}
		}
		fresh := NewTree(testContext)
		fresh.Apply(slices.Collect(maps.Values(newest)), nil)
		for name, tree := range map[string]*Tree{"live": live, "fresh": fresh} {
			if tree.Exists() != exists || text(tree.View()) != textOf(view) || tree.Keys() != fresh.Keys() || tree.Bytes() != fresh.Bytes() {
				t.Fatalf("%s: exists %t, %s, %d keys, %d bytes; want %t, %s", name, tree.Exists(), text(tree.View()), tree.Keys(), tree.Bytes(), exists, textOf(view))
			}
		}
	})
}

// treeOf is a context with the given writes, from sequence 1 on: "path=JSON",
// where "-" deletes and "@n" behind the path is As-Of.
func treeOf(t testing.TB, writes ...string) *Tree {
	t.Helper()
	tree := NewTree(testContext)
	for i, w := range writes {
		left, value, _ := strings.Cut(w, "=")
		path, asOf, _ := strings.Cut(left, "@")
		e := Entry{Key: keyOf(t, split(path)), Seq: uint64(i) + 1, Op: Delete}
		if _, err := fmt.Sscan(asOf, &e.AsOf); asOf != "" && err != nil {
			t.Fatal(err)
		}
		if v := parse(t, value); v != nil {
			e.Op, e.Value = Put, v.Payload().Data
		}
		if bad := tree.Apply([]Entry{e}, nil); bad != nil {
			t.Fatal(bad)
		}
	}
	return tree
}

func describe(writes []Write) string {
	var list []string
	for _, w := range writes {
		s := strings.TrimPrefix(string(w.Key), testContext.String()+".")
		switch w.Op {
		case Put:
			v, _ := ParseValue(wire.Payload{Format: w.Format, Data: w.Value})
			s += "=" + text(v)
		case Delete:
			s += "=-"
		case Purge:
			s += " purged"
		}
		if w.If != nil {
			s += fmt.Sprintf(" if %d", *w.If)
		}
		if w.AsOf > 0 {
			s += fmt.Sprintf(" as of %d", w.AsOf)
		}
		if w.Compact > 0 {
			s += fmt.Sprintf(" compact %d", w.Compact)
		}
		list = append(list, s)
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

func TestTreeCompaction(t *testing.T) {
	for _, c := range []struct {
		writes string
		most   int
		want   string
	}{
		{"", 100, ""},
		{"={}", 100, ""},
		{"={} a=1 b/c=- b=2", 100, `/={"a":1,"b":2} if 1 as of 4 compact 4; a purged if 2 compact 2; b purged if 4 compact 4; b.c purged if 3 compact 3`},
		{"={} a=1 b=2", 2, `/={"a":1} if 1 as of 2 compact 2; a purged if 2 compact 2`},
		// What the root hides.
		{"={} a=1 b=2 ={}", 2, "a purged if 2 compact 2; b purged if 3 compact 3"},
		{"={} a=1 b=2 ={}", 3, `/={} if 4 as of 4 compact 4; a purged if 2 compact 2; b purged if 3 compact 3`},
		// Of two with the same place none may be left below the new root.
		{"={} a=1 b=2 a@3=3 b@3=4", 2, ""},
		{"={} z=1 a=1 b=2 a@4=3 b@4=4", 3, `/={"z":1} if 1 as of 2 compact 2; z purged if 2 compact 2`},
		{"={} a=1 b=2 a@3=3 b@3=4", 3, `/={"a":3,"b":4} if 1 as of 3 compact 5; a purged if 4 compact 4; b purged if 5 compact 5`},
		// A hidden key that alone holds the revision waits for a new root.
		{"={} a=1 b=2 ={} a@3=3", 2, "b purged if 3 compact 3"},
		{"={} a=1 b=2 ={} a@3=3", 3, "/={} if 4 as of 4 compact 5; a purged if 5 compact 5; b purged if 3 compact 3"},
		// Without a context all goes.
		{"a=1 b=2", 100, "a purged if 1 compact 1; b purged if 2 compact 2"},
		{"={} a=1 =- b=1", 2, "/ purged if 3 compact 3; a purged if 2 compact 2"},
		{"a@9=1", 100, "a purged if 1 compact 1"},
	} {
		writes := treeOf(t, strings.Fields(c.writes)...).Compaction(c.most, "x")
		if got := describe(writes); got != c.want {
			t.Errorf("%s, %d:\n got %s\nwant %s", c.writes, c.most, got, c.want)
		}
		for _, w := range writes {
			if w.By != "x" || (w.TTL > 0) != (w.Op == Purge) {
				t.Errorf("%s: %+v", c.writes, w)
			}
		}
	}
}

func TestTreeRewrite(t *testing.T) {
	for _, c := range []struct{ writes, path, value, want string }{
		{"={\"l\":[1]}", "l/0", "2", `/={"l":[2]} if 1 as of 1`},
		{"={} l=[1]", "l/0", "2", `l=[2] if 2 as of 2`},
		{"={} l=[1] z=1", "l/0", "-", `l=[] if 2 as of 3`},
		{"={} l=[1] ={\"l\":[2]}", "l/0", "3", `/={"l":[3]} if 3 as of 3; l purged if 2 compact 3`},
		{"={} a={} a/l=[1] a/m=1", "a/l/0", "2", `a.l=[2] if 3 as of 4`},
		{"={} a={\"l\":[1]} a/m=1 b=1", "a/l/1", "2", `a.m purged if 3 compact 4; a={"l":[1,2],"m":1} if 2 as of 4`},
		{"={} a=1 a=-", "a", "-", `a=- if 3 as of 3`},
		{"-", "l/0", "2", `/={"l":{"0":2}} if 0`},
	} {
		var list []string
		if c.writes != "-" {
			list = strings.Fields(c.writes)
		}
		writes, err := treeOf(t, list...).Rewrite([]Edit{{split(c.path), parse(t, c.value), "x"}})
		if got := describe(writes); err != nil || got != c.want {
			t.Errorf("%s, %s=%s: %v\n got %s\nwant %s", c.writes, c.path, c.value, err, got, c.want)
		}
	}
}

func TestTreeLanded(t *testing.T) {
	for _, c := range []struct {
		writes, path string
		first, last  uint64
		shows, later bool
	}{
		{`={} l=[1] l@2=[2]`, "l/0", 3, 3, true, false},
		{`={"l":[1]} @1={"l":[2]} k=1`, "l/0", 2, 2, true, false},
		{`={"l":[1]} l=[3] @1={"l":[2]}`, "l/0", 3, 3, false, false}, // hidden at once
		{`={"l":[1]} @1={"l":[2]} ={}`, "l/0", 2, 2, false, true},
		{`={"l":[1]} @1={"l":[2]} l=[3]`, "l/0", 2, 2, false, true},
		{`={"l":[1]} @1={"l":[2]} @1={"l":[2],"k":1}`, "l/0", 2, 2, false, true},
		{`={"l":[1]} @1={"l":[2]} =-`, "l/0", 2, 2, false, true},
	} {
		shows, later := treeOf(t, strings.Fields(c.writes)...).Landed(split(c.path), c.first, c.last)
		if shows != c.shows || later != c.later {
			t.Errorf("%s: %s of %d to %d: shows %t, later %t", c.writes, c.path, c.first, c.last, shows, later)
		}
	}
	above := NewTree(testContext).Above([]string{"a", "b", long, "c"})
	if !slices.Equal(above, []subjects.Key{rootKey, "T42=2EDemo.a", "T42=2EDemo.a.b"}) {
		t.Errorf("%q", above)
	}
}

func TestTreeChanged(t *testing.T) {
	tree := treeOf(t, "={}", "a=1", "b/c=2", "b/d=-")
	for path, want := range map[string]uint64{"": 4, "a": 2, "a/x": 2, "b": 4, "b/c": 3, "b/c/x/y": 3, "b/d": 4, "b/e": 1, "c": 1} {
		edits := []Edit{{split(path), nil, ""}}
		if tree.Changed(edits, want) || !tree.Changed(edits, want-1) {
			t.Errorf("%q: changed %t, %t", path, tree.Changed(edits, want), tree.Changed(edits, want-1))
		}
	}
	if edits := []Edit{{split("c"), nil, ""}, {split("b"), nil, ""}}; tree.Changed(edits, 4) || !tree.Changed(edits, 3) {
		t.Error("only the first edit counts")
	}
	if tree.Changed(nil, 0) {
		t.Error("nothing changed")
	}
}
