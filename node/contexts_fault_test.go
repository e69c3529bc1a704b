package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/wire"
)

func set(t *testing.T, a *node.App, name string, v object) uint64 {
	t.Helper()
	ack, err := a.Contexts().Set(t.Context(), name, v)
	if err != nil {
		t.Fatalf("set %s: %v", name, err)
	}
	return ack.Revision
}

// update and watch are about context x.
func update(t *testing.T, a *node.App, v object) uint64 {
	t.Helper()
	ack, err := a.Contexts().Update(t.Context(), "x", v)
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	return ack.Revision
}

func watch(t *testing.T, a *node.App) *node.ContextWatch {
	t.Helper()
	w, err := a.Contexts().Watch(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// seen is what waits for the reader of a watch: kinds and changes.
func seen(t *testing.T, w *node.ContextWatch) []string {
	t.Helper()
	synctest.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var got []string
	for e := range w.Events(ctx) {
		s := e.Kind.String()
		for _, c := range e.Changes {
			s += " " + strings.Join(c.Path, ".") + "=" + c.Value.String()
		}
		got = append(got, s)
	}
	return got
}

func wantSeen(t *testing.T, w *node.ContextWatch, want ...string) {
	t.Helper()
	if got := seen(t, w); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}

// missing makes the node of a line miss the next writes of contexts that are republished.
func missing(l *line, lose int) {
	l.Drop(func(subject string) bool {
		if lose == 0 || !strings.HasPrefix(subject, "weft.desk.kv.ctx.") {
			return false
		}
		lose--
		return true
	})
}

func wantCode(t *testing.T, err error, want wire.Code) {
	t.Helper()
	if wire.CodeOf(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// eventually waits in fake time.
func eventually(t *testing.T, within time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		synctest.Wait()
		if f() {
			return
		}
		if time.Now().After(end) {
			t.Errorf("not within %s: %s", within, what)
			return
		}
	}
}

func TestContextOffline(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		set(t, ann, "x", object{"a": 1})
		wantContext(t, `{"a":1}`, "x", bob)
		w := watch(t, bob)
		defer w.Close()
		wantSeen(t, w, "snapshot")
		h.line("b").Cut()
		eventually(t, time.Second, "bob is told", func() bool { return b.State().Online == false })
		wantSeen(t, w, "offline")
		since := time.Now()
		time.Sleep(time.Minute)
		s, err := bob.Contexts().Get(t.Context(), "x")
		if err != nil || s.Value().String() != `{"a":1}` || s.Since.IsZero() || s.Since.After(since) {
			t.Errorf("got %+v, %v", s, err)
		}
		_, err = bob.Contexts().Set(t.Context(), "x", object{"b": 1})
		wantCode(t, err, wire.Offline)
		_, err = bob.Contexts().Get(t.Context(), "y")
		wantCode(t, err, wire.Offline)
		wantSeen(t, w) // what was refused was not shown
		update(t, ann, object{"a": 2})
		h.line("b").Heal()
		eventually(t, 20*time.Second, "bob is back", func() bool {
			s, err := bob.Contexts().Get(t.Context(), "x")
			return err == nil && s.Since.IsZero()
		})
		wantSeen(t, w, "changed a=2")
		update(t, bob, object{"a": 3})
		wantContext(t, `{"a":3}`, "x", ann, bob)
	})
}

// TestContextAckLost loses acknowledgements: the write is found, and made once.
func TestContextAckLost(t *testing.T) {
	for name, v := range map[string]object{"one": {"a": 1}, "batch": {"a": 1, "b": 2}} {
		t.Run(name, func(t *testing.T) {
			inHub(t, func(t *testing.T, h *hub) {
				a, b := h.node("a"), h.node("b")
				defer a.Stop()
				defer b.Stop()
				ann, bob := join(t, a, "ann"), join(t, b, "bob")
				set(t, ann, "x", object{})
				for _, republished := range []bool{true, false} {
					until := time.Now().Add(4 * time.Second)
					h.line("a").Drop(func(subject string) bool {
						return time.Now().Before(until) && (strings.HasPrefix(subject, "_R.") || !republished && strings.HasPrefix(subject, "weft.desk.kv.ctx."))
					})
					w := watch(t, bob)
					wantSeen(t, w, "snapshot")
					rev := update(t, ann, v)
					if n := len(seen(t, w)); n != 1 && n != 0 {
						t.Errorf("bob saw %d changes", n)
					}
					w.Close()
					if s, err := bob.Contexts().Get(t.Context(), "x"); err != nil || s.Revision != rev || s.By.App != ann.ID() {
						t.Errorf("acknowledged as %d; bob has %+v, %v", rev, s, err)
					}
					for key := range v {
						v[key] = 3
					}
				}
				if n := a.Stats().Contexts; n.Retried == 0 || n.Refused != 0 {
					t.Errorf("stats %+v", n)
				}
			})
		})
	}
}

// TestContextConditionalAfterLoss: a conditional write is refused if its app has read the
// context without a write that is older than the revision which it names, also if the node
// has found that out since. Who has read it since may write.
func TestContextConditionalAfterLoss(t *testing.T) {
	tests := map[string]struct {
		pass    time.Duration
		watches bool // instead of getting
	}{
		"found by the write":             {},
		"found by the write, by a watch": {watches: true},
		"found before it":                {pass: 12 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inHub(t, func(t *testing.T, h *hub) {
				a, b := h.node("a"), h.node("b")
				defer a.Stop()
				defer b.Stop()
				ann, bob := join(t, a, "ann"), join(t, b, "bob")
				set(t, ann, "x", object{"n": 0})
				w := watch(t, bob)
				defer w.Close()
				var last node.ContextState
				read := func() (n string) {
					t.Helper()
					if test.watches {
						synctest.Wait()
						for e, ok := w.Poll(); ok; e, ok = w.Poll() {
							last = e.State
						}
					} else {
						var err error
						if last, err = bob.Contexts().Get(t.Context(), "x"); err != nil {
							t.Error(err)
						}
					}
					return last.At("n").String()
				}
				read()
				time.Sleep(63 * time.Second) // between two regular checks
				missing(h.line("b"), 1)
				update(t, ann, object{"n": 1})
				other := update(t, bob, object{"other": 1})
				raise := func(to int) error {
					_, err := bob.Contexts().SetPath(t.Context(), "x", []string{"n"}, to, node.IfRevision(other))
					return err
				}
				if n := read(); n != "0" {
					t.Fatalf("it was not lost: %s", n)
				}
				time.Sleep(test.pass)
				if err := raise(1); !errors.Is(err, wire.ErrBadRevision) {
					t.Errorf("as of a state without what was lost: %v", err)
				}
				if n := read(); n != "1" {
					t.Errorf("n is %s, want 1", n)
				}
				if err := raise(2); err != nil {
					t.Errorf("as of a state that has everything: %v", err)
				}
			})
		})
	}
}

