package node_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/channels"
	"github.com/weft-fabric/weft/wire"
)

const defaultNames = "Red Green Blue Pink Yellow DarkYellow Orange Purple Lime Cyan"

// inNew runs f in a fabric whose realm nobody has used.
func inNew(t *testing.T, f func(t *testing.T, fb *fabric)) {
	t.Helper()
	inProvisioned(t, func(ctx context.Context, nc *nats.Conn) error { return kv.Provision(ctx, nc, realm, 1) }, f)
}

// hidden starts a node like a command-line tool's.
func (fb *fabric) hidden(id string) *node.Node {
	fb.t.Helper()
	n, err := node.Start(fb.t.Context(), node.Config{Realm: realm, Node: id, Machine: "machine-" + id, Server: fb.server, Logger: logger(fb.t), Hidden: true})
	if err != nil {
		fb.t.Fatal(err)
	}
	return n
}

// stream is the context bucket's stream.
func (fb *fabric) stream() *jetstream.StreamInfo {
	fb.t.Helper()
	nc, err := nats.Connect("", fb.server.ConnectOptions()...)
	if err != nil {
		fb.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		fb.t.Fatal(err)
	}
	s, err := js.Stream(fb.t.Context(), "KV_weft_desk_ctx")
	if err != nil {
		fb.t.Fatal(err)
	}
	return s.CachedInfo()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantChannels(t *testing.T, a *node.App, want string) {
	t.Helper()
	names, err := a.Channels().Names(t.Context())
	if got := strings.Join(names, " "); err != nil || got != want {
		t.Errorf("%s has the channels %q, %v, want %q", a.ID(), got, err, want)
	}
	list, err := a.Channels().List(t.Context())
	var listed []string
	for _, c := range list {
		listed = append(listed, c.Name)
	}
	if got := strings.Join(listed, " "); err != nil || got != want {
		t.Errorf("%s lists %q, %v, want %q", a.ID(), got, err, want)
	}
}

// wantData compares the data of a channel as apps have it.
func wantData(t *testing.T, want, name string, apps ...*node.App) {
	t.Helper()
	synctest.Wait()
	for _, a := range apps {
		c, err := a.Channels().Get(t.Context(), name)
		must(t, err)
		text, err := wire.Canonical(c.Data)
		must(t, err)
		if string(text) != want {
			t.Errorf("%s has %s, want %s", a.ID(), text, want)
		}
	}
}

func wantError(t *testing.T, err error, code wire.Code, text string) {
	t.Helper()
	if wire.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("got %v, want %s: ... %s", err, code, text)
	}
}

// who lists the members of a channel as an app sees them.
func who(a *node.App, channel string) string {
	synctest.Wait()
	var list []string
	for _, m := range a.Channels().Members(channel) {
		list = append(list, m.Identity.Application+"@"+string(m.Node))
	}
	return strings.Join(list, " ")
}

// updateLine is an update in one line.
func updateLine(u node.ChannelUpdate) string {
	s := u.Kind.String() + " " + u.Channel.Name
	switch u.Kind {
	case node.ChannelSnapshot:
		s += " " + u.Channel.Data.String()
	case node.ChannelChanged:
		for _, c := range u.Changes {
			s += " " + strings.Join(c.Path, "/") + "=" + c.Value.String()
		}
		s += " by " + string(u.Channel.By.Node)
	case node.ChannelRemoved:
		s += " by " + string(u.Channel.By.Node)
	}
	return s
}

// follow collects the updates of a watch; next returns those since the last time.
func follow(t *testing.T, w *node.ChannelWatch) (next func() string) {
	t.Helper()
	var mu sync.Mutex
	var lines []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for u := range w.Updates(context.Background()) {
			mu.Lock()
			lines = append(lines, updateLine(u))
			mu.Unlock()
		}
		mu.Lock()
		lines = append(lines, "end")
		mu.Unlock()
	}()
	t.Cleanup(func() {
		w.Close()
		<-ended
	})
	return func() string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		s := strings.Join(lines, ", ")
		lines = nil
		return s
	}
}

func watchMine(t *testing.T, a *node.App) (next func() string) {
	t.Helper()
	w, err := a.Channels().Watch(t.Context())
	must(t, err)
	return follow(t, w)
}

