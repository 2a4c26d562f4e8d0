package engine

import (
	"bytes"
	"context"
	"crypto"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

func (c *Client) sign(ctx context.Context, in *kms.SignInput) (*kms.SignOutput, error) {
	s, err := c.signing("Sign", in.KeyId, in.SigningAlgorithm, in.MessageType, in.Message, in.GrantTokens)
	if err != nil {
		return nil, err
	}
	if s.prehashed {
		return nil, unsupported("%s cannot sign by %s: the token does not do it. Signatures made elsewhere can be verified.", s.key.arn(), s.algorithm)
	}
	if aws.ToBool(in.DryRun) {
		return nil, dryRunSucceeds()
	}
	v, err := c.engine.vaultOf(s.key)
	if err != nil {
		return nil, err
	}
	signature, err := v.Sign(ctx, s.key.current().Vault, s.scheme, s.hash, s.input)
	if err != nil {
		return nil, c.materialError(s.key, err)
	}
	s.key.noteUse(ctx, types.KeyLastUsageTrackingOperationSign, c.engine.now())
	return &kms.SignOutput{KeyId: aws.String(s.key.arn()), Signature: signature, SigningAlgorithm: s.algorithm}, nil
}

func (c *Client) verify(ctx context.Context, in *kms.VerifyInput) (*kms.VerifyOutput, error) {
	s, err := c.signing("Verify", in.KeyId, in.SigningAlgorithm, in.MessageType, in.Message, in.GrantTokens)
	if err != nil {
		return nil, err
	}
	if aws.ToBool(in.DryRun) {
		return nil, dryRunSucceeds()
	}
	public, err := parsePublicKey(s.key.current().Vault.Public)
	if err != nil {
		return nil, err
	}
	if !public.verifies(s, in.Signature) {
		return nil, &types.KMSInvalidSignatureException{}
	}
	s.key.noteUse(ctx, types.KeyLastUsageTrackingOperationVerify, c.engine.now())
	return &kms.VerifyOutput{KeyId: aws.String(s.key.arn()), SignatureValid: true, SigningAlgorithm: s.algorithm}, nil
}

// signing is what is signed or verified, and how.
type signing struct {
	key       *key
	algorithm types.SigningAlgorithmSpec
	scheme    keystore.SignScheme
	hash      crypto.Hash
	prehashed bool   // Ed25519ph
	input     []byte // the digest, or for Ed25519 the message
}

// signing reads the parameters that Sign and Verify share.
func (c *Client) signing(op string, keyID *string, algorithm types.SigningAlgorithmSpec, kind types.MessageType, message []byte, grantTokens []string) (*signing, error) {
	k, err := c.usable(op, keyID, types.KeyUsageTypeSignVerify)
	if err != nil {
		return nil, err
	}
	sp, _ := specOf(k.Spec)
	if !slices.Contains(sp.signing, algorithm) {
		return nil, invalidUsage("Algorithm %s is incompatible with key spec %s.", algorithm, k.Spec)
	}
	if err := c.checkGrantTokens(grantTokens); err != nil {
		return nil, err
	}
	s := &signing{key: k, algorithm: algorithm}
	s.scheme, s.hash = schemeOf(algorithm)
	s.prehashed = algorithm == types.SigningAlgorithmSpecEd25519PhSha512
	s.input, err = s.prepare(kind, message)
	return s, err
}

// schemeOf returns how an algorithm signs, and the hash that it signs.
func schemeOf(a types.SigningAlgorithmSpec) (keystore.SignScheme, crypto.Hash) {
	switch a {
	case types.SigningAlgorithmSpecRsassaPssSha256:
		return keystore.SignPSS, crypto.SHA256
	case types.SigningAlgorithmSpecRsassaPssSha384:
		return keystore.SignPSS, crypto.SHA384
	case types.SigningAlgorithmSpecRsassaPssSha512:
		return keystore.SignPSS, crypto.SHA512
	case types.SigningAlgorithmSpecRsassaPkcs1V15Sha256:
		return keystore.SignPKCS1v15, crypto.SHA256
	case types.SigningAlgorithmSpecRsassaPkcs1V15Sha384:
		return keystore.SignPKCS1v15, crypto.SHA384
	case types.SigningAlgorithmSpecRsassaPkcs1V15Sha512:
		return keystore.SignPKCS1v15, crypto.SHA512
	case types.SigningAlgorithmSpecEcdsaSha256:
		return keystore.SignECDSA, crypto.SHA256
	case types.SigningAlgorithmSpecEcdsaSha384:
		return keystore.SignECDSA, crypto.SHA384
	case types.SigningAlgorithmSpecEcdsaSha512:
		return keystore.SignECDSA, crypto.SHA512
	}
	return keystore.SignEd25519, crypto.SHA512
}

// prepare makes of a message what is signed.
func (s *signing) prepare(kind types.MessageType, message []byte) ([]byte, error) {
	switch {
	case kind == types.MessageTypeExternalMu,
		kind == types.MessageTypeDigest && s.scheme == keystore.SignEd25519 && !s.prehashed,
		kind != types.MessageTypeDigest && s.prehashed:
		if kind == "" {
			kind = types.MessageTypeRaw
		}
		return nil, invalid("Message type %s is incompatible with algorithm %s.", kind, s.algorithm)
	case kind == types.MessageTypeDigest:
		if len(message) != s.hash.Size() {
			return nil, invalid("Digest is invalid length for algorithm %s.", s.algorithm)
		}
		return message, nil
	case s.scheme == keystore.SignEd25519:
		return message, nil
	}
	h := s.hash.New()
	_, _ = h.Write(message) // a hash never fails
	return h.Sum(nil), nil
}

func (c *Client) getPublicKey(_ context.Context, in *kms.GetPublicKeyInput) (*kms.GetPublicKeyOutput, error) {
	const op = "GetPublicKey"
	k, err := c.find(op, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := c.permitted(op, k); err != nil {
		return nil, err
	}
	if sp, _ := specOf(k.Spec); !sp.isPair() {
		return nil, unsupported("") // as AWS KMS says it
	}
	if err := c.checkGrantTokens(in.GrantTokens); err != nil {
		return nil, err
	}
	// The members that say what the key is for are those of its description.
	var m types.KeyMetadata
	k.describeAlgorithms(&m)
	return &kms.GetPublicKeyOutput{
		//nolint:staticcheck // deprecated, and sent
		CustomerMasterKeySpec: customerMasterKeySpec(k.Spec), EncryptionAlgorithms: m.EncryptionAlgorithms,
		KeyAgreementAlgorithms: m.KeyAgreementAlgorithms, KeyId: aws.String(k.arn()), KeySpec: k.Spec, KeyUsage: k.Usage,
		PublicKey: bytes.Clone(k.current().Vault.Public), SigningAlgorithms: m.SigningAlgorithms,
	}, nil
}
