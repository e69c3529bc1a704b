package edge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tcpEstablished = 1
	// unmappedUID is what the kernel says when the real uid has no name in our
	// user namespace. It stands for anybody, so it is nobody.
	unmappedUID = 65534
)

func self() (osUser, error) { return uidUser(uint32(os.Geteuid())) }

func uidUser(uid uint32) (osUser, error) {
	if uid == unmappedUID {
		return osUser{}, fmt.Errorf("uid %d stands for any user that this system has no number for", uid)
	}
	return osUser{id: strconv.FormatUint(uint64(uid), 10)}, nil
}

// owner asks the kernel whose socket is at the client's end: by netlink, which
// looks one socket up, or else in the whole table of /proc.
func owner(e endpoints) (osUser, error) {
	uid, err := askDiag(e)
	if err != nil && !errors.Is(err, errNoOwner) {
		// A kernel without sock_diag for TCP says the same as one without the socket.
		var err2 error
		if uid, err2 = readProc(e); err2 == nil {
			return uidUser(uid)
		}
		err = errors.Join(err, err2)
	}
	if err != nil {
		return osUser{}, err
	}
	return uidUser(uid)
}

// The messages of sock_diag: a netlink header of 16 bytes, then
// inet_diag_req_v2 in the question and inet_diag_msg in the answer. Numbers are
// in the machine's order, ports and addresses in the network's.
const (
	diagQuestion = 16 + 56
	diagAnswer   = 72
	diagSequence = 1
)

func askDiag(e endpoints) (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing to lose
	// The kernel answers within the call that asks; this is for the day it does not.
	second := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &second); err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	if err := unix.Sendto(fd, diagRequest(e), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	buf := make([]byte, 8<<10)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
		return 0, errors.New("sock_diag: the answer is not the kernel's")
	}
	return parseDiag(buf[:n], e)
}

// diagRequest asks for exactly one socket.
func diagRequest(e endpoints) []byte {
	b := make([]byte, diagQuestion)
	order := binary.NativeEndian
	order.PutUint32(b[0:], diagQuestion)
	order.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	order.PutUint16(b[6:], unix.NLM_F_REQUEST)
	order.PutUint32(b[8:], diagSequence)
	b[16] = unix.AF_INET6
	if e.client.Addr().Is4() {
		b[16] = unix.AF_INET
	}
	b[17] = unix.IPPROTO_TCP
	order.PutUint32(b[20:], 1<<tcpEstablished)
	id := b[24:]
	binary.BigEndian.PutUint16(id[0:], e.client.Port())
	binary.BigEndian.PutUint16(id[2:], e.server.Port())
	copy(id[4:20], e.client.Addr().AsSlice())
	copy(id[20:36], e.server.Addr().AsSlice())
	// No interface, and no cookie, which is all ones.
	order.PutUint64(id[40:], ^uint64(0))
	return b
}

// parseDiag finds the uid in the kernel's answer. When there is no such
// connection the kernel may answer with a listener on the client's port, so all
// of the answer is compared.
func parseDiag(b []byte, e endpoints) (uint32, error) {
	const header = 16
	order := binary.NativeEndian
	if len(b) < header {
		return 0, errors.New("sock_diag: answer too short")
	}
	size, kind, sequence := int64(order.Uint32(b)), order.Uint16(b[4:]), order.Uint32(b[8:])
	if size < header || size > int64(len(b)) || sequence != diagSequence {
		return 0, errors.New("sock_diag: malformed answer")
	}
	body := b[header:size]
	switch {
	case kind == unix.NLMSG_ERROR && len(body) >= 4:
		return 0, fmt.Errorf("sock_diag: %w", unix.Errno(-int32(order.Uint32(body))))
	case kind != unix.SOCK_DIAG_BY_FAMILY || len(body) < diagAnswer:
		return 0, fmt.Errorf("sock_diag: unexpected answer of kind %d", kind)
	}
	id := body[4:]
	addr := func(at int) netip.Addr {
		if body[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(id[at:]))
		}
		return netip.AddrFrom16([16]byte(id[at:]))
	}
	local := netip.AddrPortFrom(addr(4), binary.BigEndian.Uint16(id))
	remote := netip.AddrPortFrom(addr(20), binary.BigEndian.Uint16(id[2:]))
	uid, inode := order.Uint32(body[64:]), order.Uint32(body[68:])
	// A socket that its process has closed has no inode, and the uid of root.
	if body[1] != tcpEstablished || inode == 0 || !e.match(local, remote) {
		return 0, fmt.Errorf("sock_diag: %w", errNoOwner)
	}
	return uid, nil
}

// readProc looks in the tables of this process's network namespace. A client
// with an IPv6 socket is in tcp6 even when it speaks IPv4.
func readProc(e endpoints) (uid uint32, err error) {
	for _, name := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		var table []byte
		if table, err = readTable(name); err == nil {
			uid, err = parseProc(string(table), e)
		}
		if err == nil {
			return uid, nil
		}
	}
	return 0, err
}

// maxTable bounds a table of /proc: more than 400,000 sockets.
const maxTable = 64 << 20

func readTable(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, maxTable))
}

// parseProc finds the uid of a connection in the text of a table:
//
//	sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...
func parseProc(table string, e endpoints) (uint32, error) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != "01" {
			continue
		}
		local, ok1 := procAddress(f[1])
		remote, ok2 := procAddress(f[2])
		if !ok1 || !ok2 || !e.match(local, remote) || f[9] == "0" {
			continue
		}
		uid, err := strconv.ParseUint(f[7], 10, 32)
		if err != nil {
			return 0, fmt.Errorf("proc: uid: %w", err)
		}
		return uint32(uid), nil
	}
	return 0, fmt.Errorf("proc: %w", errNoOwner)
}

// procAddress reads "0100007F:1F90": the address in words of the machine's
// order, the port as a plain number.
func procAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	if !ok || len(port) != 4 || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	bytes := make([]byte, 0, 16)
	for ; host != ""; host = host[8:] {
		word, err := strconv.ParseUint(host[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		bytes = binary.NativeEndian.AppendUint32(bytes, uint32(word))
	}
	addr, ok := netip.AddrFromSlice(bytes)
	return netip.AddrPortFrom(addr, uint16(p)), ok
}
