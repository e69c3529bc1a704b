package link

import (
	"testing"
	"time"
)

// TestDelay: full jitter within the promised bounds, over the whole range.
func TestDelay(t *testing.T) {
	for attempts := range 100 {
		lo, hi := time.Hour, time.Duration(0)
		for range 2000 {
			d := delay(attempts)
			lo, hi = min(lo, d), max(hi, d)
		}
		bound := reconnectMax
		if attempts < soonAttempts {
			bound = reconnectMin + min(soonMax, reconnectMin<<attempts)
		}
		if lo < reconnectMin || hi > min(bound, reconnectMax) || lo > reconnectMin+bound/10 || hi < bound/10*9 {
			t.Errorf("attempt %d: %s to %s", attempts, lo, hi)
		}
	}
}
