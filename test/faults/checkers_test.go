//go:build unix

package faults_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/test/model"
)

// what is one context, "c", and what a test says of it.
const what = "c"

// story is a record and what apps were told, for a checker to judge.
type story struct {
	messages []*model.Message
	ops      []*op
	notices  []notice
	reads    []read
	clock    time.Duration
}

func (s *story) now() time.Duration {
	s.clock += time.Millisecond
	return s.clock
}

// commit adds a batch to the record, by a desk, and says its revision. A value nil
// deletes.
func (s *story) commit(desk string, edits ...change) uint64 {
	id := fmt.Sprint("id-", len(s.messages))
	for i, e := range edits {
		m := &model.Message{
			Seq: uint64(len(s.messages) + 1), Context: subjects.MustEncode(what).String(), Path: e.path, Value: e.value, ID: id, By: "app@" + desk,
			Key: strings.Join(append([]string{what}, e.path...), "."), End: i == len(edits)-1,
		}
		if e.value == model.Nothing {
			m.Op, m.Value = model.OpDelete, nil
		}
		s.messages = append(s.messages, m)
	}
	return uint64(len(s.messages))
}

// told adds an operation that took no time.
func (s *story) told(desk string, outcome outcome, ack ack, edits ...change) *op {
	o := &op{id: len(s.ops) + 1, desk: desk, app: desk + "-0", context: what, kind: "paths", edits: edits, began: s.now(), ended: s.now(), outcome: outcome, ack: ack}
	s.ops = append(s.ops, o)
	return o
}

// value is what the next operation writes at a path.
func (s *story) value(path ...string) change { return change{path, model.Tag(len(s.ops) + 1)} }

// write is a durable write, as it ought to be.
func (s *story) write(desk string, paths ...string) *op {
	var edits []change
	for _, path := range paths {
		edits = append(edits, s.value(strings.Split(path, "/")...))
	}
	return s.told(desk, durable, ack{Revision: s.commit(desk, edits...)}, edits...)
}

// create is the first write of a story: the object.
func (s *story) create() *story {
	e := change{nil, map[string]any{"whole": model.Tag(1)}}
	s.told("a", durable, ack{Revision: s.commit("a", e)}, e)
	return s
}

// read is an authoritative read of what is there now.
func (s *story) read(v any) { s.reads = append(s.reads, read{what, s.now(), s.now(), v}) }

func (s *story) record(p *problems) *record {
	r := newRecord([]string{what})
	for _, m := range s.messages {
		r.feed(m, p)
	}
	return r
}

// state is the object after the first n messages.
func (s *story) state(n int) any {
	h := &model.History{}
	for _, m := range s.messages[:n] {
		h.Add(m)
	}
	return h.Now().Shown()
}

// judged runs a checker, which must find what is given, or nothing.
func judged(t *testing.T, s *story, want string, check func(r *record, p *problems)) {
	t.Helper()
	var p problems
	check(s.record(&p), &p)
	switch {
	case want == "" && p.n > 0:
		t.Errorf("a sound history: %s", p.list[0])
	case want != "" && p.n == 0:
		t.Errorf("passes, want %q", want)
	case want != "" && !strings.Contains(p.list[0], want):
		t.Errorf("got %q, want %q", p.list[0], want)
	}
}

// of is the notice that a write at k1 was not made.
func of(id string) notice {
	return notice{ID: id, Context: what, Edits: []edit{{Path: []string{"k1"}}}, desk: "a"}
}

