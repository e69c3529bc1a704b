package kv

import "testing"

func TestOlderThan(t *testing.T) {
	for v, old := range map[string]bool{
		"2.12": false, "2.12.0": false, "v2.12.1": false, "2.13.0-beta.1": false, "2.15.2": false, "3.0.0": false, "10.0": false, "2.12.0-RC.3": false,
		"2.11.99": true, "2.9.21": true, "1.99.0": true, "": true, "dev": true, "2": true, "2.x": true,
	} {
		if olderThan(v, minServer) != old {
			t.Errorf("%q: older %v", v, !old)
		}
	}
}
