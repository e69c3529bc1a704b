package channels

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-fabric/weft/node/contexts"
)

const (
	// mark says in the context bucket that the defaults were made.
	mark = "channels"
	// seedTimeout bounds one attempt. The pauses between them double from
	// seedRetry to seedRetryMost.
	seedTimeout   = 5 * time.Second
	seedRetry     = time.Second
	seedRetryMost = time.Minute
)

// defaults are the channels that every realm begins with, in the order in which
// they are listed. fdc3 is the number of the channel in the FDC3 recommendation
// that has this colour, 0 for none; its magenta is our Pink.
var defaults = []struct {
	name, color string
	fdc3        int
}{
	{"Red", "red", 1},
	{"Green", "green", 4},
	{"Blue", "#66ABFF", 6},
	{"Pink", "#F328BB", 7},
	{"Yellow", "#FFE733", 3},
	{"DarkYellow", "#b09b00", 0},
	{"Orange", "#fa5a28", 2},
	{"Purple", "#c873ff", 8},
	{"Lime", "#8af59e", 0},
	{"Cyan", "#80f3ff", 5},
}

// meta is what channels say of themselves, as far as this package writes it.
type meta struct {
	Color string    `msgpack:"color"`
	FDC3  *fdc3Meta `msgpack:"fdc3,omitempty"`
}

// fdc3Meta is a user channel as FDC3 describes it.
type fdc3Meta struct {
	ID      string      `msgpack:"id"`
	Display fdc3Display `msgpack:"displayMetadata"`
}

type fdc3Display struct {
	Name  string `msgpack:"name"`
	Color string `msgpack:"color"`
	Glyph string `msgpack:"glyph"`
}

// object is a channel's context.
type object struct {
	Name string `msgpack:"name"`
	Meta any    `msgpack:"meta"`
	Data any    `msgpack:"data"`
}

// seeds are the contexts of the defaults.
func seeds() []contexts.Seed {
	list := make([]contexts.Seed, len(defaults))
	for i, d := range defaults {
		m := meta{Color: d.color}
		if d.fdc3 > 0 {
			n := strconv.Itoa(d.fdc3)
			m.FDC3 = &fdc3Meta{ID: "fdc3.channel." + n, Display: fdc3Display{Name: "Channel " + n, Color: d.color, Glyph: n}}
		}
		list[i] = contexts.Seed{Name: Prefix + d.name, Object: object{Name: d.name, Meta: m, Data: struct{}{}}}
	}
	return list
}

// compare orders names: the defaults first, in their order, then by bytes. The
// order is the same on every node and stays when channels are written.
func compare(a, b string) int {
	return cmp.Or(cmp.Compare(place(a), place(b)), strings.Compare(a, b))
}

func place(name string) int {
	for i, d := range defaults {
		if d.name == name {
			return i
		}
	}
	return len(defaults)
}

func sortNames(names []string) { slices.SortFunc(names, compare) }

// seeding is how far the making of the defaults has come. Channels.mu guards it.
type seeding struct {
	online bool
	// connection counts the connections: each may lead to another bucket. done
	// says that the defaults of this one were made, tried that an attempt has ended.
	connection  int
	done, tried bool
	running     bool
	wake        chan struct{} // ends the pause between attempts
	attempt     chan struct{} // closed when the present attempt has ended
}

// Connected says that the connection was made, or was lost.
func (c *Channels) Connected(online bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.seeding
	s.online = online
	if !online {
		return
	}
	s.connection++
	s.done, s.tried = false, false
	if s.running {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	} else if !c.cfg.Hidden {
		c.startSeeding()
	}
}

// startSeeding makes the defaults in the background. mu is held.
func (c *Channels) startSeeding() {
	if !c.seeding.running && !c.closed {
		c.seeding.running = true
		c.wg.Go(c.seed)
	}
}

// ready waits until the defaults were made, or an attempt has failed: an API call
// then finds out itself what is wrong.
func (c *Channels) ready(ctx context.Context) {
	for {
		c.mu.Lock()
		s := &c.seeding
		if s.done || s.tried || !s.online || c.closed {
			c.mu.Unlock()
			return
		}
		c.startSeeding()
		attempt := s.attempt
		c.mu.Unlock()
		select {
		case <-attempt:
		case <-ctx.Done():
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// seed tries until the defaults were made or the connection is gone.
func (c *Channels) seed() {
	pause, level := seedRetry, slog.LevelWarn
	for {
		c.mu.Lock()
		connection := c.seeding.connection
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(c.ctx, seedTimeout)
		made, err := c.cfg.Contexts.Seed(ctx, mark, seeds())
		cancel()
		switch {
		case made:
			c.log.InfoContext(c.ctx, "default channels made")
		case err != nil && c.ctx.Err() == nil:
			c.log.Log(c.ctx, level, "default channels not made, trying again", slog.Any("error", err))
			level = slog.LevelDebug
		}
		if c.seeded(connection, err == nil) {
			return
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, seedRetryMost)
		case <-c.seeding.wake:
			pause = seedRetry
		case <-c.ctx.Done():
		}
	}
}

// seeded notes how an attempt has ended that began on a connection, and says
// whether it was the last one.
func (c *Channels) seeded(connection int, ok bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.seeding
	if s.connection == connection {
		s.done, s.tried = ok, true
	}
	close(s.attempt)
	s.attempt = make(chan struct{})
	s.running = !s.done && s.online && !c.closed
	return !s.running
}
