package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/go-json-experiment/json"
	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/kmsapi"
	"github.com/hyok-kms/hyok/internal/logbuffer"
	"github.com/hyok-kms/hyok/internal/sigv4"
)

// kmsAAD is the size of what AES-GCM authenticates beside the plaintext of a
// request without encryption context: the head of a ciphertext blob.
const kmsAAD = 50

// kmsResult is the median over the rounds for Encrypt or Decrypt.
type kmsResult struct {
	rawOne, rawAll  float64 // from one session, and from one a core
	engine, handler float64
	http, bare      float64
	allocs          float64 // of engine
	handlerAllocs   float64

	// CPU time of a call in microseconds.
	oneCPU, allCPU, engineCPU, handlerCPU, httpCPU, bareCPU float64
}

func (r *kmsResult) raw() float64 { return max(r.rawOne, r.rawAll) }

// runKMS measures the embedded KMS, parts (e) to (g) of docs/performance.md.
func runKMS(ctx context.Context, dir string, o options) (err error) {
	s, err := newKMSSubject(ctx, filepath.Join(dir, "kms"), "bench-kms", false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	fmt.Printf("\nembedded KMS: 32-byte plaintext, no encryption context, %d keys used\n", usedKeys)
	var encrypt, decrypt kmsResult
	figures, err := s.figures(ctx, o.length, &encrypt, &decrypt)
	if err != nil {
		return err
	}
	if err := alternate(o.rounds, figures); err != nil {
		return err
	}
	printKMS(encrypt, decrypt)
	return s.measureSign(ctx, o)
}

func printKMS(encrypt, decrypt kmsResult) {
	fmt.Printf("\n%-42s%12s%12s\n", "a second, median", "Encrypt", "Decrypt")
	for _, row := range []struct {
		name   string
		value  func(kmsResult) float64
		format string
	}{
		{"(e) raw calls, one session", func(r kmsResult) float64 { return r.rawOne }, "%12.0f"},
		{"    CPU, microseconds each", func(r kmsResult) float64 { return r.oneCPU }, "%12.1f"},
		{"(e) raw calls, a session a core", func(r kmsResult) float64 { return r.rawAll }, "%12.0f"},
		{"    CPU, microseconds each", func(r kmsResult) float64 { return r.allCPU }, "%12.1f"},
		{"(e) embedded engine", func(r kmsResult) float64 { return r.engine }, "%12.0f"},
		{"    as a share of the better raw", func(r kmsResult) float64 { return 100 * r.engine / r.raw() }, "%11.0f%%"},
		{"    CPU, microseconds each", func(r kmsResult) float64 { return r.engineCPU }, "%12.1f"},
		{"    allocations", func(r kmsResult) float64 { return r.allocs }, "%12.0f"},
		{"(f) HTTP handler without network", func(r kmsResult) float64 { return r.handler }, "%12.0f"},
		{"    CPU, microseconds each", func(r kmsResult) float64 { return r.handlerCPU }, "%12.1f"},
		{"    allocations", func(r kmsResult) float64 { return r.handlerAllocs }, "%12.0f"},
		{"(f) HTTP, SigV4", func(r kmsResult) float64 { return r.http }, "%12.0f"},
		{"    CPU with the client's, microseconds", func(r kmsResult) float64 { return r.httpCPU }, "%12.1f"},
		{"(f) bare net/http", func(r kmsResult) float64 { return r.bare }, "%12.0f"},
		{"    CPU with the client's, microseconds", func(r kmsResult) float64 { return r.bareCPU }, "%12.1f"},
		{"    HTTP as a share of bare", func(r kmsResult) float64 { return 100 * r.http / r.bare }, "%11.0f%%"},
		{"    the same by CPU time", func(r kmsResult) float64 { return 100 * r.bareCPU / r.httpCPU }, "%11.0f%%"},
	} {
		fmt.Printf("%-42s", row.name)
		for _, r := range []kmsResult{encrypt, decrypt} {
			fmt.Printf(row.format, row.value(r))
		}
		fmt.Println()
	}
}

// kmsSubject is an embedded KMS with its HTTP server, on a token of its own.
type kmsSubject struct {
	token    *rawToken
	node     *node
	log      *logbuffer.Writer
	handler  *kmsapi.Handler
	identity kmsapi.Identity
	servers  []*server
	keys     []string // ids of symmetric keys
	blobs    [][]byte // a ciphertext under each
}

// newKMSSubject makes a token of a label and an embedded KMS on it.
func newKMSSubject(ctx context.Context, dir, label string, isolated bool) (*kmsSubject, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &kmsSubject{identity: kmsapi.Identity{AccessKeyID: "AKIABENCHMARK", SecretAccessKey: "benchmark-secret-access-key", Account: kmsAccount}}
	var err error
	if s.token, err = newRawToken(ctx, label, 0, isolated); err != nil {
		return nil, err
	}
	if s.node, err = newNode(ctx, s.token, "kms", 0, filepath.Join(dir, "kms.db")); err != nil {
		return nil, err
	}
	// The log is written, as in production, to where it costs least.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	s.log = logbuffer.New(null)
	s.handler, err = kmsapi.NewHandler(kmsapi.Config{
		Identities: []kmsapi.Identity{s.identity},
		Client:     func(region string, caller engine.Caller) engine.API { return s.node.engine.Client(region, caller) },
		Observe:    func(kmsapi.Observation) {},
		Logger:     slog.New(slog.NewJSONHandler(s.log, nil)),
	})
	if err != nil {
		return nil, err
	}
	return s, s.makeKeys(ctx)
}

func (s *kmsSubject) makeKeys(ctx context.Context) error {
	for range usedKeys {
		made, err := s.node.client.CreateKey(ctx, &kms.CreateKeyInput{})
		if err != nil {
			return err
		}
		sealed, err := s.node.client.Encrypt(ctx, &kms.EncryptInput{KeyId: made.KeyMetadata.KeyId, Plaintext: make([]byte, 32)})
		if err != nil {
			return err
		}
		s.keys, s.blobs = append(s.keys, *made.KeyMetadata.KeyId), append(s.blobs, sealed.CiphertextBlob)
	}
	return nil
}

func (s *kmsSubject) close(ctx context.Context) error {
	var errs []error
	for _, server := range s.servers {
		errs = append(errs, server.close())
	}
	errs = append(errs, s.node.close(ctx), s.token.close(), s.log.Close())
	return errors.Join(errs...)
}

// figures are those of both operations. Requests are signed now: see requests.
func (s *kmsSubject) figures(ctx context.Context, length time.Duration, encrypt, decrypt *kmsResult) ([]figure, error) {
	rawEncrypt, rawDecrypt, err := s.rawCalls()
	if err != nil {
		return nil, err
	}
	forEncrypt, err := s.figuresOf(ctx, length, "Encrypt", rawEncrypt, s.encrypt, encrypt)
	if err != nil {
		return nil, err
	}
	forDecrypt, err := s.figuresOf(ctx, length, "Decrypt", rawDecrypt, s.decrypt, decrypt)
	return append(forEncrypt, forDecrypt...), err
}

func (s *kmsSubject) figuresOf(ctx context.Context, length time.Duration, op string, raw rawCall, call func(context.Context, int) error, r *kmsResult) ([]figure, error) {
	requests := s.requests(op)
	size, err := answerSize(s.handler, requests[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	ours, err := serve(s.handler, "", "")
	if err != nil {
		return nil, err
	}
	bare, err := newBareServer(size, kmsJSON, "", "")
	if err != nil {
		return nil, errors.Join(err, ours.close())
	}
	s.servers = append(s.servers, ours, bare)
	return []figure{
		{&r.rawOne, func() (tally, error) { return s.token.callRate(length, 1, raw) }, &r.oneCPU},
		{&r.rawAll, func() (tally, error) { return s.token.callRate(length, runtime.GOMAXPROCS(0), raw) }, &r.allCPU},
		{&r.engine, func() (tally, error) { return operationRate(ctx, length, call, &r.allocs) }, &r.engineCPU},
		{&r.handler, func() (tally, error) { return handlerRate(s.handler, requests, length, &r.handlerAllocs) }, &r.handlerCPU},
		{&r.http, func() (tally, error) { return socketRate(ctx, ours.addr(), nil, requests, length) }, &r.httpCPU},
		{&r.bare, func() (tally, error) { return socketRate(ctx, bare.addr(), nil, requests, length) }, &r.bareCPU},
	}, nil
}

// rawCalls are what the token has to do for an Encrypt and for a Decrypt.
func (s *kmsSubject) rawCalls() (encrypt, decrypt rawCall, err error) {
	session, err := s.token.keeper()
	if err != nil {
		return nil, nil, err
	}
	text, aad, iv := make([]byte, 32), make([]byte, kmsAAD), make([]byte, 12)
	var keys [usedKeys]pkcs11.ObjectHandle
	var sealed [usedKeys][]byte
	for i := range keys {
		if keys[i], err = s.token.sessionKey(session); err != nil {
			return nil, nil, err
		}
		if sealed[i], err = s.token.encrypt(session, keys[i], iv, aad, text); err != nil {
			return nil, nil, err
		}
	}
	encrypt = func(session pkcs11.SessionHandle, i int) error {
		_, err := s.token.encrypt(session, keys[i], iv, aad, text)
		return err
	}
	decrypt = func(session pkcs11.SessionHandle, i int) error {
		return s.token.decrypt(session, keys[i], iv, aad, sealed[i])
	}
	return encrypt, decrypt, nil
}

func (s *kmsSubject) encrypt(ctx context.Context, i int) error {
	_, err := s.node.client.Encrypt(ctx, &kms.EncryptInput{KeyId: &s.keys[i%usedKeys], Plaintext: make([]byte, 32)})
	return err
}

func (s *kmsSubject) decrypt(ctx context.Context, i int) error {
	_, err := s.node.client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: s.blobs[i%usedKeys]})
	return err
}

// operationRate calls an operation of the engine from as many goroutines as there
// are connections over HTTP. allocs (nil: nobody asks) gets the allocations of a
// call, those of its input among them.
func operationRate(ctx context.Context, length time.Duration, call func(context.Context, int) error, allocs *float64) (tally, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := parallel(connections, length, func(worker int, more func() bool) error {
		for i := worker; more(); i++ {
			if err := call(ctx, i); err != nil {
				return err
			}
		}
		return nil
	})
	runtime.ReadMemStats(&after)
	if allocs != nil {
		*allocs = float64(after.Mallocs-before.Mallocs) / float64(n.calls)
	}
	return n, err
}

const kmsJSON = "application/x-amz-json-1.1"

// requests returns a request for each used key, signed now by the headers that
// the SDKs sign: a measurement must be over before the five minutes of the
// signature are.
func (s *kmsSubject) requests(op string) []request {
	var all []request
	secret := sigv4.NewSecret(s.identity.SecretAccessKey)
	for i := range usedKeys {
		members := map[string]any{"CiphertextBlob": s.blobs[i]}
		if op == "Encrypt" {
			members = map[string]any{"KeyId": s.keys[i], "Plaintext": make([]byte, 32)}
		}
		body, err := json.Marshal(members, json.Deterministic(true))
		if err != nil {
			panic(err) // of strings and bytes
		}
		r := &http.Request{Method: http.MethodPost, Host: "localhost", URL: &url.URL{Path: "/"}, ContentLength: int64(len(body)), Header: http.Header{
			"Content-Type": {kmsJSON}, "X-Amz-Target": {"TrentService." + op},
			"Amz-Sdk-Invocation-Id": {"4112f4d6-db54-4af4-ae30-c55a22a8dfae"}, "Amz-Sdk-Request": {"attempt=1; max=3"},
		}}
		sigv4.Sign(r, body, s.identity.AccessKeyID, secret, kmsRegion, "kms", time.Now(),
			"content-length", "x-amz-target", "amz-sdk-invocation-id", "amz-sdk-request")
		all = append(all, newRequest("/", r.Header, body))
	}
	return all
}

// signResult is the median over the rounds for one key spec.
type signResult struct{ raw, engine float64 }

// measureSign measures Sign for each key spec, part (g).
func (s *kmsSubject) measureSign(ctx context.Context, o options) error {
	session, err := s.token.keeper()
	if err != nil {
		return err
	}
	all := signers()
	results := make([]signResult, len(all))
	var figures []figure
	for i, g := range all {
		h, err := s.token.sessionPair(session, g)
		if err != nil {
			return fmt.Errorf("%s: %w", g.spec, err)
		}
		made, err := s.node.client.CreateKey(ctx, &kms.CreateKeyInput{KeySpec: g.spec, KeyUsage: "SIGN_VERIFY"})
		if err != nil {
			return fmt.Errorf("%s: %w", g.spec, err)
		}
		in := kms.SignInput{KeyId: made.KeyMetadata.KeyId, Message: make([]byte, g.size), MessageType: g.kind, SigningAlgorithm: g.algorithm}
		figures = append(figures,
			figure{rate: &results[i].raw, measure: func() (tally, error) {
				return s.token.callRate(o.length/2, runtime.GOMAXPROCS(0), func(session pkcs11.SessionHandle, _ int) error {
					return s.token.sign(session, h, g.mechanism, make([]byte, g.size))
				})
			}},
			figure{rate: &results[i].engine, measure: func() (tally, error) {
				return operationRate(ctx, o.length/2, func(ctx context.Context, _ int) error {
					own := in
					_, err := s.node.client.Sign(ctx, &own)
					return err
				}, nil)
			}})
	}
	if err := alternate(o.rounds, figures); err != nil {
		return err
	}
	fmt.Printf("\n%-42s%12s%12s%12s\n", "(g) Sign a second, median", "raw", "engine", "share")
	for i, r := range results {
		fmt.Printf("%-42s%12.0f%12.0f%11.0f%%\n", all[i].spec, r.raw, r.engine, 100*r.engine/r.raw)
	}
	return nil
}
