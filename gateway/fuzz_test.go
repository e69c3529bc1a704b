package gateway_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/weft-fabric/weft/gateway"
)

// FuzzParse: whatever a client sends, it is a message, or an error is told; what is
// taken for a message is one to others as well.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		``, `{}`, `null`, `[]`, `"x"`, `{"domain":"agm","type":"call","request_id":"r","peer_id":"p"}`, `{"type":7,"domain":null,"peer_id":[],"request_id":{}}`,
		` {"type" : "ping" } `, `{"type":"a","type":"b"}`, `{"type":"a","Type":"b"}`, `{"a":1}x`, `{"type":"\ud800"}`, "{\"type\":\"\xff\"}", `{"type":"é\u0000"}`,
		`{"":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		domain, kind, err := gateway.Parse(data)
		if err != nil {
			return
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(data, &object); err != nil {
			t.Fatalf("taken for a message: %v", err)
		}
		for name, got := range map[string]string{"domain": domain, "type": kind} {
			var want string
			if json.Unmarshal(object[name], &want) != nil && name == "domain" || name == "domain" && want == "" {
				want = "global"
			}
			if utf8.Valid(data) && got != want {
				t.Fatalf("%s is %q, not %q", name, got, want)
			}
		}
	})
}

// FuzzDelta: whatever a client says about a context, an object comes of it or an error,
// and a library can follow it.
func FuzzDelta(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"reset":{"a":1}}`, `{"commands":[{"type":"set","path":"list.0","value":[]},{"type":"remove","path":""}]}`, `{"added":{"a.b":1},"updated":{"o":{}},"removed":["a"]}`,
		`{"commands":[{"type":"set","path":"a..b.","value":null}]}`, `{"commands":[{"type":"set","path":"","value":{}}]}`, `{"reset":{"a":1,"a":2}}`, `{"reset":{"n":1e999}}`,
	} {
		f.Add(`{"a":1,"list":[1,{"k":2}],"o":{"x":{"y":1}}}`, text)
	}
	f.Fuzz(func(t *testing.T, object, delta string) {
		view, edits, err := gateway.Updated(object, delta)
		if err != nil {
			return
		}
		if !json.Valid([]byte(view)) || view[0] != '{' {
			t.Fatalf("not an object: %s", view)
		}
		held, _, err := gateway.Updated(object, `{}`)
		if err != nil {
			t.Fatal(err)
		}
		push, err := gateway.Push(held, view, edits)
		if err != nil || strings.Contains(view, "__proto__") { // which no library keeps
			return
		}
		if got := applied(held, push); got != jsonOf(json.RawMessage(view)) {
			t.Fatalf("held %s\nview %s\npush %s\n got %s", held, view, push, got)
		}
	})
}
