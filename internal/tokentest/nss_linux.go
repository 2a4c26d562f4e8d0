package tokentest

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

// NSS is a token of NSS's softokn behind p11-kit-proxy. NSS answers C_Initialize only
// if it is told a folder by the reserved argument, as p11-kit does, and p11-kit tells
// the configuration of a user to no process of root's. So the token is for a child
// process that Command starts.
type NSS struct {
	Path string // of p11-kit-proxy
	dir  string
}

const nssPIN = "nss-user-pin-4711"

// NewNSS makes a token.
func NewNSS(tb testing.TB) *NSS {
	tb.Helper()
	n := &NSS{Path: library(tb, "p11-kit-proxy.so"), dir: tb.TempDir()}
	modules := filepath.Join(n.dir, "pkcs11", "modules")
	db := filepath.Join(n.dir, "db")
	for _, dir := range []string{modules, db} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		filepath.Join(n.dir, "pkcs11", "pkcs11.conf"): "user-config: only\n",
		filepath.Join(modules, "nss.module"): fmt.Sprintf("module: %s\nx-init-reserved: configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags=\n",
			library(tb, "libsoftokn3.so"), db),
		n.pinFile(): nssPIN,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	if out, err := exec.Command("certutil", "-N", "-d", "sql:"+db, "-f", n.pinFile()).CombinedOutput(); err != nil {
		tb.Fatalf("certutil: %v\n%s", err, out)
	}
	return n
}

func (n *NSS) pinFile() string { return filepath.Join(n.dir, "pin") }

// URI returns the URI of the token.
func (n *NSS) URI(tb testing.TB) keystore.URI {
	tb.Helper()
	u, err := keystore.ParseURI("pkcs11:token=" + url.PathEscape("NSS Certificate DB") + "?module-path=" + n.Path + "&pin-source=file:" + n.pinFile())
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// Command returns a command that sees the token. As root it runs in a user namespace,
// where it is another user with the same files.
func (n *NSS) Command(tb testing.TB, name string, args ...string) *exec.Cmd {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), name, args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+n.dir)
	if os.Getuid() == 0 {
		const another = 1000
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: another, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: another, HostID: 0, Size: 1}},
		}
	}
	return cmd
}

// library returns the path of a shared library of the system.
func library(tb testing.TB, name string) string {
	tb.Helper()
	for _, pattern := range []string{"/usr/lib/*/" + name, "/usr/lib/*/*/" + name, "/usr/lib64/" + name, "/usr/lib/" + name} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	tb.Fatalf("%s is not installed: deploy/install-tools installs it", name)
	return ""
}
