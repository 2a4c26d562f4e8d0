package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"
)

// issue returns, in PEM, the certificate that an authority which is no root of this
// machine issues for a new key, its key, and the authority's own certificate.
func issue(t testing.TB, issuingURL ...string) (certificate, key, authority string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Hour)
	issuer := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Intermediate R1"}, NotAfter: until, IsCA: true, BasicConstraintsValid: true}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotAfter: until, IssuingCertificateURL: issuingURL}
	issuerKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuerDER, err := x509.CreateCertificate(rand.Reader, issuer, issuer, issuerKey.Public(), issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, private.Public(), issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return encodePEM("CERTIFICATE", der), encodePEM("EC PRIVATE KEY", sec1), encodePEM("CERTIFICATE", issuerDER)
}

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// pair writes a certificate and its key and returns what Load says of them.
func pair(t *testing.T, certificate, key string) (*Config, error) {
	t.Helper()
	w := &watch{path: folder(t, full)}
	put(t, w.file("tls/server.crt"), certificate)
	put(t, w.file("tls/server.key"), key)
	return Load(w.path)
}

func TestCertificateFiles(t *testing.T) {
	certificate, key, authority := issue(t)
	other, otherKey, _ := issue(t)
	block, _ := pem.Decode([]byte(certificate))
	keyBlock, _ := pem.Decode([]byte(key))
	encrypted := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: keyBlock.Bytes}))
	params := encodePEM("EC PARAMETERS", []byte{6, 1, 0})
	for name, test := range map[string]struct{ certificate, key, want string }{
		"good":                     {certificate, key, ""},
		"good chain":               {certificate + authority, key, ""},
		"both in one file":         {certificate, certificate + key, ""},
		"parameters first":         {certificate, params + key, ""},
		"text before":              {"Bag Attributes\n" + certificate, "# key\n" + key, ""},
		"line ends of Windows":     {strings.ReplaceAll(certificate+authority, "\n", "\r\n"), strings.ReplaceAll(key, "\n", "\r\n"), ""},
		"no line end at the end":   {strings.TrimSuffix(certificate, "\n"), strings.TrimSuffix(key, "\n"), ""},
		"empty certificate":        {"\n", key, "server.crt: is empty"},
		"empty key":                {certificate, "", "server.key: is empty"},
		"DER":                      {string(block.Bytes), key, "server.crt: is binary (DER"},
		"key in DER":               {certificate, string(keyBlock.Bytes), "server.key: is binary (DER"},
		"no PEM":                   {"0 certificates", key, "server.crt: has no PEM certificate"},
		"wrong key":                {certificate, otherKey, "the key is another one's"},
		"wrong order":              {authority + certificate, key, "as number 2: it must come first"},
		"exchanged":                {key, certificate, "server.crt:1: has no certificate, but a PEM block EC PRIVATE KEY: are the certificate and the key exchanged?"},
		"certificate as key":       {certificate, certificate, "server.key:1: has no private key, but a PEM block CERTIFICATE"},
		"password, PKCS #8":        {certificate, encodePEM("ENCRYPTED PRIVATE KEY", keyBlock.Bytes), "server.key:1: has a private key that is protected by a password"},
		"password, as of old":      {certificate, encrypted, "server.key:1: has a private key that is protected by a password"},
		"OpenSSH":                  {certificate, encodePEM("OPENSSH PRIVATE KEY", keyBlock.Bytes), "form of OpenSSH"},
		"joined":                   {strings.TrimSuffix(certificate, "\n") + authority, key, "lacks a line break between two PEM blocks"},
		"joined with one more":     {strings.TrimSuffix(certificate, "\n") + authority + other, key, "lacks a line break between two PEM blocks"},
		"no line break inside":     {strings.ReplaceAll(certificate, "\n", " "), key, "server.crt:1: has a PEM block that cannot be read"},
		"cut off":                  {certificate + authority[:200], key, "has a PEM block that cannot be read"},
		"escaped line breaks":      {strings.ReplaceAll(certificate, "\n", `\n`), key, `the two characters \n`},
		"damaged":                  {encodePEM("CERTIFICATE", block.Bytes[:100]), key, "server.crt:1: has a certificate that is damaged"},
		"damaged key":              {certificate, encodePEM("PRIVATE KEY", keyBlock.Bytes[:20]), "server.key:1: has a private key that is damaged"},
		"OpenSSL's own":            {encodePEM("TRUSTED CERTIFICATE", block.Bytes), key, "form of OpenSSL's own"},
		"byte order mark":          {"\xef\xbb\xbf" + certificate, key, "byte order mark"},
		"damaged behind the first": {certificate + encodePEM("CERTIFICATE", block.Bytes[:100]), key, "has a certificate that is damaged"},
	} {
		c, err := pair(t, test.certificate, test.key)
		switch {
		case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		case test.want == "" && len(c.Warnings) > 0:
			t.Errorf("%s: %v", name, c.Warnings)
		}
		if err != nil && bytes.Contains([]byte(err.Error()), []byte(strings.Split(key, "\n")[1])) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}

func TestMissingIntermediate(t *testing.T) {
	certificate, key, authority := issue(t, "http://authority.example/r1.crt")
	c, err := pair(t, certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Error(), "Intermediate R1") {
		t.Errorf("warnings %v", c.Warnings)
	}
	if c, err = pair(t, certificate+authority, key); err != nil || len(c.Warnings) > 0 {
		t.Errorf("%v, warnings %v", err, c.Warnings)
	}
}

// A file that is written in place, of the same size, whose time is set back, as cp -p
// or rsync may do.
func TestWatchSeesAFileWrittenInPlace(t *testing.T) {
	w := newWatch(t, full)
	path := w.file("credentials/default.json")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for old := versionOf(path); versionOf(path) == old; { // the clock of files is coarse
		if err := os.WriteFile(path, bytes.Replace(text, []byte("2026"), []byte("2025"), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		if t.Context().Err() != nil {
			t.Fatal("nothing shows that the file was written")
		}
	}
	w.ticks(5)
	w.expect(t, 1, 0)
}
