package keystore

import (
	"encoding/asn1"
	"math/big"

	"github.com/miekg/pkcs11"
)

// rsaNumbers is RSAPrivateKey, RFC 8017, appendix A.1.2, without its version.
type rsaNumbers struct {
	n, e, d, p, q, dp, dq, qInv *big.Int
}

func (r *rsaNumbers) all() []*big.Int {
	return []*big.Int{r.n, r.e, r.d, r.p, r.q, r.dp, r.dq, r.qInv}
}

// wipe overwrites the secret numbers.
func (r *rsaNumbers) wipe() {
	for _, n := range r.all()[2:] {
		clear(n.Bits())
	}
}

// parseRSA reads an RSA private key. Some programs know no more of one than the
// modulus and the exponents, and write zeros for the rest, which is computed.
func (s shape) parseRSA(material []byte) (parsed, error) {
	k, err := parsePKCS8(material)
	if err != nil {
		return parsed{}, err
	}
	if !k.algorithm.Algorithm.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}) {
		return parsed{}, otherMaterial("it is a key of another algorithm")
	}
	r, err := decodeRSAPrivate(k.private)
	if err != nil {
		return parsed{}, err
	}
	defer r.wipe()
	if r.n.BitLen() != 8*s.bytes {
		return parsed{}, otherMaterial("its modulus has %d bits instead of %d", r.n.BitLen(), 8*s.bytes)
	}
	public, err := encodeRSA(r.n.Bytes(), r.e.Bytes())
	if err != nil {
		return parsed{}, invalidMaterial("%v", err)
	}
	if k.public != nil && !r.isPublic(k.public) {
		return parsed{}, invalidMaterial("the public key beside it is not that of its private key")
	}
	if err := r.complete(); err != nil {
		return parsed{}, err
	}
	return parsed{public: public, attributes: r.attributes()}, nil
}

func decodeRSAPrivate(der []byte) (*rsaNumbers, error) {
	members, err := sequence(der, "its RSA private key")
	if err != nil {
		return nil, err
	}
	var version int
	if len(members) == 0 || !decode(members[0], &version) {
		return nil, invalidMaterial("its RSA private key is malformed")
	}
	if version != 0 {
		return nil, invalidMaterial("the version of its RSA private key is not that of a key with two primes")
	}
	r := new(rsaNumbers)
	into := []**big.Int{&r.n, &r.e, &r.d, &r.p, &r.q, &r.dp, &r.dq, &r.qInv}
	if members = members[1:]; len(members) != len(into) {
		return nil, invalidMaterial("its RSA private key has %d numbers instead of %d", len(members), len(into))
	}
	for i, m := range members {
		if !decode(m, into[i]) || (*into[i]).Sign() < 0 {
			return nil, invalidMaterial("the numbers of its RSA private key are malformed or negative")
		}
	}
	return r, nil
}

// isPublic reports whether an RSAPublicKey (RFC 8017, appendix A.1.1) is that of
// the key.
func (r *rsaNumbers) isPublic(der []byte) bool {
	var public struct{ N, E *big.Int }
	return unmarshal(der, &public) == nil && public.N.Cmp(r.n) == 0 && public.E.Cmp(r.e) == 0
}

// contradicts is the answer to numbers that are not those of one key.
func contradicts() error {
	return invalidMaterial("its numbers are not those of one RSA key with two primes")
}

