package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// MaxIDLength is the greatest length of an external key id, in bytes.
const MaxIDLength = 128

// KeyUsage says what the token shall permit with a key.
type KeyUsage struct{ Encrypt, Decrypt bool }

// KeyInfo describes an external key as the token holds it now.
type KeyInfo struct {
	ID       string        `json:"id"`
	Token    string        `json:"token"`
	Disabled bool          `json:"disabled"`
	Versions []VersionInfo `json:"versions"` // ascending
}

// Newest returns the version that new encryptions use.
func (k KeyInfo) Newest() VersionInfo { return k.Versions[len(k.Versions)-1] }

// VersionInfo describes one version of a key. What the token does not tell is
// false.
type VersionInfo struct {
	Number           uint32 `json:"number"`
	Encrypt          bool   `json:"encrypt"`
	Decrypt          bool   `json:"decrypt"`
	Disabled         bool   `json:"disabled"`
	Marked           bool   `json:"made_or_adopted_by_hyok"`
	Sensitive        bool   `json:"sensitive"`
	Extractable      bool   `json:"extractable"`
	AlwaysSensitive  bool   `json:"always_sensitive"`
	NeverExtractable bool   `json:"never_extractable"`
	Local            bool   `json:"generated_in_token"`
	Modifiable       bool   `json:"modifiable"`
}

// ValidateID reports whether id can be an external key id: 1 to 128 of
// A-Za-z0-9-._ and not one of hyok's own labels.
func ValidateID(id string) error {
	if len(id) == 0 || len(id) > MaxIDLength {
		return fmt.Errorf("key id has %d characters: it must have 1 to %d", len(id), MaxIDLength)
	}
	for _, ch := range []byte(id) {
		if (ch < 'a' || ch > 'z') && (ch < 'A' || ch > 'Z') && (ch < '0' || ch > '9') && ch != '-' && ch != '.' && ch != '_' {
			return fmt.Errorf("key id %s has a character outside A-Z, a-z, 0-9, '-', '.', '_'", printable(id))
		}
	}
	if isReserved(id) {
		return fmt.Errorf("key id %s begins with %q, which is kept for hyok's own keys", printable(id), reservedPrefix)
	}
	return nil
}

// GenerateKey makes an AES-256 key in the token: sensitive, never extractable,
// for encryption and decryption at most.
func (t *Token) GenerateKey(ctx context.Context, id string, usage KeyUsage) error {
	return t.create(ctx, id, 0, func(w *worker, m mark) (pkcs11.ObjectHandle, error) {
		return w.generate(aesTemplate(id, m, usage, true, t.profile.SessionCopies))
	})
}

// ImportKey stores 32 bytes of key material as a key, which then is sensitive
// and not extractable. The caller wipes material.
func (t *Token) ImportKey(ctx context.Context, id string, usage KeyUsage, material []byte) error {
	if len(material) != aes256KeyLength {
		return fmt.Errorf("key material has %d bytes: AES-256 takes %d", len(material), aes256KeyLength)
	}
	own := slices.Clone(material)
	return t.create(ctx, id, 0, func(w *worker, m mark) (pkcs11.ObjectHandle, error) {
		defer clear(own)
		template := append(aesTemplate(id, m, usage, true, t.profile.SessionCopies), pkcs11.NewAttribute(pkcs11.CKA_VALUE, own))
		h, err := w.t.module.ctx.CreateObject(w.session, template)
		return h, w.fail("C_CreateObject", err)
	})
}

// RotateKey makes a new version of a key, with the usage of the newest, and
// returns its number. Older versions stay as they are.
func (t *Token) RotateKey(ctx context.Context, id string) (uint32, error) {
	info, err := t.Describe(ctx, id)
	if err != nil {
		return 0, err
	}
	if info.Disabled {
		return 0, fmt.Errorf("key %s in token %s: %w: enable it first", id, t.name, ErrKeyDisabled)
	}
	newest := info.Newest()
	next := newest.Number + 1
	usage := KeyUsage{Encrypt: newest.Encrypt, Decrypt: newest.Decrypt}
	err = t.create(ctx, id, newest.Number, func(w *worker, m mark) (pkcs11.ObjectHandle, error) {
		return w.generate(aesTemplate(id, m, usage, true, t.profile.SessionCopies))
	})
	return next, err
}

