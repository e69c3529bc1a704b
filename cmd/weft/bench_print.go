package main

import (
	"fmt"
	"strconv"

	"github.com/jedib0t/go-pretty/v6/table"
)

// benchLine is a metric with --json. A gateway that was left out has none, and
// then there is no ratio.
type benchLine struct {
	Measure   string       `json:"measure"`
	Metric    string       `json:"metric"`
	Unit      string       `json:"unit"`
	Weft      *benchSpread `json:"weft,omitempty"`
	Reference *benchSpread `json:"reference,omitempty"`
	Ratio     *benchSpread `json:"ratio,omitempty"`
	Goal      float64      `json:"goal,omitempty"`
	Met       *bool        `json:"met,omitempty"`
}

func printBenchJSON(p *program, results []benchResult) error {
	for _, r := range results {
		line := benchLine{
			Measure: r.measure.name, Metric: r.metric.name, Unit: r.metric.unit,
			Weft: r.sides["weft"], Reference: r.sides["reference"], Ratio: r.ratio, Goal: r.metric.goal,
		}
		if met, ok := r.met(); ok {
			line.Met = &met
		}
		if err := p.printJSON(line); err != nil {
			return err
		}
	}
	return nil
}

func printBenchTable(p *program, results []benchResult) {
	header := table.Row{"load", "what", "weft", "", "reference", "", "ratio", "", "goal"}
	var rows []table.Row
	var last *benchMeasure
	for _, r := range results {
		title := ""
		if r.measure != last {
			title, last = r.measure.title, r.measure
		}
		what := r.metric.unit
		if what == "ms" {
			what = r.metric.name + " " + what
		}
		row := table.Row{title, what}
		for _, s := range []*benchSpread{r.sides["weft"], r.sides["reference"]} {
			row = append(row, spreadCells(s, number)...)
		}
		row = append(row, spreadCells(r.ratio, ratioText)...)
		rows = append(rows, append(row, r.goalText()))
	}
	p.printTable("Nothing was measured.", header, rows)
}

// spreadCells are the cells of a median, and of the least and the most.
func spreadCells(s *benchSpread, text func(float64) string) []any {
	switch {
	case s == nil:
		return []any{"", ""}
	case len(s.Rounds) == 1:
		return []any{text(s.Median), ""}
	}
	return []any{text(s.Median), fmt.Sprintf("(%s to %s)", text(s.Min), text(s.Max))}
}

// number has so many digits as mean something.
func number(v float64) string {
	if v < 100 {
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

func ratioText(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

// goalText is the goal and whether it was met.
func (r *benchResult) goalText() string {
	met, ok := r.met()
	if !ok {
		return ""
	}
	text := "at least "
	if r.metric.goal < 1 {
		text = "at most "
	}
	text += strconv.FormatFloat(r.metric.goal, 'g', -1, 64)
	if met {
		return text + ": met"
	}
	return text + ": missed"
}

// met says whether the goal was met; not ok means that there is none.
func (r *benchResult) met() (met, ok bool) {
	switch {
	case r.metric.goal == 0 || r.ratio == nil:
		return false, false
	case r.metric.goal < 1:
		return r.ratio.Median <= r.metric.goal, true
	}
	return r.ratio.Median >= r.metric.goal, true
}
