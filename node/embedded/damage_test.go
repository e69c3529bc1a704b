package embedded_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/node/embedded"
)

const each = 20 // messages in each of the streams A and B

// What becomes of a start on a damaged store.
const (
	healthy = "healthy" // nothing set aside
	part    = "part"    // stream A set aside, B in use
	whole   = "whole"   // everything set aside
)

// damages are the kinds of damage, most of them to stream A, and what
// nats-server and this package make of them.
var damages = []struct {
	name   string
	do     func(t *testing.T, js, stream string) // the JetStream directory, and A's directory in it
	want   string
	atMost int // messages left in A if healthy
	least  int
}{
	{"none", func(*testing.T, string, string) {}, healthy, each, each},
	{"jetstream is a file", func(t *testing.T, js, _ string) { toFile(t, js) }, whole, 0, 0},
	{"jetstream is a link to itself", func(t *testing.T, js, _ string) { toLink(t, js, js) }, whole, 0, 0},
	{"jetstream is a link to nowhere", func(t *testing.T, js, _ string) { toLink(t, js, js+".gone/x") }, whole, 0, 0},
	{"account is a link to nowhere", func(t *testing.T, js, _ string) {
		toLink(t, filepath.Join(js, "$G"), js+".gone/x")
	}, whole, 0, 0},
	{"account is a file", func(t *testing.T, js, _ string) { toFile(t, filepath.Join(js, "$G")) }, whole, 0, 0},
	{"streams is a file", func(t *testing.T, js, _ string) { toFile(t, filepath.Join(js, "$G", "streams")) }, whole, 0, 0},
	{"stream is a file", func(t *testing.T, _, st string) { toFile(t, st) }, part, 0, 0},
	{"no meta.inf", func(t *testing.T, _, st string) { remove(t, st, "meta.inf") }, part, 0, 0},
	{"empty meta.inf", func(t *testing.T, _, st string) { write(t, nil, st, "meta.inf") }, part, 0, 0},
	{"flipped meta.inf", func(t *testing.T, _, st string) { flip(t, st, "meta.inf") }, part, 0, 0},
	{"meta.inf is a directory", func(t *testing.T, _, st string) { toDir(t, st, "meta.inf") }, part, 0, 0},
	{"no meta.sum", func(t *testing.T, _, st string) { remove(t, st, "meta.sum") }, part, 0, 0},
	{"garbage meta.sum", func(t *testing.T, _, st string) { write(t, []byte("garbage"), st, "meta.sum") }, part, 0, 0},
	{"msgs is a file", func(t *testing.T, _, st string) { toFile(t, filepath.Join(st, "msgs")) }, part, 0, 0},
	{"garbage index.db", func(t *testing.T, _, st string) { write(t, []byte("garbage"), st, "msgs", "index.db") }, healthy, each, each},
	{"no index.db", func(t *testing.T, _, st string) { remove(t, st, "msgs", "index.db") }, healthy, each, each},
	{"flipped block", func(t *testing.T, _, st string) {
		flip(t, st, "msgs", "1.blk")
		remove(t, st, "msgs", "index.db")
	}, healthy, each - 1, 0},
	{"cut block", func(t *testing.T, _, st string) { truncate(t, st, "msgs", "1.blk") }, healthy, each - 1, 0},
	{"block full of zeros", func(t *testing.T, _, st string) {
		write(t, make([]byte, 900), st, "msgs", "1.blk")
		remove(t, st, "msgs", "index.db")
	}, healthy, 0, 0},
	{"half created stream", func(t *testing.T, js, _ string) {
		if err := os.MkdirAll(filepath.Join(js, "$G", "streams", "C", "msgs"), 0o700); err != nil {
			t.Fatal(err)
		}
	}, healthy, each, each},
}

