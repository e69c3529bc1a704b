package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weft-fabric/weft/node/statedir"
)

// account is the account that all clients of an embedded server are in.
const account = "$G"

// store is a locked store directory.
type store struct {
	dir   string
	state *statedir.Dir
	ours  bool // state is, and ends with the store
}

// openStore takes a directory that the node has opened, or makes and locks one; ""
// makes a temporary one.
func openStore(state *statedir.Dir, dir, node string) (_ *store, err error) {
	s := &store{state: state, ours: state == nil}
	if s.ours {
		if s.state, err = OpenState(dir, node); err != nil {
			return nil, err
		}
	}
	s.dir = s.state.Path()
	if err := s.probe(); err != nil {
		return nil, errors.Join(unusable(fmt.Errorf("embedded: store %s: %w", s.dir, err)), s.close())
	}
	return s, nil
}

// OpenState makes and locks a node's state directory, which [Config.State] takes. Its
// errors are those of [Start].
func OpenState(dir, node string) (*statedir.Dir, error) {
	state, err := statedir.Open(dir, node)
	if in, ok := errors.AsType[*statedir.InUseError](err); ok {
		who := "another node"
		if in.Holder.Node != "" {
			who = fmt.Sprintf("node %q (pid %d)", in.Holder.Node, in.Holder.PID)
		}
		return nil, &sentence{ErrStoreInUse, fmt.Sprintf("store %s is in use by %s: stop it, or give this one another --store", in.Path, who)}
	}
	if err != nil {
		return nil, unusable(fmt.Errorf("embedded: store %s: %w", dir, err))
	}
	return state, nil
}

// unusable marks an error that is neither about a missing right nor about a place that
// cannot be one for a store: both are for a person to decide.
func unusable(err error) error {
	for _, e := range []error{fs.ErrPermission, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.EINVAL} {
		if errors.Is(err, e) {
			return err
		}
	}
	return &sentence{kinds{ErrStoreUnusable, err}, err.Error()}
}

func (s *store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// jetstream is where nats-server keeps its files; it appends the name itself.
func (s *store) jetstream(elem ...string) string {
	return s.path(append([]string{server.JetStreamStoreDir}, elem...)...)
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

// close gives the directory back.
func (s *store) close() error {
	if !s.ours {
		return nil
	}
	return s.state.Close()
}
