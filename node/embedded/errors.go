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
	// ErrStoreUnusable says that the store cannot be opened, nor a fresh one made in
	// its place: the disk is full, read-only or broken. That may pass.
	ErrStoreUnusable = errors.New("embedded: store cannot be used")
)

// sentence is an error whose text stands by itself, for people, while
// errors.Is still finds its kind.
type sentence struct {
	kind error
	text string
}

func (e *sentence) Error() string { return e.text }
func (e *sentence) Unwrap() error { return e.kind }

// kinds is an error of two kinds.
type kinds [2]error

func (e kinds) Error() string   { return e[1].Error() }
func (e kinds) Unwrap() []error { return e[:] }
