package restriction

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/weft-fabric/weft/wire"
)

func attributes(m map[string]any) Attributes {
	return func(name string) (any, bool) { v, ok := m[name]; return v, ok }
}

// The two identities with which the reference was asked.
var (
	owner = attributes(map[string]any{
		"region": "X", "desk": "fx", "n": 5.0, "f": 1.5, "yes": true, "no": false, "empty": "", "zero": 0.0, "nul": nil,
		"obj": map[string]any{"a": 1.0}, "list": []any{1.0, 2.0}, "num": "5", "pat": "f.*", "bad": "(", "Cap": "c", "same": "s",
		"application": "a", "user": "u1",
	})
	other = attributes(map[string]any{
		"region": "Y", "desk": "fx-spot", "n": 5.0, "f": 1.5, "yes": true, "no": false, "empty": "", "zero": 0.0, "nul": nil,
		"obj": map[string]any{"a": 1.0}, "list": []any{1.0, 2.0}, "num": "5", "pat": "f.*", "multi": "a\nb", "same": "s",
		"application": "b", "user": "u1",
	})
)

// answer is what somebody says of an expression.
type answer int

const (
	no answer = iota
	yes
	refused
)

func ask(t *testing.T, text string) answer {
	t.Helper()
	e, err := Parse(text)
	switch {
	case err != nil:
		if !errors.Is(err, wire.ErrBadPayload) && !errors.Is(err, wire.ErrLimit) {
			t.Errorf("%s: %v, want bad-payload or limit", text, err)
		}
		return refused
	case e.Holds(owner, other):
		return yes
	}
	return no
}

