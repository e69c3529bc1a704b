package subjects

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseIDs(t *testing.T) {
	for _, s := range []string{"a", "0", "corp-ann", "desk-7-ann", "a--b", strings.Repeat("z", 63)} {
		if r, err := ParseRealm(s); err != nil || string(r) != s {
			t.Errorf("ParseRealm(%q) = %q, %v", s, r, err)
		}
		if n, err := ParseNode(s); err != nil || string(n) != s {
			t.Errorf("ParseNode(%q) = %q, %v", s, n, err)
		}
	}
	bad := append([]string{"-a", "a-", "-", "A", "a_b", "a.b", "é", strings.Repeat("z", 64)}, hostile...)
	for _, s := range bad {
		if isID(s) {
			continue // a hostile input for others, a legal id here
		}
		_, err := ParseRealm(s)
		wantBadName(t, err)
		_, err = ParseNode(s)
		wantBadName(t, err)
	}
}

func TestParseApp(t *testing.T) {
	for _, s := range []string{"b-0", "x7f3-12", "b-18446744073709551615", strings.Repeat("b", 32) + "-1"} {
		if a, err := ParseApp(s); err != nil || string(a) != s {
			t.Errorf("ParseApp(%q) = %q, %v", s, a, err)
		}
	}
	for _, s := range append([]string{
		"b", "b-", "-1", "B-1", "b-01", "b-00", "b-1-2", "b--1", "b-+1", "b-1a", "b_1-1", "b-18446744073709551616",
		"b-99999999999999999999", "b-" + strings.Repeat("1", 100), strings.Repeat("b", 33) + "-1",
	}, hostile...) {
		_, err := ParseApp(s)
		if err == nil {
			t.Errorf("ParseApp(%q) passed", s)
			continue
		}
		wantBadName(t, err)
	}
	if a := NewApp("x7", 42); a != "x7-42" || a.Boot() != "x7" {
		t.Errorf("got %q, boot %q", a, a.Boot())
	}
}

func TestRealmFor(t *testing.T) {
	for user, want := range map[string]Realm{
		`CORP\Ann`:                     "corp-ann",
		"ann":                          "ann",
		"Ann.O'Neil@corp.example":      "ann-o-neil-corp-example",
		"a  b":                         "a-b",
		"  ann  ":                      "ann",
		"a--b":                         "a--b",
		"ann_b":                        "ann-b",
		"":                             "default",
		"株価":                           "default",
		"---":                          "default",
		strings.Repeat("a", 80):        Realm(strings.Repeat("a", 63)),
		strings.Repeat("a", 62) + ".b": Realm(strings.Repeat("a", 62)),
	} {
		if got := RealmFor(user); got != want {
			t.Errorf("RealmFor(%q) = %q, want %q", user, got, want)
		}
	}
}

func TestNodeFor(t *testing.T) {
	long := strings.Repeat("h", 80)
	for _, tt := range []struct {
		host, user string
		want       Node
	}{
		{"DESK-7.corp.example", `CORP\Ann`, "desk-7-corp-ann"},
		{"desk", "", "desk"},
		{"", "ann", "ann"},
		{"", "", "default"},
		{"local host", "ann", "local-host-ann"},
		{long, "ann", Node(long[:59] + "-ann")},
		{long, long, Node(long[:31] + "-" + long[:31])},
		{"h", long, Node("h-" + long[:31])},
	} {
		if got := NodeFor(tt.host, tt.user); got != tt.want {
			t.Errorf("NodeFor(%q, %q) = %q, want %q", tt.host, tt.user, got, tt.want)
		}
	}
}

func TestDefaultsAreLegal(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[A-Za-z.\\ -]{0,100}`),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		host, user := text.Draw(t, "host"), text.Draw(t, "user")
		if _, err := ParseRealm(string(RealmFor(user))); err != nil {
			t.Fatal(err)
		}
		if _, err := ParseNode(string(NodeFor(host, user))); err != nil {
			t.Fatal(err)
		}
	})
}

func TestBadNameErrorIsShort(t *testing.T) {
	_, err := Encode(strings.Repeat("a", 64) + strings.Repeat("b", 4000))
	want := `bad name "` + strings.Repeat("a", 64) + `"...: longer than 255 bytes`
	if err.Error() != want {
		t.Errorf("got %s", err)
	}
	_, err = ParseRealm("a\r\nb")
	if s := err.Error(); strings.ContainsAny(s, "\r\n") || !strings.HasPrefix(s, `bad name "a\r\nb": `) {
		t.Errorf("got %s", s)
	}
}
