package xks

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
)

// eachProtocol runs a test over HTTP/1.1 and HTTP/2.
func eachProtocol(t *testing.T, p *proxy, test func(t *testing.T, client *http.Client)) {
	for _, http2 := range []bool{false, true} {
		client := p.client(t, http2)
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			test(t, client)
			if got := do(t, client, newRequest(t, http.MethodPost, p.url("/"), nil)); got.major != map[bool]int{false: 1, true: 2}[http2] {
				t.Errorf("spoke HTTP/%d", got.major)
			}
			<-p.seen // of this request, if the test took its own
		})
	}
}

func TestEncryptDecrypt(t *testing.T) {
	p := startProxy(t, nil)
	for _, size := range []int{1, 12, 4300, MaxText} {
		for _, aadSize := range []int{0, 33, 8192, MaxAAD} {
			t.Run(fmt.Sprintf("%d-%d", size, aadSize), func(t *testing.T) {
				eachProtocol(t, p, func(t *testing.T, client *http.Client) { roundTrip(t, p, client, size, aadSize) })
			})
		}
	}
}

func roundTrip(t *testing.T, p *proxy, client *http.Client, size, aadSize int) {
	plaintext, aad := bytes.Repeat([]byte{'p'}, size), bytes.Repeat([]byte{'a'}, aadSize)
	in := encryptBody().with(body{
		"plaintext":                             base64.StdEncoding.EncodeToString(plaintext),
		"additionalAuthenticatedData":           base64.StdEncoding.EncodeToString(aad),
		"ciphertextDataIntegrityValueAlgorithm": "SHA_256",
	})
	var sealed EncryptResponse
	p.post(t, client, keyPath+"encrypt", in.json()).decodeInto(t, &sealed)
	if len(sealed.Ciphertext) != size || len(sealed.Tag) != 16 || len(sealed.IV) != 12 || len(sealed.CDIV) != 32 || len(sealed.Metadata) != metadataSize {
		t.Fatalf("sizes of %+v", sealed)
	}
	var opened DecryptResponse
	p.post(t, client, keyPath+"decrypt", decryptBody(sealed, aad).json()).decodeInto(t, &opened)
	if !bytes.Equal(opened.Plaintext, plaintext) {
		t.Error("another plaintext came back")
	}
}

// decryptBody asks for what an Encrypt answered to be opened.
func decryptBody(sealed EncryptResponse, aad []byte) body {
	b := body{
		"requestMetadata":      requestMetadata(),
		"ciphertext":           base64.StdEncoding.EncodeToString(sealed.Ciphertext),
		"initializationVector": base64.StdEncoding.EncodeToString(sealed.IV),
		"authenticationTag":    base64.StdEncoding.EncodeToString(sealed.Tag),
		"encryptionAlgorithm":  "AES_GCM",
	}
	if aad != nil {
		b["additionalAuthenticatedData"] = base64.StdEncoding.EncodeToString(aad)
	}
	if len(sealed.Metadata) > 0 {
		b["ciphertextMetadata"] = base64.StdEncoding.EncodeToString(sealed.Metadata)
	}
	return b
}
