package xks

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// fuzzServer serves one key and no log.
func fuzzServer(f *testing.F) *Server {
	f.Helper()
	server, err := NewServer(testConfig(newMemKeys("key-1")), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		f.Fatal(err)
	}
	return server
}

// serve checks that the answer is a success or a row of the error table.
func serve(t *testing.T, server *Server, r *http.Request) *discard {
	t.Helper()
	w := &discard{header: http.Header{}}
	server.ServeHTTP(w, r)
	if w.status == http.StatusOK || w.status == http.StatusMethodNotAllowed {
		return w
	}
	var e ErrorResponse
	if err := json.Unmarshal(w.body.Bytes(), &e); err != nil || e.Name.Status() != w.status {
		t.Fatalf("%d %s: %v", w.status, w.body.Bytes(), err)
	}
	if e.Name == InternalException || e.Name == AuthenticationFailedException && r.URL.Path == keyPath+"encrypt" {
		t.Fatalf("%s: %s", e.Name, e.Message)
	}
	return w
}

func fuzzBody(f *testing.F, operation string, seed body, check func(t *testing.T, content []byte, w *discard)) {
	server := fuzzServer(f)
	f.Add(seed.json())
	f.Add(withCDIV().json())
	f.Add([]byte(`{"requestMetadata":null,"plaintext":"\u0041AAA"}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, content []byte) {
		r := newRequest(t, http.MethodPost, "https://localhost"+keyPath+operation, content)
		sign(r, content)
		if w := serve(t, server, r); w.status == http.StatusOK {
			check(t, content, w)
		}
	})
}

func FuzzEncryptBody(f *testing.F) {
	fuzzBody(f, "encrypt", encryptBody(), func(t *testing.T, content []byte, w *discard) {
		var in EncryptRequest
		var out EncryptResponse
		if err := json.Unmarshal(content, &in); err != nil {
			t.Fatalf("served what is no request: %v", err)
		}
		if err := json.Unmarshal(w.body.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		if len(out.Ciphertext) != len(in.Plaintext) || len(in.Plaintext) == 0 {
			t.Errorf("%d bytes became %d", len(in.Plaintext), len(out.Ciphertext))
		}
		if in.CDIVAlgorithm != "" && !bytes.Equal(out.CDIV, cdivOf(in.AAD, out)) {
			t.Error("CDIV does not belong to the answer")
		}
	})
}

func FuzzDecryptBody(f *testing.F) {
	sealed := EncryptResponse{Ciphertext: []byte("c"), IV: make([]byte, 12), Tag: make([]byte, 16), Metadata: []byte{1, 0, 0, 0, 1, 'h'}}
	fuzzBody(f, "decrypt", decryptBody(sealed, nil), func(t *testing.T, content []byte, _ *discard) {
		t.Errorf("opened %q", content)
	})
}

// Nothing but the paths of the store is served, and every one of them is.
func FuzzPath(f *testing.F) {
	server := fuzzServer(f)
	for _, path := range []string{"/", "*", keyPath + "encrypt", "/t1/kms/xks/v1/health", "/t1/kms/xks/v1/keys//decrypt", "/t1/kms/xks/v1/keys/%2e%2e/metadata"} {
		f.Add(path)
	}
	content := encryptBody().json()
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		u.Scheme, u.Host = "https", "localhost"
		r := newRequest(t, http.MethodPost, "https://localhost/", content)
		r.URL = u
		sign(r, content)
		w := serve(t, server, r)
		if w.status != http.StatusOK {
			return
		}
		switch strings.TrimPrefix(u.EscapedPath(), "/t1/kms/xks/v1/") {
		case "health", "keys/key-1/encrypt", "keys/key-1/metadata":
		default:
			t.Errorf("served %q", path)
		}
	})
}

// FuzzBase64 holds decode against the standard library, which is laxer.
func FuzzBase64(f *testing.F) {
	f.Add("SGVsbG8gV29ybGQh")
	f.Add("QR==")
	f.Add("QUFB\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		quoted, err := json.Marshal(text)
		if err != nil {
			return
		}
		got, err := newCall().decode(nil, quoted, MaxText)
		if err != nil {
			return
		}
		if base64.StdEncoding.EncodeToString(got) != text {
			t.Errorf("%q decodes to %x, which is encoded otherwise", text, got)
		}
	})
}
