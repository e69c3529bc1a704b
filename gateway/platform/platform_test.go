package platform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/weft-fabric/weft/wire"
)

// fakeHost is a gateway in memory. A session is in apps, and in peers by its
// instance, or its window.
type fakeHost struct {
	mu       sync.Mutex
	apps     []App
	peers    map[string]string
	channels []ChannelInfo
	// clients are the methods that sessions have registered, by peer and name.
	clients map[string]func(args string) (string, error)
	// log is what happened, in order.
	log []string
	// fail is what changes of channels answer.
	fail error
	// leave makes a session leave when it is looked up the second time.
	leave string
	// fabric are the states of the fabric, one after the other.
	fabric chan Fabric
}

func newFakeHost() *fakeHost {
	return &fakeHost{peers: map[string]string{}, clients: map[string]func(string) (string, error){}, channels: []ChannelInfo{{Name: "Red"}, {Name: "Green"}, {Name: "Blue"}}}
}

// connect adds a session with the instance i-<name>.
func (h *fakeHost) connect(name string, methods ...string) Caller {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := App{Peer: "p-" + name, Application: name, Instance: "i-" + name, Machine: "here", Local: true}
	for _, m := range methods {
		a.Methods = append(a.Methods, MethodInfo{Name: m})
	}
	h.apps = append(h.apps, a)
	h.peers[a.Instance] = a.Peer
	return Caller{Peer: a.Peer, Application: name, Instance: a.Instance, Login: "anna"}
}

func (h *fakeHost) disconnect(c Caller) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.apps = slices.DeleteFunc(h.apps, func(a App) bool { return a.Peer == c.Peer })
	maps.DeleteFunc(h.peers, func(_, peer string) bool { return peer == c.Peer })
}

// window gives a session a window id.
func (h *fakeHost) window(c Caller, id string) Caller {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.WindowID = id
	h.peers[id] = c.Peer
	return c
}

func (h *fakeHost) register(c Caller, method string, f func(args string) (string, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients[c.Peer+" "+method] = f
}

func (h *fakeHost) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// happened is what has happened since the last time.
func (h *fakeHost) happened() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	log := h.log
	h.log = nil
	return log
}

func (h *fakeHost) Apps() []App {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.apps)
}

func (h *fakeHost) PeerOf(swID string) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	peer, ok := h.peers[swID]
	if ok && swID == h.leave {
		delete(h.peers, swID)
	}
	return peer, ok
}

func (h *fakeHost) Invoke(_ context.Context, peer, method string, args json.RawMessage) (json.RawMessage, error) {
	h.mu.Lock()
	f := h.clients[peer+" "+method]
	h.mu.Unlock()
	if f == nil {
		return nil, wire.Errorf(wire.NoServer, "%s has no method %s", peer, method)
	}
	if string(args) != `{"command":"get"}` {
		h.note("invoke %s %s %s", peer, method, args)
	}
	answer, err := f(string(args))
	return json.RawMessage(answer), err
}

func (h *fakeHost) Join(_ context.Context, peer, channel string) error {
	h.note("join %s %q", peer, channel)
	return h.fail
}

func (h *fakeHost) Channels(context.Context) ([]ChannelInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.channels), h.fail
}

func (h *fakeHost) AddChannel(_ context.Context, c Caller, name string, meta map[string]any, data any) error {
	h.note("add %s %s %v %v", c.Peer, name, meta, data)
	h.mu.Lock()
	defer h.mu.Unlock()
	if name == "" || slices.ContainsFunc(h.channels, func(i ChannelInfo) bool { return i.Name == name }) {
		return wire.Errorf(wire.BadName, "no channel %q can be added", name)
	}
	h.channels = append(h.channels, ChannelInfo{Name: name, By: c.Peer})
	return h.fail
}

