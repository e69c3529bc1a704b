package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

type leg struct {
	Venue string  `msgpack:"venue"`
	Qty   int32   `json:"qty"`
	Px    float64 `msgpack:"px,omitempty" json:"price"`
}

type stamp struct {
	At time.Time `json:"at"`
}

type order struct {
	stamp
	*extra
	ID     uint64 `json:"id"`
	Legs   []leg  `json:"legs"`
	Best   *leg   `json:"best,omitempty"`
	Data   []byte `json:"data"`
	Key    [4]byte
	ByName map[string]leg `json:"byName"`
	Any    any            `json:"any"`
	Inner  Payload        `json:"inner,omitzero"`
	Raw    msgpack.RawMessage
	Addr   netip.Addr
	Hidden string `json:"-"`
	Small  int8
	Ratio  float32
	Wait   time.Duration
	Flag   bool
	Map    map[string]any
	secret int
}

type extra struct{ Extra string }

func TestStructsComeBack(t *testing.T) {
	in := order{
		stamp: stamp{time.Date(2026, 11, 21, 8, 30, 0, 123456789, time.UTC)}, ID: math.MaxUint64,
		Legs: []leg{{"XLON", math.MaxInt32, 1}, {"BATE", math.MinInt32, 0}}, Best: &leg{Venue: "X"},
		Data: []byte{0, 255}, Key: [4]byte{1, 2, 3, 4}, ByName: map[string]leg{"a": {Venue: "V"}},
		Any:   map[string]any{"n": int64(1), "big": uint64(math.MaxUint64), "f": 1.0, "l": []any{"x", nil, true}},
		Inner: Payload{Data: []byte{0x93, 1, 2, 3}}, Raw: []byte{0x91, 0xc3}, Addr: netip.MustParseAddr("10.0.0.1"),
		Hidden: "", Small: -128, Ratio: 0.5, Wait: time.Second, Flag: true, Map: map[string]any{"k": "v"},
	}
	in.secret = 0
	p, err := Encode(&in)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []Format{Msgpack, JSON} {
		q, err := p.As(f)
		if err != nil {
			t.Fatal(err)
		}
		var out order
		if err := q.Decode(&out); err != nil {
			t.Fatalf("%s: %v\n%s", f.ContentType(), err, q)
		}
		if !reflect.DeepEqual(in, out) {
			t.Errorf("%s:\n got %+v\nwant %+v", f.ContentType(), out, in)
		}
	}
	j, err := EncodeJSON(in.Legs[0])
	if want := `{"venue":"XLON","qty":2147483647,"px":1.0}`; err != nil || string(j.Data) != want {
		t.Errorf("%s, %v; want %s", j.Data, err, want)
	}
}

