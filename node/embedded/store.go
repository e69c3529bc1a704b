package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
)

// account is the account that all clients of an embedded server are in.
const account = "$G"

// store is a locked store directory.
type store struct {
	dir       string
	temporary bool
	lock      *flock.Flock
}

// holder is the content of the file beside the lock. The lock decides; this
// only tells a second node whom to blame, and a stale one means nothing.
type holder struct {
	Node    string    `json:"node"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// openStore makes and locks the directory; "" makes a temporary one.
func openStore(dir, node string) (_ *store, err error) {
	s := &store{dir: dir, temporary: dir == ""}
	if s.temporary {
		s.dir, err = os.MkdirTemp("", "weft-")
	} else if s.dir, err = filepath.Abs(dir); err == nil {
		err = os.MkdirAll(s.dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("embedded: store: %w", err)
	}
	lock := flock.New(s.path("lock"), flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("embedded: store %s: lock: %w", s.dir, err)
	}
	if !locked {
		return nil, s.inUse()
	}
	s.lock = lock
	data, err := json.Marshal(holder{node, os.Getpid(), time.Now().UTC()})
	if err == nil {
		err = writeFile(s.path("holder"), append(data, '\n'))
	}
	if err == nil {
		err = s.probe()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded: store %s: %w", s.dir, err), s.close())
	}
	return s, nil
}

func (s *store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// jetstream is where nats-server keeps its files; it appends the name itself.
func (s *store) jetstream(elem ...string) string {
	return s.path(append([]string{server.JetStreamStoreDir}, elem...)...)
}

func (s *store) inUse() error {
	who := "another node"
	var h holder
	if data, err := os.ReadFile(s.path("holder")); err == nil && json.Unmarshal(data, &h) == nil {
		who = fmt.Sprintf("node %q (pid %d)", h.Node, h.PID)
	}
	return &sentence{ErrStoreInUse, fmt.Sprintf("store %s is in use by %s: stop it, or give this one another --store", s.dir, who)}
}

// probe writes and syncs a block where nats-server will write, so that a full
// disk or a read-only directory is named as such and not taken for damage.
func (s *store) probe() error {
	file := s.jetstream(".probe") // one name: a crash leaves at most one
	if fi, err := os.Stat(s.jetstream()); err != nil || !fi.IsDir() {
		file = s.path(".probe")
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 64<<10))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(file))
}

// streams names the stream directories. A *damage means that the place where
// they should be is no directory at all, which nats-server would overlook.
func (s *store) streams() ([]string, error) {
	entries, err := os.ReadDir(s.jetstream(account, "streams"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("embedded: store %s: %w", s.dir, err)
	}
	if err != nil {
		if text := surroundings(err.Error()); text != "" {
			return nil, fmt.Errorf("embedded: store %s: %w", s.dir, err)
		}
		return nil, &damage{reason: err.Error()}
	}
	var names []string
	for _, e := range entries {
		// A leading dot marks a stream whose deletion was under way. A
		// directory without messages is what a crash leaves of a creation.
		dir := s.jetstream(account, "streams", e.Name())
		if !strings.HasPrefix(e.Name(), ".") && (!e.IsDir() || hasMeta(dir) || hasBlocks(dir)) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// close releases the lock, and with it the directory if it is temporary. The
// lock file stays: removing it would let two servers lock two files of one name.
func (s *store) close() error {
	err := os.Remove(s.path("holder"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, s.lock.Unlock())
	if s.temporary {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}
