package edge

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/weft-fabric/weft/wire"
)

const page = "https://desk.bank.com"

// TestWhoMayEnter tries requests at a gateway that has one allowed page and one
// further name. $ stands for its port.
func TestWhoMayEnter(t *testing.T) {
	cfg := local(t)
	cfg.Origins = []string{page, "http://localhost:3000"}
	cfg.Hosts = []string{"desk.local", "fixed.local:99"}
	g := serve(t, cfg, nil, echo)
	_, port, _ := net.SplitHostPort(g.Addresses()[0])
	const host, origin, shake = "host not allowed", "origin not allowed", "not a WebSocket handshake"
	for _, tt := range []struct {
		name, lines string // lines are separated by |
		status      int
		reason      string
	}{
		{"native app", "", 101, ""},
		{"allowed page", "Origin: " + page, 101, ""},
		{"other allowed page", "Origin: http://localhost:3000", 101, ""},
		{"any path", "GET / HTTP/1.1", 101, ""},
		{"any path and query", "GET /a/../b//c?d=%00#e HTTP/1.1", 101, ""},

		{"localhost", "Host: localhost:$", 101, ""},
		{"LOCALHOST", "Host: LOCALHOST:$", 101, ""},
		{"IPv6", "Host: [::1]:$", 101, ""},
		{"configured name", "Host: desk.local:$", 101, ""},
		{"configured name, no port", "Host: desk.local", 101, ""},
		{"configured name and port", "Host: fixed.local:99", 101, ""},

		{"rebound name", "Host: evil.example:$", 403, host},
		{"rebound name with its own origin", "Host: evil.example:$|Origin: http://evil.example:$", 403, host},
		{"rebound name with an allowed origin", "Host: evil.example|Origin: " + page, 403, host},
		{"no port", "Host: localhost", 403, host},
		{"another port", "Host: localhost:1", 403, host},
		{"port of the fixed name", "Host: fixed.local:$", 403, host},
		{"trailing dot", "Host: localhost.:$", 403, host},
		{"localhost inside", "Host: localhost.evil.io:$", 403, host},
		{"localhost behind", "Host: evil.localhost:$", 403, host},
		{"user name", "Host: localhost@evil.io:$", 400, ""},
		{"another loopback address", "Host: 127.0.0.2:$", 403, host},
		{"short address", "Host: 127.1:$", 403, host},
		{"decimal address", "Host: 2130706433:$", 403, host},
		{"mapped address", "Host: [::ffff:127.0.0.1]:$", 403, host},
		{"any address", "Host: 0.0.0.0:$", 403, host},
		{"leading zero in the port", "Host: localhost:0$", 403, host},
		{"space", "Host: localhost:$ ", 101, ""}, // trimmed, as HTTP says
		{"empty host", "Host: |X: y", 403, host},
		{"URL in the request line", "GET http://evil.example/ HTTP/1.1", 403, host},
		{"our URL in the request line", "GET http://localhost:$/ HTTP/1.1|Host: evil.example", 403, host},
		{"asterisk", "OPTIONS * HTTP/1.1", 403, host},
		{"two hosts", "Host: localhost:$|Host: evil.example", 400, ""},
		{"no host", "Host:", 400, ""},
		{"forwarded host", "Host: evil.example:$|X-Forwarded-Host: localhost:$", 403, host},

		{"another page", "Origin: https://evil.example", 403, origin},
		{"allowed name inside", "Origin: https://desk.bank.com.evil.io", 403, origin},
		{"allowed name behind", "Origin: https://evil-desk.bank.com", 403, origin},
		{"allowed name as user", "Origin: https://desk.bank.com@evil.io", 403, origin},
		{"sub-domain", "Origin: https://x.desk.bank.com", 403, origin},
		{"parent", "Origin: https://bank.com", 403, origin},
		{"another scheme", "Origin: http://desk.bank.com", 403, origin},
		{"upper case scheme", "Origin: HTTPS://desk.bank.com", 403, origin},
		{"upper case name", "Origin: https://Desk.bank.com", 403, origin},
		{"port given", "Origin: https://desk.bank.com:443", 403, origin},
		{"port added", "Origin: https://desk.bank.com:8443", 403, origin},
		{"port of another page left out", "Origin: http://localhost", 403, origin},
		{"localhost in a name", "Origin: http://localhost.evil.io:3000", 403, origin},
		{"trailing dot in origin", "Origin: https://desk.bank.com.", 403, origin},
		{"path", "Origin: https://desk.bank.com/", 403, origin},
		{"IDN", "Origin: https://dеsk.bank.com", 403, origin}, // a Cyrillic e
		{"IDN as sent", "Origin: https://xn--dsk-fdc.bank.com", 403, origin},
		{"percent", "Origin: https://desk%2ebank.com", 403, origin},
		{"null", "Origin: null", 403, origin},
		{"file", "Origin: file://", 403, origin},
		{"empty origin", "Origin: |X: y", 403, origin},
		{"list of origins", "Origin: " + page + " https://evil.example", 403, origin},
		{"two origins", "Origin: " + page + "|Origin: https://evil.example", 403, origin},
		{"the same twice", "Origin: " + page + "|Origin: " + page, 403, origin},
		{"our own address", "Origin: http://127.0.0.1:$", 403, origin},

		{"no upgrade", "Upgrade:", 426, shake},
		{"old version", "Sec-WebSocket-Version: 8", 400, shake},
		{"no key", "Sec-WebSocket-Key:", 400, shake},
	} {
		c := connect(t, g.Addresses()[0])
		before := g.refused()
		response := c.handshake(strings.Split(strings.ReplaceAll(tt.lines, "$", port), "|")...)
		body := ""
		if response.StatusCode != http.StatusSwitchingProtocols {
			text, err := io.ReadAll(response.Body)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			body = string(text)
		}
		if response.StatusCode != tt.status {
			t.Errorf("%s: %s, want %d", tt.name, response.Status, tt.status)
		}
		if tt.status == http.StatusForbidden && body != "Forbidden\n" {
			t.Errorf("%s: body %q", tt.name, body)
		}
		if after := g.refused(); tt.reason != "" && after[tt.reason] != before[tt.reason]+1 || tt.status == 101 && len(after) != len(before) {
			t.Errorf("%s: refusals %v, then %v; want one more %q", tt.name, before, after, tt.reason)
		}
		c.Close()
	}
}