// TestContextRepublishLost loses what would tell a node: it finds out.
func TestContextRepublishLost(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		set(t, ann, "x", object{"a": 1})
		w := watch(t, bob)
		defer w.Close()
		wantSeen(t, w, "snapshot")
		time.Sleep(63 * time.Second) // between two regular checks
		missing(h.line("b"), 1)
		update(t, ann, object{"b": 1})
		wantSeen(t, w)
		time.Sleep(12 * time.Second)
		wantSeen(t, w, "changed b=1")

		// The last part of a batch: the others wait for it, and then all come.
		update(t, ann, object{"c": 1, "d": 1, "e": 1})
		wantSeen(t, w, "changed c=1 d=1 e=1")
		skip := 2
		h.line("b").Drop(func(subject string) bool {
			if strings.HasPrefix(subject, "weft.desk.kv.ctx.") {
				skip--
				return skip == -1
			}
			return false
		})
		update(t, ann, object{"c": 2, "d": 2, "e": 2})
		wantSeen(t, w)
		time.Sleep(3 * time.Second)
		wantSeen(t, w, "changed c=2 d=2 e=2")
		// A key's earlier write is missed: its next one tells.
		missing(h.line("b"), 1)
		update(t, ann, object{"f": 1})
		update(t, ann, object{"f": 2})
		time.Sleep(time.Second)
		wantSeen(t, w, "changed f=2")
		// Another key's: a write of somebody who knew of it tells, and is not shown first.
		missing(h.line("b"), 1)
		update(t, ann, object{"g": 1})
		update(t, ann, object{"h": 1})
		wantSeen(t, w)
		time.Sleep(time.Second)
		wantSeen(t, w, "changed g=1 h=1")
		// A node's own write: what it has missed before shows first, or with it.
		missing(h.line("b"), 2)
		update(t, ann, object{"i": 1})
		update(t, bob, object{"j": 1})
		if s, err := bob.Contexts().Get(t.Context(), "x"); err != nil || s.Pending || s.At("i").String() != "1" || s.At("j").String() != "1" {
			t.Errorf("after the acknowledgement: %s, pending %t, %v", s.Value(), s.Pending, err)
		}
		if n := b.Stats().Contexts; n.Gaps < 2 || n.Caught == 0 {
			t.Errorf("stats %+v", n)
		}
	})
}

