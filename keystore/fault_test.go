package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for ctx := patient(t); !holds(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// hangs waits until a call hangs in the module: with "count 1" the next ones
// will not.
func hangs(t *testing.T, m *tokentest.Faulty) {
	t.Helper()
	eventually(t, "a call hangs", func() bool { return m.Count(t, tokentest.HangingCalls) == 1 })
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func sessions(n int) func(*keystore.Options) {
	return func(o *keystore.Options) { o.Sessions = n }
}

func TestOneCallHangs(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(2))
	k := generate(t, tok, "k", both)
	m.Set(t, "hang C_Encrypt count 1")
	if _, err := k.Encrypt(soon(t), 1, []byte("p"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	hangs(t, m)
	if n := tok.Stats().Stuck; n != 1 {
		t.Errorf("%d calls are stuck", n)
	}
	for range 20 {
		seal(t, k, "p", "") // by the other session
	}
	if h := tok.Probe(patient(t)); h.State != keystore.Degraded {
		t.Errorf("health: %+v", h)
	}
	m.Set(t)
	eventually(t, "no call is stuck", func() bool { return tok.Stats().Stuck == 0 })
	seal(t, k, "p", "")
}

// Whatever function hangs, callers are answered in time, and all is well once
// the module returns.
func TestAllCallsHang(t *testing.T) { isolations(t, testAllCallsHang) }

func testAllCallsHang(t *testing.T, isolation func(*keystore.Options)) {
	for _, function := range []string{"C_Encrypt", "C_EncryptInit", "C_GenerateRandom", "C_OpenSession", "C_Login", "C_GetSessionInfo", "any"} {
		t.Run(function, func(t *testing.T) {
			tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(3), isolation)
			k := generate(t, tok, "k", both)
			// All sessions are opened anew, so that opening one can hang too.
			m.Set(t, "lose-sessions 1", "hang "+function)
			for range 3 {
				if _, err := k.Encrypt(soon(t), 1, []byte("p"), nil); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
			}
			// Now nobody waits any more, however long he would.
			for range 100 {
				_, err := k.Encrypt(patient(t), 1, []byte("p"), nil)
				if !errors.Is(err, keystore.ErrUnavailable) {
					t.Fatal(err)
				}
				if after := keystore.RetryAfter(err); after < 250*time.Millisecond || after > 5*time.Second {
					t.Fatalf("another try is of use after %v", after)
				}
			}
			if err := tok.GenerateKey(patient(t), "another", both); !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("generate: %v", err)
			}
			if s := tok.Stats(); s.Stuck < 3 || s.Stuck > 6 || s.Trips != 1 || tok.Available() {
				t.Errorf("%+v", s)
			}
			if h := tok.Probe(soon(t)); h.State != keystore.Unavailable {
				t.Errorf("health: %+v", h)
			}
			m.Set(t)
			eventually(t, "no call is stuck, and the token is back", func() bool { return tok.Stats().Stuck == 0 && tok.Available() })
			seal(t, k, "p", "")
			eventually(t, "what was in the place of stuck sessions is closed", func() bool { return tok.Stats().Sessions <= 3 })
		})
	}
}

// Searches and changes of the token wait for each other, but no longer than
// their callers do, and nobody who encrypts waits for them.
func TestSearchOrChangeHangs(t *testing.T) {
	for function, searchesWait := range map[string]bool{"C_GenerateKey": true, "C_FindObjectsInit": false} {
		t.Run(function, func(t *testing.T) {
			tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(3))
			k := generate(t, tok, "k", both)
			m.Set(t, "hang "+function+" count 1")
			hung := tok.Refresh
			if searchesWait {
				hung = func(ctx context.Context) error { return tok.GenerateKey(ctx, "first", both) }
			}
			ctx, cancel := context.WithCancel(patient(t))
			answer := make(chan error, 1)
			go func() { answer <- hung(ctx) }()
			hangs(t, m)
			cancel()
			if err := <-answer; !errors.Is(err, context.Canceled) || errors.Is(err, keystore.ErrBusy) {
				t.Errorf("the call that hangs: %v", err)
			}
			search := patient(t)
			if searchesWait {
				search = soon(t)
			}
			if _, err := tok.Describe(search, "k"); errors.Is(err, keystore.ErrBusy) != searchesWait || (err != nil) != searchesWait {
				t.Errorf("describe: %v", err)
			}
			if err := tok.GenerateKey(soon(t), "second", both); !errors.Is(err, keystore.ErrBusy) {
				t.Errorf("generate: %v", err)
			}
			seal(t, k, "p", "")
			m.Set(t)
			if err := tok.GenerateKey(patient(t), "third", both); err != nil {
				t.Errorf("generate, well again: %v", err)
			}
			if _, err := tok.Describe(patient(t), "third"); err != nil {
				t.Errorf("describe, well again: %v", err)
			}
		})
	}
}