func watchChannel(t *testing.T, a *node.App, name string) (next func() string) {
	t.Helper()
	w, err := a.Channels().WatchChannel(t.Context(), name)
	must(t, err)
	return follow(t, w)
}

// events collects what an app hears of all channels.
func events(t *testing.T, a *node.App) (next func() string) {
	t.Helper()
	var mu sync.Mutex
	var lines []string
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e := range a.Channels().Events(ctx) {
			s := e.Kind.String() + " " + e.Channel
			if e.Kind == node.ChannelMemberJoined || e.Kind == node.ChannelMemberLeft {
				s += " " + e.Member.Identity.Application + "@" + string(e.Member.Node)
			} else if e.By.Node != "" {
				s += " by " + string(e.By.Node)
			}
			mu.Lock()
			lines = append(lines, s)
			mu.Unlock()
		}
		mu.Lock()
		lines = append(lines, "end")
		mu.Unlock()
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return func() string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		s := strings.Join(lines, ", ")
		lines = nil
		return s
	}
}

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// TestDefaultChannelsOnce: three nodes start at the same moment and one of them
// makes the defaults; what is removed stays removed when all start again.
func TestDefaultChannelsOnce(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		start := func(ids ...string) (apps []*node.App, stop func()) {
			nodes := make([]*node.Node, len(ids))
			var wg sync.WaitGroup
			for i, id := range ids {
				wg.Go(func() {
					n, err := node.Start(t.Context(), node.Config{Realm: realm, Node: id, Server: fb.server, Logger: logger(t)})
					if err != nil {
						t.Error(err)
					}
					nodes[i] = n
				})
			}
			wg.Wait()
			for _, n := range nodes {
				if n == nil {
					t.Fatal("a node did not start")
				}
				apps = append(apps, join(t, n, "x"))
			}
			return apps, func() {
				for _, n := range nodes {
					n.Stop()
				}
			}
		}
		apps, stop := start("a", "b", "c")
		for _, a := range apps {
			wantChannels(t, a, defaultNames)
		}
		names, err := apps[0].Contexts().Names(t.Context())
		if err != nil || len(names) != 10 {
			t.Errorf("contexts %q, %v", names, err)
		}
		// Ten roots with their metadata and the mark; nothing was written twice.
		if s := fb.stream().State; s.LastSeq != 21 || s.NumSubjects != 21 {
			t.Errorf("%d writes of %d keys", s.LastSeq, s.NumSubjects)
		}
		must(t, apps[1].Channels().Remove(t.Context(), "Lime"))
		last := fb.stream().State.LastSeq
		stop()
		rest := strings.Replace(defaultNames, "Lime ", "", 1)
		apps, stop = start("c", "d", "e")
		defer stop()
		for _, a := range apps {
			wantChannels(t, a, rest)
		}
		if s := fb.stream().State; s.LastSeq != last {
			t.Errorf("%d writes after all started again", s.LastSeq-last)
		}
		must(t, apps[0].Channels().Add(t.Context(), "Lime", object{"color": "lime"}, nil))
		synctest.Wait()
		wantChannels(t, apps[2], defaultNames)
	})
}

func TestDefaultChannels(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		app := join(t, a, "x")
		list, err := app.Channels().List(t.Context())
		must(t, err)
		var got []string
		for _, c := range list {
			var meta struct {
				FDC3 struct {
					ID              string `msgpack:"id"`
					DisplayMetadata struct {
						Name  string `msgpack:"name"`
						Color string `msgpack:"color"`
						Glyph string `msgpack:"glyph"`
					} `msgpack:"displayMetadata"`
				} `msgpack:"fdc3"`
			}
			must(t, c.Meta.Decode(&meta))
			d := meta.FDC3.DisplayMetadata
			got = append(got, strings.Trim(fmt.Sprintf("%s %s %s %s %s", c.Name, c.Color(), meta.FDC3.ID, d.Name, d.Glyph), " "))
			if meta.FDC3.ID != "" && d.Color != c.Color() {
				t.Errorf("%s is %s and for FDC3 %s", c.Name, c.Color(), d.Color)
			}
			if c.By.Node != "a" || c.Revision == 0 || c.Data.String() != "{}" || !c.Since.IsZero() || c.Pending {
				t.Errorf("got %+v", c)
			}
		}
		if want := []string{
			"Red red fdc3.channel.1 Channel 1 1",
			"Green green fdc3.channel.4 Channel 4 4",
			"Blue #66ABFF fdc3.channel.6 Channel 6 6",
			"Pink #F328BB fdc3.channel.7 Channel 7 7",
			"Yellow #FFE733 fdc3.channel.3 Channel 3 3",
			"DarkYellow #b09b00",
			"Orange #fa5a28 fdc3.channel.2 Channel 2 2",
			"Purple #c873ff fdc3.channel.8 Channel 8 8",
			"Lime #8af59e",
			"Cyan #80f3ff fdc3.channel.5 Channel 5 5",
		}; !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		wantText(t, "Red", canonical(t, app, channels.Prefix+"Red"),
			`{"data":{},"meta":{"color":"red","fdc3":{"displayMetadata":{"color":"red","glyph":"1","name":"Channel 1"},"id":"fdc3.channel.1"}},"name":"Red"}`)
	})
}

