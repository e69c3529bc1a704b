package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendMsgpack appends json as msgpack, token by token. Names that occur
// twice stay in the bytes twice, in their order; everything here that decodes
// takes the last. On an error dst is returned as it was.
func AppendMsgpack(dst, json []byte) ([]byte, error) {
	out, err := walkJSON(dst, json, true)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// AppendJSON checks msgpack and appends it as compact JSON. On an error dst is
// returned as it was.
func AppendJSON(dst, msgpack []byte) ([]byte, error) {
	if err := Check(msgpack); err != nil {
		return dst, err
	}
	return appendJSON(dst, msgpack, jsonForm{}), nil
}

// jsonReader is a pooled tokenizer.
type jsonReader struct {
	dec     *jsontext.Decoder
	buf     bytes.Buffer
	scratch [16]byte
}

var jsonOptions = jsontext.AllowInvalidUTF8(true) // lone surrogates too: U+FFFD

var jsonReaders = sync.Pool{New: func() any {
	return &jsonReader{dec: jsontext.NewDecoder(bytes.NewReader(nil))}
}}

// walkJSON checks src and, when emit is set, appends it to dst as msgpack.
// Container heads are written wide and shortened when the container closes,
// as long as there is little to move.
func walkJSON(dst, src []byte, emit bool) ([]byte, error) {
	r := jsonReaders.Get().(*jsonReader)
	r.buf = *bytes.NewBuffer(slices.Clip(src))
	r.dec.Reset(&r.buf, jsonOptions, jsontext.AllowDuplicateNames(true))
	defer func() {
		r.buf = bytes.Buffer{} // do not keep src
		r.dec.Reset(&r.buf)
		jsonReaders.Put(r)
	}()

	var stack [MaxDepth]struct{ at, n int }
	depth := 0
	for {
		switch r.dec.PeekKind() {
		case '{', '[':
			if depth == MaxDepth {
				return nil, badJSON(r.dec.InputOffset(), errors.New("nested too deep"))
			}
			tok, err := r.dec.ReadToken()
			if err != nil {
				return nil, badJSON(r.dec.InputOffset(), err)
			}
			stack[depth].at, stack[depth].n = len(dst), 0
			depth++
			if emit {
				code := byte(0xdd)
				if tok.Kind() == '{' {
					code = 0xdf
				}
				dst = append(dst, code, 0, 0, 0, 0)
			}
			continue
		case '}', ']':
			if _, err := r.dec.ReadToken(); err != nil {
				return nil, badJSON(r.dec.InputOffset(), err)
			}
			depth--
			if emit {
				dst = closeContainer(dst, stack[depth].at, stack[depth].n)
			}
		default:
			if !emit {
				dst = r.scratch[:0]
			}
			raw, err := r.dec.ReadValue()
			if err == nil {
				dst, err = appendScalar(dst, raw, emit)
			}
			if err != nil {
				return nil, badJSON(r.dec.InputOffset(), err)
			}
		}
		if depth == 0 {
			break
		}
		stack[depth-1].n++
	}
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, badJSON(r.dec.InputOffset(), errors.New("bytes after the value"))
	}
	return dst, nil
}

// maxShift is how many bytes may be moved to save four.
const maxShift = 2 << 10

// closeContainer patches the wide head at dst[at:] with the n values that
// followed it, or shortens it.
func closeContainer(dst []byte, at, n int) []byte {
	isMap := dst[at] == 0xdf
	if isMap {
		n /= 2
	}
	if n > 15 || len(dst)-at > maxShift {
		binary.BigEndian.PutUint32(dst[at+1:], uint32(n))
		return dst
	}
	dst[at] = 0x90 | byte(n)
	if isMap {
		dst[at] = 0x80 | byte(n)
	}
	return slices.Delete(dst, at+1, at+5)
}

func appendScalar(dst []byte, raw jsontext.Value, emit bool) ([]byte, error) {
	switch raw[0] {
	case 'n':
		dst = append(dst, 0xc0)
	case 'f':
		dst = append(dst, 0xc2)
	case 't':
		dst = append(dst, 0xc3)
	case '"':
		if emit {
			dst = appendJSONString(dst, raw)
		}
		return dst, nil
	default:
		return appendNumber(dst, raw)
	}
	return dst, nil
}

