package edge

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// accepted is the server's end of a connection, and how to close the client's.
func accepted(t testing.TB, listen string, connect func(t testing.TB, to netip.AddrPort) io.Closer) (endpoints, io.Closer) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	client := connect(t, netip.MustParseAddrPort(l.Addr().String()))
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ends, err := endpointsOf(conn)
	if err != nil {
		t.Fatal(err)
	}
	return ends, client
}

func plainClient(t testing.TB, to netip.AddrPort) io.Closer { return connect(t, to.String()) }

// mappedClient speaks IPv4 with an IPv6 socket, as Java does.
func mappedClient(t testing.TB, to netip.AddrPort) io.Closer {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "mapped")
	t.Cleanup(func() { f.Close() })
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}); err != nil {
		t.Fatal(err)
	}
	return f
}

var lookups = map[string]func(endpoints) (uint32, error){"netlink": askDiag, "proc": readProc}

func TestOwnerOfOurConnection(t *testing.T) {
	for name, way := range map[string]struct {
		listen string
		client func(testing.TB, netip.AddrPort) io.Closer
	}{
		"IPv4":        {"127.0.0.1:0", plainClient},
		"IPv6":        {"[::1]:0", plainClient},
		"IPv4 mapped": {"127.0.0.1:0", mappedClient},
	} {
		ends, _ := accepted(t, way.listen, way.client)
		for kind, lookup := range lookups {
			uid, err := lookup(ends)
			if err != nil || int(uid) != os.Geteuid() {
				t.Errorf("%s, %s: uid %d, %v; want %d", name, kind, uid, err, os.Geteuid())
			}
		}
		me, _ := self()
		if user, err := owner(ends); err != nil || user != me {
			t.Errorf("%s: %v, %v; want %v", name, user, err, me)
		}
	}
}

// TestOwnerUnknown: what is not exactly a living socket at the other end is
// nobody's. In the table a socket that its process has closed is root's.
func TestOwnerUnknown(t *testing.T) {
	ends, client := accepted(t, "127.0.0.1:0", plainClient)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client.Close()
	for name, ends := range map[string]endpoints{
		"closed by its process":          ends,
		"no such connection":             {netip.AddrPortFrom(ends.client.Addr(), 1), ends.server},
		"a listener on the client's end": {netip.MustParseAddrPort(l.Addr().String()), ends.server},
		"another address":                {netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), ends.client.Port()), ends.server},
	} {
		for kind, lookup := range lookups {
			if uid, err := lookup(ends); err == nil {
				t.Errorf("%s, %s: uid %d", name, kind, uid)
			}
		}
		if user, err := owner(ends); err == nil {
			t.Errorf("%s: %v", name, user)
		}
	}
}

func TestUnmappedUserIsNobody(t *testing.T) {
	if user, err := uidUser(unmappedUID); err == nil {
		t.Errorf("uid of unmapped users: %v", user)
	}
}

// TestAnotherUsersProcess starts a client as another user if it may, which only
// root may, and otherwise says that the client is another user's.
func TestAnotherUsersProcess(t *testing.T) {
	change := func(*system) {}
	child := exec.CommandContext(t.Context(), copyOfTest(t))
	if os.Geteuid() == 0 {
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	} else {
		change = func(s *system) {
			s.owner = func(e endpoints) (osUser, error) { return osUser{id: "54321"}, nil }
		}
	}
	g := serve(t, local(t), change, echo)
	child.Env = append(os.Environ(), childEnv+"="+g.Addresses()[0])
	answer, err := child.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 403 Forbidden\r\n") {
		t.Errorf("another user got %q", answer)
	}
	if got := g.log.reasons(); len(got) != 1 || got[0] != "another OS user" {
		t.Errorf("logged %q", got)
	}
}

// TestOurOwnProcess is the same client as the node's user, who is let in.
func TestOurOwnProcess(t *testing.T) {
	g := serve(t, local(t), nil, echo)
	child := exec.CommandContext(t.Context(), copyOfTest(t))
	child.Env = append(os.Environ(), childEnv+"="+g.Addresses()[0])
	answer, err := child.Output()
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 101 ") {
		t.Errorf("our process got %q, %v", answer, err)
	}
}