func TestAudit(t *testing.T) {
	tests := []struct {
		name, want string
		make       func(s *story)
	}{
		{"sound", "", func(s *story) {
			s.write("a", "k1")
			s.write("b", "k1/x", "k2")
			s.told("a", refused, ack{}, s.value("k3"))
			s.told("a", unknown, ack{}, s.value("k4"))
			s.told("b", durable, ack{Revision: s.commit("b", change{[]string{"k1"}, model.Nothing})}, change{[]string{"k1"}, model.Nothing})
		}},
		{"two operations in one commit", "", func(s *story) {
			first := s.value("k1")
			second := change{[]string{"k1"}, model.Tag(3)}
			revision := s.commit("a", second)
			s.told("a", durable, ack{Revision: revision}, first)
			s.told("a", durable, ack{Revision: revision}, second)
		}},
		{"a removal of nothing", "", func(s *story) {
			s.told("a", durable, ack{Revision: 1}, change{[]string{"none"}, model.Nothing})
		}},
		{"a write of a client", "", func(s *story) { s.write("a", "k1").client = true }},
		{"an unknown one that was made", "", func(s *story) {
			e := s.value("k1")
			s.commit("a", e)
			s.told("a", unknown, ack{}, e)
		}},
		{"a lost one", "not the end of a commit", func(s *story) {
			s.told("a", durable, ack{Revision: 7}, s.value("k1"))
		}},
		{"another value", "was acknowledged, and then", func(s *story) {
			e := s.value("k1")
			s.told("a", durable, ack{Revision: s.commit("a", change{e.path, "something else"})}, e)
		}},
		{"a half", "was acknowledged, and then [k2]", func(s *story) {
			one, two := s.value("k1"), s.value("k2")
			s.told("a", durable, ack{Revision: s.commit("a", one)}, one, two)
		}},
		{"a removal that was not made", "was acknowledged, and then", func(s *story) {
			s.write("b", "k1")
			s.told("a", durable, ack{Revision: s.commit("a", change{[]string{"k1"}, "still here"})}, change{[]string{"k1"}, model.Nothing})
		}},
		{"a lost one of a client", "was never written", func(s *story) {
			s.told("a", durable, ack{}, s.value("k1")).client = true
		}},
		{"a refused one that was made", "was refused and made", func(s *story) {
			e := s.value("k1")
			s.commit("a", e)
			s.told("a", refused, ack{}, e)
		}},
		{"twice", "was made twice", func(s *story) {
			e := s.value("k1")
			s.commit("a", e)
			s.write("b", "k2")
			e.value = model.Tag(3)
			s.commit("a", e)
			s.told("a", durable, ack{Revision: s.commit("a", e)}, e)
		}},
		{"by nobody", "nobody made write 99", func(s *story) {
			s.commit("a", change{[]string{"k1"}, model.Tag(99)})
		}},
		{"a batch without an end", "a batch without an end", func(s *story) {
			s.commit("a", change{[]string{"k1"}, "x"}, change{[]string{"k2"}, "y"})
			s.messages = s.messages[:len(s.messages)-1]
			s.commit("b", change{[]string{"k1"}, "z"})
		}},

		{"journalled and applied", "", func(s *story) {
			e := s.value("k1")
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, e)
			s.commit("a", e)
		}},
		{"journalled and overwritten", "", func(s *story) {
			s.write("b", "k1")
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, s.value("k1"))
			s.notices = []notice{of("j1")}
		}},
		{"journalled, one path made and one overwritten", "", func(s *story) {
			s.write("b", "k1")
			one, two := s.value("k1"), s.value("k2")
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, one, two)
			s.commit("a", two)
			s.notices = []notice{of("j1")}
		}},
		{"journalled, one path overwritten and one gone", "there is no notice", func(s *story) {
			s.write("b", "k1")
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, s.value("k1"), s.value("k2"))
			s.notices = []notice{of("j1")}
		}},
		{"a write of a client, journalled and overwritten", "", func(s *story) {
			e := s.value("k1")
			s.told("a", durable, ack{}, e).client = true
			s.notices = []notice{{"j1", what, []edit{{e.path, []byte(`"o2."`)}}, "a"}}
		}},
		{"journalled and superseded by the next", "", func(s *story) {
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, s.value("k1"))
			e := s.value("k1")
			s.told("a", journalled, ack{Journalled: true, ID: "j2"}, e)
			s.commit("a", e)
		}},
		{"journalled removal", "", func(s *story) {
			s.write("b", "k1")
			e := change{[]string{"k1"}, model.Nothing}
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, e)
			s.commit("a", e)
			s.write("b", "k1")
		}},
		{"journalled and gone", "there is no notice", func(s *story) {
			s.write("b", "k1")
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, s.value("k1"))
		}},
		{"journalled, with the notice of another", "there is no notice", func(s *story) {
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, s.value("k1"))
			s.told("b", journalled, ack{Journalled: true, ID: "j2"}, s.value("k1"))
			s.notices = []notice{of("j2")}
		}},
		{"journalled, and another node wrote later", "there is no notice", func(s *story) {
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, s.value("k1"))
			s.write("b", "k1")
		}},
		{"journalled removal that was forgotten", "there is no notice", func(s *story) {
			s.write("b", "k1")
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, change{[]string{"k1"}, model.Nothing})
		}},
		{"two notices", "two notices for one write", func(s *story) {
			s.told("a", journalled, ack{Journalled: true, ID: "j1"}, s.value("k1"))
			s.notices = []notice{of("j1"), of("j1")}
		}},
		{"a removal that nobody was told of, with its notice", "", func(s *story) {
			s.write("b", "k1")
			s.told("a", unknown, ack{}, change{[]string{"k1"}, model.Nothing})
			s.notices = []notice{of("j1")}
		}},
		{"a notice of another node's removal", "a notice for a write that nobody was told of", func(s *story) {
			s.write("a", "k1")
			s.told("b", unknown, ack{}, change{[]string{"k1"}, model.Nothing})
			s.notices = []notice{of("j1")}
		}},
		{"a notice of a removal that was refused", "a notice for a write that nobody was told of", func(s *story) {
			s.write("b", "k1")
			s.told("a", refused, ack{}, change{[]string{"k1"}, model.Nothing})
			s.notices = []notice{of("j1")}
		}},
		{"a notice for nobody", "a notice for a write that nobody was told of", func(s *story) {
			s.notices = []notice{of("j9")}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := (&story{}).create()
			tt.make(s)
			judged(t, s, tt.want, func(r *record, p *problems) { audit(r, s.ops, s.notices, p) })
		})
	}
}

