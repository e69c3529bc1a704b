package gateway

import (
	"slices"
	"strings"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/wire"
)

// delta is what an update of a context says, in the order in which it takes
// effect: either a new object, or commands, or keys that are added, updated and
// removed.
type delta struct {
	reset    *kv.Value
	commands []command
	added    []kv.Member
	updated  []kv.Member
	removed  []string
}

// command sets or removes what is at a path.
type command struct {
	path  []string
	value *kv.Value // nil to remove
}

// maxCommands bounds one update.
const maxCommands = wire.MaxContextKeys

// readDelta reads a delta. Further members are the business of clients.
func readDelta(object []byte) (d delta, err error) {
	if object == nil {
		return d, nil
	}
	members, err := wire.JSONMembers(nil, object)
	if err != nil {
		return d, wire.Errorf(wire.BadPayload, "delta: %w", err)
	}
	f := frame{members: members}
	if reset := f.raw("reset"); reset != nil {
		d.reset, err = readObject(reset)
		return d, err
	}
	if commands := f.raw("commands"); commands != nil {
		d.commands, err = readCommands(commands)
		return d, err
	}
	if d.added, err = readMembers(f.raw("added")); err != nil {
		return d, err
	}
	if d.updated, err = readMembers(f.raw("updated")); err != nil {
		return d, err
	}
	d.removed, err = readNames(f.raw("removed"))
	return d, err
}

func readObject(value []byte) (*kv.Value, error) {
	if !isObject(value) {
		return nil, wire.Errorf(wire.BadPayload, "a context is an object")
	}
	return readValue(value)
}

func readValue(value []byte) (*kv.Value, error) {
	return kv.ParseValue(wire.Payload{Format: wire.JSON, Data: value})
}

func readMembers(object []byte) ([]kv.Member, error) {
	if object == nil {
		return nil, nil
	}
	v, err := readObject(object)
	if err != nil {
		return nil, err
	}
	return v.Members(), nil
}

func readNames(array []byte) ([]string, error) {
	if array == nil {
		return nil, nil
	}
	elements, err := wire.JSONElements(array)
	if err != nil {
		return nil, wire.Errorf(wire.BadPayload, "removed: %w", err)
	}
	names := make([]string, 0, len(elements))
	for _, e := range elements {
		name, ok := wire.JSONString(e)
		if !ok {
			return nil, wire.Errorf(wire.BadPayload, "removed: a name must be a string")
		}
		names = append(names, name)
	}
	return names, nil
}

