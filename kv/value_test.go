package kv

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weft-fabric/weft/wire"
)

// The model of a value is what encoding/json would make of it, with gone for no
// value: nil is a value.
type gone struct{}

func isGone(v any) bool { _, ok := v.(gone); return ok }

// modelPut is the rule of the fold, written as plainly as it can be.
func modelPut(v any, path []string, x any) any {
	if len(path) == 0 {
		return x
	}
	now := map[string]any{}
	if old, ok := v.(map[string]any); ok {
		maps.Copy(now, old)
	}
	child, ok := now[path[0]]
	if !ok {
		child = gone{}
	}
	if child = modelPut(child, path[1:], x); isGone(child) {
		delete(now, path[0])
	} else {
		now[path[0]] = child
	}
	return now
}

var decimal = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)

// modelEdit is what an app means by a path. It is false for an element that
// cannot be: one beyond the end of an array.
func modelEdit(v any, path []string, x any) (any, bool) {
	if len(path) == 0 {
		return x, true
	}
	if list, ok := v.([]any); ok && decimal.MatchString(path[0]) {
		i, err := strconv.Atoi(path[0])
		switch {
		case err != nil || i > len(list):
			return v, isGone(x)
		case i == len(list) && isGone(x):
			return v, true
		case i == len(list):
			now, ok := modelEdit(gone{}, path[1:], x)
			return append(slices.Clone(list), now), ok
		}
		now, ok := modelEdit(list[i], path[1:], x)
		if isGone(now) {
			return slices.Delete(slices.Clone(list), i, i+1), ok
		}
		list = slices.Clone(list)
		list[i] = now
		return list, ok
	}
	m, ok := v.(map[string]any)
	child, there := m[path[0]]
	if isGone(x) && (!ok || !there) {
		return v, true
	}
	if !there {
		child = gone{}
	}
	now, ok := modelEdit(child, path[1:], x)
	return modelPut(v, path[:1], now), ok
}

func modelAt(v any, path []string) any {
	for _, segment := range path {
		switch w := v.(type) {
		case map[string]any:
			child, ok := w[segment]
			if !ok {
				return gone{}
			}
			v = child
		case []any:
			i, err := strconv.Atoi(segment)
			if !decimal.MatchString(segment) || err != nil || i >= len(w) {
				return gone{}
			}
			v = w[i]
		default:
			return gone{}
		}
	}
	return v
}

