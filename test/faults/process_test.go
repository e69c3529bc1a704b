//go:build unix

package faults_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weft-fabric/weft/wire"
)

// soon is how long what should be quick may take; two cores are shared by many
// processes.
const soon = 30 * time.Second

// process is a child of the tests, in a process group of its own.
type process struct {
	t     testing.TB
	name  string
	cmd   *exec.Cmd
	ended chan struct{}

	mu  sync.Mutex
	log bytes.Buffer // standard error
}

// spawn starts a program. Its standard output goes to out.
func spawn(t testing.TB, name string, cmd *exec.Cmd, out io.Writer) (*process, error) {
	t.Helper()
	p := &process{t: t, name: name, cmd: cmd, ended: make(chan struct{})}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = out, p
	if out == nil {
		cmd.Stdout = p
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	undertaker.note(t, "kill %d", cmd.Process.Pid)
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		text := p.said()
		if strings.Contains(text, "WARNING: DATA RACE") || strings.Contains(text, "panic: ") || strings.Contains(text, "fatal error: ") {
			t.Errorf("%s failed:\n%s", name, text)
		} else if t.Failed() {
			t.Logf("%s said last:\n%s", name, tail(text, 8))
		}
	})
	return p, nil
}

func tail(text string, most int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// Write takes the process's standard error.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log.Len() > 4<<20 {
		p.log.Next(2 << 20)
	}
	return p.log.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// alive says whether the process has not ended.
func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// signal sends to the process group and says whether that was possible.
func (p *process) signal(s syscall.Signal) bool {
	return p.alive() && syscall.Kill(-p.cmd.Process.Pid, s) == nil
}

// kill is kill -9. It says whether there was something to kill.
func (p *process) kill() bool {
	killed := p.signal(syscall.SIGKILL)
	<-p.ended
	undertaker.note(p.t, "-kill %d", p.cmd.Process.Pid)
	return killed
}

// freeze is SIGSTOP, and waits until the process is stopped.
func (p *process) freeze() bool {
	if !p.signal(syscall.SIGSTOP) {
		return false
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(soon); p.status("State") != "T (stopped)"; {
		select {
		case <-tick.C:
		case <-late:
			p.t.Errorf("%s does not stop: %s", p.name, p.status("State"))
			return false
		}
	}
	return true
}

// thaw is SIGCONT.
func (p *process) thaw() { p.signal(syscall.SIGCONT) }

// status is a field of what Linux says of the process.
func (p *process) status(field string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(text), "\n"+field+":")
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(line)
}

// resident is how much memory the process has, in bytes.
func (p *process) resident() int64 {
	var kib int64
	if _, err := fmt.Sscanf(p.status("VmRSS"), "%d kB", &kib); err != nil {
		return 0
	}
	return kib << 10
}

// peer is a process that answers requests, each a line of JSON.
type peer struct {
	*process
	stdin io.WriteCloser
	first chan response
	event func(response) // is called in order; may be nil

	mu      sync.Mutex
	next    int
	waiting map[int]func(response)
	over    bool
}

// errEnded is the answer of a process that is not there any more. What it was asked
// for may have been done.
var errEnded = errors.New("the process has ended")

func startPeer(t testing.TB, name string, cmd *exec.Cmd, event func(response)) (*peer, error) {
	t.Helper()
	p := &peer{first: make(chan response, 1), event: event, waiting: map[int]func(response){}}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	if p.process, err = spawn(t, name, cmd, w); err != nil {
		return nil, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(r)
	}()
	go func() {
		<-p.ended
		w.Close()
		<-read
		p.mu.Lock()
		defer p.mu.Unlock()
		p.over = true
		for _, f := range p.waiting {
			f(response{Error: errEnded.Error()})
		}
		p.waiting = nil
	}()
	select {
	case <-p.first:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("%s did not start: %s", name, tail(p.said(), 10))
	case <-time.After(soon):
		p.kill()
		return nil, fmt.Errorf("%s did not start within %s: %s", name, soon, tail(p.said(), 10))
	}
}

func (p *peer) read(r io.Reader) {
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			_, _ = io.Copy(io.Discard, r) // a part of a line, of a process that was killed
			return
		}
		var a response
		if err := json.Unmarshal(line, &a); err != nil {
			p.t.Errorf("%s said %q: %v", p.name, line, err)
			continue
		}
		switch {
		case a.ID != 0:
			p.mu.Lock()
			f := p.waiting[a.ID]
			delete(p.waiting, a.ID)
			p.mu.Unlock()
			if f != nil {
				f(a)
			}
		case a.Ready != nil:
			p.first <- a
		case p.event != nil:
			p.event(a)
		}
	}
}

// start sends a request; done gets the answer, also if there will be none.
func (p *peer) start(r request, done func(response)) {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		done(response{Error: errEnded.Error()})
		return
	}
	p.next++
	r.ID = p.next
	p.waiting[r.ID] = done
	p.mu.Unlock()
	line, err := json.Marshal(r)
	if err != nil {
		p.t.Errorf("%s: %v", p.name, err)
	}
	_, _ = p.stdin.Write(append(line, '\n')) // the answer is then that it has ended
}

// ask sends a request and waits for its answer.
func (p *peer) ask(r request) (response, error) {
	answer := make(chan response, 1)
	p.start(r, func(a response) { answer <- a })
	select {
	case a := <-answer:
		switch {
		case a.Error == errEnded.Error():
			return a, errEnded
		case a.Error != "":
			return a, wire.Errorf(a.Code, "%s", a.Error)
		}
		return a, nil
	case <-time.After(soon + r.Timeout):
		return response{}, fmt.Errorf("%s does not answer to %s", p.name, r.Do)
	}
}

// startDesk starts the process of a desk.
func startDesk(t testing.TB, cfg deskConfig, event func(response)) (*peer, error) {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(os.Args[0])
	// GORACE: a process with the race detector sleeps for a second at its end.
	cmd.Env = append(os.Environ(), role+"=desk", "WEFT_FAULTS_DESK="+string(text), "GORACE=atexit_sleep_ms=0")
	return startPeer(t, cfg.Node, cmd, event)
}
