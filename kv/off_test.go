package kv

import (
	"maps"
	"testing"
)

// TestOff: who is off is the one that differs from the majority, whether it has fewer
// messages or more.
func TestOff(t *testing.T) {
	type counts = map[string]uint64
	for name, tt := range map[string]struct {
		counts   counts
		replicas int
		slack    uint64
		exact    bool
		off      counts
	}{
		"alone":                       {counts{"a": 9}, 1, 0, true, counts{"a": 0}},
		"equal":                       {counts{"a": 9, "b": 9, "c": 9}, 3, 0, true, counts{"a": 0, "b": 0, "c": 0}},
		"fewer":                       {counts{"a": 9, "b": 7, "c": 9}, 3, 0, true, counts{"a": 0, "b": 2, "c": 0}},
		"more":                        {counts{"a": 9, "b": 12, "c": 9}, 3, 0, true, counts{"a": 0, "b": 3, "c": 0}},
		"more than two that moved on": {counts{"a": 36586, "b": 36581, "c": 36707}, 3, 20, false, counts{"a": 0, "b": 0, "c": 101}},
		"fewer than two under load":   {counts{"a": 900, "b": 910, "c": 500}, 3, 20, false, counts{"a": 0, "b": 0, "c": 380}},
		"all move":                    {counts{"a": 900, "b": 915, "c": 930}, 3, 20, false, counts{"a": 0, "b": 0, "c": 0}},
		"one is down":                 {counts{"a": 9, "b": 9}, 3, 0, true, counts{"a": 0, "b": 0}},
		"one is down, two differ":     {counts{"a": 9, "b": 7}, 3, 0, true, counts{"a": 0, "b": 2}},
		"the same under load":         {counts{"a": 90, "b": 7}, 3, 5, false, nil},
		"two":                         {counts{"a": 9, "b": 7}, 2, 0, true, counts{"a": 0, "b": 2}},
		"all differ":                  {counts{"a": 9, "b": 7, "c": 5}, 3, 0, true, counts{"a": 0, "b": 2, "c": 4}},
		"all differ under load":       {counts{"a": 90, "b": 70, "c": 50}, 3, 5, false, nil},
		"three of five":               {counts{"a": 90, "b": 91, "c": 92, "d": 99, "e": 80}, 5, 2, false, counts{"a": 0, "b": 0, "c": 0, "d": 5, "e": 8}},
	} {
		t.Run(name, func(t *testing.T) {
			if off, _ := off(tt.counts, tt.replicas, tt.slack, tt.exact); !maps.Equal(off, tt.off) || (off == nil) != (tt.off == nil) {
				t.Errorf("off by %v, want %v", off, tt.off)
			}
		})
	}
}
