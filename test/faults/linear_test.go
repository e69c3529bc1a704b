//go:build unix

package faults_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/weft-fabric/weft/test/model"
)

// read is what somebody read from the stream's leader.
type read struct {
	context      string
	began, ended time.Duration
	value        any
}

// linear is the model of a context: writes and authoritative reads take effect one
// after the other, each at a moment between its beginning and its end.
var linear = porcupine.Model{
	Init: func() any { return model.Canonical(model.Nothing) },
	Step: func(before, input, output any) (bool, any) {
		state := before.(string)
		edits, ok := input.([]change)
		if !ok {
			return output.(string) == state, state
		}
		v := model.Nothing
		if state != "" {
			v = fromJSON([]byte(state))
		}
		for _, e := range edits {
			if len(e.path) > 0 && v == model.Nothing {
				v = map[string]any{}
			}
			now, err := model.Edit(v, e.path, e.value)
			if err != nil {
				return false, state
			}
			v = now
		}
		return true, model.Canonical(v)
	},
}

// patience bounds the search for an order.
const patience = 20 * time.Second

// linearizable checks writes and reads, each context by itself. Writes that were
// refused are no part of it; one whose outcome is not known, or that was journalled,
// may take effect at any time until something is known to be later, or never.
func linearizable(r *record, ops []*op, reads []read, p *problems) {
	for context, list := range histories(r, ops, reads) {
		switch porcupine.CheckOperationsTimeout(linear, list, patience) {
		case porcupine.Illegal:
			p.add("there is no order of the %d writes and reads of %s; %s", len(list), context, impossible(list, ops, context))
		case porcupine.Unknown:
			p.add("no order of the %d writes and reads of %s was found within %s", len(list), context, patience)
		case porcupine.Ok:
		}
	}
}

// histories are the operations of each context that was read.
func histories(r *record, ops []*op, reads []read) map[string][]porcupine.Operation {
	byContext := map[string][]porcupine.Operation{}
	for _, r := range reads {
		byContext[r.context] = append(byContext[r.context], porcupine.Operation{Call: int64(r.began), Return: int64(r.ended), Output: model.Canonical(r.value)})
	}
	known := horizon(ops)
	for _, o := range ops {
		list, wasRead := byContext[o.context]
		switch {
		case !wasRead || o.outcome == refused:
		case o.outcome == durable && !o.client:
			byContext[o.context] = append(list, porcupine.Operation{Call: int64(o.began), Return: int64(o.ended), Input: o.edits})
		default:
			byContext[o.context] = append(list, parts(r, o, known)...)
		}
	}
	return byContext
}

// parts are the writes that an operation may have made, each for itself: of several
// paths of a journalled one some may be made and some not. What is not in the record
// was not made.
func parts(r *record, o *op, known func(revision uint64) int64) (list []porcupine.Operation) {
	whole := map[*batch]int{} // where the changes are that one commit made
	for _, e := range o.edits {
		end := int64(math.MaxInt64)
		if e.value != model.Nothing {
			m := r.brings(o, e)
			if m == nil {
				continue
			}
			b := r.commits[m.ID]
			if at, ok := whole[b]; ok {
				list[at].Input = append(list[at].Input.([]change), e)
				continue
			}
			end, whole[b] = known(b.last()), len(list)
		}
		list = append(list, porcupine.Operation{Call: int64(o.began), Return: end, Input: []change{e}})
	}
	return list
}

// horizon says by when something at a revision had happened: when a later one was
// acknowledged.
func horizon(ops []*op) func(revision uint64) int64 {
	var list []*op
	for _, o := range ops {
		if o.outcome == durable && !o.client {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *op) int { return cmp.Compare(a.ack.Revision, b.ack.Revision) })
	ended := make([]int64, len(list)+1)
	ended[len(list)] = math.MaxInt64
	for i := len(list) - 1; i >= 0; i-- {
		ended[i] = min(ended[i+1], int64(list[i].ended))
	}
	return func(revision uint64) int64 {
		i, _ := slices.BinarySearchFunc(list, revision, func(o *op, revision uint64) int { return cmp.Compare(o.ack.Revision, revision) })
		return ended[i]
	}
}

// impossible says which read is the first that has no place, and what was written
// around it.
func impossible(list []porcupine.Operation, ops []*op, context string) string {
	var reads, writes []porcupine.Operation
	for _, o := range list {
		if o.Input == nil {
			reads = append(reads, o)
		} else {
			writes = append(writes, o)
		}
	}
	slices.SortFunc(reads, func(a, b porcupine.Operation) int { return int(a.Return - b.Return) })
	n := sort.Search(len(reads), func(n int) bool {
		return porcupine.CheckOperationsTimeout(linear, slices.Concat(writes, reads[:n]), patience) == porcupine.Illegal
	})
	if n == 0 || n > len(reads) {
		return "without any read" // a write that cannot be made
	}
	r := reads[n-1]
	var text strings.Builder
	fmt.Fprintf(&text, "the first impossible read took from %s to %s:\n    %s\n", time.Duration(r.Call), time.Duration(r.Return), r.Output)
	if n > 1 {
		fmt.Fprintf(&text, "the read before, until %s:\n    %s\n", time.Duration(reads[n-2].Return), reads[n-2].Output)
	}
	var near []*op
	for _, o := range ops {
		if o.context == context && o.outcome != refused && int64(o.began) < r.Return {
			near = append(near, o)
		}
	}
	for _, o := range near[max(0, len(near)-12):] {
		fmt.Fprintf(&text, "    %s\n", o)
	}
	return text.String()
}
