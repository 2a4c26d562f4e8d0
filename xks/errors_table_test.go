package xks

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func b64(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }

// A refusal is a request and the error that it must be answered with.
type refusal struct {
	name    string
	path    string // default: encrypt with key-1
	content []byte
	sign    func(r *http.Request, content []byte) // default: properly
	want    ErrorName
}

// refusals are requests to the proxy of TestErrorTable.
func refusals() []refusal {
	encrypt, decrypt := encryptBody(), decryptBody(EncryptResponse{Ciphertext: make([]byte, 12), Tag: make([]byte, 16), IV: make([]byte, 12)}, nil)
	health := body{"requestMetadata": body{"kmsRequestId": "1", "kmsOperation": "KmsHealthCheck"}}
	rows := []refusal{
		{name: "no JSON", content: []byte("plaintext"), want: ValidationException},
		{name: "empty body", content: []byte{}, want: ValidationException},
		{name: "JSON list", content: []byte("[]"), want: ValidationException},
		{name: "trailing garbage", content: append(encrypt.json(), '{'), want: ValidationException},
		{name: "duplicate name", content: append([]byte(`{"plaintext":"AAAA",`), encrypt.json()[1:]...), want: ValidationException},
		{name: "no UTF-8", content: append([]byte("{\"x\":\"\xff\","), encrypt.json()[1:]...), want: ValidationException},

		{name: "health without operation", path: "/t1/kms/xks/v1/health", content: health.with(body{"requestMetadata.kmsOperation": nil}).json(), want: ValidationException},
		{name: "health without request id", path: "/t1/kms/xks/v1/health", content: health.with(body{"requestMetadata.kmsRequestId": nil}).json(), want: ValidationException},
		{name: "metadata without principal", path: keyPath + "metadata", content: encrypt.with(body{"requestMetadata.awsPrincipalArn": nil}).json(), want: ValidationException},

		{name: "plaintext too large", content: encrypt.with(body{"plaintext": b64(MaxText + 1)}).json(), want: UnsupportedOperationException},
		{name: "plaintext much too large", content: encrypt.with(body{"plaintext": b64(MaxText + 3000)}).json(), want: UnsupportedOperationException},
		{name: "AAD too large", content: encrypt.with(body{"additionalAuthenticatedData": b64(MaxAAD + 1)}).json(), want: UnsupportedOperationException},
		{name: "ciphertext too large", path: keyPath + "decrypt", content: decrypt.with(body{"ciphertext": b64(MaxText + 1)}).json(), want: UnsupportedOperationException},
		{name: "body too large", content: make([]byte, MaxBody+1), want: UnsupportedOperationException},

		{name: "unknown prefix", path: "/t2/kms/xks/v1/keys/key-1/encrypt", content: encrypt.json(), want: InvalidURIPathException},
		{name: "no prefix", path: "/kms/xks/v1/keys/key-1/encrypt", content: encrypt.json(), want: InvalidURIPathException},
		{name: "unknown operation", path: keyPath + "sign", content: encrypt.json(), want: InvalidURIPathException},
		{name: "root", path: "/", content: encrypt.json(), want: InvalidURIPathException},
		{name: "trailing slash", path: keyPath + "encrypt/", content: encrypt.json(), want: InvalidURIPathException},
		{name: "doubled slash", path: "/t1//kms/xks/v1/health", content: health.json(), want: InvalidURIPathException},
		{name: "dot segments", path: "/t1/x/../kms/xks/v1/health", content: health.json(), want: InvalidURIPathException},
		{name: "encoded operation", path: keyPath + "%65ncrypt", content: encrypt.json(), want: InvalidURIPathException},

		{name: "unknown key", path: "/t1/kms/xks/v1/keys/key-2/encrypt", content: encrypt.json(), want: KeyNotFoundException},
		{name: "key of another store", path: "/t1/kms/xks/v1/keys/foreign-1/encrypt", content: encrypt.json(), want: KeyNotFoundException},
		{name: "key id too long", path: "/t1/kms/xks/v1/keys/" + strings.Repeat("k", 129) + "/encrypt", content: encrypt.json(), want: KeyNotFoundException},
		{name: "key id of other characters", path: "/t1/kms/xks/v1/keys/key~1/encrypt", content: encrypt.json(), want: KeyNotFoundException},
		{name: "encoded key id", path: "/t1/kms/xks/v1/keys/key%2D1/encrypt", content: encrypt.json(), want: KeyNotFoundException},
		{name: "metadata of unknown key", path: "/t1/kms/xks/v1/keys/key-2/metadata", content: encrypt.json(), want: KeyNotFoundException},

		{name: "disabled, encrypt", path: "/t1/kms/xks/v1/keys/disabled/encrypt", content: encrypt.json(), want: InvalidStateException},
		{name: "disabled, decrypt", path: "/t1/kms/xks/v1/keys/disabled/decrypt", content: decrypt.json(), want: InvalidStateException},
		{name: "encrypt not permitted", path: "/t1/kms/xks/v1/keys/decrypt-only/encrypt", content: encrypt.json(), want: InvalidKeyUsageException},
		{name: "decrypt not permitted", path: "/t1/kms/xks/v1/keys/encrypt-only/decrypt", content: decrypt.json(), want: InvalidKeyUsageException},
		{name: "CDIV where decrypt is not permitted", path: "/t1/kms/xks/v1/keys/encrypt-only/encrypt",
			content: encrypt.with(body{"ciphertextDataIntegrityValueAlgorithm": "SHA_256"}).json(), want: InvalidKeyUsageException},

		{name: "denied by the keys", path: "/t1/kms/xks/v1/keys/denied/encrypt", content: encrypt.json(), want: AccessDeniedException},
		{name: "no session", path: "/t1/kms/xks/v1/keys/busy/encrypt", content: encrypt.json(), want: ThrottlingException},
		{name: "hung token", path: "/t1/kms/xks/v1/keys/late/encrypt", content: encrypt.json(), want: DependencyTimeoutException},
		{name: "sick token", path: "/t1/kms/xks/v1/keys/sick/metadata", content: encrypt.json(), want: InternalException},
		{name: "name without a row in the table", path: "/t1/kms/xks/v1/keys/odd/encrypt", content: encrypt.json(), want: InternalException},
		{name: "panic", path: "/t1/kms/xks/v1/keys/panic/encrypt", content: encrypt.json(), want: InternalException},
		{name: "after the panic", path: "/t1/kms/xks/v1/keys/key-2/encrypt", content: encrypt.json(), want: KeyNotFoundException},
		{name: "ciphertext too short", path: "/t1/kms/xks/v1/keys/short/encrypt", content: encrypt.json(), want: InternalException},
		{name: "forged ciphertext", path: keyPath + "decrypt", content: decrypt.json(), want: InvalidCiphertextException},
	}
	rows = append(rows, memberRefusals(encrypt, decrypt)...)
	return append(rows, signatureRefusals(encrypt)...)
}

