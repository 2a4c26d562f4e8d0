package kmstest

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"hash"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// encrypt is symmetric encryption: the blob names its key, the encryption context
// is bound, and whatever is changed or foreign is refused.
func (s *suite) encrypt() {
	id, other := s.symmetric(), s.newKey()
	current := s.describe(id).CurrentKeyMaterialId
	plaintext, context := []byte("plaintext"), map[string]string{"purpose": "test", "": "empty name", "ключ": "значение"}
	sealed := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: plaintext, EncryptionContext: context})
	s.checkMembers(sealed, "CiphertextBlob EncryptionAlgorithm KeyId")
	if *sealed.KeyId != arn(id) || sealed.EncryptionAlgorithm != types.EncryptionAlgorithmSpecSymmetricDefault || bytes.Contains(sealed.CiphertextBlob, plaintext) {
		s.Errorf("Encrypt answered %+v", sealed)
	}
	again := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: plaintext, EncryptionContext: context})
	if bytes.Equal(again.CiphertextBlob, sealed.CiphertextBlob) {
		s.Error("the same plaintext has the same ciphertext twice")
	}
	in := func(change ...func(*kms.DecryptInput)) *kms.DecryptInput {
		in := &kms.DecryptInput{CiphertextBlob: bytes.Clone(sealed.CiphertextBlob), EncryptionContext: context}
		for _, c := range change {
			c(in)
		}
		return in
	}
	for _, keyID := range []*string{nil, id, aws.String(arn(id))} {
		opened := ok(s, s.Decrypt, in(func(in *kms.DecryptInput) { in.KeyId = keyID }))
		s.checkMembers(opened, "EncryptionAlgorithm KeyId KeyMaterialId Plaintext")
		if !bytes.Equal(opened.Plaintext, plaintext) || *opened.KeyId != arn(id) || *opened.KeyMaterialId != *current {
			s.Errorf("Decrypt answered %+v", opened)
		}
	}
	refused(s, s.Decrypt, in(func(in *kms.DecryptInput) { in.KeyId = other }), "IncorrectKeyException")
	refused(s, s.Decrypt, in(func(in *kms.DecryptInput) { in.EncryptionContext = nil }), "InvalidCiphertextException")
	refused(s, s.Decrypt, in(func(in *kms.DecryptInput) { in.EncryptionContext = map[string]string{"purpose": "test"} }), "InvalidCiphertextException")
	refused(s, s.Decrypt, in(func(in *kms.DecryptInput) { in.CiphertextBlob = []byte("not a blob") }), "InvalidCiphertextException")
	refused(s, s.Decrypt, in(func(in *kms.DecryptInput) { in.CiphertextBlob = in.CiphertextBlob[:len(in.CiphertextBlob)-1] }), "InvalidCiphertextException")
	refused(s, s.Decrypt, in(func(in *kms.DecryptInput) { in.EncryptionAlgorithm = types.EncryptionAlgorithmSpecRsaesOaepSha256 }), "ValidationException")
	refused(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: plaintext, EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256}, "InvalidKeyUsageException")
	// Whatever single bit of the ciphertext is changed.
	for i := range sealed.CiphertextBlob {
		broken := in(func(in *kms.DecryptInput) { in.CiphertextBlob[i] ^= 1 << (i % 8) })
		_, err := s.Decrypt(s.Context(), broken)
		want := "InvalidCiphertextException"
		if 2 <= i && i < 18 { // it names another key, which may be somewhere
			want = "AccessDeniedException"
		}
		if code, _ := codeOf(err); code != want {
			s.Errorf("byte %d changed: %v", i, err)
		}
	}
	s.reEncrypt(id, other, sealed.CiphertextBlob, context)
}

