package node

import "os"

// machineID reads what systemd or D-Bus made at installation.
func machineID() (string, error) {
	data, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		data, err = os.ReadFile("/var/lib/dbus/machine-id")
	}
	return string(data), err
}
