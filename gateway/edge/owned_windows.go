package edge

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// checkOwned says whether a file or directory belongs to somebody else. What
// administrators make belongs to their group. There are no mode bits; restrict
// and the user's profile keep others out.
func checkOwned(f *os.File, _ fs.FileMode) error {
	descriptor, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return err
	}
	owner, _, err := descriptor.Owner()
	if err != nil {
		return err
	}
	me, err := self()
	if err != nil {
		return err
	}
	if owner.String() != me.id && !owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) && !owner.IsWellKnown(windows.WinLocalSystemSid) {
		return fmt.Errorf("belongs to %s, and not to this user", owner)
	}
	return nil
}

// restrict lets this user alone into a file, whatever its directory says.
func restrict(name string) error {
	me, err := self()
	if err != nil {
		return err
	}
	descriptor, err := windows.SecurityDescriptorFromString("D:P(A;;FA;;;" + me.id + ")")
	if err != nil {
		return err
	}
	dacl, _, err := descriptor.DACL()
	if err != nil {
		return err
	}
	return windows.SetNamedSecurityInfo(name, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
}
