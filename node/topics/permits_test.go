package topics

import (
	"fmt"
	"testing"
)

// Package-internal, because nothing outside shows what is remembered.
func TestPermitsAreBounded(t *testing.T) {
	var p permits
	p.verdict("x", 1, 0)
	p.set("x", 2, refused) // about a connection that is gone, or not asked about
	if v := p.verdict("x", 1, 0); v != unknown {
		t.Errorf("verdict %v of another connection", v)
	}
	for i := range 3 * maxPermits {
		v := allowed
		if i%2 == 0 {
			v = refused
		}
		s := fmt.Sprint(i)
		p.set(s, 1, v)
		if got := p.verdict(s, 1, 0); got != v {
			t.Fatalf("%d: verdict %v, want %v", i, got, v)
		}
		if n := len(p.allowed) + len(p.refused); n > maxPermits {
			t.Fatalf("remembers %d", n)
		}
	}
	p.set("y", 1, refused)
	p.set("z", 1, allowed)
	if y, z := p.verdict("y", 1, 1), p.verdict("z", 1, 1); y != refused || z != unknown {
		t.Errorf("after a denial: %v and %v", y, z)
	}
	if y := p.verdict("y", 2, 1); y != unknown {
		t.Errorf("after a reconnect: %v", y)
	}
}
