package subjects

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"unicode/utf8"
)

// Token is an encoded name: one token of a subject or key. The zero Token is
// the empty name, "=".
//
// Tokens of the same name are equal (==), with one exception: a hashed token
// that [ParseToken] read from the wire does not know its name until WithName,
// and differs from the token that [Encode] makes. Where both kinds meet,
// compare String().
type Token struct {
	wire string // "" for "="
	long string // the name, if wire is a hash and the name is known
}

const (
	emptyToken = "="
	hashPrefix = "=h"
	hashDigits = 26
	// maxEscaped bounds an escaped topic: as many hashed tokens as a subject
	// has room for, each of the longest name.
	maxEscaped = MaxSubject / (len(hashPrefix) + hashDigits) * 3 * MaxName
	upperHex   = "0123456789ABCDEF"
	lower32    = "abcdefghijklmnopqrstuvwxyz234567"
)

// plain marks the bytes that stand for themselves.
var plain = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") {
		t[c] = true
	}
	return t
}()

var base32Lower = base32.NewEncoding(lower32).WithPadding(base32.NoPadding)

// Encode returns the token of name. It refuses a name that is longer than
// MaxName or is not valid UTF-8.
func Encode(name string) (Token, error) {
	if len(name) > MaxName {
		return Token{}, &BadNameError{name, "longer than 255 bytes"}
	}
	if !utf8.ValidString(name) {
		return Token{}, &BadNameError{name, "not valid UTF-8"}
	}
	wire := escape(name)
	if len(wire) > MaxToken {
		return Token{wire: hash(name), long: name}, nil
	}
	return Token{wire: wire}, nil
}

// MustEncode is [Encode] for constants: it panics on a bad name.
func MustEncode(name string) Token {
	t, err := Encode(name)
	if err != nil {
		panic(err)
	}
	return t
}

// ParseToken reads a token from the wire. It accepts only what Encode makes:
// the one spelling of a valid name, or something in the form of a hash.
func ParseToken(s string) (Token, error) {
	switch {
	case s == emptyToken:
		return Token{}, nil
	case isHash(s) || isCanonical(s):
		return Token{wire: s}, nil
	}
	return Token{}, &BadNameError{s, "not an encoded name"}
}

// String returns the wire form.
func (t Token) String() string {
	if t.wire == "" {
		return emptyToken
	}
	return t.wire
}

// Name returns the name, and false if t is a hash whose name is not known.
func (t Token) Name() (string, bool) {
	if t.Hashed() {
		return t.long, t.long != ""
	}
	if strings.IndexByte(t.wire, '=') < 0 {
		return t.wire, true
	}
	var buf [MaxToken]byte
	name, _ := unescape(buf[:0], t.wire)
	return string(name), true
}

// Hashed reports whether t is a hash, so that the name must travel beside it
// in the header Weft-Name.
func (t Token) Hashed() bool { return isHash(t.wire) }

// WithName returns t knowing its name, or an error if name is not the name
// that t encodes.
func (t Token) WithName(name string) (Token, error) {
	named, err := Encode(name)
	if err != nil {
		return Token{}, err
	}
	if named.wire != t.wire {
		return Token{}, &BadNameError{name, "not the name of its token"}
	}
	return named, nil
}

// EscapeName is a name as the header Weft-Name carries it: spelled like a
// token but never hashed, so that no byte is lost in a header.
func EscapeName(name string) string { return escape(name) }

// UnescapeName reads what EscapeName made.
func UnescapeName(s string) (string, error) {
	if len(s) > maxEscaped {
		return "", &BadNameError{s, "too long for a name"}
	}
	name, ok := unescape(nil, s)
	if !ok {
		return "", &BadNameError{s, "not an escaped name"}
	}
	return string(name), nil
}

// escape returns s with every byte that is not plain as =XX; "" stays "".
func escape(s string) string {
	odd := 0
	for i := range len(s) {
		if !plain[s[i]] {
			odd++
		}
	}
	if odd == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*odd)
	for i := range len(s) {
		if c := s[i]; plain[c] {
			b = append(b, c)
		} else {
			b = append(b, '=', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

// unescape appends what s encodes to dst. It is false for anything that
// escape does not make.
func unescape(dst []byte, s string) ([]byte, bool) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if plain[c] {
			dst = append(dst, c)
			continue
		}
		if c != '=' || i+2 >= len(s) {
			return dst, false
		}
		high := strings.IndexByte(upperHex, s[i+1])
		low := strings.IndexByte(upperHex, s[i+2])
		if high < 0 || low < 0 {
			return dst, false
		}
		c = byte(high<<4 | low)
		if plain[c] {
			return dst, false
		}
		dst = append(dst, c)
		i += 2
	}
	return dst, true
}

func hash(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hashPrefix + base32Lower.EncodeToString(sum[:])[:hashDigits]
}

// isHash cannot be true of an escaped name, where hex digits follow '='.
func isHash(s string) bool {
	digits, ok := strings.CutPrefix(s, hashPrefix)
	if !ok || len(digits) != hashDigits {
		return false
	}
	for i := range len(digits) {
		if c := digits[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// isCanonical reports whether s is what escape makes of a valid name that is
// not empty and not to be hashed.
func isCanonical(s string) bool {
	if s == "" || len(s) > MaxToken {
		return false
	}
	var buf [MaxToken]byte
	name, ok := unescape(buf[:0], s)
	return ok && utf8.Valid(name)
}
