package main

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/atomicfile"
	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/keystore"
)

// newTLSCommand returns hyok tls.
func newTLSCommand() *cobra.Command {
	data, format := new(dataFlags), new(outputFormat)
	group := newGroup("tls", "Keep a listener's TLS key in a token", `The private key by which a listener proves its name to AWS KMS can live in a token too.`,
		newTLSRequestCommand(data, format))
	data.add(group)
	format.add(group)
	return group
}

// requestFlags are the flags of hyok tls request.
type requestFlags struct {
	tokenFlags
	keyURI, object, kind, out string
	hosts                     []string
	existing                  bool
}

// requestView is a certificate request that was made.
type requestView struct {
	KeyURI  string   `json:"keyUri"` // without a PIN
	Hosts   []string `json:"hosts"`
	File    string   `json:"file,omitzero"`
	Request string   `json:"certificateRequest"` // PEM
}

func newTLSRequestCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	flags := requestFlags{tokenFlags: tokenFlags{dataFlags: data}}
	cmd := &cobra.Command{
		Use:   "request --host NAME",
		Short: "Make a key pair in a token and a certificate request for it",
		Long: `Makes a key pair in a token, whose private key never leaves it, and a certificate request
(PKCS#10) for the names of a listener. --existing makes a request for the key pair that is
there, to renew a certificate. The key pair goes to the configured token under the label
--object, or to where --key-uri says; that needs no configuration.

AWS KMS calls an external key store only if its certificate is from a public certificate
authority that AWS KMS trusts, and has the name of the endpoint.`,
		Example: `  $ hyok tls request --host xks.example.com --out xks.csr
  The certificate request for xks.example.com is in xks.csr.
  Its key is pkcs11:token=hyok;object=hyok-tls?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:pin
  Send the request to a public certificate authority that AWS KMS trusts. Then put the path
  of the certificate chain and the URI of the key into listeners[].tls of the configuration,
  as certificate and key.
  $ hyok tls request --host xks.example.com --existing > renewal.csr`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(cmd); err != nil {
				return err
			}
			v, err := flags.request(cmd)
			if err != nil {
				return err
			}
			return flags.report(cmd, *format, v)
		},
	}
	flags.addToken(cmd, "configured token to have the key pair (default the only one)")
	f := cmd.Flags()
	f.StringVar(&flags.keyURI, "key-uri", "", "PKCS#11 URI of the key pair, with object= and ?module-path= (default by --token and --object)")
	f.StringVar(&flags.object, "object", "hyok-tls", "label of the key pair in the configured token")
	f.StringArrayVar(&flags.hosts, "host", nil, "DNS name or IP address of the listener, may be repeated")
	f.StringVar(&flags.kind, "kind", string(keystore.ECDSAP256), "kind of key pair: "+strings.Join(keyPairKinds(), ", "))
	f.StringVar(&flags.out, "out", "", "file for the request (default standard output)")
	f.BoolVar(&flags.existing, "existing", false, "use the key pair that is there")
	// It fails for an unknown flag only.
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(keyPairKinds(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func keyPairKinds() []string {
	return []string{string(keystore.ECDSAP256), string(keystore.ECDSAP384), string(keystore.RSA2048), string(keystore.RSA3072)}
}

// hostForm is a DNS name, in which the first label may be "*".
var hostForm = regexp.MustCompile(`^(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// check reports the mistakes that are seen before a key pair is made.
func (f *requestFlags) check(cmd *cobra.Command) error {
	changed := cmd.Flags().Changed
	switch {
	case len(f.hosts) == 0:
		return usagef("--host gives the name by which AWS KMS calls the listener")
	case !slices.Contains(keyPairKinds(), f.kind):
		return usagef("--kind must be one of %s", strings.Join(keyPairKinds(), ", "))
	case f.existing && changed("kind"):
		return usagef("give either --existing or --kind")
	case f.keyURI != "" && (changed("token") || changed("object")):
		return usagef("give either --key-uri or --token and --object")
	}
	for _, host := range f.hosts {
		if ip, err := netip.ParseAddr(host); ip.Zone() != "" || err != nil && (len(host) > 253 || !hostForm.MatchString(host)) {
			return usagef("--host %q is neither a DNS name nor an IP address", host)
		}
	}
	if f.out == "" {
		return nil
	}
	if _, err := os.Lstat(f.out); err == nil {
		return refusedf("%s exists already", f.out)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// requestKey is a key pair in a token that is to be made or opened.
type requestKey struct {
	modules *keystore.Modules
	uri     keystore.URI
	pin     func() (string, error)
}

// key returns which key pair is meant and what gives the PIN of its token.
func (f *requestFlags) key(cmd *cobra.Command) (k requestKey, err error) {
	if f.keyURI != "" {
		u, err := keystore.ParseURI(f.keyURI)
		if err != nil {
			return k, usagef("--key-uri: %w", err)
		}
		k.modules, k.uri = new(keystore.Modules), u
		if f.data != "" || f.config != "" {
			k.modules = proxy.NewModules(f.dir())
		}
		k.pin, err = pinFunc(cmd, u.Token, u, func() (string, error) { return u.PIN(f.dirOrHere(), false) })
		return k, err
	}
	c, t, err := f.choose(f.token)
	if err != nil {
		return k, err
	}
	if err := proxy.SetEnvironment(c); err != nil {
		return k, err
	}
	log := quietLogger(cmd.Context(), cmd.ErrOrStderr())
	proxy.KeepTokens(log)
	options, err := proxy.TokenOptions(c, t, log)
	if err != nil {
		return k, err
	}
	k.modules, k.uri = proxy.NewModules(c.Dir()), options.URI
	k.uri.Object = f.object
	k.pin, err = pinFunc(cmd, t.Name, options.URI, options.PIN)
	return k, err
}

// dirOrHere is where relative paths in --key-uri start.
func (f *requestFlags) dirOrHere() string {
	if f.data != "" || f.config != "" {
		return f.dir()
	}
	return "."
}

// request makes or opens the key pair and has it sign the request.
func (f *requestFlags) request(cmd *cobra.Command) (requestView, error) {
	k, err := f.key(cmd)
	if err != nil {
		return requestView{}, err
	}
	text, err := await(cmd.Context(), func() ([]byte, error) { return f.sign(k) })
	if errors.Is(err, keystore.ErrKeyExists) {
		return requestView{}, refusedf("%w: --existing makes a request for it", err)
	} else if err != nil {
		return requestView{}, err
	}
	if f.out != "" {
		if err := atomicfile.Create(f.out, text); err != nil {
			return requestView{}, fmt.Errorf("%w; the key pair is in the token: try again with --existing", err)
		}
	}
	return requestView{KeyURI: k.uri.String(), Hosts: f.hosts, File: f.out, Request: string(text)}, nil
}

func (f *requestFlags) sign(k requestKey) (text []byte, err error) {
	var pair *keystore.KeyPair
	if f.existing {
		pair, err = k.modules.OpenKeyPair(k.uri, k.pin)
	} else {
		pair, err = k.modules.GenerateKeyPair(k.uri, k.pin, keystore.KeyPairKind(f.kind))
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	return certificateRequest(pair, f.hosts)
}

// certificateRequest returns a PEM certificate request for the hosts. The first
// one is the common name, where that has room for it (RFC 5280, appendix A.1).
func certificateRequest(key crypto.Signer, hosts []string) ([]byte, error) {
	const maxCommonName = 64
	var template x509.CertificateRequest
	if len(hosts[0]) <= maxCommonName {
		template.Subject = pkix.Name{CommonName: hosts[0]}
	}
	for _, host := range hosts {
		if ip, err := netip.ParseAddr(host); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// report prints the request, unless it is in a file, and what to do next: beside
// a request on standard output, on standard error.
func (f *requestFlags) report(cmd *cobra.Command, format outputFormat, v requestView) error {
	if format == formatJSON {
		return printJSON(cmd.OutOrStdout(), v)
	}
	out, where := cmd.OutOrStdout(), "is in "+v.File
	if v.File == "" {
		if _, err := fmt.Fprint(out, v.Request); err != nil {
			return err
		}
		out, where = cmd.ErrOrStderr(), "was made"
	}
	_, err := fmt.Fprintf(out, `The certificate request for %s %s.
Its key is %s
Send the request to a public certificate authority that AWS KMS trusts. Then put the path
of the certificate chain and the URI of the key into listeners[].tls of the configuration,
as certificate and key.
`, strings.Join(v.Hosts, ", "), where, v.KeyURI)
	return err
}
