package node_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// servers lists the applications that a reader is subscribed to.
func (r *reader) servers() string {
	synctest.Wait()
	var names []string
	for _, s := range r.sub.Servers() {
		names = append(names, s.Application)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestAllIncludesLaterServers(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b := h.node("a"), h.node("b")
		defer a.Stop()
		defer b.Stop()
		one, two, me := join(t, a, "one"), join(t, b, "two"), join(t, b, "me")
		s1 := offer(t, one, node.StreamOptions{})
		mine := offer(t, me, node.StreamOptions{})
		all := subscribe(t, me, "S", nil, node.All)
		others := subscribe(t, me, "S", nil, node.SkipMine)
		some := subscribe(t, me, "S", nil, node.Instances(node.Filter{"application": "TWO"}, node.Filter{"application": "one"}))
		if all.servers() != "me one" || others.servers() != "one" || some.servers() != "one" {
			t.Errorf("at first: %q, %q, %q", all.servers(), others.servers(), some.servers())
		}
		s2 := offer(t, two, node.StreamOptions{})
		time.Sleep(time.Second)
		if all.servers() != "me one two" || others.servers() != "one two" || some.servers() != "one" {
			t.Errorf("later: %q, %q, %q", all.servers(), others.servers(), some.servers())
		}
		for _, s := range []*node.Stream{s1, s2, mine} {
			push(t, s, 1, 2)
		}
		one.Leave()
		time.Sleep(time.Second)
		if all.servers() != "me two" || others.servers() != "two" || some.servers() != "" {
			t.Errorf("one left: %q, %q, %q", all.servers(), others.servers(), some.servers())
		}
		<-some.done // nobody can come any more
		push(t, s2, 3, 3)
		for _, r := range []*reader{all, others, some} {
			for _, v := range r.verify(t, nil) {
				if v.lost != 0 || v.data < 2 {
					t.Errorf("%s: %+v", r.name, v)
				}
			}
		}
	})
}

// A publisher that says no to one subscription is not asked again and again; a
// stream that is made anew is subscribed again by all, though not by best.
func TestStreamMadeAnew(t *testing.T) {
	onStage(t, node.StreamOptions{Snapshot: 1}, func(t *testing.T, st *stage) {
		near, far := subscribe(t, st.near, "S", nil, node.All), subscribe(t, st.far, "S", nil, node.All)
		best := subscribe(t, st.far, "S", nil)
		push(t, st.s, 1, 2)
		synctest.Wait()
		st.s.Close()
		if err := st.s.Push(3); !errors.Is(err, wire.ErrUnavailable) {
			t.Errorf("push to a closed stream: %v", err)
		}
		s := offer(t, st.pub, node.StreamOptions{})
		<-best.done
		time.Sleep(5 * time.Second)
		push(t, s, 1, 1)
		want(t, near, "S0 1 2 closed:target-gone S0 1")
		want(t, far, "S0 1 2 closed:target-gone S0 1")
		want(t, best, "S0 1 2 closed:target-gone")
		for _, c := range s.Subscribers() {
			c.Close("")
		}
		time.Sleep(time.Minute)
		want(t, far, "S0 1 2 closed:target-gone S0 1 closed:canceled")
	})
}

func TestBestPrefersThisMachineAndGoesOn(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a, b, c := h.nodeOn("a", "m1"), h.nodeOn("b", "m2"), h.nodeOn("c", "m1")
		defer a.Stop()
		defer b.Stop()
		defer c.Stop()
		me := join(t, c, "me")
		offer(t, join(t, b, "away"), node.StreamOptions{})
		offer(t, join(t, a, "here"), node.StreamOptions{})
		for range 4 {
			if r := subscribe(t, me, "S", nil); r.servers() != "here" {
				t.Errorf("chose %q", r.servers())
			}
		}
		h.line("a").Cut()
		synctest.Wait() // now the server knows
		started := time.Now()
		r := subscribe(t, me, "S", nil)
		if r.servers() != "away" || time.Since(started) > time.Second {
			t.Errorf("chose %q after %s", r.servers(), time.Since(started))
		}
		if strings.Contains(r.text(), "closed") {
			t.Errorf("saw %s", r.text())
		}
		h.line("a").Heal()
	})
}