// refused counts refusals by reason, those without a line too.
func (g *gateway) refused() map[string]int {
	r := g.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := map[string]int{}
	for _, reason := range g.log.reasons() {
		counts[reason]++
	}
	for _, line := range g.log.lines() { // a line of many is not one more
		if n, ok := line["left_out"].(float64); ok {
			counts[line["reason"].(string)] += int(n) - 1
		}
	}
	for reason, s := range r.reasons {
		counts[reason] += s.leftOut
	}
	return counts
}

func TestNullAndFileOriginsIfConfigured(t *testing.T) {
	for _, tt := range []struct {
		allowed, sent string
		status        int
	}{
		{"null", "null", 101},
		{"file://", "file://", 101},
		{"null", "file://", 403},
		{"file://", "null", 403},
		{"file://", "file:///home", 403},
		{"null", "", 403},
	} {
		cfg := local(t)
		cfg.Origins = []string{tt.allowed}
		g := serve(t, cfg, nil, echo)
		if r := connect(t, g.Addresses()[0]).handshake("Origin: " + tt.sent + " "); r.StatusCode != tt.status {
			t.Errorf("%s allowed, %q sent: %s, want %d", tt.allowed, tt.sent, r.Status, tt.status)
		}
	}
}

// TestChecksAreInOrder: with everything wrong, what counts is what comes first.
func TestChecksAreInOrder(t *testing.T) {
	unknown := func(s *system) { s.owner = func(endpoints) (osUser, error) { return osUser{}, errNoOwner } }
	another := func(s *system) { s.owner = func(endpoints) (osUser, error) { return osUser{id: "x"}, nil } }
	session := func(s *system) {
		s.owner = func(endpoints) (osUser, error) { return osUser{s.self.id, s.self.session + 1}, nil }
	}
	full := func(s *system) { s.connections = 0 }
	for _, tt := range []struct {
		name, lines string
		change      func(*system)
		status      int
		reason      string
	}{
		{"unknown user", "Host: evil|Origin: evil", func(s *system) { unknown(s); full(s) }, 403, "OS user unknown"},
		{"another user", "Host: evil|Origin: evil", func(s *system) { another(s); full(s) }, 403, "another OS user"},
		{"another session", "Host: evil|Origin: evil", func(s *system) { session(s); full(s) }, 403, "another OS user"},
		{"full", "Host: evil|Origin: evil", full, 503, "too many connections"},
		{"host", "Host: evil|Origin: evil", nil, 403, "host not allowed"},
		{"origin", "Origin: evil|Upgrade:", nil, 403, "origin not allowed"},
		{"handshake", "Upgrade:", nil, 426, "not a WebSocket handshake"},
	} {
		g := serve(t, local(t), tt.change, echo)
		r := connect(t, g.Addresses()[0]).handshake(strings.Split(tt.lines, "|")...)
		if got := g.log.reasons(); r.StatusCode != tt.status || len(got) != 1 || got[0] != tt.reason {
			t.Errorf("%s: %s, logged %q; want %d, %q", tt.name, r.Status, got, tt.status, tt.reason)
		}
	}
}

