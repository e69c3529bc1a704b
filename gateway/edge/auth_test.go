package edge

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-fabric/weft/wire"
)

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// opened is an edge that does not serve.
func opened(t *testing.T, cfg Config, c *clock) *Edge {
	t.Helper()
	sys := thisSystem()
	if c != nil {
		sys.now = c.Now
	}
	e, err := open(cfg, sys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(); e.refusals.close() })
	return e
}

func TestAuthenticate(t *testing.T) {
	for _, auth := range []Auth{OSUser, Token} {
		cfg := local(t)
		cfg.Origins, cfg.Auth = []string{page}, auth
		e := opened(t, cfg, nil)
		token, access := e.Token(), e.tokens.access("carol")
		for _, tt := range []struct {
			name         string
			cr           Credentials
			native, page string // the error of each, "" if there is none
			login        string
		}{
			{"the token", Credentials{Method: "secret", Login: "anna", Secret: token}, "", "", "anna"},
			{"basic provider", Credentials{Method: "secret", Login: "anna", Secret: token, Provider: "basic"}, "", "", "anna"},
			{"any secret", Credentials{Method: "secret", Login: "anna", Secret: "p"}, wrongUnless(auth), wrongSecret, "anna"},
			{"empty secret", Credentials{Method: "secret", Login: "anna"}, wrongUnless(auth), wrongSecret, "anna"},
			{"access token as secret", Credentials{Method: "secret", Login: "anna", Secret: access}, wrongUnless(auth), wrongSecret, "anna"},
			{"part of the token", Credentials{Method: "secret", Login: "anna", Secret: token[:42]}, wrongUnless(auth), wrongSecret, "anna"},
			{"no secret", Credentials{Method: "secret", Login: "anna", NoSecret: true}, "Missing login/secret", "Missing login/secret", ""},
			{"no login", Credentials{Method: "secret", Secret: token}, "Missing login/secret", "Missing login/secret", ""},
			{"long login", Credentials{Method: "secret", Login: strings.Repeat("a", 256), Secret: token}, longLogin, longLogin, ""},
			{"bad login", Credentials{Method: "secret", Login: "\xff", Secret: token}, longLogin, longLogin, ""},
			{"access token", Credentials{Method: "access-token", Token: access}, "", "", "carol"},
			{"access token, another login", Credentials{Method: "access-token", Token: access, Login: "anna"}, "", "", "carol"},
			{"file's token", Credentials{Method: "access-token", Token: token}, "", "", e.account},
			{"file's token with login", Credentials{Method: "access-token", Token: token, Login: "anna"}, "", "", "anna"},
			{"empty access token", Credentials{Method: "access-token"}, badToken, badToken, ""},
			{"foreign access token", Credentials{Method: "access-token", Token: "a.b.c"}, badToken, badToken, ""},
			{"no such method", Credentials{Method: "nope"}, "Unknown authentication method nope", "Unknown authentication method nope", ""},
			{"no method", Credentials{Login: "anna", Secret: token}, "Unknown authentication method ", "Unknown authentication method ", ""},
			{"provider", Credentials{Provider: "win", Method: "access-token", Token: access}, noProvider, noProvider, ""},
			{"long method", Credentials{Method: strings.Repeat("m", 1000)}, "Unknown authentication method " + strings.Repeat("m", 64), "Unknown authentication method " + strings.Repeat("m", 64), ""},
		} {
			for origin, want := range map[string]string{"": tt.native, page: tt.page} {
				grant, err := e.Authenticate(&Conn{origin: origin}, tt.cr)
				checkGrant(t, fmt.Sprintf("%s, %s, origin %q", auth, tt.name, origin), grant, err, want, tt.login)
			}
		}
	}
}

const (
	wrongSecret = "Invalid secret: this gateway wants its token"
	longLogin   = "The login is too long or not valid UTF-8"
	badToken    = "Invalid or expired token: it was not made by this gateway"
	noProvider  = "Requested authentication provider :win is not available"
)

