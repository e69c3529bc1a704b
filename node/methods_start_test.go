package node_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// joinClient connects a gateway client.
func joinClient(t testing.TB, n *node.Node, application string) *node.Client {
	t.Helper()
	c, err := n.Realm().JoinClient(func(subjects.App) node.Identity { return node.Identity{Application: application, User: "login"} })
	if err != nil {
		t.Fatal(err)
	}
	settle(t, c)
	return c
}

// settle waits until everyone sees what a client did.
func settle(t testing.TB, c *node.Client) {
	t.Helper()
	if err := c.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// value is a value as a payload.
func value(v any) node.Payload {
	p, err := wire.Encode(v)
	if err != nil {
		panic(err)
	}
	return p
}

// desk serves methods without waiting and keeps its calls.
type desk struct {
	on func(p *node.Pending) // what to do with a call; nil keeps it

	mu    sync.Mutex
	calls []*node.Pending
	ended map[*node.Pending]int
}

func (d *desk) Serve(p *node.Pending) {
	d.mu.Lock()
	d.calls = append(d.calls, p)
	d.mu.Unlock()
	if d.on != nil {
		d.on(p)
	}
}

func (d *desk) Ended(p *node.Pending) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended == nil {
		d.ended = map[*node.Pending]int{}
	}
	d.ended[p]++
}

// echo answers a call with its arguments.
func echo(p *node.Pending) { p.Finish(p.Args, nil) }

// offerTo makes a client serve methods.
func (d *desk) offer(t testing.TB, c *node.Client, methods ...string) {
	t.Helper()
	for _, name := range methods {
		if err := c.Offer(node.Method{Name: name}, d); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, c)
}

// served is what came, when all that is under way has come.
func (d *desk) served() []*node.Pending {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*node.Pending(nil), d.calls...)
}

// last is the call that came last.
func (d *desk) last(t testing.TB) *node.Pending {
	t.Helper()
	calls := d.served()
	if len(calls) == 0 {
		t.Fatal("no call came")
	}
	return calls[len(calls)-1]
}

// wantEnded says how many calls ended without the server, which must hear that
// once of each, and may then not end it again.
func (d *desk) wantEnded(t testing.TB, n int) {
	t.Helper()
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for p, times := range d.ended {
		if times != 1 || !p.Over() || p.Finish(node.Payload{}, nil) {
			t.Errorf("%s: ended %d times, over: %v", p.String(), times, p.Over())
		}
	}
	if len(d.ended) != n {
		t.Errorf("%d calls ended without the server, want %d", len(d.ended), n)
	}
}

// outcome is how a call ended.
type outcome struct {
	node.Result
	times int
	after time.Duration
}

// caller starts calls and keeps their outcomes by name.
type caller struct {
	*node.Client
	t     testing.TB
	began time.Time

	mu  sync.Mutex
	all map[string]*outcome
}

func startingWith(t testing.TB, c *node.Client) *caller {
	return &caller{Client: c, t: t, began: time.Now(), all: map[string]*outcome{}}
}

// start calls a method; the name is the argument.
func (c *caller) start(name string, target subjects.App, method string, timeout time.Duration) (cancel func(error)) {
	c.t.Helper()
	return c.startWith(name, target, method, value(name), "", timeout)
}

func (c *caller) startWith(name string, target subjects.App, method string, args node.Payload, detail string, timeout time.Duration) (cancel func(error)) {
	c.t.Helper()
	c.mu.Lock()
	if c.all[name] != nil {
		c.t.Errorf("%s twice", name)
	}
	c.all[name] = &outcome{}
	c.mu.Unlock()
	return c.Start(target, method, args, detail, timeout, func(r node.Result) {
		c.mu.Lock()
		defer c.mu.Unlock()
		o := c.all[name]
		o.Result, o.after = r, time.Since(c.began)
		o.times++
	})
}

// end is how a call has ended, which must be once.
func (c *caller) end(name string) outcome {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	o := *c.all[name]
	if o.times != 1 {
		c.t.Errorf("%s ended %d times: %+v", name, o.times, o.Result)
	}
	return o
}

func (c *caller) want(name string, code wire.Code, after time.Duration) {
	c.t.Helper()
	if o := c.end(name); codeOf(o.Err) != code || o.after != after {
		c.t.Errorf("%s: got %v after %s, want %q after %s", name, o.Err, o.after, code, after)
	}
}

// pending says that a call has not ended.
func (c *caller) pending(names ...string) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		if o := c.all[name]; o.times != 0 {
			c.t.Errorf("%s has ended: %+v", name, *o)
		}
	}
}

// roomFor says that nothing of earlier calls counts any more: as many calls as
// ever may be in flight from caller to server.
func roomFor(t testing.TB, d *desk, from *node.Client, to subjects.App) {
	t.Helper()
	synctest.Wait()
	on := d.on
	d.on = nil
	before := len(d.served())
	var failed atomic.Int64
	for range wire.MaxPendingCalls {
		from.Start(to, "Do", node.Payload{}, "", time.Minute, func(r node.Result) {
			if r.Err != nil {
				failed.Add(1)
			}
		})
	}
	for _, p := range d.served()[before:] {
		p.Finish(node.Payload{}, nil)
	}
	synctest.Wait()
	if n := len(d.served()) - before; failed.Load() != 0 || n != wire.MaxPendingCalls {
		t.Errorf("afterwards %d of %d calls failed, %d were served", failed.Load(), wire.MaxPendingCalls, n)
	}
	d.on = on
}

// office is a client that calls, on node a, and one that serves Do, there or on
// node b.
type office struct {
	*hub
	a, b   *node.Node
	c      *caller
	d      *desk
	server *node.Client
	far    bool
}

