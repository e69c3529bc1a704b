package restriction

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
)

const (
	// maxCost bounds the regular expressions of one expression together,
	// maxForeignCost one that is the value of an attribute.
	maxCost        = 2000
	maxForeignCost = 200
	// maxSubject is how long a string may be that is matched. With maxCost it
	// bounds how long an evaluation takes.
	maxSubject = 1024
)

// pattern is a regular expression that is to match a whole string.
type pattern struct {
	re   *regexp.Regexp
	cost int
}

// compile makes a pattern that costs at most most. The cost is known before the
// repetitions in it, which can make megabytes of a few bytes, are written out.
func compile(text string, most int) (*pattern, error) {
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, reason(err)
	}
	c := cost(tree)
	if c > most {
		return nil, fmt.Errorf("the regular expression is too large: it compiles to about %d instructions, the limit is %d", c, most)
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, reason(err)
	}
	re.Longest() // if any match is the whole string, then the longest one is
	return &pattern{re, c}, nil
}

// reason is an error of package syntax in words that stay short: its own repeat the
// expression.
func reason(err error) error {
	if e, ok := errors.AsType[*syntax.Error](err); ok {
		return fmt.Errorf("not a regular expression: %s", e.Code)
	}
	return err
}

// cost is about how many instructions a regular expression compiles to.
func cost(tree *syntax.Regexp) int {
	subs := 0
	for _, sub := range tree.Sub {
		subs += cost(sub)
	}
	switch tree.Op {
	case syntax.OpLiteral:
		return len(tree.Rune)
	case syntax.OpRepeat: // the parser has bounded the product of those inside each other
		return subs*max(tree.Min, tree.Max, 1) + max(tree.Max-tree.Min, 0)
	}
	return subs + 1
}

func (p *pattern) matches(s string) bool {
	if len(s) > maxSubject {
		return false
	}
	at := p.re.FindStringIndex(s)
	return at != nil && at[0] == 0 && at[1] == len(s)
}
