package keystore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/miekg/pkcs11"
)

// Where a token makes a key in several steps (see Profile.HalfKeys), a process that
// is killed in between would leave a key that has its name and cannot be used, and
// that, as the newest version, all encryptions would go to. So a key is made under
// a name of ours first, which no search returns, and gets its own by one last call
// once it is whole.
const (
	stagedLabel = reservedPrefix + "new"
	stagedAge   = time.Hour // after which what is staged counts as left behind
)

// stagedID returns a CKA_ID of a key that is not finished: since when, in seconds of
// Unix time, and random bytes.
func stagedID() []byte {
	id := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix()))
	random := make([]byte, 8)
	_, _ = rand.Read(random) // never fails
	return append(id, random...)
}

// makeWhole has produce make a token key from a template, with its label and CKA_ID
// only when it is whole and check, if there is one, approves of it. What fails is
// destroyed again.
func (w *worker) makeWhole(template []*pkcs11.Attribute, check func(pkcs11.ObjectHandle) error, produce func([]*pkcs11.Attribute) (pkcs11.ObjectHandle, error)) (pkcs11.ObjectHandle, error) {
	staged, last := stage(template)
	h, err := produce(staged)
	if err != nil {
		return 0, errors.Join(err, w.removeStaged(staged))
	}
	if check != nil {
		err = check(h)
	}
	if err == nil {
		err = w.setAttributes(h, last)
	}
	if err != nil {
		return 0, errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, h)))
	}
	return h, nil
}

// stage parts a template into that of the unfinished key, which may be used to check
// it, and the attributes that are set last.
func stage(template []*pkcs11.Attribute) (staged, last []*pkcs11.Attribute) {
	staged = slices.Clone(template)
	for i, a := range staged {
		switch a.Type {
		case pkcs11.CKA_LABEL:
			staged[i] = pkcs11.NewAttribute(a.Type, stagedLabel)
		case pkcs11.CKA_ID:
			staged[i] = pkcs11.NewAttribute(a.Type, stagedID())
		case pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT:
			staged[i] = pkcs11.NewAttribute(a.Type, true)
		default:
			continue
		}
		last = append(last, a)
	}
	return staged, last
}

// removeStaged destroys what a call has left that failed to make a key from a
// template.
func (w *worker) removeStaged(staged []*pkcs11.Attribute) error {
	i := slices.IndexFunc(staged, func(a *pkcs11.Attribute) bool { return a.Type == pkcs11.CKA_ID })
	handles, err := w.findObjects([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, stagedLabel), staged[i],
	})
	for _, h := range handles {
		err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, h)))
	}
	return err
}

// sweepStaged destroys what killed processes have left unfinished. Younger keys may
// be another process's, which is about to finish them. That it fails is no reason
// to make no keys.
func (w *worker) sweepStaged() {
	handles, err := w.findKeys(stagedLabel)
	for _, h := range handles {
		values, readErr := w.values(h, pkcs11.CKA_ID)
		if readErr != nil || len(values[0]) < 8 {
			continue // it goes as we look, or is not ours
		}
		since := time.Unix(int64(binary.BigEndian.Uint64(values[0])), 0)
		if time.Since(since) < stagedAge {
			continue
		}
		err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, h)))
	}
	if err != nil {
		w.t.log.Warn("keys that killed processes left unfinished could not be destroyed", "label", stagedLabel, "error", err)
	}
}
