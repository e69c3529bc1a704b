//go:build unix

package procs_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCallAtOnce: a command that has just started knows every server that is
// there; it never says no-server of a live one.
func TestCallAtOnce(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	f.serve("Add", add)
	const calls = 100
	var failed []string
	for range calls {
		if r := f.run("call", "Add", `{"a":1,"b":2}`, "--nats", f.url); r.code != 0 {
			failed = append(failed, r.stderr)
		}
	}
	if len(failed) > 0 {
		t.Errorf("%d of %d calls failed, the first with %s", len(failed), calls, failed[0])
	}
}

// TestServingProcessKilled: after kill -9 of the serving process callers hear
// target-gone for at most 15 s, then no-server, at once each time.
func TestServingProcessKilled(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	server := f.serve("Add", add)
	call := func() result { return f.run("call", "Add", `{"a":1,"b":2}`, "--nats", f.url) }
	if r := call(); strings.TrimSpace(r.out) != `{"sum":3}` {
		t.Fatalf("before: %+v", r)
	}
	server.kill()
	slowest, gone := time.Duration(0), 0
	took := eventually(t, lost, "no-server", func() bool {
		r := call()
		slowest = max(slowest, r.took)
		switch {
		case r.is("no-server"):
			return true
		case r.is("target-gone"):
			gone++
			return false
		}
		t.Fatalf("after the kill: %+v", r)
		return false
	})
	t.Logf("target-gone for %.1f s (%d calls, the slowest took %.2f s with its process), then no-server", took.Seconds(), gone, slowest.Seconds())
	if r := call(); !r.is("no-server") || r.took > 2*time.Second {
		t.Errorf("the next call: %+v", r)
	}
}

// TestNodeKilled: kill -9 of a node drops it from every view within 15 s.
func TestNodeKilled(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	a := f.node("a", "m1")
	f.node("b", "m2")
	observer := f.watch("a", "b")
	a.kill()
	began := time.Now()
	took := eventually(t, lost, "weft nodes without a", func() bool { return !slices.Contains(f.nodes(), "a") })
	seen := observer.event("node-removed", "a").at.Sub(began)
	t.Logf("killed node: dropped from weft nodes after %.1f s, by an observer after %.1f s", took.Seconds(), seen.Seconds())
	if seen > lost {
		t.Errorf("the observer saw it after %s", seen)
	}
	if got := f.nodes(); !slices.Equal(got, []string{"b", "hub"}) {
		t.Errorf("nodes = %q", got)
	}
	f.node("a", "m1") // its id is free
}

// TestNodeStopped: a clean leave is seen within a second or so.
func TestNodeStopped(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	a := f.node("a", "m1")
	observer := f.watch("a")
	began := time.Now()
	if code := a.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	gone := observer.event("node-removed", "a")
	t.Logf("clean leave: seen after %.2f s", gone.at.Sub(began).Seconds())
	if !strings.Contains(gone.text, `"reason":"left"`) {
		t.Errorf("the event says %s", gone.text)
	}
}

// TestNodeFrozen: a frozen node is dropped within 15 s and comes back within
// 5 s of its waking.
func TestNodeFrozen(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	a := f.node("a", "m1")
	observer := f.watch("a")
	a.signal(syscall.SIGSTOP)
	began := time.Now()
	dropped := observer.event("node-removed", "a").at.Sub(began)
	if dropped > lost {
		t.Errorf("dropped after %s", dropped)
	}
	if got := f.nodes(); slices.Contains(got, "a") {
		t.Errorf("nodes = %q", got)
	}
	a.signal(syscall.SIGCONT)
	began = time.Now()
	back := observer.event("node-added", "a").at.Sub(began)
	t.Logf("frozen node: dropped after %.1f s, back %.1f s after it woke", dropped.Seconds(), back.Seconds())
	if back > 5*time.Second {
		t.Errorf("back after %s", back)
	}
	if got := f.nodes(); !slices.Contains(got, "a") {
		t.Errorf("nodes = %q", got)
	}
}

// TestNodeFrozenBriefly: a freeze of less than 5 s is not seen by others.
func TestNodeFrozenBriefly(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	a := f.node("a", "m1")
	observer := f.watch("a")
	a.signal(syscall.SIGSTOP)
	quiet(t, observer, 3*time.Second, "a")
	a.signal(syscall.SIGCONT)
	quiet(t, observer, 9*time.Second, "a")
}

// quiet fails if an observer sees one of the nodes go within d.
func quiet(t *testing.T, observer *process, d time.Duration, ids ...string) {
	t.Helper()
	for end := time.Now().Add(d); ; {
		l, ok := observer.find(time.Until(end), `"event":"node-removed"`)
		if !ok {
			return
		}
		for _, id := range ids {
			if strings.Contains(l.text, `"id":"`+id+`"`) {
				t.Fatalf("an observer saw %s go: %s", id, l.text)
			}
		}
	}
}

