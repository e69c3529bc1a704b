//go:build unix

package faults_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-fabric/weft/test/faults/proxy"
)

// TestBroken breaks nodes on purpose, one thing at a time, and wants the fault run to
// find it; see kv/broken.go.
func TestBroken(t *testing.T) {
	s := startServers(t)
	alone := proxy.Fault{Kind: proxy.Refuse}
	deaf := proxy.Fault{Kind: proxy.Blackhole}
	tests := []struct {
		broken    string
		fault     proxy.Fault // of the links of one node
		compactAt int
		contexts  int
		rate      int
		want      []string // one of which must be found
	}{
		{"", alone, 24, 8, 80, nil},
		{"fold", deaf, 8, 8, 120, []string{"is no prefix of the order", "is that of", "no agreement"}},
		{"merge", alone, 200, 8, 80, []string{"and then put on top of"}},
		{"resync", deaf, 200, 60, 80, []string{"is no prefix of the order", "no agreement"}},
		{"ack", alone, 24, 8, 80, []string{"was acknowledged with a revision that is not the end of a commit"}},
	}
	for _, tt := range tests {
		t.Run("broken "+tt.broken, func(t *testing.T) {
			var r *run
			for seed := range uint64(attempts) {
				r = plan{
					seed: 900 + seed, desks: 2, contexts: tt.contexts, rate: tt.rate, length: 4 * time.Second,
					faultEvery: 500 * time.Millisecond, faultLeast: 1500 * time.Millisecond, faultMost: 1500 * time.Millisecond,
					compactAt: tt.compactAt, healWithin: 5 * time.Second, broken: tt.broken,
					fault: func(r *run) fault { // then it is quiet but for the leader
						if len(r.faults) == 0 {
							return disturbLinks(r.desks[0], tt.fault)
						}
						return r.stepDown()
					},
				}.make(t, s)
				for _, text := range r.problems.list {
					t.Logf("found: %.150s", text)
				}
				if len(tt.want) == 0 || r.found(tt.want) {
					break
				}
			}
			switch {
			case len(tt.want) == 0 && r.problems.n > 0:
				t.Errorf("nothing is broken, and this was found: %q", r.problems.list)
			case len(tt.want) > 0 && !r.found(tt.want):
				t.Errorf("the nodes are broken in %s, and none of %q was found in %d runs", tt.broken, tt.want, attempts)
			}
		})
	}
}

// attempts is how many runs there may be until one finds what is broken: a write has
// to slip in at the right moment.
const attempts = 5

// found says whether the run has a problem with one of the texts.
func (r *run) found(texts []string) bool {
	return slices.ContainsFunc(r.problems.list, func(p string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(p, text) })
	})
}
