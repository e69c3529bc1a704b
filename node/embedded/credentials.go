package embedded

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/weft-fabric/weft/node/statedir"
)

// userName is the one NATS user of an embedded server.
const userName = "weft"

// Credentials is what a client needs to join an embedded server, and the
// content of its file.
type Credentials struct {
	URL      string `json:"url"` // "" when the server does not listen
	User     string `json:"user"`
	Password string `json:"password"`
	Node     string `json:"node"` // the node that hosts the server
	PID      int    `json:"pid"`  // its process; 0 after an orderly stop
}

// DataDir is the directory for what Weft keeps for this user: $XDG_DATA_HOME/weft
// or ~/.local/share/weft, on macOS ~/Library/Application Support/weft, on Windows
// %LOCALAPPDATA%\weft. It is "" if the system does not say where the user's home is.
func DataDir() string {
	home, homeErr := os.UserHomeDir()
	var base string
	switch runtime.GOOS {
	case "windows":
		base = os.Getenv("LOCALAPPDATA")
		if base == "" && homeErr == nil {
			base = filepath.Join(home, "AppData", "Local")
		}
	case "darwin":
		if homeErr == nil {
			base = filepath.Join(home, "Library", "Application Support")
		}
	default:
		base = os.Getenv("XDG_DATA_HOME")
		if !filepath.IsAbs(base) { // the XDG specification: ignore a relative one
			base = ""
		}
		if base == "" && homeErr == nil {
			base = filepath.Join(home, ".local", "share")
		}
	}
	if base == "" {
		return ""
	}
	return filepath.Join(base, "weft")
}

// serversDir resolves Config.Credentials and the dir argument of Find.
func serversDir(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	if dir = DataDir(); dir == "" {
		return "", errors.New("embedded: no home directory for the credentials files; name a directory")
	}
	return filepath.Join(dir, "servers"), nil
}

// Find lists the credentials files of this user's embedded servers in dir ("" =
// the default), those whose process is alive first. Files that cannot be used
// are left out of the list and joined in the error, so both can be non-empty.
// A missing directory is an empty list.
func Find(dir string) ([]Credentials, error) {
	dir, err := serversDir(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("embedded: credentials: %w", err)
	}
	var found []Credentials
	var bad []error
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		c, err := readCredentials(filepath.Join(dir, e.Name()))
		if err != nil {
			bad = append(bad, err)
			continue
		}
		found = append(found, c)
	}
	rank := make(map[int]int, len(found))
	for _, c := range found {
		if _, ok := rank[c.PID]; !ok && !alive(c.PID) {
			rank[c.PID] = 1
		}
	}
	slices.SortStableFunc(found, func(a, b Credentials) int {
		return cmp.Or(cmp.Compare(rank[a.PID], rank[b.PID]), cmp.Compare(a.URL, b.URL))
	})
	return found, errors.Join(bad...)
}

// FindURL looks for the credentials of the server at url, written as
// nats://127.0.0.1:4222, localhost:4222, localhost and the like. It is false
// without an error for a server that is not on this machine's loopback.
func FindURL(dir, url string) (Credentials, bool, error) {
	addr, ok := parseURL(url)
	if !ok {
		return Credentials{}, false, nil
	}
	dir, err := serversDir(dir)
	if err != nil {
		return Credentials{}, false, err
	}
	c, err := readCredentials(credentialsFile(dir, addr))
	if errors.Is(err, fs.ErrNotExist) {
		return Credentials{}, false, nil
	}
	return c, err == nil, err
}

// credentialsFile names the file of an address; ':' of IPv6 is not allowed in
// names on Windows.
func credentialsFile(dir string, a address) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%d.json", strings.ReplaceAll(a.host, ":", "_"), a.port))
}

// errNoCredentials says that a file holds no usable credentials.
var errNoCredentials = errors.New("no credentials in it")

func readCredentials(file string) (Credentials, error) {
	f, err := os.Open(file)
	if err != nil {
		return Credentials{}, fmt.Errorf("embedded: credentials: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	// Of the open file: what is checked is what is read.
	fi, err := f.Stat()
	if err != nil {
		return Credentials{}, fmt.Errorf("embedded: credentials: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return Credentials{}, fmt.Errorf("embedded: credentials: %s is not a regular file", file)
	}
	// Windows has no mode bits; there the user's profile directory protects it.
	if runtime.GOOS != "windows" && fi.Mode().Perm()&0o077 != 0 {
		return Credentials{}, &sentence{ErrPermissions, fmt.Sprintf(
			"credentials: %s has mode %04o, other users may have read the password: delete it for a new password, or chmod 600 %s",
			file, fi.Mode().Perm(), file)}
	}
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return Credentials{}, fmt.Errorf("embedded: credentials: %w", err)
	}
	var c Credentials
	if err := json.Unmarshal(data, &c); err != nil || c.User == "" || c.Password == "" {
		return Credentials{}, fmt.Errorf("embedded: credentials: %s: %w", file, errNoCredentials)
	}
	return c, nil
}

// passwordFor is the password that the file already holds or, if there is no
// usable file, a new one that is not yet written.
func passwordFor(file string) (string, error) {
	c, err := readCredentials(file)
	switch {
	case err == nil:
		return c.Password, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errNoCredentials):
		return newPassword(), nil
	default:
		return "", err
	}
}

func newPassword() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (c Credentials) write(file string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = statedir.Replace(file, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("embedded: credentials: %w", err)
	}
	return nil
}

// secureDir makes the directory of the credentials, or checks the one that is
// there: whoever can write in it decides what password this user's nodes send.
func secureDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("embedded: credentials: %w", err)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("embedded: credentials: %w", err)
	}
	if runtime.GOOS != "windows" && fi.Mode().Perm()&0o002 != 0 {
		return &sentence{ErrPermissions, fmt.Sprintf("credentials: every user may write in %s: chmod 700 %s", dir, dir)}
	}
	return nil
}

// alive says whether a process of that id exists. Ids are used again, so it is
// a hint for the order, not a proof.
func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	if runtime.GOOS == "windows" {
		return true // FindProcess has opened it
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, fs.ErrPermission)
}