// memberRefusals spoil one member at a time.
func memberRefusals(encrypt, decrypt body) (rows []refusal) {
	spoil := func(path string, from body, member string, value any, want ErrorName) {
		rows = append(rows, refusal{
			name: fmt.Sprintf("%s of %s = %v", member, path, value), path: keyPath + path,
			content: from.with(body{member: value}).json(), want: want,
		})
	}
	null := (*int)(nil)
	for _, spoilt := range []any{nil, null, "", 5, true, body{}, []string{"x"}} {
		for path, from := range map[string]body{"encrypt": encrypt, "decrypt": decrypt} {
			for _, member := range []string{"requestMetadata.awsPrincipalArn", "requestMetadata.kmsKeyArn",
				"requestMetadata.kmsOperation", "requestMetadata.kmsRequestId", "encryptionAlgorithm"} {
				spoil(path, from, member, spoilt, ValidationException)
			}
		}
		spoil("encrypt", encrypt, "plaintext", spoilt, ValidationException)
		for _, member := range []string{"ciphertext", "initializationVector", "authenticationTag"} {
			spoil("decrypt", decrypt, member, spoilt, InvalidCiphertextException)
		}
	}
	for path, from := range map[string]body{"encrypt": encrypt, "decrypt": decrypt} {
		spoil(path, from, "requestMetadata", "x", ValidationException)
		spoil(path, from, "requestMetadata", nil, ValidationException)
		spoil(path, from, "requestMetadata.kmsViaService", 1, ValidationException)
		spoil(path, from, "requestMetadata.awsSourceVpc", []int{}, ValidationException)
		spoil(path, from, "requestMetadata.awsSourceVpce", false, ValidationException)
		spoil(path, from, "encryptionAlgorithm", "AES_CBC", ValidationException)
		spoil(path, from, "encryptionAlgorithm", "aes_gcm", ValidationException)
		spoil(path, from, "additionalAuthenticatedData", 7, ValidationException)
		spoil(path, from, "additionalAuthenticatedData", "QUI", ValidationException)
	}
	for _, bad := range []string{"=", "A", "QQ", "QQ=", "QR==", "QUFB\n", "QU\r\nFB", "QUFB ", "-_-_", "QUFB=", "&%$#"} {
		spoil("encrypt", encrypt, "plaintext", bad, ValidationException)
		spoil("decrypt", decrypt, "ciphertext", bad, InvalidCiphertextException)
		spoil("decrypt", decrypt, "ciphertextMetadata", bad, ValidationException)
	}
	for _, n := range []int{1, 11, 13, 15, 17, 64} {
		spoil("decrypt", decrypt, "initializationVector", b64(n), InvalidCiphertextException)
		spoil("decrypt", decrypt, "authenticationTag", b64(n), InvalidCiphertextException)
	}
	spoil("encrypt", encrypt, "ciphertextDataIntegrityValueAlgorithm", "SHA_512", ValidationException)
	spoil("encrypt", encrypt, "ciphertextDataIntegrityValueAlgorithm", "", ValidationException)
	spoil("encrypt", encrypt, "ciphertextDataIntegrityValueAlgorithm", 256, ValidationException)
	spoil("decrypt", decrypt, "ciphertextMetadata", 1, ValidationException)
	spoil("decrypt", decrypt, "ciphertextMetadata", b64(21), ValidationException)
	spoil("decrypt", decrypt, "ciphertextMetadata", b64(22), ValidationException)
	for _, metadata := range []string{"\x00", "\x01\x00\x00\x00\x00h", "\x01\x00\x00\x00\x02h", "\x01\x00\x00\x00\x01", "\x01\x00\x00\x00\x01i",
		"\x02\x00\x00\x00\x01h", "\x01\x00\x00\x00\x01hh", "key_version=1"} {
		spoil("decrypt", decrypt, "ciphertextMetadata", base64.StdEncoding.EncodeToString([]byte(metadata)), InvalidCiphertextException)
	}
	return rows
}

