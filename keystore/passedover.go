package keystore

import (
	"context"
	"errors"
	"strings"

	"github.com/miekg/pkcs11"
)

// PassedOver counts the AES keys of a token that are no external keys, by why they
// are not. hyok's own keys are not counted.
type PassedOver struct {
	OtherLength int // not of 256 bits
	NoLabel     int
	BadLabel    int // the label cannot be an external key id, see ValidateID
	Unreadable  int // the token does not describe it
}

// Total is how many there are.
func (p PassedOver) Total() int { return p.OtherLength + p.NoLabel + p.BadLabel + p.Unreadable }

// PassedOver searches the token for AES keys that Keys leaves out.
func (t *Token) PassedOver(ctx context.Context) (PassedOver, error) {
	var count PassedOver
	err := t.doSearch(ctx, func(w *worker) error {
		handles, err := w.findKeys("")
		var fresh PassedOver
		for i := 0; err == nil && i < len(handles); i++ {
			err = fresh.add(w, handles[i])
		}
		count = fresh
		return err
	})
	if err != nil {
		return PassedOver{}, err // the call may still write to count
	}
	return count, nil
}

// add counts one object, if it is none of the external keys.
func (p *PassedOver) add(w *worker, h pkcs11.ObjectHandle) error {
	o, ok, err := w.describe(h)
	var answer *TokenError
	switch {
	case isHandleGone(err): // it went meanwhile
	case errors.As(err, &answer) && !isSessionLost(err):
		p.Unreadable++
	case err != nil:
		return err
	case isReserved(o.label) || strings.HasPrefix(o.label, residentPrefix):
	case !ok && o.label == "":
		p.NoLabel++
	case !ok:
		p.OtherLength++
	case ValidateID(o.label) != nil:
		p.BadLabel++
	}
	return nil
}
