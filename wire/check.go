package wire

import (
	"math"
	"unicode/utf8"
)

// MaxDepth is how many arrays and maps may be nested: 64 pass, 65 do not. The
// same number holds for msgpack and for JSON.
const MaxDepth = 64

// Check reports whether data is exactly one msgpack value that is safe to
// decode; doc.go lists the rules. It walks the bytes once, without recursion,
// and allocates nothing unless it refuses.
func Check(data []byte) error {
	n, err := CheckFirst(data)
	if err == nil && n < len(data) {
		return badByte(n, "bytes after the value")
	}
	return err
}

// CheckFirst checks the first value in data and returns its length. Other
// bytes may follow it; claimed lengths are held against all of data.
func CheckFirst(data []byte) (n int, err error) { return checkFirst(data, MaxDepth) }

// envelope is how many levels one of the project's own messages may put around
// a payload that it carries in a field.
const envelope = 4

// checkMessage is Check for one of the project's own messages: a payload in it
// keeps its full depth.
func checkMessage(data []byte) error {
	n, err := checkFirst(data, MaxDepth+envelope)
	if err == nil && n < len(data) {
		return badByte(n, "bytes after the value")
	}
	return err
}

func checkFirst(data []byte, limit int) (n int, err error) {
	// left is how many values the innermost open container still needs, keys
	// counted; parents wait on the stack.
	type open struct {
		left  uint64
		isMap bool
	}
	var stack [MaxDepth + envelope]open
	cur := open{left: 1}
	depth, i := 0, 0
	for {
		if i >= len(data) {
			return 0, badByte(i, "the value is cut short")
		}
		k, v, next := head(data, i)
		if cur.isMap && cur.left&1 == 0 && k != kStr {
			return 0, badByte(i, "a map key is not a string")
		}
		cur.left--
		rest := uint64(len(data) - next)
		switch k {
		case kShort:
			return 0, badByte(i, "the value is cut short")
		case kBad:
			return 0, badByte(i, "0xc1 is not msgpack")
		case kFloat:
			if v&(0x7ff<<52) == 0x7ff<<52 {
				return 0, badByte(i, "NaN or infinity")
			}
		case kStr:
			if v > rest {
				return 0, badByte(i, "a string is longer than what is left")
			}
			if !utf8.Valid(data[next : next+int(v)]) {
				return 0, badByte(i, "a string is not valid UTF-8")
			}
			next += int(v)
		case kBin:
			if v > rest {
				return 0, badByte(i, "bytes are longer than what is left")
			}
			next += int(v)
		case kExt:
			if v >= rest { // one byte more, for the type
				return 0, badByte(i, "an extension is longer than what is left")
			}
			if data[next] != 0xff {
				return 0, badByte(i, "an extension other than the timestamp")
			}
			if _, ok := timestamp(data[next+1 : next+1+int(v)]); !ok {
				return 0, badByte(i, "a timestamp out of range or of a wrong length")
			}
			next += 1 + int(v)
		case kArray, kMap:
			if k == kMap {
				v *= 2
			}
			if v > rest {
				return 0, badByte(i, "a container claims more elements than bytes are left")
			}
			if depth == limit {
				return 0, badByte(i, "nested too deep")
			}
			stack[depth] = cur
			depth++
			cur = open{left: v, isMap: k == kMap}
		}
		i = next
		for cur.left == 0 {
			if depth == 0 {
				return i, nil
			}
			depth--
			cur = stack[depth]
		}
	}
}

// CheckJSON reports whether data is exactly one JSON value that the msgpack
// side can hold: the same depth, no number beyond float64, nothing after it.
func CheckJSON(data []byte) error {
	_, err := walkJSON(nil, data, false)
	return err
}

func badByte(at int, reason string) *Error {
	return Errorf(BadPayload, "msgpack, byte %d: %s", at, reason)
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
