package verify

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/hyok-kms/hyok/xks"
)

// encryptChecks are about Encrypt.
func encryptChecks() []Check {
	checks := slices.Concat(keyIDChecks(encrypt), encryptRequestChecks(), cdivChecks())
	for _, operation := range []string{"Encrypt", "ReEncrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"} {
		checks = append(checks, accepts("encrypt.for."+operation, encrypt.section(), "Encrypt for "+operation+" succeeds",
			Must, encrypt, set("requestMetadata.kmsOperation", operation)))
	}
	return append(checks,
		sealCheck("ciphertext-length", "ciphertext is as long as plaintext", func(s sealed) error {
			return wantLength("ciphertext", s.ciphertext, len(samplePlaintext))
		}),
		sealCheck("iv-length", "initializationVector has 12 or 16 bytes", func(s sealed) error {
			return wantLength("initializationVector", s.iv, 12, 16)
		}),
		sealCheck("tag-length", "authenticationTag has 16 bytes", func(s sealed) error {
			return wantLength("authenticationTag", s.tag, xks.TagSize)
		}),
		sealCheck("metadata-length", "ciphertextMetadata has at most 20 bytes", metadataLength),
		sealCheck("not-plaintext", "ciphertext differs from plaintext", func(s sealed) error {
			if bytes.Equal(s.ciphertext, []byte(samplePlaintext)) {
				return errors.New("want ciphertext, got the plaintext itself")
			}
			return nil
		}),
		Check{ID: "encrypt.fresh-iv", Section: encrypt.section(), Level: Must,
			Title: "no initializationVector repeats", run: freshIV},
		Check{ID: "encrypt.oversize", Section: secErrors, Level: Should,
			Title: "1 MiB of plaintext is encrypted or UnsupportedOperationException", run: oversize},
	)
}

// sealCheck is a check of what a correct Encrypt with AAD returns.
func sealCheck(id, title string, look func(sealed) error) Check {
	return Check{ID: "encrypt." + id, Section: encrypt.section(), Title: title, Level: Must,
		run: func(ctx context.Context, p *prober) error {
			s, err := p.seal(ctx, p.target.KeyID, []byte(samplePlaintext), []byte(sampleAAD))
			if err != nil {
				return err
			}
			return look(s)
		}}
}

func wantLength(name string, value []byte, lengths ...int) error {
	if slices.Contains(lengths, len(value)) {
		return nil
	}
	return fmt.Errorf("want %s of %s bytes, got %d", name, strings.Trim(strings.Join(strings.Fields(fmt.Sprint(lengths)), " or "), "[]"), len(value))
}

func metadataLength(s sealed) error {
	switch {
	case s.metadata == nil:
		return skipf("the proxy returns no ciphertextMetadata")
	case len(s.metadata) > xks.MaxMetadataSize:
		return fmt.Errorf("want at most %d bytes of ciphertextMetadata, got %d", xks.MaxMetadataSize, len(s.metadata))
	}
	return nil
}

// encryptRequestChecks damage the members of the request one at a time.
func encryptRequestChecks() []Check {
	section := encrypt.section()
	refused := func(id, title string, level Level, want refusal, edits ...edit) Check {
		return refuses("encrypt."+id, section, title, level, encrypt, want, edits...)
	}
	return []Check{
		refused("requires.plaintext", "no plaintext is ValidationException", Must, invalid, drop("plaintext")),
		refused("plaintext.null", "null as plaintext is ValidationException", Must, invalid, set("plaintext", nil)),
		refused("plaintext.empty", "empty plaintext is ValidationException", Should, invalid, set("plaintext", "")),
		refused("plaintext.number", "a number as plaintext is ValidationException", Must, invalid, set("plaintext", 1234)),
		refused("plaintext.not-base64", "plaintext that is not Base64 is ValidationException", Must, invalid, set("plaintext", "!verify!")),
		refused("plaintext.url-base64", "plaintext in URL-safe Base64 is ValidationException", Must, invalid, set("plaintext", "-_-_")),
		refused("plaintext.unpadded", "Base64 without padding is ValidationException", Should, invalid, set("plaintext", "AA")),
		refused("requires.encryptionAlgorithm", "no encryptionAlgorithm is ValidationException", Must, invalid, drop("encryptionAlgorithm")),
		refused("algorithm", "an unknown encryptionAlgorithm is refused", Must, unsupported, set("encryptionAlgorithm", "AES_CBC")),
		refused("aad.number", "a number as additionalAuthenticatedData is ValidationException", Must, invalid, set("additionalAuthenticatedData", 1234)),
		refused("aad.not-base64", "additionalAuthenticatedData that is not Base64 is ValidationException", Must, invalid, set("additionalAuthenticatedData", "!verify!")),
		refused("cdiv.algorithm", "an unknown ciphertextDataIntegrityValueAlgorithm is refused", Must, unsupported,
			set("ciphertextDataIntegrityValueAlgorithm", "SHA_1")),
	}
}

