package edge

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/weft-fabric/weft/wire"
)

// Conn is a client's WebSocket that has passed all checks but authentication.
// Read is for one goroutine at a time; everything else may be called from any.
//
// An error of any method is a *wire.Error and says why the connection ended; it
// is the same for every method from then on. Only of Read and Ping it may also
// be that their own context ended, which leaves the connection open.
//
//	target-gone  the client closed it, or it broke
//	limit        a message was larger than allowed
//	bad-payload  text was not UTF-8, or a frame was not as it must be
//	timeout      the client did not take what was written, did not answer a
//	             ping, or did not end a message
//	canceled     Close was called, or the gateway stops
type Conn struct {
	ws                   *websocket.Conn
	stream               *stream
	limits               limits
	origin, host, remote string
	user                 osUser

	ended context.Context // of handle; ends with the connection
	end   context.CancelCauseFunc
	gone  chan struct{} // closed when the socket is

	// For the goroutine that reads.
	scratch     []byte
	watched     <-chan struct{} // the context that Read watches
	unwatch     func() bool
	interrupted error // reading is over

	mu    sync.Mutex
	cause *wire.Error
}

// Origin is the Origin header, which is one of Config.Origins, or empty for a
// native app that sent none.
func (c *Conn) Origin() string { return c.origin }

// Remote is the client's address.
func (c *Conn) Remote() string { return c.remote }

// OSUser is the client's OS user, which is the node's: a uid, or a SID on
// Windows. It is empty with Config.AnyUser.
func (c *Conn) OSUser() string { return c.user.id }

// run is the life of a connection.
func (c *Conn) run(ctx context.Context, handle func(context.Context, *Conn)) {
	// Not below ctx: a connection ends because of what because stores, and the
	// client is told before.
	c.ended, c.end = context.WithCancelCause(context.WithoutCancel(ctx))
	c.watched = c.ended.Done()
	c.gone = make(chan struct{})
	stop := context.AfterFunc(ctx, func() { c.Close(websocket.StatusGoingAway, "the gateway stops") })
	var alive sync.WaitGroup
	alive.Go(c.keepAlive)
	defer func() {
		stop()
		c.watch(c.ended)
		c.Close(websocket.StatusNormalClosure, "")
		<-c.gone
		alive.Wait()
	}()
	handle(c.ended, c)
}

// Read returns the next message: the content of a text frame, or of a binary
// frame, in any number of fragments. It is UTF-8 and the caller's. When ctx ends
// reading is over for good, but the connection is not: the caller can Write
// still, and says with Close why it ends.
func (c *Conn) Read(ctx context.Context) ([]byte, error) {
	if c.interrupted != nil {
		return nil, c.interrupted
	}
	c.watch(ctx)
	// Contexts that can end would cost the library a timer for each frame.
	_, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return nil, c.readFailed(ctx, err)
	}
	c.stream.begin()
	message, err := c.gather(r)
	c.stream.end()
	if err != nil {
		return nil, c.readFailed(ctx, err)
	}
	if !utf8.Valid(message) {
		return nil, c.shut(websocket.StatusInvalidFramePayloadData, "not UTF-8", wire.Errorf(wire.BadPayload, "the message is not UTF-8"))
	}
	return message, nil
}

// gather reads a message into the scratch buffer, and copies it out when it is
// small: one allocation of the right size.
func (c *Conn) gather(r io.Reader) ([]byte, error) {
	buf, n := c.scratch, 0
	for {
		if n == len(buf) {
			buf = append(buf, make([]byte, max(len(buf), 4<<10))...)
		}
		m, err := r.Read(buf[n:])
		n += m
		if err == io.EOF { // as it is: the end of the message
			break
		}
		if err != nil {
			return nil, err
		}
	}
	// The library takes a connection that ends between two reads of a message
	// for the end of the message.
	if c.stream.broken.Load() {
		return nil, io.ErrUnexpectedEOF
	}
	if len(buf) > keptBuffer {
		c.scratch = nil
		return buf[:n:n], nil
	}
	c.scratch = buf
	message := make([]byte, n)
	copy(message, buf)
	return message, nil
}

// Write sends each frame as a text message, all of them with one system call.
// The frames are the caller's again when it returns. It waits while the client
// takes nothing, up to WriteTimeout; then the connection is over.
func (c *Conn) Write(frames ...[]byte) error {
	if len(frames) == 0 {
		return nil
	}
	if err := c.stream.send(frames); err != nil {
		return c.writeFailed(err)
	}
	return nil
}

func (c *Conn) writeFailed(err error) error {
	switch {
	case errors.Is(err, net.ErrClosed):
		return c.drop(wire.Errorf(wire.TargetGone, "the app closed the connection"))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.discard(wire.Errorf(wire.Timeout, "the app did not take what was sent to it within %v", c.limits.write))
	}
	return c.drop(wire.Errorf(wire.TargetGone, "the connection broke: %w", err))
}

