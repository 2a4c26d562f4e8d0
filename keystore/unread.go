package keystore

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/miekg/pkcs11"
)

// unread are the objects that the last search of a kind found and could not read.
// Somebody else's may be in the token for good, and is nobody's business; but it may
// as well be the one that is asked for, which is not to be called absent then.
type unread struct {
	mu      sync.Mutex
	objects map[pkcs11.ObjectHandle]error // what the token answered; guarded by mu
	labels  map[string]error              // what was found of labels since; guarded by mu
}

const mostUnreadLabels = 1024

// replace notes what a search could not read, and returns what was not known.
func (u *unread) replace(found map[pkcs11.ObjectHandle]error) (fresh map[pkcs11.ObjectHandle]error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fresh = maps.Clone(found)
	maps.DeleteFunc(fresh, func(h pkcs11.ObjectHandle, _ error) bool { return u.objects[h] != nil })
	u.objects, u.labels = found, nil
	return fresh
}

func (u *unread) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.objects)
}

// known returns what is known of a label; sure: there is no need to search.
func (u *unread) known(label string) (err error, sure bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	err, sure = u.labels[label]
	return err, sure || len(u.objects) == 0
}

// note notes which objects have a label.
func (u *unread) note(label string, handles []pkcs11.ObjectHandle) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var err error
	for _, h := range handles {
		if u.objects[h] != nil {
			err = u.objects[h]
		}
	}
	if u.labels == nil || len(u.labels) >= mostUnreadLabels {
		u.labels = map[string]error{}
	}
	u.labels[label] = err
}

// unread returns how many objects the last searches could not read.
func (t *Token) unread() int {
	n := t.index.unread.count()
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	for _, v := range t.life.vaults {
		n += v.residents.unread.count()
	}
	return n
}

// passOver notes what a search passes over, each object once in the log. Should the
// token fail for all, nothing is passed over.
func (w *worker) passOver(u *unread, found map[pkcs11.ObjectHandle]error) error {
	if len(found) > 0 {
		if err := w.selfTest(); err != nil {
			return err
		}
	}
	for h, err := range u.replace(found) {
		w.t.log.Warn("an object in the token cannot be read and is passed over", "handle", uint(h), "error", err)
	}
	return nil
}

// checkUnread returns an error if an object with a label may be one that cannot be
// read: then nobody knows whether it is the one that is missing.
func (t *Token) checkUnread(ctx context.Context, u *unread, label string) error {
	answer, sure := u.known(label)
	if !sure {
		if !t.index.look() {
			return fmt.Errorf("token %s: %w to look whether %s is an object that cannot be read", t.name, ErrBusy, printable(label))
		}
		err := t.doSearch(ctx, func(w *worker) error {
			handles, err := w.findObjects([]*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
				pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
			})
			if err == nil {
				u.note(label, handles)
			}
			return err
		})
		if err != nil {
			return err
		}
		answer, _ = u.known(label)
	}
	if answer == nil {
		return nil
	}
	return t.callError("C_GetAttributeValue", fmt.Errorf("the object labelled %s cannot be read: %w", printable(label), answer))
}