// inOffices runs f with a server on the caller's node and with one elsewhere.
func inOffices(t *testing.T, f func(t *testing.T, o *office)) {
	t.Helper()
	for _, where := range []string{"a", "b"} {
		t.Run("server on "+where, func(t *testing.T) {
			inHub(t, func(t *testing.T, h *hub) {
				o := &office{hub: h, a: h.node("a"), b: h.node("b"), d: &desk{}, far: where == "b"}
				defer o.a.Stop()
				defer o.b.Stop()
				host := o.a
				if o.far {
					host = o.b
				}
				o.server = joinClient(t, host, "server")
				o.d.offer(t, o.server, "Do")
				o.c = startingWith(t, joinClient(t, o.a, "caller"))
				f(t, o)
			})
		})
	}
}

// Calls arrive in the order in which one app started them, and results find
// their calls whatever their order; each ends once.
func TestStartedCallsKeepTheirOrder(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		const n = 2000
		inFlight := make(chan struct{}, wire.MaxPendingCalls)
		var batch []*node.Pending
		o.d.on = func(p *node.Pending) {
			if batch = append(batch, p); len(batch) < 10 {
				return
			}
			for _, i := range rand.Perm(len(batch)) {
				echo(batch[i])
			}
			batch = batch[:0]
		}
		times := make([]atomic.Int64, n)
		for i := range n {
			inFlight <- struct{}{} // only so many are allowed
			o.c.Start(o.server.ID(), "do", value(i), "", time.Minute, func(r node.Result) {
				var got int
				if err := r.Value.Decode(&got); r.Err != nil || err != nil || got != i || r.Server != o.server.Identity() {
					t.Errorf("call %d: %v, %v, %v from %v", i, got, err, r.Err, r.Server)
				}
				times[i].Add(1)
				<-inFlight
			})
		}
		calls := o.d.served()
		if len(calls) != n {
			t.Fatalf("%d of %d calls came", len(calls), n)
		}
		ids := map[string]bool{}
		for i, p := range calls {
			var got int
			if err := p.Args.Decode(&got); err != nil || got != i {
				t.Fatalf("call %d is %d, %v", i, got, err)
			}
			ids[p.ID] = true
			if k := times[i].Load(); k != 1 {
				t.Errorf("call %d ended %d times", i, k)
			}
		}
		if len(ids) != n {
			t.Errorf("%d different ids", len(ids))
		}
		o.d.wantEnded(t, 0)
	})
}

// A call of Invoke takes its place among those that do not wait.
func TestInvokeKeepsItsPlace(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		work := make(chan *node.Pending, wire.MaxPendingCalls)
		o.d.on = func(p *node.Pending) { work <- p }
		go func() {
			for p := range work {
				echo(p)
			}
		}()
		defer close(work)
		const n = 200
		next := 0
		for range n {
			for range rand.IntN(4) {
				o.c.start(fmt.Sprint(next), o.server.ID(), "Do", time.Minute)
				next++
			}
			got, err := node.Invoke[string](t.Context(), o.c.App, "Do", fmt.Sprint(next))
			if err != nil || got != fmt.Sprint(next) {
				t.Fatalf("invoked %d: %q, %v", next, got, err)
			}
			next++
		}
		for i, p := range o.d.served() {
			var got string
			if err := p.Args.Decode(&got); err != nil || got != fmt.Sprint(i) {
				t.Fatalf("call %d is %q, %v", i, got, err)
			}
		}
		for name := range o.c.all {
			if e := o.c.end(name); e.Err != nil {
				t.Errorf("%s: %v", name, e.Err)
			}
		}
	})
}

// A call of Invoke that its server does not answer ends as any other, and its
// server hears of it.
func TestInvokeEndsForDeferred(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		began := time.Now()
		_, err := o.c.Invoke(t.Context(), "Do", nil, node.Timeout(2*time.Second))
		if took := time.Since(began); !errors.Is(err, wire.ErrTimeout) || took != 2*time.Second {
			t.Errorf("got %v after %s", err, took)
		}
		o.d.wantEnded(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := o.c.Invoke(ctx, "Do", nil); !errors.Is(err, wire.ErrCanceled) {
			t.Errorf("got %v", err)
		}
		o.d.wantEnded(t, 2)
		roomFor(t, o.d, o.c.Client, o.server.ID())
		time.AfterFunc(time.Second, o.server.Leave)
		if _, err := o.c.Invoke(t.Context(), "Do", nil); !errors.Is(err, wire.ErrTargetGone) {
			t.Errorf("got %v", err)
		}
		o.d.wantEnded(t, 3)
	})
}

// What a server answers is what the caller gets, near and far; what the caller
// says of the call is what the server gets.
func TestStartedCallsCarry(t *testing.T) {
	detailed := wire.Errorf(wire.AppError, "no such instrument ✓")
	detailed.Detail = `{"code":7,"text":"\u2713 ✓"}`
	inOffices(t, func(t *testing.T, o *office) {
		for name, c := range map[string]struct {
			value node.Payload
			err   error
			want  string // canonical JSON
			code  wire.Code
		}{
			"nothing": {},
			"text":    {value: value("x"), want: `"x"`},
			"json":    {value: node.Payload{Format: wire.JSON, Data: []byte(`{"a":[1,2.5,null]}`)}, want: `{"a":[1,2.5,null]}`},
			"large":   {value: value(strings.Repeat("x", 2*wire.BulkBody)), want: `"` + strings.Repeat("x", 2*wire.BulkBody) + `"`},
			"coded":   {err: wire.Errorf(wire.Denied, "not you"), code: wire.Denied},
			"detail":  {err: detailed, code: wire.AppError},
			"wrapped": {err: fmt.Errorf("outer: %w", detailed), code: wire.AppError},
		} {
			o.c.startWith(name, o.server.ID(), "dO", value(map[string]any{"name": name}), `{"of":"`+name+`"}`, time.Minute)
			p := o.d.last(t)
			if args, err := wire.Canonical(p.Args); err != nil || string(args) != `{"name":"`+name+`"}` {
				t.Errorf("%s: arguments %s, %v", name, args, err)
			}
			if p.Method != "Do" || p.Caller != o.c.Identity() || p.Claimed != "" || p.Detail != `{"of":"`+name+`"}` || p.ID == "" || p.Over() {
				t.Errorf("%s: the server got %+v", name, p.Call)
			}
			o.c.pending(name)
			if !p.Finish(c.value, c.err) || p.Finish(value("again"), nil) || !p.Over() {
				t.Errorf("%s: only the first end counts", name)
			}
			o.c.want(name, c.code, 0)
			e := o.c.end(name)
			if e.Server != o.server.Identity() {
				t.Errorf("%s: answered by %+v", name, e.Server)
			}
			if c.want == "" {
				if !e.Value.IsZero() {
					t.Errorf("%s: got %v", name, e.Value)
				}
			} else if got, err := wire.Canonical(e.Value); err != nil || string(got) != c.want {
				t.Errorf("%s: got %.100s, %v", name, got, err)
			}
			if w, ok := errors.AsType[*wire.Error](e.Err); ok && errors.Is(c.err, detailed) && w.Detail != detailed.Detail {
				t.Errorf("%s: detail %q", name, w.Detail)
			}
		}
		o.d.wantEnded(t, 0)
		roomFor(t, o.d, o.c.Client, o.server.ID())
	})
}

