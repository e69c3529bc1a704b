package wire

import (
	"bytes"
	"strings"
	"unicode"
)

// The headers. doc.go says on which messages they are and who sets them.
const (
	HeaderID          = "Weft-Id"
	HeaderDeadline    = "Weft-Deadline"
	HeaderApp         = "Weft-App"
	HeaderCaller      = "Weft-Caller"
	HeaderName        = "Weft-Name"
	HeaderOp          = "Weft-Op"
	HeaderBy          = "Weft-By"
	HeaderWho         = "Weft-Who"
	HeaderTime        = "Weft-Time"
	HeaderAsOf        = "Weft-As-Of"
	HeaderCompact     = "Weft-Compact"
	HeaderRead        = "Weft-Read"
	HeaderSeen        = "Weft-Seen"
	HeaderErrorCode   = "Weft-Error-Code"
	HeaderError       = "Weft-Error"
	HeaderDetail      = "Weft-Detail"
	HeaderContentType = "Content-Type"
	HeaderRoutingKey  = "Weft-Routing-Key"
	HeaderTarget      = "Weft-Target"
	HeaderTraceparent = "traceparent"
	HeaderTracestate  = "tracestate"
)

// Injected reports whether a message was written by a NATS server on somebody's
// behalf instead of by a node, and must be dropped and counted before anything
// else looks at it: a Direct Get whose reply subject is one of ours makes the
// server publish stored bytes there, and other JetStream requests their answer.
//
// Such a message carries Nats-Stream, Nats-Subject, Nats-Sequence or Status (in
// any case), or its body begins like an answer of the JetStream API, or, when
// it says no Content-Type, like the acknowledgement of a publish. Only the first
// bytes are looked at.
func Injected(header map[string][]string, body []byte) bool {
	typed := false
	for name, values := range header {
		switch {
		case strings.EqualFold(name, "Status"), strings.EqualFold(name, "Nats-Stream"),
			strings.EqualFold(name, "Nats-Subject"), strings.EqualFold(name, "Nats-Sequence"):
			return true
		case strings.EqualFold(name, HeaderContentType):
			typed = len(values) > 0 && values[0] != ""
		}
	}
	// The server writes neither white space nor escapes; 64 bytes of the former
	// are allowed for.
	rest, ok := token(body, "{")
	if !ok {
		return false
	}
	if value, ok := member(rest, `"type"`); ok {
		return bytes.HasPrefix(value, []byte(`"io.nats.`))
	}
	if typed {
		return false
	}
	if value, ok := member(rest, `"stream"`); ok {
		return len(value) > 0 && value[0] == '"'
	}
	if value, ok := member(rest, `"error"`); ok { // a refused publish
		inner, ok := token(value, "{")
		if !ok {
			return false
		}
		_, ok = token(inner, `"code"`)
		return ok
	}
	return false
}

// member returns what follows the name and the colon, if b begins with them.
func member(b []byte, name string) (value []byte, ok bool) {
	if b, ok = token(b, name); !ok {
		return nil, false
	}
	if b, ok = token(b, ":"); !ok {
		return nil, false
	}
	return space(b), true
}

// token returns what follows t, if b begins with it after white space.
func token(b []byte, t string) (rest []byte, ok bool) {
	b = space(b)
	if len(b) < len(t) || string(b[:len(t)]) != t {
		return nil, false
	}
	return b[len(t):], true
}

// space drops up to 64 bytes of leading white space.
func space(b []byte) []byte {
	for n := 0; n < 64 && len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n'); n++ {
		b = b[1:]
	}
	return b
}

// EncodeHeaderText makes s fit for a header value: one line of valid UTF-8
// without control characters, at most 4 KiB.
func EncodeHeaderText(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, cut(s, maxText))
	return strings.TrimSpace(s)
}

// ParseDetail reads a Weft-Detail header: the text of a JSON object of at most
// MaxDetail bytes, or nothing.
func ParseDetail(s string) (string, error) {
	switch {
	case s == "":
		return "", nil
	case len(s) > MaxDetail:
		return "", Errorf(Limit, "%s: %d bytes, the limit is %d", HeaderDetail, len(s), MaxDetail)
	case s[0] != '{':
		return "", Errorf(BadPayload, "%s is not a JSON object", HeaderDetail)
	}
	if err := CheckJSON([]byte(s)); err != nil {
		return "", Errorf(BadPayload, "%s: %w", HeaderDetail, err)
	}
	return s, nil
}
