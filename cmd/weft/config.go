package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// envTag names the environment variable of a flag. It is not kong's own tag,
// because kong reads the variables of the process where we have those that run
// was given.
const envTag = "from"

// configFlag is the file of settings.
type configFlag string

// BeforeResolve reads the file before flags that were not given are resolved.
func (configFlag) BeforeResolve(ctx *kong.Context, trace *kong.Path, p *program) error {
	file, ok := ctx.FlagValue(trace.Flag).(configFlag)
	if !ok {
		return nil
	}
	var err error
	p.settings, err = readConfig(string(file), flagNames(ctx.Model.Node))
	return err
}

// Validate is part of kong.Resolver.
func (p *program) Validate(*kong.Application) error { return nil }

// Resolve is part of kong.Resolver: the value of a flag that is not on the
// command line, from its environment variable or else the file.
func (p *program) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if name := flag.Tag.Get(envTag); name != "" {
		if value := p.env[name]; value != "" {
			return value, nil
		}
	}
	value, ok := p.settings[flag.Name]
	if !ok {
		return nil, nil
	}
	return value, nil
}

// formatHelp adds the environment variable to a flag's help.
func formatHelp(value *kong.Value) string {
	help := kong.DefaultHelpValueFormatter(value)
	if name := value.Tag.Get(envTag); name != "" {
		help = strings.TrimSuffix(help, ".") + " ($" + name + ")."
	}
	return help
}

// flagNames lists the flags of all commands that a file may set.
func flagNames(n *kong.Node) []string {
	var names []string
	for _, f := range n.Flags {
		if f.Name != "help" && f.Name != "config" {
			names = append(names, f.Name)
		}
	}
	for _, child := range n.Children {
		names = append(names, flagNames(child)...)
	}
	return names
}

// readConfig reads a file whose keys are flag names.
func readConfig(file string, known []string) (map[string]any, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
	}
	settings := map[string]any{}
	for _, doc := range tree.Docs {
		if err := readSettings(doc.Body, known, settings); err != nil {
			return nil, fmt.Errorf("%s:%w", file, err)
		}
	}
	return settings, nil
}

func readSettings(body ast.Node, known []string, settings map[string]any) error {
	var pairs []*ast.MappingValueNode
	switch body := body.(type) {
	case nil, *ast.CommentGroupNode, *ast.NullNode:
		return nil
	case *ast.MappingNode:
		pairs = body.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{body}
	default:
		return errors.New(" it is not a list of \"flag: value\" lines")
	}
	for _, pair := range pairs {
		token := pair.Key.GetToken()
		if !slices.Contains(known, token.Value) {
			return fmt.Errorf("%d: %q is not the name of a flag%s", token.Position.Line, token.Value, suggestion(token.Value, known))
		}
		var value any
		if err := yaml.NodeToValue(pair.Value, &value); err != nil {
			return fmt.Errorf("%d: %s: %w", token.Position.Line, token.Value, err)
		}
		text, err := settingText(value)
		if err != nil {
			return fmt.Errorf("%d: %s: %w", token.Position.Line, token.Value, err)
		}
		settings[token.Value] = text
	}
	return nil
}

// settingText gives kong what it would read from a command line.
func settingText(value any) (any, error) {
	switch value := value.(type) {
	case nil:
		return "", nil
	case bool, string:
		return value, nil
	case []any:
		for i, item := range value {
			text, err := settingText(item)
			if err != nil {
				return nil, err
			}
			value[i] = text
		}
		return value, nil
	case map[string]any:
		return nil, errors.New("want one value or a list, not names with values")
	}
	return fmt.Sprint(value), nil
}

// suggestion is the known name that shares most with a wrong one.
func suggestion(wrong string, known []string) string {
	best, most := "", 2
	for _, name := range known {
		n := 0
		for n < min(len(name), len(wrong)) && name[n] == wrong[n] {
			n++
		}
		if n > most {
			best, most = name, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