// TestOSUserIsCheckedBeforeReading: a client that is refused need not send, and
// nothing that it sends is read.
func TestOSUserIsCheckedBeforeReading(t *testing.T) {
	reads := make(chan struct{}, 1)
	g := serve(t, local(t), func(s *system) {
		s.owner = func(endpoints) (osUser, error) { return osUser{id: "x"}, nil }
		s.wrap = func(c net.Conn) net.Conn { return &spy{Conn: c, onRead: func() { reads <- struct{}{} }} }
	}, echo)
	c := connect(t, g.Addresses()[0])
	r, err := http.ReadResponse(c.r, nil)
	if err != nil || r.StatusCode != http.StatusForbidden {
		t.Fatalf("%v, %v", r, err)
	}
	if len(reads) > 0 {
		t.Error("the connection was read from")
	}
}

// spy is a connection of the gateway's that is watched.
type spy struct {
	net.Conn

	onRead         func()
	onWrite        func(p []byte)
	onReadDeadline func(at time.Time)
}

func (s *spy) SetReadDeadline(at time.Time) error {
	if s.onReadDeadline != nil {
		s.onReadDeadline(at)
	}
	return s.Conn.SetReadDeadline(at)
}

func (s *spy) Read(p []byte) (int, error) {
	if s.onRead != nil {
		s.onRead()
	}
	return s.Conn.Read(p)
}

func (s *spy) Write(p []byte) (int, error) {
	if s.onWrite != nil {
		s.onWrite(p)
	}
	return s.Conn.Write(p)
}

func TestAnyUser(t *testing.T) {
	cfg := local(t)
	cfg.AnyUser = true
	g := serve(t, cfg, func(s *system) { s.owner = func(endpoints) (osUser, error) { return osUser{}, errNoOwner } }, echo)
	dial(t, g)
	if line := g.log.lines()[0]; line["level"] != "WARN" || !strings.Contains(line["msg"].(string), "every user") {
		t.Errorf("logged %v", line)
	}
}

func TestSubProtocol(t *testing.T) {
	g := serve(t, local(t), nil, echo)
	for offered, want := range map[string]string{"": "", "gw3": "gw3", "gw3, other": "gw3", " , other": "", "b,a": "b"} {
		r := connect(t, g.Addresses()[0]).handshake("Sec-WebSocket-Protocol: " + offered + " ")
		if got := r.Header.Get("Sec-WebSocket-Protocol"); r.StatusCode != http.StatusSwitchingProtocols || got != want {
			t.Errorf("offered %q: %s, %q, want %q", offered, r.Status, got, want)
		}
	}
}

func TestNoCompression(t *testing.T) {
	g := serve(t, local(t), nil, echo)
	r := connect(t, g.Addresses()[0]).handshake("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
	if got := r.Header.Get("Sec-WebSocket-Extensions"); r.StatusCode != http.StatusSwitchingProtocols || got != "" {
		t.Errorf("%s, extensions %q", r.Status, got)
	}
}

func TestTooManyConnections(t *testing.T) {
	g := serve(t, local(t), func(s *system) { s.connections = 2 }, echo)
	first := dial(t, g)
	dial(t, g)
	if r := connect(t, g.Addresses()[0]).handshake(); r.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("the third: %s", r.Status)
	}
	first.Close()
	until(t, func() bool { return len(g.slots) == 1 })
	dial(t, g)
}

func TestTooManyConnectionsOfAnOrigin(t *testing.T) {
	cfg := local(t)
	cfg.Origins = []string{page, "null"}
	g := serve(t, cfg, func(s *system) { impatient(s); s.perOrigin = 2 }, echo)
	first := dial(t, g, "Origin: "+page)
	dial(t, g, "Origin: "+page)
	if r := connect(t, g.Addresses()[0]).handshake("Origin: " + page); r.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("the third: %s", r.Status)
	}
	for range 3 {
		dial(t, g) // without an origin
	}
	dial(t, g, "Origin: null")
	first.Close()
	until(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.perOrigin[page] == 1 })
	dial(t, g, "Origin: "+page)
	g.stop()
	if len(g.perOrigin) != 0 || len(g.slots) != 0 {
		t.Errorf("still counted: %v, %d", g.perOrigin, len(g.slots))
	}
}