// TestContextWriterBehind: what somebody else was told of counts for a writer who
// has not heard of it yet.
func TestContextWriterBehind(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		set(t, ann, "x", object{})
		wantContext(t, "{}", "x", bob)
		h.line("b").Drop(func(subject string) bool { return strings.HasPrefix(subject, "weft.desk.kv.ctx.") })
		update(t, ann, object{"list": []int{1, 2}, "o": object{"p": 1, "q": 2}})
		if _, err := bob.Contexts().SetPath(t.Context(), "x", []string{"list", "0"}, "v"); err != nil {
			t.Error(err)
		}
		if _, err := bob.Contexts().RemovePath(t.Context(), "x", []string{"o", "p"}); err != nil {
			t.Error(err)
		}
		h.line("b").Drop(nil)
		wantContext(t, `{"list":["v",2],"o":{"q":2}}`, "x", ann)
		time.Sleep(15 * time.Second)
		wantContext(t, `{"list":["v",2],"o":{"q":2}}`, "x", ann, bob)
	})
}

// TestContextLocalFirst: an app sees what another app of its node wrote before
// the network has it, and nothing flickers until it is settled.
func TestContextLocalFirst(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, amy, bob := join(t, a, "ann"), join(t, a, "amy"), join(t, b, "bob")
		set(t, ann, "x", object{"a": 1, "b": 1})
		near, far := watch(t, amy), watch(t, bob)
		defer near.Close()
		defer far.Close()
		wantSeen(t, near, "snapshot")
		wantSeen(t, far, "snapshot")
		resume := h.line("a").Stall()
		done := make(chan error, 1)
		go func() {
			_, err := ann.Contexts().Update(t.Context(), "x", object{"a": 2})
			done <- err
		}()
		wantSeen(t, near, "changed a=2")
		wantSeen(t, far)
		if s, err := amy.Contexts().Get(t.Context(), "x"); err != nil || !s.Pending || s.By.App != ann.ID() {
			t.Errorf("got %+v, %v", s, err)
		}
		// Bob is first in the order of the stream; ann is on top of him.
		update(t, bob, object{"a": 5, "b": 5})
		wantSeen(t, far, "changed a=5 b=5")
		wantSeen(t, near)
		resume()
		if err := <-done; err != nil {
			t.Error(err)
		}
		wantSeen(t, near, "changed b=5")
		wantSeen(t, far, "changed a=2")
		wantContext(t, `{"a":2,"b":5}`, "x", ann, amy, bob)
	})
}

// TestContextCoalesces: what comes while a write is on its way goes as one batch.
func TestContextCoalesces(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		set(t, ann, "x", object{})
		far := watch(t, bob)
		defer far.Close()
		wantSeen(t, far, "snapshot")
		resume := h.line("a").Stall()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if _, err := ann.Contexts().Update(t.Context(), "x", object{fmt.Sprint("k", i): i}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			_, err := ann.Contexts().Update(ctx, "x", object{"never": 1})
			wantCode(t, err, wire.Canceled)
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		resume()
		wg.Wait()
		if got := seen(t, far); len(got) != 2 {
			t.Errorf("bob saw %d changes", len(got))
		}
		s, err := bob.Contexts().Get(t.Context(), "x")
		if err != nil || s.At("k99").String() != "99" || !s.At("never").IsZero() {
			t.Errorf("got %s, %v", s.Value(), err)
		}
	})
}

