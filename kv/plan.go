package kv

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// CompactAt is how many path keys and markers of a context a compaction waits
// for. At MaxKeys the next write compacts first.
const (
	CompactAt = 256
	MaxKeys   = 900
	// MaxBatch is how many writes the server takes in one batch.
	MaxBatch = 1000
)

// purgedTTL is how long the marker of a key stays that a compaction purged.
const purgedTTL = markerTTL

// Edit is what an app wants at a path: a value, or nil to remove what is there.
type Edit struct {
	Path  []string
	Value *Value
	// By says who wants it: app and node.
	By string
}

// Edited is v after edits in their order. Where a path runs through an array a
// number selects an element; one past the end appends, and removing closes the
// gap. Removing what is not there changes nothing.
func (v *Value) Edited(edits []Edit) (*Value, error) {
	for _, e := range edits {
		if len(e.Path) == 0 && !e.Value.IsObject() {
			return nil, wire.Errorf(wire.BadPayload, "a context is an object")
		}
		for _, segment := range e.Path {
			if !utf8.ValidString(segment) {
				return nil, wire.Errorf(wire.BadPayload, "%q in a path is not valid UTF-8", segment)
			}
		}
		now, err := v.edit(e.Path, e.Value)
		if err != nil {
			return nil, err
		}
		v = now
	}
	return v, nil
}

// CheckEdits refuses what no context can hold.
func CheckEdits(edits []Edit) error {
	for _, e := range edits {
		if e.Value == nil {
			continue
		}
		if err := checkDepth(len(e.Path), e.Value); err != nil {
			return err
		}
	}
	return nil
}

// Write is one write to one key.
type Write struct {
	Key   subjects.Key
	Op    Operation
	Value []byte
	// Format is how Value is written.
	Format wire.Format
	// Name is the context's name; it travels where the key has only its hash.
	Name string
	// By says who writes: app and node. Who is the same for people.
	By  string
	Who Who
	// AsOf, Compact and Read are the headers of these names, 0 for none.
	AsOf, Compact, Read uint64
	// Seen is the newest sequence of the context's keys that the writer knows of, 0 for
	// none: who reads the write and has less has missed something.
	Seen uint64
	// TTL lets the server expire what is written, 0 for never.
	TTL time.Duration
	// If, when not nil, is the sequence that the key's newest write must have,
	// 0 for a key that has none.
	If *uint64
}

// Entry is the write as a reader gets it, once it is committed under an id.
func (w *Write) Entry(id string, seq uint64) Entry {
	return Entry{
		Key: w.Key, Value: w.Value, Seq: seq, Op: w.Op, Format: w.Format, Name: w.Name,
		WriteID: id, By: w.By, Who: w.Who, AsOf: w.AsOf, Compact: w.Compact, Read: w.Read, Seen: w.Seen, TTL: w.TTL > 0,
	}
}

// Entries are writes as a reader gets them, once they are committed under an id
// with the sequences from first on.
func Entries(id string, first uint64, writes []Write) []Entry {
	list := make([]Entry, len(writes))
	for i := range writes {
		list[i] = writes[i].Entry(id, first+uint64(i))
	}
	return list
}

// NeedsSnapshot says whether some edit cannot be written at its own key: its path
// runs through an array, is too deep, or has a segment that is too long. Then
// [Tree.Rewrite] has to be used instead of [Tree.Plan].
func (t *Tree) NeedsSnapshot(edits []Edit) bool {
	work := t.View()
	if work == nil {
		return false // it will be one put at the root
	}
	for _, e := range edits {
		if _, ok := t.key(work, e.Path); !ok {
			return true
		}
		now, err := work.edit(e.Path, e.Value)
		if err != nil {
			return false // Plan says so
		}
		work = now
	}
	return false
}

