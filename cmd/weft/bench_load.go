package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// benchLoad is some clients of one gateway and what they do at the same time.
// The first error ends it.
type benchLoad struct {
	ctx  context.Context
	end  context.CancelCauseFunc
	wg   sync.WaitGroup
	url  string
	last time.Duration // how long to go on
}

// benchOutcome is what came of a load.
type benchOutcome struct {
	latencies []time.Duration
	delivered int // results, or messages at receivers
	took      time.Duration
}

// manyTimes is room for so many that a load seldom has to move them.
const manyTimes = 1 << 17

// errLoadDone ends a load that has nothing more to do.
var errLoadDone = errors.New("done")

// runLoad puts a load on the gateway at url for a time. What the gateway owes it
// has to come before patience is over too.
func runLoad(ctx context.Context, url string, last, patience time.Duration, do func(*benchLoad) (benchOutcome, error)) (benchOutcome, error) {
	ctx, stop := context.WithTimeoutCause(ctx, last+patience,
		fmt.Errorf("the gateway still owes messages %s after the end", patience))
	defer stop()
	ctx, end := context.WithCancelCause(ctx)
	l := &benchLoad{ctx: ctx, end: end, url: url, last: last}
	outcome, err := do(l)
	if err == nil {
		err = errLoadDone
	}
	end(err)
	l.wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, errLoadDone) {
		return benchOutcome{}, cause
	}
	return outcome, nil
}

// peer is a new client, which the end of the load disconnects.
func (l *benchLoad) peer(name string) (*benchPeer, error) {
	p, err := dialBench(l.ctx, l.url, name)
	if err != nil {
		return nil, err
	}
	l.wg.Go(func() {
		<-l.ctx.Done()
		_ = p.conn.CloseNow() // which fails if the gateway was first
	})
	return p, p.hello()
}

// crowd is some new clients.
func (l *benchLoad) crowd(n int) ([]*benchPeer, error) {
	peers := make([]*benchPeer, n)
	for i := range peers {
		var err error
		if peers[i], err = l.peer(fmt.Sprintf("bench-receiver-%d", i+1)); err != nil {
			return nil, err
		}
	}
	return peers, nil
}

// run does something beside the rest of the load.
func (l *benchLoad) run(f func() error) {
	l.wg.Go(func() {
		if err := f(); err != nil {
			l.end(err)
		}
	})
}

// share sends messages that each of the crowd receives, for the time of the load.
// At most window of them are on their way: sent, but not received by all. The
// latencies are from the send to the last receipt.
func (l *benchLoad) share(crowd []*benchPeer, kind string, window int, send func(n int) error) (benchOutcome, error) {
	tally := newBenchTally(len(crowd), window)
	for _, p := range crowd {
		l.run(func() error { return p.receive(kind, tally.received) })
	}
	began := make([]time.Time, window)
	outcome := benchOutcome{latencies: make([]time.Duration, 0, manyTimes)}
	start := time.Now()
	for sent, now := 0, start; ; {
		for ; sent-len(outcome.latencies) < window && (sent == 0 || now.Sub(start) < l.last); sent++ {
			now = time.Now()
			began[sent%window] = now
			if err := send(sent); err != nil {
				return benchOutcome{}, err
			}
		}
		all := len(outcome.latencies)
		if all == sent {
			outcome.delivered, outcome.took = sent*len(crowd), now.Sub(start)
			return outcome, nil
		}
		select {
		case now = <-tally.all:
			outcome.latencies = append(outcome.latencies, now.Sub(began[all%window]))
		case <-l.ctx.Done():
			return benchOutcome{}, context.Cause(l.ctx)
		}
	}
}

// receive reports the number of each message of a kind. They have to come in
// order, each once.
func (p *benchPeer) receive(kind string, report func(n int)) error {
	for n := 0; ; n++ {
		f, err := p.await(kind)
		if err != nil {
			return err
		}
		value := f.data
		if value == nil {
			value = f.delta
		}
		if marked(value) != n {
			return fmt.Errorf("%s got %s with %.100s, want number %d", p.name, kind, value, n)
		}
		report(n)
	}
}

// benchTally counts who has received what. Messages are numbered, and each
// receiver gets them in order.
type benchTally struct {
	receivers int32
	missing   []atomic.Int32 // of message n at n modulo the window
	all       chan time.Time // in order, when a message was received by all
}

func newBenchTally(receivers, window int) *benchTally {
	t := &benchTally{
		receivers: int32(receivers), missing: make([]atomic.Int32, window), all: make(chan time.Time, window),
	}
	for i := range t.missing {
		t.missing[i].Store(t.receivers)
	}
	return t
}

// received counts one receiver of message n. Message n plus the window is not
// sent before all have n.
func (t *benchTally) received(n int) {
	missing := &t.missing[n%len(t.missing)]
	if missing.Add(-1) == 0 {
		missing.Store(t.receivers)
		t.all <- time.Now()
	}
}
