package platform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/wire"
)

const (
	get = "T42.Prefs.Get"
	set = "T42.Prefs.Set"
)

func TestPrefs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		anna := h.connect("a")
		ben := h.connect("b")
		ben.Login = "ben"
		p := start(t, h, Config{})
		at := func() string { return fmt.Sprintf(`"lastUpdate":"#T42_DATE#%d"`, time.Now().UnixMilli()) }
		first := at()
		for _, tt := range []struct {
			by                 Caller
			method, args, want string
		}{
			{anna, get, `{"app":"a"}`, `{"app":"a","data":{}}`},
			{anna, get, ``, `{"all":[]}`},
			{anna, set, `{"app":"a","data":{"x":1,"o":{"p":1,"q":[1.50,"<&>"]}},"merge":false}`, `{}`},
			{anna, get, `{"app":"a"}`, `{"app":"a","data":{"o":{"p":1,"q":[1.50,"\u003c\u0026\u003e"]},"x":1},` + first + `}`},
			{anna, set, `{"app":"a","data":{"y":2,"o":{"r":null}},"merge":true}`, `{}`},
			{anna, get, `{"app":"a"}`, `{"app":"a","data":{"o":{"r":null},"x":1,"y":2},` + first + `}`},
			{anna, set, `{"app":"a","data":{"z":3}}`, `{}`},
			{anna, get, `{"app":"a"}`, `{"app":"a","data":{"z":3},` + first + `}`},
			{anna, set, `{"app":"b","data":{"new":true},"merge":true}`, `{}`},
			{anna, set, `{"app":"A","data":{"big":"A"}}`, `{}`},
			{anna, set, `{"app":"../ ü","data":{}}`, `{}`},
			{ben, get, `{"app":"a"}`, `{"app":"a","data":{}}`},
			{ben, set, `{"app":"a","data":{"of":"ben"}}`, `{}`},
			{anna, get, `{}`, `{"all":[{"app":"../ ü","data":{},` + first + `},{"app":"A","data":{"big":"A"},` + first + `},` +
				`{"app":"a","data":{"z":3},` + first + `},{"app":"b","data":{"new":true},` + first + `}]}`},
			{anna, set, `{"app":"b","clear":true}`, `{}`},
			{anna, set, `{"app":"b","clear":true}`, `{}`},
			{anna, get, `{"app":"b"}`, `{"app":"b","data":{}}`},
			{anna, set, `{"clear":true}`, `{}`},
			{anna, get, `null`, `{"all":[]}`},
			{ben, get, ``, `{"all":[{"app":"a","data":{"of":"ben"},` + first + `}]}`},

			{anna, set, `{"app":"a"}`, `bad-payload: preferences need data, which is an object`},
			{anna, set, `{"app":"a","data":null}`, `bad-payload: preferences need data, which is an object`},
			{anna, set, `{"app":"a","data":[1]}`, `bad-payload: arguments: array, want object`},
			{anna, set, `{"data":{}}`, `bad-payload: preferences need the name of their app`},
			{anna, set, `{"app":"a","clear":"yes"}`, `bad-payload: clear: string, want bool`},
			{anna, get, `{"app":7}`, `bad-payload: app: number, want string`},
			{anna, get, `{"app":"` + strings.Repeat("a", 256) + `"}`, `bad-name: bad name "` + strings.Repeat("a", 64) + `"...: longer than 255 bytes`},
			{anna, set, `{"app":"` + strings.Repeat("a", 256) + `","data":{}}`, `bad-name: bad name "` + strings.Repeat("a", 64) + `"...: longer than 255 bytes`},
			{anna, set, `{"app":"` + strings.Repeat("a", 256) + `","clear":true}`, `bad-name: bad name "` + strings.Repeat("a", 64) + `"...: longer than 255 bytes`},
			{anna, set, `{"app":"` + strings.Repeat("a", 255) + `","data":{}}`, `{}`},
			{anna, get, ``, `{"all":[{"app":"` + strings.Repeat("a", 255) + `","data":{},` + first + `}]}`},
		} {
			if got := call(t, p, tt.by, tt.method, tt.args); got != tt.want {
				t.Errorf("%s %s by %s:\n got %s\nwant %s", tt.method, tt.args, tt.by.Login, got, tt.want)
			}
		}
		if p.store.files != 2 {
			t.Errorf("%d files counted, there are 2", p.store.files)
		}
	})
}

func TestPrefsSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		a, b, ben := h.connect("a"), h.connect("b"), h.connect("ben")
		ben.Login = "ben"
		for _, c := range []Caller{a, b, ben} {
			h.register(c, updateMethod, func(string) (string, error) { return "{}", nil })
		}
		p := start(t, h, Config{})
		do := func(c Caller, method, args string, want ...string) {
			t.Helper()
			if got := call(t, p, c, method, args); strings.Contains(got, ":") && !strings.HasPrefix(got, "{") {
				t.Errorf("%s: %s", args, got)
			}
			synctest.Wait()
			got := h.happened()
			slices.Sort(got)
			for i := range got {
				got[i], _, _ = strings.Cut(got[i], `,"lastUpdate"`)
			}
			for i := range want {
				want[i] = "invoke " + strings.Replace(want[i], " ", " T42.Prefs.Update ", 1)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s:\n got %s\nwant %s", args, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
			}
		}
		do(a, get, `{"app":"a","subscribe":true}`, `p-a {"app":"a","data":{}}`)
		do(b, get, `{"app":"a","subscribe":true}`, `p-b {"app":"a","data":{}}`)
		do(b, get, `{"app":"b","subscribe":true}`, `p-b {"app":"b","data":{}}`)
		do(ben, get, `{"app":"a","subscribe":true}`, `p-ben {"app":"a","data":{}}`)
		do(b, set, `{"app":"a","data":{"x":1}}`, `p-a {"app":"a","data":{"x":1}`, `p-b {"app":"a","data":{"x":1}`)
		do(a, set, `{"app":"b","data":{"y":1},"merge":true}`, `p-b {"app":"b","data":{"y":1}`)
		do(ben, set, `{"app":"c","data":{"y":1}}`)
		do(ben, set, `{"app":"a","data":{"z":1}}`, `p-ben {"app":"a","data":{"z":1}`)
		do(a, set, `{"app":"a","clear":true}`, `p-a {"app":"a","data":{}}`, `p-b {"app":"a","data":{}}`)
		do(a, set, `{"clear":true}`, `p-a {"app":"a","data":{}}`, `p-b {"app":"a","data":{}}`, `p-b {"app":"b","data":{}}`)
		p.Left(b.Peer)
		do(a, set, `{"app":"b","data":{"y":1}}`)
	})
}

// TestPrefsSlowSubscriber: one that is slow is told of the newest state, and in the
// end has it.
func TestPrefsSlowSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		a := h.connect("a")
		h.register(a, updateMethod, func(string) (string, error) {
			time.Sleep(time.Second)
			h.note("told")
			return "", wire.Errorf(wire.AppError, "nobody listens") // which changes nothing
		})
		p := start(t, h, Config{})
		call(t, p, a, get, `{"app":"a","subscribe":true}`)
		synctest.Wait()
		for n := range 10 {
			call(t, p, a, set, fmt.Sprintf(`{"app":"a","data":{"n":%d}}`, n))
		}
		time.Sleep(time.Minute)
		want := []string{
			`invoke p-a T42.Prefs.Update {"app":"a","data":{}}`, "told",
			`invoke p-a T42.Prefs.Update {"app":"a","data":{"n":9},"lastUpdate":"#T42_DATE#946684800000"}`, "told",
		}
		if got := h.happened(); !slices.Equal(got, want) {
			t.Errorf("%q,\nwant %q", got, want)
		}
	})
}

func TestPrefsSubscriptionsAreBounded(t *testing.T) {
	h := newFakeHost()
	a := h.connect("a")
	p := start(t, h, Config{})
	p.prefs[a.Peer] = &prefsWatch{login: "anna", apps: map[string]bool{}, telling: true}
	for i := range wire.MaxSubscriptions {
		p.prefs[a.Peer].apps[fmt.Sprint(i)] = false
	}
	if got := call(t, p, a, get, `{"app":"x","subscribe":true}`); got != "limit: subscriptions to the preferences of 2000 apps, the limit is 2000" {
		t.Errorf("one more: %s", got)
	}
	if got := call(t, p, a, get, `{"app":"7","subscribe":true}`); got != `{"app":"7","data":{}}` {
		t.Errorf("one of them: %s", got)
	}
}

