package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// serveAs registers a method that answers who it is.
func serveAs(t *testing.T, n *node.Node, application, method string) *node.App {
	t.Helper()
	a := join(t, n, application)
	err := a.Register(t.Context(), node.Method{Name: method}, func(context.Context, *node.Call) (any, error) {
		return application, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// callers asks n times and counts who answered.
func answers(t *testing.T, a *node.App, method string, n int, opts ...node.Option) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range n {
		who, err := node.Invoke[string](t.Context(), a, method, nil, opts...)
		if err != nil {
			t.Fatal(err)
		}
		count[who]++
	}
	return count
}

func TestBestPrefersThisMachineAndTakesTurns(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		serveAs(t, b, "far-1", "Who")
		serveAs(t, b, "far-2", "Who")
		caller := join(t, a, "caller")
		synctest.Wait()
		if got := answers(t, caller, "Who", 10); got["far-1"] != 5 || got["far-2"] != 5 {
			t.Errorf("two equals elsewhere: %v, want five each", got)
		}
		near := serveAs(t, a, "near", "who")
		if got := answers(t, caller, "WHO", 4); got["near"] != 4 {
			t.Errorf("one here: %v, want it alone", got)
		}
		near.Leave()
		if got := answers(t, caller, "Who", 2); got["near"] != 0 {
			t.Errorf("after it left: %v", got)
		}
	})
}

func TestTargets(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		mine := serveAs(t, a, "mine", "Who")
		serveAs(t, a, "near", "Who")
		serveAs(t, b, "far", "Who")
		synctest.Wait()
		for _, c := range []struct {
			name   string
			target node.Target
			want   string
		}{
			{"all", node.All, "far mine near"},
			{"skipMine", node.SkipMine, "far near"},
			{"application", node.Instances(node.Filter{"application": "FAR"}), "far"},
			{"machine", node.Instances(node.Filter{"machine": "machine-a"}), "mine near"},
			{"two filters that overlap", node.Instances(node.Filter{"node": "b"}, node.Filter{"application": "far"}), "far"},
			{"two properties", node.Instances(node.Filter{"node": "a", "application": "near"}), "near"},
		} {
			results, err := mine.Invoke(t.Context(), "Who", nil, c.target)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if got := names(results); got != c.want {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
		}
		if _, err := mine.Invoke(t.Context(), "Who", nil, node.Instances(node.Filter{"application": "nobody"})); !errors.Is(err, wire.ErrNoServer) {
			t.Errorf("no match: %v", err)
		}
		if _, err := mine.Invoke(t.Context(), "Who", nil, node.Instances(node.Filter{"colour": "red"})); !errors.Is(err, wire.ErrBadPayload) {
			t.Errorf("unknown property: %v", err)
		}
	})
}

func names(rs node.Results) string {
	var list []string
	for _, r := range rs {
		list = append(list, r.Server.Application)
	}
	for i := range list {
		for j := i + 1; j < len(list); j++ {
			if list[j] < list[i] {
				list[i], list[j] = list[j], list[i]
			}
		}
	}
	return strings.Join(list, " ")
}

func TestAllReportsEachFailure(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		serveAs(t, b, "good", "Do")
		bad := join(t, b, "bad")
		if err := bad.Register(t.Context(), node.Method{Name: "Do"}, func(context.Context, *node.Call) (any, error) {
			return nil, errors.New("no such instrument")
		}); err != nil {
			t.Fatal(err)
		}
		caller := join(t, a, "caller")
		synctest.Wait()
		results, err := caller.Invoke(t.Context(), "Do", nil, node.All)
		if err != nil || len(results) != 2 {
			t.Fatalf("one succeeded: %v, %v", results, err)
		}
		if err := results.Err(); !errors.Is(err, wire.ErrAppError) || !strings.Contains(err.Error(), "no such instrument") {
			t.Errorf("the failure is %v", err)
		}
		_, err = caller.Invoke(t.Context(), "Do", nil, node.Instances(node.Filter{"application": "bad"}))
		if !errors.Is(err, wire.ErrAppError) {
			t.Errorf("all failed: %v", err)
		}
	})
}

func TestWaitForAServerByEvent(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		caller := join(t, a, "caller")
		time.AfterFunc(700*time.Millisecond, func() { registerAdd(t, join(t, b, "pricer")) })
		started := time.Now()
		if _, err := caller.Invoke(t.Context(), "Add", pair{1, 2}, node.Wait(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(started); took > 750*time.Millisecond {
			t.Errorf("took %s, the server came after 700ms", took)
		}
		started = time.Now()
		_, err := caller.Invoke(t.Context(), "Never", nil, node.Wait(600*time.Millisecond))
		if took := time.Since(started); !errors.Is(err, wire.ErrNoServer) || took != 600*time.Millisecond {
			t.Errorf("got %v after %s", err, took)
		}
	})
}

