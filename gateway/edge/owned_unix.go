//go:build !windows

package edge

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkOwned says in what way a file or directory is open to other users: it is
// theirs, or has one of the forbidden mode bits. A directory may be root's.
func checkOwned(f *os.File, forbidden fs.FileMode) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("has no owner that this system tells")
	}
	if uid := int(stat.Uid); uid != os.Geteuid() && (uid != 0 || !info.IsDir()) {
		return fmt.Errorf("belongs to uid %d, and not to this user", uid)
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return fmt.Errorf("has mode %04o, so that other users may have read or written it", mode)
	}
	return nil
}

// restrict has nothing to do: the file was made with mode 0600.
func restrict(string) error { return nil }
