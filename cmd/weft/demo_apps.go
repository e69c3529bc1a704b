package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// part is an app of the demo. start registers what it offers and returns what
// it does from then on, nil for nothing.
type part struct {
	name  string
	start func(ctx context.Context, app *node.App, b *board) (func(ctx context.Context), error)
}

// parts are the apps of each machine. A part that shows another service is
// added here, and its panel to the screen.
var parts = map[string][]part{
	alicePC: {{"order-book", startOrderBook}, {"trader", startTrader}},
	bobPC:   {{"pricer", startPricer}, {"risk", startRisk}, {"blotter", startBlotter}},
}

// clients begins when both machines are there, chart joins late.
var (
	clients = part{"clients", startClients}
	chart   = part{"chart", startChart}
)

// instruments are what the desk trades, with the price of the first day.
var instruments = []struct {
	symbol string
	price  float64
}{{"AAPL", 231.40}, {"BMW", 78.12}, {"EURUSD", 1.0842}, {"GILT", 98.765}}

const (
	tick  = 200 * time.Millisecond // between two prices of an instrument
	click = 400 * time.Millisecond // between two orders of the trader

	soon      = 150 * time.Millisecond  // until the first client is picked, and the first limit set
	pickEvery = 2 * time.Second         // between two clients
	setEvery  = 1500 * time.Millisecond // between two limits
)

// demoClients are for whom the desk trades.
var demoClients = []string{"ACME", "Globex", "Initech"}

const (
	// desk is a shared context, with a limit for each instrument.
	desk = "desk"
	// channel is on which the apps tell each other the client.
	channel = "Red"
)

// What travels.
type (
	price struct {
		Symbol string  `json:"symbol"`
		Bid    float64 `json:"bid"`
		Ask    float64 `json:"ask"`
	}
	order struct {
		Symbol   string  `json:"symbol"`
		Quantity int     `json:"quantity"`
		Price    float64 `json:"price,omitempty"`
		Client   string  `json:"client,omitempty"`
	}
	// selection is what is on the channel.
	selection struct {
		Client string `json:"client"`
	}
	deskState struct {
		Limits map[string]int `json:"limits"`
	}
	quote struct {
		Price float64 `json:"price"`
	}
	verdict struct {
		Approved bool `json:"approved"`
		Used     int  `json:"used"`
	}
	accepted struct {
		ID int `json:"id"`
	}
	status struct {
		Status string `json:"status"`
	}
)

// describe offers Desk.Status, which several apps serve.
func describe(ctx context.Context, app *node.App) error {
	m := node.Method{Name: "Desk.Status", Returns: "string status", Description: "How the app is doing."}
	return node.Handle(ctx, app, m, func(context.Context, struct{}, *node.Call) (status, error) {
		return status{"ready"}, nil
	})
}

// market makes prices that wander.
type market struct {
	mu   sync.Mutex
	mids map[string]float64
}

func newMarket() *market {
	m := &market{mids: map[string]float64{}}
	for _, i := range instruments {
		m.mids[i.symbol] = i.price
	}
	return m
}

func (m *market) step(symbol string) price {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mids[symbol] *= 1 + rand.NormFloat64()*0.0002
	return m.at(symbol)
}

func (m *market) look(symbol string) (price, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.mids[symbol]; !ok {
		return price{}, fmt.Errorf("no price for %q", symbol)
	}
	return m.at(symbol), nil
}

func (m *market) at(symbol string) price {
	mid := m.mids[symbol]
	return price{symbol, round(mid * 0.99995), round(mid * 1.00005)}
}

// round keeps five significant digits or so.
func round(v float64) float64 {
	scale := math.Pow(10, 5-math.Ceil(math.Log10(v)))
	return math.Round(v*scale) / scale
}