// TestHiddenNodeMakesNoChannels until an app uses them; what is there is left
// alone, and a context that somebody watches already is seen to come.
func TestHiddenNodeMakesNoChannels(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, b := fb.hidden("a"), fb.hidden("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		time.Sleep(time.Minute)
		if n := fb.stream().State.LastSeq; n != 0 {
			t.Fatalf("%d writes", n)
		}
		names, err := ann.Contexts().Names(t.Context())
		if err != nil || len(names) != 0 {
			t.Errorf("contexts %q, %v", names, err)
		}
		red := object{"name": "Red", "meta": object{"color": "crimson"}, "data": object{"mine": true}}
		_, err = ann.Contexts().Set(t.Context(), channels.Prefix+"Red", red)
		must(t, err)
		w, err := ann.Contexts().Watch(t.Context(), channels.Prefix+"Blue")
		must(t, err)
		defer w.Close()
		if e, ok := w.Next(t.Context()); !ok || e.Exists {
			t.Errorf("got %+v", e)
		}
		wantChannels(t, bob, defaultNames)
		synctest.Wait()
		wantChannels(t, ann, defaultNames)
		c, err := ann.Channels().Get(t.Context(), "Red")
		if err != nil || c.Color() != "crimson" || c.Data.String() != `{"mine":true}` {
			t.Errorf("got %+v, %v", c, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if e, ok := w.Next(ctx); !ok || e.Kind != node.ContextCreated || e.By.Node != "b" {
			t.Errorf("got %+v", e)
		}
	})
}

// TestDefaultChannelsAfterOutage: a node that starts offline makes them when it is
// back; the API answers at once meanwhile.
func TestDefaultChannelsAfterOutage(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, cable := fb.wired("a")
		defer a.Stop()
		app := join(t, a, "x")
		synctest.Wait()
		wantChannels(t, app, defaultNames)
		cable.pull()
		synctest.Wait()
		began := time.Now()
		wantChannels(t, app, defaultNames)
		must(t, app.Channels().Join(t.Context(), "Red"))
		_, err := app.Channels().Publish(t.Context(), object{"a": 1})
		wantError(t, err, wire.Offline, "")
		wantError(t, app.Channels().Add(t.Context(), "Desk", object{"color": "red"}, nil), wire.Offline, "")
		wantError(t, app.Channels().Remove(t.Context(), "Red"), wire.Offline, "")
		if c, err := app.Channels().Get(t.Context(), "Red"); err != nil || c.Since.IsZero() {
			t.Errorf("got %+v, %v", c, err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("took %s", d)
		}
		b := fb.node("b")
		defer b.Stop()
		bob := join(t, b, "bob")
		time.Sleep(20 * time.Second)
		wantText(t, "on Red", who(bob, "Red"), "")
		cable.plug()
		sees(t, b, 20*time.Second, "a b")
		wantText(t, "on Red", who(bob, "Red"), "x@a")
	})
}