// A handler that waits is called by Start as a deferred server is.
func TestStartCallsHandlers(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		details := make(chan string, 10)
		for name, f := range map[string]node.Handler{
			"Echo":  func(_ context.Context, c *node.Call) (any, error) { details <- c.Detail; return c.Args, nil },
			"Fail":  func(context.Context, *node.Call) (any, error) { return nil, errors.New("boom") },
			"Panic": func(context.Context, *node.Call) (any, error) { panic("oops") },
			"Block": func(ctx context.Context, _ *node.Call) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
		} {
			if err := o.server.Register(t.Context(), node.Method{Name: name}, f); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		o.c.startWith("echo", o.server.ID(), "Echo", value("hello"), `{"a":1}`, time.Minute)
		o.c.start("fail", o.server.ID(), "Fail", time.Minute)
		o.c.start("panic", o.server.ID(), "Panic", time.Minute)
		o.c.start("slow", o.server.ID(), "Block", time.Second)
		cancel := o.c.start("canceled", o.server.ID(), "Block", time.Minute)
		o.c.want("echo", "", 0)
		if e := o.c.end("echo"); e.Value.String() != value("hello").String() || <-details != `{"a":1}` {
			t.Errorf("got %v", e.Value)
		}
		o.c.want("fail", wire.AppError, 0)
		o.c.want("panic", wire.AppError, 0)
		o.c.pending("slow", "canceled")
		cancel(wire.ErrCanceled)
		o.c.want("canceled", wire.Canceled, 0)
		time.Sleep(2 * time.Second)
		o.c.want("slow", wire.Timeout, time.Second)
		if n := o.b.Stats().Interop.CallsServed + o.a.Stats().Interop.CallsServed; n != 5 {
			t.Errorf("%d calls were served", n)
		}
	})
}

// What cannot be called ends at once, before Start returns.
func TestStartRefusals(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		if _, err := o.server.OfferStream(node.Method{Name: "Ticks"}, node.StreamOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := o.server.Offer(node.Method{Name: "Ticks"}, o.d); !errors.Is(err, wire.ErrRejected) {
			t.Errorf("a name twice: %v", err)
		}
		settle(t, o.server)
		gone := joinClient(t, o.a, "gone")
		gone.Leave()
		left := startingWith(t, gone)
		stranger := subjects.NewApp("nowhere", 1)
		for _, c := range []struct {
			name   string
			from   *caller
			target subjects.App
			method string
			code   wire.Code
		}{
			{"no such app", o.c, stranger, "Do", wire.TargetGone},
			{"an app that left", o.c, gone.ID(), "Do", wire.TargetGone},
			{"no such method", o.c, o.server.ID(), "Dont", wire.NoServer},
			{"no name", o.c, o.server.ID(), "", wire.NoServer},
			{"a stream", o.c, o.server.ID(), "Ticks", wire.NoServer},
			{"its own app", o.c, o.c.ID(), "Do", wire.NoServer},
			{"after leaving", left, o.server.ID(), "Do", wire.TargetGone},
		} {
			cancel := c.from.start(c.name, c.target, c.method, time.Minute)
			c.from.mu.Lock()
			if n := c.from.all[c.name].times; n != 1 {
				t.Errorf("%s: ended %d times when Start returned", c.name, n)
			}
			c.from.mu.Unlock()
			cancel(wire.ErrCanceled)
			c.from.want(c.name, c.code, 0)
		}
		large := node.Payload{Data: value(strings.Repeat("x", 9<<20)).Data}
		o.c.startWith("too large", o.server.ID(), "Do", large, "", time.Minute)
		if o.far {
			o.c.want("too large", wire.Limit, 0)
		} else {
			echo(o.d.last(t))
			o.c.want("too large", "", 0)
		}
		if err := o.server.Withdraw("DO"); err != nil {
			t.Fatal(err)
		}
		settle(t, o.server)
		o.c.start("withdrawn", o.server.ID(), "Do", time.Minute)
		o.c.want("withdrawn", wire.NoServer, 0)
		if err := o.server.Withdraw("Do"); !errors.Is(err, wire.ErrNoServer) {
			t.Errorf("withdrawn twice: %v", err)
		}
		o.d.wantEnded(t, 0)
	})
}

