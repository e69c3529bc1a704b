package wire

import (
	"bytes"
	"slices"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// encoders pools encoders with their buffers. It is not the pool of the
// msgpack package, which others in the process share and may configure.
var encoders = sync.Pool{New: func() any {
	e := new(encoder)
	e.enc = msgpack.NewEncoder(&e.buf)
	return e
}}

type encoder struct {
	enc *msgpack.Encoder
	buf bytes.Buffer
}

// maxPooled is the largest buffer that is kept for later.
const maxPooled = 64 << 10

// marshal encodes v; fallbackTag names the struct tag that counts where there
// is no msgpack tag. Floats are never written as integers and strings never
// interned: both would change what other languages read.
func marshal(v any, fallbackTag string) ([]byte, error) {
	e := encoders.Get().(*encoder)
	e.buf.Reset()
	e.enc.Reset(&e.buf)
	e.enc.UseCompactInts(true)
	e.enc.SetCustomStructTag(fallbackTag)
	if err := e.enc.Encode(v); err != nil {
		return nil, Errorf(BadPayload, "encode %T: %w", v, err)
	}
	data := bytes.Clone(e.buf.Bytes())
	if e.buf.Cap() <= maxPooled {
		encoders.Put(e)
	}
	return data, nil
}

// Marshal encodes one of the project's own messages: msgpack, compact
// integers, msgpack tags only. The result is not checked; the receiver does.
func Marshal(v any) ([]byte, error) { return marshal(v, "") }

// MarshalSorted is Marshal with the names of every map and struct in byte
// order, so that equal values give equal bytes.
func MarshalSorted(v any) ([]byte, error) {
	data, err := marshal(v, "")
	if err == nil {
		err = checkMessage(data)
	}
	if err != nil {
		return nil, err
	}
	out, _ := appendSorted(make([]byte, 0, len(data)), data, 0)
	return out, nil
}

// Unmarshal checks data and reads it into v by its msgpack tags, with the
// number rules of Payload.Decode. It allows four levels more than Check, so
// that a message can carry a payload of full depth in a field. Errors are
// bad-payload.
func Unmarshal(data []byte, v any) error {
	if err := checkMessage(data); err != nil {
		return err
	}
	return decode(data, v, decodeMode{})
}

// Canonical is JSON that is equal for equal values: names in byte order, the
// last of equal names only, no white space, the shortest numbers, and 1.0
// written as 1. For hashes and comparisons. An empty Payload gives nil.
func Canonical(p Payload) ([]byte, error) {
	if p.IsZero() {
		return nil, nil
	}
	p, err := p.As(Msgpack)
	if err == nil {
		err = Check(p.Data)
	}
	if err != nil {
		return nil, err
	}
	sorted, _ := appendSorted(make([]byte, 0, len(p.Data)), p.Data, 0)
	return appendJSON(nil, sorted, jsonForm{canonical: true}), nil
}

// appendSorted appends the checked value at data[i:] with its map keys sorted
// and returns where the next value begins. It recurses as deep as the check allowed.
func appendSorted(dst, data []byte, i int) ([]byte, int) {
	k, v, next := head(data, i)
	switch k {
	case kArray:
		dst = appendArrayHead(dst, int(v))
		for range v {
			dst, next = appendSorted(dst, data, next)
		}
		return dst, next
	case kMap:
		type pair struct {
			key   []byte
			value int
		}
		pairs := make([]pair, v)
		for n := range pairs {
			_, length, at := head(data, next)
			pairs[n].key, pairs[n].value = span(data, kStr, length, at)
			next = skip(data, pairs[n].value)
		}
		slices.SortStableFunc(pairs, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
		slices.Reverse(pairs) // so that Compact keeps the last of equal names
		pairs = slices.CompactFunc(pairs, func(a, b pair) bool { return bytes.Equal(a.key, b.key) })
		slices.Reverse(pairs)
		dst = appendMapHead(dst, len(pairs))
		for _, p := range pairs {
			dst = append(appendStrHead(dst, len(p.key)), p.key...)
			dst, _ = appendSorted(dst, data, p.value)
		}
		return dst, next
	}
	next = skip(data, i)
	return append(dst, data[i:next]...), next
}

// skip returns the end of the checked value at data[i:].
func skip(data []byte, i int) int {
	for left := uint64(1); left > 0; left-- {
		k, v, next := head(data, i)
		switch k {
		case kStr, kBin, kExt:
			_, next = span(data, k, v, next)
		case kArray:
			left += v
		case kMap:
			left += 2 * v
		}
		i = next
	}
	return i
}
