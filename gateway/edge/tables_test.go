package edge

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
)

// The tables of macOS and Windows, built from their documentation: they are
// parsed by code that runs on every system.

var (
	ends4 = endpoints{netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:8385")}
	ends6 = endpoints{netip.MustParseAddrPort("[::1]:40000"), netip.MustParseAddrPort("[::1]:8385")}
)

// pcbRecord is one record of the list of macOS, padded.
func pcbRecord(kind uint32, size int, fill func(b []byte)) []byte {
	b := make([]byte, (size+7)&^7)
	binary.LittleEndian.PutUint32(b, uint32(size))
	binary.LittleEndian.PutUint32(b[4:], kind)
	if fill != nil {
		fill(b)
	}
	return b
}

func pcbConnection(e endpoints, uid, state uint32) []byte {
	return slices.Concat(
		pcbRecord(pcbAddresses, 104, func(b []byte) {
			binary.BigEndian.PutUint16(b[16:], e.server.Port())
			binary.BigEndian.PutUint16(b[18:], e.client.Port())
			if e.client.Addr().Is4() {
				b[44] = pcbIPv4
				copy(b[48+12:], e.server.Addr().AsSlice())
				copy(b[64+12:], e.client.Addr().AsSlice())
				return
			}
			b[44] = pcbIPv6
			copy(b[48:], e.server.Addr().AsSlice())
			copy(b[64:], e.client.Addr().AsSlice())
		}),
		pcbRecord(pcbSocket, 76, func(b []byte) { binary.LittleEndian.PutUint32(b[64:], uid) }),
		pcbRecord(2, 32, nil), pcbRecord(4, 32, nil), pcbRecord(8, 136, nil),
		pcbRecord(pcbTCP, 204, func(b []byte) { binary.LittleEndian.PutUint32(b[36:], state) }),
	)
}

// pcbList is a whole list; the head and the tail have the number of sockets
// where records have their kind.
func pcbList(connections ...[]byte) []byte {
	end := pcbRecord(uint32(len(connections)), 24, nil)
	return slices.Concat(end, slices.Concat(connections...), end)
}

func reversed(e endpoints) endpoints { return endpoints{e.server, e.client} }

func TestParsePCBList(t *testing.T) {
	list := pcbList(pcbConnection(reversed(ends4), 0, pcbEstablished), pcbConnection(ends6, 502, pcbEstablished), pcbConnection(ends4, 501, pcbEstablished))
	for _, tt := range []struct {
		name string
		list []byte
		ends endpoints
		uid  uint32
		ok   bool
	}{
		{"IPv4", list, ends4, 501, true},
		{"IPv6", list, ends6, 502, true},
		{"not there", pcbList(pcbConnection(ends6, 501, pcbEstablished)), ends4, 0, false},
		{"one socket", pcbList(pcbConnection(ends4, 501, pcbEstablished)), ends4, 501, true},
		{"closing", pcbList(pcbConnection(ends4, 501, 9)), ends4, 0, false},
		{"not there, 16 sockets", pcbList(slices.Repeat([][]byte{pcbConnection(ends6, 501, pcbEstablished)}, 16)...), ends4, 0, false},
		{"cut", list[:len(list)-60], ends4, 0, false},
		{"empty", nil, ends4, 0, false},
		{"endless", make([]byte, 64), ends4, 0, false},
		// The socket of one must not count for the addresses of the next.
		{"no socket", pcbList(pcbConnection(ends6, 501, pcbEstablished), withoutSocket(pcbConnection(ends4, 502, pcbEstablished))), ends4, 0, false},
	} {
		uid, err := parsePCBList(tt.list, tt.ends)
		if uid != tt.uid || (err == nil) != tt.ok {
			t.Errorf("%s: %d, %v; want %d, %v", tt.name, uid, err, tt.uid, tt.ok)
		}
	}
}

func withoutSocket(connection []byte) []byte {
	return slices.Concat(connection[:104], connection[104+80:])
}

// tcpTableOf is a table of Windows with these rows.
func tcpTableOf(row tcpRow, rows ...func(b []byte)) []byte {
	table := binary.LittleEndian.AppendUint32(nil, uint32(len(rows)))
	for _, fill := range rows {
		b := make([]byte, row.size)
		fill(b)
		table = append(table, b...)
	}
	return table
}

func tcpConnection(row tcpRow, e endpoints, state, pid uint32) func(b []byte) {
	address := func(a netip.Addr) []byte {
		if row.address == 16 {
			b := a.As16()
			return b[:]
		}
		return a.AsSlice()
	}
	return func(b []byte) {
		binary.LittleEndian.PutUint32(b[row.state:], state)
		copy(b[row.local:], address(e.client.Addr()))
		copy(b[row.remote:], address(e.server.Addr()))
		binary.BigEndian.PutUint16(b[row.localPort:], e.client.Port())
		binary.BigEndian.PutUint16(b[row.remotePort:], e.server.Port())
		binary.LittleEndian.PutUint32(b[row.pid:], pid)
	}
}

func TestParseTCPTable(t *testing.T) {
	const open = mibEstablished
	for _, tt := range []struct {
		name  string
		table []byte
		row   tcpRow
		ends  endpoints
		pid   uint32
	}{
		{"IPv4", tcpTableOf(tcpRow4, tcpConnection(tcpRow4, reversed(ends4), open, 7), tcpConnection(tcpRow4, ends4, open, 8)), tcpRow4, ends4, 8},
		{"IPv6", tcpTableOf(tcpRow6, tcpConnection(tcpRow6, reversed(ends6), open, 7), tcpConnection(tcpRow6, ends6, open, 8)), tcpRow6, ends6, 8},
		{"IPv4 mapped", tcpTableOf(tcpRow6, tcpConnection(tcpRow6, ends4, open, 8)), tcpRow6, ends4, 8},
		{"not there", tcpTableOf(tcpRow4, tcpConnection(tcpRow4, reversed(ends4), open, 7)), tcpRow4, ends4, 0},
		{"closing", tcpTableOf(tcpRow4, tcpConnection(tcpRow4, ends4, 11, 7)), tcpRow4, ends4, 0},
		{"no process", tcpTableOf(tcpRow4, tcpConnection(tcpRow4, ends4, open, 0)), tcpRow4, ends4, 0},
		{"empty", tcpTableOf(tcpRow4), tcpRow4, ends4, 0},
		{"nothing", nil, tcpRow4, ends4, 0},
		{"cut", tcpTableOf(tcpRow4, tcpConnection(tcpRow4, ends4, open, 8))[:27], tcpRow4, ends4, 0},
		{"too many", []byte{255, 255, 255, 255}, tcpRow4, ends4, 0},
	} {
		pid, err := parseTCPTable(tt.table, tt.row, tt.ends)
		if pid != tt.pid || (err == nil) != (tt.pid != 0) {
			t.Errorf("%s: %d, %v; want %d", tt.name, pid, err, tt.pid)
		}
	}
	if _, err := parseTCPTable(tcpTableOf(tcpRow4), tcpRow4, ends4); !errors.Is(err, errNoOwner) {
		t.Errorf("not there: %v", err)
	}
}

func FuzzParsePCBList(f *testing.F) {
	f.Add(pcbList(pcbConnection(ends4, 501, pcbEstablished)))
	f.Fuzz(func(t *testing.T, list []byte) {
		if _, err := parsePCBList(list, ends4); err == nil && len(list) < 104+80 {
			t.Errorf("accepted %x", list)
		}
	})
}

func FuzzParseTCPTable(f *testing.F) {
	f.Add(tcpTableOf(tcpRow4, tcpConnection(tcpRow4, ends4, mibEstablished, 8)), false)
	f.Add(tcpTableOf(tcpRow6, tcpConnection(tcpRow6, ends4, mibEstablished, 8)), true)
	f.Fuzz(func(t *testing.T, table []byte, six bool) {
		row := tcpRow4
		if six {
			row = tcpRow6
		}
		if pid, err := parseTCPTable(table, row, ends4); err == nil && pid == 0 {
			t.Errorf("accepted %x", table)
		}
	})
}
