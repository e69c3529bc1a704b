package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// view shows the board until ctx ends.
type view interface {
	show(ctx context.Context, b *board)
}

// view chooses how to show the demo; end restores what it changed.
func (d *demo) view(p *program) (v view, end func()) {
	f, ok := terminal(p.stdout)
	if !ok || p.json || p.env["TERM"] == "dumb" {
		return &lines{p: p}, func() {}
	}
	s := &screen{f: f, colour: p.colour(p.stdout)}
	s.write("\x1b[?1049h\x1b[?25l")
	return s, func() { s.write("\x1b[?25h\x1b[?1049l") }
}

// lines shows one line for each thing that happens.
type lines struct{ p *program }

const priceLine = 2 * time.Second // between two lines of prices

func (l *lines) show(ctx context.Context, b *board) {
	ticker := time.NewTicker(priceLine)
	defer ticker.Stop()
	for {
		select {
		case h := <-b.news:
			l.print(h)
		case <-ticker.C:
			l.prices(b)
		case <-ctx.Done():
			for len(b.news) > 0 {
				l.print(<-b.news)
			}
			return
		}
	}
}

func (l *lines) print(h happening) {
	if l.p.json {
		_ = l.p.printJSON(map[string]any{"seconds": h.at.Seconds(), "event": h.kind, "text": h.text, "bad": h.bad}) // of strings and numbers
		return
	}
	l.p.printf("%5.1fs  %-8s %s", h.at.Seconds(), h.kind, h.text)
}

func (l *lines) prices(b *board) {
	s := b.snapshot()
	var words []string
	for _, i := range instruments {
		if p, ok := s.prices[i.symbol]; ok {
			words = append(words, fmt.Sprintf("%s %s/%s", i.symbol, figure(p.Bid), figure(p.Ask)))
		}
	}
	if len(words) > 0 {
		l.print(happening{at: time.Since(b.start), kind: "stream", text: fmt.Sprintf("Prices  %s  (%d received)", strings.Join(words, "  "), s.tally.priced)})
	}
}

// screen redraws the whole board a few times a second.
type screen struct {
	f      *os.File
	colour bool
}

const redraw = 150 * time.Millisecond

func (s *screen) show(ctx context.Context, b *board) {
	ticker := time.NewTicker(redraw)
	defer ticker.Stop()
	for {
		s.draw(b)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *screen) write(text string) { _, _ = s.f.WriteString(text) } // a terminal that is gone shows nothing

func (s *screen) draw(b *board) {
	w, h, err := term.GetSize(int(s.f.Fd()))
	if err != nil || w <= 0 || h <= 0 {
		w, h = 80, 24
	}
	// The last column stays empty: writing there wraps on some terminals.
	p := painter{width: min(w, 120) - 1, height: h, colour: s.colour}
	var out strings.Builder
	out.WriteString("\x1b[H")
	for i, line := range p.page(b.snapshot(), time.Since(b.start)) {
		if i > 0 {
			out.WriteString("\r\n")
		}
		out.WriteString(text.Trim(line, p.width))
		if s.colour {
			out.WriteString("\x1b[0m")
		}
		out.WriteString("\x1b[K")
	}
	out.WriteString("\x1b[J")
	s.write(out.String())
}