// signatureRefusals spoil the signature.
func signatureRefusals(encrypt body) (rows []refusal) {
	now, content := time.Now(), encrypt.json()
	stranger, wrong := NewCredential(), testCredential
	wrong.SecretAccessKey = stranger.SecretAccessKey
	for name, sign := range map[string]func(*http.Request, []byte){
		"none":             func(*http.Request, []byte) {},
		"unknown id":       func(r *http.Request, c []byte) { signAt(r, c, stranger, "us-east-1", now) },
		"wrong secret":     func(r *http.Request, c []byte) { signAt(r, c, wrong, "us-east-1", now) },
		"other Region":     func(r *http.Request, c []byte) { signAt(r, c, testCredential, "us-west-2", now) },
		"too old":          func(r *http.Request, c []byte) { signAt(r, c, testCredential, "us-east-1", now.Add(-6*time.Minute)) },
		"from the future":  func(r *http.Request, c []byte) { signAt(r, c, testCredential, "us-east-1", now.Add(6*time.Minute)) },
		"another body":     func(r *http.Request, c []byte) { sign(r, append([]byte(" "), c...)) },
		"unsigned payload": func(r *http.Request, c []byte) { sign(r, c); r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") },
		"another host":     func(r *http.Request, c []byte) { sign(r, c); r.Host = "elsewhere.example.com" },
	} {
		rows = append(rows, refusal{name: "signature: " + name, content: content, sign: sign, want: AuthenticationFailedException})
	}
	// Authentication comes before the body is understood and the key looked up.
	rows = append(rows,
		refusal{name: "unsigned, no JSON", content: []byte("x"), sign: func(*http.Request, []byte) {}, want: AuthenticationFailedException},
		refusal{name: "unsigned, unknown key", path: "/t1/kms/xks/v1/keys/key-2/encrypt", content: content,
			sign: func(*http.Request, []byte) {}, want: AuthenticationFailedException})
	return rows
}

// spoiltKeys adds keys on which operations fail.
func spoiltKeys(keys *memKeys) {
	add := func(id string, change func(*memKey)) {
		keys.keys[id] = newMemKey(1)
		change(keys.keys[id])
	}
	fails := func(id string, err error) {
		add(id, func(k *memKey) { k.before = func(context.Context, string) error { return err } })
	}
	add("disabled", func(k *memKey) { k.description.Disabled = true })
	add("encrypt-only", func(k *memKey) { k.description.Decrypt = false })
	add("decrypt-only", func(k *memKey) { k.description.Encrypt = false })
	add("panic", func(k *memKey) { k.before = func(context.Context, string) error { panic("cipher") } })
	add("short", func(k *memKey) { k.after = func(_ string, s *Sealed, _ *[]byte) { s.Ciphertext = s.Ciphertext[1:] } })
	fails("denied", &Error{Name: AccessDeniedException, Message: "not for you"})
	fails("busy", fmt.Errorf("pool: %w", &Error{Name: ThrottlingException, Message: "no session is free"}))
	fails("late", fmt.Errorf("token-a: %w", context.DeadlineExceeded))
	fails("sick", errors.New("CKR_DEVICE_ERROR"))
	fails("odd", &Error{Name: "SpecialException", Message: "x"})
}

func TestErrorTable(t *testing.T) {
	p := startProxy(t, nil)
	spoiltKeys(p.keys)
	eachProtocol(t, p, func(t *testing.T, client *http.Client) {
		for _, row := range refusals() {
			t.Run(row.name, func(t *testing.T) {
				if row.path == "" {
					row.path = keyPath + "encrypt"
				}
				if row.sign == nil {
					row.sign = sign
				}
				r := newRequest(t, http.MethodPost, p.url(row.path), row.content)
				row.sign(r, row.content)
				do(t, client, r).wantError(t, row.want)
				if seen := <-p.seen; seen.Error != row.want || seen.Status != row.want.Status() {
					t.Errorf("observed %+v", seen)
				}
			})
		}
	})
	if !strings.Contains(p.logs.String(), "panic with a string") {
		t.Error("the panic is not in the log")
	}
}

func TestOnlyPost(t *testing.T) {
	p := startProxy(t, nil)
	eachProtocol(t, p, func(t *testing.T, client *http.Client) {
		for _, path := range []string{keyPath + "encrypt", keyPath + "decrypt", keyPath + "metadata", "/t1/kms/xks/v1/health"} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch} {
				got := do(t, client, newRequest(t, method, p.url(path), nil))
				if got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != http.MethodPost {
					t.Errorf("%s %s: %d, Allow %q", method, path, got.status, got.header.Get("Allow"))
				}
			}
		}
		do(t, client, newRequest(t, http.MethodGet, p.url("/t2/kms/xks/v1/health"), nil)).wantError(t, InvalidURIPathException)
	})
}

