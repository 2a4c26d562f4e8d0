package group_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/testlog"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/keystore/group"
)

func TestMain(m *testing.M) { os.Exit(tokentest.Main(m)) }

var modules keystore.Modules // one for the process, as in the product

var both = keystore.KeyUsage{Encrypt: true, Decrypt: true}

// rig is a group of tokens, each by a faulty module of its own, and another program
// that uses the same tokens by SoftHSM2 itself.
type rig struct {
	t       *testing.T
	modules []*tokentest.Faulty
	tokens  []*keystore.Token
	others  []*keystore.Token // the same tokens, of another program
	path    string            // of the known answers
	log     *testlog.Buffer
	group   *group.Group
	answers *group.Answers
}

// newRig makes a token for each profile. The group is not open yet.
func newRig(t *testing.T, profiles ...string) *rig {
	t.Helper()
	r := &rig{t: t, path: filepath.Join(t.TempDir(), "answers", "store.json"), log: new(testlog.Buffer)}
	for i, profile := range profiles {
		m := tokentest.NewFaulty(t)
		if profile == "luna" {
			m.Set(t, "iv appended")
		}
		u := m.Token(t, &modules)
		o := tokentest.Options(u)
		p, err := keystore.ProfileByName(profile)
		if err != nil {
			t.Fatal(err)
		}
		o.Name, o.Profile, o.Background = "token-"+string(rune('a'+i)), p, true
		o.ProbeInterval = time.Hour
		tok := tokentest.Open(t, &modules, o)
		t.Cleanup(func() { m.Set(t) }) // whatever hangs returns, so that Close can end
		u.ModulePath = tokentest.Module(t)
		r.modules, r.tokens = append(r.modules, m), append(r.tokens, tok)
		r.others = append(r.others, tokentest.Open(t, &modules, tokentest.Options(u)))
	}
	r.probe()
	return r
}

func newPair(t *testing.T) *rig { return newRig(t, "softhsm2", "softhsm2") }

func (r *rig) probe() {
	for _, tok := range r.tokens {
		tok.Probe(patient(r.t))
	}
}

// put gives one token a key with this material, by the other program.
// fell has a member fail until it is out of service.
func (r *rig) fell(i int) {
	r.t.Helper()
	r.modules[i].Set(r.t, "fail any 0x30")
	eventually(r.t, "it is out of service", func() bool { r.tokens[i].Probe(patient(r.t)); return !r.tokens[i].Available() })
}

// heal ends all that a member was told, and waits until it is back.
func (r *rig) heal(i int) {
	r.t.Helper()
	r.modules[i].Set(r.t)
	eventually(r.t, "it is back", r.tokens[i].Available)
}

func (r *rig) put(i int, id string, usage keystore.KeyUsage, material byte) {
	r.t.Helper()
	if err := r.others[i].ImportKey(patient(r.t), id, usage, bytes.Repeat([]byte{material}, 32)); err != nil {
		r.t.Fatal(err)
	}
}

// putAll gives all tokens the same key.
func (r *rig) putAll(id string, usage keystore.KeyUsage) {
	r.t.Helper()
	for i := range r.tokens {
		r.put(i, id, usage, 7)
	}
}

// putVersion makes a version of a key, as a program would that copies it.
func (r *rig) putVersion(i int, id string, number uint32, material byte) {
	r.t.Helper()
	mark := binary.BigEndian.AppendUint32([]byte("hyok\x01"), number)
	mark = append(mark, append([]byte{0}, rand.Text()[:8]...)...)
	r.raw(i, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		_, err := p.CreateObject(s, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, id), pkcs11.NewAttribute(pkcs11.CKA_ID, mark),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE, bytes.Repeat([]byte{material}, 32)),
		})
		return err
	})
}

// permit sets attributes of a key, as no command of hyok does.
func (r *rig) permit(i int, id string, usage keystore.KeyUsage) {
	r.t.Helper()
	r.raw(i, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		if err := p.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, id)}); err != nil {
			return err
		}
		found, _, err := p.FindObjects(s, 10)
		if err := errors.Join(err, p.FindObjectsFinal(s)); err != nil {
			return err
		}
		return p.SetAttributeValue(s, found[0], []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, usage.Encrypt), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, usage.Decrypt),
		})
	})
}

