//go:build unix

package faults_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-fabric/weft/test/model"
)

// observer is who sees a context over time: the watch of a Go app, over restarts of
// its node, or the subscription of a client.
type observer struct {
	who, desk, context string
	writers            int                  // apps that write three keys as one
	since              func() time.Duration // the time

	mu       sync.Mutex
	value    any
	events   int
	revision uint64
	seen     []sight
	leaves   []leaf
	paths    map[string]int32
	names    []string
	torn     []torn
	problems problems // what shows at once
}

// torn is a state in which a batch is not whole, and whose writes are in it.
type torn struct {
	text string
	ops  []int
}

// sight is one state that was seen.
type sight struct {
	at        time.Duration
	hash      uint64
	confirmed bool
	revision  uint64
	value     any
}

// leaf is a value that was new at a path.
type leaf struct{ path, op int32 }

func newObserver(who, desk, context string, writers int, since func() time.Duration) *observer {
	return &observer{who: who, desk: desk, context: context, writers: writers, since: since, value: model.Nothing, paths: map[string]int32{}}
}

// see takes what was seen. confirmed says that nothing pending is in it, and that the
// node says that it knows the newest; a client is told neither, nor the revision.
func (o *observer) see(v any, confirmed bool, revision uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events++
	before := map[string]int{}
	note := func(known map[string]int, add bool) func(string, bool, int) {
		return func(path string, fixed bool, op int) {
			if !fixed {
				return
			}
			if !add {
				known[path] = op
				return
			}
			if old, ok := known[path]; ok && old == op {
				return
			}
			id, ok := o.paths[path]
			if !ok {
				id = int32(len(o.names))
				o.paths[path] = id
				o.names = append(o.names, path)
			}
			o.leaves = append(o.leaves, leaf{id, int32(op)})
		}
	}
	model.Leaves(o.value, "", note(before, false))
	model.Leaves(v, "", note(before, true))
	o.value = v
	if revision > 0 {
		if revision < o.revision {
			o.problems.add("%s: the revision was %d and is %d", o, o.revision, revision)
		}
		o.revision = max(o.revision, revision)
	}
	o.seen = append(o.seen, sight{o.since(), hashOf(model.Canonical(v)), confirmed, revision, v})
	for w := range o.writers {
		paths := triple(w)
		a, b, c := model.At(v, paths[0]), model.At(v, paths[1]), model.At(v, paths[2])
		if a != b || b != c {
			o.torn = append(o.torn, torn{fmt.Sprintf("%s: a batch is not whole: %s, %s, %s", o, model.Short(a), model.Short(b), model.Short(c)), tags([]any{a, b, c})})
		}
	}
}

func (o *observer) String() string {
	return fmt.Sprintf("%s of %s, event %d", o.who, o.context, o.events)
}

// triple are the paths that a writer writes together, and nobody else does.
func triple(w int) [3][]string {
	n := fmt.Sprint(w)
	return [3][]string{{"t" + n}, {"u", n}, {"v", "w", n}}
}

// last is what was seen last.
func (o *observer) last() any {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.value
}

// judge holds what was seen against the record.
func (o *observer) judge(r *record, ops map[int]*op, losses []loss, p *problems) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, text := range o.problems.list {
		p.add("%s", text)
	}
	for _, x := range o.torn {
		if !slices.ContainsFunc(x.ops, func(id int) bool { return ops[id] != nil && ops[id].apart() }) {
			p.add("%s", x.text)
		}
	}
	o.inOrder(r, ops, p)
	o.isPath(r, losses, p)
}

// loss is a time in which servers may have lost what they repeat to nodes.
type loss struct{ from, to time.Duration }

// noticedWithin is how long after a loss a node may still not know what it has missed,
// if only its server was cut off from the others: nothing shows that, so it asks
// every 10 s.
const noticedWithin = 15 * time.Second