// A call ends when its time is up, also for its server, and then once for all.
func TestStartedCallTimesOut(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		cancel := o.c.start("slow", o.server.ID(), "Do", 2*time.Second)
		o.c.start("other", o.server.ID(), "Do", 3*time.Second)
		p := o.d.served()[0]
		time.Sleep(2*time.Second - time.Millisecond)
		o.c.pending("slow")
		if p.Over() {
			t.Error("the server heard too early")
		}
		time.Sleep(100 * time.Millisecond)
		o.c.want("slow", wire.Timeout, 2*time.Second)
		o.d.wantEnded(t, 1)
		if p.Finish(value("late"), nil) {
			t.Error("a result counts after the end")
		}
		cancel(wire.ErrCanceled)
		o.c.want("slow", wire.Timeout, 2*time.Second)
		o.c.pending("other")
		echo(o.d.last(t))
		o.c.want("other", "", 2*time.Second+99*time.Millisecond)
		time.Sleep(5 * time.Second)
		o.d.wantEnded(t, 1)
		roomFor(t, o.d, o.c.Client, o.server.ID())
	})
}

// Who cancels is heard at once by both sides.
func TestStartedCallCanceled(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		why := wire.Errorf(wire.Canceled, "the user changed his mind")
		cancel := o.c.start("canceled", o.server.ID(), "Do", time.Minute)
		o.c.start("other", o.server.ID(), "Do", time.Minute)
		if len(o.d.served()) != 2 {
			t.Fatal("the calls did not come")
		}
		time.Sleep(time.Second)
		cancel(why)
		cancel(wire.ErrBusy)
		o.c.want("canceled", wire.Canceled, time.Second)
		if e := o.c.end("canceled"); !errors.Is(e.Err, why) {
			t.Errorf("got %v", e.Err)
		}
		o.d.wantEnded(t, 1)
		other := o.d.last(t)
		if other.Over() {
			t.Error("the other call has ended, too")
		}
		echo(other)
		o.c.want("other", "", time.Second)
		done := o.c.start("done", o.server.ID(), "Do", time.Minute)
		echo(o.d.last(t))
		synctest.Wait()
		done(why) // nothing to cancel any more
		o.c.want("done", "", time.Second)
		o.d.wantEnded(t, 1)
		roomFor(t, o.d, o.c.Client, o.server.ID())
	})
}

// A call that is canceled while it is on its way must not stay with its server
// until its time is up: the cancellation may come first.
func TestStartedCallCanceledOnItsWay(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		if !o.far {
			return // it is on its way for no time
		}
		const n = 200
		resume := o.line("b").Stall()
		for i := range n {
			name := fmt.Sprint(i)
			cancel := o.c.start(name, o.server.ID(), "Do", 10*time.Minute)
			o.c.pending(name)
			cancel(wire.ErrCanceled)
			o.c.want(name, wire.Canceled, 0)
		}
		resume()
		time.Sleep(5 * time.Second)
		for _, p := range o.d.served() {
			if !p.Over() {
				t.Fatal("the server still works on a call that was canceled")
			}
		}
		o.d.wantEnded(t, len(o.d.served()))
		roomFor(t, o.d, o.c.Client, o.server.ID())
	})
}

// Who leaves takes calls along, on both sides and at once.
func TestStartedCallsEndWithTheirApps(t *testing.T) {
	for _, who := range []string{"caller", "server", "caller's node", "server's node"} {
		t.Run(who, func(t *testing.T) {
			inOffices(t, func(t *testing.T, o *office) {
				if !o.far && who == "server's node" {
					return // it is the caller's
				}
				for i := range 3 {
					o.c.start(fmt.Sprint(i), o.server.ID(), "Do", 5*time.Minute)
				}
				other := startingWith(t, joinClient(t, o.b, "other"))
				other.start("mine", o.server.ID(), "Do", 5*time.Minute)
				if n := len(o.d.served()); n != 4 {
					t.Fatalf("%d calls came", n)
				}
				time.Sleep(time.Second)
				switch who {
				case "caller":
					o.c.Leave()
				case "server":
					o.server.Leave()
				case "caller's node":
					o.a.Stop()
				case "server's node":
					o.b.Stop()
				}
				for i := range 3 {
					o.c.want(fmt.Sprint(i), wire.TargetGone, time.Second)
				}
				time.Sleep(time.Second)
				if who == "caller" || who == "caller's node" && o.far {
					o.d.wantEnded(t, 3)
					other.pending("mine")
					echo(o.d.last(t))
					if e := other.end("mine"); e.Err != nil {
						t.Errorf("the other caller: %v", e.Err)
					}
				} else {
					o.d.wantEnded(t, 4)
					if e := other.end("mine"); !errors.Is(e.Err, wire.ErrTargetGone) {
						t.Errorf("the other caller: %v", e.Err)
					}
				}
			})
		})
	}
}

// A method that is withdrawn still answers the calls that it has.
func TestWithdrawnMethodAnswers(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		o.c.start("first", o.server.ID(), "Do", time.Minute)
		o.c.start("second", o.server.ID(), "Do", time.Minute)
		calls := o.d.served()
		if err := o.server.Withdraw("Do"); err != nil {
			t.Fatal(err)
		}
		settle(t, o.server)
		o.c.pending("first", "second")
		if !calls[1].Finish(value("late"), nil) {
			t.Error("the call has ended before")
		}
		o.c.want("second", "", 0)
		// One that is offered anew does not have the old calls.
		again := &desk{}
		again.offer(t, o.server, "Do")
		o.c.start("third", o.server.ID(), "Do", time.Minute)
		echo(again.last(t))
		o.c.want("third", "", 0)
		o.c.pending("first")
		echo(calls[0])
		o.c.want("first", "", 0)
		o.d.wantEnded(t, 0)
		again.wantEnded(t, 0)
	})
}

