package edge

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"
)

// tokens makes and checks the three kinds of token: the one of the file, access
// tokens, which are signed, and gateway tokens, which are remembered.
type tokens struct {
	file string // "" without a file
	key  []byte // signs access tokens
	now  func() time.Time

	mu     sync.Mutex
	issued map[[sha256.Size]byte]gatewayToken
	queue  []queued // oldest first
}

type gatewayToken struct {
	login, application, origin string
	expires                    time.Time
}

type queued struct {
	digest  [sha256.Size]byte
	expires time.Time
}

// openTokens reads the file. The key that signs is made from the file's token:
// what was signed is good after a restart, and no longer when the file is
// replaced. Whoever has the file's token may be anybody here in any case.
func openTokens(file string, now func() time.Time) (*tokens, error) {
	t := &tokens{now: now, issued: map[[sha256.Size]byte]gatewayToken{}}
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails
	if file != "" {
		var err error
		if t.file, err = loadToken(file); err != nil {
			return nil, err
		}
		secret = []byte(t.file)
	}
	var err error
	t.key, err = hkdf.Key(sha256.New, secret, nil, "weft gateway access token", sha256.Size)
	return t, err
}

// isFile says whether a secret is the token of the file.
func (t *tokens) isFile(secret string) bool {
	return t.file != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(t.file)) == 1
}

// claims is what an access token says.
type claims struct {
	User    string `json:"user"`
	Expires int64  `json:"exp"` // seconds since 1970
}

// access makes an access token: the claims, a dot, and their signature.
func (t *tokens) access(login string) string {
	body, _ := json.Marshal(claims{login, t.now().Add(AccessTokenLife).Unix()}) // two plain fields never fail
	text := encoding.EncodeToString(body)
	return text + "." + t.sign(text)
}

func (t *tokens) sign(text string) string {
	mac := hmac.New(sha256.New, t.key)
	mac.Write([]byte(text))
	return encoding.EncodeToString(mac.Sum(nil))
}

// maxToken is far more than an access token with the longest login.
const maxToken = 4 << 10

// checkAccess returns the login of an access token.
func (t *tokens) checkAccess(token string) (login string, err error) {
	text, signature, ok := strings.Cut(token, ".")
	if !ok || len(token) > maxToken || !hmac.Equal([]byte(signature), []byte(t.sign(text))) {
		return "", errors.New("it was not made by this gateway")
	}
	body, err := encoding.DecodeString(text)
	if err != nil {
		return "", errors.New("malformed")
	}
	var c claims
	if err := json.Unmarshal(body, &c); err != nil {
		return "", errors.New("malformed")
	}
	if t.now().Unix() >= c.Expires {
		return "", errors.New("its time is over")
	}
	return c.User, nil
}

// gateway makes a gateway token. Tokens are found by their digest, so that the
// time a search takes says nothing about them.
func (t *tokens) gateway(login, application, origin string) string {
	token := newToken()
	digest := sha256.Sum256([]byte(token))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(MaxGatewayTokens - 1)
	expires := t.now().Add(GatewayTokenLife)
	t.issued[digest] = gatewayToken{login, application, origin, expires}
	t.queue = append(t.queue, queued{digest, expires})
	return token
}

// forget drops what is over, and the oldest above a number.
func (t *tokens) forget(most int) {
	now := t.now()
	for len(t.queue) > 0 && (len(t.queue) > most || !now.Before(t.queue[0].expires)) {
		delete(t.issued, t.queue[0].digest)
		t.queue = t.queue[1:]
	}
}

// take uses a gateway token up, if there is one that is not over.
func (t *tokens) take(token string) (gatewayToken, bool) {
	digest := sha256.Sum256([]byte(token))
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok := t.issued[digest]
	delete(t.issued, digest)
	return g, ok && t.now().Before(g.expires)
}
