package edge

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/weft-fabric/weft/wire"
)

// tokenBytes is how much randomness a token has.
const tokenBytes = 32

// encoding is how all tokens are written.
var encoding = base64.RawURLEncoding

func newToken() string {
	var b [tokenBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return encoding.EncodeToString(b[:])
}

// loadToken reads the token of a file, which it makes if there is none. When
// two nodes do so at a time, both get the token of the one that was first.
func loadToken(name string) (string, error) {
	if err := privateDir(filepath.Dir(name)); err != nil {
		return "", err
	}
	token, err := readToken(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	if err := writeToken(name); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", wire.Errorf(wire.Unavailable, "token file: %w", err)
	}
	return readToken(name)
}

// privateDir makes a directory that only this user may write in, or checks that
// it is one: whoever can write in it decides what token the gateway wants.
func privateDir(name string) error {
	if err := os.MkdirAll(name, 0o700); err != nil {
		return wire.Errorf(wire.Unavailable, "token file: %w", err)
	}
	dir, err := os.Open(name)
	if err != nil {
		return wire.Errorf(wire.Unavailable, "token file: %w", err)
	}
	defer func() { _ = dir.Close() }() // only looked at
	if err := checkOwned(dir, 0o022); err != nil {
		return wire.Errorf(wire.Denied, "%w: the directory %s %w", ErrTokenFile, name, err)
	}
	return nil
}

func readToken(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", wire.Errorf(wire.Unavailable, "token file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	// Of the open file: what is checked is what is read.
	info, err := f.Stat()
	if err != nil {
		return "", wire.Errorf(wire.Unavailable, "token file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", wire.Errorf(wire.Rejected, "token file: %s is not a file", name)
	}
	if err := checkOwned(f, 0o077); err != nil {
		return "", wire.Errorf(wire.Denied, "%w: %s %w; delete it for a new token", ErrTokenFile, name, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return "", wire.Errorf(wire.Unavailable, "token file: %w", err)
	}
	token := strings.TrimRight(string(text), "\r\n")
	if b, err := encoding.DecodeString(token); err != nil || len(b) != tokenBytes {
		return "", wire.Errorf(wire.Rejected, "token file: %s does not hold a token; delete it for a new one", name)
	}
	return token, nil
}

// writeToken makes the file with all that is in it, or fails because it exists.
func writeToken(name string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it has its real name by then
	if err = restrict(f.Name()); err == nil {
		_, err = f.WriteString(newToken() + "\n")
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), name); err != nil {
		return fmt.Errorf("cannot make %s: %w", name, err)
	}
	return nil
}
