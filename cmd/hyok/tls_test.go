package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

func parseRequest(t *testing.T, text string) *x509.CertificateRequest {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		t.Fatalf("no request: %s", text)
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := request.CheckSignature(); err != nil {
		t.Error(err)
	}
	return request
}

func TestTLSRequest(t *testing.T) {
	o := newOffice(t, "main")
	file := o.path("xks.csr")
	got := o.do(0, "tls", "request", "--host", "xks.example.com", "--host", "192.0.2.1", "--out", file)
	got.expect(t, "is in "+file, "object=hyok-tls", "pin-source=file:pin", "certificate authority that AWS KMS trusts", "listeners[].tls")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first := parseRequest(t, string(text))
	if first.Subject.CommonName != "xks.example.com" || len(first.DNSNames) != 1 || first.DNSNames[0] != "xks.example.com" ||
		len(first.IPAddresses) != 1 || first.IPAddresses[0].String() != "192.0.2.1" {
		t.Errorf("%v %v %v", first.Subject, first.DNSNames, first.IPAddresses)
	}
	o.do(3, "tls", "request", "--host", "xks.example.com").expect(t, "--existing")
	o.do(3, "tls", "request", "--host", "xks.example.com", "--existing", "--out", file).expect(t, "exists already")

	again := o.do(0, "tls", "request", "--host", "new.example.com", "--existing")
	second := parseRequest(t, again.stdout)
	if !second.PublicKey.(interface{ Equal(x crypto.PublicKey) bool }).Equal(first.PublicKey) {
		t.Error("--existing took another key pair")
	}
	if !strings.Contains(again.stderr, "certificate authority") {
		t.Errorf("what to do is not beside the request: %q", again.stderr)
	}
}

func TestTLSRequestByURI(t *testing.T) {
	o := newOffice(t, "main")
	u := o.uris["main"]
	u.Object, u.PINSource = "by-uri", "file:"+o.path("pin")
	var v requestView
	o.doWith("", 0, "tls", "request", "--key-uri", u.String(), "--kind", "rsa-2048", "--host", "a.example", "-o", "json").decode(t, &v)
	if request := parseRequest(t, v.Request); request.PublicKeyAlgorithm != x509.RSA || v.KeyURI != u.String() {
		t.Errorf("%v, key %s", request.PublicKeyAlgorithm, v.KeyURI)
	}
	pair, err := new(keystore.Modules).OpenKeyPair(u, func() (string, error) { return tokentest.PIN, nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Close(); err != nil {
		t.Error(err)
	}
	u.PINSource = ""
	o.doWith("", 1, "tls", "request", "--key-uri", u.String(), "--host", "a.example").expect(t, "pin-source")
	o.doWith("", 1, "tls", "request", "--key-uri", u.String()+"&pin-value="+tokentest.PIN, "--host", "a.example").expect(t, "pin-value, which is not allowed")
}

func TestTLSRequestRefuses(t *testing.T) {
	o := newOffice(t, "main")
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "--host gives"},
		{[]string{"--host", "a b"}, "neither a DNS name"},
		{[]string{"--host", "https://a.example"}, "neither a DNS name"},
		{[]string{"--host", "fe80::1%eth0"}, "neither a DNS name"},
		{[]string{"--host", "a.example", "--kind", "dsa"}, "--kind must be"},
		{[]string{"--host", "a.example", "--kind", "rsa-2048", "--existing"}, "either --existing or --kind"},
		{[]string{"--host", "a.example", "--key-uri", "pkcs11:token=x", "--object", "y"}, "either --key-uri"},
		{[]string{"--host", "a.example", "--key-uri", "token=x"}, "--key-uri: PKCS#11 URI must begin"},
	} {
		o.do(2, append([]string{"tls", "request"}, test.args...)...).expect(t, test.want)
	}
	o.do(1, "tls", "request", "--host", "a.example", "--existing").expect(t, "no key pair matches")
}
