package check

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // for crypto.Hash.New
	"crypto/sha256"
	_ "crypto/sha512" // for crypto.Hash.New
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/hyok-kms/hyok/keystore"
)

// importOne brings a key of a spec into the vault as the clients of KMS do,
// encrypted under the wrapping key, and uses it.
func (k *kms) importOne(ctx context.Context, id string, name keystore.Spec) error {
	if k.wrapping == nil {
		return errNotChecked("there is no RSA pair to encrypt it under")
	}
	material, public, err := k.ownMaterial(ctx, name)
	if err != nil {
		return err
	}
	defer clear(material)
	encrypted, err := encryptMaterial(k.wrapping.Public, material)
	if err != nil {
		return err
	}
	m, err := k.vault.ImportEncrypted(ctx, id, name, *k.wrapping, keystore.ImportKeyWrapSHA256, encrypted)
	if err != nil {
		return err
	}
	err = k.use(ctx, k.vault, &m)
	switch h, isMAC := macHashes()[name]; {
	case err != nil:
	case isMAC:
		err = compareMAC(ctx, k.vault, &m, h, material)
	case !bytes.Equal(m.Public, public):
		err = errors.New("its public key is not the one of the pair")
	}
	return errors.Join(err, k.vault.Destroy(ctx, m))
}

// ownMaterial makes a key outside the token: bare bytes, or PKCS #8 and the public
// key.
func (k *kms) ownMaterial(ctx context.Context, name keystore.Spec) (material, public []byte, err error) {
	size := 32
	if h, ok := macHashes()[name]; ok {
		size = h.Size()
	} else if name != keystore.SpecAES256 {
		return k.vault.GenerateDataKeyPair(ctx, name)
	}
	material = make([]byte, size)
	_, _ = rand.Read(material) // never fails
	return material, nil, nil
}

func compareMAC(ctx context.Context, v *keystore.Vault, m *keystore.Material, h crypto.Hash, material []byte) error {
	got, err := v.MAC(ctx, m, h, sample)
	if err != nil {
		return err
	}
	want := hmac.New(h.New, material)
	want.Write(sample)
	if !hmac.Equal(got, want.Sum(nil)) {
		return errors.New("its MAC is another than this key's")
	}
	return nil
}

// encryptMaterial encrypts key material by RSA_AES_KEY_WRAP_SHA_256: an AES key under
// the RSA key, and the material under that.
func encryptMaterial(public, material []byte) ([]byte, error) {
	key, err := publicKey[*rsa.PublicKey](&keystore.Material{Public: public})
	if err != nil {
		return nil, err
	}
	inner := make([]byte, 32)
	_, _ = rand.Read(inner) // never fails
	defer clear(inner)
	head, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, inner, nil)
	if err != nil {
		return nil, fmt.Errorf("encrypt an AES key: %w", err)
	}
	body, err := wrapWithPadding(inner, material)
	return slices.Concat(head, body), err
}

// wrapWithPadding is AES key wrap with padding (RFC 5649, section 4.1) of more than
// eight bytes.
func wrapWithPadding(key, material []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(nil, 0xa65959a6)
	out = binary.BigEndian.AppendUint32(out, uint32(len(material)))
	out = append(out, material...)
	out = append(out, make([]byte, -len(material)&7)...)
	var b [aes.BlockSize]byte
	defer clear(b[:])
	n := uint64(len(out)/8 - 1)
	for t := uint64(1); t <= 6*n; t++ {
		part := out[8*((t-1)%n+1):][:8]
		copy(b[:8], out)
		copy(b[8:], part)
		block.Encrypt(b[:], b[:])
		binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(b[:8])^t)
		copy(part, b[8:])
	}
	return out, nil
}
