package embedded_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/weft-fabric/weft/node/embedded"
)

func TestCredentialsFile(t *testing.T) {
	cfg := listening(t)
	cfg.Credentials = filepath.Join(t.TempDir(), "a", "servers")
	cfg.Listen = freeAddress(t)
	s := start(t, cfg)
	file := filepath.Join(cfg.Credentials, strings.ReplaceAll(cfg.Listen, ":", "-")+".json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"url", "user", "password", "node", "pid"} {
		if fields[name] == nil || fields[name] == "" {
			t.Errorf("no %s in %s", name, data)
		}
	}
	if runtime.GOOS != "windows" {
		for path, want := range map[string]os.FileMode{file: 0o600, cfg.Credentials: 0o700, filepath.Join(cfg.Store, "lock"): 0o600, filepath.Join(cfg.Store, "holder"): 0o600} {
			if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
				t.Errorf("%s: %v, %v", path, fi.Mode(), err)
			}
		}
	}
	s.Shutdown()
	if c, ok, err := embedded.FindURL(cfg.Credentials, cfg.Listen); !ok || err != nil || c.PID != 0 || c.Password != s.Credentials().Password {
		t.Error("after an orderly stop:", c, ok, err)
	}
	// A file that a crashed disk has emptied is no reason not to start.
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if again := start(t, cfg); again.Credentials().Password == s.Credentials().Password {
		t.Error("where did the old password come from?")
	}
}

func TestLooseModeRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("no modes on Windows: nothing to refuse")
		return
	}
	cfg := listening(t)
	cfg.Listen = freeAddress(t)
	start(t, cfg).Shutdown()
	file := filepath.Join(cfg.Credentials, strings.ReplaceAll(cfg.Listen, ":", "-")+".json")
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	_, startErr := embedded.Start(t.Context(), cfg, nil)
	_, ok, urlErr := embedded.FindURL(cfg.Credentials, cfg.Listen)
	found, findErr := embedded.Find(cfg.Credentials)
	for _, err := range []error{startErr, urlErr, findErr} {
		if !errors.Is(err, embedded.ErrPermissions) || !strings.Contains(err.Error(), "chmod 600 "+file) {
			t.Error(err)
		}
	}
	if ok || len(found) != 0 {
		t.Error(ok, found)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, cfg).Shutdown()
	if err := os.Chmod(cfg.Credentials, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Start(t.Context(), cfg, nil); !errors.Is(err, embedded.ErrPermissions) {
		t.Error("directory:", err)
	}
}

func TestFind(t *testing.T) {
	if found, err := embedded.Find(filepath.Join(t.TempDir(), "none")); found != nil || err != nil {
		t.Fatal(found, err)
	}
	dir := t.TempDir()
	write := func(name, data string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("127.0.0.1-1.json", `{"url":"nats://127.0.0.1:1","user":"weft","password":"p","node":"stopped","pid":0}`)
	write("127.0.0.1-2.json", `not JSON`)
	write("notes.txt", "of no concern")
	write(".new-1.json", "left by a crash")
	cfg := listening(t)
	cfg.Credentials = dir
	live := start(t, cfg).Credentials()
	found, err := embedded.Find(dir)
	if len(found) != 2 || found[0] != live || found[1].Node != "stopped" {
		t.Error(found)
	}
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1-2.json") {
		t.Error("the unusable file:", err)
	}
}

func TestFindURL(t *testing.T) {
	dir := t.TempDir()
	want := embedded.Credentials{URL: "nats://127.0.0.1:4222", User: "weft", Password: "p", Node: "hub", PID: 7}
	data, _ := json.Marshal(want)
	if err := os.WriteFile(filepath.Join(dir, "127.0.0.1-4222.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"nats://127.0.0.1:4222", "nats://127.0.0.1", "nats://localhost:4222/", "localhost:4222", "LOCALHOST", "127.0.0.1", "tls://127.0.0.1"} {
		if c, ok, err := embedded.FindURL(dir, url); !ok || err != nil || c != want {
			t.Errorf("%s: %v, %v, %v", url, c, ok, err)
		}
	}
	for _, url := range []string{"", "nats://127.0.0.1:4223", "nats://192.0.2.1:4222", "nats://a:4222,nats://b:4222", "127.0.0.1:99999", "http://127.0.0.1:4222", "%zz"} {
		if c, ok, err := embedded.FindURL(dir, url); ok || err != nil {
			t.Errorf("%s: %v, %v, %v", url, c, ok, err)
		}
	}
}

func TestDataDir(t *testing.T) {
	home := t.TempDir()
	want := filepath.Join(home, "weft")
	switch runtime.GOOS {
	case "windows":
		t.Setenv("LOCALAPPDATA", home)
	case "darwin":
		t.Setenv("HOME", home)
		want = filepath.Join(home, "Library", "Application Support", "weft")
	default:
		t.Setenv("XDG_DATA_HOME", home)
	}
	if got := embedded.DataDir(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if runtime.GOOS == "linux" {
		t.Setenv("XDG_DATA_HOME", "relative")
		t.Setenv("HOME", home)
		if got := embedded.DataDir(); got != filepath.Join(home, ".local", "share", "weft") {
			t.Error(got)
		}
	}
	cfg := listening(t)
	cfg.Credentials = ""
	s := start(t, cfg)
	if found, err := embedded.Find(""); err != nil || len(found) != 1 || found[0] != s.Credentials() {
		t.Error(found, err)
	}
}