// appendJSONString appends a JSON string literal that the tokenizer accepted.
func appendJSONString(dst []byte, raw []byte) []byte {
	at := len(dst)
	dst = appendStrHead(dst, len(raw)-2) // the right size unless something was escaped
	headLen := len(dst) - at
	dst, _ = jsontext.AppendUnquote(dst, raw) // the only error left is invalid UTF-8, replaced
	n := len(dst) - at - headLen
	var short [5]byte
	h := appendStrHead(short[:0], n)
	return slices.Replace(dst, at, at+headLen, h...)
}

// appendNumber keeps integers exact to 64 bits and everything else a float64.
func appendNumber(dst, raw []byte) ([]byte, error) {
	if len(raw) <= len("-9223372036854775808") && !bytes.ContainsAny(raw, ".eE") {
		if raw[0] == '-' {
			if v, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
				return appendInt(dst, v), nil
			}
		} else if v, err := strconv.ParseUint(string(raw), 10, 64); err == nil {
			return appendUint(dst, v), nil
		}
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || !finite(f) {
		return nil, errors.New("a number beyond float64")
	}
	return appendFloat(dst, f), nil
}

func badJSON(at int64, err error) *Error {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		at, err = syntax.ByteOffset, syntax.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the value is cut short")
	}
	return Errorf(BadPayload, "json, byte %d: %s", at, cut(err.Error(), 256))
}

// jsonForm chooses between the forms of JSON that this package writes.
type jsonForm struct {
	canonical bool // numbers that are equal look equal: 1.0 is 1
	limit     int  // stop soon after this many bytes; 0: no limit
}

// appendJSON appends data, which must have passed Check, as compact JSON.
func appendJSON(dst, data []byte, form jsonForm) []byte {
	type open struct {
		n, left uint64 // values, keys counted: all of them and those to come
		isMap   bool
	}
	var stack [1 + MaxDepth + envelope]open
	stack[0] = open{n: 1, left: 1}
	depth, i, start := 0, 0, len(dst)
	for {
		top := &stack[depth]
		if done := top.n - top.left; done > 0 {
			if top.isMap && done&1 == 1 {
				dst = append(dst, ':')
			} else {
				dst = append(dst, ',')
			}
		}
		top.left--
		k, v, next := head(data, i)
		switch k {
		case kArray:
			dst = append(dst, '[')
			depth++
			stack[depth] = open{n: v, left: v}
		case kMap:
			dst = append(dst, '{')
			depth++
			stack[depth] = open{n: 2 * v, left: 2 * v, isMap: true}
		default:
			dst, next = appendJSONScalar(dst, data, k, v, next, form.canonical)
		}
		i = next
		for stack[depth].left == 0 {
			if depth == 0 {
				return dst
			}
			if stack[depth].isMap {
				dst = append(dst, '}')
			} else {
				dst = append(dst, ']')
			}
			depth--
		}
		if form.limit > 0 && len(dst)-start > form.limit {
			return dst
		}
	}
}

func appendJSONScalar(dst, data []byte, k kind, v uint64, next int, canonical bool) ([]byte, int) {
	switch k {
	case kNil:
		dst = append(dst, "null"...)
	case kFalse:
		dst = append(dst, "false"...)
	case kTrue:
		dst = append(dst, "true"...)
	case kUint:
		dst = strconv.AppendUint(dst, v, 10)
	case kInt:
		dst = strconv.AppendInt(dst, int64(v), 10)
	case kFloat:
		dst = appendJSONFloat(dst, math.Float64frombits(v), canonical)
	case kStr:
		var s []byte
		s, next = span(data, k, v, next)
		dst, _ = jsontext.AppendQuote(dst, s) // valid UTF-8: no error
	case kBin:
		var b []byte
		b, next = span(data, k, v, next)
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, b)
		dst = append(dst, '"')
	case kExt:
		var b []byte
		b, next = span(data, k, v, next)
		t, _ := timestamp(b)
		dst = append(dst, '"')
		dst = t.AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	return dst, next
}

// appendJSONFloat writes the shortest text that reads back as f and still as a
// float: a fraction or an exponent is always there, unless the form is
// canonical, where an integer that fits in 64 bits is written as one.
func appendJSONFloat(dst []byte, f float64, canonical bool) []byte {
	if canonical && f == math.Trunc(f) {
		if f >= 0 && f < 1<<64 {
			return strconv.AppendUint(dst, uint64(f), 10)
		}
		if f < 0 && f >= -1<<63 {
			return strconv.AppendInt(dst, int64(f), 10)
		}
	}
	at := len(dst)
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	if !bytes.ContainsAny(dst[at:], ".e") {
		dst = append(dst, ".0"...)
	}
	return dst
}
