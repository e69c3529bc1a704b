package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
)

// painter turns the board into the lines of a screen.
type painter struct {
	width, height int
	colour        bool
}

func (p painter) paint(s string, c ...text.Color) string {
	if !p.colour {
		return s
	}
	return text.Colors(c).EscapeSeq() + s + text.Reset.EscapeSeq()
}

func (p painter) dim(s string) string  { return p.paint(s, text.Faint) }
func (p painter) bold(s string) string { return p.paint(s, text.Bold) }
func (p painter) good(s string) string { return p.paint(s, text.FgGreen) }
func (p painter) bad(s string) string  { return p.paint(s, text.FgRed) }

// page is the whole screen. What does not fit in its height is left out from
// the panels that can be shorter.
func (p painter) page(s boardState, since time.Duration) []string {
	left, right := p.machine(s.machines[0]), p.machine(s.machines[1])
	top := p.beside(left, right)
	prices := p.prices(s)
	counters := p.counters(s.tally)

	// Head, three titles, blank lines, counters.
	const fixed, fewest = 9, 3
	room := p.height - fixed - len(top) - len(prices) - len(counters)
	calls, story := p.calls(s.calls), p.story(s.story)
	topics := p.topics(s.topics)
	most := max(fewest, room*6/10)
	calls = tail(calls, most)
	story = tail(story, max(fewest, room-most))
	topics = tail(topics, len(prices))

	page := []string{p.head(since), p.rule()}
	page = append(page, top...)
	page = append(page, "")
	page = append(page, p.beside(
		append([]string{p.title("prices", bobPC+" → "+alicePC+", stream")}, prices...),
		append([]string{p.title("topics", "both ways")}, topics...))...)
	page = append(page, "", p.title("calls", "by the blotter on "+alicePC))
	page = append(page, pad(calls, most)...)
	page = append(page, "", p.title("what happened", ""))
	page = append(page, story...)
	if gap := p.height - len(page) - len(counters) - 1; gap > 0 {
		page = append(page, make([]string, gap)...)
	}
	page = append(page, p.rule())
	page = append(page, counters...)
	return page[:min(len(page), p.height)]
}

func (p painter) head(since time.Duration) string {
	left := p.paint(" weft demo ", text.Bold, text.ReverseVideo) + "  two machines, one fabric"
	clock := fmt.Sprintf("%d:%02d", int(since.Minutes()), int(since.Seconds())%60)
	return p.fill(left, p.dim("Ctrl-C ends   ")+clock)
}

// fill puts right at the right edge of the line.
func (p painter) fill(left, right string) string {
	space := p.width - text.StringWidthWithoutEscSequences(left) - text.StringWidthWithoutEscSequences(right)
	return left + strings.Repeat(" ", max(1, space)) + right
}

func (p painter) rule() string { return p.dim(strings.Repeat("─", p.width)) }

func (p painter) title(name, more string) string {
	return p.paint(strings.ToUpper(name), text.Bold, text.FgCyan) + "  " + p.dim(more)
}

// machine is a panel: its state and its apps with what they offer.
func (p painter) machine(m machineState) []string {
	list := []string{p.good("● ") + p.bold(m.name)}
	if !m.here {
		list[0] = p.bad("○ ") + p.bold(m.name) + p.bad("  is away")
	}
	const rows = 3
	for _, a := range m.apps {
		if !m.here {
			break
		}
		var offers, common []string
		for _, method := range a.Methods {
			switch {
			case method.Streaming:
				offers = append(offers, method.Name+" (stream)")
			case method.Name == "Desk.Status":
				common = append(common, method.Name)
			default:
				offers = append(offers, method.Name)
			}
		}
		offers = append(offers, common...)
		list = append(list, "  "+text.Pad(a.Identity.Application, 11, ' ')+p.dim(strings.Join(offers, ", ")))
	}
	return pad(list, rows+1)
}

// beside puts two panels next to each other.
func (p painter) beside(left, right []string) []string {
	half := (p.width - 3) / 2
	rows := max(len(left), len(right))
	left, right = pad(left, rows), pad(right, rows)
	list := make([]string, rows)
	for i := range list {
		l := text.Trim(left[i], half)
		if p.colour {
			l += text.Reset.EscapeSeq()
		}
		list[i] = l + strings.Repeat(" ", max(0, half-text.StringWidthWithoutEscSequences(l))) + p.dim(" │ ") + text.Trim(right[i], half)
	}
	return list
}

// stale is the age from which on a price is shown as old.
const stale = time.Second

func (p painter) prices(s boardState) []string {
	list := make([]string, 0, len(instruments))
	for _, i := range instruments {
		now, ok := s.prices[i.symbol]
		line := text.Pad("  "+i.symbol, 10, ' ')
		switch {
		case !ok:
			line += p.dim("no price yet")
		case time.Since(now.at) > stale:
			line += p.dim(fmt.Sprintf("%9s %9s  %s", figure(now.Bid), figure(now.Ask), brief(time.Since(now.at))))
		case now.Bid >= now.before:
			line += p.good(fmt.Sprintf("%9s %9s  ▲", figure(now.Bid), figure(now.Ask)))
		default:
			line += p.bad(fmt.Sprintf("%9s %9s  ▼", figure(now.Bid), figure(now.Ask)))
		}
		list = append(list, line)
	}
	return list
}

func (p painter) topics(topics []topicState) []string {
	list := make([]string, 0, len(topics))
	for _, t := range topics {
		list = append(list, "  "+text.Pad(t.topic, 15, ' ')+p.dim("→ ")+application(t.subscriber)+p.dim("  "+t.value))
	}
	return list
}

func (p painter) calls(calls []callState) []string {
	list := make([]string, 0, len(calls))
	for _, c := range calls {
		took := fmt.Sprintf("%8s  ", brief(c.took))
		said := p.dim(c.result)
		if c.code != "" {
			said = p.bad(c.code) + p.dim(" "+c.result)
		}
		list = append(list, "  "+p.latency(c, took)+text.Pad(c.method, 14, ' ')+p.dim("→ ")+text.Pad(c.who(), 20, ' ')+said)
	}
	return list
}

func (p painter) latency(c callState, s string) string {
	switch {
	case c.code != "":
		return p.bad(s)
	case c.remote:
		return p.paint(s, text.FgYellow)
	}
	return p.good(s)
}

func (p painter) story(story []happening) []string {
	list := make([]string, 0, len(story))
	for _, h := range story {
		line := h.text
		if h.bad {
			line = p.bad(line)
		}
		list = append(list, fmt.Sprintf("  %s  %s", p.dim(fmt.Sprintf("%5.1fs", h.at.Seconds())), line))
	}
	return list
}

func (p painter) counters(t tally) []string {
	return []string{
		fmt.Sprintf(" calls %s   prices %d   topics %d   gaps %d", p.bold(fmt.Sprint(t.answered)), t.priced, t.heard, t.gaps) +
			p.dim(fmt.Sprintf("   refused %d   no server %d", t.refused, t.unserved)),
		fmt.Sprintf(" half of the calls within %s across machines, %s on the same machine",
			p.paint(brief(median(t.remote)), text.FgYellow), p.good(brief(median(t.local)))),
	}
}

// application is the first half of application@node.
func application(who string) string {
	name, _, _ := strings.Cut(who, "@")
	return name
}

// tail keeps the last rows, pad adds empty ones.
func tail(list []string, rows int) []string { return list[max(0, len(list)-rows):] }

func pad(list []string, rows int) []string {
	for len(list) < rows {
		list = append(list, "")
	}
	return list
}
