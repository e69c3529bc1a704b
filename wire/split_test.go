package wire

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drawSplit draws a value and appends it to dst: heads of all widths, names in
// any order and twice.
func drawSplit(t *rapid.T, dst []byte, depth int) []byte {
	kind := 5 - rapid.IntRange(0, 5).Draw(t, "kind") // rapid likes the low numbers
	if depth <= 0 {
		kind %= 4
	}
	n := rapid.SampledFrom([]int{2, 1, 0, 16}).Draw(t, "n")
	switch kind {
	case 0:
		return append(dst, rapid.SampledFrom([]string{"\xc0", "\xc2", "\xc3", "\x05", "\xe0", "\xd1\x01\x00", "\xcb?\xf0\x00\x00\x00\x00\x00\x00", "\xd6\xff\x00\x00\x00\x01"}).Draw(t, "scalar")...)
	case 1:
		return AppendString(dst, strings.Repeat("s", n*20))
	case 2:
		return append(append(dst, 0xc4, byte(n)), make([]byte, n)...)
	case 3:
		return append(append(dst, 0xc7, 12, 0xff), make([]byte, 12)...)
	case 4:
		if rapid.Bool().Draw(t, "wide") {
			dst = append(dst, 0xdd, 0, 0, 0, byte(n))
		} else {
			dst = AppendArray(dst, n)
		}
		for range n {
			dst = drawSplit(t, dst, depth-1-n/16*8)
		}
		return dst
	}
	if rapid.Bool().Draw(t, "wide") {
		dst = append(dst, 0xde, 0, byte(n))
	} else {
		dst = AppendMap(dst, n)
	}
	for range n {
		dst = AppendString(dst, rapid.SampledFrom([]string{"", "a", "b", strings.Repeat("n", 300)}).Draw(t, "name"))
		dst = drawSplit(t, dst, depth-1-n/16*8)
	}
	return dst
}

// depthOf counts what the decoder made.
func depthOf(v any) int {
	deepest := 0
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			deepest = max(deepest, depthOf(e))
		}
	case map[string]any:
		for _, e := range v {
			deepest = max(deepest, depthOf(e))
		}
	default:
		return 0
	}
	return deepest + 1
}

// rebuild takes a value apart and puts it together again. Of equal names the
// last stays.
func rebuild(t rapid.TB, data []byte) (back []byte, depth int) {
	t.Helper()
	if Depth(data) > 0 != (IsMap(data) || IsArray(data)) {
		t.Fatalf("%x: depth %d", data, Depth(data))
	}
	switch {
	case IsArray(data):
		n := 0
		back = AppendArray(nil, Count(data))
		for e := range Elements(data) {
			b, d := rebuild(t, e)
			back, depth = append(back, b...), max(depth, d)
			n++
		}
		if n != Count(data) {
			t.Fatalf("%d elements, count %d", n, Count(data))
		}
		for range Members(data) {
			t.Fatal("members of an array")
		}
		return back, depth + 1
	case IsMap(data):
		n := 0
		back = AppendMap(nil, Count(data))
		for name, v := range Members(data) {
			b, d := rebuild(t, v)
			back, depth = append(AppendString(back, name), b...), max(depth, d)
			n++
		}
		if n != Count(data) {
			t.Fatalf("%d members, count %d", n, Count(data))
		}
		for range Elements(data) {
			t.Fatal("elements of a map")
		}
		return back, depth + 1
	}
	if Count(data) != 0 || IsNil(data) != bytes.Equal(data, []byte{0xc0}) {
		t.Fatalf("%x: count %d, nil %t", data, Count(data), IsNil(data))
	}
	return data, 0
}