// TestDamage: in every case the server comes up, and what lies untouched in B
// survives unless the whole store had to be set aside.
func TestDamage(t *testing.T) {
	for _, c := range damages {
		t.Run(c.name, func(t *testing.T) {
			cfg := embedded.Config{Store: t.TempDir(), NoSync: true, Holder: "hub"}
			s := start(t, cfg)
			nc, js := inProcess(t, s)
			fill(t, js, "A", each)
			fill(t, js, "B", each)
			nc.Close()
			s.Shutdown()
			dir := filepath.Join(cfg.Store, "jetstream")
			c.do(t, dir, filepath.Join(dir, "$G", "streams", "A"))

			var log lines
			cfg.Logger = log.logger()
			s = start(t, cfg)
			_, js = inProcess(t, s)
			a, b := messages(t, js, "A"), messages(t, js, "B")
			t.Logf("A %d, B %d of %d; damaged %q\n%s", a, b, each, s.Damaged(), &log)
			switch c.want {
			case healthy:
				if s.Damaged() != "" || a < c.least || a > c.atMost || b != each {
					t.Error("want a healthy start")
				}
			case part:
				if a != -1 || b != each {
					t.Error("want B in use and A not")
				}
				checkAside(t, cfg, s, &log, filepath.Join("$G", "streams", "A"))
			case whole:
				if a != -1 || b != -1 {
					t.Error("want a fresh store")
				}
				checkAside(t, cfg, s, &log, "")
			}
			if a < 0 { // provisioning makes it anew
				fill(t, js, "A", 1)
			}
			s.Shutdown()
			if again := start(t, cfg); again.Damaged() != "" {
				t.Error("damaged again at the next start:", again.Damaged())
			}
		})
	}
}

func checkAside(t *testing.T, cfg embedded.Config, s *embedded.Server, log *lines, inside string) {
	t.Helper()
	if filepath.Dir(s.Damaged()) != cfg.Store || !strings.HasPrefix(filepath.Base(s.Damaged()), "jetstream.damaged-2") {
		t.Errorf("moved to %q", s.Damaged())
	}
	if _, err := os.Lstat(filepath.Join(s.Damaged(), inside)); err != nil {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, s.Damaged()) {
		t.Error("no loud word about it")
	}
}

// TestSetAsideCanBeRestored moves a stream back as the package doc says.
func TestSetAsideCanBeRestored(t *testing.T) {
	cfg := embedded.Config{Store: t.TempDir(), NoSync: true}
	s := start(t, cfg)
	_, js := inProcess(t, s)
	fill(t, js, "A", each)
	s.Shutdown()
	stream := filepath.Join(cfg.Store, "jetstream", "$G", "streams", "A")
	sum, err := os.ReadFile(filepath.Join(stream, "meta.sum"))
	if err != nil {
		t.Fatal(err)
	}
	remove(t, stream, "meta.sum")
	s = start(t, cfg)
	s.Shutdown()
	if err := os.Rename(filepath.Join(s.Damaged(), "$G", "streams", "A"), stream); err != nil {
		t.Fatal(err)
	}
	write(t, sum, stream, "meta.sum")
	s = start(t, cfg)
	_, js = inProcess(t, s)
	if n := messages(t, js, "A"); n != each || s.Damaged() != "" {
		t.Error(n, s.Damaged())
	}
}

// TestMemoryStreamsAreNotMissed: what is gone by design is no damage.
func TestMemoryStreamsAreNotMissed(t *testing.T) {
	cfg := embedded.Config{Store: t.TempDir(), NoSync: true}
	s := start(t, cfg)
	_, js := inProcess(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "M", Subjects: []string{"m"}, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "M", Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	fill(t, js, "D", each)
	if err := js.DeleteStream(t.Context(), "D"); err != nil {
		t.Fatal(err)
	}
	s.Shutdown()
	if s = start(t, cfg); s.Damaged() != "" {
		t.Error(s.Damaged())
	}
}

func write(t *testing.T, data []byte, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path ...string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(path...)); err != nil {
		t.Fatal(err)
	}
}

// toFile puts a regular file where the directory was.
func toFile(t *testing.T, path string) {
	t.Helper()
	remove(t, path)
	write(t, []byte("not a directory"), path)
}

func toDir(t *testing.T, path ...string) {
	t.Helper()
	remove(t, path...)
	if err := os.Mkdir(filepath.Join(path...), 0o700); err != nil {
		t.Fatal(err)
	}
}

func toLink(t *testing.T, path, target string) {
	t.Helper()
	if runtime.GOOS == "windows" { // links need a privilege there
		toFile(t, path)
		return
	}
	remove(t, path)
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// flip inverts a byte in the middle.
func flip(t *testing.T, path ...string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 0xff
	write(t, data, path...)
}

// truncate cuts off the second half.
func truncate(t *testing.T, path ...string) {
	t.Helper()
	name := filepath.Join(path...)
	fi, err := os.Stat(name)
	if err == nil {
		err = os.Truncate(name, fi.Size()/2)
	}
	if err != nil {
		t.Fatal(err)
	}
}
