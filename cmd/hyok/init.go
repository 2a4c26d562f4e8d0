package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/atomicfile"
	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/internal/selfsigned"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// What hyok init makes.
const (
	quickstartFile   = "quickstart.env"
	quickstartKey    = "quickstart"
	quickstartStore  = "default"
	quickstartRegion = "us-east-1"
	quickstartToken  = "hyok"
)

// initFlags are the flags of hyok init. They count when a file is made, and
// never change one.
type initFlags struct {
	data               string
	listen, operations string
	plainHTTP          bool
	hosts              []string
}

func newInitCommand() *cobra.Command {
	var flags initFlags
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Set up an embedded token, a key, credentials and a certificate",
		Long: `Makes a data folder that 'hyok serve' can serve: a SoftHSM2 token with random PINs, a
first key, a key store with a credential, a TLS certificate of an authority of its own,
and hyok.yaml. What is there already is kept, so that it can be repeated. It leaves
quickstart.env with what a client needs, as shell assignments.

The certificate is for trying: AWS KMS trusts public authorities alone, see
'hyok tls request --help'.`,
		Example: `  $ hyok init --data ./data
  $ hyok init --data ./data --listen 0.0.0.0:8443 --host xks.example.org`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return flags.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.data, "data", "", "folder to make (default $HYOK_DATA, or ./data)")
	f.StringVar(&flags.listen, "listen", "127.0.0.1:8443", "address of the XKS listener")
	f.StringVar(&flags.operations, "operations", "127.0.0.1:9443", "address of the operators' listener; empty for none")
	f.BoolVar(&flags.plainHTTP, "plain-http", false, "serve plain HTTP on the loopback address instead of TLS")
	f.StringArrayVar(&flags.hosts, "host", nil, "name or address for the certificate beside localhost, may be repeated")
	return cmd
}

func (f *initFlags) run(ctx context.Context, out io.Writer) error {
	dir, err := filepath.Abs((&dataFlags{data: f.data}).dir())
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("make the data folder private: %w", err)
	}
	// Two at once would make two tokens of one label.
	unlock, err := atomicfile.Lock(filepath.Join(dir, "init"))
	if err != nil {
		return err
	}
	err = f.setUp(ctx, out, dir)
	return errors.Join(err, unlock())
}

func (f *initFlags) setUp(ctx context.Context, out io.Writer, dir string) error {
	module, err := softhsm.Module()
	if err != nil {
		return err
	}
	conf, err := softhsm.Configure(dir)
	if err != nil {
		return err
	}
	if err := f.ensureConfig(dir, module); err != nil {
		return err
	}
	if err := f.ensureCertificate(dir); err != nil {
		return err
	}
	path := filepath.Join(dir, config.FileName)
	c, err := config.Load(path, profiles()...)
	if err != nil {
		return err
	}
	if err := proxy.SetEnvironment(c); err != nil {
		return err
	}
	if err := ensureToken(ctx, dir, module, c); err != nil {
		return err
	}
	if err := f.writeEnv(dir, conf, module, c); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s is set up: 'hyok serve --data %s' serves it.\n", dir, dir)
	return err
}

