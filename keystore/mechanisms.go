package keystore

import (
	"github.com/miekg/pkcs11"
)

// mechanismList is what a token says that it does. That it does what it lists only
// trying shows, see Wraps; what it does not list is not tried.
type mechanismList struct {
	epoch uint64        // sessionCount.losses when it was read
	types map[uint]bool // nil: the token does not tell
}

// lists reports whether the token lists a mechanism, or does not tell.
func (w *worker) lists(mechanism uint) (bool, error) {
	list := w.t.mechanisms.Load()
	if list == nil || list.epoch != w.epoch {
		var err error
		if list, err = w.readMechanisms(); err != nil {
			return false, err
		}
		w.t.mechanisms.Store(list)
	}
	return list.types == nil || list.types[mechanism], nil
}

func (w *worker) readMechanisms() (*mechanismList, error) {
	list := &mechanismList{epoch: w.epoch}
	types, err := w.t.module.ctx.GetMechanismList(uint(w.t.place.slot.Load()))
	if err != nil && !isCode(err, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		return nil, w.fail("C_GetMechanismList", err)
	}
	for _, t := range types {
		if list.types == nil {
			list.types = make(map[uint]bool, len(types))
		}
		list.types[t] = true
	}
	return list, nil
}

// isLacking reports whether err says that a token does not do at all what it was
// asked, whatever the key and the input are.
func isLacking(err error) bool {
	return isCode(err, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED,
		pkcs11.CKR_DOMAIN_PARAMS_INVALID, pkcs11.CKR_CURVE_NOT_SUPPORTED)
}

// isTemplateRefused reports whether err says that a token makes no object with such
// attributes.
func isTemplateRefused(err error) bool {
	return isCode(err, pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_READ_ONLY, pkcs11.CKR_ACTION_PROHIBITED)
}
