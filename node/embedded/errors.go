package embedded

import "errors"

// Errors that a caller can act on; compare with errors.Is. The text of the
// error that wraps them is a sentence for the person at the keyboard.
var (
	// ErrPortTaken says that something else listens on Config.Listen.
	ErrPortTaken = errors.New("embedded: address already in use")
	// ErrStoreInUse says that another server holds the lock of Config.Store.
	ErrStoreInUse = errors.New("embedded: store in use")
	// ErrNotLoopback says that Config.Listen would be reachable from other machines.
	ErrNotLoopback = errors.New("embedded: not a loopback address")
	// ErrPermissions says that other users could read a credentials file, or
	// put one into its directory.
	ErrPermissions = errors.New("embedded: permissions too open")
)

// sentence is an error whose text stands by itself, for people, while
// errors.Is still finds its kind.
type sentence struct {
	kind error
	text string
}

func (e *sentence) Error() string { return e.text }
func (e *sentence) Unwrap() error { return e.kind }
