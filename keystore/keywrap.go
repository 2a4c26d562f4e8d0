package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// KeyWrap is the mechanism by which a token wrapped key material. It is stored with
// the material: tokens do not agree on what the older of the two is.
type KeyWrap string

const (
	// WrapPad is CKM_AES_KEY_WRAP_PAD: RFC 5649 in SoftHSM2, RFC 3394 after padding
	// as PKCS #7 has it in others.
	WrapPad KeyWrap = ""
	// WrapKWP is CKM_AES_KEY_WRAP_KWP (PKCS#11 v3.0, section 2.14): RFC 5649.
	WrapKWP KeyWrap = "KWP"
)

const (
	ckmAESKeyWrapKWP = 0x210b     // PKCS#11 v3.0
	ckaNSSDB         = 0xd5a0db00 // a private key's public value, in NSS
)

// Mechanism returns the name of the mechanism.
func (k KeyWrap) Mechanism() string {
	if k == WrapKWP {
		return "CKM_AES_KEY_WRAP_KWP"
	}
	return "CKM_AES_KEY_WRAP_PAD"
}

// Known reports whether this version unwraps what was wrapped so.
func (k KeyWrap) Known() bool { return k == WrapPad || k == WrapKWP }

func (k KeyWrap) mechanism() cryptoki.Mechanism {
	if k == WrapKWP {
		return cryptoki.Plain(ckmAESKeyWrapKWP)
	}
	return cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP_PAD)
}

// keyWraps returns the key wraps that the token lists, the preferred one first.
func (w *worker) keyWraps(preferred KeyWrap) ([]KeyWrap, error) {
	var listed []KeyWrap
	for _, k := range []KeyWrap{WrapKWP, WrapPad} {
		ok, err := w.lists(k.mechanism().Type)
		if err != nil {
			return nil, err
		}
		if ok {
			listed = append(listed, k)
		}
	}
	if len(listed) == 2 && listed[0] != preferred {
		slices.Reverse(listed)
	}
	return listed, nil
}

// noKeyWrap is the error of a token that lists no key wrap.
func (t *Token) noKeyWrap() error {
	return fmt.Errorf("token %s: %w: it lists neither %s nor %s", t.name, ErrUnsupported, WrapKWP.Mechanism(), WrapPad.Mechanism())
}

// CheckWrapping returns ErrUnsupported if the token lists no mechanism to wrap keys
// by, so that all key material of the vault is resident.
func (v *Vault) CheckWrapping(ctx context.Context) error {
	return v.t.do(ctx, func(w *worker) error {
		listed, err := w.keyWraps(WrapKWP)
		if err == nil && len(listed) == 0 {
			err = w.t.noKeyWrap()
		}
		return err
	})
}

// Opens returns the error that the use of wrapped material would fail with because
// it does not open in this token; nil also for resident material, which is not
// looked for.
func (v *Vault) Opens(ctx context.Context, m *Material) error {
	if m.Resident() {
		return nil
	}
	k, err := v.cache.get(ctx, m)
	if err != nil {
		return err
	}
	k.release()
	return nil
}

// unwrap makes a session object of wrapped material. What was wrapped by one key
// wrap may be the other one in another token; both detect what is not theirs.
func (w *worker) unwrap(root pkcs11.ObjectHandle, m *Material, s shape) (pkcs11.ObjectHandle, error) {
	if !m.Wrap.Known() {
		return 0, fmt.Errorf("%w: the key wrap %s is not known", ErrUnsupported, printable(string(m.Wrap)))
	}
	listed, err := w.keyWraps(m.Wrap)
	if err != nil {
		return 0, err
	}
	if len(listed) == 0 {
		return 0, w.t.noKeyWrap()
	}
	var all error
	for _, k := range listed {
		h, err := w.unwrapBy(k, root, m, s)
		if err == nil || isSessionLost(err) || isHandleGone(err) || isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED) {
			return h, err
		}
		all = errors.Join(all, err)
	}
	return 0, all
}

func (w *worker) unwrapBy(k KeyWrap, root pkcs11.ObjectHandle, m *Material, s shape) (pkcs11.ObjectHandle, error) {
	templates := s.unwrapTemplates(m.Public)
	if w.t.fullTemplates.Load() {
		slices.Reverse(templates)
	}
	var err error
	for i, template := range templates {
		var h pkcs11.ObjectHandle
		if h, err = w.t.module.ctx.UnwrapKey(w.session, k.mechanism(), root, m.Wrapped, template); err == nil {
			if i > 0 {
				w.t.fullTemplates.Store(!w.t.fullTemplates.Load())
			}
			return h, nil
		}
		if !isTemplateRefused(err) && !isCode(err, pkcs11.CKR_KEY_TYPE_INCONSISTENT) {
			break
		}
	}
	return 0, w.fail("C_UnwrapKey", err)
}

// unwrapTemplates returns the templates to try for an object that is unwrapped: the
// standard's, and for elliptic curves one with the public value, which NSS wants.
func (s shape) unwrapTemplates(public []byte) [][]*pkcs11.Attribute {
	plain := s.template(storage{})
	if s.family != familyEC || len(public) == 0 {
		return [][]*pkcs11.Attribute{plain}
	}
	point, err := s.decodePoint(public)
	if err != nil {
		return [][]*pkcs11.Attribute{plain}
	}
	return [][]*pkcs11.Attribute{plain, append(s.template(storage{}), pkcs11.NewAttribute(ckaNSSDB, point))}
}
