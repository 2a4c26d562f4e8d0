package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/hyok-kms/hyok/xks"
)

// roundTripChecks encrypt and decrypt again.
func roundTripChecks() []Check {
	check := func(id, title string, level Level, plaintext, aad []byte) Check {
		return Check{ID: "roundtrip." + id, Section: decrypt.section(), Title: title + " decrypts to itself", Level: level,
			run: func(ctx context.Context, p *prober) error { return p.roundTrip(ctx, plaintext, aad) }}
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	return []Check{
		check("no-aad", "plaintext without AAD", Must, []byte(samplePlaintext), nil),
		check("aad", "plaintext with AAD", Must, []byte(samplePlaintext), []byte(sampleAAD)),
		check("empty-aad", "plaintext with an empty AAD", Should, []byte(samplePlaintext), []byte{}),
		check("one-byte", "plaintext of one byte", Must, []byte{0}, []byte(sampleAAD)),
		check("data-key", "a data key of 32 bytes", Must, filled(32), []byte(sampleAAD)),
		check("every-byte", "plaintext and AAD of every byte value", Must, every, every),
		check("large-plaintext", "plaintext of 4300 bytes", Must, filled(xks.MinPlaintextLimit), nil),
		check("large-aad", "plaintext with 8192 bytes of AAD", Must, []byte(samplePlaintext), filled(xks.MinAADLimit)),
		check("large", "plaintext of 4300 bytes with 8192 bytes of AAD", Must, filled(xks.MinPlaintextLimit), filled(xks.MinAADLimit)),
	}
}

func (p *prober) roundTrip(ctx context.Context, plaintext, aad []byte) error {
	s, err := p.seal(ctx, p.target.KeyID, plaintext, aad)
	if err != nil {
		return err
	}
	if err := wantLength("ciphertext", s.ciphertext, len(plaintext)); err != nil {
		return err
	}
	return wantPlaintext(p.open(ctx, p.target.KeyID, s, aad), plaintext)
}

func wantPlaintext(a answer, want []byte) error {
	if err := a.accepted(); err != nil {
		return fmt.Errorf("decrypt: %w", err)
	}
	got, err := a.bytes("plaintext")
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("want the plaintext that was encrypted, got another")
	}
	return nil
}
