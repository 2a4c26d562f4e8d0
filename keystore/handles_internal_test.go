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

// FindObjects and GetAttributeValue: the object under handle 5 is labelled "other" now.
func (r *reuser) FindObjects(pkcs11.SessionHandle, cryptoki.Template) ([]pkcs11.ObjectHandle, error) {
	return []pkcs11.ObjectHandle{5}, nil
}

func (r *reuser) GetAttributeValue(_ pkcs11.SessionHandle, _ pkcs11.ObjectHandle, t cryptoki.Template) (cryptoki.Template, error) {
	told := make(cryptoki.Template, len(t))
	for i, a := range t {
		told[i] = &pkcs11.Attribute{Type: a.Type}
		if a.Type == pkcs11.CKA_LABEL {
			told[i].Value = []byte("other")
		}
	}
	return told, nil
}

// A key that was destroyed gives its name to no other one that has got its handle.
func TestHandleOfAnother(t *testing.T) {
	tok := &Token{name: "test", module: &module{ctx: &reuser{}}}
	w := &worker{t: tok}
	old := object{handle: 5, label: "old"}
	found, err := w.objects("", map[pkcs11.ObjectHandle]object{5: old})
	if err != nil || len(found) != 1 || found[0].label != "other" {
		t.Errorf("a search found %v, %v", found, err)
	}
	if err := w.confirm("old", &version{handle: 5}); !isHandleGone(err) {
		t.Errorf("the handle of another key was confirmed: %v", err)
	}
	if err := w.confirm("other", &version{handle: 5}); err != nil {
		t.Errorf("the handle of the key: %v", err)
	}
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
