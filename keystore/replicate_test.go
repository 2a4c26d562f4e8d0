package keystore_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

var replicable = keystore.KeyUsage{Encrypt: true, Decrypt: true, Replicable: keystore.ReplicableByAny}

// raw is a session of the test's own beside a token that is open in this process.
type raw struct {
	t       *testing.T
	ctx     *pkcs11.Ctx
	session pkcs11.SessionHandle
}

func newRaw(t *testing.T, module string, tok *keystore.Token) raw {
	t.Helper()
	r := raw{t: t, ctx: pkcs11.New(module)}
	var err error
	if r.session, err = r.ctx.OpenSession(tok.Info().Slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.ctx.CloseSession(r.session); err != nil {
			t.Error(err)
		}
		r.ctx.Destroy()
	})
	return r
}

// count returns how many objects of the token, or session objects, there are.
func (r raw) count(attributes ...*pkcs11.Attribute) int {
	r.t.Helper()
	if err := r.ctx.FindObjectsInit(r.session, attributes); err != nil {
		r.t.Fatal(err)
	}
	found, _, err := r.ctx.FindObjects(r.session, 1000)
	if err := errors.Join(err, r.ctx.FindObjectsFinal(r.session)); err != nil {
		r.t.Fatal(err)
	}
	return len(found)
}

// expect fails the test unless so many token objects and no session object is
// there, nor a token object that could be brought out of the token if none is to.
func (r raw) expect(what string, objects int, extractable bool) {
	r.t.Helper()
	on, off := pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)
	if n := r.count(on, pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true)); n != objects {
		r.t.Errorf("%s has %d token objects, not %d", what, n, objects)
	}
	if n := r.count(off); n != 0 {
		r.t.Errorf("%s has %d session objects", what, n)
	}
	out := r.count(on, pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true)) + r.count(on, pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false))
	if out > 0 && !extractable {
		r.t.Errorf("%s has %d objects that can be brought out", what, out)
	}
}

