package edge

import (
	"cmp"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/weft-fabric/weft/wire"
)

// Credentials is what a client's hello says of itself.
type Credentials struct {
	// Method is secret, access-token or gateway-token.
	Method string
	// Login is who the client says it is. Methods with a token need none.
	Login string
	// Secret is the secret of the method secret. It may be empty but not
	// missing: NoSecret says that the hello has none, or null.
	Secret   string
	NoSecret bool
	// Token is the token of the methods access-token and gateway-token.
	Token string
	// Provider is empty or basic; there are no others.
	Provider string
}

// Grant is what an authenticated client may be.
type Grant struct {
	// Login is the user. It is the name of the node's OS user when the client
	// showed the token of the file and gave no login.
	Login string
	// AccessToken lets the client in again without its secret, for
	// AccessTokenLife, also after a restart if there is a token file. It is
	// empty for a gateway token.
	AccessToken string
	// ByGatewayToken says that the client came with a gateway token. Such a
	// client has a user and no login of its own.
	ByGatewayToken bool
}

// AuthError is a refusal by Authenticate. Its text is the reason that clients
// of this protocol know, and its code is wire.Denied.
type AuthError struct {
	Reason string
	// BadGatewayToken tells a gateway token that is not good from all other
	// failures, because clients are told of the two differently.
	BadGatewayToken bool
}

func (e *AuthError) Error() string { return e.Reason }

// Unwrap makes wire.CodeOf answer wire.Denied.
func (e *AuthError) Unwrap() error { return wire.ErrDenied }

// Authenticate decides whether a client may be who it says. It is the one place
// where that is decided. The error is an *AuthError, and logged.
func (e *Edge) Authenticate(c *Conn, cr Credentials) (Grant, error) {
	grant, failure := e.check(c, cr)
	switch {
	case failure == nil:
		return grant, nil
	case !failure.BadGatewayToken: // that one is logged where more is known
		e.Failed(c, "authentication failed")
	}
	return Grant{}, failure
}

func (e *Edge) check(c *Conn, cr Credentials) (Grant, *AuthError) {
	if cr.Provider != "" && cr.Provider != "basic" {
		return failed("Requested authentication provider :" + clip(cr.Provider, 64) + " is not available")
	}
	if len(cr.Login) > MaxLogin || !utf8.ValidString(cr.Login) {
		return failed("The login is too long or not valid UTF-8")
	}
	switch cr.Method {
	case "secret":
		return e.bySecret(c.origin, cr)
	case "access-token":
		return e.byAccessToken(cr)
	case "gateway-token":
		return e.byGatewayToken(c, cr)
	}
	return failed("Unknown authentication method " + clip(cr.Method, 64))
}

// bySecret takes native apps at their word where that is configured: the kernel
// has said that they are this user's. A page, which anybody may have written,
// must know the token.
func (e *Edge) bySecret(origin string, cr Credentials) (Grant, *AuthError) {
	if cr.Login == "" || cr.NoSecret {
		return failed("Missing login/secret")
	}
	trusted := e.auth == OSUser && origin == ""
	if !trusted && !e.tokens.isFile(cr.Secret) {
		return failed("Invalid secret: this gateway wants its token")
	}
	return Grant{Login: cr.Login, AccessToken: e.tokens.access(cr.Login)}, nil
}

func (e *Edge) byAccessToken(cr Credentials) (Grant, *AuthError) {
	if e.tokens.isFile(cr.Token) {
		return Grant{Login: cmp.Or(cr.Login, e.account), AccessToken: cr.Token}, nil
	}
	login, err := e.tokens.checkAccess(cr.Token)
	if err != nil {
		return failed("Invalid or expired token: " + err.Error())
	}
	return Grant{Login: login, AccessToken: cr.Token}, nil
}

func (e *Edge) byGatewayToken(c *Conn, cr Credentials) (Grant, *AuthError) {
	token, ok := e.tokens.take(cr.Token)
	switch {
	case !ok:
		e.Failed(c, "gateway token unknown, used or too old")
	case token.origin != c.origin:
		e.refuse("gateway token of another origin", c.remote, c.host, c.origin,
			slog.String("made_for", clip(token.application, 128)), slog.String("made_at", token.origin))
	default:
		return Grant{Login: token.login, ByGatewayToken: true}, nil
	}
	return Grant{}, &AuthError{Reason: "invalid token", BadGatewayToken: true}
}

func failed(reason string) (Grant, *AuthError) { return Grant{}, &AuthError{Reason: reason} }

// GatewayToken makes a token with which one other connection can log in once as
// the same login, within GatewayTokenLife and from the same Origin as c. The
// application is the one that asked.
func (e *Edge) GatewayToken(login, application string, c *Conn) string {
	return e.tokens.gateway(login, application, c.origin)
}

// clip shortens what a client sent, as valid UTF-8 of at most n bytes.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
