//go:build unix

package procs_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	realm = "desk"
	// soon is how long anything may take that should be quick; it is generous
	// because these tests share two cores.
	soon = 20 * time.Second
	// lost is the promise for a killed or frozen node.
	lost = 15 * time.Second
	// add is a command for serve: {"a":1,"b":2} gives {"sum":3}.
	add = `sed 's/.*"a":\([0-9]*\).*"b":\([0-9]*\).*/\1 \2/' | { read a b; echo "{\"sum\":$((a + b))}"; }`
)

// fabric is a data directory with the hub that runs in it.
type fabric struct {
	t    *testing.T
	data string
	url  string
	hub  *process
}

// newFabric makes a fabric without a hub.
func newFabric(t *testing.T) *fabric {
	return &fabric{t: t, data: t.TempDir()}
}

// startFabric makes a fabric with a hub.
func startFabric(t *testing.T) *fabric {
	f := newFabric(t)
	f.startHub()
	return f
}

// startHub starts the hub, again at the address that it had. (With port 0 it
// would make up a new password each time.)
func (f *fabric) startHub() {
	f.t.Helper()
	if f.url == "" {
		f.url = "nats://" + freeAddress(f.t)
	}
	f.hub = f.start("up", "--json", "--node", "hub", "--nats-listen", strings.TrimPrefix(f.url, "nats://"))
	f.hub.line(`"online":true`)
}

// freeAddress is a loopback address that is free now, below the ports that the
// system gives to clients, so that it stays free while a hub is away.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000)))
		if err != nil {
			continue
		}
		_ = l.Close()
		return l.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}

// node starts a node and waits until it is online.
func (f *fabric) node(id, machine string) *process {
	f.t.Helper()
	p := f.start("up", "--json", "--node", id, "--machine", machine, "--nats", f.url)
	p.line(`"online":true`)
	return p
}

// serve starts a server of a method and waits until others can see it.
func (f *fabric) serve(method, command string) *process {
	f.t.Helper()
	p := f.start("serve", method, "--exec", command, "--nats", f.url)
	p.line("Serving " + method)
	return p
}

// watch starts an observer of the nodes.
func (f *fabric) watch(see ...string) *process {
	f.t.Helper()
	p := f.start("nodes", "--watch", "--json", "--nats", f.url)
	for _, id := range see {
		p.event("node-added", id)
	}
	return p
}

func (f *fabric) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "NATS_") || strings.HasPrefix(s, "WEFT_") || strings.HasPrefix(s, "XDG_")
	})
	// GORACE: a process with the race detector sleeps for a second at its end.
	return append(env, "GORACE=atexit_sleep_ms=0", "XDG_DATA_HOME="+f.data, "XDG_CONFIG_HOME="+filepath.Join(f.data, "config"), "WEFT_REALM="+realm, "WEFT_GATEWAY_LISTEN=127.0.0.1:0")
}

// result is what a command said.
type result struct {
	code   int
	out    string
	stderr string
	took   time.Duration
}

// is says whether the command failed with an error code of the fabric.
func (r result) is(code string) bool { return r.code == 1 && strings.HasPrefix(r.stderr, code+": ") }

// run runs a command to its end.
func (f *fabric) run(args ...string) result {
	f.t.Helper()
	return f.command(weft, args...)
}

// shell runs a line in a shell in which weft is the program.
func (f *fabric) shell(line string) result {
	f.t.Helper()
	return f.command("sh", "-c", `weft() { "`+weft+`" "$@"; }; `+line)
}

func (f *fabric) command(name string, args ...string) result {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = f.environ()
	cmd.WaitDelay = time.Second
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	began := time.Now()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		f.t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	noRace(f.t, stderr.String())
	return result{cmd.ProcessState.ExitCode(), out.String(), stderr.String(), time.Since(began)}
}