// Limits are for the caller and for the server; above them the answer is busy at
// once, and what has ended does not count.
func TestStartedCallsAreLimited(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		for i := range wire.MaxPendingCalls {
			o.c.start(fmt.Sprint(i), o.server.ID(), "Do", time.Minute)
		}
		other := startingWith(t, joinClient(t, o.a, "other"))
		o.c.start("one more", o.server.ID(), "Do", time.Minute)
		o.c.want("one more", wire.Busy, 0)
		if n := len(o.d.served()); n != wire.MaxPendingCalls {
			t.Errorf("%d calls came", n)
		}
		if _, err := o.c.Invoke(t.Context(), "Do", nil); !errors.Is(err, wire.ErrBusy) {
			t.Errorf("invoked above the limit: %v", err)
		}
		other.start("another", o.server.ID(), "Do", time.Minute)
		if e := other.end("another"); !errors.Is(e.Err, wire.ErrBusy) {
			t.Errorf("above the server's limit: %v", e.Err)
		}
		if n := len(o.d.served()); n != wire.MaxPendingCalls {
			t.Errorf("the server got %d calls", n)
		}
		o.d.wantEnded(t, 0) // what was refused never came
		echo(o.d.served()[500])
		o.c.want("500", "", 0)
		other.start("room", o.server.ID(), "Do", time.Minute)
		if n := len(o.d.served()); n != wire.MaxPendingCalls+1 {
			t.Errorf("%d calls came when there was room again", n)
		}
		o.c.start("and here", o.server.ID(), "Do", time.Minute)
		o.c.want("and here", wire.Busy, 0) // the server's limit now
		time.Sleep(2 * time.Minute)
		o.d.wantEnded(t, wire.MaxPendingCalls)
		o.c.want("999", wire.Timeout, time.Minute)
		roomFor(t, o.d, o.c.Client, o.server.ID())
	})
}

// Only the first end of a call counts, whoever is first.
func TestStartedCallEndsOnce(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		const rounds = 40
		var finished atomic.Int64
		var wg sync.WaitGroup
		o.d.on = func(p *node.Pending) {
			wg.Go(func() {
				if p.Finish(p.Args, nil) {
					finished.Add(1)
				}
			})
			wg.Go(func() {
				if p.Finish(node.Payload{}, wire.ErrRejected) {
					finished.Add(1)
				}
			})
		}
		codes := map[wire.Code]int{}
		for round := range rounds {
			for i := range 10 {
				cancel := o.c.start(fmt.Sprint(round, i), o.server.ID(), "Do", time.Minute)
				if i%2 == 0 {
					wg.Go(func() { cancel(wire.ErrCanceled) })
				}
				if i%3 == 0 {
					cancel(wire.ErrCanceled)
				}
			}
			synctest.Wait()
		}
		wg.Wait()
		for round := range rounds {
			for i := range 10 {
				codes[codeOf(o.c.end(fmt.Sprint(round, i)).Err)]++
			}
		}
		calls := o.d.served()
		o.d.mu.Lock()
		ended := len(o.d.ended)
		o.d.mu.Unlock()
		if int(finished.Load())+ended != len(calls) {
			t.Errorf("of %d calls %d were finished and %d ended", len(calls), finished.Load(), ended)
		}
		if codes[""]+codes[wire.Rejected]+codes[wire.Canceled] != 10*rounds {
			t.Errorf("outcomes %v", codes)
		}
		o.d.wantEnded(t, ended)
		o.d.on = nil
		roomFor(t, o.d, o.c.Client, o.server.ID())
	})
}

// A call whose time is up before it starts is not left with the server.
func TestStartWithoutTime(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		for i, d := range []time.Duration{0, -time.Second, 1} {
			o.c.start(fmt.Sprint(i), o.server.ID(), "Do", d)
		}
		time.Sleep(time.Second)
		for i := range 3 {
			if e := o.c.end(fmt.Sprint(i)); !errors.Is(e.Err, wire.ErrTimeout) || e.after > time.Millisecond {
				t.Errorf("%d: %v after %s", i, e.Err, e.after)
			}
		}
		for i, p := range o.d.served() {
			if !p.Over() {
				t.Errorf("the server still works on call %d", i)
			}
		}
		roomFor(t, o.d, o.c.Client, o.server.ID())
	})
}

// With the connection gone, calls in flight wait for their time or for the
// directory; calls within the node go on, and all is well afterwards.
func TestStartedCallsThroughAnOutage(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		o.c.start("short", o.server.ID(), "Do", 4*time.Second)
		o.c.start("long", o.server.ID(), "Do", 5*time.Minute)
		calls := o.d.served()
		o.line("a").Cut()
		time.Sleep(time.Second)
		o.c.start("offline", o.server.ID(), "Do", time.Minute)
		if !o.far {
			echo(o.d.last(t))
			o.c.want("offline", "", time.Second)
			echo(calls[0])
			echo(calls[1])
			o.c.want("short", "", time.Second)
			o.c.want("long", "", time.Second)
			return
		}
		o.c.want("offline", wire.Offline, time.Second)
		if !calls[0].Finish(value("lost"), nil) { // its server cannot know
			t.Error("the call has ended")
		}
		time.Sleep(4 * time.Second)
		o.c.want("short", wire.Timeout, 4*time.Second)
		o.c.pending("long")
		time.Sleep(20 * time.Second) // what cannot be reached is removed meanwhile
		e := o.c.end("long")
		if !errors.Is(e.Err, wire.ErrTargetGone) {
			t.Errorf("got %v after %s", e.Err, e.after)
		}
		o.line("a").Heal()
		time.Sleep(8 * time.Second)
		o.c.start("after", o.server.ID(), "Do", time.Minute)
		echo(o.d.last(t))
		if e := o.c.end("after"); e.Err != nil {
			t.Errorf("after the outage: %v", e.Err)
		}
		calls[1].Finish(value("much too late"), nil)
		o.c.end("long")
		roomFor(t, o.d, o.c.Client, o.server.ID())
	})
}

