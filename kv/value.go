package kv

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/weft-fabric/weft/wire"
)

// Value is an application value that never changes: a change makes a new one
// that shares what stayed the same. A nil *Value is no value, which differs
// from a value that is nil.
//
// An object is a map; its members are in byte order of their names. An array
// is one value: what is in it has no place of its own.
type Value struct {
	raw     []byte // checked msgpack, nil for an object whose members are known
	members []Member
	size    int // bytes of the members, without the head of the map
	encoded atomic.Pointer[[]byte]
}

// Member is one named value of an object.
type Member struct {
	Name  string
	Value *Value
}

// ParseValue checks a payload and makes a value of it; of equal names the last
// counts. An empty payload is no value.
func ParseValue(p wire.Payload) (*Value, error) {
	if p.IsZero() {
		return nil, nil
	}
	p, err := p.As(wire.Msgpack)
	if err == nil {
		err = wire.Check(p.Data)
	}
	if err != nil {
		return nil, err
	}
	return raw(p.Data), nil
}

// Object is the empty object.
func Object() *Value { return object(nil, 0) }

func raw(data []byte) *Value { return &Value{raw: data} }

func object(members []Member, size int) *Value {
	if members == nil {
		members = []Member{}
	}
	return &Value{members: members, size: size}
}

// Payload is the value as msgpack; none for no value. Its data must not be changed.
func (v *Value) Payload() wire.Payload { return wire.Payload{Data: v.bytes()} }

func (v *Value) bytes() []byte {
	switch {
	case v == nil:
		return nil
	case v.raw != nil:
		return v.raw
	}
	if b := v.encoded.Load(); b != nil {
		return *b
	}
	b := v.append(make([]byte, 0, v.Size()))
	v.encoded.Store(&b)
	return b
}

func (v *Value) append(dst []byte) []byte {
	if v.raw != nil {
		return append(dst, v.raw...)
	}
	dst = wire.AppendMap(dst, len(v.members))
	for _, m := range v.members {
		dst = m.Value.append(wire.AppendString(dst, m.Name))
	}
	return dst
}

// Size is how many bytes the value has as msgpack.
func (v *Value) Size() int {
	switch {
	case v == nil:
		return 0
	case v.raw != nil:
		return len(v.raw)
	}
	return mapHead(len(v.members)) + v.size
}

func mapHead(n int) int {
	switch {
	case n < 16:
		return 1
	case n < 1<<16:
		return 3
	}
	return 5
}

func (m Member) size() int {
	n := len(m.Name)
	switch {
	case n < 32:
		n++
	case n < 1<<8:
		n += 2
	case n < 1<<16:
		n += 3
	default:
		n += 5
	}
	return n + m.Value.Size()
}

// IsObject reports whether v is an object.
func (v *Value) IsObject() bool {
	return v != nil && (v.raw == nil || wire.IsMap(v.raw))
}

// IsArray reports whether v is an array.
func (v *Value) IsArray() bool { return v != nil && v.raw != nil && wire.IsArray(v.raw) }

// IsNil reports whether v is the value nil.
func (v *Value) IsNil() bool { return v != nil && v.raw != nil && wire.IsNil(v.raw) }

// Members lists the members of an object in byte order of their names. The
// slice must not be changed.
func (v *Value) Members() []Member {
	switch {
	case v == nil:
		return nil
	case v.raw == nil:
		return v.members
	}
	return open(v.raw)
}

func open(data []byte) []Member {
	list := make([]Member, 0, wire.Count(data))
	for name, value := range wire.Members(data) {
		list = append(list, Member{name, raw(value)})
	}
	if slices.IsSortedFunc(list, byName) && !hasTwins(list) {
		return list
	}
	slices.SortStableFunc(list, byName)
	kept := list[:0]
	for i, m := range list {
		if i+1 == len(list) || list[i+1].Name != m.Name { // the last of equal names
			kept = append(kept, m)
		}
	}
	return kept
}

func hasTwins(sorted []Member) bool {
	for i := 1; i < len(sorted); i++ {
		if sorted[i].Name == sorted[i-1].Name {
			return true
		}
	}
	return false
}

func byName(a, b Member) int { return strings.Compare(a.Name, b.Name) }

// asObject is v with its members known; everything but an object is empty.
func (v *Value) asObject() *Value {
	if !v.IsObject() {
		return Object()
	}
	if v.raw == nil {
		return v
	}
	list := open(v.raw)
	size := 0
	for _, m := range list {
		size += m.size()
	}
	return object(list, size)
}

func (v *Value) find(name string) (int, bool) {
	return slices.BinarySearchFunc(v.members, name, func(m Member, name string) int { return strings.Compare(m.Name, name) })
}

// At returns the value at path, nil if there is none. A segment that is a
// number selects from an array.
func (v *Value) At(path []string) *Value {
	for _, segment := range path {
		switch {
		case v.IsArray():
			i, ok := index(segment, wire.Count(v.raw)-1)
			if !ok {
				return nil
			}
			v = v.elements()[i]
		case v.IsObject():
			o := v.asObject()
			i, ok := o.find(segment)
			if !ok {
				return nil
			}
			v = o.members[i].Value
		default:
			return nil
		}
	}
	return v
}