// raw does something as the other program, in a session of its own.
func (r *rig) raw(i int, do func(*pkcs11.Ctx, pkcs11.SessionHandle) error) {
	r.t.Helper()
	p := pkcs11.New(tokentest.Module(r.t))
	defer p.Destroy()
	s, err := p.OpenSession(r.others[i].Info().Slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := errors.Join(do(p, s), p.CloseSession(s)); err != nil {
		r.t.Fatal(err)
	}
}

// refresh has the tokens of the group notice what the other program did.
func (r *rig) refresh() {
	r.t.Helper()
	for _, tok := range r.tokens {
		if err := tok.Refresh(patient(r.t)); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) destroy(i int, id string) {
	r.t.Helper()
	if err := r.others[i].Refresh(patient(r.t)); err != nil {
		r.t.Fatal(err)
	}
	if err := r.others[i].DestroyKey(patient(r.t), id, 0); err != nil {
		r.t.Fatal(err)
	}
}

// open opens the group of these tokens, in this order, with what is in the file.
func (r *rig) open(order ...int) *rig {
	r.t.Helper()
	r.refresh()
	r.openAsIs(order...)
	return r
}

func (r *rig) openAsIs(order ...int) {
	r.t.Helper()
	r.openWithout(nil, order...)
}

// openWithout opens the group while those of absent cannot be opened.
func (r *rig) openWithout(absent []int, order ...int) {
	r.t.Helper()
	log := slog.New(slog.NewJSONHandler(r.log, nil))
	answers, err := group.OpenAnswers(r.path, log)
	if err != nil {
		r.t.Fatal(err)
	}
	var tokens []*keystore.Token
	for _, i := range order {
		tokens = append(tokens, r.tokens[i])
	}
	var missing []string
	for _, i := range absent {
		missing = append(missing, r.tokens[i].Name())
	}
	r.answers = answers
	r.group = group.New(group.Options{Name: "store", Tokens: tokens, Absent: missing, Answers: answers, Logger: log})
	r.group.Start()
	r.t.Cleanup(r.close)
}

// close closes the group, as the end of a process does.
func (r *rig) close() {
	if r.group == nil {
		return
	}
	r.group.Close()
	r.group = nil
	if err := r.answers.Close(); err != nil {
		r.t.Error(err)
	}
}

// find returns the key.
func (r *rig) find(id string) *group.Key {
	r.t.Helper()
	k, err := r.group.Find(patient(r.t), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return k
}

// encrypt seals under the newest version.
func (r *rig) encrypt(ctx context.Context, id string) (keystore.Sealed, *group.Key, error) {
	k, err := r.group.Find(ctx, id)
	if err != nil {
		return keystore.Sealed{}, nil, err
	}
	s, err := k.Encrypt(ctx, k.Newest(), []byte("plaintext"), []byte("context"))
	return s, k, err
}

func (r *rig) mustEncrypt(id string) keystore.Sealed {
	r.t.Helper()
	s, _, err := r.encrypt(patient(r.t), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) decrypt(ctx context.Context, id string, s keystore.Sealed) (*group.Key, error) {
	k, err := r.group.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	plaintext, err := k.Decrypt(ctx, k.Newest(), s, []byte("context"))
	if err == nil && string(plaintext) != "plaintext" {
		r.t.Errorf("decrypted to %q", plaintext)
	}
	return k, err
}

// served waits until these tokens, and no others, have served the key by turns.
func (r *rig) served(id string, members ...int) {
	r.t.Helper()
	s := r.mustEncrypt(id)
	eventually(r.t, "all members serve", func() bool {
		seen := map[string]bool{}
		for range 4 * len(r.tokens) {
			k, err := r.decrypt(patient(r.t), id, s)
			if err != nil {
				r.t.Fatal(err)
			}
			seen[k.Token()] = true
		}
		for _, i := range members {
			if !seen[r.tokens[i].Name()] {
				return false
			}
		}
		return len(seen) == len(members)
	})
}

// patient bounds what a test waits for, far above what it should take.
func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for ctx := patient(t); !holds(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}
