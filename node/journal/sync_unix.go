//go:build unix

package journal

import (
	"errors"
	"os"
	"syscall"

	"github.com/weft-fabric/weft/wire"
)

// syncDir makes a rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// typed says that a disk is full.
func typed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return wire.Errorf(wire.StorageFull, "the journal: %w", err)
	}
	return wire.Errorf(wire.Unavailable, "the journal cannot be written: %w", err)
}
