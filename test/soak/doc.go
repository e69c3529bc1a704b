// Package soak runs four nodes on a cluster of three NATS servers under load
// while servers and nodes restart, for as long as one likes:
//
//	make e2e SEED=42 MINUTES=30
//
// It checks that a call runs at most once per server and exactly once when it
// succeeded, that every stream subscriber gets each message in order or a gap
// notice for exactly what is missing, and that after the faults everyone sees
// everyone. It prints the seed, the faults by kind, the violations, and what
// their number bounds: with none in n faults, the rate is below 3/n (95 %).
//
// All servers listen on loopback, and end with the test.
package soak