// complete computes what is not said, and checks what is.
func (r *rsaNumbers) complete() error {
	one := big.NewInt(1)
	if r.d.Cmp(one) <= 0 || r.d.Cmp(r.n) >= 0 {
		return contradicts()
	}
	if r.p.Sign() == 0 && r.q.Sign() == 0 && !r.factor() {
		return contradicts()
	}
	if r.p.Cmp(one) <= 0 || r.q.Cmp(one) <= 0 || r.p.Cmp(r.q) == 0 || new(big.Int).Mul(r.p, r.q).Cmp(r.n) != 0 ||
		!r.p.ProbablyPrime(0) || !r.q.ProbablyPrime(0) {
		return contradicts()
	}
	p1, q1 := new(big.Int).Sub(r.p, one), new(big.Int).Sub(r.q, one)
	ed := new(big.Int).Mul(r.e, r.d)
	defer func() {
		for _, secret := range []*big.Int{p1, q1, ed} {
			clear(secret.Bits())
		}
	}()
	for _, less := range []*big.Int{p1, q1} {
		if new(big.Int).Mod(ed, less).Cmp(one) != 0 {
			return contradicts()
		}
	}
	dp, dq, qInv := new(big.Int).Mod(r.d, p1), new(big.Int).Mod(r.d, q1), new(big.Int).ModInverse(r.q, r.p)
	if r.dp.Sign() == 0 && r.dq.Sign() == 0 && r.qInv.Sign() == 0 {
		r.dp, r.dq, r.qInv = dp, dq, qInv
		return nil
	}
	if r.dp.Cmp(dp) != 0 || r.dq.Cmp(dq) != 0 || r.qInv.Cmp(qInv) != 0 {
		return contradicts()
	}
	return nil
}

// factorTries bounds the numbers that factor tries. At least half of all numbers
// lead to the primes.
const factorTries = 100

// factor finds the primes of the modulus by its exponents, as NIST SP 800-56B
// (revision 2, appendix C.1) does it, but for random numbers, which it does not
// need. It reports whether it has found them: not if the exponents do not belong
// to the modulus.
func (r *rsaNumbers) factor() bool {
	one := big.NewInt(1)
	odd := new(big.Int).Mul(r.e, r.d)
	odd.Sub(odd, one)
	defer func() { clear(odd.Bits()) }()
	if odd.Sign() <= 0 || odd.Bit(0) != 0 {
		return false
	}
	twos := odd.TrailingZeroBits()
	odd.Rsh(odd, twos)
	for g := int64(2); g < 2+factorTries; g++ {
		x := new(big.Int).Exp(big.NewInt(g), odd, r.n)
		root, isOne := rootOfOne(x, r.n, twos)
		if !isOne {
			return false
		}
		if root == nil {
			continue
		}
		r.p.GCD(nil, nil, root.Sub(root, one), r.n)
		r.q.Div(r.n, r.p)
		if r.p.Cmp(r.q) < 0 {
			r.p, r.q = r.q, r.p
		}
		return true
	}
	return false
}

// rootOfOne squares x so many times modulo n, and returns the square root of one
// on the way that is neither 1 nor -1, if there is one; isOne: it came to one.
func rootOfOne(x, n *big.Int, squares uint) (root *big.Int, isOne bool) {
	one := big.NewInt(1)
	minusOne := new(big.Int).Sub(n, one)
	if x.Cmp(one) == 0 {
		return nil, true
	}
	for range squares {
		y := new(big.Int).Mul(x, x)
		y.Mod(y, n)
		if y.Cmp(one) != 0 {
			x = y
			continue
		}
		if x.Cmp(minusOne) == 0 {
			return nil, true
		}
		return x, true
	}
	return nil, false
}

// attributes returns the key as PKCS#11 has it.
func (r *rsaNumbers) attributes() []*pkcs11.Attribute {
	types := []uint{
		pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT, pkcs11.CKA_PRIVATE_EXPONENT, pkcs11.CKA_PRIME_1, pkcs11.CKA_PRIME_2,
		pkcs11.CKA_EXPONENT_1, pkcs11.CKA_EXPONENT_2, pkcs11.CKA_COEFFICIENT,
	}
	attributes := make([]*pkcs11.Attribute, len(types))
	for i, n := range r.all() {
		attributes[i] = pkcs11.NewAttribute(types[i], n.Bytes())
	}
	return attributes
}
