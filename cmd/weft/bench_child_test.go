package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/weft-fabric/weft/wire"
)

// sh is a child that runs a script.
func sh(script string) func(context.Context) *exec.Cmd {
	return func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, "sh", "-c", script) }
}

// alive says whether the process whose id is in a file is there.
func alive(t *testing.T, file string) bool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(pid)
	return err == nil && p.Signal(syscall.Signal(0)) == nil
}

func TestBenchChild(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	child, err := startBenchChild(t.Context(), "it", sh(`echo $$ >`+pid+`; echo '{"node":"x","gateway":"ws://127.0.0.1:7/"}'; echo more; exec cat`))
	if err != nil {
		t.Fatal(err)
	}
	if child.url != "ws://127.0.0.1:7/" || !alive(t, pid) {
		t.Errorf("url %q, alive %t", child.url, alive(t, pid))
	}
	child.stop()
	if alive(t, pid) {
		t.Error("the process is there after the stop")
	}
	child.stop() // again
}

// TestBenchChildOutlivesContext: it goes on when ctx ends, for the caller stops it.
func TestBenchChildOutlivesContext(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	child, err := startBenchChild(ctx, "it", sh(`echo $$ >`+pid+`; echo '{"gateway":"ws://x/"}'; exec cat`))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if !alive(t, pid) {
		t.Error("the process ended with the context")
	}
	child.stop()
}

func TestBenchChildFails(t *testing.T) {
	for script, want := range map[string]string{
		`echo no port >&2; echo at all >&2; exit 3`: "it: ended at once: no port | at all",
		`exit 0`:                        "it: ended at once",
		`echo hello; exec cat`:          `it: does not say where its gateway listens, but "hello"`,
		`echo '{"node":"x"}'; exec cat`: `it: does not say where its gateway listens, but "{\"node\":\"x\"}"`,
		`printf '{"gateway":"ws://x/'`:  "it: ended at once", // and not the whole line
	} {
		pid := filepath.Join(t.TempDir(), "pid")
		_, err := startBenchChild(t.Context(), "it", sh("echo $$ >"+pid+"; "+script))
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", script, err, want)
		}
		if alive(t, pid) {
			t.Errorf("%s: the process is there after the error", script)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := startBenchChild(ctx, "it", sh("exec cat")); !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
	_, err := startBenchChild(t.Context(), "it", func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, filepath.Join(t.TempDir(), "missing"))
	})
	if err == nil || !strings.Contains(err.Error(), "it cannot be started") {
		t.Errorf("%v", err)
	}
}

func TestBenchWeftUp(t *testing.T) {
	env := []string{"PATH=/bin", "NATS_URL=nats://x", "WEFT_REALM=y", "HOME=/home/z", "NATS_CONTEXT=c"}
	program, store := filepath.Join(t.TempDir(), "weft"), t.TempDir()
	cmd := weftUp(t.Context(), program, store, env)
	want := "weft up --json --node bench --store " + store + " --nats-listen off --gateway-listen 127.0.0.1:0"
	if got := strings.Join(cmd.Args, " "); got != want || cmd.Path != program {
		t.Errorf("%s: %s, want %s", cmd.Path, got, want)
	}
	if want := []string{"PATH=/bin", "HOME=/home/z"}; !slices.Equal(cmd.Env, want) {
		t.Errorf("environment %v, want %v", cmd.Env, want)
	}
}

