package xks

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
)

// Credential authenticates AWS KMS to a key store (appendix A). Its String,
// GoString and LogValue forms leave the secret out.
type Credential struct {
	AccessKeyID     string // 20 to 30 characters of A-Z and 2-7
	SecretAccessKey string // 43 to 64 characters of a-z, A-Z, 0-9, '/', '+', '='
}

// NewCredential makes a credential with 120 bits of access key id and 256 bits
// of secret from the operating system's generator.
func NewCredential() Credential {
	var id [15]byte
	var secret [32]byte
	// crypto/rand.Read never fails: it ends the program instead.
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(secret[:])
	return Credential{
		AccessKeyID:     base32.StdEncoding.EncodeToString(id[:]),
		SecretAccessKey: base64.StdEncoding.EncodeToString(secret[:]),
	}
}

// Validate reports whether both parts have the form that AWS KMS accepts. The
// error never contains the secret.
func (c Credential) Validate() error {
	if err := ValidateAccessKeyID(c.AccessKeyID); err != nil {
		return err
	}
	if n := len(c.SecretAccessKey); n < 43 || n > 64 {
		return fmt.Errorf("secret access key of %s has %d characters: it must have 43 to 64", c.AccessKeyID, n)
	}
	for _, ch := range []byte(c.SecretAccessKey) {
		if !isAlphanumeric(ch) && ch != '/' && ch != '+' && ch != '=' {
			return fmt.Errorf("secret access key of %s has a character outside a-z, A-Z, 0-9, '/', '+', '='", c.AccessKeyID)
		}
	}
	return nil
}

// ValidateAccessKeyID reports whether id has 20 to 30 characters of A-Z and 2-7.
func ValidateAccessKeyID(id string) error {
	if n := len(id); n < 20 || n > 30 {
		return fmt.Errorf("access key id has %d characters: it must have 20 to 30", n)
	}
	for _, ch := range []byte(id) {
		if (ch < 'A' || ch > 'Z') && (ch < '2' || ch > '7') {
			return errors.New("access key id has a character outside A-Z and 2-7")
		}
	}
	return nil
}

// String returns the access key id alone.
func (c Credential) String() string { return c.AccessKeyID }

// GoString returns the access key id alone.
func (c Credential) GoString() string { return "xks.Credential{" + c.AccessKeyID + "}" }

// LogValue returns the access key id alone.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.AccessKeyID) }

func isAlphanumeric(ch byte) bool {
	return 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z' || '0' <= ch && ch <= '9'
}
