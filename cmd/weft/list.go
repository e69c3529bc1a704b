package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/weft-fabric/weft/node"
)

// listFlags are common to the lists of who is here.
type listFlags struct {
	Watch bool `short:"w" help:"Print what is there and then each change."`
	All   bool `short:"a" help:"Command-line tools too: nodes named cli-..., and their apps that offer nothing."`
	connectFlags
}

type (
	nodesCommand   struct{ listFlags }
	appsCommand    struct{ listFlags }
	methodsCommand struct{ listFlags }
)

// clockNoticed is the clock offset from which on it is shown.
const clockNoticed = time.Second

// nodeLine is a node with --json.
type nodeLine struct {
	ID            string   `json:"id"`
	Machine       string   `json:"machine"`
	Host          string   `json:"host"`
	User          string   `json:"user"`
	Version       string   `json:"version"`
	State         string   `json:"state"`
	Hidden        bool     `json:"hidden,omitempty"`
	ClockOffsetMs int64    `json:"clockOffsetMs"`
	Apps          []string `json:"apps"`
}

func newNodeLine(n *node.Info) nodeLine {
	line := nodeLine{
		ID: string(n.ID), Machine: n.Machine, Host: n.Host, User: n.User, Version: n.Version,
		State: "ok", Hidden: n.Hidden, ClockOffsetMs: n.ClockOffset.Milliseconds(), Apps: []string{},
	}
	if n.Suspect {
		line.State = "suspect"
	}
	for _, a := range n.Apps {
		line.Apps = append(line.Apps, a.Identity.Application)
	}
	return line
}

// appLine is an app with --json.
type appLine struct {
	ID       string        `json:"id"`
	Identity node.Identity `json:"identity"`
	Methods  []string      `json:"methods"`
	Streams  []string      `json:"streams"`
}

func newAppLine(a *node.AppInfo) appLine {
	line := appLine{ID: string(a.ID), Identity: a.Identity, Methods: []string{}, Streams: []string{}}
	for _, m := range a.Methods {
		if m.Streaming {
			line.Streams = append(line.Streams, m.Name)
		} else {
			line.Methods = append(line.Methods, m.Name)
		}
	}
	return line
}

// methodLine is a method or stream with --json.
type methodLine struct {
	node.Method
	Servers []node.Identity `json:"servers"`
}

// Run lists the nodes.
func (c *nodesCommand) Run(ctx context.Context, p *program) error {
	return c.list(ctx, p, "node", c.show, func(s *session) error {
		nodes := slices.DeleteFunc(s.node.Nodes(), func(n *node.Info) bool { return n.Hidden && !c.All })
		var rows []table.Row
		for _, n := range nodes {
			line := newNodeLine(n)
			if p.json {
				if err := p.printJSON(line); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, table.Row{
				line.ID, line.Machine, line.Host, line.User,
				strings.Join(line.Apps, ", "), line.Version, clockOffset(n.ClockOffset), line.State,
			})
		}
		if !p.json {
			header := table.Row{"node", "machine", "host", "user", "apps", "version", "clock", "state"}
			p.printTable("No nodes in realm "+string(s.node.Realm().Name())+".", header, rows)
		}
		return nil
	})
}

func (c *listFlags) show(n *node.Info, _ *node.AppInfo) bool { return !n.Hidden || c.All }

// clockOffset is shown when it could surprise somebody: "+24h0m3s".
func clockOffset(d time.Duration) string {
	if d.Abs() < clockNoticed {
		return ""
	}
	d = d.Round(time.Second)
	if d > 0 {
		return "+" + d.String()
	}
	return d.String()
}

// Run lists the apps.
func (c *appsCommand) Run(ctx context.Context, p *program) error {
	return c.list(ctx, p, "app", c.showApp, func(s *session) error {
		var rows []table.Row
		for _, n := range s.node.Nodes() {
			for _, a := range n.Apps {
				if !c.showApp(n, a) {
					continue
				}
				line := newAppLine(a)
				if p.json {
					if err := p.printJSON(line); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, table.Row{
					a.Identity.Application, line.ID, string(n.ID), n.Machine, n.User,
					strings.Join(line.Methods, ", "), strings.Join(line.Streams, ", "),
				})
			}
		}
		if !p.json {
			header := table.Row{"application", "id", "node", "machine", "user", "methods", "streams"}
			p.printTable("No apps in realm "+string(s.node.Realm().Name())+".", header, rows)
		}
		return nil
	})
}

// showApp leaves out the app of a tool that only looks or calls.
func (c *listFlags) showApp(n *node.Info, a *node.AppInfo) bool {
	return c.show(n, a) || len(a.Methods) > 0
}