// textOf is a model's canonical JSON.
func textOf(v any) string {
	if isGone(v) {
		return "gone"
	}
	if v == nil {
		return "null" // and not no value
	}
	p, err := wire.Encode(v)
	if err != nil {
		panic(err)
	}
	data, err := wire.Canonical(p)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// text is a value's canonical JSON.
func text(v *Value) string {
	if v == nil {
		return "gone"
	}
	data, err := wire.Canonical(v.Payload())
	if err != nil {
		return fmt.Sprintf("%x: %v", v.Payload().Data, err)
	}
	return string(data)
}

// parse reads JSON; "-" is no value.
func parse(t rapid.TB, json string) *Value {
	t.Helper()
	if json == "-" {
		return nil
	}
	v, err := ParseValue(wire.Payload{Format: wire.JSON, Data: []byte(json)})
	if err != nil {
		t.Fatalf("%s: %v", json, err)
	}
	return v
}

func split(path string) []string {
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

// modelOf reads a value by the decoder.
func modelOf(t rapid.TB, v *Value) any {
	t.Helper()
	if v == nil {
		return gone{}
	}
	var m any
	if err := v.Payload().Decode(&m); err != nil {
		t.Fatalf("%x: %v", v.Payload().Data, err)
	}
	return m
}

var names = []string{"a", "b", "0", "1", "é", ""}

// drawValue draws a model and its msgpack: names in any order and twice, heads
// wider than they must be.
func drawValue(t *rapid.T, depth int) (any, []byte) {
	// rapid likes the low numbers.
	kind := 7 - rapid.IntRange(0, 7).Draw(t, "kind")
	if depth <= 0 {
		kind %= 6
	}
	switch kind {
	case 0:
		return nil, []byte{0xc0}
	case 1:
		return true, []byte{0xc3}
	case 2:
		n := rapid.Int64Range(-3, 3).Draw(t, "n")
		p, _ := wire.Encode(n)
		return n, p.Data
	case 3:
		n := rapid.Int64Range(0, 3).Draw(t, "wide")
		return n, []byte{0xcd, 0, byte(n)}
	case 4:
		p, _ := wire.Encode(0.5)
		return 0.5, p.Data
	case 5:
		s := strings.Repeat("s", rapid.SampledFrom([]int{0, 1, 31, 32, 256}).Draw(t, "length"))
		return s, wire.AppendString(nil, s)
	case 6:
		list := []any{}
		n := rapid.SampledFrom([]int{2, 1, 3, 0, 17}).Draw(t, "elements")
		data := wire.AppendArray(nil, n)
		if n > 10 {
			depth = 0
		}
		for range n {
			v, b := drawValue(t, depth-1)
			list, data = append(list, v), append(data, b...)
		}
		return list, data
	}
	m := map[string]any{}
	n := rapid.SampledFrom([]int{2, 1, 3, 0, 17}).Draw(t, "members")
	data := wire.AppendMap(nil, n)
	if rapid.Bool().Draw(t, "wide") {
		data = []byte{0xdf, 0, 0, 0, byte(n)}
	}
	for i := range n {
		name := rapid.SampledFrom(names).Draw(t, "name")
		if n > 10 {
			depth = 0
			name = strings.Repeat("n", i*3)
		}
		v, b := drawValue(t, depth-1)
		m[name] = v
		data = append(wire.AppendString(data, name), b...)
	}
	return m, data
}

func drawPath(t *rapid.T, least int) []string {
	return rapid.SliceOfN(rapid.SampledFrom(append(names, "2", "3", "01")), least, 4).Draw(t, "path")
}

// checkValue fails unless v is m and all that can be asked of it agrees.
func checkValue(t rapid.TB, v *Value, m any) {
	t.Helper()
	if text(v) != textOf(m) {
		t.Fatalf("got %s, want %s", text(v), textOf(m))
	}
	data := v.Payload().Data
	object, isObject := m.(map[string]any)
	_, isArray := m.([]any)
	if v.Size() != len(data) || v.IsObject() != isObject || v.IsArray() != isArray || v.IsNil() != (m == nil) {
		t.Fatalf("%s: size %d of %d, object %t, array %t, nil %t", text(v), v.Size(), len(data), v.IsObject(), v.IsArray(), v.IsNil())
	}
	if v == nil {
		return
	}
	if err := wire.Check(data); err != nil {
		t.Fatalf("%x: %v", data, err)
	}
	want := slices.Sorted(maps.Keys(object))
	for i, member := range v.Members() {
		if i >= len(want) || member.Name != want[i] || text(member.Value) != textOf(object[member.Name]) {
			t.Fatalf("member %d of %s: %q %s", i, textOf(m), member.Name, text(member.Value))
		}
	}
	if len(v.Members()) != len(want) {
		t.Fatalf("%d members of %s", len(v.Members()), textOf(m))
	}
}

func TestValueParse(t *testing.T) {
	for _, c := range []struct {
		format wire.Format
		data   string
		want   string // "" if it is refused
	}{
		{wire.Msgpack, "", "gone"},
		{wire.JSON, "", "gone"},
		{wire.Msgpack, "\xc0", "null"},
		{wire.JSON, "null", "null"},
		{wire.JSON, ` {"b":1,"a":{"x":1},"a":{"y":2}} `, `{"a":{"y":2},"b":1}`},
		{wire.Msgpack, "\x82\xa1a\x01\xa1a\x02", `{"a":2}`},
		{wire.JSON, "{", ""},
		{wire.JSON, "1 2", ""},
		{wire.Msgpack, "\xc1", ""},
		{wire.Msgpack, "\x01\x01", ""},
		{wire.Msgpack, "\xa1\xff", ""},
		{wire.Msgpack, strings.Repeat("\x91", wire.MaxDepth) + "\xc0", strings.Repeat("[", wire.MaxDepth) + "null" + strings.Repeat("]", wire.MaxDepth)},
		{wire.Msgpack, strings.Repeat("\x91", wire.MaxDepth+1) + "\xc0", ""},
	} {
		v, err := ParseValue(wire.Payload{Format: c.format, Data: []byte(c.data)})
		switch {
		case c.want == "" && !errors.Is(err, wire.ErrBadPayload):
			t.Errorf("%q: %v, %v; want it refused", c.data, v, err)
		case c.want != "" && (err != nil || text(v) != c.want):
			t.Errorf("%q: %s, %v; want %s", c.data, text(v), err, c.want)
		}
	}
	if v := Object(); text(v) != "{}" || v.Size() != 1 || !v.IsObject() || v.Members() == nil {
		t.Errorf("%s, %d bytes", text(v), v.Size())
	}
	var none *Value
	if none.Size() != 0 || none.IsObject() || none.IsArray() || none.IsNil() || none.Members() != nil || !none.Payload().IsZero() || none.At([]string{"a"}) != nil {
		t.Error("no value is something")
	}
}

func TestValueReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, data := drawValue(t, 3)
		kept := bytes.Clone(data)
		v, err := ParseValue(wire.Payload{Data: data})
		if err != nil {
			t.Fatalf("%x: %v", data, err)
		}
		checkValue(t, v, m)
		for range 5 {
			path := drawPath(t, 0)
			checkValue(t, v.At(path), modelAt(m, path))
		}
		if !bytes.Equal(data, kept) {
			t.Fatal("reading changed the bytes")
		}
	})
}