func TestJoinChannels(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		ann, amy, bob := join(t, a, "ann"), join(t, a, "amy"), join(t, b, "bob")
		ctx := t.Context()
		wantText(t, "at first", ann.Channels().My(), "")
		must(t, ann.Channels().Join(ctx, "Red"))
		must(t, ann.Channels().Join(ctx, "Red"))
		must(t, bob.Channels().Join(ctx, "Red"))
		must(t, amy.Channels().Join(ctx, "Blue"))
		wantText(t, "ann", ann.Channels().My(), "Red")
		for _, app := range []*node.App{ann, bob} {
			wantText(t, "on Red", who(app, "Red"), "ann@a bob@b")
			wantText(t, "on Blue", who(app, "Blue"), "amy@a")
		}
		m := ann.Channels().Members("Red")[1]
		if m.App != bob.ID() || m.Machine != "machine-b" || m.Host == "" || m.Local || m.SameMachine || m.Identity.User == "" {
			t.Errorf("got %+v", m)
		}
		must(t, ann.Channels().Join(ctx, "Blue")) // leaves Red
		wantText(t, "ann", ann.Channels().My(), "Blue")
		wantText(t, "on Red", who(bob, "Red"), "bob@b")
		wantText(t, "on Blue", who(bob, "Blue"), "ann@a amy@a")
		must(t, amy.Channels().Leave(ctx))
		must(t, amy.Channels().Leave(ctx))
		wantText(t, "amy", amy.Channels().My(), "")
		wantText(t, "on Blue", who(bob, "Blue"), "ann@a")
		ann.Leave() // the app goes
		time.Sleep(time.Second)
		wantText(t, "on Blue", who(bob, "Blue"), "")
		wantText(t, "ann", ann.Channels().My(), "")
		wantError(t, ann.Channels().Join(ctx, "Red"), wire.TargetGone, "")
		b.Stop() // the node goes
		time.Sleep(time.Second)
		wantText(t, "on Red", who(amy, "Red"), "")
	})
}

// TestPublishOfTwoKeys: apps on two machines that publish different keys all the
// time do not disturb each other.
func TestPublishOfTwoKeys(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		apps := []*node.App{join(t, a, "ann"), join(t, b, "bob")}
		var wg sync.WaitGroup
		for i, app := range apps {
			must(t, app.Channels().Join(t.Context(), "Red"))
			wg.Go(func() {
				for n := range 50 {
					if _, err := app.Channels().Publish(t.Context(), object{fmt.Sprintf("key%d", i): n, fmt.Sprintf("o%d", i): object{"n": n}}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		wantData(t, `{"key0":49,"key1":49,"o0":{"n":49},"o1":{"n":49}}`, "Red", apps...)
		for _, n := range []*node.Node{a, b} {
			if s := n.Stats().Contexts; s.Conflicts != 0 || s.Refused != 0 {
				t.Errorf("%s: %+v", n.ID(), s)
			}
		}
	})
}

func TestPublish(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		ctx := t.Context()
		must(t, ann.Channels().Join(ctx, "Red"))
		_, err := ann.Channels().Publish(ctx, object{"client": object{"id": 1, "name": "ACME"}, "a.b": 1, "gone": true})
		must(t, err)
		_, err = ann.Channels().Publish(ctx, object{"client": object{"id": 2}, "gone": nil}) // a key is replaced as a whole
		must(t, err)
		wantData(t, `{"a.b":1,"client":{"id":2}}`, "Red", ann, bob)
		_, err = bob.Channels().PublishTo(ctx, "Red", wire.Payload{Format: wire.JSON, Data: []byte(`{"b":2}`)})
		must(t, err)
		_, err = ann.Channels().SetPath(ctx, []string{"client", "name"}, "Z")
		must(t, err)
		_, err = bob.Channels().SetPathsTo(ctx, "Red", []node.PathValue{{Path: []string{"a.b"}}, {Path: []string{"list"}, Value: []int{1, 2}}})
		must(t, err)
		wantData(t, `{"b":2,"client":{"id":2,"name":"Z"},"list":[1,2]}`, "Red", ann, bob)
		was, err := bob.Channels().Get(ctx, "Red")
		must(t, err)
		ack, err := ann.Channels().Publish(ctx, object{}) // says nothing
		if err != nil || ack.Revision != was.Revision {
			t.Errorf("got %+v, %v, the revision is %d", ack, err, was.Revision)
		}
		_, err = ann.Channels().SetPaths(ctx, []node.PathValue{{Value: object{}}})
		must(t, err)
		wantData(t, `{}`, "Red", ann, bob)
		wantText(t, "beside the data", canonical(t, bob, channels.Prefix+"Red"),
			`{"data":{},"meta":{"color":"red","fdc3":{"displayMetadata":{"color":"red","glyph":"1","name":"Channel 1"},"id":"fdc3.channel.1"}},"name":"Red"}`)
	})
}

func TestWatchFollows(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		ctx := t.Context()
		must(t, bob.Channels().Join(ctx, "Red"))
		publish := func(app *node.App, channel string, data any) {
			t.Helper()
			_, err := app.Channels().PublishTo(ctx, channel, data)
			must(t, err)
		}
		publish(bob, "Red", object{"a": 1})
		next := watchMine(t, ann)
		wantText(t, "on none", next(), "")
		must(t, ann.Channels().Join(ctx, "Red"))
		wantText(t, "joined", next(), `joined Red, snapshot Red {"a":1}`)
		publish(bob, "Red", object{"a": 2, "o": object{"x": 1}})
		wantText(t, "remote", next(), `changed Red a=2 o={"x":1} by b`)
		publish(ann, "Red", object{"o": object{"x": 2}})
		wantText(t, "local", next(), `changed Red o/x=2 by a`)
		publish(bob, "Blue", object{"b": 1})
		must(t, ann.Channels().Join(ctx, "Blue"))
		publish(bob, "Red", object{"a": 3})
		wantText(t, "switched", next(), `left Red, joined Blue, snapshot Blue {"b":1}`)
		late := watchMine(t, ann)
		wantText(t, "late", late(), `joined Blue, snapshot Blue {"b":1}`)
		must(t, ann.Channels().Leave(ctx))
		publish(bob, "Blue", object{"b": 2})
		wantText(t, "left", next(), "left Blue")
		wantText(t, "left, late", late(), "left Blue")
		must(t, ann.Channels().Join(ctx, "Red"))
		wantText(t, "again", next(), `joined Red, snapshot Red {"a":3,"o":{"x":2}}`)
		ann.Leave()
		wantText(t, "gone", next(), "end")
		if _, err := ann.Channels().Watch(ctx); wire.CodeOf(err) != wire.TargetGone {
			t.Errorf("got %v", err)
		}
	})
}

