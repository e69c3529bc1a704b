package wire

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"reflect"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// Decoding is our own and not the msgpack package's, which wraps numbers that
// do not fit (300 into an int8 is 44, 1<<63 into a float64 is negative), sizes
// containers by their claim and gives any the narrowest type. Types with a
// decoder of their own still get it.

type decodeMode struct {
	jsonTags bool // json tags where there is no msgpack tag
	fromJSON bool // strings stand for bytes, too
}

type decoder struct {
	data []byte // has passed Check
	decodeMode
}

var (
	timeType    = reflect.TypeFor[time.Time]()
	payloadType = reflect.TypeFor[Payload]()
	rawType     = reflect.TypeFor[msgpack.RawMessage]()
	rawJSONType = reflect.TypeFor[json.RawMessage]()
)

// decode reads the checked data into v.
func decode(data []byte, v any, mode decodeMode) error {
	d := decoder{data: data, decodeMode: mode}
	switch v := v.(type) {
	case *any:
		if v != nil {
			*v, _ = d.any(0)
			return nil
		}
	case *Payload:
		if v != nil {
			*v = Payload{Data: bytes.Clone(data)}
			return nil
		}
	}
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return Errorf(Internal, "decode into %T, not into a pointer", v)
	}
	_, err := d.value(0, target.Elem())
	return err
}

// any reads the value at i in its normal Go type.
func (d *decoder) any(i int) (v any, next int) {
	k, n, next := head(d.data, i)
	switch k {
	case kFalse:
		return false, next
	case kTrue:
		return true, next
	case kUint:
		if n > math.MaxInt64 {
			return n, next
		}
		return int64(n), next
	case kInt:
		return int64(n), next
	case kFloat:
		return math.Float64frombits(n), next
	case kStr:
		s, next := span(d.data, k, n, next)
		return string(s), next
	case kBin:
		b, next := span(d.data, k, n, next)
		return append([]byte{}, b...), next
	case kExt:
		b, next := span(d.data, k, n, next)
		t, _ := timestamp(b)
		return t, next
	case kArray:
		list := make([]any, n)
		for i := range list {
			list[i], next = d.any(next)
		}
		return list, next
	case kMap:
		m := make(map[string]any, n)
		for range n {
			_, length, at := head(d.data, next)
			name, at := span(d.data, kStr, length, at)
			m[string(name)], next = d.any(at)
		}
		return m, next
	}
	return nil, next // nil
}

// value reads the value at i into v, which is replaced.
func (d *decoder) value(i int, v reflect.Value) (next int, err error) {
	k, n, next := head(d.data, i)
	if k == kNil {
		v.SetZero()
		return next, nil
	}
	t := v.Type()
	switch {
	case t == timeType:
		return d.time(i, v)
	case t == payloadType:
		next = skip(d.data, i)
		v.Set(reflect.ValueOf(Payload{Data: bytes.Clone(d.data[i:next])}))
		return next, nil
	case t == rawJSONType:
		if k == kBin { // as Encode writes it inside other values
			if b, after := span(d.data, k, n, next); CheckJSON(b) == nil {
				v.SetBytes(bytes.Clone(b))
				return after, nil
			}
		}
		next = skip(d.data, i)
		v.SetBytes(appendJSON(nil, d.data[i:next], jsonForm{}))
		return next, nil
	case t == rawType:
		next = skip(d.data, i)
		v.SetBytes(bytes.Clone(d.data[i:next]))
		return next, nil
	}
	if c := codecOf(t); c != byKind {
		return d.custom(i, v, c)
	}
	switch t.Kind() {
	case reflect.Pointer:
		p := reflect.New(t.Elem())
		next, err = d.value(i, p.Elem())
		v.Set(p)
		return next, err
	case reflect.Interface:
		if t.NumMethod() == 0 {
			x, next := d.any(i)
			v.Set(reflect.ValueOf(x))
			return next, nil
		}
	case reflect.Struct:
		return d.structure(i, v)
	case reflect.Map:
		return d.mapping(i, v)
	case reflect.Slice, reflect.Array:
		return d.sequence(i, v)
	case reflect.String:
		if k == kStr {
			s, next := span(d.data, k, n, next)
			v.SetString(string(s))
			return next, nil
		}
	case reflect.Bool:
		if k == kTrue || k == kFalse {
			v.SetBool(k == kTrue)
			return next, nil
		}
	default:
		if number(k, n, v) {
			return next, nil
		}
	}
	return 0, mismatch(i, k, t)
}