// isPath checks that the confirmed states are folds of prefixes of the one order,
// never of a shorter one after a longer one. A state that lacks something is counted
// as a hole if something was lost not long before, and else a violation.
func (o *observer) isPath(r *record, losses []loss, p *problems) {
	prefixes := r.prefixes[o.context]
	at := 0
	for i, s := range o.seen {
		if !s.confirmed {
			continue
		}
		n := slices.IndexFunc(prefixes[at:], func(x prefix) bool { return x.hash == s.hash })
		if n >= 0 {
			at += n
			continue
		}
		if slices.ContainsFunc(losses, func(l loss) bool { return l.from < s.at && s.at < l.to+noticedWithin }) {
			r.holes++
			continue
		}
		what := "is no prefix of the order"
		if j := slices.IndexFunc(prefixes[:at], func(x prefix) bool { return x.hash == s.hash }); j >= 0 {
			what = fmt.Sprintf("is that of %d, after %d", prefixes[j].seq, prefixes[at].seq)
		}
		p.add("%s of %s: state %d of %d, after %s, at revision %d, %s: %s; %s", o.who, o.context, i+1, len(o.seen), s.at.Round(time.Millisecond), s.revision, what, r.unlike(o.context, s), r.around(o.context, s.revision))
		return
	}
}

// unlike says how a state differs from the prefix of its revision.
func (r *record) unlike(context string, s sight) string {
	var want any = model.Nothing
	h := &model.History{}
	for _, m := range r.histories[context].All {
		if m.Relevant() && m.Seq <= s.revision {
			h.Add(m)
			want = h.Now().Shown()
		}
	}
	var lines []string
	for _, path := range model.Differences(want, s.value, nil, 3) {
		lines = append(lines, fmt.Sprintf("%q is %s, not %s; %s", path, model.Short(model.At(s.value, path)), model.Short(model.At(want, path)), r.explain(context, path)))
	}
	return strings.Join(lines, ", ")
}

// around lists the commits near a sequence.
func (r *record) around(context string, seq uint64) string {
	var list []*model.Message
	for _, m := range r.histories[context].All {
		if !m.Meta && m.Seq+40 > seq && m.Seq < seq+20 {
			list = append(list, m)
		}
	}
	return "at\n" + model.Lines(list[max(0, len(list)-12):])
}

// inOrder checks that at no path something older was seen after something newer, and
// nothing that was never written, unless it was pending on the observer's own node.
func (o *observer) inOrder(r *record, ops map[int]*op, p *problems) {
	type newest struct {
		model.Place
		op int32
	}
	newestAt := map[int32]newest{}
	for _, l := range o.leaves {
		w := ops[int(l.op)]
		if w == nil {
			p.add("%s of %s has seen a write that nobody made: %d", o.who, o.context, l.op)
			continue
		}
		places := places(r.bringing(w.id, strings.Split(o.names[l.path], "/")[1:]))
		if len(places) == 0 {
			if w.desk != o.desk {
				p.add("%s of %s has seen %s which was never made", o.who, o.context, w)
			}
			continue
		}
		old := newestAt[l.path]
		i := slices.IndexFunc(places, func(q model.Place) bool { return !q.Before(old.Place) })
		if i < 0 {
			p.add("%s of %s has seen at %s, after %s with place %d, %s with place %d", o.who, o.context, o.names[l.path], ops[int(old.op)], old.Place, w, places[0])
			continue
		}
		newestAt[l.path] = newest{places[i], l.op}
	}
}

// places are where messages stand, the first one first.
func places(list []*model.Message) (places []model.Place) {
	for _, m := range list {
		places = append(places, m.Place())
	}
	slices.SortFunc(places, func(a, b model.Place) int {
		if a.Before(b) {
			return -1
		}
		if b.Before(a) {
			return 1
		}
		return 0
	})
	return places
}

// view is what somebody has of every context.
type view struct {
	who    string
	hashes map[string]uint64 // by context
}

// diverged compares views with the fold of the record.
func diverged(r *record, contexts []string, views []view, p *problems) {
	for _, name := range contexts {
		list := r.prefixes[name]
		want := list[len(list)-1].hash
		for _, v := range views {
			if got, ok := v.hashes[name]; ok && got != want {
				p.add("%s has another %s than the writes make", v.who, name)
			}
		}
	}
}
