package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/weft-fabric/weft/wire"
)

// patient is the patience of tests, which is not to end on a slow machine.
const patient = 30 * time.Second

func TestBenchPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i)
	}
	for _, tt := range []struct {
		latencies []time.Duration
		p         float64
		want      time.Duration
	}{
		{[]time.Duration{7}, 50, 7},
		{[]time.Duration{7}, 99, 7},
		{[]time.Duration{3, 1, 2}, 50, 2},
		{[]time.Duration{4, 3, 2, 1}, 50, 2},
		{[]time.Duration{4, 3, 2, 1}, 99, 4},
		{[]time.Duration{4, 3, 2, 1}, 0, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
	} {
		o := benchOutcome{latencies: slices.Clone(tt.latencies)}
		if got := o.percentile(tt.p); got != tt.want {
			t.Errorf("percentile %g of %v: %d, want %d", tt.p, tt.latencies, got, tt.want)
		}
	}
}

func TestBenchRate(t *testing.T) {
	o := benchOutcome{delivered: 300, took: 1500 * time.Millisecond}
	if got := o.perSecond(); got != 200 {
		t.Errorf("%g per second, want 200", got)
	}
}

func TestBenchSpread(t *testing.T) {
	for _, tt := range []struct {
		rounds           []float64
		median, min, max float64
	}{
		{[]float64{5}, 5, 5, 5},
		{[]float64{3, 1, 2}, 2, 1, 3},
		{[]float64{4, 1, 3, 2}, 2.5, 1, 4},
		{[]float64{9, 9, 1}, 9, 1, 9},
	} {
		s := newBenchSpread(tt.rounds)
		if s.Median != tt.median || s.Min != tt.min || s.Max != tt.max {
			t.Errorf("%v: median %g, min %g, max %g", tt.rounds, s.Median, s.Min, s.Max)
		}
		if !slices.Equal(s.Rounds, tt.rounds) {
			t.Errorf("%v became %v", tt.rounds, s.Rounds)
		}
	}
	if got := ratios([]float64{1, 8}, []float64{2, 2}); !slices.Equal(got, []float64{0.5, 4}) {
		t.Errorf("ratios %v, want 0.5 and 4", got)
	}
}

// TestBenchGoals: a ratio is Weft's number by the reference's, of each round.
func TestBenchGoals(t *testing.T) {
	b := &gatewayBench{sides: []benchSide{{name: "weft"}, {name: "reference"}}}
	outcome := func(latency time.Duration, delivered int) benchOutcome {
		return benchOutcome{latencies: []time.Duration{latency}, delivered: delivered, took: time.Second}
	}
	var rounds []benchRound
	for r := range 3 {
		var round benchRound
		for range benchMeasures {
			round = append(round, []benchOutcome{outcome(time.Duration(r+1)*time.Millisecond, 4000*(r+1)), outcome(2*time.Duration(r+1)*time.Millisecond, 1000*(r+1))})
		}
		rounds = append(rounds, round)
	}
	for _, r := range b.results(rounds) {
		want, goal := 0.5, r.metric.unit == "ms" && r.metric.name == "p50"
		if r.metric.unit != "ms" {
			want, goal = 4, r.measure.name != "invoke-sequential"
		}
		if r.ratio.Min != want || r.ratio.Max != want {
			t.Errorf("%s %s: ratio %v, want %g", r.measure.name, r.metric.name, *r.ratio, want)
		}
		if met, ok := r.met(); ok != goal || met != goal {
			t.Errorf("%s %s: goal %t, met %t", r.measure.name, r.metric.name, ok, met)
		}
		r.ratio.Median = 0.6
		if want > 1 {
			r.ratio.Median = 3.9
		}
		if met, _ := r.met(); met {
			t.Errorf("%s %s: goal met with a ratio of %g", r.measure.name, r.metric.name, r.ratio.Median)
		}
	}
}

