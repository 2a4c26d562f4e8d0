package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hyok-kms/hyok/internal/atomicfile"
	"github.com/hyok-kms/hyok/xks"
)

// Errors of edits that a caller may want to tell apart, found by errors.Is.
var (
	ErrExists         = errors.New("exists already")
	ErrNotFound       = errors.New("does not exist")
	ErrNoKMS          = errors.New("has no section kms: the embedded KMS is not configured")
	ErrLastCredential = errors.New("is the last credential of its store: AWS KMS could not use the store any more")
)

// AddStore adds a key store to the configuration file at path and creates its
// credentials file with the credentials of s. Where s names no credentials file
// it is credentials/NAME.json. It returns the path of that file.
func AddStore(path string, s Store) (credentialsFile string, err error) {
	err = edit(path, func(e *editing) error {
		if e.config.Store(s.Name) != nil {
			return fmt.Errorf("key store %s %w", s.Name, ErrExists)
		}
		if s.CredentialsFile == "" {
			s.CredentialsFile = filepath.Join("credentials", s.Name+".json")
		}
		credentialsFile = s.CredentialsFile
		if !filepath.IsAbs(credentialsFile) {
			credentialsFile = filepath.Join(e.config.Dir(), credentialsFile)
		}
		if err := e.addStore(s); err != nil {
			return err
		}
		return e.createCredentials(credentialsFile, s.Credentials)
	})
	return credentialsFile, err
}

// AddStoreKeys adds external key ids to a store that lists them; those that it
// has already are left as they are. A store with a key pattern is left alone if
// the pattern is of all ids, and is an error otherwise.
func AddStoreKeys(path, store string, ids ...string) error {
	return edit(path, func(e *editing) error { return e.addKeys(store, ids) })
}

// AddCredential makes a credential for a store and returns it with the path of
// the file that holds it.
func AddCredential(path, store string) (Credential, string, error) {
	cred := NewCredential()
	file, err := editCredentials(path, store, func(all []Credential) ([]Credential, error) {
		return append(all, cred), nil
	})
	return cred, file, err
}

// NewCredential makes a credential, created now.
func NewCredential() Credential {
	return Credential{xks.NewCredential(), time.Now().UTC().Truncate(time.Second)}
}

// RevokeCredential removes a credential of a store. It refuses to remove the
// last one with ErrLastCredential, unless last is set.
func RevokeCredential(path, store, accessKeyID string, last bool) error {
	_, err := editCredentials(path, store, func(all []Credential) ([]Credential, error) {
		i := slices.IndexFunc(all, func(c Credential) bool { return c.AccessKeyID == accessKeyID })
		if i < 0 {
			return nil, fmt.Errorf("credential %q of key store %s %w", accessKeyID, store, ErrNotFound)
		}
		if len(all) == 1 && !last {
			return nil, fmt.Errorf("credential %s %w", accessKeyID, ErrLastCredential)
		}
		return slices.Delete(all, i, i+1), nil
	})
	return err
}

func editCredentials(path, store string, change func([]Credential) ([]Credential, error)) (file string, err error) {
	err = edit(path, func(e *editing) error {
		s := e.config.Store(store)
		if s == nil {
			return fmt.Errorf("key store %q %w", store, ErrNotFound)
		}
		file = s.CredentialsFile
		credentials, err := change(s.Credentials)
		if err != nil {
			return err
		}
		data, err := encodeCredentials(credentials)
		if err != nil {
			return err
		}
		return atomicfile.Write(file, data)
	})
	return file, err
}

// editing is a configuration file whose lock is held.
type editing struct {
	config  *Config
	data    []byte
	doc     *yaml.Node
	changed bool // doc, so that it is to be written
	spliced text // data with the same change, where that could be made
}

// edit calls change with the file's lock held, and writes the file back where
// change altered it. A file with errors is not edited, nor is one written.
func edit(path string, change func(*editing) error) (err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("find the configuration file: %w", err)
	}
	unlock, err := atomicfile.Lock(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	data, err := readFile(path)
	if err != nil {
		return err
	}
	c, errs := parse(path, data, nil)
	errs = append(errs, c.readCredentials()...)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	doc, err := parseDocument(path, data)
	if err != nil {
		return err
	}
	e := &editing{config: c, data: data, doc: doc}
	if err := change(e); err != nil || !e.changed {
		return err
	}
	if data, err = e.encode(); err != nil {
		return err
	}
	return atomicfile.Write(path, data)
}

// encode returns the edited file, if it is a good one.
func (e *editing) encode() ([]byte, error) {
	data, err := encodeNode(e.doc)
	if err != nil {
		return nil, fmt.Errorf("write %s as YAML: %w", e.config.Path, err)
	}
	want, errs := parse(e.config.Path, data, nil)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	spliced := []byte(strings.Join(e.spliced, ""))
	if got, errs := parse(e.config.Path, spliced, nil); len(errs) == 0 && reflect.DeepEqual(got, want) {
		return spliced, nil
	}
	return data, nil
}

func encodeNode(node *yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	err := errors.Join(enc.Encode(node), enc.Close())
	return out.Bytes(), err
}

// createCredentials is called after addStore, before the configuration file that
// names the new file is written: a crash between leaves a file that nobody uses.
func (e *editing) createCredentials(path string, credentials []Credential) error {
	if _, err := e.encode(); err != nil { // before anything is on the disk
		return err
	}
	data, err := encodeCredentials(credentials)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the folder of the credentials: %w", err)
	}
	if err := atomicfile.Create(path, data); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("credentials file %s %w, but no store uses it: move it away first", path, ErrExists)
	} else if err != nil {
		return err
	}
	return nil
}

func (e *editing) addKeys(store string, ids []string) error {
	s := e.config.Store(store)
	switch {
	case s == nil:
		return fmt.Errorf("key store %q %w", store, ErrNotFound)
	case s.KeyPattern == "*":
		return nil
	case s.KeyPattern != "":
		return fmt.Errorf("key store %s takes its keys by the pattern %s: edit it in %s", store, s.KeyPattern, e.config.Path)
	}
	list := member(member(member(e.doc.Content[0], "stores"), store), "keys")
	return e.addItems(list, slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(s.Keys, id) }))
}

// addItems adds external key ids to a list.
func (e *editing) addItems(list *yaml.Node, ids []string) error {
	var nodes []*yaml.Node
	var items []string
	for _, id := range ids {
		if err := ValidateKeyID(id); err != nil {
			return fmt.Errorf("key id %q %w", id, err)
		}
		var node yaml.Node
		if err := node.Encode(id); err != nil {
			return err
		}
		item, err := encodeNode(&node)
		if err != nil {
			return err
		}
		nodes = append(nodes, &node)
		items = append(items, strings.TrimSpace(string(item)))
	}
	if len(nodes) > 0 {
		e.spliced = spliceItems(splitText(e.data), list, items)
		list.Content = append(list.Content, nodes...)
		e.changed = true
	}
	return nil
}
