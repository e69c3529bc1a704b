package interop

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// feed is one branch of another node that this node listens to, once, for all
// its subscriptions. The NATS callback hands each message to every leg; legs
// never block.
type feed struct {
	x       *Interop
	subject string
	refs    int // guarded by Interop.mu
	ready   chan struct{}
	sub     *nats.Subscription // set before ready is closed
	err     error

	mu   sync.Mutex
	legs atomic.Pointer[[]*leg] // replaced under mu
}

// attach makes a leg hear a branch, and returns when NATS knows that this node
// listens.
func (x *Interop) attach(ctx context.Context, subject string, l *leg) (*feed, error) {
	x.mu.Lock()
	f := x.feeds[subject]
	first := f == nil
	if first {
		f = &feed{x: x, subject: subject, ready: make(chan struct{})}
		f.legs.Store(&[]*leg{})
		x.feeds[subject] = f
	}
	f.refs++
	x.mu.Unlock()
	f.mu.Lock()
	legs := append(slices.Clone(*f.legs.Load()), l)
	f.legs.Store(&legs)
	f.mu.Unlock()
	if first {
		f.sub, f.err = x.cfg.Data.Subscribe(ctx, subject, "", f.onMessage, nil)
		close(f.ready)
	}
	select {
	case <-f.ready:
	case <-ctx.Done():
		x.detach(f, l)
		return nil, errOf(ctx)
	}
	if f.err != nil {
		err := f.err
		x.detach(f, l)
		return nil, err
	}
	return f, nil
}

func (x *Interop) detach(f *feed, l *leg) {
	f.mu.Lock()
	legs := slices.DeleteFunc(slices.Clone(*f.legs.Load()), func(o *leg) bool { return o == l })
	f.legs.Store(&legs)
	f.mu.Unlock()
	x.mu.Lock()
	f.refs--
	last := f.refs == 0
	if last {
		delete(x.feeds, f.subject)
	}
	x.mu.Unlock()
	if last {
		<-f.ready
		if f.sub != nil {
			x.cfg.Data.Unsubscribe(f.sub)
		}
	}
}

func (f *feed) onMessage(msg *nats.Msg) {
	if wire.Injected(msg.Header, msg.Data) {
		f.x.refused(msg, "not a stream message")
		return
	}
	m, err := wire.ParseStream(msg.Data)
	if err != nil || m.Kind == wire.StreamClose {
		f.x.refused(msg, "not a stream message")
		return
	}
	for _, l := range *f.legs.Load() {
		l.onBranch(m)
	}
}

// onPush takes what is meant for one subscription of this node.
func (x *Interop) onPush(msg *nats.Msg) {
	if wire.Injected(msg.Header, msg.Data) {
		x.refused(msg, "not private data")
		return
	}
	p, err := subjects.ParsePush(msg.Subject)
	if err != nil {
		x.refused(msg, err.Error())
		return
	}
	m, err := wire.ParseStream(msg.Data)
	if err != nil {
		x.refused(msg, err.Error())
		return
	}
	x.mu.Lock()
	l := x.legs[p.Sub]
	x.mu.Unlock()
	if l == nil || l.server.Node != p.Owner {
		x.log.Debug("private data for no subscription", slog.String("node", string(p.Owner)))
		return
	}
	l.onPrivate(m)
}
