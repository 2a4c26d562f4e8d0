// Package telemetry shows operators what the proxy does: Prometheus metrics and
// the probes of load balancers and orchestrators, on a listener of their own.
package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/hyok-kms/hyok/engine/kmsapi"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

// Metrics is what /metrics shows. Its names are documented in docs/operations.md.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	kms      *prometheus.HistogramVec
	reloads  *prometheus.CounterVec
	loadedAt prometheus.Gauge
	jumps    prometheus.Counter
	dates    *dateCollector
}

// NewMetrics returns empty metrics for this version of hyok.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hyok_xks_request_duration_seconds",
			Help: "Time to answer an XKS request, by key store, operation and error name (empty: none).",
			// Fine below AWS KMS's limit of 250 ms.
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .15, .2, .25, .5, 1},
		}, []string{"store", "operation", "error"}),
		kms: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "hyok_kms_request_duration_seconds",
			Help:    "Time to answer a request of the KMS API, by operation and error code (empty: none).",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"operation", "error"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hyok_config_reloads_total",
			Help: "Reloads of the configuration, by result (ok, refused).",
		}, []string{"result"}),
		loadedAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hyok_config_loaded_timestamp_seconds",
			Help: "When the configuration in force was loaded.",
		}),
		jumps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hyok_clock_jumps_total",
			Help: "Times that the wall clock jumped by two seconds or more against the monotonic clock.",
		}),
		dates: newDateCollector(),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "hyok_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.loadedAt.SetToCurrentTime()
	m.registry.MustRegister(m.requests, m.kms, m.reloads, m.loadedAt, m.jumps, m.dates, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Observe counts one request; it is the server's xks.Observer.
func (m *Metrics) Observe(o xks.Observation) {
	m.requests.WithLabelValues(o.Store, o.Operation, string(o.Error)).Observe(o.Duration.Seconds())
}

// ObserveKMS counts one request of the KMS API; it is the handler's observer.
func (m *Metrics) ObserveKMS(o kmsapi.Observation) {
	m.kms.WithLabelValues(o.Operation, o.Code).Observe(o.Duration.Seconds())
}

// Reloaded counts an attempt to reload the configuration.
func (m *Metrics) Reloaded(ok bool) {
	if !ok {
		m.reloads.WithLabelValues("refused").Inc()
		return
	}
	m.reloads.WithLabelValues("ok").Inc()
	m.loadedAt.SetToCurrentTime()
}

// WatchLog adds the number of lines of the log that were lost.
func (m *Metrics) WatchLog(lost func() uint64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "hyok_log_lines_lost_total", Help: "Lines of the log that its output did not take: a full disk, or a reader that is stuck.",
	}, func() float64 { return float64(lost()) }))
}

// ClockJumped counts a jump of the wall clock.
func (m *Metrics) ClockJumped() { m.jumps.Inc() }

// Watch adds the figures of the tokens that are open when somebody looks, that
// others are missing, and the number of requests in flight.
func (m *Metrics) Watch(tokens func() []*keystore.Token, missing func() []string, inFlight func() int) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "hyok_xks_requests_in_flight", Help: "XKS requests that are worked on.",
		}, func() float64 { return float64(inFlight()) }),
		newTokenCollector(tokens, missing))
}

// WatchKMS adds the figures of the embedded KMS's key material when somebody
// looks, whether its database refuses changes, and whether it holds back what is
// due by date.
func (m *Metrics) WatchKMS(stats func() keystore.VaultStats, broken, holdsBack func() bool) {
	gauge := func(name, help string, value func(keystore.VaultStats) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(stats()) }))
	}
	counter := func(name, help string, value func(keystore.VaultStats) uint64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value(stats())) }))
	}
	flag := func(name, help string, is func() bool) {
		gauge(name, help, func(keystore.VaultStats) float64 {
			if is() {
				return 1
			}
			return 0
		})
	}
	flag("hyok_kms_database_broken", "1 while the database refuses changes until a restart, else 0.", broken)
	flag("hyok_kms_schedule_held_back", "1 while nothing is deleted or rotated by date, because the clock has not gone steadily for an hour, else 0.", holdsBack)
	gauge("hyok_kms_keys_cached", "Wrapped keys that are kept unwrapped in the token.", func(s keystore.VaultStats) float64 { return float64(s.Cached) })
	gauge("hyok_kms_kill_switch_seconds", "Longest time that wrapped keys were ever used without the root key being looked at: the measured delay of the kill switch.",
		func(s keystore.VaultStats) float64 { return s.RootAge.Seconds() })
	counter("hyok_kms_cache_hits_total", "Uses of a wrapped key that was unwrapped already.", func(s keystore.VaultStats) uint64 { return s.Hits })
	counter("hyok_kms_unwraps_total", "Keys unwrapped in the token because a use found them wrapped.", func(s keystore.VaultStats) uint64 { return s.Unwraps })
	counter("hyok_kms_evictions_total", "Unwrapped keys that made room for others.", func(s keystore.VaultStats) uint64 { return s.Evictions })
}
