package node

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"time"

	"github.com/weft-fabric/weft/node/statedir"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// statusEvery is how often a node looks whether its status has changed in a way
	// that nobody announces, and statusMost how often it is written at most.
	statusEvery = time.Second
	statusMost  = 2 * time.Second
)

// Status is a node at one moment, as `weft status` shows it.
type Status struct {
	Node    subjects.Node  `json:"node"`
	Realm   subjects.Realm `json:"realm"`
	Machine string         `json:"machine"`
	PID     int            `json:"pid"`
	Version string         `json:"version"`
	Started time.Time      `json:"started"`
	// Online says whether the fabric can be reached, since when, and if not, why.
	Online bool      `json:"online"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	// Embedded says that the node hosts a NATS server, or tries to. Server is the name
	// of the one that it is connected to, and URL its address, "" for neither.
	Embedded bool   `json:"embedded"`
	Server   string `json:"server,omitempty"`
	URL      string `json:"url,omitempty"`
	// JetStream is empty if contexts can be read and written, else why not.
	JetStream string `json:"jetstream,omitempty"`
	// Journalled is how many writes wait in the journal, and Overwritten how many
	// notices of writes that others' have replaced there are.
	Journalled  int     `json:"journalled"`
	Overwritten int     `json:"overwritten"`
	Alarms      []Alarm `json:"alarms"`
}

// Status is the node now.
func (n *Node) Status() Status {
	s := n.State()
	status := Status{
		Node: n.id.node, Realm: n.id.realm, Machine: n.id.machine, PID: os.Getpid(), Version: n.id.version, Started: n.started.UTC(),
		Online: s.Online, Since: s.Since.UTC(), Reason: s.Reason, Embedded: n.host != nil, Alarms: n.Alarms(),
	}
	if s.Online {
		nc := n.realm.control.Conn()
		status.Server, status.URL = nc.ConnectedServerName(), nc.ConnectedUrlRedacted()
	}
	if e := n.Embedded(); e != nil {
		status.URL = e.URL()
	}
	if err := n.realm.contexts.Usable(); err != nil {
		status.JetStream = err.Error()
	}
	status.Journalled, status.Overwritten = n.realm.contexts.Kept()
	return status
}

// keepStatus writes the status into the state directory whenever it has changed, until
// ctx ends.
func (n *Node) keepStatus(ctx context.Context) {
	var last Status
	failed := false
	for {
		online, alarms := n.realm.news(), n.alarms.Changed()
		s := n.Status()
		if dir := n.stateDir(); dir != nil && !reflect.DeepEqual(s, last) {
			err := dir.WriteStatus(s)
			if err == nil {
				last = s
			} else if !failed && n.cfg.Logger != nil {
				n.cfg.Logger.WarnContext(ctx, "the status cannot be written", slog.String("directory", dir.Path()), slog.Any("error", err))
			}
			failed = err != nil
		}
		select {
		case <-online:
		case <-alarms:
		case <-time.After(statusEvery):
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(statusMost):
		case <-ctx.Done():
			return
		}
	}
}

// stateDir is the node's state directory, nil if it has none.
func (n *Node) stateDir() *statedir.Dir {
	if n.host != nil {
		return n.host.dir()
	}
	return n.state
}

// ReadStatus reads what the node of a state directory last said of itself, and whether
// it runs. The error is bad-name if no node has ever said anything there.
func ReadStatus(store string) (s Status, running bool, err error) {
	running, err = statedir.ReadStatus(store, &s)
	if errors.Is(err, fs.ErrNotExist) {
		err = wire.Errorf(wire.BadName, "no node has run in %s", store)
	}
	return s, running, err
}

// news is closed at the next change of the realm's state.
func (r *Realm) news() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}