// Doubtful says whether Plan would do something else if there were more in the
// context than this tree knows: a path has a number where no object and no array
// is known, or what is to be removed has no parent. It should be asked of a
// snapshot then.
func (t *Tree) Doubtful(edits []Edit) bool {
	work := t.View()
	if work == nil {
		return false // a condition sees to that
	}
	for _, e := range edits {
		v := work
		for i, segment := range e.Path {
			if !v.IsObject() && !v.IsArray() && (IsNumber(segment) || e.Value == nil && i == len(e.Path)-1) {
				return true
			}
			v = v.At(e.Path[i : i+1])
		}
		now, err := work.edit(e.Path, e.Value)
		if err != nil {
			return false // Plan says so
		}
		work = now
	}
	return false
}

// key is the key of a path, unless it cannot have one.
func (t *Tree) key(view *Value, path []string) (subjects.Key, bool) {
	for i, v := 0, view; i < len(path) && v != nil; i++ {
		if v.IsArray() && IsNumber(path[i]) {
			return "", false
		}
		v = v.At(path[i : i+1])
	}
	k, covered := subjects.ContextPath(t.context, path)
	return k, covered == len(path)
}

// Plan turns edits into writes that make one batch, each at its own key.
//
// A context that does not exist is created by one put at its root, on condition
// that nobody has written that since, unless the first edit sets all of it. The
// writes of removals that would make objects are left out, so that the result
// may be empty.
func (t *Tree) Plan(edits []Edit) ([]Write, error) {
	work := t.View()
	if work == nil && len(edits) > 0 {
		writes, err := t.create(edits)
		if err == nil && len(edits[0].Path) == 0 {
			writes[0].If = nil
		}
		return writes, err
	}
	var writes []Write
	for _, e := range edits {
		if len(e.Path) == 0 && !e.Value.IsObject() {
			return nil, wire.Errorf(wire.BadPayload, "a context is an object")
		}
		now, err := work.edit(e.Path, e.Value)
		if err != nil {
			return nil, err
		}
		key, ok := t.key(work, e.Path)
		if !ok {
			return nil, wire.Errorf(wire.Internal, "%q cannot be a key", e.Path)
		}
		w := Write{Key: key, By: e.By, Op: Delete}
		if e.Value == nil && !work.At(e.Path[:len(e.Path)-1]).IsObject() {
			continue // a marker would make an object of the parent
		}
		if e.Value != nil {
			w.Op, w.Value = Put, e.Value.bytes()
			if err := checkDepth(len(e.Path), e.Value); err != nil {
				return nil, err
			}
		}
		writes, work = t.add(writes, w), now
	}
	return writes, nil
}

func checkDepth(above int, v *Value) error {
	if n := above + wire.Depth(v.bytes()); n > wire.MaxDepth {
		return wire.Errorf(wire.BadPayload, "%d levels deep, the limit is %d", n, wire.MaxDepth)
	}
	return nil
}

// Rewrite turns edits into one batch that changes no key but those that hold
// the values at and above their paths, each on condition that it and all keys
// below it are as in this tree, which must be a snapshot. The new values take
// the place of the newest write of the tree, so that whatever slips in before
// the commit stays on top of them.
//
// The key that is rewritten is one that has a write, never a new one, and the
// keys below are purged with it: an ancestor that is rewritten on another node
// at the same time has then either the same condition, or an older place.
func (t *Tree) Rewrite(edits []Edit) ([]Write, error) {
	view := t.View()
	if view == nil {
		return t.create(edits)
	}
	now, err := view.Edited(edits)
	if err != nil {
		return nil, err
	}
	if err := checkDepth(0, now); err != nil {
		return nil, err
	}
	covers := map[*register]string{}
	for _, e := range edits {
		covers[t.covering(e.Path)] = e.By
	}
	var writes []Write
	for _, r := range t.inOrder() {
		by, ok := covers[r]
		if !ok || t.isBelowOne(r, covers) {
			continue
		}
		for _, key := range t.sorted() {
			if other := t.registers[key]; other != r && t.holds(r, other) {
				writes = append(writes, Write{Key: key, Op: Purge, By: by, Compact: t.revision, TTL: purgedTTL, If: &other.place.seq})
			}
		}
		w := Write{Key: r.key, Op: Delete, By: by, AsOf: t.top.at, If: &r.place.seq}
		if v := now.At(r.path); v != nil {
			w.Op, w.Value = Put, v.bytes()
		}
		writes = append(writes, w)
	}
	if len(writes) > MaxBatch {
		return nil, wire.Errorf(wire.Busy, "%d keys have to be rewritten in one batch of at most %d: try again after the next compaction", len(writes), MaxBatch)
	}
	return writes, nil
}