// until waits for what nobody can be asked to tell.
func until(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

// TestSlowHandshake: whoever does not send a request makes room again.
func TestSlowHandshake(t *testing.T) {
	g := serve(t, local(t), func(s *system) { s.connections = 3; s.handshake = 500 * time.Millisecond }, echo)
	address := g.Addresses()[0]
	whole := request(address)
	start := time.Now()
	silent, slow, body := connect(t, address), connect(t, address), connect(t, address)
	_, _ = io.WriteString(slow, whole[:40])
	_, _ = io.WriteString(body, "POST / HTTP/1.1\r\nHost: "+address+"\r\nContent-Length: 100\r\n\r\nx")
	for _, c := range []*client{silent, slow, body} {
		_ = c.ends()
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	dial(t, g)
}

func TestLargeHandshake(t *testing.T) {
	g := serve(t, local(t), nil, echo)
	if r := connect(t, g.Addresses()[0]).handshake("X: " + strings.Repeat("x", 2*MaxHandshake)); r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s", r.Status)
	}
}

func TestOneRequestPerConnection(t *testing.T) {
	g := serve(t, local(t), nil, echo)
	c := connect(t, g.Addresses()[0])
	r := c.handshake("Host: evil.example")
	if !r.Close {
		t.Error("another request may follow")
	}
	_, _ = io.Copy(io.Discard, r.Body)
	if err := c.ends(); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%v", err)
	}
}

func TestOpen(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		name   string
		change func(*Config)
		code   wire.Code
		is     error
		says   string
	}{
		{"no address", func(c *Config) { c.Listen = nil }, wire.Rejected, nil, "no address"},
		{"all interfaces", func(c *Config) { c.Listen = []string{"0.0.0.0:0"} }, wire.Rejected, ErrNotLoopback, "127.0.0.1:0"},
		{"no host", func(c *Config) { c.Listen = []string{":8385"} }, wire.Rejected, ErrNotLoopback, "127.0.0.1:8385"},
		{"all interfaces, IPv6", func(c *Config) { c.Listen = []string{"[::]:0"} }, wire.Rejected, ErrNotLoopback, ""},
		{"another machine", func(c *Config) { c.Listen = []string{"192.0.2.1:0"} }, wire.Rejected, ErrNotLoopback, ""},
		{"a name", func(c *Config) { c.Listen = []string{"desk.local:0"} }, wire.Rejected, ErrNotLoopback, ""},
		{"the second", func(c *Config) { c.Listen = []string{"127.0.0.1:0", "0.0.0.0:0"} }, wire.Rejected, ErrNotLoopback, ""},
		{"no port", func(c *Config) { c.Listen = []string{"127.0.0.1"} }, wire.BadName, nil, "host:port"},
		{"bad port", func(c *Config) { c.Listen = []string{"127.0.0.1:65536"} }, wire.BadName, nil, "port"},
		{"taken", func(c *Config) { c.Listen = []string{taken.Addr().String()} }, wire.Unavailable, ErrPortTaken, taken.Addr().String()},
		{"bad origin", func(c *Config) { c.Origins = []string{"desk.bank.com"} }, wire.BadName, nil, "scheme://host"},
		{"bad host", func(c *Config) { c.Hosts = []string{"*.bank.com"} }, wire.BadName, nil, "wildcards"},
		{"bad auth", func(c *Config) { c.Auth = "none" }, wire.BadName, nil, "os-user"},
		{"token without file", func(c *Config) { c.Auth = Token; c.TokenFile = "" }, wire.Rejected, nil, "token file"},
		{"pages without file", func(c *Config) { c.Origins = []string{page}; c.TokenFile = "" }, wire.Rejected, nil, "token file"},
	} {
		cfg := local(t)
		tt.change(&cfg)
		e, err := Open(cfg)
		if err == nil {
			_ = e.Close()
		}
		if wire.CodeOf(err) != tt.code || tt.is != nil && !errors.Is(err, tt.is) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	sys := thisSystem()
	sys.selfErr = errors.ErrUnsupported
	if _, err := open(local(t), sys); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a system that does not tell users: %v", err)
	}
}

