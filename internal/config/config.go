package config

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

// FileName is the name of the configuration file in a data folder.
const FileName = "hyok.yaml"

// Config is a whole configuration: defaults filled in, paths absolute,
// credentials read. It is not changed after Load and so safe for concurrent use.
type Config struct {
	Path         string // of the configuration file, absolute
	SoftHSM2Conf string // path, empty where not given
	Tokens       []Token
	Stores       []Store
	Listeners    []Listener // of the XKS proxy; none where KMS alone is served
	KMS          *KMS       // nil where it is not served
	Operations   string     // address of the operators' listener, empty for none
	Limits       Limits
	Health       Health
	Log          Log
	// Warnings are what is probably not meant, each an *Error; Load alone looks for it.
	Warnings []error

	seen snapshot // the files as they were just before Load read them
}

// Token is a PKCS#11 token that keys live in.
type Token struct {
	Name          string
	URI           URI // RFC 7512; relative paths in it start at Config.Dir
	Profile       string
	Sessions      int
	AllowPINValue bool
	Isolated      bool // the module is loaded into a process of its own
	// ModuleParameters is the text for the reserved argument of C_Initialize.
	ModuleParameters string
}

// Store is a key store of the XKS proxy.
type Store struct {
	Name            string
	Prefix          string   // precedes xks.APIPath, may be empty
	Tokens          []string // 1 to 10 names
	Keys            []string // external key ids; nil where KeyPattern is set
	KeyPattern      string   // of path.Match; empty where Keys is set
	CredentialsFile string
	Credentials     []Credential
	Regions         []string   // nil permits all
	RateLimit       *RateLimit // nil is no limit
	SampleMetadata  []byte     // at most xks.MaxMetadataSize bytes, nil for none
}

// Credential is one of the credentials of a store. Printing it shows the access
// key id alone, as with [xks.Credential].
type Credential struct {
	xks.Credential
	Created time.Time // UTC; zero where the file does not say
}

// RateLimit bounds the requests to a store by a token bucket.
type RateLimit struct {
	PerSecond int
	Burst     int
}

// Listener is an address at which the XKS proxy or the embedded KMS is served:
// with TLS, or as plain HTTP where TLS is nil.
type Listener struct {
	Address             string // host:port, the port 0 for any free one
	TLS                 *TLS
	BehindTLSTerminator bool // plain HTTP on an address that is not loopback is intended
}

// TLS is what a listener proves and asks of its clients. Exactly one of KeyFile
// and KeyURI is set.
type TLS struct {
	Certificate    string // path of a PEM chain, leaf first
	KeyFile        string // path of a PEM private key
	KeyURI         URI    // of a private key in a token
	ClientCA       string // path of PEM certificates; empty asks for no client certificate
	ClientSubjects []string
}

// Limits bounds the work of the XKS proxy, and the connections to every listener.
type Limits struct {
	Deadline    time.Duration // for one request
	MaxInFlight int
	Connections int           // to each listener, those of the KMS included; 0: as many as the process has file descriptors for
	Drain       time.Duration // for requests under way when the process ends
}

// Health says how often the tokens are probed, and what else is to be warned of.
type Health struct {
	Interval      time.Duration
	CredentialAge time.Duration // from which credentials and identities are called old; 0: never
}

// Log says what is logged.
type Log struct {
	Level      slog.Level
	Ciphertext bool
}

// URI is a PKCS#11 URI. Its String, GoString and LogValue forms leave out the
// PIN that it may hold; string(u) has it.
type URI string

// Dir returns the folder that relative paths start at.
func (c *Config) Dir() string { return filepath.Dir(c.Path) }

// Store returns the store of this name, or nil.
func (c *Config) Store(name string) *Store {
	i := slices.IndexFunc(c.Stores, func(s Store) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Stores[i]
}

// Token returns the token of this name, or nil.
func (c *Config) Token(name string) *Token {
	i := slices.IndexFunc(c.Tokens, func(t Token) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Tokens[i]
}

// allListeners returns those of the XKS proxy and those of the embedded KMS.
func (c *Config) allListeners() []Listener {
	if c.KMS == nil {
		return c.Listeners
	}
	return slices.Concat(c.Listeners, c.KMS.Listeners)
}

// URIPath returns the XksProxyUriPath of the store.
func (s *Store) URIPath() string { return s.Prefix + xks.APIPath }

// String returns the URI without the value of its pin-value attribute.
func (u URI) String() string {
	const name = "pin-value="
	s := string(u)
	i := strings.Index(strings.ToLower(s), name)
	if i < 0 {
		return s
	}
	// Everything after it goes: what ends the value is for the parser to say.
	return s[:i+len(name)] + "(left out)"
}

// GoString returns what String does.
func (u URI) GoString() string { return u.String() }

// LogValue returns what String does.
func (u URI) LogValue() slog.Value { return slog.StringValue(u.String()) }