func mismatch(i int, k kind, t reflect.Type) *Error {
	return badByte(i, k.String()+" does not fit in "+t.String())
}

// number stores an integer or float if v can hold exactly that number;
// integers may round when a float is declared.
func number(k kind, n uint64, v reflect.Value) bool {
	f := math.Float64frombits(n)
	if k == kFloat && v.CanInt() || k == kFloat && v.CanUint() {
		switch {
		case f != math.Trunc(f):
			return false
		case f >= 0 && f < 1<<64:
			k, n = kUint, uint64(f)
		case f < 0 && f >= -1<<63:
			k, n = kInt, uint64(int64(f))
		default:
			return false
		}
	}
	switch {
	case k != kFloat && k != kUint && k != kInt:
		return false
	case v.CanInt():
		if k == kUint && n > math.MaxInt64 || v.OverflowInt(int64(n)) {
			return false
		}
		v.SetInt(int64(n))
	case v.CanUint():
		if k == kInt || v.OverflowUint(n) {
			return false
		}
		v.SetUint(n)
	case v.CanFloat():
		switch k {
		case kUint:
			f = float64(n)
		case kInt:
			f = float64(int64(n))
		}
		if v.OverflowFloat(f) {
			return false
		}
		v.SetFloat(f)
	default:
		return false
	}
	return true
}

func (d *decoder) time(i int, v reflect.Value) (int, error) {
	k, n, next := head(d.data, i)
	if k != kExt && k != kStr {
		return 0, mismatch(i, k, timeType)
	}
	b, next := span(d.data, k, n, next)
	t, ok := timestamp(b)
	if k == kStr {
		var err error
		t, err = time.Parse(time.RFC3339Nano, string(b))
		ok = err == nil
	}
	if !ok {
		return 0, mismatch(i, k, timeType)
	}
	v.Set(reflect.ValueOf(t.UTC()))
	return next, nil
}

func (d *decoder) structure(i int, v reflect.Value) (int, error) {
	k, n, next := head(d.data, i)
	plan := planOf(v.Type(), d.jsonTags)
	if k == kArray && n == uint64(len(plan.list)) { // a struct written as an array
		var err error
		for _, f := range plan.list {
			if next, err = d.field(next, v, f.name, f.index); err != nil {
				return 0, err
			}
		}
		return next, nil
	}
	if k != kMap {
		return 0, mismatch(i, k, v.Type())
	}
	for range n {
		_, length, at := head(d.data, next)
		name, at := span(d.data, kStr, length, at)
		index, known := plan.byName[string(name)]
		if !known {
			next = skip(d.data, at)
			continue
		}
		var err error
		if next, err = d.field(at, v, string(name), index); err != nil {
			return 0, err
		}
	}
	return next, nil
}

func (d *decoder) field(i int, v reflect.Value, name string, index []int) (int, error) {
	f, ok := fieldAt(v, index, d.data[i] != 0xc0)
	if !ok {
		return skip(d.data, i), nil
	}
	f.SetZero()
	next, err := d.value(i, f)
	return next, within(name, err)
}

// within puts the name of a field or key before the message.
func within(name string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{Code: e.Code, Message: cut(name, 64) + ": " + e.Message, cause: e.cause}
	}
	return err
}

