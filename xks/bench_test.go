package xks

import (
	"bytes"
	"encoding/base64"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// discard is a ResponseWriter that keeps the last answer alone.
type discard struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return d.body.Write(p) }

// rewound is a request body that can be read again and again.
type rewound struct{ bytes.Reader }

func (*rewound) Close() error { return nil }

// benchmark measures the handler without the network: authentication, JSON,
// the cipher in this process, the log line.
func benchmark(b *testing.B, logTo io.Writer, path string, content []byte) {
	server := benchServer(b, newMemKeys("key-1"), logTo)
	benchmarkOn(b, server, path, content)
}

func benchServer(b *testing.B, keys Keys, logTo io.Writer) *Server {
	b.Helper()
	logger := slog.New(slog.DiscardHandler)
	if logTo != nil {
		logger = slog.New(slog.NewJSONHandler(logTo, nil))
	}
	server, err := NewServer(testConfig(keys), logger, func(Observation) {})
	if err != nil {
		b.Fatal(err)
	}
	return server
}

func benchmarkOn(b *testing.B, server *Server, path string, content []byte) {
	r, err := http.NewRequest(http.MethodPost, "https://localhost"+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	signAt(r, content, testCredential, "us-east-1", time.Now())
	in := &rewound{}
	r.Body, r.ContentLength = in, int64(len(content))
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		in.Reset(content)
		w.body.Reset()
		server.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			b.Fatalf("%d %s", w.status, w.body.String())
		}
	}
}

func BenchmarkEncrypt(b *testing.B) { benchmark(b, nil, keyPath+"encrypt", encryptBody().json()) }

func BenchmarkEncryptLogged(b *testing.B) {
	benchmark(b, io.Discard, keyPath+"encrypt", encryptBody().json())
}

func BenchmarkEncryptCDIV(b *testing.B) {
	benchmark(b, nil, keyPath+"encrypt", encryptBody().with(body{"ciphertextDataIntegrityValueAlgorithm": "SHA_256"}).json())
}

func BenchmarkDecrypt(b *testing.B) {
	keys := newMemKeys("key-1")
	server := benchServer(b, keys, nil)
	in := encryptBody().json()
	r, err := http.NewRequest(http.MethodPost, "https://localhost"+keyPath+"encrypt", bytes.NewReader(in))
	if err != nil {
		b.Fatal(err)
	}
	sign(r, in)
	w := &discard{header: http.Header{}}
	server.ServeHTTP(w, r)
	var sealed EncryptResponse
	if err := json.Unmarshal(w.body.Bytes(), &sealed); err != nil {
		b.Fatal(err)
	}
	aad, err := base64.StdEncoding.DecodeString(encryptBody()["additionalAuthenticatedData"].(string))
	if err != nil {
		b.Fatal(err)
	}
	benchmarkOn(b, server, keyPath+"decrypt", decryptBody(sealed, aad).json())
}