// The connection breaks while calls and results are on their way: each ends once,
// with its own result or with none.
func TestStartedCallsOverABreakingLine(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		if !o.far {
			return
		}
		o.d.on = echo
		n := 0
		for round := range 6 {
			for range 50 {
				o.c.start(fmt.Sprint(n), o.server.ID(), "Do", 10*time.Second)
				n++
				if round%2 == 1 {
					time.Sleep(time.Millisecond)
				}
			}
			l := o.line([]string{"a", "b"}[round%2])
			l.Cut()
			time.Sleep(300 * time.Millisecond)
			l.Heal()
			time.Sleep(8 * time.Second)
		}
		time.Sleep(10 * time.Second)
		results := 0
		for i := range n {
			e := o.c.end(fmt.Sprint(i))
			switch {
			case e.Err == nil && e.Value.String() == value(fmt.Sprint(i)).String():
				results++
			case e.Err == nil:
				t.Errorf("call %d has the result %v", i, e.Value)
			case codeOf(e.Err) != wire.Timeout && codeOf(e.Err) != wire.Offline && codeOf(e.Err) != wire.TargetGone:
				t.Errorf("call %d: %v", i, e.Err)
			}
		}
		if results == 0 {
			t.Error("no call succeeded, so this tests nothing")
		}
		roomFor(t, o.d, o.c.Client, o.server.ID())
	})
}

// A node that is gone without a word has no responders: the call was executed
// nowhere, which its caller hears at once.
func TestStartToADeadNode(t *testing.T) {
	inOffices(t, func(t *testing.T, o *office) {
		if !o.far {
			return
		}
		o.c.start("under way", o.server.ID(), "Do", 5*time.Minute)
		o.d.last(t)
		o.line("b").Cut()
		synctest.Wait()
		o.c.start("after", o.server.ID(), "Do", time.Minute)
		o.c.want("after", wire.TargetGone, 0)
		o.c.pending("under way")
		time.Sleep(30 * time.Second)
		// It is asked at once whether it is there, and gone before its lease lapses.
		if e := o.c.end("under way"); !errors.Is(e.Err, wire.ErrTargetGone) || e.after > 8*time.Second {
			t.Errorf("got %v after %s", e.Err, e.after)
		}
		if n := o.a.Stats().Interop.CallsFailed; n != 2 {
			t.Errorf("%d calls failed", n)
		}
	})
}

// What NATS permissions forbid is denied at once.
func TestStartDenied(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := subjects.NodePermissions(realm, "a")
		allow := p.Publish[:0:0]
		for _, s := range p.Publish {
			if !strings.HasPrefix(s, "weft.desk.call.") {
				allow = append(allow, s)
			}
		}
		if len(allow) == len(p.Publish) {
			t.Fatalf("nothing is taken away of %q", p.Publish)
		}
		srv, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), MaxPayload: 8 << 20, Users: []*server.User{
			{Username: "b", Password: "pw"},
			{Username: "a", Password: "pw", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: allow}, Subscribe: &server.SubjectPermission{Allow: p.Subscribe},
			}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		defer srv.WaitForShutdown()
		defer srv.Shutdown()
		admin := dial(t, srv, "b")
		if err := provision(t.Context(), admin); err != nil {
			t.Fatal(err)
		}
		admin.Close()
		a, b := startAs(t, srv, "a"), startAs(t, srv, "b")
		defer a.Stop()
		defer b.Stop()
		far, near := joinClient(t, b, "far"), joinClient(t, a, "near")
		d := &desk{on: echo}
		d.offer(t, far, "Do")
		d.offer(t, near, "Do")
		c, back := startingWith(t, joinClient(t, a, "caller")), startingWith(t, joinClient(t, b, "caller"))
		for i := range 3 {
			c.start(fmt.Sprint("far ", i), far.ID(), "Do", time.Minute)
		}
		c.start("near", near.ID(), "Do", time.Minute)
		back.start("back", near.ID(), "Do", time.Minute)
		for i := range 3 {
			c.want(fmt.Sprint("far ", i), wire.Denied, 0)
		}
		c.want("near", "", 0)
		back.want("back", "", 0)
	})
}