// reference is what @glue42/gateway-ws 3.0.19 answered on 21 November 2026 to
// methods with these restrictions, registered by owner: whether other saw them, or
// that the registration was refused.
var reference = []struct {
	text string
	want answer
}{
	// The two identities, and what equals what.
	{`$region == 'Y'`, yes},
	{`$region == 'X'`, no},
	{`#region == 'X'`, yes},
	{`#region == 'Y'`, no},
	{`$region != 'X'`, yes},
	{`$region == #region`, no},
	{`$same == #same`, yes},
	{`'Y' == $region`, yes},
	{`$user == #user`, yes},
	{`$application == 'b'`, yes},
	{`$Cap == 'c'`, no},
	{`#Cap == 'c'`, yes},
	{`#cap == 'c'`, no},
	{`'$x' == '#x'`, no},
	{`'a\b' == 'a\b'`, yes},
	{"'a\nb' == 'a\nb'", yes},
	{`$obj == #obj`, yes},
	{`$list == #list`, yes},
	{`$a == #a`, yes},

	// Missing, null and false.
	{`$missing == 'x'`, no},
	{`$missing != 'x'`, yes},
	{`$missing ? 'x'`, no},
	{`$missing ? '.*'`, no},
	{`$missing == #missing`, yes},
	{`$missing != #missing`, no},
	{`$missing == $nul`, yes},
	{`$nul == 'x'`, no},
	{`$no == #no`, yes},
	{`$no != #no`, no},
	{`$no == $missing`, yes},
	{`$no == ('a' == 'b')`, no},
	{`('a' == 'b') == $missing`, no},
	{`('a' == 'b') != $missing`, yes},
	{`('a' == 'b') == ('c' == 'b')`, yes},
	{`('a' == 'b') == ($missing && 'x')`, no},
	{`($no || $no) == $missing`, yes},
	{`$yes == 'true'`, no},
	{`$yes == #yes`, yes},
	{`$yes == ('a' == 'a')`, yes},

	// What holds by itself.
	{``, yes},
	{`$missing`, no},
	{`$no`, no},
	{`$yes`, yes},
	{`$region`, yes},
	{`$empty`, yes},
	{`$zero`, yes},
	{`$n`, yes},
	{`'x'`, yes},
	{`0`, yes},

	// Numbers.
	{`$n == 5`, yes},
	{`$n == 5.0`, yes},
	{`$n == +5`, yes},
	{`$n == -5`, no},
	{`$n==-5`, no},
	{`$n == 05`, yes},
	{`$n == '5'`, no},
	{`$n != '5'`, yes},
	{`$num == 5`, no},
	{`$num == '5'`, yes},
	{`$f == 1.5`, yes},
	{`$f == 1.50`, yes},
	{`$f == 01.5`, yes},
	{`$f == .5`, no},
	{`1.5 == +1.5`, yes},
	{`$zero == -0`, yes},
	{`12345678901234567890 == 12345678901234567891`, yes},

	// Regular expressions.
	{`$desk ? 'fx'`, no},
	{`$desk ? 'spot'`, no},
	{`$desk ? 'x-s'`, no},
	{`$desk ? 'fx.*'`, yes},
	{`$desk?'fx.*'`, yes},
	{`$desk ? ('fx.*')`, yes},
	{`$desk ? '^fx.*$'`, yes},
	{`$desk ? 'FX.*'`, no},
	{`$desk ? '(?i)FX.*'`, yes},
	{`$desk ? 'fx-spot|fx'`, yes},
	{`$desk ? '(fx)-(spot)'`, yes},
	{`$desk ? '(?:fx|eq)-.+'`, yes},
	{`$desk ? '(?<a>fx)-spot'`, yes},
	{`$desk ? '[a-z]{2}-[a-z]{4}'`, yes},
	{`$desk ? 'fx\-spot'`, yes},
	{`$desk ? '\w+-\w+'`, yes},
	{`$desk ? 'fx-spot\b'`, yes},
	{`$desk ? 'f.*?t'`, yes},
	{`$desk ? #pat`, yes},
	{`$desk ? $missing`, no},
	{`$desk ? 'f.*' ? 'x'`, no},
	{`($desk ? 'fx.*') == 'fx-spot'`, yes},
	{`($desk ? 'zz') == $missing`, yes},
	{`$desk ? 'fx.*' == $yes`, no},
	{`$empty ? '.*'`, yes},
	{`'5' ? '[0-9]+'`, yes},
	{`'é' ? '.'`, yes},
	{`$multi ? 'a.b'`, no},
	{`$multi ? '(?s)a.b'`, yes},
	{`$desk ? '('`, refused},
	{`$num ? 5`, refused},

	// Precedence, and the values of && and ||.
	{`$region == 'Y' && $same == 's'`, yes},
	{`$region == 'Y' && $same == 'z'`, no},
	{`$region == 'Z' || $same == 's'`, yes},
	{`$region == 'Y' || $same == 's' && $same == 'z'`, no},
	{`$same == 'z' && $region == 'Y' || $same == 's'`, yes},
	{`$same == 's' || ($region == 'Y' && $same == 'z')`, yes},
	{`$desk ? 'fx.*' && $n == 5`, yes},
	{`$region == 'Y' == 'Z'`, no},
	{`$region == 'Z' == ('a' == 'b')`, yes},
	{`($region == 'Y') == $yes`, yes},
	{`5 == 5 == 5`, no},
	{`$yes && $n`, yes},
	{`$region && $same`, yes},
	{`$missing && $yes`, no},
	{`$no || 'x'`, yes},
	{`$no || $missing`, no},
	{`$missing || 5 == 6`, no},
	{`$yes && $missing || 'a'`, yes},

	// White space and parentheses.
	{`$region=='Y'`, yes},
	{`$region=='Y'&&$same=='s'`, yes},
	{`$n == 5||$missing`, yes},
	{`  $region == 'Y'`, yes},
	{"$region\n==\t'Y'", yes},
	{"$yes\u00a0== $yes", yes},
	{`($region == 'Y')`, yes},
	{`( $region == 'Y' ) `, yes},
	{`( ( $yes ) ) == $yes`, yes},
	{`($region == 'Y')||($region == 'Z')`, yes},
	{strings.Repeat(`($yes) && `, 40) + `$yes`, yes},

	// What is no expression.
	{`   `, refused},
	{`$`, refused},
	{`$ region`, refused},
	{`$region ==`, refused},
	{`$region = 'Y'`, refused},
	{`$region == Y`, refused},
	{`$region == "Y"`, refused},
	{`$reg ion == 'Y'`, refused},
	{`$region1 == 'Y'`, refused},
	{`$region_x == 'Y'`, refused},
	{`$applicätion == 'b'`, refused},
	{`not a grammar`, refused},
	{`true`, refused},
	{`!$no`, refused},
	{`(`, refused},
	{`()`, refused},
	{`($region == 'Y'`, refused},
	{`$region == 'Y')`, refused},
	{`$region == 'Y' & $same == 's'`, refused},
	{`$region == 'Y' and $same == 's'`, refused},
	{`$region == 'Y' || `, refused},
	{`&& $region`, refused},
	{`$region == 'it''s'`, refused},
	{`$empty == ''`, refused},
	{`$n == 5.`, refused},
	{`$n == 1e1`, refused},
	{`5 5`, refused},
	{`5$n`, refused},
	{`$region $region`, refused},
	{`$n == 5 $f == 1.5`, refused},
}

