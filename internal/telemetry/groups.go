package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hyok-kms/hyok/keystore/group"
)

// groupCollector reads the figures of key stores with several tokens when somebody
// looks.
type groupCollector struct {
	stats   func() map[string]group.Stats
	figures []groupFigure
}

// groupFigure is one metric of a group.
type groupFigure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(group.Stats) float64
}

// WatchGroups adds the figures of the key stores with several tokens, by the name
// of the store, when somebody looks.
func (m *Metrics) WatchGroups(stats func() map[string]group.Stats) {
	c := &groupCollector{stats: stats}
	add := func(kind prometheus.ValueType, name, help string, value func(group.Stats) float64) {
		c.figures = append(c.figures, groupFigure{prometheus.NewDesc(name, help, []string{"store"}, nil), kind, value})
	}
	add(prometheus.GaugeValue, "hyok_group_tokens", "Tokens of the key store.", func(s group.Stats) float64 { return float64(s.Members) })
	add(prometheus.GaugeValue, "hyok_group_tokens_usable", "Of these: available and not in quarantine.", func(s group.Stats) float64 { return float64(s.Usable) })
	add(prometheus.GaugeValue, "hyok_group_tokens_quarantined", "Tokens that have another key than the rest and are not used.", func(s group.Stats) float64 { return float64(s.Quarantined) })
	add(prometheus.GaugeValue, "hyok_group_tokens_passed_over", "Tokens that fail or hang and get no request while there is another.", func(s group.Stats) float64 { return float64(s.PassedOver) })
	add(prometheus.GaugeValue, "hyok_group_kill_switch_seconds", "Longest time that a key was ever used without each token that can be asked being asked: the measured delay of the kill switch.",
		func(s group.Stats) float64 { return s.LookAge.Seconds() })
	add(prometheus.CounterValue, "hyok_group_failovers_total", "Operations given to another token after one failed.", func(s group.Stats) float64 { return float64(s.Failovers) })
	add(prometheus.CounterValue, "hyok_group_hedges_total", "Operations given to another token as well because one did not answer.", func(s group.Stats) float64 { return float64(s.Hedges) })
	add(prometheus.CounterValue, "hyok_group_hedges_refused_total", "The same, not done because the budget was spent.", func(s group.Stats) float64 { return float64(s.HedgesRefused) })
	add(prometheus.CounterValue, "hyok_group_proofs_failed_total", "Times that a token had another key than the rest.", func(s group.Stats) float64 { return float64(s.ProofsFailed) })
	add(prometheus.CounterValue, "hyok_group_answers_unwritten_total", "Failed attempts to write the known answers of the keys.", func(s group.Stats) float64 { return float64(s.Unwritten) })
	m.registry.MustRegister(c)
}

// Describe implements prometheus.Collector.
func (c *groupCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		descs <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *groupCollector) Collect(metrics chan<- prometheus.Metric) {
	for store, stats := range c.stats() {
		for _, f := range c.figures {
			metrics <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(stats), store)
		}
	}
}
