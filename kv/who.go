package kv

import (
	"strings"
	"unicode/utf8"

	"github.com/weft-fabric/weft/subjects"
)

// maxWho is how many bytes each part of a Who may have on the wire, before it is escaped.
const maxWho = 128

// Who is who wrote, as people know it: the header Weft-Who. It is what the writer
// says of itself.
type Who struct {
	Application string `json:"application,omitempty"`
	User        string `json:"user,omitempty"`
	Machine     string `json:"machine,omitempty"`
}

// header is the value of the header, "" for nobody. A part that is too long is cut.
func (w Who) header() string {
	if w == (Who{}) {
		return ""
	}
	parts := []string{w.Application, w.User, w.Machine}
	for i, p := range parts {
		if len(p) > maxWho {
			p = p[:maxWho]
			for !utf8.ValidString(p) && utf8.ValidString(parts[i]) {
				p = p[:len(p)-1]
			}
		}
		parts[i] = subjects.EscapeName(p)
	}
	return strings.Join(parts, ".")
}

// parseWho reads the header, which anybody may have written.
func parseWho(s string) Who {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(s) > 3*3*maxWho+2 {
		return Who{}
	}
	for i, p := range parts {
		name, err := subjects.UnescapeName(p)
		if err != nil || !utf8.ValidString(name) {
			return Who{}
		}
		parts[i] = name
	}
	return Who{parts[0], parts[1], parts[2]}
}
