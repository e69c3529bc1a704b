package link

// Waiting is how many requests the link still keeps: those of [Link.Ask] that
// have no reply, and the subjects of all that are in flight.
func (l *Link) Waiting() (asks, subjects int) {
	l.asks.mu.Lock()
	defer l.asks.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asks.waiting), len(l.inflight)
}