func wrongUnless(auth Auth) string {
	if auth == OSUser {
		return ""
	}
	return wrongSecret
}

func checkGrant(t *testing.T, name string, grant Grant, err error, want, login string) {
	t.Helper()
	if want == "" {
		if err != nil || grant.Login != login || grant.AccessToken == "" || grant.ByGatewayToken {
			t.Errorf("%s: %+v, %v", name, grant, err)
		}
		return
	}
	failure, ok := errors.AsType[*AuthError](err)
	if !ok || err.Error() != want || failure.BadGatewayToken || wire.CodeOf(err) != wire.Denied || grant != (Grant{}) {
		t.Errorf("%s: %+v, %v; want %q", name, grant, err, want)
	}
}

// TestWithoutTokenFile: no secret of a page is good then, not even an empty one.
func TestWithoutTokenFile(t *testing.T) {
	e := opened(t, Config{Listen: []string{"127.0.0.1:0"}, Origins: []string{page}, Auth: OSUser}, nil)
	if e.Token() != "" {
		t.Errorf("token %q", e.Token())
	}
	for _, cr := range []Credentials{{Method: "secret", Login: "anna"}, {Method: "access-token"}, {Method: "gateway-token"}} {
		if grant, err := e.Authenticate(&Conn{origin: page}, cr); err == nil {
			t.Errorf("%+v got %+v", cr, grant)
		}
	}
	grant, err := e.Authenticate(&Conn{}, Credentials{Method: "secret", Login: "anna"})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := e.Authenticate(&Conn{origin: page}, Credentials{Method: "access-token", Token: grant.AccessToken}); err != nil || again.Login != "anna" {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestAccessTokens(t *testing.T) {
	cfg, now := local(t), newClock()
	e := opened(t, cfg, now)
	use := func(e *Edge, token string) (string, error) {
		grant, err := e.Authenticate(&Conn{}, Credentials{Method: "access-token", Token: token})
		return grant.Login, err
	}
	grant, err := e.Authenticate(&Conn{}, Credentials{Method: "secret", Login: `anna "<é>"`})
	if err != nil {
		t.Fatal(err)
	}
	token := grant.AccessToken
	for range 2 { // it may be used again
		if login, err := use(e, token); err != nil || login != `anna "<é>"` {
			t.Fatalf("%q, %v", login, err)
		}
	}
	for i := range len(token) {
		for _, c := range []byte{'A', token[i] ^ 1, token[i] ^ 0x20, '.', 0} {
			tampered := token[:i] + string(c) + token[i+1:]
			if login, err := use(e, tampered); tampered != token && err == nil {
				t.Errorf("changed at %d: %q", i, login)
			}
		}
	}
	body, signature, _ := strings.Cut(token, ".")
	other, _, _ := strings.Cut(e.tokens.access("root"), ".")
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"user":"root","exp":9999999999}`))
	for name, bad := range map[string]string{
		"cut": token[:len(token)-1], "longer": token + "A", "padded": token + "=", "no signature": body, "empty signature": body + ".",
		"signature of another": other + "." + signature, "forged": forged + "." + signature, "only the signature": "." + signature,
		"huge": strings.Repeat("A", 8<<20) + "." + signature,
	} {
		if login, err := use(e, bad); err == nil {
			t.Errorf("%s: %q", name, login)
		}
	}

	restarted := opened(t, cfg, now)
	if login, err := use(restarted, token); err != nil || login == "" {
		t.Errorf("after a restart: %q, %v", login, err)
	}
	now.pass(AccessTokenLife - time.Second)
	if _, err := use(e, token); err != nil {
		t.Errorf("near its end: %v", err)
	}
	now.pass(time.Second)
	if _, err := use(e, token); err == nil || err.Error() != "Invalid or expired token: its time is over" {
		t.Errorf("after its end: %v", err)
	}

	if err := os.Remove(cfg.TokenFile); err != nil {
		t.Fatal(err)
	}
	renewed := opened(t, cfg, nil)
	if login, err := use(renewed, e.tokens.access("anna")); err == nil {
		t.Errorf("of a deleted file: %q", login)
	}
	if login, err := use(renewed, e.Token()); err == nil {
		t.Errorf("token of a deleted file: %q", login)
	}
}

func TestGatewayTokens(t *testing.T) {
	cfg, now := local(t), newClock()
	cfg.Origins, cfg.Auth = []string{page, "https://other.bank.com"}, Token
	e := opened(t, cfg, now)
	native, web, other := &Conn{}, &Conn{origin: page}, &Conn{origin: "https://other.bank.com"}
	use := func(c *Conn, token string) (Grant, error) {
		return e.Authenticate(c, Credentials{Method: "gateway-token", Token: token, Login: "root"})
	}
	refused := func(name string, c *Conn, token string) {
		t.Helper()
		grant, err := use(c, token)
		failure, ok := errors.AsType[*AuthError](err)
		if !ok || !failure.BadGatewayToken || err.Error() != "invalid token" || grant != (Grant{}) {
			t.Errorf("%s: %+v, %v", name, grant, err)
		}
	}
	for _, c := range []*Conn{native, web} {
		token := e.GatewayToken("anna", "blotter", c)
		grant, err := use(c, token)
		if err != nil || grant != (Grant{Login: "anna", ByGatewayToken: true}) {
			t.Errorf("%+v, %v", grant, err)
		}
		refused("used", c, token)
	}
	refused("empty", native, "")
	refused("invented", native, newToken())
	refused("the file's token", native, e.Token())

	token := e.GatewayToken("anna", "blotter", web)
	refused("another origin", other, token)
	refused("after another origin tried", web, token)
	refused("no origin", native, e.GatewayToken("anna", "blotter", web))
	refused("an origin", web, e.GatewayToken("anna", "blotter", native))
	token = e.GatewayToken("anna", "blotter", web)
	refused("tampered", web, token[:42]+string(token[42]^1))

	now.pass(GatewayTokenLife - time.Second)
	if _, err := use(web, token); err != nil {
		t.Errorf("near its end: %v", err)
	}
	token = e.GatewayToken("anna", "blotter", web)
	now.pass(GatewayTokenLife)
	refused("after its end", web, token)

	first := e.GatewayToken("anna", "blotter", web)
	second := e.GatewayToken("anna", "blotter", web)
	for range MaxGatewayTokens - 1 {
		e.GatewayToken("anna", "blotter", web)
	}
	refused("pushed out", web, first)
	if _, err := use(web, second); err != nil {
		t.Errorf("the next: %v", err)
	}
	if n := len(e.tokens.issued); n >= MaxGatewayTokens || len(e.tokens.queue) > MaxGatewayTokens {
		t.Errorf("%d remembered, %d in line", n, len(e.tokens.queue))
	}
	now.pass(time.Hour)
	e.GatewayToken("anna", "blotter", web)
	if len(e.tokens.issued) != 1 || len(e.tokens.queue) != 1 {
		t.Errorf("%d remembered, %d in line", len(e.tokens.issued), len(e.tokens.queue))
	}
}

func TestTokenFile(t *testing.T) {
	cfg := local(t)
	e := opened(t, cfg, nil)
	if b, err := base64.RawURLEncoding.DecodeString(e.Token()); err != nil || len(b) != 32 {
		t.Errorf("token %q", e.Token())
	}
	for name, want := range map[string]fs.FileMode{cfg.TokenFile: 0o600, filepath.Dir(cfg.TokenFile): fs.ModeDir | 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(cfg.TokenFile)); err != nil || len(entries) != 1 {
		t.Errorf("directory: %v, %v", entries, err)
	}
	if again := opened(t, cfg, nil); again.Token() != e.Token() {
		t.Error("another token at the second start")
	}
	if other := opened(t, local(t), nil); other.Token() == e.Token() {
		t.Error("the same token in another file")
	}
}

func TestBadTokenFile(t *testing.T) {
	dirOf := filepath.Dir
	chown := func(name string) error { // only root may; others have no file of another user to try
		if os.Geteuid() != 0 {
			return os.Chmod(name, 0o604)
		}
		return os.Chown(name, 54321, -1)
	}
	for _, tt := range []struct {
		name  string
		spoil func(file string) error
		is    error
	}{
		{"readable by the group", func(f string) error { return os.Chmod(f, 0o640) }, ErrTokenFile},
		{"readable by all", func(f string) error { return os.Chmod(f, 0o604) }, ErrTokenFile},
		{"writable by all", func(f string) error { return os.Chmod(f, 0o602) }, ErrTokenFile},
		{"of another user", chown, ErrTokenFile},
		{"directory writable by the group", func(f string) error { return os.Chmod(dirOf(f), 0o770) }, ErrTokenFile},
		{"directory writable by all", func(f string) error { return os.Chmod(dirOf(f), 0o1777) }, ErrTokenFile},
		{"directory of another user", func(f string) error {
			if os.Geteuid() != 0 {
				return os.Chmod(dirOf(f), 0o707)
			}
			return os.Chown(dirOf(f), 54321, -1)
		}, ErrTokenFile},
		{"empty", func(f string) error { return os.WriteFile(f, nil, 0o600) }, wire.ErrRejected},
		{"short", func(f string) error { return os.WriteFile(f, []byte("hunter2\n"), 0o600) }, wire.ErrRejected},
		{"too long", func(f string) error { return os.WriteFile(f, []byte(newToken()+newToken()), 0o600) }, wire.ErrRejected},
		{"two lines", func(f string) error { return os.WriteFile(f, []byte(newToken()+"\n"+newToken()), 0o600) }, wire.ErrRejected},
		{"a directory", func(f string) error { return errors.Join(os.Remove(f), os.Mkdir(f, 0o700)) }, wire.ErrRejected},
	} {
		cfg := local(t)
		opened(t, cfg, nil)
		if err := tt.spoil(cfg.TokenFile); err != nil {
			t.Fatal(err)
		}
		e, err := Open(cfg)
		if err == nil {
			_ = e.Close()
		}
		if !errors.Is(err, tt.is) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestTokenFileThatCannotBeMade(t *testing.T) {
	cfg := local(t)
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.TokenFile = filepath.Join(blocked, "token")
	if e, err := Open(cfg); !errors.Is(err, wire.ErrUnavailable) {
		t.Errorf("%v, %v", e, err)
	}
}

// TestTokenFileOfTwo: nodes that start at the same time have the same token.
func TestTokenFileOfTwo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway", "token")
	tokens := make(chan string, 16)
	var starts sync.WaitGroup
	for range cap(tokens) {
		starts.Go(func() {
			token, err := loadToken(file)
			if err != nil {
				t.Error(err)
			}
			tokens <- token
		})
	}
	starts.Wait()
	first := <-tokens
	for range cap(tokens) - 1 {
		if token := <-tokens; token != first || token == "" {
			t.Errorf("tokens %q and %q", first, token)
		}
	}
}

// TestAuthenticateOverTheNetwork: the Origin that counts is that of the
// handshake.
func TestAuthenticateOverTheNetwork(t *testing.T) {
	cfg := local(t)
	cfg.Origins, cfg.Auth = []string{page}, OSUser
	grants := make(chan error, 1)
	var g *gateway
	g = serve(t, cfg, nil, authenticating(&g, grants))
	c := connect(t, g.Addresses()[0])
	if r := c.handshake(); r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(r.Status)
	}
	if err := result(t, grants); err != nil {
		t.Errorf("native: %v", err)
	}
	dial(t, g, "Origin: "+page)
	if err := result(t, grants); err == nil {
		t.Error("a page came in without a token")
	}
	if got := g.log.reasons(); len(got) != 1 || got[0] != "authentication failed" {
		t.Errorf("logged %q", got)
	}
	line := g.log.lines()[len(g.log.lines())-1]
	if line["origin"] != page || line["host"] != g.Addresses()[0] || !strings.HasPrefix(line["remote"].(string), "127.0.0.1:") {
		t.Errorf("logged %v", line)
	}
}