// One server that does not answer keeps nobody from the others.
func TestAllDoesNotWaitForTheSlowest(t *testing.T) {
	onStage(t, node.StreamOptions{}, func(t *testing.T, st *stage) {
		hang := node.StreamOptions{OnRequest: func(ctx context.Context, _ *node.SubscriptionRequest) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}}
		offer(t, join(t, st.a, "slow"), hang)
		offer(t, join(t, st.b, "slow"), hang)
		started := time.Now()
		all := subscribe(t, st.far, "S", nil, node.All)
		some := subscribe(t, st.near, "S", nil, node.Instances(node.Filter{"application": "slow"}, node.Filter{"application": "pub"}))
		if took := time.Since(started); took > time.Second {
			t.Errorf("took %s", took)
		}
		time.Sleep(time.Second)
		st.s.Close()
		<-some.done // though the slow ones never accepted
		if got := some.text(); !strings.HasPrefix(got, "S0 closed:target-gone closed:") {
			t.Errorf("saw %s", got)
		}
		all.sub.Close()
	})
}

// The publisher goes while it decides: the subscriber need not wait longer.
func TestPublisherGoesWhileDeciding(t *testing.T) {
	onStage(t, node.StreamOptions{OnRequest: func(context.Context, *node.SubscriptionRequest) (string, error) {
		time.Sleep(time.Minute)
		return "", nil
	}}, func(t *testing.T, st *stage) {
		var wg sync.WaitGroup
		for _, app := range []*node.App{st.near, st.far} {
			wg.Go(func() {
				started := time.Now()
				_, err := app.Subscribe(t.Context(), "S", nil)
				if took := time.Since(started); !errors.Is(err, wire.ErrTargetGone) || took > 3*time.Second {
					t.Errorf("%s: %v after %s", app.Identity().Application, err, took)
				}
			})
		}
		time.Sleep(time.Second)
		st.pub.Leave()
		wg.Wait()
	})
}

// One app's subscription that is given up while the node begins to listen must
// not take another's with it.
func TestSharedBranchSurvivesItsFirstSubscriber(t *testing.T) {
	onStage(t, node.StreamOptions{}, func(t *testing.T, st *stage) {
		other := join(t, st.b, "other")
		for i := range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				if s, err := st.far.Subscribe(ctx, "S", nil); err == nil {
					s.Close()
				}
			})
			wg.Go(func() {
				s, err := other.Subscribe(t.Context(), "S", nil)
				if err != nil {
					t.Errorf("other: %v", err)
					return
				}
				s.Close()
			})
			for range i * 50 {
				runtime.Gosched()
			}
			cancel()
			wg.Wait()
			synctest.Wait()
			if s := st.b.Stats().Interop; s.Branches != 0 || s.Subscriptions != 0 {
				t.Fatalf("left: %+v", s)
			}
		}
	})
}