// cdivChecks recompute the Ciphertext Data Integrity Value.
func cdivChecks() []Check {
	cdivCheck := func(id, title string, plaintext, aad []byte) Check {
		return Check{ID: "encrypt.cdiv." + id, Section: secCDIV, Title: title, Level: Must,
			run: func(ctx context.Context, p *prober) error { return p.cdiv(ctx, plaintext, aad) }}
	}
	return []Check{
		cdivCheck("no-aad", "the CDIV without AAD is right", []byte(samplePlaintext), nil),
		cdivCheck("aad", "the CDIV with AAD is right", []byte(samplePlaintext), []byte(sampleAAD)),
		cdivCheck("large", "the CDIV of 4300 bytes with 8192 bytes of AAD is right",
			filled(xks.MinPlaintextLimit), filled(xks.MinAADLimit)),
		should(sealCheck("cdiv.unasked", "no CDIV is returned if none was asked for", func(s sealed) error {
			if s.answer.has("ciphertextDataIntegrityValue") {
				return errors.New("want no ciphertextDataIntegrityValue, got one")
			}
			return nil
		})),
	}
}

// cdiv compares the CDIV that the proxy returns, then has the ciphertext
// decrypted: that this succeeds is what a CDIV promises.
func (p *prober) cdiv(ctx context.Context, plaintext, aad []byte) error {
	s, err := p.seal(ctx, p.target.KeyID, plaintext, aad, withCDIV)
	if err != nil {
		return err
	}
	got, err := s.answer.bytes("ciphertextDataIntegrityValue")
	if err != nil {
		return err
	}
	want := sha256.Sum256(slices.Concat(aad, s.metadata, s.iv, s.ciphertext, s.tag))
	if !bytes.Equal(got, want[:]) {
		return fmt.Errorf("want %x (SHA-256 of AAD, metadata, IV, ciphertext, tag), got %x", want, got)
	}
	return wantPlaintext(p.open(ctx, p.target.KeyID, s, aad), plaintext)
}

func withCDIV(c *call) { c.body["ciphertextDataIntegrityValueAlgorithm"] = xks.CDIVSHA256 }

// freshIV encrypts often enough to see a constant or short cycle of IVs, not a
// weak generator.
func freshIV(ctx context.Context, p *prober) error {
	seen := map[string]bool{}
	for range 16 {
		s, err := p.seal(ctx, p.target.KeyID, []byte(samplePlaintext), nil)
		if err != nil {
			return err
		}
		if seen[string(s.iv)] {
			return fmt.Errorf("want another initializationVector each time, got one twice in %d encryptions", len(seen)+1)
		}
		seen[string(s.iv)] = true
	}
	return nil
}

// oversize sends more than any proxy needs to take. What happens on the way
// (a closed connection, an answer by something in front of the proxy) is open.
func oversize(ctx context.Context, p *prober) error {
	c := p.callWith(encrypt, p.target.KeyID, encryptBody(filled(1<<20), nil))
	c.unrecorded = true
	a := p.send(ctx, c)
	var timeout net.Error
	switch {
	case errors.As(a.err, &timeout) && timeout.Timeout():
		return fmt.Errorf("want an answer, got none within the time limit: %w", a.err)
	case a.err != nil, a.status == http.StatusRequestEntityTooLarge:
		return warnf("want HTTP 501 %s, got %s", xks.UnsupportedOperationException, a.describe())
	case a.status == http.StatusOK:
		return nil
	}
	return a.refused(xks.UnsupportedOperationException)
}

// filled returns n random bytes.
func filled(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand.Read never fails
	return b
}
