package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hyok-kms/hyok/internal/atomicfile"
	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/egress"
)

// kmsIdentities is the identities file that hyok init makes, in the data folder.
const kmsIdentities = "credentials/kms.json"

// ensureConfig writes hyok.yaml with a first key store and a first identity,
// unless there is one.
func (f *initFlags) ensureConfig(dir, module string) error {
	path := filepath.Join(dir, config.FileName)
	if fileExists(path) {
		return nil
	}
	// Made under another name: a configuration without its key store must not
	// be taken for a finished one when this is interrupted.
	draft := filepath.Join(dir, "draft-"+config.FileName)
	if err := atomicfile.Write(draft, []byte(f.configText(module))); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	if err := addQuickstartStore(draft); err != nil {
		return err
	}
	// One of an unfinished start, or of a configuration that was made over, is
	// as good as a new one.
	if f.kmsListen != "" && !fileExists(filepath.Join(dir, kmsIdentities)) {
		if _, err := config.AddIdentity(draft, config.NewIdentity(quickstartAccount)); err != nil {
			return err
		}
	}
	if err := os.Remove(draft + ".lock"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write the configuration: %w", err)
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// configText returns a configuration without a key store.
func (f *initFlags) configText(module string) string {
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
    %s
`, quickstartToken, module, f.listen, f.transport())
	if f.kmsListen != "" {
		fmt.Fprintf(&b, `kms:
  token: main
  identities: %s
  listeners:
    - address: %q
      %s
`, kmsIdentities, f.kmsListen, f.transport())
		if !f.plainHTTP {
			// So that its external key stores can stand on the proxy beside it.
			fmt.Fprintf(&b, "  xks_proxies: {ca: tls/ca.crt, allow: [%s]}\n", strings.Join(f.besides(), ", "))
		}
	}
	if f.operations != "" {
		fmt.Fprintf(&b, "operations: {address: %q}\n", f.operations)
	}
	return b.String()
}

// besides is where the KMS may call XKS proxies: all over the Internet, and at the
// listener beside it.
func (f *initFlags) besides() []string {
	allow := []string{egress.Public}
	host, _, err := net.SplitHostPort(f.listen)
	switch ip, notIP := netip.ParseAddr(host); {
	case err != nil:
	case notIP == nil && (ip.IsLoopback() || ip.IsUnspecified()), host == "", host == "localhost":
		allow = append(allow, "127.0.0.0/8", `"::1"`)
	case notIP == nil:
		allow = append(allow, strconv.Quote(ip.WithZone("").String()))
	default:
		allow = append(allow, strconv.Quote(host))
	}
	return allow
}

// transport says of a listener whether it does TLS.
func (f *initFlags) transport() string {
	if f.plainHTTP {
		return "plain_http: true"
	}
	return "tls: {certificate: tls/server.crt, key: tls/server.key}"
}

// addQuickstartStore adds a key store with a first credential.
func addQuickstartStore(draft string) error {
	store := config.Store{
		Name: quickstartStore, Prefix: "/keystores/" + quickstartStore, Tokens: []string{"main"}, KeyPattern: "*",
		Credentials: []config.Credential{config.NewCredential()},
	}
	if credentials := filepath.Join(filepath.Dir(draft), "credentials", quickstartStore+".json"); fileExists(credentials) {
		if err := os.Remove(credentials); err != nil { // of an interrupted start, never served
			return fmt.Errorf("remove the credentials of an unfinished start: %w", err)
		}
	}
	_, err := config.AddStore(draft, store)
	return err
}
