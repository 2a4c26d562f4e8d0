package drill_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/internal/tlstest"
	"github.com/hyok-kms/hyok/internal/tokentest"
)

// Six clients, as the SDK makes them by default, ask at once for an RSA key each, or
// for the wrapping key of an import, of SoftHSM2 itself on a machine whose processors
// are busy: none is refused.
func TestGeneration(t *testing.T) {
	const clients = 6
	clientOf := newKMSSite(t)
	var external []*string
	for n := range clients {
		out, err := clientOf(n).CreateKey(t.Context(), &kms.CreateKeyInput{Origin: types.OriginTypeExternal})
		if err != nil {
			t.Fatal(err)
		}
		external = append(external, out.KeyMetadata.KeyId)
	}
	spec := pick(types.KeySpecRsa2048, types.KeySpecRsa4096)
	ask := func(n int) error {
		if n%2 == 0 {
			_, err := clientOf(n).CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: spec, KeyUsage: types.KeyUsageTypeSignVerify})
			return err
		}
		_, err := clientOf(n).GetParametersForImport(t.Context(), &kms.GetParametersForImportInput{
			KeyId: external[n], WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpec(spec),
		})
		return err
	}
	defer burn(2)()
	var took []time.Duration
	for range pick(1, 10) {
		each := make([]time.Duration, clients)
		var all sync.WaitGroup
		for n := range clients {
			all.Go(func() {
				begin := time.Now()
				if err := ask(n); err != nil {
					t.Errorf("%s after %v: %v", spec, time.Since(begin).Round(time.Millisecond), err)
				}
				each[n] = time.Since(begin)
			})
		}
		all.Wait()
		took = append(took, each...)
	}
	t.Logf("%d pairs %s for %d clients beside 2 burners: p50 %v, p90 %v, longest %v", len(took), spec, clients,
		quantile(took, .5).Round(time.Millisecond), quantile(took, .9).Round(time.Millisecond), quantile(took, 1).Round(time.Millisecond))
}

// burn keeps processors busy until stop is called.
func burn(processors int) (stop func()) {
	var over atomic.Bool
	var burning sync.WaitGroup
	for range processors {
		burning.Go(func() {
			for n := uint64(1); !over.Load(); n = n*6364136223846793005 + 1 {
			}
		})
	}
	return func() {
		over.Store(true)
		burning.Wait()
	}
}

// newKMSSite starts an embedded KMS over TLS on SoftHSM2. It returns the client of
// each user, with a connection of his own.
func newKMSSite(t *testing.T) func(user int) *kms.Client {
	t.Helper()
	dir, ca := t.TempDir(), tlstest.NewCA(t)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u := tokentest.NewToken(t, &modules)
	write("pin", tokentest.PIN+"\n")
	write("identities.json", `{"identities":[{"accessKeyId":"drill","secretAccessKey":"of-the-drill","account":"111122223333"}]}`)
	tlstest.WriteFiles(t, dir, "server", ca.Issue(t, "localhost"))
	write(config.FileName, fmt.Sprintf(`version: 1
tokens:
  main: {uri: "pkcs11:token=%s?module-path=%s&pin-source=file:pin"}
kms:
  token: main
  identities: identities.json
  listeners:
    - {address: "127.0.0.1:0", tls: {certificate: server.crt, key: server.key}}
`, u.Token, u.ModulePath))
	c, err := config.Load(filepath.Join(dir, config.FileName))
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.Start(t.Context(), c, "drill", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shut down: %v", err)
		}
	})
	users := map[int]*kms.Client{}
	var mu sync.Mutex
	return func(user int) *kms.Client {
		mu.Lock()
		defer mu.Unlock()
		if users[user] == nil {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}}
			t.Cleanup(transport.CloseIdleConnections)
			users[user] = kms.NewFromConfig(aws.Config{
				Region: "eu-central-1", BaseEndpoint: aws.String("https://" + p.KMSAddresses()[0].String()),
				Credentials: credentials.NewStaticCredentialsProvider("drill", "of-the-drill", ""), HTTPClient: &http.Client{Transport: transport},
			})
		}
		return users[user]
	}
}
