// Package weft_test checks the shape of the tree: who imports whom, which
// outside modules each folder may use, and that every package says what it is.
// It parses the files itself, because the test cache notices a file that a
// test reads but not one that a "go list" started by the test reads.
package weft_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/weft-fabric/weft"

// arrows is the table of ARCHITECTURE.md: each folder, and which others of
// ours it may import. "x/..." is x with all below it, "..." is everything.
// A folder that is not here may not hold Go.
var arrows = map[string]string{
	".":                "",
	"subjects":         "",
	"wire":             "subjects",
	"link":             "wire subjects",
	"alarm":            "",
	"kv":               "alarm link wire subjects",
	"node/statedir":    "",
	"node/embedded":    "node/statedir",
	"node/directory":   "kv link wire subjects",
	"node/queue":       "",
	"node/journal":     "node/statedir wire",
	"node/interop":     "node/directory node/queue link wire subjects",
	"node/topics":      "node/queue link wire subjects",
	"node/restriction": "wire",
	"node/contexts":    "alarm kv link node/journal node/restriction wire subjects",
	"node/channels":    "node/contexts node/directory link wire subjects",
	"node": "node/embedded node/statedir node/directory node/journal node/interop node/topics node/contexts node/channels " +
		"node/restriction alarm kv link wire subjects",
	"gateway/edge":     "wire",
	"gateway/platform": "wire subjects",
	"gateway":          "gateway/edge gateway/platform node node/restriction kv wire subjects",
	"console":          "node",
	"cmd/weft":         "gateway gateway/edge node node/... kv link wire subjects",
	"examples/...":     "node",
	"test/...":         "...",
}

// outside says which folders may import a module that is neither ours nor the
// standard library. Tests, and all below test, may import any.
var outside = map[string]string{
	"github.com/alecthomas/kong":                 "cmd/weft",
	"github.com/coder/websocket":                 "gateway gateway/edge console cmd/weft",
	"github.com/go-json-experiment/json":         "wire",
	"github.com/goccy/go-yaml":                   "cmd/weft",
	"github.com/gofrs/flock":                     "node node/statedir",
	"github.com/jedib0t/go-pretty/v6":            "cmd/weft",
	"github.com/lmittmann/tint":                  "cmd/weft",
	"github.com/nats-io/nats-server/v2":          "node/embedded",
	"github.com/nats-io/nats.go":                 "link kv node/... cmd/weft",
	"github.com/synadia-io/orbit.go/natscontext": "cmd/weft",
	"github.com/vmihailenco/msgpack/v5":          "wire",
	"golang.org/x/sys":                           "node gateway/edge",
	"golang.org/x/term":                          "cmd/weft",
}

// planned holds the folders of the table that may still be missing.
var planned = []string{
	"console", "examples/...",
}

func TestArchitecture(t *testing.T) {
	for _, p := range problems(os.DirFS("."), planned) {
		t.Error(p)
	}
}

func TestArchitectureIsDocumented(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for folder := range arrows {
		name := strings.TrimSuffix(folder, "/...")
		whole := regexp.MustCompile(`(?m)(^|[^\w/.-])` + regexp.QuoteMeta(name) + `([^\w/-]|$)`)
		if name != "." && !whole.Match(text) {
			t.Errorf("ARCHITECTURE.md does not mention %s", name)
		}
	}
}

// TestArchitectureNoticesFaults breaks a sound tree in one place at a time.
func TestArchitectureNoticesFaults(t *testing.T) {
	const doc = "// Package p is here.\n// It owns little.\n// It does less.\n"
	sound := func() fstest.MapFS {
		tree := fstest.MapFS{}
		for folder := range arrows {
			dir := strings.TrimSuffix(folder, "/...")
			tree[path.Join(dir, "p.go")] = &fstest.MapFile{Data: []byte(doc + "package p\n")}
		}
		return tree
	}
	if got := problems(sound(), nil); len(got) > 0 {
		t.Fatalf("sound tree: %q", got)
	}
	missing := sound()
	delete(missing, "kv/p.go")
	if got := problems(missing, nil); len(got) != 1 {
		t.Errorf("no kv: %q, want one problem", got)
	}
	if got := problems(missing, []string{"kv"}); len(got) > 0 {
		t.Errorf("no kv, but planned: %q", got)
	}

	nats, server := "github.com/nats-io/nats.go", "github.com/nats-io/nats-server/v2/server"
	tests := []struct {
		name, file, src string
		want            int
	}{
		{"arrow up", "kv/x.go", "package p\nimport _ \"" + module + "/node\"\n", 1},
		{"arrow sideways", "node/topics/x.go", "package p\nimport _ \"" + module + "/node/interop\"\n", 1},
		{"import of the root", "wire/x.go", "package p\nimport _ \"" + module + "\"\n", 1},
		{"stray folder", "util/x.go", doc + "package p\n", 1},
		{"stray folder of tests", "util/x_test.go", doc + "package p\n", 1},
		{"folder below a folder", "wire/inner/x.go", doc + "package p\n", 1},
		{"no doc", "subjects/p.go", "package p\n", 1},
		{"short doc", "subjects/p.go", "// Package p is here.\n//\n// It is.\npackage p\n", 1},
		{"two docs", "subjects/x.go", doc + "package p\n", 1},
		{"tests without doc", "test/faults/x_test.go", "package p\n", 1},
		{"server outside embedded", "node/x.go", "package p\nimport _ \"" + server + "\"\n", 1},
		{"NATS in the gateway", "gateway/x.go", "package p\nimport _ \"" + nats + "\"\n", 1},
		{"unknown module", "node/x.go", "package p\nimport _ \"example.com/left-pad\"\n", 1},
		{"behind a build tag", "kv/x_windows.go", "//go:build windows\n\npackage p\nimport _ \"" + server + "\"\n", 1},
		{"not Go", "kv/x.go", "packag p\n", 1},

		{"arrow down", "kv/x.go", "package p\nimport _ \"" + module + "/wire\"\n", 0},
		{"NATS in node/topics", "node/topics/x.go", "package p\nimport _ \"" + nats + "/jetstream\"\n", 0},
		{"test file", "kv/x_test.go", doc + "package p\nimport _ \"" + server + "\"\n", 0},
		{"folder test", "test/faults/x.go", doc + "package p\nimport _ \"" + server + "\"\nimport _ \"" + module + "/kv\"\n", 0},
		{"example", "examples/quotes/x.go", doc + "package p\nimport _ \"" + module + "/node\"\n", 0},
		{"testdata", "util/testdata/x.go", "package p\n", 0},
		{"npm", "test/clients/node_modules/x/x.go", "package p\n", 0},
	}
	for _, tt := range tests {
		tree := sound()
		tree[tt.file] = &fstest.MapFile{Data: []byte(tt.src)}
		if got := problems(tree, nil); len(got) != tt.want {
			t.Errorf("%s: %q, want %d problems", tt.name, got, tt.want)
		}
	}
}