func TestRemoteWins(t *testing.T) {
	for name, tt := range map[string]struct {
		want string
		make func(s *story, mine *op)
	}{
		"nobody else": {"", func(s *story, mine *op) { s.commit("a", mine.edits...) }},
		"another path": {"", func(s *story, mine *op) {
			s.write("b", "k2")
			s.commit("a", mine.edits...)
		}},
		"the same node": {"", func(s *story, mine *op) {
			s.write("a", "k1")
			s.commit("a", mine.edits...)
		}},
		"below what slipped in": {"", func(s *story, mine *op) {
			s.write("b", "k1")
			s.commit("a", mine.edits...)
			s.messages[len(s.messages)-1].AsOf = 1
		}},
		"on top": {"and then put on top of", func(s *story, mine *op) {
			s.write("b", "k1/x")
			s.commit("a", mine.edits...)
		}},
		"on top, as of later": {"and then put on top of", func(s *story, mine *op) {
			s.write("b", "k1")
			s.write("b", "k2")
			s.commit("a", mine.edits...)
			s.messages[len(s.messages)-1].AsOf = 3
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := (&story{}).create()
			tt.make(s, s.told("a", journalled, ack{Journalled: true, ID: "j1"}, s.value("k1")))
			judged(t, s, tt.want, func(r *record, p *problems) { remoteWins(r, s.ops, p) })
		})
	}
}

func TestRealTime(t *testing.T) {
	for name, tt := range map[string]struct {
		want string
		make func(s *story)
	}{
		"sound": {"", func(s *story) {
			s.write("a", "k1")
			s.write("b", "k1")
		}},
		"at the same time": {"", func(s *story) {
			late := s.write("a", "k1")
			early := s.write("b", "k1")
			late.ack, early.ack = early.ack, late.ack
			late.ended = early.ended
		}},
		"the later one is older": {"was acknowledged", func(s *story) {
			late := s.write("a", "k1")
			early := s.write("b", "k1")
			late.ack, early.ack = early.ack, late.ack
		}},
		"the same revision": {"was acknowledged", func(s *story) {
			s.write("b", "k1").ack = s.write("a", "k1").ack
		}},
	} {
		s := (&story{}).create()
		tt.make(s)
		t.Log(name)
		judged(t, s, tt.want, func(_ *record, p *problems) { realTime(s.ops, p) })
	}
}

