package subjects

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// hostile are the inputs that every fuzz target starts from.
var hostile = []string{
	"", "*", ">", ".", "=", "/", "//", "a.b", "a.*", "a.>", "$SYS.REQ", "$JS.API.>", "$KV.x.y", "_INBOX", "_INBOX.>",
	"a\r\nPUB b 0\r\n\r\n", "a\nb", "\x00", "a\tb", "a b", "\xff\xfe", "\xc3\x28", "\xed\xa0\x80",
	"___channel___Red", "T42.Demo", "Zürich", "株価", "=41", "=2e", "=2E", "=2", "=h", "a=3Db",
	"=haaaaaaaaaaaaaaaaaaaaaaaaaa", "=haaaaaaaaaaaaaaaaaaaaaaaaa1",
	strings.Repeat("a", MaxToken), strings.Repeat("a", MaxToken+1), strings.Repeat("a", MaxName),
	strings.Repeat("a", MaxName+1), strings.Repeat("*", 4096), strings.Repeat("a.", 2048),
}

var (
	tokenForm = regexp.MustCompile(`^[A-Za-z0-9_=-]{1,96}$`)
	keyForm   = regexp.MustCompile(`^[-/_=\.a-zA-Z0-9]+$`)
)

// checkToken fails unless s is safe as one token of a subject and of a key.
func checkToken(t rapid.TB, s string) {
	t.Helper()
	if !tokenForm.MatchString(s) || !keyForm.MatchString(s) || strings.ContainsAny(s, "*>.$ /") {
		t.Fatalf("unsafe token %q", s)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			t.Fatalf("token %q holds byte %#x", s, s[i])
		}
	}
}

// checkSubject fails unless every token of s is safe.
func checkSubject(t rapid.TB, s Subject) {
	t.Helper()
	if len(s) > MaxSubject {
		t.Fatalf("subject of %d bytes", len(s))
	}
	for token := range strings.SplitSeq(string(s), ".") {
		checkToken(t, token)
	}
}

func wantBadName(t rapid.TB, err error) {
	t.Helper()
	var bad *BadNameError
	if !errors.Is(err, ErrBadName) || !errors.As(err, &bad) || bad.Reason == "" {
		t.Fatalf("got error %v, want a *BadNameError", err)
	}
	if len(bad.Error()) > 512 {
		t.Fatalf("error text of %d bytes", len(bad.Error()))
	}
}

func must[T any](t rapid.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// natsMatch is how a NATS server compares a subject with a filter.
func natsMatch(filter, subject Subject) bool {
	f, s := strings.Split(string(filter), "."), strings.Split(string(subject), ".")
	for i := range f {
		switch {
		case f[i] == ">" && i == len(f)-1:
			return len(s) > i
		case i >= len(s) || f[i] != "*" && f[i] != s[i]:
			return false
		}
	}
	return len(f) == len(s)
}

var (
	genRealm  = rapid.Map(rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`), func(s string) Realm { return Realm(s) })
	genNode   = rapid.Map(rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`), func(s string) Node { return Node(s) })
	genCaller = rapid.Map(rapid.StringMatching(`[A-Za-z0-9_-]{1,63}`), func(s string) Node { return Node(s) })
	genApp    = rapid.Custom(func(t *rapid.T) App {
		return NewApp(rapid.StringMatching(`[a-z0-9]{1,32}`).Draw(t, "boot"), rapid.Uint64().Draw(t, "n"))
	})
	genName = rapid.OneOf(
		rapid.StringN(0, -1, MaxName),
		rapid.StringOfN(rapid.RuneFrom([]rune("ab.*>=_-/ é")), 0, -1, MaxName),
		rapid.StringMatching(`[A-Za-z0-9_-]{90,110}`),
	)
	genToken = rapid.Map(genName, MustEncode)
	genTopic = rapid.Map(rapid.SliceOfN(rapid.OneOf(rapid.StringN(0, 12, 40), rapid.SampledFrom([]string{"*", ">", "", "a", "b"}),
		rapid.StringMatching(`[a-c]{90,110}`)), 1, 5), func(parts []string) string { return strings.Join(parts, ".") })
)

// wireOnly is t as a receiver reads it.
func wireOnly(t Token) Token {
	read, err := ParseToken(t.String())
	if err != nil {
		panic(err)
	}
	return read
}

func seed(f *testing.F, more ...string) {
	f.Helper()
	for _, s := range hostile {
		f.Add(s)
	}
	for _, s := range more {
		f.Add(s)
	}
}
