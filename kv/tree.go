package kv

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Tree is one context: the fold, in order of their places, of the newest write
// of each of its keys. The package documentation has the rules. A Tree is not
// safe for concurrent use; the values that it gives away are.
type Tree struct {
	context   subjects.Token
	registers map[subjects.Key]*register
	view      *Value // the fold, also below a root that is missing
	top       place  // the highest that is folded
	revision  uint64
	rootSeq   uint64 // of the newest entry of the root key, markers included
	seen      uint64 // of the newest entry of any key, markers and metadata included
	bytes     int
	meta      *Entry
	late      uint64 // see Late
}

// register is the newest write of one key.
type register struct {
	key      subjects.Key
	path     []string
	place    place
	revision uint64
	id       string // Weft-Op
	value    *Value // nil for a delete
	bytes    int
}

// place is where a write stands in the fold.
type place struct{ at, seq uint64 }

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.at, q.at), cmp.Compare(p.seq, q.seq))
}

// NewTree is a context without any key.
func NewTree(context subjects.Token) *Tree {
	return &Tree{context: context, registers: map[subjects.Key]*register{}}
}

// Exists says whether the context exists: its root key holds a put.
func (t *Tree) Exists() bool {
	r := t.registers[subjects.ContextRoot(t.context)]
	return r != nil && r.value != nil
}

// View is the context's object, nil if it does not exist.
func (t *Tree) View() *Value {
	if !t.Exists() {
		return nil
	}
	return t.view
}

// Revision is the sequence of the newest write, 0 for a context that does not
// exist. Compactions leave it as it is.
func (t *Tree) Revision() uint64 {
	if !t.Exists() {
		return 0
	}
	return t.revision
}

// Late is the lowest revision of what the last Apply took although the tree had reached
// it before, 0 for none: views of it at that revision or a later one were without that.
func (t *Tree) Late() uint64 { return t.late }

// Seen is the highest sequence of any entry that was applied, for [Write.Seen].
func (t *Tree) Seen() uint64 { return t.seen }

// Keys is how many path keys and delete markers the context has gathered below
// its root.
func (t *Tree) Keys() int {
	n := len(t.registers)
	if t.registers[subjects.ContextRoot(t.context)] != nil {
		n--
	}
	return n
}

// Bytes is how much the keys hold together, also what newer ones hide.
func (t *Tree) Bytes() int { return t.bytes }

// Seq is the sequence of a key's write, 0 if it has none. A key that a
// compaction purged has none; the root key's marker counts.
func (t *Tree) Seq(key subjects.Key) uint64 {
	if key == subjects.ContextRoot(t.context) {
		return t.rootSeq
	}
	if r := t.registers[key]; r != nil {
		return r.place.seq
	}
	return 0
}

// Meta is the newest put of the metadata key, nil if there is none.
func (t *Tree) Meta() *Entry { return t.meta }

// Bad is a write that cannot be read and folds as absent.
type Bad struct {
	Key subjects.Key
	Seq uint64
	By  string
	Err error
}

