package keystore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// However often a token is opened whose module hangs, few calls hang in it, and a
// wrong PIN is tried once, of which whoever opened it is told.
func TestOpenAgainWhileTheModuleHangs(t *testing.T) {
	for function, want := range map[string]struct{ most, logins int }{
		"C_GetSlotList": {most: 3},
		"C_OpenSession": {most: 3},
		"C_Login":       {most: 1, logins: 1},
	} {
		t.Run(function, func(t *testing.T) {
			m := tokentest.NewFaulty(t)
			o := tokentest.Options(m.Token(t, &modules))
			o.PIN = func() (string, error) { return "a wrong PIN", nil }
			late := make(chan error, 5)
			o.Late = func(err error) { late <- err }
			m.Set(t, "hang "+function)
			for range 5 {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				if _, err := keystore.Open(ctx, &modules, o); !keystore.MayPass(err) {
					t.Error(err)
				}
				cancel()
			}
			if n := m.Count(t, "hanging-calls"); n != want.most {
				t.Errorf("%d calls hang", n)
			}
			m.Set(t)
			if want.logins > 0 {
				select {
				case err := <-late:
					if !errors.Is(err, keystore.ErrPINIncorrect) {
						t.Error(err)
					}
				case <-patient(t).Done():
					t.Fatal("nobody is told of the refused PIN")
				}
			}
			o.PIN = func() (string, error) { return tokentest.PIN, nil }
			before := m.Count(t, "C_Login")
			if before != want.logins {
				t.Errorf("the PIN was tried %d times", before)
			}
			for ctx := patient(t); ; {
				tok, err := keystore.Open(ctx, &modules, o)
				if err == nil {
					if err := tok.Close(ctx); err != nil {
						t.Error(err)
					}
					break
				}
				if !errors.Is(err, keystore.ErrUnavailable) {
					t.Fatal(err)
				}
			}
			if n := m.Count(t, "C_Login") - before; n != 1 {
				t.Errorf("%d logins once it is back", n)
			}
		})
	}
}
