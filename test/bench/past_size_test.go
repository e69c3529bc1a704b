//go:build !e2e

package bench_test

// A fortieth of a busy day.
const dayWrites = 25_000