// covering is the write that the value at path comes from: the newest at it or
// above. The context must exist.
func (t *Tree) covering(path []string) *register {
	r := t.registers[subjects.ContextRoot(t.context)]
	for _, key := range t.Above(path)[1:] {
		if other := t.registers[key]; other != nil && other.place.compare(r.place) > 0 {
			r = other
		}
	}
	return r
}

// holds says whether other's key is below r's.
func (t *Tree) holds(r, other *register) bool {
	return len(r.path) == 0 || below(other.key, r.key)
}

func (t *Tree) isBelowOne(r *register, covers map[*register]string) bool {
	for other := range covers {
		if other != r && t.holds(other, r) {
			return true
		}
	}
	return false
}

// Landed says whether a rewrite of path that had the sequences from first to last
// is what a reader of this tree, which must be a snapshot, sees there. later says
// that something newer than the rewrite is there, so that the tree cannot tell.
func (t *Tree) Landed(path []string, first, last uint64) (shows, later bool) {
	if !t.Exists() {
		return false, true // what it rewrote was there until its commit
	}
	seq := t.covering(path).place.seq
	return first <= seq && seq <= last, seq > last
}

// Above lists the keys that a write can have at path or above it.
func (t *Tree) Above(path []string) []subjects.Key {
	keys := []subjects.Key{subjects.ContextRoot(t.context)}
	for n := 1; n <= len(path); n++ {
		key, covered := subjects.ContextPath(t.context, path[:n])
		if covered < n {
			break
		}
		keys = append(keys, key)
	}
	return keys
}

// add appends w and takes out what it hides: each key may be written once.
func (t *Tree) add(writes []Write, w Write) []Write {
	root := subjects.ContextRoot(t.context)
	writes = slices.DeleteFunc(writes, func(old Write) bool {
		return old.Key == w.Key || below(old.Key, w.Key) || w.Key == root
	})
	return append(writes, w)
}

// create plans the put that makes the context.
func (t *Tree) create(edits []Edit) ([]Write, error) {
	if len(edits) == 0 {
		return nil, nil
	}
	v, err := Object().Edited(edits)
	if err != nil {
		return nil, err
	}
	if err := checkDepth(0, v); err != nil {
		return nil, err
	}
	seq := t.rootSeq
	return []Write{{Key: subjects.ContextRoot(t.context), Op: Put, Value: v.bytes(), By: edits[len(edits)-1].By, If: &seq}}, nil
}

// Create plans the puts that make the context with its object and its metadata,
// on condition that nobody has made it since. The context must not exist.
func (t *Tree) Create(object Edit, meta []byte) ([]Write, error) {
	writes, err := t.create([]Edit{object})
	if err != nil || len(meta) == 0 {
		return writes, err
	}
	// The root is last: its sequence is the context's revision.
	return append([]Write{{Key: subjects.ContextMeta(t.context), Op: Put, Value: meta, By: object.By}}, writes...), nil
}

// Changed says whether anything at, above or below a path of the edits is
// newer than revision. A context that does not exist has changed since every
// revision but 0.
func (t *Tree) Changed(edits []Edit, revision uint64) bool {
	if !t.Exists() {
		return revision > 0
	}
	for _, e := range edits {
		for _, r := range t.registers {
			n := min(len(r.path), len(e.Path))
			if r.revision > revision && slices.Equal(r.path[:n], e.Path[:n]) {
				return true
			}
		}
	}
	return false
}

// ChangedBy is what [Tree.ChangedSince] found out.
type ChangedBy uint8

// Nobody has written there; Somebody has; or everything was rewritten since, as a
// compaction and a conditional write do, so that the Values have to tell.
const (
	Nobody ChangedBy = iota
	Somebody
	Values
)

