package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const defaultPort = 4222

// address is where a server listens; the zero value is nowhere.
type address struct {
	host string // a loopback IP, never a name
	port int    // 0 until bound if the system chooses
}

func (a address) on() bool       { return a.host != "" }
func (a address) String() string { return net.JoinHostPort(a.host, strconv.Itoa(a.port)) }
func (a address) url() string    { return "nats://" + a.String() }

// parseListen reads Config.Listen. No name but localhost is resolved: what a
// name means may change after the check.
func parseListen(s string) (address, error) {
	if s == "" || s == "off" {
		return address{}, nil
	}
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, fmt.Errorf("embedded: listen address %q: want host:port: %w", s, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return address{}, fmt.Errorf("embedded: listen address %q: port: %w", s, err)
	}
	ip, ok := loopback(host)
	if !ok {
		return address{}, &sentence{ErrNotLoopback, fmt.Sprintf("nats: %s is not a loopback address: the embedded server is for this machine only; "+
			"use --nats-listen 127.0.0.1:%d, or a NATS server of its own and --nats", s, port)}
	}
	return address{ip, int(port)}, nil
}

func loopback(host string) (string, bool) {
	if strings.EqualFold(host, "localhost") {
		return "127.0.0.1", true
	}
	ip := net.ParseIP(host)
	if ip == nil || !ip.IsLoopback() {
		return "", false
	}
	return ip.String(), true
}

// parseURL reads the URL of one server on this machine as people write it;
// false for every other.
func parseURL(s string) (address, bool) {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "nats" && u.Scheme != "tls" {
		return address{}, false
	}
	host, ok := loopback(u.Hostname())
	if !ok {
		return address{}, false
	}
	port := uint64(defaultPort)
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil {
			return address{}, false
		}
	}
	return address{host, int(port)}, true
}

// probe finds out before JetStream starts whether the address is free. A taken
// port found only afterwards costs the recovery of the whole store first.
func (a address) probe(ctx context.Context) error {
	if !a.on() {
		return nil
	}
	if a.port != 0 {
		// Binding alone does not show a server that listens on all addresses:
		// macOS and Windows let a second one take the loopback address.
		d := net.Dialer{Timeout: 250 * time.Millisecond}
		if conn, err := d.DialContext(ctx, "tcp", a.String()); err == nil {
			_ = conn.Close()
			return a.taken()
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.String())
	const wsaeAddrInUse = syscall.Errno(10048) // not the value of syscall.EADDRINUSE on Windows
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaeAddrInUse) {
		return a.taken()
	}
	if err != nil {
		return fmt.Errorf("nats: cannot listen on %s: %w", a, err)
	}
	return l.Close()
}

func (a address) taken() error {
	return &sentence{ErrPortTaken, fmt.Sprintf("nats: %s is already in use: another node or NATS server listens there; "+
		"use --nats %s to join it, or --nats-listen %s / off", a, a.url(), net.JoinHostPort(a.host, "PORT"))}
}
