package keystore

import (
	"crypto"
	"encoding/asn1"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Spec is a kind of key material.
type Spec string

// The kinds of key material that a Vault holds.
const (
	SpecAES256    Spec = "AES_256"
	SpecHMAC224   Spec = "HMAC_224" // 28 bytes
	SpecHMAC256   Spec = "HMAC_256" // 32 bytes
	SpecHMAC384   Spec = "HMAC_384" // 48 bytes
	SpecHMAC512   Spec = "HMAC_512" // 64 bytes
	SpecRSA2048   Spec = "RSA_2048"
	SpecRSA3072   Spec = "RSA_3072"
	SpecRSA4096   Spec = "RSA_4096"
	SpecP256      Spec = "EC_P256"
	SpecP384      Spec = "EC_P384"
	SpecP521      Spec = "EC_P521"
	SpecSecp256k1 Spec = "EC_SECP256K1"
	SpecEd25519   Spec = "ED25519"
)

// What PKCS#11 v3.0 adds for Edwards curves (section 2.3) and miekg/pkcs11 lacks.
const (
	ckkECEdwards           = 0x40
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
)

// family is what specs of one algorithm have in common.
type family int

const (
	familyAES family = iota + 1
	familyHMAC
	familyRSA
	familyEC
	familyEdwards
)

// shape is what PKCS#11 needs to know of a spec.
type shape struct {
	family family
	bytes  int                   // AES, HMAC: of the key; RSA: of the modulus; EC: of a coordinate
	hash   crypto.Hash           // HMAC
	oid    asn1.ObjectIdentifier // EC, Ed25519
	curve  curve                 // EC
}

// shape returns the shape of s, or an error if s is not known.
func (s Spec) shape() (shape, error) {
	switch s {
	case SpecAES256:
		return shape{family: familyAES, bytes: aes256KeyLength}, nil
	case SpecHMAC224:
		return shape{family: familyHMAC, bytes: 28, hash: crypto.SHA224}, nil
	case SpecHMAC256:
		return shape{family: familyHMAC, bytes: 32, hash: crypto.SHA256}, nil
	case SpecHMAC384:
		return shape{family: familyHMAC, bytes: 48, hash: crypto.SHA384}, nil
	case SpecHMAC512:
		return shape{family: familyHMAC, bytes: 64, hash: crypto.SHA512}, nil
	case SpecRSA2048:
		return shape{family: familyRSA, bytes: 256}, nil
	case SpecRSA3072:
		return shape{family: familyRSA, bytes: 384}, nil
	case SpecRSA4096:
		return shape{family: familyRSA, bytes: 512}, nil
	case SpecP256:
		return shape{family: familyEC, bytes: 32, oid: oidP256, curve: curveP256}, nil
	case SpecP384:
		return shape{family: familyEC, bytes: 48, oid: oidP384, curve: curveP384}, nil
	case SpecP521:
		return shape{family: familyEC, bytes: 66, oid: oidP521, curve: curveP521}, nil
	case SpecSecp256k1:
		return shape{family: familyEC, bytes: 32, oid: oidSecp256k1, curve: curveSecp256k1}, nil
	case SpecEd25519:
		return shape{family: familyEdwards, bytes: 32, oid: oidEd25519}, nil
	}
	return shape{}, fmt.Errorf("%w: %s is no kind of key material", ErrMaterialSpec, printable(string(s)))
}

// secret reports whether material of this shape is one secret, not a key pair.
func (s shape) secret() bool { return s.family == familyAES || s.family == familyHMAC }

// light reports whether operations with such material are as short as those that
// lanes are for.
func (s shape) light() bool { return s.secret() }

// ecParams returns CKA_EC_PARAMS: the curve's object identifier in DER.
func (s shape) ecParams() []byte {
	der, err := asn1.Marshal(s.oid)
	if err != nil {
		panic(err) // of constants
	}
	return der
}

// hmacMechanism returns the mechanism for HMAC with a hash.
func hmacMechanism(h crypto.Hash) (uint, error) {
	switch h {
	case crypto.SHA224:
		return pkcs11.CKM_SHA224_HMAC, nil
	case crypto.SHA256:
		return pkcs11.CKM_SHA256_HMAC, nil
	case crypto.SHA384:
		return pkcs11.CKM_SHA384_HMAC, nil
	case crypto.SHA512:
		return pkcs11.CKM_SHA512_HMAC, nil
	}
	return 0, fmt.Errorf("%w: HMAC with %v", ErrUnsupported, h)
}

// identity returns the attributes that say what an object of this shape is.
func (s shape) identity() []*pkcs11.Attribute {
	class, kind := uint(pkcs11.CKO_PRIVATE_KEY), uint(pkcs11.CKK_RSA)
	switch s.family {
	case familyAES:
		class, kind = pkcs11.CKO_SECRET_KEY, pkcs11.CKK_AES
	case familyHMAC:
		class, kind = pkcs11.CKO_SECRET_KEY, pkcs11.CKK_GENERIC_SECRET
	case familyEC:
		kind = pkcs11.CKK_EC
	case familyEdwards:
		kind = ckkECEdwards
	case familyRSA:
	}
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, kind),
	}
}

// publicIdentity is identity of the public key of a pair. The mechanism says the same,
// but opencryptoki compares both templates.
func (s shape) publicIdentity() []*pkcs11.Attribute {
	attrs := s.identity()
	attrs[0] = pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY)
	return attrs
}

// usage returns the attributes that permit what a Vault does with a key of this
// shape, and nothing else.
func (s shape) usage() []*pkcs11.Attribute {
	rsa, pair := s.family == familyRSA, !s.secret()
	attrs := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, s.family == familyAES || rsa),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, s.family != familyAES),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, rsa),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, s.family == familyEC),
	}
	if pair {
		return attrs
	}
	return append(attrs,
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, s.family == familyAES),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, false),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
	)
}

// storage says where an object is and who may see its value.
type storage struct {
	label       string // "": none
	onToken     bool
	extractable bool // by wrapping
	readable    bool // in the clear
}

// template returns the attributes of an object of this shape, without its value.
func (s shape) template(at storage) []*pkcs11.Attribute {
	attrs := append(s.identity(), at.attributes()...)
	return append(attrs, s.usage()...)
}

func (at storage) attributes() []*pkcs11.Attribute {
	attrs := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, at.onToken),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, !at.readable),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, at.extractable || at.readable),
	}
	if at.label != "" {
		attrs = append(attrs, pkcs11.NewAttribute(pkcs11.CKA_LABEL, at.label))
	}
	return attrs
}