// startPricer offers Pricer.Quote, and the stream Prices with a branch for each
// instrument.
func startPricer(ctx context.Context, app *node.App, b *board) (func(context.Context), error) {
	m := newMarket()
	quoting := node.Method{Name: "Pricer.Quote", Accepts: "string symbol, int quantity", Returns: "double price"}
	err := node.Handle(ctx, app, quoting, func(_ context.Context, o order, _ *node.Call) (quote, error) {
		p, err := m.look(o.Symbol)
		return quote{p.Ask}, err
	})
	if err != nil {
		return nil, err
	}
	if err := describe(ctx, app); err != nil {
		return nil, err
	}
	prices, err := app.CreateStream(ctx, node.Method{Name: "Prices", Accepts: "string symbol"}, node.StreamOptions{
		Snapshot: 1,
		OnRequest: func(_ context.Context, r *node.SubscriptionRequest) (string, error) {
			var want order
			if err := r.Args.Decode(&want); err != nil {
				return "", err
			}
			_, err := m.look(want.Symbol)
			return want.Symbol, err
		},
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		for pause(ctx, tick) {
			for _, i := range instruments {
				if prices.Push(m.step(i.symbol), i.symbol) == nil {
					b.pushed()
				}
			}
		}
	}, nil
}

// firstLimit is how much of an instrument risk lets the desk hold at first.
const firstLimit = 5000

// startRisk offers Risk.Check, keeps the book from the topic fills.*, and the
// limits in the context desk.
func startRisk(ctx context.Context, app *node.App, b *board) (func(context.Context), error) {
	limits := map[string]int{}
	for _, i := range instruments {
		limits[i.symbol] = firstLimit
	}
	// After a return the context is still there, with the limits of before.
	if _, _, err := app.Contexts().Create(ctx, desk, deskState{limits}); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	held := map[string]int{}
	checking := node.Method{Name: "Risk.Check", Accepts: "string symbol, int quantity", Returns: "bool approved, int used"}
	err := node.Handle(ctx, app, checking, func(ctx context.Context, o order, _ *node.Call) (verdict, error) {
		limit, err := limitOf(ctx, app, o.Symbol)
		if err != nil {
			return verdict{}, err
		}
		mu.Lock()
		defer mu.Unlock()
		if want := held[o.Symbol] + o.Quantity; want > limit {
			return verdict{}, fmt.Errorf("%s would be %d, the limit is %d", o.Symbol, want, limit)
		}
		return verdict{true, held[o.Symbol]}, nil
	})
	if err != nil {
		return nil, err
	}
	if err := describe(ctx, app); err != nil {
		return nil, err
	}
	fills, err := app.SubscribeTopic(ctx, "fills.*")
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { setLimits(ctx, app, b) })
		for e := range fills.Events(ctx) {
			var o order
			if e.Kind == topicLost || e.Value.Decode(&o) != nil {
				continue
			}
			b.heard(e, app)
			limit, err := limitOf(ctx, app, o.Symbol)
			if err != nil {
				continue // the demo is over
			}
			mu.Lock()
			held[o.Symbol] += o.Quantity
			full := held[o.Symbol] > limit*8/10
			if full {
				held[o.Symbol] = 0 // hedged
			}
			mu.Unlock()
			if full {
				b.published(app.Publish(ctx, "alerts.exposure", map[string]any{"symbol": o.Symbol, "action": "hedge"}))
			}
		}
	}, nil
}

// limitOf reads a limit, which takes no round trip: the node has the context.
func limitOf(ctx context.Context, app *node.App, symbol string) (limit int, err error) {
	s, err := app.Contexts().Get(ctx, desk)
	if err == nil {
		err = s.At("limits", symbol).Decode(&limit)
	}
	return limit, err
}

// setLimits changes one limit after the other.
func setLimits(ctx context.Context, app *node.App, b *board) {
	for wait := soon; pause(ctx, wait); wait = setEvery {
		symbol := instruments[rand.IntN(len(instruments))].symbol
		limit, err := limitOf(ctx, app, symbol)
		if err != nil {
			continue
		}
		if limit += 1000 * (1 - 2*rand.IntN(2)); limit < 3000 || limit > 8000 {
			limit = firstLimit
		}
		b.sending(desk)
		if _, err := app.Contexts().SetPath(ctx, desk, []string{"limits", symbol}, limit); err == nil {
			b.set()
		}
	}
}

// startOrderBook offers Orders.Submit and publishes each fill.
func startOrderBook(ctx context.Context, app *node.App, b *board) (func(context.Context), error) {
	var mu sync.Mutex
	last := 0
	submitting := node.Method{Name: "Orders.Submit", Accepts: "string symbol, int quantity, double price", Returns: "int id"}
	err := node.Handle(ctx, app, submitting, func(ctx context.Context, o order, _ *node.Call) (accepted, error) {
		mu.Lock()
		last++
		id := last
		mu.Unlock()
		b.published(app.Publish(ctx, "fills."+o.Symbol, o))
		return accepted{id}, nil
	})
	if err != nil {
		return nil, err
	}
	return nil, describe(ctx, app)
}

