package engine

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

// spec is what a key spec allows.
type spec struct {
	material   keystore.Spec // in the token
	usages     []types.KeyUsageType
	standard   types.KeyUsageType // where CreateKey does not say; empty: it must say
	encryption []types.EncryptionAlgorithmSpec
	signing    []types.SigningAlgorithmSpec
	mac        []types.MacAlgorithmSpec
	agreement  []types.KeyAgreementAlgorithmSpec
}

// isSymmetric reports whether ciphertexts of the spec are blobs that name their
// key and material, which can then rotate.
func (s spec) isSymmetric() bool { return s.material == keystore.SpecAES256 }

// isPair reports whether the spec has a public key.
func (s spec) isPair() bool { return s.signing != nil || s.agreement != nil }

func (s spec) permits(u types.KeyUsageType) bool { return slices.Contains(s.usages, u) }

// specOf returns what is known of a key spec; false for specs that are not
// served (ML-DSA, ML-KEM, SM2).
func specOf(name types.KeySpec) (spec, bool) {
	switch name {
	case types.KeySpecSymmetricDefault:
		return spec{
			material: keystore.SpecAES256, usages: []types.KeyUsageType{types.KeyUsageTypeEncryptDecrypt}, standard: types.KeyUsageTypeEncryptDecrypt,
			encryption: []types.EncryptionAlgorithmSpec{types.EncryptionAlgorithmSpecSymmetricDefault},
		}, true
	case types.KeySpecRsa2048:
		return rsaSpec(keystore.SpecRSA2048), true
	case types.KeySpecRsa3072:
		return rsaSpec(keystore.SpecRSA3072), true
	case types.KeySpecRsa4096:
		return rsaSpec(keystore.SpecRSA4096), true
	case types.KeySpecEccNistP256:
		return nistSpec(keystore.SpecP256, types.SigningAlgorithmSpecEcdsaSha256), true
	case types.KeySpecEccNistP384:
		return nistSpec(keystore.SpecP384, types.SigningAlgorithmSpecEcdsaSha384), true
	case types.KeySpecEccNistP521:
		return nistSpec(keystore.SpecP521, types.SigningAlgorithmSpecEcdsaSha512), true
	case types.KeySpecEccSecgP256k1:
		return signingSpec(keystore.SpecSecp256k1, types.SigningAlgorithmSpecEcdsaSha256), true
	case types.KeySpecEccNistEdwards25519:
		// First what can sign: programs such as cosign take the first.
		return signingSpec(keystore.SpecEd25519, types.SigningAlgorithmSpecEd25519Sha512, types.SigningAlgorithmSpecEd25519PhSha512), true
	case types.KeySpecHmac224:
		return macSpec(keystore.SpecHMAC224, types.MacAlgorithmSpecHmacSha224), true
	case types.KeySpecHmac256:
		return macSpec(keystore.SpecHMAC256, types.MacAlgorithmSpecHmacSha256), true
	case types.KeySpecHmac384:
		return macSpec(keystore.SpecHMAC384, types.MacAlgorithmSpecHmacSha384), true
	case types.KeySpecHmac512:
		return macSpec(keystore.SpecHMAC512, types.MacAlgorithmSpecHmacSha512), true
	}
	return spec{}, false
}

func rsaSpec(m keystore.Spec) spec {
	return spec{
		material:   m,
		usages:     []types.KeyUsageType{types.KeyUsageTypeEncryptDecrypt, types.KeyUsageTypeSignVerify},
		encryption: []types.EncryptionAlgorithmSpec{types.EncryptionAlgorithmSpecRsaesOaepSha1, types.EncryptionAlgorithmSpecRsaesOaepSha256},
		signing: []types.SigningAlgorithmSpec{
			types.SigningAlgorithmSpecRsassaPkcs1V15Sha256, types.SigningAlgorithmSpecRsassaPkcs1V15Sha384, types.SigningAlgorithmSpecRsassaPkcs1V15Sha512,
			types.SigningAlgorithmSpecRsassaPssSha256, types.SigningAlgorithmSpecRsassaPssSha384, types.SigningAlgorithmSpecRsassaPssSha512,
		},
	}
}

func nistSpec(m keystore.Spec, signing types.SigningAlgorithmSpec) spec {
	return spec{
		material:  m,
		usages:    []types.KeyUsageType{types.KeyUsageTypeKeyAgreement, types.KeyUsageTypeSignVerify},
		signing:   []types.SigningAlgorithmSpec{signing},
		agreement: []types.KeyAgreementAlgorithmSpec{types.KeyAgreementAlgorithmSpecEcdh},
	}
}

// signingSpec is a spec with one possible usage, which CreateKey must say all the
// same, as for every pair.
func signingSpec(m keystore.Spec, signing ...types.SigningAlgorithmSpec) spec {
	return spec{material: m, usages: []types.KeyUsageType{types.KeyUsageTypeSignVerify}, signing: signing}
}

func macSpec(m keystore.Spec, mac types.MacAlgorithmSpec) spec {
	return spec{material: m, usages: []types.KeyUsageType{types.KeyUsageTypeGenerateVerifyMac}, mac: []types.MacAlgorithmSpec{mac}}
}
