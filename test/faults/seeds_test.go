//go:build unix

package faults_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/weft-fabric/weft/test/cluster"
)

// seeds is how many runs are part of `make test`.
const seeds = 20

// TestSeeds makes short runs with fixed seeds, or with SEED, on one cluster. With
// RETURNING=1 clients come back to a desk that was killed by what their libraries do;
// FAULT is how the names of the only faults begin.
func TestSeeds(t *testing.T) {
	s := startServers(t)
	from, to := uint64(1), uint64(seeds)
	if seed := uint64(cluster.Setting(t, "SEED", 0)); seed > 0 {
		from, to = seed, seed
	}
	returning := cluster.Setting(t, "RETURNING", 0)
	for seed := from; seed <= to; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			plan{
				seed: seed, desks: 3, clients: 4, contexts: 40, linear: 4, rate: 80, length: 5 * time.Second,
				faultEvery: 1200 * time.Millisecond, faultLeast: 300 * time.Millisecond, faultMost: 1500 * time.Millisecond, compactAt: 24, healWithin: 15 * time.Second, returning: returning > 0, only: os.Getenv("FAULT"),
				repeat: fmt.Sprintf("make e2e RUN=TestSeeds SEED=%d RETURNING=%d", seed, returning),
			}.do(t, s)
		})
	}
}