// Apply takes writes of the context's keys, each key's in the order of their
// sequences, and keys that a snapshot proved to be gone. A write that is not
// newer than its key's is ignored; of a key that a compaction purged nothing older
// may come, which a [Replica] sees to. What cannot be read is returned; it folds as absent.
func (t *Tree) Apply(entries []Entry, removed []subjects.Key) (bad []Bad) {
	refold, reached := false, t.Revision()
	t.late = 0
	for _, key := range removed {
		refold = t.drop(key) || refold
		switch key {
		case subjects.ContextRoot(t.context):
			t.rootSeq = 0
		case subjects.ContextMeta(t.context):
			t.meta = nil
		}
	}
	for i := range entries {
		e := &entries[i]
		k, ok := e.Key.Context()
		if !ok || k.Context.String() != t.context.String() {
			bad = append(bad, Bad{e.Key, e.Seq, e.By, wire.Errorf(wire.BadName, "not a key of a context")})
			continue
		}
		t.seen = max(t.seen, e.Seq)
		if k.Meta {
			if t.meta == nil || t.meta.Seq < e.Seq {
				t.meta = nil
				if e.Op == Put {
					meta := *e // entries are the caller's
					t.meta = &meta
				}
			}
			continue
		}
		old := t.registers[e.Key]
		if old != nil && old.place.seq >= e.Seq {
			continue
		}
		if len(k.Path) == 0 {
			t.rootSeq = max(t.rootSeq, e.Seq)
		}
		if e.skipped() {
			refold = t.drop(e.Key) || refold
			continue
		}
		r, err := newRegister(e, k.Path)
		if err != nil {
			bad = append(bad, Bad{e.Key, e.Seq, e.By, err})
		}
		if old != nil {
			t.bytes -= old.bytes
			refold = refold || old.place.compare(r.place) > 0
		}
		t.bytes += r.bytes
		t.registers[e.Key] = r
		if r.revision <= reached && (t.late == 0 || r.revision < t.late) {
			t.late = r.revision
		}
		t.revision = max(t.revision, r.revision)
		switch {
		case refold:
		case t.isLast(r):
			t.fold(r)
		default:
			refold = true
		}
	}
	if refold {
		t.refold()
	}
	return bad
}

// drop forgets a key and says whether there was one.
func (t *Tree) drop(key subjects.Key) bool {
	r := t.registers[key]
	if r == nil {
		return false
	}
	t.bytes -= r.bytes
	delete(t.registers, key)
	return true
}

// placeAt is the entry's place in the fold, but for the order of equal ones.
func (e *Entry) placeAt() uint64 {
	if e.AsOf > 0 && e.AsOf < e.Seq && broken != "fold" {
		return e.AsOf
	}
	return e.Seq
}

// newRegister reads an entry. With an error the register is that of a write
// which says nothing.
func newRegister(e *Entry, path []string) (*register, error) {
	r := &register{key: e.Key, path: path, place: place{e.placeAt(), e.Seq}, revision: e.Seq, id: e.WriteID, bytes: len(e.Key) + len(e.Value)}
	if r.place.at < e.Seq && e.Compact > 0 && e.Compact < e.Seq && e.Op == Put {
		r.revision = e.Compact
	}
	if e.Op != Put {
		return r, nil
	}
	v, err := e.value()
	switch {
	case err != nil:
	case len(path)+wire.Depth(v.bytes()) > wire.MaxDepth:
		err = wire.Errorf(wire.BadPayload, "more than %d levels deep", wire.MaxDepth)
	case len(path) == 0 && !v.IsObject():
		err = wire.Errorf(wire.BadPayload, "a context is an object")
	default:
		r.value = v
	}
	if r.value == nil && len(path) == 0 {
		r.value = Object() // it exists
	}
	return r, err
}

// isLast says whether nothing that is folded has to be on top of r.
func (t *Tree) isLast(r *register) bool {
	if r.place.compare(t.top) >= 0 {
		return true
	}
	root := subjects.ContextRoot(t.context)
	for _, other := range t.registers {
		if other == r || other.place.compare(r.place) < 0 {
			continue
		}
		if other.key == root || r.key == root || below(other.key, r.key) || below(r.key, other.key) {
			return false
		}
	}
	return true
}

// below says whether key is a path below the path of other.
func below(key, other subjects.Key) bool {
	return len(key) > len(other) && key[len(other)] == '.' && strings.HasPrefix(string(key), string(other))
}

func (t *Tree) fold(r *register) {
	t.view = t.view.put(r.path, r.value)
	if r.place.compare(t.top) > 0 {
		t.top = r.place
	}
}

func (t *Tree) refold() {
	t.view, t.top, t.revision = nil, place{}, 0
	for _, r := range t.inOrder() {
		t.fold(r)
		t.revision = max(t.revision, r.revision)
	}
}

// inOrder lists the registers in the order of the fold.
func (t *Tree) inOrder() []*register {
	return slices.SortedFunc(maps.Values(t.registers), func(a, b *register) int { return a.place.compare(b.place) })
}
