package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/weft-fabric/weft/wire"
)

// The exit codes.
const (
	exitDone    = 0
	exitRefused = 1 // the fabric said no
	exitUsage   = 2
	exitTimeout = 3
)

// grammar is the command line: kong makes flags, help and checks of it.
type grammar struct {
	Help    helpFlag   `short:"h" help:"Show help."`
	Config  configFlag `placeholder:"FILE" help:"YAML file whose keys are flag names."`
	JSON    bool       `name:"json" short:"j" negatable:"" help:"Print one JSON object per line."`
	Verbose bool       `short:"v" negatable:"" help:"Log more."`

	Demo   demoCommand   `cmd:"" help:"See two machines share one fabric, in this process."`
	Up     upCommand     `cmd:"" help:"Run a node."`
	Status statusCommand `cmd:"" help:"Show how this machine's nodes are, also while the fabric is offline."`
	Env    envCommand    `cmd:"" help:"Print how NATS clients reach the running node's server."`

	Call   callCommand   `cmd:"" help:"Call a method."`
	Serve  serveCommand  `cmd:"" help:"Offer a method."`
	Stream streamCommand `cmd:"" help:"Publish or watch a stream."`
	Pub    pubCommand    `cmd:"" help:"Publish on a topic."`
	Sub    subCommand    `cmd:"" help:"Subscribe to topics."`

	Context contextCommand `cmd:"" help:"Read, change and watch shared contexts."`
	Channel channelCommand `cmd:"" help:"Publish on channels and see who is on them."`

	Bench benchCommand `cmd:"" help:"Measure."`

	Nodes   nodesCommand   `cmd:"" help:"List the nodes."`
	Apps    appsCommand    `cmd:"" help:"List the apps."`
	Methods methodsCommand `cmd:"" help:"List the methods and streams."`

	Admin   adminCommand   `cmd:"" help:"Prepare a NATS cluster."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

const description = "Weft lets the apps of a trading desk share data across machines."

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	p := &program{stdin: stdin, stdout: stdout, stderr: stderr, env: environment(env)}
	var g grammar
	parser, err := kong.New(&g,
		kong.Name("weft"), kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.NoDefaultHelp(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.ValueFormatter(formatHelp),
		kong.ExplicitGroups([]kong.Group{{Key: connectGroup, Title: "Where NATS is:"}, {Key: gatewayGroup, Title: "Apps of Glue42 and io.Connect:"}}),
		kong.Resolvers(p),
		kong.Bind(p),
	)
	if err != nil {
		p.errorf("weft: %v", err) // a fault of the grammar, which a test finds
		return exitUsage
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	kctx, err := parser.Parse(args)
	if errors.Is(err, errHelp) {
		return exitDone
	}
	if err != nil {
		return p.usage(err)
	}
	p.json, p.verbose = g.JSON, g.Verbose
	p.log = p.newLogger()
	kctx.BindTo(ctx, (*context.Context)(nil))
	return p.exit(kctx.Run())
}

// helpFlag prints help for the command in front of it.
type helpFlag bool

var errHelp = errors.New("help was printed")

// BeforeReset comes before anything is checked.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	return errHelp
}

// usageError is a mistake on the command line that kong cannot see.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// negative is how kong takes an argument that is a number below zero.
var negative = regexp.MustCompile(`^unknown flag -[0-9]+`)

// usage reports a command line that cannot be.
func (p *program) usage(err error) int {
	p.errorf("weft: %v", err)
	if number := negative.FindString(err.Error()); number != "" {
		p.errorf("what begins with - and is no flag comes after --: -- %s", strings.TrimPrefix(number, "unknown flag "))
	}
	var parse *kong.ParseError
	command := "weft"
	if errors.As(err, &parse) && parse.Context != nil {
		if selected := parse.Context.Selected(); selected != nil {
			command = selected.FullPath()
		}
	}
	p.errorf("%q shows the usage.", command+" --help")
	return exitUsage
}

// exit reports what a command returned.
func (p *program) exit(err error) int {
	var usage usageError
	var typed *wire.Error
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errReported):
		return exitRefused
	case errors.As(err, &usage):
		p.errorf("weft: %v", usage.error)
		return exitUsage
	case errors.As(err, &typed), wire.CodeOf(err) != wire.Internal:
		p.errorf("%s", oneLine(wire.AsError(err).Error()))
	default: // from outside the fabric; its text stands by itself
		p.errorf("weft: %v", err)
	}
	if wire.CodeOf(err) == wire.Timeout {
		return exitTimeout
	}
	return exitRefused
}

// errReported ends a command that has already said what failed.
var errReported = errors.New("reported")

func oneLine(s string) string { return strings.Join(strings.FieldsFunc(s, isBreak), " | ") }

func isBreak(r rune) bool { return r == '\n' || r == '\r' }

// environment makes a map of NAME=value lines.
func environment(lines []string) map[string]string {
	env := make(map[string]string, len(lines))
	for _, line := range lines {
		if name, value, ok := strings.Cut(line, "="); ok {
			env[name] = value
		}
	}
	return env
}

// level is what the log shows.
func (p *program) level() slog.Level {
	if p.verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