func mustReplicate(t *testing.T, from, to *keystore.Token, id string, o keystore.ReplicateOptions) []keystore.Replicated {
	t.Helper()
	done, err := keystore.Replicate(patient(t), from, to, id, o)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func opensIn(t *testing.T, tok *keystore.Token, id string, version uint32, s keystore.Sealed, want string) {
	t.Helper()
	got, err := find(t, tok, id).Decrypt(patient(t), version, s, nil)
	if err != nil || string(got) != want {
		t.Errorf("version %d in the other token opens to %q: %v", version, got, err)
	}
}

func TestReplicate(t *testing.T) {
	from, u := newToken(t)
	to, _ := newToken(t)
	k := generate(t, from, "k", replicable)
	first := seal(t, k, "first", "")
	if n, err := from.RotateKey(patient(t), "k"); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	second := seal(t, find(t, from, "k"), "second", "")
	done := mustReplicate(t, from, to, "k", keystore.ReplicateOptions{})
	if len(done) != 2 || !done[0].Made || !done[1].Made || done[0].Version != 1 || done[1].Version != 2 || len(done[0].Digest) != 64 || done[0].Digest == done[1].Digest {
		t.Errorf("%+v", done)
	}
	opensIn(t, to, "k", 1, first, "first")
	opensIn(t, to, "k", 2, second, "second")
	back := seal(t, find(t, to, "k"), "back", "") // under the newest version
	opensIn(t, from, "k", 2, back, "back")
	again := mustReplicate(t, from, to, "k", keystore.ReplicateOptions{})
	if len(again) != 2 || again[0].Made || again[1].Made || again[0].Digest != done[0].Digest || again[1].Digest != done[1].Digest {
		t.Errorf("again: %+v", again)
	}
	newRaw(t, u.ModulePath, to).expect("the target", 2, false)
	newRaw(t, u.ModulePath, from).expect("the source", 2, true)
	info, err := to.Describe(patient(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range info.Versions {
		if v.Extractable || !v.Sensitive || !v.Modifiable || !v.Marked || v.Local || v.Replicable() != keystore.NotReplicable {
			t.Errorf("%+v", v)
		}
	}
	// What is in the target lives without this process.
	if out := tool(t, u, "--list-objects", "--type", "secrkey"); strings.Count(out, "label:      k") != 2 {
		t.Error(out)
	}
}

// Each kind of token can be the source and the target.
func TestReplicateProfiles(t *testing.T) {
	wrapping := make([]byte, 32)
	_, _ = rand.Read(wrapping)
	open := func(profile string, behaviours []string) *keystore.Token {
		tok, m, _ := newFaulty(t, profile, behaviours)
		putWrappingKey(newRaw(t, m.Path, tok), "kek", wrapping)
		return tok
	}
	softhsm2 := open("softhsm2", nil)
	for profile, behaviours := range emulations() {
		t.Run(profile, func(t *testing.T) {
			other := open(profile, behaviours)
			for _, pair := range [][2]*keystore.Token{{softhsm2, other}, {other, softhsm2}} {
				id := rand.Text()
				s := seal(t, generate(t, pair[0], id, replicable), "p", "")
				done := mustReplicate(t, pair[0], pair[1], id, keystore.ReplicateOptions{WrappingKey: "kek", Replicable: keystore.ReplicableByAny})
				if len(done) != 1 || !done[0].Made {
					t.Errorf("%+v", done)
				}
				opensIn(t, pair[1], id, 1, s, "p")
			}
			id := rand.Text()
			s := seal(t, generate(t, other, id, replicable), "p", "")
			mustReplicate(t, other, softhsm2, id, keystore.ReplicateOptions{})
			opensIn(t, softhsm2, id, 1, s, "p")
		})
	}
}

// What a key may be used for goes with it.
func TestReplicateUsage(t *testing.T) {
	from, u := newToken(t)
	to, _ := newToken(t)
	target := newRaw(t, u.ModulePath, to)
	putWrappingKey(newRaw(t, u.ModulePath, from), "kek", make([]byte, 32))
	putWrappingKey(target, "kek", make([]byte, 32))
	for id, usage := range map[string]keystore.KeyUsage{
		"both": replicable, "encrypt": {Encrypt: true, Replicable: keystore.ReplicableByAny},
		"decrypt": {Decrypt: true, Replicable: keystore.ReplicableByAny}, "none": {Replicable: keystore.ReplicableByAny},
	} {
		for _, disabled := range []bool{false, true} {
			id := fmt.Sprintf("%s-%v", id, disabled)
			generate(t, from, id, usage)
			if disabled {
				if err := from.SetEnabled(patient(t), id, false); err != nil {
					t.Fatal(err)
				}
			}
			for _, made := range []bool{true, false} {
				done := mustReplicate(t, from, to, id, keystore.ReplicateOptions{WrappingKey: "kek"})
				if len(done) != 1 || done[0].Made != made || done[0].Disabled != disabled {
					t.Errorf("%s: %+v", id, done)
				}
			}
			if disabled {
				if _, err := find(t, to, id).Encrypt(patient(t), 1, []byte("p"), nil); !errors.Is(err, keystore.ErrKeyDisabled) {
					t.Errorf("%s: %v", id, err)
				}
				if err := to.SetEnabled(patient(t), id, true); err != nil {
					t.Fatal(err)
				}
			}
			got, off, err := find(t, to, id).Permissions(patient(t))
			if err != nil || off || got.Encrypt != usage.Encrypt || got.Decrypt != usage.Decrypt {
				t.Errorf("%s: %+v, %v, %v", id, got, off, err)
			}
		}
	}
	target.expect("the target", 9, false)
}

// A key of other software is copied too, and enabling it again does not lose it.
func TestReplicateForeignKey(t *testing.T) {
	from, u := newToken(t)
	to, _ := newToken(t)
	tool(t, u, "--keygen", "--key-type", "aes:32", "--label", "foreign", "--id", "0a0b", "--extractable", "--sensitive")
	s := seal(t, find(t, from, "foreign"), "p", "")
	if err := from.SetEnabled(patient(t), "foreign", false); err != nil {
		t.Fatal(err)
	}
	if done := mustReplicate(t, from, to, "foreign", keystore.ReplicateOptions{}); !done[0].Disabled || !done[0].Made {
		t.Errorf("%+v", done)
	}
	if err := to.SetEnabled(patient(t), "foreign", true); err != nil {
		t.Fatal(err)
	}
	opensIn(t, to, "foreign", 1, s, "p")
	// hyok makes no key extractable because another program did.
	if err := from.SetEnabled(patient(t), "foreign", true); err != nil {
		t.Fatal(err)
	}
	if _, err := from.RotateKey(patient(t), "foreign"); err != nil {
		t.Fatal(err)
	}
	info, err := from.Describe(patient(t), "foreign")
	if err != nil || info.Newest().Extractable {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestReplicateRefuses(t *testing.T) {
	from, _ := newToken(t)
	to, u := newToken(t)
	generate(t, from, "never", both)
	generate(t, from, "late", both)
	if _, err := from.RotateKeyAs(patient(t), "late", keystore.ReplicableByAny); err != nil {
		t.Fatal(err)
	}
	generate(t, from, "other", replicable)
	generate(t, to, "other", both)
	generate(t, from, "trusted", keystore.KeyUsage{Encrypt: true, Decrypt: true, Replicable: keystore.ReplicableByTrusted})
	for _, c := range []struct {
		id     string
		to     *keystore.Token
		o      keystore.ReplicateOptions
		err    error
		saying string
	}{
		{"never", to, keystore.ReplicateOptions{}, keystore.ErrNotReplicable, "CKA_EXTRACTABLE"},
		{"late", to, keystore.ReplicateOptions{}, keystore.ErrNotReplicable, "version 1 of the key late"},
		{"other", to, keystore.ReplicateOptions{}, keystore.ErrKeysDiffer, "version 1 of the key other"},
		{"trusted", to, keystore.ReplicateOptions{}, keystore.ErrNotReplicable, "CKA_TRUSTED"},
		{"nobody", to, keystore.ReplicateOptions{}, keystore.ErrKeyNotFound, "nobody"},
		{"late", to, keystore.ReplicateOptions{Version: 3}, keystore.ErrKeyNotFound, "version 3"},
		{"late", to, keystore.ReplicateOptions{Version: 2, WrappingKey: "absent"}, keystore.ErrKeyNotFound, "absent"},
		{"late", to, keystore.ReplicateOptions{Version: 2, WrappingKey: "hyok.root.kms"}, nil, "hyok's own"},
		{"hyok.probe", to, keystore.ReplicateOptions{}, nil, "hyok's own"},
		{"late", from, keystore.ReplicateOptions{Version: 2}, nil, "the same token"},
	} {
		done, err := keystore.Replicate(patient(t), from, c.to, c.id, c.o)
		if err == nil || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.saying) || len(done) > 0 {
			t.Errorf("%s %+v: %v, %+v", c.id, c.o, err, done)
		}
	}
	if ids := keyIDs(t, to); !slices.Equal(ids, []string{"other"}) {
		t.Errorf("the target has %v", ids)
	}
	newRaw(t, u.ModulePath, to).expect("the target", 1, false)
	// The one version that may leave does.
	if done := mustReplicate(t, from, to, "late", keystore.ReplicateOptions{Version: 2}); len(done) != 1 || done[0].Version != 2 {
		t.Errorf("%+v", done)
	}
}

// putWrappingKey puts an AES key into a token, as its owner would.
func putWrappingKey(r raw, label string, value []byte, more ...*pkcs11.Attribute) {
	r.t.Helper()
	_, err := r.ctx.CreateObject(r.session, append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE, value),
	}, more...))
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestReplicateUnderWrappingKey(t *testing.T) {
	from, u := newToken(t)
	to, _ := newToken(t)
	a, b := make([]byte, 32), make([]byte, 32)
	b[0] = 1
	source, target := newRaw(t, u.ModulePath, from), newRaw(t, u.ModulePath, to)
	putWrappingKey(source, "same", a)
	putWrappingKey(target, "same", a)
	putWrappingKey(source, "differs", a)
	putWrappingKey(target, "differs", b)
	putWrappingKey(source, "twice", a)
	putWrappingKey(target, "twice", a)
	putWrappingKey(target, "twice", b)
	s := seal(t, generate(t, from, "k", replicable), "p", "")
	for label, want := range map[string]struct {
		err    error
		saying string
	}{
		"differs": {keystore.ErrInvalidMaterial, "are not the same key"},
		"twice":   {keystore.ErrKeyAmbiguous, "2 AES keys"},
		"k":       {keystore.ErrKeyNotFound, "no AES key"}, // the target has none of that label
	} {
		if _, err := keystore.Replicate(patient(t), from, to, "k", keystore.ReplicateOptions{WrappingKey: label}); !errors.Is(err, want.err) || !strings.Contains(err.Error(), want.saying) {
			t.Errorf("%s: %v", label, err)
		}
	}
	target.expect("the target", 4, false)
	mustReplicate(t, from, to, "k", keystore.ReplicateOptions{WrappingKey: "same"})
	opensIn(t, to, "k", 1, s, "p")
	target.expect("the target", 5, false)
}

// A key that leaves under trusted wrapping keys alone, and one that the security
// officer has declared trusted.
func TestReplicateUnderTrustedKey(t *testing.T) {
	var tokens []*keystore.Token
	for range 2 {
		u := tokentest.NewToken(t, &modules)
		trust(t, u, "ceremony", make([]byte, 32))
		tokens = append(tokens, tokentest.Open(t, &modules, tokentest.Options(u)))
	}
	from, to := tokens[0], tokens[1]
	putWrappingKey(newRaw(t, tokentest.Module(t), from), "mine", make([]byte, 32))
	putWrappingKey(newRaw(t, tokentest.Module(t), to), "mine", make([]byte, 32))
	usage := keystore.KeyUsage{Encrypt: true, Decrypt: true, Replicable: keystore.ReplicableByTrusted}
	s := seal(t, generate(t, from, "k", usage), "p", "")
	if _, err := keystore.Replicate(patient(t), from, to, "k", keystore.ReplicateOptions{WrappingKey: "mine"}); !errors.Is(err, keystore.ErrUnsupported) {
		t.Errorf("under a key that nobody trusts: %v", err)
	}
	mustReplicate(t, from, to, "k", keystore.ReplicateOptions{WrappingKey: "ceremony", Replicable: keystore.ReplicableByTrusted})
	opensIn(t, to, "k", 1, s, "p")
	info, err := to.Describe(patient(t), "k")
	if err != nil || info.Newest().Replicable() != keystore.ReplicableByTrusted {
		t.Errorf("%+v, %v", info, err)
	}
}

// trust puts a trusted wrapping key into a token that nobody has open.
func trust(t *testing.T, u keystore.URI, label string, value []byte) {
	t.Helper()
	tokentest.Open(t, &modules, tokentest.Options(tokentest.NewToken(t, &modules))) // keeps the module initialized
	infos, err := modules.Tokens(u.ModulePath, "")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(infos, u.Matches)
	ctx := pkcs11.New(u.ModulePath)
	defer ctx.Destroy()
	s, err := ctx.OpenSession(infos[i].Slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	if err := ctx.Login(s, pkcs11.CKU_SO, "test-so-pin-4711"); err != nil {
		t.Fatal(err)
	}
	putWrappingKey(raw{t, ctx, s}, label, value, pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false), pkcs11.NewAttribute(pkcs11.CKA_TRUSTED, true))
	if err := errors.Join(ctx.Logout(s), ctx.CloseSession(s)); err != nil {
		t.Fatal(err)
	}
}
