//go:build unix && e2e

package faults_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/weft-fabric/weft/test/cluster"
)

// TestFaults is the long run: SEED and MINUTES choose it.
func TestFaults(t *testing.T) {
	seed, minutes := cluster.Setting(t, "SEED", time.Now().UnixNano()%1e9), cluster.Setting(t, "MINUTES", 5)
	returning := cluster.Setting(t, "RETURNING", 0)
	plan{
		seed: uint64(seed), desks: 4, clients: 16, contexts: 500, linear: 8, rate: 50, length: time.Duration(minutes) * time.Minute,
		faultEvery: 20 * time.Second, faultLeast: time.Second, faultMost: 12 * time.Second, compactAt: 24, healWithin: 15 * time.Second, returning: returning > 0, only: os.Getenv("FAULT"),
		repeat: fmt.Sprintf("make e2e RUN=TestFaults SEED=%d MINUTES=%d RETURNING=%d", seed, minutes, returning),
	}.do(t, startServers(t))
}
