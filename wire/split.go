package wire

import "iter"

// IsMap reports whether the checked msgpack value is a map.
func IsMap(data []byte) bool { return kindOf(data) == kMap }

// IsArray reports whether the checked msgpack value is an array.
func IsArray(data []byte) bool { return kindOf(data) == kArray }

// IsNil reports whether the checked msgpack value is nil.
func IsNil(data []byte) bool { return kindOf(data) == kNil }

func kindOf(data []byte) kind {
	if len(data) == 0 {
		return kShort
	}
	k, _, _ := head(data, 0)
	return k
}

// Count is the number of pairs of a checked map, of elements of an array, and
// 0 for everything else.
func Count(data []byte) int {
	if len(data) == 0 {
		return 0
	}
	if k, v, _ := head(data, 0); k == kMap || k == kArray {
		return int(v)
	}
	return 0
}

// Members yields the names and values of a checked msgpack map in the order of
// its bytes, equal names as often as they occur; nothing for another value.
// The values share memory with data, which must not change.
func Members(data []byte) iter.Seq2[string, Raw] {
	return func(yield func(string, Raw) bool) {
		if !IsMap(data) {
			return
		}
		_, n, i := head(data, 0)
		for range n {
			_, length, at := head(data, i)
			name, value := span(data, kStr, length, at)
			i = skip(data, value)
			if !yield(string(name), data[value:i:i]) {
				return
			}
		}
	}
}

// Elements yields the elements of a checked msgpack array; nothing for another
// value. They share memory with data.
func Elements(data []byte) iter.Seq[Raw] {
	return func(yield func(Raw) bool) {
		if !IsArray(data) {
			return
		}
		_, n, i := head(data, 0)
		for range n {
			end := skip(data, i)
			if !yield(data[i:end:end]) {
				return
			}
			i = end
		}
	}
}

// Depth is how many arrays and maps are nested in a value: 0 for a scalar, 1
// for an empty map. The value has passed a check, or was made of such and may
// be deeper than any check allows.
func Depth(data []byte) int {
	var few [16]uint64
	open := few[:0] // how many values each open container still needs
	deepest := 0
	for i := 0; i < len(data); {
		k, v, next := head(data, i)
		switch k {
		case kStr, kBin, kExt:
			_, next = span(data, k, v, next)
		case kMap, kArray:
			if k == kMap {
				v *= 2
			}
			deepest = max(deepest, len(open)+1)
			if v > 0 {
				open = append(open, v)
				i = next
				continue
			}
		}
		i = next
		for len(open) > 0 {
			last := len(open) - 1
			if open[last]--; open[last] > 0 {
				break
			}
			open = open[:last]
		}
	}
	return deepest
}

// AppendMap appends the head of a map of n pairs; name and value of each must
// follow.
func AppendMap(dst []byte, n int) []byte { return appendMapHead(dst, n) }

// AppendArray appends the head of an array of n elements, which must follow.
func AppendArray(dst []byte, n int) []byte { return appendArrayHead(dst, n) }

// AppendString appends a string, which must be valid UTF-8.
func AppendString(dst []byte, s string) []byte { return appendStr(dst, s) }