// reEncrypt brings ciphertext under another key and context.
func (s *suite) reEncrypt(from, to *string, blob []byte, context map[string]string) {
	s.Helper()
	next := map[string]string{"purpose": "another"}
	out := ok(s, s.ReEncrypt, &kms.ReEncryptInput{
		CiphertextBlob: blob, SourceEncryptionContext: context, DestinationKeyId: to, DestinationEncryptionContext: next,
	})
	s.checkMembers(out, "CiphertextBlob DestinationEncryptionAlgorithm DestinationKeyMaterialId KeyId SourceEncryptionAlgorithm SourceKeyId SourceKeyMaterialId")
	if *out.KeyId != arn(to) || *out.SourceKeyId != arn(from) {
		s.Errorf("ReEncrypt answered %+v", out)
	}
	opened := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: next, KeyId: to})
	if string(opened.Plaintext) != "plaintext" {
		s.Errorf("decrypted to %q", opened.Plaintext)
	}
	refused(s, s.ReEncrypt, &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: to}, "InvalidCiphertextException")
	refused(s, s.ReEncrypt, &kms.ReEncryptInput{CiphertextBlob: blob, SourceEncryptionContext: context, SourceKeyId: to, DestinationKeyId: to}, "IncorrectKeyException")
	rsaKey := s.key(types.KeySpecRsa2048, types.KeyUsageTypeEncryptDecrypt)
	toRSA := ok(s, s.ReEncrypt, &kms.ReEncryptInput{
		CiphertextBlob: blob, SourceEncryptionContext: context, DestinationKeyId: rsaKey, DestinationEncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256,
	})
	s.checkMembers(toRSA, "CiphertextBlob DestinationEncryptionAlgorithm KeyId SourceEncryptionAlgorithm SourceKeyId SourceKeyMaterialId")
	back := ok(s, s.ReEncrypt, &kms.ReEncryptInput{
		CiphertextBlob: toRSA.CiphertextBlob, SourceKeyId: rsaKey, SourceEncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256, DestinationKeyId: to,
	})
	if opened := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: back.CiphertextBlob}); string(opened.Plaintext) != "plaintext" {
		s.Errorf("decrypted to %q", opened.Plaintext)
	}
}

// dataKeys are what envelope encryption asks for: in the clear or not, and always
// under the key.
func (s *suite) dataKeys() {
	id, context := s.symmetric(), map[string]string{"a": "b"}
	seen := map[string]bool{}
	for _, test := range []struct {
		spec types.DataKeySpec
		n    *int32
		want int
	}{{spec: types.DataKeySpecAes128, want: 16}, {spec: types.DataKeySpecAes256, want: 32}, {n: aws.Int32(1), want: 1}, {n: aws.Int32(1024), want: 1024}} {
		out := ok(s, s.GenerateDataKey, &kms.GenerateDataKeyInput{KeyId: id, KeySpec: test.spec, NumberOfBytes: test.n, EncryptionContext: context})
		s.checkMembers(out, "CiphertextBlob KeyId KeyMaterialId Plaintext")
		opened := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: context})
		if len(out.Plaintext) != test.want || !bytes.Equal(opened.Plaintext, out.Plaintext) || test.want > 8 && seen[string(out.Plaintext)] {
			s.Errorf("a data key of %d bytes, which decrypts to %d", len(out.Plaintext), len(opened.Plaintext))
		}
		seen[string(out.Plaintext)] = true
		hidden := ok(s, s.GenerateDataKeyWithoutPlaintext, &kms.GenerateDataKeyWithoutPlaintextInput{
			KeyId: id, KeySpec: test.spec, NumberOfBytes: test.n, EncryptionContext: context,
		})
		s.checkMembers(hidden, "CiphertextBlob KeyId KeyMaterialId")
		if opened := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: hidden.CiphertextBlob, EncryptionContext: context}); len(opened.Plaintext) != test.want {
			s.Errorf("a data key of %d bytes", len(opened.Plaintext))
		}
	}
	refused(s, s.GenerateDataKey, &kms.GenerateDataKeyInput{KeyId: id}, "ValidationException")
	refused(s, s.GenerateDataKey, &kms.GenerateDataKeyInput{KeyId: id, KeySpec: types.DataKeySpecAes256, NumberOfBytes: aws.Int32(32)}, "ValidationException")
	mac := s.key(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac)
	refused(s, s.GenerateDataKey, &kms.GenerateDataKeyInput{KeyId: mac, KeySpec: types.DataKeySpecAes256}, "InvalidKeyUsageException")
	s.dataKeyPairs(id, context)
}

