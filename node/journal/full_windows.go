package journal

import (
	"errors"
	"syscall"

	"github.com/weft-fabric/weft/wire"
)

// Windows' numbers for a full disk and a full handle.
const (
	errHandleDiskFull syscall.Errno = 39
	errDiskFull       syscall.Errno = 112
)

// typed says that a disk is full.
func typed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errDiskFull), errors.Is(err, errHandleDiskFull):
		return wire.Errorf(wire.StorageFull, "the journal: %w", err)
	}
	return wire.Errorf(wire.Unavailable, "the journal cannot be written: %w", err)
}
