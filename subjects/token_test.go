package subjects

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestEncode(t *testing.T) {
	for _, tt := range []struct{ name, wire string }{
		{"GetPortfolio", "GetPortfolio"},
		{"T42.Demo", "T42=2EDemo"},
		{"___channel___Red", "___channel___Red"},
		{"", "="},
		{"*", "=2A"},
		{">", "=3E"},
		{"=", "=3D"},
		{"/", "=2F"},
		{"50 %", "50=20=25"},
		{"a=b", "a=3Db"},
		{"Zürich", "Z=C3=BCrich"},
		{"$SYS.REQ", "=24SYS=2EREQ"},
		{"a\r\nb", "a=0D=0Ab"},
		{"\x00", "=00"},
		{"_INBOX", "_INBOX"},
		{strings.Repeat("a", 96), strings.Repeat("a", 96)},
		{strings.Repeat(".", 32), strings.Repeat("=2E", 32)},
		{strings.Repeat("a", 97), "=hfiwgb7uwv6wjcuouxwjs7w2fxy"}, // the example of the package doc
	} {
		token, err := Encode(tt.name)
		if err != nil || token.String() != tt.wire {
			t.Errorf("Encode(%q) = %q, %v, want %q", tt.name, token, err, tt.wire)
		}
		checkToken(t, token.String())
		if name, ok := token.Name(); !ok || name != tt.name {
			t.Errorf("Encode(%q).Name() = %q, %t", tt.name, name, ok)
		}
		if token.Hashed() != strings.HasPrefix(tt.wire, "=h") {
			t.Errorf("Encode(%q).Hashed() = %t", tt.name, token.Hashed())
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, name := range []string{
		strings.Repeat("a", 256), strings.Repeat("*", 4096), "\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80",
	} {
		token, err := Encode(name)
		wantBadName(t, err)
		if token != (Token{}) {
			t.Errorf("Encode(%.20q) = %q with an error", name, token)
		}
	}
}

func TestMustEncodePanics(t *testing.T) {
	defer func() {
		if err, ok := recover().(error); !ok {
			t.Error("no panic")
		} else {
			wantBadName(t, err)
		}
	}()
	MustEncode("\xff")
}

func TestParseTokenRefuses(t *testing.T) {
	for _, s := range []string{
		"", "*", ">", ".", "a.b", "$", "a b", "a\x00", "ü", "/", "%41",
		"==", "=2", "a=", "a=2", "=2e", "=2G", "=41", "=5F", "=2D", "a==", "=3D=",
		"=FF", "=C3", "a=C3=28", "=ED=A0=80", // not UTF-8
		strings.Repeat("a", 97), strings.Repeat("=2E", 33),
		"=h", "=haaaaaaaaaaaaaaaaaaaaaaaaa", "=haaaaaaaaaaaaaaaaaaaaaaaaaaa", "=haaaaaaaaaaaaaaaaaaaaaaaaa1",
		"=hAaaaaaaaaaaaaaaaaaaaaaaaaa", "=Haaaaaaaaaaaaaaaaaaaaaaaaaa",
	} {
		if token, err := ParseToken(s); err == nil {
			t.Errorf("ParseToken(%q) = %q, want an error", s, token)
		} else {
			wantBadName(t, err)
		}
	}
}

func TestZeroTokenIsEmptyName(t *testing.T) {
	var zero Token
	if zero != MustEncode("") || zero != wireOnly(zero) || zero.String() != "=" {
		t.Errorf("zero token %q differs from the empty name", zero)
	}
	if name, ok := zero.Name(); name != "" || !ok || zero.Hashed() {
		t.Errorf("zero.Name() = %q, %t", name, ok)
	}
	if again, err := zero.WithName(""); err != nil || again != zero {
		t.Errorf("WithName = %q, %v", again, err)
	}
}

func TestHashedToken(t *testing.T) {
	name := strings.Repeat("x", 200)
	sent := MustEncode(name)
	got := wireOnly(sent)
	if !got.Hashed() || got.String() != sent.String() {
		t.Fatalf("got %q", got)
	}
	if n, ok := got.Name(); ok || n != "" {
		t.Errorf("Name() = %q, %t before it can be known", n, ok)
	}
	for _, wrong := range []string{"", "x", name + "x", "\xff", got.String()} {
		_, err := got.WithName(wrong)
		wantBadName(t, err)
	}
	named, err := got.WithName(name)
	if err != nil || named != sent {
		t.Fatalf("WithName = %v, %v", named, err)
	}
	if n, ok := named.Name(); !ok || n != name {
		t.Errorf("Name() = %q, %t", n, ok)
	}
	if _, err := MustEncode("a").WithName("b"); err == nil {
		t.Error("a took the name b")
	}
}

// TestHashIsOfTheWholeName guards against hashing what is left after cutting.
func TestHashIsOfTheWholeName(t *testing.T) {
	prefix := strings.Repeat("p", 254)
	seen := map[string]string{}
	for _, name := range []string{prefix, prefix + "a", prefix + "b", prefix[:97], prefix[:98]} {
		wire := MustEncode(name).String()
		if other, ok := seen[wire]; ok {
			t.Errorf("%q and %q share %q", name, other, wire)
		}
		seen[wire] = name
		sum := sha256.Sum256([]byte(name))
		want := "=h" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:26]
		if wire != want {
			t.Errorf("got %q, want %q", wire, want)
		}
	}
}

func TestEncodeIsReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := genName.Draw(t, "name")
		token := must[Token](t)(Encode(name))
		checkToken(t, token.String())
		back := must[Token](t)(ParseToken(token.String()))
		if token.Hashed() {
			back = must[Token](t)(back.WithName(name))
		}
		if back != token {
			t.Fatalf("%q came back as %q", token, back)
		}
		if got, ok := back.Name(); !ok || got != name {
			t.Fatalf("%q came back as %q, %t", name, got, ok)
		}
	})
}

func TestEncodeIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genName.Draw(t, "a"), genName.Draw(t, "b")
		if same := MustEncode(a).String() == MustEncode(b).String(); same != (a == b) {
			t.Fatalf("%q and %q: same token %t", a, b, same)
		}
	})
}

func FuzzEncode(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, name string) {
		token, err := Encode(name)
		if legal := len(name) <= MaxName && utf8.ValidString(name); legal != (err == nil) {
			t.Fatalf("Encode(%q): %v", name, err)
		}
		if err != nil {
			wantBadName(t, err)
			return
		}
		checkToken(t, token.String())
		if len(token.String()) > max(1, 3*len(name)) {
			t.Fatalf("%d bytes became %d", len(name), len(token.String()))
		}
		if got, ok := token.Name(); !ok || got != name {
			t.Fatalf("%q came back as %q, %t", name, got, ok)
		}
		back := must[Token](t)(ParseToken(token.String()))
		back = must[Token](t)(back.WithName(name))
		if back != token {
			t.Fatalf("%q came back as %q", token, back)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			wantBadName(t, err)
			return
		}
		checkToken(t, s)
		if token.String() != s {
			t.Fatalf("%q became %q", s, token)
		}
		name, known := token.Name()
		if known == token.Hashed() {
			t.Fatalf("%q: hashed %t, name known %t", s, token.Hashed(), known)
		}
		if known && must[Token](t)(Encode(name)) != token {
			t.Fatalf("%q is not the token of its name %q", s, name)
		}
	})
}