func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := drawSplit(t, nil, 4)
		if err := Check(data); err != nil {
			t.Fatalf("%x: %v", data, err)
		}
		back, depth := rebuild(t, data)
		if Depth(data) != depth || Depth(back) != depth {
			t.Fatalf("%x: depth %d, want %d", data, Depth(data), depth)
		}
		a, err := Canonical(Payload{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		b, err := Canonical(Payload{Data: back})
		if err != nil || !bytes.Equal(a, b) {
			t.Fatalf("%s became %s, %v", a, b, err)
		}
		// Twins are nowhere in what MarshalSorted made.
		sorted, _ := appendSorted(nil, data, 0)
		var v any
		if err := (Payload{Data: sorted}).Decode(&v); err != nil || Depth(sorted) != depthOf(v) {
			t.Fatalf("%s: depth %d, want %d, %v", a, Depth(sorted), depthOf(v), err)
		}
	})
}

func TestSplitStops(t *testing.T) {
	data := []byte("\x83\xa1a\x01\xa1b\x02\xa1a\x03")
	var got string
	for name, v := range Members(data) {
		if got += name + string('0'+rune(v[0])); len(got) == 4 {
			break
		}
	}
	if got != "a1b2" {
		t.Error(got)
	}
	for e := range Elements([]byte("\x93\x01\x02\x03")) {
		if e[0] == 2 {
			break
		}
		if cap(e) != 1 {
			t.Error("an append would write into the next element")
		}
	}
	for _, none := range [][]byte{nil, {0x05}, {0xa1, 'a'}} {
		for range Members(none) {
			t.Errorf("members of %x", none)
		}
		for range Elements(none) {
			t.Errorf("elements of %x", none)
		}
		if Count(none) != 0 || IsMap(none) || IsArray(none) || IsNil(none) || Depth(none) != 0 {
			t.Errorf("%x is something", none)
		}
	}
}

func TestSplitDepth(t *testing.T) {
	for _, c := range []struct {
		data string
		want int
	}{
		{"\x05", 0},
		{"\x80", 1},
		{"\x90", 1},
		{"\x92\x90\x91\x90", 3},
		{"\x92\x91\x90\x01", 3},
		{"\x82\xa1a\x91\x01\xa1b\x01", 2},
		{"\x82\xa1a\x80\xa1b\x81\xa1c\x81\xa1d\x05", 3},
		{"\x93\xa1\x91\xc4\x01\x91\xd6\xff\x91\x91\x91\x91", 1}, // contents are no heads
		{strings.Repeat("\x91", MaxDepth-1) + "\x90", MaxDepth},
		{strings.Repeat("\x81\xa0", MaxDepth) + "\x05", MaxDepth},
		{strings.Repeat("\x91", MaxDepth+envelope) + "\x05", MaxDepth + envelope},
		// Deeper than any check lets pass: what an edit may have made.
		{strings.Repeat("\x91", MaxDepth+envelope+1) + "\x05", MaxDepth + envelope + 1},
		{strings.Repeat("\x81\xa0", 1000) + "\x05", 1000},
	} {
		if got := Depth([]byte(c.data)); got != c.want {
			t.Errorf("%.40x: %d, want %d", c.data, got, c.want)
		}
	}
}

func TestSplitAppend(t *testing.T) {
	for n, want := range map[int]string{0: "80 90", 15: "8f 9f", 16: "de0010 dc0010", 65535: "deffff dcffff", 65536: "df00010000 dd00010000"} {
		m, a, _ := strings.Cut(want, " ")
		if got := AppendMap([]byte{1}, n); !bytes.Equal(got[1:], unhex(t, m)) || Count(got[1:]) != n || !IsMap(got[1:]) {
			t.Errorf("map of %d: %x", n, got)
		}
		if got := AppendArray([]byte{1}, n); !bytes.Equal(got[1:], unhex(t, a)) || Count(got[1:]) != n || !IsArray(got[1:]) {
			t.Errorf("array of %d: %x", n, got)
		}
	}
	for n, want := range map[int]string{0: "a0", 31: "bf", 32: "d920", 255: "d9ff", 256: "da0100", 65535: "daffff", 65536: "db00010000"} {
		s := strings.Repeat("x", n)
		if got := AppendString(nil, s); !bytes.Equal(got, append(unhex(t, want), s...)) {
			t.Errorf("string of %d: %.8x", n, got)
		}
	}
}