// ChangedSince says who wrote something at, above or below a path after a revision, the
// writes with an id that is own left out, unless they have rewritten what others wrote. A context that does not exist was ended by
// somebody, unless it did not exist at the revision, which is then 0.
func (t *Tree) ChangedSince(path []string, revision uint64, own func(id string) bool) ChangedBy {
	if !t.Exists() {
		if revision > 0 {
			return Somebody
		}
		return Nobody
	}
	who := Nobody
	if broken == "merge" {
		return who
	}
	for _, r := range t.registers {
		n := min(len(r.path), len(path))
		switch {
		case r.revision <= revision, !slices.Equal(r.path[:n], path[:n]):
		case r.place.at == r.place.seq && own(r.id):
		case r.place.at == r.place.seq:
			return Somebody
		default:
			who = Values
		}
	}
	return who
}

// Compaction plans the batch that leaves of the context its root alone: purges
// of its path keys, conditional on what is in this tree, which must be a
// snapshot, and the folded root in the place of the newest of them. It has at
// most the given number of writes and then takes the oldest places first; the
// rest is for the next time. Of a context that does not exist all is purged. It
// is empty when there is nothing to do.
func (t *Tree) Compaction(most int, by string) []Write {
	exists, rootKey := t.Exists(), subjects.ContextRoot(t.context)
	list := t.inOrder()
	if len(list) > most {
		n := most
		for n > 0 && list[n].place.at == list[n-1].place.at {
			n-- // what has the same place as the new root would be hidden by it
		}
		list = list[:n]
	}
	var writes []Write
	var root *register
	var view *Value
	revision := uint64(0)
	hidden := exists && !slices.Contains(list, t.registers[rootKey])
	for _, r := range list {
		view, revision = view.put(r.path, r.value), max(revision, r.revision)
		if r.key == rootKey && exists {
			root = r
			continue
		}
		if hidden && r.revision == t.revision {
			continue // without a new root nothing else would hold the revision
		}
		writes = append(writes, Write{Key: r.key, Op: Purge, By: by, Compact: max(r.revision, 1), TTL: purgedTTL, If: &r.place.seq})
	}
	if root == nil || len(writes) == 0 {
		return writes // what is older than the root is hidden by it
	}
	return append(writes, Write{
		Key: rootKey, Op: Put, Value: view.bytes(), By: by, AsOf: list[len(list)-1].place.at, Compact: revision, If: &root.place.seq,
	})
}

// Checkpoint is [Tree.Compaction] of all that fits into one batch. If that is
// everything, the root says that it holds all that there was up to upTo, which is that
// of the snapshot that this tree is, and is written also if nothing else is to be done.
func (t *Tree) Checkpoint(by string, upTo uint64) []Write {
	writes := t.Compaction(MaxBatch, by)
	root := t.registers[subjects.ContextRoot(t.context)]
	if len(writes) == 0 && t.Exists() {
		writes = append(writes, Write{Key: root.key, Op: Put, Value: root.value.bytes(), By: by, AsOf: root.place.at, Compact: root.revision, If: &root.place.seq})
	}
	if n := len(writes); n > 0 && writes[n-1].Op == Put && len(t.registers) <= MaxBatch {
		writes[n-1].Read = upTo
	}
	return writes
}

// Destruction plans the batch that ends the context: purges of its keys, the
// root among them, conditional on what is in this tree, which must be a snapshot.
func (t *Tree) Destruction(by string) []Write {
	root, meta := subjects.ContextRoot(t.context), subjects.ContextMeta(t.context)
	purge := func(key subjects.Key, seq uint64) Write {
		return Write{Key: key, Op: Purge, By: by, Compact: max(t.revision, 1), TTL: purgedTTL, If: &seq}
	}
	var writes []Write
	if t.meta != nil {
		writes = append(writes, purge(meta, t.meta.Seq))
	}
	for _, key := range t.sorted() {
		if key != root && len(writes) < MaxBatch-1 {
			writes = append(writes, purge(key, t.registers[key].place.seq))
		}
	}
	return append(writes, purge(root, t.rootSeq))
}

func (t *Tree) sorted() []subjects.Key {
	keys := make([]subjects.Key, 0, len(t.registers))
	for key := range t.registers {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b subjects.Key) int { return strings.Compare(string(a), string(b)) })
	return keys
}