// A deferred method is for plain NATS clients what any other is.
func TestDeferredMethodFromOutside(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		nc := fb.client()
		defer nc.Close()
		d := &desk{}
		server := joinClient(t, a, "server")
		d.offer(t, server, "Do")
		time.Sleep(2 * time.Second) // both nodes have joined the group
		r := subjects.Realm(realm)
		do := subjects.MustEncode("Do")
		direct, ask := string(r.CallSubject("a", "me", server.ID(), do)), string(r.AskSubject("me", do))
		inbox, err := nc.SubscribeSync("replies.*")
		if err != nil {
			t.Fatal(err)
		}
		send := func(name, subject, body string, header nats.Header) {
			t.Helper()
			if err := nc.PublishMsg(&nats.Msg{Subject: subject, Reply: "replies." + name, Header: header, Data: []byte(body)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		reply := func(name, code, body string) {
			t.Helper()
			m, err := inbox.NextMsgWithContext(within(t, time.Minute))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := m.Header.Get(wire.HeaderErrorCode); m.Subject != "replies."+name || got != code || body != "" && string(m.Data) != body || code != "" && m.Header.Get(wire.HeaderError) == "" {
				t.Errorf("%s: %s is %q %v", name, m.Subject, m.Data, m.Header)
			}
		}
		last := func(name string) *node.Pending {
			t.Helper()
			p := d.last(t)
			if p.Over() {
				t.Errorf("%s: no new call came", name)
			}
			return p
		}
		asJSON := func(more nats.Header) nats.Header {
			h := nats.Header{"Content-Type": {"application/json"}}
			maps.Copy(h, more)
			return h
		}

		for i, subject := range []string{direct, ask} {
			id := nats.Header{wire.HeaderID: {fmt.Sprintf("%022d", i)}}
			before := len(d.served())
			send("first", subject, `{"a":1}`, asJSON(id))
			p := last(subject)
			if args, err := wire.Canonical(p.Args); err != nil || string(args) != `{"a":1}` || p.Caller.Application != "me" || p.Caller.Node != "me" || p.Caller.App != "" || p.Claimed != "" {
				t.Errorf("%s: the server got %+v, %v", subject, p.Call, err)
			}
			send("again", subject, `{"a":1}`, asJSON(id))
			reply("again", string(wire.Rejected), "")
			echo(p)
			reply("first", "", `{"a":1}`)
			send("again", subject, `{"a":1}`, asJSON(id))
			reply("again", string(wire.Rejected), "")
			if n := len(d.served()) - before; n != 1 {
				t.Errorf("%s: %d calls came", subject, n)
			}
		}
		// The id is that of its caller: another may use the same.
		other := string(r.CallSubject("a", "another", server.ID(), do))
		id := nats.Header{wire.HeaderID: {strings.Repeat("x", 22)}}
		send("mine", direct, "", id)
		mine := last("mine")
		send("other", other, "", id)
		if p := last("other"); p == mine || p.Caller.Application != "another" {
			t.Errorf("the server got %+v", p.Call)
		}
		echo(d.last(t))
		reply("other", "", "")
		echo(mine)
		reply("mine", "", "")

		// Only its own caller can cancel a call, also one of two with the same id.
		cancel := func(from string) {
			t.Helper()
			body, err := wire.Marshal(wire.CancelRequest{ID: id.Get(wire.HeaderID)})
			if err != nil {
				t.Fatal(err)
			}
			if err := nc.Publish(string(r.CtlSubject("a", subjects.Node(from), subjects.VerbCancel)), body); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		id = nats.Header{wire.HeaderID: {strings.Repeat("y", 22)}}
		send("mine", direct, "", id)
		mine = last("mine")
		send("other", other, "", id)
		theirs := last("other")
		cancel("stranger")
		if mine.Over() || theirs.Over() {
			t.Error("a stranger canceled a call")
		}
		cancel("me")
		reply("mine", string(wire.Canceled), "")
		if !mine.Over() || theirs.Over() {
			t.Errorf("canceled one of two: mine %v, theirs %v", mine.Over(), theirs.Over())
		}
		cancel("another")
		reply("other", string(wire.Canceled), "")
		d.wantEnded(t, 2)

		// A cancellation that comes before its call counts, for that call.
		id = nats.Header{wire.HeaderID: {strings.Repeat("z", 22)}}
		before := len(d.served())
		cancel("me")
		send("mine", direct, "", id)
		reply("mine", string(wire.Canceled), "")
		if n := len(d.served()) - before; n != 0 {
			t.Error("a call that was canceled before came to its server")
		}
		send("other", other, "", id)
		echo(last("other"))
		reply("other", "", "")

		for name, subject := range map[string]string{"direct": direct, "ask": ask} {
			before, began := len(d.served()), time.Now()
			send(name, subject, "", nats.Header{wire.HeaderDeadline: {"1500"}})
			p := last(name)
			reply(name, string(wire.Timeout), "")
			synctest.Wait()
			if took := time.Since(began); took != 1500*time.Millisecond || !p.Over() {
				t.Errorf("%s: after %s, over: %v", name, took, p.Over())
			}
			for _, text := range []string{"soon", "0", "-1", "1.5", "9223372036854775808"} {
				send(name, subject, "", nats.Header{wire.HeaderDeadline: {text}})
				reply(name, string(wire.BadPayload), "")
			}
			send(name, subject, "", nats.Header{wire.HeaderDeadline: {"600001"}})
			reply(name, string(wire.Limit), "")
			send(name, subject, "", nats.Header{wire.HeaderDeadline: {"600000"}})
			echo(last(name))
			reply(name, "", "")
			if n := len(d.served()) - before; n != 2 {
				t.Errorf("%s: %d calls came", name, n)
			}
		}
		d.wantEnded(t, 4)

		before = len(d.served())
		for name, c := range map[string]struct {
			header nats.Header
			body   string
			code   wire.Code
		}{
			"array":   {header: nats.Header{wire.HeaderDetail: {`[{}]`}}, code: wire.BadPayload},
			"text":    {header: nats.Header{wire.HeaderDetail: {`hello`}}, code: wire.BadPayload},
			"null":    {header: nats.Header{wire.HeaderDetail: {`null`}}, code: wire.BadPayload},
			"cut":     {header: nats.Header{wire.HeaderDetail: {`{"a":`}}, code: wire.BadPayload},
			"two":     {header: nats.Header{wire.HeaderDetail: {`{}{}`}}, code: wire.BadPayload},
			"deep":    {header: nats.Header{wire.HeaderDetail: {`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`}}, code: wire.BadPayload},
			"long":    {header: nats.Header{wire.HeaderDetail: {`{"a":"` + strings.Repeat("x", wire.MaxDetail) + `"}`}}, code: wire.Limit},
			"long id": {header: nats.Header{wire.HeaderID: {strings.Repeat("x", 129)}}, code: wire.BadPayload},
			"bomb":    {body: "\xdd\x7f\xff\xff\xff\xc0", code: wire.BadPayload},
			"type":    {header: nats.Header{"Content-Type": {"text/plain"}}, code: wire.BadPayload},
		} {
			token := strings.ReplaceAll(name, " ", "-")
			send(token, direct, c.body, c.header)
			reply(token, string(c.code), "")
		}
		if n := len(d.served()) - before; n != 0 {
			t.Errorf("%d hostile calls came", n)
		}
		send("good", direct, "", nats.Header{wire.HeaderDetail: {`{"a":[1]}`}})
		if p := last("good"); p.Detail != `{"a":[1]}` {
			t.Errorf("detail %q", p.Detail)
		}
		echo(d.last(t))
		reply("good", "", "")

		// Whose app is calling, the directory says, not the sender; an app that it
		// has on another node cannot even be claimed.
		known := joinClient(t, b, "known")
		for name, c := range map[string]struct {
			app     string
			claimed subjects.App
		}{
			"nobody": {"", ""}, "no app": {"a.>", ""}, "not known": {"later-7", "later-7"}, "of another": {string(known.ID()), ""}, "server": {string(server.ID()), ""},
		} {
			token := strings.ReplaceAll(name, " ", "-")
			send(token, direct, "", nats.Header{wire.HeaderApp: {c.app}})
			if p := last(name); p.Caller.App != "" || p.Caller.Node != "me" || p.Claimed != c.claimed {
				t.Errorf("%s: caller %+v, claimed %q, want %q", name, p.Caller, p.Claimed, c.claimed)
			}
			echo(d.last(t))
			reply(token, "", "")
		}
		if inFlight := len(d.served()); inFlight == 0 {
			t.Error("no call came")
		}
	})
}

// Exactly is one app, whoever else offers the same.
func TestExactly(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		near, far, mine := serveAs(t, a, "near", "Who"), serveAs(t, b, "far", "Who"), join(t, a, "mine")
		synctest.Wait()
		for _, app := range []*node.App{far, near} {
			if got := answers(t, mine, "who", 3, node.Exactly(app.ID())); got[app.Identity().Application] != 3 {
				t.Errorf("got %v", got)
			}
			s, err := app.CreateStream(t.Context(), node.Method{Name: "S"}, node.StreamOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
		}
		synctest.Wait()
		for _, app := range []*node.App{far, near} {
			sub, err := mine.Subscribe(t.Context(), "S", nil, node.Exactly(app.ID()))
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(sub.Servers()); got != fmt.Sprint([]node.Identity{app.Identity()}) {
				t.Errorf("subscribed to %s", got)
			}
			sub.Close()
		}
		if results, err := mine.Invoke(t.Context(), "Who", nil, node.Exactly(mine.ID())); !errors.Is(err, wire.ErrNoServer) || len(results) != 0 {
			t.Errorf("an app that does not offer it: %v, %v", results, err)
		}
		if _, err := mine.Subscribe(t.Context(), "S", nil, node.Exactly(mine.ID())); !errors.Is(err, wire.ErrNoServer) {
			t.Errorf("a stream that the app does not offer: %v", err)
		}
		far.Leave()
		synctest.Wait()
		if _, err := mine.Invoke(t.Context(), "Who", nil, node.Exactly(far.ID()), node.Wait(time.Second)); !errors.Is(err, wire.ErrNoServer) {
			t.Errorf("an app that left: %v", err)
		}
		later := join(t, b, "later")
		time.AfterFunc(time.Second, func() {
			if err := later.Register(t.Context(), node.Method{Name: "Who"}, func(context.Context, *node.Call) (any, error) { return "later", nil }); err != nil {
				t.Error(err)
			}
		})
		if got := answers(t, mine, "Who", 1, node.Exactly(later.ID()), node.Wait(time.Minute)); got["later"] != 1 {
			t.Errorf("got %v", got)
		}
	})
}

// A gateway client keeps its claims, but not about where it is.
func TestJoinClient(t *testing.T) {
	inFabric(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		var told subjects.App
		c, err := a.Realm().JoinClient(func(app subjects.App) node.Identity {
			told = app
			return node.Identity{ApplicationName: "name", User: "login", Extra: `{"desk":"FX"}`, OSUser: "forged", Machine: "forged", Node: "forged", App: "forged", Instance: string(app)}
		})
		if err != nil {
			t.Fatal(err)
		}
		settle(t, c)
		id := c.Identity()
		if told != c.ID() || id.App != string(told) || id.Instance != string(told) || id.User != "login" || id.Node != "a" || id.Machine != "machine-a" || id.OSUser == "forged" || id.OSUser == "" || id.PID != 0 {
			t.Errorf("joined as %+v", id)
		}
		plain := join(t, a, "plain")
		if p := plain.Identity(); p.OSUser != id.OSUser || p.User != id.OSUser {
			t.Errorf("another app is %+v", p)
		}
		changed := b.Realm().Changed()
		if err := c.SetDomains(map[string]string{"global": "", "agm": "x"}); err != nil {
			t.Fatal(err)
		}
		if err := c.SetChannels([]string{"Red", "Blue"}); err != nil {
			t.Fatal(err)
		}
		d := &desk{on: echo}
		if err := c.Offer(node.Method{Name: "Do", ID: "7", Restrictions: "x", Extra: `{"y":1}`}, d); err != nil {
			t.Fatal(err)
		}
		settle(t, c)
		select {
		case <-changed:
		default:
			t.Error("the view of b did not change")
		}
		app, ok := b.Realm().View().App(c.ID())
		if !ok || app.Identity != id || fmt.Sprint(app.Domains, app.Channels) != "map[agm:x global:] [Red Blue]" || len(app.Methods) != 1 {
			t.Fatalf("b sees %+v", app)
		}
		if m := app.Methods[0]; m.ID != "7" || m.Restrictions != "x" || m.Extra != `{"y":1}` || m.Streaming {
			t.Errorf("the method is %+v", m)
		}
		far := startingWith(t, joinClient(t, b, "far"))
		far.start("call", c.ID(), "Do", time.Minute)
		far.want("call", "", 0)
		if p := d.last(t); p.Caller.User != "login" || p.Caller.Application != "far" || p.Caller.Node != "b" {
			t.Errorf("called by %+v", p.Caller)
		}
		c.Leave()
		synctest.Wait()
		if _, ok := b.Realm().View().App(c.ID()); ok {
			t.Error("b still sees it")
		}
		for name, id := range map[string]node.Identity{"not text": {Application: "\xff"}, "too long": {Application: strings.Repeat("x", 256)}} {
			if _, err := a.Realm().JoinClient(func(subjects.App) node.Identity { return id }); !errors.Is(err, wire.ErrBadName) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := c.SetDomains(nil); !errors.Is(err, wire.ErrTargetGone) {
			t.Errorf("after leaving: %v", err)
		}
		if err := c.Offer(node.Method{Name: "Late"}, d); !errors.Is(err, wire.ErrTargetGone) {
			t.Errorf("after leaving: %v", err)
		}
	})
}
