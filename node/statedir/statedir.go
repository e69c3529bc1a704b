// Package statedir is the directory in which a node keeps what it must not lose: one
// node at a time has it, and says in it what it is doing.
//
//	<dir>/          0700
//	  lock          0600  held while the node runs; never removed
//	  holder        0600  JSON {node, pid, started}: who holds the lock
//	  status.json   0600  what the node last said of itself; stays when it ends
//
// The lock decides who has the directory; holder only says whom to blame, and a stale
// one means nothing. A process that is killed leaves holder and status behind. What
// else is in the directory belongs to those who put it there.
//
// [Open] takes the directory, [Dir.Close] gives it back; [ReadStatus] reads what its
// node says, from any process. A Dir is safe for concurrent use. To test with it: a
// temporary directory is enough, also in a testing/synctest bubble.
package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// ErrInUse says that another node has the directory; compare with errors.Is.
var ErrInUse = errors.New("state directory in use")

const (
	lockFile   = "lock"
	holderFile = "holder"
	statusFile = "status.json"
	// maxStatus bounds what is read of a status.
	maxStatus = 1 << 20
	// Who reads a status has the lock for a moment.
	lockTries = 3
	lockRetry = 50 * time.Millisecond
)

// Dir is a directory that this process holds.
type Dir struct {
	path      string
	temporary bool
	lock      *flock.Flock
}

// Holder is who holds a directory.
type Holder struct {
	Node    string    `json:"node"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// InUseError is the error of [Open] when another node has the directory.
type InUseError struct {
	Path   string
	Holder Holder // zero if it did not say
}

func (e *InUseError) Error() string {
	if e.Holder == (Holder{}) {
		return fmt.Sprintf("%s is in use by another node", e.Path)
	}
	return fmt.Sprintf("%s is in use by node %q (pid %d)", e.Path, e.Holder.Node, e.Holder.PID)
}

// Unwrap makes it [ErrInUse].
func (*InUseError) Unwrap() error { return ErrInUse }

// Open makes and locks a directory; "" makes a temporary one that Close removes.
func Open(path, node string) (_ *Dir, err error) {
	d := &Dir{path: path, temporary: path == ""}
	if d.temporary {
		d.path, err = os.MkdirTemp("", "weft-")
	} else if d.path, err = filepath.Abs(path); err == nil {
		err = os.MkdirAll(d.path, 0o700)
	}
	if err != nil {
		return nil, err
	}
	lock := flock.New(d.Path(lockFile), flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	for try := 0; err == nil && !locked && try < lockTries; try++ {
		time.Sleep(lockRetry)
		locked, err = lock.TryLock()
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if !locked {
		in := &InUseError{Path: d.path}
		if data, err := os.ReadFile(d.Path(holderFile)); err != nil || json.Unmarshal(data, &in.Holder) != nil {
			in.Holder = Holder{}
		}
		return nil, in
	}
	d.lock = lock
	data, err := json.Marshal(Holder{node, os.Getpid(), time.Now().UTC()})
	if err == nil {
		err = Replace(d.Path(holderFile), append(data, '\n'))
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Path is the directory, or a path in it.
func (d *Dir) Path(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// Close gives the directory back, and removes it if it is temporary. The lock file
// stays: removing it would let two nodes lock two files of one name.
func (d *Dir) Close() error {
	err := os.Remove(d.Path(holderFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, d.lock.Unlock())
	if d.temporary {
		err = errors.Join(err, os.RemoveAll(d.path))
	}
	return err
}

// WriteStatus replaces what the node says of itself, whole.
func (d *Dir) WriteStatus(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return replace(d.Path(statusFile), append(data, '\n'), false)
}

// ReadStatus reads what the node of a directory last said of itself into v, and
// whether a process holds the directory now. The error is fs.ErrNotExist if no node has
// ever said anything there.
func ReadStatus(path string, v any) (running bool, err error) {
	f, err := os.Open(filepath.Join(path, statusFile))
	if err != nil {
		return false, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxStatus))
	if err = errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("%s: %w", filepath.Join(path, statusFile), err)
	}
	return isHeld(path)
}

// isHeld says whether a process has a directory.
func isHeld(path string) (bool, error) {
	lock := flock.New(filepath.Join(path, lockFile), flock.SetFlag(os.O_RDONLY))
	free, err := lock.TryRLock()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !free:
		return true, nil
	}
	return false, lock.Unlock()
}

// Replace replaces a file whole, mode 0600, so that a reader or a crash sees the old
// one or the new one.
func Replace(file string, data []byte) error { return replace(file, data, true) }

func replace(file string, data []byte, durable bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err == nil && durable {
		err = SyncDir(filepath.Dir(file))
	}
	return err
}

// SyncDir makes a rename last. Windows cannot and need not.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