func TestAsTheReference(t *testing.T) {
	for _, tt := range reference {
		if got := ask(t, tt.text); got != tt.want {
			t.Errorf("%s: %d, the reference says %d", tt.text, got, tt.want)
		}
	}
}

// TestNotAsTheReference has what doc.go says is different on purpose: what the
// reference answered to the same question, and what we do.
func TestNotAsTheReference(t *testing.T) {
	for _, tt := range []struct {
		text         string
		theirs, ours answer
	}{
		// The reference looks for the first match and compares its length.
		{`$desk ? 'fx|fx-spot'`, no, yes},
		{`$desk ? 'f|fx.*'`, no, yes},
		{`$desk ? 'f.*?'`, no, yes},
		// It counts UTF-16 units.
		{`'😀' ? '.'`, no, yes},
		{`'😀' ? '..'`, yes, no},
		// It compiles with JavaScript's rules.
		{`$desk ? '(?=f).*'`, yes, refused},
		{`$desk ? '[[:alpha:]]+.*'`, no, yes},
		// With groups it compares the list of groups.
		{`($desk ? '(fx).*') == 'fx-spot'`, no, yes},
		// It reads octal, and the number .5 as a word.
		{`$n == 010`, no, no},
		{`8 == 010`, yes, no},
		{`10 == 010`, no, yes},
		{`$n == 08`, refused, no},
		{`0.1 == .1`, no, yes},
		{`-.5 == -0.5`, no, yes},
		// It fails when it evaluates, and so refuses what asked for it.
		{`$desk ? #bad`, refused, no},
		{`$n ? '5'`, refused, no},
		{`$yes ? 'true'`, refused, no},
		// It allows no white space at the end.
		{`$region == 'Y' `, refused, yes},
		// It has no limits.
		{strings.Repeat("(", 33) + "$yes" + strings.Repeat(")", 33), yes, refused},
	} {
		if got := ask(t, tt.text); got != tt.ours {
			t.Errorf("%s: %d, want %d (the reference: %d)", tt.text, got, tt.ours, tt.theirs)
		}
	}
}