func TestAuthDefaults(t *testing.T) {
	for _, tt := range []struct {
		auth    Auth
		origins []string
		want    Auth
	}{
		{"", nil, OSUser},
		{Auto, nil, OSUser},
		{"", []string{page}, Token},
		{Auto, []string{page}, Token},
		{OSUser, []string{page}, OSUser},
		{Token, nil, Token},
	} {
		cfg := local(t)
		cfg.Auth, cfg.Origins = tt.auth, tt.origins
		e, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if e.Auth() != tt.want {
			t.Errorf("%q with %v is %s, want %s", tt.auth, tt.origins, e.Auth(), tt.want)
		}
		_ = e.Close()
	}
}

func TestSeveralAddresses(t *testing.T) {
	cfg := local(t)
	cfg.Listen = []string{"localhost:0", "[::1]:0", "127.0.0.2:0"}
	g := serve(t, cfg, nil, echo)
	addresses := g.Addresses()
	if len(addresses) != 3 || !strings.HasPrefix(addresses[0], "127.0.0.1:") || !strings.HasPrefix(addresses[1], "[::1]:") {
		t.Fatalf("addresses %v", addresses)
	}
	for _, address := range addresses {
		c := connect(t, address)
		if r := c.handshake(); r.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("%s: %s", address, r.Status)
		}
		c.text("hello")
		c.wants(frameText, "hello")
	}
	if r := connect(t, addresses[0]).handshake("Host: " + addresses[1]); r.StatusCode != http.StatusForbidden {
		t.Errorf("the port of another address: %s", r.Status)
	}
}

func TestHostWithoutPortOnPort80(t *testing.T) {
	hosts := allowedHosts(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, []string{"desk.local", "other:8080"})
	for _, name := range []string{"localhost", "localhost:80", "127.0.0.1", "[::1]", "[::1]:80", "desk.local", "desk.local:80", "other:8080"} {
		if !hosts[name] {
			t.Errorf("%s is not allowed", name)
		}
	}
	if hosts["other"] || hosts["other:80"] || len(hosts) != 9 {
		t.Errorf("allowed: %v", hosts)
	}
}

// TestServeEnds: clients are told, handlers are waited for.
func TestServeEnds(t *testing.T) {
	type end struct{ read, write, cause error }
	ends := make(chan end, 1)
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	defer release()
	g := serve(t, local(t), nil, func(ctx context.Context, c *Conn) {
		_, err := c.Read(ctx)
		ends <- end{err, c.Write([]byte("x")), context.Cause(ctx)}
		<-released
	})
	c := dial(t, g)
	half := connect(t, g.Addresses()[0])
	_, _ = io.WriteString(half, "GET ")
	stopped := make(chan struct{})
	go func() { g.stop(); close(stopped) }()
	if reason := c.wantsClose(websocket.StatusGoingAway); reason != "the gateway stops" {
		t.Errorf("reason %q", reason)
	}
	for _, err := range []error{result(t, ends).read} {
		if !errors.Is(err, wire.ErrCanceled) || !strings.Contains(err.Error(), "the gateway stops") {
			t.Errorf("%v", err)
		}
	}
	select {
	case <-stopped:
		t.Error("Serve ended before a handler")
	default:
	}
	release()
	result(t, stopped)
	_ = half.ends()
	dialer := net.Dialer{}
	if conn, err := dialer.DialContext(t.Context(), "tcp", g.Addresses()[0]); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
	if err := g.Serve(t.Context(), echo); !errors.Is(err, wire.ErrRejected) {
		t.Errorf("Serve again: %v", err)
	}
}

// TestLastMoment: a client that becomes a WebSocket while the gateway stops is
// told too, and whoever is later is not let in.
func TestLastMoment(t *testing.T) {
	for range 100 {
		g := serve(t, local(t), nil, func(ctx context.Context, c *Conn) { _, _ = c.Read(ctx) })
		c := dial(t, g)
		stopped := make(chan struct{})
		go func() { g.stop(); close(stopped) }()
		c.wantsClose(websocket.StatusGoingAway)
		result(t, stopped)
		if reason := g.join(""); reason != "the gateway stops" {
			t.Fatalf("joined: %q", reason)
		}
	}
}

