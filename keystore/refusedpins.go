package keystore

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/hyok-kms/hyok/internal/atomicfile"
)

const (
	refusedFormat  = 1  // the only one so far
	mostRefused    = 16 // digests of a token, the newest ones
	refusedSaltLen = 16
)

// refusedPINs is the memory, in a file, of the PINs that tokens have refused, by slow
// digests. So neither the next command nor the next start of a server tries one again
// that brings a token nearer to its lock.
type refusedPINs struct {
	path string // "": nothing is remembered
}

// refusedFile is the file, in JSON.
type refusedFile struct {
	Format int            `json:"format"`
	Tokens []refusedToken `json:"tokens"`
}

// refusedToken is what a token has refused since it last took a PIN.
type refusedToken struct {
	Serial       string    `json:"serial"`
	Manufacturer string    `json:"manufacturer"`
	Model        string    `json:"model"`
	Label        string    `json:"label,omitempty"` // of a token without a serial number
	Salt         []byte    `json:"salt"`
	Digests      [][]byte  `json:"scrypt"`
	Last         time.Time `json:"last"`
}

// newRefusedToken returns the record of a token that has refused nothing.
func newRefusedToken(ti TokenInfo) refusedToken {
	r := refusedToken{Serial: ti.Serial, Manufacturer: ti.Manufacturer, Model: ti.Model, Salt: make([]byte, refusedSaltLen)}
	if ti.Serial == "" {
		r.Label = ti.Label
	}
	_, _ = rand.Read(r.Salt) // never fails
	return r
}

// isOf reports whether the record is of a token.
func (r *refusedToken) isOf(ti TokenInfo) bool {
	return r.Serial == ti.Serial && r.Manufacturer == ti.Manufacturer && r.Model == ti.Model && (r.Serial != "" || r.Label == ti.Label)
}

// of returns the record of a token, a new one if there is none. With an error, too, it
// has a salt.
func (p refusedPINs) of(ti TokenInfo) (refusedToken, error) {
	if p.path == "" {
		return refusedToken{}, nil
	}
	file, err := p.read()
	if err != nil {
		return newRefusedToken(ti), err
	}
	if i := file.find(ti); i >= 0 {
		return file.Tokens[i], nil
	}
	return newRefusedToken(ti), nil
}

func (f *refusedFile) find(ti TokenInfo) int {
	return slices.IndexFunc(f.Tokens, func(r refusedToken) bool { return r.isOf(ti) })
}

// add remembers that a token has refused the PIN of a digest.
func (p refusedPINs) add(ti TokenInfo, salt, digest []byte) error {
	return p.change(func(file *refusedFile) bool {
		i := file.find(ti)
		if i < 0 {
			i = len(file.Tokens)
			file.Tokens = append(file.Tokens, newRefusedToken(ti))
		}
		r := &file.Tokens[i]
		if !bytes.Equal(r.Salt, salt) { // as at the first refusal, or another process was first
			r.Salt, r.Digests = salt, nil
		}
		if !slices.ContainsFunc(r.Digests, func(d []byte) bool { return bytes.Equal(d, digest) }) {
			r.Digests = append(r.Digests, digest)
		}
		r.Digests = r.Digests[max(0, len(r.Digests)-mostRefused):]
		r.Last = time.Now().UTC().Truncate(time.Second)
		return true
	})
}

// forget forgets what a token has refused.
func (p refusedPINs) forget(ti TokenInfo) error {
	if _, err := os.Stat(p.path); p.path == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if file, err := p.read(); err == nil && file.find(ti) < 0 {
		return nil
	}
	return p.change(func(file *refusedFile) bool {
		i := file.find(ti)
		if i >= 0 {
			file.Tokens = slices.Delete(file.Tokens, i, i+1)
		}
		return i >= 0
	})
}

// change writes the file anew, alone, if f changes it. A damaged file is replaced.
func (p refusedPINs) change(f func(*refusedFile) bool) (err error) {
	unlock, err := atomicfile.Lock(p.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	file, err := p.read()
	if err != nil {
		file = &refusedFile{Format: refusedFormat}
	}
	if !f(file) {
		return nil
	}
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(p.path, append(data, '\n'))
}

func (p refusedPINs) read() (*refusedFile, error) {
	file := &refusedFile{Format: refusedFormat}
	data, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err == nil {
		if err = json.Unmarshal(data, file); err == nil && file.Format != refusedFormat {
			err = fmt.Errorf("format %d is unknown, a later version of hyok may have written it", file.Format)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the refused PINs in %s cannot be read: %w", p.path, err)
	}
	return file, nil
}
