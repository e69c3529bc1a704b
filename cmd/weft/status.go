package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/subjects"
)

// statusCommand says how the nodes of this user on this machine are. It asks nobody:
// each node writes that into its state directory.
type statusCommand struct {
	Node  string `placeholder:"ID" help:"Id of the node; all that run unless given."`
	Store string `placeholder:"DIR" help:"State directory of a node that was started with --store."`
}

// Help is the long help.
func (*statusCommand) Help() string {
	return `It reads what the nodes of this user on this machine say of themselves, and works
without NATS. The exit code is 1 if a node does not run.`
}

// statusLine is a status with --json.
type statusLine struct {
	node.Status
	Running bool `json:"running"`
}

// Run prints the status.
func (c *statusCommand) Run(p *program) error {
	lines, err := c.read()
	if err != nil {
		return err
	}
	for i, line := range lines {
		switch {
		case p.json:
			if err := p.printJSON(line); err != nil {
				return err
			}
			continue
		case i > 0:
			p.printf("")
		}
		p.printStatus(line)
	}
	for _, line := range lines {
		if !line.Running {
			return errReported
		}
	}
	return nil
}

// read reads the status of the node that is meant, or of all that run.
func (c *statusCommand) read() ([]statusLine, error) {
	switch {
	case c.Node != "" && c.Store != "":
		return nil, usageError{errors.New("--node and --store say twice which node is meant")}
	case c.Store != "":
		return readStatus(c.Store)
	case c.Node != "":
		if _, err := subjects.ParseNode(c.Node); err != nil {
			return nil, usageError{fmt.Errorf("--node: %w", err)}
		}
		dir, err := defaultStore(c.Node)
		if err != nil {
			return nil, err
		}
		return readStatus(dir)
	}
	all, err := c.all()
	if err != nil {
		return nil, err
	}
	var running []statusLine
	for _, line := range all {
		if line.Running {
			running = append(running, line)
		}
	}
	switch {
	case len(running) > 0:
		return running, nil
	case len(all) > 0:
		return all, nil
	}
	return nil, errors.New(`no node of this user has run on this machine; "weft up" starts one`)
}

// all reads the status of every node of this user.
func (*statusCommand) all() (lines []statusLine, err error) {
	dir := embedded.DataDir()
	if dir == "" {
		return nil, errors.New("no home directory for the state of nodes: name a directory with --store")
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if _, bad := subjects.ParseNode(e.Name()); bad != nil || !e.IsDir() {
			continue
		}
		if line, err := readStatus(filepath.Join(dir, e.Name())); err == nil { // else no node has run there
			lines = append(lines, line...)
		}
	}
	return lines, err
}

func readStatus(dir string) ([]statusLine, error) {
	s, running, err := node.ReadStatus(dir)
	if err != nil {
		return nil, err
	}
	return []statusLine{{s, running}}, nil
}

// printStatus prints a status for people.
func (p *program) printStatus(s statusLine) {
	ago := func(t time.Time) string {
		return fmt.Sprintf("%s (%s)", t.Local().Format(time.DateTime), time.Since(t).Round(time.Second))
	}
	p.printf("node       %s", s.Node)
	p.printf("realm      %s", s.Realm)
	p.printf("machine    %s", s.Machine)
	if !s.Running {
		p.printf("process    gone; it was %d, started %s. What follows is what it last said.", s.PID, ago(s.Started))
	} else {
		p.printf("process    %d, weft %s, up since %s", s.PID, s.Version, ago(s.Started))
	}
	if s.Online {
		p.printf("fabric     online since %s", ago(s.Since))
	} else {
		p.printf("fabric     offline since %s: %s", ago(s.Since), s.Reason)
	}
	switch where := strings.TrimSpace(s.Server + " " + s.URL); {
	case s.Embedded && s.URL == "":
		p.printf("nats       in the node's process only")
	case s.Embedded:
		p.printf("nats       %s, in the node's process", s.URL)
	case where != "":
		p.printf("nats       %s", where)
	default:
		p.printf("nats       not connected")
	}
	if s.JetStream == "" {
		p.printf("jetstream  ok")
	} else {
		p.printf("jetstream  %s", s.JetStream)
	}
	p.printf("journal    %s waiting, %s overwritten", count(s.Journalled, "write"), count(s.Overwritten, "write"))
	if len(s.Alarms) == 0 {
		p.printf("alarms     none")
	}
	for _, a := range s.Alarms {
		where := ""
		if a.Stream != "" {
			where += " of stream " + a.Stream
		}
		if a.Server != "" {
			where += " on " + a.Server
		}
		p.printf("alarm      %s%s since %s: %s", a.Kind, where, ago(a.Since), a.Text)
	}
}
