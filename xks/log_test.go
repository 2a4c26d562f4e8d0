package xks

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"context"

	"github.com/go-json-experiment/json"
)

// nextLine waits for the next request to end and returns the line about it,
// without what differs each time.
func nextLine(t *testing.T, p *proxy) map[string]any {
	t.Helper()
	<-p.seen
	lines := strings.Split(strings.TrimSpace(p.logs.String()), "\n")
	var line map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &line); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"time", "remote", "duration_us"} {
		if line[name] == nil {
			t.Errorf("no %s in %v", name, line)
		}
		delete(line, name)
	}
	return line
}

func wantLine(t *testing.T, got, want map[string]any) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("log line\n%v, want\n%v", got, want)
	}
}

func TestLogLine(t *testing.T) {
	p := startProxy(t, nil)
	client := p.client(t, true)
	in := encryptBody().with(body{"requestMetadata.awsSourceVpc": "vpc-1", "requestMetadata.awsSourceVpce": "vpce-\"1\n"})
	p.post(t, client, keyPath+"encrypt", in.json())
	wantLine(t, nextLine(t, p), map[string]any{
		"level": "INFO", "msg": "request", "store": "main", "operation": "Encrypt", "key": "key-1", "outcome": "ok", "status": 200.0,
		"kmsRequestId": "4112f4d6-db54-4af4-ae30-c55a22a8dfae", "kmsOperation": "Encrypt", "via": "ebs", "vpc": "vpc-1", "vpce": "vpce-\"1\n",
		"principal":   "arn:aws:iam::123456789012:user/Alice",
		"kmsKeyArn":   "arn:aws:kms:us-east-2:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		"accessKeyId": testCredential.AccessKeyID, "token": "token-a", "version": 1.0,
	})

	p.post(t, client, "/nowhere", nil)
	wantLine(t, nextLine(t, p), map[string]any{"level": "WARN", "msg": "request", "outcome": "InvalidUriPathException", "status": 404.0,
		"error": "No key store is served under this path: check XksProxyUriPath."})

	p.keys.keys["key-1"].before = func(context.Context, string) error { return errors.New("CKR_DEVICE_ERROR") }
	health := body{"requestMetadata": body{"kmsRequestId": "1", "kmsOperation": "CreateKey", "awsPrincipalArn": "AWS Internal"}}
	p.post(t, client, keyPath+"metadata", health.json())
	wantLine(t, nextLine(t, p), map[string]any{
		"level": "ERROR", "msg": "request", "store": "main", "operation": "GetKeyMetadata", "key": "key-1", "outcome": "InternalException",
		"status": 500.0, "error": "The token failed; the log of the proxy tells more.", "cause": "CKR_DEVICE_ERROR", "token": "token-a",
		"kmsRequestId": "1", "kmsOperation": "CreateKey", "principal": "AWS Internal", "accessKeyId": testCredential.AccessKeyID,
	})
}

func TestLogShortens(t *testing.T) {
	p := startProxy(t, nil)
	long := strings.Repeat("é", 4000)
	in := encryptBody().with(body{"requestMetadata.awsPrincipalArn": "x" + long})
	p.post(t, p.client(t, false), keyPath+"encrypt", in.json()).decodeInto(t, new(EncryptResponse))
	got := nextLine(t, p)["principal"].(string)
	if len(got) != maxLogged-1 || !utf8.ValidString(got) || !strings.HasPrefix("x"+long, got) {
		t.Errorf("principal has %d bytes", len(got))
	}
}

func TestLogCiphertext(t *testing.T) {
	for _, wanted := range []bool{false, true} {
		p := startProxy(t, func(c *Config) { c.LogCiphertext = wanted })
		var sealed EncryptResponse
		p.post(t, p.client(t, false), keyPath+"encrypt", encryptBody().json()).decodeInto(t, &sealed)
		onEncrypt := nextLine(t, p)
		p.post(t, p.client(t, false), keyPath+"decrypt", decryptBody(sealed, exampleAAD).json()).decodeInto(t, new(DecryptResponse))
		onDecrypt := nextLine(t, p)
		for name, value := range map[string][]byte{"ciphertext": sealed.Ciphertext, "iv": sealed.IV, "tag": sealed.Tag, "metadata": sealed.Metadata} {
			var want any
			if wanted {
				want = base64.StdEncoding.EncodeToString(value)
			}
			if onEncrypt[name] != want || onDecrypt[name] != want {
				t.Errorf("%s: logged %v and %v, want %v", name, onEncrypt[name], onDecrypt[name], want)
			}
		}
	}
}

// No plaintext, however the request ends, comes into the log or into an error.
func TestNoPlaintextLeaves(t *testing.T) {
	const canary = "canary-in-the-plaintext-0123456789"
	marks := []string{canary, base64.StdEncoding.EncodeToString([]byte(canary))[:40], hex.EncodeToString([]byte(canary)), testCredential.SecretAccessKey}
	p := startProxy(t, func(c *Config) { c.LogCiphertext = true })
	spoiltKeys(p.keys)
	client, valid := p.client(t, true), encryptBody().with(body{"plaintext": base64.StdEncoding.EncodeToString([]byte(canary))})
	contents := [][]byte{
		valid.json(), valid.json()[1:], append(valid.json(), 'x'),
		valid.with(body{"plaintext": canary}).json(),
		valid.with(body{"plaintext": base64.StdEncoding.EncodeToString([]byte(canary)) + "\n"}).json(),
		valid.with(body{"plaintext": []string{canary}}).json(),
		valid.with(body{"encryptionAlgorithm": canary}).json(),
		valid.with(body{canary: 1, "additionalAuthenticatedData": canary}).json(),
		[]byte(`{"` + canary + `":1,"` + canary + `":2}`),
		valid.with(body{"ciphertextDataIntegrityValueAlgorithm": "SHA_256"}).json(),
	}
	for id := range p.keys.keys {
		for _, content := range contents {
			got := p.post(t, client, "/t1/kms/xks/v1/keys/"+id+"/encrypt", content)
			<-p.seen // its line is written
			line := p.logs.String()
			for _, mark := range marks {
				if strings.Contains(string(got.body), mark) || strings.Contains(line, mark) {
					t.Fatalf("%s of %q is in %s or the log", mark, content, got.body)
				}
			}
		}
	}
}
