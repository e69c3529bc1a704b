package wire

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// JSONMember is one member of a JSON object. Value is its JSON text, which
// belongs to the bytes that were read.
type JSONMember struct {
	Name  string
	Value []byte
}

// JSONMembers checks a JSON object and appends its members to dst, in their
// order. Nothing is copied but names. An object with one name twice is
// bad-payload, also if the two differ in case only: what reads a message and
// what acts on it must not disagree about which of them counts.
func JSONMembers(dst []JSONMember, object []byte) ([]JSONMember, error) {
	at := len(dst)
	err := eachMember(object, func(name string, value []byte) error {
		if len(dst)-at >= MaxMembers {
			return Errorf(Limit, "an object of more than %d members", MaxMembers)
		}
		for _, m := range dst[at:] {
			if strings.EqualFold(m.Name, name) {
				return Errorf(BadPayload, "the name %q twice", cut(name, 100))
			}
		}
		dst = append(dst, JSONMember{name, value})
		return nil
	})
	return dst, err
}

// eachMember calls f for every member of a JSON object.
func eachMember(object []byte, f func(name string, value []byte) error) error {
	r := jsonReaders.Get().(*jsonReader)
	r.buf = *bytes.NewBuffer(slices.Clip(object))
	r.dec.Reset(&r.buf, jsonOptions, jsontext.AllowDuplicateNames(true))
	defer func() {
		r.buf = bytes.Buffer{} // do not keep object
		r.dec.Reset(&r.buf)
		jsonReaders.Put(r)
	}()
	if r.dec.PeekKind() != '{' {
		if _, err := r.dec.ReadValue(); err != nil {
			return badJSON(r.dec.InputOffset(), err)
		}
		return Errorf(BadPayload, "not a JSON object")
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return badJSON(r.dec.InputOffset(), err)
	}
	for r.dec.PeekKind() != '}' {
		name, err := r.dec.ReadToken()
		if err != nil {
			return badJSON(r.dec.InputOffset(), err)
		}
		text := name.String() // the token is void after the next read
		value, err := r.dec.ReadValue()
		if err == nil && isDeep(value) {
			err = errors.New("nested too deep")
		}
		if err != nil {
			return badJSON(r.dec.InputOffset(), err)
		}
		if err := f(text, value); err != nil {
			return err
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return badJSON(r.dec.InputOffset(), err)
	}
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return badJSON(r.dec.InputOffset(), errors.New("bytes after the value"))
	}
	return nil
}

// isDeep says whether JSON text is nested deeper than MaxDepth.
func isDeep(value []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case inString:
			if c == '\\' {
				i++
			}
			inString = c != '"'
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// JSONElements checks a JSON array and returns its elements.
func JSONElements(array []byte) ([][]byte, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(array), jsonOptions, jsontext.AllowDuplicateNames(true))
	if dec.PeekKind() != '[' {
		return nil, Errorf(BadPayload, "not a JSON array")
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, badJSON(dec.InputOffset(), err)
	}
	var list [][]byte
	for dec.PeekKind() != ']' {
		v, err := dec.ReadValue()
		if err != nil {
			return nil, badJSON(dec.InputOffset(), err)
		}
		list = append(list, bytes.Clone(v))
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, badJSON(dec.InputOffset(), err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, badJSON(dec.InputOffset(), errors.New("bytes after the value"))
	}
	return list, nil
}

// JSONString is the text of a JSON string, and whether the value is one, which was
// checked as JSON before.
func JSONString(value []byte) (s string, ok bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	if inner := value[1 : len(value)-1]; bytes.IndexByte(inner, '\\') < 0 && isASCII(inner) {
		return string(inner), true
	}
	text, _ := jsontext.AppendUnquote(nil, value) // the only error left is invalid UTF-8, replaced
	return string(text), true
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// AppendJSONString appends s as a JSON string; what is not UTF-8 in it becomes
// U+FFFD.
func AppendJSONString(dst []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x80 || c == '"' || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	dst, _ = jsontext.AppendQuote(dst, strings.ToValidUTF8(s, "\uFFFD"))
	return dst
}
