package config

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hyok-kms/hyok/internal/secretfile"
	"github.com/hyok-kms/hyok/xks"
)

// credentialsFile is the JSON of a credentials file.
type credentialsFile struct {
	Credentials []credentialRecord `json:"credentials"`
}

type credentialRecord struct {
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey"`
	Created         time.Time `json:"created,omitzero"`
}

// readCredentials fills in the credentials of all stores.
func (c *Config) readCredentials() []error {
	var errs []error
	owner := make(map[string]string) // access key id to store
	for i := range c.Stores {
		s := &c.Stores[i]
		if s.CredentialsFile == "" { // reported already
			continue
		}
		credentials, err := loadCredentials(s.CredentialsFile)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, cred := range credentials {
			if other, ok := owner[cred.AccessKeyID]; ok {
				errs = append(errs, &Error{File: s.CredentialsFile, Message: fmt.Sprintf(
					"access key id %s is in use already, by the store %s: each must be unique over all stores", cred.AccessKeyID, other)})
			}
			owner[cred.AccessKeyID] = s.Name
		}
		s.Credentials = credentials
	}
	return errs
}

// loadCredentials reads a credentials file that its owner alone can reach.
func loadCredentials(path string) ([]Credential, error) {
	data, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	return parseCredentials(path, data)
}

// readPrivate reads a file of secrets, which its owner alone can reach.
func readPrivate(path string) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, fileError(path, err)
	}
	if err := secretfile.Check(info); err != nil {
		return nil, &Error{File: path, Message: err.Error(), Cause: err}
	}
	return readOpen(f)
}

func parseCredentials(path string, data []byte) ([]Credential, error) {
	var file credentialsFile
	if err := json.Unmarshal(data, &file, json.RejectUnknownMembers(true)); err != nil {
		return nil, jsonError(path, data, err, `{"credentials": [{"accessKeyId": "…", "secretAccessKey": "…", "created": "2026-01-02T15:04:05Z"}]}`)
	}
	var all []Credential
	for i, r := range file.Credentials {
		cred := Credential{xks.Credential{AccessKeyID: r.AccessKeyID, SecretAccessKey: r.SecretAccessKey}, r.Created.UTC()}
		if err := cred.Validate(); err != nil {
			return nil, &Error{File: path, Name: fmt.Sprintf("credentials[%d]", i), Message: err.Error()}
		}
		all = append(all, cred)
	}
	return all, nil
}

// jsonError gives the line of an error and what the file should be like, but not
// the library's text, which may quote what it found.
func jsonError(path string, data []byte, err error, want string) error {
	e := &Error{File: path, Message: "must be " + want + ", each name given once"}
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	offset := int64(-1)
	if errors.As(err, &semantic) {
		offset = semantic.ByteOffset
	} else if errors.As(err, &syntactic) {
		offset = syntactic.ByteOffset
	}
	if 0 <= offset && offset <= int64(len(data)) {
		e.Line = 1 + bytes.Count(data[:offset], []byte("\n"))
	}
	return e
}

// encodeCredentials is the inverse of parseCredentials.
func encodeCredentials(credentials []Credential) ([]byte, error) {
	file := credentialsFile{Credentials: []credentialRecord{}}
	for _, c := range credentials {
		file.Credentials = append(file.Credentials, credentialRecord{c.AccessKeyID, c.SecretAccessKey, c.Created})
	}
	data, err := json.Marshal(file, jsontext.WithIndent("  "))
	if err != nil {
		return nil, errors.New("credentials cannot be written as JSON") // the library's text may quote one
	}
	return append(data, '\n'), nil
}
