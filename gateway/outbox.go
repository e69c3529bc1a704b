package gateway

import (
	"context"
	"sync"

	"github.com/weft-fabric/weft/wire"
)

// The bounds of what waits for one client. Above the first two only answers and
// announcements are added, streams, topics and contexts wait; above the others
// the client is disconnected.
const (
	easyFrames = 1024
	easyBytes  = 1 << 20
	mostFrames = 1 << 16
	mostBytes  = 16 << 20
)

// outbox is what waits to be written to a client. Whoever puts never waits.
type outbox struct {
	wake chan struct{} // for the writer

	mu     sync.Mutex
	frames [][]byte
	n      int // frames that wait or are being written
	bytes  int
	space  chan struct{} // closed when there is room again; nil while there is
	ping   bool          // the writer shall ping after what waits
	put    uint64
	failed error
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

// add appends frames. It is false when the client is too slow, or gone.
func (o *outbox) add(frames ...[]byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed != nil {
		return false
	}
	for _, f := range frames {
		o.bytes += len(f)
	}
	o.frames = append(o.frames, frames...)
	o.n += len(frames)
	o.put += uint64(len(frames))
	if o.n > mostFrames || o.bytes > mostBytes {
		o.failed = wire.Errorf(wire.Busy, "the client does not read: %d frames of %d bytes wait", o.n, o.bytes)
		o.frames = nil
		o.free()
	}
	if o.space == nil && (o.n > easyFrames || o.bytes > easyBytes) {
		o.space = make(chan struct{})
	}
	o.signal()
	return o.failed == nil
}

// count is how many frames were put so far.
func (o *outbox) count() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.put
}

// askPing has the writer ping the client after what waits.
func (o *outbox) askPing() {
	o.mu.Lock()
	o.ping = true
	o.signal()
	o.mu.Unlock()
}

// full is nil, or is closed when there is room again.
func (o *outbox) full() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.space
}

// await waits for room.
func (o *outbox) await(ctx context.Context) {
	for {
		space := o.full()
		if space == nil {
			return
		}
		select {
		case <-space:
		case <-ctx.Done():
			return
		}
	}
}

// take returns all that waits. ping is the number of the last frame after which
// the client is to be pinged, or 0.
func (o *outbox) take() (frames [][]byte, ping uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	frames, o.frames = o.frames, nil
	if o.ping {
		ping, o.ping = o.put, false
	}
	return frames, ping, o.failed
}

// wrote makes room for what was written.
func (o *outbox) wrote(frames [][]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range frames {
		o.bytes -= len(f)
	}
	o.n -= len(frames)
	if o.n <= easyFrames/2 && o.bytes <= easyBytes/2 {
		o.free()
	}
}

// free tells who waits for room. mu is held.
func (o *outbox) free() {
	if o.space != nil {
		close(o.space)
		o.space = nil
	}
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// inbox is what happened elsewhere and concerns a session: functions for its
// goroutine. What posts is bounded by its own limits.
type inbox struct {
	wake chan struct{}

	mu    sync.Mutex
	items []func()
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (b *inbox) post(f func()) {
	b.mu.Lock()
	b.items = append(b.items, f)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *inbox) take() []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}