// dataKeyPairs are key pairs for use outside, whose halves fit together.
func (s *suite) dataKeyPairs(id *string, context map[string]string) {
	s.Helper()
	for _, pair := range []types.DataKeyPairSpec{
		types.DataKeyPairSpecRsa2048, types.DataKeyPairSpecEccNistP256, types.DataKeyPairSpecEccNistP384, types.DataKeyPairSpecEccNistP521,
		types.DataKeyPairSpecEccSecgP256k1, types.DataKeyPairSpecEccNistEdwards25519,
	} {
		out := ok(s, s.GenerateDataKeyPair, &kms.GenerateDataKeyPairInput{KeyId: id, KeyPairSpec: pair, EncryptionContext: context})
		s.checkMembers(out, "KeyId KeyMaterialId KeyPairSpec PrivateKeyCiphertextBlob PrivateKeyPlaintext PublicKey")
		opened := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: out.PrivateKeyCiphertextBlob, EncryptionContext: context})
		if out.KeyPairSpec != pair || !bytes.Equal(opened.Plaintext, out.PrivateKeyPlaintext) {
			s.Errorf("%s: the encrypted private key is another one", pair)
		}
		if pair == types.DataKeyPairSpecEccSecgP256k1 {
			continue // which the standard library cannot read
		}
		private, err := x509.ParsePKCS8PrivateKey(out.PrivateKeyPlaintext)
		if err != nil {
			s.Errorf("%s: %v", pair, err)
			continue
		}
		if public := publicOf(s, private); !bytes.Equal(public, out.PublicKey) {
			s.Errorf("%s: the public key is not that of the private key", pair)
		}
	}
	hidden := ok(s, s.GenerateDataKeyPairWithoutPlaintext, &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: id, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
	s.checkMembers(hidden, "KeyId KeyMaterialId KeyPairSpec PrivateKeyCiphertextBlob PublicKey")
	opened := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: hidden.PrivateKeyCiphertextBlob})
	private, err := x509.ParsePKCS8PrivateKey(opened.Plaintext)
	if err != nil || !bytes.Equal(publicOf(s, private), hidden.PublicKey) {
		s.Errorf("the private key does not fit: %v", err)
	}
	refused(s, s.GenerateDataKeyPair, &kms.GenerateDataKeyPairInput{KeyId: id, KeyPairSpec: types.DataKeyPairSpecSm2}, "UnsupportedOperationException")
}

// rsaEncryption is RSAES-OAEP, both ways against the standard library, up to the
// longest message of each key and padding.
func (s *suite) rsaEncryption() {
	hashes := map[types.EncryptionAlgorithmSpec]func() hash.Hash{
		types.EncryptionAlgorithmSpecRsaesOaepSha1: sha1.New, types.EncryptionAlgorithmSpecRsaesOaepSha256: sha256.New,
	}
	for spec, size := range map[types.KeySpec]int{types.KeySpecRsa2048: 256, types.KeySpecRsa3072: 384} {
		id := s.key(spec, types.KeyUsageTypeEncryptDecrypt)
		out := ok(s, s.GetPublicKey, &kms.GetPublicKeyInput{KeyId: id})
		s.checkMembers(out, "CustomerMasterKeySpec EncryptionAlgorithms KeyId KeySpec KeyUsage PublicKey")
		parsed, err := x509.ParsePKIXPublicKey(out.PublicKey)
		if err != nil {
			s.Fatal(err)
		}
		for algorithm, hash := range hashes {
			most := size - 2*hash().Size() - 2
			message := make([]byte, most)
			_, _ = rand.Read(message)
			outside, err := rsa.EncryptOAEP(hash(), rand.Reader, parsed.(*rsa.PublicKey), message, nil)
			if err != nil {
				s.Fatal(err)
			}
			inside := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: message, EncryptionAlgorithm: algorithm})
			for _, ciphertext := range [][]byte{outside, inside.CiphertextBlob} {
				opened := ok(s, s.Decrypt, &kms.DecryptInput{KeyId: id, CiphertextBlob: ciphertext, EncryptionAlgorithm: algorithm})
				s.checkMembers(opened, "EncryptionAlgorithm KeyId Plaintext")
				if !bytes.Equal(opened.Plaintext, message) {
					s.Errorf("%s %s: another plaintext", spec, algorithm)
				}
			}
			refused(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: make([]byte, most+1), EncryptionAlgorithm: algorithm}, "ValidationException")
			broken := bytes.Clone(outside)
			broken[size-1] ^= 1
			refused(s, s.Decrypt, &kms.DecryptInput{KeyId: id, CiphertextBlob: broken, EncryptionAlgorithm: algorithm}, "InvalidCiphertextException")
			refused(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: outside, EncryptionAlgorithm: algorithm}, "ValidationException")
			refused(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: message, EncryptionAlgorithm: algorithm, EncryptionContext: map[string]string{"a": "b"}}, "ValidationException")
		}
	}
	id := s.key(types.KeySpecRsa2048, types.KeyUsageTypeEncryptDecrypt)
	refused(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")}, "InvalidKeyUsageException")
	refused(s, s.Encrypt, &kms.EncryptInput{
		KeyId: s.key(types.KeySpecRsa2048, types.KeyUsageTypeSignVerify), Plaintext: []byte("p"), EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256,
	}, "InvalidKeyUsageException")
}

// generateRandom asks for random bytes.
func (s *suite) generateRandom() {
	seen := map[string]bool{}
	for _, n := range []int32{1, 32, 32, 1024} {
		out := ok(s, s.GenerateRandom, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(n)})
		s.checkMembers(out, "Plaintext")
		if len(out.Plaintext) != int(n) || n > 8 && seen[string(out.Plaintext)] {
			s.Errorf("%d bytes, asked for %d", len(out.Plaintext), n)
		}
		seen[string(out.Plaintext)] = true
	}
}
