package restriction

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/weft-fabric/weft/wire"
)

// maxDepth is how many parentheses may be inside each other.
const maxDepth = 32

// parser reads an expression from left to right.
type parser struct {
	text  string
	at    int
	depth int
	cost  int // of the regular expressions so far
}

func parse(text string) (*node, error) {
	p := &parser{text: text}
	n, err := p.expression()
	if err != nil {
		return nil, err
	}
	if p.space(); p.at < len(text) {
		return nil, p.errorf(p.at, "want an operator, found %s", p.found())
	}
	return n, nil
}

// expression reads comparisons with && and || between them.
func (p *parser) expression() (*node, error) {
	left, err := p.comparison()
	for err == nil {
		op := or
		switch {
		case p.take("&&"):
			op = and
		case !p.take("||"):
			return left, nil
		}
		left, err = p.with(left, op, p.comparison)
	}
	return nil, err
}

// comparison reads terms with ==, != and ? between them.
func (p *parser) comparison() (*node, error) {
	left, err := p.term()
	for err == nil {
		switch {
		case p.take("=="):
			left, err = p.with(left, equal, p.term)
		case p.take("!="):
			left, err = p.with(left, different, p.term)
		case p.take("?"):
			left, err = p.match(left)
		default:
			return left, nil
		}
	}
	return nil, err
}

// with reads the right side of an operator.
func (p *parser) with(left *node, op operation, read func() (*node, error)) (*node, error) {
	right, err := read()
	if err != nil {
		return nil, err
	}
	return &node{op: op, left: left, right: right}, nil
}

// match reads the regular expression on the right of ?.
func (p *parser) match(left *node) (*node, error) {
	p.space()
	at := p.at
	n, err := p.with(left, match, p.term)
	if err != nil {
		return nil, err
	}
	cost := maxForeignCost
	if n.right.op == constant {
		text, ok := n.right.constant.(string)
		if !ok {
			return nil, p.errorf(at, "want a regular expression, found a number")
		}
		if n.pattern, err = compile(text, maxCost); err != nil {
			return nil, p.errorf(at, "%w", err)
		}
		cost = n.pattern.cost
	}
	if p.cost += cost; p.cost > maxCost {
		return nil, p.errorf(at, "the regular expressions are too large together")
	}
	return n, nil
}

// term reads an attribute, a constant, or an expression in parentheses.
func (p *parser) term() (*node, error) {
	p.space()
	at := p.at
	switch {
	case p.take("$"):
		return p.attribute(ofOther)
	case p.take("#"):
		return p.attribute(ofOwner)
	case p.take("'"):
		return p.quoted(at)
	case p.take("("):
		return p.parentheses(at)
	}
	return p.number()
}

func (p *parser) attribute(op operation) (*node, error) {
	name := p.run(func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' })
	if name == "" {
		return nil, p.errorf(p.at, "want the name of an attribute, of letters only, found %s", p.found())
	}
	return &node{op: op, name: name}, nil
}

func (p *parser) quoted(at int) (*node, error) {
	text := p.run(func(c byte) bool { return c != '\'' })
	switch {
	case p.at == len(p.text):
		return nil, p.errorf(at, "the string does not end")
	case text == "":
		return nil, p.errorf(at, "the string is empty")
	}
	p.at++
	return &node{op: constant, constant: text}, nil
}

func (p *parser) parentheses(at int) (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf(at, "more than %d parentheses inside each other", maxDepth)
	}
	n, err := p.expression()
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		return nil, p.errorf(p.at, "want an operator or ), found %s", p.found())
	}
	p.depth--
	return n, nil
}

func (p *parser) number() (*node, error) {
	at := p.at
	if p.at < len(p.text) && (p.text[p.at] == '+' || p.text[p.at] == '-') {
		p.at++
	}
	digits := p.run(isDigit)
	if rest := p.text[p.at:]; len(rest) > 1 && rest[0] == '.' && isDigit(rest[1]) {
		p.at++
		digits += p.run(isDigit)
	}
	if digits == "" {
		p.at = at
		return nil, p.errorf(at, "want an attribute, a string, a number or (, found %s", p.found())
	}
	f, err := strconv.ParseFloat(p.text[at:p.at], 64)
	if err != nil {
		return nil, p.errorf(at, "the number is too large")
	}
	return &node{op: constant, constant: f}, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// run reads the bytes that belong.
func (p *parser) run(belongs func(byte) bool) string {
	from := p.at
	for p.at < len(p.text) && belongs(p.text[p.at]) {
		p.at++
	}
	return p.text[from:p.at]
}

// take reads what comes next, after white space, if it is this.
func (p *parser) take(what string) bool {
	p.space()
	if !strings.HasPrefix(p.text[p.at:], what) {
		return false
	}
	p.at += len(what)
	return true
}

func (p *parser) space() {
	p.at = len(p.text) - len(strings.TrimLeftFunc(p.text[p.at:], unicode.IsSpace))
}

// found is what stands at the present place, for people.
func (p *parser) found() string {
	rest := p.text[p.at:]
	if rest == "" {
		return "the end"
	}
	_, size := utf8.DecodeRuneInString(rest)
	return strconv.Quote(rest[:size])
}

func (p *parser) errorf(at int, format string, args ...any) error {
	return wire.Errorf(wire.BadPayload, "restriction, byte %d: %w", at+1, fmt.Errorf(format, args...))
}
