package main

import (
	"slices"
	"testing"
	"time"

	"github.com/weft-fabric/weft/node"
)

// What is printed of a path is what parsePath reads.
func TestPathText(t *testing.T) {
	for _, c := range []struct {
		path []string
		want string
	}{
		{[]string{"a"}, "a"},
		{[]string{"a", "b", "0"}, "a.b.0"},
		{[]string{"Zürich", "-x"}, "Zürich.-x"},
		{[]string{"a.b", "c"}, `["a.b","c"]`},
		{[]string{"a", ""}, `["a",""]`},
		{[]string{""}, `[""]`},
		{[]string{}, `[]`},
		{nil, `[]`},
		{[]string{"[a"}, `["[a"]`},
		{[]string{"a", "[b"}, "a.[b"},
		{[]string{"a b = c, d"}, `["a b = c, d"]`},
		{[]string{"a\x1b"}, `["a\u001b"]`},
		{[]string{`"<&>"`}, `"<&>"`},
	} {
		got := pathText(c.path)
		if got != c.want {
			t.Errorf("%q is %s, want %s", c.path, got, c.want)
		}
		if back, err := parsePath(got); err != nil || !slices.Equal(back, c.path) {
			t.Errorf("%s is read as %q, %v", got, back, err)
		}
	}
}

func TestLike(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "a", true},
		{"a", "a", true},
		{"a", "ab", false},
		{"a*", "a", true},
		{"a*", "a/b.c\nd", true},
		{"*b", "ab", true},
		{"*b", "abc", false},
		{"a?c", "aüc", true},
		{"a?c", "ac", false},
		{"a.c", "abc", false},
		{`a\E(`, `a\E(`, true},
		{"\xff", "a", false},
	} {
		if got := like(c.pattern)(c.name); got != c.want {
			t.Errorf("%q like %q: %v", c.name, c.pattern, got)
		}
	}
}

// The lines that a real watch prints only at rare moments.
func TestContextEventText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.Local)
	changes := []changeLine{{Path: []string{"a"}, Value: []byte("1")}, {Path: []string{"b.c"}, Removed: true}}
	for _, c := range []struct {
		line contextEventLine
		want string
	}{
		{
			contextEventLine{kind: node.ContextChanged, Exists: true, Revision: 7, By: &writerLine{App: "x-1", Node: "n", Application: "blotter"}, Changes: changes, Conflated: 2},
			`03:04:05.678 changed at revision 7 by blotter@n: a = 1, ["b.c"] removed (2 states left out)`,
		},
		{
			contextEventLine{kind: node.ContextChanged, Exists: true, Revision: 7, By: &writerLine{App: "x-1", Node: "n"}, Changes: changes[:1], back: true, Conflated: 1},
			`03:04:05.678 changed at revision 7 by x-1@n: a = 1 (online again) (1 state left out)`,
		},
		{
			contextEventLine{kind: node.ContextDestroyed, By: &writerLine{Node: "n"}},
			`03:04:05.678 destroyed by node n`,
		},
		{
			contextEventLine{kind: node.ContextCreated, Exists: true, Revision: 7, Changes: []changeLine{{Value: []byte("{}")}}},
			`03:04:05.678 created at revision 7 by a foreign writer: {}`,
		},
	} {
		c.line.Time, c.line.Event = at, c.line.kind.String()
		if got := c.line.String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestChannelUpdateText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.Local)
	by := &writerLine{App: "x-1", Node: "n", Application: "blotter"}
	changes := []changeLine{{Path: []string{"a"}, Value: []byte("1")}, {Path: []string{"b.c"}, Removed: true}}
	for _, c := range []struct {
		line channelUpdateLine
		want string
	}{
		{
			channelUpdateLine{kind: node.ChannelSnapshot, Revision: 7, By: by, Data: []byte("{}"), back: true},
			`03:04:05.678 snapshot at revision 7 by blotter@n: {} (online again)`,
		},
		{
			channelUpdateLine{kind: node.ChannelChanged, Revision: 7, By: by, Changes: changes, Conflated: 2},
			`03:04:05.678 changed at revision 7 by blotter@n: a = 1, ["b.c"] removed (2 states left out)`,
		},
		{
			channelUpdateLine{kind: node.ChannelChanged, Revision: 7, Meta: []byte("{}"), back: true, Conflated: 1},
			`03:04:05.678 changed at revision 7 by a foreign writer, beside the data: meta is {} (online again) (1 state left out)`,
		},
		{
			channelUpdateLine{kind: node.ChannelRemoved, By: by},
			`03:04:05.678 removed by blotter@n`,
		},
		{
			channelUpdateLine{kind: node.ChannelOffline, Revision: 7, By: by},
			`03:04:05.678 offline: what others change from now on is not seen here`,
		},
		{
			channelUpdateLine{kind: node.ChannelOnline, Revision: 7, By: by, back: true},
			`03:04:05.678 online: nothing was changed meanwhile`,
		},
	} {
		c.line.Time, c.line.Event = at, c.line.kind.String()
		if got := c.line.String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
