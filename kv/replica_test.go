package kv_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

var client = subjects.MustEncode("client")

// contexts is a provisioned realm's context bucket.
func contexts(t testing.TB) *kv.Bucket {
	t.Helper()
	h := start(t, server.Options{JetStream: true, MaxPayload: 8 << 20})
	if err := kv.Provision(within(t, time.Minute), h.conn(t), realm, 1); err != nil {
		t.Fatal(err)
	}
	return kv.Contexts(h.link(t), realm)
}

func canonical(t testing.TB, v *kv.Value) string {
	t.Helper()
	text, err := wire.Canonical(v.Payload())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func value(t testing.TB, json string) *kv.Value {
	t.Helper()
	v, err := kv.ParseValue(wire.Payload{Format: wire.JSON, Data: []byte(json)})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// fresh is what a reader has that comes now.
func fresh(t testing.TB, b *kv.Bucket) *kv.Tree {
	t.Helper()
	s, err := b.Snapshot(t.Context(), subjects.ContextKeys(client))
	if err != nil {
		t.Fatal(err)
	}
	tree := kv.NewTree(client)
	for _, e := range s.Entries {
		if bad := tree.Apply([]kv.Entry{e}, nil); len(bad) > 0 {
			t.Errorf("cannot read %+v", bad)
		}
	}
	return tree
}

// TestReplicaConverges feeds a replica what a real server republishes, in any
// order, twice, or not at all, lets compactions purge keys and markers expire,
// and wants it to be what a fresh reader has as soon as it has checked.
func TestReplicaConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		program := rapid.SliceOfN(rapid.IntRange(0, 1<<16), 10, 150).Draw(rt, "program")
		failure := ""
		bubble(t, func(t *testing.T) {
			b := contexts(t)
			s := newStory(t, b, program)
			for len(s.program) > 0 && !t.Failed() {
				s.turn()
			}
			failure = s.end()
		})
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

// story is one run of a replica, told by numbers.
type story struct {
	t       *testing.T
	bucket  *kv.Bucket
	program []int
	replica *kv.Replica
	tree    *kv.Tree
	flow    []kv.Entry // was republished and has not arrived
	ops     int
}

func newStory(t *testing.T, b *kv.Bucket, program []int) *story {
	s := &story{t: t, bucket: b, program: program, tree: kv.NewTree(client)}
	s.replica = kv.NewStillReplica(b, subjects.ContextKeys(client), true, func(u kv.Update) { s.tree.Apply(u.Entries, u.Removed) })
	if _, err := b.Follow(t.Context(), subjects.ContextKeys(client), func(e kv.Entry) { s.flow = append(s.flow, e) }, nil); err != nil {
		t.Fatal(err)
	}
	s.replica.Read(t.Context(), true)
	return s
}

// pick is the next number of the program, below n.
func (s *story) pick(n int) int {
	if len(s.program) == 0 {
		return 0
	}
	x := s.program[0]
	s.program = s.program[1:]
	return x % n
}

func (s *story) turn() {
	switch s.pick(13) {
	case 0, 1, 2, 3:
		s.edit()
	case 4:
		s.write(fresh(s.t, s.bucket).Compaction(2+s.pick(kv.MaxBatch), "@node"))
	case 5, 10, 11, 12:
		s.deliver(s.pick(4))
	case 6:
		s.replica.Read(s.t.Context(), s.pick(4) == 0)
	case 7:
		s.replica.Check(s.t.Context())
	case 8:
		time.Sleep(15 * time.Minute) // markers expire
	case 9:
		if tree := fresh(s.t, s.bucket); tree.Exists() && s.pick(4) == 0 {
			s.write(tree.Destruction("app@node"))
		}
	}
}

// edit is an operation of one to three paths, or of the whole object.
func (s *story) edit() {
	values := []string{"1", `"x"`, `{"a":{"b":1}}`, "{}", `[1,{"a":2}]`}
	tree := fresh(s.t, s.bucket)
	var edits []kv.Edit
	for range 1 + s.pick(3) {
		e := kv.Edit{By: "app@node"}
		for range 1 + s.pick(3) {
			e.Path = append(e.Path, string(rune('a'+s.pick(3))))
		}
		if i := s.pick(len(values) + 1); i < len(values) {
			e.Value = value(s.t, values[i])
		}
		edits = append(edits, e)
	}
	if s.pick(6) == 5 {
		edits = []kv.Edit{{Value: value(s.t, `{"b":{"c":7}}`)}}
	}
	plan := tree.Plan
	if s.pick(4) == 0 {
		plan = tree.Rewrite
	}
	writes, err := plan(edits)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(writes)
}

func (s *story) write(writes []kv.Write) {
	if len(writes) == 0 {
		return
	}
	s.ops++
	op := strconv.Itoa(s.ops)
	first, err := s.bucket.Commit(s.t.Context(), op, writes)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.pick(2) == 1 {
		entries := make([]kv.Entry, len(writes))
		for i := range writes {
			entries[i] = writes[i].Entry(op, first+uint64(i))
		}
		s.replica.Confirm(entries)
	}
}

// deliver gives the replica what was republished, more or less.
func (s *story) deliver(how int) {
	synctest.Wait()
	some := s.flow
	s.flow = nil
	switch how {
	case 0:
		slices.SortFunc(some, func(kv.Entry, kv.Entry) int { return s.pick(3) - 1 })
	case 1:
		some = slices.Concat(some, some)
	case 2:
		some = slices.DeleteFunc(some, func(kv.Entry) bool { return s.pick(3) == 0 })
	}
	for _, e := range some {
		s.replica.Feed(e)
	}
}

// end lets the replica find out what it missed, and says how it is wrong.
func (s *story) end() string {
	s.deliver(3)
	s.replica.Check(s.t.Context())
	s.replica.Read(s.t.Context(), false)
	for range 3 { // and now what shows in nothing that arrives
		s.edit()
	}
	synctest.Wait()
	s.flow = nil
	s.replica.Check(s.t.Context())
	s.replica.Read(s.t.Context(), false)
	want := fresh(s.t, s.bucket)
	if got, want := canonical(s.t, s.tree.View()), canonical(s.t, want.View()); got != want {
		return fmt.Sprintf("the replica has %s, a fresh reader %s", got, want)
	}
	if s.tree.Revision() != want.Revision() {
		return fmt.Sprintf("the replica is at %d, a fresh reader at %d", s.tree.Revision(), want.Revision())
	}
	if keys, purged := s.replica.Known(); keys+purged > 100 {
		return fmt.Sprintf("remembers %d keys and %d purged", keys, purged)
	}
	return ""
}

// TestReplicaFollows runs a replica by itself: batches are whole, and what is
// lost on its way is found.
func TestReplicaFollows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := contexts(t)
		var updates []kv.Update
		r := b.Replicate([]subjects.Key{subjects.ContextKeys(client)}, true, nil, func(u kv.Update) { updates = append(updates, u) })
		defer r.Close()
		<-r.Ready()
		if synced, err := r.State(); !synced || err != nil {
			t.Fatalf("synced %t, %v", synced, err)
		}
		var writes []kv.Write
		for i := range 5 {
			key, _ := subjects.ContextPath(client, []string{strconv.Itoa(i)})
			writes = append(writes, kv.Write{Key: key, Value: []byte{0x01}, By: "app@node"})
		}
		first, err := b.Commit(t.Context(), "op", writes)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(updates) != 2 || len(updates[1].Entries) != 5 || updates[1].Entries[0].Seq != first || updates[1].Entries[4].WriteID != "op" {
			t.Fatalf("got %+v", updates)
		}
		// The same again is known by its id, and so is what was overwritten.
		if again, err := b.Commit(t.Context(), "op", writes); again != first || err != nil {
			t.Errorf("the same batch again: %d, %v, want %d", again, err, first)
		}
		if got, ok, err := b.Committed(t.Context(), "op", writes, 0); got != first || !ok || err != nil {
			t.Errorf("got %d, %t, %v", got, ok, err)
		}
		if _, err := b.Commit(t.Context(), "op2", writes); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := b.Committed(t.Context(), "op", writes, 0); got != first || !ok || err != nil {
			t.Errorf("overwritten: got %d, %t, %v", got, ok, err)
		}
		if _, ok, err := b.Committed(t.Context(), "op3", writes, 0); ok || err != nil {
			t.Errorf("never made: %t, %v", ok, err)
		}
		one := writes[:1]
		seq, err := b.Commit(t.Context(), "one", one)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := b.Commit(t.Context(), "one", one); again != seq || err != nil {
			t.Errorf("one again: %d, %v; want %d", again, err, seq)
		}
	})
}

