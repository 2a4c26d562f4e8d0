package config

import (
	"encoding/base64"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// storeNode is the YAML of a store, its members in the order of the
// documentation.
type storeNode struct {
	Prefix         string         `yaml:"prefix,omitempty"`
	Tokens         []string       `yaml:"tokens,flow"`
	Keys           *[]string      `yaml:"keys,flow,omitempty"`
	KeyPattern     string         `yaml:"key_pattern,omitempty"`
	Credentials    string         `yaml:"credentials"`
	Regions        []string       `yaml:"regions,flow,omitempty"`
	RateLimit      *rateLimitNode `yaml:"rate_limit,flow,omitempty"`
	SampleMetadata string         `yaml:"sample_metadata,omitempty"`
}

type rateLimitNode struct {
	PerSecond int `yaml:"per_second"`
	Burst     int `yaml:"burst"`
}

func (e *editing) addStore(s Store) error {
	n := storeNode{
		Prefix:         s.Prefix,
		Tokens:         s.Tokens,
		KeyPattern:     s.KeyPattern,
		Credentials:    e.relative(s.CredentialsFile),
		Regions:        s.Regions,
		SampleMetadata: base64.StdEncoding.EncodeToString(s.SampleMetadata),
	}
	if s.KeyPattern == "" {
		n.Keys = &s.Keys
	}
	if s.RateLimit != nil {
		n.RateLimit = &rateLimitNode{s.RateLimit.PerSecond, s.RateLimit.Burst}
	}
	var key, node yaml.Node
	if err := key.Encode(s.Name); err != nil {
		return err
	}
	if err := node.Encode(n); err != nil {
		return err
	}
	var err error
	if e.spliced, err = spliceStore(splitText(e.data), e.doc.Content[0], s.Name, &node); err != nil {
		return err
	}
	stores := e.stores()
	stores.Content = append(stores.Content, &key, &node)
	e.changed = true
	return nil
}

// stores returns the mapping of the stores, and adds one where there is none.
func (e *editing) stores() *yaml.Node {
	root := e.doc.Content[0]
	stores := member(root, "stores")
	if stores == nil {
		stores = &yaml.Node{Kind: yaml.MappingNode}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "stores"}, stores)
	}
	if len(stores.Content) == 0 {
		stores.Style = 0 // what was {} is written in lines
	}
	return stores
}

// relative returns path as it is written into the file.
func (e *editing) relative(path string) string {
	rel, err := filepath.Rel(e.config.Dir(), path)
	if !filepath.IsAbs(path) || err != nil || strings.HasPrefix(rel, "..") {
		return path
	}
	return rel
}

// member returns the value of a name in a mapping, or nil.
func member(mapping *yaml.Node, name string) *yaml.Node {
	for i := 0; mapping != nil && i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			return mapping.Content[i+1]
		}
	}
	return nil
}
