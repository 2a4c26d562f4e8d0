package kmsapi

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/sigv4"
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

// echo is an API that costs nothing but its output.
type echo struct{ engine.API }

func (echo) Encrypt(_ context.Context, in *kms.EncryptInput, _ ...func(*kms.Options)) (*kms.EncryptOutput, error) {
	return &kms.EncryptOutput{CiphertextBlob: make([]byte, 150), KeyId: in.KeyId, EncryptionAlgorithm: "SYMMETRIC_DEFAULT"}, nil
}

const encryptBody = `{"KeyId":"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",` +
	`"Plaintext":"aGVsbG8gd29ybGQsIHRoaXMgaXMgYSBwbGFpbnRleHQ=","EncryptionContext":{"tenant":"one","purpose":"test"}}`

// newRequest makes a request as a server sees it, not signed.
func newRequest(tb testing.TB, target string, body []byte) *http.Request {
	tb.Helper()
	r, err := http.NewRequest(http.MethodPost, "https://kms.example.com/", bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	r.Header.Set("Content-Type", jsonType)
	r.Header.Set("X-Amz-Target", targetPrefix+target)
	r.Header.Set("Amz-Sdk-Invocation-Id", "a2d8c1f0-0000-4000-8000-000000000000")
	r.Header.Set("Amz-Sdk-Request", "attempt=1; max=3")
	return r
}

// sign signs as the SDKs do.
func sign(r *http.Request, body []byte, id Identity) {
	sigv4.Sign(r, body, id.AccessKeyID, sigv4.NewSecret(id.SecretAccessKey), testRegion, serviceKMS, time.Now(),
		"content-length", "x-amz-target", "amz-sdk-invocation-id", "amz-sdk-request")
}

func benchmarkHTTP(b *testing.B, logTo io.Writer) {
	config := Config{
		Identities: []Identity{alice()},
		Client:     func(string, engine.Caller) engine.API { return echo{} },
		Observe:    func(Observation) {},
	}
	if logTo != nil {
		config.Logger = slog.New(slog.NewJSONHandler(logTo, nil))
	}
	h := newTestHandler(b, config)
	r := newRequest(b, "Encrypt", []byte(encryptBody))
	sign(r, []byte(encryptBody), alice())
	in := &rewound{}
	r.Body = in
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		in.Reset([]byte(encryptBody))
		w.body.Reset()
		h.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			b.Fatalf("%d %s", w.status, w.body.String())
		}
	}
}

func BenchmarkEncryptHTTP(b *testing.B) { benchmarkHTTP(b, nil) }

func BenchmarkEncryptHTTPLogged(b *testing.B) { benchmarkHTTP(b, io.Discard) }

func BenchmarkDecodeEncryptInput(b *testing.B) {
	r, body, decode := new(reader), []byte(encryptBody), decodePlanner{}.plan(reflect.TypeFor[kms.EncryptInput]())
	b.ReportAllocs()
	for b.Loop() {
		if err := r.decode(body, reflect.ValueOf(new(kms.EncryptInput)).Elem(), decode); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeEncryptOutput(b *testing.B) {
	key := "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	out := &kms.EncryptOutput{CiphertextBlob: make([]byte, 150), KeyId: &key, EncryptionAlgorithm: "SYMMETRIC_DEFAULT"}
	encode := encodePlanner{}.plan(reflect.TypeFor[kms.EncryptOutput]())
	e := encoder{make([]byte, 0, 4096)}
	b.ReportAllocs()
	for b.Loop() {
		e.buf = e.buf[:0]
		encode(&e, reflect.ValueOf(out).Elem())
	}
}
