package statedir_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/weft-fabric/weft/node/statedir"
)

type status struct {
	Word string `json:"word"`
}

func TestOneNodeAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "desk")
	d, err := statedir.Open(path, "desk")
	if err != nil {
		t.Fatal(err)
	}
	_, err = statedir.Open(path, "other")
	in, ok := errors.AsType[*statedir.InUseError](err)
	if !ok || !errors.Is(err, statedir.ErrInUse) || in.Holder.Node != "desk" || in.Holder.PID != os.Getpid() {
		t.Errorf("a second node: %v", err)
	}
	if runtime.GOOS != "windows" {
		for file, want := range map[string]os.FileMode{"": 0o700, "lock": 0o600, "holder": 0o600} {
			if fi, err := os.Stat(d.Path(file)); err != nil || fi.Mode().Perm() != want {
				t.Errorf("%s: %v %v", file, fi.Mode(), err)
			}
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := statedir.Open(path, "desk")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestTemporary(t *testing.T) {
	d, err := statedir.Open("", "desk")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("left behind:", d.Path(), err)
	}
}

func TestStatus(t *testing.T) {
	path := t.TempDir()
	var s status
	if _, err := statedir.ReadStatus(path, &s); !errors.Is(err, fs.ErrNotExist) {
		t.Error("nobody has said anything:", err)
	}
	d, err := statedir.Open(path, "desk")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "two"} {
		if err := d.WriteStatus(status{word}); err != nil {
			t.Fatal(err)
		}
		if running, err := statedir.ReadStatus(path, &s); err != nil || !running || s.Word != word {
			t.Error(running, s, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if running, err := statedir.ReadStatus(path, &s); err != nil || running || s.Word != "two" {
		t.Error("after its end:", running, s, err)
	}
	if err := os.WriteFile(filepath.Join(path, "status.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.ReadStatus(path, &s); err == nil || !strings.Contains(err.Error(), "status.json") {
		t.Error("nonsense:", err)
	}
}

// TestReadersSeeWholeStatus: whoever reads while a node writes sees what it said before
// or after, and keeps no node from starting.
func TestReadersSeeWholeStatus(t *testing.T) {
	path := t.TempDir()
	d, err := statedir.Open(path, "desk")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteStatus(status{"x"}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				var s status
				if _, err := statedir.ReadStatus(path, &s); err != nil || strings.Trim(s.Word, "x") != "" {
					t.Errorf("%+v %v", s, err)
					return
				}
			}
		})
	}
	for i := range 200 {
		if err := d.WriteStatus(status{strings.Repeat("x", 1000*(i%50))}); err != nil {
			t.Error(err)
		}
	}
	for range 20 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if d, err = statedir.Open(path, "desk"); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(path, ".new-*"))
	if err != nil || len(left) > 0 {
		t.Error("left behind:", left, err)
	}
}

// A holder that is nonsense blames nobody.
func TestStaleHolder(t *testing.T) {
	path := t.TempDir()
	d, err := statedir.Open(path, "desk")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	data, err := json.Marshal("nonsense")
	if err == nil {
		err = os.WriteFile(d.Path("holder"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.Open(path, "other"); !errors.Is(err, statedir.ErrInUse) || !strings.Contains(err.Error(), "another node") {
		t.Error(err)
	}
}
