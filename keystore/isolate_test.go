package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

func isolated(o *keystore.Options) { o.Isolated = true }

// children returns the processes that this one has started as processes of modules.
func children(t *testing.T) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if fields[1] == strconv.Itoa(os.Getpid()) && bytes.Contains(line, []byte("\x00"+keystore.ModuleCommand+"\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// The process of a module is killed again and again under load: nothing is wrong,
// no other token notices, and all is well by itself.
func TestChildIsKilled(t *testing.T) {
	other, _ := newToken(t)
	otherKey := generate(t, other, "k", both)
	tok, _, u := newFaulty(t, "softhsm2", nil, sessions(4), background, isolated)
	generate(t, tok, "k", both)
	w := newWitness(t, u)
	// Others in use, so that handles of one process name other keys in the next.
	for i := range 8 {
		generate(t, tok, fmt.Sprintf("other-%d", i), both)
	}
	ctx, stop := context.WithCancel(patient(t))
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for ctx.Err() == nil {
				w.check(patient(t), t, tok)
				w.checkOthers(t, tok)
				seal(t, otherKey, "p", "")
			}
		})
	}
	for range 5 {
		before := tok.Stats().Resets
		found := children(t)
		if len(found) != 1 {
			t.Fatalf("there are %d processes of modules", len(found))
		}
		if err := syscall.Kill(found[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another has taken its place", func() bool { return tok.Stats().Resets > before && tok.Available() })
		eventually(t, "it serves", func() bool { return w.check(patient(t), t, tok) })
	}
	stop()
	users.Wait()
	if s := other.Stats(); s.Trips != 0 || s.Failures != 0 {
		t.Errorf("the other token noticed: %+v", s)
	}
	if err := tok.Close(patient(t)); err != nil {
		t.Error(err)
	}
	eventually(t, "no process is left", func() bool { return len(children(t)) == 0 })
}

// checkOthers encrypts under the other keys, each of which must open its own.
func (w *witness) checkOthers(t *testing.T, tok *keystore.Token) {
	for i := range 8 {
		id := fmt.Sprintf("other-%d", i)
		k, err := tok.Find(patient(t), id)
		if err != nil {
			continue
		}
		sealed, err := k.Encrypt(patient(t), 1, []byte(id), nil)
		if err != nil {
			continue
		}
		known, err := w.tok.Find(patient(t), id)
		if err != nil {
			t.Error(err)
			continue
		}
		if text, err := known.Decrypt(patient(t), 1, sealed, nil); err != nil || string(text) != id {
			t.Errorf("%s was encrypted under another key: %v", id, err)
		}
	}
}

// A call that hangs for good costs the process of the module, and no more.
func TestChildHangs(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil, sessions(2), isolated)
	generate(t, tok, "k", both)
	w := newWitness(t, u)
	// Three calls, and then no other: as if their connections alone were dead.
	m.Set(t, "hang C_Encrypt count 3")
	for range 3 {
		w.check(soon(t), t, tok)
	}
	eventually(t, "the token is back", tok.Available)
	if !w.check(patient(t), t, tok) {
		t.Error("it does not serve")
	}
	// All calls, in the next process as well: it is started anew while they hang.
	m.Set(t, "hang C_EncryptInit,C_Login")
	before := tok.Stats().Resets
	eventually(t, "another process is in its place", func() bool { w.check(soon(t), t, tok); return tok.Stats().Resets > before })
	m.Set(t)
	eventually(t, "the token is back", func() bool { return tok.Available() && w.check(patient(t), t, tok) })
	m.Set(t, "hang any")
	closing := soon(t)
	for range 3 {
		w.check(soon(t), t, tok)
	}
	if err := tok.Close(closing); err != nil {
		t.Errorf("close while calls hang: %v", err)
	}
	eventually(t, "no process is left", func() bool { return len(children(t)) == 0 })
}

// endChild sends a signal to the one process of a module that there is.
func endChild(t *testing.T, signal syscall.Signal) {
	t.Helper()
	found := children(t)
	if len(found) != 1 {
		t.Fatalf("there are %d processes of modules", len(found))
	}
	if err := syscall.Kill(found[0], signal); err != nil {
		t.Fatal(err)
	}
}