// create makes the version after newest (0: the first one). Two processes may
// do so at once: each looks again afterwards, and one that finds a twin of its
// object takes its own away.
func (t *Token) create(ctx context.Context, id string, newest uint32, produce func(*worker, mark) (pkcs11.ObjectHandle, error)) error {
	if err := ValidateID(id); err != nil {
		return err
	}
	m := newMark(newest + 1)
	err := t.admin(ctx, func(w *worker) error {
		before, err := w.versions(id)
		if err != nil {
			return err
		}
		if err := t.expectNewest(id, before, newest); err != nil {
			return err
		}
		h, err := produce(w, m)
		if err != nil {
			return err
		}
		after, err := w.versions(id)
		if err != nil {
			return err
		}
		twins := slices.DeleteFunc(after, func(o numbered) bool { return o.number != m.version })
		if len(twins) > 1 {
			return errors.Join(
				fmt.Errorf("key %s in token %s: %w: another process made version %d at the same time; look at it and try again", id, t.name, ErrKeyExists, m.version),
				w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, h)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.refresh(ctx, true)
}

func (t *Token) expectNewest(id string, have []numbered, newest uint32) error {
	switch {
	case len(have) == 0 && newest == 0:
		return nil
	case len(have) == 0:
		return t.notFound(id)
	case newest == 0:
		return fmt.Errorf("key %s in token %s: %w", id, t.name, ErrKeyExists)
	case have[len(have)-1].number != newest:
		return fmt.Errorf("key %s in token %s was rotated by somebody else meanwhile: look at it and try again", id, t.name)
	}
	return nil
}

// numbered is an object with the version that its mark tells.
type numbered struct {
	number uint32
	handle pkcs11.ObjectHandle
}

// versions returns the AES-256 objects of one label in ascending order.
func (w *worker) versions(id string) ([]numbered, error) {
	objects, err := w.objects(id, nil)
	if err != nil {
		return nil, err
	}
	found := make([]numbered, 0, len(objects))
	for _, o := range objects {
		number := uint32(1)
		if m, marked := parseMark(o.ckaID); marked {
			number = m.version
		}
		found = append(found, numbered{number, o.handle})
	}
	slices.SortFunc(found, func(a, b numbered) int { return int(int64(a.number) - int64(b.number)) })
	return found, nil
}

// unambiguous returns the versions of id or says why there are none to act on.
func (w *worker) unambiguous(id string) ([]numbered, error) {
	found, err := w.versions(id)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, w.t.notFound(id)
	}
	for i := 1; i < len(found); i++ {
		if found[i].number == found[i-1].number {
			return nil, fmt.Errorf("key %s in token %s: %w", id, w.t.name, ErrKeyAmbiguous)
		}
	}
	return found, nil
}

// Describe asks the token for the present state of a key and its versions.
func (t *Token) Describe(ctx context.Context, id string) (KeyInfo, error) {
	var info KeyInfo
	err := t.doSearch(ctx, func(w *worker) error {
		found, err := w.unambiguous(id)
		if err != nil {
			return err
		}
		versions := make([]VersionInfo, 0, len(found))
		for _, o := range found {
			v, err := w.versionInfo(o)
			if err != nil {
				return err
			}
			versions = append(versions, v)
		}
		info = KeyInfo{ID: id, Token: t.name, Versions: versions, Disabled: versions[len(versions)-1].Disabled}
		return nil
	})
	if err != nil {
		return KeyInfo{}, err // the call may still write to info
	}
	return info, nil
}

// Permissions asks the token what it permits with the newest version of the key
// and whether it is disabled, at the price of reading one object.
func (k *Key) Permissions(ctx context.Context) (usage KeyUsage, disabled bool, err error) {
	var p permissions
	err = k.use(ctx, k.Newest(), func() operation {
		// The token object itself: a copy does not know what happened since.
		return operation{run: func(w *worker, v *version) error {
			read, err := w.permissions(v.handle)
			if err == nil {
				p = read
			}
			return err
		}}
	})
	if err != nil {
		return KeyUsage{}, false, err // the call may still write to p
	}
	return KeyUsage{Encrypt: p.encrypt, Decrypt: p.decrypt}, p.mark.disabled, nil
}

func (w *worker) versionInfo(o numbered) (VersionInfo, error) {
	p, err := w.permissions(o.handle)
	if err != nil {
		return VersionInfo{}, err
	}
	v := VersionInfo{Number: o.number, Encrypt: p.encrypt, Decrypt: p.decrypt, Disabled: p.mark.disabled, Marked: p.marked}
	for _, a := range []struct {
		attribute uint
		into      *bool
	}{
		{pkcs11.CKA_SENSITIVE, &v.Sensitive}, {pkcs11.CKA_EXTRACTABLE, &v.Extractable},
		{pkcs11.CKA_ALWAYS_SENSITIVE, &v.AlwaysSensitive}, {pkcs11.CKA_NEVER_EXTRACTABLE, &v.NeverExtractable},
		{pkcs11.CKA_LOCAL, &v.Local}, {pkcs11.CKA_MODIFIABLE, &v.Modifiable},
	} {
		// One by one: a module may know some of them only.
		attrs, err := w.t.module.ctx.GetAttributeValue(w.session, o.handle, []*pkcs11.Attribute{pkcs11.NewAttribute(a.attribute, nil)})
		if err == nil && len(attrs) == 1 {
			*a.into = boolean(attrs[0].Value)
		}
	}
	return v, nil
}

// KeyIDs returns the ids of all external keys in the token, sorted. Those that
// are ambiguous are among them.
func (t *Token) KeyIDs(ctx context.Context) ([]string, error) {
	if err := t.refresh(ctx, true); err != nil {
		return nil, err
	}
	keys := t.index.load()
	ids := make([]string, 0, len(keys))
	for id := range keys {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// DestroyKey deletes one version of a key from the token, or all of them
// (number 0), for ever.
func (t *Token) DestroyKey(ctx context.Context, id string, number uint32) error {
	err := t.admin(ctx, func(w *worker) error {
		found, err := w.versions(id)
		if err != nil {
			return err
		}
		doomed := slices.DeleteFunc(found, func(o numbered) bool { return number != 0 && o.number != number })
		if len(doomed) == 0 {
			return t.notFound(id)
		}
		for _, o := range doomed {
			if err := w.t.module.ctx.DestroyObject(w.session, o.handle); err != nil {
				return w.fail("C_DestroyObject", err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.refresh(ctx, true)
}

// SetEnabled disables all versions of a key, or enables them again. Disabling
// withdraws CKA_ENCRYPT and CKA_DECRYPT, so that it holds for every user of the
// token, and marks the key with what to give back.
func (t *Token) SetEnabled(ctx context.Context, id string, enabled bool) error {
	return t.admin(ctx, func(w *worker) error {
		found, err := w.unambiguous(id)
		if err != nil {
			return err
		}
		for _, o := range found {
			p, err := w.permissions(o.handle)
			if err != nil {
				return err
			}
			if p.mark.disabled != enabled {
				continue // as it should be
			}
			if err := w.setAttributes(o.handle, switched(p, enabled)); err != nil {
				return err
			}
		}
		return nil
	})
}

// switched returns the attributes that disable a key with permissions p or
// enable it again.
func switched(p permissions, enabled bool) []*pkcs11.Attribute {
	m, usage := p.mark, KeyUsage{}
	id := p.ckaID
	switch {
	case enabled && m.adopted:
		usage, id = KeyUsage{m.encrypt, m.decrypt}, m.rest
	case enabled:
		usage = KeyUsage{m.encrypt, m.decrypt}
		m.disabled, m.encrypt, m.decrypt = false, false, false
		id = m.bytes()
	default:
		if !p.marked {
			m = mark{version: 1, adopted: true, rest: p.ckaID}
		}
		m.disabled, m.encrypt, m.decrypt = true, p.encrypt, p.decrypt
		id = m.bytes()
	}
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, usage.Encrypt),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, usage.Decrypt),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}
}

func (w *worker) setAttributes(h pkcs11.ObjectHandle, attrs []*pkcs11.Attribute) error {
	err := w.t.module.ctx.SetAttributeValue(w.session, h, attrs)
	if isCode(err, pkcs11.CKR_ACTION_PROHIBITED, pkcs11.CKR_ATTRIBUTE_READ_ONLY) {
		return fmt.Errorf("token %s: %w: the key's attributes cannot be changed (CKA_MODIFIABLE is false, or the token forbids it): destroy the key, or take it out of its key store, to stop its use", w.t.name, ErrUnsupported)
	}
	return w.fail("C_SetAttributeValue", err)
}

// aesTemplate returns the attributes of an AES-256 key.
func aesTemplate(label string, m mark, usage KeyUsage, onToken, copyable bool) []*pkcs11.Attribute {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, m.bytes()),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, onToken),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, true), // or its usage could not be withdrawn
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, usage.Encrypt),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, usage.Decrypt),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, false),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, false),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false),
	}
	if copyable {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_COPYABLE, true))
	}
	return template
}

// generate makes an AES-256 key with these attributes.
func (w *worker) generate(template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	template = append(template, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, aes256KeyLength))
	h, err := w.t.module.ctx.GenerateKey(w.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, template)
	return h, w.fail("C_GenerateKey", err)
}
