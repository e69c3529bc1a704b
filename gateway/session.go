package gateway

import (
	"context"
	"log/slog"
	"time"

	"github.com/coder/websocket"

	"github.com/weft-fabric/weft/gateway/edge"
	"github.com/weft-fabric/weft/wire"
)

const (
	// aheadFrames is how many frames of a client wait while one is handled.
	aheadFrames = 256
	// helloWithin is how long a connection may last without a hello.
	helloWithin = 30 * time.Second
	pongWithin  = 10 * time.Second
)

// session is one connection. Its goroutine, run, owns everything here that is not
// safe by itself; a reader and a writer only pass frames.
type session struct {
	g    *Gateway
	conn *edge.Conn
	log  *slog.Logger
	ctx  context.Context // ends with the session
	end  context.CancelCauseFunc
	// cause is why it ends; nil before.
	cause error

	frames chan *frame // closed when there are no more
	out    *outbox
	in     *inbox

	peer *peer // who said hello, nil before
	// sent is the number of the last frame of which a pong says that the client
	// has read it; pinging says that one is awaited.
	ponged  uint64
	pinging bool
	onPong  []func()
}

func newSession(ctx context.Context, g *Gateway, conn *edge.Conn) *session {
	s := &session{g: g, conn: conn, frames: make(chan *frame, aheadFrames), out: newOutbox(), in: newInbox()}
	// Not below ctx, which ends with the connection: what the client has said before is
	// heard.
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	s.log = g.log.With(slog.String("remote", conn.Remote()))
	return s
}

// run is the session from the first frame to the last.
func (s *session) run() {
	writerDone := make(chan struct{})
	var gone error
	go func() { // ends with the connection, which run closes
		defer close(s.frames)
		gone = s.read()
	}()
	go func() { // ends with s.ctx
		defer close(writerDone)
		s.write()
	}()
	hello := time.AfterFunc(helloWithin, func() {
		s.in.post(func() {
			if s.peer == nil {
				s.end(wire.Errorf(wire.Timeout, "no hello within %s", helloWithin))
			}
		})
	})
	if s.handleAll() {
		s.cause = gone
	} else {
		s.cause = context.Cause(s.ctx)
	}
	hello.Stop()
	s.leave()
	s.end(s.cause)
	s.close(s.cause)
	for range s.frames { // nobody hears what comes after the end
	}
	<-writerDone
}

// handleAll handles what comes until the session ends; all says that it is because the
// client says nothing more.
func (s *session) handleAll() (all bool) {
	for {
		select {
		case f, ok := <-s.frames:
			if !ok {
				return true
			}
			s.handle(f)
		case <-s.in.wake:
			for _, f := range s.in.take() {
				f()
			}
		case <-s.ctx.Done():
			return false
		}
	}
}

// read passes frames on until the connection ends.
func (s *session) read() error {
	for {
		data, err := s.conn.Read(s.ctx)
		if err != nil {
			return err
		}
		f, err := parse(data)
		if err != nil {
			s.send(begin(domainGlobal, "error").raw("request_id", nil).raw("peer_id", nil).
				str("reason_uri", domainGlobal+"."+uriFailure).str("reason", wire.AsError(err).Error()))
			continue
		}
		select {
		case s.frames <- f:
		case <-s.ctx.Done():
			return nil
		}
	}
}

// write writes what waits until the session ends. A connection that takes nothing more
// ends the reading too.
func (s *session) write() {
	for {
		frames, ping, err := s.out.take()
		if err != nil {
			s.end(err)
			return
		}
		if len(frames) > 0 {
			if s.conn.Write(frames...) != nil {
				return
			}
			s.out.wrote(frames)
		}
		if ping > 0 {
			go s.ping(ping) // ends with the pong, the connection or pongWithin
			continue
		}
		if len(frames) > 0 {
			continue
		}
		select {
		case <-s.out.wake:
		case <-s.ctx.Done():
			return
		}
	}
}

// ping asks the client for a pong after the frame of this number.
func (s *session) ping(number uint64) {
	ctx, cancel := context.WithTimeout(s.ctx, pongWithin)
	defer cancel()
	switch err := s.conn.Ping(ctx); {
	case wire.CodeOf(err) == wire.Timeout:
		s.end(wire.Errorf(wire.Timeout, "no pong: %w", err))
		return
	case err != nil: // the end of the connection, of which read tells
		return
	}
	s.in.post(func() { s.pong(number) })
}

// pong says that the client has read everything up to a frame.
func (s *session) pong(number uint64) {
	s.ponged, s.pinging = max(s.ponged, number), false
	waiting := s.onPong
	s.onPong = nil
	for _, f := range waiting {
		f()
	}
}

