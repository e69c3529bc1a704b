package gateway_test

import (
	"encoding/json"
	"maps"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
)

// What follows is what clients' libraries do with the object of a context, down to the
// corners: a JavaScript object is changed in place by the segments of paths. What it
// leaves out is inheritance, with it the name __proto__, which no library keeps, and
// the length of arrays and texts.

// jsArray is an array, which can have holes, and properties that are no elements and
// that JSON does not show.
type jsArray struct {
	elements []any
	named    map[string]any
}

// hole is what was deleted from an array, or never set.
type hole struct{}

// toJS makes objects of what Go made of JSON. It copies.
func toJS(v any) any {
	switch v := v.(type) {
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, x := range v {
			object[name] = toJS(x)
		}
		return object
	case []any:
		a := &jsArray{named: map[string]any{}}
		for _, x := range v {
			a.elements = append(a.elements, toJS(x))
		}
		return a
	case *jsArray:
		a := &jsArray{named: map[string]any{}}
		for _, x := range v.elements {
			a.elements = append(a.elements, toJS(x))
		}
		for name, x := range v.named {
			a.named[name] = toJS(x)
		}
		return a
	}
	return v
}

// fromJS is what JSON.stringify shows of a value.
func fromJS(v any) any {
	switch v := v.(type) {
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, x := range v {
			object[name] = fromJS(x)
		}
		return object
	case *jsArray:
		list := make([]any, len(v.elements))
		for i, x := range v.elements {
			list[i] = fromJS(x)
		}
		return list
	case hole:
		return nil
	}
	return v
}

// elementIndex reads an array index as JavaScript does: a canonical decimal.
func elementIndex(segment string) (int, bool) {
	i, err := strconv.Atoi(segment)
	return i, err == nil && i >= 0 && i < math.MaxInt32 && strconv.Itoa(i) == segment
}

// get is a property, nil if there is none.
func get(object any, name string) any {
	switch o := object.(type) {
	case map[string]any:
		return o[name]
	case *jsArray:
		i, ok := elementIndex(name)
		switch {
		case !ok:
			return o.named[name]
		case i >= len(o.elements) || o.elements[i] == hole{}:
			return nil
		}
		return o.elements[i]
	}
	return nil
}

// assign sets a property.
func assign(object any, name string, v any) {
	switch o := object.(type) {
	case map[string]any:
		o[name] = v
	case *jsArray:
		i, ok := elementIndex(name)
		if !ok {
			o.named[name] = v
			return
		}
		for i >= len(o.elements) {
			o.elements = append(o.elements, hole{})
		}
		o.elements[i] = v
	}
}

// unset deletes a property. It is false if that throws.
func unset(object any, name string) bool {
	i, isIndex := elementIndex(name)
	switch o := object.(type) {
	case map[string]any:
		delete(o, name)
	case *jsArray:
		if !isIndex {
			delete(o.named, name)
		} else if i < len(o.elements) {
			o.elements[i] = hole{}
		}
	case string: // its characters cannot be deleted
		return !isIndex || i >= len(utf16.Encode([]rune(o)))
	}
	return true
}

// truthy is what an if takes for true.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil, hole:
		return false
	case bool:
		return v
	case float64:
		return v != 0
	case string:
		return v != ""
	}
	return true
}

func isContainer(v any) bool {
	switch v.(type) {
	case map[string]any, *jsArray:
		return true
	}
	return false
}

// apply is an object after a delta, as libraries do it. What throws in them, such as a
// forbidden name on the way, leaves what was done so far.
func apply(object map[string]any, delta frame) map[string]any {
	if delta == nil {
		return object
	}
	if reset, ok := delta["reset"].(map[string]any); ok {
		return toJS(reset).(map[string]any)
	}
	object = toJS(object).(map[string]any)
	if delta["commands"] != nil {
		for _, c := range list(delta["commands"]) {
			c := frame(c.(map[string]any))
			path := strings.Split(c.str("path"), ".")
			if c.is("remove") && !removeAt(object, path) || c.is("set") && !setAt(object, path, toJS(c["value"])) {
				break
			}
		}
		return object
	}
	for name, v := range delta.object("added") {
		object[name] = toJS(v)
	}
	for name, v := range delta.object("updated") {
		update(object, name, toJS(v))
	}
	for _, name := range list(delta["removed"]) {
		delete(object, name.(string))
	}
	return object
}

