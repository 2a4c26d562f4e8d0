package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hyok-kms/hyok/xks"
)

// listenerCollector reads the figures of listeners when somebody looks.
type listenerCollector struct {
	listeners []*xks.Listener
	figures   []listenerFigure
}

// listenerFigure is one metric of a listener.
type listenerFigure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(xks.ConnectionStats) float64
}

// WatchListeners adds the figures of listeners, by the address that they accept
// connections on.
func (m *Metrics) WatchListeners(listeners []*xks.Listener) {
	c := &listenerCollector{listeners: listeners}
	figure := func(kind prometheus.ValueType, name, help string, value func(xks.ConnectionStats) float64) {
		c.figures = append(c.figures, listenerFigure{prometheus.NewDesc(name, help, []string{"listener"}, nil), kind, value})
	}
	figure(prometheus.GaugeValue, "hyok_connections_open", "Open connections.",
		func(s xks.ConnectionStats) float64 { return float64(s.Open) })
	figure(prometheus.GaugeValue, "hyok_connections_limit", "Most open connections.",
		func(s xks.ConnectionStats) float64 { return float64(s.Limit) })
	figure(prometheus.CounterValue, "hyok_connections_refused_total", "Connections closed as soon as they were accepted, since all others were in use.",
		func(s xks.ConnectionStats) float64 { return float64(s.Refused) })
	figure(prometheus.CounterValue, "hyok_connections_given_up_total", "Connections on which no request was worked on, closed to make room for others.",
		func(s xks.ConnectionStats) float64 { return float64(s.GivenUp) })
	figure(prometheus.CounterValue, "hyok_tls_handshake_failures_total", "TLS handshakes that failed, but for peers that went before they said anything.",
		func(s xks.ConnectionStats) float64 { return float64(s.HandshakeFailures) })
	m.registry.MustRegister(c)
}

// Describe implements prometheus.Collector.
func (c *listenerCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		descs <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *listenerCollector) Collect(metrics chan<- prometheus.Metric) {
	for _, l := range c.listeners {
		stats, address := l.Connections(), l.Addr().String()
		for _, f := range c.figures {
			metrics <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(stats), address)
		}
	}
}
