package main

import (
	"bytes"
	"errors"
	"strconv"
)

// benchFrame is what the clients of the benchmark read of a message: the
// top-level values that they use, as they stand in it, so that a string has its
// quotes and can go into the next message as it is. Only kind has none.
type benchFrame struct {
	kind                                    []byte
	requestID, peerID, serverID             []byte
	invocationID, subscriptionID, contextID []byte
	name, argumentsKV, result, data, delta  []byte
	reason                                  []byte
}

var errNotObject = errors.New("the gateway sent what is not a JSON object")

// scan finds the values in one pass. It does not check them: of a message that
// is not JSON some pass, with values that are cut or missing.
func (f *benchFrame) scan(message []byte) error {
	*f = benchFrame{}
	s := benchScanner{text: message}
	if s.next() != '{' {
		return errNotObject
	}
	s.at++
	if s.next() == '}' {
		return nil
	}
	for {
		key := s.value()
		if len(key) < 2 || key[0] != '"' || s.next() != ':' {
			return errNotObject
		}
		s.at++
		f.set(key[1:len(key)-1], s.value())
		switch s.next() {
		case ',':
			s.at++
		case '}':
			return nil
		default:
			return errNotObject
		}
	}
}

// set keeps a value that the clients use.
func (f *benchFrame) set(key, value []byte) {
	switch string(key) {
	case "type":
		f.kind = bytes.Trim(value, `"`)
	case "request_id":
		f.requestID = value
	case "peer_id":
		f.peerID = value
	case "server_id":
		f.serverID = value
	case "invocation_id":
		f.invocationID = value
	case "subscription_id":
		f.subscriptionID = value
	case "context_id":
		f.contextID = value
	case "name":
		f.name = value
	case "arguments_kv":
		f.argumentsKV = value
	case "result":
		f.result = value
	case "data":
		f.data = value
	case "delta":
		f.delta = value
	case "reason":
		f.reason = value
	}
}

// benchScanner walks over JSON.
type benchScanner struct {
	text []byte
	at   int
}

// next skips white space and is the byte after it, 0 at the end.
func (s *benchScanner) next() byte {
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// value skips a value and is its text, empty if there is none.
func (s *benchScanner) value() []byte {
	first := s.next()
	from := s.at
	switch first {
	case '"':
		s.skipString()
	case '{', '[':
		s.skipNested()
	default:
		for s.at < len(s.text) && !endsScalar(s.text[s.at]) {
			s.at++
		}
	}
	return s.text[from:s.at]
}

// endsScalar says whether c comes behind a number, true, false or null.
func endsScalar(c byte) bool {
	switch c {
	case ',', ':', ']', '}', ' ', '\t', '\r', '\n':
		return true
	}
	return false
}

// skipString goes behind the string that begins here.
func (s *benchScanner) skipString() {
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			return
		}
	}
	s.at = len(s.text) // also where the last byte is a backslash
}

// skipNested goes behind the object or array that begins here.
func (s *benchScanner) skipNested() {
	for depth := 0; s.at < len(s.text); {
		switch s.text[s.at] {
		case '"':
			s.skipString()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.at++
		if depth == 0 {
			return
		}
	}
}

// appendMark adds the mark of n with its quotes. A mark is a string that numbers
// a message: the clients put it in what they send and look for it in what comes
// of that.
func appendMark(b []byte, n int) []byte {
	return append(strconv.AppendInt(append(b, `"#`...), int64(n), 10), '"')
}

// maxMarkDigits keeps the number of a mark within an int.
const maxMarkDigits = 9

// marked is the number of the first mark in a value, -1 if there is none.
func marked(value []byte) int {
	_, after, _ := bytes.Cut(value, []byte(`"#`))
	n := 0
	for i, c := range after {
		switch {
		case c == '"' && i > 0:
			return n
		case c < '0' || c > '9' || i == maxMarkDigits:
			return -1
		}
		n = 10*n + int(c-'0')
	}
	return -1
}
