package engine_test

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/testlog"
	"github.com/hyok-kms/hyok/internal/tokentest"
)

// Secrets are stored encrypted, and neither logged nor told.
func TestSecretsStaySecret(t *testing.T) {
	r, p := newClusterRig(t), newProxyRig(t)
	var log testlog.Buffer
	f := newEngine(t, r.use, p.use, func(c *engine.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	c := f.client()
	secrets := []string{tokentest.PIN, "a wrong PIN", p.credentials[prefixA].SecretAccessKey, p.credentials[prefixB].SecretAccessKey}
	storeID := r.create(c)
	connect(t, c, storeID)
	external := p.connected(c, "xks")
	disconnect(t, c, storeID)
	must(c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: storeID, KeyStorePassword: aws.String("a wrong PIN")}))
	begin(t, c, storeID)
	settled(t, c, storeID)
	p.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	_, err := c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{
		CustomKeyStoreId: external, XksProxyAuthenticationCredential: p.input("", prefixB).XksProxyAuthenticationCredential,
	})
	text := log.String() + err.Error()
	files, err := filepath.Glob(filepath.Dir(f.path) + "/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text += string(b)
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%q is not secret", secret)
		}
	}
	if !strings.Contains(text, "cks-") {
		t.Error("nothing was looked at")
	}
}