// A change makes a new value; what it was made of stays what it was.
func TestValueChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, data := drawValue(t, 3)
		v, err := ParseValue(wire.Payload{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		values, models := []*Value{nil, v}, []any{gone{}, m}
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			i := rapid.IntRange(0, len(values)-1).Draw(t, "of")
			xm, x := any(gone{}), (*Value)(nil)
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				var data []byte
				xm, data = drawValue(t, 2)
				if x, err = ParseValue(wire.Payload{Data: data}); err != nil {
					t.Fatal(err)
				}
			case 2:
				j := rapid.IntRange(0, len(values)-1).Draw(t, "shared")
				xm, x = models[j], values[j]
			}
			path := drawPath(t, 0)
			now, want := (*Value)(nil), any(nil)
			if rapid.Bool().Draw(t, "edit") {
				var ok bool
				want, ok = modelEdit(models[i], path, xm)
				now, err = values[i].edit(path, x)
				if !ok {
					if !errors.Is(err, wire.ErrBadPayload) {
						t.Fatalf("%q = %s in %s: %s, %v; want it refused", path, textOf(xm), textOf(models[i]), text(now), err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%q = %s in %s: %v", path, textOf(xm), textOf(models[i]), err)
				}
			} else {
				want, now = modelPut(models[i], path, xm), values[i].put(path, x)
			}
			if now.Size() < 2000 && rapid.Bool().Draw(t, "look") {
				checkValue(t, now, want)
			}
			values, models = append(values, now), append(models, want)
		}
		for i, v := range values {
			checkValue(t, v, models[i])
		}
	})
}

