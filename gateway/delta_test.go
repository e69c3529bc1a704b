package gateway_test

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weft-fabric/weft/gateway"
)

// nastyName is the name of a key: often one of a few, so that paths meet, else one with
// what paths, JavaScript and JSON are particular about.
func nastyName() *rapid.Generator[string] {
	usual := rapid.SampledFrom([]string{"a", "b", "0", "1", ""})
	return rapid.OneOf(
		usual, usual, usual,
		rapid.SampledFrom([]string{".", "a.b", "a.", ".a", "..", "2", "01", "-1", "constructor", "prototype", "toString", "\"", "\\", "ü", "\u2028", "𝄞"}),
		rapid.StringMatching(`[a-c.]{0,4}`),
	)
}

func nastyValue(depth int) *rapid.Generator[any] {
	scalar := rapid.OneOf(
		rapid.SampledFrom([]any{nil, true, false, 0.0, 1.0, -1.5, 1e21, 1e-7, "", "text", "a.b", "#T42_DATE#1"}),
		rapid.Map(rapid.IntRange(-3, 3), func(n int) any { return float64(n) }),
	)
	if depth == 0 {
		return scalar
	}
	return rapid.OneOf(
		scalar,
		rapid.Map(rapid.SliceOfN(nastyValue(depth-1), 0, 3), func(l []any) any { return l }),
		rapid.Map(nastyObject(depth-1), func(o map[string]any) any { return o }),
	)
}

func nastyObject(depth int) *rapid.Generator[map[string]any] {
	return rapid.MapOfN(nastyName(), nastyValue(depth), 0, 5)
}

// nastyDelta is an update of a client.
func nastyDelta() *rapid.Generator[frame] {
	path := rapid.Map(rapid.SliceOfN(nastyName(), 1, 4), func(p []string) string { return strings.Join(p, ".") })
	command := rapid.Custom(func(t *rapid.T) frame {
		if rapid.Bool().Draw(t, "remove") {
			return remove(path.Draw(t, "path"))
		}
		return set(path.Draw(t, "path"), nastyValue(2).Draw(t, "value"))
	})
	return rapid.OneOf(
		rapid.Map(nastyObject(2), func(o map[string]any) frame { return frame{"reset": o} }),
		rapid.Custom(func(t *rapid.T) frame {
			return frame{
				"added": nastyObject(2).Draw(t, "added"), "updated": nastyObject(2).Draw(t, "updated"),
				"removed": rapid.SliceOfN(nastyName(), 0, 3).Draw(t, "removed"),
			}
		}),
		rapid.Map(rapid.SliceOfN(command, 0, 4), func(l []frame) frame { return commands(l...) }),
	)
}

// applied is what a library makes of an object with a delta.
func applied(object, delta string) string {
	return jsonOf(fromJS(any(apply(toJS(map[string]any(decoded(json.RawMessage(object)))).(map[string]any), decoded(json.RawMessage(delta))))))
}