// TestBenchWeft measures the gateway of a real node, which leaves nothing behind.
func TestBenchWeft(t *testing.T) {
	temp := t.TempDir()
	for _, name := range []string{"TMPDIR", "TMP", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA"} {
		t.Setenv(name, temp)
	}
	t.Setenv("WEFT_REALM", "Not A Realm") // is not the benchmark's
	out, _, err := bench(t.Context(), &benchGatewayCommand{Reference: off, Rounds: 1, Seconds: 0.05}, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range benchLines(t, out) {
		if line.Weft == nil || line.Weft.Median <= 0 || line.Reference != nil {
			t.Errorf("%+v", line)
		}
	}
	left, err := os.ReadDir(temp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// fakePrograms puts programs on the path, and no others but those of the system.
func fakePrograms(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

// fakeNPM notes its arguments and installs nothing but the version.
const fakeNPM = `echo "$@" >>npm.log
/bin/mkdir -p node_modules/@glue42/gateway-ws
echo '{"version":"3.0.19"}' >node_modules/@glue42/gateway-ws/package.json
`

// fakeNode says that the gateway is at url, and runs until it is stopped.
func fakeNode(url string) string {
	return `[ "$1" = -e ] || exit 9
echo $$ >node.pid
echo '{"gateway":"` + url + `"}'
exec /bin/cat
`
}

func TestBenchReference(t *testing.T) {
	g := newFakeGateway(t)
	fakePrograms(t, map[string]string{"npm": fakeNPM, "node": fakeNode(g.url)})
	dir := filepath.Join(t.TempDir(), "new")
	c := &benchGatewayCommand{Weft: off, ReferenceDir: dir, Rounds: 1, Seconds: 0.01}
	for _, want := range []string{"Installing @glue42/gateway-ws 3.0.19 in " + dir + ".\nWarming up.\nRound 1 of 1.\n", "Warming up.\nRound 1 of 1.\n"} {
		out, progress, err := bench(t.Context(), c, true)
		if err != nil {
			t.Fatal(err)
		}
		if progress != want {
			t.Errorf("progress %q, want %q", progress, want)
		}
		if got := benchLines(t, out); len(got) == 0 || got[0].Reference == nil || got[0].Weft != nil {
			t.Errorf("%s", out)
		}
		if alive(t, filepath.Join(dir, "node.pid")) {
			t.Error("the reference gateway runs on")
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "npm.log"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "install --no-audit --no-fund --prefix " + dir + " @glue42/gateway-ws@3.0.19\n"; string(log) != want {
		t.Errorf("npm %s, want %s once", log, want)
	}
}

// TestBenchReferenceStopped: whatever ends the command, the gateway ends too.
func TestBenchReferenceStopped(t *testing.T) {
	for name, spoil := range map[string]func(object){
		"by an error": func(m object) { m["type"] = "error" },
		"by Ctrl-C":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			g := newFakeGateway(t)
			g.spoil = func(_ string, m object) bool {
				if spoil != nil {
					spoil(m)
				} else {
					cancel()
				}
				return true
			}
			fakePrograms(t, map[string]string{"npm": fakeNPM, "node": fakeNode(g.url)})
			dir := t.TempDir()
			_, _, err := bench(ctx, &benchGatewayCommand{Weft: off, ReferenceDir: dir, Rounds: 1, Seconds: 3600}, false)
			if err == nil || (wire.CodeOf(err) == wire.Canceled) != (spoil == nil) {
				t.Errorf("%v", err)
			}
			if alive(t, filepath.Join(dir, "node.pid")) {
				t.Error("the reference gateway runs on")
			}
		})
	}
}

func TestBenchReferenceMissing(t *testing.T) {
	node := fakeNode("ws://127.0.0.1:1/")
	for name, tt := range map[string]struct {
		programs map[string]string
		want     string
	}{
		"no node":         {map[string]string{"npm": fakeNPM}, "no program node here: install it, or measure Weft alone with --reference off"},
		"no npm":          {map[string]string{"node": node}, "no program npm here: install it, or measure Weft alone with --reference off"},
		"npm fails":       {map[string]string{"node": node, "npm": "echo no network; exit 1"}, "npm cannot install the reference gateway: exit status 1: no network"},
		"node fails":      {map[string]string{"node": "echo cannot find module >&2; exit 1", "npm": fakeNPM}, "the reference gateway: ended at once: cannot find module"},
		"gateway refuses": {map[string]string{"node": node, "npm": fakeNPM}, "bench-server cannot connect to ws://127.0.0.1:1/"},
	} {
		t.Run(name, func(t *testing.T) {
			fakePrograms(t, tt.programs)
			_, _, err := bench(t.Context(), &benchGatewayCommand{Weft: off, ReferenceDir: t.TempDir(), Rounds: 1, Seconds: 1}, false)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}
