package platform

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/wire"
)

const announce = "T42.Channels.Announce"

// step is a command, what it answers and what then has happened.
type step struct {
	by   Caller
	args string
	want string
	then []string
}

func run(t *testing.T, h *fakeHost, p *Platform, steps []step) {
	t.Helper()
	for _, s := range steps {
		if got := call(t, p, s.by, announce, s.args); got != s.want {
			t.Errorf("%s by %s: %s, want %s", s.args, s.by.Application, got, s.want)
		}
		synctest.Wait()
		if got := h.happened(); !slices.Equal(got, s.then) {
			t.Errorf("%s by %s:\n got %s\nwant %s", s.args, s.by.Application, strings.Join(got, "\n     "), strings.Join(s.then, "\n     "))
		}
	}
}

func TestChannelsMode(t *testing.T) {
	for _, tt := range []struct {
		mode, initial, want string
	}{
		{"", "", `{"mode":"single"}`},
		{"single", "Red", `{"initialChannel":"Red","mode":"single"}`},
		{"multi", "Red+++Blue", `{"initialChannel":"Red+++Blue","mode":"multi"}`},
	} {
		h := newFakeHost()
		p := start(t, h, Config{Mode: tt.mode, InitialChannel: tt.initial})
		if got := call(t, p, h.connect("a"), announce, `{"command":"getChannelsMode"}`); got != tt.want {
			t.Errorf("%s, got %s", tt.want, got)
		}
	}
}

// TestChannelsOfOldClient: the library of Glue42 in a Node program names nobody,
// waits for nothing and cannot be asked.
func TestChannelsOfOldClient(t *testing.T) {
	for _, mode := range []string{single, multi} {
		synctest.Test(t, func(t *testing.T) {
			h := newFakeHost()
			me := h.connect("old")
			p := start(t, h, Config{Mode: mode})
			run(t, h, p, []step{
				{me, `{"command":"switchChannel","data":{"newChannel":"Red"}}`, `{}`, []string{`join p-old "Red"`}},
				{me, `{"command":"switchChannel","data":{"newChannel":"Blue"}}`, `{}`, []string{`join p-old "Blue"`}},
				{me, `{"command":"switchChannel","data":{}}`, `{}`, []string{`join p-old ""`}},
				{me, `{"command":"switchChannel","data":{"newChannel":null}}`, `{}`, []string{`join p-old ""`}},
				{me, `{"command":"switchChannel","data":{"newChannel":"Red+++Blue+++Red"}}`, `{}`, []string{`join p-old "Red+++Blue"`}},
				{me, `{"command":"leaveChannel","data":{"channel":"Red"}}`, `{}`, []string{`join p-old "Blue"`}},
				{me, `{"command":"leaveChannel","data":{}}`, `{}`, []string{`join p-old ""`}},
				{me, `{"command":"switchChannel","data":{"newChannel":7}}`, `bad-payload: newChannel: number, want string`, nil},
				{me, `{"command":"leaveChannel","data":{"channel":7}}`, `bad-payload: channel: number, want string`, nil},
				{me, `{"command":"switchChannel","swId":"w-9","data":{"newChannel":"Red"}}`, `bad-name: there is no window or instance "w-9" on this machine`, nil},
			})
		})
	}
}

