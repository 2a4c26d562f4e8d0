package config

import (
	"cmp"
	"errors"
	"time"

	"github.com/hyok-kms/hyok/internal/egress"
)

// KMS is the embedded KMS.
type KMS struct {
	Token          string // name of the token with the root key and what cannot be wrapped
	Data           string // path of the folder of its database, which may not be there yet
	Vault          string // part of the root key's name in the token: 1 to 32 of a-z, 0-9 and '-'
	IdentitiesFile string
	Identities     []Identity
	Listeners      []Listener
	Clusters       []Cluster     // in the order of the file
	ProxyCA        string        // path of PEM certificates trusted in XKS proxies beside the system's; may be empty
	ProxyAllow     []string      // where XKS proxies may be, as package egress takes it
	Cache          int           // unwrapped keys that are kept in the token
	Deadline       time.Duration // for one request
	Generation     time.Duration // for one request that needs an RSA pair to be generated; not less
	MaxInFlight    int           // requests
	ManagedKeys    bool          // AWS managed keys are made when their aliases are described
}

// Cluster is a token that CreateCustomKeyStore finds as an AWS CloudHSM cluster.
type Cluster struct {
	ID          string // matches cluster-[2-7a-zA-Z]{11,16}
	Token       string // name; no two clusters have the same
	TrustAnchor string // path of the PEM certificate that its users must name; empty for any
}

// The bounds of kms.deadline. A front door takes 10 seconds at most to read a
// request and to write its answer.
const (
	minKMSDeadline = 100 * time.Millisecond
	maxKMSDeadline = 8 * time.Second
)

// The bounds of kms.generation_deadline, whose requests have a time of their own for
// the answer.
const (
	minGenerationDeadline = time.Second
	maxGenerationDeadline = 10 * time.Minute
)

// kms returns nil where the embedded KMS is not configured. Tokens and the other
// listeners of c are there already.
func (p *parser) kms(v value, c *Config) *KMS {
	if !v.given() {
		return nil
	}
	m := v.members("token", "data", "vault", "identities", "listeners", "cloudhsm_clusters", "xks_proxies", "cache", "deadline", "generation_deadline",
		"max_in_flight", "aws_managed_keys")
	for _, name := range []string{"token", "identities", "listeners"} {
		v.required(m(name))
	}
	proxies := m("xks_proxies").members("ca", "allow")
	if !proxies("allow").given() {
		m("xks_proxies").required(proxies("ca"))
	}
	k := &KMS{
		Token:          m("token").text(c.checkToken),
		Data:           p.absolute(cmp.Or(m("data").text(validateFolder), "kms")),
		Vault:          cmp.Or(m("vault").text(form(vaultForm, "a name: 1 to 32 of a-z, 0-9 and '-'")), "default"),
		IdentitiesFile: p.identitiesFile(m("identities"), c),
		Listeners:      p.listeners(m("listeners"), c.Listeners),
		Clusters:       p.clusters(m("cloudhsm_clusters"), c),
		ProxyCA:        p.path(proxies("ca")),
		ProxyAllow:     proxyAllow(proxies("allow")),
		Cache:          m("cache").integer(16, 65536, 4096),
		Deadline:       m("deadline").duration(minKMSDeadline, maxKMSDeadline, 5*time.Second),
		Generation:     m("generation_deadline").duration(minGenerationDeadline, maxGenerationDeadline, 50*time.Second),
		MaxInFlight:    m("max_in_flight").integer(1, 65536, 512),
		ManagedKeys:    m("aws_managed_keys").text(checkManagedKeys) == onDemand,
	}
	if k.Generation < k.Deadline {
		m("generation_deadline").fail("must not be less than deadline")
	}
	return k
}

const onDemand = "on-demand" // of kms.aws_managed_keys

func checkManagedKeys(s string) error {
	if s != onDemand && s != "off" {
		return errors.New("must be off or " + onDemand)
	}
	return nil
}

func (p *parser) identitiesFile(v value, c *Config) string {
	file := p.path(v)
	for i := range c.Stores {
		if file != "" && file == c.Stores[i].CredentialsFile {
			v.fail("must be another file than the credentials of the store %s", c.Stores[i].Name)
		}
	}
	return file
}

func (p *parser) clusters(v value, c *Config) []Cluster {
	var all []Cluster
	for _, e := range v.entries() {
		cluster := p.cluster(e, c)
		for _, other := range all {
			// As of AWS's clusters, one key store at a time may stand on a token.
			if other.ID != "" && cluster.Token != "" && cluster.Token == other.Token {
				e.fail("must have another token than %s", other.ID)
			}
		}
		all = append(all, cluster)
	}
	return all
}

func (p *parser) cluster(e entry, c *Config) Cluster {
	id := e.key.node.Value
	if !clusterForm.MatchString(id) {
		e.key.fail("must be a cluster id: cluster- and 11 to 16 of a-z, A-Z and 2-7")
		id = ""
	}
	m := e.members("token", "trust_anchor")
	e.required(m("token"))
	return Cluster{ID: id, Token: m("token").text(c.checkToken), TrustAnchor: p.path(m("trust_anchor"))}
}

// proxyAllow returns where XKS proxies may be. What `hyok init` sets up beside the
// KMS is in its configuration; of itself the KMS calls nobody in its own network.
func proxyAllow(v value) []string {
	if !v.given() {
		return []string{egress.Public}
	}
	return v.texts(1, 1000, egress.Check)
}