func TestThrottling(t *testing.T) {
	p := startProxy(t, func(c *Config) { c.Stores[0].Limiter = rate.NewLimiter(0, 1) })
	client, content := p.client(t, false), encryptBody().json()
	// What a stranger sends does not count.
	do(t, client, newRequest(t, http.MethodPost, p.url(keyPath+"encrypt"), content)).wantError(t, AuthenticationFailedException)
	p.post(t, client, keyPath+"encrypt", content).decodeInto(t, new(EncryptResponse))
	p.post(t, client, keyPath+"encrypt", content).wantError(t, ThrottlingException)
}

func TestHungTokenWithinDeadline(t *testing.T) {
	p := startProxy(t, func(c *Config) { c.Deadline = 0 })
	p.keys.keys["key-1"].before = func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, operation := range []string{"encrypt", "metadata"} {
		p.post(t, p.client(t, true), keyPath+operation, encryptBody().json()).wantError(t, DependencyTimeoutException)
		if seen := <-p.seen; seen.Duration < defaultDeadline {
			t.Errorf("answered after %v, before the token was given its time", seen.Duration)
		}
	}
}

func TestInFlightBound(t *testing.T) {
	p := startProxy(t, func(c *Config) { c.MaxInFlight = 1 })
	entered, leave := make(chan struct{}), make(chan struct{})
	p.keys.keys["key-1"].before = func(context.Context, string) error {
		entered <- struct{}{}
		<-leave
		return nil
	}
	client, content := p.client(t, true), encryptBody().json()
	r := newRequest(t, http.MethodPost, p.url(keyPath+"encrypt"), content)
	sign(r, content)
	first := start(client, r)
	<-entered
	if n := p.server.InFlight(); n != 1 {
		t.Errorf("%d in flight, want 1", n)
	}
	p.post(t, client, keyPath+"encrypt", content).wantError(t, ThrottlingException)
	close(leave)
	first(t).decodeInto(t, new(EncryptResponse))
	<-p.seen
	<-p.seen
	if n := p.server.InFlight(); n != 0 {
		t.Errorf("%d in flight, want 0", n)
	}
}
