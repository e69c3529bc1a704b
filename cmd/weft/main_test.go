package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weft-fabric/weft/subjects"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"weft": main})
}

// TestScripts runs the real program. Each script has its own data directory,
// so no node sees one of another script or of the person who runs the tests.
func TestScripts(t *testing.T) {
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_DATA_HOME", filepath.Join(e.WorkDir, "data"))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Setenv("LOCALAPPDATA", filepath.Join(e.WorkDir, "data"))
			e.Setenv("EXAMPLES", examples)
			e.Setenv("WEFT_GATEWAY_LISTEN", "127.0.0.1:0")
			// Or each command that the race detector watches ends a second late.
			e.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitout": waitOut, "code": exitCode, "gone": gone, "up": up, "background": background, "foreign": foreign,
			"waitstatus": waitStatus, "kill9": kill9, "damage": damage, "block": block,
		},
	})
}

// within bounds every wait of a script.
const within = 15 * time.Second

// until polls until done, and fails the script after the deadline.
func until(ts *testscript.TestScript, what string, done func() bool) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(within)
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline:
			ts.Fatalf("not within %s: %s", within, what)
		}
	}
}

// background NAME COMMAND... runs a command whose output goes to NAME.out.
func background(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: background NAME COMMAND...")
	}
	quoted := make([]string, len(args)-1)
	for i, arg := range args[1:] {
		quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	start(ts, args[0], strings.Join(quoted, " "))
}

// start runs a shell command in the background; the end of the script ends it.
func start(ts *testscript.TestScript, name, command string) {
	attr := &os.ProcAttr{Dir: ts.MkAbs("."), Env: environOf(ts)}
	out, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	defer out.Close()
	in, err := os.Open(os.DevNull)
	ts.Check(err)
	defer in.Close()
	attr.Files = []*os.File{in, out, out}
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "exec " + command}, attr)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(name+".pid"), []byte(strconv.Itoa(p.Pid)), 0o600))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = p.Wait()
	}()
	ts.Defer(func() {
		_ = p.Signal(os.Interrupt)
		timer := time.AfterFunc(within, func() { _ = p.Kill() })
		defer timer.Stop()
		<-ended
	})
}

func environOf(ts *testscript.TestScript) []string {
	names := []string{"PATH", "HOME", "TMPDIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "EXAMPLES", "GORACE", "WEFT_REALM", "WEFT_GATEWAY_LISTEN"}
	var env []string
	for _, name := range names {
		if value := ts.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// up NAME [ARGS...] starts a node on a port of the system's choice and waits
// until it is ready.
func up(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: up NAME [ARGS...]")
	}
	background(ts, false, append([]string{args[0], "weft", "up", "--node", args[0], "--nats-listen", "127.0.0.1:0"}, args[1:]...))
	waitOut(ts, false, []string{args[0] + ".out", "Ready."})
}

// waitout FILE TEXT waits until the file holds the text.
func waitOut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitout FILE TEXT")
	}
	var data []byte
	defer func() { ts.Logf("%s:\n%s", args[0], data) }()
	until(ts, args[0]+" holds "+args[1], func() bool {
		data, _ = os.ReadFile(ts.MkAbs(args[0])) // it may not be there yet
		return strings.Contains(string(data), args[1])
	})
}

// code N COMMAND... runs a command that must exit with N.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// gone FILE waits until the process whose id is in the file has ended.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone FILE")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[0])))
	ts.Check(err)
	until(ts, "process "+strconv.Itoa(pid)+" ends", func() bool {
		p, err := os.FindProcess(pid)
		return err != nil || p.Signal(syscall.Signal(0)) != nil
	})
}

// foreign ENV CONTEXT JSON writes the object of a context as a NATS client
// that is no node. ENV is a file with the output of "weft env --json".
func foreign(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: foreign ENV CONTEXT JSON")
	}
	var env map[string]string
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &env))
	realm, err := subjects.ParseRealm(env["WEFT_REALM"])
	ts.Check(err)
	nc, err := nats.Connect(env["NATS_URL"], nats.UserInfo(env["NATS_USER"], env["NATS_PASSWORD"]))
	ts.Check(err)
	defer nc.Close()
	key := realm.ContextBucket().Subject(subjects.ContextRoot(subjects.MustEncode(args[1])))
	_, err = nc.Request(string(key), []byte(args[2]), within)
	ts.Check(err)
}

// waitstatus NODE TEXT waits until the file with the node's status holds the text.
func waitStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitstatus NODE TEXT")
	}
	waitOut(ts, false, []string{filepath.Join("data", "weft", args[0], "status.json"), args[1]})
}

// kill9 NAME kills a command of background and waits for its end.
func kill9(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: kill9 NAME")
	}
	pid, err := strconv.Atoi(ts.ReadFile(args[0] + ".pid"))
	ts.Check(err)
	p, err := os.FindProcess(pid)
	ts.Check(err)
	ts.Check(p.Kill())
	gone(ts, false, []string{args[0] + ".pid"})
}

// damage FILE makes nonsense of a file that is there.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage FILE")
	}
	_, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("nonsense"), 0o600))
}

// block FILE puts a directory where a node wants to write the file.
func block(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: block FILE")
	}
	ts.Check(os.MkdirAll(filepath.Join(ts.MkAbs(args[0]), "in the way"), 0o700))
}