// TestContextRefused: a write that the stream refuses is taken back.
func TestContextRefused(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.Stop()
		ann, amy := join(t, a, "ann"), join(t, a, "amy")
		set(t, ann, "x", object{"a": 1})
		nc := h.client()
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(t.Context(), "KV_weft_desk_ctx")
		if err != nil {
			t.Fatal(err)
		}
		cfg := stream.CachedInfo().Config
		cfg.MaxBytes = 4096
		if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		w := watch(t, amy)
		defer w.Close()
		wantSeen(t, w, "snapshot")
		_, err = ann.Contexts().Update(t.Context(), "x", object{"b": strings.Repeat("x", 8000)})
		wantCode(t, err, wire.StorageFull)
		if got := seen(t, w); len(got) != 2 || got[1] != "changed b=" {
			t.Errorf("got %.100q", got)
		}
		wantContext(t, `{"a":1}`, "x", ann, amy)
	})
}

func TestContextLimits(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		ann := join(t, a, "ann").Contexts()
		ctx := t.Context()
		deep := func(n int) any {
			var v any = 1
			for range n {
				v = object{"d": v}
			}
			return v
		}
		big := strings.Repeat("x", 600<<10)
		for name, c := range map[string]struct {
			err  func() error
			want wire.Code
		}{
			"no name":         {func() error { _, err := ann.Set(ctx, "", object{}); return err }, wire.BadName},
			"long name":       {func() error { _, err := ann.Set(ctx, strings.Repeat("n", 256), object{}); return err }, wire.BadName},
			"not UTF-8":       {func() error { _, err := ann.Set(ctx, "\xff", object{}); return err }, wire.BadName},
			"not an object":   {func() error { _, err := ann.Set(ctx, "x", 5); return err }, wire.BadPayload},
			"nothing":         {func() error { _, err := ann.Set(ctx, "x", nil); return err }, wire.BadPayload},
			"update by array": {func() error { _, err := ann.Update(ctx, "x", []int{1}); return err }, wire.BadPayload},
			"too deep":        {func() error { _, err := ann.Set(ctx, "x", deep(65)); return err }, wire.BadPayload},
			"too deep a path": {func() error { _, err := ann.SetPath(ctx, "x", []string{"a", "b"}, deep(63)); return err }, wire.BadPayload},
			"bad segment":     {func() error { _, err := ann.SetPath(ctx, "x", []string{"a", "\xff"}, 1); return err }, wire.BadName},
			"root removed":    {func() error { _, err := ann.RemovePath(ctx, "x", nil); return err }, wire.BadPayload},
			"no paths":        {func() error { _, err := ann.SetPaths(ctx, "x", nil); return err }, wire.BadPayload},
			"remove nothing":  {func() error { _, err := ann.RemovePath(ctx, "x", []string{"a"}); return err }, wire.BadName},
			"destroy nothing": {func() error { _, err := ann.Destroy(ctx, "x"); return err }, wire.BadName},
			"too large":       {func() error { _, err := ann.Set(ctx, "x", object{"a": big, "b": big}); return err }, wire.Limit},
			"must exist":      {func() error { _, err := ann.Set(ctx, "x", object{}, node.IfRevision(7)); return err }, wire.BadRevision},
			"many paths": {func() error {
				_, err := ann.SetPaths(ctx, "x", make([]node.PathValue, wire.MaxContextKeys+1))
				return err
			}, wire.Limit},
		} {
			if err := c.err(); wire.CodeOf(err) != c.want {
				t.Errorf("%s: got %v, want %s", name, err, c.want)
			}
		}
		wantNames(t, ann)
		if _, err := ann.Set(ctx, "x", deep(64)); err != nil {
			t.Error(err)
		}
		if _, err := ann.Set(ctx, "x", object{"a": big}); err != nil {
			t.Error(err)
		}
		_, err := ann.Update(ctx, "x", object{"b": big})
		wantCode(t, err, wire.Limit)
		_, err = ann.Set(ctx, "x", object{}, node.IfRevision(0))
		wantCode(t, err, wire.BadRevision)
		_, err = ann.SetPath(ctx, "x", []string{"l"}, []int{1, 2})
		if err != nil {
			t.Error(err)
		}
		_, err = ann.SetPath(ctx, "x", []string{"l", "3"}, 1)
		wantCode(t, err, wire.BadPayload)
		if _, err := ann.SetPath(ctx, "x", []string{"l", "2"}, 3); err != nil {
			t.Error(err)
		}
		// Names and segments whose tokens would be too long travel all the same.
		long := strings.Repeat("é", 100)
		if _, err := ann.SetPath(ctx, long, []string{long, strings.Repeat("k", 300)}, 1); err != nil {
			t.Error(err)
		}
		if _, err := ann.SetPath(ctx, long, []string{long, "b"}, 2); err != nil {
			t.Error(err)
		}
		b := fb.node("b")
		defer b.Stop()
		bob := join(t, b, "bob").Contexts()
		s, err := bob.Get(ctx, long)
		if err != nil || s.At(long, strings.Repeat("k", 300)).String() != "1" || s.At(long, "b").String() != "2" {
			t.Errorf("got %s, %v", s.Value(), err)
		}
		wantNames(t, bob, "x", long)
	})
}

