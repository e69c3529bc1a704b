package stress_test

import (
	"fmt"
	"slices"
	"strings"
)

// place is where a write stands in the fold.
type place struct{ at, seq uint64 }

func (p place) before(q place) bool { return p.at < q.at || p.at == q.at && p.seq < q.seq }

func (m *message) place() place {
	if m.asOf > 0 && m.asOf < m.seq {
		return place{m.asOf, m.seq}
	}
	return place{m.seq, m.seq}
}

// object is a context after some writes.
type object struct {
	value  any
	exists bool
}

// shown is what a reader sees of it.
func (o object) shown() any {
	if !o.exists {
		return nothing
	}
	return o.value
}

// step is one write in the order of places, and the object after it.
type step struct {
	place
	m     *message
	after object
}

// history is all writes of a context.
type history struct {
	steps []step
	all   []*message // compactions too, by sequence
}

// add folds a message, and everything again that stands behind it.
func (h *history) add(m *message) {
	p := m.place()
	i := len(h.steps)
	for i > 0 && p.before(h.steps[i-1].place) {
		i--
	}
	h.steps = slices.Insert(h.steps, i, step{place: p, m: m})
	for ; i < len(h.steps); i++ {
		h.steps[i].after = h.before(i).fold(h.steps[i].m)
	}
}

// before is the object before step i.
func (h *history) before(i int) object {
	if i == 0 {
		return object{value: nothing}
	}
	return h.steps[i-1].after
}

func (o object) fold(m *message) object {
	x := m.value
	if m.op != opPut {
		x = nothing
	}
	o.value = put(o.value, m.path, x)
	if len(m.path) == 0 {
		o.exists = m.op == opPut
	}
	return o
}

func (h *history) now() object { return h.before(len(h.steps)) }

// find is the step of a message.
func (h *history) find(m *message) int {
	return slices.IndexFunc(h.steps, func(s step) bool { return s.m == m })
}

// batch is the messages of one commit.
type batch struct {
	id       string
	messages []*message
}

func (b *batch) first() uint64 { return b.messages[0].seq }
func (b *batch) last() uint64  { return b.messages[len(b.messages)-1].seq }

// relevant are the messages that the fold counts.
func (b *batch) relevant() (list []*message) {
	for _, m := range b.messages {
		if m.relevant() {
			list = append(list, m)
		}
	}
	return list
}

// referee folds the record and holds it against what the apps were told.
type referee struct {
	r         *run
	histories map[string]*history // by token
	places    map[int]place       // of each operation in the record, its first
	fed       uint64
	open      *batch
	ids       map[string]bool
	told      map[uint64][]*op // acknowledged operations by revision
	doubtful  map[string][]*op // by app and context: what may have been made
	purges    map[string]int   // of roots, by app and context
	explained map[*op]bool
	counters  map[string]map[int64]bool

	batches, compactions, shadowed, idle, hidden, late int
}

func newReferee(r *run) *referee {
	f := &referee{
		r: r, histories: map[string]*history{}, places: map[int]place{}, ids: map[string]bool{}, told: map[uint64][]*op{},
		doubtful: map[string][]*op{}, purges: map[string]int{}, explained: map[*op]bool{}, counters: map[string]map[int64]bool{},
	}
	for _, c := range r.contexts {
		f.histories[c.token] = &history{}
	}
	for _, o := range r.ops {
		switch {
		case o.outcome == acknowledged && o.kind != kindDestroy:
			f.told[o.revision] = append(f.told[o.revision], o)
		case o.outcome == unknown, o.outcome == refused && o.conditional(), o.kind == kindDestroy:
			f.doubtful[o.by+" "+o.context.token] = append(f.doubtful[o.by+" "+o.context.token], o)
		}
	}
	return f
}

// feed folds the record up to a sequence.
func (f *referee) feed(upTo uint64) {
	for ; f.fed < upTo; f.fed++ {
		m := f.r.record.get(f.fed + 1)
		if m == nil {
			f.r.violation("sequence %d is not in the record", f.fed+1)
			continue
		}
		if f.histories[m.context] == nil {
			continue // nodes make the default channels
		}
		if f.open != nil && (f.open.id != m.id || f.open.last()+1 != m.seq) {
			f.r.violation("a batch without an end, before %s", m)
			f.close()
		}
		if f.open == nil {
			if m.id == "" || f.ids[m.id] {
				f.r.violation("written twice under one id, or under none: %s", m)
			}
			f.ids[m.id] = true
			f.open = &batch{id: m.id}
		}
		f.open.messages = append(f.open.messages, m)
		if m.end {
			f.close()
		}
	}
}