// copyOfTest is the test binary where every user can run it.
func copyOfTest(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "weft-edge-") //nolint:usetesting // t.TempDir is below a directory that others may not enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	name := filepath.Join(dir, "client.test")
	if err := errors.Join(os.WriteFile(name, binary, 0o755), os.Chmod(name, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return name
}

// diagExample is an answer of the kernel about a connection of uid 1000.
func diagExample(e endpoints) []byte {
	b := make([]byte, 16+diagAnswer)
	order := binary.NativeEndian
	order.PutUint32(b, uint32(len(b)))
	order.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	order.PutUint32(b[8:], diagSequence)
	body := b[16:]
	body[0], body[1] = unix.AF_INET, tcpEstablished
	binary.BigEndian.PutUint16(body[4:], e.client.Port())
	binary.BigEndian.PutUint16(body[6:], e.server.Port())
	copy(body[8:], e.client.Addr().AsSlice())
	copy(body[24:], e.server.Addr().AsSlice())
	order.PutUint32(body[64:], 1000)
	order.PutUint32(body[68:], 77)
	return b
}

var example = endpoints{netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:8385")}

func TestParseDiag(t *testing.T) {
	if uid, err := parseDiag(diagExample(example), example); err != nil || uid != 1000 {
		t.Fatalf("%d, %v", uid, err)
	}
	order := binary.NativeEndian
	for name, change := range map[string]func(b []byte) []byte{
		"empty":               func(b []byte) []byte { return nil },
		"cut":                 func(b []byte) []byte { return b[:len(b)-1] },
		"length too long":     func(b []byte) []byte { order.PutUint32(b, 1<<31); return b },
		"length too short":    func(b []byte) []byte { order.PutUint32(b, 15); return b },
		"body too short":      func(b []byte) []byte { order.PutUint32(b, 16+diagAnswer-1); return b },
		"another question":    func(b []byte) []byte { order.PutUint32(b[8:], 9); return b },
		"another kind":        func(b []byte) []byte { order.PutUint16(b[4:], 3); return b },
		"an error":            func(b []byte) []byte { order.PutUint16(b[4:], unix.NLMSG_ERROR); return b },
		"listening":           func(b []byte) []byte { b[17] = 10; return b },
		"closed":              func(b []byte) []byte { order.PutUint32(b[16+68:], 0); return b },
		"another client port": func(b []byte) []byte { b[16+4]++; return b },
		"another server port": func(b []byte) []byte { b[16+6]++; return b },
		"another client":      func(b []byte) []byte { b[16+8]++; return b },
		"another server":      func(b []byte) []byte { b[16+24]++; return b },
		"as IPv6":             func(b []byte) []byte { b[16] = unix.AF_INET6; return b },
	} {
		if uid, err := parseDiag(change(diagExample(example)), example); err == nil {
			t.Errorf("%s: uid %d", name, uid)
		}
	}
}

const procExample = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
	"   0: 0100007F:20C1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 632 1 0 100 0 0 10 0\n" +
	"   1: 0100007F:9C40 0100007F:20C1 01 00000000:00000000 00:00000000 00000000  1000        0 77 2 0 20 0 0 10 -1\n" +
	"   2: 0100007F:20C1 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 78 1 0 20 0 0 10 -1\n"

const procExample6 = "   0: 0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:20C1 01 0:0 0:0 0 1000 0 77 2\n" +
	"   1: 00000000000000000000000001000000:9C40 00000000000000000000000001000000:20C1 01 0:0 0:0 0 1001 0 78 2\n"

func TestParseProc(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Fatal("the examples are from a little endian machine")
	}
	six := endpoints{netip.MustParseAddrPort("[::1]:40000"), netip.MustParseAddrPort("[::1]:8385")}
	for _, tt := range []struct {
		name, table string
		ends        endpoints
		uid         uint32
		ok          bool
	}{
		{"IPv4", procExample, example, 1000, true},
		{"IPv4 mapped", procExample6, example, 1000, true},
		{"IPv6", procExample6, six, 1001, true},
		{"not there", procExample, six, 0, false},
		{"listening", strings.ReplaceAll(procExample, " 01 ", " 0A "), example, 0, false},
		{"closed", strings.ReplaceAll(procExample, " 77 ", " 0 "), example, 0, false},
		{"bad uid", strings.ReplaceAll(procExample, " 1000 ", " -1 "), example, 0, false},
		{"large uid", strings.ReplaceAll(procExample, " 1000 ", " 4294967296 "), example, 0, false},
		{"bad address", strings.ReplaceAll(procExample, "0100007F", "0100007G"), example, 0, false},
		{"bad port", strings.ReplaceAll(procExample, ":9C40", ":9C4G"), example, 0, false},
		{"cut", procExample[:strings.Index(procExample, " 1000 ")], example, 0, false},
		{"empty", "", example, 0, false},
	} {
		uid, err := parseProc(tt.table, tt.ends)
		if uid != tt.uid || (err == nil) != tt.ok {
			t.Errorf("%s: %d, %v; want %d, %v", tt.name, uid, err, tt.uid, tt.ok)
		}
	}
}

// FuzzParseDiag: what is accepted is about the connection that was asked for.
func FuzzParseDiag(f *testing.F) {
	f.Add(diagExample(example))
	f.Fuzz(func(t *testing.T, b []byte) {
		uid, err := parseDiag(b, example)
		if err != nil {
			return
		}
		body := b[16:]
		if body[1] != tcpEstablished || binary.BigEndian.Uint16(body[4:]) != example.client.Port() ||
			uid != binary.NativeEndian.Uint32(body[64:]) {
			t.Errorf("accepted %x", b)
		}
	})
}

// FuzzParseProc: a uid that is found is in the text, as a field of its own.
func FuzzParseProc(f *testing.F) {
	f.Add(procExample)
	f.Add(procExample6)
	f.Fuzz(func(t *testing.T, table string) {
		uid, err := parseProc(table, example)
		if err == nil && !strings.Contains(table, strconv.FormatUint(uint64(uid), 10)) {
			t.Errorf("uid %d", uid)
		}
	})
}

func TestOSUserIsTold(t *testing.T) {
	users := make(chan string, 1)
	g := serve(t, local(t), nil, func(_ context.Context, c *Conn) { users <- c.OSUser() })
	c := connect(t, g.Addresses()[0])
	if r := c.handshake(); r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(r.Status)
	}
	if got := result(t, users); got != strconv.Itoa(os.Geteuid()) {
		t.Errorf("OSUser %q", got)
	}
}
