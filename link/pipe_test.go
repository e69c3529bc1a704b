package link_test

import (
	"net"
	"sync/atomic"
)

// pipe stands between a client and a server and can go silent.
type pipe struct {
	hub    *hub
	frozen atomic.Bool
}

// InProcessConn is what nats.InProcessServer asks for.
func (p *pipe) InProcessConn() (net.Conn, error) {
	c, err := p.hub.InProcessConn()
	return &silent{c, p}, err
}

type silent struct {
	net.Conn
	p *pipe
}

// Write loses what is sent while frozen, so that no answer comes.
func (s *silent) Write(b []byte) (int, error) {
	if s.p.frozen.Load() {
		return len(b), nil
	}
	return s.Conn.Write(b)
}
