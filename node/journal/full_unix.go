//go:build unix

package journal

import (
	"errors"
	"syscall"

	"github.com/weft-fabric/weft/wire"
)

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
