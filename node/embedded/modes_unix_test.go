//go:build unix

package embedded_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weft-fabric/weft/node/embedded"
)

// TestModes: a missing right is an error that leaves the store as it is, or it
// does no harm; it is never damage. Modes do not stop root, so root runs it as another user.
func TestModes(t *testing.T) {
	if os.Getuid() == 0 {
		asNobody(t)
		return
	}
	for _, c := range []struct {
		name string
		path string // below the store; loses all rights but mode
		mode os.FileMode
		up   bool // nats-server manages without the right
	}{
		{"store read-only", ".", 0o500, false},
		{"jetstream read-only", "jetstream", 0o500, false},
		{"streams unreadable", "jetstream/$G/streams", 0, false},
		{"stream unreadable", "jetstream/$G/streams/A", 0, false},
		{"meta.inf unreadable", "jetstream/$G/streams/A/meta.inf", 0, false},
		{"stream read-only", "jetstream/$G/streams/A", 0o500, false},
		{"index unreadable", "jetstream/$G/streams/A/msgs/index.db", 0, true},
		{"block unreadable", "jetstream/$G/streams/A/msgs/1.blk", 0, false},
		{"msgs read-only", "jetstream/$G/streams/A/msgs", 0o500, true},
		{"msgs unreadable", "jetstream/$G/streams/A/msgs", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := embedded.Config{Store: filepath.Join(t.TempDir(), "store"), NoSync: true}
			s := start(t, cfg)
			nc, js := inProcess(t, s)
			fill(t, js, "A", each)
			fill(t, js, "B", each)
			nc.Close()
			s.Shutdown()
			path := filepath.Join(cfg.Store, c.path)
			fi, err := os.Stat(path)
			if err == nil {
				err = os.Chmod(path, c.mode)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(path, 0o700)

			s, err = embedded.Start(t.Context(), cfg, nil)
			if (err == nil) != c.up || c.up && s.Damaged() != "" {
				t.Error("wrong: ", err)
			}
			if err == nil {
				s.Shutdown()
			}
			t.Log(err)
			if err := os.Chmod(path, fi.Mode().Perm()); err != nil {
				t.Fatal(err)
			}
			s = start(t, cfg)
			_, js = inProcess(t, s)
			if a, b := messages(t, js, "A"), messages(t, js, "B"); a != each || b != each || s.Damaged() != "" {
				t.Errorf("after the right was given back: A %d, B %d, damaged %q", a, b, s.Damaged())
			}
		})
	}
}

func asNobody(t *testing.T) {
	t.Helper()
	// The directories of the test binary and of t.TempDir are closed to others.
	dir, err := os.MkdirTemp("", "embedded-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "test")
	const nobody = 65534
	if err := errors.Join(os.WriteFile(bin, data, 0o700), os.Chown(bin, nobody, nobody), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "-test.run=^TestModes$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: TestModes/msgs_unreadable") {
		t.Error(err)
	}
}