// wantNames wants these contexts beside the channels.
func wantNames(t *testing.T, a *node.Contexts, want ...string) {
	t.Helper()
	names, err := a.Names(t.Context())
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "___channel___") })
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("got %q, %v; want %q", names, err, want)
	}
}

func TestContextSlowWatch(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		set(t, ann, "x", object{})
		w := watch(t, bob)
		defer w.Close()
		wantSeen(t, w, "snapshot")
		for i := range 3*wire.WatchStates + 10 {
			update(t, ann, object{"n": i})
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got, conflated, last := object{}, 0, -1
		for e := range w.Events(ctx) {
			conflated += e.Conflated
			for _, c := range e.Changes {
				var v int
				if err := c.Value.Decode(&v); err != nil {
					t.Fatal(err)
				}
				got[c.Path[0]] = v
			}
			if n := got["n"].(int); n <= last {
				t.Errorf("%d after %d", n, last)
			} else {
				last = n
			}
		}
		if conflated < 2*wire.WatchStates {
			t.Errorf("%d states were left out", conflated)
		}
		p, err := wire.Encode(got)
		if err != nil {
			t.Fatal(err)
		}
		text, err := wire.Canonical(p)
		if err != nil {
			t.Fatal(err)
		}
		wantContext(t, string(text), "x", ann, bob)
	})
}

// TestContextCounter: conditional writes from several nodes lose no increment.
func TestContextCounter(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		const nodes, each = 4, 10
		var wg sync.WaitGroup
		var last *node.App
		for i := range nodes {
			n := fb.node(fmt.Sprint("n", i))
			defer n.Stop()
			a := join(t, n, "counter")
			last = a
			wg.Go(func() {
				for done := 0; done < each; {
					s, err := a.Contexts().Get(t.Context(), "x")
					if err != nil {
						t.Error(err)
						return
					}
					var v struct{ N int }
					if err := s.Value().Decode(&v); err != nil {
						t.Error(err)
						return
					}
					_, err = a.Contexts().Update(t.Context(), "x", object{"N": v.N + 1, fmt.Sprint("by", i): done}, node.IfRevision(s.Revision))
					switch {
					case err == nil:
						done++
					case !errors.Is(err, wire.ErrBadRevision):
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		wantContext(t, `{"N":40,"by0":9,"by1":9,"by2":9,"by3":9}`, "x", last)
	})
}

// TestContextCompaction: many keys become one, and nobody sees a difference.
func TestContextCompaction(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		set(t, ann, "x", object{"o": object{"z": 1}})
		w := watch(t, bob)
		defer w.Close()
		wantSeen(t, w, "snapshot")
		for i := range 300 {
			if _, err := ann.Contexts().SetPath(t.Context(), "x", []string{"o", fmt.Sprint(i)}, i); err != nil {
				t.Fatal(err)
			}
		}
		rev, err := ann.Contexts().RemovePath(t.Context(), "x", []string{"o", "5"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if n := a.Stats().Contexts.Compactions; n == 0 {
			t.Error("nothing was compacted")
		}
		if got := seen(t, w); len(got) == 0 || got[len(got)-1] != "changed o.5=" {
			t.Errorf("got %q", got)
		}
		c := fb.node("c")
		defer c.Stop()
		cem := join(t, c, "cem")
		want := canonical(t, ann, "x")
		wantContext(t, want, "x", bob, cem)
		s, err := cem.Contexts().Get(t.Context(), "x")
		if err != nil || s.Revision != rev.Revision {
			t.Errorf("revision %d, want %d (%v)", s.Revision, rev.Revision, err)
		}
		time.Sleep(20 * time.Minute) // the markers expire
		update(t, bob, object{"p": 1})
		d := fb.node("d")
		defer d.Stop()
		want = canonical(t, bob, "x")
		wantContext(t, want, "x", ann, cem, join(t, d, "dan"))
	})
}

// TestContextSurvives: contexts outlive all nodes and the server; of a stream that
// was made anew nothing old is shown.
func TestContextSurvives(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		set(t, ann, "x", object{"a": 1})
		update(t, bob, object{"b": 2})
		a.Stop()
		h.down()
		time.Sleep(time.Second)
		h.up()
		a = h.node("a")
		defer a.Stop()
		ann = join(t, a, "ann")
		wantContext(t, `{"a":1,"b":2}`, "x", ann)
		eventually(t, 20*time.Second, "bob is back", func() bool {
			s, err := bob.Contexts().Get(t.Context(), "x")
			return err == nil && s.Since.IsZero() && b.State().Online
		})
		update(t, bob, object{"c": 3})
		wantContext(t, `{"a":1,"b":2,"c":3}`, "x", ann, bob)

		w := watch(t, bob)
		defer w.Close()
		wantSeen(t, w, "snapshot")
		h.down()
		time.Sleep(time.Second)
		stores, err := filepath.Glob(filepath.Join(h.store, "jetstream", "*"))
		if err != nil || len(stores) == 0 {
			t.Fatalf("no store in %s: %v", h.store, err)
		}
		for _, dir := range stores {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		h.up()
		eventually(t, 20*time.Second, "what is gone is gone", func() bool {
			s, err := bob.Contexts().Get(t.Context(), "x")
			return err == nil && s.Since.IsZero() && !s.Exists
		})
		if got := seen(t, w); len(got) != 2 || got[0] != "offline" || got[1] != "destroyed =" {
			t.Errorf("got %q", got)
		}
		eventually(t, 20*time.Second, "ann is back", func() bool {
			s, err := ann.Contexts().Get(t.Context(), "x")
			return err == nil && s.Since.IsZero() && !s.Exists
		})
		set(t, ann, "x", object{"new": true})
		wantContext(t, `{"new":true}`, "x", ann, bob)
	})
}

// TestContextBucketAnew: somebody deletes the bucket under connected nodes.
func TestContextBucketAnew(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.Stop()
		ann := join(t, a, "ann")
		set(t, ann, "x", object{"a": 1})
		nc := h.client()
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // streams are told apart by when they were made
		if err := js.DeleteStream(t.Context(), "KV_weft_desk_ctx"); err != nil {
			t.Fatal(err)
		}
		if err := provision(t.Context(), nc); err != nil {
			t.Fatal(err)
		}
		eventually(t, 15*time.Second, "what is gone is gone", func() bool { return canonical(t, ann, "x") == "" })
		set(t, ann, "x", object{"b": 1})
		wantContext(t, `{"b":1}`, "x", ann)
	})
}

