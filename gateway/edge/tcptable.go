package edge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// tcpRow says where the fields of a row are in a table of Windows, either
// MIB_TCPTABLE_OWNER_PID or MIB_TCP6TABLE_OWNER_PID: a count of 4 bytes, then
// the rows. Numbers are little endian, addresses and ports in the network's order.
type tcpRow struct {
	size, state, local, localPort, remote, remotePort, pid int
	address                                                int // bytes in one
}

var (
	tcpRow4 = tcpRow{size: 24, state: 0, local: 4, localPort: 8, remote: 12, remotePort: 16, pid: 20, address: 4}
	tcpRow6 = tcpRow{size: 56, state: 48, local: 0, localPort: 20, remote: 24, remotePort: 44, pid: 52, address: 16}
)

const mibEstablished = 5

// parseTCPTable finds the process of a connection. It is used on Windows, and
// here in a file for all systems so that all systems test it.
func parseTCPTable(table []byte, row tcpRow, e endpoints) (pid uint32, err error) {
	if len(table) < 4 {
		return 0, errors.New("TCP table: malformed")
	}
	count := int64(binary.LittleEndian.Uint32(table))
	rows := table[4:]
	if count*int64(row.size) > int64(len(rows)) {
		return 0, errors.New("TCP table: malformed")
	}
	for ; count > 0; count-- {
		r := rows[:row.size]
		rows = rows[row.size:]
		local, _ := netip.AddrFromSlice(r[row.local : row.local+row.address])
		remote, _ := netip.AddrFromSlice(r[row.remote : row.remote+row.address])
		if binary.LittleEndian.Uint32(r[row.state:]) != mibEstablished || !e.match(
			netip.AddrPortFrom(local, binary.BigEndian.Uint16(r[row.localPort:])),
			netip.AddrPortFrom(remote, binary.BigEndian.Uint16(r[row.remotePort:])),
		) {
			continue
		}
		if pid = binary.LittleEndian.Uint32(r[row.pid:]); pid == 0 {
			break // the process has closed it
		}
		return pid, nil
	}
	return 0, fmt.Errorf("TCP table: %w", errNoOwner)
}
