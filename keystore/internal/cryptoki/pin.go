package cryptoki

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/scrypt"
)

// The cost of a digest of a PIN: a tenth of a second and 32 MiB.
const (
	scryptCost      = 1 << 15
	scryptBlockSize = 8
	scryptParallel  = 1
	digestSize      = 32
)

// DigestPIN reads a PIN and returns its slow digest, which tells little of the PIN to
// whoever has it.
func DigestPIN(read PIN, salt []byte) ([]byte, error) {
	pin, err := read()
	if err != nil {
		return nil, err
	}
	return digestPIN(pin, salt)
}

func digestPIN(pin string, salt []byte) ([]byte, error) {
	secret := []byte(pin)
	defer clear(secret)
	digest, err := scrypt.Key(secret, salt, scryptCost, scryptBlockSize, scryptParallel, digestSize)
	if err != nil {
		return nil, fmt.Errorf("digest the PIN: %w", err)
	}
	return digest, nil
}

// RefusesPIN reports whether err says that a PIN is not the right one. That it is
// locked or expired says nothing of it.
func RefusesPIN(err error) bool {
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return false
	}
	switch uint(code) {
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE:
		return true
	}
	return false
}
