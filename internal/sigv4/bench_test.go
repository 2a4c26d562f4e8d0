package sigv4

import (
	"bytes"
	"net/http/httptest"
	"testing"
)

func BenchmarkParseAndCheck(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 400)
	r := httptest.NewRequest("POST", "https://xks.example.com/prefix/kms/xks/v1/keys/key-0001/encrypt", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	secret := NewSecret(exampleSecret)
	Sign(r, body, exampleID, secret, "eu-west-1", "kms-xks-proxy", exampleTime())
	v := testVerifier()
	b.ReportAllocs()
	for b.Loop() {
		a, err := v.Parse(r)
		if err != nil {
			b.Fatal(err)
		}
		if err := a.Check(r, body, secret); err != nil {
			b.Fatal(err)
		}
	}
}
