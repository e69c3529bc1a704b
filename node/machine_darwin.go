package node

import "golang.org/x/sys/unix"

// machineID is the kernel's uuid of the machine.
func machineID() (string, error) { return unix.Sysctl("kern.uuid") }
