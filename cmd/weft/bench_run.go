package main

import (
	"context"
	"fmt"
	"time"
)

// benchMeasure is one thing that is measured.
type benchMeasure struct {
	name    string // with --json
	title   string
	share   time.Duration // of the time of a load, which is divided by it
	do      func(*benchLoad) (benchOutcome, error)
	metrics []benchMetric
}

// benchMetric is a number of an outcome. A goal above 1 is the least that the
// ratio should be, one below 1 the most, and 0 is none.
type benchMetric struct {
	name, unit string
	of         func(*benchOutcome) float64
	goal       float64
}

// The load: how much is in flight or on its way, and to how many.
const (
	benchWindow    = 64
	benchReceivers = 20
)

var benchMeasures = []benchMeasure{
	{"invoke-sequential", "invoke, one at a time", 1, invokes(1), []benchMetric{benchP50, benchP99, benchRate("calls/s", 0)}},
	{"invoke-concurrent", "invoke, 64 in flight", 1, invokes(benchWindow), []benchMetric{benchRate("calls/s", 4), benchP50, benchP99}},
	{"stream", "stream 1 to 20", 2, streams(benchReceivers, benchWindow), []benchMetric{benchRate("messages/s", 4)}},
	{"stream-sequential", "stream 1 to 20, one at a time", 2, streams(benchReceivers, 1), []benchMetric{benchP50, benchP99}},
	{"context-1", "context, 1 observer", 2, updates(1), []benchMetric{benchP50, benchP99}},
	{"context-20", "context, all of 20 observers", 2, updates(benchReceivers), []benchMetric{benchP50, benchP99}},
}

var benchP50, benchP99 = benchLatency("p50", 50, 0.5), benchLatency("p99", 99, 0)

func benchLatency(name string, p, goal float64) benchMetric {
	return benchMetric{name, "ms", func(o *benchOutcome) float64 { return float64(o.percentile(p)) / 1e6 }, goal}
}

func benchRate(unit string, goal float64) benchMetric {
	return benchMetric{"rate", unit, (*benchOutcome).perSecond, goal}
}

// gatewayBench measures gateways in turns.
type gatewayBench struct {
	sides    []benchSide // one or two
	rounds   int
	seconds  time.Duration // of each load
	patience time.Duration
	progress func(format string, args ...any)
}

// benchSide is one of the gateways.
type benchSide struct{ name, url string }

// benchResult is what the rounds gave of one metric. Without the second side
// there is no ratio.
type benchResult struct {
	measure *benchMeasure
	metric  *benchMetric
	sides   map[string]*benchSpread
	ratio   *benchSpread
}

// Parts of the time of a load.
const (
	warmUp = 8  // warms up, before the first round
	settle = 40 // is left for what a gateway does when clients have gone
)

// run does all rounds.
func (b *gatewayBench) run(ctx context.Context) ([]benchResult, error) {
	b.progress("Warming up.")
	if _, err := b.round(ctx, 0, b.seconds/warmUp); err != nil {
		return nil, err
	}
	var rounds [][]benchOutcome
	for r := range b.rounds {
		b.progress("Round %d of %d.", r+1, b.rounds)
		outcomes, err := b.round(ctx, r, b.seconds)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, outcomes)
	}
	return b.results(rounds), nil
}

// round is each measure on each side. Who is first changes from one to the next.
// The outcome of a measure on a side is at its place; see outcomeAt.
func (b *gatewayBench) round(ctx context.Context, r int, seconds time.Duration) ([]benchOutcome, error) {
	outcomes := make([]benchOutcome, len(benchMeasures)*len(b.sides))
	for m := range benchMeasures {
		measure := &benchMeasures[m]
		for turn := range b.sides {
			s := (r + m + turn) % len(b.sides)
			outcome, err := runLoad(ctx, b.sides[s].url, seconds/measure.share, b.patience, measure.do)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", b.sides[s].name, measure.title, err)
			}
			outcomes[m*len(b.sides)+s] = outcome
			pause(ctx, seconds/settle)
		}
	}
	return outcomes, nil
}

// results are the metrics of all rounds.
func (b *gatewayBench) results(rounds [][]benchOutcome) (results []benchResult) {
	for m := range benchMeasures {
		for k := range benchMeasures[m].metrics {
			metric := &benchMeasures[m].metrics[k]
			result := benchResult{measure: &benchMeasures[m], metric: metric, sides: map[string]*benchSpread{}}
			var values [][]float64 // of each side
			for s, side := range b.sides {
				var ofSide []float64
				for _, outcomes := range rounds {
					ofSide = append(ofSide, metric.of(&outcomes[m*len(b.sides)+s]))
				}
				values = append(values, ofSide)
				result.sides[side.name] = newBenchSpread(ofSide)
			}
			if len(values) == 2 {
				result.ratio = newBenchSpread(ratios(values[0], values[1]))
			}
			results = append(results, result)
		}
	}
	return results
}
