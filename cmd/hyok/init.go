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
	"slices"
	"strings"
	"syscall"
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
	quickstartFile    = "quickstart.env"
	quickstartKey     = "quickstart"
	quickstartStore   = "default"
	quickstartRegion  = "us-east-1"
	quickstartToken   = "hyok"
	quickstartAccount = "111122223333" // one that AWS's documentation uses
)

// initFlags are the flags of hyok init. They count when a file is made, and
// never change one.
type initFlags struct {
	data                          string
	listen, kmsListen, operations string
	plainHTTP                     bool
	hosts                         []string
}

func newInitCommand() *cobra.Command {
	var flags initFlags
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Set up an embedded token, a key, credentials and a certificate",
		Long: `Makes a data folder that 'hyok serve' can serve: a SoftHSM2 token with random PINs, a
first key, a key store with a credential, an identity that may call the embedded KMS (the
root of the account ` + quickstartAccount + `), a TLS certificate of an authority of its own, and
hyok.yaml. What is there already is kept, so that it can be repeated. It leaves
quickstart.env with what a client needs, as shell assignments: also what the aws CLI and
the AWS SDKs read (AWS_ENDPOINT_URL_KMS, AWS_ACCESS_KEY_ID and so on).

The certificate is for trying: AWS KMS trusts public authorities alone, see
'hyok tls request --help'.`,
		Example: `  $ hyok init --data ./data
  $ hyok init --data ./data --listen 0.0.0.0:8443 --kms-listen "" --host xks.example.org`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.data, "data", "", "folder to make (default $HYOK_DATA, or ./data)")
	f.StringVar(&flags.listen, "listen", "127.0.0.1:8443", "address of the XKS listener")
	f.StringVar(&flags.kmsListen, "kms-listen", "127.0.0.1:8444", "address of the embedded KMS's listener; empty for no embedded KMS")
	f.StringVar(&flags.operations, "operations", "127.0.0.1:9443", "address of the operators' listener; empty for none")
	f.BoolVar(&flags.plainHTTP, "plain-http", false, "serve plain HTTP on the loopback address instead of TLS")
	f.StringArrayVar(&flags.hosts, "host", nil, "name or address for the certificate beside localhost, may be repeated")
	return cmd
}

func (f *initFlags) run(ctx context.Context, out, warnings io.Writer) error {
	dir, err := filepath.Abs((&dataFlags{data: f.data}).dir())
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := f.checkPorts(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if err := makePrivate(dir, warnings); err != nil {
		return err
	}
	// Two at once would make two tokens of one label.
	unlock, err := atomicfile.Lock(filepath.Join(dir, "init"))
	if err != nil {
		return err
	}
	err = f.setUp(ctx, out, dir)
	return errors.Join(err, unlock())
}

// checkPorts reports a listener's port that another program has, before anything is
// made. A configuration that is there already may be served at this moment.
func (f *initFlags) checkPorts(dir string) error {
	if fileExists(filepath.Join(dir, config.FileName)) {
		return nil
	}
	for _, l := range []struct{ address, flag, setting string }{
		{f.listen, "--listen", "LISTEN"}, {f.kmsListen, "--kms-listen", "KMS_LISTEN"}, {f.operations, "--operations", "OPERATIONS"},
	} {
		if l.address == "" {
			continue
		}
		listener, err := net.Listen("tcp", l.address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("another program listens on %s already, and nothing was made: choose another address by %s ADDRESS (make run %s=ADDRESS)", l.address, l.flag, l.setting)
		} else if err != nil {
			continue // what else is wrong is for the check of the configuration, or for serve, to say
		}
		if err := listener.Close(); err != nil {
			return fmt.Errorf("try the address %s: %w", l.address, err)
		}
	}
	return nil
}

// makePrivate keeps others than the owner out of a folder. The root of a volume may
// belong to another user, who alone can do that: then a warning has to do, since
// every file of secrets has a mode of its own.
func makePrivate(dir string, warnings io.Writer) error {
	err := os.Chmod(dir, 0o700)
	if !errors.Is(err, fs.ErrPermission) {
		if err != nil {
			return fmt.Errorf("make the data folder private: %w", err)
		}
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("make the data folder private: %w", err)
	}
	_, err = fmt.Fprintf(warnings, "warning: %s belongs to another user and keeps its mode %04o: whoever can write there can replace its files; "+
		"a folder below it would be private\n", dir, info.Mode().Perm())
	return err
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
	if err := selfsigned.WriteTrustStore(filepath.Join(dir, "tls")); err != nil {
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
	proxy.KeepTokens(quietLogger(ctx, out)) // or one that was lost would be made anew
	if err := ensureToken(ctx, dir, module, c); err != nil {
		return err
	}
	if err := writeEnv(dir, conf, module, c); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s is set up: 'hyok serve --data %s' serves it.\n", dir, dir)
	return err
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
	modules := proxy.NewModules(dir)
	tokens, err := modules.Tokens(module, "")
	if len(tokens) == 0 && err != nil { // one that init was killed in the making of is not in the way
		return err
	}
	known := false
	for _, t := range tokens {
		known = known || t.Initialized && t.PINSet && t.Label == quickstartToken
	}
	if !known {
		err := softhsm.Stage(dir, func() error {
			_, err := modules.InitToken(module, "", quickstartToken, soPIN, pin)
			return err
		})
		if err != nil {
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
	t, err := keystore.Open(ctx, modules, options)
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
	for _, address := range []string{f.listen, f.kmsListen} {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return selfsigned.Write(tlsDir, append(hosts, f.hosts...), time.Now())
}