// folder is what the walk learns of one: whether it holds more than tests, and
// the number of lines in each package doc of its code and of its tests.
type folder struct {
	code           bool
	docs, testDocs []int
}

// problems lists what is wrong with the tree. Other modules inside it, and
// folders that hold no code of ours, are not looked into.
func problems(tree fs.FS, planned []string) (list []string) {
	report := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	folders := map[string]*folder{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && foreign(tree, name):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		src, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			report("%v", err)
			return nil
		}
		dir := path.Dir(name)
		if folders[dir] == nil {
			folders[dir] = &folder{}
		}
		docs := &folders[dir].docs
		if strings.HasSuffix(name, "_test.go") {
			docs = &folders[dir].testDocs
		} else {
			folders[dir].code = true
			for _, spec := range file.Imports {
				imp, _ := strconv.Unquote(spec.Path.Value)
				if !mayImport(dir, imp) {
					report("%s may not import %s", name, imp)
				}
			}
		}
		if file.Doc != nil {
			lines := strings.FieldsFunc(file.Doc.Text(), func(r rune) bool { return r == '\n' })
			*docs = append(*docs, len(lines))
		}
		return nil
	})
	if err != nil {
		report("%v", err)
	}

	present := map[string]bool{}
	for _, dir := range slices.Sorted(maps.Keys(folders)) {
		key, ok := row(dir)
		if !ok {
			report("%s is not in the table of folders", dir)
		}
		present[key] = true
		docs := folders[dir].docs
		if !folders[dir].code {
			docs = folders[dir].testDocs
		}
		switch {
		case len(docs) != 1:
			report("%s has %d package docs, want one", dir, len(docs))
		case docs[0] < 3:
			report("%s has a package doc of %d lines, want three or more", dir, docs[0])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(arrows)) {
		if !present[key] && !slices.Contains(planned, key) {
			report("%s is in the table but not in the tree", key)
		}
	}
	return list
}

// foreign reports whether the go command, or this project, keeps out of dir.
func foreign(tree fs.FS, dir string) bool {
	if dir == "." {
		return false
	}
	base := path.Base(dir)
	_, err := fs.Stat(tree, path.Join(dir, "go.mod"))
	return err == nil || base[0] == '.' || base[0] == '_' || base == "testdata" || base == "node_modules"
}

// mayImport reports whether code in dir may import imp. A folder without a row
// is reported by itself, so its imports are not.
func mayImport(dir, imp string) bool {
	key, ok := row(dir)
	if !ok || arrows[key] == "..." {
		return true
	}
	if below(module, imp) {
		return matches(arrows[key], path.Clean(strings.TrimPrefix(imp[len(module):], "/")))
	}
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
		return true
	}
	for mod, users := range outside {
		if below(mod, imp) {
			return matches(users, dir)
		}
	}
	return false
}

// row finds the row of the table that dir belongs to.
func row(dir string) (key string, ok bool) {
	for key := range arrows {
		if matches(key, dir) {
			return key, true
		}
	}
	return "", false
}

// matches reports whether one of the patterns, separated by spaces, names dir.
func matches(patterns, dir string) bool {
	return slices.ContainsFunc(strings.Fields(patterns), func(p string) bool {
		parent, deep := strings.CutSuffix(p, "/...")
		return p == dir || deep && below(parent, dir)
	})
}

// below reports whether name is parent or lies in it.
func below(parent, name string) bool {
	return name == parent || strings.HasPrefix(name, parent+"/")
}
