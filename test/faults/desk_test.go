//go:build unix

package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/gateway"
	"github.com/weft-fabric/weft/gateway/edge"
	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// deskConfig says what the process of a desk runs.
type deskConfig struct {
	Realm     string
	Node      string
	NATS      string // URLs, or an embedded server
	Store     string
	NoSync    bool
	CompactAt int
	Gateway   string // where it listens, "" for none
	Broken    string // how the node is broken on purpose
}

// request is one line of a desk's input.
type request struct {
	ID      int
	Do      string // write, get, watch, overwritten, alarms; of clients: connect, write, watch
	App     int
	Context string
	Kind    string // of write: set, update, paths
	Edits   []edit
	Timeout time.Duration
	// Of connect: where, as whom, and with which library.
	URL     string `json:",omitempty"`
	Name    string `json:",omitempty"`
	Library string `json:",omitempty"`
}

// edit is what a write wants at a path; no value removes.
type edit struct {
	Path  []string
	Value json.RawMessage `json:",omitempty"`
}

// ack is what a write was answered.
type ack struct {
	Revision   uint64
	Journalled bool
	ID         string
}

// notice says that parts of a journalled write of this node were not made.
type notice struct {
	ID      string
	Context string
	Edits   []edit
	desk    string // that has it
}

// response is one line of a desk's output: the answer to a request, or an event of a
// watch, which has no ID.
type response struct {
	ID    int       `json:",omitempty"`
	Code  wire.Code `json:",omitempty"`
	Error string    `json:",omitempty"`

	Ack     *ack         `json:",omitempty"`
	State   *state       `json:",omitempty"`
	Event   *event       `json:",omitempty"`
	Notices []notice     `json:",omitempty"`
	Ready   *ready       `json:",omitempty"`
	Alarms  []node.Alarm `json:",omitempty"`
}

// ready is the first line.
type ready struct {
	Gateway string
	Online  bool
}

// state is a context as the desk's apps see it.
type state struct {
	Exists   bool
	Revision uint64
	Pending  bool
	Since    bool            // it may be old
	Value    json.RawMessage `json:",omitempty"` // canonical
}

// event is one event of a watch; App says whose, of clients.
type event struct {
	App     int `json:",omitempty"`
	Context string
	Kind    string
	state
	Conflated int `json:",omitempty"`
}

// desk is the process of one.
type desk struct {
	node *node.Node
	apps []*node.App

	mu  sync.Mutex
	out *json.Encoder
}

// deskApps is how many Go apps a desk has.
const deskApps = 4

// broken is how the node is broken, which only the linker can say: see kv/broken.go.
//
//go:linkname broken github.com/weft-fabric/weft/kv.broken
var broken string

// runDesk is what a process does whose role is desk.
func runDesk() int {
	var cfg deskConfig
	err := json.Unmarshal([]byte(os.Getenv("WEFT_FAULTS_DESK")), &cfg)
	if err == nil {
		broken = cfg.Broken
		err = serveDesk(cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "desk:", err)
		return 1
	}
	return 0
}

func serveDesk(cfg deskConfig) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	c := node.Config{Realm: cfg.Realm, Node: cfg.Node, Machine: cfg.Node, Store: cfg.Store, NoSync: cfg.NoSync, CompactAt: cfg.CompactAt, Logger: log}
	if cfg.NATS != "" {
		c.NATS = node.NATS{URL: cfg.NATS, Options: []nats.Option{nats.DontRandomize()}}
	}
	n, err := node.Start(ctx, c)
	if err != nil {
		return err
	}
	defer n.Stop()
	d := &desk{node: n, out: json.NewEncoder(os.Stdout)}
	for i := range deskApps {
		a, err := n.Join(ctx, node.Identity{Application: fmt.Sprintf("%s-%d", cfg.Node, i)})
		if err != nil {
			return err
		}
		d.apps = append(d.apps, a)
	}
	first := &ready{Online: n.State().Online}
	if cfg.Gateway != "" {
		store := filepath.Join(cfg.Store, "gateway")
		config := gateway.Config{
			Node: n, Store: store, Logger: log, Edge: edge.Config{Listen: []string{cfg.Gateway}, Auth: edge.OSUser, Logger: log},
		}
		g, err := gateway.Start(config)
		// A program that is just being started has a copy of every socket until it runs.
		for try := 0; errors.Is(err, edge.ErrPortTaken) && try < 50; try++ {
			<-time.After(100 * time.Millisecond)
			g, err = gateway.Start(config)
		}
		if err != nil {
			return err
		}
		defer g.Stop()
		first.Gateway = g.URLs()[0]
	}
	d.say(response{Ready: first})
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil // the test has ended, or asks for an end
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		go d.serve(ctx, r)
	}
}