// put is the value with x at path, nil to delete it: the rule of the fold. What
// is missing on the way, or is no object, becomes an object.
func (v *Value) put(path []string, x *Value) *Value {
	if len(path) == 0 {
		return x
	}
	o := v.asObject()
	i, found := o.find(path[0])
	var old *Value
	if found {
		old = o.members[i].Value
	}
	now := x
	if len(path) > 1 {
		now = old.put(path[1:], x)
	}
	return o.replace(i, found, path[0], now)
}

// replace is an object with another member at i, none if now is nil.
func (v *Value) replace(i int, found bool, name string, now *Value) *Value {
	size := v.size
	if found {
		size -= v.members[i].size()
	}
	if now != nil {
		size += Member{name, now}.size()
	}
	var list []Member
	switch {
	case found && now != nil:
		list = slices.Clone(v.members)
		list[i].Value = now
	case found:
		list = slices.Concat(v.members[:i], v.members[i+1:])
	case now != nil:
		list = make([]Member, len(v.members)+1)
		copy(list, v.members[:i])
		list[i] = Member{name, now}
		copy(list[i+1:], v.members[i:])
	default:
		return v
	}
	return object(list, size)
}

// edit is the value after somebody wrote x at path, nil to remove it: as put,
// but a number selects from an array, where one past the end appends and
// removing closes the gap, and a removal makes no objects.
func (v *Value) edit(path []string, x *Value) (*Value, error) {
	if len(path) == 0 {
		return x, nil
	}
	segment := path[0]
	if v.IsArray() {
		list := v.elements()
		i, ok := index(segment, len(list))
		if ok {
			return v.editElement(list, i, path, x)
		}
		if IsNumber(segment) {
			if x == nil {
				return v, nil
			}
			return nil, wire.Errorf(wire.BadPayload, "no element %s in an array of %d", segment, len(list))
		}
	}
	if x == nil && !v.IsObject() {
		return v, nil
	}
	o := v.asObject()
	i, found := o.find(segment)
	if x == nil && !found {
		return v, nil
	}
	var old *Value
	if found {
		old = o.members[i].Value
	}
	now, err := old.edit(path[1:], x)
	if err != nil {
		return nil, err
	}
	return o.replace(i, found, segment, now), nil
}

func (v *Value) editElement(list []*Value, i int, path []string, x *Value) (*Value, error) {
	var old *Value
	if i < len(list) {
		old = list[i]
	} else if x == nil {
		return v, nil
	}
	now, err := old.edit(path[1:], x)
	if err != nil {
		return nil, err
	}
	switch {
	case now == nil:
		list = slices.Delete(list, i, i+1)
	case i == len(list):
		list = append(list, now)
	default:
		list[i] = now
	}
	data := wire.AppendArray(make([]byte, 0, len(v.raw)+now.Size()), len(list))
	for _, e := range list {
		data = e.append(data)
	}
	return raw(data), nil
}

func (v *Value) elements() []*Value {
	list := make([]*Value, 0, wire.Count(v.raw)+1)
	for e := range wire.Elements(v.raw) {
		list = append(list, raw(e))
	}
	return list
}

// index reads a canonical decimal of at most most.
func index(s string, most int) (int, bool) {
	if !IsNumber(s) {
		return 0, false
	}
	i, err := strconv.Atoi(s)
	return i, err == nil && i <= most
}

// IsNumber says whether a segment of a path selects an element where it runs through an array.
func IsNumber(s string) bool {
	if s == "" || len(s) > 1 && s[0] == '0' {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// Equal says whether two values are the same to JSON: the order of names does
// not count, nor how a number is written.
func (v *Value) Equal(w *Value) bool {
	switch {
	case v == w:
		return true
	case v == nil || w == nil:
		return false
	case v.raw != nil && w.raw != nil && bytes.Equal(v.raw, w.raw):
		return true
	case v.IsObject() && w.IsObject():
		return slices.EqualFunc(v.Members(), w.Members(), func(a, b Member) bool {
			return a.Name == b.Name && a.Value.Equal(b.Value)
		})
	case v.IsObject() || w.IsObject():
		return false
	}
	a, _ := wire.Canonical(v.Payload()) // both are checked
	b, _ := wire.Canonical(w.Payload())
	return bytes.Equal(a, b)
}

// Change is one difference between two values: the value at Path is now Value,
// or is gone if Value is nil.
type Change struct {
	Path  []string
	Value *Value
}

// Diff lists what makes now of old, in byte order of the paths, and as deep as
// both are objects. A value that came from nothing is one change with an empty
// path, and so is one that went.
func Diff(old, now *Value) []Change { return diff(nil, nil, old, now) }

func diff(changes []Change, path []string, old, now *Value) []Change {
	if old == now {
		return changes
	}
	if !old.IsObject() || !now.IsObject() {
		if old.Equal(now) {
			return changes
		}
		return append(changes, Change{slices.Clone(path), now})
	}
	if old.raw != nil && now.raw != nil && bytes.Equal(old.raw, now.raw) {
		return changes
	}
	a, b := old.Members(), now.Members()
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Name < b[0].Name:
			changes = append(changes, Change{append(slices.Clone(path), a[0].Name), nil})
			a = a[1:]
		case len(a) == 0 || a[0].Name > b[0].Name:
			changes = append(changes, Change{append(slices.Clone(path), b[0].Name), b[0].Value})
			b = b[1:]
		default:
			if a[0].Value != b[0].Value {
				changes = diff(changes, append(path, a[0].Name), a[0].Value, b[0].Value)
			}
			a, b = a[1:], b[1:]
		}
	}
	return changes
}
