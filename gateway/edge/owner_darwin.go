package edge

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func self() (osUser, error) { return osUser{id: strconv.Itoa(os.Geteuid())}, nil }

// owner reads the kernel's list of TCP sockets, which anybody may.
func owner(e endpoints) (osUser, error) {
	var list []byte
	err := error(unix.ENOMEM)
	for try := 0; try < 5 && errors.Is(err, unix.ENOMEM); try++ { // the list grew between asking its size and reading it
		list, err = unix.SysctlRaw("net.inet.tcp.pcblist_n")
	}
	if err != nil {
		return osUser{}, fmt.Errorf("pcblist_n: %w", err)
	}
	uid, err := parsePCBList(list, e)
	if err != nil {
		return osUser{}, err
	}
	return osUser{id: strconv.FormatUint(uint64(uid), 10)}, nil
}
