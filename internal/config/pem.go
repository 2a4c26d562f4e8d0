package config

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

// checkCertificate checks a listener's certificate and its private key.
func (t *TLS) checkCertificate() error {
	if t.Certificate == "" { // reported already
		return nil
	}
	certificate, err := readFile(t.Certificate)
	if err != nil {
		return err
	}
	if t.KeyFile == "" {
		_, err := parseCertificates(t.Certificate, certificate, nothingElse)
		return err
	}
	info, err := os.Stat(t.KeyFile)
	if err != nil {
		return fileError(t.KeyFile, err)
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return &Error{File: t.KeyFile, Message: fmt.Sprintf("has mode %04o: others can reach this private key, or its group can replace it; run chmod g-w,o= on it", mode)}
	}
	key, err := readFile(t.KeyFile)
	if err != nil {
		return err
	}
	return t.checkPair(certificate, key)
}

// checkPair says what is wrong with a certificate and its key.
func (t *TLS) checkPair(certificate, key []byte) error {
	chain, err := parseCertificates(t.Certificate, certificate, anything)
	if err != nil {
		return err
	}
	public, err := parseKey(t.KeyFile, key)
	if err != nil {
		return err
	}
	for i, c := range chain {
		switch match, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); {
		case !ok || !match.Equal(public):
		case i > 0:
			return &Error{File: t.Certificate, Message: fmt.Sprintf("has the certificate for the key in %s as number %d: it must come first, then the intermediate ones", t.KeyFile, i+1)}
		default:
			if _, err := tls.X509KeyPair(certificate, key); err != nil {
				return &Error{File: t.Certificate, Message: fmt.Sprintf("and %s cannot be used: %v", t.KeyFile, err), Cause: err}
			}
			return nil
		}
	}
	return &Error{File: t.Certificate, Message: fmt.Sprintf("and %s are not a certificate and its key: the key is another one's, perhaps since one of the two was renewed alone", t.KeyFile)}
}

// missingIntermediate returns a warning about a chain that is a leaf alone, which its
// issuer's own clients do not know. It is nil for one that seems to be complete.
func (t *TLS) missingIntermediate() error {
	data, err := readFile(t.Certificate)
	if err != nil {
		return nil // reported already, or replaced just now
	}
	chain, err := parseCertificates(t.Certificate, data, anything)
	if err != nil || len(chain) != 1 {
		return nil
	}
	leaf := chain[0]
	// Public authorities, which never sign with a root, say where the issuer's
	// certificate is.
	if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) || len(leaf.IssuingCertificateURL) == 0 {
		return nil
	}
	if _, err := leaf.Verify(x509.VerifyOptions{CurrentTime: leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		return nil // by a root of this machine
	}
	return &Error{File: t.Certificate, Message: fmt.Sprintf("has the certificate of the listener alone: if its issuer (%s) is an intermediate authority, AWS KMS and other clients refuse it "+
		"unless the intermediate certificate follows in the file (authorities call that the full chain)", leaf.Issuer)}
}

// checkCertificates checks a file of certificates, where one is named.
func checkCertificates(path string) error {
	if path == "" {
		return nil
	}
	data, err := readFile(path)
	if err != nil {
		return err
	}
	_, err = parseCertificates(path, data, nothingElse)
	return err
}

// What may stand in a file beside certificates.
const (
	nothingElse = false
	anything    = true
)

// parseCertificates returns the certificates in a PEM file, of which there is one at
// least.
func parseCertificates(path string, data []byte, others bool) ([]*x509.Certificate, error) {
	blocks, err := parsePEM(path, data, "certificate")
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, b := range blocks {
		switch {
		case b.Type == "CERTIFICATE":
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, &Error{File: path, Line: b.line, Message: "has a certificate that is damaged: " + err.Error(), Cause: err}
			}
			all = append(all, c)
		case b.Type == "TRUSTED CERTIFICATE":
			return nil, &Error{File: path, Line: b.line, Message: "has a certificate in a form of OpenSSL's own: openssl x509 -in FILE writes it as a CERTIFICATE"}
		case !others:
			return nil, &Error{File: path, Line: b.line, Message: fmt.Sprintf("has a PEM block that is not a certificate (%s)", b.Type)}
		}
	}
	if len(all) == 0 {
		return nil, &Error{File: path, Line: blocks[0].line, Message: fmt.Sprintf("has no certificate, but a PEM block %s: are the certificate and the key exchanged?", blocks[0].Type)}
	}
	return all, nil
}

