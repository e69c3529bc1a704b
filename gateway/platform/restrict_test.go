package platform

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/weft-fabric/weft/wire"
)

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}

// allowed is what a session may do on channels, as in "Red rw, Blue r-".
func allowed(p *Platform, c Caller, channels ...string) string {
	var list []string
	for _, name := range channels {
		read, write := p.Allowed(c.Peer, name)
		may := name + " "
		for _, one := range []struct {
			may    bool
			letter string
		}{{read, "r"}, {write, "w"}} {
			if !one.may {
				one.letter = "-"
			}
			may += one.letter
		}
		list = append(list, may)
	}
	return strings.Join(list, ", ")
}

func TestRestrictions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		me, other := h.connect("a", commandMethod), h.connect("b")
		h.register(me, commandMethod, func(string) (string, error) { return "{}", nil })
		p := start(t, h, Config{})
		p.OnRestrictions(func(peer string) { h.note("told %s: %s", peer, allowed(p, Caller{Peer: peer}, "Red", "Blue")) })
		told := func(list string) string {
			return `invoke p-a T42.Channels.Command {"command":"restrictions-changed","restrictions":{"channels":[` + list + `]},"swId":"i-a"}`
		}
		is := func(want string) {
			t.Helper()
			if got := allowed(p, me, "Red", "Blue", "New"); got != want {
				t.Errorf("allowed: %s, want %s", got, want)
			}
		}
		is("Red rw, Blue rw, New rw")
		run(t, h, p, []step{{me, `{"command":"getRestrictions","data":{},"swId":"i-a"}`, `{"channels":[]}`, nil}})

		run(t, h, p, []step{{me, `{"command":"restrict","swId":"i-a","data":{"name":"Red","write":false}}`, `{}`, []string{
			told(`{"name":"Red","read":true,"write":false}`), "told p-a: Red r-, Blue rw",
		}}})
		is("Red r-, Blue rw, New rw")
		run(t, h, p, []step{{me, `{"command":"restrict","swId":"i-a","data":{"name":"Red","read":false}}`, `{}`, []string{
			told(`{"name":"Red","read":false,"write":false}`), "told p-a: Red --, Blue rw",
		}}})
		is("Red --, Blue rw, New rw")
		run(t, h, p, []step{{other, `{"command":"restrictAll","swId":"i-a","data":{"read":false}}`, `{}`, []string{
			told(`{"name":"Blue","read":false,"write":true},{"name":"Green","read":false,"write":true},{"name":"Red","read":false,"write":false}`),
			"told p-a: Red --, Blue -w",
		}}})
		is("Red --, Blue -w, New -w")
		run(t, h, p, []step{
			{me, `{"command":"restrict","data":{"name":"New","read":true}}`, `{}`, []string{
				told(`{"name":"Blue","read":false,"write":true},{"name":"Green","read":false,"write":true},{"name":"New","read":true,"write":true},{"name":"Red","read":false,"write":false}`),
				"told p-a: Red --, Blue -w",
			}},
			{other, `{"command":"getRestrictions","swId":"i-a"}`, `{"channels":[{"name":"Blue","read":false,"write":true},{"name":"Green","read":false,"write":true},{"name":"New","read":true,"write":true},{"name":"Red","read":false,"write":false}]}`, nil},
			{me, `{"swId":"i-a","instance":"i-a"}`, `{"restrictions":{"channels":[{"name":"Blue","read":false,"write":true},{"name":"Green","read":false,"write":true},{"name":"New","read":true,"write":true},{"name":"Red","read":false,"write":false}]}}`, nil},
			{other, `{"command":"getRestrictions"}`, `{"channels":[]}`, nil},
		})
		is("Red --, Blue -w, New rw")
		// Clients let go what they hold back only of channels that are in the list.
		run(t, h, p, []step{{me, `{"command":"restrictAll","data":{"read":true,"write":true}}`, `{}`, []string{
			told(`{"name":"Blue","read":true,"write":true},{"name":"Green","read":true,"write":true},{"name":"New","read":true,"write":true},{"name":"Red","read":true,"write":true}`),
			"told p-a: Red rw, Blue rw",
		}}})
		is("Red rw, Blue rw, New rw")
		if got := allowed(p, other, "Red"); got != "Red rw" {
			t.Errorf("another session: %s", got)
		}
	})
}

func TestRestrictionsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		me := h.connect("a")
		p := start(t, h, Config{})
		p.OnRestrictions(func(peer string) { h.note("told %s", peer) })
		run(t, h, p, []step{
			{me, `{"command":"restrict","data":{"name":"Red"}}`, `bad-payload: a restriction says whether to read or to write`, nil},
			{me, `{"command":"restrictAll","data":{}}`, `bad-payload: a restriction says whether to read or to write`, nil},
			{me, `{"command":"restrictAll"}`, `bad-payload: a restriction says whether to read or to write`, nil},
			{me, `{"command":"restrict","data":{"read":false}}`, `bad-name: a restriction needs the name of its channel`, nil},
			{me, `{"command":"restrict","data":{"name":"` + strings.Repeat("a", 256) + `","read":false}}`, `bad-name: bad name "` + strings.Repeat("a", 64) + `"...: longer than 255 bytes`, nil},
			{me, `{"command":"restrict","data":{"name":"Red","read":"no"}}`, `bad-payload: read: string, want bool`, nil},
			{me, `{"command":"restrict","swId":"i-far","data":{"name":"Red","read":false}}`, `bad-name: there is no window or instance "i-far" on this machine`, nil},
			{me, `{"command":"getRestrictions","swId":"i-far"}`, `bad-name: there is no window or instance "i-far" on this machine`, nil},
			// One that does not use channels is not told, and is restricted.
			{me, `{"command":"restrict","data":{"name":"Red","read":false}}`, `{}`, []string{"told p-a"}},
		})
		if got := allowed(p, me, "Red"); got != "Red -w" {
			t.Errorf("allowed: %s", got)
		}
		run(t, h, p, []step{{me, `{"command":"restrictAll","data":{"read":false}}`, `{}`, []string{"told p-a"}}})
		h.fail = wire.Errorf(wire.Offline, "no fabric")
		run(t, h, p, []step{
			{me, `{"command":"getRestrictions"}`, `offline: no fabric`, nil},
			{me, `{"swId":"i-a"}`, `offline: no fabric`, nil},
			{me, `{"command":"restrictAll","data":{"write":false}}`, `{}`, []string{"told p-a"}},
		})
		if got := allowed(p, me, "Red", "x"); got != "Red --, x --" {
			t.Errorf("allowed: %s", got)
		}
	})
}

func TestRestrictionsAreBounded(t *testing.T) {
	h := newFakeHost()
	me := h.connect("a")
	p := start(t, h, Config{})
	s := p.session(me)
	s.limits.named = map[string]limit{}
	for i := range wire.MaxContexts {
		s.limits.named[fmt.Sprint(i)] = limit{}
	}
	if got := call(t, p, me, announce, `{"command":"restrict","data":{"name":"Red","read":false}}`); got != "limit: restrictions for 10000 channels, the limit is 10000" {
		t.Errorf("one more: %s", got)
	}
	if got := call(t, p, me, announce, `{"command":"restrict","data":{"name":"7","read":false}}`); got != "{}" {
		t.Errorf("one of them: %s", got)
	}
}

// TestRestrictionsWindow: who has a window is named by it.
func TestRestrictionsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		me := h.window(h.connect("a"), "w-a")
		h.register(me, commandMethod, func(string) (string, error) { return "{}", nil })
		p := start(t, h, Config{})
		run(t, h, p, []step{{me, `{"command":"restrict","data":{"name":"Red","read":false,"windowId":"w-a"},"swId":"w-a"}`, `{}`, []string{
			`invoke p-a T42.Channels.Command {"command":"restrictions-changed","restrictions":{"channels":[{"name":"Red","read":false,"write":true,"windowId":"w-a"}]},"swId":"w-a"}`,
		}}})
	})
}

func TestAllowedDuringChanges(t *testing.T) {
	h := newFakeHost()
	p := start(t, h, Config{})
	p.OnRestrictions(func(peer string) { p.Allowed(peer, "Red") })
	var wg sync.WaitGroup
	for i := range 4 {
		me := h.connect(fmt.Sprint(i))
		wg.Go(func() {
			for n := range 50 {
				call(t, p, me, announce, fmt.Sprintf(`{"command":"restrict","data":{"name":"Red","read":%t}}`, n%2 == 1))
				p.Allowed("p-0", "Red")
			}
			if got := allowed(p, me, "Red"); got != "Red rw" {
				t.Errorf("at last: %s", got)
			}
		})
	}
	wg.Wait()
}
