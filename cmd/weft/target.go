package main

import (
	"fmt"
	"strings"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// targetFlag says which servers are meant.
type targetFlag struct {
	Target string `default:"best" placeholder:"WHO" help:"Which servers: best, all, skipMine, or key=value,... of their identity (${default})."`
}

// target reads the flag; single says that there is one server at most.
func (f targetFlag) target() (t node.Target, single bool, err error) {
	switch f.Target {
	case "best", "":
		return node.Best, true, nil
	case "all":
		return node.All, false, nil
	case "skipMine":
		return node.SkipMine, false, nil
	}
	filter := wire.Filter{}
	for part := range strings.SplitSeq(f.Target, ",") {
		name, value, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return t, false, usageError{fmt.Errorf("--target %s: want best, all, skipMine, or properties as in application=pricer,machine=m1", f.Target)}
		}
		filter[name] = value
	}
	if err := filter.Check(); err != nil {
		return t, false, usageError{fmt.Errorf("--target %s: %s", f.Target, sentenceOf(err))}
	}
	return node.Instances(filter), false, nil
}

// at names a server or caller: its application and node.
func at(id node.Identity) string {
	if id.Node == "" {
		return id.Application
	}
	return id.Application + "@" + id.Node
}