func TestDecodeIntoAnyIsNormal(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 30, 0, 0, time.UTC)
	for _, c := range []struct{ in, want any }{
		{int8(1), int64(1)},
		{uint16(300), int64(300)},
		{int64(math.MinInt64), int64(math.MinInt64)},
		{uint64(math.MaxInt64), int64(math.MaxInt64)},
		{uint64(1 << 63), uint64(1 << 63)},
		{float32(1.5), 1.5},
		{1.0, 1.0},
		{"x", "x"},
		{true, true},
		{[]byte{1}, []byte{1}},
		{[]byte{}, []byte{}},
		{now, now},
		{[]int{1}, []any{int64(1)}},
		{map[string]int{"a": 1}, map[string]any{"a": int64(1)}},
		{[]any{nil}, []any{nil}},
		{(*leg)(nil), nil},
	} {
		p, err := Encode(c.in)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := p.Decode(&got); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%T(%v): %T(%v), %v; want %T", c.in, c.in, got, got, err, c.want)
		}
	}
	var got any
	p := Payload{JSON, []byte(`{"i":1,"f":1.0,"e":1e3,"u":18446744073709551615,"b":18446744073709551616,"a":[-1]}`)}
	want := map[string]any{"i": int64(1), "f": 1.0, "e": 1000.0, "u": uint64(math.MaxUint64), "b": float64(1 << 64), "a": []any{int64(-1)}}
	if err := p.Decode(&got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// Numbers fit or are refused; they never wrap and never lose a fraction.
func TestDecodeNumbers(t *testing.T) {
	for _, c := range []struct {
		json string
		into any
		want any // nil: refused
	}{
		{"127", int8(0), int8(127)},
		{"128", int8(0), nil},
		{"-128", int8(0), int8(-128)},
		{"-129", int8(0), nil},
		{"255", uint8(0), uint8(255)},
		{"256", uint8(0), nil},
		{"-1", uint8(0), nil},
		{"-1", uint64(0), nil},
		{"9223372036854775807", int64(0), int64(math.MaxInt64)},
		{"9223372036854775808", int64(0), nil},
		{"9223372036854775808", float64(0), float64(1 << 63)},
		{"18446744073709551615", uint64(0), uint64(math.MaxUint64)},
		{"1", float64(0), 1.0},
		{"-3", float32(0), float32(-3)},
		{"1e39", float32(0), nil},
		{"0.1", float32(0), float32(0.1)},
		{"1.0", 0, 1},
		{"1e3", int16(0), int16(1000)},
		{"-2.0", 0, -2},
		{"1.5", 0, nil},
		{"1e19", int64(0), nil},
		{"1e19", uint64(0), uint64(1e19)},
		{"1e20", uint64(0), nil},
		{"-0.0", 0, 0},
		{"-1.0", uint(0), nil},
		{"true", 0, nil},
		{`"1"`, 0, nil},
		{"1", "", nil},
		{"1", false, nil},
		{"[1]", 0, nil},
		{"null", 7, 0},
		{"[1,2]", [2]int{}, [2]int{1, 2}},
		{"[1,2,3]", [2]int{}, nil},
		{`"AQI="`, [2]byte{}, [2]byte{1, 2}},
		{`"AQI="`, [3]byte{}, nil},
		{`"no base64!"`, []byte{}, nil},
		{"[1,256]", []uint8{}, nil},
		{"{}", []int{}, nil},
		{"[]", map[string]int{}, nil},
		{`"2026-11-21"`, time.Time{}, nil},
		{"1", time.Time{}, nil},
		{`{"a":1}`, map[int]int{}, nil},
		{`"x"`, make(chan int), nil},
		{`"10.0.0.1"`, netip.Addr{}, netip.MustParseAddr("10.0.0.1")},
		{`"ten"`, netip.Addr{}, nil},
		{"10", netip.Addr{}, nil},
	} {
		v := reflect.New(reflect.TypeOf(c.into))
		v.Elem().Set(reflect.ValueOf(c.into))
		err := Payload{JSON, []byte(c.json)}.Decode(v.Interface())
		switch got := v.Elem().Interface(); {
		case c.want == nil && !errors.Is(err, ErrBadPayload):
			t.Errorf("%s into %T: %v, %v; want it refused", c.json, c.into, got, err)
		case c.want != nil && (err != nil || !reflect.DeepEqual(got, c.want)):
			t.Errorf("%s into %T: %v, %v; want %v", c.json, c.into, got, err, c.want)
		}
	}
}

func TestDecodeReplaces(t *testing.T) {
	v := struct {
		L []int
		M map[string]int
		S leg
		P *leg
		K string
	}{L: []int{9, 9}, M: map[string]int{"old": 1}, S: leg{Venue: "old"}, P: &leg{Venue: "old"}, K: "kept"}
	old := v.P
	err := Payload{JSON, []byte(`{"L":[1],"M":{"a":1},"S":{"qty":1},"P":{"qty":2},"M":{"b":2},"unknown":{"x":[1]}}`)}.Decode(&v)
	if err != nil || len(v.L) != 1 || !reflect.DeepEqual(v.M, map[string]int{"b": 2}) || v.S != (leg{Qty: 1}) ||
		*v.P != (leg{Qty: 2}) || old.Venue != "old" || v.K != "kept" {
		t.Errorf("%+v, %v", v, err)
	}
	m := map[string]any{"kept": 1, "a": 1}
	if err := (Payload{JSON, []byte(`{"a":2}`)}).Decode(&m); err != nil || len(m) != 2 || m["a"] != int64(2) {
		t.Errorf("%v, %v", m, err)
	}
	err = Payload{JSON, []byte(`{"L":[],"S":{"qty":1.5}}`)}.Decode(&v)
	if err == nil || !strings.Contains(err.Error(), "S: qty: ") {
		t.Errorf("no path in %v", err)
	}
	for _, target := range []any{nil, v, (*int)(nil), (*any)(nil)} {
		if err := (Payload{Data: []byte{1}}).Decode(target); CodeOf(err) != Internal {
			t.Errorf("into %T: %v", target, err)
		}
	}
}

func TestDuplicateNamesLastWins(t *testing.T) {
	p := Payload{JSON, []byte(`{"qty":1,"venue":"a","qty":2,"x":{"a":1},"x":{"b":2}}`)}
	q, _ := p.As(Msgpack)
	for _, p := range []Payload{p, q} {
		var l leg
		var a any
		if err := p.Decode(&l); err != nil || l.Qty != 2 {
			t.Errorf("%+v, %v", l, err)
		}
		if err := p.Decode(&a); err != nil || !reflect.DeepEqual(a, map[string]any{"qty": int64(2), "venue": "a", "x": map[string]any{"b": int64(2)}}) {
			t.Errorf("%v, %v", a, err)
		}
		if c, err := Canonical(p); err != nil || string(c) != `{"qty":2,"venue":"a","x":{"b":2}}` {
			t.Errorf("%s, %v", c, err)
		}
	}
}

func TestEncode(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{int64(1), "01"},
		{uint64(200), "ccc8"},
		{int64(-1), "ff"},
		{1.0, "cb3ff0000000000000"},
		{float32(1), "ca3f800000"},
		{[]byte{1}, "c40101"},
		{"a", "a161"},
		{time.Unix(1, 0), "d6ff00000001"},
		{struct{}{}, "80"},
		{big.NewInt(5), "c40135"},
		{map[string]any{"p": Payload{JSON, []byte(` [1.0] `)}}, "81a17091cb3ff0000000000000"},
		{[]Payload{{}}, "91c0"},
	} {
		p, err := Encode(c.v)
		if err != nil || p.Format != Msgpack || !bytes.Equal(p.Data, unhex(t, c.want)) {
			t.Errorf("%T(%v): %x, %v; want %s", c.v, c.v, p.Data, err, c.want)
		}
	}
	if p, err := Encode(nil); err != nil || !p.IsZero() || p.Len() != 0 || p.String() != "" || p.Check() != nil {
		t.Errorf("nil: %v, %v", p, err)
	}
	raw := json.RawMessage(`{"a": 1}`)
	if p, err := Encode(raw); err != nil || p.Format != JSON || &p.Data[0] != &raw[0] {
		t.Errorf("raw: %v, %v", p, err)
	}
	deep := any(nil)
	for range MaxDepth + 1 {
		deep = []any{deep}
	}
	for _, v := range []any{
		math.NaN(),
		[]float64{math.Inf(1)},
		float32(math.Inf(-1)), "\xff",
		map[int]int{1: 1},
		make(chan int),
		func() {}, complex(1, 1), deep, json.RawMessage("{"),
		Payload{Data: []byte{0xc1}},
		[]Payload{{Data: []byte{0xc1}}},
		time.Unix(1<<40, 0),
	} {
		if p, err := Encode(v); !errors.Is(err, ErrBadPayload) || !p.IsZero() && !errors.Is(p.Check(), ErrBadPayload) {
			t.Errorf("%T: %v, %v", v, p, err)
		}
	}
	var none leg
	if err := (Payload{}).Decode(&none); err != nil || none != (leg{}) {
		t.Errorf("empty: %v, %v", none, err)
	}
}

