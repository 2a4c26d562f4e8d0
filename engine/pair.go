package engine

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/hyok-kms/hyok/keystore"
)

// pair is an RSA key pair that is nobody's yet. One whose request waits no more is
// stored, and goes to the next that needs such a pair: it is removed in the batch
// that makes it somebody's, so that no two can have it.
type pair struct {
	ID   string        `json:"id"` // of its material
	Spec keystore.Spec `json:"s"`
	// Use is what the pair was proven for; 0: it is a caller's own, as
	// GenerateDataKeyPair has it.
	Use keystore.Use `json:"u,omitzero"`
	// Material is that of a key of this KMS; nil: the pair is a caller's own.
	Material *keystore.Material `json:"m,omitzero"`
	// Of a caller's own pair:
	Sealed []byte `json:"d,omitzero"` // private key, PKCS #8 in DER, encrypted in the main token
	Public []byte `json:"p,omitzero"` // SubjectPublicKeyInfo in DER

	private []byte  // of a caller's own pair that is not stored, in the clear
	intent  *intent // stored for its material; nil: none
	stored  bool
}

// pairKind says what a pair is for.
type pairKind struct {
	spec keystore.Spec
	use  keystore.Use // 0: it is a caller's own
}

func (p *pair) kind() pairKind { return pairKind{p.Spec, p.Use} }

// claim has a batch make the pair somebody's.
func (e *Engine) claim(b *batch, p *pair) {
	switch {
	case p.stored:
		b.drop(kindPair, p.ID, func(*state) { e.pairs.forget(p) })
	case p.intent != nil:
		b.dropIntent(*p.intent)
	}
	if p.Material != nil {
		e.noteWrap(b, p.Material)
	}
}

// isSlow reports whether a key pair of a spec takes so long to generate that it is
// worth keeping: an RSA pair.
func isSlow(s keystore.Spec) bool {
	return s == keystore.SpecRSA2048 || s == keystore.SpecRSA3072 || s == keystore.SpecRSA4096
}

// generatePair makes a pair in the main token. An intent costs less than to find out
// whether it is needed.
func (e *Engine) generatePair(ctx context.Context, kind pairKind) (*pair, error) {
	p := &pair{ID: uuid.NewString(), Spec: kind.spec, Use: kind.use}
	if kind.use == 0 {
		var err error
		p.private, p.Public, err = e.vault.GenerateDataKeyPair(ctx, kind.spec)
		return p, err
	}
	p.intent = &intent{Material: p.ID, Spec: kind.spec}
	if err := e.intend(ctx, *p.intent); err != nil {
		return nil, err
	}
	made, err := e.vault.Generate(ctx, p.ID, kind.spec, kind.use)
	if err != nil {
		e.discard(ctx, p)
		return nil, err
	}
	p.Material = &made
	return p, nil
}

// keep stores a pair that nobody waits for.
func (e *Engine) keep(ctx context.Context, p *pair) error {
	if p.Material == nil {
		sealed, err := e.vault.Encrypt(ctx, &e.meta.Secrets, p.private, pairBinding(p))
		clear(p.private)
		if err != nil {
			return fmt.Errorf("encrypt a key pair to keep it: %w", err)
		}
		p.Sealed, p.private = appendSealed(nil, sealed), nil
	}
	b := new(batch)
	e.claim(b, p)
	b.put(kindPair, p.ID, p, func(*state) { e.pairs.remember(p) })
	if err := e.commitMaterial(ctx, b, func() { e.discard(ctx, p) }); err != nil {
		return fmt.Errorf("keep a key pair: %w", err)
	}
	p.stored, p.intent = true, nil
	return nil
}

// discard takes away what a pair that is not stored may have in the token.
func (e *Engine) discard(ctx context.Context, p *pair) {
	if p.intent != nil {
		e.undo(ctx, e.vault, *p.intent, true)
	}
}

// open returns the private key of a caller's own pair, who wipes it.
func (e *Engine) open(ctx context.Context, p *pair) ([]byte, error) {
	if !p.stored {
		return p.private, nil
	}
	sealed, ok := parseSealed(p.Sealed)
	if !ok {
		return nil, fmt.Errorf("the kept key pair %s is damaged", p.ID)
	}
	private, err := e.vault.Decrypt(ctx, &e.meta.Secrets, sealed, pairBinding(p))
	if err != nil {
		return nil, fmt.Errorf("decrypt the kept key pair %s: %w", p.ID, err)
	}
	return private, nil
}

func pairBinding(p *pair) []byte { return []byte("hyok data key pair\x00" + p.ID) }