// TestChannelsOfNewClient: the library of io.Connect does it and tells; what it is
// on it says itself.
func TestChannelsOfNewClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		me := h.connect("new", commandMethod)
		c := &client{multi: true}
		h.register(me, commandMethod, c.answer)
		p := start(t, h, Config{Mode: multi})
		own := func(command, data string) string {
			return fmt.Sprintf(`{"command":%q,"swId":"i-new","data":%s}`, command, data)
		}
		run(t, h, p, []step{{me, `{"swId":"i-new","instance":"i-new"}`, `{"restrictions":{"channels":[]}}`, nil}})
		c.is("Red")
		run(t, h, p, []step{{me, own("switchChannel", `{"newChannel":"Red"}`), `{}`, []string{`join p-new "Red"`}}})
		c.is("Red", "Blue")
		run(t, h, p, []step{{me, own("switchChannel", `{"newChannel":"Blue"}`), `{}`, []string{`join p-new "Red+++Blue"`}}})
		c.is("Red", "Gone")
		run(t, h, p, []step{{me, own("leaveChannel", `{"channel":"Blue"}`), `{}`, []string{`join p-new "Red"`}}})
		h.fail = wire.Errorf(wire.Offline, "no fabric")
		run(t, h, p, []step{{me, own("switchChannel", `{"newChannel":"x"}`), `offline: no fabric`, []string{`join p-new "Red+++Gone"`}}})
		h.fail = nil
		c.is()
		run(t, h, p, []step{{me, own("leaveChannel", `{"channel":"Red+++Gone"}`), `{}`, []string{`join p-new ""`}}})

		many := make([]string, wire.MaxChannels+1)
		for i := range many {
			many[i] = fmt.Sprint(i)
		}
		c.is(many...)
		run(t, h, p, []step{{me, own("switchChannel", `{"newChannel":"x"}`), `limit: on 65 channels, the limit is 64`, nil}})
	})
}

// TestChannelsAreAsked: where a client begins, and where it is after it connected
// anew, it does not tell.
func TestChannelsAreAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		me := h.connect("new", commandMethod)
		log, logged := logger()
		p := start(t, h, Config{InitialChannel: "Green", Logger: log})
		c := &client{}
		c.is("Green")
		h.register(me, commandMethod, c.answer)
		p.Registered(me, "anything")
		synctest.Wait()
		if got := h.happened(); got != nil {
			t.Errorf("another method: %q", got)
		}
		p.Registered(me, commandMethod)
		synctest.Wait()
		if got := h.happened(); !slices.Equal(got, []string{`join p-new "Green"`}) {
			t.Errorf("after the start: %q", got)
		}
		asked := 0
		h.register(me, commandMethod, func(args string) (string, error) {
			asked++
			return c.answer(args)
		})
		for range 3 {
			p.Registered(me, commandMethod)
		}
		synctest.Wait()
		if got := h.happened(); got != nil || asked != 1 {
			t.Errorf("asked %d times again, the same answer: %q", asked, got)
		}

		again := Caller{Peer: "p-2", Application: "new", Instance: "i-2", Login: "anna"}
		h.disconnect(me)
		p.Left(me.Peer)
		h.apps = append(h.apps, App{Peer: "p-2", Application: "new", Instance: "i-2", Methods: []MethodInfo{{Name: commandMethod}}})
		h.peers["i-2"] = "p-2"
		h.register(again, commandMethod, c.answer)
		p.Registered(again, commandMethod)
		synctest.Wait()
		if got := h.happened(); !slices.Equal(got, []string{`join p-2 "Green"`}) {
			t.Errorf("connected anew: %q", got)
		}
		// It still calls itself i-new.
		c.is("Red")
		run(t, h, p, []step{
			{again, `{"command":"switchChannel","swId":"i-new","data":{"newChannel":"Red"}}`, `{}`, []string{`join p-2 "Red"`}},
			{again, `{"command":"switchChannel","swId":"i-gone","data":{"newChannel":"Red"}}`, `bad-name: there is no window or instance "i-gone" on this machine`, nil},
		})

		for _, answer := range []string{"{}}", `{"id":7}`} {
			h.register(again, commandMethod, func(string) (string, error) { return answer, nil })
			logged.Reset()
			p.Registered(again, commandMethod)
			synctest.Wait()
			if got := h.happened(); got != nil || !strings.Contains(logged.String(), "is not known") {
				t.Errorf("answer %s: %q, log %q", answer, got, logged)
			}
		}
	})
}

