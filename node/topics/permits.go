package topics

import (
	"sync"
	"time"
)

const (
	// refusedFor is how long a denied subject is not tried again.
	refusedFor = 30 * time.Second
	// maxPermits bounds what is remembered; above it all is forgotten, which
	// costs a flush per subject and nothing else.
	maxPermits = 8192
)

type verdict uint8

const (
	unknown verdict = iota
	allowed
	refused
)

// permits remembers which subjects NATS let this connection publish to.
type permits struct {
	mu       sync.Mutex
	connects uint64 // of the connection that the rest is about
	denials  uint64 // the link's count when allowed was last emptied
	allowed  map[string]struct{}
	refused  map[string]time.Time // until when
}

// verdict returns what is known of subject on the link's connects-th
// connection, when the link has counted that many denials.
func (p *permits) verdict(subject string, connects, denials uint64) verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.connects != connects || p.refused == nil {
		p.connects, p.denials = connects, denials
		p.allowed, p.refused = map[string]struct{}{}, map[string]time.Time{}
	}
	if p.denials != denials { // perhaps of a subject that was allowed
		p.denials = denials
		clear(p.allowed)
	}
	if until, ok := p.refused[subject]; ok {
		if time.Now().Before(until) {
			return refused
		}
		delete(p.refused, subject)
	}
	if _, ok := p.allowed[subject]; ok {
		return allowed
	}
	return unknown
}

func (p *permits) set(subject string, connects uint64, v verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.connects != connects {
		return
	}
	if len(p.allowed)+len(p.refused) >= maxPermits {
		clear(p.allowed)
		clear(p.refused)
	}
	if v == allowed {
		p.allowed[subject] = struct{}{}
		return
	}
	delete(p.allowed, subject)
	p.refused[subject] = time.Now().Add(refusedFor)
}