// close judges a batch that is complete.
func (f *referee) close() {
	b := f.open
	f.open = nil
	f.batches++
	h := f.histories[b.messages[0].context]
	h.all = append(h.all, b.messages...)
	list := b.relevant()
	for _, m := range list {
		if m.context != b.messages[0].context {
			f.r.violation("a batch of two contexts: %s, %s", b.messages[0], m)
		}
		h.add(m)
		leaves(m.value, "", func(_ string, _ bool, op int) {
			p := m.place()
			if old, ok := f.places[op]; !ok || p.before(old) {
				f.places[op] = p
			}
		})
	}
	ops := f.of(b)
	if len(list) == 0 {
		f.compactions++
		f.compacted(h, b)
	}
	if len(list) > 0 || len(ops) > 0 {
		f.own(b, list, ops)
		f.show(h, b, list, ops)
	}
}

// compacted checks that a compaction wrote what the fold had at its place: all that
// came later is on top of it.
func (f *referee) compacted(h *history, b *batch) {
	for _, m := range b.messages {
		if m.meta || m.op != opPut {
			continue
		}
		i := len(h.steps)
		for i > 0 && h.steps[i-1].at > m.asOf {
			i--
		}
		want := h.before(i).value
		for _, path := range differences(want, m.value, nil, 3) {
			f.r.violation("a compaction has %s at %q, want %s: %s", short(at(m.value, path)), path, short(at(want, path)), m)
		}
	}
}

// of are the operations that were told of a batch and are in it.
func (f *referee) of(b *batch) (ops []*op) {
	for _, o := range f.told[b.last()] {
		switch {
		case !o.in(b):
			if !o.mayBeIdle() {
				f.r.violation("%s was acknowledged with the sequence of another write: %s", o, b.messages[len(b.messages)-1])
			}
			f.idle++
		default:
			ops = append(ops, o)
		}
		f.explained[o] = true
	}
	return ops
}

// own finds who made each write of a batch.
func (f *referee) own(b *batch, list []*message, ops []*op) {
	for _, m := range list {
		if m.op == opPurge {
			f.purges[m.by+" "+m.context]++
			continue
		}
		mine := func(o *op) bool { return o.by == m.by && o.touches(m.path) }
		if slices.ContainsFunc(ops, mine) {
			continue
		}
		doubtful := f.doubtful[m.by+" "+m.context]
		i := slices.IndexFunc(doubtful, mine)
		switch {
		case i < 0:
			f.r.violation("nobody was told of a write: %s; of its batch %d-%d were told: %v", m, b.first(), b.last(), ops)
		case doubtful[i].outcome == unknown:
			f.late++
		default:
			f.hidden++
		}
	}
}

// show checks that the operations are what a reader finds at the place of their
// batch.
func (f *referee) show(h *history, b *batch, list []*message, ops []*op) {
	if len(list) == 0 {
		f.r.violation("acknowledged with a batch that says nothing: %v", ops)
		return
	}
	i, j := h.find(list[0]), h.find(list[len(list)-1])
	before, after := h.before(i), h.steps[j].after
	for _, o := range ops {
		if o.kind == kindCounter {
			f.count(o)
		}
		if list[0].asOf > 0 {
			f.rewritten(o, before, after, ops, b)
			continue
		}
		for _, e := range o.edits {
			got := at(after.shown(), e.path)
			switch {
			case canonical(got) == canonical(e.value):
				continue
			case !after.exists || f.isShadowed(o, e, ops, list):
				f.shadowed++
				continue
			case e.value == nothing && !slices.ContainsFunc(list, func(m *message) bool { return len(m.path) <= len(e.path) && related(m.path, e.path) }):
				f.idle++ // the node had nothing there, and what was on its way to it stays
				continue
			}
			f.r.violation("%s was acknowledged with %d, and then %q is %s, want %s; its batch:\n%s", o, o.revision, e.path, short(got), short(e.value), lines(b.messages))
		}
	}
}

// isShadowed says whether somebody else of the same batch wrote there too.
func (f *referee) isShadowed(o *op, e change, ops []*op, list []*message) bool {
	for _, other := range ops {
		if other != o && other.touchesAny(e.path) {
			return true
		}
	}
	for _, m := range list {
		if m.by != o.by && related(m.path, e.path) {
			return true
		}
	}
	return false
}

