//go:build unix

package faults_test

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// role says what this program is to be, instead of the tests.
const role = "WEFT_FAULTS_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "desk":
		os.Exit(runDesk())
	case "undertaker":
		os.Exit(runUndertaker(os.Stdin))
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // what is parallel waits most of the time
	code := m.Run()
	undertaker.close()
	os.Exit(code)
}

// undertaker is a process that ends what the tests have started when they are gone
// without having done so, for a test that times out cleans up nothing.
var undertaker survivor

type survivor struct {
	mu    sync.Mutex
	stdin io.WriteCloser
	cmd   *exec.Cmd
}

// note tells it to do something at the end, or with "-" before it that this is done.
func (s *survivor) note(t testing.TB, format string, args ...any) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		s.cmd = exec.Command(os.Args[0])
		s.cmd.Env = append(os.Environ(), role+"=undertaker", "GORACE=atexit_sleep_ms=0")
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		var err error
		if s.stdin, err = s.cmd.StdinPipe(); err == nil {
			err = s.cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fmt.Fprintf(s.stdin, format+"\n", args...); err != nil {
		t.Fatal(err)
	}
}

func (s *survivor) close() {
	if s.cmd != nil {
		s.stdin.Close()
		_ = s.cmd.Wait() // it has said what it had to
	}
}

// runUndertaker does what it was told to when its input ends, last first.
func runUndertaker(in io.Reader) int {
	var todo []string
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if done, ok := strings.CutPrefix(lines.Text(), "-"); ok {
			for i, what := range todo {
				if what == done {
					todo = append(todo[:i:i], todo[i+1:]...)
					break
				}
			}
			continue
		}
		todo = append(todo, lines.Text())
	}
	for len(todo) > 0 {
		verb, what, _ := strings.Cut(todo[len(todo)-1], " ")
		todo = todo[:len(todo)-1]
		switch verb {
		case "kill":
			if pid, err := strconv.Atoi(what); err == nil {
				_ = syscall.Kill(-pid, syscall.SIGKILL) // it may have ended
			}
		case "umount":
			_ = exec.Command("umount", "-l", what).Run()
		}
	}
	return 0
}
