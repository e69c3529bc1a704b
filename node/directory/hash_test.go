package directory_test

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// hashOf is a manifest's name as the wire specification has it.
func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:26])
}
