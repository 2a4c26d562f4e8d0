package sigv4

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
)

func hashOf(body string) [sha256.Size]byte { return sha256.Sum256([]byte(body)) }

func TestSecretIsNeverShown(t *testing.T) {
	secret := NewSecret("CANARY")
	secret.key(Scope{"20150830", "eu-west-1", "kms"})
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%t"} {
		fmt.Fprintf(&out, verb+"\n", secret)
		fmt.Fprintf(&out, verb+"\n", struct{ S *Secret }{secret})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "secret", secret)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "secret", secret)
	text, err := secret.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	out.WriteString(secret.String() + secret.GoString())
	for _, form := range []string{"CANARY", fmt.Sprintf("%x", "CANARY"), fmt.Sprintf("%X", "CANARY"), "67 65 78 65"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the secret shows as %q in:\n%s", form, out.String())
		}
	}
}

// The signing keys of many scopes, more than are kept, must not be mixed up.
func TestScopesAreKeptApart(t *testing.T) {
	shared := NewSecret(exampleSecret)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 200 {
				region := fmt.Sprintf("region-%d", (i+worker)%(2*cachedKeys))
				if got, want := authorization(shared, region), authorization(NewSecret(exampleSecret), region); got != want {
					t.Errorf("%s: got %s, want %s", region, got, want)
				}
			}
		})
	}
	wg.Wait()
	if n := len(*shared.keys.Load()); n > cachedKeys {
		t.Errorf("%d signing keys are kept, want at most %d", n, cachedKeys)
	}
}

func authorization(s *Secret, region string) string {
	r, err := http.NewRequest("POST", "https://xks.example.com/", nil)
	if err != nil {
		panic(err)
	}
	Sign(r, nil, exampleID, s, region, "kms", exampleTime())
	return r.Header.Get("Authorization")
}

// A header of any length is signed right, with workspaces used again.
func TestLongHeaders(t *testing.T) {
	secret := NewSecret(exampleSecret)
	for _, n := range []int{1, 500, 2_000, 20_000, 10} {
		r := signedRequest()
		r.Header.Set("X-Long", strings.Repeat("x y", n))
		Sign(r, []byte(testBody), exampleID, secret, "eu-west-1", "kms-xks-proxy", exampleTime(), "X-Long")
		if err := verify(testVerifier(), r, testBody); err != nil {
			t.Errorf("%d: %v", n, err)
		}
		r.Header.Set("X-Long", strings.Repeat("x y", n)+"z")
		if err := verify(testVerifier(), r, testBody); err == nil {
			t.Errorf("%d: a changed header was accepted", n)
		}
	}
}
