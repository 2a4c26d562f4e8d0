package verify

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/hyok-kms/hyok/xks"
)

// decryptChecks are about Decrypt.
func decryptChecks() []Check {
	checks := slices.Concat(keyIDChecks(decrypt), decryptRequestChecks(), aadChecks(), damageChecks(), metadataMemberChecks())
	for _, operation := range []string{"Decrypt", "ReEncrypt"} {
		checks = append(checks, accepts("decrypt.for."+operation, decrypt.section(), "Decrypt for "+operation+" succeeds",
			Must, decrypt, set("requestMetadata.kmsOperation", operation)))
	}
	return append(checks, Check{ID: "decrypt.other-key", Section: decrypt.section(), Level: Must,
		Title: "ciphertext of another key is InvalidCiphertextException", run: otherKey})
}

// decryptRequestChecks damage the members of the request one at a time.
func decryptRequestChecks() []Check {
	section := decrypt.section()
	var checks []Check
	for _, member := range []string{"ciphertext", "initializationVector", "authenticationTag"} {
		checks = append(checks,
			refuses("decrypt.requires."+member, section, "no "+member+" is refused", Must, decrypt, badInput, drop(member)),
			refuses("decrypt.not-base64."+member, section, member+" that is not Base64 is refused", Must, decrypt, badInput, set(member, "!verify!")),
			refuses("decrypt.number."+member, section, "a number as "+member+" is refused", Must, decrypt, badInput, set(member, 1234)),
		)
	}
	return append(checks,
		refuses("decrypt.requires.encryptionAlgorithm", section, "no encryptionAlgorithm is ValidationException", Must, decrypt, invalid, drop("encryptionAlgorithm")),
		refuses("decrypt.algorithm", section, "an unknown encryptionAlgorithm is refused", Must, decrypt, unsupported, set("encryptionAlgorithm", "AES_CBC")),
		refuses("decrypt.not-base64.aad", section, "additionalAuthenticatedData that is not Base64 is refused", Must, decrypt, badInput, set("additionalAuthenticatedData", "!verify!")),
		refuses("decrypt.not-base64.metadata", section, "ciphertextMetadata that is not Base64 is refused", Must, decrypt, badInput, set("ciphertextMetadata", "!verify!")),
	)
}

// tampering is a check that ciphertext is refused after something about it,
// or about its AAD, was changed.
func tampering(id, title string, want refusal, aad []byte, change func(s *sealed, aad *[]byte) error) Check {
	return Check{ID: "decrypt." + id, Section: decrypt.section(), Title: title, Level: Must,
		run: func(ctx context.Context, p *prober) error {
			s, err := p.seal(ctx, p.target.KeyID, []byte(samplePlaintext), aad)
			if err != nil {
				return err
			}
			aad := aad
			if err := change(&s, &aad); err != nil {
				return err
			}
			return p.open(ctx, p.target.KeyID, s, aad).refused(want.names()...)
		}}
}

var errNoMetadata = skipf("the proxy returns no ciphertextMetadata")

// aadChecks decrypt with another AAD than was used to encrypt.
func aadChecks() []Check {
	aad := []byte(sampleAAD)
	return []Check{
		tampering("aad.missing", "AAD left out is InvalidCiphertextException", badCiphertext, aad,
			func(_ *sealed, aad *[]byte) error { *aad = nil; return nil }),
		tampering("aad.other", "another AAD is InvalidCiphertextException", badCiphertext, aad,
			func(_ *sealed, aad *[]byte) error { *aad = []byte("project=blue,department=finance"); return nil }),
		tampering("aad.added", "AAD where there was none is InvalidCiphertextException", badCiphertext, nil,
			func(_ *sealed, aad *[]byte) error { *aad = []byte(sampleAAD); return nil }),
		tampering("aad.extended", "AAD with a byte more is InvalidCiphertextException", badCiphertext, aad,
			func(_ *sealed, aad *[]byte) error { *aad = slices.Concat(*aad, []byte{0}); return nil }),
		tampering("aad.last-bit", "AAD of 8192 bytes with another last bit is InvalidCiphertextException", badCiphertext, make([]byte, xks.MinAADLimit),
			func(_ *sealed, aad *[]byte) error { *aad = flipped(*aad, len(*aad)-1); return nil }),
		tampering("aad.is-metadata", "ciphertextMetadata passed as AAD is refused", badInput, nil,
			func(s *sealed, aad *[]byte) error {
				if s.metadata == nil {
					return errNoMetadata
				}
				*aad, s.metadata = s.metadata, nil
				return nil
			}),
		tampering("aad.has-metadata", "ciphertextMetadata passed as the end of the AAD is refused", badInput, aad,
			func(s *sealed, aad *[]byte) error {
				if s.metadata == nil {
					return errNoMetadata
				}
				*aad, s.metadata = slices.Concat(*aad, s.metadata), nil
				return nil
			}),
	}
}

