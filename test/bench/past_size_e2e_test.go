//go:build e2e

package bench_test

// A busy day.
const dayWrites = 1_000_000
