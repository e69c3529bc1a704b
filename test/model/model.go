// Package model is contexts done naively: what package kv does with registers,
// places and snapshots, again with plain maps and nothing of package kv, for tests
// to compare with.
//
// A [Recorder] keeps every message of a realm's context stream, a [History] folds
// those of one context by the rules of the design, in the order of places, and
// the rest of the package are the values: objects that are never changed in place.
// What compactions write is left out of the fold, so one that loses something
// differs from it.
package model

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/weft-fabric/weft/wire"
)

// The values of the model are what a payload decodes to: map[string]any, []any
// and scalars. They are never changed in place, so that every step of a history
// keeps its own object.

// Nothing is no value, which differs from nil.
var Nothing any = struct{}{}

// Decoded is the value of a payload.
func Decoded(p wire.Payload) (any, error) {
	if p.IsZero() {
		return Nothing, nil
	}
	var v any
	err := p.Decode(&v)
	return v, err
}

// Plain is a value as it looks after a way over the wire.
func Plain(v any) any {
	p, err := wire.Encode(v)
	if err == nil {
		v, err = Decoded(p)
	}
	if err != nil {
		panic(err)
	}
	return v
}

// Canonical is JSON that is equal for equal values.
func Canonical(v any) string {
	if v == Nothing {
		return ""
	}
	p, err := wire.Encode(v)
	if err != nil {
		return "?" + err.Error()
	}
	text, err := wire.Canonical(p)
	if err != nil {
		return "?" + err.Error()
	}
	return string(text)
}

// Put is the rule of the fold: every write, a delete included, makes objects of
// its missing or other ancestors.
func Put(v any, path []string, x any) any {
	if len(path) == 0 {
		return x
	}
	m := map[string]any{}
	if old, ok := v.(map[string]any); ok {
		m = maps.Clone(old)
	}
	old, ok := m[path[0]]
	if !ok {
		old = Nothing
	}
	if now := Put(old, path[1:], x); now == Nothing {
		delete(m, path[0])
	} else {
		m[path[0]] = now
	}
	return m
}

// At is the value at a path; a number selects from an array.
func At(v any, path []string) any {
	for _, s := range path {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[s]; !ok {
				return Nothing
			}
		case []any:
			i, err := strconv.Atoi(s)
			if err != nil || i < 0 || i >= len(x) {
				return Nothing
			}
			v = x[i]
		default:
			return Nothing
		}
	}
	return v
}

// Edit is what an app expects of a write: as Put, but through arrays, and a
// removal makes no objects.
func Edit(v any, path []string, x any) (any, error) {
	if len(path) == 0 {
		return x, nil
	}
	gone := x == Nothing
	if list, ok := v.([]any); ok {
		if i, err := strconv.Atoi(path[0]); err == nil {
			return editElement(list, i, path, x)
		}
	}
	m, ok := v.(map[string]any)
	if gone && !ok {
		return v, nil
	}
	old, found := m[path[0]]
	if !found {
		old = Nothing
		if gone {
			return v, nil
		}
	}
	now, err := Edit(old, path[1:], x)
	if err != nil {
		return nil, err
	}
	m = maps.Clone(m)
	if m == nil {
		m = map[string]any{}
	}
	if now == Nothing {
		delete(m, path[0])
	} else {
		m[path[0]] = now
	}
	return m, nil
}

func editElement(list []any, i int, path []string, x any) (any, error) {
	gone := x == Nothing
	if i > len(list) || i < 0 {
		if gone {
			return list, nil
		}
		return nil, fmt.Errorf("no element %d of %d", i, len(list))
	}
	old := Nothing
	if i < len(list) {
		old = list[i]
	} else if gone {
		return list, nil
	}
	now, err := Edit(old, path[1:], x)
	if err != nil {
		return nil, err
	}
	list = slices.Clone(list)
	switch {
	case now == Nothing:
		return slices.Delete(list, i, i+1), nil
	case i == len(list):
		return append(list, now), nil
	}
	list[i] = now
	return list, nil
}

// Tag begins every string that an operation writes.
func Tag(op int) string { return "o" + strconv.Itoa(op) + "." }

// TagOf reads the operation from a string.
func TagOf(v any) (op int, ok bool) {
	s, _ := v.(string)
	if len(s) < 3 || s[0] != 'o' {
		return 0, false
	}
	digits, _, ok := strings.Cut(s[1:], ".")
	if !ok {
		return 0, false
	}
	op, err := strconv.Atoi(digits)
	return op, err == nil
}

// Leaves calls f with each tagged string below v. Of what is in an array only the
// first element has a path that stays what it is; for the rest fixed is false.
func Leaves(v any, path string, f func(path string, fixed bool, op int)) { walk(v, path, true, f) }

func walk(v any, path string, fixed bool, f func(path string, fixed bool, op int)) {
	switch x := v.(type) {
	case map[string]any:
		for name, y := range x {
			walk(y, path+"/"+name, fixed, f)
		}
	case []any:
		for i, y := range x {
			walk(y, path+"/"+strconv.Itoa(i), fixed && i == 0, f)
		}
	default:
		if op, ok := TagOf(v); ok {
			f(path, fixed, op)
		}
	}
}

// Differences lists the smallest differences between two values, at most some.
func Differences(want, got any, path []string, most int) (list [][]string) {
	a, okA := want.(map[string]any)
	b, okB := got.(map[string]any)
	if !okA || !okB {
		if Canonical(want) != Canonical(got) {
			return [][]string{slices.Clone(path)}
		}
		return nil
	}
	names := slices.Collect(maps.Keys(a))
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		list = append(list, Differences(At(a, []string{name}), At(b, []string{name}), append(path, name), most)...)
		if len(list) >= most {
			return list[:most]
		}
	}
	return list
}

// Short is a value for people.
func Short(v any) string {
	text := []byte(Canonical(v))
	if len(text) == 0 {
		return "nothing"
	}
	if len(text) > 120 {
		text = append(bytes.Clone(text[:110]), "..."...)
	}
	return string(text)
}

// Related says whether one path is the other, or above it.
func Related(a, b []string) bool {
	n := min(len(a), len(b))
	return slices.Equal(a[:n], b[:n])
}