// rewritten checks an operation that has read before it wrote: nothing but its
// edits may have changed at its place.
func (f *referee) rewritten(o *op, before, after object, ops []*op, b *batch) {
	if len(ops) != 1 {
		f.r.violation("a rewrite of several operations: %v", ops)
		return
	}
	want := before.value
	for _, e := range o.edits {
		var err error
		if want, err = edit(want, e.path, e.value); err != nil {
			f.r.violation("%s was acknowledged and cannot be made: %v", o, err)
			return
		}
	}
	for _, path := range differences(want, after.value, nil, 3) {
		f.r.violation("%s was acknowledged with %d, and then %q is %s, want %s, before %s; its batch:\n%s",
			o, o.revision, path, short(at(after.value, path)), short(at(want, path)), short(at(before.value, path)), lines(b.messages))
	}
}

// count notes what a counter was raised to: each number once.
func (f *referee) count(o *op) {
	key := o.context.token + " " + strings.Join(o.edits[0].path, "/")
	if f.counters[key] == nil {
		f.counters[key] = map[int64]bool{}
	}
	if f.counters[key][o.counted] {
		f.r.violation("%s: a second operation has raised the counter to %d; the record:\n%s", o, o.counted, f.explain(o.context, o.edits[0].path))
	}
	f.counters[key][o.counted] = true
}

// accounts checks what can be said only at the end.
func (f *referee) accounts() {
	destroyed, doubtful := map[string]int{}, map[string]int{}
	for _, o := range f.r.ops {
		key := o.by + " " + o.context.token
		switch {
		case o.kind == kindDestroy && o.outcome == acknowledged:
			destroyed[key]++
		case o.kind == kindDestroy && o.outcome == unknown:
			doubtful[key]++
		case o.outcome == acknowledged && !f.explained[o]:
			if !o.mayBeIdle() {
				f.r.violation("%s was acknowledged with %d, which is not the end of a batch: %v", o, o.revision, f.r.record.get(o.revision))
			}
			f.idle++
		}
	}
	for _, app := range f.r.apps {
		for _, c := range f.r.contexts {
			key := app.by + " " + c.token
			if n := f.purges[key]; n < destroyed[key] || n > destroyed[key]+doubtful[key] {
				f.r.violation("%s destroyed %s %d times, and %d times perhaps; it happened %d times", app.by, c.name, destroyed[key], doubtful[key], n)
			}
		}
	}
	for _, c := range f.r.contexts {
		for _, path := range c.counters {
			raised, perhaps := 0, 0
			for _, o := range f.r.ops {
				if o.kind != kindCounter || o.context != c || !slices.Equal(o.edits[0].path, path) {
					continue
				}
				if _, made := f.places[o.id]; o.outcome == acknowledged {
					raised++
				} else if o.outcome == unknown && made {
					perhaps++
				}
			}
			n, _ := at(f.histories[c.token].now().shown(), append(slices.Clone(path), "n")).(int64)
			if n != int64(raised+perhaps) {
				f.r.violation("counter %s %v is %d, was raised %d times by acknowledged writes and %d times by others", c.name, path, n, raised, perhaps)
			}
		}
	}
}

// made lists the batch of an operation, and what followed at its paths.
func (f *referee) made(o *op) string {
	var list []*message
	p, ok := f.places[o.id]
	if !ok {
		return "    it is not in the record\n"
	}
	for _, m := range f.histories[o.context.token].all {
		if m.seq+15 > p.at && m.seq < p.seq+40 && !m.meta && (m.id == f.r.record.get(p.seq).id || slices.ContainsFunc(o.edits, func(e change) bool { return related(m.path, e.path) })) {
			list = append(list, m)
		}
	}
	return lines(list)
}

// explain lists what the record says of a path.
func (f *referee) explain(c *shared, path []string) string {
	var list []*message
	for _, m := range f.histories[c.token].all {
		if !m.meta && related(m.path, path) {
			list = append(list, m)
		}
	}
	if len(list) > 12 {
		list = list[len(list)-12:]
	}
	return lines(list)
}

func lines(list []*message) string {
	var b strings.Builder
	for _, m := range list {
		fmt.Fprintf(&b, "    %s\n", m)
	}
	return b.String()
}
