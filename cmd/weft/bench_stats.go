package main

import (
	"math"
	"slices"
	"time"
)

// percentile is the least latency that so many hundredths of all do not exceed.
func (o *benchOutcome) percentile(p float64) time.Duration {
	slices.Sort(o.latencies)
	rank := int(math.Ceil(p / 100 * float64(len(o.latencies))))
	return o.latencies[max(rank, 1)-1]
}

// perSecond is how much was delivered in a second.
func (o *benchOutcome) perSecond() float64 { return float64(o.delivered) / o.took.Seconds() }

// benchSpread is what the rounds gave.
type benchSpread struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Rounds []float64 `json:"rounds"`
}

func newBenchSpread(rounds []float64) *benchSpread {
	sorted := slices.Sorted(slices.Values(rounds))
	n := len(sorted)
	return &benchSpread{
		Median: (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Min:    sorted[0], Max: sorted[n-1], Rounds: rounds,
	}
}

// ratios divides round by round.
func ratios(a, b []float64) []float64 {
	quotients := make([]float64, len(a))
	for i := range a {
		quotients[i] = a[i] / b[i]
	}
	return quotients
}
