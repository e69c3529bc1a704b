package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"github.com/weft-fabric/weft/wire"
)

// program is what every command has at hand: streams, environment, settings
// and how to print. Printing is safe from several goroutines.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            map[string]string
	settings       map[string]any // of --config
	json, verbose  bool
	log            *slog.Logger

	mu sync.Mutex // held while a line is written
}

// printf writes one line to the standard output.
func (p *program) printf(format string, args ...any) { p.write(p.stdout, format, args...) }

// errorf writes one line to the standard error.
func (p *program) errorf(format string, args ...any) { p.write(p.stderr, format, args...) }

func (p *program) write(w io.Writer, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(w, format+"\n", args...) // there is nobody left to tell
}

// printJSON writes v as one line.
func (p *program) printJSON(v any) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("cannot print the result: %w", err)
	}
	p.printf("%s", bytes.TrimRight(line.Bytes(), "\n"))
	return nil
}

// printValue writes a payload as JSON: on one line, or indented if it is long
// and a person reads it. No value prints nothing.
func (p *program) printValue(v wire.Payload) error {
	raw, err := jsonOf(v)
	if err != nil || raw == nil {
		return err
	}
	const long = 100
	if f, ok := terminal(p.stdout); ok && !p.json && len(raw) > min(long, width(f)) {
		var out bytes.Buffer
		if json.Indent(&out, raw, "", "  ") == nil {
			raw = out.Bytes()
		}
	}
	p.printf("%s", raw)
	return nil
}

// jsonOf is a payload as JSON, nil for none.
func jsonOf(v wire.Payload) (json.RawMessage, error) {
	if v.IsZero() {
		return nil, nil
	}
	j, err := v.As(wire.JSON)
	if err != nil {
		return nil, err
	}
	return j.Data, nil
}

// printTable writes rows under a header, or a sentence if there are none.
func (p *program) printTable(none string, header table.Row, rows []table.Row) {
	if len(rows) == 0 {
		p.printf("%s", none)
		return
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(header)
	t.AppendRows(rows)
	t.SuppressEmptyColumns()
	p.printf("%s", t.Render())
}

// terminal returns w's file if a person looks at it.
func terminal(w any) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// width is the number of columns, 80 if nobody knows.
func width(f *os.File) int {
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil || w <= 0 {
		return 80
	}
	return w
}

// colour says whether text to w may be coloured: see no-color.org.
func (p *program) colour(w io.Writer) bool {
	_, ok := terminal(w)
	return ok && p.env["NO_COLOR"] == "" && p.env["TERM"] != "dumb"
}

// newLogger logs to the standard error: for people, or with --json for
// machines.
func (p *program) newLogger() *slog.Logger {
	w := &lockedWriter{p}
	if p.json {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: p.level()}))
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{
		Level: p.level(), TimeFormat: "15:04:05.000", NoColor: !p.colour(p.stderr),
	}))
}

// quietLogger is for commands that print results: only what goes wrong.
func (p *program) quietLogger() *slog.Logger {
	if p.verbose {
		return p.log
	}
	return slog.New(slog.DiscardHandler)
}

// lockedWriter keeps log lines and printed lines apart.
type lockedWriter struct{ p *program }

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.p.stderr.Write(b)
}

// argument is the JSON that a command was given: text, @file, or - for the
// standard input. None is the empty payload.
func (p *program) argument(arg string) (wire.Payload, error) {
	var data []byte
	var err error
	switch {
	case arg == "":
		return wire.Payload{}, nil
	case arg == "-":
		data, err = io.ReadAll(p.stdin)
	case strings.HasPrefix(arg, "@"):
		data, err = os.ReadFile(arg[1:])
	default:
		data = []byte(arg)
	}
	if err != nil {
		return wire.Payload{}, usageError{fmt.Errorf("the JSON argument cannot be read: %w", err)}
	}
	if err := wire.CheckJSON(data); err != nil {
		return wire.Payload{}, usageError{fmt.Errorf("the JSON argument is not valid: %s", sentenceOf(err))}
	}
	return wire.Payload{Format: wire.JSON, Data: bytes.TrimSpace(data)}, nil
}

// sentenceOf is the text of an error without its code.
func sentenceOf(err error) string {
	if e := wire.AsError(err); e.Message != "" {
		return e.Message
	}
	return err.Error()
}

// brief is a duration as a person reads it.
func brief(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + brief(-d)
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.1f µs", float64(d)/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", float64(d)/1e3)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// count is a number with its noun: 1 app, 2 apps.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