func TestContentType(t *testing.T) {
	for s, want := range map[string]Format{
		"": Msgpack, "application/msgpack": Msgpack, "application/json": JSON,
		"application/json; charset=utf-8": JSON, " Application/JSON;x": JSON, "application/msgpack;v=1": Msgpack,
	} {
		if f, err := ParseContentType(s); f != want || err != nil {
			t.Errorf("%q: %v, %v", s, f, err)
		}
	}
	for _, s := range []string{"text/plain", "application/jsonp", ";", "json"} {
		if _, err := ParseContentType(s); !errors.Is(err, ErrBadPayload) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, f := range []Format{Msgpack, JSON} {
		if g, err := ParseContentType(f.ContentType()); g != f || err != nil {
			t.Errorf("%v: %v, %v", f, g, err)
		}
	}
}

func TestPayloadString(t *testing.T) {
	long, _ := Encode(strings.Repeat("é", 10_000))
	list, _ := Encode(make([]int, 1<<20))
	for _, c := range []struct{ got, want string }{
		{Payload{JSON, []byte(" {\"a b\\\" \" :\n [1, 2] } ")}.String(), `{"a b\" ":[1,2]}`},
		{Payload{Data: sample(t)}.String(), sampleJSON},
		{Payload{Data: []byte{0xc1}}.String(), "<bad-payload: msgpack, byte 0: 0xc1 is not msgpack>"},
		{long.String(), `"` + strings.Repeat("é", 2047)},
		{list.String(), "[" + strings.Repeat("0,", 2047) + "0"},
		{Payload{JSON, []byte(`"` + strings.Repeat("é", 10_000))}.String(), `"` + strings.Repeat("é", 2047)},
	} {
		if c.got != c.want {
			t.Errorf("got %.80s (%d), want %.80s (%d)", c.got, len(c.got), c.want, len(c.want))
		}
	}
}

func TestCanonical(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{` {"b":1.0,"a":[-0.0,1e2,-1e3,0.5,1e21]}`, `{"a":[0,100,-1000,0.5,1e+21],"b":1}`},
		{`18446744073709551616`, `18446744073709552000.0`},
		{`1e19`, `10000000000000000000`},
		{`"\u0061"`, `"a"`},
		{`{}`, `{}`},
	} {
		got, err := Canonical(Payload{JSON, []byte(c.json)})
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v; want %s", c.json, got, err, c.want)
		}
	}
	if got, err := Canonical(Payload{}); got != nil || err != nil {
		t.Errorf("empty: %s, %v", got, err)
	}
	if _, err := Canonical(Payload{Data: []byte{0xc1}}); !errors.Is(err, ErrBadPayload) {
		t.Error(err)
	}
}

