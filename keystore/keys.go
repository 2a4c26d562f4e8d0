package keystore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// MaxIDLength is the greatest length of an external key id, in bytes.
const MaxIDLength = 128

// KeyUsage says what the token shall permit with a key.
type KeyUsage struct {
	Encrypt, Decrypt bool
	Replicable       Replicable
}

// Replicable says whether a key may leave its token, and then wrapped under which
// keys. It is never given out in the clear (CKA_SENSITIVE).
type Replicable int

const (
	// NotReplicable: the key never leaves the token (CKA_EXTRACTABLE is false).
	NotReplicable Replicable = iota
	// ReplicableByTrusted: under wrapping keys alone that the token's security
	// officer has declared trusted (CKA_WRAP_WITH_TRUSTED).
	ReplicableByTrusted
	// ReplicableByAny: under any wrapping key. So whoever has the token's PIN can
	// bring the key out under a wrapping key that he knows.
	ReplicableByAny
)

// KeyInfo describes an external key as the token holds it now.
type KeyInfo struct {
	ID       string `json:"id"`
	Token    string `json:"token"`
	Disabled bool   `json:"disabled"`
	// Ambiguous: two objects claim to be the same version, so the key is not used.
	Ambiguous bool          `json:"ambiguous"`
	Versions  []VersionInfo `json:"versions"` // ascending
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
	Marked           bool   `json:"madeOrAdoptedByHyok"`
	Private          bool   `json:"private"` // it is not there without a login
	Sensitive        bool   `json:"sensitive"`
	Extractable      bool   `json:"extractable"`
	AlwaysSensitive  bool   `json:"alwaysSensitive"`
	NeverExtractable bool   `json:"neverExtractable"`
	Local            bool   `json:"generatedInToken"`
	Modifiable       bool   `json:"modifiable"`
	WrapWithTrusted  bool   `json:"wrapWithTrustedOnly"`
}

// Replicable says whether this version may leave the token.
func (v VersionInfo) Replicable() Replicable {
	switch {
	case !v.Extractable:
		return NotReplicable
	case v.WrapWithTrusted:
		return ReplicableByTrusted
	}
	return ReplicableByAny
}