// testStore is a store that is closed with the test.
func testStore(t *testing.T, dir string) *store {
	t.Helper()
	log, _ := logger()
	s, err := openStore(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return s
}

func object(text string) map[string]json.RawMessage {
	var o map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	return o
}

// text is the preferences of an app of anna as JSON, or the error.
func text(s *store, app string) string {
	f, err := s.get("anna", app)
	if err != nil {
		return err.Error()
	}
	b, _ := json.Marshal(f.Data)
	return string(b)
}

// tree lists the files of a directory with their modes.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		list = append(list, fmt.Sprintf("%s %v", name, info.Mode()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestStoreLasts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := testStore(t, dir)
	for _, app := range []string{"blotter", "Blotter", "CON", "x/y"} {
		if err := s.set("anna", app, object(fmt.Sprintf(`{"of":%q}`, app)), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.set("", "", object(`{}`), false); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		". drwx------", "=-e3b0c442 drwx------", "=-e3b0c442/=-e3b0c442.json -rw-------", "anna-55579b55 drwx------",
		"anna-55579b55/Blotter-eaf62cb8.json -rw-------", "anna-55579b55/CON-a3dbc4b6.json -rw-------",
		"anna-55579b55/blotter-309b512e.json -rw-------", "anna-55579b55/x=2Fy-bd3c9047.json -rw-------",
	}
	if got := tree(t, dir); runtime.GOOS != "windows" && !slices.Equal(got, want) { // which has other modes
		t.Errorf("files %q,\nwant %q", got, want)
	}

	// A crash has left a file that was not renamed.
	left := filepath.Join(dir, "anna-55579b55", newFile)
	if err := os.WriteFile(left, []byte(`{"user":"an`), 0o600); err != nil {
		t.Fatal(err)
	}
	s = testStore(t, dir)
	if s.files != 5 {
		t.Errorf("%d files counted, there are 5", s.files)
	}
	for _, app := range []string{"blotter", "Blotter", "CON", "x/y"} {
		if got, want := text(s, app), fmt.Sprintf(`{"of":%q}`, app); got != want {
			t.Errorf("%s: %s, want %s", app, got, want)
		}
	}
	if all, err := s.all("anna"); len(all) != 4 || err != nil {
		t.Errorf("%d files, %v, want 4", len(all), err)
	}
	if err := s.set("anna", "CON", object(`{"new":1}`), true); err != nil {
		t.Error(err)
	}
	if got := text(s, "CON"); got != `{"new":1,"of":"CON"}` {
		t.Errorf("merged after the crash: %s", got)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of the crash is still there: %v", err)
	}
}

func TestDamagedFilesAreSetAside(t *testing.T) {
	good := `{"user":"anna","app":"blotter","updated":"2026-11-21T10:00:00Z","data":{"x":1}}`
	for name, damaged := range map[string]string{
		"empty":           "",
		"cut short":       good[:len(good)-4],
		"zeros":           strings.Repeat("\x00", 4096),
		"not JSON":        "hello",
		"two values":      good + good,
		"too deep":        strings.Replace(good, "1}", strings.Repeat("[", 70)+strings.Repeat("]", 70)+"}", 1),
		"too large":       strings.Replace(good, "1}", `"`+strings.Repeat("a", maxFile)+`"}`, 1),
		"no data":         `{"user":"anna","app":"blotter","updated":"2026-11-21T10:00:00Z"}`,
		"data is a list":  `{"user":"anna","app":"blotter","updated":"2026-11-21T10:00:00Z","data":[]}`,
		"no time":         `{"user":"anna","app":"blotter","data":{"x":1}}`,
		"a bad time":      strings.Replace(good, "2026-11-21", "yesterday", 1),
		"another app":     strings.Replace(good, `"blotter"`, `"pricer"`, 1),
		"another user":    strings.Replace(good, `"anna"`, `"ben"`, 1),
		"a name too long": strings.Replace(good, `"blotter"`, `"`+strings.Repeat("a", 256)+`"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log, logged := logger()
			s, err := openStore(dir, log)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.close() }()
			for _, app := range []string{"blotter", "other"} {
				if err := s.set("anna", app, object(`{"x":1}`), false); err != nil {
					t.Fatal(err)
				}
			}
			path, err := pathOf("anna", "blotter")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, path)
			if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
				t.Fatal(err)
			}
			if all, err := s.all("anna"); len(all) != 1 || all[0].App != "other" || err != nil {
				t.Errorf("all: %v, %v, want the other app", all, err)
			}
			if got := text(s, "blotter"); got != "null" {
				t.Errorf("get: %s, want nothing", got)
			}
			aside, err := filepath.Glob(file + bad + "*")
			if len(aside) != 1 || err != nil {
				t.Fatalf("set aside: %q, %v, want one file", aside, err)
			}
			if kept, err := os.ReadFile(aside[0]); !bytes.Equal(kept, []byte(damaged)) || err != nil {
				t.Errorf("%d bytes were kept, %v, want %d", len(kept), err, len(damaged))
			}
			if text := logged.String(); !strings.Contains(text, "WARN") || !strings.Contains(text, aside[0]) || strings.Count(text, "\n") != 1 {
				t.Errorf("log: %s", text)
			}
			if s.files != 1 {
				t.Errorf("%d files counted, there is 1", s.files)
			}
			if err := s.set("anna", "blotter", object(`{"y":2}`), true); err != nil {
				t.Error(err)
			}
			if got := text(s, "blotter"); got != `{"y":2}` || s.files != 2 {
				t.Errorf("afterwards: %s, %d files", got, s.files)
			}
		})
	}
}

func TestStoreIsBounded(t *testing.T) {
	s := testStore(t, t.TempDir())
	if err := s.set("anna", "a", object(`{"x":1}`), false); err != nil {
		t.Fatal(err)
	}
	large := map[string]json.RawMessage{"y": json.RawMessage(`"` + strings.Repeat("a", maxFile-200) + `"`)}
	if err := s.set("anna", "large", large, false); err != nil {
		t.Errorf("just below the limit: %v", err)
	}
	maps.Copy(large, object(`{"z":"`+strings.Repeat("a", 200)+`"}`))
	if err := s.set("anna", "a", large, true); !errors.Is(err, wire.ErrLimit) {
		t.Errorf("above the limit: %v", err)
	}
	if got := text(s, "a"); got != `{"x":1}` {
		t.Errorf("after it: %.50s", got)
	}

	for i := range maxAll/(maxFile-200) + 1 {
		if err := s.set("ben", fmt.Sprint(i), map[string]json.RawMessage{"y": large["y"]}, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.all("ben"); !errors.Is(err, wire.ErrLimit) {
		t.Errorf("all: %v, want limit", err)
	}

	s.files = maxFiles
	if err := s.set("anna", "new", object(`{}`), false); !errors.Is(err, wire.ErrLimit) {
		t.Errorf("one file more: %v", err)
	}
	if err := s.set("anna", "a", object(`{}`), false); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	if err := s.clear("anna", "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.set("anna", "new", object(`{}`), false); err != nil {
		t.Errorf("after one was cleared: %v", err)
	}
}

func TestStoreFails(t *testing.T) {
	outside := t.TempDir()
	dir := t.TempDir()
	for user, prepare := range map[string]func(path string) error{
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"link": func(path string) error { return os.Symlink(outside, path) },
	} {
		if user == "link" && runtime.GOOS == "windows" {
			continue // needs a privilege there
		}
		name, err := fileName(user)
		if err == nil {
			err = prepare(filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := testStore(t, dir)
	for _, user := range []string{"file", "link", "closed"} {
		if user == "closed" {
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
		}
		_, getErr := s.get(user, "a")
		_, allErr := s.all(user)
		for what, err := range map[string]error{
			"get": getErr, "all": allErr, "set": s.set(user, "a", object(`{}`), false), "clear": s.clear(user, "a"), "clear all": s.clearAll(user),
		} {
			if !errors.Is(err, wire.ErrUnavailable) {
				t.Errorf("%s, %s: %v, want unavailable", user, what, err)
			}
		}
	}
	if files := tree(t, outside); len(files) != 1 {
		t.Errorf("written outside: %q", files)
	}
	name, _ := fileName("file")
	if _, err := openStore(filepath.Join(dir, name), nil); !errors.Is(err, wire.ErrUnavailable) {
		t.Errorf("a file as a store: %v, want unavailable", err)
	}
	if err := failed(fmt.Errorf("write: %w", syscall.ENOSPC)); !errors.Is(err, wire.ErrStorageFull) {
		t.Errorf("a full disk: %v", err)
	}
}

func TestStoreConcurrently(t *testing.T) {
	s := testStore(t, t.TempDir())
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 25 {
				if err := s.set("anna", "a", object(fmt.Sprintf(`{"%d.%d":1}`, g, i)), true); err != nil {
					t.Error(err)
				}
				if _, err := s.get("anna", "a"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if f, err := s.get("anna", "a"); len(f.Data) != 100 || err != nil {
		t.Errorf("%d keys, %v, want 100", len(f.Data), err)
	}
}
