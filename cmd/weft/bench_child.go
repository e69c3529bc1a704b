package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// benchChild is a gateway that runs in a process of ours.
type benchChild struct {
	url  string
	stop func() // ends the process and waits for that
}

const (
	childStarts = 30 * time.Second // how long a child may take to start
	childStops  = 5 * time.Second  // and to stop, before it is killed
)

// startBenchChild starts a program that prints where its gateway listens, as the
// first line of its output: {"gateway":"ws://..."}.
func startBenchChild(ctx context.Context, name string, prepare func(context.Context) *exec.Cmd) (*benchChild, error) {
	alive, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cmd := prepare(alive)
	cmd.Cancel = func() error { return interrupt(cmd.Process) }
	cmd.WaitDelay = childStops
	said := &firstLine{line: make(chan []byte, 1)}
	stderr := &bounded{most: maxStderr, cut: true}
	cmd.Stdout, cmd.Stderr = said, stderr
	if _, err := cmd.StdinPipe(); err != nil { // is open as long as we are there
		cancel()
		return nil, fmt.Errorf("%s cannot be started: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("%s cannot be started: %w", name, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended is in its standard error
	}()
	stop := func() {
		cancel()
		<-ended
	}
	url, err := said.wait(ctx, ended)
	if err != nil {
		stop()
		if text := strings.TrimSpace(stderr.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, oneLine(text))
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &benchChild{url, stop}, nil
}

// interrupt asks a process to end, and ends it where that cannot be asked.
func interrupt(p *os.Process) error {
	err := p.Signal(os.Interrupt)
	if err == nil || errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.Kill()
}

// firstLine keeps the first line that a process prints.
type firstLine struct {
	line  chan []byte // gets it
	begun []byte
	over  bool
}

// Write never fails, so that the process can go on printing.
func (w *firstLine) Write(data []byte) (int, error) {
	if w.over {
		return len(data), nil
	}
	w.begun = append(w.begun, data...)
	line, _, ok := bytes.Cut(w.begun, []byte("\n"))
	if ok || len(w.begun) > maxOutput {
		w.line <- line
		w.begun, w.over = nil, true
	}
	return len(data), nil
}

// wait is the URL in the first line.
func (w *firstLine) wait(ctx context.Context, ended <-chan struct{}) (string, error) {
	timer := time.NewTimer(childStarts)
	defer timer.Stop()
	select {
	case line := <-w.line:
		var said struct {
			Gateway string `json:"gateway"`
		}
		if err := json.Unmarshal(line, &said); err != nil || said.Gateway == "" {
			return "", fmt.Errorf("does not say where its gateway listens, but %.200q", line)
		}
		return said.Gateway, nil
	case <-ended:
		return "", errors.New("ended at once")
	case <-timer.C:
		return "", fmt.Errorf("does not say within %s where its gateway listens", childStarts)
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// startWeft runs "weft up" with a store of its own, which nobody but the
// benchmark reaches.
func startWeft(ctx context.Context, p *program) (*benchChild, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("this program cannot find itself: %w", err)
	}
	store, err := os.MkdirTemp("", "weft-bench-")
	if err != nil {
		return nil, fmt.Errorf("no place for the store of the node: %w", err)
	}
	child, err := startBenchChild(ctx, "weft up", func(ctx context.Context) *exec.Cmd {
		return weftUp(ctx, self, store, p.environ())
	})
	if err != nil {
		_ = os.RemoveAll(store) // the error counts
		return nil, err
	}
	stop := child.stop
	child.stop = func() {
		stop()
		if err := os.RemoveAll(store); err != nil {
			p.errorf("weft: %v", err)
		}
	}
	return child, nil
}

// weftUp is the command line of the node.
func weftUp(ctx context.Context, self, store string, env []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, self, "up", "--json", "--node", "bench", "--store", store,
		"--nats-listen", "off", "--gateway-listen", "127.0.0.1:0")
	cmd.Args[0] = "weft" // which the executable of the tests goes by
	cmd.Env = slices.DeleteFunc(env, movesNode)
	return cmd
}

// movesNode says whether a variable would let the node join some NATS server.
func movesNode(variable string) bool {
	return strings.HasPrefix(variable, "NATS_") || strings.HasPrefix(variable, "WEFT_")
}

// The reference gateway.
const (
	referencePackage = "@glue42/gateway-ws"
	referenceVersion = "3.0.19"
)

// referenceScript runs it. It would listen on all interfaces and not tell the
// port, so the script sees to both. It ends with us, for then its input ends.
const referenceScript = `
const { Server } = require('net');
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, host, ...more) {
  this.once('listening', () => console.log(JSON.stringify({ gateway: 'ws://127.0.0.1:' + this.address().port + '/' })));
  return listen.call(this, port, '127.0.0.1', ...more);
};
process.stdin.on('end', () => process.exit()).resume();
const reference = require('` + referencePackage + `');
reference.configure_logging({ level: 'error', appender: (entry) => console.error(entry.output) });
reference.create({ port: 0 }).start();
`

// startReference runs the reference gateway, and installs it if it has to.
func (c *benchGatewayCommand) startReference(ctx context.Context, p *program) (*benchChild, error) {
	nodejs, err := exec.LookPath("node")
	if err != nil {
		return nil, errors.New("the reference gateway needs Node.js, and there is no program node here: " +
			"install it, or measure Weft alone with --reference off")
	}
	dir, err := c.referenceDir()
	if err != nil {
		return nil, err
	}
	if err := installReference(ctx, p, dir); err != nil {
		return nil, err
	}
	return startBenchChild(ctx, "the reference gateway", func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, nodejs, "-e", referenceScript)
		cmd.Dir, cmd.Env = dir, p.environ()
		return cmd
	})
}

func (c *benchGatewayCommand) referenceDir() (string, error) {
	if c.ReferenceDir != "" {
		return filepath.Abs(c.ReferenceDir)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", usageError{fmt.Errorf("no cache directory for the reference gateway: %w: name a directory with --reference-dir", err)}
	}
	return filepath.Join(cache, "weft", "gateway-ws-"+referenceVersion), nil
}

// installReference sees to it that the reference gateway is in a directory.
func installReference(ctx context.Context, p *program, dir string) error {
	switch found, err := installedReference(dir); {
	case err != nil:
		return err
	case found == referenceVersion:
		return nil
	case found != "":
		return fmt.Errorf("%s has version %s of %s, want %s: name another directory with --reference-dir",
			dir, found, referencePackage, referenceVersion)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("the reference gateway has to be installed, and there is no program npm here: " +
			"install it, or measure Weft alone with --reference off")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("no directory for the reference gateway: %w", err)
	}
	p.errorf("Installing %s %s in %s.", referencePackage, referenceVersion, dir)
	install := exec.CommandContext(ctx, npm, "install", "--no-audit", "--no-fund", "--prefix", dir, referencePackage+"@"+referenceVersion)
	install.Dir, install.Env = dir, p.environ()
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("npm cannot install the reference gateway: %w: %s", err, oneLine(strings.TrimSpace(string(out))))
	}
	return nil
}

// installedReference is the version in a directory, "" for none.
func installedReference(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "node_modules", filepath.FromSlash(referencePackage), "package.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var manifest struct {
		Version string `json:"version"`
	}
	if err == nil {
		err = json.Unmarshal(data, &manifest)
	}
	if err == nil && manifest.Version == "" {
		err = errors.New("its package.json has no version")
	}
	if err != nil {
		return "", fmt.Errorf("what %s has of %s cannot be used: %w", dir, referencePackage, err)
	}
	return manifest.Version, nil
}
