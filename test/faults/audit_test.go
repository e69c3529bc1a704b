//go:build unix

package faults_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weft-fabric/weft/test/model"
)

// audit holds every acknowledgement against the record: a durable write is what a
// reader finds right after the commit of its revision, a journalled one is there, or
// superseded, or has its notice. What was refused is not there, and nothing is that
// nobody wrote, or twice.
func audit(r *record, ops []*op, notices []notice, p *problems) {
	a := &auditor{r: r, told: map[uint64][]*op{}, byID: map[int]*op{}, notices: map[string]notice{}, p: p}
	for _, n := range notices {
		if _, ok := a.notices[n.ID]; ok {
			p.add("two notices for one write: %s", n.ID)
		}
		a.notices[n.ID] = n
	}
	for _, o := range ops {
		a.byID[o.id] = o
		if o.outcome == durable && !o.client {
			a.told[o.ack.Revision] = append(a.told[o.ack.Revision], o)
		}
		if o.ack.ID != "" {
			a.journal = append(a.journal, o)
		}
	}
	for _, o := range ops {
		switch {
		case o.outcome == durable && o.client:
			a.client(o, ops)
		case o.outcome == durable:
			a.durable(o)
		case o.outcome == journalled:
			a.journalled(o, ops)
		}
	}
	a.phantoms()
}

type auditor struct {
	r       *record
	told    map[uint64][]*op // durable ones by revision
	byID    map[int]*op
	journal []*op
	notices map[string]notice // by the id of the write
	p       *problems
}

func (a *auditor) durable(o *op) {
	b := a.r.batches[o.ack.Revision]
	if b == nil || len(b.relevant) == 0 || b.relevant[0].Context != a.token(o.context) {
		if !o.removes() { // to remove nothing writes nothing
			a.p.add("%s was acknowledged with a revision that is not the end of a commit to it; %s", o, a.r.explain(o.context, o.edits[0].path))
		}
		return
	}
	h := a.r.histories[o.context]
	after := h.Steps[h.Find(b.relevant[len(b.relevant)-1])].After.Shown()
	for _, e := range o.edits {
		got := model.At(after, e.path)
		switch {
		case model.Canonical(got) == model.Canonical(e.value):
		case a.shadowed(o, e, b):
		case e.value == model.Nothing && !slices.ContainsFunc(b.relevant, func(m *model.Message) bool { return len(m.Path) <= len(e.path) && model.Related(m.Path, e.path) }):
			// The node had nothing there, and what was on its way to it stays.
		default:
			a.p.add("%s was acknowledged, and then %v is %s; its commit:\n%s", o, e.path, model.Short(got), model.Lines(b.messages))
		}
	}
}

// token is the context's in the record.
func (a *auditor) token(context string) string {
	if h := a.r.histories[context]; len(h.All) > 0 {
		return h.All[0].Context
	}
	return ""
}

// shadowed says whether another operation of the same commit wrote there too.
func (a *auditor) shadowed(o *op, e change, b *batch) bool {
	for _, other := range a.told[o.ack.Revision] {
		if other != o && other.touches(e.path) {
			return true
		}
	}
	return slices.ContainsFunc(b.relevant, func(m *model.Message) bool {
		return model.Related(m.Path, e.path) && slices.ContainsFunc(tags(m.Value), func(id int) bool { return id != o.id })
	})
}

// client checks a write of a client, which is told that it was made and not where.
func (a *auditor) client(o *op, ops []*op) {
	for _, e := range o.edits {
		if e.value == model.Nothing || a.there(o, e) || a.coalesced(o, e, ops) || a.clientNoticed(o, e) {
			continue
		}
		a.p.add("%s was acknowledged, and %v was never written; %s%s", o, e.path, a.r.explain(o.context, e.path), a.around(o, e, ops))
	}
}

// around are the operations of the same node at the same place at about that time, and
// the notices of the context.
func (a *auditor) around(o *op, e change, ops []*op) string {
	var s strings.Builder
	for _, other := range ops {
		if other != o && other.desk == o.desk && other.context == o.context && other.touches(e.path) && other.began < o.ended+time.Minute && other.ended > o.began-time.Minute {
			fmt.Fprintf(&s, "\n\tof the same node: %s", other)
		}
	}
	for _, n := range a.notices {
		if n.Context == o.context {
			fmt.Fprintf(&s, "\n\tnotice: %+v", n)
		}
	}
	return s.String()
}

// there says whether the record has what an operation wanted at a path.
func (a *auditor) there(o *op, e change) bool { return a.r.brings(o, e) != nil }

// coalesced says whether another operation of the same node, which was made or is
// journalled too, took the operation's place before it was sent.
func (a *auditor) coalesced(o *op, e change, ops []*op) bool {
	return slices.ContainsFunc(ops, func(other *op) bool {
		return other != o && other.desk == o.desk && other.context == o.context && other.touches(e.path) && other.ended >= o.began &&
			(len(a.r.written[other.id]) > 0 || other.outcome == durable || other.outcome == journalled && other.ended > o.began)
	})
}

// journalled checks a write that the journal of a node acknowledged: it ends as
// applied, or superseded, or with one notice, never in silence.
func (a *auditor) journalled(o *op, ops []*op) {
	for _, e := range o.edits {
		switch {
		case a.noticed(o, e):
		case e.value != model.Nothing && a.there(o, e):
		case e.value == model.Nothing && model.At(a.r.histories[o.context].Now().Shown(), e.path) == model.Nothing:
		case a.coalesced(o, e, ops):
		case e.value == model.Nothing && a.removed(o, e):
		default:
			a.p.add("%s is not in the record at %v, nothing of its node took its place, and there is no notice; %s", o, e.path, a.r.explain(o.context, e.path))
			return
		}
	}
}

