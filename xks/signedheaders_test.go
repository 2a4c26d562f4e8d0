package xks

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/sigv4"
)

// TestSignedHeaders: each header that may change what a request means must be
// signed; others need not be. Host is compared as it was sent, with a port or
// without.
func TestSignedHeaders(t *testing.T) {
	p := startProxy(t, nil)
	client := p.client(t, false)
	content := encryptBody().json()
	send := func(host string, change func(*http.Request), signed ...string) answer {
		r := newRequest(t, http.MethodPost, p.url(keyPath+"encrypt"), content)
		r.Host = host
		change(r)
		sigv4.Sign(r, content, testCredential.AccessKeyID, sigv4.NewSecret(testCredential.SecretAccessKey), "us-east-1", Service, time.Now(), signed...)
		return do(t, client, r)
	}
	for _, host := range []string{"", "localhost", "xks.example.com"} {
		if a := send(host, func(*http.Request) {}); a.status != http.StatusOK {
			t.Errorf("Host %q: %d %s", host, a.status, a.body)
		}
	}
	for header, must := range map[string]bool{
		"X-Amz-Target": true, "X-Amz-Expires": true, "X-Amz-Anything": true,
		"X-Amz-Security-Token": false, "X-Amz-User-Agent": false, "X-Amz-Cf-Id": false, "X-Amzn-Trace-Id": false, "User-Agent": false,
	} {
		set := func(r *http.Request) { r.Header.Set(header, "x") }
		a := send("", set)
		if must {
			a.wantError(t, AuthenticationFailedException)
			if !strings.Contains(string(a.body), "SignedHeaders") {
				t.Errorf("%s, not signed: %s", header, a.body)
			}
		} else if a.status != http.StatusOK {
			t.Errorf("%s, not signed: %d %s", header, a.status, a.body)
		}
		if a := send("", set, header); a.status != http.StatusOK {
			t.Errorf("%s, signed: %d %s", header, a.status, a.body)
		}
	}
}