// TestNothingOfTheFormerChannel: a reader that has not kept up hears nothing of the
// channel that its app is not on any more.
func TestNothingOfTheFormerChannel(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		ann := join(t, a, "ann")
		ctx := t.Context()
		must(t, ann.Channels().Join(ctx, "Red"))
		w, err := ann.Channels().Watch(ctx)
		must(t, err)
		defer w.Close()
		next := func() string {
			u, ok := w.Next(ctx)
			if !ok {
				t.Fatal("the watch has ended")
			}
			return updateLine(u)
		}
		wantText(t, "first", next(), "joined Red")
		_, err = ann.Channels().Publish(ctx, object{"a": 1})
		must(t, err)
		must(t, ann.Channels().Join(ctx, "Green"))
		must(t, ann.Channels().Join(ctx, "Blue"))
		wantText(t, "second", next(), "left Red")
		wantText(t, "third", next(), "joined Blue")
		wantText(t, "fourth", next(), "snapshot Blue {}")
		over, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if u, ok := w.Next(over); ok {
			t.Errorf("got %s", updateLine(u))
		}
		_, err = ann.Channels().Publish(ctx, object{"a": 1}) // the watch goes on after that
		must(t, err)
		wantText(t, "fifth", next(), "changed Blue a=1 by a")
		w.Close()
		w.Close()
		if u, ok := w.Next(ctx); ok {
			t.Errorf("got %s", updateLine(u))
		}
	})
}

