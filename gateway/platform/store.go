package platform

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// maxFile is how large the preferences of one app may be, as a file, and
	// maxFiles how many files there may be.
	maxFile  = 1 << 20
	maxFiles = 10_000
	// maxAll is how large all preferences of a user may be that are asked for at
	// once.
	maxAll = 4 << 20

	suffix = ".json"
	// newFile is a file that is being written, one at a time.
	newFile = ".new"
	// bad comes between the name of a file that was set aside and when.
	bad = ".bad-"
)

// prefsFile is a file with preferences.
type prefsFile struct {
	User    string                     `json:"user"`
	App     string                     `json:"app"`
	Updated time.Time                  `json:"updated"`
	Data    map[string]json.RawMessage `json:"data"`
}

// store keeps preferences: a directory for each user, in it a file for each app.
type store struct {
	root *os.Root
	log  *slog.Logger

	mu    sync.Mutex // guards the files too
	files int
}

// openStore makes the directory if it is not there.
func openStore(dir string, log *slog.Logger) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, failed(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, failed(err)
	}
	s := &store{root: root, log: log}
	err = fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(name, suffix) {
			s.files++
		}
		return err
	})
	if err != nil {
		_ = root.Close()
		return nil, failed(err)
	}
	return s, nil
}

func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.root.Close()
}

// get returns the preferences of an app; there are none without Updated.
func (s *store) get(user, app string) (prefsFile, error) {
	path, err := pathOf(user, app)
	if err != nil {
		return prefsFile{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok, err := s.read(path)
	if !ok {
		f = prefsFile{User: user, App: app}
	}
	return f, err
}

// all returns the preferences of all apps of a user, in order of name.
func (s *store) all(user string) ([]prefsFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	paths, err := s.paths(user)
	if err != nil {
		return nil, err
	}
	var list []prefsFile
	size := 0
	for _, path := range paths {
		f, ok, err := s.read(path)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		for _, value := range f.Data {
			size += len(value)
		}
		if size > maxAll {
			return nil, wire.Errorf(wire.Limit, "the preferences of user %q: more than %d bytes, ask for each app by itself", user, maxAll)
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b prefsFile) int { return cmp.Compare(a.App, b.App) })
	return list, nil
}

// set replaces preferences, or merges data into them.
func (s *store) set(user, app string, data map[string]json.RawMessage, merge bool) error {
	path, err := pathOf(user, app)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was, there, err := s.read(path)
	if err != nil {
		return err
	}
	if merge && there {
		maps.Copy(was.Data, data)
		data = was.Data
	}
	text, err := encode(prefsFile{user, app, time.Now().UTC(), data})
	switch {
	case err != nil:
		return err
	case len(text) > maxFile:
		return wire.Errorf(wire.Limit, "the preferences of app %q: %d bytes, the limit is %d", app, len(text), maxFile)
	case !there && s.files >= maxFiles:
		return wire.Errorf(wire.Limit, "there are preferences for %d apps and users, which is the limit", s.files)
	}
	if err := s.write(path, text); err != nil {
		return failed(err)
	}
	if !there {
		s.files++
	}
	return nil
}

// clear removes the preferences of an app.
func (s *store) clear(user, app string) error {
	path, err := pathOf(user, app)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(path)
}

// clearAll removes all preferences of a user.
func (s *store) clearAll(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	paths, err := s.paths(user)
	for _, path := range paths {
		err = cmp.Or(err, s.remove(path))
	}
	return err
}

// remove removes a file that may be missing.
func (s *store) remove(path string) error {
	switch err := s.root.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return failed(err)
	}
	s.files--
	return failed(s.sync(filepath.Dir(path)))
}

// paths lists the files of a user.
func (s *store) paths(user string) ([]string, error) {
	dir, err := fileName(user)
	if err != nil {
		return nil, err
	}
	d, err := s.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failed(err)
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, failed(err)
	}
	var paths []string
	for _, name := range names {
		if strings.HasSuffix(name, suffix) {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	return paths, nil
}

// read reads a file. One that is damaged is set aside, and then there is none.
func (s *store) read(path string) (f prefsFile, there bool, err error) {
	file, err := s.root.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	if err != nil {
		return f, false, failed(err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return f, false, failed(err)
	}
	if f, err = parseFile(path, text); err != nil {
		return f, false, s.setAside(path, err)
	}
	return f, true, nil
}

// parseFile reads preferences and checks that they are those of the file.
func parseFile(path string, text []byte) (f prefsFile, err error) {
	if len(text) > maxFile {
		return f, wire.Errorf(wire.Limit, "larger than %d bytes", maxFile)
	}
	if len(text) == 0 {
		return f, wire.Errorf(wire.BadPayload, "empty")
	}
	if err := decode(text, &f); err != nil {
		return f, err
	}
	if f.Data == nil || f.Updated.IsZero() {
		return f, wire.Errorf(wire.BadPayload, "no preferences")
	}
	if own, err := pathOf(f.User, f.App); err != nil || own != path {
		return f, wire.Errorf(wire.BadName, "the preferences of app %q of user %q", f.App, f.User)
	}
	return f, nil
}

// setAside renames a damaged file, so that it is neither used nor lost.
func (s *store) setAside(path string, why error) error {
	to := path + bad + time.Now().UTC().Format("20060102T150405.000000000")
	if err := s.root.Rename(path, to); err != nil {
		return failed(err)
	}
	s.files--
	s.log.Warn("platform: a damaged file with preferences was set aside",
		slog.String("file", filepath.Join(s.root.Name(), to)), slog.Any("error", why))
	return nil
}

// write replaces a file whole, so that a crash leaves the old one or the new one.
func (s *store) write(path string, text []byte) error {
	dir := filepath.Dir(path)
	switch err := s.root.Mkdir(dir, 0o700); {
	case err == nil:
		if err := s.sync("."); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	file := filepath.Join(dir, newFile)
	f, err := s.root.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.root.Rename(file, path)
	}
	if err != nil {
		_ = s.root.Remove(file)
		return err
	}
	return s.sync(dir)
}

// sync makes the names in a directory last. Windows cannot and need not.
func (s *store) sync(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// pathOf is where the preferences of an app are.
func pathOf(user, app string) (string, error) {
	dir, err := fileName(user)
	if err != nil {
		return "", err
	}
	name, err := fileName(app)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name+suffix), nil
}

// fileName encodes a name. The digits at its end keep names apart that differ in
// case only, where files do not.
func fileName(name string) (string, error) {
	t, err := subjects.Encode(name)
	if err != nil {
		return "", wire.AsError(err)
	}
	sum := sha256.Sum256([]byte(name))
	return t.String() + "-" + hex.EncodeToString(sum[:4]), nil
}

// failed is an error of the file system as one that can travel.
func failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return wire.Errorf(wire.StorageFull, "preferences: %w", err)
	}
	return wire.Errorf(wire.Unavailable, "preferences: %w", err)
}
