package main

import (
	"encoding/asn1"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/miekg/pkcs11"
)

// What miekg/pkcs11 lacks of PKCS#11 v3.0.
const (
	ckkECEdwards           = 0x40
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
)

// keeper opens the session that session objects of a measurement live in.
func (t *rawToken) keeper() (pkcs11.SessionHandle, error) {
	return t.ctx.OpenSession(t.open.Info().Slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
}

// rawCall is what the token has to do for an operation with one of the used keys.
type rawCall func(s pkcs11.SessionHandle, key int) error

// callRate is how many times a second something can be called from a number of
// sessions.
func (t *rawToken) callRate(length time.Duration, sessions int, call rawCall) (tally, error) {
	n, err := parallel(sessions, length, func(worker int, more func() bool) error {
		s, err := t.ctx.OpenSession(t.open.Info().Slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			return err
		}
		for i := worker; more(); i++ {
			if err := call(s, i%usedKeys); err != nil {
				return errors.Join(err, t.ctx.CloseSession(s))
			}
		}
		return t.ctx.CloseSession(s)
	})
	return n, err
}

// sessionKey makes an AES-256 key with the attributes of an unwrapped key of the
// embedded KMS.
func (t *rawToken) sessionKey(s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
	return t.ctx.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
	})
}

// decrypt undoes encrypt.
func (t *rawToken) decrypt(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, iv, aad, sealed []byte) error {
	params := pkcs11.NewGCMParams(iv, aad, 128)
	defer params.Free()
	if err := t.ctx.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, h); err != nil {
		return err
	}
	_, err := t.ctx.Decrypt(s, sealed)
	return err
}

func (t *rawToken) sign(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, m *pkcs11.Mechanism, message []byte) error {
	if err := t.ctx.SignInit(s, []*pkcs11.Mechanism{m}, h); err != nil {
		return err
	}
	_, err := t.ctx.Sign(s, message)
	return err
}

// signer is a key spec and how to sign with it, at the KMS and at the token.
type signer struct {
	spec      types.KeySpec
	algorithm types.SigningAlgorithmSpec
	kind      types.MessageType
	size      int // of what is signed: a digest, or for Ed25519 a message
	mechanism *pkcs11.Mechanism
	generate  uint // mechanism
	public    []*pkcs11.Attribute
}

func signers() []signer {
	pss := pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_PSS, pkcs11.NewPSSParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, 32))
	rsa := func(spec types.KeySpec, bits int) signer {
		return signer{spec, types.SigningAlgorithmSpecRsassaPssSha256, types.MessageTypeDigest, 32, pss, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		}}
	}
	ecdsa := func(spec types.KeySpec, algorithm types.SigningAlgorithmSpec, size int, curve ...int) signer {
		return signer{spec, algorithm, types.MessageTypeDigest, size, pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil), pkcs11.CKM_EC_KEY_PAIR_GEN, ecParams(curve)}
	}
	return []signer{
		rsa(types.KeySpecRsa2048, 2048),
		rsa(types.KeySpecRsa3072, 3072),
		rsa(types.KeySpecRsa4096, 4096),
		ecdsa(types.KeySpecEccNistP256, types.SigningAlgorithmSpecEcdsaSha256, 32, 1, 2, 840, 10045, 3, 1, 7),
		ecdsa(types.KeySpecEccNistP384, types.SigningAlgorithmSpecEcdsaSha384, 48, 1, 3, 132, 0, 34),
		ecdsa(types.KeySpecEccNistP521, types.SigningAlgorithmSpecEcdsaSha512, 64, 1, 3, 132, 0, 35),
		ecdsa(types.KeySpecEccSecgP256k1, types.SigningAlgorithmSpecEcdsaSha256, 32, 1, 3, 132, 0, 10),
		{
			types.KeySpecEccNistEdwards25519, types.SigningAlgorithmSpecEd25519Sha512, types.MessageTypeRaw, 32,
			pkcs11.NewMechanism(ckmEdDSA, nil), ckmECEdwardsKeyPairGen, ecParams([]int{1, 3, 101, 112}),
		},
	}
}

// ecParams names a curve to the token.
func ecParams(oid asn1.ObjectIdentifier) []*pkcs11.Attribute {
	der, err := asn1.Marshal(oid)
	if err != nil {
		panic(err) // of a constant
	}
	return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, der)}
}

// sessionPair makes a key pair in a session and returns its private key.
func (t *rawToken) sessionPair(s pkcs11.SessionHandle, g signer) (pkcs11.ObjectHandle, error) {
	public := append([]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true)}, g.public...)
	_, private, err := t.ctx.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(g.generate, nil)}, public, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
	})
	return private, err
}