// blocker registers a method that runs until its context ends, and reports why.
func blocker(t *testing.T, n *node.Node) (*node.App, <-chan error) {
	t.Helper()
	ended := make(chan error, 2*wire.MaxPendingCalls)
	a := join(t, n, "blocker")
	err := a.Register(t.Context(), node.Method{Name: "Block"}, func(ctx context.Context, _ *node.Call) (any, error) {
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, ended
}

func TestDeadlineAndCancellationReachTheServer(t *testing.T) {
	for _, where := range []string{"a", "b"} {
		t.Run("server on "+where, func(t *testing.T) {
			inFabric(t, func(t *testing.T, fb *fabric) {
				nodes := map[string]*node.Node{"a": fb.node("a"), "b": fb.node("b")}
				defer nodes["a"].Stop()
				defer nodes["b"].Stop()
				_, ended := blocker(t, nodes[where])
				caller := join(t, nodes["a"], "caller")
				synctest.Wait()
				started := time.Now()
				_, err := caller.Invoke(t.Context(), "Block", nil, node.Timeout(2*time.Second))
				if took := time.Since(started); !errors.Is(err, wire.ErrTimeout) || took != 2*time.Second {
					t.Errorf("got %v after %s", err, took)
				}
				<-ended
				if took := time.Since(started); took > 2100*time.Millisecond {
					t.Errorf("the handler ended after %s", took)
				}
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				started = time.Now()
				if _, err = caller.Invoke(ctx, "Block", nil); !errors.Is(err, wire.ErrCanceled) {
					t.Errorf("got %v", err)
				}
				<-ended
				if took := time.Since(started); took > 1100*time.Millisecond {
					t.Errorf("the handler of the cancelled call ended after %s", took)
				}
			})
		})
	}
}

func TestTargetGone(t *testing.T) {
	for _, how := range []string{"app leaves", "node stops", "here"} {
		t.Run(how, func(t *testing.T) {
			inFabric(t, func(t *testing.T, fb *fabric) {
				a, b := fb.node("a"), fb.node("b")
				defer a.Stop()
				defer b.Stop()
				host := b
				if how == "here" {
					host = a
				}
				app, _ := blocker(t, host)
				caller := join(t, a, "caller")
				synctest.Wait()
				time.AfterFunc(time.Second, func() {
					if how == "node stops" {
						b.Stop()
					} else {
						app.Leave()
					}
				})
				started := time.Now()
				_, err := caller.Invoke(t.Context(), "Block", nil)
				if took := time.Since(started); !errors.Is(err, wire.ErrTargetGone) || took > 1500*time.Millisecond {
					t.Errorf("got %v after %s", err, took)
				}
			})
		})
	}
}

func TestResultsOfHandlers(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		app, near, far := join(t, b, "server"), join(t, b, "near"), join(t, a, "far")
		for _, c := range []struct {
			name  string
			value any
			err   error
			want  string // canonical JSON
			code  wire.Code
		}{
			{name: "nothing", want: ""},
			{name: "struct", value: sum{3}, want: `{"Sum":3}`},
			{name: "raw-json", value: json.RawMessage(`{"a":[1,2.5,null]}`), want: `{"a":[1,2.5,null]}`},
			{name: "int", value: int64(1) << 60, want: "1152921504606846976"},
			{name: "plain-error", err: errors.New("boom"), code: wire.AppError},
			{name: "coded", err: wire.Errorf(wire.Denied, "not you"), code: wire.Denied},
			{name: "wrapped", err: fmt.Errorf("outer: %w", wire.Errorf(wire.Busy, "later")), code: wire.Busy},
			{name: "bad-json", value: json.RawMessage(`{"a":`), code: wire.AppError},
			{name: "channel", value: make(chan int), code: wire.AppError},
			{name: strings.Repeat("long näme\r\n ", 18), value: 1, want: "1"},
			{name: "T42.Demo *>$ \x00 é", value: 1, want: "1"},
			{name: "panics", code: wire.AppError},
		} {
			err := app.Register(t.Context(), node.Method{Name: c.name}, func(context.Context, *node.Call) (any, error) {
				if c.name == "panics" {
					panic("oops")
				}
				return c.value, c.err
			})
			if err != nil {
				t.Fatalf("%q: %v", c.name, err)
			}
			synctest.Wait()
			for who, caller := range map[string]*node.App{"near": near, "far": far} {
				results, err := caller.Invoke(t.Context(), c.name, nil)
				if got := wire.CodeOf(err); got != c.code {
					t.Errorf("%s from %s: %v, want code %q", c.name, who, err, c.code)
				}
				if err != nil || c.want == "" && results.Value().IsZero() {
					continue
				}
				if got, err := wire.Canonical(results.Value()); err != nil || string(got) != c.want {
					t.Errorf("%s from %s: got %s, %v, want %s", c.name, who, got, err, c.want)
				}
			}
		}
	})
}

