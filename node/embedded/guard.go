package embedded

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats-server/v2/server"
)

// A single nats-server deletes a stream's directory when it cannot open the
// stream's store at start, also when the cause is a passing one such as too
// many open files (v2.15.2, addStreamWithAssignmentAndMode: setupStore fails,
// stop(true)). So before every start the streams get second names, hard links
// in jetstream.opening: no data is copied, and what was deleted is put back.
const (
	guardDir   = server.JetStreamStoreDir + ".opening" // one entry per stream
	discardDir = server.JetStreamStoreDir + ".opened"  // on its way out
)

// guard makes the links. Links that are there already are from a process that
// died while opening, so they are put to use first.
func (s *store) guard(log *slog.Logger) error {
	if err := s.restore(nil); err != nil {
		return err
	}
	if err := s.unguard(); err != nil {
		return err
	}
	src := s.jetstream(account, "streams")
	if _, err := os.Stat(src); err != nil {
		return nil //nolint:nilerr // nothing to protect; what else it means is for streams() to say
	}
	err := filepath.WalkDir(src, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			return os.MkdirAll(s.path(guardDir, rel), 0o700)
		case e.Type().IsRegular() && rel != ".":
			return os.Link(path, s.path(guardDir, rel))
		}
		return nil
	})
	if err == nil {
		return nil
	}
	// What cannot be read now would be deleted by nats-server as damaged.
	if _, link := errors.AsType[*os.LinkError](err); !link && errors.Is(err, fs.ErrPermission) {
		return errors.Join(err, s.unguard())
	}
	// Half a guard is worse than none, and a file system without hard links
	// (some answer "not permitted") is no reason not to start.
	log.Warn("the store is opened without a safety copy", slog.String("store", s.dir), slog.Any("error", err))
	return s.unguard()
}

// restore puts back what was deleted of the named streams since the guard was
// made, and of streams that have lost their configuration or all their blocks.
func (s *store) restore(streams []string) error {
	entries, err := os.ReadDir(s.path(guardDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		live, safe := s.jetstream(account, "streams", e.Name()), s.path(guardDir, e.Name())
		deleted := hasMeta(safe) && !hasMeta(live) || hasBlocks(safe) && !hasBlocks(live)
		if deleted || slices.Contains(streams, e.Name()) {
			err = errors.Join(err, putBack(safe, live))
		}
	}
	return err
}

// putBack moves every file below safe that live does not have.
func putBack(safe, live string) error {
	return filepath.WalkDir(safe, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(safe, path)
		if err != nil {
			return err
		}
		to := filepath.Join(live, rel)
		switch {
		case exists(to):
			return nil
		case e.IsDir():
			return os.MkdirAll(to, 0o700)
		default:
			return os.Rename(path, to)
		}
	})
}

// unguard drops the links. It renames first, since a stream found in the guard
// but not in the store counts as lost, and removing takes a while.
func (s *store) unguard() error {
	err := os.RemoveAll(s.path(discardDir))
	if exists(s.path(guardDir)) {
		err = errors.Join(err, os.Rename(s.path(guardDir), s.path(discardDir)), os.RemoveAll(s.path(discardDir)))
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// hasMeta reports whether a stream's directory has a configuration, readable or not.
func hasMeta(stream string) bool {
	_, err := os.Stat(filepath.Join(stream, server.JetStreamMetaFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// hasBlocks reports whether a stream's directory has a message block.
func hasBlocks(stream string) bool {
	entries, err := os.ReadDir(filepath.Join(stream, "msgs"))
	return err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return filepath.Ext(e.Name()) == ".blk" })
}
