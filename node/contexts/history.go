package contexts

import (
	"context"
	"slices"
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/wire"
)

const (
	historyLimit = 100
	// MaxHistory is how many operations one question about the past can have for its
	// answer.
	MaxHistory = 10_000
)

// HistoryKind says what an Entry is.
type HistoryKind string

// The kinds of entries. A HistoryGap is where the history lacks writes, which may have
// been of the context; a HistoryUnreadable is a write of a foreign client that counts
// as absent.
const (
	HistoryCreated    HistoryKind = "created"
	HistoryChanged    HistoryKind = "changed"
	HistoryDestroyed  HistoryKind = "destroyed"
	HistoryUnreadable HistoryKind = "unreadable"
	HistoryGap        HistoryKind = "gap"
)

// HistoryEntry is one operation on a context, or a gap.
type HistoryEntry struct {
	Kind HistoryKind
	// Sequence is that of the operation's last write, by which [App.At] gives the
	// object after it, and From that of the first. Time is the server's, as the
	// writer's node knew it.
	From, Sequence uint64
	Time           time.Time
	// By is who wrote it, and Who the same for people, as the node of the app said. A
	// plain NATS client is nobody.
	By  Writer
	Who kv.Who
	// Changes are what was written: the value at Path is now Value, or is gone.
	Changes []Change
	// Missing is how many of the writes from From to Sequence a gap lacks.
	Missing uint64
}

// HistoryQuery says which operations are wanted: the newest Limit (100 unless given, at
// most MaxHistory) of those at, above or below Path, at Since or later, at Until or
// before, and with sequences below Before, which is the From of the first entry of an
// answer for the page before it.
type HistoryQuery struct {
	Path         []string
	Since, Until time.Time
	Before       uint64
	Limit        int
}

// History is what was done to a context.
type History struct {
	// Entries are in the order of the writes, and More says that there are older ones.
	Entries []HistoryEntry
	More    bool
}

// History lists what was done to a context, and where that is not known. What was done
// while the app would not have been allowed to read the context is left out, and so are
// compactions and what nodes do to the metadata. The errors are those of [App.At], and
// limit.
func (a *App) History(ctx context.Context, name string, q HistoryQuery) (History, error) {
	if q.Limit < 0 || q.Limit > MaxHistory {
		return History{}, wire.Errorf(wire.Limit, "operations in one answer: %d, the limit is %d", q.Limit, MaxHistory)
	}
	if q.Limit == 0 {
		q.Limit = historyLimit
	}
	token, err := a.mayLookBack(ctx, name)
	if err != nil {
		return History{}, err
	}
	list := History{}
	span := kv.Span{Since: q.Since, Until: q.Until, Before: q.Before, Limit: q.Limit}
	for {
		w, err := a.c.bucket.History().Writes(ctx, token, span)
		if err != nil {
			return History{}, wire.AsError(err)
		}
		list.Entries = append(a.entries(&w, q.Path), list.Entries...)
		list.More = w.More
		if n := list.operations() - q.Limit; n > 0 {
			list.cut(n)
			return list, nil
		} else if n == 0 || !w.More || len(w.Records) == 0 {
			return list, nil
		}
		span.Before = w.Records[0].Seq // much was left out
	}
}

// operations counts the entries that are no gaps.
func (l *History) operations() (n int) {
	for i := range l.Entries {
		if l.Entries[i].Kind != HistoryGap {
			n++
		}
	}
	return n
}

// cut drops the oldest operations.
func (l *History) cut(n int) {
	for i := range l.Entries {
		if l.Entries[i].Kind == HistoryGap {
			continue
		}
		if n--; n == 0 {
			l.Entries, l.More = l.Entries[i+1:], true
			return
		}
	}
}

// entries are writes as entries, with the holes between them.
func (a *App) entries(w *kv.Writes, path []string) (list []HistoryEntry) {
	exists := w.Root != nil && w.Root.Op == kv.Put
	meta, err := readMeta(w.Meta)
	may := err == nil && a.c.may(a.id, meta, toRead)
	holes := w.Holes
	for _, op := range w.Operations() {
		for len(holes) > 0 && holes[0].To < op[0].Seq {
			list, holes = append(list, gap(holes[0])), holes[1:]
		}
		was := exists
		mayBefore := may
		for i := range op {
			switch k, _ := op[i].Key.Context(); {
			case k.Meta:
				meta, err = readMeta(&op[i].Entry)
				may = err == nil && a.c.may(a.id, meta, toRead)
			case len(k.Path) == 0:
				exists = op[i].Op == kv.Put
			}
		}
		if may && (mayBefore || !was) {
			list = append(list, authored(op, was, exists, path)...)
		}
	}
	for _, hole := range holes {
		list = append(list, gap(hole))
	}
	return list
}

func gap(h kv.Hole) HistoryEntry {
	return HistoryEntry{Kind: HistoryGap, From: h.From, Sequence: h.To, Missing: h.Missing, Time: h.Before.Time}
}

// authored is one operation, as one entry for each of its authors: what several apps
// of a node want goes together.
func authored(op []kv.Record, was, exists bool, path []string) (list []HistoryEntry) {
	for begin := 0; begin < len(op); {
		end := begin + 1
		for end < len(op) && op[end].By == op[begin].By && op[end].Who == op[begin].Who {
			end++
		}
		if e, ok := entry(op[begin:end], was, exists, path); ok {
			list = append(list, e)
		}
		begin = end
	}
	return list
}

// entry is what one author did, false if that is nothing that an app knows of.
func entry(op []kv.Record, was, exists bool, path []string) (e HistoryEntry, ok bool) {
	entries := make([]kv.Entry, len(op))
	rooted := false
	for i := range op {
		entries[i] = op[i].Entry
		k, _ := op[i].Key.Context()
		rooted = rooted || !k.Meta && len(k.Path) == 0
	}
	last := &op[len(op)-1]
	e = HistoryEntry{Kind: HistoryChanged, From: op[0].Seq, Sequence: last.Seq, Time: last.Time, By: parseWriter(last.By), Who: last.Who}
	changes, err := kv.Changed(entries)
	switch {
	case err != nil:
		e.Kind = HistoryUnreadable
		return e, true
	case rooted && was && !exists:
		e.Kind = HistoryDestroyed
		return e, true
	case rooted && !was && exists:
		e.Kind = HistoryCreated
	}
	changes = slices.DeleteFunc(changes, func(c kv.Change) bool { return !related(c.Path, path) })
	e.Changes = public(changes)
	return e, len(changes) > 0
}

func public(changes []kv.Change) []Change {
	list := make([]Change, len(changes))
	for i, c := range changes {
		list[i] = Change{c.Path, c.Value.Payload()}
	}
	return list
}