// startTrader watches prices, limits and the channel, and trades: a quote and a
// check on bob-pc, the order on its own machine.
func startTrader(ctx context.Context, app *node.App, b *board) (func(context.Context), error) {
	alerts, err := app.SubscribeTopic(ctx, "alerts.>")
	if err != nil {
		return nil, err
	}
	limits, err := app.Contexts().Watch(ctx, desk)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		var wg sync.WaitGroup
		wg.Go(func() {
			for e := range alerts.Events(ctx) {
				if e.Kind != topicLost {
					b.heard(e, app)
				}
			}
		})
		wg.Go(func() {
			defer limits.Close()
			for e := range limits.Events(ctx) {
				b.limited(e, app)
			}
		})
		wg.Go(func() {
			for e := range app.Channels().Events(ctx) {
				b.member(e)
			}
		})
		for _, i := range instruments {
			wg.Go(func() { watchPrices(ctx, app, b, i.symbol, nil) })
		}
		wg.Go(func() {
			for n := 0; pause(ctx, click); n++ {
				switch n % 6 {
				case 2: // the nearest, which is on the same machine
					_, _ = b.call(ctx, app, "Desk.Status", nil, node.Best)
				case 5:
					_, _ = b.call(ctx, app, "Desk.Status", nil, node.All)
				default:
					trade(ctx, app, b)
				}
			}
		})
		wg.Wait()
	}, nil
}

// startClients joins the channel and picks one client after the other.
func startClients(ctx context.Context, app *node.App, b *board) (func(context.Context), error) {
	if err := app.Channels().Join(ctx, channel); err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		wait := soon
		for n := 0; pause(ctx, wait); n++ {
			client := demoClients[n%len(demoClients)]
			b.sending(channel)
			if _, err := app.Channels().Publish(ctx, selection{client}); err == nil {
				b.picked(client)
			}
			wait = pickEvery
		}
	}, nil
}

// startBlotter joins the channel, and lists the fills of the client that is on it.
func startBlotter(ctx context.Context, app *node.App, b *board) (func(context.Context), error) {
	fills, err := app.SubscribeTopic(ctx, "fills.*")
	if err != nil {
		return nil, err
	}
	if err := app.Channels().Join(ctx, channel); err != nil {
		return nil, err
	}
	updates, err := app.Channels().Watch(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			defer updates.Close()
			for u := range updates.Updates(ctx) {
				var on selection
				if u.Kind == node.ChannelSnapshot || u.Kind == node.ChannelChanged {
					if u.Channel.Data.Decode(&on) == nil && on.Client != "" {
						b.follows(u, on.Client, app)
					}
				}
			}
		})
		for e := range fills.Events(ctx) {
			var o order
			if e.Kind != topicLost && e.Value.Decode(&o) == nil {
				b.listed(o)
			}
		}
	}, nil
}

// trade is one order of the trader.
func trade(ctx context.Context, app *node.App, b *board) {
	o := order{
		Symbol: instruments[rand.IntN(len(instruments))].symbol, Quantity: 100 * (1 + rand.IntN(12)),
		Client: demoClients[rand.IntN(len(demoClients))],
	}
	if rand.IntN(9) == 0 {
		o.Quantity *= 10 // a fat finger
	}
	results, err := b.call(ctx, app, "Pricer.Quote", o)
	if err != nil {
		return
	}
	var q quote
	if results.Value().Decode(&q) != nil {
		return
	}
	o.Price = q.Price
	if _, err := b.call(ctx, app, "Risk.Check", o); err != nil {
		return
	}
	_, _ = b.call(ctx, app, "Orders.Submit", o) // the board shows what came of it
}

// watchPrices shows one instrument, from wherever a pricer appears; first is
// called with the first price.
func watchPrices(ctx context.Context, app *node.App, b *board, symbol string, first func(node.StreamEvent, price)) {
	args := order{Symbol: symbol}
	sub, err := app.Subscribe(ctx, "Prices", args, node.All, node.Wait(wire.MaxCallTimeout))
	if err != nil {
		if ctx.Err() == nil {
			b.tell("stream", "%s cannot watch %s: %v", app.Identity().Application, symbol, err)
		}
		return
	}
	defer sub.Close()
	for e := range sub.Events(ctx) {
		switch e.Kind {
		case streamData:
			var p price
			if e.Value.Decode(&p) != nil {
				continue
			}
			b.priced(p)
			if first != nil {
				first(e, p)
				first = nil
			}
		case streamGap:
			b.gap(symbol, e)
		case streamSubscribed, streamClosed: // the directory tells the same
		}
	}
}

// startChart joins when the market is already moving.
func startChart(_ context.Context, app *node.App, b *board) (func(context.Context), error) {
	symbol := instruments[2].symbol
	began := time.Now()
	return func(ctx context.Context) {
		watchPrices(ctx, app, b, symbol, func(e node.StreamEvent, p price) {
			how := "live"
			if e.Snapshot {
				how = "from the snapshot"
			}
			b.tell("stream", "chart joins late: first price, %s %s, %s after %s", symbol, figure(p.Bid), how, brief(time.Since(began)))
		})
	}, nil
}

// figure is a price as it is quoted.
func figure(v float64) string {
	return strings.TrimRight(fmt.Sprintf("%.*f", 5-int(math.Ceil(math.Log10(v))), v), " ")
}