// Run lists the methods and streams.
func (c *methodsCommand) Run(ctx context.Context, p *program) error {
	return c.list(ctx, p, "method", c.showApp, func(s *session) error {
		var rows []table.Row
		for _, m := range offered(s.node.Nodes()) {
			if p.json {
				if err := p.printJSON(m); err != nil {
					return err
				}
				continue
			}
			servers := make([]string, len(m.Servers))
			for i, id := range m.Servers {
				servers[i] = at(id)
			}
			rows = append(rows, table.Row{m.Name, kindOf(&m.Method), m.Accepts, m.Returns, strings.Join(servers, "\n"), m.Description})
		}
		if !p.json {
			header := table.Row{"name", "kind", "accepts", "returns", "servers", "description"}
			p.printTable("No methods in realm "+string(s.node.Realm().Name())+".", header, rows)
		}
		return nil
	})
}

// offered gathers the servers of each method, sorted by its name.
func offered(nodes []*node.Info) []*methodLine {
	lines := map[string]*methodLine{}
	for _, n := range nodes {
		for _, a := range n.Apps {
			for _, m := range a.Methods {
				key := strings.ToLower(m.Name + "\x00" + m.Accepts + "\x00" + m.Returns)
				if lines[key] == nil {
					lines[key] = &methodLine{Method: *m}
				}
				lines[key].Servers = append(lines[key].Servers, a.Identity)
			}
		}
	}
	list := make([]*methodLine, 0, len(lines))
	for _, line := range lines {
		list = append(list, line)
	}
	slices.SortFunc(list, func(a, b *methodLine) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Accepts, b.Accepts), strings.Compare(a.Returns, b.Returns))
	})
	return list
}

func kindOf(m *node.Method) string {
	if m.Streaming {
		return "stream"
	}
	return "method"
}

// list joins and prints once, or follows the changes of one kind of thing.
func (c *listFlags) list(ctx context.Context, p *program, what string, show func(*node.Info, *node.AppInfo) bool, once func(*session) error) error {
	s, err := p.join(ctx, &c.connectFlags, "weft-cli")
	if err != nil {
		return err
	}
	defer s.close()
	if !c.Watch {
		return once(s)
	}
	for e := range s.node.Watch(ctx) {
		if e.Node == nil || e.App == nil && what != "node" || !show(e.Node, e.App) {
			continue
		}
		if err := p.printEvent(what, e); err != nil {
			return err
		}
	}
	return nil
}

// eventLine is a change with --json.
type eventLine struct {
	Event  string       `json:"event"`
	Node   any          `json:"node"`
	App    *appLine     `json:"app,omitempty"`
	Method *node.Method `json:"method,omitempty"`
	Reason string       `json:"reason,omitempty"`
}

// printEvent prints a change if it is about what is listed.
func (p *program) printEvent(what string, e node.Event) error {
	text, sign := "", "+"
	switch e.Kind {
	case node.NodeAdded, node.NodeRemoved:
		text = fmt.Sprintf("node %s", e.Node.ID)
		if e.Kind == node.NodeAdded {
			text += fmt.Sprintf(" on %s (host %s, user %s, %s)", e.Node.Machine, e.Node.Host, e.Node.User, e.Node.Version)
		}
	case node.AppAdded, node.AppRemoved:
		text = fmt.Sprintf("app %s on %s (%s)", e.App.Identity.Application, e.Node.ID, e.App.ID)
	case node.ServerMethodAdded, node.ServerMethodRemoved:
		text = fmt.Sprintf("%s %s by %s", kindOf(e.Method), signature(e.Method), at(e.App.Identity))
	default: // a method's first and last server are told as servers
		return nil
	}
	if kind := what + " "; !strings.HasPrefix(text, kind) && (what != "method" || e.Method == nil) {
		return nil
	}
	switch e.Kind {
	case node.NodeRemoved, node.AppRemoved, node.ServerMethodRemoved:
		sign = "-"
		if e.Reason != "" {
			text += " " + e.Reason
		}
	default:
	}
	if !p.json {
		p.printf("%s %s", sign, text)
		return nil
	}
	line := eventLine{Event: e.Kind.String(), Node: e.Node.ID, Method: e.Method, Reason: e.Reason}
	if what == "node" {
		line.Node = newNodeLine(e.Node)
	}
	if e.App != nil {
		app := newAppLine(e.App)
		line.App = &app
	}
	return p.printJSON(line)
}

// signature is a method as people write it: Add(int a, int b) → int sum.
func signature(m *node.Method) string {
	s := m.Name
	if m.Accepts != "" || m.Returns != "" {
		s += "(" + m.Accepts + ")"
	}
	if m.Returns != "" {
		s += " → " + m.Returns
	}
	return s
}