func TestMarshal(t *testing.T) {
	type message struct {
		Z map[string]leg `msgpack:"z"`
		A int64          `msgpack:"a" json:"other"`
		J int            `json:"j"`
	}
	in := message{Z: map[string]leg{}, A: 300, J: 1}
	for _, name := range []string{"q", "w", "e", "r", "t", "y"} {
		in.Z[name] = leg{Venue: name}
	}
	first, err := MarshalSorted(in)
	if err != nil || !bytes.HasPrefix(first, unhex(t, "83a14a01a161cd012ca17a86a165")) {
		t.Fatalf("%x, %v", first, err)
	}
	for range 50 {
		if again, err := MarshalSorted(in); err != nil || !bytes.Equal(again, first) {
			t.Fatalf("%x, %v", again, err)
		}
	}
	plain, err := Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{first, plain} {
		var out message
		if err := Unmarshal(data, &out); err != nil || !reflect.DeepEqual(in, out) {
			t.Errorf("%+v, %v", out, err)
		}
	}
	for _, bad := range []string{"", "c1", "8301", "81a16101c0", "81a161a178"} {
		if err := Unmarshal(unhex(t, bad), new(message)); !errors.Is(err, ErrBadPayload) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// The msgpack package reads and writes a Payload in a struct as its value, too.
func TestPayloadInsideMsgpack(t *testing.T) {
	type box struct{ P, Q Payload }
	data, err := msgpack.Marshal(box{P: Payload{JSON, []byte(`{"a":1}`)}})
	if err != nil || !bytes.Equal(data, unhex(t, "82a15081a16101a151c0")) {
		t.Fatalf("%x, %v", data, err)
	}
	var a, b box
	if err := msgpack.Unmarshal(data, &a); err != nil || a.P.String() != `{"a":1}` {
		t.Errorf("%v, %v", a, err)
	}
	if err := Unmarshal(data, &b); err != nil || b.P.String() != `{"a":1}` || !b.Q.IsZero() {
		t.Errorf("%v, %v", b, err)
	}
}

// A message carries a payload of full depth, and no more.
func TestMessageDepth(t *testing.T) {
	type item struct{ Body msgpack.RawMessage }
	type message struct{ Items []item }
	full := append(bytes.Repeat([]byte{0x91}, MaxDepth-1), 0x90)
	for extra, ok := range []bool{true, true, false} {
		body := append(bytes.Repeat([]byte{0x91}, extra), full...)
		data, err := Marshal(message{[]item{{body}}})
		if err != nil {
			t.Fatal(err)
		}
		var m message
		if err := Unmarshal(data, &m); ok && err != nil || !ok && !errors.Is(err, ErrBadPayload) {
			t.Errorf("%d more: %v", extra, err)
		}
		if extra == 0 && Check(m.Items[0].Body) != nil {
			t.Error("the payload does not pass by itself")
		}
		var raw struct{ Items json.RawMessage }
		if err := Unmarshal(data, &raw); ok && (err != nil || !json.Valid(raw.Items)) {
			t.Errorf("as JSON: %s, %v", raw.Items, err)
		}
	}
}