func TestLimitsOfStreams(t *testing.T) {
	onStage(t, node.StreamOptions{}, func(t *testing.T, st *stage) {
		for _, n := range []int{-1, wire.MaxSnapshot + 1} {
			if _, err := st.pub.CreateStream(t.Context(), node.Method{Name: "T"}, node.StreamOptions{Snapshot: n}); !errors.Is(err, wire.ErrLimit) {
				t.Errorf("snapshot %d: %v", n, err)
			}
		}
		if _, err := st.pub.CreateStream(t.Context(), node.Method{Name: "s"}, node.StreamOptions{}); !errors.Is(err, wire.ErrRejected) {
			t.Errorf("twice: %v", err)
		}
		if err := st.s.Push(strings.Repeat("x", 8<<20)); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("8 MiB: %v", err)
		}
		if err := st.s.Push(make(chan int)); !errors.Is(err, wire.ErrBadPayload) {
			t.Errorf("a channel: %v", err)
		}
		if _, err := st.far.Subscribe(t.Context(), "S", strings.Repeat("x", 8<<20)); !errors.Is(err, wire.ErrLimit) {
			t.Errorf("8 MiB of arguments: %v", err)
		}
		if _, err := st.far.Subscribe(t.Context(), "Nothing", nil); !errors.Is(err, wire.ErrNoServer) {
			t.Errorf("nobody: %v", err)
		}
		time.AfterFunc(time.Second, func() { _, _ = st.pub.CreateStream(t.Context(), node.Method{Name: "Late"}, node.StreamOptions{}) })
		subscribe(t, st.far, "Late", nil, node.Wait(5*time.Second)).sub.Close()
		for i := range wire.MaxSubscriptions + 1 {
			_, err := st.near.Subscribe(t.Context(), "S", nil)
			if i < wire.MaxSubscriptions && err != nil || i == wire.MaxSubscriptions && !errors.Is(err, wire.ErrLimit) {
				t.Fatalf("subscription %d: %v", i, err)
			}
		}
		for i := range wire.MaxBranches + 1 {
			err := st.s.Push(1, fmt.Sprint("b", i))
			if i < wire.MaxBranches-1 && err != nil || i >= wire.MaxBranches && !errors.Is(err, wire.ErrLimit) {
				t.Fatalf("branch %d: %v", i, err)
			}
		}
		st.near.Leave()
		if n := len(st.s.Subscribers()); n != 0 {
			t.Errorf("%d subscribers left", n)
		}
	})
}

// attack is a message that no node sends.
type attack struct {
	msg  *nats.Msg
	at   *node.Node
	more uint64 // are counted as refused
}

