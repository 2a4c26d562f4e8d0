package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hyok-kms/hyok/keystore"
)

// tokenCollector reads the tokens' figures when somebody looks.
type tokenCollector struct {
	tokens  func() []*keystore.Token
	missing func() []string // names of those that could not be opened yet
	figures []tokenFigure
	health  *prometheus.Desc
}

// tokenFigure is one metric of a token.
type tokenFigure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(keystore.Stats, keystore.Health) float64
}

func newTokenCollector(tokens func() []*keystore.Token, missing func() []string) *tokenCollector {
	c := &tokenCollector{
		tokens: tokens, missing: missing,
		health: prometheus.NewDesc("hyok_token_health", "1 for the state that the newest probe found, else 0.", []string{"token", "state"}, nil),
	}
	gauge := func(name, help string, value func(keystore.Stats, keystore.Health) float64) {
		c.figures = append(c.figures, tokenFigure{prometheus.NewDesc(name, help, []string{"token"}, nil), prometheus.GaugeValue, value})
	}
	counter := func(name, help string, value func(keystore.Stats, keystore.Health) float64) {
		c.figures = append(c.figures, tokenFigure{prometheus.NewDesc(name, help, []string{"token"}, nil), prometheus.CounterValue, value})
	}
	gauge("hyok_token_sessions", "Open pooled PKCS#11 sessions.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.Sessions) })
	gauge("hyok_token_sessions_limit", "Most pooled PKCS#11 sessions.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.SessionLimit) })
	gauge("hyok_token_sessions_busy", "Sessions in a call.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.Busy) })
	gauge("hyok_token_calls_stuck", "Calls that hang in the module after their request was answered.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.Stuck) })
	gauge("hyok_token_keys", "External key ids in the index.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.Keys) })
	gauge("hyok_token_key_copies", "Session copies of hot keys.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.Copies) })
	gauge("hyok_token_kill_switch_seconds", "Longest time a session copy ever went without its key being looked at: the measured delay of the kill switch.",
		func(s keystore.Stats, _ keystore.Health) float64 { return s.CopyAge.Seconds() })
	counter("hyok_token_calls_total", "Whole operations done in the token.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.Calls) })
	counter("hyok_token_failures_total", "Operations that failed by the token's fault.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.Failures) })
	counter("hyok_token_trips_total", "Times that the token was put out of service, since it failed or hung.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.Trips) })
	counter("hyok_token_module_resets_total", "Times that the token's module was initialized again, or its process started anew.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.Resets) })
	gauge("hyok_token_objects_unread", "Objects that the last searches found and could not read, and passed over.", func(s keystore.Stats, _ keystore.Health) float64 { return float64(s.Unread) })
	gauge("hyok_token_probe_seconds", "Time that the newest health probe took.", func(_ keystore.Stats, h keystore.Health) float64 { return h.Latency.Seconds() })
	gauge("hyok_token_probe_age_seconds", "Time since the newest health probe began.", func(_ keystore.Stats, h keystore.Health) float64 {
		if h.Checked.IsZero() {
			return -1
		}
		return time.Since(h.Checked).Seconds()
	})
	return c
}

// Describe implements prometheus.Collector.
func (c *tokenCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.health
	for _, f := range c.figures {
		descs <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *tokenCollector) Collect(metrics chan<- prometheus.Metric) {
	for _, t := range c.tokens() {
		stats, health := t.Stats(), t.Health()
		for _, f := range c.figures {
			metrics <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(stats, health), t.Name())
		}
		c.collectHealth(metrics, t.Name(), health.State)
	}
	for _, name := range c.missing() { // after those that are open: one may come just now
		c.collectHealth(metrics, name, keystore.Unavailable)
	}
}

func (c *tokenCollector) collectHealth(metrics chan<- prometheus.Metric, token string, is keystore.HealthState) {
	for _, state := range []keystore.HealthState{keystore.Active, keystore.Degraded, keystore.Unavailable} {
		value := 0.0
		if state == is {
			value = 1
		}
		metrics <- prometheus.MustNewConstMetric(c.health, prometheus.GaugeValue, value, token, state.String())
	}
}
