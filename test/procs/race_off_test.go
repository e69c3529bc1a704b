//go:build unix && !race

package procs_test

const raceEnabled = false
