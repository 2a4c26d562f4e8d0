package config

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// year is how old a credential may be before a warning, unless configured.
const year = 365 * 24 * time.Hour

var syntaxErrorLine = regexp.MustCompile(`^yaml: line (\d+): `)

// parser turns the text of the file at an absolute path into a Config. It reads
// no other file.
type parser struct {
	decoder
	dir      string
	profiles []string // permitted, or nil for any
}

// parse returns what it understood of the file, for whoever wants to know which
// files it names, with all errors.
func parse(path string, data []byte, profiles []string) (*Config, []error) {
	p := &parser{decoder: decoder{file: path}, dir: filepath.Dir(path), profiles: profiles}
	c := &Config{Path: path}
	doc, err := parseDocument(path, data)
	if err != nil {
		return c, []error{err}
	}
	p.config(value{d: &p.decoder, node: doc.Content[0]}, c)
	slices.SortStableFunc(p.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var errs []error
	for _, e := range p.errs {
		errs = append(errs, e)
	}
	return c, errs
}

// parseDocument returns the one document of data.
func parseDocument(path string, data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, &Error{File: path, Message: "is empty: it must at least have version: 1 and listeners or kms"}
	} else if err != nil {
		return nil, syntaxError(path, err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, &Error{File: path, Line: more.Line, Message: "must be one YAML document: remove what follows the second ---"}
	}
	return &doc, nil
}

// syntaxError keeps the place and the text of a syntax error, except of the one
// that quotes the file.
func syntaxError(path string, err error) error {
	e := &Error{File: path, Message: "is not valid YAML"}
	text := err.Error()
	if m := syntaxErrorLine.FindStringSubmatch(text); m != nil {
		e.Line, _ = strconv.Atoi(m[1]) // 0 where it is too long for a line number
		text = text[len(m[0]):]
	}
	if !strings.Contains(text, "anchor") {
		e.Message += ": " + strings.TrimPrefix(text, "yaml: ")
	}
	return e
}

func (p *parser) config(v value, c *Config) {
	m := v.members("version", "softhsm2_conf", "tokens", "stores", "listeners", "kms", "operations", "limits", "health", "log")
	v.required(m("version"))
	m("version").integer(1, 1, 1)
	c.SoftHSM2Conf = p.path(m("softhsm2_conf"))
	for _, e := range m("tokens").entries() {
		c.Tokens = append(c.Tokens, p.token(e))
	}
	for _, e := range m("stores").entries() {
		c.Stores = append(c.Stores, p.store(e, c))
	}
	c.Listeners = p.listeners(m("listeners"), nil)
	c.KMS = p.kms(m("kms"), c)
	switch {
	case m("listeners").given() || !v.given():
	case !m("kms").given():
		v.fail("must have listeners, at which the key stores are served, or kms: there is nothing to serve")
	case len(c.Stores) > 0:
		m("stores").fail("must have listeners beside it, at which they are served")
	}
	p.operations(m("operations"), c)
	p.rest(m, c)
}

func (p *parser) rest(m func(string) value, c *Config) {
	limits := m("limits").members("deadline", "max_in_flight", "connections", "drain")
	c.Limits = Limits{
		Deadline:    limits("deadline").duration(10*time.Millisecond, 10*time.Second, 200*time.Millisecond),
		MaxInFlight: limits("max_in_flight").integer(1, 65536, 512),
		Connections: limits("connections").integer(1, 1<<20, 0),
		Drain:       limits("drain").duration(0, 10*time.Minute, 10*time.Second),
	}
	health := m("health").members("interval", "credential_age")
	c.Health.Interval = health("interval").duration(time.Second, time.Minute, 10*time.Second)
	c.Health.CredentialAge = health("credential_age").duration(0, 10*year, year)
	log := m("log").members("level", "ciphertext")
	c.Log.Ciphertext = log("ciphertext").boolean()
	log("level").text(func(s string) error {
		levels := map[string]slog.Level{
			"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
		}
		level, ok := levels[s]
		if !ok {
			return errors.New("must be debug, info, warn or error")
		}
		c.Log.Level = level
		return nil
	})
}

func (p *parser) token(e entry) Token {
	if err := ValidateName(e.key.node.Value); err != nil {
		e.key.fail("%s", err)
	}
	m := e.members("uri", "profile", "sessions", "allow_pin_value", "isolation", "module_parameters")
	e.required(m("uri"))
	t := Token{
		Name:          e.key.node.Value,
		URI:           URI(m("uri").text(validateURI)),
		Profile:       "softhsm2",
		Sessions:      m("sessions").integer(1, 1024, 0),
		AllowPINValue: m("allow_pin_value").boolean(),
	}
	if isolation := m("isolation"); isolation.given() {
		isolation.text(func(s string) error {
			t.Isolated = s == "process"
			if s != "process" && s != "none" {
				return errors.New("must be none or process")
			}
			return nil
		})
	}
	if parameters := m("module_parameters"); parameters.given() {
		t.ModuleParameters = parameters.text(validateParameters)
	}
	if profile := m("profile"); profile.given() {
		t.Profile = profile.text(p.checkProfile)
	}
	return t
}

func (p *parser) checkProfile(s string) error {
	if p.profiles != nil && !slices.Contains(p.profiles, s) {
		return errors.New("must be one of " + strings.Join(p.profiles, ", "))
	}
	return validateNotEmpty(s)
}

func (p *parser) store(e entry, c *Config) Store {
	if err := ValidateName(e.key.node.Value); err != nil {
		e.key.fail("%s", err)
	}
	m := e.members("prefix", "tokens", "keys", "key_pattern", "credentials", "regions", "rate_limit", "sample_metadata")
	for _, name := range []string{"tokens", "credentials"} {
		e.required(m(name))
	}
	if e.given() && m("keys").given() == m("key_pattern").given() {
		e.fail("must have either keys or key_pattern")
	}
	s := Store{
		Name:            e.key.node.Value,
		Prefix:          m("prefix").text(ValidatePrefix),
		Tokens:          m("tokens").texts(1, 10, c.checkToken),
		Keys:            m("keys").texts(0, math.MaxInt, ValidateKeyID),
		KeyPattern:      m("key_pattern").text(validateKeyPattern),
		CredentialsFile: p.path(m("credentials")),
		Regions:         m("regions").texts(1, 100, form(regionForm, "an AWS Region, such as eu-central-1")),
		RateLimit:       rateLimit(m("rate_limit")),
	}
	m("sample_metadata").text(func(text string) (err error) {
		s.SampleMetadata, err = decodeSampleMetadata(text)
		return err
	})
	for _, other := range c.Stores {
		if other.Prefix == s.Prefix {
			e.fail("must have another prefix than the store %s", other.Name)
		}
		if other.CredentialsFile == s.CredentialsFile && s.CredentialsFile != "" {
			e.fail("must have another credentials file than the store %s", other.Name)
		}
	}
	return s
}

func (c *Config) checkToken(name string) error {
	if c.Token(name) == nil {
		return errors.New("must be the name of a token of this file")
	}
	return nil
}

func rateLimit(v value) *RateLimit {
	if !v.given() {
		return nil
	}
	const most = 1_000_000
	m := v.members("per_second", "burst")
	v.required(m("per_second"))
	perSecond := m("per_second").integer(1, most, 1)
	return &RateLimit{PerSecond: perSecond, Burst: m("burst").integer(1, most, perSecond)}
}

// path returns the absolute path of a file, or "" where there is none.
func (p *parser) path(v value) string { return p.absolute(v.text(validatePath)) }

func (p *parser) absolute(s string) string {
	if s == "" || filepath.IsAbs(s) {
		return s
	}
	return filepath.Join(p.dir, s)
}
