package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/hyok-kms/hyok/xks"
)

// The environment that stands in for flags of `hyok xks verify` and
// `hyok xks bench`: what quickstart.env assigns.
const (
	envXKSURL             = "HYOK_XKS_URL"
	envXKSKeyID           = "HYOK_XKS_KEY_ID"
	envXKSAccessKeyID     = "HYOK_XKS_ACCESS_KEY_ID"
	envXKSSecretAccessKey = "HYOK_XKS_SECRET_ACCESS_KEY"
	envXKSRegion          = "HYOK_XKS_REGION"
	envCAFile             = "HYOK_CA_FILE"
)

// maxSecretFile is more than any secret access key needs, in bytes: who names
// the wrong file gets an error instead of a long wait.
const maxSecretFile = 4096

// xksFlags are the flags with which every command that calls a proxy is told
// which one, as whom, and over what kind of connection.
type xksFlags struct {
	keyIDs      []string
	accessKeyID string
	secretFile  string
	region      string
	caFile      string
	clientCert  string
	clientKey   string
	http2       bool
	timeout     time.Duration
}

// xksTarget is a proxy and who calls it, from flags and environment.
type xksTarget struct {
	URL        *url.URL // up to and with the key store's path prefix, without xks.APIPath
	KeyIDs     []string // at least one
	Credential xks.Credential
	Region     string
}

// register adds the flags to fs. Defaults from the environment are looked up
// by target and transport, so that --help shows names and no values.
func (f *xksFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.keyIDs, "key-id", nil, "external key `id`; repeatable (default $"+envXKSKeyID+")")
	fs.StringVar(&f.accessKeyID, "access-key-id", "", "access key `id` of the proxy credential (default $"+envXKSAccessKeyID+")")
	fs.StringVar(&f.secretFile, "secret-file", "", "`file` with the secret access key (default: the value of $"+envXKSSecretAccessKey+")")
	fs.StringVar(&f.region, "region", "", "AWS `region` in the signature's scope (default $"+envXKSRegion+")")
	fs.StringVar(&f.caFile, "ca-file", "", "PEM `file` of the roots that may sign the proxy's certificate (default $"+envCAFile+", else the system's)")
	fs.StringVar(&f.clientCert, "client-cert", "", "PEM `file` of the certificate to present for mTLS")
	fs.StringVar(&f.clientKey, "client-key", "", "PEM `file` of its private key")
	fs.BoolVar(&f.http2, "http2", false, "speak HTTP/2 alone instead of HTTP/1.1")
	fs.DurationVar(&f.timeout, "timeout", time.Second, "give up on an answer after this `time`")
}

// target resolves the positional URL, which may be absent, the flags and the
// environment. Errors are usage errors and never contain the secret.
func (f *xksFlags) target(args []string) (xksTarget, error) {
	if f.timeout <= 0 {
		return xksTarget{}, usagef("--timeout %v: it must be positive", f.timeout)
	}
	raw := os.Getenv(envXKSURL)
	if len(args) > 0 {
		raw = args[0]
	}
	base, err := parseXKSURL(raw)
	if err != nil {
		return xksTarget{}, err
	}
	credential, err := f.credential()
	if err != nil {
		return xksTarget{}, err
	}
	t := xksTarget{
		URL:        base,
		KeyIDs:     f.keyIDs,
		Credential: credential,
		Region:     cmp.Or(f.region, os.Getenv(envXKSRegion)),
	}
	if id := os.Getenv(envXKSKeyID); len(t.KeyIDs) == 0 && id != "" {
		t.KeyIDs = []string{id}
	}
	if t.Region == "" {
		return xksTarget{}, usagef("no region: give --region or set %s", envXKSRegion)
	}
	if len(t.KeyIDs) == 0 {
		return xksTarget{}, usagef("no external key: give --key-id or set %s", envXKSKeyID)
	}
	return t, nil
}

func parseXKSURL(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, usagef("no proxy: give its URL or set %s", envXKSURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, usagef("proxy URL: %w", err)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, usagef("proxy URL %q: it must begin with https://HOST or http://HOST", u.Redacted())
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, usagef("proxy URL %q: it must not have a user, a query or a fragment", u.Redacted())
	}
	// Both forms of the URL are at hand for people: with and without the part
	// that is the same for every proxy.
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), xks.APIPath)
	u.RawPath = ""
	return u, nil
}

func (f *xksFlags) credential() (xks.Credential, error) {
	c := xks.Credential{
		AccessKeyID:     cmp.Or(f.accessKeyID, os.Getenv(envXKSAccessKeyID)),
		SecretAccessKey: os.Getenv(envXKSSecretAccessKey),
	}
	if c.AccessKeyID == "" {
		return xks.Credential{}, usagef("no credential: give --access-key-id or set %s", envXKSAccessKeyID)
	}
	if f.secretFile != "" {
		secret, err := readSecretFile(f.secretFile)
		if err != nil {
			return xks.Credential{}, err
		}
		c.SecretAccessKey = secret
	}
	if c.SecretAccessKey == "" {
		return xks.Credential{}, usagef("no secret access key: give --secret-file or set %s", envXKSSecretAccessKey)
	}
	if err := c.Validate(); err != nil {
		return xks.Credential{}, &exitError{exitUsage, err}
	}
	return c, nil
}

func readSecretFile(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", usagef("secret access key: %w", err)
	}
	if info.Size() > maxSecretFile {
		return "", usagef("secret access key: %s has %d bytes: it must hold the secret alone", name, info.Size())
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", usagef("secret access key: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// transport makes an HTTP transport of the command's own: at most connections
// to the proxy (0: no limit), no proxy from the environment in between, no
// compression, HTTP/1.1 unless --http2 is given.
func (f *xksFlags) transport(connections int) (*http.Transport, error) {
	tlsConfig, err := f.tlsConfig()
	if err != nil {
		return nil, err
	}
	var protocols http.Protocols
	protocols.SetHTTP1(!f.http2)
	protocols.SetHTTP2(f.http2)
	protocols.SetUnencryptedHTTP2(f.http2)
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: f.timeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: f.timeout,
		MaxConnsPerHost:     connections,
		MaxIdleConnsPerHost: max(connections, 1),
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
		Protocols:           &protocols,
	}, nil
}

// tlsConfig returns the client's TLS configuration: roots and certificate from
// files, TLS 1.2 at the least, as the specification asks.
func (f *xksFlags) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if name := cmp.Or(f.caFile, os.Getenv(envCAFile)); name != "" {
		pem, err := os.ReadFile(name)
		if err != nil {
			return nil, usagef("trusted roots: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usagef("trusted roots: %s has no certificate in PEM form", name)
		}
	}
	if (f.clientCert == "") != (f.clientKey == "") {
		return nil, &exitError{exitUsage, errors.New("--client-cert and --client-key go together")}
	}
	if f.clientCert != "" {
		pair, err := tls.LoadX509KeyPair(f.clientCert, f.clientKey)
		if err != nil {
			return nil, usagef("client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
