package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/weft-fabric/weft/node"
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

// page is the whole screen. A low one has no blank lines and rules, and fewer
// calls and lines of the story; what does not fit even then is cut off.
func (p painter) page(s boardState, since time.Duration) []string {
	const fewest, airy = 2, 30
	blank, rule := []string{""}, []string{p.rule()}
	counters := p.counters(s.tally)
	if p.height < airy {
		blank, rule, counters = nil, nil, counters[:1]
	}
	page := slices.Concat([]string{p.head(since)}, rule, p.beside(p.machine(s.machines[0], s.members), p.machine(s.machines[1], s.members)), blank)
	page = append(page, p.panels(
		append([]string{p.title("prices", bobPC+" → "+alicePC+", stream")}, p.prices(s)...),
		append([]string{p.title("topics", "both ways")}, tail(p.topics(s.topics), len(instruments))...))...)
	page = slices.Concat(page, blank, p.panels(
		append([]string{p.title("channel", "") + p.bad("● ") + p.dim(channel+", "+alicePC+" → "+bobPC)}, p.channel(s)...),
		append([]string{p.title("context", desk+", "+bobPC+" → "+alicePC)}, p.limits(s)...)), blank)

	const titles = 2
	room := p.height - len(page) - titles - len(blank) - len(rule) - len(counters)
	story := max(fewest, room*4/10)
	calls := max(fewest, room-story)
	page = append(page, p.title("calls", "by the trader on "+alicePC))
	page = append(page, pad(tail(p.calls(s.calls), calls), calls)...)
	page = slices.Concat(page, blank, []string{p.title("what happened", "")})
	page = append(page, pad(tail(p.story(s.story), story), story)...)
	page = slices.Concat(page, rule, counters)
	return page[:min(len(page), p.height)]
}

// panels puts two panels with a row for each instrument next to each other.
func (p painter) panels(left, right []string) []string {
	rows := len(instruments) + 1
	return p.beside(pad(left, rows), right)
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

// machine is a panel: its state and its apps with what they offer and where they
// are.
func (p painter) machine(m machineState, members []node.ChannelMember) []string {
	list := []string{p.good("● ") + p.bold(m.name)}
	if !m.here {
		list[0] = p.bad("○ ") + p.bold(m.name) + p.bad("  is away")
	}
	const rows, name = 4, 11
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
		if slices.ContainsFunc(members, func(m node.ChannelMember) bool { return m.App == a.ID }) {
			offers = append(offers, "on "+channel)
		}
		offers = append(offers, common...)
		list = append(list, "  "+text.Pad(a.Identity.Application, name, ' ')+p.dim(fit(offers, ", ", p.half()-name-2)))
	}
	return pad(list, rows+1)
}

// half is the width of a panel.
func (p painter) half() int { return (p.width - 3) / 2 }

// fit joins words, without those at the end that have no room.
func fit(words []string, between string, width int) string {
	for len(words) > 0 {
		if line := strings.Join(words, between); text.StringWidthWithoutEscSequences(line) <= width {
			return line
		}
		words = words[:len(words)-1]
	}
	return ""
}

// beside puts two panels next to each other.
func (p painter) beside(left, right []string) []string {
	half := p.half()
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
		list = append(list, "  "+text.Pad(t.topic, 13, ' ')+p.dim(" → ")+application(t.subscriber)+p.dim("  "+t.value))
	}
	return list
}

// channel is what is on the channel and who is on it, and what the blotter makes
// of that.
func (p painter) channel(s boardState) []string {
	row := func(name, more string) string { return "  " + text.Pad(name, 9, ' ') + more }
	client := p.dim("none yet")
	if s.client != "" {
		client = p.bold(s.client) + p.dim(", picked on "+alicePC)
	}
	list := []string{row("client", client)}
	for _, m := range s.machines {
		var here []string
		for _, member := range s.members {
			if string(member.Node) == m.name {
				here = append(here, member.Identity.Application)
			}
		}
		line := p.dim("nobody")
		if len(here) > 0 {
			line = strings.Join(here, ", ")
		}
		list = append(list, row(m.name, line))
	}
	if !s.machines[1].here || s.blotter.client == "" {
		return list
	}
	shown := s.blotter.shown()
	words := []string{p.bold(s.blotter.client), p.dim(fmt.Sprintf("%d of %d", len(shown), len(s.blotter.fills)))}
	list[2] += ": " + fit(words, ", ", p.half()-text.StringWidthWithoutEscSequences(list[2])-2)
	if len(shown) > 0 {
		o := shown[len(shown)-1]
		list = append(list, row("", p.dim(fmt.Sprintf("%d %s at %s", o.Quantity, o.Symbol, figure(o.Price)))))
	}
	return list
}

// age is brief without the fractions that nobody reads.
func age(d time.Duration) string {
	const exact = 10 * time.Second
	if d < exact {
		return brief(d)
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

func (p painter) limits(s boardState) []string {
	list := make([]string, 0, len(instruments))
	for _, i := range instruments {
		line := text.Pad("  "+i.symbol, 10, ' ')
		now, ok := s.limits[i.symbol]
		limit := fmt.Sprintf("%6d ", now.limit)
		switch {
		case !ok:
			line += p.dim("no limit yet")
		case now.before == 0 || time.Since(now.at) > stale:
			line += limit + p.dim("  "+now.by+", "+age(time.Since(now.at)))
		case now.limit > now.before:
			line += p.good(limit+"▲ ") + now.by
		default:
			line += p.bad(limit+"▼ ") + now.by
		}
		list = append(list, line)
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
	words := []string{" calls " + p.bold(fmt.Sprint(t.answered))}
	for _, c := range []struct {
		name string
		n    int
	}{{"prices", t.priced}, {"topics", t.heard}, {"limits", t.limited}, {"clients", t.followed}, {"gaps", t.gaps}, {"refused", t.refused}, {"no server", t.unserved}} {
		words = append(words, fmt.Sprintf("%s %d", c.name, c.n))
	}
	return []string{
		fit(words, "   ", p.width),
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
