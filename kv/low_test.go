package kv

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLeaderIsLow: a leader has lost writes if every answer says so for tailFor, and not
// if two do that are far apart.
func TestLeaderIsLow(t *testing.T) {
	type answer struct {
		after      time.Duration
		last, seen uint64
	}
	const s = time.Second
	for name, tt := range map[string]struct {
		answers []answer
		cut     uint64 // 0 for not low
	}{
		"never":                       {[]answer{{s, 10, 10}, {s, 12, 11}}, 0},
		"once":                        {[]answer{{s, 9, 10}}, 0},
		"for a moment":                {[]answer{{s, 9, 10}, {s, 9, 10}, {s, 9, 10}}, 0},
		"all the time":                {[]answer{{s, 9, 10}, {2 * s, 8, 10}, {3 * s, 9, 11}}, 8},
		"a little late all the time":  {[]answer{{s, 9, 10}, {s, 10, 12}, {s, 12, 14}, {s, 14, 16}, {s, 16, 18}, {s, 18, 20}, {s, 20, 22}}, 0},
		"it goes on":                  {[]answer{{s, 5, 10}, {3 * s, 6, 10}, {3 * s, 7, 10}, {3 * s, 8, 12}}, 0},
		"it went on":                  {[]answer{{s, 5, 10}, {3 * s, 6, 10}, {3 * s, 7, 10}, {3 * s, 7, 12}, {3 * s, 6, 12}}, 5},
		"late, then stuck":            {[]answer{{s, 9, 10}, {s, 10, 12}, {s, 11, 14}, {5 * s, 11, 16}}, 10},
		"at an end and the other":     {[]answer{{s, 9, 10}, {s, 10, 10}, {9 * s, 9, 12}}, 0},
		"again after it was not":      {[]answer{{s, 7, 10}, {s, 10, 10}, {s, 9, 12}, {5 * s, 9, 12}}, 9},
		"nobody asked for long":       {[]answer{{s, 7, 10}, {20 * s, 9, 10}}, 0},
		"nobody asked for long twice": {[]answer{{s, 7, 10}, {20 * s, 9, 10}, {6 * s, 9, 10}}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var h health
				for _, a := range tt.answers {
					time.Sleep(a.after)
					h.learnLast(a.last, a.seen)
				}
				cut, low := h.isLow()
				if low != (tt.cut > 0) || low && cut != tt.cut {
					t.Errorf("low is %v, from %d on", low, cut)
				}
			})
		})
	}
}