func TestWatchChannel(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		ctx := t.Context()
		_, err := ann.Channels().WatchChannel(ctx, "Desk")
		wantError(t, err, wire.BadName, `no channel "Desk"`)
		must(t, bob.Channels().Add(ctx, "Desk", object{"color": "#123456", "label": "D"}, object{"a": 1}))
		synctest.Wait()
		next := watchChannel(t, ann, "Desk")
		wantText(t, "first", next(), `snapshot Desk {"a":1}`)
		must(t, ann.Channels().Join(ctx, "Red"))
		_, err = ann.Channels().Publish(ctx, object{"a": 2})
		must(t, err)
		wantText(t, "another channel", next(), "")
		_, err = bob.Channels().PublishTo(ctx, "Desk", object{"a": nil})
		must(t, err)
		wantText(t, "a key removed", next(), "changed Desk a= by b")
		_, err = bob.Contexts().SetPath(ctx, channels.Prefix+"Desk", []string{"meta", "color"}, "red")
		must(t, err)
		wantText(t, "meta changed", next(), "changed Desk by b")
		must(t, bob.Channels().Remove(ctx, "Desk"))
		wantText(t, "removed", next(), "removed Desk by b")
		must(t, bob.Channels().Add(ctx, "Desk", object{"color": "red"}, nil))
		wantText(t, "added", next(), "snapshot Desk {}")
		ann.Leave()
		wantText(t, "gone", next(), "end")
	})
}

func TestWatchOffline(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, cable := fb.wired("a")
		defer a.Stop()
		b := fb.node("b")
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		must(t, ann.Channels().Join(t.Context(), "Red"))
		next := watchMine(t, ann)
		next()
		cable.pull()
		wantText(t, "cut off", next(), "offline Red")
		_, err := bob.Channels().PublishTo(t.Context(), "Red", object{"a": 1})
		must(t, err)
		time.Sleep(2 * time.Second)
		wantText(t, "cut off", next(), "")
		cable.plug()
		time.Sleep(20 * time.Second)
		got := next()
		if !strings.Contains(got, "changed Red a=1 by b") || strings.Contains(got, "left") {
			t.Errorf("back again: %q", got)
		}
		wantText(t, "ann", ann.Channels().My(), "Red")
	})
}

// TestRemoveJoinedChannel: those on it are on none afterwards, wherever they are.
func TestRemoveJoinedChannel(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, amy, bob := join(t, a, "ann"), join(t, a, "amy"), join(t, b, "bob")
		ctx := t.Context()
		for _, app := range []*node.App{ann, amy, bob} {
			must(t, app.Channels().Join(ctx, "Red"))
		}
		next, far := watchMine(t, ann), watchMine(t, bob)
		next()
		far()
		must(t, ann.Channels().Remove(ctx, "Red"))
		wantText(t, "at once", ann.Channels().My()+amy.Channels().My(), "")
		wantText(t, "remover", next(), "removed Red by a")
		wantText(t, "other", far(), "removed Red by a")
		wantText(t, "bob", bob.Channels().My(), "")
		for _, app := range []*node.App{ann, bob} {
			wantText(t, "on Red", who(app, "Red"), "")
			_, err := app.Channels().Publish(ctx, object{"a": 1})
			wantError(t, err, wire.BadName, "not joined")
		}
		must(t, bob.Channels().Add(ctx, "Red", object{"color": "red"}, object{"new": true}))
		synctest.Wait()
		wantText(t, "added again", ann.Channels().My()+next()+far(), "")
		must(t, ann.Channels().Join(ctx, "Red"))
		wantText(t, "joined again", next(), `joined Red, snapshot Red {"new":true}`)
		wantText(t, "on Red", who(bob, "Red"), "ann@a")
	})
}