// hostile makes attacks on the subscription whose start has been seen.
func hostile(st *stage, nc *nats.Conn, seen chan *nats.Msg) map[string]attack {
	var data string
	var q wire.SubscribeRequest
	var m wire.StreamMessage
	for len(seen) > 0 {
		msg := <-seen
		if isData(msg.Subject) {
			data = msg.Subject
			m, _ = wire.ParseStream(msg.Data)
		} else if strings.HasSuffix(msg.Subject, "."+string(subjects.VerbSubscribe)) {
			_ = wire.Unmarshal(msg.Data, &q)
		}
	}
	realm := subjects.Realm(realm)
	pushed, _ := realm.PushSubject("b", "a", q.ID)
	stranger, _ := realm.PushSubject("b", "evil", q.ID)
	ctl := func(verb subjects.Verb, v any) *nats.Msg {
		body, _ := wire.Marshal(v)
		return &nats.Msg{Subject: string(realm.CtlSubject("a", "evil", verb)), Reply: nc.NewInbox(), Data: body}
	}
	again := q
	again.Args = nil
	resume := q
	resume.Resume = true
	inject := nats.Header{"Nats-Stream": {"x"}}
	next := wire.AppendStreamData(nil, m.Epoch, m.Seq+1, []byte{1})
	return map[string]attack{
		"bad msgpack":           {&nats.Msg{Subject: data, Data: []byte{0xdd, 0x7f, 0xff, 0xff, 0xff, 0xc0}}, st.b, 1},
		"empty":                 {&nats.Msg{Subject: data}, st.b, 1},
		"wrong epoch":           {&nats.Msg{Subject: data, Data: wire.AppendStreamData(nil, m.Epoch+1, m.Seq+1, []byte{1})}, st.b, 1},
		"close on the branch":   {&nats.Msg{Subject: data, Data: wire.AppendStreamClose(nil, m.Epoch, m.Seq, wire.Canceled, "x")}, st.b, 1},
		"injected":              {&nats.Msg{Subject: data, Data: next, Header: inject}, st.b, 1},
		"mark of the future":    {&nats.Msg{Subject: data, Data: wire.AppendStreamMark(nil, m.Epoch, 1<<60)}, st.b, 1},
		"data of the future":    {&nats.Msg{Subject: data, Data: wire.AppendStreamData(nil, m.Epoch, 1<<60, []byte{1})}, st.b, 1},
		"bad private data":      {&nats.Msg{Subject: string(pushed), Data: []byte{0xc1}}, st.b, 1},
		"injected private data": {&nats.Msg{Subject: string(pushed), Data: next, Header: inject}, st.b, 1},
		"stranger's end":        {&nats.Msg{Subject: string(stranger), Data: wire.AppendStreamClose(nil, m.Epoch, 1, wire.Canceled, "x")}, st.b, 1},
		"private, wrong epoch":  {&nats.Msg{Subject: string(pushed), Data: wire.AppendStreamData(nil, m.Epoch+1, 1, []byte{1})}, st.b, 1},
		"unsubscribe":           {ctl(subjects.VerbUnsubscribe, wire.UnsubscribeRequest{ID: q.ID}), st.a, 1},
		"confirm":               {ctl(subjects.VerbConfirm, wire.ConfirmRequest{ID: q.ID, Epoch: m.Epoch, Seq: m.Seq}), st.a, 1},
		"resume":                {ctl(subjects.VerbSubscribe, resume), st.a, 1},
		"duplicate id":          {ctl(subjects.VerbSubscribe, again), st.a, 1},
		"ctl of rubbish":        {&nats.Msg{Subject: string(realm.CtlSubject("a", "evil", subjects.VerbConfirm)), Data: []byte{0xc1}}, st.a, 1},
		"ctl injected":          {&nats.Msg{Subject: string(realm.CtlSubject("a", "evil", subjects.VerbConfirm)), Data: []byte{0xc0}, Header: inject}, st.a, 1},
		"bad id":                {ctl(subjects.VerbSubscribe, wire.SubscribeRequest{ID: "a.>", Server: q.Server, Stream: "S"}), st.a, 0},
		"no such stream":        {ctl(subjects.VerbSubscribe, wire.SubscribeRequest{ID: "x", Server: q.Server, Stream: "T"}), st.a, 0},
	}
}

// Messages that no node sends change nothing and are counted.
func TestHostileStreamMessages(t *testing.T) {
	onStage(t, node.StreamOptions{Snapshot: 5}, func(t *testing.T, st *stage) {
		nc, err := nats.Connect("", nats.InProcessServer(st.srv))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		seen := make(chan *nats.Msg, 100)
		if _, err := nc.ChanSubscribe("weft.desk.>", seen); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r := subscribe(t, st.far, "S", nil)
		push(t, st.s, 1, 3)
		synctest.Wait()
		for name, c := range hostile(st, nc, seen) {
			before := c.at.Stats().Interop.Refused
			if err := nc.PublishMsg(c.msg); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := c.at.Stats().Interop.Refused - before; got != c.more {
				t.Errorf("%s: counted %d, want %d", name, got, c.more)
			}
		}
		push(t, st.s, 4, 4)
		time.Sleep(time.Minute)
		push(t, st.s, 5, 5)
		want(t, r, "S0 1 2 3 4 5")
		if n := len(st.s.Subscribers()); n != 1 {
			t.Errorf("%d subscribers", n)
		}
	})
}

// plain is a NATS client that is no node.
type plain struct {
	t  *testing.T
	nc *nats.Conn
}

func (c *plain) ask(verb subjects.Verb, q, r any) (code string) {
	body, err := wire.Marshal(q)
	if err != nil {
		c.t.Fatal(err)
	}
	reply := request(c.t, c.nc, &nats.Msg{Subject: string(subjects.Realm(realm).CtlSubject("a", "me", verb)), Data: body})
	if code := reply.Header.Get(wire.HeaderErrorCode); code != "" {
		return code
	}
	if err := wire.Unmarshal(reply.Data, r); err != nil {
		c.t.Fatal(err)
	}
	return ""
}