func TestBenchFrame(t *testing.T) {
	var f benchFrame
	message := " {\"identity\" : {\"type\":\"no\",\"a\\\"}\":[{\"result\":1}]},\n \"peer_id\":\"p-\\\"1\\\\\",\"type\":\"result\"," +
		`"request_id":null,"invocation_id":17, "subscription_id":"s","context_id":"c","server_id":"x","name":"n","reason":"r",` +
		`"arguments_kv":{"i":"#1"},"result":[1,{"b":"]"}],"data":true,"delta":{} } `
	if err := f.scan([]byte(message)); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][2]string{
		"kind":            {string(f.kind), `result`},
		"request_id":      {string(f.requestID), `null`},
		"peer_id":         {string(f.peerID), `"p-\"1\\"`},
		"server_id":       {string(f.serverID), `"x"`},
		"invocation_id":   {string(f.invocationID), `17`},
		"subscription_id": {string(f.subscriptionID), `"s"`},
		"context_id":      {string(f.contextID), `"c"`},
		"name":            {string(f.name), `"n"`},
		"arguments_kv":    {string(f.argumentsKV), `{"i":"#1"}`},
		"result":          {string(f.result), `[1,{"b":"]"}]`},
		"data":            {string(f.data), `true`},
		"delta":           {string(f.delta), `{}`},
		"reason":          {string(f.reason), `"r"`},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is %s, want %s", name, got[0], got[1])
		}
	}
	if err := f.scan([]byte(`{}`)); err != nil || f.kind != nil || f.peerID != nil {
		t.Errorf("after {}: %v, %+v", err, f)
	}
}