// parseKey returns the public key of the private key in a PEM file.
func parseKey(path string, data []byte) (crypto.PublicKey, error) {
	blocks, err := parsePEM(path, data, "private key")
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		wrong := func(format string, args ...any) error {
			return &Error{File: path, Line: b.line, Message: fmt.Sprintf(format, args...)}
		}
		switch {
		case b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, wrong("has a private key that is protected by a password, which hyok never asks for: openssl pkey -in FILE writes it without")
		case b.Type == "OPENSSH PRIVATE KEY":
			return nil, wrong("has a private key in the form of OpenSSH: ssh-keygen -p -m PEM -f FILE changes that")
		case b.Type != "PRIVATE KEY" && !strings.HasSuffix(b.Type, " PRIVATE KEY"):
			continue // EC PARAMETERS, or a certificate in a file of both
		}
		key, err := parsePrivateKey(b.Bytes)
		if err != nil {
			return nil, wrong("has a private key that is damaged, or of a kind that TLS does not use")
		}
		return key.Public(), nil
	}
	return nil, &Error{File: path, Line: blocks[0].line, Message: fmt.Sprintf("has no private key, but a PEM block %s: are the certificate and the key exchanged?", blocks[0].Type)}
}

// parsePrivateKey parses PKCS #8, PKCS #1 and SEC 1.
func parsePrivateKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParseECPrivateKey(der)
	if err != nil {
		return nil, err
	}
	return key, nil
}

// pemBlock is a block of a PEM file.
type pemBlock struct {
	*pem.Block
	line int // that it begins at, from 1
}

var (
	pemBegin  = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*-----`)
	pemJoined = regexp.MustCompile(`-----END [A-Z0-9 ]*-----[ \t]*-----BEGIN `)
)

// parsePEM returns the blocks of a PEM file, of which there is one at least, and
// nothing of the file is left out in silence. what is what the file should have.
func parsePEM(path string, data []byte, what string) ([]pemBlock, error) {
	wrong := func(at int, format string, args ...any) error {
		e := &Error{File: path, Message: fmt.Sprintf(format, args...)}
		if at >= 0 {
			e.Line = 1 + bytes.Count(data[:at], []byte("\n"))
		}
		return e
	}
	starts := pemBegin.FindAllIndex(data, -1)
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return nil, wrong(-1, "is empty: it should have a %s in PEM form", what)
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return nil, wrong(-1, "begins with a byte order mark: save it as UTF-8 or ASCII without one")
	case len(starts) == 0 && !utf8.Valid(data):
		return nil, wrong(-1, "is binary (DER, or a PKCS #12 store), and must be in PEM form: see 'openssl x509', 'openssl pkey' and 'openssl pkcs12'")
	case len(starts) == 0:
		return nil, wrong(-1, "has no PEM %s: one begins with a line such as -----BEGIN %s-----", what, strings.ToUpper(what))
	}
	if joined := pemJoined.FindIndex(data); joined != nil {
		return nil, wrong(joined[0], "lacks a line break between two PEM blocks, as where files without one at their end were joined")
	}
	if at := bytes.Index(data, []byte(`-----\n`)); at >= 0 {
		return nil, wrong(at, `has the two characters \n where line breaks should be`)
	}
	blocks := make([]pemBlock, 0, len(starts))
	for i, start := range starts {
		end := len(data)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		line := 1 + bytes.Count(data[:start[0]], []byte("\n"))
		b, _ := pem.Decode(data[start[0]:end])
		if b == nil || start[0] > 0 && data[start[0]-1] != '\n' {
			return nil, wrong(start[0], "has a PEM block that cannot be read: a line break is missing before, in or behind it, or its end")
		}
		blocks = append(blocks, pemBlock{b, line})
	}
	return blocks, nil
}
