package edge

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// osUser is who owns a process, as far as this package must tell users apart.
type osUser struct {
	id      string // a uid in decimal, or a SID on Windows
	session uint32 // Windows: the session that the process is in
}

// endpoints is a connection as the client's socket has it.
type endpoints struct {
	client, server netip.AddrPort
}

// plain is the address without the form that IPv4 has inside IPv6, which the
// kernel uses for a client that has an IPv6 socket.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (e endpoints) match(local, remote netip.AddrPort) bool {
	return plain(local) == plain(e.client) && plain(remote) == plain(e.server)
}

// endpointsOf says where an accepted connection comes from and goes to.
func endpointsOf(c net.Conn) (endpoints, error) {
	remote, ok1 := c.RemoteAddr().(*net.TCPAddr)
	local, ok2 := c.LocalAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return endpoints{}, errors.New("not a TCP connection")
	}
	return endpoints{client: plain(remote.AddrPort()), server: plain(local.AddrPort())}, nil
}

// errNoOwner says that the kernel knows no living socket at the other end.
var errNoOwner = errors.New("the kernel does not show whose connection it is")

// system is what tests replace: who owns a connection, the clock, the limits,
// and the connection itself.
type system struct {
	limits
	owner   func(endpoints) (osUser, error)
	self    osUser
	selfErr error
	now     func() time.Time
	wrap    func(net.Conn) net.Conn
}

func thisSystem() system {
	self, err := self()
	return system{
		limits: defaultLimits(), owner: owner, self: self, selfErr: err, now: time.Now,
		wrap: func(c net.Conn) net.Conn { return c },
	}
}