// setAt sets what is at a path; what is missing on the way, or is no object, becomes
// one. It is false if that throws, as it does at forbidden names on the way.
func setAt(object any, path []string, v any) bool {
	for _, segment := range path[:len(path)-1] {
		switch segment {
		case "__proto__", "constructor", "prototype":
			return false
		}
		if next := get(object, segment); !truthy(next) || !isContainer(next) {
			assign(object, segment, map[string]any{})
		}
		object = get(object, segment)
	}
	assign(object, path[len(path)-1], v)
	return true
}

// removeAt removes what is at a path, if anything is. It is false if that throws.
func removeAt(object any, path []string) bool {
	for _, segment := range path[:len(path)-1] {
		object = get(object, segment)
		if !truthy(object) {
			return true
		}
	}
	return unset(object, path[len(path)-1])
}

// update merges an object with an object one level deep, and replaces all else.
func update(object map[string]any, name string, v any) {
	old, both := object[name].(map[string]any)
	added, ok := v.(map[string]any)
	if !both || !ok {
		object[name] = v
		return
	}
	merged := map[string]any{}
	maps.Copy(merged, old)
	maps.Copy(merged, added)
	object[name] = merged
}

// mirror is what a client's library has of contexts.
type mirror struct {
	objects map[string]map[string]any // by context id
	// own are updates of the client that were answered: in Node.js they are applied
	// after all frames that came with the same read of the socket.
	own  []func()
	read int64
	// changed is called after each change of an object, if it is not nil.
	changed func(id string, object map[string]any)
}

// have makes an object what it is now.
func (m *mirror) have(id string, object map[string]any) {
	m.objects[id] = object
	if m.changed != nil {
		m.changed(id, object)
	}
}

// mirror has the client follow a context as a library does.
func (c *client) mirror(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = &mirror{objects: map[string]map[string]any{}}
		c.onRead = func(a arrival) { c.held.see(c, a) }
	}
	c.held.objects[id] = nil
}

// mirrored is what the client has of a context by now, as JSON text. mu is held.
func (c *client) mirrored(id string) string {
	text, _ := json.Marshal(fromJS(any(c.held.objects[id]))) // it is JSON
	return string(text)
}

// settle applies what waits for the end of a read. mu is held.
func (m *mirror) settle() {
	for _, f := range m.own {
		f()
	}
	m.own = nil
}

// see takes a frame. The client's mu is held.
func (m *mirror) see(c *client, a arrival) {
	if a.read != m.read {
		m.settle()
		m.read = a.read
	}
	id := a.str("context_id")
	_, follows := m.objects[id]
	switch {
	case a.is("subscribed-context") && follows:
		m.have(id, toJS(map[string]any(a.object("data"))).(map[string]any))
	case a.is("context-updated") && follows:
		m.have(id, apply(m.objects[id], a.object("delta")))
	case a.is("context-created") && follows:
		data := decoded(c.sent[a.str("request_id")]["data"])
		m.own = append(m.own, func() { m.have(id, toJS(map[string]any(data)).(map[string]any)) })
	case a.is("success"):
		request := c.sent[a.str("request_id")]
		id := request.str("context_id")
		if _, follows := m.objects[id]; !follows || !request.is("update-context") || m.objects[id] == nil {
			return
		}
		delta := decoded(request["delta"])
		m.own = append(m.own, func() { m.have(id, apply(m.objects[id], delta)) })
	}
}

// decoded is what a test sends as Go reads it from JSON.
func decoded(v any) (f frame) {
	text, _ := json.Marshal(v) // it was sent
	_ = json.Unmarshal(text, &f)
	return f
}