func (h *fakeHost) RemoveChannel(_ context.Context, c Caller, name string) error {
	h.note("remove %s %s", c.Peer, name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.ContainsFunc(h.channels, func(i ChannelInfo) bool { return i.Name == name }) {
		return wire.Errorf(wire.BadName, "no channel %q", name)
	}
	h.channels = slices.DeleteFunc(h.channels, func(i ChannelInfo) bool { return i.Name == name })
	return h.fail
}

// client is a channels client: it answers as the libraries do.
type client struct {
	mu    sync.Mutex
	multi bool
	old   bool // knows no leave-multi
	on    []string
}

func (c *client) answer(args string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var a struct {
		Command, Channel string
		ChannelsToLeave  []string
	}
	if err := json.Unmarshal([]byte(args), &a); err != nil {
		return "", err
	}
	switch {
	case a.Command == "get" && len(c.on) > 0:
		return fmt.Sprintf(`{"id":%q}`, strings.Join(c.on, "+++")), nil
	case a.Command == "join" && c.multi:
		c.on = append(c.on, a.Channel)
	case a.Command == "join":
		c.on = []string{a.Channel}
	case a.Command == "leave":
		c.on = nil
	case a.Command == "leave-multi" && c.old:
		return "", wire.Errorf(wire.AppError, "unknown command")
	case a.Command == "leave-multi":
		c.on = without(c.on, a.ChannelsToLeave)
	}
	return "{}", nil
}

func (c *client) is(on ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = on
}

// start makes a platform that ends with the test.
func start(t *testing.T, h *fakeHost, cfg Config) *Platform {
	t.Helper()
	cfg.Host = h
	if cfg.Store == "" {
		cfg.Store = t.TempDir()
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// call is what a call answers: its JSON, or the error.
func call(t *testing.T, p *Platform, c Caller, method, args string) string {
	t.Helper()
	result, err := p.Call(t.Context(), c, method, json.RawMessage(args))
	if err != nil {
		if _, ok := errors.AsType[*wire.Error](err); !ok {
			t.Errorf("%s: %T, want *wire.Error", method, err)
		}
		return err.Error()
	}
	return string(result)
}

func TestMethods(t *testing.T) {
	p := start(t, newFakeHost(), Config{})
	var got []string
	for _, m := range p.Methods() {
		flags, _ := m.Definition["flags"].(map[string]any)
		if flags["streaming"] != m.Streaming || flags["metadata"] == nil || m.Definition["description"] == "" {
			t.Errorf("%s: definition %v", m.Name, m.Definition)
		}
		name := m.Name
		if m.Streaming {
			name += " stream"
		}
		got = append(got, name)
	}
	want := []string{
		"T42.ACS.ActivateApplication", "T42.ACS.Execute", "T42.ACS.GetApplications", "T42.ACS.OnEvent stream", "T42.ACS.StartApplication",
		"T42.ACS.StopApplication", "T42.Channels.Announce", "T42.GD.Execute", "T42.Group.Execute", "T42.Prefs.Get", "T42.Prefs.Set",
		"T42.Wnd.Create", "T42.Wnd.Execute", "T42.Wnd.OnEvent stream", "Weft.Fabric stream", "Weft.GetFabric",
	}
	if !slices.Equal(got, want) {
		t.Errorf("offers %q,\nwant %q", got, want)
	}
}

func TestCalls(t *testing.T) {
	h := newFakeHost()
	me := h.connect("blotter")
	h.connect("blotter")
	h.apps = append(h.apps, App{Peer: "p-far", Application: "pricer", ApplicationName: "The pricer", Instance: "i-far", Machine: "there"}, App{Peer: "p-odd"})
	p := start(t, h, Config{})
	for _, tt := range []struct{ method, args, want string }{
		{
			"T42.ACS.GetApplications", `{"skipIcon":true}`,
			`{"applications":{"blotter":{"Name":"blotter","Title":"blotter","IsReady":true,"AllowMultiple":true},` +
				`"pricer":{"Name":"pricer","Title":"The pricer","IsReady":true,"AllowMultiple":true}},"configuration":{}}`,
		},
		{
			"T42.ACS.GetApplications", `{"withIntentsInfo":true}`,
			`{"applications":[{"name":"blotter","title":"blotter","intents":[]},{"name":"pricer","title":"The pricer","intents":[]}]}`,
		},
		{
			"T42.ACS.GetApplications", `{"v2":{}}`,
			`{"applications":[{"name":"blotter","title":"blotter","intents":[]},{"name":"pricer","title":"The pricer","intents":[]}]}`,
		},
		{"T42.ACS.GetApplications", `{"v2":{"apps":["pricer"]}}`, `{"applications":[{"name":"pricer","title":"The pricer","intents":[]}]}`},
		{"T42.ACS.GetApplications", `{"v2":{"apps":["nobody"]}}`, `{"applications":[]}`},
		{"T42.ACS.GetApplications", `{"v2":{"apps":"pricer"}}`, `bad-payload: v2.apps: string, want array`},
		{"T42.GD.Execute", `{"command":"announce-instance-ready","args":{"api":{"version":"6.18.0"}}}`, `{}`},
		{"T42.GD.Execute", `{"command":"get-cookies"}`, `rejected: Weft shares data and does not execute the command "get-cookies"`},
		{"T42.ACS.StartApplication", `{"Name":"x","Context":{},"Options":{}}`, `rejected: Weft shares data and does not start applications`},
		{"T42.ACS.StopApplication", `{}`, `rejected: Weft shares data and does not stop applications`},
		{"T42.ACS.ActivateApplication", `{}`, `rejected: Weft shares data and does not activate applications`},
		{"T42.ACS.Execute", `{"command":"getStartedBy"}`, `rejected: Weft shares data and does not say who started an application`},
		{"T42.Wnd.Create", `{"name":"x","url":"y"}`, `rejected: Weft shares data and does not open windows`},
		{"T42.Wnd.Execute", `{}`, `rejected: Weft shares data and does not manage windows`},
		{"T42.Group.Execute", `{}`, `rejected: Weft shares data and does not manage groups of windows`},
		{"T42.Nothing", `{}`, `no-server: the platform has no method "T42.Nothing"`},
		{"T42.Channels.Announce", `{"command":"fly"}`, `bad-payload: T42.Channels.Announce has no command "fly"`},
		{"T42.Channels.Announce", `{"command":5}`, `bad-payload: command: number, want string`},
		{"T42.Channels.Announce", `[]`, `bad-payload: arguments: array, want object`},
		{"T42.Prefs.Get", `{"app":"x"`, `bad-payload: json, byte 10: the value is cut short`},
	} {
		if got := call(t, p, me, tt.method, tt.args); got != tt.want {
			t.Errorf("%s %s:\n got %s\nwant %s", tt.method, tt.args, got, tt.want)
		}
	}
	deep := `{"app":"x","data":` + strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 71)
	for method := range p.methods {
		if _, declines := declined[method]; declines {
			continue
		}
		if _, err := p.Call(t.Context(), me, method, json.RawMessage(deep)); !errors.Is(err, wire.ErrBadPayload) {
			t.Errorf("%s with arguments that are too deep: %v", method, err)
		}
	}
}

// TestOwnAppIsThere: a client that finds its application waits for its instance.
func TestOwnAppIsThere(t *testing.T) {
	h := newFakeHost()
	h.connect("blotter")
	p := start(t, h, Config{})
	hidden := Caller{Peer: "p-2", Application: "blotter", Instance: "i-2"}
	apps := p.runningApps(hidden)
	if len(apps) != 2 || apps["i-2"].Application != "blotter" {
		t.Errorf("%v, want both instances", apps)
	}
	if apps := p.runningApps(Caller{Peer: "p-3"}); len(apps) != 1 {
		t.Errorf("a caller without identity: %v", apps)
	}
}

func TestWindowEvents(t *testing.T) {
	p := start(t, newFakeHost(), Config{})
	for args, want := range map[string][]string{
		`{"withConfig":true}`: {`{"type":"Configuration","windowAvailableOnURLChanged":true}`, `{"type":"Snapshot","windows":[]}`},
		`{}`:                  {`{"type":"Snapshot","windows":[]}`},
		``:                    {`{"type":"Snapshot","windows":[]}`},
	} {
		var got []string
		cancel, err := p.Subscribe(Caller{Peer: "p"}, "T42.Wnd.OnEvent", json.RawMessage(args), func(d json.RawMessage) { got = append(got, string(d)) })
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %q, want %q", args, err, got, want)
			continue
		}
		cancel()
	}
	never := func(json.RawMessage) { t.Error("pushed") }
	if _, err := p.Subscribe(Caller{}, "T42.Wnd.OnEvent", json.RawMessage(`[]`), never); !errors.Is(err, wire.ErrBadPayload) {
		t.Errorf("bad arguments: %v", err)
	}
	if _, err := p.Subscribe(Caller{}, "T42.Nothing", nil, never); !errors.Is(err, wire.ErrNoServer) {
		t.Errorf("no such stream: %v", err)
	}
}

func TestAppEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		me := h.connect("blotter")
		p := start(t, h, Config{})
		var got []string
		push := func(d json.RawMessage) { got = append(got, string(d)) }
		cancel, err := p.Subscribe(me, "T42.ACS.OnEvent", json.RawMessage(`{"skipIcon":false}`), push)
		if err != nil {
			t.Fatal(err)
		}
		see := func(what string, want ...string) {
			t.Helper()
			p.AppsChanged()
			synctest.Wait()
			if !slices.Equal(got, want) {
				t.Errorf("%s: %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
			}
			got = nil
		}
		app := func(name string) string {
			return fmt.Sprintf(`{%q:{"Name":%[1]q,"Title":%[1]q,"IsReady":true,"AllowMultiple":true}}`, name)
		}
		run := func(id, name string) string {
			return fmt.Sprintf(`{%q:{"Id":%[1]q,"Name":%q,"Title":%[2]q,"Context":{},"AgmServers":[{"application":%[2]q,"instance":%[1]q}]}}`, id, name)
		}
		see("snapshot", `{"isSnapshot":true,"OnApplicationAdded":`+app("blotter")+`,"OnApplicationStarted":`+run("i-blotter", "blotter")+`}`)
		see("nothing new")

		pricer := h.connect("pricer")
		see("another app", `{"OnApplicationAdded":`+app("pricer")+`,"OnApplicationStarted":`+run("i-pricer", "pricer")+`}`)
		h.mu.Lock()
		h.apps = append(h.apps, App{Peer: "p-2", Application: "pricer", Instance: "i-2"})
		h.mu.Unlock()
		see("another instance", `{"OnApplicationStarted":`+run("i-2", "pricer")+`}`)
		h.disconnect(pricer)
		see("one of two gone", `{"OnApplicationStopped":`+run("i-pricer", "pricer")+`}`)
		h.disconnect(Caller{Peer: "p-2"})
		see("the other gone", `{"OnApplicationStopped":`+run("i-2", "pricer")+`}`, `{"OnApplicationRemoved":`+app("pricer")+`}`)
		h.mu.Lock()
		h.apps = append(h.apps, App{Peer: "p-3", Application: "old", Instance: "i-3"})
		h.mu.Unlock()
		see("one more", `{"OnApplicationAdded":`+app("old")+`,"OnApplicationStarted":`+run("i-3", "old")+`}`)
		h.mu.Lock()
		h.apps[len(h.apps)-1].Application = "new"
		h.mu.Unlock()
		see("it is another app now", `{"OnApplicationStopped":`+run("i-3", "old")+`}`, `{"OnApplicationRemoved":`+app("old")+`}`,
			`{"OnApplicationAdded":`+app("new")+`,"OnApplicationStarted":`+run("i-3", "new")+`}`)
		h.disconnect(Caller{Peer: "p-3"})
		see("gone again", `{"OnApplicationStopped":`+run("i-3", "new")+`}`, `{"OnApplicationRemoved":`+app("new")+`}`)
		h.disconnect(me)
		see("the subscriber is there in any case")

		var sooner []string
		stop, err := p.Subscribe(me, "T42.ACS.OnEvent", nil, func(d json.RawMessage) {
			if sooner = append(sooner, string(d)); len(sooner) == 1 {
				h.connect("meanwhile") // between the snapshot and the first look
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(sooner) != 2 {
			t.Errorf("who came meanwhile is missing: %q", sooner)
		}
		stop()
		got = nil

		cancel()
		h.connect("late")
		see("canceled")
		if len(p.apps) != 0 {
			t.Error("the subscription was kept")
		}
	})
}

func TestLeftEndsSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		me, other := h.connect("a"), h.connect("b")
		p := start(t, h, Config{})
		pushed := map[string]int{}
		for _, c := range []Caller{me, other} {
			if _, err := p.Subscribe(c, "T42.ACS.OnEvent", nil, func(json.RawMessage) { pushed[c.Peer]++ }); err != nil {
				t.Fatal(err)
			}
		}
		call(t, p, me, "T42.Channels.Announce", `{"command":"restrict","data":{"name":"Red","read":false}}`)
		call(t, p, me, "T42.Prefs.Get", `{"app":"a","subscribe":true}`)
		synctest.Wait()
		p.Left(me.Peer)
		h.connect("c")
		p.AppsChanged()
		synctest.Wait()
		if pushed[me.Peer] != 1 || pushed[other.Peer] != 2 {
			t.Errorf("pushed %v, want 1 for who left and 2 for who stayed", pushed)
		}
		if len(p.sessions) != 0 || len(p.prefs) != 0 || len(p.apps) != 1 {
			t.Errorf("%d sessions, %d preferences, %d streams are left, want 0, 0, 1", len(p.sessions), len(p.prefs), len(p.apps))
		}
		if read, write := p.Allowed(me.Peer, "Red"); !read || !write {
			t.Error("the restrictions of who left are kept")
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		me := h.connect("a")
		silent := make(chan struct{})
		defer close(silent)
		h.register(me, commandMethod, func(string) (string, error) { <-silent; return "", nil })
		p := start(t, h, Config{})
		h2 := &hungHost{h}
		p.host = h2 // answers nothing until its context ends
		p.Registered(me, commandMethod)
		synctest.Wait()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
		if _, err := p.Call(t.Context(), me, "T42.Prefs.Get", nil); !errors.Is(err, wire.ErrOffline) {
			t.Errorf("a call after it: %v", err)
		}
		if _, err := p.Subscribe(me, "T42.Wnd.OnEvent", nil, nil); !errors.Is(err, wire.ErrOffline) {
			t.Errorf("a subscription after it: %v", err)
		}
		p.Registered(me, commandMethod)
		p.AppsChanged()
		p.Left(me.Peer)
	})
}

