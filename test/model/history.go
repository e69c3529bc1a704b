package model

import (
	"fmt"
	"slices"
	"strings"
)

// Place is where a write stands in the fold.
type Place struct{ At, Seq uint64 }

// Before says whether p is folded before q.
func (p Place) Before(q Place) bool { return p.At < q.At || p.At == q.At && p.Seq < q.Seq }

// Place is where the message stands.
func (m *Message) Place() Place {
	if m.AsOf > 0 && m.AsOf < m.Seq {
		return Place{m.AsOf, m.Seq}
	}
	return Place{m.Seq, m.Seq}
}

// Object is a context after some writes.
type Object struct {
	Value  any
	Exists bool
}

// Shown is what a reader sees of it.
func (o Object) Shown() any {
	if !o.Exists {
		return Nothing
	}
	return o.Value
}

func (o Object) fold(m *Message) Object {
	x := m.Value
	if m.Op != OpPut {
		x = Nothing
	}
	o.Value = Put(o.Value, m.Path, x)
	if len(m.Path) == 0 {
		o.Exists = m.Op == OpPut
	}
	return o
}

// Step is one write in the order of places, and the object after it.
type Step struct {
	Place
	M     *Message
	After Object
}

// History is all writes of a context.
type History struct {
	Steps []Step
	All   []*Message // compactions too, by sequence
}

// Add folds a message, and everything again that stands behind it.
func (h *History) Add(m *Message) {
	p := m.Place()
	i := len(h.Steps)
	for i > 0 && p.Before(h.Steps[i-1].Place) {
		i--
	}
	h.Steps = slices.Insert(h.Steps, i, Step{Place: p, M: m})
	for ; i < len(h.Steps); i++ {
		h.Steps[i].After = h.Before(i).fold(h.Steps[i].M)
	}
}

// Before is the object before step i.
func (h *History) Before(i int) Object {
	if i == 0 {
		return Object{Value: Nothing}
	}
	return h.Steps[i-1].After
}

// Now is the object after everything.
func (h *History) Now() Object { return h.Before(len(h.Steps)) }

// Find is the step of a message.
func (h *History) Find(m *Message) int {
	return slices.IndexFunc(h.Steps, func(s Step) bool { return s.M == m })
}

// Lines lists messages, one on each line.
func Lines(list []*Message) string {
	var b strings.Builder
	for _, m := range list {
		fmt.Fprintf(&b, "    %s\n", m)
	}
	return b.String()
}
