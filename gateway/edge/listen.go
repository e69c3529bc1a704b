package edge

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weft-fabric/weft/wire"
)

// gate is one address that the edge listens on. What it accepts has passed the
// check of the OS user, and nothing has been read from it.
type gate struct {
	net.Listener
	edge  *Edge
	hosts map[string]bool
}

// visitor is an accepted connection. It is the net.Conn that net/http works on,
// and is found again in the handler.
type visitor struct {
	net.Conn
	gate *gate
	user osUser
	free func() // gives the slot back, once
}

// visitorKey is where a request's context has the visitor.
type visitorKey struct{}

// Close closes the connection and makes room for another.
func (v *visitor) Close() error {
	defer v.free()
	return v.Conn.Close()
}

// SetLinger is that of net.TCPConn.
func (v *visitor) SetLinger(sec int) error {
	if tcp, ok := v.Conn.(interface{ SetLinger(sec int) error }); ok {
		return tcp.SetLinger(sec)
	}
	return nil
}

func (e *Edge) listen() error {
	for _, text := range e.cfg.Listen {
		address, err := parseListen(text)
		if err != nil {
			return err
		}
		config := net.ListenConfig{Control: exclusive, KeepAlive: -1} // Conn sends pings
		config.SetMultipathTCP(false)                                 // its connections are not in the tables that owner reads
		l, err := config.Listen(context.Background(), "tcp", address.String())
		switch {
		case err != nil && isTaken(err):
			return wire.Errorf(wire.Unavailable, "%s: %w: another gateway or program listens there; stop it, or listen elsewhere", address, ErrPortTaken)
		case err != nil:
			return wire.Errorf(wire.Unavailable, "the gateway cannot listen on %s: %w", address, err)
		}
		e.gates = append(e.gates, &gate{Listener: l, edge: e, hosts: allowedHosts(l.Addr(), e.cfg.Hosts)})
	}
	return nil
}

// parseListen reads an address of Config.Listen. No name but localhost is
// resolved: what a name means may change after the check.
func parseListen(s string) (netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, wire.Errorf(wire.BadName, "listen address %q: want host:port: %w", s, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return netip.AddrPort{}, wire.Errorf(wire.BadName, "listen address %q: port: %w", s, err)
	}
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return netip.AddrPort{}, wire.Errorf(wire.Rejected,
			"listen address %q: %w: the gateway is for this machine only; use 127.0.0.1:%d or [::1]:%d", s, ErrNotLoopback, port, port)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), nil
}

// Accept returns the next connection that may be read from. The others are
// answered and closed here.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if v := g.admit(g.edge.system.wrap(conn)); v != nil {
			return v, nil
		}
	}
}

// admit decides about a connection before the first byte is read.
func (g *gate) admit(conn net.Conn) *visitor {
	e := g.edge
	user, reason := e.peer(conn)
	if reason != "" {
		e.refuse(reason, conn.RemoteAddr().String(), "", "")
		turnAway(conn, http.StatusForbidden)
		return nil
	}
	select {
	case e.slots <- struct{}{}:
	default:
		e.refuse("too many connections", conn.RemoteAddr().String(), "", "")
		turnAway(conn, http.StatusServiceUnavailable)
		return nil
	}
	return &visitor{Conn: conn, gate: g, user: user, free: sync.OnceFunc(func() { <-e.slots })}
}

// peer says which OS user a connection is from, or why it is refused.
func (e *Edge) peer(conn net.Conn) (user osUser, reason string) {
	if e.cfg.AnyUser {
		return osUser{}, ""
	}
	ends, err := endpointsOf(conn)
	if err == nil {
		user, err = e.system.owner(ends)
	}
	switch {
	case err != nil:
		e.log.Debug("the OS user of a connection is unknown", "remote", conn.RemoteAddr().String(), "error", err)
		return osUser{}, "OS user unknown"
	case user != e.system.self:
		return osUser{}, "another OS user"
	}
	return user, ""
}

// turnAway answers a connection that nothing is read from. Its send buffer is
// empty, so the write does not wait.
func turnAway(conn net.Conn, status int) {
	text := http.StatusText(status)
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // if it fails the write fails
	_, _ = conn.Write([]byte("HTTP/1.1 " + strconv.Itoa(status) + " " + text + "\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n" +
		"Content-Length: " + strconv.Itoa(len(text)+1) + "\r\n\r\n" + text + "\n")) // whoever is gone does not need it
	_ = conn.Close()
}

func isTaken(err error) bool {
	for _, taken := range takenErrors {
		if errors.Is(err, taken) {
			return true
		}
	}
	return false
}
