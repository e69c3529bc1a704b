package gateway

import (
	"bytes"

	"github.com/weft-fabric/weft/wire"
)

// frame is what a client sent: one JSON object. It is decoded once; the values of
// its members stay JSON text.
type frame struct {
	domain, kind string
	// request is the request_id as JSON text, nil if there is none.
	request []byte
	peer    string
	members []wire.JSONMember
}

// parse reads a frame. An object that is not a message is a frame without a kind.
func parse(data []byte) (*frame, error) {
	members, err := wire.JSONMembers(make([]wire.JSONMember, 0, 12), data)
	if err != nil {
		return nil, err
	}
	f := &frame{members: members}
	f.domain, f.kind, f.peer = f.text("domain"), f.text("type"), f.text("peer_id")
	if f.domain == "" {
		f.domain = domainGlobal
	}
	f.request = f.raw("request_id")
	return f, nil
}

// raw is the JSON text of a member, nil if it is missing or null.
func (f *frame) raw(name string) []byte {
	for i := range f.members {
		if f.members[i].Name == name {
			if v := f.members[i].Value; v[0] != 'n' {
				return v
			}
			return nil
		}
	}
	return nil
}

// text is a member that is a string, "" if it is none.
func (f *frame) text(name string) string {
	s, _ := wire.JSONString(f.raw(name))
	return s
}

// isObject says whether a JSON value is an object.
func isObject(value []byte) bool { return len(value) > 0 && value[0] == '{' }

// isArray says whether a JSON value is an array.
func isArray(value []byte) bool { return len(value) > 0 && value[0] == '[' }

// isEmpty says whether a JSON array or object has nothing in it.
func isEmpty(value []byte) bool {
	return len(value) < 2 || len(bytes.TrimSpace(value[1:len(value)-1])) == 0
}

// message is a frame for a client as it is written: JSON text that grows.
type message []byte

var null = []byte("null")

// begin starts a message.
func begin(domain, kind string) message {
	m := make(message, 0, 192)
	m = append(m, `{"domain":"`...)
	m = append(m, domain...)
	m = append(m, `","type":"`...)
	m = append(m, kind...)
	return append(m, '"')
}

// str adds a member that is a string.
func (m message) str(name, value string) message {
	return wire.AppendJSONString(m.name(name), value)
}

// raw adds a member that is JSON text; nil is null.
func (m message) raw(name string, value []byte) message {
	if value == nil {
		value = null
	}
	return append(m.name(name), value...)
}

func (m message) name(name string) message {
	m = append(m, ',', '"')
	m = append(m, name...)
	return append(m, '"', ':')
}

// end is the finished frame.
func (m message) end() []byte { return append(m, '}') }
