package check

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/hyok-kms/hyok/keystore"
)

// use does with a key all that its spec is for, and compares what the token computes
// with what another implementation does.
func (k *kms) use(ctx context.Context, v *keystore.Vault, m *keystore.Material) error {
	switch m.Spec {
	case keystore.SpecAES256:
		return useAES(ctx, v, m)
	case keystore.SpecHMAC224, keystore.SpecHMAC256, keystore.SpecHMAC384, keystore.SpecHMAC512:
		return useMAC(ctx, v, m)
	case keystore.SpecRSA2048, keystore.SpecRSA3072, keystore.SpecRSA4096:
		return useRSA(ctx, v, m)
	case keystore.SpecEd25519:
		return useEd25519(ctx, v, m)
	case keystore.SpecSecp256k1:
		return useSecp256k1(ctx, v, m)
	}
	return useEC(ctx, v, m)
}

func useAES(ctx context.Context, v *keystore.Vault, m *keystore.Material) error {
	s, err := v.Encrypt(ctx, m, sample, sampleAAD)
	if err != nil {
		return err
	}
	got, err := v.Decrypt(ctx, m, s, sampleAAD)
	if err == nil && !bytes.Equal(got, sample) {
		err = errors.New("what was decrypted is not what was encrypted")
	}
	return err
}

// macHashes are the hashes of HMAC keys.
func macHashes() map[keystore.Spec]crypto.Hash {
	return map[keystore.Spec]crypto.Hash{
		keystore.SpecHMAC224: crypto.SHA224, keystore.SpecHMAC256: crypto.SHA256, keystore.SpecHMAC384: crypto.SHA384, keystore.SpecHMAC512: crypto.SHA512,
	}
}

func useMAC(ctx context.Context, v *keystore.Vault, m *keystore.Material) error {
	h := macHashes()[m.Spec]
	a, err := v.MAC(ctx, m, h, sample)
	if err != nil {
		return err
	}
	b, err := v.MAC(ctx, m, h, sample)
	if err == nil && (!bytes.Equal(a, b) || len(a) != h.Size()) {
		err = errors.New("the MACs of one message differ")
	}
	return err
}

// digests are what is signed, by the hash.
func digests() map[crypto.Hash][]byte {
	d256, d384, d512 := sha256.Sum256(sample), sha512.Sum384(sample), sha512.Sum512(sample)
	return map[crypto.Hash][]byte{crypto.SHA256: d256[:], crypto.SHA384: d384[:], crypto.SHA512: d512[:]}
}

func useRSA(ctx context.Context, v *keystore.Vault, m *keystore.Material) error {
	key, err := publicKey[*rsa.PublicKey](m)
	if err != nil {
		return err
	}
	for h, digest := range digests() {
		pss, err := v.Sign(ctx, m, keystore.SignPSS, h, digest)
		if err == nil {
			err = rsa.VerifyPSS(key, h, digest, pss, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		if err != nil {
			return fmt.Errorf("RSASSA-PSS with %v: %w", h, err)
		}
		pkcs1, err := v.Sign(ctx, m, keystore.SignPKCS1v15, h, digest)
		if err == nil {
			err = rsa.VerifyPKCS1v15(key, h, digest, pkcs1)
		}
		if err != nil {
			return fmt.Errorf("RSASSA-PKCS1-v1_5 with %v: %w", h, err)
		}
	}
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		ciphertext, err := rsa.EncryptOAEP(newHash(h), rand.Reader, key, sample, nil)
		if err != nil {
			return err
		}
		got, err := v.DecryptOAEP(ctx, m, h, ciphertext)
		if err == nil && !bytes.Equal(got, sample) {
			err = errors.New("what was decrypted is not what was encrypted")
		}
		if err != nil {
			return fmt.Errorf("RSAES-OAEP with %v: %w", h, err)
		}
	}
	return nil
}

func newHash(h crypto.Hash) hash.Hash {
	if h == crypto.SHA1 {
		return sha1.New()
	}
	return sha256.New()
}

func useEd25519(ctx context.Context, v *keystore.Vault, m *keystore.Material) error {
	key, err := publicKey[ed25519.PublicKey](m)
	if err != nil {
		return err
	}
	signature, err := v.Sign(ctx, m, keystore.SignEd25519, 0, sample)
	if err == nil && !ed25519.Verify(key, sample, signature) {
		err = errors.New("a signature does not verify")
	}
	return err
}

func useEC(ctx context.Context, v *keystore.Vault, m *keystore.Material) error {
	key, err := publicKey[*ecdsa.PublicKey](m)
	if err != nil {
		return err
	}
	for h, digest := range digests() {
		signature, err := v.Sign(ctx, m, keystore.SignECDSA, h, digest)
		if err == nil && !ecdsa.VerifyASN1(key, digest, signature) {
			err = errors.New("a signature does not verify")
		}
		if err != nil {
			return fmt.Errorf("ECDSA with %v: %w", h, err)
		}
	}
	return agree(ctx, v, m, key)
}

// agree has the key agree on a secret with one that is made here.
func agree(ctx context.Context, v *keystore.Vault, m *keystore.Material, key *ecdsa.PublicKey) error {
	own, err := key.ECDH()
	if err != nil {
		return err
	}
	var peer *ecdh.PrivateKey
	if peer, err = own.Curve().GenerateKey(rand.Reader); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(peer.PublicKey())
	if err != nil {
		return err
	}
	want, err := peer.ECDH(own)
	if err != nil {
		return err
	}
	got, err := v.SharedSecret(ctx, m, der)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("the secret is another than the other side's")
	}
	if err != nil {
		return fmt.Errorf("ECDH: %w", err)
	}
	return nil
}

func useSecp256k1(ctx context.Context, v *keystore.Vault, m *keystore.Material) error {
	key, err := secp256k1Key(m.Public)
	if err != nil {
		return err
	}
	digest := digests()[crypto.SHA256]
	signature, err := v.Sign(ctx, m, keystore.SignECDSA, crypto.SHA256, digest)
	if err != nil {
		return fmt.Errorf("ECDSA: %w", err)
	}
	if !ecdsa.VerifyASN1(&ecdsa.PublicKey{Curve: secp256k1.S256(), X: key.X(), Y: key.Y()}, digest, signature) {
		return errors.New("ECDSA: a signature does not verify")
	}
	return nil
}

// secp256k1Key reads a SubjectPublicKeyInfo of secp256k1, which ends in the
// uncompressed point.
func secp256k1Key(der []byte) (*secp256k1.PublicKey, error) {
	const size = 65
	if len(der) < size {
		return nil, errors.New("the public key is too short")
	}
	return secp256k1.ParsePubKey(der[len(der)-size:])
}

// publicKey reads the public key of a pair.
func publicKey[K any](m *keystore.Material) (K, error) {
	var none K
	key, err := x509.ParsePKIXPublicKey(m.Public)
	if err != nil {
		return none, fmt.Errorf("read the public key: %w", err)
	}
	k, ok := key.(K)
	if !ok {
		return none, fmt.Errorf("the public key is a %T", key)
	}
	return k, nil
}

// matchPair reports whether the private key, in PKCS #8, is that of a public one.
func matchPair(private, public []byte) error {
	key, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		return errors.New("the private key cannot be read") // not err: it may quote
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return fmt.Errorf("the private key is a %T", key)
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err == nil && !bytes.Equal(der, public) {
		err = errors.New("the public key is another one's")
	}
	return err
}
