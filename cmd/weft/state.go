package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// What the commands of shared state have in common: arguments, and who wrote
// and what.

// required is an argument that must be there, as JSON.
func (p *program) required(arg string) (wire.Payload, error) {
	v, err := p.argument(arg)
	if err == nil && v.IsZero() {
		err = usageError{errors.New("the JSON argument is empty")}
	}
	return v, err
}

// object is an argument that must be a JSON object.
func (p *program) object(arg string) (wire.Payload, error) {
	v, err := p.required(arg)
	if err == nil && v.Data[0] != '{' {
		err = usageError{fmt.Errorf("the JSON argument is %s: want an object, such as '{\"a\":1}'", jsonKind(v.Data[0]))}
	}
	return v, err
}

// objectFlag is a flag that must be a JSON object, the empty payload if it is not
// given.
func (p *program) objectFlag(flag, arg string) (wire.Payload, error) {
	if arg == "" {
		return wire.Payload{}, nil
	}
	v, err := p.object(arg)
	if err != nil {
		err = usageError{fmt.Errorf("%s: %w", flag, err)}
	}
	return v, err
}

// jsonKind names what a JSON value is that begins with c.
func jsonKind(c byte) string {
	switch c {
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// parsePath reads a path inside an object: a.b.c, or a JSON array of strings,
// for names that are empty or have dots in them.
func parsePath(arg string) ([]string, error) {
	if strings.HasPrefix(arg, "[") {
		var given []*string
		if err := json.Unmarshal([]byte(arg), &given); err != nil || slices.Contains(given, nil) {
			return nil, usageError{fmt.Errorf("path %s: what begins with [ has to be a JSON array of strings, such as '[\"a.b\",\"c\"]'", arg)}
		}
		path := make([]string, len(given))
		for i, segment := range given {
			path[i] = *segment
		}
		return path, nil
	}
	path := strings.Split(arg, ".")
	if slices.Contains(path, "") {
		return nil, usageError{fmt.Errorf("path %q: there is a name missing; names that are empty or have dots are written as in '[\"a.b\",\"c\"]'", arg)}
	}
	return path, nil
}

// optionalPath is parsePath of an argument that may be left out.
func optionalPath(arg string) ([]string, error) {
	if arg == "" {
		return nil, nil
	}
	return parsePath(arg)
}

// pathText writes a path in the form that parsePath reads.
func pathText(path []string) string {
	dotted := len(path) > 0 && !strings.HasPrefix(path[0], "[")
	for _, segment := range path {
		dotted = dotted && segment != "" && plain(segment) && !strings.ContainsAny(segment, ". ,=")
	}
	if dotted {
		return strings.Join(path, ".")
	}
	text, err := compactJSON(append([]string{}, path...))
	if err != nil { // strings are always JSON
		return fmt.Sprintf("%q", path)
	}
	return string(text)
}

// plain reports whether a terminal shows s as it is.
func plain(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) < 0
}

// label is a name that somebody else chose, quoted if a terminal would not
// show it as it is.
func label(name string) string {
	if name != "" && plain(name) {
		return name
	}
	return strconv.QuoteToGraphic(name)
}

// compactJSON is v on one line, with < and > as they are.
func compactJSON(v any) (json.RawMessage, error) {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(line.Bytes(), "\n"), nil
}

// sortedJSON is a payload as JSON, nil for none. Names are in byte order, so
// that equal objects look equal; numbers are as they were written.
func sortedJSON(v wire.Payload) (json.RawMessage, error) {
	raw, err := jsonOf(v)
	if err != nil || raw == nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	return compactJSON(value)
}

// printSorted is printValue of an object whose names are in byte order.
func (p *program) printSorted(v wire.Payload) error {
	raw, err := sortedJSON(v)
	if err != nil {
		return err
	}
	return p.printValue(wire.Payload{Format: wire.JSON, Data: raw})
}

// writerLine is with --json who wrote; null is somebody who did not say.
type writerLine struct {
	App         subjects.App  `json:"app,omitempty"`
	Node        subjects.Node `json:"node"`
	Application string        `json:"application,omitempty"` // if the app is there
}

func (s *session) writer(w contextWriter) *writerLine {
	if w == (contextWriter{}) {
		return nil
	}
	line := &writerLine{App: w.App, Node: w.Node}
	for _, n := range s.node.Nodes() {
		for _, a := range n.Apps {
			if n.ID == w.Node && a.ID == w.App {
				line.Application = a.Identity.Application
			}
		}
	}
	return line
}

// String names the application while it is there, and then the app's id. A
// command of "weft" is gone too soon to be told from others by anything but its node.
func (w *writerLine) String() string {
	switch {
	case w == nil:
		return "a foreign writer"
	case w.Application != "":
		return label(w.Application) + "@" + string(w.Node)
	case w.App == "":
		return "node " + string(w.Node)
	case strings.HasPrefix(string(w.Node), "cli-"):
		return "weft-cli@" + string(w.Node)
	}
	return string(w.App) + "@" + string(w.Node)
}

// changeLine is a change with --json.
type changeLine struct {
	Path    []string        `json:"path"`
	Value   json.RawMessage `json:"value,omitempty"`
	Removed bool            `json:"removed,omitempty"`
}

func newChangeLine(path []string, value wire.Payload) (changeLine, error) {
	raw, err := sortedJSON(value)
	return changeLine{Path: append([]string{}, path...), Value: raw, Removed: value.IsZero()}, err
}

func newChangeLines(changes []contexts.Change) (lines []changeLine, err error) {
	for _, c := range changes {
		line, err := newChangeLine(c.Path, c.Value)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// String is the change for people: a.b = 1, or a.b removed.
func (c changeLine) String() string {
	switch {
	case c.Removed:
		return pathText(c.Path) + " removed"
	case len(c.Path) == 0:
		return string(c.Value)
	}
	return pathText(c.Path) + " = " + string(c.Value)
}

func changesText(changes []changeLine) string {
	texts := make([]string, len(changes))
	for i, c := range changes {
		texts[i] = c.String()
	}
	return strings.Join(texts, ", ")
}

// origin is which revision it is and whose.
func origin(revision uint64, by *writerLine) string {
	return fmt.Sprintf(" at revision %d by %s", revision, by)
}

// What a watch says when the fabric goes and comes.
const (
	unseen    = ": what others change from now on is not seen here"
	unchanged = ": nothing was changed meanwhile"
)

// remarks end the line of a watch: that the fabric was lost before it, and how
// many states were left out.
func remarks(back bool, conflated int) (text string) {
	if back {
		text = " (online again)"
	}
	if conflated > 0 {
		text += " (" + count(conflated, "state") + " left out)"
	}
	return text
}

// momentOrNull is a time with --json, null for none.
func momentOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// clock is a time for people.
func clock(t time.Time) string { return t.Local().Format("15:04:05.000") }