// hungHost is a host whose clients do not answer.
type hungHost struct{ *fakeHost }

func (h *hungHost) Invoke(ctx context.Context, _, _ string, _ json.RawMessage) (json.RawMessage, error) {
	<-ctx.Done()
	return nil, wire.AsError(ctx.Err())
}

func TestConfig(t *testing.T) {
	if _, err := New(Config{Store: t.TempDir(), Mode: "both"}); !errors.Is(err, wire.ErrBadPayload) {
		t.Errorf("mode both: %v", err)
	}
	if _, err := New(Config{}); !errors.Is(err, wire.ErrUnavailable) {
		t.Errorf("without a store: %v", err)
	}
}

// logger collects what is logged.
func logger() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), &b
}

// FuzzCall: no arguments bring it down, and errors can travel.
func FuzzCall(f *testing.F) {
	for _, args := range []string{
		"", "null", "{}", "[]", `{"command":"switchChannel","swId":"i-b","data":{"newChannel":"Red+++Blue"}}`, `{"swId":"i-a","instance":"i-a"}`,
		`{"command":"leaveChannel","data":{"channel":"Red"}}`, `{"command":"restrict","data":{"name":"Red","read":false}}`,
		`{"command":"restrictAll","data":{"write":false}}`, `{"command":"getRestrictions"}`, `{"command":"getChannelsInfo","data":{"filter":{"channels":[]}}}`,
		`{"command":"addChannel","data":{"id":"x","color":"y"}}`, `{"command":"removeChannel","data":{"id":"x"}}`, `{"v2":{"apps":["a"]}}`,
		`{"withIntentsInfo":true}`, `{"app":"a","subscribe":true}`, `{"app":"a","data":{"x":[1,"\u0000"]},"merge":true}`, `{"app":"\ud800","data":{}}`, `{"clear":true}`,
	} {
		f.Add(args)
	}
	h := newFakeHost()
	me, other := h.connect("a", commandMethod), h.connect("b", commandMethod)
	h.register(other, commandMethod, (&client{}).answer)
	p, err := New(Config{Host: h, Store: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := p.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, args string) {
		for _, m := range p.Methods() {
			if m.Streaming {
				cancel, err := p.Subscribe(me, m.Name, json.RawMessage(args), func(d json.RawMessage) {
					if !json.Valid(d) {
						t.Fatalf("%s pushed %q", m.Name, d)
					}
				})
				if err == nil {
					cancel()
				}
				continue
			}
			result, err := p.Call(t.Context(), me, m.Name, json.RawMessage(args))
			if e, ok := errors.AsType[*wire.Error](err); err != nil && (!ok || e.Message == "") || err == nil && !json.Valid(result) {
				t.Fatalf("%s %q: %q, %v", m.Name, args, result, err)
			}
		}
		h.happened()
	})
}
