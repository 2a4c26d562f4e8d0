package proxy

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"time"

	"github.com/hyok-kms/hyok/internal/clock"
	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/telemetry"
)

const (
	dateInterval  = time.Hour   // between two looks at dates
	clockInterval = time.Second // between two looks at the clock
	day           = 24 * time.Hour
)

// warnings are how long before a certificate expires a warning is due, longest
// first. The last one is an error: that it has expired.
var warnings = [...]time.Duration{30 * day, 14 * day, 7 * day, day, 0}

// stage returns how many of the warnings are due.
func stage(left time.Duration) int {
	n := 0
	for _, w := range warnings {
		if left <= w {
			n++
		}
	}
	return n
}

// dates warns of certificates that expire and credentials that are old. It belongs
// to the goroutine that has Proxy.mu.
type dates struct {
	log     *slog.Logger
	metrics *telemetry.Metrics
	warned  map[telemetry.Certificate]int // how many warnings there were
	old     map[telemetry.Credential]bool // of which there was a warning
}

func newDates(log *slog.Logger, metrics *telemetry.Metrics) *dates {
	return &dates{log, metrics, map[telemetry.Certificate]int{}, map[telemetry.Credential]bool{}}
}

// look shows the dates of what c has in use, and logs what has come near. Each
// warning is logged once in the life of a certificate, as far as this process
// knows it.
func (d *dates) look(c *config.Config, now time.Time) {
	certificates, credentials := certificatesOf(c), credentialsOf(c)
	d.metrics.SetDates(certificates, credentials)
	for _, cert := range certificates {
		due := stage(cert.Expires.Sub(now))
		if due <= d.warned[cert] {
			continue
		}
		d.warned[cert] = due
		level, message := slog.LevelWarn, "a certificate expires soon: renew it and replace the file, which takes effect at once"
		if due == len(warnings) {
			level, message = slog.LevelError, "a certificate has expired: renew it and replace the file, which takes effect at once"
		}
		d.log.Log(context.Background(), level, message, "use", cert.Use, "file", cert.File, "subject", cert.Subject, "expires", cert.Expires)
	}
	for _, cred := range credentials {
		if age := now.Sub(cred.Created); c.Health.CredentialAge > 0 && age > c.Health.CredentialAge && !d.old[cred] {
			d.old[cred] = true
			d.log.Warn("a credential is old: make another and revoke this one", "owner", cred.Owner, "accessKeyId", cred.AccessKeyID, "created", cred.Created)
		}
	}
}

// certificatesOf reads the files of certificates that c names. The leaf alone of
// a server's chain is listed, unless another certificate of it expires sooner.
func certificatesOf(c *config.Config) []telemetry.Certificate {
	var all []telemetry.Certificate
	for _, l := range allListeners(c) {
		if l.TLS == nil {
			continue
		}
		for i, cert := range readCertificates("server", l.TLS.Certificate) {
			if i == 0 || cert.Expires.Before(all[len(all)-1].Expires) {
				all = append(all, cert)
			}
		}
		all = append(all, readCertificates("client_ca", l.TLS.ClientCA)...)
	}
	if c.KMS != nil {
		all = append(all, readCertificates("proxy_ca", c.KMS.ProxyCA)...)
	}
	return all
}

// readCertificates returns what it can read: whoever uses the file reports errors.
func readCertificates(use, file string) []telemetry.Certificate {
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var all []telemetry.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return all
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			all = append(all, telemetry.Certificate{Use: use, File: file, Subject: cert.Subject.String(), Expires: cert.NotAfter})
		}
	}
}

// credentialsOf lists the credentials of which the files say when they were made.
func credentialsOf(c *config.Config) []telemetry.Credential {
	var all []telemetry.Credential
	add := func(owner, id string, created time.Time) {
		if !created.IsZero() {
			all = append(all, telemetry.Credential{Owner: owner, AccessKeyID: id, Created: created})
		}
	}
	for i := range c.Stores {
		for j := range c.Stores[i].Credentials {
			add(c.Stores[i].Name, c.Stores[i].Credentials[j].AccessKeyID, c.Stores[i].Credentials[j].Created)
		}
	}
	if c.KMS != nil {
		for i := range c.KMS.Identities {
			add("kms", c.KMS.Identities[i].AccessKeyID, c.KMS.Identities[i].Created)
		}
	}
	return all
}

// lookOut looks at dates and the clock until ctx ends.
func (p *Proxy) lookOut(ctx context.Context) {
	hourly, often, watch := time.NewTicker(dateInterval), time.NewTicker(clockInterval), clock.New()
	defer hourly.Stop()
	defer often.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-often.C:
			if jump := watch.Jump(); jump != 0 {
				p.metrics.ClockJumped()
				p.log.Warn("the clock has jumped: signatures more than five minutes off are refused; check this machine's time source",
					"jump", jump.String(), "clock", time.Now().UTC())
				p.lookAtDates()
			}
		case <-hourly.C:
			p.lookAtDates()
		}
	}
}

func (p *Proxy) lookAtDates() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dates.look(p.config, time.Now())
}
