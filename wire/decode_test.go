package wire

import (
	"errors"
	"math/big"
	"reflect"
	"strconv"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

type Base struct {
	Name string `json:"name"`
	Kind string
}

type hex16 uint16

func (h hex16) MarshalMsgpack() ([]byte, error) {
	return msgpack.Marshal(strconv.FormatUint(uint64(h), 16))
}

func (h *hex16) UnmarshalMsgpack(b []byte) error {
	var s string
	if err := msgpack.Unmarshal(b, &s); err != nil {
		return err
	}
	n, err := strconv.ParseUint(s, 16, 16)
	*h = hex16(n)
	return err
}

// What the msgpack package writes for each feature of its tags, we read.
func TestDecodeReadsWhatEncodeWrites(t *testing.T) {
	type pair struct {
		_msgpack struct{} `msgpack:",as_array"` //nolint:unused // read by reflection
		A, B     int
	}
	type embedded struct {
		*Base
		Size int
	}
	type shadowing struct {
		Kind int
		*Base
	}
	type inlined struct {
		Kind int
		Base `msgpack:",inline"`
	}
	type apart struct {
		Base `msgpack:"base,noinline"`
	}
	type aliased struct {
		New int `msgpack:"new,alias:old"`
	}
	big16 := make(map[string]int)
	for i := range 70_000 {
		big16[strconv.Itoa(i)] = i
	}
	type text string
	n := 7
	pn := &n
	for _, in := range []any{
		pair{A: 1, B: 2},
		embedded{&Base{"n", "k"}, 3},
		embedded{nil, 3},
		shadowing{3, &Base{"n", "k"}},
		inlined{4, Base{"n", ""}},
		apart{Base{"n", "k"}},
		aliased{5},
		map[text]hex16{"x": 0xbeef},
		*big.NewInt(1 << 40),
		[]**int{&pn},
		big16,
		[]string{"a"},
		[][]byte{{1}, {}},
		[2]bool{true, false},
		struct{ E error }{nil},
	} {
		v := reflect.New(reflect.TypeOf(in))
		v.Elem().Set(reflect.ValueOf(in))
		p, err := Encode(v.Interface())
		if err != nil {
			t.Errorf("%T: %v", in, err)
			continue
		}
		for _, f := range []Format{Msgpack, JSON} {
			q, err := p.As(f)
			if err != nil {
				t.Fatal(err)
			}
			out := reflect.New(v.Type().Elem())
			if err := q.Decode(out.Interface()); err != nil || !reflect.DeepEqual(out.Elem().Interface(), in) {
				t.Errorf("%T from %.80s: %.80v, %v", in, q, out.Elem().Interface(), err)
			}
		}
		if _, err := MarshalSorted(v.Interface()); err != nil {
			t.Errorf("%T: %v", in, err)
		}
	}
	var a aliased
	if err := Unmarshal(unhex(t, "81a36f6c6405"), &a); err != nil || a.New != 5 {
		t.Errorf("%+v, %v", a, err)
	}
	for _, c := range []struct {
		json string
		into any
	}{
		{`{"E":"x"}`, &struct{ E error }{}},
		{`{"x":"no hex"}`, &map[string]hex16{}},
		{`[1,2,3]`, &pair{}},
		{`["x",1]`, &pair{}},
		{`"x"`, &pair{}},
		{`"!"`, big.NewInt(0)},
		{`[[1]]`, &[]map[string]int{}},
	} {
		if err := (Payload{JSON, []byte(c.json)}).Decode(c.into); !errors.Is(err, ErrBadPayload) {
			t.Errorf("%s into %T: %v", c.json, c.into, err)
		}
	}
}