func TestValueEdited(t *testing.T) {
	long := strings.Repeat("9", 30)
	for _, c := range []struct{ in, path, value, want string }{
		{`{"l":[1,2]}`, "l/0", `9`, `{"l":[9,2]}`},
		{`{"l":[1,2]}`, "l/2", `9`, `{"l":[1,2,9]}`},
		{`{"l":[1,2]}`, "l/3", `9`, "refused"},
		{`{"l":[1,2]}`, "l/" + long, `9`, "refused"},
		{`{"l":[1,2]}`, "l/0", "-", `{"l":[2]}`},
		{`{"l":[1,2]}`, "l/2", "-", `{"l":[1,2]}`},
		{`{"l":[1,2]}`, "l/3", "-", `{"l":[1,2]}`},
		{`{"l":[1,2]}`, "l/3/x", "-", `{"l":[1,2]}`},
		{`{"l":[1,2]}`, "l/" + long, "-", `{"l":[1,2]}`},
		{`{"l":[1]}`, "l/0", "-", `{"l":[]}`},
		{`{"l":[]}`, "l/0", `1`, `{"l":[1]}`},
		{`{"l":[]}`, "l/0/x/y", `1`, `{"l":[{"x":{"y":1}}]}`},
		{`{"l":[[1],2]}`, "l/0/1", `null`, `{"l":[[1,null],2]}`},
		{`{"l":[[1],2]}`, "l/0/0", "-", `{"l":[[],2]}`},
		{`{"l":[1]}`, "l/0/x", `2`, `{"l":[{"x":2}]}`},
		{`{"l":[1]}`, "l/0/x", "-", `{"l":[1]}`},
		{`{"l":[1]}`, "l/x", "-", `{"l":[1]}`},
		{`{"l":[1]}`, "l/x", `2`, `{"l":{"x":2}}`},
		{`{"l":[1]}`, "l/00", `2`, `{"l":{"00":2}}`},
		{`{"l":[1]}`, "l/-1", `2`, `{"l":{"-1":2}}`},
		{`{"l":{"0":1}}`, "l/0", "-", `{"l":{}}`},
		{`{"a":1}`, "a/b", `2`, `{"a":{"b":2}}`},
		{`{"a":1}`, "a/b", "-", `{"a":1}`},
		{`{"a":null}`, "a", "-", `{}`},
		{`{"a":1}`, "b/c", "-", `{"a":1}`},
		{`{"a":1,"a":2}`, "a", "-", `{}`},
		{`{"a":1}`, "", `{"b":1}`, `{"b":1}`},
		{`{"a":1}`, "", `[]`, "refused"},
		{`{"a":1}`, "", `1`, "refused"},
		{`{"a":1}`, "", "-", "refused"},
	} {
		v, err := parse(t, c.in).Edited([]Edit{{Path: split(c.path), Value: parse(t, c.value)}})
		if c.want == "refused" {
			if !errors.Is(err, wire.ErrBadPayload) {
				t.Errorf("%s, %s = %s: %s, %v; want it refused", c.in, c.path, c.value, text(v), err)
			}
			continue
		}
		if err != nil || text(v) != c.want {
			t.Errorf("%s, %s = %s: %s, %v; want %s", c.in, c.path, c.value, text(v), err, c.want)
		}
	}
	v, err := parse(t, `{"l":[]}`).Edited([]Edit{
		{Path: split("l/0"), Value: parse(t, `1`)},
		{Path: split("l/1"), Value: parse(t, `2`)},
		{Path: split("l/0")},
		{Path: split("m"), Value: parse(t, `[]`)},
		{Path: split("m/0"), Value: parse(t, `3`)},
	})
	if err != nil || text(v) != `{"l":[2],"m":[3]}` {
		t.Errorf("%s, %v", text(v), err)
	}
}

// Sizes where the heads of names and maps grow.
func TestValueSizes(t *testing.T) {
	v, m := Object(), any(map[string]any{})
	for _, n := range []int{0, 31, 32, 255, 256, 65535, 65536} {
		name := strings.Repeat("x", n)
		v, m = v.put([]string{name, name}, parse(t, "1")), modelPut(m, []string{name, name}, int64(1))
		checkValue(t, v, m)
	}
	v = Object()
	for i := range 20 {
		if v = v.put([]string{strconv.Itoa(i)}, Object()); v.Size() != len(v.Payload().Data) {
			t.Errorf("%d members: size %d of %d", i+1, v.Size(), len(v.Payload().Data))
		}
	}
	many := make([]Member, 1<<16)
	size := 0
	for i := range many {
		many[i] = Member{fmt.Sprintf("%05d", i), Object()}
		size += many[i].size()
	}
	for _, n := range []int{1<<16 - 1, 1 << 16} {
		v := object(many[:n], size*n/len(many))
		if v.Size() != len(v.Payload().Data) {
			t.Errorf("%d members: size %d of %d", n, v.Size(), len(v.Payload().Data))
		}
	}
}