// Until a session copy is whole it looks like a second key of the same id: no
// search runs while one is made, and who encrypts does not wait for it.
func TestCopyingHangs(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(3), background)
	k := generate(t, tok, "k", both)
	m.Set(t, "hang C_CopyObject count 1")
	eventually(t, "a copy is being made", func() bool { seal(t, k, "p", ""); return m.Count(t, tokentest.HangingCalls) == 1 })
	if _, err := tok.Describe(soon(t), "k"); !errors.Is(err, keystore.ErrBusy) {
		t.Errorf("describe: %v", err)
	}
	seal(t, k, "p", "")
	m.Set(t)
	if _, err := tok.Describe(patient(t), "k"); err != nil {
		t.Errorf("describe, well again: %v", err)
	}
}

func TestOpenHangs(t *testing.T) {
	for _, function := range []string{"C_Initialize", "C_GetSlotList", "C_OpenSession", "C_Login"} {
		t.Run(function, func(t *testing.T) {
			m := tokentest.NewFaulty(t)
			u := m.Token(t, &modules)
			m.Set(t, "hang "+function)
			if _, err := keystore.Open(soon(t), &modules, tokentest.Options(u)); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			m.Set(t)
			eventually(t, "the module is finalized", func() bool { return m.Count(t, "C_Finalize") == 1 })
			tok := tokentest.Open(t, &modules, tokentest.Options(u))
			generate(t, tok, "k", both)
		})
	}
}

