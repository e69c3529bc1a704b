package wire

import (
	"encoding/binary"
	"math"
	"time"
)

// kind is the class of a msgpack value.
type kind uint8

const (
	kShort kind = iota // the head does not fit in the bytes that are left
	kBad               // 0xc1
	kNil
	kFalse
	kTrue
	kUint  // v is the number
	kInt   // v is the bit pattern of a negative int64
	kFloat // v is the bit pattern of a float64
	kStr   // v is the length
	kBin   // v is the length
	kArray // v is the number of elements
	kMap   // v is the number of pairs
	kExt   // v is the length; the type byte comes before the data
)

var kindNames = [...]string{"nothing", "an invalid byte", "nil", "false", "true", "an integer", "a negative integer", "a float", "a string", "bytes", "an array", "a map", "a timestamp"}

func (k kind) String() string { return kindNames[k] }

// head reads the head of the value at b[i:]. next is where its contents (or,
// without contents, the next value) begin. It is the only place that knows the
// byte codes of msgpack; lengths are returned as claimed, not checked.
func head(b []byte, i int) (k kind, v uint64, next int) {
	c := b[i]
	i++
	switch {
	case c <= 0x7f:
		return kUint, uint64(c), i
	case c <= 0x8f:
		return kMap, uint64(c & 0x0f), i
	case c <= 0x9f:
		return kArray, uint64(c & 0x0f), i
	case c <= 0xbf:
		return kStr, uint64(c & 0x1f), i
	case c >= 0xe0:
		return kInt, uint64(int64(int8(c))), i
	}
	f := &forms[c-0xc0]
	v = uint64(f.value)
	next = i + int(f.width)
	if next > len(b) {
		return kShort, 0, i
	}
	switch f.width {
	case 1:
		v = uint64(b[i])
	case 2:
		v = uint64(binary.BigEndian.Uint16(b[i:]))
	case 4:
		v = uint64(binary.BigEndian.Uint32(b[i:]))
	case 8:
		v = binary.BigEndian.Uint64(b[i:])
	}
	switch f.kind {
	case kInt:
		shift := 64 - 8*f.width
		v = uint64(int64(v<<shift) >> shift)
		if int64(v) >= 0 {
			return kUint, v, next
		}
	case kFloat:
		if f.width == 4 {
			v = math.Float64bits(float64(math.Float32frombits(uint32(v))))
		}
	}
	return f.kind, v, next
}

// forms describes the codes 0xc0 to 0xdf: the kind, the number of bytes of the
// number that follows, and the value where none follows.
var forms = [32]struct {
	kind         kind
	width, value uint8
}{
	{kind: kNil},
	{kind: kBad},
	{kind: kFalse},
	{kind: kTrue},
	{kind: kBin, width: 1},
	{kind: kBin, width: 2},
	{kind: kBin, width: 4},
	{kind: kExt, width: 1},
	{kind: kExt, width: 2},
	{kind: kExt, width: 4},
	{kind: kFloat, width: 4},
	{kind: kFloat, width: 8},
	{kind: kUint, width: 1},
	{kind: kUint, width: 2},
	{kind: kUint, width: 4},
	{kind: kUint, width: 8},
	{kind: kInt, width: 1},
	{kind: kInt, width: 2},
	{kind: kInt, width: 4},
	{kind: kInt, width: 8},
	{kind: kExt, value: 1},
	{kind: kExt, value: 2},
	{kind: kExt, value: 4},
	{kind: kExt, value: 8},
	{kind: kExt, value: 16},
	{kind: kStr, width: 1},
	{kind: kStr, width: 2},
	{kind: kStr, width: 4},
	{kind: kArray, width: 2},
	{kind: kArray, width: 4},
	{kind: kMap, width: 2},
	{kind: kMap, width: 4},
}

// span returns the contents of a string, bytes or extension whose head said v,
// and where the next value begins. The data must have passed Check.
func span(b []byte, k kind, v uint64, next int) (contents []byte, after int) {
	if k == kExt {
		next++
	}
	after = next + int(v)
	return b[next:after], after
}

// A timestamp outside these seconds has no RFC 3339 form.
var (
	firstSecond = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	lastSecond  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
)

// timestamp reads the data of extension -1.
func timestamp(b []byte) (t time.Time, ok bool) {
	var sec int64
	var nsec uint64
	switch len(b) {
	case 4:
		sec = int64(binary.BigEndian.Uint32(b))
	case 8:
		v := binary.BigEndian.Uint64(b)
		sec, nsec = int64(v&(1<<34-1)), v>>34
	case 12:
		sec, nsec = int64(binary.BigEndian.Uint64(b[4:])), uint64(binary.BigEndian.Uint32(b))
	default:
		return t, false
	}
	if nsec > 999_999_999 || sec < firstSecond || sec > lastSecond {
		return t, false
	}
	return time.Unix(sec, int64(nsec)).UTC(), true
}

func appendUint(dst []byte, v uint64) []byte {
	switch {
	case v <= 0x7f:
		return append(dst, byte(v))
	case v <= math.MaxUint8:
		return append(dst, 0xcc, byte(v))
	case v <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, 0xcd), uint16(v))
	case v <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, 0xce), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xcf), v)
}

func appendInt(dst []byte, v int64) []byte {
	switch {
	case v >= 0:
		return appendUint(dst, uint64(v))
	case v >= -32:
		return append(dst, byte(v))
	case v >= math.MinInt8:
		return append(dst, 0xd0, byte(v))
	case v >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, 0xd1), uint16(v))
	case v >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, 0xd2), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(v))
}

func appendFloat(dst []byte, f float64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, 0xcb), math.Float64bits(f))
}

func appendStrHead(dst []byte, n int) []byte {
	switch {
	case n <= 31:
		return append(dst, 0xa0|byte(n))
	case n <= math.MaxUint8:
		return append(dst, 0xd9, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, 0xda), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, 0xdb), uint32(n))
}

func appendStr(dst []byte, s string) []byte {
	return append(appendStrHead(dst, len(s)), s...)
}

func appendMapHead(dst []byte, n int) []byte {
	switch {
	case n <= 15:
		return append(dst, 0x80|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, 0xde), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, 0xdf), uint32(n))
}

func appendArrayHead(dst []byte, n int) []byte {
	switch {
	case n <= 15:
		return append(dst, 0x90|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, 0xdc), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, 0xdd), uint32(n))
}