func readCommands(array []byte) ([]command, error) {
	elements, err := wire.JSONElements(array)
	if err != nil {
		return nil, wire.Errorf(wire.BadPayload, "commands: %w", err)
	}
	if len(elements) > maxCommands {
		return nil, wire.Errorf(wire.Limit, "commands: %d, the limit is %d", len(elements), maxCommands)
	}
	list := make([]command, 0, len(elements))
	for _, e := range elements {
		c, err := readCommand(e)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

func readCommand(object []byte) (c command, err error) {
	members, err := wire.JSONMembers(nil, object)
	if err != nil {
		return c, wire.Errorf(wire.BadPayload, "commands: %w", err)
	}
	f := frame{members: members}
	path, ok := wire.JSONString(f.raw("path"))
	if !ok {
		return c, wire.Errorf(wire.BadPayload, "commands: a path must be a string")
	}
	c.path = splitPath(path)
	switch kind := f.text("type"); kind {
	case "remove":
		return c, nil
	case "set":
		value := f.raw("value")
		if value == nil {
			value = null
		}
		if len(c.path) == 0 {
			c.value, err = readObject(value)
		} else {
			c.value, err = readValue(value)
		}
		return c, err
	default:
		return c, wire.Errorf(wire.BadPayload, "commands: unknown type %q", kind)
	}
}

// splitPath splits at every dot; there is no escape, and "" is the whole.
func splitPath(path string) []string {
	if path == "" {
		return nil
	}
	return strings.Split(path, ".")
}

// edits are what a delta means for an object. What changes nothing is left out: a
// removal of what is not there must not make objects of what is on its way.
func (d delta) edits(now *kv.Value) ([]kv.Edit, error) {
	e := editing{now: now}
	if now == nil {
		e.now = kv.Object()
	}
	if d.reset != nil {
		e.put(nil, d.reset)
		return e.edits, e.err
	}
	for _, c := range d.commands {
		switch {
		case c.value != nil:
			e.put(c.path, c.value)
		case len(c.path) == 0:
			e.put(nil, kv.Object())
		default:
			e.remove(c.path)
		}
	}
	for _, m := range d.added {
		e.put([]string{m.Name}, m.Value)
	}
	for _, m := range d.updated {
		e.merge(m)
	}
	for _, name := range d.removed {
		e.remove([]string{name})
	}
	return e.edits, e.err
}

// editing follows an object through edits.
type editing struct {
	now   *kv.Value
	edits []kv.Edit
	err   error
}

func (e *editing) apply(edit kv.Edit) {
	if e.err != nil {
		return
	}
	now, err := e.now.Edited([]kv.Edit{edit})
	if err != nil {
		e.err = err
		return
	}
	e.now = now
	e.edits = append(e.edits, edit)
}

func (e *editing) put(path []string, v *kv.Value) { e.apply(kv.Edit{Path: path, Value: v}) }

// remove removes what is at a path, if anything is.
func (e *editing) remove(path []string) {
	if e.err == nil && e.now.At(path) != nil {
		e.apply(kv.Edit{Path: path})
	}
}

// merge updates a key: of two objects the members, one level deep, otherwise the
// whole.
func (e *editing) merge(m kv.Member) {
	old := e.now.At([]string{m.Name})
	if !old.IsObject() || !m.Value.IsObject() {
		e.put([]string{m.Name}, m.Value)
		return
	}
	for _, inner := range m.Value.Members() {
		e.put([]string{m.Name, inner.Name}, inner.Value)
	}
}

// unsure are the paths at which a client's library applies a delta otherwise than
// edits does, or that everything is: it takes the empty path for a key, leaves holes
// in arrays, and gives up at some names and inside texts.
func (d delta) unsure(held *kv.Value) (paths [][]string, all bool) {
	if d.reset != nil {
		return nil, false
	}
	for _, c := range d.commands {
		if len(c.path) == 0 || c.value != nil && sayable(c.path) < len(c.path) || c.value == nil && scalarOn(held, c.path) {
			return nil, true
		}
		switch n := arrayOn(held, c.path); {
		case n == 0:
			return nil, true
		case n > 0:
			paths = append(paths, c.path[:n])
		}
		edits, err := delta{commands: []command{c}}.edits(held)
		if err == nil {
			held, err = held.Edited(edits)
		}
		if err != nil {
			return nil, true
		}
	}
	return paths, false
}

// touches says whether a delta reads or writes at one of the places, above or below.
func (d delta) touches(places [][]string) bool {
	at := func(path ...string) bool {
		return slices.ContainsFunc(places, func(place []string) bool {
			n := min(len(place), len(path))
			return slices.Equal(place[:n], path[:n])
		})
	}
	return slices.ContainsFunc(d.commands, func(c command) bool { return at(c.path...) }) ||
		slices.ContainsFunc(d.added, func(m kv.Member) bool { return at(m.Name) }) ||
		slices.ContainsFunc(d.updated, func(m kv.Member) bool { return at(m.Name) }) ||
		slices.ContainsFunc(d.removed, func(name string) bool { return at(name) })
}

// scalarOn says whether a path runs through a text or a number.
func scalarOn(v *kv.Value, path []string) bool {
	for i := 1; i < len(path); i++ {
		if at := v.At(path[:i]); at != nil && !at.IsObject() && !at.IsArray() {
			return true
		}
	}
	return false
}

// arrayOn is how long the part of a path is at which there is an array that the path
// runs through, -1 if it runs through none.
func arrayOn(v *kv.Value, path []string) int {
	for i := range path {
		if v.At(path[:i]).IsArray() {
			return i
		}
	}
	return -1
}

// merged are the edits that put what a second creator says into the object at a path, and
// leave everything else: it can have meant to replace an object in it, or to set one
// property of that.
func merged(now, data *kv.Value, path []string) (edits []kv.Edit) {
	for _, m := range data.Members() {
		at := append(slices.Clone(path), m.Name)
		if now.At([]string{m.Name}).IsObject() && m.Value.IsObject() {
			edits = append(edits, merged(now.At([]string{m.Name}), m.Value, at)...)
		} else {
			edits = append(edits, kv.Edit{Path: at, Value: m.Value})
		}
	}
	return edits
}

// deltaJSON is a delta that makes of a client's object held the object view, in a
// form that the libraries apply exactly. writes are what the writer wrote, if that
// leads from one to the other; the libraries show it to apps.
func deltaJSON(held, view *kv.Value, writes []kv.Edit) []byte {
	if held == nil || !view.IsObject() {
		return resetJSON(view)
	}
	if len(writes) == 1 && len(writes[0].Path) == 0 && writes[0].Value != nil {
		return resetJSON(view)
	}
	changes := changesOf(held, view, writes)
	for _, c := range changes {
		switch {
		case len(c.Path) == 0 || c.Path[0] == "__proto__":
			return resetJSON(view)
		case sayable(c.Path) == 0:
			return topJSON(held, view)
		}
	}
	return commandsJSON(held, view, changes)
}

// changesOf are the writes themselves if each can be said in full, otherwise the
// difference of the objects.
func changesOf(held, view *kv.Value, writes []kv.Edit) []kv.Change {
	changes := make([]kv.Change, 0, len(writes))
	now := held
	for _, w := range writes {
		if n := sayable(w.Path); n == 0 || n < len(w.Path) || arrayOn(now, w.Path) >= 0 || w.Value == nil && scalarOn(now, w.Path) {
			return kv.Diff(held, view)
		}
		next, err := now.Edited([]kv.Edit{w})
		if err != nil {
			return kv.Diff(held, view)
		}
		now = next
		changes = append(changes, kv.Change{Path: w.Path, Value: w.Value})
	}
	if len(changes) == 0 || len(kv.Diff(now, view)) > 0 {
		return kv.Diff(held, view)
	}
	return changes
}

// sayable is how many leading segments of a path can be said in a command: a dot
// in a segment would part it, and the libraries refuse some names on the way.
func sayable(path []string) int {
	for i, segment := range path {
		switch {
		case strings.Contains(segment, "."), segment == "__proto__":
			return i
		case i == 0 && segment == "" && len(path) == 1:
			return 0 // the empty path
		case segment == "constructor" || segment == "prototype":
			if i < len(path)-1 {
				return i
			}
		}
	}
	return len(path)
}

// resetJSON replaces the whole object.
func resetJSON(view *kv.Value) []byte {
	return append(append([]byte(`{"reset":`), valueJSON(view)...), '}')
}

// commandsJSON sets and removes at paths. A path that cannot be said in full is
// cut, and what is there is set as a whole.
func commandsJSON(held, view *kv.Value, changes []kv.Change) []byte {
	b := []byte(`{"commands":[`)
	var cut []string // the path that was set last as a whole
	for i, c := range changes {
		n := sayable(c.Path)
		value := c.Value
		if n < len(c.Path) || throughArray(held, view, c.Path) {
			n, value = whole(held, view, c.Path, n)
			if cut != nil && slices.Equal(cut, c.Path[:n]) {
				continue
			}
			cut = c.Path[:n]
		}
		if i > 0 && b[len(b)-1] != '[' {
			b = append(b, ',')
		}
		b = appendCommand(b, c.Path[:n], value)
	}
	return append(b, "]}"...)
}

func appendCommand(b []byte, path []string, value *kv.Value) []byte {
	if value == nil {
		b = append(b, `{"type":"remove","path":`...)
		b = wire.AppendJSONString(b, strings.Join(path, "."))
		return append(b, '}')
	}
	b = append(b, `{"type":"set","path":`...)
	b = wire.AppendJSONString(b, strings.Join(path, "."))
	b = append(b, `,"value":`...)
	b = append(b, valueJSON(value)...)
	return append(b, '}')
}

// throughArray says whether a path runs through an array before or after.
func throughArray(held, view *kv.Value, path []string) bool {
	return arrayOn(held, path) >= 0 || arrayOn(view, path) >= 0
}

// whole is the longest part of a path, at most n segments, that can be set as a
// whole, and the value there.
func whole(held, view *kv.Value, path []string, n int) (int, *kv.Value) {
	for i := 1; i < n; i++ {
		if held.At(path[:i]).IsArray() || view.At(path[:i]).IsArray() {
			n = i
		}
	}
	return n, view.At(path[:n])
}

// topJSON says a difference by whole keys: their names are not parted.
func topJSON(held, view *kv.Value) []byte {
	b := []byte(`{"added":{`)
	n := 0
	for _, m := range view.Members() {
		old := held.At([]string{m.Name})
		if old != nil && len(kv.Diff(old, m.Value)) == 0 {
			continue
		}
		if n++; n > 1 {
			b = append(b, ',')
		}
		b = wire.AppendJSONString(b, m.Name)
		b = append(b, ':')
		b = append(b, valueJSON(m.Value)...)
	}
	b = append(b, `},"updated":{},"removed":[`...)
	n = 0
	for _, m := range held.Members() {
		if view.At([]string{m.Name}) != nil {
			continue
		}
		if n++; n > 1 {
			b = append(b, ',')
		}
		b = wire.AppendJSONString(b, m.Name)
	}
	return append(b, "]}"...)
}

// valueJSON is a value as JSON text; no value is an empty object, for clients hold
// one where a context is not.
func valueJSON(v *kv.Value) []byte {
	if v == nil {
		return []byte("{}")
	}
	p, err := v.Payload().As(wire.JSON)
	if err != nil { // what is held was checked
		return []byte("null")
	}
	return p.Data
}
