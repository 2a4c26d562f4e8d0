package config

import (
	"math"
	"slices"
)

// listeners returns the listeners of a front door, which must not have the
// addresses of those that are taken.
func (p *parser) listeners(v value, taken []Listener) []Listener {
	var all []Listener
	items := v.items()
	if v.given() && len(items) == 0 {
		v.fail("must have at least one listener")
	}
	for _, item := range items {
		l := p.listener(item)
		for _, other := range slices.Concat(taken, all) {
			if conflict(l.Address, other.Address) {
				item.fail("must have another address than the listeners before it")
				break
			}
		}
		all = append(all, l)
	}
	return all
}

func (p *parser) listener(v value) Listener {
	m := v.members("address", "tls", "plain_http", "behind_tls_terminator")
	v.required(m("address"))
	l := Listener{
		Address:             m("address").text(validateAddress),
		TLS:                 p.tls(m("tls")),
		BehindTLSTerminator: m("behind_tls_terminator").boolean(),
	}
	plain := m("plain_http").boolean()
	switch {
	case !v.given():
	case plain == m("tls").given():
		v.fail("must have either tls or plain_http: true")
	case l.BehindTLSTerminator && !plain:
		v.fail("may have behind_tls_terminator with plain_http: true alone")
	case plain && l.Address != "" && !isLoopback(l.Address) && !l.BehindTLSTerminator:
		v.fail("must have tls, because its address is not a loopback one; behind_tls_terminator: true permits plain HTTP where another program does TLS")
	}
	return l
}

func (p *parser) tls(v value) *TLS {
	if !v.given() {
		return nil
	}
	m := v.members("certificate", "key", "client_ca", "client_subjects")
	v.required(m("certificate"))
	v.required(m("key"))
	t := &TLS{
		Certificate:    p.path(m("certificate")),
		ClientCA:       p.path(m("client_ca")),
		ClientSubjects: m("client_subjects").texts(1, math.MaxInt, form(subjectForm, "a host name, such as cks.kms.eu-central-1.amazonaws.com")),
	}
	if key := m("key").text(validatePath); isURI(key) {
		t.KeyURI = URI(key)
	} else if key != "" {
		t.KeyFile = p.path(m("key"))
	}
	if m("client_ca").given() != m("client_subjects").given() {
		v.fail("must have client_ca and client_subjects together: whose certificates, and for whom")
	}
	return t
}

func (p *parser) operations(v value, c *Config) {
	if !v.given() {
		return
	}
	m := v.members("address")
	v.required(m("address"))
	c.Operations = m("address").text(validateAddress)
	for _, l := range c.allListeners() {
		if conflict(l.Address, c.Operations) {
			m("address").fail("must have another address than the listeners")
		}
	}
}
