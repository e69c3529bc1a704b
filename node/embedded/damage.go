package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weft-fabric/weft/node/statedir"
)

// damage is why a store cannot be opened. With streams it concerns only these,
// without it is the whole JetStream directory.
type damage struct {
	reason  string
	streams []string
}

func (d *damage) Error() string {
	if len(d.streams) == 0 {
		return d.reason
	}
	return fmt.Sprintf("streams %s: %s", strings.Join(d.streams, ", "), d.reason)
}

// open starts nats-server on the store. What cannot be opened is set aside and
// the rest, or a fresh store, is tried once.
func (s *Server) open() error {
	err := s.tryOpen()
	d, ok := errors.AsType[*damage](err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return unusable(err)
	}
	// Never set aside good data for a full disk or a missing right.
	if text := surroundings(d.reason); text != "" {
		err := fmt.Errorf("embedded: store %s: %w", s.store.dir, d)
		if text == syscall.EACCES.Error() || text == syscall.EPERM.Error() {
			return err
		}
		return unusable(err)
	}
	if err := s.store.probe(); err != nil {
		return unusable(fmt.Errorf("embedded: store %s: %w", s.store.dir, err))
	}
	lost, size := s.store.inventory(d)
	path, err := s.store.setAside(d)
	if err != nil {
		return unusable(fmt.Errorf("embedded: store %s: %w; it could not be set aside: %w", s.store.dir, d, err))
	}
	s.damaged, s.lost = path, lost
	s.cfg.Logger.Error("the store could not be opened; the damaged part was set aside and is not in use",
		slog.String("moved_to", path), slog.String("reason", d.reason),
		slog.Bool("whole_store", len(d.streams) == 0), slog.Any("streams", lost), slog.Int64("bytes", size))
	if err := s.tryOpen(); err != nil {
		return unusable(fmt.Errorf("embedded: store %s: also after the damaged part was moved to %s: %w", s.store.dir, path, err))
	}
	return nil
}

// tryOpen starts nats-server once; its error is a *damage if that is what it is.
// Whatever comes of it, the streams that were on the disk before still are.
func (s *Server) tryOpen() error {
	if err := s.store.guard(s.cfg.Logger); err != nil {
		return fmt.Errorf("embedded: store %s: %w", s.store.dir, err)
	}
	err := s.run()
	if err != nil {
		var skipped []string
		if d, ok := errors.AsType[*damage](err); ok {
			skipped = d.streams
		}
		if rerr := s.store.restore(skipped); rerr != nil { // the guard stays, for the next start
			return fmt.Errorf("embedded: store %s: %w; restoring it: %w", s.store.dir, err, rerr)
		}
	}
	if uerr := s.store.unguard(); uerr != nil {
		s.cfg.Logger.Warn("the safety copy of the store was not removed", slog.String("store", s.store.dir), slog.Any("error", uerr))
	}
	return err
}

// run starts nats-server on the store as it is.
func (s *Server) run() error {
	onDisk, err := s.store.streams()
	if err != nil {
		return err
	}
	log := newLogger(s.cfg.Logger)
	ns, err := server.NewServer(s.options())
	if err != nil {
		return fmt.Errorf("embedded: nats-server: %w", err)
	}
	ns.SetLoggerV2(log, false, false, false)
	ns.Start() // returns once started or after Fatalf, since it does not listen
	err = startError(ns, log)
	if err == nil {
		err = skipped(ns, onDisk, log)
	}
	if err != nil {
		ns.Shutdown()
		ns.WaitForShutdown()
		return err
	}
	log.started()
	s.ns, s.log = ns, log
	return nil
}

func startError(ns *server.Server, log *logger) error {
	text := log.fatal()
	switch {
	case strings.HasPrefix(text, "Can't start JetStream"):
		return &damage{reason: strings.Join(slices.DeleteFunc([]string{text, log.said()}, func(s string) bool { return s == "" }), "; ")}
	case text != "":
		return fmt.Errorf("embedded: nats-server: %s", text)
	case !ns.JetStreamEnabled():
		return fmt.Errorf("embedded: nats-server: JetStream is not running: %s", log.said())
	}
	return nil
}

// skipped compares what lies on the disk with what nats-server has opened. A
// single server only warns about a stream that it cannot recover and goes on
// without; the next one to create a stream of that name would write over it.
// A stream that it keeps offline, because a newer version wrote it, is present.
func skipped(ns *server.Server, onDisk []string, log *logger) error {
	if len(onDisk) == 0 {
		return nil
	}
	detail, err := ns.JszAccount(&server.JSzOptions{Account: account, Streams: true})
	if err != nil {
		return fmt.Errorf("embedded: list streams: %w", err)
	}
	missing := slices.DeleteFunc(onDisk, func(name string) bool {
		return slices.ContainsFunc(detail.Streams, func(d server.StreamDetail) bool { return d.Name == name })
	})
	if len(missing) == 0 {
		return nil
	}
	return &damage{reason: log.said(), streams: missing}
}

// inventory says what a damage takes away: streams by name, and bytes.
func (s *store) inventory(d *damage) (streams []string, size int64) {
	streams, roots := d.streams, []string{s.jetstream()}
	if len(streams) == 0 {
		streams, _ = s.streams()
	} else {
		roots = nil
		for _, name := range streams {
			roots = append(roots, s.jetstream(account, "streams", name))
		}
	}
	for _, root := range roots {
		_ = filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // count what can be read
			}
			if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
				size += fi.Size()
			}
			return nil
		})
	}
	return streams, size
}

// setAside moves the damaged part beside the JetStream directory, in the same
// layout, so that moving it back restores it.
func (s *store) setAside(d *damage) (string, error) {
	base := s.path(server.JetStreamStoreDir + ".damaged-" + time.Now().UTC().Format("20060102T150405Z"))
	to := base
	for n := 2; ; n++ { // two within a second
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s-%d", base, n)
	}
	if len(d.streams) == 0 {
		if err := os.Rename(s.jetstream(), to); err != nil {
			return "", err
		}
		return to, statedir.SyncDir(s.dir)
	}
	parent := filepath.Join(to, account, "streams")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	for _, name := range d.streams {
		if err := os.Rename(s.jetstream(account, "streams", name), filepath.Join(parent, name)); err != nil {
			return "", err
		}
	}
	return to, errors.Join(statedir.SyncDir(parent), statedir.SyncDir(s.jetstream(account, "streams")), statedir.SyncDir(s.dir))
}
