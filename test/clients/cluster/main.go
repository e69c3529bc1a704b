// Command cluster is three NATS servers for tests in other languages: it
// provisions the realms that its arguments name, says {"nats": URLs} in one
// line, and ends when its standard input does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/test/cluster"
)

func main() {
	p := &process{}
	err := p.run(func() error { return run(p, os.Args[1:]) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(p *process, realms []string) error {
	if len(realms) == 0 {
		return errors.New("name a realm")
	}
	c := cluster.New(p, realms[0])
	for _, realm := range realms[1:] {
		ctx, cancel := context.WithTimeout(p.Context(), 30*time.Second)
		err := node.Provision(ctx, node.NATS{URL: c.URL()}, realm, cluster.Servers)
		cancel()
		if err != nil {
			return err
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"nats": c.URL()}); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// process is what package cluster needs of a test, for a program.
type process struct {
	testing.TB

	dirs  []string
	after []func()
}

// failure is what Fatal panics with.
type failure string

// run runs f and then what was to be cleaned up, last first.
func (p *process) run(f func() error) (err error) {
	defer func() {
		for _, f := range slices.Backward(p.after) {
			f()
		}
		for _, dir := range p.dirs {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = errors.New(string(r))
		default:
			panic(r)
		}
	}()
	return f()
}

func (*process) Helper() {}

func (*process) Context() context.Context { return context.Background() }

func (p *process) Cleanup(f func()) { p.after = append(p.after, f) }

func (p *process) TempDir() string {
	dir, err := os.MkdirTemp("", "weft-cluster-")
	if err != nil {
		p.Fatal(err)
	}
	p.dirs = append(p.dirs, dir)
	return dir
}

func (*process) Fatal(args ...any) { panic(failure(fmt.Sprint(args...))) }

func (p *process) Fatalf(format string, args ...any) { p.Fatal(fmt.Sprintf(format, args...)) }