func TestErrorsSayWhere(t *testing.T) {
	for text, want := range map[string]string{
		`$region == Y`:                  `restriction, byte 12: want an attribute, a string, a number or (, found "Y"`,
		`$region 'Y'`:                   `restriction, byte 9: want an operator, found "'"`,
		`$ region`:                      `restriction, byte 2: want the name of an attribute, of letters only, found " "`,
		`$region == `:                   `restriction, byte 12: want an attribute, a string, a number or (, found the end`,
		`($region`:                      `restriction, byte 9: want an operator or ), found the end`,
		`$region == 'Y`:                 `restriction, byte 12: the string does not end`,
		`$region == ''`:                 `restriction, byte 12: the string is empty`,
		`$region == -`:                  `restriction, byte 12: want an attribute, a string, a number or (, found "-"`,
		`$region ? '('`:                 `restriction, byte 11: not a regular expression: missing closing )`,
		`$region ? 5`:                   `restriction, byte 11: want a regular expression, found a number`,
		`$region ? '(?=a)'`:             `restriction, byte 11: not a regular expression: invalid or unsupported Perl syntax`,
		`$n == ` + digits(400):          `restriction, byte 7: the number is too large`,
		`$e ? '(a{100}){10}|a{999}b'`:   `restriction, byte 6: the regular expression is too large: it compiles to about 2012 instructions, the limit is 2000`,
		strings.Repeat("(", 33) + `$a`:  `restriction, byte 33: more than 32 parentheses inside each other`,
		strings.Repeat("$a ?#a&&", 11):  `restriction, byte 85: the regular expressions are too large together`,
		`$applicät == 'b'`:              `restriction, byte 8: want an operator, found "ä"`,
		"'" + strings.Repeat("a", 1024): `a restriction of 1025 bytes, the limit is 1024`,
	} {
		_, err := Parse(text)
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Message != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

func digits(n int) string { return strings.Repeat("9", n) }

// TestCost: a few bytes of a regular expression can ask for megabytes.
func TestCost(t *testing.T) {
	const large = `'(a{100}){9}'` // about 909
	for _, tt := range []struct {
		text string
		fits bool
	}{
		{`$a ? ` + large, true},
		{`$a ? ` + large + ` || $b ? ` + large, true},
		{`$a ? ` + large + ` || $b ? ` + large + ` || $c ? ` + large, false},
		{`$a ? '(a{1000}){2}'`, false},
		{`$a ? '((a{30}){30}){2}'`, false},
		{`$a ? '(\pL{20}){40}'`, true},
		{`$a ? '` + strings.Repeat("a", 1000) + `'`, true},
		{strings.Repeat(`$a ? #a && `, 9) + `$a ? #a`, true},
		{strings.Repeat(`$a ? #a && `, 10) + `$a ? #a`, false},
	} {
		_, err := Parse(tt.text)
		if tt.fits != (err == nil) || err != nil && !errors.Is(err, wire.ErrBadPayload) {
			t.Errorf("%s: %v", tt.text, err)
		}
	}

	foreign := func(pattern, subject string) bool {
		e, err := Parse(`$subject ? #pattern`)
		if err != nil {
			t.Fatal(err)
		}
		return e.Holds(attributes(map[string]any{"pattern": pattern}), attributes(map[string]any{"subject": subject}))
	}
	long := strings.Repeat("a", 1024)
	if !foreign("a{190}", long[:190]) || foreign("a{201}", long[:201]) {
		t.Error("an attribute's value is not bounded by 200 instructions")
	}
	if !foreign("a*", long) || foreign("a*", long+"a") {
		t.Error("a string is not bounded by 1024 bytes")
	}
}

func TestNothingHoldsAlways(t *testing.T) {
	var none *Expression
	empty, err := Parse("")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*Expression{none, {}, empty} {
		if !e.Holds(nil, nil) || e.String() != "" {
			t.Errorf("%#v holds: %t, is %q", e, e.Holds(nil, nil), e)
		}
	}
	e, err := Parse(`$a == #b`)
	if err != nil || !e.Holds(nil, nil) || e.String() != `$a == #b` {
		t.Errorf("without attributes: %v, %q", err, e)
	}
}

func TestCompiled(t *testing.T) {
	first, err := Compiled(`$region == 'Y'`)
	if err != nil || !first.Holds(owner, other) {
		t.Fatalf("%v", err)
	}
	if again, _ := Compiled(`$region == 'Y'`); again != first {
		t.Error("an expression was parsed twice")
	}
	if _, err := Compiled(`(`); !errors.Is(err, wire.ErrBadPayload) {
		t.Errorf("%v", err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				text := fmt.Sprintf("$n == %d", i+g)
				if e, err := Compiled(text); err != nil || e.String() != text || e.Holds(owner, other) != (i+g == 5) {
					t.Errorf("%s: %v", text, err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(compiled.expressions); n > maxCompiled {
		t.Errorf("%d expressions remembered, the limit is %d", n, maxCompiled)
	}
}

// FuzzParse: no text and no attribute brings it down, and white space around an
// expression changes nothing.
func FuzzParse(f *testing.F) {
	for _, tt := range reference {
		f.Add(tt.text, "fx-spot")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		hostile := []any{value, 1.0, true, nil, map[string]any{"a": []any{value}}, []any{func() {}}, struct{}{}}
		some := func(name string) (any, bool) { return hostile[len(name)%len(hostile)], len(name) < 9 }
		e, err := Parse(text)
		if err != nil {
			if c := wire.CodeOf(err); c != wire.BadPayload && c != wire.Limit {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		is := e.Holds(some, owner)
		if text == "" || len(text) > wire.MaxRestrictions-2 {
			return
		}
		wide, err := Parse(" " + text + "\n")
		if err != nil || wide.Holds(some, owner) != is {
			t.Fatalf("%q: %t, with white space around it not, %v", text, is, err)
		}
	})
}

func BenchmarkHolds(b *testing.B) {
	e, err := Parse(`$region == 'Y' && ($desk ? 'fx.*' || $trader)`)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if !e.Holds(owner, other) {
			b.Fatal("does not hold")
		}
	}
}