// noticed says whether a notice has what a journalled write wanted at a path.
func (a *auditor) noticed(o *op, e change) bool {
	return slices.ContainsFunc(a.notices[o.ack.ID].Edits, func(lost edit) bool { return model.Related(lost.Path, e.path) })
}

// clientNoticed says that of a client's write, whose id nobody knows.
func (a *auditor) clientNoticed(o *op, e change) bool {
	for _, n := range a.notices {
		for _, lost := range n.Edits {
			if n.Context == o.context && model.Related(lost.Path, e.path) && len(lost.Value) > 0 && slices.Contains(tags(fromJSON(lost.Value)), o.id) {
				return true
			}
		}
	}
	return false
}

// removed says whether the record has a removal of the operation's node there, or an
// object without it.
func (a *auditor) removed(o *op, e change) bool {
	return slices.ContainsFunc(a.r.histories[o.context].All, func(m *model.Message) bool {
		n := len(m.Path)
		return m.Relevant() && model.Related(m.Path, e.path) && strings.HasSuffix(m.By, "@"+o.desk) &&
			(m.Op != model.OpPut || m.AsOf > 0 && n < len(e.path) && model.At(m.Value, e.path[n:]) == model.Nothing)
	})
}

// phantoms are what is in the record and must not be.
func (a *auditor) phantoms() {
	for id, list := range a.r.written {
		o := a.byID[id]
		switch {
		case o == nil:
			a.p.add("nobody made write %d: %s", id, list[0])
			continue
		case o.outcome == refused:
			a.p.add("%s was refused and made: %s", o, list[0])
		}
		for _, m := range list[1:] {
			if m.ID != list[0].ID {
				a.p.add("%s was made twice:\n%s", o, model.Lines(list))
				break
			}
		}
	}
	for id, n := range a.notices {
		if !a.maybeJournalled(n) && !slices.ContainsFunc(a.journal, func(o *op) bool { return o.ack.ID == id }) {
			a.p.add("a notice for a write that nobody was told of: %s of %s", id, n.Context)
		}
	}
}

// maybeJournalled says whether a notice is of a write that can have been journalled
// without its app being told so: it is of a client, or its outcome is not known, because
// its node was killed, or too late, between the journal and the answer.
func (a *auditor) maybeJournalled(n notice) bool {
	return slices.ContainsFunc(n.Edits, func(lost edit) bool {
		if len(lost.Value) > 0 {
			return slices.ContainsFunc(tags(fromJSON(lost.Value)), func(id int) bool { o := a.byID[id]; return o != nil && (o.client || o.outcome == unknown) })
		}
		for _, o := range a.byID {
			if o.outcome == unknown && o.desk == n.desk && o.context == n.Context && slices.ContainsFunc(o.edits, func(e change) bool { return e.value == model.Nothing && model.Related(e.path, lost.Path) }) {
				return true
			}
		}
		return false
	})
}

// remoteWins checks that no journalled write landed on top of what somebody else wrote
// after it: it must have its notice instead.
func remoteWins(r *record, ops []*op, p *problems) {
	for _, o := range ops {
		if o.outcome != journalled {
			continue
		}
		for _, e := range o.edits {
			mine := r.brings(o, e)
			if mine == nil {
				continue
			}
			for _, other := range ops {
				if other.desk == o.desk || other.context != o.context || other.began <= o.ended {
					continue
				}
				for _, theirs := range other.edits {
					if n := r.brings(other, theirs); n != nil && model.Related(theirs.path, e.path) && n.Seq <= mine.Place().At {
						p.add("%s was journalled and then put on top of %s:\n%s", o, other, model.Lines([]*model.Message{n, mine}))
						return
					}
				}
			}
		}
	}
}

// brings is the first message with what an operation wanted at a path, nil if there is
// none, or if it wanted to remove.
func (r *record) brings(o *op, e change) *model.Message {
	if e.value == model.Nothing {
		return nil
	}
	if list := r.bringing(o.id, e.path); len(list) > 0 {
		return list[0]
	}
	return nil
}

// bringing are the messages with a value of an operation at a path.
func (r *record) bringing(id int, path []string) (list []*model.Message) {
	for _, m := range r.written[id] {
		n := len(m.Path)
		if n <= len(path) && slices.Equal(m.Path, path[:n]) && slices.Contains(tags(model.At(m.Value, path[n:])), id) {
			list = append(list, m)
		}
	}
	return list
}

// realTime checks that a write which began after another one had been acknowledged
// has a higher revision.
func realTime(ops []*op, p *problems) {
	var list []*op
	for _, o := range ops {
		if o.outcome == durable && !o.client && !o.removes() {
			list = append(list, o)
		}
	}
	byEnd := slices.SortedFunc(slices.Values(list), func(a, b *op) int { return int(a.ended - b.ended) })
	slices.SortFunc(list, func(a, b *op) int { return int(a.began - b.began) })
	var newest *op
	for _, o := range list {
		for len(byEnd) > 0 && byEnd[0].ended < o.began {
			if newest == nil || byEnd[0].ack.Revision > newest.ack.Revision {
				newest = byEnd[0]
			}
			byEnd = byEnd[1:]
		}
		if newest != nil && o.ack.Revision <= newest.ack.Revision {
			p.add("%s began after %s was acknowledged", o, newest)
		}
	}
}
