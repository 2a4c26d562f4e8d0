package proxy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/sigv4"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/xks"
)

// mark stands in every plaintext of the test; what contains it is secret.
const mark = "CANARY-4f1c"

// Thousands of random operations, many of them wrong in some way, with marked
// plaintexts, PIN and secret: no mark appears in the log, the metrics or an
// error, in any encoding that they could plausibly have.
func TestNoSecretInAnyOutput(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{"k", "disabled", "doomed"} {
		r.generate(id, both)
	}
	if err := r.token.SetEnabled(patient(t), "disabled", false); err != nil {
		t.Fatal(err)
	}
	r.configure(basicConfig + "log: {level: debug, ciphertext: true}\n")
	r.start()
	credential := r.load().Stores[0].Credentials[0].Credential
	rng := rand.New(rand.NewPCG(1, 2))
	client := r.client()
	transport := &http.Client{Transport: &http.Transport{TLSClientConfig: r.tlsClient()}}
	defer transport.CloseIdleConnections()
	secret := sigv4.NewSecret(credential.SecretAccessKey)
	var errorsSeen bytes.Buffer
	for i := range 3000 {
		plaintext := fmt.Sprintf("%s %d %s", mark, i, strings.Repeat("x", rng.IntN(200)))
		id := []string{"k", "k", "k", "disabled", "doomed", "nobody", "bad id"}[rng.IntN(7)]
		body := spoil(rng, fmt.Sprintf(`{"requestMetadata":{"awsPrincipalArn":"a","kmsKeyArn":"b","kmsOperation":"Encrypt","kmsRequestId":"%d"},"plaintext":%q,"encryptionAlgorithm":"AES_GCM","ciphertextDataIntegrityValueAlgorithm":"SHA_256"}`,
			i, base64.StdEncoding.EncodeToString([]byte(plaintext))))
		path := "/kms/xks/v1/keys/" + strings.ReplaceAll(id, " ", "%20") + "/encrypt"
		q, err := http.NewRequestWithContext(patient(t), http.MethodPost, r.url()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		sigv4.Sign(q, []byte(body), credential.AccessKeyID, secret, "us-east-1", xks.Service, time.Now())
		if rng.IntN(20) == 0 {
			q.Header.Set("Authorization", strings.Replace(q.Header.Get("Authorization"), "Signature=", "Signature="+mark, 1))
		}
		resp, err := transport.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			if _, err := errorsSeen.ReadFrom(resp.Body); err != nil {
				t.Fatal(err)
			}
		}
		_ = resp.Body.Close()
		if i%10 == 0 {
			s, err := client.Encrypt(patient(t), "k", encryptRequest(plaintext, mark+" aad"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := client.Decrypt(patient(t), "k", decryptRequest(s, mark+" aad")); err != nil || string(got.Plaintext) != plaintext {
				t.Fatal(err)
			}
		}
		if i == 1500 {
			if err := r.token.DestroyKey(patient(t), "doomed", 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, metrics := r.get("/metrics")
	r.stop()
	log := r.log.String()
	if n := strings.Count(log, `"msg":"request"`); n < 3600 {
		t.Errorf("%d log lines", n)
	}
	for output, text := range map[string]string{"log": log, "metrics": metrics, "errors": errorsSeen.String()} {
		for _, form := range forms(mark, credential.SecretAccessKey, tokentest.PIN) {
			if strings.Contains(text, form) {
				t.Errorf("the %s contain %q", output, form)
			}
		}
	}
}

// spoil makes some bodies wrong.
func spoil(rng *rand.Rand, body string) string {
	switch rng.IntN(8) {
	case 0:
		return body[:rng.IntN(len(body))]
	case 1:
		return strings.Replace(body, "AES_GCM", mark, 1)
	case 2:
		return strings.Replace(body, `"plaintext":"`, `"plaintext":"!`, 1)
	case 3:
		return strings.Replace(body, "SHA_256", mark, 1)
	case 4:
		return strings.Replace(body, `"plaintext":`, `"`+mark+`":1,"plaintext":`, 1)
	}
	return body
}

// forms returns each text as it is, in hexadecimal, and in Base64 at each of
// the three places that it can begin at in a longer text.
func forms(texts ...string) []string {
	var all []string
	for _, s := range texts {
		all = append(all, s, hex.EncodeToString([]byte(s)))
		for shift := range 3 {
			encoded := base64.StdEncoding.EncodeToString(append(slices.Repeat([]byte{'.'}, shift), s...))
			from := []int{0, 2, 3}[shift]
			all = append(all, encoded[from:len(encoded)-4])
		}
	}
	return all
}