// TestSilentClient: whoever does not answer keeps nobody waiting for ever.
func TestSilentClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		me, other := h.connect("a", commandMethod), h.connect("b", commandMethod)
		p := start(t, h, Config{})
		p.host = &hungHost{h}
		began := time.Now()
		run(t, h, p, []step{
			{me, `{"command":"switchChannel","data":{"newChannel":"Red"}}`, `{}`, []string{`join p-a "Red"`}},
			{me, `{"command":"switchChannel","swId":"i-b","data":{"newChannel":"Red"}}`, `timeout: context deadline exceeded`, nil},
			{other, `{"command":"restrict","data":{"name":"Red","read":false}}`, `{}`, nil},
		})
		if took := time.Since(began); took != 3*answerTimeout {
			t.Errorf("took %v, want %v", took, 3*answerTimeout)
		}
	})
}

// TestOneAfterTheOther: what changes a session waits for what is changing it, as
// long as the caller waits.
func TestOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		me := h.connect("a")
		p := start(t, h, Config{})
		s := p.session(me)
		if err := s.lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Minute)
			s.unlock()
		}()
		began := time.Now()
		run(t, h, p, []step{{me, `{"command":"switchChannel","data":{"newChannel":"Red"}}`, `{}`, []string{`join p-a "Red"`}}})
		if took := time.Since(began); took != time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

// TestMoveAnother: a session moves another of its node, whose client follows.
func TestMoveAnother(t *testing.T) {
	for name, tt := range map[string]struct {
		mode   string
		client *client
		steps  func(me Caller) []step
	}{
		"single": {single, &client{}, func(me Caller) []step {
			return []step{
				{me, `{"command":"switchChannel","swId":"i-b","data":{"newChannel":"Red"}}`, `{}`, []string{
					`invoke p-b T42.Channels.Command {"channel":"Red","command":"join"}`, `join p-b "Red"`,
				}},
				{me, `{"command":"leaveChannel","swId":"i-b","data":{"channel":"Blue"}}`, `{}`, []string{`join p-b "Red"`}},
				{me, `{"command":"switchChannel","swId":"i-b","data":{}}`, `{}`, []string{
					`invoke p-b T42.Channels.Command {"command":"leave"}`, `join p-b ""`,
				}},
				{me, `{"command":"switchChannel","swId":"w-b","data":{"newChannel":"Blue"}}`, `{}`, []string{
					`invoke p-b T42.Channels.Command {"channel":"Blue","command":"join"}`, `join p-b "Blue"`,
				}},
			}
		}},
		"multi": {multi, &client{multi: true}, func(me Caller) []step {
			return []step{
				{me, `{"command":"switchChannel","swId":"i-b","data":{"newChannel":"Red+++Green"}}`, `{}`, []string{
					`invoke p-b T42.Channels.Command {"channel":"Red","command":"join"}`,
					`invoke p-b T42.Channels.Command {"channel":"Green","command":"join"}`, `join p-b "Red+++Green"`,
				}},
				{me, `{"command":"switchChannel","swId":"i-b","data":{"newChannel":"Blue"}}`, `{}`, []string{
					`invoke p-b T42.Channels.Command {"channel":"Blue","command":"join"}`, `join p-b "Red+++Green+++Blue"`,
				}},
				{me, `{"command":"leaveChannel","swId":"i-b","data":{"channel":"Green"}}`, `{}`, []string{
					`invoke p-b T42.Channels.Command {"channelsToLeave":["Green"],"command":"leave-multi"}`, `join p-b "Red+++Blue"`,
				}},
				{me, `{"command":"leaveChannel","swId":"i-b","data":{}}`, `{}`, []string{
					`invoke p-b T42.Channels.Command {"channelsToLeave":["Red"],"command":"leave-multi"}`,
					`invoke p-b T42.Channels.Command {"channelsToLeave":["Blue"],"command":"leave-multi"}`, `join p-b ""`,
				}},
			}
		}},
		"an old client in mode multi": {multi, &client{old: true}, func(me Caller) []step {
			return []step{
				{me, `{"command":"switchChannel","swId":"i-b","data":{"newChannel":"Red"}}`, `{}`, []string{
					`invoke p-b T42.Channels.Command {"channel":"Red","command":"join"}`, `join p-b "Red"`,
				}},
				{me, `{"command":"switchChannel","swId":"i-b","data":{}}`, `{}`, []string{
					`invoke p-b T42.Channels.Command {"channelsToLeave":["Red"],"command":"leave-multi"}`,
					`invoke p-b T42.Channels.Command {"command":"leave"}`, `join p-b ""`,
				}},
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost()
				me, other := h.connect("a"), h.window(h.connect("b", commandMethod), "w-b")
				h.register(other, commandMethod, tt.client.answer)
				run(t, h, start(t, h, Config{Mode: tt.mode}), tt.steps(me))
			})
		})
	}
	t.Run("one that cannot", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newFakeHost()
			me, other := h.connect("a"), h.connect("b")
			p := start(t, h, Config{})
			run(t, h, p, []step{{me, `{"command":"switchChannel","swId":"i-b","data":{"newChannel":"Red"}}`, `no-server: p-b has no method T42.Channels.Command`, nil}})
			h.register(other, commandMethod, func(args string) (string, error) {
				if strings.Contains(args, "join") {
					return "", wire.Errorf(wire.AppError, "no such channel")
				}
				return "{}", nil
			})
			run(t, h, p, []step{{
				me, `{"command":"switchChannel","swId":"i-b","data":{"newChannel":"Red"}}`, `app-error: no such channel`,
				[]string{`invoke p-b T42.Channels.Command {"channel":"Red","command":"join"}`},
			}})
		})
	})
}