func TestCommitConditions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := contexts(t)
		a, _ := subjects.ContextPath(client, []string{"a"})
		c, _ := subjects.ContextPath(client, []string{"c"})
		none, one := uint64(0), uint64(1)
		if _, err := b.Commit(t.Context(), "1", []kv.Write{{Key: a, Value: []byte{1}, If: &none}, {Key: c, Value: []byte{1}}}); err != nil {
			t.Fatal(err)
		}
		for name, writes := range map[string][]kv.Write{
			"exists":         {{Key: a, Value: []byte{2}, If: &none}},
			"in a batch":     {{Key: c, Value: []byte{2}}, {Key: a, Value: []byte{2}, If: &none}},
			"other sequence": {{Key: c, Value: []byte{2}, If: &one}},
		} {
			if _, err := b.Commit(t.Context(), name, writes); wire.CodeOf(err) != wire.BadRevision || isUnknown(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := b.Commit(t.Context(), "2", []kv.Write{{Key: a, Value: []byte{2}, If: &one}}); err != nil {
			t.Error(err)
		}
		many := make([]kv.Write, kv.MaxBatch+1)
		if _, err := b.Commit(t.Context(), "3", many); wire.CodeOf(err) != wire.Limit {
			t.Errorf("too many: %v", err)
		}
		if _, err := b.Commit(t.Context(), "4", []kv.Write{{Key: a, Value: make([]byte, 8<<20)}}); wire.CodeOf(err) != wire.Limit {
			t.Errorf("too large: %v", err)
		}
	})
}

