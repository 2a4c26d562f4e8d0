package cryptoki

import "github.com/miekg/pkcs11"

// Mechanism is a CK_MECHANISM. At most one of its parameters is set.
type Mechanism struct {
	Type uint
	GCM  *GCM
	OAEP *OAEP
	PSS  *PSS
	ECDH *ECDH
}

// GCM is CK_GCM_PARAMS (PKCS#11 v2.40, section 2.12.3), for a tag of 128 bits.
type GCM struct {
	IV, AAD []byte // either may be empty
}

// OAEP is CK_RSA_PKCS_OAEP_PARAMS (section 2.1.8) with an empty label.
type OAEP struct {
	Hash, MGF uint
}

// PSS is CK_RSA_PKCS_PSS_PARAMS (section 2.1.10).
type PSS struct {
	Hash, MGF uint
	Salt      uint // bytes
}

// ECDH is CK_ECDH1_DERIVE_PARAMS (section 2.3.8) with CKD_NULL.
type ECDH struct {
	Public []byte // the peer's point, raw
}

// Plain returns a mechanism without parameters.
func Plain(mechanism uint) Mechanism { return Mechanism{Type: mechanism} }

// native returns m for the library: no key is made or unwrapped by AES-GCM or PSS.
func (m Mechanism) native() []*pkcs11.Mechanism {
	var params any
	switch {
	case m.OAEP != nil:
		params = pkcs11.NewOAEPParams(m.OAEP.Hash, m.OAEP.MGF, pkcs11.CKZ_DATA_SPECIFIED, nil)
	case m.ECDH != nil:
		params = pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, m.ECDH.Public)
	}
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m.Type, params)}
}
