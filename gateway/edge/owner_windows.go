package edge

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

func self() (osUser, error) { return tokenUser(windows.GetCurrentProcessToken()) }

// owner finds the process at the client's end and whose it is. The table is read
// again while the process is held open: had it ended in between, its number
// could be another's.
func owner(e endpoints) (osUser, error) {
	pid, err := ownerPID(e)
	if err != nil {
		return osUser{}, err
	}
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return osUser{}, fmt.Errorf("process %d: %w", pid, err)
	}
	defer func() { _ = windows.CloseHandle(process) }() // nothing to lose
	var token windows.Token
	if err := windows.OpenProcessToken(process, windows.TOKEN_QUERY, &token); err != nil {
		return osUser{}, fmt.Errorf("process %d: %w", pid, err)
	}
	defer func() { _ = token.Close() }() // nothing to lose
	user, err := tokenUser(token)
	if err != nil {
		return osUser{}, fmt.Errorf("process %d: %w", pid, err)
	}
	again, err := ownerPID(e)
	if err != nil {
		return osUser{}, err
	}
	if again != pid {
		return osUser{}, errNoOwner
	}
	return user, nil
}

func tokenUser(token windows.Token) (osUser, error) {
	user, err := token.GetTokenUser()
	if err != nil {
		return osUser{}, err
	}
	var session, size uint32
	err = windows.GetTokenInformation(token, windows.TokenSessionId, (*byte)(unsafe.Pointer(&session)), uint32(unsafe.Sizeof(session)), &size)
	if err != nil {
		return osUser{}, err
	}
	return osUser{id: user.User.Sid.String(), session: session}, nil
}

// ownerPID looks in both tables, because a client may speak IPv4 with an IPv6
// socket.
func ownerPID(e endpoints) (pid uint32, err error) {
	for _, kind := range []struct {
		family uint32
		row    tcpRow
	}{{windows.AF_INET, tcpRow4}, {windows.AF_INET6, tcpRow6}} {
		var table []byte
		if table, err = tcpTable(kind.family); err == nil {
			pid, err = parseTCPTable(table, kind.row, e)
		}
		if err == nil {
			return pid, nil
		}
	}
	return 0, err
}

var getExtendedTCPTable = windows.NewLazySystemDLL("iphlpapi.dll").NewProc("GetExtendedTcpTable")

// tcpTable reads the connections of one family with their processes.
func tcpTable(family uint32) ([]byte, error) {
	const connectionsWithPID = 4 // TCP_TABLE_OWNER_PID_CONNECTIONS
	if err := getExtendedTCPTable.Find(); err != nil {
		return nil, err
	}
	size := uint32(64 << 10)
	for range 5 { // it may grow between two calls
		table := make([]byte, size)
		code, _, _ := getExtendedTCPTable.Call(uintptr(unsafe.Pointer(&table[0])), uintptr(unsafe.Pointer(&size)), 0,
			uintptr(family), connectionsWithPID, 0)
		switch errno := windows.Errno(code); errno {
		case windows.ERROR_SUCCESS:
			return table, nil
		case windows.ERROR_INSUFFICIENT_BUFFER:
			size += 4 << 10
		default:
			return nil, fmt.Errorf("GetExtendedTcpTable: %w", errno)
		}
	}
	return nil, errors.New("GetExtendedTcpTable: the table grows faster than it can be read")
}
