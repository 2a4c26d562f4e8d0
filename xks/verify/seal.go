package verify

import (
	"context"
	"fmt"

	"github.com/hyok-kms/hyok/xks"
)

// sealed is the answer of Encrypt.
type sealed struct {
	ciphertext, iv, tag []byte
	metadata            []byte // nil if the answer has none
	answer              answer
}

// encryptBody makes the body of Encrypt; a nil aad is left out, an empty one is not.
func encryptBody(plaintext, aad []byte) object {
	o := object{"plaintext": plaintext, "encryptionAlgorithm": xks.AlgorithmAESGCM}
	if aad != nil {
		o["additionalAuthenticatedData"] = aad
	}
	return o
}

// decryptBody makes the body of the Decrypt that undoes s.
func (s sealed) decryptBody(aad []byte) object {
	o := object{
		"ciphertext":           s.ciphertext,
		"initializationVector": s.iv,
		"authenticationTag":    s.tag,
		"encryptionAlgorithm":  xks.AlgorithmAESGCM,
	}
	if s.metadata != nil {
		o["ciphertextMetadata"] = s.metadata
	}
	if aad != nil {
		o["additionalAuthenticatedData"] = aad
	}
	return o
}

// seal encrypts. It demands a complete answer, but leaves lengths to the
// checks that are about them.
func (p *prober) seal(ctx context.Context, key string, plaintext, aad []byte, edits ...edit) (sealed, error) {
	a := p.send(ctx, p.callWith(encrypt, key, encryptBody(plaintext, aad), edits...))
	if err := a.accepted(); err != nil {
		return sealed{}, fmt.Errorf("encrypt: %w", err)
	}
	s := sealed{answer: a}
	for name, member := range map[string]*[]byte{
		"ciphertext": &s.ciphertext, "initializationVector": &s.iv, "authenticationTag": &s.tag,
	} {
		var err error
		if *member, err = a.bytes(name); err != nil {
			return sealed{}, fmt.Errorf("encrypt: %w", err)
		}
	}
	if a.has("ciphertextMetadata") {
		var err error
		if s.metadata, err = a.bytes("ciphertextMetadata"); err != nil {
			return sealed{}, fmt.Errorf("encrypt: %w", err)
		}
	}
	return s, nil
}

// open asks to decrypt s.
func (p *prober) open(ctx context.Context, key string, s sealed, aad []byte, edits ...edit) answer {
	return p.send(ctx, p.callWith(decrypt, key, s.decryptBody(aad), edits...))
}