// TestRemoveBusyChannel: what is published while a channel is removed does not
// bring it back.
func TestRemoveBusyChannel(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann := join(t, a, "ann")
		var wg sync.WaitGroup
		for i := range 8 {
			app := join(t, []*node.Node{a, b}[i%2], fmt.Sprint("publisher", i))
			must(t, app.Channels().Join(t.Context(), "Red"))
			wg.Go(func() {
				for n := 0; ; n++ {
					if _, err := app.Channels().Publish(t.Context(), object{fmt.Sprint("key", i): n}); err != nil {
						wantError(t, err, wire.BadName, "")
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		must(t, ann.Channels().Remove(t.Context(), "Red"))
		wg.Wait()
		time.Sleep(time.Minute)
		wantChannels(t, ann, strings.TrimPrefix(defaultNames, "Red "))
	})
}

func TestChannelErrors(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		defer a.Stop()
		app := join(t, a, "x")
		c, ctx := app.Channels(), t.Context()
		red := object{"color": "red"}
		long := strings.Repeat("x", 255-len(channels.Prefix))
		set := func(name string, values ...node.PathValue) error {
			_, err := c.SetPathsTo(ctx, name, values)
			return err
		}
		publish := func(name string, data any) error {
			_, err := c.PublishTo(ctx, name, data)
			return err
		}
		get := func(name string) error {
			_, err := c.Get(ctx, name)
			return err
		}
		_, mine := c.Publish(ctx, red)
		_, path := c.SetPath(ctx, []string{"a"}, 1)
		deep := make([]string, 65)
		for _, tt := range []struct {
			name string
			err  error
			code wire.Code
			text string
		}{
			{"publish on none", mine, wire.BadName, "not joined to any channel"},
			{"set on none", path, wire.BadName, "not joined to any channel"},
			{"get", get("None"), wire.BadName, `no channel "None"`},
			{"get none", get(""), wire.BadName, "needs a name"},
			{"get long", get(long + "x"), wire.BadName, "longer"},
			{"get broken", get("\xff"), wire.BadName, "UTF-8"},
			{"case counts", get("red"), wire.BadName, `no channel "red"`},
			{"join", c.Join(ctx, "None"), wire.BadName, `no channel "None"`},
			{"join none", c.Join(ctx, ""), wire.BadName, "needs a name"},
			{"publish to none", publish("None", red), wire.BadName, `no channel "None"`},
			{"publish nothing", publish("Red", nil), wire.BadPayload, "object"},
			{"publish a number", publish("Red", 5), wire.BadPayload, "object"},
			{"publish a list", publish("Red", []int{1}), wire.BadPayload, "object"},
			{"publish what cannot be", publish("Red", object{"a": make(chan int)}), wire.BadPayload, ""},
			{"set to none", set("None", node.PathValue{Path: []string{"a"}, Value: 1}), wire.BadName, `no channel "None"`},
			{"set data to a number", set("Red", node.PathValue{Value: 5}), wire.BadPayload, "object"},
			{"remove data", set("Red", node.PathValue{}), wire.BadPayload, "cannot be removed"},
			{"set too deep", set("Red", node.PathValue{Path: deep, Value: 1}), wire.BadPayload, "levels"},
			{"add twice", c.Add(ctx, "Red", red, nil), wire.BadName, `already a channel "Red"`},
			{"add without color", c.Add(ctx, "Desk", object{}, nil), wire.BadPayload, "color"},
			{"add without meta", c.Add(ctx, "Desk", nil, nil), wire.BadPayload, "color"},
			{"add with a number as color", c.Add(ctx, "Desk", object{"color": 5}, nil), wire.BadPayload, "color"},
			{"add with a list as meta", c.Add(ctx, "Desk", []string{"red"}, nil), wire.BadPayload, "object"},
			{"add with a number as data", c.Add(ctx, "Desk", red, 5), wire.BadPayload, "object"},
			{"add none", c.Add(ctx, "", red, nil), wire.BadName, "needs a name"},
			{"add long", c.Add(ctx, long+"x", red, nil), wire.BadName, "longer"},
			{"remove", c.Remove(ctx, "None"), wire.BadName, `no channel "None"`},
		} {
			if wire.CodeOf(tt.err) != tt.code || !strings.Contains(fmt.Sprint(tt.err), tt.text) {
				t.Errorf("%s: got %v, want %s: ... %s", tt.name, tt.err, tt.code, tt.text)
			}
		}
		_, _, err := app.Contexts().Create(ctx, channels.Prefix, object{}) // is no channel
		must(t, err)
		must(t, c.Add(ctx, long, red, nil))
		wantChannels(t, app, defaultNames+" "+long)
		gone, cancel := context.WithCancel(ctx)
		cancel()
		wantError(t, c.Join(gone, "Purple"), wire.Canceled, "")
		wantText(t, "after all", c.My(), "")
	})
}

func TestChannelNames(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		defer b.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		ctx := t.Context()
		names := []string{" ", "*.>", "Dark Yellow", "a.b", "Öl & Gas", "日本", strings.Repeat("ü", 100)}
		slices.Sort(names)
		for _, name := range names {
			must(t, ann.Channels().Add(ctx, name, object{"color": "red"}, nil))
			must(t, bob.Channels().Join(ctx, name))
			wantText(t, name, who(ann, name), "bob@b")
			next := watchMine(t, bob)
			_, err := ann.Channels().PublishTo(ctx, name, object{"k.k": "v", "ü": 1})
			must(t, err)
			wantText(t, name, next(), "joined "+name+", snapshot "+name+" {}, changed "+name+` k.k="v" ü=1 by a`)
			wantData(t, `{"k.k":"v","ü":1}`, name, ann, bob)
		}
		wantChannels(t, bob, defaultNames+" "+strings.Join(names, " "))
		for _, name := range names {
			must(t, bob.Channels().Remove(ctx, name))
		}
		synctest.Wait()
		wantChannels(t, ann, defaultNames)
	})
}