// TestWhoIsMeant: several clients of one process share what they call themselves.
func TestWhoIsMeant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		first, second := h.connect("a", commandMethod), h.connect("b", commandMethod)
		p := start(t, h, Config{})
		run(t, h, p, []step{
			{first, `{"swId":"i-a","instance":"i-a"}`, `{"restrictions":{"channels":[]}}`, nil},
			{second, `{"swId":"i-a","instance":"i-b"}`, `{"restrictions":{"channels":[]}}`, nil},
			{second, `{"command":"switchChannel","swId":"i-a","data":{"newChannel":"Red"}}`, `{}`, []string{`join p-b "Red"`}},
			{second, `{"command":"switchChannel","swId":"i-b","data":{"newChannel":"Green"}}`, `{}`, []string{`join p-b "Green"`}},
			{second, `{"command":"switchChannel","swId":"i-a","data":{"newChannel":"Red"}}`, `{}`, []string{`join p-b "Red"`}},
			{first, `{"command":"switchChannel","swId":"i-a","data":{"newChannel":"Blue"}}`, `{}`, []string{`join p-a "Blue"`}},
			// One that has said what it is called is meant by nothing else.
			{first, `{"command":"switchChannel","swId":"w-gone","data":{"newChannel":"Red"}}`, `bad-name: there is no window or instance "w-gone" on this machine`, nil},
		})
		// Nor is one that was found by its instance.
		third := h.connect("c", commandMethod)
		run(t, h, p, []step{
			{third, `{"command":"switchChannel","swId":"i-c","data":{"newChannel":"Red"}}`, `{}`, []string{`join p-c "Red"`}},
			{third, `{"command":"switchChannel","swId":"w-gone","data":{"newChannel":"Red"}}`, `bad-name: there is no window or instance "w-gone" on this machine`, nil},
		})
		// A session that leaves in this moment is not known for ever.
		h.connect("d")
		h.leave = "i-d"
		run(t, h, p, []step{{third, `{"command":"restrict","swId":"i-d","data":{"name":"Red","read":false}}`, `bad-name: there is no window or instance "i-d" on this machine`, nil}})
		if _, kept := p.sessions["p-d"]; kept {
			t.Error("a session that has left is kept")
		}
	})
}

func TestChannelsInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		a, b, c := h.window(h.connect("a"), "w-a"), h.window(h.connect("b"), "w-b"), h.window(h.connect("c"), "w-c")
		node := h.connect("node")
		p := start(t, h, Config{})
		for who, on := range map[Caller]string{a: "Red", b: "Red+++Blue", node: "Red"} {
			call(t, p, who, announce, fmt.Sprintf(`{"command":"switchChannel","data":{"newChannel":%q}}`, on))
		}
		call(t, p, c, announce, `{"swId":"w-c","instance":"i-c"}`)
		h.happened()
		const ra, rb, bb, nc = `{"windowId":"w-a","channel":"Red","application":"a"}`, `{"windowId":"w-b","channel":"Red","application":"b"}`,
			`{"windowId":"w-b","channel":"Blue","application":"b"}`, `{"windowId":"w-c","application":"c"}`
		list := func(entries ...string) string { return `{"windows":[` + strings.Join(entries, ",") + `]}` }
		run(t, h, p, []step{
			{node, `{"command":"getChannelsInfo","data":{}}`, list(ra, bb, rb, nc), nil},
			{node, `{"command":"getChannelsInfo"}`, list(ra, bb, rb, nc), nil},
			{node, `{"command":"getChannelsInfo","data":{"filter":{"channels":["Red"]}}}`, list(ra, rb), nil},
			{node, `{"command":"getChannelsInfo","data":{"filter":{"channels":[]}}}`, list(), nil},
			{node, `{"command":"getChannelsInfo","data":{"filter":{"application":"b"}}}`, list(bb, rb), nil},
			{node, `{"command":"getChannelsInfo","data":{"filter":{"windowIds":["w-c","w-z"]}}}`, list(nc), nil},
			{node, `{"command":"getChannelsInfo","data":{"filter":{"application":7}}}`, `bad-payload: filter.application: number, want string`, nil},
		})
	})
}

func TestAddAndRemoveChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		a, b := h.connect("a"), h.connect("b")
		p := start(t, h, Config{})
		run(t, h, p, []step{
			{a, `{"command":"addChannel","data":{"id":"Mine","color":"pink","label":"M"}}`, `{}`, []string{`add p-a Mine map[color:pink label:M] <nil>`}},
			// Glue42 has made the context before it asks.
			{a, `{"command":"addChannel","data":{"id":"Mine","color":"pink"}}`, `{}`, []string{`add p-a Mine map[color:pink] <nil>`}},
			{b, `{"command":"addChannel","data":{"id":"Mine","color":"red"}}`, `bad-name: Channel with name 'Mine' already exists.`, []string{`add p-b Mine map[color:red] <nil>`}},
			{b, `{"command":"addChannel","data":{"color":"red"}}`, `bad-name: no channel "" can be added`, []string{`add p-b  map[color:red] <nil>`}},
			{b, `{"command":"addChannel","data":[]}`, `bad-payload: arguments: array, want object`, nil},
			{b, `{"command":"removeChannel","data":{"id":"Mine"}}`, `{}`, []string{`remove p-b Mine`}},
			{b, `{"command":"removeChannel","data":{"id":"Mine"}}`, `{}`, []string{`remove p-b Mine`}},
			{b, `{"command":"removeChannel","data":{"id":7}}`, `bad-payload: id: number, want string`, nil},
		})
		h.fail = wire.Errorf(wire.Unavailable, "not now")
		run(t, h, p, []step{
			{a, `{"command":"addChannel","data":{"id":"More","color":"pink"}}`, `unavailable: not now`, []string{`add p-a More map[color:pink] <nil>`}},
			{a, `{"command":"addChannel","data":{"id":"Red","color":"pink"}}`, `bad-name: no channel "Red" can be added`, []string{`add p-a Red map[color:pink] <nil>`}},
			{a, `{"command":"removeChannel","data":{"id":"Red"}}`, `unavailable: not now`, []string{`remove p-a Red`}},
		})
	})
}

func TestCanceledCall(t *testing.T) {
	h := newFakeHost()
	me := h.connect("a")
	p := start(t, h, Config{})
	s := p.session(me)
	if err := s.lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextOf(t)
	cancel()
	if _, err := p.Call(ctx, me, announce, []byte(`{"command":"switchChannel","data":{}}`)); !errors.Is(err, wire.ErrCanceled) {
		t.Errorf("%v, want canceled", err)
	}
	if _, err := p.Call(ctx, me, announce, []byte(`{"command":"restrict","data":{"name":"x","read":true}}`)); !errors.Is(err, wire.ErrCanceled) {
		t.Errorf("%v, want canceled", err)
	}
}
