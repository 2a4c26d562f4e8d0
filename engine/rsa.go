package engine

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// oaepHash is the hash of an RSAES-OAEP algorithm, for the label and for MGF1
// (RFC 8017, section 7.1).
func oaepHash(a types.EncryptionAlgorithmSpec) crypto.Hash {
	if a == types.EncryptionAlgorithmSpecRsaesOaepSha1 {
		return crypto.SHA1
	}
	return crypto.SHA256
}

// encryptRSA encrypts with the public key, which needs no token.
func (c *Client) encryptRSA(k *key, algorithm types.EncryptionAlgorithmSpec, in *kms.EncryptInput) ([]byte, error) {
	if len(in.EncryptionContext) > 0 {
		return nil, noEncryptionContext(k)
	}
	public, err := parsePublicKey(k.current().Vault.Public)
	if err != nil {
		return nil, err
	}
	hash := oaepHash(algorithm)
	if most := public.rsa.Size() - 2*hash.Size() - 2; len(in.Plaintext) > most {
		return nil, invalid("Algorithm %s and key spec %s cannot encrypt data larger than %d bytes.", algorithm, k.Spec, most)
	}
	if aws.ToBool(in.DryRun) {
		return nil, dryRunSucceeds()
	}
	return rsa.EncryptOAEP(hash.New(), rand.Reader, public.rsa, in.Plaintext, nil)
}

// decryptRSA decrypts with the private key in the token.
func (c *Client) decryptRSA(ctx context.Context, k *key, algorithm types.EncryptionAlgorithmSpec, in sealedInput) ([]byte, error) {
	if len(in.context) > 0 {
		return nil, noEncryptionContext(k)
	}
	v, err := c.engine.vaultOf(k)
	if err != nil {
		return nil, err
	}
	plaintext, err := v.DecryptOAEP(ctx, k.current().Vault, oaepHash(algorithm), in.ciphertext)
	if err != nil {
		return nil, c.materialError(k, err)
	}
	return plaintext, nil
}

func noEncryptionContext(k *key) error {
	return invalid("%s key spec is %s: an encryption context is valid only with symmetric encryption keys.", k.arn(), k.Spec)
}