func (d *desk) say(r response) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.out.Encode(r) // who reads it may be gone
}

func (d *desk) serve(ctx context.Context, r request) {
	answer := response{}
	var err error
	app := d.apps[r.App].Contexts()
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		defer cancel()
	}
	switch r.Do {
	case "write":
		var a ack
		if a, err = write(ctx, app, r); err == nil {
			answer.Ack = &a
		}
	case "get":
		var s node.ContextState
		if s, err = app.Get(ctx, r.Context); err == nil {
			answer.State, err = describe(s)
		}
	case "watch":
		err = d.watch(ctx, app, r.Context)
	case "overwritten":
		answer.Notices, err = overwritten(app)
	case "alarms":
		answer.Alarms = d.node.Alarms()
	default:
		err = fmt.Errorf("no request %q", r.Do)
	}
	answer.ID = r.ID
	if err != nil {
		answer.Code, answer.Error = wire.CodeOf(err), err.Error()
	}
	d.say(answer)
}

// write makes one write of an app.
func write(ctx context.Context, app *node.Contexts, r request) (ack, error) {
	switch r.Kind {
	case "set":
		return acked(app.Set(ctx, r.Context, r.Edits[0].Value))
	case "update":
		values := map[string]json.RawMessage{} // one without a value is null, which removes
		for _, e := range r.Edits {
			values[e.Path[0]] = e.Value
		}
		object, err := json.Marshal(values)
		if err != nil {
			return ack{}, err
		}
		return acked(app.Update(ctx, r.Context, json.RawMessage(object)))
	default:
		var values []node.PathValue
		for _, e := range r.Edits {
			v := node.PathValue{Path: e.Path}
			if e.Value != nil {
				v.Value = e.Value
			}
			values = append(values, v)
		}
		return acked(app.SetPaths(ctx, r.Context, values))
	}
}

// acked is what a write was answered, as a desk says it.
func acked(a node.ContextAck, err error) (ack, error) { return ack(a), err }

// overwritten are the notices of all contexts.
func overwritten(app *node.Contexts) (list []notice, err error) {
	for _, o := range app.Overwritten("") {
		n := notice{ID: o.ID, Context: o.Context}
		for _, e := range o.Edits {
			text, err := wire.Canonical(e.Value)
			if err != nil {
				return nil, err
			}
			n.Edits = append(n.Edits, edit{e.Path, text})
		}
		list = append(list, n)
	}
	return list, nil
}

func describe(s node.ContextState) (*state, error) {
	d := &state{Exists: s.Exists, Revision: s.Revision, Pending: s.Pending, Since: !s.Since.IsZero()}
	if !s.Exists {
		return d, nil
	}
	text, err := wire.Canonical(s.Value())
	d.Value = text
	return d, err
}

// watch says everything that a watch is told.
func (d *desk) watch(ctx context.Context, app *node.Contexts, name string) error {
	w, err := app.Watch(ctx, name)
	if err != nil {
		return err
	}
	go func() {
		for e := range w.Events(context.WithoutCancel(ctx)) { // as long as the process
			s, err := describe(e.State)
			if err != nil {
				d.say(response{Error: err.Error()})
				return
			}
			d.say(response{Event: &event{Context: name, Kind: e.Kind.String(), state: *s, Conflated: e.Conflated}})
		}
	}()
	return nil
}
