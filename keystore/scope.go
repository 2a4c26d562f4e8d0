package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki/scope"
)

// confine confines a module to Modules.Scope.
func (ms *Modules) confine(m cryptoki.Module) cryptoki.Module {
	if ms.Scope == "" {
		return m
	}
	return scope.Confine(m, ms.Scope)
}

// Purge destroys the token objects with a label, or all of them for "", and returns
// how many there were. It refuses to work without Modules.Scope.
func (t *Token) Purge(ctx context.Context, label string) (int, error) {
	if t.modules.Scope == "" {
		return 0, fmt.Errorf("token %s: only what is in a scope can be purged", t.name)
	}
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}
	if label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	}
	var labels []string
	err := t.admin(ctx, func(w *worker) error {
		found, err := w.findObjects(template)
		if err == nil {
			err = w.checkLogin()
		}
		var gone []string
		for _, h := range found {
			values, readErr := w.values(h, pkcs11.CKA_LABEL)
			if readErr == nil {
				gone = append(gone, string(values[0]))
			}
			err = errors.Join(err, readErr, w.destroy(h))
		}
		labels = gone
		return err
	})
	if err != nil {
		return 0, err // the call may still write to labels
	}
	for _, l := range labels {
		t.leave(l)
	}
	return len(labels), nil
}

// LoseSessions closes all sessions that this process has with the token, as one does
// that restarts; those of other processes stay. It refuses to work without
// Modules.Scope.
func (t *Token) LoseSessions() error {
	closer, ok := t.module.ctx.(interface{ CloseAllSessions(slot uint) error })
	if t.modules.Scope == "" || !ok {
		return fmt.Errorf("token %s: its sessions are not to be lost on purpose", t.name)
	}
	return t.callError("C_CloseAllSessions", closer.CloseAllSessions(uint(t.place.slot.Load())))
}
