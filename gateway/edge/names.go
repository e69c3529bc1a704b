package edge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weft-fabric/weft/wire"
)

// allowedHosts is every Host header that clients of an address may send.
func allowedHosts(listen net.Addr, extra []string) map[string]bool {
	address, port, _ := net.SplitHostPort(listen.String()) // of a listener: never fails
	hosts := map[string]bool{}
	for _, name := range []string{address, "127.0.0.1", "localhost", "::1"} {
		hosts[net.JoinHostPort(name, port)] = true
	}
	for _, name := range extra {
		hosts[name] = true
		if p, err := portOf(name); err == nil && p == "" {
			hosts[name+":"+port] = true
		}
	}
	if port == "80" { // clients leave it out
		for host := range hosts {
			hosts[strings.TrimSuffix(host, ":80")] = true
		}
	}
	return hosts
}

// checkHosts says what is wrong with Config.Hosts.
func checkHosts(hosts []string) error {
	for _, host := range hosts {
		if _, err := portOf(host); err != nil {
			return wire.Errorf(wire.BadName, "allowed host %q: %w", host, err)
		}
	}
	return nil
}

// parseOrigins makes the set of Config.Origins. An entry must be what a browser
// would send, byte for byte, so that the check of a header is one comparison
// and no header has a second spelling.
func parseOrigins(list []string) (map[string]bool, error) {
	origins := make(map[string]bool, len(list))
	for _, origin := range list {
		if err := checkOrigin(origin); err != nil {
			return nil, wire.Errorf(wire.BadName, "allowed origin %q: %w", origin, err)
		}
		origins[origin] = true
	}
	return origins, nil
}

func checkOrigin(s string) error {
	if s == "null" || s == "file://" { // what pages without an origin of their own send
		return nil
	}
	if strings.HasPrefix(s, "#") {
		return errors.New("regular expressions are not supported; list every origin")
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || rest == "" {
		return errors.New("want scheme://host[:port], like https://desk.example.com")
	}
	if at := strings.IndexAny(rest, "/?#"); at >= 0 {
		return fmt.Errorf("an origin ends after host and port: write %s://%s", scheme, rest[:at])
	}
	if scheme == "" || !only(scheme[:1], lower) || !only(scheme, lower+digits+"+-.") {
		return errors.New("the scheme is not one that browsers send; they write it in lower case")
	}
	if scheme == "ws" || scheme == "wss" {
		return errors.New("an origin is that of the page, so http or https")
	}
	if scheme != "http" && scheme != "https" {
		// Extensions and desktop shells name themselves in their own ways.
		if !only(rest, lower+digits+"-._:") {
			return errors.New("only a-z, 0-9 and -._: may follow the scheme")
		}
		return nil
	}
	port, err := portOf(rest)
	if err != nil {
		return err
	}
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		return fmt.Errorf("browsers leave the port out when it is the usual one: write %s", strings.TrimSuffix(s, ":"+port))
	}
	return nil
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
)

// only says whether s has no other bytes than those of set.
func only(s, set string) bool { return strings.Trim(s, set) == "" }

// portOf is the port of host[:port], if there is one. It refuses what is not the
// one spelling that browsers use.
func portOf(s string) (port string, err error) {
	host := s
	if at := strings.LastIndexByte(s, ':'); at >= 0 && at > strings.LastIndexByte(s, ']') {
		host, port = s[:at], s[at+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return "", fmt.Errorf("%q is not a port", port)
		}
	}
	return port, checkHost(host)
}

func checkHost(host string) error {
	if inside, ok := strings.CutPrefix(host, "["); ok {
		inside, ok = strings.CutSuffix(inside, "]")
		ip, err := netip.ParseAddr(inside)
		if !ok || err != nil || !ip.Is6() || ip.Zone() != "" || ip.String() != inside || ip.Is4In6() {
			return fmt.Errorf("%s is not an IPv6 address as browsers write it", host)
		}
		return nil
	}
	switch {
	case host == "":
		return errors.New("the host is missing")
	case strings.Contains(host, "*"):
		return errors.New("wildcards are not supported; list every name")
	case strings.Contains(host, "@"):
		return errors.New("a user name does not belong here")
	case strings.ToLower(host) != host:
		return errors.New("browsers write names in lower case")
	case !only(host, lower+digits+"-._"):
		return errors.New("only a-z, 0-9 and -._ may be in a name; browsers write others in xn-- form")
	case len(host) > 253 || strings.HasPrefix(host, ".") || strings.HasSuffix(host, ".") || strings.Contains(host, ".."):
		return errors.New("a name has no dot at its start or end, no two in a row, and at most 253 letters")
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if only(last, digits) || strings.HasPrefix(last, "0x") { // browsers take such a name for an address
		if ip, err := netip.ParseAddr(host); err != nil || ip.String() != host {
			return fmt.Errorf("%s is not an IPv4 address as browsers write it", host)
		}
	}
	return nil
}