func TestChannelEvents(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a, b := fb.node("a"), fb.node("b")
		defer a.Stop()
		ann, bob := join(t, a, "ann"), join(t, b, "bob")
		ctx := t.Context()
		for _, name := range strings.Fields(defaultNames)[2:] {
			must(t, ann.Channels().Remove(ctx, name))
		}
		must(t, bob.Channels().Join(ctx, "Red"))
		synctest.Wait()
		next, far := events(t, ann), events(t, bob)
		for _, got := range []string{next(), far()} {
			list := strings.Split(got, ", ")
			red := slices.IndexFunc(list, func(s string) bool { return strings.HasPrefix(s, "added Red") })
			joined := slices.Index(list, "member-joined Red bob@b")
			if len(list) != 3 || red < 0 || joined < red {
				t.Errorf("at first: %q", got)
			}
		}
		both := func(what, expected string) {
			t.Helper()
			wantText(t, what+", near", next(), expected)
			wantText(t, what+", far", far(), expected)
		}
		must(t, bob.Channels().Join(ctx, "Green"))
		both("switched", "member-left Red bob@b, member-joined Green bob@b")
		must(t, ann.Channels().Join(ctx, "Green"))
		both("joined", "member-joined Green ann@a")
		must(t, ann.Channels().Add(ctx, "Desk", object{"color": "red"}, nil))
		both("added", "added Desk by a")
		_, err := ann.Channels().Publish(ctx, object{"a": 1})
		must(t, err)
		_, err = ann.Contexts().Set(ctx, "no channel", object{})
		must(t, err)
		both("published", "")
		must(t, ann.Channels().Leave(ctx))
		both("left", "member-left Green ann@a")
		must(t, ann.Channels().Remove(ctx, "Desk"))
		both("removed", "removed Desk by a")
		must(t, bob.Channels().Remove(ctx, "Green"))
		both("removed with a member", "member-left Green bob@b, removed Green by b")
		must(t, bob.Channels().Join(ctx, "Red"))
		both("joined", "member-joined Red bob@b")
		bob.Leave()
		wantText(t, "app gone", next(), "member-left Red bob@b")
		if got := far(); !strings.HasSuffix(got, "end") {
			t.Errorf("app gone, its own: %q", got)
		}
		cem := join(t, b, "cem")
		must(t, cem.Channels().Join(ctx, "Red"))
		wantText(t, "joined", next(), "member-joined Red cem@b")
		b.Stop()
		time.Sleep(time.Second)
		wantText(t, "node gone", next(), "member-left Red cem@b")
		a.Stop()
		wantText(t, "stopped", next(), "end")
	})
}

// TestStopWithChannels: a node stops while its apps are on channels, watch and
// publish.
func TestStopWithChannels(t *testing.T) {
	inNew(t, func(t *testing.T, fb *fabric) {
		a := fb.node("a")
		app := join(t, a, "x")
		must(t, app.Channels().Join(t.Context(), "Red"))
		next, fixed := watchMine(t, app), watchChannel(t, app, "Blue")
		next()
		fixed()
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				if _, err := app.Channels().Publish(t.Context(), object{"a": time.Now().String()}); err != nil {
					return
				}
			}
		})
		a.Stop()
		wg.Wait()
		for _, got := range []string{next(), fixed()} {
			if !strings.HasSuffix(got, "end") {
				t.Errorf("got %q", got)
			}
		}
		wantError(t, app.Channels().Join(t.Context(), "Blue"), wire.Offline, "stopped")
	})
}