// done runs a command that must succeed.
func (f *fabric) done(args ...string) string {
	f.t.Helper()
	r := f.run(args...)
	if r.code != 0 {
		f.t.Fatalf("weft %s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
	}
	return strings.TrimSpace(r.out)
}

// nodes lists the ids that weft nodes shows.
func (f *fabric) nodes() []string {
	f.t.Helper()
	var ids []string
	for line := range strings.Lines(f.done("nodes", "--json", "--nats", f.url)) {
		var n struct{ ID string }
		if err := json.Unmarshal([]byte(line), &n); err != nil {
			f.t.Fatalf("weft nodes --json: %q: %v", line, err)
		}
		ids = append(ids, n.ID)
	}
	return ids
}

// process is a weft process that goes on.
type process struct {
	t     *testing.T
	what  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}

	mu      sync.Mutex
	lines   []line
	next    int           // the first line that nobody has waited for
	changed chan struct{} // closed with each new line
}

// line is a line of either output and when it came.
type line struct {
	text string
	at   time.Time
}

// start starts weft in a process group of its own.
func (f *fabric) start(args ...string) *process {
	f.t.Helper()
	p := &process{t: f.t, what: strings.Join(args, " "), cmd: exec.Command(weft, args...), ended: make(chan struct{}), changed: make(chan struct{})}
	p.cmd.Env = f.environ()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		f.t.Fatal(err)
	}
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		scanner := bufio.NewScanner(r)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			p.mu.Lock()
			p.lines = append(p.lines, line{scanner.Text(), time.Now()})
			close(p.changed)
			p.changed = make(chan struct{})
			p.mu.Unlock()
		}
	}()
	go func() {
		_ = p.cmd.Wait() // the exit code is in ProcessState
		_ = w.Close()
		<-read
		close(p.ended)
	}()
	f.t.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		p.kill()
		p.mu.Lock()
		defer p.mu.Unlock()
		var all strings.Builder
		for _, l := range p.lines {
			all.WriteString(l.at.Format("05.000 ") + l.text + "\n")
		}
		noRace(f.t, all.String())
		if f.t.Failed() {
			f.t.Logf("weft %s said:\n%s", p.what, all.String())
		}
	})
	return p
}

func noRace(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, "WARNING: DATA RACE") || strings.Contains(text, "panic: ") {
		t.Errorf("a process failed:\n%s", text)
	}
}

// signal sends to the process's group, unless it has ended.
func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.ended:
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, s) // it may end at this moment
	}
}

// kill is kill -9.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// stop asks the process to stop and returns its exit code.
func (p *process) stop() int {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	return p.exit()
}

// exit waits for the process's own end.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(soon):
		p.t.Fatalf("weft %s does not end", p.what)
	}
	return p.cmd.ProcessState.ExitCode()
}

// write is a line of input.
func (p *process) write(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, text+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

// line waits for a line that contains text, and goes on from there.
func (p *process) line(text string) line {
	p.t.Helper()
	l, ok := p.find(soon, text)
	if !ok {
		p.t.Fatalf("weft %s did not say %q within %s", p.what, text, soon)
	}
	return l
}

// find is the next line that contains all texts, if it comes in time.
func (p *process) find(within time.Duration, texts ...string) (line, bool) {
	late := time.After(within)
	ended := p.ended
	for {
		p.mu.Lock()
		for p.next < len(p.lines) {
			l := p.lines[p.next]
			p.next++
			if !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(l.text, s) }) {
				p.mu.Unlock()
				return l, true
			}
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ended:
			ended = nil // look once more
			if late == nil {
				return line{}, false
			}
			late = time.After(0)
		case <-late:
			return line{}, false
		}
	}
}

// event waits for an event about a node; an observer's only.
func (p *process) event(kind, id string) line {
	p.t.Helper()
	l, ok := p.find(soon, `"event":"`+kind+`"`, `"id":"`+id+`"`)
	if !ok {
		p.t.Fatalf("an observer did not see %s of %s within %s", kind, id, soon)
	}
	return l
}

// json reads a line.
func (p *process) json(l line, v any) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(l.text), v); err != nil {
		p.t.Fatalf("weft %s said %q: %v", p.what, l.text, err)
	}
}

// eventually polls until ok and returns how long that took.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > within {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-tick.C
	}
	return time.Since(began)
}
