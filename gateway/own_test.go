package gateway_test

import (
	"encoding/json"
	"testing"

	"github.com/weft-fabric/weft/gateway"
)

// TestOwnUpdates: where a client's library does something else with an update of the
// client than what holds from then on, it is put right.
func TestOwnUpdates(t *testing.T) {
	const start = `{"a":1,"list":[1,2,3],"o":{"x":{"y":1}},"":{"e":1},"text":"text"}`
	for name, delta := range map[string]string{
		"nothing odd":                    `{"commands":[{"type":"set","path":"o.x.z","value":2}]}`,
		"a forbidden name on the way":    `{"commands":[{"type":"set","path":"a","value":2},{"type":"set","path":"constructor.x","value":1},{"type":"set","path":"b","value":3}]}`,
		"a forbidden name deeper":        `{"commands":[{"type":"set","path":"o.prototype.x","value":1}]}`,
		"a forbidden name at the end":    `{"commands":[{"type":"set","path":"o.constructor","value":1}]}`,
		"the whole by an empty path":     `{"commands":[{"type":"set","path":"","value":{"all":1}}]}`,
		"removal of the whole":           `{"commands":[{"type":"remove","path":""}]}`,
		"removal of an element":          `{"commands":[{"type":"remove","path":"list.1"}]}`,
		"removal of the last element":    `{"commands":[{"type":"remove","path":"list.2"}]}`,
		"removal behind the end":         `{"commands":[{"type":"remove","path":"list.7"}]}`,
		"appending":                      `{"commands":[{"type":"set","path":"list.3","value":4}]}`,
		"an element":                     `{"commands":[{"type":"set","path":"list.0","value":{"x":1}}]}`,
		"through an element":             `{"commands":[{"type":"set","path":"list.0.x","value":1}]}`,
		"a name in an array":             `{"commands":[{"type":"set","path":"list.name","value":1}]}`,
		"below a name in an array":       `{"commands":[{"type":"set","path":"list.name.x","value":1}]}`,
		"not quite a number in an array": `{"commands":[{"type":"set","path":"list.01","value":1}]}`,
		"through a missing parent":       `{"commands":[{"type":"remove","path":"no.such.path"}]}`,
		"through a number":               `{"commands":[{"type":"set","path":"a.b.c","value":1}]}`,
		"an empty name in the middle":    `{"commands":[{"type":"set","path":"o..x","value":1},{"type":"remove","path":".e"}]}`,
		"a key with a dot":               `{"added":{"a.b":1},"removed":["o.x"]}`,
		"several of an array":            `{"commands":[{"type":"remove","path":"list.0"},{"type":"remove","path":"list.0"},{"type":"set","path":"list.0","value":9}]}`,
		"an array made on the way":       `{"commands":[{"type":"set","path":"new","value":[1,2,3]},{"type":"remove","path":"new.0"}]}`,
		"an array below what was made":   `{"commands":[{"type":"set","path":"o","value":{"list":[1,2]}},{"type":"remove","path":"o.list.0"}]}`,
		"removal inside a text":          `{"commands":[{"type":"remove","path":"text.0"},{"type":"set","path":"b","value":1}]}`,
		"an update that merges":          `{"updated":{"o":{"x":{"w":1}},"list":{"0":1},"a":null}}`,
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
				c, d := app(t, a, "writer"), app(t, b, "reader")
				name := unique("ctx")
				id := c.create(name, json.RawMessage(start))
				d.announced(name)
				for _, x := range []*client{c, d} {
					x.mirror(id)
					x.open(id)
				}
				if got := c.ask(updating(id, json.RawMessage(delta))); !got.is("success") {
					t.Fatalf("got %v", got)
				}
				agree(t, []*client{c, d}, id)
				c.update(id, commands(set("end", 1)))
				d.update(id, commands(set("o.end", 1)))
				agree(t, []*client{c, d}, id)
			})
		})
	}
}

// TestOwnUpdatesAfterOthers is the race that leaves a client with an old value for good
// where the gateway is the reference: the answer to its own update comes in one read with
// the later update of another.
func TestOwnUpdatesAfterOthers(t *testing.T) {
	const rounds = 60
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d := app(t, a, "one"), app(t, b, "two")
		name := unique("ctx")
		id := c.create(name, frame{"v": 0})
		d.announced(name)
		both := []*client{c, d}
		for _, x := range both {
			x.mirror(id)
			x.open(id)
		}
		for round := range rounds {
			var requests []string
			for i, x := range both {
				x.line.pause() // it is busy: what comes meanwhile comes in one read
				requests = append(requests, x.send(updating(id, commands(set("v", round*2+i)))))
			}
			for i, x := range both {
				x.line.resume()
				x.answer(requests[i])
			}
			agree(t, both, id)
		}
	})
}

// TestOwnUpdatesAreNotSeenAgain: while an update of a client waits for its answer others
// write at the same place. What is newer comes after the answer, or the client, which
// applies its update then, would go back to it. Each value is written once, so nobody
// may see one again after another.
func TestOwnUpdatesAreNotSeenAgain(t *testing.T) {
	const rounds, inFlight = 150, 3
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d := app(t, a, "one"), app(t, b, "two")
		name := unique("ctx")
		id := c.create(name, frame{"v": -1, "w": -1})
		d.announced(name)
		both := []*client{c, d}
		for i, x := range both {
			x.mirror(id)
			x.mu.Lock()
			x.held.changed = neverAgain(t, i)
			x.mu.Unlock()
			x.open(id)
		}
		var sent [2][]string
		for round := range rounds {
			for i, x := range both {
				for len(sent[i]) >= inFlight {
					x.answer(sent[i][0])
					sent[i] = sent[i][1:]
				}
				at := []string{"v", "w"}[round/5%2]
				sent[i] = append(sent[i], x.send(updating(id, commands(set(at, round*2+i)))))
			}
		}
		for i, x := range both {
			for _, request := range sent[i] {
				x.answer(request)
			}
		}
		agree(t, both, id)
	})
}

// neverAgain fails the test if a client sees a value again.
func neverAgain(t *testing.T, client int) func(string, map[string]any) {
	now, seen := map[string]any{}, map[any]bool{}
	return func(_ string, object map[string]any) {
		for _, at := range []string{"v", "w"} {
			v := object[at]
			switch {
			case v == now[at]:
			case seen[v] && v != float64(-1):
				t.Errorf("client %d has %v at %s again, after %v", client, v, at, now[at])
			}
			now[at], seen[v] = v, true
		}
	}
}
