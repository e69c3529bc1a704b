//go:build unix

// Package procs_test runs the weft program as real processes on loopback and
// kills, freezes and restarts them, as the promises about presence say.
//
// TestMain builds the program once. Each test has a fabric of its own: a data
// directory, a hub on a free port, and processes in process groups that are
// killed when the test ends. Tests wait by polling with generous deadlines and
// log the times that they measured.
package procs_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// weft is the path of the program.
var weft string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "weft-procs-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	weft = filepath.Join(dir, "weft")
	args := []string{"build", "-o", weft}
	if raceEnabled {
		args = append(args, "-race") // then the processes are watched, too
	}
	build := exec.Command("go", append(args, "github.com/weft-fabric/weft/cmd/weft")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return failed(err)
	}
	// These tests wait more than they work, so more of them run at a time than
	// there are cores; -parallel overrides this.
	if err := flag.Set("test.parallel", "6"); err != nil {
		return failed(err)
	}
	return m.Run()
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "procs:", err)
	return 1
}
