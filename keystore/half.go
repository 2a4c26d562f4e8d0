package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// SoftHSM2 (2.6.1) makes a token object in many steps: first without a label,
// attribute by attribute, then with its template, then with its value. A process
// that is killed in between leaves what it has by then. Objects without a label, or
// an empty file, are not even token objects, are never found and hold no key. An
// object that has its label and no value is found, and every use of it fails. Of
// resident keys the owner of the vault knows those and destroys them; the probe key
// and the root key are looked at here.

// isLocal reports whether the token says that it generated a key itself, which is
// the last thing that C_GenerateKey says of one. A token that does not tell is
// believed to have.
func (w *worker) isLocal(h pkcs11.ObjectHandle) bool {
	values, err := w.values(h, pkcs11.CKA_LOCAL)
	return err != nil || len(values[0]) != 1 || values[0][0] != 0
}

// removeHalf destroys those of some probe keys that were not finished, and returns
// the others. Nothing is lost by it: nothing is encrypted under a probe key.
func (w *worker) removeHalf(probes []pkcs11.ObjectHandle) (whole []pkcs11.ObjectHandle, err error) {
	for _, h := range probes {
		if w.isLocal(h) || w.roundTrip(h) == nil {
			whole = append(whole, h)
			continue
		}
		if e := w.t.module.ctx.DestroyObject(w.session, h); !isHandleGone(e) {
			err = errors.Join(err, w.fail("C_DestroyObject", e))
		}
	}
	return whole, err
}

// checkWhole returns an error if the root key, which did not wrap a key, was not
// finished. hyok does not delete any root key by itself.
func (r *rootKey) checkWhole(ctx context.Context) error {
	half := false
	err := r.v.t.doSearch(ctx, func(w *worker) error {
		handles, err := w.findKeys(r.label) // anew: after a failure its session, and so its handle, may be gone
		for _, h := range handles {
			half = half || !w.isLocal(h)
		}
		return err
	})
	if err != nil || !half {
		return err
	}
	return fmt.Errorf("%w: %s in token %s does not wrap, and the token does not count it as generated there. If it was not brought there by somebody, a process was killed while it made the key: then nothing was ever wrapped under it; delete it and start again",
		ErrRootKey, r.label, r.v.t.name)
}
