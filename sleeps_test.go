package weft_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestSleepsAreFake: a test may sleep only in a bubble of testing/synctest, where
// it costs no time and ends when everything that was to happen by then has
// happened. Elsewhere it waits for something by guessing how long that takes.
func TestSleepsAreFake(t *testing.T) {
	for _, p := range sleeps(os.DirFS(".")) {
		t.Error(p)
	}
}

// sleeps lists the calls of time.Sleep in tests that may be made outside of a
// bubble. Functions are told apart by their names within a folder, which errs on
// the side of a complaint.
func sleeps(tree fs.FS) (problems []string) {
	folders := map[string][]*ast.File{}
	set := token.NewFileSet()
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		src, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(set, name, src, 0)
		folders[path.Dir(name)] = append(folders[path.Dir(name)], file)
		return err
	})
	if err != nil {
		return []string{err.Error()}
	}
	for _, files := range folders {
		problems = append(problems, sleepsOf(set, files)...)
	}
	slices.Sort(problems)
	return problems
}

// sleeper is what sleepsOf knows of one folder.
type sleeper struct {
	bubbles map[string]bool     // functions that run one that they are given in a bubble
	real    map[string]string   // functions that sleep outside of one, and where
	uses    map[string][]string // which functions use a function outside of one
}

func sleepsOf(set *token.FileSet, files []*ast.File) (problems []string) {
	var funcs []*ast.FuncDecl
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				funcs = append(funcs, fn)
			}
		}
	}
	s := sleeper{bubbles: map[string]bool{"synctest.Test": true}, real: map[string]string{}, uses: map[string][]string{}}
	for known := 0; known < len(s.bubbles); {
		known = len(s.bubbles)
		for _, fn := range funcs {
			if takesFunc(fn) && s.callsBubble(fn.Body) {
				s.bubbles[fn.Name.Name] = true
			}
		}
	}
	for _, fn := range funcs {
		if !beginsInBubble(fn) {
			s.walk(set, fn.Name.Name, fn.Body)
		}
	}
	for names := sorted(s.real); len(names) > 0; names = names[1:] {
		name := names[0]
		if isEntry(name) {
			problems = append(problems, s.real[name]+": "+name+" sleeps outside of a bubble")
		}
		for _, user := range s.uses[name] {
			if s.real[user] == "" {
				s.real[user] = s.real[name]
				names = append(names, user)
			}
		}
	}
	return problems
}

// walk notes what a function does outside of bubbles.
func (s *sleeper) walk(set *token.FileSet, name string, body ast.Node) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			switch called := calledName(n); {
			case called == "time.Sleep":
				s.real[name] = set.Position(n.Pos()).String()
			case s.bubbles[called] || s.bubbles[called[strings.LastIndexByte(called, '.')+1:]]:
				return false // what it is given runs in the bubble
			}
		case *ast.Ident: // a call, or a function as a value
			s.uses[n.Name] = append(s.uses[n.Name], name)
		}
		return true
	})
}

// beginsInBubble says whether a function waits for its bubble before anything else,
// which panics where there is none.
func beginsInBubble(fn *ast.FuncDecl) bool {
	if len(fn.Body.List) == 0 {
		return false
	}
	x, ok := fn.Body.List[0].(*ast.ExprStmt)
	if !ok {
		return false
	}
	c, ok := x.X.(*ast.CallExpr)
	return ok && calledName(c) == "synctest.Wait"
}

func (s *sleeper) callsBubble(body ast.Node) (calls bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			called := calledName(c)
			calls = calls || s.bubbles[called] || s.bubbles[called[strings.LastIndexByte(called, '.')+1:]]
		}
		return !calls
	})
	return calls
}

func takesFunc(fn *ast.FuncDecl) bool {
	return slices.ContainsFunc(fn.Type.Params.List, func(f *ast.Field) bool { _, ok := f.Type.(*ast.FuncType); return ok })
}

// calledName is the name of a called function, as pkg.Func or x.Method if it is
// selected, "" if it has none.
func calledName(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
		return f.Sel.Name
	}
	return ""
}

// isEntry says whether go test runs a function of this name by itself.
func isEntry(name string) bool {
	return name == "init" || slices.ContainsFunc([]string{"Test", "Benchmark", "Fuzz", "Example"}, func(p string) bool { return strings.HasPrefix(name, p) })
}

func sorted(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestSleepsAreNoticed(t *testing.T) {
	const head = "package p\nimport (\"testing\"; \"testing/synctest\"; \"time\")\nfunc bubble(t *testing.T, f func(*testing.T)) { synctest.Test(t, f) }\n" +
		"func inHub(t *testing.T, f func(*testing.T)) { bubble(t, func(t *testing.T) { f(t) }) }\n"
	for name, c := range map[string]struct {
		src  string
		want int
	}{
		"in a bubble":               {"func TestX(t *testing.T) { inHub(t, func(t *testing.T) { time.Sleep(1) }) }", 0},
		"by a helper":               {"func TestX(t *testing.T) { bubble(t, func(t *testing.T) { h() }) }\nfunc h() { time.Sleep(1) }", 0},
		"by a function given":       {"func TestX(t *testing.T) { bubble(t, f) }\nfunc f(t *testing.T) { time.Sleep(1) }", 0},
		"outside":                   {"func TestX(t *testing.T) { time.Sleep(1) }", 1},
		"beside a bubble":           {"func TestX(t *testing.T) { bubble(t, func(t *testing.T) {}); time.Sleep(1) }", 1},
		"in a goroutine":            {"func TestX(t *testing.T) { go func() { time.Sleep(1) }() }", 1},
		"by a helper outside":       {"func TestX(t *testing.T) { h() }\nfunc h() { g() }\nfunc g() { time.Sleep(1) }", 1},
		"by a helper, both":         {"func TestX(t *testing.T) { bubble(t, func(t *testing.T) { h() }); h() }\nfunc h() { time.Sleep(1) }", 1},
		"by a method outside":       {"type x struct{}\nfunc (x) h() { time.Sleep(1) }\nfunc TestX(t *testing.T) { x{}.h() }", 1},
		"by a function as value":    {"func TestX(t *testing.T) { f := h; f() }\nfunc h() { time.Sleep(1) }", 1},
		"in a benchmark":            {"func BenchmarkX(b *testing.B) { time.Sleep(1) }", 1},
		"in what a bubble is given": {"func TestX(t *testing.T) { bubble(t, wrap(h)) }\nfunc h(*testing.T) { time.Sleep(1) }\nfunc wrap(f func(*testing.T)) func(*testing.T) { return f }", 0},
		"in a table":                {"func TestX(t *testing.T) { for _, f := range []func(){func() { time.Sleep(1) }} { bubble(t, func(*testing.T) { f() }) } }", 1},
		"after a wait":              {"func TestX(t *testing.T) { for _, f := range []func(){h} { bubble(t, func(*testing.T) { f() }) } }\nfunc h() { synctest.Wait(); time.Sleep(1) }", 0},
		"before a wait":             {"func TestX(t *testing.T) { h() }\nfunc h() { time.Sleep(1); synctest.Wait() }", 1},
		"given to something else":   {"func TestX(t *testing.T) { t.Run(\"\", func(*testing.T) { time.Sleep(1) }) }", 1},
	} {
		tree := fstest.MapFS{"p/x_test.go": {Data: []byte(head + c.src + "\n")}}
		if got := sleeps(tree); len(got) != c.want {
			t.Errorf("%s: %q, want %d", name, got, c.want)
		}
	}
}