// TestContextBucketMissing: whoever asks is told what an operator has to do.
func TestContextBucketMissing(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.Stop()
		ann := join(t, a, "ann").Contexts()
		nc := h.client()
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		if err := js.DeleteStream(t.Context(), "KV_weft_desk_ctx"); err != nil {
			t.Fatal(err)
		}
		for what, f := range map[string]func() error{
			"names": func() error { _, err := ann.Names(t.Context()); return err },
			"get":   func() error { _, err := ann.Get(t.Context(), "new"); return err },
			"set":   func() error { _, err := ann.Set(t.Context(), "new", object{}); return err },
		} {
			began := time.Now()
			if err := f(); !errors.Is(err, wire.ErrUnavailable) || !strings.Contains(err.Error(), "weft admin provision desk") || time.Since(began) > 10*time.Second {
				t.Errorf("%s: %v after %s", what, err, time.Since(began))
			}
		}
	})
}

// TestContextForeignWriters: whoever can write to the bucket is one more writer.
func TestContextForeignWriters(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		nc := fb.client()
		defer nc.Close()
		put := func(key, value string, header nats.Header) {
			t.Helper()
			m, err := nc.RequestMsg(&nats.Msg{Subject: "$KV.weft_desk_ctx." + key, Data: []byte(value), Header: header}, time.Second)
			if err != nil || strings.Contains(string(m.Data), "error") {
				t.Fatalf("put %s: %s, %v", key, m.Data, err)
			}
		}
		w := watch(t, bob)
		defer w.Close()
		put("x./", `{"a":1,"o":{"p":1}}`, nil)
		wantContext(t, `{"a":1,"o":{"p":1}}`, "x", ann, bob)
		put("x.o.q", `[1,2]`, nil)
		put("x.a", ``, nats.Header{"KV-Operation": {"DEL"}})
		wantContext(t, `{"o":{"p":1,"q":[1,2]}}`, "x", ann, bob)
		put("x.o", ``, nats.Header{"KV-Operation": {"PURGE"}, "Nats-Rollup": {"sub"}})
		put("x.bad", `{`, nil)
		put("x.b.c", `1`, nil)
		put("x.b.bad", `nonsense`, nil)
		wantContext(t, `{"b":{"c":1}}`, "x", ann, bob)
		if got := seen(t, w); strings.Join(got, ",") != `snapshot,created ={"a":1,"o":{"p":1}},changed o.q=[1,2],changed a=,changed o=,changed b={"c":1}` &&
			len(got) < 5 {
			t.Errorf("got %q", got)
		}
		if n := a.Stats().Contexts.Unreadable; n != 2 {
			t.Errorf("%d were unreadable", n)
		}
		// One that is to expire is kept, as what it is.
		put("x.ttl", `"here"`, nats.Header{"Nats-TTL": {"2s"}})
		put("x.b", ``, nats.Header{"KV-Operation": {"PURGE"}, "Nats-Rollup": {"sub"}, "Nats-TTL": {"2s"}})
		time.Sleep(10 * time.Second)
		c := fb.node("c")
		defer c.Stop()
		wantContext(t, `{"ttl":"here"}`, "x", ann, bob, join(t, c, "cem"))
		if n := a.Stats().Contexts.Mended + b.Stats().Contexts.Mended; n != 2 {
			t.Errorf("%d were mended", n)
		}
		put("x./", `5`, nil)
		wantContext(t, `{}`, "x", ann, bob)
		put("x./", ``, nats.Header{"KV-Operation": {"DEL"}})
		wantContext(t, "", "x", ann, bob)
	})
}