// Ping sends a ping and returns when the pong is there. Somebody must be in
// Read meanwhile.
func (c *Conn) Ping(ctx context.Context) error {
	err := c.ws.Ping(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return wire.Errorf(wire.CodeOf(ctx.Err()), "no answer to a ping: %w", context.Cause(ctx))
	}
	return c.drop(wire.Errorf(wire.TargetGone, "the connection broke: %w", err))
}

// Close sends a close frame, waits up to CloseTimeout for the client's, and ends
// the connection. The reason is cut to what a close frame can hold. Only the
// first call counts.
func (c *Conn) Close(code websocket.StatusCode, reason string) {
	_ = c.shut(code, reason, wire.Errorf(wire.Canceled, "the gateway closed the connection: %d %s", code, reason)) // says what it was given
}

// because stores why the connection ends, unless that is known, and returns what
// is stored. The context of handle ends with it.
func (c *Conn) because(cause *wire.Error) (first bool, why *wire.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if first = c.cause == nil; first {
		c.cause = cause
		c.end(cause)
	}
	return first, c.cause
}

// why is why the connection ended, or nil.
func (c *Conn) why() *wire.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// shut ends the connection in the way of the protocol.
func (c *Conn) shut(code websocket.StatusCode, reason string, cause *wire.Error) error {
	first, why := c.because(cause)
	if first {
		c.stream.hurry(c.limits.closeReply)
		_ = c.ws.Close(code, clip(reason, 123)) // the client may be gone
		_ = c.stream.Close()                    // the library has, or failed to
		close(c.gone)
	}
	return why
}

// drop ends the connection at once.
func (c *Conn) drop(cause *wire.Error) error {
	first, why := c.because(cause)
	if first {
		_ = c.stream.Close() // gone in any case
		_ = c.ws.CloseNow()  // the same
		close(c.gone)
	}
	return why
}

// discard is drop for a client that does not read: what the kernel still has
// for it is thrown away too.
func (c *Conn) discard(cause *wire.Error) error {
	_ = c.stream.noLinger() // else the kernel keeps it for a while
	return c.drop(cause)
}

// readFailed finds out why the library cannot read on. It has told the client
// already if a frame was wrong.
func (c *Conn) readFailed(ctx context.Context, err error) error {
	var closed websocket.CloseError
	var broken *net.OpError
	if failure := c.stream.failure(); failure != nil { // of a pong
		return c.writeFailed(failure)
	}
	if c.why() == nil && ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		c.interrupted = wire.Errorf(wire.Canceled, "reading was canceled: %w", context.Cause(ctx))
		return c.interrupted
	}
	switch {
	case errors.Is(err, websocket.ErrMessageTooBig):
		return c.shut(websocket.StatusMessageTooBig, "message too big",
			wire.Errorf(wire.Limit, "the message is larger than %d bytes", c.limits.message))
	case errors.As(err, &closed):
		return c.drop(wire.Errorf(wire.TargetGone, "the app closed the connection: %w", closed))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.shut(websocket.StatusPolicyViolation, "message not ended in time",
			wire.Errorf(wire.Timeout, "the app did not end its message within %v", c.limits.messageEnd))
	case errors.As(err, &broken), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return c.drop(wire.Errorf(wire.TargetGone, "the connection broke: %w", err))
	}
	return c.shut(websocket.StatusProtocolError, "protocol error", wire.Errorf(wire.BadPayload, "not a WebSocket frame: %w", err))
}

// watch interrupts Read when its context ends. It costs something only when the
// context is not that of the Read before. That of handle ends with the
// connection, which interrupts by itself.
func (c *Conn) watch(ctx context.Context) {
	done := ctx.Done()
	if done == c.watched {
		return
	}
	c.watched = done
	if c.unwatch != nil {
		c.unwatch()
		c.unwatch = nil
	}
	if done != nil && done != c.ended.Done() {
		c.unwatch = context.AfterFunc(ctx, c.stream.interrupt)
	}
}

// keepAlive pings the client and closes the connection when it stays silent. A
// client that we do not read from is not judged.
func (c *Conn) keepAlive() {
	ticker := time.NewTicker(c.limits.pingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-c.ended.Done():
			return
		case <-ticker.C:
		}
		before := c.stream.reads.Load()
		if _, err := c.stream.Write([]byte{framePing, 0}); err != nil {
			_ = c.writeFailed(err) // why is stored
			return
		}
		select {
		case <-c.ended.Done():
			return
		case <-time.After(c.limits.pong):
		}
		// Odd and unchanged: one read has waited all the time, and got nothing.
		if before%2 == 1 && c.stream.reads.Load() == before {
			_ = c.shut(websocket.StatusPolicyViolation, "no answer to a ping",
				wire.Errorf(wire.Timeout, "the app did not answer a ping within %v", c.limits.pong)) // why is stored
			return
		}
	}
}