func TestCloseWhileACallHangs(t *testing.T) {
	m := tokentest.NewFaulty(t)
	tok, err := keystore.Open(patient(t), &modules, tokentest.Options(m.Token(t, &modules)))
	if err != nil {
		t.Fatal(err)
	}
	k := generate(t, tok, "k", both)
	m.Set(t, "hang C_Encrypt")
	if _, err := k.Encrypt(soon(t), 1, []byte("p"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := tok.Close(soon(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: %v", err)
	}
	if n := m.Count(t, "C_Finalize"); n != 0 {
		t.Error("the module was finalized under a running call")
	}
	for name, call := range operations(tok, k) {
		if err := call(patient(t)); !errors.Is(err, keystore.ErrClosed) {
			t.Errorf("%s of a closed token: %v", name, err)
		}
	}
	m.Set(t)
	for range 2 {
		if err := tok.Close(patient(t)); err != nil {
			t.Errorf("close again: %v", err)
		}
	}
	if n := m.Count(t, "C_Finalize"); n != 1 {
		t.Errorf("the module was finalized %d times", n)
	}
}

func operations(tok *keystore.Token, k *keystore.Key) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"encrypt":  func(ctx context.Context) error { _, err := k.Encrypt(ctx, 1, []byte("p"), nil); return err },
		"describe": func(ctx context.Context) error { _, err := tok.Describe(ctx, "k"); return err },
		"perms":    func(ctx context.Context) error { _, _, err := k.Permissions(ctx); return err },
		"refresh":  tok.Refresh,
		"generate": func(ctx context.Context) error { return tok.GenerateKey(ctx, "new", both) },
		"disable":  func(ctx context.Context) error { return tok.SetEnabled(ctx, "k", false) },
	}
}

// Callers that are at work while the token is closed are answered, and nothing
// touches the module afterwards.
func TestCloseUnderLoad(t *testing.T) {
	for range 5 {
		m := tokentest.NewFaulty(t)
		o := tokentest.Options(m.Token(t, &modules))
		o.Background, o.Sessions = true, 2
		tok, err := keystore.Open(patient(t), &modules, o)
		if err != nil {
			t.Fatal(err)
		}
		k := generate(t, tok, "k", both)
		ctx := patient(t)
		var wg sync.WaitGroup
		for _, call := range operations(tok, k) {
			for range 2 {
				wg.Go(func() {
					for !errors.Is(call(ctx), keystore.ErrClosed) && ctx.Err() == nil {
					}
				})
			}
		}
		eventually(t, "all are at work", func() bool { return tok.Stats().Calls > 30 })
		if err := tok.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		wg.Wait()
		if ctx.Err() != nil {
			t.Error("somebody was not told that the token is closed")
		}
		if n := m.Count(t, tokentest.OpenSessions); n != 0 {
			t.Errorf("%d sessions are open", n)
		}
	}
}

// A token that restarts loses sessions, logins, copies and handles. Nobody
// notices but by the time it takes, or by one error of the token.
func TestRestarts(t *testing.T) { isolations(t, testRestarts) }

func testRestarts(t *testing.T, isolation func(*keystore.Options)) {
	faults := map[string]struct {
		behaviours func(n int) []string
		seamless   bool // not one call fails
	}{
		"sessions lost": {func(n int) []string { return []string{fmt.Sprintf("lose-sessions %d", n)} }, true},
		"renumbered":    {func(n int) []string { return []string{fmt.Sprintf("renumber %d", n)} }, true},
		"restarted": {func(n int) []string {
			return []string{fmt.Sprintf("lose-sessions %d", n), fmt.Sprintf("renumber %d", n)}
		}, true},
		"session invalid": {func(int) []string { return []string{"fail C_EncryptInit 0xb3 count 1"} }, true},
		"not logged in":   {func(int) []string { return []string{"fail C_EncryptInit 0x101 count 1"} }, true},
		"device error":    {func(int) []string { return []string{"fail any 0x30 count 3"} }, false},
		"device removed":  {func(int) []string { return []string{"fail any 0x32 count 5"} }, false},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(4), isolation)
			k := generate(t, tok, "k", both)
			s := seal(t, k, "p", "")
			for n := 1; n <= 15; n++ {
				m.Set(t, fault.behaviours(n)...)
				for i := range 3 * 4 {
					err := useAll(t, tok, s)
					var te *keystore.TokenError
					if err != nil && (fault.seamless || !errors.As(err, &te) || errors.Is(err, keystore.ErrKeyNotFound) || errors.Is(err, keystore.ErrInvalidCiphertext)) {
						t.Fatalf("fault %d, call %d: %v", n, i, err)
					}
				}
				if err := useAll(t, tok, s); err != nil {
					t.Fatalf("it does not recover: %v", err)
				}
			}
		})
	}
}

// Another user of the module in this process logs out, for all of it: to a
// search, private keys are not there then.
func TestLoggedOutByAnother(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(2))
	s := seal(t, generate(t, tok, "k", both), "p", "")
	another := pkcs11.New(m.Path)
	defer another.Destroy()
	for range 5 {
		session, err := another.OpenSession(tok.Info().Slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(another.Logout(session), another.CloseSession(session)); err != nil {
			t.Fatal(err)
		}
		if err := useAll(t, tok, s); err != nil {
			t.Fatal(err)
		}
	}
}

