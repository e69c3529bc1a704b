package gateway_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-fabric/weft/gateway"
)

var (
	seed   = flag.Uint64("seed", 0, "of TestConvergence, instead of the fixed ones")
	narrow = flag.Bool("narrow", false, "few operations in TestConvergence, to find the shortest history")
)

// TestConvergence has four clients of two nodes change three contexts at the same time
// in every way that there is, and follow them as libraries do. In the end all have what
// a client gets that comes then.
func TestConvergence(t *testing.T) {
	seeds := []uint64{1, 2}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	a, b := ownTwo(t)
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { converge(t, a, b, seed) })
	}
}

const (
	convergeContexts   = 3
	convergeClients    = 4
	convergeOperations = 1000
)

func converge(t *testing.T, a, b *gateway.Gateway, seed uint64) {
	var ids [convergeContexts]string
	creator := app(t, a, "creator")
	for i := range ids {
		ids[i] = creator.create(unique("ctx"), frame{"start": frame{"list": []int{1, 2}}})
	}
	creator.close()
	var clients []*client
	for i := range convergeClients {
		g := a
		if i%2 == 1 {
			g = b
		}
		clients = append(clients, follower(t, g, rand.New(rand.NewPCG(seed, 100+uint64(i))), ids[:]))
	}
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() { change(c, rand.New(rand.NewPCG(seed, uint64(i))), ids[:]) })
	}
	all.Wait()
	for _, id := range ids {
		agree(t, clients, id)
	}
}

// follower is a client that follows contexts, and reads now and then only, so that much
// comes with one read.
func follower(t *testing.T, g *gateway.Gateway, r *rand.Rand, ids []string) *client {
	t.Helper()
	c := dial(t, g, func(l *line) {
		l.busy = func() { <-time.After(time.Duration(r.IntN(3)) * time.Millisecond) }
	})
	c.hello(identity("follower"))
	for _, id := range ids {
		c.find(0, frame{"type": "context-added", "context_id": id})
		c.mirror(id)
		c.open(id)
	}
	return c
}

// change makes random updates, a few of them at a time without waiting.
func change(c *client, r *rand.Rand, ids []string) {
	operations := convergeOperations / convergeClients
	if *narrow {
		operations = 6
	}
	var sent []string
	for range operations {
		sent = append(sent, c.send(updating(ids[r.IntN(len(ids))], anyDelta(r))))
		if len(sent) > r.IntN(8) {
			c.answer(sent[0])
			sent = sent[1:]
		}
	}
	for _, request := range sent {
		c.answer(request)
	}
}

// within waits until got is what is wanted.
func within(t *testing.T, want string, got func() string) {
	t.Helper()
	now := got()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(patience); now != want; now = got() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("got %s, want %s", now, want)
		}
	}
}

// agree waits until all clients have the same of a context as new ones.
func agree(t *testing.T, clients []*client, id string) {
	t.Helper()
	problem := disagreement(t, clients, id)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(patience); problem != ""; problem = disagreement(t, clients, id) {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal(problem)
		}
	}
}

func disagreement(t *testing.T, clients []*client, id string) string {
	t.Helper()
	want := ""
	for i, c := range clients {
		late := app(t, c.g, "late")
		late.find(0, frame{"type": "context-added", "context_id": id})
		got := jsonOf(late.open(id))
		late.close()
		if want == "" {
			want = got
		} else if got != want {
			return fmt.Sprintf("late joiners of %s differ:\n%s\n%s", id, want, got)
		}
		c.fence()
		c.fence() // in a read of its own
		c.mu.Lock()
		has := c.mirrored(id)
		c.mu.Unlock()
		if has != want {
			return fmt.Sprintf("client %d has another %s than a late joiner:\n%s\n%s\n%s", i, id, has, want, c.history(id))
		}
	}
	return ""
}

