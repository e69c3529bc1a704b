package restriction

import (
	"reflect"
	"sync"

	"github.com/weft-fabric/weft/wire"
)

// maxCompiled is how many expressions Compiled remembers.
const maxCompiled = 256

// Attributes are the attributes of an identity. A value is a string, a float64, a
// bool or nil. Any other, such as an object, equals one that is deeply equal.
type Attributes func(name string) (value any, ok bool)

// Expression is a parsed expression. The zero Expression holds always, and so does
// a nil one.
type Expression struct {
	text string
	root *node // nil for the empty expression
}

// Parse reads an expression.
func Parse(text string) (*Expression, error) {
	if len(text) > wire.MaxRestrictions {
		return nil, wire.Errorf(wire.Limit, "a restriction of %d bytes, the limit is %d", len(text), wire.MaxRestrictions)
	}
	if text == "" {
		return &Expression{}, nil
	}
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	return &Expression{text: text, root: root}, nil
}

// String is the text that was parsed.
func (e *Expression) String() string {
	if e == nil {
		return ""
	}
	return e.text
}

// Holds evaluates the expression of owner about other.
func (e *Expression) Holds(owner, other Attributes) bool {
	return e == nil || e.root == nil || holds(e.root.value(owner, other))
}

// compiled are the expressions that Compiled has parsed: the same few come with
// every method and every context.
var compiled = struct {
	sync.Mutex
	expressions map[string]*Expression
}{expressions: map[string]*Expression{}}

// Compiled is [Parse] for texts that come again and again: it remembers some.
func Compiled(text string) (*Expression, error) {
	compiled.Lock()
	e := compiled.expressions[text]
	compiled.Unlock()
	if e != nil {
		return e, nil
	}
	e, err := Parse(text)
	if err != nil {
		return nil, err
	}
	compiled.Lock()
	defer compiled.Unlock()
	if len(compiled.expressions) >= maxCompiled {
		clear(compiled.expressions) // the few in use are soon there again
	}
	compiled.expressions[e.text] = e
	return e, nil
}

// operation is what a node does.
type operation byte

const (
	constant operation = iota
	ofOther
	ofOwner
	equal
	different
	match
	and
	or
)

// node is a node of the expression's tree.
type node struct {
	op          operation
	constant    any      // a string or a float64
	name        string   // of an attribute
	pattern     *pattern // of match, if the right side is a constant
	left, right *node
}

// value evaluates the tree; nil is no value.
func (n *node) value(owner, other Attributes) any {
	switch n.op {
	case constant:
		return n.constant
	case ofOther:
		return other.value(n.name)
	case ofOwner:
		return owner.value(n.name)
	}
	left := n.left.value(owner, other)
	if n.op == and && !holds(left) || n.op == or && holds(left) {
		return left
	}
	right := n.right.value(owner, other)
	switch n.op {
	case equal:
		return reflect.DeepEqual(left, right)
	case different:
		return !reflect.DeepEqual(left, right)
	case match:
		return matched(left, right, n.pattern)
	}
	return right // of and, or
}

// value is an attribute's value. One that is false has none, as in the gateway
// that clients were written for.
func (a Attributes) value(name string) any {
	if a == nil {
		return nil
	}
	v, ok := a(name)
	if !ok || v == false {
		return nil
	}
	return v
}

func holds(value any) bool { return value != nil && value != false }

// matched is the string left, if the pattern matches all of it. Without a pattern
// right is to be one.
func matched(left, right any, p *pattern) any {
	s, ok := left.(string)
	if !ok {
		return nil
	}
	if p == nil {
		text, ok := right.(string)
		if !ok {
			return nil
		}
		var err error
		if p, err = compile(text, maxForeignCost); err != nil {
			return nil
		}
	}
	if !p.matches(s) {
		return nil
	}
	return s
}
