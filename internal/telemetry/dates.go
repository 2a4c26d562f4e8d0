package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Certificate is one that will expire.
type Certificate struct {
	Use     string // server, client_ca or proxy_ca
	File    string
	Subject string
	Expires time.Time
}

// Credential is what somebody signs requests with.
type Credential struct {
	Owner       string // the key store, or kms
	AccessKeyID string
	Created     time.Time
}

// dateCollector shows the dates that were set last.
type dateCollector struct {
	expires, created *prometheus.Desc

	mu           sync.Mutex
	certificates []Certificate // guarded by mu
	credentials  []Credential  // guarded by mu
}

func newDateCollector() *dateCollector {
	return &dateCollector{
		expires: prometheus.NewDesc("hyok_certificate_expiry_timestamp_seconds", "When a certificate in use expires.", []string{"use", "file", "subject"}, nil),
		created: prometheus.NewDesc("hyok_credential_created_timestamp_seconds", "When a credential in force was made.", []string{"owner", "access_key_id"}, nil),
	}
}

// SetDates shows these certificates and credentials in the place of others. Of
// those that look alike the first is shown.
func (m *Metrics) SetDates(certificates []Certificate, credentials []Credential) {
	m.dates.mu.Lock()
	defer m.dates.mu.Unlock()
	m.dates.certificates, m.dates.credentials = certificates, credentials
}

// Describe implements prometheus.Collector.
func (c *dateCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.expires
	descs <- c.created
}

// Collect implements prometheus.Collector.
func (c *dateCollector) Collect(metrics chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[[3]string]bool{}
	show := func(desc *prometheus.Desc, at time.Time, labels ...string) {
		var id [3]string
		copy(id[:], labels)
		if !seen[id] {
			seen[id] = true
			metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(at.Unix()), labels...)
		}
	}
	for _, cert := range c.certificates {
		show(c.expires, cert.Expires, cert.Use, cert.File, cert.Subject)
	}
	for _, cred := range c.credentials {
		show(c.created, cred.Created, cred.Owner, cred.AccessKeyID)
	}
}