// flipped returns a copy with the lowest bit of one byte inverted.
func flipped(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// damageChecks alter ciphertext, IV and tag.
func damageChecks() []Check {
	aad := []byte(sampleAAD)
	// length cuts a member to n bytes, or fills it up with zeros.
	length := func(member func(*sealed) *[]byte, n int) func(*sealed, *[]byte) error {
		return func(s *sealed, _ *[]byte) error {
			m := member(s)
			*m = slices.Concat(*m, make([]byte, n))[:n]
			return nil
		}
	}
	ciphertext := func(s *sealed) *[]byte { return &s.ciphertext }
	iv := func(s *sealed) *[]byte { return &s.iv }
	tag := func(s *sealed) *[]byte { return &s.tag }
	return []Check{
		everyByte("ciphertext.altered", "ciphertext with any byte altered is InvalidCiphertextException", badCiphertext, ciphertext),
		everyByte("iv.altered", "initializationVector with any byte altered is InvalidCiphertextException", badCiphertext, iv),
		everyByte("tag.altered", "authenticationTag with any byte altered is InvalidCiphertextException", badCiphertext, tag),
		tampering("ciphertext.truncated", "truncated ciphertext is InvalidCiphertextException", badCiphertext, aad, length(ciphertext, len(samplePlaintext)-1)),
		tampering("ciphertext.extended", "ciphertext with a byte more is InvalidCiphertextException", badCiphertext, aad, length(ciphertext, len(samplePlaintext)+1)),
		tampering("ciphertext.empty", "empty ciphertext is refused", badInput, aad, length(ciphertext, 0)),
		tampering("iv.other", "an initializationVector of 16 bytes that was not used is refused", badInput, aad,
			func(s *sealed, _ *[]byte) error { s.iv = filled(16); return nil }),
		tampering("iv.empty", "an empty initializationVector is refused", badInput, aad, length(iv, 0)),
		tampering("iv.short", "an initializationVector of 11 bytes is refused", badInput, aad, length(iv, 11)),
		tampering("iv.between", "an initializationVector of 13 bytes is refused", badInput, aad, length(iv, 13)),
		tampering("iv.long", "an initializationVector of 17 bytes is refused", badInput, aad, length(iv, 17)),
		tampering("tag.empty", "an empty authenticationTag is refused", badInput, aad, length(tag, 0)),
		tampering("tag.short", "an authenticationTag of 12 bytes is refused", badInput, aad, length(tag, 12)),
		tampering("tag.truncated", "an authenticationTag of 15 bytes is refused", badInput, aad, length(tag, 15)),
		tampering("tag.long", "an authenticationTag of 17 bytes is refused", badInput, aad, length(tag, 17)),
	}
}

// metadataMemberChecks alter ciphertextMetadata. The table of error codes does
// not name it, so both errors will do.
func metadataMemberChecks() []Check {
	aad := []byte(sampleAAD)
	return []Check{
		everyByte("metadata.altered", "ciphertextMetadata with any byte altered is refused", badInput, func(s *sealed) *[]byte { return &s.metadata }),
		tampering("metadata.removed", "ciphertextMetadata left out is refused", badInput, aad, func(s *sealed, _ *[]byte) error {
			if s.metadata == nil {
				return errNoMetadata
			}
			s.metadata = nil
			return nil
		}),
		tampering("metadata.added", "ciphertextMetadata where there was none is refused", badInput, aad, func(s *sealed, _ *[]byte) error {
			if s.metadata != nil {
				return skipf("the proxy always returns ciphertextMetadata")
			}
			s.metadata = []byte("verify")
			return nil
		}),
		tampering("metadata.extended", "ciphertextMetadata with a byte more is refused", badInput, aad, func(s *sealed, _ *[]byte) error {
			s.metadata = slices.Concat(s.metadata, []byte{0})
			return nil
		}),
		tampering("metadata.long", "ciphertextMetadata of 21 bytes is refused", badInput, aad, func(s *sealed, _ *[]byte) error {
			s.metadata = make([]byte, xks.MaxMetadataSize+1)
			return nil
		}),
	}
}

// everyByte is a check that flips a bit in each byte of a member in turn.
func everyByte(id, title string, want refusal, member func(*sealed) *[]byte) Check {
	return Check{ID: "decrypt." + id, Section: decrypt.section(), Title: title, Level: Must,
		run: func(ctx context.Context, p *prober) error {
			s, err := p.seal(ctx, p.target.KeyID, []byte(samplePlaintext), []byte(sampleAAD))
			if err != nil {
				return err
			}
			original := *member(&s)
			if len(original) == 0 {
				return errNoMetadata
			}
			for i := range original {
				*member(&s) = flipped(original, i)
				if err := p.open(ctx, p.target.KeyID, s, []byte(sampleAAD)).refused(want.names()...); err != nil {
					return fmt.Errorf("byte %d of %d: %w", i+1, len(original), err)
				}
			}
			return nil
		}}
}

func otherKey(ctx context.Context, p *prober) error {
	if p.target.EncryptOnlyKeyID == "" {
		return skipf("no encrypt-only key given")
	}
	s, err := p.seal(ctx, p.target.EncryptOnlyKeyID, []byte(samplePlaintext), nil)
	if err != nil {
		return fmt.Errorf("with the encrypt-only key: %w", err)
	}
	return p.open(ctx, p.target.KeyID, s, nil).refused(badCiphertext.names()...)
}
