package edge

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// takenErrors are what listening on somebody else's address can fail with. The
// second is the answer when that one was opened exclusively by another user.
var takenErrors = []error{windows.WSAEADDRINUSE, windows.WSAEACCES}

// exclusive keeps other programs from listening on the same address, which
// Windows lets them do with SO_REUSEADDR, to play the gateway.
func exclusive(_, _ string, c syscall.RawConn) error {
	const soExclusiveAddrUse = ^windows.SO_REUSEADDR
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, soExclusiveAddrUse, 1)
	}), err)
}
