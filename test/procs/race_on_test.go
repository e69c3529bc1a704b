//go:build unix && race

package procs_test

const raceEnabled = true