func (c *plain) subscribe(q wire.SubscribeRequest) (r wire.SubscribeReply, code string) {
	code = c.ask(subjects.VerbSubscribe, q, &r)
	return r, code
}

func (c *plain) next(sub *nats.Subscription) wire.StreamMessage {
	msg, err := sub.NextMsgWithContext(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	m, err := wire.ParseStream(msg.Data)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// A plain NATS client follows the specification by hand.
func TestPlainClientSubscribes(t *testing.T) {
	var l ledger
	onStage(t, l.options(node.StreamOptions{Snapshot: 2}), func(t *testing.T, st *stage) {
		nc, err := nats.Connect("", nats.InProcessServer(st.srv))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		push(t, st.s, 1, 3)
		c := &plain{t, nc}
		q := wire.SubscribeRequest{ID: "mine", Server: string(st.pub.ID()), Stream: "S"}
		accepted, code := c.subscribe(q)
		if code != "" {
			t.Fatal(code)
		}
		branch := subjects.Realm(realm).DataSubject("a", st.pub.ID(), subjects.MustEncode("S"), subjects.MustEncode(accepted.Branch))
		data, err := nc.SubscribeSync(string(branch))
		if err != nil {
			t.Fatal(err)
		}
		m := c.next(data)
		if m.Kind != wire.StreamMark || m.Seq != 3 || m.Epoch != accepted.Epoch {
			t.Errorf("mark %+v", m)
		}
		var items wire.ConfirmReply
		if code := c.ask(subjects.VerbConfirm, wire.ConfirmRequest{ID: q.ID, Epoch: m.Epoch, Seq: m.Seq}, &items); code != "" || len(items.Items) != 2 {
			t.Errorf("confirmation: %s %+v", code, items)
		}
		push(t, st.s, 4, 4)
		for m.Kind == wire.StreamMark {
			m = c.next(data)
		}
		if m.Seq != 4 || m.Epoch != accepted.Epoch {
			t.Errorf("data %+v", m)
		}
		q.Resume = true
		for range 5 {
			time.Sleep(25 * time.Second)
			if _, code := c.subscribe(q); code != "" {
				t.Errorf("resume: %s", code)
			}
		}
		st.line("a").Cut() // the publisher could not hear it
		time.Sleep(time.Minute)
		st.line("a").Heal()
		time.Sleep(8 * time.Second)
		if _, code := c.subscribe(q); code != "" {
			t.Errorf("resume after an outage: %s", code)
		}
		l.want(t, "+me")
		time.Sleep(35 * time.Second)
		l.want(t, "+me", "-me")
		if _, code := c.subscribe(q); code != string(wire.TargetGone) {
			t.Errorf("resume too late: %q", code)
		}
	})
}

// After Stop the server has no subscription of the node; that no goroutine is
// left is what every bubble checks.
func TestStopLeavesNothing(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub) {
		a := h.node("a")
		defer a.Stop()
		s := offer(t, join(t, a, "pub"), node.StreamOptions{Snapshot: 1})
		time.Sleep(5 * time.Second)
		before := h.srv.NumSubscriptions()
		for range 3 {
			b := h.node("b")
			readers := []*reader{subscribe(t, join(t, b, "one"), "S", nil), subscribe(t, join(t, b, "two"), "S", nil, node.All)}
			mine := offer(t, join(t, b, "pub"), node.StreamOptions{})
			time.Sleep(time.Second)
			push(t, s, 1, 3)
			push(t, mine, 1, 3)
			b.Stop()
			for _, r := range readers {
				<-r.done
			}
			time.Sleep(time.Second)
			if got := h.srv.NumSubscriptions(); got != before {
				t.Errorf("%d NATS subscriptions, before there were %d", got, before)
			}
			if st := a.Stats().Interop; st.Subscribers != 0 || len(s.Subscribers()) != 0 {
				t.Errorf("left: %+v", st)
			}
		}
	})
}