// replicable is Replicable for what follows this version: hyok makes no key
// extractable because another program did.
func (v VersionInfo) replicable() Replicable {
	if !v.Marked {
		return NotReplicable
	}
	return v.Replicable()
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

// numbered is an object with the version that its mark tells.
type numbered struct {
	number uint32
	handle pkcs11.ObjectHandle
	ckaID  []byte
}

// number returns the version that the mark of an object tells. A key without our mark
// is the first version of its id.
func (o object) number() uint32 {
	if m, marked := parseMark(o.ckaID); marked {
		return m.version
	}
	return 1
}

// byLabel groups objects by their label, each group in ascending order.
func byLabel(objects []object) map[string][]numbered {
	groups := map[string][]numbered{}
	for _, o := range objects {
		groups[o.label] = append(groups[o.label], numbered{o.number(), o.handle, o.ckaID})
	}
	for _, group := range groups {
		slices.SortFunc(group, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	}
	return groups
}

// ambiguous reports whether two versions, in ascending order, have one number.
func ambiguous(versions []numbered) bool {
	for i := 1; i < len(versions); i++ {
		if versions[i].number == versions[i-1].number {
			return true
		}
	}
	return false
}

// versions returns the AES-256 objects of one label in ascending order.
func (w *worker) versions(id string) ([]numbered, error) {
	objects, err := w.objects(id, nil)
	return byLabel(objects)[id], err
}

// unambiguous returns the versions of id or says why there are none to act on.
func (w *worker) unambiguous(id string) ([]numbered, error) {
	found, err := w.versions(id)
	if err != nil {
		return nil, err
	}
	if found, _ = settle(found); len(found) == 0 {
		return nil, w.t.notFound(id)
	}
	if ambiguous(found) {
		return nil, fmt.Errorf("key %s in token %s: %w: two objects with this label claim to be the same version", id, w.t.name, ErrKeyAmbiguous)
	}
	return found, nil
}

// Describe asks the token for the present state of a key and its versions.
func (t *Token) Describe(ctx context.Context, id string) (KeyInfo, error) {
	if isReserved(id) {
		return KeyInfo{}, t.notFound(id)
	}
	var info KeyInfo
	err := t.doSearch(ctx, func(w *worker) error {
		found, err := w.unambiguous(id)
		if err != nil {
			return err
		}
		info, err = w.keyInfo(id, found)
		return err
	})
	if err != nil {
		return KeyInfo{}, t.sureOf(ctx, id, err) // the call may still write to info
	}
	return info, nil
}

// sureOf makes sure of an error that says that a key is not there.
func (t *Token) sureOf(ctx context.Context, id string, err error) error {
	if !errors.Is(err, ErrKeyNotFound) {
		return err
	}
	if _, unsure := t.locate(ctx, id, 0, true); unsure != nil && !errors.Is(unsure, ErrKeyNotFound) {
		return unsure
	}
	return err
}

// Permissions asks the token what it permits with the newest version of the key
// and whether it is disabled, at the price of reading one object.
func (k *Key) Permissions(ctx context.Context) (usage KeyUsage, disabled bool, err error) {
	return k.VersionPermissions(ctx, k.Newest())
}

// Keys asks the token for the present state of all external keys, sorted by id.
// It searches the token once. Ambiguous keys are among them; PassedOver tells which
// keys are not.
func (t *Token) Keys(ctx context.Context) ([]KeyInfo, error) {
	var infos []KeyInfo
	err := t.doSearch(ctx, func(w *worker) error {
		found, err := w.keys()
		infos = found
		return err
	})
	if err != nil {
		return nil, err // the call may still write to infos
	}
	return infos, nil
}

func (w *worker) keys() ([]KeyInfo, error) {
	const tries = 3 // a key that goes while we look may have got other handles
	for n := 1; ; n++ {
		found, err := w.keysOnce()
		if err == nil || !isHandleGone(err) || n == tries {
			return found, err
		}
	}
}

func (w *worker) keysOnce() ([]KeyInfo, error) {
	objects, err := w.objects("", nil)
	if err != nil {
		return nil, err
	}
	groups := byLabel(objects)
	maps.DeleteFunc(groups, func(id string, _ []numbered) bool { return ValidateID(id) != nil })
	infos := make([]KeyInfo, 0, len(groups))
	for _, id := range slices.Sorted(maps.Keys(groups)) {
		info, err := w.keyInfo(id, groups[id])
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// keyInfo describes the key whose versions, at least one, are given.
func (w *worker) keyInfo(id string, found []numbered) (KeyInfo, error) {
	found, _ = settle(found)
	info := KeyInfo{ID: id, Token: w.t.name, Ambiguous: ambiguous(found), Versions: make([]VersionInfo, 0, len(found))}
	for _, o := range found {
		v, err := w.versionInfo(o)
		if err != nil {
			return KeyInfo{}, err
		}
		info.Versions = append(info.Versions, v)
	}
	info.Disabled = info.Newest().Disabled
	return info, nil
}

func (w *worker) versionInfo(o numbered) (VersionInfo, error) {
	p, err := w.permissions(o.handle)
	if err != nil {
		return VersionInfo{}, err
	}
	v := VersionInfo{Number: o.number, Encrypt: p.encrypt, Decrypt: p.decrypt, Disabled: p.mark.disabled, Marked: p.marked}
	told, err := w.t.attributes(w.session, o.handle, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_ALWAYS_SENSITIVE,
		pkcs11.CKA_NEVER_EXTRACTABLE, pkcs11.CKA_LOCAL, pkcs11.CKA_MODIFIABLE, pkcs11.CKA_WRAP_WITH_TRUSTED)
	if err != nil {
		return VersionInfo{}, err
	}
	for i, into := range []*bool{
		&v.Private, &v.Sensitive, &v.Extractable, &v.AlwaysSensitive, &v.NeverExtractable, &v.Local, &v.Modifiable, &v.WrapWithTrusted,
	} {
		*into = boolean(told[i])
	}
	return v, nil
}

// DestroyKey deletes one version of a key from the token, or all of them
// (number 0), for ever.
func (t *Token) DestroyKey(ctx context.Context, id string, number uint32) error {
	if isReserved(id) {
		return t.notFound(id)
	}
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
			t.index.destroyed(id, o.number)
		}
		return nil
	})
	if err != nil {
		return t.sureOf(ctx, id, err)
	}
	return t.refresh(ctx)
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
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, usage.Replicable != NotReplicable),
		pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, true), // or its usage could not be withdrawn
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, usage.Encrypt),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, usage.Decrypt),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, false),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, false),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false),
	}
	if usage.Replicable == ReplicableByTrusted {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_WRAP_WITH_TRUSTED, true))
	}
	if copyable {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_COPYABLE, true))
	}
	return template
}

// generate makes an AES-256 key with these attributes.
func (w *worker) generate(template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	template = append(template, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, aes256KeyLength))
	h, err := w.t.module.ctx.GenerateKey(w.session, cryptoki.Plain(pkcs11.CKM_AES_KEY_GEN), template)
	return h, w.fail("C_GenerateKey", err)
}
