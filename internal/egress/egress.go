// Package egress bounds where this process connects to on behalf of its callers,
// who may name any host. It looks at the address that a connection is about to be
// made to, so that no name server can lead it elsewhere, and before the connection
// is made, so that open and closed ports of a forbidden host look the same.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// Public stands for all addresses of the public Internet: none that is loopback,
// link-local, private, or otherwise reserved.
const Public = "public"

// ErrForbidden is of an address that is not allowed.
var ErrForbidden = errors.New("connecting to this address is not allowed (kms.xks_proxies.allow)")

// Allowed is a list of destinations. It never changes.
type Allowed struct {
	public   bool
	names    []string // in lower case
	networks []netip.Prefix
}

// Parse returns what a list allows: the word public, names of hosts, which may have
// whatever address, and addresses or networks such as 10.1.0.0/16.
func Parse(list []string) (*Allowed, error) {
	a := new(Allowed)
	for _, s := range list {
		if err := a.add(s); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// PublicOnly returns what Parse returns for public.
func PublicOnly() *Allowed { return &Allowed{public: true} }

// Check reports whether s is a destination that Parse takes.
func Check(s string) error { return new(Allowed).add(s) }

var nameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\.?$`)

func (a *Allowed) add(s string) error {
	if s == Public {
		a.public = true
		return nil
	}
	if network, err := netip.ParsePrefix(s); err == nil {
		if network != network.Masked() {
			return fmt.Errorf("%s is no network: did you mean %s?", s, network.Masked())
		}
		a.networks = append(a.networks, network)
		return nil
	}
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		a.networks = append(a.networks, netip.PrefixFrom(ip, ip.BitLen()))
		return nil
	}
	// What ends in a number is an address (RFC 1123, section 2.1), and a wrong one.
	last := s[strings.LastIndexByte(strings.TrimSuffix(s, "."), '.')+1:]
	if len(s) > 253 || !nameForm.MatchString(s) || strings.Trim(last, "0123456789.") == "" {
		return errors.New("must be the word public, the name of a host, an address, or a network such as 10.1.0.0/16")
	}
	a.names = append(a.names, plainName(s))
	return nil
}

func plainName(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// Dialer returns a DialContext that connects as d does, where that is allowed. The
// error is ErrForbidden within a *net.OpError otherwise.
func (a *Allowed) Dialer(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	bounded := *d
	bounded.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error { return a.checkAddress(address) }
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, _, err := net.SplitHostPort(address); err == nil && slices.Contains(a.names, plainName(host)) {
			return d.DialContext(ctx, network, address)
		}
		return bounded.DialContext(ctx, network, address)
	}
}

// checkAddress reports whether an address, with a port, is not allowed.
func (a *Allowed) checkAddress(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	ip := to.Addr().Unmap().WithZone("")
	if a.public && isPublic(ip) || slices.ContainsFunc(a.networks, func(n netip.Prefix) bool { return n.Contains(ip) }) {
		return nil
	}
	return fmt.Errorf("%w: %v", ErrForbidden, ip)
}

// isPublic reports whether an address may be one of a host on the Internet (RFC
// 6890). Addresses that stand for others, of IPv4 in IPv6, count as those do.
func isPublic(ip netip.Addr) bool {
	if inner, ok := embedded(ip); ok {
		return isPublic(inner)
	}
	return ip.IsGlobalUnicast() && !ip.IsPrivate() &&
		!slices.ContainsFunc(reserved(), func(n netip.Prefix) bool { return n.Contains(ip) })
}

// reserved returns the networks for special purposes that package netip does not
// know as such.
func reserved() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range []string{
		"168.63.129.16/32", // no special purpose by RFC: Azure answers a virtual machine there, as others do at link-local ones
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "fec0::/10",
	} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// embedded returns the IPv4 address that an IPv6 one stands for in NAT64 (RFC 6052)
// and 6to4 (RFC 3056).
func embedded(ip netip.Addr) (inner netip.Addr, ok bool) {
	if !ip.Is6() {
		return inner, false
	}
	b := ip.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(ip):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case netip.MustParsePrefix("2002::/16").Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return inner, false
}