func TestContextNames(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		set(t, ann, "one", object{})
		var mu sync.Mutex
		var got []string
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for e := range bob.Contexts().WatchNames(ctx) {
				if strings.HasPrefix(e.Name, "___channel___") {
					continue
				}
				mu.Lock()
				got = append(got, e.Kind.String()+" "+e.Name+" "+string(e.By.Node))
				mu.Unlock()
			}
		})
		synctest.Wait()
		set(t, bob, "two", object{})
		set(t, ann, "one", object{"again": 1})
		synctest.Wait()
		if _, err := ann.Contexts().Destroy(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		created, _, err := bob.Contexts().Create(t.Context(), "one", object{"c": 1})
		if err != nil || !created {
			t.Errorf("created %t, %v", created, err)
		}
		created, _, err = ann.Contexts().Create(t.Context(), "one", object{"c": 2})
		if err != nil || created {
			t.Errorf("created %t, %v", created, err)
		}
		wantContext(t, `{"c":1}`, "one", ann, bob)
		cancel()
		wg.Wait()
		if s := strings.Join(got, ", "); s != "created one , created two b, destroyed one a, created one b" {
			t.Errorf("got %s", s)
		}
	})
}

// client is a plain NATS client.
func (h *hub) client() *nats.Conn {
	h.t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(h.srv))
	if err != nil {
		h.t.Fatal(err)
	}
	return nc
}

// TestContextDestroyBusy: a context ends however many write to it.
func TestContextDestroyBusy(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		ann := join(t, a, "ann")
		set(t, ann, "x", object{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 4 {
			n := fb.node(fmt.Sprint("n", i))
			defer n.Stop()
			w := join(t, n, "writer").Contexts()
			wg.Go(func() {
				for j := 0; ctx.Err() == nil; j++ {
					_, err := w.SetPath(ctx, "x", []string{fmt.Sprint("k", i, j%5)}, j, contexts.MustExist())
					if c := wire.CodeOf(err); err != nil && c != wire.BadName && c != wire.Canceled && c != wire.Timeout {
						t.Error(err)
						return
					}
					time.Sleep(time.Millisecond) // fake time goes on only when everybody waits
				}
			})
		}
		for range 10 {
			if _, err := ann.Contexts().Destroy(t.Context(), "x"); err != nil {
				t.Error(err)
			}
			if s, err := ann.Contexts().Get(t.Context(), "x"); err != nil || s.Exists {
				t.Errorf("it is still there: %+v, %v", s, err)
			}
			set(t, ann, "x", object{})
		}
		cancel()
		wg.Wait()
	})
}
