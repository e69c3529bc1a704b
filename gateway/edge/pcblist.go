package edge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// The list net.inet.tcp.pcblist_n of macOS: a head, then the records of each
// socket, then a tail like the head. A record begins with its length, which is
// padded to 8, and its kind; head and tail have a number in its place, but are
// shorter than any of these. The first record of a socket is its addresses, the
// second the socket, the last the state of TCP. Numbers are little endian,
// addresses and ports in the network's order.
const (
	pcbAddresses   = 0x10
	pcbRemotePort  = 16
	pcbLocalPort   = 18
	pcbVersion     = 44
	pcbRemote      = 48
	pcbLocal       = 64
	pcbIPv4        = 1
	pcbIPv6        = 2
	pcbIPv4At      = 12 // an IPv4 address is at the end of the 16 bytes
	pcbAddressSize = 80

	pcbSocket     = 0x01
	pcbUID        = 64
	pcbSocketSize = 68

	pcbTCP         = 0x20
	pcbState       = 36
	pcbTCPSize     = 40
	pcbEstablished = 4
)

// parsePCBList finds the uid of a connection. It is read on macOS, and here in
// a file for all systems so that all systems test it.
func parsePCBList(b []byte, e endpoints) (uint32, error) {
	var ours, known bool
	var uid uint32
	for len(b) >= 8 {
		size, kind := int(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint32(b[4:])
		padded := (size + 7) &^ 7
		if size < 8 || size > len(b) || padded > len(b) {
			return 0, errors.New("pcblist_n: malformed")
		}
		record := b[:size]
		b = b[padded:]
		switch {
		case kind == pcbAddresses && size >= pcbAddressSize:
			ours, known = pcbMatch(record, e), false
		case kind == pcbSocket && size >= pcbSocketSize:
			uid, known = binary.LittleEndian.Uint32(record[pcbUID:]), true
		case kind == pcbTCP && size >= pcbTCPSize:
			if ours && known && binary.LittleEndian.Uint32(record[pcbState:]) == pcbEstablished {
				return uid, nil
			}
		}
	}
	return 0, fmt.Errorf("pcblist_n: %w", errNoOwner)
}

func pcbMatch(record []byte, e endpoints) bool {
	addr := func(at int) netip.Addr {
		if record[pcbVersion]&pcbIPv4 != 0 {
			return netip.AddrFrom4([4]byte(record[at+pcbIPv4At:]))
		}
		return netip.AddrFrom16([16]byte(record[at:]))
	}
	if record[pcbVersion]&(pcbIPv4|pcbIPv6) == 0 {
		return false
	}
	local := netip.AddrPortFrom(addr(pcbLocal), binary.BigEndian.Uint16(record[pcbLocalPort:]))
	remote := netip.AddrPortFrom(addr(pcbRemote), binary.BigEndian.Uint16(record[pcbRemotePort:]))
	return e.match(local, remote)
}