func useAll(t *testing.T, tok *keystore.Token, s keystore.Sealed) error {
	k, err := tok.Find(patient(t), "k")
	if err != nil {
		return err
	}
	_, encErr := k.Encrypt(patient(t), 1, []byte("p"), nil)
	_, decErr := k.Decrypt(patient(t), 1, s, nil)
	_, _, permErr := k.Permissions(patient(t))
	_, descErr := tok.Describe(patient(t), "k")
	return errors.Join(encErr, decErr, permErr, descErr)
}

// The same while many use the token at once, with session copies.
func TestRestartsUnderLoad(t *testing.T) { isolations(t, testRestartsUnderLoad) }

func testRestartsUnderLoad(t *testing.T, isolation func(*keystore.Options)) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(4), background, isolation)
	k := generate(t, tok, "k", both)
	s := seal(t, k, "p", "")
	ctx, stop := context.WithCancel(patient(t))
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := useAll(t, tok, s)
				var te *keystore.TokenError
				if err != nil && (!errors.As(err, &te) || errors.Is(err, keystore.ErrKeyNotFound) || errors.Is(err, keystore.ErrInvalidCiphertext)) {
					t.Errorf("%v", err)
				}
			}
		})
	}
	for n := 1; n <= 3; n++ {
		eventually(t, "the key has a copy", func() bool { return tok.Stats().Copies > 0 })
		copies := m.Count(t, "C_CopyObject")
		m.Set(t, fmt.Sprintf("lose-sessions %d", n), fmt.Sprintf("renumber %d", n))
		eventually(t, "a new copy is made", func() bool { return m.Count(t, "C_CopyObject") > copies })
	}
	stop()
	wg.Wait()
	if err := useAll(t, tok, s); err != nil {
		t.Error(err)
	}
}

// A copy keeper that hangs in the module must not keep a deleted key alive.
func TestHangingCopyKeeper(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil, background)
	k := generate(t, tok, "doomed", both)
	eventually(t, "the key has a copy", func() bool { seal(t, k, "p", ""); return tok.Stats().Copies > 0 })
	m.Set(t, "hang C_GetAttributeValue count 1") // nobody but the keeper asks
	hangs(t, m)
	u.ModulePath = tokentest.Module(t)
	tool(t, u, "--delete-object", "--type", "secrkey", "--label", "doomed")
	dead := time.Now()
	last := dead
	ctx := patient(t)
	for {
		begin := time.Now()
		_, err := k.Encrypt(ctx, 1, []byte("p"), nil)
		if errors.Is(err, keystore.ErrKeyNotFound) {
			break
		}
		if err != nil || begin.Sub(dead) > 5*time.Second {
			t.Fatalf("%v after the deletion: %v", begin.Sub(dead), err)
		}
		last = begin
	}
	if worked := last.Sub(dead); worked > time.Second {
		t.Errorf("the key worked for %v more", worked)
	}
}

// returns reports whether f returns.
func returns(t *testing.T, f func()) bool {
	t.Helper()
	done := make(chan struct{})
	go func() {
		f()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-patient(t).Done():
		return false
	}
}

// What says where a token is, and what permits another login, call no module: they
// return although the call hangs that looks for the token or logs in.
func TestNothingElseWaitsForAHangingCall(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(3))
	k := generate(t, tok, "k", both)
	for n, function := range []string{"C_GetTokenInfo", "C_Login"} {
		m.Set(t, fmt.Sprintf("lose-sessions %d", n+1), "hang "+function)
		if _, err := k.Encrypt(soon(t), 1, []byte("p"), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		eventually(t, "a call hangs", func() bool { return m.Count(t, tokentest.HangingCalls) > 0 })
		if !returns(t, func() { tok.Info() }) || !returns(t, tok.RetryPIN) {
			t.Errorf("somebody waits for %s", function)
		}
		m.Set(t)
		eventually(t, "no call is stuck, and the token is back", func() bool { return tok.Stats().Stuck == 0 && tok.Available() })
	}
}