// TestHubRestarted: whether the hub was killed or stopped, nodes, methods and
// a running stream subscription come back by themselves when it runs again.
func TestHubRestarted(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, hub *process){
		"killed": func(_ *testing.T, hub *process) { hub.kill() },
		"stopped": func(t *testing.T, hub *process) {
			if code := hub.stop(); code != 0 {
				t.Errorf("the hub stopped with exit code %d", code)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFabric(t)
			f.node("a", "m1")
			f.node("b", "m2")
			f.serve("Add", add)
			publisher := f.start("stream", "publish", "Quotes", "--keep", "--nats", f.url)
			publisher.line("Publishing Quotes")
			watch := f.start("stream", "watch", "Quotes", "--json", "--nats", f.url)
			watch.line(`"event":"subscribed"`)
			publisher.write("1")
			publisher.write("2")
			watch.line(`"seq":2`)

			end(t, f.hub)
			publisher.write("3") // nobody hears it; the subscriber must be told
			eventually(t, soon, "offline", func() bool { return f.run("nodes", "--nats", f.url).is("offline") })
			f.startHub()
			began := time.Now()
			listed := eventually(t, soon, "all nodes are listed", func() bool { return slices.Equal(f.nodes(), []string{"a", "b", "hub"}) })
			called := listed + eventually(t, soon, "Add is back", func() bool {
				r := f.run("call", "Add", `{"a":1,"b":2}`, "--nats", f.url)
				return strings.TrimSpace(r.out) == `{"sum":3}`
			})
			publisher.write("4")
			told := contiguous(t, watch, 3, 4)
			t.Logf("after the start of the hub: nodes %.1f s, method %.1f s, stream %.1f s", listed.Seconds(), called.Seconds(), told.at.Sub(began).Seconds())
		})
	}
}

// contiguous reads events until the one with sequence upTo, and fails if one
// of them from next on is neither delivered nor announced as a gap.
func contiguous(t *testing.T, watch *process, next, upTo int) line {
	t.Helper()
	for {
		l := watch.line(`"event":`)
		var e struct {
			Event         string
			Seq, From, To int
			Value         json.RawMessage
		}
		watch.json(l, &e)
		switch {
		case e.Event == "gap" && e.From == next:
			next = e.To + 1
		case e.Event == "data" && e.Seq == next && string(e.Value) == strconv.Itoa(next):
			next++
		default:
			t.Fatalf("want sequence %d, got %s", next, l.text)
		}
		if next > upTo {
			return l
		}
	}
}

// TestNoFlapOnShortHubOutage: while the hub is away for less than 5 s, and
// after that, no observer sees the other nodes go.
func TestNoFlapOnShortHubOutage(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	f.node("a", "m1")
	f.node("b", "m2")
	observer := f.watch("a", "b")
	f.hub.kill()
	began := time.Now()
	quiet(t, observer, 2*time.Second, "a", "b")
	f.startHub()
	t.Logf("the hub was away for %.1f s", time.Since(began).Seconds())
	quiet(t, observer, 13*time.Second, "a", "b")
	if got := f.nodes(); !slices.Equal(got, []string{"a", "b", "hub"}) {
		t.Errorf("nodes = %q", got)
	}
}

// TestClientsOfKilledNode: who waits for something of a killed process hears
// target-gone, and a subscription to all servers goes on with the others.
func TestClientsOfKilledNode(t *testing.T) {
	t.Parallel()
	f := startFabric(t)
	pid := filepath.Join(t.TempDir(), "pid")
	server := f.serve("Slow", "echo $$ >"+pid+".new; mv "+pid+".new "+pid+"; exec sleep 60")
	t.Cleanup(func() { // kill -9 of the server leaves its command behind
		data, _ := os.ReadFile(pid)
		if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL) // it may have ended
		}
	})
	one := f.start("stream", "publish", "Quotes", "--application", "one", "--keep", "--nats", f.url)
	one.line("Publishing")
	two := f.start("stream", "publish", "Quotes", "--application", "two", "--keep", "--nats", f.url)
	two.line("Publishing")
	single := f.start("stream", "watch", "Quotes", "--target", "application=one", "--json", "--nats", f.url)
	single.line(`"event":"subscribed"`)
	all := f.start("stream", "watch", "Quotes", "--target", "all", "--json", "--nats", f.url)
	all.line(`"event":"subscribed"`)
	all.line(`"event":"subscribed"`)
	caller := f.start("call", "Slow", "--nats", f.url)
	eventually(t, soon, "Slow is running", func() bool { _, err := os.Stat(pid); return err == nil })

	server.kill()
	one.kill()
	began := time.Now()
	if code := caller.exit(); code != 1 {
		t.Errorf("the caller's exit code is %d", code)
	}
	call := caller.line("target-gone: ").at.Sub(began)
	closed := single.line(`"event":"closed"`)
	if code := single.exit(); code != 1 || !strings.Contains(closed.text, "target-gone") {
		t.Errorf("the subscriber's exit code is %d, it said %s", code, closed.text)
	}
	ended := closed.at.Sub(began)
	if l := all.line(`"event":"closed"`); !strings.Contains(l.text, "target-gone") {
		t.Errorf("the subscriber to all said %s", l.text)
	}
	t.Logf("target-gone: call after %.1f s, subscription after %.1f s", call.Seconds(), ended.Seconds())
	if call > lost || ended > lost {
		t.Errorf("want both within %s", lost)
	}
	two.write(`"still here"`)
	all.line("still here")
}
