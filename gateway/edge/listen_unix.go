//go:build !windows

package edge

import "syscall"

// takenErrors are what listening on somebody else's address can fail with.
var takenErrors = []error{syscall.EADDRINUSE}

// exclusive has nothing to do: no two sockets may listen on one address here.
func exclusive(string, string, syscall.RawConn) error { return nil }