// TestPushes: whatever a client has and whatever it should have, a library makes the one
// of the other with what is pushed.
func TestPushes(t *testing.T) {
	checks(t, "rapid.checks", 300)
	rapid.Check(t, func(t *rapid.T) {
		held := jsonOf(nastyObject(3).Draw(t, "held"))
		view := jsonOf(nastyObject(3).Draw(t, "view"))
		if rapid.Bool().Draw(t, "near") { // most pushes change little
			for range rapid.IntRange(1, 3).Draw(t, "updates") {
				if updated, _, err := gateway.Updated(held, jsonOf(nastyDelta().Draw(t, "delta"))); err == nil {
					view = updated
				}
			}
		}
		delta, err := gateway.Push(held, view, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := applied(held, delta); got != jsonOf(json.RawMessage(view)) {
			t.Fatalf("held %s\nview %s\npush %s\n got %s", held, view, delta, got)
		}
	})
}

// TestPushesOfWrites is TestPushes where it is known what was written.
func TestPushesOfWrites(t *testing.T) {
	checks(t, "rapid.checks", 300)
	rapid.Check(t, func(t *rapid.T) {
		held := jsonOf(nastyObject(3).Draw(t, "held"))
		said := jsonOf(nastyDelta().Draw(t, "delta"))
		view, edits, err := gateway.Updated(held, said)
		if err != nil {
			return // refused
		}
		delta, err := gateway.Push(held, view, edits)
		if err != nil {
			t.Fatal(err)
		}
		if got := applied(held, delta); got != jsonOf(json.RawMessage(view)) {
			t.Fatalf("held %s\nsaid %s\nview %s\npush %s\n got %s", held, said, view, delta, got)
		}
	})
}

// TestPushesAfterOwnUpdates: what a client gets after updates of its own puts right
// what its library did with them.
func TestPushesAfterOwnUpdates(t *testing.T) {
	checks(t, "rapid.checks", 300)
	rapid.Check(t, func(t *rapid.T) {
		held := jsonOf(nastyObject(3).Draw(t, "held"))
		var said []string
		view, has := held, held
		for range rapid.IntRange(1, 3).Draw(t, "updates") {
			delta := jsonOf(nastyDelta().Draw(t, "delta"))
			updated, _, err := gateway.Updated(view, delta)
			if err != nil {
				continue // refused, so that the library does nothing
			}
			view, has, said = updated, applied(has, delta), append(said, delta)
		}
		followed, err := gateway.Followed(held, said)
		if err != nil {
			t.Fatal(err)
		}
		if followed != "" && jsonOf(json.RawMessage(followed)) == jsonOf(json.RawMessage(view)) { // nothing is pushed
			if has != jsonOf(json.RawMessage(view)) {
				t.Fatalf("held %s\nsaid %s\nview %s\n has %s", held, said, view, has)
			}
			return
		}
		delta, err := gateway.Push(followed, view, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := applied(has, delta); got != jsonOf(json.RawMessage(view)) {
			t.Fatalf("held %s\nsaid %s\nview %s\n has %s\npush %s\n got %s", held, said, view, has, delta, got)
		}
	})
}

// TestPushForms has the forms that apps are shown.
func TestPushForms(t *testing.T) {
	for _, tt := range []struct{ held, view, want string }{
		{`{"a":1}`, `{"a":2}`, `{"commands":[{"type":"set","path":"a","value":2}]}`},
		{`{"a":1,"b":1}`, `{"a":1}`, `{"commands":[{"type":"remove","path":"b"}]}`},
		{`{"o":{"x":1,"y":2}}`, `{"o":{"x":1,"y":3}}`, `{"commands":[{"type":"set","path":"o.y","value":3}]}`},
		{`{"o":{"x":1}}`, `{"o":{"x":1,"a.b":2}}`, `{"commands":[{"type":"set","path":"o","value":{"a.b":2,"x":1}}]}`},
		{`{"a.b":1,"c":1}`, `{"a.b":2}`, `{"added":{"a.b":2},"updated":{},"removed":["c"]}`},
		{`{"":1}`, `{"":2}`, `{"added":{"":2},"updated":{},"removed":[]}`},
		{`{"list":[1,2]}`, `{"list":[1,3]}`, `{"commands":[{"type":"set","path":"list","value":[1,3]}]}`},
		{`{"constructor":{"x":1}}`, `{"constructor":{"x":2}}`, `{"added":{"constructor":{"x":2}},"updated":{},"removed":[]}`},
		{``, `{"a":1}`, `{"reset":{"a":1}}`},
	} {
		got, err := gateway.Push(tt.held, tt.view, nil)
		if err != nil || jsonOf(json.RawMessage(got)) != jsonOf(json.RawMessage(tt.want)) {
			t.Errorf("%s to %s:\n got %s, %v\nwant %s", tt.held, tt.view, got, err, tt.want)
		}
	}
}
