package stress_test

import (
	"slices"
	"strings"

	"github.com/weft-fabric/weft/test/model"
)

// batch is the messages of one commit.
type batch struct {
	id       string
	messages []*model.Message
}

func (b *batch) first() uint64 { return b.messages[0].Seq }
func (b *batch) last() uint64  { return b.messages[len(b.messages)-1].Seq }

// relevant are the messages that the fold counts.
func (b *batch) relevant() (list []*model.Message) {
	for _, m := range b.messages {
		if m.Relevant() {
			list = append(list, m)
		}
	}
	return list
}

// referee folds the record and holds it against what the apps were told.
type referee struct {
	r         *run
	histories map[string]*model.History // by token
	places    map[int]model.Place       // of each operation in the record, its first
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
		r: r, histories: map[string]*model.History{}, places: map[int]model.Place{}, ids: map[string]bool{}, told: map[uint64][]*op{},
		doubtful: map[string][]*op{}, purges: map[string]int{}, explained: map[*op]bool{}, counters: map[string]map[int64]bool{},
	}
	for _, c := range r.contexts {
		f.histories[c.token] = &model.History{}
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
		m := f.r.record.Get(f.fed + 1)
		if m == nil {
			f.r.violation("sequence %d is not in the record", f.fed+1)
			continue
		}
		if f.histories[m.Context] == nil {
			continue // nodes make the default channels
		}
		if f.open != nil && (f.open.id != m.ID || f.open.last()+1 != m.Seq) {
			f.r.violation("a batch without an end, before %s", m)
			f.close()
		}
		if f.open == nil {
			if m.ID == "" || f.ids[m.ID] {
				f.r.violation("written twice under one id, or under none: %s", m)
			}
			f.ids[m.ID] = true
			f.open = &batch{id: m.ID}
		}
		f.open.messages = append(f.open.messages, m)
		if m.End {
			f.close()
		}
	}
}

// close judges a batch that is complete.
func (f *referee) close() {
	b := f.open
	f.open = nil
	f.batches++
	h := f.histories[b.messages[0].Context]
	h.All = append(h.All, b.messages...)
	list := b.relevant()
	for _, m := range list {
		if m.Context != b.messages[0].Context {
			f.r.violation("a batch of two contexts: %s, %s", b.messages[0], m)
		}
		h.Add(m)
		model.Leaves(m.Value, "", func(_ string, _ bool, op int) {
			p := m.Place()
			if old, ok := f.places[op]; !ok || p.Before(old) {
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
func (f *referee) compacted(h *model.History, b *batch) {
	for _, m := range b.messages {
		if m.Meta || m.Op != model.OpPut {
			continue
		}
		i := len(h.Steps)
		for i > 0 && h.Steps[i-1].At > m.AsOf {
			i--
		}
		want := h.Before(i).Value
		for _, path := range model.Differences(want, m.Value, nil, 3) {
			f.r.violation("a compaction has %s at %q, want %s: %s", model.Short(model.At(m.Value, path)), path, model.Short(model.At(want, path)), m)
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
func (f *referee) own(b *batch, list []*model.Message, ops []*op) {
	for _, m := range list {
		if m.Op == model.OpPurge {
			f.purges[m.By+" "+m.Context]++
			continue
		}
		mine := func(o *op) bool { return o.by == m.By && o.touches(m.Path) }
		if slices.ContainsFunc(ops, mine) {
			continue
		}
		doubtful := f.doubtful[m.By+" "+m.Context]
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
func (f *referee) show(h *model.History, b *batch, list []*model.Message, ops []*op) {
	if len(list) == 0 {
		f.r.violation("acknowledged with a batch that says nothing: %v", ops)
		return
	}
	i, j := h.Find(list[0]), h.Find(list[len(list)-1])
	before, after := h.Before(i), h.Steps[j].After
	for _, o := range ops {
		if o.kind == kindCounter {
			f.count(o)
		}
		if list[0].AsOf > 0 {
			f.rewritten(o, before, after, ops, b)
			continue
		}
		for _, e := range o.edits {
			got := model.At(after.Shown(), e.path)
			switch {
			case model.Canonical(got) == model.Canonical(e.value):
				continue
			case !after.Exists || f.isShadowed(o, e, ops, list):
				f.shadowed++
				continue
			case e.value == model.Nothing && !slices.ContainsFunc(list, func(m *model.Message) bool { return len(m.Path) <= len(e.path) && model.Related(m.Path, e.path) }):
				f.idle++ // the node had nothing there, and what was on its way to it stays
				continue
			}
			f.r.violation("%s was acknowledged with %d, and then %q is %s, want %s; its batch:\n%s", o, o.revision, e.path, model.Short(got), model.Short(e.value), model.Lines(b.messages))
		}
	}
}

// isShadowed says whether somebody else of the same batch wrote there too.
func (f *referee) isShadowed(o *op, e change, ops []*op, list []*model.Message) bool {
	for _, other := range ops {
		if other != o && other.touchesAny(e.path) {
			return true
		}
	}
	for _, m := range list {
		if m.By != o.by && model.Related(m.Path, e.path) {
			return true
		}
	}
	return false
}

// rewritten checks an operation that has read before it wrote: nothing but its
// edits may have changed at its place.
func (f *referee) rewritten(o *op, before, after model.Object, ops []*op, b *batch) {
	if len(ops) != 1 {
		f.r.violation("a rewrite of several operations: %v", ops)
		return
	}
	want := before.Value
	for _, e := range o.edits {
		var err error
		if want, err = model.Edit(want, e.path, e.value); err != nil {
			f.r.violation("%s was acknowledged and cannot be made: %v", o, err)
			return
		}
	}
	for _, path := range model.Differences(want, after.Value, nil, 3) {
		f.r.violation("%s was acknowledged with %d, and then %q is %s, want %s, before %s; its batch:\n%s",
			o, o.revision, path, model.Short(model.At(after.Value, path)), model.Short(model.At(want, path)), model.Short(model.At(before.Value, path)), model.Lines(b.messages))
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
				f.r.violation("%s was acknowledged with %d, which is not the end of a batch: %v", o, o.revision, f.r.record.Get(o.revision))
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
			n, _ := model.At(f.histories[c.token].Now().Shown(), append(slices.Clone(path), "n")).(int64)
			if n != int64(raised+perhaps) {
				f.r.violation("counter %s %v is %d, was raised %d times by acknowledged writes and %d times by others", c.name, path, n, raised, perhaps)
			}
		}
	}
}

// made lists the batch of an operation, and what followed at its paths.
func (f *referee) made(o *op) string {
	var list []*model.Message
	p, ok := f.places[o.id]
	if !ok {
		return "    it is not in the record\n"
	}
	for _, m := range f.histories[o.context.token].All {
		if m.Seq+15 > p.At && m.Seq < p.Seq+40 && !m.Meta && (m.ID == f.r.record.Get(p.Seq).ID || slices.ContainsFunc(o.edits, func(e change) bool { return model.Related(m.Path, e.path) })) {
			list = append(list, m)
		}
	}
	return model.Lines(list)
}

// explain lists what the record says of a path.
func (f *referee) explain(c *shared, path []string) string {
	var list []*model.Message
	for _, m := range f.histories[c.token].All {
		if !m.Meta && model.Related(m.Path, path) {
			list = append(list, m)
		}
	}
	if len(list) > 12 {
		list = list[len(list)-12:]
	}
	return model.Lines(list)
}
