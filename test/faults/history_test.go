//go:build unix

package faults_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/test/model"
	"github.com/weft-fabric/weft/wire"
)

// outcome is what an app was told of a write.
type outcome uint8

const (
	unknown    outcome = iota // it may have been made
	durable                   // acknowledged by the stream
	journalled                // acknowledged by the journal of the node
	refused
	outcomes
)

func (o outcome) String() string {
	return [...]string{"unknown", "durable", "journalled", "refused"}[o]
}

// op is one write of an app. Times are since the run began.
type op struct {
	id           int
	desk, app    string
	client       bool // of the gateway: it is not told revisions
	context      string
	kind         string
	edits        []change
	began, ended time.Duration
	outcome      outcome
	ack          ack
	code         wire.Code
	err          string
}

// change is what a write wants at a path; [model.Nothing] removes.
type change struct {
	path  []string
	value any
}

func (o *op) String() string {
	var paths []string
	for _, e := range o.edits {
		paths = append(paths, strings.Join(e.path, "/")+" = "+model.Short(e.value))
	}
	text := fmt.Sprintf("write %d (%s of %s by %s, %s to %s: %s)", o.id, o.kind, o.context, o.app, o.began.Round(time.Millisecond), o.ended.Round(time.Millisecond), strings.Join(paths, ", "))
	switch o.outcome {
	case durable:
		return fmt.Sprintf("%s, durable at %d,", text, o.ack.Revision)
	case journalled:
		return fmt.Sprintf("%s, journalled as %s,", text, o.ack.ID)
	default:
		return fmt.Sprintf("%s, %s (%s %s),", text, o.outcome, o.code, o.err)
	}
}

// removes says whether all that the operation does is to remove.
func (o *op) removes() bool {
	return !slices.ContainsFunc(o.edits, func(e change) bool { return e.value != model.Nothing })
}

// apart says whether the paths of the operation may be made each for itself: what was
// journalled, as a client's write can have been without saying so, is merged by path.
func (o *op) apart() bool { return o.outcome != durable || o.client }

func (o *op) touches(path []string) bool {
	return slices.ContainsFunc(o.edits, func(e change) bool { return model.Related(e.path, path) })
}

// problems is what a checker found.
type problems struct {
	list []string
	n    int
}

// mostProblems are kept; one defect can cause thousands.
const mostProblems = 20

func (p *problems) add(format string, args ...any) {
	if p.n++; p.n <= mostProblems {
		p.list = append(p.list, fmt.Sprintf(format, args...))
	}
}

// batch is the messages of one commit.
type batch struct {
	messages []*model.Message
	relevant []*model.Message // what the fold counts
}

func (b *batch) last() uint64 { return b.messages[len(b.messages)-1].Seq }

// prefix is a context after a commit, and after all before it.
type prefix struct {
	seq  uint64
	hash uint64
}

// record is all that was written, folded.
type record struct {
	histories   map[string]*model.History // by context
	batches     map[uint64]*batch         // by their last sequence
	commits     map[string]*batch         // by their id
	written     map[int][]*model.Message  // by operation
	prefixes    map[string][]prefix       // by context
	names       map[string]string         // by token
	open        *batch                    // without its end
	compactions int
	holes       int // confirmed states of observers that lack something, see isPath
	last        uint64
}

// newRecord is an empty record of some contexts; others are none of the run's.
func newRecord(contexts []string) *record {
	r := &record{histories: map[string]*model.History{}, batches: map[uint64]*batch{}, commits: map[string]*batch{}, written: map[int][]*model.Message{}, prefixes: map[string][]prefix{}, names: map[string]string{}}
	for _, name := range contexts {
		r.names[subjects.MustEncode(name).String()] = name
		r.histories[name] = &model.History{}
		r.prefixes[name] = []prefix{{0, hashOf(model.Canonical(model.Nothing))}}
	}
	return r
}

// feed folds the next message.
func (r *record) feed(m *model.Message, p *problems) {
	r.last = m.Seq
	if r.names[m.Context] == "" {
		return
	}
	if r.open != nil && (r.open.messages[0].ID != m.ID || r.open.last()+1 != m.Seq) {
		p.add("a batch without an end, before %s", m)
		r.open = nil
	}
	if r.open == nil {
		r.open = &batch{}
	}
	r.open.messages = append(r.open.messages, m)
	if m.End {
		r.close(r.names[m.Context], r.open)
		r.open = nil
	}
}

func (r *record) close(context string, b *batch) {
	r.batches[b.last()], r.commits[b.messages[0].ID] = b, b
	h := r.histories[context]
	h.All = append(h.All, b.messages...)
	for _, m := range b.messages {
		if !m.Relevant() {
			continue
		}
		b.relevant = append(b.relevant, m)
		h.Add(m)
		for _, id := range newTags(m, h.Before(h.Find(m)).Value) {
			r.written[id] = append(r.written[id], m)
		}
	}
	if len(b.relevant) == 0 {
		r.compactions++
		return
	}
	r.prefixes[context] = append(r.prefixes[context], prefix{b.last(), hashOf(model.Canonical(h.Now().Shown()))})
}

// tags are the operations whose values are in v, each once.
func tags(v any) (list []int) {
	model.Leaves(v, "", func(_ string, _ bool, op int) {
		if !slices.Contains(list, op) {
			list = append(list, op)
		}
	})
	return list
}

// newTags are the operations whose values a message brings. One that rewrites what was
// there (Weft-As-Of) has old ones in it too.
func newTags(m *model.Message, before any) (list []int) {
	if m.AsOf == 0 {
		return tags(m.Value)
	}
	model.Leaves(m.Value, "", func(path string, _ bool, op int) {
		was := model.At(before, slices.Concat(m.Path, strings.Split(path, "/")[1:]))
		if id, ok := model.TagOf(was); (!ok || id != op) && !slices.Contains(list, op) {
			list = append(list, op)
		}
	})
	return list
}

func hashOf(canonical string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(canonical)) // never fails
	return h.Sum64()
}

// explain lists what the record says of a path.
func (r *record) explain(context string, path []string) string {
	var list []*model.Message
	for _, m := range r.histories[context].All {
		if !m.Meta && model.Related(m.Path, path) {
			list = append(list, m)
		}
	}
	return "the record:\n" + model.Lines(list[max(0, len(list)-10):])
}

// fromJSON is a value of the model.
func fromJSON(text json.RawMessage) any {
	v, err := model.Decoded(wire.Payload{Format: wire.JSON, Data: text})
	if err != nil {
		panic(err)
	}
	return v
}