// afterRead calls f when the client has read all that was sent so far. What it
// was sent later comes in another read of its socket: see package doc, "Races".
func (s *session) afterRead(f func()) {
	number := s.out.count()
	if s.ponged >= number {
		f()
		return
	}
	s.onPong = append(s.onPong, func() {
		if s.ponged >= number {
			f()
		} else {
			s.afterReadUpTo(number, f)
		}
	})
	s.askPong()
}

func (s *session) afterReadUpTo(number uint64, f func()) {
	s.onPong = append(s.onPong, func() {
		if s.ponged >= number {
			f()
		} else {
			s.afterReadUpTo(number, f)
		}
	})
	s.askPong()
}

func (s *session) askPong() {
	if !s.pinging {
		s.pinging = true
		s.out.askPing()
	}
}

// send queues a message for the client.
func (s *session) send(m message) { s.out.add(m.end()) }

// leave ends the peer that is on the connection.
func (s *session) leave() {
	if s.peer != nil {
		s.peer.leave()
		s.peer = nil
	}
}

// close ends the connection and says why, here and to the client.
func (s *session) close(why error) {
	e := wire.AsError(why)
	switch {
	case e != nil && (e.Code == wire.Busy || e.Code == wire.Limit || e.Code == wire.Timeout):
		s.log.Warn("gateway client disconnected", slog.String("reason", e.Error()))
		s.conn.Close(websocket.StatusPolicyViolation, e.Error())
	case s.g.stopping():
		s.conn.Close(websocket.StatusGoingAway, "the node is stopping")
	default:
		s.log.Debug("gateway client has gone", slog.Any("cause", why))
		s.conn.Close(websocket.StatusNormalClosure, "")
	}
}

// handle is told of every frame, in order.
func (s *session) handle(f *frame) {
	switch {
	case f.kind == "ping" && f.domain == domainGlobal:
		return // clients send them to keep the line busy, and expect nothing
	case f.kind == "hello" && f.domain == domainGlobal:
		s.hello(f)
		return
	case !known(f.domain):
		s.refuse(f, f.domain, domainGlobal+"."+uriFailure, "Unable to find domain "+f.domain)
		return
	}
	p := s.owner(f)
	if p == nil {
		return
	}
	switch f.domain {
	case domainGlobal:
		p.global(f)
	case domainAGM:
		p.agm(f)
	case domainContext:
		p.context(f)
	case domainBus:
		p.bus(f)
	case domainMetrics:
		p.metrics(f)
	default:
		p.unhandled(f)
	}
}

func known(domain string) bool {
	switch domain {
	case domainGlobal, domainAGM, domainContext, domainBus, domainMetrics, domainActivity:
		return true
	}
	return false
}

// owner is the peer that a frame is from: the one on this connection. A frame in
// the name of another is refused.
func (s *session) owner(f *frame) *peer {
	switch {
	case s.peer != nil && f.peer == string(s.peer.id):
		return s.peer
	case f.peer != "" && s.g.has(f.peer):
		s.refuse(f, f.domain, domainGlobal+"."+uriFailure, "The original source of peer "+f.peer+" doesnt match the current source")
	case !handled(f):
		s.refuse(f, f.domain, f.domain+"."+uriUnhandled, "Unhandled message of type "+f.kind)
	case f.kind == "join" || f.kind == "leave":
		s.refuse(f, domainGlobal, domainGlobal+"."+uriInvalidPeer, "Unable to find peer with id "+f.peer)
	case f.peer == "":
		s.refuse(f, f.domain, f.domain+"."+uriFailure, "Peer id is missing")
	case f.domain == domainAGM || f.domain == domainBus:
		s.refuse(f, f.domain, f.domain+"."+uriFailure, "Unable to find peer with id "+f.peer+" in domain :"+f.domain+"-domain")
	default:
		s.refuse(f, f.domain, f.domain+"."+uriFailure, "Unable to find peer with id "+f.peer)
	}
	return nil
}

// handled says whether there is such a message.
func handled(f *frame) bool {
	switch f.domain {
	case domainGlobal:
		switch f.kind {
		case "join", "leave", "create-token":
			return true
		}
		return isContextKind(f.kind)
	case domainContext:
		return isContextKind(f.kind)
	}
	return f.kind != ""
}

// refuse answers a frame with an error.
func (s *session) refuse(f *frame, domain, uri, reason string) {
	request := f.request
	if request == nil && uri == f.domain+"."+uriUnhandled {
		request = []byte("-1")
	}
	m := begin(domain, "error").raw("request_id", request)
	if f.peer == "" {
		m = m.raw("peer_id", nil)
	} else {
		m = m.str("peer_id", f.peer)
	}
	s.send(m.str("reason_uri", uri).str("reason", reason))
}
