// Package selfsigned makes certificates for a first try, by an authority that is
// forgotten at once.
package selfsigned

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/hyok-kms/hyok/internal/atomicfile"
)

// A certificate lasts this long, and is made anew when less
// than the margin is left.
const (
	certificateLife   = 398 * 24 * time.Hour
	certificateMargin = 30 * 24 * time.Hour
)

// Lasts reports whether the file holds a certificate that is good for a while.
func Lasts(path string, now time.Time) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return err == nil && now.Add(certificateMargin).Before(cert.NotAfter)
}

// Write makes an authority, has it issue one certificate for the
// hosts, and forgets its private key. It writes ca.crt, server.crt and
// server.key into dir.
func Write(dir string, hosts []string, now time.Time) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	ca, server := certificateTemplates(hosts, now)
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, ca, serverKey.Public(), caKey)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	defer clear(keyDER)
	// The certificate comes last: it tells that the others are there.
	for _, file := range []struct {
		name, kind string
		der        []byte
	}{{"server.key", "PRIVATE KEY", keyDER}, {"ca.crt", "CERTIFICATE", caDER}, {"server.crt", "CERTIFICATE", serverDER}} {
		if err := atomicfile.Write(filepath.Join(dir, file.name), pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.der})); err != nil {
			return fmt.Errorf("write %s: %w", file.name, err)
		}
	}
	return nil
}

// TrustStorePassword is that of the trust store: it keeps nothing secret, and is the one
// that Java itself has for its own.
const TrustStorePassword = "changeit"

// WriteTrustStore writes ca.p12 into dir, which Java reads where it would not read
// ca.crt, unless it is there and newer.
func WriteTrustStore(dir string) error {
	from, to := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.p12")
	pemInfo, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the certificate is its owner's
	} else if err != nil {
		return fmt.Errorf("make a trust store: %w", err)
	}
	if info, err := os.Stat(to); err == nil && !info.ModTime().Before(pemInfo.ModTime()) {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("make a trust store: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return fmt.Errorf("make a trust store: %s has no PEM block", from)
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("make a trust store: %s: %w", from, err)
	}
	store, err := pkcs12.Modern.EncodeTrustStore([]*x509.Certificate{ca}, TrustStorePassword)
	if err != nil {
		return fmt.Errorf("make a trust store: %w", err)
	}
	return atomicfile.Write(to, store)
}

func certificateTemplates(hosts []string, now time.Time) (ca, server *x509.Certificate) {
	serial := func() *big.Int {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails
		return new(big.Int).SetBytes(b[:])
	}
	from, until := now.Add(-time.Hour), now.Add(certificateLife)
	ca = &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "hyok quickstart authority"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server = &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: hosts[0]}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	slices.Sort(hosts)
	for _, host := range slices.Compact(hosts) {
		if ip := net.ParseIP(host); ip != nil {
			server.IPAddresses = append(server.IPAddresses, ip)
		} else {
			server.DNSNames = append(server.DNSNames, host)
		}
	}
	return ca, server
}