func TestServeFails(t *testing.T) {
	e, err := Open(local(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Serve(t.Context(), echo); !errors.Is(err, wire.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestCheckOrigin(t *testing.T) {
	for _, good := range []string{
		"https://desk.bank.com", "http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:3000", "https://xn--bcher-kva.example",
		"null", "file://", "chrome-extension://abcdefghijklmnop", "app://.", "capacitor://localhost", "http://desk_1:81", "http://desk",
	} {
		if err := checkOrigin(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, says := range map[string]string{
		"":                             "scheme://host",
		"*":                            "scheme://host",
		"https://":                     "scheme://host",
		"desk.bank.com":                "scheme://host",
		"localhost:3000":               "scheme://host",
		"#.*":                          "regular expressions",
		"https://*.bank.com":           "wildcards",
		"https://desk.bank.com/":       "write https://desk.bank.com",
		"https://desk.bank.com/a?b":    "write https://desk.bank.com",
		"https://desk.bank.com:443":    "write https://desk.bank.com",
		"http://desk.bank.com:80":      "write http://desk.bank.com",
		"https://desk.bank.com:":       "not a port",
		"https://desk.bank.com:0":      "not a port",
		"https://desk.bank.com:08443":  "not a port",
		"https://desk.bank.com:65536":  "not a port",
		"https://Desk.bank.com":        "lower case",
		"HTTPS://desk.bank.com":        "scheme",
		"wss://desk.bank.com":          "http or https",
		"://desk":                      "scheme",
		"1http://desk":                 "scheme",
		"https://desk.bank.com.":       "dot",
		"https://.bank.com":            "dot",
		"https://desk..bank.com":       "dot",
		"https://user@desk.bank.com":   "user name",
		"https://bücher.example":       "xn--",
		"https://desk bank":            "xn--",
		"http://127.1":                 "IPv4",
		"http://127.0.0.01":            "IPv4",
		"http://2130706433":            "IPv4",
		"http://0x7f.1":                "IPv4",
		"http://desk.0x7f":             "IPv4",
		"http://[::0001]":              "IPv6",
		"http://[::1":                  "IPv6",
		"http://[127.0.0.1]":           "IPv6",
		"http://[fe80::1%eth0]":        "IPv6",
		"http://:3000":                 "missing",
		"app://Desk":                   "may follow",
		"https://" + longName + ".com": "253",
	} {
		if err := checkOrigin(bad); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want something with %q", bad, err, says)
		}
	}
	if _, err := parseOrigins([]string{page, "*"}); !errors.Is(err, wire.ErrBadName) {
		t.Errorf("%v", err)
	}
}

var longName = strings.Repeat("a", 250)

func TestCheckHosts(t *testing.T) {
	if err := checkHosts([]string{"desk", "desk.bank.com:8385", "10.0.0.1", "[::1]:1"}); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "*", "http://desk", "desk/", "Desk", "desk.", "desk:x", "desk:0", ":80", "a b", "[::1", "1.2.3"} {
		if err := checkHosts([]string{bad}); !errors.Is(err, wire.ErrBadName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzCheckOrigin(f *testing.F) {
	f.Add(page)
	f.Add("http://[::1]:3000")
	f.Fuzz(func(t *testing.T, s string) {
		if checkOrigin(s) == nil && s != "null" && (!strings.Contains(s, "://") || strings.ContainsAny(s, " *@#?%\\\"") || s != strings.ToLower(s)) {
			t.Errorf("accepted %q", s)
		}
	})
}

// TestNothingSecretIsLogged looks for the token in all that was logged while
// clients with right and wrong secrets came and went.
func TestNothingSecretIsLogged(t *testing.T) {
	cfg := local(t)
	cfg.Auth = Token
	tried := make(chan error, 3)
	var g *gateway
	g = serve(t, cfg, impatient, func(ctx context.Context, c *Conn) {
		message, err := c.Read(ctx)
		if err == nil {
			_, err = g.Authenticate(c, Credentials{Method: "secret", Login: "anna", Secret: string(message)})
		}
		tried <- err
	})
	for _, secret := range []string{g.Token(), g.Token() + "x", "hunter2"} {
		dial(t, g).text(secret)
	}
	failures := 0
	for range 3 {
		if result(t, tried) != nil {
			failures++
		}
	}
	g.stop()
	g.log.mu.Lock()
	text := g.log.buf.String()
	g.log.mu.Unlock()
	if failures != 2 || !strings.Contains(text, "authentication failed") {
		t.Errorf("%d failures, logged %s", failures, text)
	}
	if strings.Contains(text, g.Token()) || strings.Contains(text, "hunter2") {
		t.Errorf("logged a secret: %s", text)
	}
	if file, err := os.ReadFile(filepath.Clean(cfg.TokenFile)); err != nil || !slices.Equal(file, []byte(g.Token()+"\n")) {
		t.Errorf("the file has %q, %v", file, err)
	}
}
