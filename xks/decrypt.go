package xks

import (
	"context"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// parseDecrypt reads what is to be opened. Whatever is wrong with ciphertext,
// IV or tag is an InvalidCiphertextException, as the table of error codes says.
func (c *call) parseDecrypt() (err *Error) {
	if c.ciphertext, err = c.decodeSealed("ciphertext", c.ciphertext, c.in.Ciphertext, MaxText); err != nil {
		return err
	}
	if c.iv, err = c.decodeSealed("initializationVector", c.iv, c.in.IV, MaxText); err != nil {
		return err
	}
	if !validIVSize(len(c.iv)) {
		return refuse(InvalidCiphertextException, "initializationVector must have 12 or 16 bytes.")
	}
	if c.tag, err = c.decodeSealed("authenticationTag", c.tag, c.in.Tag, MaxText); err != nil {
		return err
	}
	if len(c.tag) != TagSize {
		return refuse(InvalidCiphertextException, "authenticationTag must have %d bytes.", TagSize)
	}
	c.sealed = Sealed{IV: c.iv, Ciphertext: c.ciphertext, Tag: c.tag}
	if err := c.decodeMetadata(); err != nil {
		return err
	}
	return c.decodeAAD()
}

func (c *call) decodeSealed(name string, dst []byte, v jsontext.Value, limit int) ([]byte, *Error) {
	dst, err := c.decode(dst, v, limit)
	switch {
	case err == errTooLong:
		return dst, tooLarge(name, limit)
	case err != nil:
		return dst, refuse(InvalidCiphertextException, "%s must be a string of standard Base64 with padding.", name)
	case len(dst) == 0:
		return dst, refuse(InvalidCiphertextException, "%s is missing or empty: send what Encrypt answered.", name)
	}
	return dst, nil
}

func (c *call) decodeMetadata() *Error {
	var err error
	c.metadata, err = c.decode(c.metadata, c.in.CiphertextMetadata, MaxMetadataSize)
	if err != nil {
		return refuse(ValidationException, "ciphertextMetadata must be standard Base64 of at most %d bytes.", MaxMetadataSize)
	}
	return nil
}

// decrypt opens the ciphertext under the version that its metadata names.
func (c *call) decrypt(ctx context.Context, key Key) error {
	var ok bool
	c.version, c.tokenAAD, ok = resolve(c.tokenAAD[:0], c.aad, present(c.in.AAD), c.metadata, c.store.SampleMetadata)
	if !ok {
		return refuse(InvalidCiphertextException, "ciphertextMetadata is not what Encrypt answered.")
	}
	plaintext, err := key.Decrypt(ctx, c.version, c.sealed, c.tokenAAD)
	defer clear(plaintext)
	if err != nil {
		return err
	}
	if len(plaintext) != len(c.ciphertext) {
		return fmt.Errorf("token opened %d bytes as %d: check its profile", len(c.ciphertext), len(plaintext))
	}
	// All room at once: growing would leave a copy of the plaintext behind.
	out := slices.Grow(c.out[:0], c.base64.EncodedLen(len(plaintext))+len(`{"plaintext":""}`))
	out = append(out, `{"plaintext":"`...)
	out = c.base64.AppendEncode(out, plaintext)
	c.out = append(out, `"}`...)
	return nil
}