// An operation that has begun in one process does not go on in the next, where its
// handles may be another's.
func TestChildIsReplacedBetweenOperations(t *testing.T) {
	tok, _ := newToken(t, sessions(2), isolated)
	k := generate(t, tok, "k", both)
	begun, goOn, last := make(chan bool), make(chan bool), make(chan error, 1)
	go func() {
		last <- tok.Operate(patient(t), func(call func() error) {
			close(begun)
			<-goOn
			if call() == nil {
				t.Error("the session of one process is one of the next")
			}
		})
	}()
	<-begun
	endChild(t, syscall.SIGKILL)
	eventually(t, "it is noticed", func() bool {
		_, err := k.Encrypt(patient(t), 1, []byte("p"), nil)
		return err != nil
	})
	eventually(t, "the next process waits, or serves", func() bool { return tok.RestartWaits() || tok.Available() })
	if tok.Stats().Resets != 0 {
		t.Error("another process was started under an operation")
	}
	close(goOn)
	if err := <-last; err != nil {
		t.Error(err)
	}
	eventually(t, "the token is back", tok.Available)
	seal(t, k, "p", "")
}

// The parent never asks for a PIN that the child can read.
func TestChildReadsThePIN(t *testing.T) {
	m := tokentest.NewFaulty(t)
	u := m.Token(t, &modules)
	dir := t.TempDir()
	write := func(pin string) {
		if err := os.WriteFile(filepath.Join(dir, "pin"), []byte(pin+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(tokentest.PIN)
	from, err := keystore.ParseURI(fmt.Sprintf("pkcs11:token=%s?module-path=%s&pin-source=file:pin", u.Token, m.Path))
	if err != nil {
		t.Fatal(err)
	}
	o := tokentest.Options(from)
	o.Isolated, o.PINFrom = true, &keystore.PINFromURI{Dir: dir}
	o.PIN = func() (string, error) {
		t.Error("the parent read the PIN")
		return "", errors.New("not here")
	}
	tok := tokentest.Open(t, &modules, o)
	seal(t, generate(t, tok, "k", both), "p", "")
	write("a wrong PIN")
	if _, err := keystore.Open(patient(t), &modules, o); !errors.Is(err, keystore.ErrPINIncorrect) {
		t.Errorf("a wrong PIN: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "pin")); err != nil {
		t.Fatal(err)
	}
	if _, err := keystore.Open(patient(t), &modules, o); err == nil || !strings.Contains(err.Error(), "read the PIN") {
		t.Errorf("no PIN file: %v", err)
	}
	o.Isolated = true
	if _, err := keystore.Open(patient(t), new(keystore.Modules), o); err == nil || !strings.Contains(err.Error(), "Modules.Command") {
		t.Errorf("without a command: %v", err)
	}
}

// A vault works the same with its module elsewhere.
func TestVaultInChild(t *testing.T) {
	tok, _, _ := newFaulty(t, "softhsm2", nil, isolated)
	v := openVault(t, tok)
	for _, spec := range []keystore.Spec{keystore.SpecAES256, keystore.SpecP256} {
		m := material(t, v, "m-"+strings.ToLower(strings.ReplaceAll(string(spec), "_", "-")), spec)
		call := func() error {
			if spec == keystore.SpecAES256 {
				return second(v.Encrypt(patient(t), &m, []byte("p"), nil))
			}
			return second(v.Sign(patient(t), &m, keystore.SignECDSA, signHashes[0], make([]byte, 32)))
		}
		if err := call(); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
		if err := syscall.Kill(children(t)[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it works with another process", func() bool { return call() == nil })
	}
}

// A process whose module hangs as it is initialized is ended like any other that
// hangs: the next one serves, and a token that waits for one can be closed.
func TestChildHangsAsItStarts(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil, sessions(2), isolated)
	generate(t, tok, "k", both)
	w := newWitness(t, u)
	started := m.Count(t, "C_Initialize")
	m.Set(t, "hang C_Initialize", "crash C_Encrypt")
	w.check(patient(t), t, tok)
	eventually(t, "a process hung and the next one took its place", func() bool { return m.Count(t, "C_Initialize") > started+1 })
	m.Set(t)
	eventually(t, "the token is back", tok.Available)
	if !w.check(patient(t), t, tok) {
		t.Error("it does not serve")
	}
	started = m.Count(t, "C_Initialize")
	m.Set(t, "hang C_Initialize", "crash C_Encrypt")
	w.check(patient(t), t, tok)
	eventually(t, "the next process hangs", func() bool { return m.Count(t, "C_Initialize") > started })
	closed := make(chan error, 1)
	go func() { closed <- tok.Close(soon(t)) }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-patient(t).Done():
		t.Error("it cannot be closed")
	}
	m.Set(t)
	eventually(t, "no process is left", func() bool { return len(children(t)) == 0 })
}
