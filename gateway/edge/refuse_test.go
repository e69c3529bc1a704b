package edge

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// lines runs f in a bubble and returns what is logged, as "reason" or "reason+n"
// with the second it is logged in.
func lines(t *testing.T, f func(r *refusals)) (list []string) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		start := time.Now()
		log := &logged{}
		f(newRefusals(slog.New(slog.NewJSONHandler(log, nil))))
		synctest.Wait()
		for _, line := range log.lines() {
			at, _ := time.Parse(time.RFC3339Nano, line["time"].(string))
			text := fmt.Sprintf("%v %v", at.Sub(start).Truncate(time.Second), line["reason"])
			if n, ok := line["left_out"].(float64); ok {
				text += fmt.Sprintf("+%v", n)
			}
			list = append(list, text)
		}
	})
	return list
}

func TestRefusalsAreRareInTheLog(t *testing.T) {
	end := func(r *refusals) { r.close() }
	flood := []any{"a", 5 * time.Millisecond} // no refusal in the moment of a line
	for range 299 {
		flood = append(flood, "a", 10*time.Millisecond)
	}
	for _, tt := range []struct {
		name string
		do   []any // refusals for a reason, pauses, and the end
		want []string
	}{
		{"one", []any{"a"}, []string{"0s a"}},
		{"two kinds", []any{"a", "b"}, []string{"0s a", "0s b"}},
		{"two with a pause", []any{"a", 2 * time.Second, "a"}, []string{"0s a", "2s a"}},
		{"a burst", append(slices.Repeat([]any{"a"}, 1000), "b", time.Hour, "a", end), []string{"0s a", "0s b", "1s a+999", "1h0m0s a"}},
		{"a flood", flood, []string{"0s a", "1s a+100", "2s a+100", "3s a+99"}},
		{"the end", []any{"a", "a", "a", end}, []string{"0s a", "0s a+2"}},
		{"after the end", []any{end, "a", "a"}, []string{"0s a", "0s a"}},
	} {
		got := lines(t, func(r *refusals) {
			for _, do := range tt.do {
				switch do := do.(type) {
				case string:
					r.log(do)
				case time.Duration:
					time.Sleep(do)
				case func(*refusals):
					do(r)
				}
			}
			time.Sleep(time.Hour)
		})
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestManyReasons(t *testing.T) {
	got := lines(t, func(r *refusals) {
		for i := range 1000 {
			r.log(fmt.Sprint(i))
		}
		time.Sleep(time.Hour)
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.reasons) > 0 {
			t.Errorf("remembers %d reasons", len(r.reasons))
		}
	})
	if want := maxReasons + 2; len(got) != want || got[want-2] != "0s "+otherReasons || got[want-1] != fmt.Sprintf("1s %s+%d", otherReasons, 1000-maxReasons-1) {
		t.Errorf("%d lines, the last %q", len(got), got[max(0, len(got)-2):])
	}
}
