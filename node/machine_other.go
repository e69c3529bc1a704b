//go:build !linux && !windows && !darwin

package node

import "os"

// machineID falls back to the host's name.
func machineID() (string, error) { return os.Hostname() }
