package keystore

import (
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// reuser is a module that gives the handle of a session that is gone to the next one.
type reuser struct {
	cryptoki.Module
	closed []pkcs11.SessionHandle
}

func (r *reuser) OpenSession(uint, uint) (pkcs11.SessionHandle, error) { return 1, nil }

func (r *reuser) CloseSession(s pkcs11.SessionHandle) error {
	r.closed = append(r.closed, s)
	return nil
}

// A session that the token lost is not closed once its handle is another's.
func TestCloseSessionOfAnother(t *testing.T) {
	m := &reuser{}
	tok := &Token{name: "test", module: &module{ctx: m}}
	open := func() (pkcs11.SessionHandle, uint64) {
		t.Helper()
		s, issue, err := tok.openSession(false, 0)
		if err != nil {
			t.Fatal(err)
		}
		return s, issue
	}
	lost, first := open()
	s, second := open()
	if lost != s || first == second {
		t.Fatal(lost, s, first, second)
	}
	for _, issue := range []uint64{first, second, second} {
		if err := tok.closeSession(s, issue); err != nil {
			t.Error(err)
		}
		if want := map[uint64]int{first: 0, second: 1}[issue]; len(m.closed) != want {
			t.Errorf("closed %v", m.closed)
		}
	}
	if !slices.Equal(m.closed, []pkcs11.SessionHandle{1}) {
		t.Errorf("closed %v", m.closed)
	}
}
