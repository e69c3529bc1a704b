package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/weft-fabric/weft/subjects"
)

var sentinels = []*Error{
	ErrNoServer, ErrTargetGone, ErrTimeout, ErrCanceled, ErrAppError, ErrRejected, ErrDenied, ErrBusy, ErrLimit,
	ErrBadName, ErrBadPayload, ErrBadRevision, ErrOffline, ErrUnavailable, ErrStorageFull, ErrVersion, ErrInternal,
}

func TestCodes(t *testing.T) {
	const list = "no-server target-gone timeout canceled app-error rejected denied busy limit bad-name bad-payload bad-revision offline unavailable storage-full version internal"
	var got []string
	for i, c := range Codes() {
		got = append(got, string(c))
		e := Errorf(c, "it was %d", i)
		for _, s := range sentinels {
			if errors.Is(e, s) != (s == sentinels[i]) {
				t.Errorf("%v is %v", e, s)
			}
		}
		if e.Error() != fmt.Sprintf("%s: it was %d", c, i) || sentinels[i].Error() != string(c) || CodeOf(fmt.Errorf("x: %w", e)) != c {
			t.Error(e)
		}
		if back := FromHeader(string(c), e.Message); back.Error() != e.Error() {
			t.Error(back)
		}
		if errors.Is(e, &Error{Code: c, Message: "another"}) {
			t.Errorf("%v matches a target with a message", e)
		}
	}
	if strings.Join(got, " ") != list {
		t.Errorf("codes are %v", got)
	}
	Codes()[0] = "changed"
	if Codes()[0] != NoServer {
		t.Error("the list can be changed from outside")
	}
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Code
	}{
		{nil, ""},
		{io.EOF, Internal},
		{context.DeadlineExceeded, Timeout},
		{fmt.Errorf("x: %w", context.Canceled), Canceled},
		{fmt.Errorf("x: %w", subjects.ErrBadName), BadName},
		{Errorf(Busy, "x: %w", context.Canceled), Busy},
		{errors.Join(io.EOF, ErrLimit), Limit},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
		if e := AsError(c.err); c.err != nil && (e.Code != c.want || !errors.Is(e, c.err)) {
			t.Errorf("%v: %v", c.err, e)
		}
	}
	if AsError(nil) != nil {
		t.Error("nil is an error")
	}
}

func TestCauseIsKept(t *testing.T) {
	one := Errorf(Denied, "open: %w", io.EOF)
	two := Errorf(Denied, "%w and %w", io.EOF, context.Canceled)
	if !errors.Is(one, io.EOF) || !errors.Is(two, io.EOF) || !errors.Is(two, context.Canceled) || Errorf(Denied, "x").Unwrap() != nil {
		t.Error("a cause is lost")
	}
	if AsError(one) != one {
		t.Error("an *Error is not itself")
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("kv: put a: %w", Errorf(Busy, "two writers")), "busy: kv: put a: two writers"},
		{fmt.Errorf("wrapped: %w", ErrBusy), "busy: wrapped: "},
		{io.EOF, "internal: EOF"},
	} {
		if got := AsError(c.err).Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestFromHeader(t *testing.T) {
	e := FromHeader("from-the-future", "text")
	if e.Code != Internal || e.Message != `unknown code "from-the-future": text` {
		t.Error(e)
	}
	for _, text := range []string{strings.Repeat("é", 5000), "x" + strings.Repeat("é", 5000), strings.Repeat("\xff", 5000), strings.Repeat("🧵", 3000)} {
		for _, e := range []*Error{FromHeader("busy", text), FromHeader(text, text)} {
			if n := len(e.Message); n > 4096 || n < 4000 && text[0] != 0xff || !utf8.ValidString(e.Message) {
				t.Errorf("%d bytes, valid %v", n, utf8.ValidString(e.Message))
			}
		}
	}
}
