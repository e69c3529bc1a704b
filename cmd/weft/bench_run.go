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

// benchRound is the outcomes of a round, by measure and side.
type benchRound [][]benchOutcome

// run does all rounds.
func (b *gatewayBench) run(ctx context.Context) ([]benchResult, error) {
	b.progress("Warming up.")
	if _, err := b.round(ctx, 0, b.seconds/warmUp); err != nil {
		return nil, err
	}
	var rounds []benchRound
	for r := range b.rounds {
		b.progress("Round %d of %d.", r+1, b.rounds)
		round, err := b.round(ctx, r, b.seconds)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, round)
	}
	return b.results(rounds), nil
}

// round is each measure on each side. Who is first changes from one to the next.
func (b *gatewayBench) round(ctx context.Context, r int, seconds time.Duration) (benchRound, error) {
	round := make(benchRound, len(benchMeasures))
	for m := range benchMeasures {
		measure := &benchMeasures[m]
		round[m] = make([]benchOutcome, len(b.sides))
		for turn := range b.sides {
			s := (r + m + turn) % len(b.sides)
			outcome, err := runLoad(ctx, b.sides[s].url, seconds/measure.share, b.patience, measure.do)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", b.sides[s].name, measure.title, err)
			}
			round[m][s] = outcome
			pause(ctx, seconds/settle)
		}
	}
	return round, nil
}

// results are the metrics of all rounds.
func (b *gatewayBench) results(rounds []benchRound) (results []benchResult) {
	for m := range benchMeasures {
		for k := range benchMeasures[m].metrics {
			results = append(results, b.result(m, &benchMeasures[m].metrics[k], rounds))
		}
	}
	return results
}

// result is one metric of one measure.
func (b *gatewayBench) result(m int, metric *benchMetric, rounds []benchRound) benchResult {
	result := benchResult{measure: &benchMeasures[m], metric: metric, sides: map[string]*benchSpread{}}
	values := make([][]float64, len(b.sides))
	for s, side := range b.sides {
		for _, round := range rounds {
			values[s] = append(values[s], metric.of(&round[m][s]))
		}
		result.sides[side.name] = newBenchSpread(values[s])
	}
	if len(values) == 2 {
		result.ratio = newBenchSpread(ratios(values[0], values[1]))
	}
	return result
}
