package group

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/hyok-kms/hyok/internal/atomicfile"
	"github.com/hyok-kms/hyok/keystore"
)

// fileFormat is the only one so far.
const fileFormat = 1

// answersFile is the file of the known answers, in JSON.
type answersFile struct {
	Format int          `json:"format"`
	Keys   []fileRecord `json:"keys"`
}

type fileRecord struct {
	ID      string       `json:"id"`
	Version uint32       `json:"version"`
	Answer  *fileAnswer  `json:"answer,omitempty"`
	Members []fileMember `json:"members"`
}

type fileAnswer struct {
	Text       []byte `json:"text"`
	IV         []byte `json:"iv"`
	Ciphertext []byte `json:"ciphertext"`
	Tag        []byte `json:"tag"`
	By         string `json:"by"`
}

// fileMember is what a member, NAME/SERIAL, said of a version.
type fileMember struct {
	Name      string `json:"name"`
	Proven    bool   `json:"proven,omitempty"`
	Destroyed bool   `json:"destroyed,omitempty"`
	Ambiguous bool   `json:"ambiguous,omitempty"`
	Disabled  bool   `json:"disabled,omitempty"`
	NoEncrypt bool   `json:"noEncrypt,omitempty"`
	NoDecrypt bool   `json:"noDecrypt,omitempty"`
}

// OpenAnswers reads what is remembered in the file at path, none if there is no
// file, and writes there, by and by, what changes. A damaged file is an error.
func OpenAnswers(path string, log *slog.Logger) (*Answers, error) {
	a := NewAnswers(log)
	a.path = path
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	} else if err != nil {
		return nil, fmt.Errorf("read the known answers of a key store: %w", err)
	}
	if a.records, err = parseAnswers(data); err != nil {
		return nil, fmt.Errorf("the known answers in %s are damaged: %w: put a backup of the file in its place, or make sure that all tokens of the key store "+
			"have the same keys and none that was revoked, and delete it", path, err)
	}
	return a, nil
}

// parseAnswers reads the contents of a file.
func parseAnswers(data []byte) (map[versionID]*record, error) {
	var f answersFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("something follows its end")
	}
	if f.Format != fileFormat {
		return nil, fmt.Errorf("format %d is unknown, a later version of hyok may have written it", f.Format)
	}
	records := make(map[versionID]*record, len(f.Keys))
	for _, item := range f.Keys {
		v := versionID{item.ID, item.Version}
		if err := keystore.ValidateID(v.id); err != nil {
			return nil, err
		}
		if v.number == 0 || records[v] != nil {
			return nil, fmt.Errorf("%v cannot be, or is there twice", v)
		}
		r, err := item.record()
		if err != nil {
			return nil, fmt.Errorf("%v: %w", v, err)
		}
		records[v] = r
	}
	return records, nil
}

func (f *fileRecord) record() (*record, error) {
	r := newRecord()
	if a := f.Answer; a != nil {
		if len(a.Text) == 0 || len(a.Ciphertext) != len(a.Text) || len(a.IV) == 0 || len(a.Tag) != 16 {
			return nil, errors.New("its known answer has parts of the wrong length")
		}
		r.answer = &answer{Text: a.Text, Sealed: keystore.Sealed{IV: a.IV, Ciphertext: a.Ciphertext, Tag: a.Tag}, By: a.By}
	}
	for _, m := range f.Members {
		if m.Name == "" {
			return nil, errors.New("a member without a name")
		}
		if m.Proven {
			r.held[m.Name] = true
		}
		l := &look{began: longAgo, gone: m.Destroyed, ambiguous: m.Ambiguous, disabled: m.Disabled,
			usage: keystore.KeyUsage{Encrypt: !m.NoEncrypt, Decrypt: !m.NoDecrypt}}
		if l.revokes() {
			r.revoked[m.Name] = l
		}
	}
	return r, nil
}

// Write writes the file if there is anything new.
func (a *Answers) Write() error {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.mu.Lock()
	if !a.dirty || a.path == "" {
		a.mu.Unlock()
		return nil
	}
	f := a.file()
	a.dirty = false
	a.mu.Unlock()
	data, err := json.MarshalIndent(f, "", " ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(a.path), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(a.path, append(data, '\n'))
	}
	if err != nil {
		a.failures.Add(1)
		a.mu.Lock()
		a.dirty = true
		a.mu.Unlock()
	}
	return err
}

// file returns what is to be written. mu is held.
func (a *Answers) file() answersFile {
	f := answersFile{Format: fileFormat, Keys: make([]fileRecord, 0, len(a.records))}
	for v, r := range a.records {
		item := fileRecord{ID: v.id, Version: v.number, Members: []fileMember{}}
		if k := r.answer; k != nil {
			item.Answer = &fileAnswer{Text: k.Text, IV: k.Sealed.IV, Ciphertext: k.Sealed.Ciphertext, Tag: k.Sealed.Tag, By: k.By}
		}
		for _, name := range r.members() {
			m := fileMember{Name: name, Proven: r.held[name]}
			if l := r.revoked[name]; l != nil {
				m.Destroyed, m.Ambiguous, m.Disabled, m.NoEncrypt, m.NoDecrypt = l.gone, l.ambiguous, l.disabled, !l.usage.Encrypt, !l.usage.Decrypt
			}
			if m != (fileMember{Name: name}) {
				item.Members = append(item.Members, m)
			}
		}
		f.Keys = append(f.Keys, item)
	}
	slices.SortFunc(f.Keys, func(x, y fileRecord) int {
		return compareVersions(versionID{x.ID, x.Version}, versionID{y.ID, y.Version})
	})
	return f
}