func isUnknown(err error) bool { return errors.Is(err, kv.ErrUnknown) }

// TestNothingShowsBeforeTheSnapshot: after a reconnect nothing that is republished shows
// before what was missed does, and nothing of it is lost.
func TestNothingShowsBeforeTheSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := contexts(t)
		tree := kv.NewTree(client)
		var states []string
		r := b.Replicate([]subjects.Key{subjects.ContextKeys(client)}, true, nil, func(u kv.Update) {
			tree.Apply(u.Entries, u.Removed)
			states = append(states, canonical(t, tree.View()))
		})
		defer r.Close()
		<-r.Ready()
		set := func(id, path, json string) {
			t.Helper()
			key := subjects.ContextRoot(client)
			if path != "" {
				key, _ = subjects.ContextPath(client, []string{path})
			}
			if _, err := b.Commit(t.Context(), id, []kv.Write{{Key: key, Value: value(t, json).Payload().Data}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		set("1", "", `{}`)
		r.Wake(false)
		seen := len(states)
		set("2", "a", `1`)
		set("3", "b", `1`)
		if len(states) != seen {
			t.Errorf("shown before the snapshot: %q", states[seen:])
		}
		r.Wake(true)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(states) == seen || states[seen] != `{"a":1,"b":1}` {
			t.Errorf("shown after the snapshot: %q", states[seen:])
		}
		set("4", "c", `1`)
		if got := states[len(states)-1]; got != `{"a":1,"b":1,"c":1}` {
			t.Errorf("in the end: %s", got)
		}
		r.Wake(false)
		for i := range 3000 { // more than wait
			set(fmt.Sprint("n", i), "n", strconv.Itoa(i))
		}
		r.Wake(true)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := states[len(states)-1]; got != `{"a":1,"b":1,"c":1,"n":2999}` {
			t.Errorf("after many: %s", got)
		}
	})
}

// TestWhatTheWriterKnew: a write whose writer knew of one that did not come is not shown
// before that, and the other replicas look at once what they have missed.
func TestWhatTheWriterKnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{JetStream: true, MaxPayload: 8 << 20})
		nc := h.conn(t)
		if err := kv.Provision(within(t, time.Minute), nc, realm, 1); err != nil {
			t.Fatal(err)
		}
		b := kv.Contexts(h.link(t), realm)
		tree := kv.NewTree(client)
		r := kv.NewStillReplica(b, subjects.ContextKeys(client), true, func(u kv.Update) { tree.Apply(u.Entries, u.Removed) })
		set := func(path, json string, seen uint64) kv.Entry {
			t.Helper()
			return putPath(t, b, client, path, json, seen)
		}
		shows := func(want string) {
			t.Helper()
			if got := canonical(t, tree.View()); got != want {
				t.Errorf("shows %s, want %s", got, want)
			}
		}
		set("", `{}`, 0)
		r.Read(t.Context(), true)
		var asked atomic.Int64
		sub, err := nc.Subscribe("$JS.API.DIRECT.GET.>", func(*nats.Msg) { asked.Add(1) })
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Unsubscribe()
		other := b.Replicate([]subjects.Key{subjects.ContextKeys(subjects.MustEncode("other"))}, true, nil, func(kv.Update) {})
		defer other.Close()
		<-other.Ready()
		time.Sleep(3 * time.Second)
		before := asked.Load()

		a := set("a", `1`, 1)
		r.Feed(set("b", `1`, a.Seq)) // a did not come
		shows(`{}`)
		r.Feed(set("c", `1`, 0)) // waits as well
		shows(`{}`)
		time.Sleep(time.Second)
		synctest.Wait()
		if asked.Load() == before {
			t.Error("the other replica has not looked what it has missed")
		}
		r.Read(t.Context(), false)
		shows(`{"a":1,"b":1,"c":1}`)
		gaps := r.Stats().Gaps
		d := set("d", `1`, 4)
		r.Feed(d)
		r.Feed(set("e", `1`, 1<<60)) // it cannot have seen that
		shows(`{"a":1,"b":1,"c":1,"d":1,"e":1}`)
		if got := r.Stats().Gaps; got != gaps {
			t.Errorf("%d gaps, want %d", got, gaps)
		}
	})
}