func TestBenchFrameRefuses(t *testing.T) {
	for _, message := range []string{
		``, ` `, `1`, `"type"`, `[{"type":"x"}]`, `{`, `{"`, `{"type`, `{"type"`, `{"type":`, `{"type":"x`, `{"type":"x\`, `{"type":"x"`,
		`{"type":"x",`, `{"type":"x",}`, `{"type" "x"}`, `{type:"x"}`, `{"data":{"a":1}`, `{"data":[`, `{"a":1 2}`, `unexpected token`,
	} {
		var f benchFrame
		if err := f.scan([]byte(message)); !errors.Is(err, errNotObject) {
			t.Errorf("%s: %v, kind %q", message, err, f.kind)
		}
	}
}

// FuzzBenchFrame: of what is JSON the scan finds what encoding/json finds.
func FuzzBenchFrame(f *testing.F) {
	f.Add([]byte(`{"type":"event","data":{"i":"#17","p":"\\"},"request_id":null}`))
	f.Add([]byte(`{"type":"x\"`))
	f.Add([]byte(`{"type" :1 ,"data":[[],{}],"delta":-1.5e3}`))
	f.Fuzz(func(t *testing.T, message []byte) {
		var frame benchFrame
		err := frame.scan(message)
		_ = marked(message)
		var values map[string]json.RawMessage
		if json.Unmarshal(message, &values) != nil || values == nil || bytes.Contains(message, []byte(`\`)) {
			return // no object, or names that are spelled in two ways
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string][]byte{"data": frame.data, "delta": frame.delta, "request_id": frame.requestID} {
			if want := values[name]; !bytes.Equal(got, want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

func TestBenchMark(t *testing.T) {
	for _, n := range []int{0, 7, 10, 123456789} {
		if got := marked([]byte(`{"i":` + string(appendMark(nil, n)) + `}`)); got != n {
			t.Errorf("mark of %d: %d", n, got)
		}
	}
	for _, text := range []string{``, `17`, `"17"`, `"#"`, `"#17`, `"#1x"`, `"#-1"`, `"#T42_DATE#5"`, `"#1234567890"`, `#17"`} {
		if got := marked([]byte(text)); got != -1 {
			t.Errorf("%s: %d, want no mark", text, got)
		}
	}
}

func TestBenchTally(t *testing.T) {
	tally := newBenchTally(2, 2)
	got := func() int { return len(tally.all) }
	tally.received(0)
	tally.received(1)
	if got() != 0 {
		t.Fatal("one of two receivers counts as all")
	}
	tally.received(0)
	if got() != 1 {
		t.Fatal("message 0 was received by all")
	}
	<-tally.all
	tally.received(2) // in the place of message 0
	tally.received(1)
	tally.received(2)
	if got() != 2 {
		t.Fatalf("%d messages, want 1 and 2", got())
	}
}

// only runs one measure against a fake gateway.
func only(t *testing.T, g *fakeGateway, name string, last, patience time.Duration) (benchOutcome, error) {
	t.Helper()
	i := slices.IndexFunc(benchMeasures, func(m benchMeasure) bool { return m.name == name })
	return runLoad(t.Context(), g.url, last, patience, benchMeasures[i].do)
}

// TestBenchLoads: each load sends what it says, has as much on its way as it says
// and no more, and counts what came of it.
func TestBenchLoads(t *testing.T) {
	for name, want := range map[string]struct {
		held      holding
		kind      string // of the requests that make the load
		receivers int
	}{
		"invoke-sequential": {holding{kind: "invoke", to: "bench-server", until: 1}, "call", 1},
		"invoke-concurrent": {holding{kind: "invoke", to: "bench-server", until: 64}, "call", 1},
		"stream":            {holding{kind: "event", to: "bench-receiver-20", until: 64}, "publish", 20},
		"stream-sequential": {holding{kind: "event", to: "bench-receiver-20", until: 1}, "publish", 20},
		"context-1":         {holding{kind: "context-updated", to: "bench-receiver-1", until: 1}, "update-context", 1},
		"context-20":        {holding{kind: "context-updated", to: "bench-receiver-20", until: 1}, "update-context", 20},
	} {
		t.Run(name, func(t *testing.T) {
			g := newFakeGateway(t)
			g.hold = want.held
			outcome, err := only(t, g, name, 60*time.Millisecond, patient)
			if err != nil {
				t.Fatal(err)
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.hold.most != want.held.until {
				t.Errorf("%d on their way, want %d", g.hold.most, want.held.until)
			}
			sent := g.seen[want.kind]
			if outcome.delivered != sent*want.receivers || len(outcome.latencies) != sent || sent < want.held.until {
				t.Errorf("%d delivered, %d latencies; %s came %d times", outcome.delivered, len(outcome.latencies), want.kind, sent)
			}
			long := 0
			for _, l := range outcome.latencies {
				if l >= 20*time.Millisecond {
					long++
				}
				if l <= 0 || l > outcome.took {
					t.Errorf("a latency of %s in %s", l, outcome.took)
				}
			}
			if long < want.held.until {
				t.Errorf("%d latencies of 20ms or more; %d were held so long", long, want.held.until)
			}
			if len(g.contexts) > 0 {
				t.Errorf("%d contexts were left", len(g.contexts))
			}
		})
	}
}

// TestBenchLoadNotices: a gateway that does something wrong is not measured.
func TestBenchLoadNotices(t *testing.T) {
	once := func(kind string, n int, spoil func(object) bool) func(string, object) bool {
		return func(_ string, m object) bool {
			if m["type"] != kind {
				return true
			}
			n--
			return n != 0 || spoil(m)
		}
	}
	drop := func(object) bool { return false }
	fail := func(m object) bool {
		m["type"], m["reason"] = "error", "out of order"
		return true
	}
	change := func(key string, value any) func(object) bool {
		return func(m object) bool { m[key] = value; return true }
	}
	twice := once("result", 5, func(m object) bool {
		m["request_id"], m["result"] = "#0", object{"i": "#0"}
		return true
	})
	const owing = "still owes"
	for name, tt := range map[string]struct {
		measure string
		spoil   func(string, object) bool
		want    string
	}{
		"no welcome":          {"invoke-sequential", once("welcome", 1, drop), owing},
		"an error for hello":  {"invoke-sequential", once("welcome", 1, fail), "bench-server got error: out of order"},
		"an error for join":   {"stream", once("success", 3, fail), "bench-receiver-2 got error: out of order"},
		"a lost result":       {"invoke-concurrent", once("result", 5, drop), owing},
		"a failed call":       {"invoke-concurrent", once("result", 5, fail), "bench-caller got error: out of order"},
		"another's result":    {"invoke-concurrent", once("result", 5, change("result", object{"i": "#0"})), "no call waits for"},
		"a result too many":   {"invoke-sequential", once("result", 5, change("request_id", "#99999999")), "no call waits for"},
		"a result twice":      {"invoke-concurrent", twice, "no call waits for"},
		"an error at serving": {"invoke-sequential", once("invoke", 5, fail), "bench-server got error: out of order"},
		"a lost event":        {"stream", once("event", 30, drop), "got event with"},
		"the last event":      {"stream-sequential", once("event", 20, drop), owing},
		"an event twice":      {"stream-sequential", once("event", 25, change("data", object{"i": "#0"})), "want number 1"},
		"an error not asked":  {"stream", once("event", 5, fail), "got error: out of order"},
		"a cancelled stream":  {"stream", once("event", 5, change("type", "subscription-cancelled")), "got subscription-cancelled"},
		"a lost update":       {"context-20", once("context-updated", 5, drop), owing},
		"another update":      {"context-1", once("context-updated", 2, change("delta", object{})), "want number 1"},
		"a refused update":    {"context-1", once("success", 4, fail), "bench-updater got error: out of order"},
		"another's success":   {"context-1", once("success", 4, change("request_id", "#7")), "not for update 1"},
		"no context":          {"context-1", once("context-created", 1, fail), "bench-updater got error"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newFakeGateway(t)
			g.spoil = tt.spoil
			last, patience := patient, patient
			if tt.want == owing { // for some of which there is no sign but the silence
				last, patience = 20*time.Millisecond, 200*time.Millisecond
			}
			_, err := only(t, g, tt.measure, last, patience)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestBenchLoadIsRefused(t *testing.T) {
	for kind, measure := range map[string]string{
		"hello": "stream", "join": "stream", "subscribe": "stream", "publish": "stream-sequential", "accepted": "stream",
		"call": "invoke-concurrent", "yield": "invoke-concurrent",
		"subscribe-context": "context-20", "update-context": "context-20",
	} {
		g := newFakeGateway(t)
		g.refuse = kind
		if _, err := only(t, g, measure, patient, patient); err == nil || !strings.HasSuffix(err.Error(), " got error: no") {
			t.Errorf("%s is refused: %v", kind, err)
		}
	}
}

func TestBenchLoadNoGateway(t *testing.T) {
	g := newFakeGateway(t)
	g.url = strings.Replace(g.url, "ws://127.0.0.1", "ws://127.0.0.1:1/", 1)
	if _, err := only(t, g, "stream", patient, patient); err == nil || !strings.Contains(err.Error(), "cannot connect") {
		t.Errorf("%v", err)
	}
}

// bench runs the command and returns what it prints.
func bench(ctx context.Context, c *benchGatewayCommand, asJSON bool) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	p := &program{stdout: &out, stderr: &errs, json: asJSON, env: environment(os.Environ())}
	err = c.Run(ctx, p)
	return out.String(), errs.String(), err
}

func TestBenchGateway(t *testing.T) {
	weft, reference := newFakeGateway(t), newFakeGateway(t)
	c := &benchGatewayCommand{Weft: weft.url, Reference: reference.url, Rounds: 2, Seconds: 0.02}
	out, progress, err := bench(t.Context(), c, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2 rounds of 4 x 0.02s", "invoke, one at a time", "calls/s", "messages/s", "p99 ms", " to ", "at least 4: ", "at most 0.5: ", "reference",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if want := "Warming up.\nRound 1 of 2.\nRound 2 of 2.\n"; progress != want {
		t.Errorf("progress %q, want %q", progress, want)
	}
	weft.mu.Lock()
	defer weft.mu.Unlock()
	reference.mu.Lock()
	defer reference.mu.Unlock()
	const connections = 3 * (2*2 + 2*21 + 2 + 21)
	if w, r := weft.seen["hello"], reference.seen["hello"]; w != connections || r != connections {
		t.Errorf("%d and %d connections, want %d", w, r, connections)
	}
}

// benchLines are the lines of the command with --json.
func benchLines(t *testing.T, out string) (lines []benchLine) {
	t.Helper()
	for text := range strings.Lines(out) {
		var line benchLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestBenchGatewayJSON(t *testing.T) {
	weft, reference := newFakeGateway(t), newFakeGateway(t)
	c := &benchGatewayCommand{Weft: weft.url, Reference: reference.url, Rounds: 2, Seconds: 0.01}
	out, _, err := bench(t.Context(), c, true)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, line := range benchLines(t, out) {
		got[line.Measure+" "+line.Unit]++
		for _, s := range []*benchSpread{line.Weft, line.Reference, line.Ratio} {
			if s == nil || len(s.Rounds) != 2 || s.Min > s.Median || s.Median > s.Max || s.Min <= 0 || math.IsInf(s.Max, 0) {
				t.Errorf("%s %s: %+v", line.Measure, line.Metric, s)
			}
		}
		if (line.Goal != 0) != (line.Met != nil) {
			t.Errorf("%s %s: goal %g, met %v", line.Measure, line.Metric, line.Goal, line.Met)
		}
	}
	want := map[string]int{
		"invoke-sequential ms": 2, "invoke-sequential calls/s": 1, "invoke-concurrent ms": 2, "invoke-concurrent calls/s": 1,
		"stream messages/s": 1, "stream-sequential ms": 2, "context-1 ms": 2, "context-20 ms": 2,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestBenchGatewayAlone(t *testing.T) {
	for _, c := range []*benchGatewayCommand{
		{Weft: newFakeGateway(t).url, Reference: off, Rounds: 1, Seconds: 0.01},
		{Weft: off, Reference: newFakeGateway(t).url, Rounds: 1, Seconds: 0.01},
	} {
		out, _, err := bench(t.Context(), c, false)
		if err != nil {
			t.Fatal(err)
		}
		header := strings.Split(out, "\n")[2]
		if strings.Contains(out, "ratio") || strings.Contains(out, "goal") || strings.Contains(out, " to 0.") ||
			strings.Contains(header, "weft") == (c.Weft == off) || strings.Contains(header, "reference") == (c.Reference == off) {
			t.Errorf("--weft %s --reference %s:\n%s", c.Weft, c.Reference, out)
		}
	}
}

// TestBenchTurns: who is first changes with each measure.
func TestBenchTurns(t *testing.T) {
	weft, reference := newFakeGateway(t), newFakeGateway(t)
	var order []string
	note := func(side string) func(string, object) bool {
		return func(to string, m object) bool {
			if m["type"] == "welcome" && (to == "bench-server" || to == "bench-publisher" || to == "bench-updater") {
				order = append(order, side) // one measure is over before the next begins
			}
			return true
		}
	}
	weft.spoil, reference.spoil = note("weft"), note("reference")
	b := &gatewayBench{sides: []benchSide{{"weft", weft.url}, {"reference", reference.url}}, patience: patient}
	delivered := make([]int, 2) // events, by side
	for r := range 2 {
		round, err := b.round(t.Context(), r, time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range benchMeasures {
			if strings.HasPrefix(m.name, "stream") {
				delivered[0] += round[i][0].delivered
				delivered[1] += round[i][1].delivered
			}
		}
	}
	for s, g := range []*fakeGateway{weft, reference} {
		g.mu.Lock()
		if want := 20 * g.seen["publish"]; delivered[s] != want {
			t.Errorf("%d events from %s, want %d", delivered[s], b.sides[s].name, want)
		}
		g.mu.Unlock()
	}
	want := ""
	for m := range 2 * len(benchMeasures) {
		if m%2 == m/len(benchMeasures) {
			want += "weft reference "
		} else {
			want += "reference weft "
		}
	}
	if got := strings.Join(order, " ") + " "; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestBenchFlags(t *testing.T) {
	for args, want := range map[string]benchGatewayCommand{
		"": {Rounds: 3, Seconds: 2},
		"--weft ws://a/ --reference off --reference-dir d --rounds 5 --seconds 0.5": {
			Weft: "ws://a/", Reference: off, ReferenceDir: "d", Rounds: 5, Seconds: 0.5,
		},
	} {
		var g struct {
			Bench benchCommand `cmd:""`
		}
		parser, err := kong.New(&g)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(append([]string{"bench", "gateway"}, strings.Fields(args)...)); err != nil || g.Bench.Gateway != want {
			t.Errorf("%s: %+v, %v", args, g.Bench.Gateway, err)
		}
	}
}

func TestBenchGatewayUsage(t *testing.T) {
	for _, c := range []benchGatewayCommand{
		{Weft: off, Reference: off, Rounds: 1, Seconds: 1},
		{Weft: "http://127.0.0.1:1", Reference: off, Rounds: 1, Seconds: 1},
		{Weft: off, Reference: "none", Rounds: 1, Seconds: 1},
		{Weft: off, Rounds: 0, Seconds: 1},
		{Weft: off, Rounds: 1, Seconds: 0},
		{Weft: off, Rounds: 1, Seconds: -1},
		{Weft: off, Rounds: 1, Seconds: math.NaN()},
		{Weft: off, Rounds: 1, Seconds: math.Inf(1)},
	} {
		_, _, err := bench(t.Context(), &c, false)
		if _, ok := errors.AsType[usageError](err); !ok {
			t.Errorf("%+v: %v, want a usage error", c, err)
		}
	}
}

func TestBenchGatewayInterrupted(t *testing.T) {
	g := newFakeGateway(t)
	ctx, cancel := context.WithCancel(t.Context())
	g.spoil = func(string, object) bool {
		cancel()
		return true
	}
	out, _, err := bench(ctx, &benchGatewayCommand{Weft: g.url, Reference: off, Rounds: 1, Seconds: 3600}, false)
	if wire.CodeOf(err) != wire.Canceled || err.Error() != "canceled: interrupted" || out != "" {
		t.Errorf("%v, %q", err, out)
	}
}

func TestBenchGatewayFails(t *testing.T) {
	g := newFakeGateway(t)
	g.spoil = func(_ string, m object) bool {
		if m["type"] == "subscribed" {
			m["type"], m["reason"] = "error", "no streams today"
		}
		return true
	}
	out, _, err := bench(t.Context(), &benchGatewayCommand{Weft: g.url, Reference: off, Rounds: 1, Seconds: 0.01}, false)
	want := "weft, stream 1 to 20: bench-receiver-1 got error: no streams today"
	if err == nil || err.Error() != want || out != "" {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestReferenceInstalled(t *testing.T) {
	manifest := func(text string) string {
		dir := t.TempDir()
		file := filepath.Join(dir, "node_modules", "@glue42", "gateway-ws", "package.json")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, tt := range []struct{ dir, version, problem string }{
		{t.TempDir(), "", ""},
		{manifest(`{"name":"x","version":"3.0.19"}`), "3.0.19", ""},
		{manifest(`{"version":"3.0.1"}`), "3.0.1", ""},
		{manifest(`{}`), "", "has no version"},
		{manifest(`{"version":`), "", "cannot be used"},
	} {
		got, err := installedReference(tt.dir)
		if got != tt.version || (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%q, %v, want %q and %q", got, err, tt.version, tt.problem)
		}
	}
	other := manifest(`{"version":"3.0.1"}`)
	if err := installReference(t.Context(), &program{}, other); err == nil || !strings.Contains(err.Error(), "has version 3.0.1") {
		t.Errorf("another version: %v", err)
	}
}