func TestRegisterRefusals(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		app := join(t, a, "x")
		h := func(context.Context, *node.Call) (any, error) { return nil, nil }
		for name, want := range map[string]wire.Code{"": wire.BadName, "\xff": wire.BadName, strings.Repeat("n", 256): wire.BadName, "Once": ""} {
			if err := app.Register(t.Context(), node.Method{Name: name}, h); wire.CodeOf(err) != want {
				t.Errorf("%q: %v, want %q", name, err, want)
			}
		}
		if err := app.Register(t.Context(), node.Method{Name: "ONCE"}, h); !errors.Is(err, wire.ErrRejected) {
			t.Errorf("twice: %v", err)
		}
		if err := app.Unregister(t.Context(), "once"); err != nil {
			t.Error(err)
		}
		if err := app.Unregister(t.Context(), "once"); !errors.Is(err, wire.ErrNoServer) {
			t.Errorf("unregistered twice: %v", err)
		}
		for i := range wire.MaxMethods + 1 {
			err := app.Register(t.Context(), node.Method{Name: fmt.Sprint("m", i)}, h)
			if i < wire.MaxMethods && err != nil || i == wire.MaxMethods && !errors.Is(err, wire.ErrLimit) {
				t.Fatalf("method %d: %v", i, err)
			}
		}
		app.Leave()
		if err := app.Register(t.Context(), node.Method{Name: "late"}, h); !errors.Is(err, wire.ErrTargetGone) {
			t.Errorf("after leaving: %v", err)
		}
		if _, err := a.Join(t.Context(), node.Identity{}); !errors.Is(err, wire.ErrBadName) {
			t.Errorf("without a name: %v", err)
		}
	})
}

func TestLimitsOfCalls(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		registerAdd(t, join(t, b, "pricer"))
		_, _ = blocker(t, b)
		caller := join(t, a, "caller")
		synctest.Wait()
		if _, err := caller.Invoke(t.Context(), "Add", strings.Repeat("x", 9<<20)); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("9 MiB: %v", err)
		}
		if _, err := caller.Invoke(t.Context(), "Add", strings.Repeat("x", 7<<20)); !errors.Is(err, wire.ErrBadPayload) {
			t.Errorf("7 MiB of text where a struct belongs: %v", err)
		}
		for _, d := range []time.Duration{0, -1, 11 * time.Minute} {
			if _, err := caller.Invoke(t.Context(), "Add", nil, node.Timeout(d)); !errors.Is(err, wire.ErrLimit) {
				t.Errorf("timeout %s: %v", d, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range wire.MaxPendingCalls {
			wg.Go(func() { _, _ = caller.Invoke(ctx, "Block", nil) }) // ended by cancel
		}
		synctest.Wait()
		if _, err := caller.Invoke(t.Context(), "Add", pair{1, 2}); !errors.Is(err, wire.ErrBusy) {
			t.Errorf("call %d in flight: %v", wire.MaxPendingCalls+1, err)
		}
		if _, err := join(t, a, "other").Invoke(t.Context(), "Block", nil, node.Timeout(time.Second)); !errors.Is(err, wire.ErrBusy) {
			t.Errorf("the server's limit: %v", err)
		}
		cancel()
		wg.Wait()
		if _, err := caller.Invoke(t.Context(), "Add", pair{1, 2}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestCallerIdentity(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		seen := make(chan node.Identity, 1)
		server := join(t, b, "server")
		if err := server.Register(t.Context(), node.Method{Name: "Who"}, func(_ context.Context, c *node.Call) (any, error) {
			seen <- c.Caller
			return nil, nil
		}); err != nil {
			t.Fatal(err)
		}
		caller, err := a.Join(t.Context(), node.Identity{Application: "blotter", Region: "EMEA", Node: "forged", User: "forged", Machine: "forged", App: "forged"})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := caller.Invoke(t.Context(), "Who", nil); err != nil {
			t.Fatal(err)
		}
		got := <-seen
		if got != caller.Identity() || got.Node != "a" || got.Machine != "machine-a" || got.Region != "EMEA" || got.User == "forged" {
			t.Errorf("the server saw %+v", got)
		}
	})
}

func TestOfflineNodeServesItsOwnApps(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		registerAdd(t, join(t, a, "pricer"))
		serveAs(t, b, "far", "Who")
		caller := join(t, a, "caller")
		synctest.Wait()
		fb.server.Shutdown()
		synctest.Wait()
		if s := a.State(); s.Online || s.Reason == "" {
			t.Errorf("state %+v", s)
		}
		if got, err := node.Invoke[sum](t.Context(), caller, "Add", pair{1, 2}); err != nil || got.Sum != 3 {
			t.Errorf("local call: %v, %v", got, err)
		}
		started := time.Now()
		if _, err := caller.Invoke(t.Context(), "Who", nil); !errors.Is(err, wire.ErrOffline) || time.Since(started) > 0 {
			t.Errorf("remote call: %v after %s", err, time.Since(started))
		}
		time.Sleep(11 * time.Second) // fake: the view of others is kept for 10 s
		if _, err := caller.Invoke(t.Context(), "Who", nil); !errors.Is(err, wire.ErrNoServer) {
			t.Errorf("later: %v", err)
		}
	})
}
