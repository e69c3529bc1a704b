package subjects

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits, in bytes.
const (
	MaxName     = 255  // a name before encoding; of a topic, each token
	MaxToken    = 96   // an encoded name; a longer one is hashed
	MaxSubject  = 1024 // a weft.* subject; also a key
	MaxSegments = 16   // a path inside a context

	maxID     = 63 // a realm, node or caller
	maxBoot   = 32
	maxShort  = 64 // a subscription id, a manifest hash
	fallback  = "default"
	rootToken = "weft"
)

// ErrBadName is what every error of this package wraps; on the wire it is the
// code bad-name.
var ErrBadName = errors.New("bad name")

// BadNameError says which name, subject or key was refused and why.
type BadNameError struct{ Name, Reason string }

// Error quotes at most 64 bytes of the name.
func (e *BadNameError) Error() string {
	const most = 64
	if len(e.Name) > most {
		return fmt.Sprintf("bad name %q...: %s", e.Name[:most], e.Reason)
	}
	return fmt.Sprintf("bad name %q: %s", e.Name, e.Reason)
}

// Unwrap returns ErrBadName.
func (e *BadNameError) Unwrap() error { return ErrBadName }

type (
	// Realm is a visibility scope: 1 to 63 of [a-z0-9-], with no '-' at
	// either end.
	Realm string

	// Node is the id of the process on one desktop, in the alphabet of
	// [Realm]. As the sender of a call, ask, ctl or topic and as the receiver
	// of a push it may also be the name of a plain NATS client, which is 1 to
	// 63 of [A-Za-z0-9_-].
	Node string

	// App is one connected application instance, "<boot>-<n>": boot is 1 to
	// 32 of [a-z0-9], n is a decimal uint64 without leading zeros.
	App string
)

// ParseRealm checks s.
func ParseRealm(s string) (Realm, error) {
	if !isID(s) {
		return "", &BadNameError{s, "a realm is 1 to 63 of a-z, 0-9 and inner -"}
	}
	return Realm(s), nil
}

// ParseNode checks s. It refuses those names of plain NATS clients that are
// not node ids.
func ParseNode(s string) (Node, error) {
	if !isID(s) {
		return "", &BadNameError{s, "a node id is 1 to 63 of a-z, 0-9 and inner -"}
	}
	return Node(s), nil
}

// ParseApp checks s.
func ParseApp(s string) (App, error) {
	if !isApp(s) {
		return "", &BadNameError{s, "an app id is <boot>-<n>"}
	}
	return App(s), nil
}

// NewApp returns the id of the n-th app since the node's start number boot.
func NewApp(boot string, n uint64) App {
	return App(boot + "-" + strconv.FormatUint(n, 10))
}

// Boot returns the part of the id that all apps of one run of a node share.
func (a App) Boot() string {
	boot, _, _ := strings.Cut(string(a), "-")
	return boot
}

// RealmFor returns the default realm of an OS user: ASCII letters in lower
// case, each run of other characters as one '-', no '-' at the ends, at most
// 63 bytes, "default" if nothing is left. Different users may get the same
// realm (`a.b` and `a_b`; two names without ASCII letters and digits): where
// that matters the realm is configured.
func RealmFor(osUser string) Realm {
	id := shorten(slug(osUser), maxID)
	if id == "" {
		id = fallback
	}
	return Realm(id)
}

// NodeFor returns the default node id, "<host>-<user>" in the alphabet of
// [RealmFor], with host up to its first dot. If that is longer than 63 bytes
// the user is cut to 31 and the host to what remains.
func NodeFor(host, osUser string) Node {
	host, _, _ = strings.Cut(host, ".")
	host, user := slug(host), slug(osUser)
	if len(host)+1+len(user) > maxID {
		user = shorten(user, maxID/2)
		host = shorten(host, maxID-1-len(user))
	}
	id := strings.Trim(host+"-"+user, "-")
	if id == "" {
		id = fallback
	}
	return Node(id)
}

// slug lowers ASCII letters and puts one '-' for each run of bytes outside
// [A-Za-z0-9-].
func slug(s string) string {
	b := make([]byte, 0, len(s))
	run := false
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		legal := isLower(c) || c == '-'
		if legal {
			b = append(b, c)
		} else if !run {
			b = append(b, '-')
		}
		run = !legal
	}
	return strings.Trim(string(b), "-")
}

func shorten(s string, most int) string {
	if len(s) > most {
		s = strings.TrimRight(s[:most], "-")
	}
	return s
}

func isID(s string) bool {
	if s == "" || len(s) > maxID || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !isLower(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

// isPlain reports whether s is 1 to most bytes that stand for themselves.
func isPlain(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		if !plain[s[i]] {
			return false
		}
	}
	return true
}

func isCaller(s string) bool { return isPlain(s, maxID) }

// ParseCaller checks what may stand for the sender in a subject: a node id, or
// the name that a plain NATS client chose.
func ParseCaller(s string) (Node, error) {
	if !isCaller(s) {
		return "", &BadNameError{s, "a caller is 1 to 63 of A-Z, a-z, 0-9, _ and -"}
	}
	return Node(s), nil
}

func isApp(s string) bool {
	boot, n, ok := strings.Cut(s, "-")
	if !ok || boot == "" || len(boot) > maxBoot || n == "" || len(n) > 1 && n[0] == '0' {
		return false
	}
	for i := range len(boot) {
		if !isLower(boot[i]) {
			return false
		}
	}
	for i := range len(n) {
		if n[i] < '0' || n[i] > '9' {
			return false
		}
	}
	_, err := strconv.ParseUint(n, 10, 64)
	return err == nil
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
