package xks

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
)

func (c *call) parseEncrypt() (err *Error) {
	if err := checkString("plaintext", c.in.Plaintext, true); err != nil {
		return err
	}
	if err := checkString("ciphertextDataIntegrityValueAlgorithm", c.in.CDIVAlgorithm, false); err != nil {
		return err
	}
	if c.wantsCDIV() && !isString(c.in.CDIVAlgorithm, CDIVSHA256) {
		return refuse(ValidationException, "ciphertextDataIntegrityValueAlgorithm must be %s, or be left out.", CDIVSHA256)
	}
	if c.plaintext, err = c.decodeParameter("plaintext", c.plaintext, c.in.Plaintext, MaxText); err != nil {
		return err
	}
	return c.decodeAAD()
}

func (c *call) wantsCDIV() bool { return present(c.in.CDIVAlgorithm) }

// encrypt seals the plaintext under the newest version of the key.
func (c *call) encrypt(ctx context.Context, key Key) error {
	c.version = key.Newest()
	c.metadata = appendMetadata(c.metadata[:0], c.version)
	c.tokenAAD = appendTokenAAD(c.tokenAAD[:0], c.aad, c.metadata)
	sealed, err := key.Encrypt(ctx, c.version, c.plaintext, c.tokenAAD)
	if err != nil {
		return err
	}
	if err := checkSealed(sealed, len(c.plaintext)); err != nil {
		return err
	}
	c.sealed = sealed
	if c.wantsCDIV() {
		// Appendix C: the value comes first, so that what is corrupted
		// while the token decrypts no longer matches it.
		c.cdiv = appendCDIV(c.cdiv[:0], c.digest, c.aad, c.metadata, sealed)
		if err := c.verifySealed(ctx, key); err != nil {
			return err
		}
	}
	c.appendEncryptResponse()
	return nil
}

// checkSealed refuses what AWS KMS would: a token that is set up wrongly must
// not have its output stored.
func checkSealed(sealed Sealed, plaintext int) error {
	if len(sealed.Ciphertext) != plaintext || len(sealed.Tag) != TagSize || !validIVSize(len(sealed.IV)) {
		return fmt.Errorf("token sealed %d bytes as ciphertext, IV and tag of %d, %d and %d bytes: check its profile",
			plaintext, len(sealed.Ciphertext), len(sealed.IV), len(sealed.Tag))
	}
	return nil
}

func validIVSize(n int) bool { return n == IVSize || n == 16 }

// verifySealed decrypts from the very buffers that will be answered.
func (c *call) verifySealed(ctx context.Context, key Key) error {
	opened, err := key.Decrypt(ctx, c.version, c.sealed, c.tokenAAD)
	defer clear(opened)
	var known *Error
	if errors.As(err, &known) && known.Name == InvalidCiphertextException {
		return &Error{InternalException, "The token cannot decrypt what it encrypted: nothing was returned.", err}
	}
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(opened, c.plaintext) != 1 {
		return &Error{InternalException, "The token decrypted to something else than it encrypted: nothing was returned.", nil}
	}
	return nil
}

// appendCDIV appends the ciphertext data integrity value (appendix C).
func appendCDIV(dst []byte, digest hash.Hash, aad, metadata []byte, sealed Sealed) []byte {
	digest.Reset()
	for _, part := range [...][]byte{aad, metadata, sealed.IV, sealed.Ciphertext, sealed.Tag} {
		_, _ = digest.Write(part) // a hash.Hash never fails
	}
	return digest.Sum(dst)
}

func (c *call) appendEncryptResponse() {
	out := append(c.out[:0], `{"authenticationTag":"`...)
	out = c.base64.AppendEncode(out, c.sealed.Tag)
	out = append(out, `","ciphertext":"`...)
	out = c.base64.AppendEncode(out, c.sealed.Ciphertext)
	if c.wantsCDIV() {
		out = append(out, `","ciphertextDataIntegrityValue":"`...)
		out = c.base64.AppendEncode(out, c.cdiv)
	}
	out = append(out, `","ciphertextMetadata":"`...)
	out = c.base64.AppendEncode(out, c.metadata)
	out = append(out, `","initializationVector":"`...)
	out = c.base64.AppendEncode(out, c.sealed.IV)
	c.out = append(out, `"}`...)
}
