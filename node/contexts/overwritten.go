package contexts

import (
	"context"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/journal"
	"github.com/weft-fabric/weft/wire"
)

// maxNotices is how many notices a node keeps; then the oldest go.
const maxNotices = 1000

// Overwritten says that a journalled write, or a part of it, was not made when the fabric
// was back: somebody else had written there meanwhile. It is kept until it is dismissed.
type Overwritten struct {
	// ID is that of the write's [Ack].
	ID      string `msgpack:"id" json:"id"`
	Context string `msgpack:"context" json:"context"`
	// Edits are the parts that were not made.
	Edits []LostEdit `msgpack:"edits" json:"edits"`
	// By is who wrote it, Written when, and Noticed when it was found out.
	By      Writer    `msgpack:"by" json:"by"`
	Written time.Time `msgpack:"written" json:"written"`
	Noticed time.Time `msgpack:"noticed" json:"noticed"`
}

// LostEdit is what a write wanted at a path; no value to remove what is there. An empty
// path is the whole object, or the end of the context if there is no value.
type LostEdit struct {
	Path  []string     `msgpack:"path" json:"path"`
	Value wire.Payload `msgpack:"value" json:"value"`
	Why   string       `msgpack:"why" json:"why"`
}

type notice struct {
	key uint64
	Overwritten
}

// why is what a notice says where somebody else has written.
const whyOverwritten = "overwritten"

// Overwritten lists the notices about contexts that the app may read, oldest first: those
// of one context, or with an empty name of all.
func (a *App) Overwritten(name string) []Overwritten {
	list, _ := a.overwritten(name, 0)
	return list
}

// overwritten lists notices after one, and tells when there are more.
func (a *App) overwritten(name string, after uint64) ([]Overwritten, uint64) {
	o := &a.c.outages
	o.mu.Lock()
	all := slices.Clone(o.notices)
	o.mu.Unlock()
	var list []Overwritten
	last := after
	for _, n := range all {
		last = max(last, n.key)
		if n.key <= after || name != "" && n.Context != name {
			continue
		}
		if m, ok := a.MetaOf(n.Context); ok && !a.c.may(a.id, &m, toRead) {
			continue
		}
		list = append(list, n.Overwritten)
	}
	return list, last
}

// WatchOverwritten yields the notices that there are about contexts that the app may read
// and then each that comes, until ctx ends.
func (a *App) WatchOverwritten(ctx context.Context) iter.Seq[Overwritten] {
	return func(yield func(Overwritten) bool) {
		last := uint64(0)
		for {
			a.c.outages.mu.Lock()
			changed := a.c.outages.changed
			a.c.outages.mu.Unlock()
			list, seen := a.overwritten("", last)
			last = seen
			for _, n := range list {
				if !yield(n) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-a.c.ctx.Done():
				return
			}
		}
	}
}

// Dismiss removes the notices of a write, which then are not listed any more. It says
// whether there were any.
func (a *App) Dismiss(id string) bool {
	o := &a.c.outages
	var changes []journal.Change
	o.mu.Lock()
	o.notices = slices.DeleteFunc(o.notices, func(n notice) bool {
		if n.ID == id {
			changes = append(changes, journal.Change{Key: n.key})
		}
		return n.ID == id
	})
	o.mu.Unlock()
	if o.journal != nil {
		_ = o.journal.Write(changes...) // deleting does not fail; a closed journal keeps them
	}
	return len(changes) > 0
}

// notices are what has to be told about writes that are settled.
func (s *shared) notices(batch []*journalled, gone []lost) (list []notice) {
	for _, k := range batch {
		n := notice{Overwritten: Overwritten{ID: k.id, Context: s.name, By: k.by, Written: k.written.UTC(), Noticed: time.Now().UTC()}}
		for _, l := range gone {
			if l.op == k.key {
				n.Edits = append(n.Edits, LostEdit{Path: l.edit.Path, Value: l.edit.Value.Payload(), Why: l.why})
			}
		}
		if len(n.Edits) > 0 {
			n.key = s.c.outages.last.Add(1)
			list = append(list, n)
		}
	}
	return list
}

// notify tells of notices that are in the journal, and returns what is to go from there.
func (c *Contexts) notify(list []notice) (old []journal.Change) {
	o := &c.outages
	o.mu.Lock()
	o.notices = append(o.notices, list...)
	if n := len(o.notices) - maxNotices; n > 0 {
		for _, x := range o.notices[:n] {
			old = append(old, journal.Change{Key: x.key})
		}
		o.notices = slices.Clone(o.notices[n:])
	}
	if len(list) > 0 {
		close(o.changed)
		o.changed = make(chan struct{})
	}
	o.mu.Unlock()
	for _, n := range list {
		c.stats.overwritten.Add(1)
		paths := make([][]string, len(n.Edits))
		for i, e := range n.Edits {
			paths[i] = e.Path
		}
		c.log.Warn("a write that was made while the fabric was away was overwritten by others",
			slog.String("context", n.Context), slog.String("write", n.ID), slog.Any("paths", paths), slog.String("why", n.Edits[0].Why),
			slog.String("by", n.By.String()), slog.Time("written", n.Written))
	}
	if len(old) > 0 {
		c.log.Warn("the oldest notices of overwritten writes were dropped", slog.Int("notices", len(old)), slog.Int("limit", maxNotices))
	}
	return old
}

// own says whether a write of the stream was sent by this node while it kept some of the
// context's. mu is held.
func (s *shared) own(id string) bool {
	for _, a := range s.attempts {
		if a.id == id {
			return true
		}
	}
	return false
}

func lostOf(k *journalled, edits []kv.Edit, why string) (list []lost) {
	for _, e := range edits {
		list = append(list, lost{k.key, e, why})
	}
	return list
}
