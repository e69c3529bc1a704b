package subjects

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestBuckets(t *testing.T) {
	c, d := realm.ContextBucket(), realm.DirectoryBucket()
	red := MustEncode("___channel___Red")
	for _, tt := range []struct{ got, want string }{
		{string(c), "weft_fx_ctx"},
		{string(d), "weft_fx_dir"},
		{c.Stream(), "KV_weft_fx_ctx"},
		{string(c.Filter()), "$KV.weft_fx_ctx.>"},
		{string(c.Subject(ContextRoot(red))), "$KV.weft_fx_ctx.___channel___Red./"},
		{string(c.DirectGet()), "$JS.API.DIRECT.GET.KV_weft_fx_ctx"},
		{string(c.DirectGetLast(ContextRoot(red))), "$JS.API.DIRECT.GET.KV_weft_fx_ctx.$KV.weft_fx_ctx.___channel___Red./"},
		{string(d.Info()), "$JS.API.STREAM.INFO.KV_weft_fx_dir"},
		{string(realm.ContextRepublish(ContextKeys(red))), "weft.fx.kv.ctx.___channel___Red.>"},
		{string(realm.ContextRepublishFilter()), "weft.fx.kv.ctx.>"},
		{string(realm.DirectoryRepublish(NodeKeys())), "weft.fx.kv.dir.n.>"},
		{string(realm.DirectoryRepublishFilter()), "weft.fx.kv.dir.>"},
		{string(d.Subject(NodeKeys())), "$KV.weft_fx_dir.n.>"},
		{string(NodeKey(self)), "n.desk-7-ann"},
		{string(LeaseKey(self)), "lease.desk-7-ann"},
		{string(must[Key](t)(ManifestKey("ab12"))), "if.ab12"},
		{string(ContextMeta(red)), "___channel___Red.//"},
		{string(ContextRoots()), "*./"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestManifestKeyRefuses(t *testing.T) {
	for _, hash := range []string{"", ">", "a.b", "a/b", "=", strings.Repeat("a", 65)} {
		_, err := ManifestKey(hash)
		wantBadName(t, err)
	}
}

func TestKeyNode(t *testing.T) {
	for _, tt := range []struct {
		key  Key
		node Node
	}{
		{NodeKey(self), self},
		{LeaseKey(self), self},
		{"n.", ""},
		{"n", ""},
		{"n.>", ""},
		{"n.a.b", ""},
		{"n.A", ""},
		{"lease.*", ""},
		{"if.ab", ""},
		{"", ""},
		{"x.a", ""},
	} {
		if n, ok := tt.key.Node(); n != tt.node || ok != (tt.node != "") {
			t.Errorf("%q.Node() = %q, %t", tt.key, n, ok)
		}
	}
}

func TestKeyOf(t *testing.T) {
	for _, s := range []Subject{realm.DirectoryBucket().Subject(NodeKey(self)), realm.DirectoryRepublish(NodeKey(self))} {
		if k, err := realm.DirectoryKey(s); err != nil || k != NodeKey(self) {
			t.Errorf("DirectoryKey(%q) = %q, %v", s, k, err)
		}
		_, err := realm.ContextKeyOf(s)
		wantBadName(t, err)
		_, err = Realm("f").DirectoryKey(s)
		wantBadName(t, err)
	}
	bad := []Subject{
		"$KV.weft_fx_dir.", "$KV.weft_fx_dir", "$KV.weft_fx_dirn.a", "$KV.weft_fx_dir.n.*", "$KV.weft_fx_dir.>",
		"$KV.weft_fx_dir..a", "$KV.weft_fx_dir.a..b", "$KV.weft_fx_dir.a.", "$KV.weft_fx_dir.a b", "$KV.weft_fx_dir.$a",
		"weft.fx.kv.dir.", "weft.fx.kv.dirn.a", "weft.fx.kv.ctx.n.a", "weft.eq.kv.dir.n.a",
		Subject("weft.fx.kv.dir." + strings.Repeat("a", MaxSubject+1)),
	}
	for _, s := range hostile {
		bad = append(bad, Subject(s))
	}
	for _, s := range bad {
		if k, err := realm.DirectoryKey(s); err == nil {
			t.Errorf("DirectoryKey(%q) = %q", s, k)
		} else {
			wantBadName(t, err)
		}
	}
}

func TestContextPath(t *testing.T) {
	ctx := MustEncode("my ctx")
	long := strings.Repeat("a", 97)
	deep := slices.Repeat([]string{"p"}, 20)
	wide := slices.Repeat([]string{strings.Repeat("w", 96)}, 16)
	for _, tt := range []struct {
		path    []string
		key     Key
		covered int
	}{
		{nil, "my=20ctx./", 0},
		{[]string{"a"}, "my=20ctx.a", 1},
		{[]string{"data", "x.y", "", "/"}, "my=20ctx.data.x=2Ey.=.=2F", 4},
		{[]string{long}, "my=20ctx./", 0},
		{[]string{"a", long, "b"}, "my=20ctx.a", 1},
		{[]string{"a", "\xff"}, "my=20ctx.a", 1},
		{[]string{"a", strings.Repeat("b", 256)}, "my=20ctx.a", 1},
		{deep, Key("my=20ctx" + strings.Repeat(".p", 16)), 16},
		{deep[:16], Key("my=20ctx" + strings.Repeat(".p", 16)), 16},
		{wide, Key("my=20ctx" + strings.Repeat("."+strings.Repeat("w", 96), 10)), 10},
	} {
		if k, n := ContextPath(ctx, tt.path); k != tt.key || n != tt.covered {
			t.Errorf("ContextPath(%.40q) = %q, %d, want %q, %d", tt.path, k, n, tt.key, tt.covered)
		}
	}
}

func TestKeyContext(t *testing.T) {
	ctx := MustEncode("c.x")
	for key, want := range map[Key]ContextKey{
		ContextRoot(ctx):     {Context: ctx},
		ContextMeta(ctx):     {Context: ctx, Meta: true},
		"c=2Ex.a=2Eb.=.c":    {Context: ctx, Path: []string{"a.b", "", "c"}},
		ContextRoot(Token{}): {},
	} {
		if got, ok := key.Context(); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%q.Context() = %+v, %t", key, got, ok)
		}
	}
	for _, key := range []Key{
		"c", "c.", ".a", "./", "c.///", "c././", "c./.a", "c.a./", "c.*", "c.>", "*./", "c.=41", "c..a", "c.a.",
		"c.=haaaaaaaaaaaaaaaaaaaaaaaaaa", Key("c" + strings.Repeat(".p", 17)),
		Key("c" + strings.Repeat("."+strings.Repeat("w", 96), 11)),
	} {
		if got, ok := key.Context(); ok {
			t.Errorf("%q.Context() = %+v", key, got)
		}
	}
}

func TestContextKeyRoundTrip(t *testing.T) {
	genPath := rapid.SliceOfN(rapid.OneOf(rapid.StringN(0, 8, 24), rapid.SampledFrom([]string{"", "/", "//", "*"})), 0, 18)
	rapid.Check(t, func(t *rapid.T) {
		r, ctx, path := genRealm.Draw(t, "realm"), genToken.Draw(t, "context"), genPath.Draw(t, "path")
		key, n := ContextPath(ctx, path)
		if n < min(len(path), MaxSegments) && len(key)+1+MaxToken <= MaxSubject {
			t.Fatalf("stopped after %d of %q", n, path)
		}
		want := ContextKey{Context: wireOnly(ctx), Path: path[:n]}
		for _, k := range []Key{key, ContextRoot(ctx), ContextMeta(ctx)} {
			if !keyForm.MatchString(string(k)) || k[0] == '.' || k[len(k)-1] == '.' || len(k) > MaxSubject {
				t.Fatalf("bad key %q", k)
			}
			for _, s := range []Subject{r.ContextBucket().Subject(k), r.ContextRepublish(k)} {
				if back := must[Key](t)(r.ContextKeyOf(s)); back != k {
					t.Fatalf("%q came back as %q", k, back)
				}
			}
			if !natsMatch(r.ContextRepublish(ContextKeys(ctx)), r.ContextRepublish(k)) {
				t.Fatalf("%q is not among its context's keys", k)
			}
			if root := natsMatch(Subject(ContextRoots()), Subject(k)); root != (k == ContextRoot(ctx)) {
				t.Fatalf("%q counts as a root: %t", k, root)
			}
		}
		got, ok := key.Context()
		if !ok || got.Context != want.Context || got.Meta || !slices.Equal(got.Path, want.Path) {
			t.Fatalf("%q came back as %+v", key, got)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	seed(f, "$KV.weft_fx_ctx.c.a=2Eb", "weft.fx.kv.ctx.c./", "weft.fx.kv.dir.n.desk", "$KV.weft_fx_dir.lease.desk", "c.//", "n.desk", "c.a.b")
	f.Fuzz(func(t *testing.T, s string) {
		for _, get := range []func(Subject) (Key, error){realm.ContextKeyOf, realm.DirectoryKey} {
			k, err := get(Subject(s))
			if err != nil {
				wantBadName(t, err)
			} else if !keyForm.MatchString(string(k)) || !strings.HasSuffix(s, "."+string(k)) {
				t.Fatalf("%q gave the key %q", s, k)
			}
		}
		if n, ok := Key(s).Node(); ok && Key(s) != NodeKey(n) && Key(s) != LeaseKey(n) {
			t.Fatalf("%q is of node %q", s, n)
		}
		if c, ok := Key(s).Context(); ok {
			back, covered := ContextPath(c.Context, c.Path)
			if c.Meta {
				back = ContextMeta(c.Context)
			}
			if string(back) != s || covered != len(c.Path) {
				t.Fatalf("%q came back as %q", s, back)
			}
		}
	})
}
