package xks

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Store is one external key store, in the terms of AWS KMS: a URI path prefix
// with the keys and the credentials behind it.
type Store struct {
	Name   string // in logs and metrics
	Prefix string // "" or "/a/b": at most MaxPrefix characters of a-z, A-Z, 0-9, '/', '-', '_'
	Keys   Keys
	// Allow reports whether the external key id belongs to the store. It is
	// called by many goroutines at once.
	Allow       func(id string) bool
	Credentials []Credential // all valid at once; access key ids are unique over all stores
	Regions     []string     // allowed in the credential scope; none: any
	// Limiter bounds the authenticated requests of the store; nil: no bound.
	// Handing the same one to [Server.Reload] keeps its bucket.
	Limiter *rate.Limiter
	// SampleMetadata is the ciphertextMetadata that an AWS sample proxy was
	// configured with when it served these keys; empty if it had none.
	SampleMetadata []byte
	EKMVendor      string // of the tokens, for GetHealthStatus; default "PKCS#11"
}

// MaxPrefix is the most characters that a prefix may have, so that an
// XksProxyUriPath keeps within its 128.
const MaxPrefix = 128 - len(APIPath)

// Config is what a [Server] serves, and how.
type Config struct {
	Stores []Store
	// Deadline bounds the work on a request once its body is here. Default
	// 200 ms, because AWS KMS gives up 250 ms after it began to send.
	Deadline time.Duration
	// MaxInFlight bounds the requests that are worked on at once; one more is
	// refused with ThrottlingException. Default 256.
	MaxInFlight   int
	LogCiphertext bool   // log ciphertext, IV, tag and ciphertext metadata
	FleetSize     int    // proxies that serve the stores, for GetHealthStatus; default 1
	ProxyVendor   string // for GetHealthStatus; default "hyok"
	ProxyModel    string // for GetHealthStatus: product and version; default "hyok XKS proxy"
}

const (
	defaultDeadline    = 200 * time.Millisecond
	defaultMaxInFlight = 256
)

func (c *Config) setDefaults() {
	if c.Deadline == 0 {
		c.Deadline = defaultDeadline
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = defaultMaxInFlight
	}
	if c.FleetSize == 0 {
		c.FleetSize = 1
	}
	if c.ProxyVendor == "" {
		c.ProxyVendor = "hyok"
	}
	if c.ProxyModel == "" {
		c.ProxyModel = "hyok XKS proxy"
	}
}

// Validate reports everything that would keep a [Server] from serving the
// configuration.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Stores) == 0 {
		errs = append(errs, errors.New("no key store: configure at least one"))
	}
	if c.Deadline < 0 || c.MaxInFlight < 0 || c.FleetSize < 0 {
		errs = append(errs, errors.New("deadline, requests in flight and fleet size cannot be negative"))
	}
	names, prefixes, ids := map[string]bool{}, map[string]string{}, map[string]string{}
	for i := range c.Stores {
		s := &c.Stores[i]
		if s.Name == "" || names[s.Name] {
			errs = append(errs, fmt.Errorf("key store %q: every key store needs a name of its own", s.Name))
		}
		names[s.Name] = true
		if other, taken := prefixes[s.Prefix]; taken {
			errs = append(errs, fmt.Errorf("key store %q: prefix %q is that of key store %q", s.Name, s.Prefix, other))
		}
		prefixes[s.Prefix] = s.Name
		for _, cred := range s.Credentials {
			if other, taken := ids[cred.AccessKeyID]; taken {
				errs = append(errs, fmt.Errorf("key store %q: access key id %s is already one of key store %q: create another credential",
					s.Name, cred.AccessKeyID, other))
			}
			ids[cred.AccessKeyID] = s.Name
		}
		if err := s.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("key store %q: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Validate reports everything that is wrong with the store by itself.
func (s *Store) Validate() error {
	errs := []error{ValidatePrefix(s.Prefix), validateSampleMetadata(s.SampleMetadata)}
	if s.Keys == nil || s.Allow == nil {
		errs = append(errs, errors.New("no keys: name those that belong to the store"))
	}
	if len(s.Credentials) == 0 {
		errs = append(errs, errors.New("no credential: create at least one"))
	}
	for _, cred := range s.Credentials {
		errs = append(errs, cred.Validate())
	}
	for _, region := range s.Regions {
		if region == "" {
			errs = append(errs, errors.New("empty Region: leave the list out to allow any"))
		}
	}
	return errors.Join(errs...)
}

// ValidatePrefix reports whether AWS KMS accepts an XksProxyUriPath that begins
// with prefix.
func ValidatePrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if len(prefix) > MaxPrefix {
		return fmt.Errorf("prefix has %d characters: it may have %d", len(prefix), MaxPrefix)
	}
	if prefix[0] != '/' || strings.HasSuffix(prefix, "/") || strings.Contains(prefix, "//") {
		return fmt.Errorf("prefix %q must begin with a slash, and have none at its end nor two in a row", prefix)
	}
	for _, ch := range []byte(prefix) {
		if !isAlphanumeric(ch) && ch != '/' && ch != '-' && ch != '_' {
			return fmt.Errorf("prefix %q has a character outside a-z, A-Z, 0-9, '/', '-', '_'", prefix)
		}
	}
	return nil
}