// mapping adds to the map that v holds, or makes one.
func (d *decoder) mapping(i int, v reflect.Value) (int, error) {
	k, n, next := head(d.data, i)
	t := v.Type()
	if k != kMap || t.Key().Kind() != reflect.String {
		return 0, mismatch(i, k, t)
	}
	if v.IsNil() {
		v.Set(reflect.MakeMapWithSize(t, int(n)))
	}
	if m, ok := reflect.TypeAssert[map[string]any](v); ok {
		x, next := d.any(i)
		maps.Copy(m, x.(map[string]any))
		return next, nil
	}
	name, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
	for range n {
		_, length, at := head(d.data, next)
		b, at := span(d.data, kStr, length, at)
		name.SetString(string(b))
		value.SetZero()
		var err error
		if next, err = d.value(at, value); err != nil {
			return 0, within(string(b), err)
		}
		v.SetMapIndex(name, value)
	}
	return next, nil
}

// sequence reads into a slice, which is made anew, or into an array of exactly
// the right length.
func (d *decoder) sequence(i int, v reflect.Value) (int, error) {
	k, n, next := head(d.data, i)
	t := v.Type()
	if t.Elem().Kind() == reflect.Uint8 && (k == kBin || k == kStr) {
		b, next, ok := d.bytes(k, n, next)
		if !ok {
			return 0, badByte(i, "a string is not base64")
		}
		if t.Kind() == reflect.Slice {
			v.SetBytes(b)
			return next, nil
		}
		if len(b) != t.Len() {
			return 0, mismatch(i, k, t)
		}
		reflect.Copy(v, reflect.ValueOf(b).Convert(reflect.SliceOf(t.Elem())))
		return next, nil
	}
	if k != kArray || t.Kind() == reflect.Array && n != uint64(t.Len()) {
		return 0, mismatch(i, k, t)
	}
	if t.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(t, int(n), int(n)))
	}
	for e := range int(n) {
		var err error
		if next, err = d.value(next, v.Index(e)); err != nil {
			return 0, err
		}
	}
	return next, nil
}

// bytes copies the contents of bytes or a string. From JSON a string is base64.
func (d *decoder) bytes(k kind, n uint64, next int) (b []byte, after int, ok bool) {
	b, after = span(d.data, k, n, next)
	if d.fromJSON && k == kStr {
		raw, err := base64.StdEncoding.AppendDecode([]byte{}, b)
		return raw, after, err == nil
	}
	return append([]byte{}, b...), after, true
}

// custom hands the value at i to the decoder that the type brings along.
func (d *decoder) custom(i int, v reflect.Value, c codec) (next int, err error) {
	next = skip(d.data, i)
	p := v.Addr().Interface()
	switch c {
	case byCustom:
		dec := msgpack.NewDecoder(bytes.NewReader(d.data[i:next]))
		if d.jsonTags {
			dec.SetCustomStructTag("json")
		}
		err = p.(msgpack.CustomDecoder).DecodeMsgpack(dec)
	case byMsgpack:
		err = p.(msgpack.Unmarshaler).UnmarshalMsgpack(bytes.Clone(d.data[i:next]))
	default:
		k, n, at := head(d.data, i)
		if k != kBin && k != kStr {
			return 0, mismatch(i, k, v.Type())
		}
		b, _ := span(d.data, k, n, at)
		err = unmarshal(p, bytes.Clone(b), k == kStr)
		if err != nil && d.fromJSON {
			if b, _, ok := d.bytes(k, n, at); ok && unmarshal(p, b, false) == nil {
				err = nil
			}
		}
	}
	if err != nil {
		return 0, Errorf(BadPayload, "%s: %w", v.Type(), err)
	}
	return next, nil
}

// unmarshal gives b to p as text or as binary, whichever p has and fits better.
func unmarshal(p any, b []byte, isText bool) error {
	text, hasText := p.(encoding.TextUnmarshaler)
	binary, hasBinary := p.(encoding.BinaryUnmarshaler)
	if hasText && (isText || !hasBinary) {
		return text.UnmarshalText(b)
	}
	return binary.UnmarshalBinary(b)
}