func TestValueEqual(t *testing.T) {
	value := func(v any) *Value {
		p, err := wire.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		w, err := ParseValue(p)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	made := Object().put([]string{"b"}, value(2)).put([]string{"a"}, value(1))
	for _, c := range []struct {
		a, b *Value
		want bool
	}{
		{nil, nil, true},
		{nil, parse(t, "null"), false},
		{nil, Object(), false},
		{Object(), parse(t, "{}"), true},
		{Object(), parse(t, "[]"), false},
		{parse(t, "1"), parse(t, "1.0"), true},
		{parse(t, "[1]"), parse(t, "[1.0]"), true},
		{parse(t, "1"), parse(t, "2"), false},
		{parse(t, "1"), parse(t, `"1"`), false},
		{parse(t, "null"), parse(t, "false"), false},
		{parse(t, `{"a":1,"b":2}`), parse(t, `{"b":2.0,"a":0,"a":1}`), true},
		{parse(t, `{"a":1,"b":2}`), made, true},
		{parse(t, `{"a":1,"b":3}`), made, false},
		{parse(t, `{"a":1}`), made, false},
		{parse(t, `[{"a":1,"b":2}]`), parse(t, `[{"b":2,"a":1}]`), true},
		{parse(t, "[1,2]"), parse(t, "[2,1]"), false},
		{parse(t, `{"a":null}`), Object(), false},
	} {
		if c.a.Equal(c.b) != c.want || c.b.Equal(c.a) != c.want {
			t.Errorf("%s, %s: %t", text(c.a), text(c.b), !c.want)
		}
	}
}

func TestValueDiff(t *testing.T) {
	for _, c := range []struct{ old, now, want string }{
		{"-", "-", ""},
		{"-", "{}", "= {}"},
		{`{"a":1}`, "-", "= gone"},
		{"{}", "{}", ""},
		{`{"a":1}`, `{"a":1.0}`, ""},
		{`{"a":1,"c":{"x":1,"y":2}}`, `{"b":null,"c":{"y":3,"z":{"k":1}}}`, "a = gone; b = null; c/x = gone; c/y = 3; c/z = {\"k\":1}"},
		{`{"a":[1]}`, `{"a":[1,2]}`, "a = [1,2]"},
		{`{"a":[1]}`, `{"a":{}}`, "a = {}"},
		{`{"a":{}}`, `{"a":[]}`, "a = []"},
		{`{"a":{"b":1}}`, `{"a":{}}`, "a/b = gone"},
		{`{"a":null}`, `{}`, "a = gone"},
		{`1`, `2`, "= 2"},
	} {
		var got []string
		for _, d := range Diff(parse(t, c.old), parse(t, c.now)) {
			got = append(got, strings.TrimSpace(strings.Join(d.Path, "/")+" = "+text(d.Value)))
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%s, %s: %s; want %s", c.old, c.now, s, c.want)
		}
	}
}

func TestValueDiffApplied(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, data := drawValue(t, 3)
		old, err := ParseValue(wire.Payload{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		now, nowModel := old, m
		if rapid.Bool().Draw(t, "related") {
			for range rapid.IntRange(0, 5).Draw(t, "puts") {
				path := drawPath(t, 0)
				x, data := drawValue(t, 2)
				v, err := ParseValue(wire.Payload{Data: data})
				if err != nil {
					t.Fatal(err)
				}
				now, nowModel = now.put(path, v), modelPut(nowModel, path, x)
			}
		} else {
			var data []byte
			nowModel, data = drawValue(t, 3)
			if now, err = ParseValue(wire.Payload{Data: data}); err != nil {
				t.Fatal(err)
			}
		}
		changes := Diff(old, now)
		applied, value := m, old
		for i, c := range changes {
			applied, value = modelPut(applied, c.Path, modelOf(t, c.Value)), value.put(c.Path, c.Value)
			if i > 0 && slices.Compare(changes[i-1].Path, c.Path) >= 0 {
				t.Fatalf("%q before %q", changes[i-1].Path, c.Path)
			}
			if reflect.DeepEqual(modelAt(m, c.Path), modelOf(t, c.Value)) {
				t.Fatalf("%q did not change", c.Path)
			}
			_, was := modelAt(m, c.Path).(map[string]any)
			_, is := modelAt(nowModel, c.Path).(map[string]any)
			if was && is {
				t.Fatalf("%q is an object in both", c.Path)
			}
		}
		if textOf(applied) != textOf(nowModel) || !value.Equal(now) {
			t.Fatalf("%s and %v make %s; want %s", textOf(m), changes, textOf(applied), textOf(nowModel))
		}
		same := textOf(m) == textOf(nowModel)
		if same != (len(changes) == 0) || same != old.Equal(now) || same != now.Equal(old) {
			t.Fatalf("%s and %s: %d changes, equal %t", textOf(m), textOf(nowModel), len(changes), old.Equal(now))
		}
	})
}
