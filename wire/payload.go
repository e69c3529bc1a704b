package wire

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
)

// Format says how the bytes of a payload are written.
type Format uint8

// The formats. Msgpack is the default, and what nodes speak among themselves.
const (
	Msgpack Format = iota
	JSON
)

// ContentType is the value of the Content-Type header for f.
func (f Format) ContentType() string {
	if f == JSON {
		return "application/json"
	}
	return "application/msgpack"
}

// ParseContentType reads a Content-Type header; without one, or with an empty
// one, the format is Msgpack. Parameters are ignored.
func ParseContentType(s string) (Format, error) {
	if s == "" || s == "application/msgpack" {
		return Msgpack, nil
	}
	kind, _, _ := strings.Cut(s, ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "application/json":
		return JSON, nil
	case "application/msgpack":
		return Msgpack, nil
	}
	return Msgpack, Errorf(BadPayload, "unknown content type %q", cut(s, 100))
}

// Payload is an application value as bytes: arguments, a result, an item of a
// stream, a value of a context. Nodes route it and do not look inside. Without
// Data it is "no value". Data is shared by copies and must not be changed.
//
// A Payload may be a field of a struct that Encode or Marshal takes; it is
// then written as the value that it holds.
type Payload struct {
	Format Format
	Data   []byte
}

// Encode writes v as msgpack: integers as short as possible, floats never as
// integers, struct fields by their msgpack tags and, where there is none,
// their json tags. nil gives the empty Payload. A json.RawMessage or a Payload
// given as v passes as it is, checked and not copied. (Inside other values a
// json.RawMessage is bytes like any other; use a Payload there.) What Check
// would refuse is bad-payload here: NaN, invalid UTF-8, keys that are not strings.
func Encode(v any) (Payload, error) {
	switch v := v.(type) {
	case nil:
		return Payload{}, nil
	case Payload:
		return checked(v)
	case json.RawMessage:
		return checked(Payload{Format: JSON, Data: v})
	}
	data, err := marshal(v, "json")
	if err == nil {
		err = Check(data)
	}
	if err != nil {
		return Payload{}, err
	}
	return Payload{Data: data}, nil
}

func checked(p Payload) (Payload, error) {
	if err := p.Check(); err != nil {
		return Payload{}, err
	}
	return p, nil
}

// EncodeJSON writes v as JSON with the same rules and the same names as Encode.
func EncodeJSON(v any) (Payload, error) {
	p, err := Encode(v)
	if err != nil {
		return Payload{}, err
	}
	return p.As(JSON)
}

// Decode checks p and reads it into v, a non-nil pointer. An empty Payload
// leaves v as it is.
//
// Into *any come nil, bool, int64 (uint64 only above its range), float64,
// string, []byte, time.Time, []any and map[string]any. Struct fields are found
// by their msgpack tags and, where there is none, their json tags; unknown
// names are ignored. An integer is taken where a float is declared and a whole
// float where an integer is; a number that does not fit is refused, never
// wrapped. A field that is present is replaced, not merged, nil makes it zero,
// and of a name that occurs twice the last wins.
//
// JSON gives the same Go values; where []byte or time.Time is declared it is
// read from base64 or RFC 3339 text. Types with an UnmarshalBinary or
// UnmarshalText read bytes and strings; from JSON a string is tried as text
// first and then as base64, which is how Encode's bytes arrive there.
func (p Payload) Decode(v any) error {
	if p.IsZero() {
		return nil
	}
	if p.Format == JSON {
		data, err := AppendMsgpack(nil, p.Data)
		if err != nil {
			return err
		}
		return decode(data, v, decodeMode{jsonTags: true, fromJSON: true})
	}
	if err := Check(p.Data); err != nil {
		return err
	}
	return decode(p.Data, v, decodeMode{jsonTags: true})
}

// As returns p in format f: p itself when it already is, else transcoded.
func (p Payload) As(f Format) (Payload, error) {
	if p.Format == f || p.IsZero() {
		return Payload{Format: f, Data: p.Data}, nil
	}
	var data []byte
	var err error
	if f == JSON {
		data, err = AppendJSON(make([]byte, 0, len(p.Data)*3/2), p.Data)
	} else {
		data, err = AppendMsgpack(make([]byte, 0, len(p.Data)), p.Data)
	}
	if err != nil {
		return Payload{}, err
	}
	return Payload{Format: f, Data: data}, nil
}

// Check is the Check or CheckJSON of its bytes. An empty Payload passes.
func (p Payload) Check() error {
	switch {
	case p.IsZero():
		return nil
	case p.Format == JSON:
		return CheckJSON(p.Data)
	}
	return Check(p.Data)
}

// Len is the number of bytes.
func (p Payload) Len() int { return len(p.Data) }

// IsZero reports whether p holds no value.
func (p Payload) IsZero() bool { return len(p.Data) == 0 }

// String is compact JSON for people, cut at 4 KiB. Never parse it.
func (p Payload) String() string {
	if p.IsZero() {
		return ""
	}
	if p.Format == JSON {
		return cut(compact(p.Data, maxText), maxText)
	}
	if err := Check(p.Data); err != nil {
		return "<" + err.Error() + ">"
	}
	return cut(string(appendJSON(nil, p.Data, jsonForm{limit: maxText})), maxText)
}

// compact drops the white space between tokens until it has n bytes.
func compact(json []byte, n int) string {
	out := make([]byte, 0, min(len(json), n+1))
	inString := false
	for i := 0; i < len(json) && len(out) <= n; i++ {
		c := json[i]
		switch {
		case inString && c == '\\' && i+1 < len(json):
			out = append(out, c)
			i++
			c = json[i]
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			continue
		}
		out = append(out, c)
	}
	return string(out)
}

// EncodeMsgpack writes the value that p holds, nil if none.
func (p Payload) EncodeMsgpack(enc *msgpack.Encoder) error {
	if p.IsZero() {
		return enc.EncodeNil()
	}
	p, err := p.As(Msgpack)
	if err == nil {
		err = Check(p.Data)
	}
	if err != nil {
		return err
	}
	_, err = enc.Writer().Write(p.Data)
	return err
}

// DecodeMsgpack takes the next value as it is.
func (p *Payload) DecodeMsgpack(dec *msgpack.Decoder) error {
	raw, err := dec.DecodeRaw()
	if err == nil {
		p.Format, p.Data = Msgpack, bytes.Clone(raw)
	}
	return err
}
