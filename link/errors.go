package link

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/wire"
)

// Typed gives an error of the NATS client library its wire code. What has one
// already, [ErrNoResponders], and nil pass unchanged.
func Typed(err error) error {
	var w *wire.Error
	switch {
	case err == nil, errors.As(err, &w), errors.Is(err, ErrNoResponders):
		return err
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionReconnecting),
		errors.Is(err, nats.ErrConnectionDraining), errors.Is(err, nats.ErrStaleConnection):
		return wire.Errorf(wire.Offline, "not connected to NATS: %w", err)
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrAuthorization):
		return wire.Errorf(wire.Denied, "%w", err)
	case errors.Is(err, nats.ErrMaxPayload):
		return wire.Errorf(wire.Limit, "larger than the server's max_payload: %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return wire.Errorf(wire.Timeout, "no answer in time: %w", err)
	case errors.Is(err, context.Canceled):
		return wire.Errorf(wire.Canceled, "%w", err)
	case isBroken(err):
		return wire.Errorf(wire.Offline, "the connection to NATS broke: %w", err)
	}
	return err
}

// isBroken says whether an error is that of the connection itself, which the client
// library returns where it finds out while it sends. What was to be sent then has no
// end, and nobody takes it.
func isBroken(err error) bool {
	_, op := errors.AsType[*net.OpError](err)
	return op || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

func authError(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) ||
		errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAccountAuthExpired) ||
		strings.Contains(strings.ToLower(err.Error()), "authorization violation")
}

// unreachable tells a server that is not there from a configuration that can
// never work.
func unreachable(err error) bool {
	var op net.Error
	if _, ok := errors.AsType[*net.AddrError](err); ok { // such as a port that is no port
		return false
	}
	return errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrStaleConnection) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &op) || isBroken(err)
}

func reason(err error) string {
	switch {
	case err == nil:
		return "disconnected"
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, syscall.ECONNREFUSED):
		return "no NATS server answers"
	case authError(err):
		return "NATS refuses the credentials"
	case errors.Is(err, nats.ErrStaleConnection):
		return "NATS does not answer pings"
	}
	return strings.TrimPrefix(err.Error(), "nats: ")
}
