package link_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/wire"
)

func TestTyped(t *testing.T) {
	other := errors.New("other")
	for _, tt := range []struct {
		err  error
		want error
	}{
		{nats.ErrConnectionClosed, wire.ErrOffline},
		{fmt.Errorf("flush: %w", nats.ErrTimeout), wire.ErrTimeout},
		{context.DeadlineExceeded, wire.ErrTimeout},
		{context.Canceled, wire.ErrCanceled},
		{nats.ErrPermissionViolation, wire.ErrDenied},
		{nats.ErrMaxPayload, wire.ErrLimit},
		{&net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.EPIPE)}, wire.ErrOffline},
		{&net.OpError{Op: "write", Net: "tcp", Err: os.ErrDeadlineExceeded}, wire.ErrOffline},
		{io.ErrClosedPipe, wire.ErrOffline},
		{wire.Errorf(wire.Busy, "later"), wire.ErrBusy},
		{link.ErrNoResponders, link.ErrNoResponders},
		{other, other},
	} {
		if got := link.Typed(tt.err); !errors.Is(got, tt.want) || !errors.Is(got, tt.err) {
			t.Errorf("%v is %v, want %v", tt.err, got, tt.want)
		}
	}
	if link.Typed(nil) != nil {
		t.Error("nil is an error")
	}
}