// history is what a client has sent and got of a context last.
func (c *client) history(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for i, a := range c.got {
		request := c.sent[a.str("request_id")]
		switch {
		case a.str("context_id") == id:
			lines = append(lines, fmt.Sprintf("%d read %d: %s", i, a.read, a.text))
		case request.str("context_id") == id:
			lines = append(lines, fmt.Sprintf("%d read %d: %s %s of %s", i, a.read, a.str("type"), a.str("reason"), jsonOf(request["delta"])))
		}
	}
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// names are those of keys in random objects. All but the last can be parts of paths.
var names = []string{"a", "b", "start", "list", "", "ü 𝄞", "0", "1", "constructor", "x\"y\\", "a.b"}

func anyName(r *rand.Rand) string { return names[r.IntN(len(names))] }

// anyPath is a path in dots, never the empty one.
func anyPath(r *rand.Rand) string {
	path := make([]string, 1+r.IntN(4))
	for i := range path {
		path[i] = names[r.IntN(len(names)-1)]
	}
	if r.IntN(3) == 0 {
		path = []string{"start", "list", fmt.Sprint(r.IntN(4))}
	}
	if p := strings.Join(path, "."); p != "" {
		return p
	}
	return "a"
}

func anyValue(r *rand.Rand, depth int) any {
	kinds := 9
	if depth == 0 {
		kinds = 6
	}
	switch r.IntN(kinds) {
	case 0:
		return nil
	case 1:
		return r.IntN(2) == 0
	case 2:
		return r.IntN(10)
	case 3:
		return []any{0.5, -1e-7, 1e21, 4294967296, -9007199254740991}[r.IntN(5)]
	case 4:
		return []any{"", "text", "ö\u2028", "#T42_DATE#1700000000000"}[r.IntN(4)]
	case 5:
		return []any{[]any{}, frame{}}[r.IntN(2)]
	case 6:
		list := make([]any, r.IntN(4))
		for i := range list {
			list[i] = anyValue(r, depth-1)
		}
		return list
	}
	return anyObject(r, depth-1)
}

func anyObject(r *rand.Rand, depth int) frame {
	object := frame{}
	for range r.IntN(4) {
		object[anyName(r)] = anyValue(r, depth)
	}
	return object
}

func anyDelta(r *rand.Rand) frame {
	switch n := r.IntN(20); {
	case n == 0:
		return frame{"reset": anyObject(r, 3)}
	case n == 1:
		return frame{"reset": frame{"start": frame{"list": []any{1, anyValue(r, 2), 3}}}}
	case n < 6:
		var removed []string
		for range r.IntN(3) {
			removed = append(removed, anyName(r))
		}
		return frame{"added": anyObject(r, 2), "updated": anyObject(r, 2), "removed": removed}
	}
	var list []frame
	for range 1 + r.IntN(3) {
		if r.IntN(3) == 0 {
			list = append(list, remove(anyPath(r)))
		} else {
			list = append(list, set(anyPath(r), anyValue(r, 2)))
		}
	}
	return commands(list...)
}

// TestRoundsOfRacingUpdates: two clients write some keys each without waiting, and all have all
// of it, each round.
func TestRoundsOfRacingUpdates(t *testing.T) {
	const keys = 8
	everywhere(t, func(t *testing.T, a, b *gateway.Gateway) {
		c, d, reader := app(t, a, "one"), app(t, b, "two"), app(t, b, "reader")
		id := c.create(unique("ctx"), frame{})
		all := []*client{c, d, reader}
		for _, x := range all {
			x.at(frame{"type": "context-added", "context_id": id})
			x.mirror(id)
			x.open(id)
		}
		for round := range 100 {
			want := frame{}
			var requests [2][keys]string
			for key := range keys {
				for i, x := range all[:2] {
					name := fmt.Sprintf("k%d%d", i, key)
					requests[i][key] = x.send(updating(id, commands(set(name, round))))
					want[name] = round
				}
			}
			for i, x := range all[:2] {
				for _, request := range requests[i] {
					if got := x.answer(request); !got.is("success") {
						t.Fatalf("got %v", got)
					}
				}
			}
			for i, x := range all {
				has := ""
				if !x.until(patience, func() bool {
					x.held.settle()
					has = x.mirrored(id)
					return has == jsonOf(want)
				}) {
					t.Fatalf("round %d: client %d has %s\n%s", round, i, has, x.history(id))
				}
			}
		}
	})
}
