package gateway

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// readDefinition reads the definition of a method as a client registers it. What
// it says beyond what the node knows travels as it is.
func readDefinition(object []byte) (m node.Method, err error) {
	if len(object) > wire.MaxDefinition {
		return m, wire.Errorf(wire.Limit, "a definition of %d bytes, the limit is %d", len(object), wire.MaxDefinition)
	}
	if err := wire.CheckJSON(object); err != nil {
		return m, err
	}
	members, err := wire.JSONMembers(nil, object)
	if err != nil {
		return m, err
	}
	extra := message{}
	for _, f := range members {
		switch f.Name {
		case "id":
			if first := f.Value[0]; first != '"' && first != '-' && (first < '0' || first > '9') {
				return m, wire.Errorf(wire.BadPayload, "the id of a method is a text or a number")
			}
			m.ID = string(compactJSON(f.Value))
		case "flags":
			if extra, err = readFlags(&m, f.Value, extra); err != nil {
				return m, err
			}
		default:
			if !readDefined(&m, f) {
				extra = extra.raw(f.Name, compactJSON(f.Value))
			}
		}
	}
	if len(extra) > 0 {
		extra[0] = '{'
		m.Extra = string(extra.end())
	}
	if m.Name == "" {
		return m, wire.Errorf(wire.BadName, "a method needs a name")
	}
	if m.ID == "" {
		return m, wire.Errorf(wire.BadName, "method %q needs an id", m.Name)
	}
	return m, nil
}

// readDefined takes a member that the node knows by name and type.
func readDefined(m *node.Method, f wire.JSONMember) bool {
	texts := map[string]*string{
		"name": &m.Name, "input_signature": &m.Accepts, "result_signature": &m.Returns, "display_name": &m.DisplayName,
		"description": &m.Description, "restrictions": &m.Restrictions,
	}
	if to := texts[f.Name]; to != nil {
		s, ok := wire.JSONString(f.Value)
		if ok && s != "" {
			*to = s
			return true
		}
		return false
	}
	switch f.Name {
	case "object_types":
		var list []string
		if json.Unmarshal(f.Value, &list) != nil || len(list) == 0 {
			return false
		}
		m.ObjectTypes = list
		return true
	case "version":
		n, err := strconv.Atoi(string(f.Value))
		if err != nil || n == 0 {
			return false
		}
		m.Version = n
		return true
	}
	return false
}

// readFlags splits a definition's flags: whether it is a stream, the metadata,
// and the rest.
func readFlags(m *node.Method, value []byte, extra message) (message, error) {
	if !isObject(value) {
		return extra.raw("flags", compactJSON(value)), nil
	}
	flags, err := wire.JSONMembers(nil, value)
	if err != nil {
		return extra, err
	}
	rest := message{}
	for _, f := range flags {
		switch {
		case f.Name == "streaming" && (string(f.Value) == "true" || string(f.Value) == "false"):
			m.Streaming = string(f.Value) == "true"
			rest = rest.raw("streaming", f.Value)
		case f.Name == "metadata" && isObject(f.Value) && !isEmpty(f.Value):
			if err := (wire.Payload{Format: wire.JSON, Data: f.Value}).Decode(&m.Flags); err != nil {
				return extra, err
			}
		default:
			rest = rest.raw(f.Name, compactJSON(f.Value))
		}
	}
	if len(rest) == 0 {
		if m.Flags != nil {
			return extra, nil
		}
		return extra.raw("flags", []byte("{}")), nil
	}
	rest[0] = '{'
	return extra.raw("flags", rest.end()), nil
}

// methodID is what clients call a method of an app: the JSON text of the id that
// a gateway client chose, or the name of any other app's method.
func methodID(m *node.Method) string {
	if m.ID != "" {
		return m.ID
	}
	return string(wire.AppendJSONString(nil, m.Name))
}

// definitionJSON is a method's definition as clients see it.
func definitionJSON(m *node.Method) []byte {
	d := message{}.raw("id", []byte(methodID(m))).str("name", m.Name)
	for _, t := range []struct{ name, value string }{
		{"input_signature", m.Accepts},
		{"result_signature", m.Returns},
		{"display_name", m.DisplayName},
		{"description", m.Description},
		{"restrictions", m.Restrictions},
	} {
		if t.value != "" {
			d = d.str(t.name, t.value)
		}
	}
	if len(m.ObjectTypes) > 0 {
		list, _ := json.Marshal(m.ObjectTypes) // strings can be marshalled
		d = d.raw("object_types", list)
	}
	if m.Version != 0 {
		d = d.raw("version", strconv.AppendInt(nil, int64(m.Version), 10))
	}
	d = appendFlags(d, m)
	d[0] = '{'
	return d.end()
}

// appendFlags adds the flags and the further members of a definition.
func appendFlags(d message, m *node.Method) message {
	var extra []wire.JSONMember
	if m.Extra != "" && wire.CheckJSON([]byte(m.Extra)) == nil {
		extra, _ = wire.JSONMembers(nil, []byte(m.Extra)) // or there is nothing to add
	}
	at := slices.IndexFunc(extra, func(f wire.JSONMember) bool { return f.Name == "flags" })
	switch {
	case at >= 0 && !isObject(extra[at].Value):
		d = d.raw("flags", extra[at].Value)
	case at >= 0 || m.Flags != nil || m.ID == "":
		var rest []byte
		if at >= 0 {
			rest = extra[at].Value[1 : len(extra[at].Value)-1]
		}
		d = d.raw("flags", flagsJSON(m, rest))
	}
	for i, f := range extra {
		if i != at {
			d = d.raw(f.Name, f.Value)
		}
	}
	return d
}

// flagsJSON is the flags of a definition; rest are the members that the node knows
// nothing of. A method of no gateway client has none, and says what clients expect.
func flagsJSON(m *node.Method, rest []byte) []byte {
	flags := message{}
	switch {
	case m.Flags != nil:
		if p, err := wire.EncodeJSON(m.Flags); err == nil {
			flags = flags.raw("metadata", p.Data)
		}
	case m.ID == "":
		flags = flags.raw("metadata", []byte("{}"))
	}
	if len(rest) > 0 {
		flags = append(append(flags, ','), rest...)
	}
	if m.ID == "" {
		flags = flags.raw("streaming", strconv.AppendBool(nil, m.Streaming))
	}
	if len(flags) == 0 {
		flags = append(flags, '{')
	}
	flags[0] = '{'
	return flags.end()
}