func TestLinearizable(t *testing.T) {
	const none = "there is no order"
	object := func(v map[string]any) map[string]any {
		v["whole"] = model.Tag(1)
		return v
	}
	for name, tt := range map[string]struct {
		want string
		make func(s *story)
	}{
		"sound": {"", func(s *story) {
			s.write("a", "k1")
			s.read(object(map[string]any{"k1": "o2."}))
			s.write("b", "k2")
			s.read(object(map[string]any{"k1": "o2.", "k2": "o3."}))
		}},
		"two keys at the same time": {"", func(s *story) {
			a, b := s.write("a", "k1"), s.write("b", "k2")
			a.ended = b.ended
			s.read(object(map[string]any{"k1": "o2.", "k2": "o3."}))
		}},
		"a refused one does not show": {"", func(s *story) {
			s.told("a", refused, ack{}, s.value("k1"))
			s.read(object(map[string]any{}))
		}},
		"an unknown one that shows late": {"", func(s *story) {
			e := s.value("k1")
			s.told("a", unknown, ack{}, e)
			s.read(object(map[string]any{}))
			s.commit("a", e)
			s.read(object(map[string]any{"k1": "o2."}))
		}},
		"an unknown one that never shows": {"", func(s *story) {
			s.told("a", unknown, ack{}, s.value("k1"))
			s.read(object(map[string]any{}))
		}},
		"a journalled one that shows late": {"", func(s *story) {
			e := s.value("k1")
			s.told("a", journalled, ack{Journalled: true}, e)
			s.read(object(map[string]any{}))
			s.commit("a", e)
			s.read(object(map[string]any{"k1": "o2."}))
		}},
		"a stale read": {none, func(s *story) {
			s.write("a", "k1")
			s.read(object(map[string]any{}))
		}},
		"a lost key": {none, func(s *story) { // read, change and write back, twice at a time
			a, b := s.write("a", "k1"), s.write("b", "k2")
			a.ended = b.ended
			s.read(object(map[string]any{"k2": "o3."}))
		}},
		"back again": {none, func(s *story) {
			s.write("a", "k1")
			s.write("b", "k1")
			s.read(object(map[string]any{"k1": "o3."}))
			s.read(object(map[string]any{"k1": "o2."}))
		}},
		"half of a journalled one": {"", func(s *story) {
			one, two := s.value("k1"), s.value("k2")
			s.told("a", journalled, ack{Journalled: true}, one, two)
			s.commit("a", two)
			s.read(object(map[string]any{"k2": "o2."}))
		}},
		"an unknown one that shows and is not in the record": {none, func(s *story) {
			s.told("a", unknown, ack{}, s.value("k1"))
			s.read(object(map[string]any{"k1": "o2."}))
		}},
		"an unknown one that shows too late": {none, func(s *story) {
			e := s.value("k1")
			s.told("a", unknown, ack{}, e)
			s.commit("a", e)
			s.write("b", "k2")
			s.read(object(map[string]any{"k2": "o3."}))
			s.read(object(map[string]any{"k1": "o2.", "k2": "o3."}))
		}},
		"an unknown one that shows and goes": {none, func(s *story) {
			e := s.value("k1")
			s.commit("a", e)
			s.told("a", unknown, ack{}, e)
			s.read(object(map[string]any{"k1": "o2."}))
			s.read(object(map[string]any{}))
		}},
		"from nowhere": {none, func(s *story) {
			s.read(object(map[string]any{"k1": "o9."}))
		}},
		"a refused one shows": {none, func(s *story) {
			s.told("a", refused, ack{}, s.value("k1"))
			s.read(object(map[string]any{"k1": "o2."}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := (&story{}).create()
			tt.make(s)
			judged(t, s, tt.want, func(r *record, p *problems) { linearizable(r, s.ops, s.reads, p) })
		})
	}
}

// TestObservers: the record is o1 whole, o2 k1, o3 k1 and k2 in one commit, o4 k1.
func TestObservers(t *testing.T) {
	made := (&story{}).create()
	made.write("a", "k1")
	made.write("b", "k1", "k2")
	made.write("a", "k1")
	made.told("a", unknown, ack{}, made.value("k1")) // 5 was never made
	states := []any{model.Nothing, made.state(1), made.state(2), made.state(4), made.state(5)}
	with := func(state any, k1 string) any { return model.Put(state, []string{"k1"}, k1) }
	tests := []struct {
		name, want, desk string
		losses           []loss
		see              func(o *observer)
	}{
		{name: "sound", see: func(o *observer) {
			for i, n := range []uint64{0, 1, 2, 4, 5} {
				o.see(states[i], true, n)
			}
		}},
		{name: "some left out", see: func(o *observer) {
			o.see(states[1], true, 1)
			o.see(states[4], true, 5)
		}},
		{name: "pending on top", desk: "a", see: func(o *observer) {
			o.see(states[1], true, 1)
			o.see(with(states[1], "o4."), false, 1) // before its place
			o.see(with(states[3], "o4."), false, 4)
			o.see(states[4], true, 5)
			o.see(with(states[4], "o5."), false, 5)
			o.see(states[4], true, 5)
		}},
		{name: "own write of a client again", desk: "a", want: "after write 3", see: func(o *observer) {
			o.see(states[3], false, 0)
			o.see(with(states[3], "o2."), false, 0)
			o.see(states[3], false, 0)
		}},
		{name: "the own one first", desk: "a", want: "is no prefix of the order", see: func(o *observer) {
			o.see(states[2], true, 2)
			o.see(with(states[2], "o4."), true, 5)
			o.see(states[4], true, 5)
		}},
		{name: "a hole after a loss", losses: []loss{{0, time.Second}}, see: func(o *observer) {
			o.see(states[1], true, 1)
			o.see(with(states[1], "o4."), true, 5)
			o.see(states[4], true, 5)
		}},

		{name: "back", want: "is that of 1, after 2", see: func(o *observer) {
			o.see(states[2], true, 2)
			o.see(states[1], true, 2)
		}},
		{name: "the revision goes back", want: "the revision was 4 and is 2", see: func(o *observer) {
			o.see(states[3], true, 4)
			o.see(states[3], true, 2)
		}},
		{name: "a part of a commit", want: "is no prefix", see: func(o *observer) {
			o.see(with(states[2], "o3."), true, 3)
		}},
		{name: "a hole", want: "is no prefix", see: func(o *observer) {
			o.see(with(states[1], "o4."), true, 5)
		}},
		{name: "a hole long after a loss", want: "is no prefix", losses: []loss{{-time.Hour, -noticedWithin}}, see: func(o *observer) {
			o.see(with(states[1], "o4."), true, 5)
		}},
		{name: "a phantom", want: "is no prefix", see: func(o *observer) {
			o.see(with(states[1], "something"), true, 1)
		}},
		{name: "older after newer", want: "after write 4", see: func(o *observer) {
			o.see(states[4], false, 0)
			o.see(with(states[4], "o2."), false, 0)
		}},
		{name: "older after newer, own node", desk: "a", want: "after write 4", see: func(o *observer) {
			o.see(states[4], false, 5)
			o.see(with(states[4], "o2."), false, 5)
		}},
		{name: "what was never made, of another node", desk: "b", want: "which was never made", see: func(o *observer) {
			o.see(with(states[1], "o5."), false, 1)
		}},
		{name: "what nobody wrote", want: "that nobody made: 77", see: func(o *observer) {
			o.see(with(states[1], "o77."), false, 1)
		}},
		{name: "a batch that is not whole", want: "is not whole", see: func(o *observer) {
			o.see(map[string]any{"whole": "o1.", "t0": "o1."}, false, 1)
		}},
		{name: "one that was merged by path", desk: "a", see: func(o *observer) {
			o.see(map[string]any{"whole": "o1.", "t0": "o5."}, false, 1)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newObserver("a watch", tt.desk, what, 1, func() time.Duration { return time.Millisecond })
			tt.see(o)
			byID := map[int]*op{}
			for _, w := range made.ops {
				byID[w.id] = w
			}
			judged(t, made, tt.want, func(r *record, p *problems) { o.judge(r, byID, tt.losses, p) })
		})
	}
}

func TestDiverged(t *testing.T) {
	s := (&story{}).create()
	s.write("a", "k1")
	hash := func(v any) view { return view{"a node", map[string]uint64{what: hashOf(model.Canonical(v))}} }
	for want, views := range map[string][]view{
		"":                                {hash(s.state(2)), hash(map[string]any{"k1": "o2.", "whole": "o1."})},
		"a node has another c":            {hash(s.state(2)), hash(s.state(1))},
		"a node has another c than the w": {hash(model.Nothing)},
	} {
		judged(t, s, want, func(r *record, p *problems) { diverged(r, []string{what}, views, p) })
	}
}
