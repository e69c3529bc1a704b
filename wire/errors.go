package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/weft-fabric/weft/subjects"
)

// Code says what went wrong. The list is closed and spelt the same in Go, on
// the wire, in the gateway and on the command line; doc.go says what each code
// means and whether it makes sense to try again.
type Code string

// The closed list of codes.
const (
	NoServer    Code = "no-server"
	TargetGone  Code = "target-gone"
	Timeout     Code = "timeout"
	Canceled    Code = "canceled"
	AppError    Code = "app-error"
	Rejected    Code = "rejected"
	Denied      Code = "denied"
	Busy        Code = "busy"
	Limit       Code = "limit"
	BadName     Code = "bad-name"
	BadPayload  Code = "bad-payload"
	BadRevision Code = "bad-revision"
	Offline     Code = "offline"
	Unavailable Code = "unavailable"
	StorageFull Code = "storage-full"
	Version     Code = "version"
	Internal    Code = "internal"
)

var codes = []Code{
	NoServer, TargetGone, Timeout, Canceled, AppError, Rejected, Denied, Busy, Limit,
	BadName, BadPayload, BadRevision, Offline, Unavailable, StorageFull, Version, Internal,
}

// Codes returns the closed list, in the order of the specification.
func Codes() []Code { return slices.Clone(codes) }

// One sentinel per code, for errors.Is. They match any *Error of that code.
var (
	ErrNoServer    = &Error{Code: NoServer}
	ErrTargetGone  = &Error{Code: TargetGone}
	ErrTimeout     = &Error{Code: Timeout}
	ErrCanceled    = &Error{Code: Canceled}
	ErrAppError    = &Error{Code: AppError}
	ErrRejected    = &Error{Code: Rejected}
	ErrDenied      = &Error{Code: Denied}
	ErrBusy        = &Error{Code: Busy}
	ErrLimit       = &Error{Code: Limit}
	ErrBadName     = &Error{Code: BadName}
	ErrBadPayload  = &Error{Code: BadPayload}
	ErrBadRevision = &Error{Code: BadRevision}
	ErrOffline     = &Error{Code: Offline}
	ErrUnavailable = &Error{Code: Unavailable}
	ErrStorageFull = &Error{Code: StorageFull}
	ErrVersion     = &Error{Code: Version}
	ErrInternal    = &Error{Code: Internal}
)

// Error is an error that can travel: a code and a sentence for people.
type Error struct {
	Code    Code
	Message string
	// Detail is the text of a JSON object that a gateway client attached, or "".
	Detail string
	cause  error
}

// Errorf makes an Error. A %w operand stays reachable through errors.Is and
// errors.As on this side of the wire.
func Errorf(c Code, format string, args ...any) *Error {
	text := fmt.Errorf(format, args...)
	e := &Error{Code: c, Message: text.Error(), cause: errors.Unwrap(text)}
	if _, several := text.(interface{ Unwrap() []error }); several {
		e.cause = text
	}
	return e
}

// Error is "<code>: <message>", or the code alone when there is no message.
func (e *Error) Error() string {
	if e.Message == "" {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Message
}

// Unwrap returns the cause. It never crosses the wire.
func (e *Error) Unwrap() error { return e.cause }

// Is matches a target *Error without message by its code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Message == "" && t.Code == e.Code
}

// CodeOf is the one place where an error becomes a code. Anything unknown is
// internal; nil is the empty code.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, subjects.ErrBadName):
		return BadName
	}
	return Internal
}

// FromHeader makes the Error of a reply whose headers carry a code. A code
// that this version does not know becomes internal and is kept in the text.
func FromHeader(code, message string) *Error {
	c := Code(code)
	if !slices.Contains(codes, c) {
		message = fmt.Sprintf("unknown code %q: %s", cut(code, 64), message)
		c = Internal
	} else {
		c = codes[slices.Index(codes, c)] // do not keep the message buffer alive
	}
	return &Error{Code: c, Message: strings.Clone(cut(message, maxText))}
}

// AsError turns any error into an *Error with the code of CodeOf. The message
// is the error's text with the code in it once: as the prefix of Error().
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok { //nolint:errorlint // only the outermost may pass as it is
		return e
	}
	message := err.Error()
	if e, ok := errors.AsType[*Error](err); ok {
		message = strings.Replace(message, e.Error(), e.Message, 1)
	}
	e := &Error{Code: CodeOf(err), Message: message, cause: err}
	if inner, ok := errors.AsType[*Error](err); ok {
		e.Detail = inner.Detail
	}
	return e
}

// maxText bounds every text for people that crosses the wire.
const maxText = 4 << 10

// cut returns s as valid UTF-8 of at most n bytes.
func cut(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}