// ensureConfig writes hyok.yaml with a first key store, unless there is one.
func (f *initFlags) ensureConfig(dir, module string) error {
	path := filepath.Join(dir, config.FileName)
	if fileExists(path) {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# hyok's configuration: 'hyok config check' checks it, a running server takes it up
# when it changes. docs/configuration.md describes every setting.
version: 1
softhsm2_conf: softhsm2.conf
tokens:
  main:
    uri: "pkcs11:token=%s?module-path=%s&pin-source=file:pin"
    profile: softhsm2
stores: {}
listeners:
  - address: %q
`, quickstartToken, module, f.listen)
	if f.plainHTTP {
		b.WriteString("    plain_http: true\n")
	} else {
		b.WriteString("    tls: {certificate: tls/server.crt, key: tls/server.key}\n")
	}
	if f.operations != "" {
		fmt.Fprintf(&b, "operations: {address: %q}\n", f.operations)
	}
	// Made under another name: a configuration without its key store must not
	// be taken for a finished one when this is interrupted.
	draft := filepath.Join(dir, "draft-"+config.FileName)
	if err := atomicfile.Write(draft, []byte(b.String())); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	store := config.Store{
		Name: quickstartStore, Prefix: "/keystores/" + quickstartStore, Tokens: []string{"main"}, KeyPattern: "*",
		Credentials: []config.Credential{config.NewCredential()},
	}
	if credentials := filepath.Join(dir, "credentials", quickstartStore+".json"); fileExists(credentials) {
		if err := os.Remove(credentials); err != nil { // of an interrupted start, never served
			return fmt.Errorf("remove the credentials of an unfinished start: %w", err)
		}
	}
	if _, err := config.AddStore(draft, store); err != nil {
		return err
	}
	for _, leftover := range []string{draft + ".lock"} {
		if err := os.Remove(leftover); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// ensureToken makes the token and the first key, unless they are there.
func ensureToken(ctx context.Context, dir, module string, c *config.Config) error {
	pin, err := ensurePIN(filepath.Join(dir, "pin"))
	if err != nil {
		return err
	}
	soPIN, err := ensurePIN(filepath.Join(dir, "so-pin"))
	if err != nil {
		return err
	}
	var modules keystore.Modules
	tokens, err := modules.Tokens(module)
	if err != nil {
		return err
	}
	known := false
	for _, t := range tokens {
		known = known || t.Initialized && t.Label == quickstartToken
	}
	if !known {
		if _, err := modules.InitToken(module, quickstartToken, soPIN, pin); err != nil {
			return err
		}
	}
	settings := c.Token("main")
	if settings == nil {
		return nil // the configuration was made over: its tokens are its owner's
	}
	options, err := proxy.TokenOptions(c, settings, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	t, err := keystore.Open(ctx, &modules, options)
	if err != nil {
		return err
	}
	err = t.GenerateKey(ctx, quickstartKey, keystore.KeyUsage{Encrypt: true, Decrypt: true})
	if errors.Is(err, keystore.ErrKeyExists) {
		err = nil
	}
	if err == nil {
		t.Probe(ctx) // makes the key that health is probed with
	}
	return errors.Join(err, t.Close(ctx))
}

// ensurePIN makes a file with a random PIN, unless there is one, and returns it.
func ensurePIN(path string) (string, error) {
	err := atomicfile.Create(path, []byte(rand.Text()+"\n"))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("write a PIN: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the PIN: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// ensureCertificate makes a certificate, unless there is one that lasts.
func (f *initFlags) ensureCertificate(dir string) error {
	tlsDir := filepath.Join(dir, "tls")
	if selfsigned.Lasts(filepath.Join(tlsDir, "server.crt"), time.Now()) {
		return nil
	}
	if err := os.MkdirAll(tlsDir, 0o700); err != nil {
		return fmt.Errorf("make the certificate's folder: %w", err)
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if host, _, err := net.SplitHostPort(f.listen); err == nil && host != "" {
		hosts = append(hosts, host)
	}
	return selfsigned.Write(tlsDir, append(hosts, f.hosts...), time.Now())
}

// writeEnv writes what a client needs as shell assignments.
func (f *initFlags) writeEnv(dir, conf, module string, c *config.Config) error {
	store := c.Store(quickstartStore)
	if store == nil || len(c.Listeners) == 0 {
		return nil // the configuration was made over: the file that is there is of no use to change
	}
	scheme := "https"
	if c.Listeners[0].TLS == nil {
		scheme = "http"
	}
	credential := store.Credentials[0]
	var b strings.Builder
	var names []string
	b.WriteString("# What a client of the embedded key store needs. It holds a secret.\n")
	for _, v := range [][2]string{
		{"HYOK_XKS_URL", scheme + "://" + clientAddress(c.Listeners[0].Address) + store.Prefix},
		{"HYOK_XKS_KEY_ID", quickstartKey},
		{"HYOK_XKS_ACCESS_KEY_ID", credential.AccessKeyID},
		{"HYOK_XKS_SECRET_ACCESS_KEY", credential.SecretAccessKey},
		{"HYOK_XKS_REGION", quickstartRegion},
		{"HYOK_CA_FILE", filepath.Join(dir, "tls", "ca.crt")},
		{"SOFTHSM2_CONF", conf},
		{"HYOK_PKCS11_MODULE", module},
		{"HYOK_PIN_FILE", filepath.Join(dir, "pin")},
	} {
		fmt.Fprintf(&b, "%s='%s'\n", v[0], strings.ReplaceAll(v[1], "'", `'\''`))
		names = append(names, v[0])
	}
	// Apart from the assignments, which programs may read too.
	fmt.Fprintf(&b, "export %s\n", strings.Join(names, " "))
	if err := atomicfile.Write(filepath.Join(dir, quickstartFile), []byte(b.String())); err != nil {
		return fmt.Errorf("write %s: %w", quickstartFile, err)
	}
	return nil
}

// clientAddress is where a client on this machine reaches a listener.
func clientAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// curlExample is a command line that encrypts with the first key.
func curlExample(env string) string {
	return fmt.Sprintf(`  . '%s'
  curl --cacert "$HYOK_CA_FILE" --aws-sigv4 "aws:amz:$HYOK_XKS_REGION:kms-xks-proxy" \
    --user "$HYOK_XKS_ACCESS_KEY_ID:$HYOK_XKS_SECRET_ACCESS_KEY" -H 'Content-Type: application/json' \
    -d '{"requestMetadata":{"awsPrincipalArn":"arn:aws:iam::123456789012:user/Alice","kmsKeyArn":"arn:aws:kms:us-east-1:123456789012:key/1","kmsOperation":"Encrypt","kmsRequestId":"1"},"plaintext":"SGVsbG8gV29ybGQh","encryptionAlgorithm":"AES_GCM"}' \
    "$HYOK_XKS_URL/kms/xks/v1/keys/$HYOK_XKS_KEY_ID/encrypt"
`, strings.ReplaceAll(env, "'", `'\''`))
}
