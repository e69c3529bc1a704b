package node_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// before runs f once, before the n-th reply passes a line.
func (l *line) before(n int, f func()) {
	var once sync.Once
	l.Drop(func(subject string) bool {
		if strings.HasPrefix(subject, "_R.") {
			if n--; n == 0 {
				once.Do(f)
			}
		}
		return false
	})
}

// TestContextConditionalInPart lets a write of another node slip in between the plan
// of a conditional write of two paths and its commit: what is refused is not
// there, not even in part.
func TestContextConditionalInPart(t *testing.T) {
	for n := range 6 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inHub(t, func(t *testing.T, h *hub) {
				a, b := h.node("a"), h.node("b")
				defer a.Stop()
				defer b.Stop()
				ann, bob := join(t, a, "ann"), join(t, b, "bob")
				rev := set(t, ann, "x", object{"a": 1, "b": 1})
				wantContext(t, `{"a":1,"b":1}`, "x", ann, bob)
				h.line("a").before(n, func() { update(t, bob, object{"a": 9}) })
				_, err := ann.Contexts().Update(t.Context(), "x", object{"a": 2, "b": 2}, node.IfRevision(rev))
				h.line("a").Drop(nil)
				synctest.Wait()
				switch s := canonical(t, bob, "x"); {
				case err == nil && (s == `{"a":9,"b":2}` || s == `{"a":2,"b":2}`): // the latter when nothing slipped in
				case wire.CodeOf(err) == wire.BadRevision && s == `{"a":9,"b":1}`:
				default:
					t.Errorf("after %v bob has %s", err, s)
				}
			})
		})
	}
}

// TestContextCreateLosesRace: whoever finds a context has not created it.
func TestContextCreateLosesRace(t *testing.T) {
	for n := 1; n < 5; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inHub(t, func(t *testing.T, h *hub) {
				a, b := h.node("a"), h.node("b")
				defer a.Stop()
				defer b.Stop()
				ann, bob := join(t, a, "ann"), join(t, b, "bob")
				wantContext(t, "", "x", ann, bob)
				bobs := false
				h.line("a").before(n, func() {
					var err error
					if bobs, _, err = bob.Contexts().Create(t.Context(), "x", object{"by": "bob"}); err != nil {
						t.Error(err)
					}
				})
				anns, _, err := ann.Contexts().Create(t.Context(), "x", object{"by": "ann"})
				h.line("a").Drop(nil)
				if err != nil || anns == bobs {
					t.Errorf("ann created it: %v, %v; bob created it: %v", anns, err, bobs)
				}
			})
		})
	}
}

// TestContextGivenUp: a caller that gives up on a write does not race with its end.
func TestContextGivenUp(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.Stop()
		ann := join(t, a, "ann")
		set(t, ann, "x", object{})
		resume := h.line("a").Stall()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := ann.Contexts().Update(ctx, "x", object{"a": 1}); err != nil && wire.CodeOf(err) != wire.Timeout && wire.CodeOf(err) != wire.Canceled {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		go resume() // the race detector must not see an order of the two
		cancel()
		wg.Wait()
		synctest.Wait()
	})
}

// TestContextAnswerLost loses a part of what a node reads: it asks again.
func TestContextAnswerLost(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		set(t, ann, "x", object{"a": 1})
		lose := func() {
			n, until := 0, time.Now().Add(500*time.Millisecond)
			h.line("b").Drop(func(subject string) bool {
				if !strings.HasPrefix(subject, "_R.") || time.Now().After(until) {
					return false
				}
				n++
				return n > 1 // the first says how many keys there are
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		lose()
		if s, err := bob.Contexts().Get(ctx, "x"); err != nil || s.At("a").String() != "1" {
			t.Errorf("first use: %s, %v", s.Value(), err)
		}
		lose()
		began := time.Now()
		if _, err := bob.Contexts().Update(ctx, "x", object{"a": 2}, node.IfRevision(1<<40)); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a conditional write took %s", took)
		}
	})
}
