package child_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/testlog"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki/child"
)

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// gone fails the test unless err says that the process has ended, for a reason.
func gone(t *testing.T, err error, reason string) {
	t.Helper()
	var g *cryptoki.GoneError
	if !errors.As(err, &g) || !strings.Contains(g.Reason, reason) {
		t.Errorf("%v, and not because of: %s", err, reason)
	}
}

// processes returns the children of a process that a command of the test binary is.
func processes(t *testing.T, parent int, command string) (pids []int) {
	t.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, folder := range folders {
		stat, err := os.ReadFile(filepath.Join(folder, "stat"))
		line, lineErr := os.ReadFile(filepath.Join(folder, "cmdline"))
		if err != nil || lineErr != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if fields[1] == strconv.Itoa(parent) && bytes.Contains(line, []byte("\x00"+command+"\x00")) {
			pid, err := strconv.Atoi(filepath.Base(folder))
			must(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// own returns the one child of this process that a command is.
func own(t *testing.T, command string) int {
	t.Helper()
	pids := processes(t, os.Getpid(), command)
	if len(pids) != 1 {
		t.Fatalf("there are %d processes", len(pids))
	}
	return pids[0]
}

// A process that is killed has all calls fail, and another one serves.
func TestKilledUnderLoad(t *testing.T) {
	m := started(t, config(tokentest.Module(t), commandServe))
	label := newToken(t, m)
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGABRT} {
		slot := slotOf(t, m, label)
		login(t, m, slot)
		var users sync.WaitGroup
		var begun sync.WaitGroup
		for range 50 {
			begun.Add(1)
			users.Go(func() {
				s, err := m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
				if err != nil {
					t.Error(err)
				}
				begun.Done()
				for err == nil {
					_, err = m.GenerateRandom(s, 16)
				}
				gone(t, err, signal.String())
			})
		}
		begun.Wait()
		must(t, syscall.Kill(own(t, commandServe), signal))
		users.Wait()
		_, err := m.GetSlotList(true)
		gone(t, err, signal.String())
		must(t, m.Initialize())
	}
	login(t, m, slotOf(t, m, label))
	must(t, m.Finalize())
	if pids := processes(t, os.Getpid(), commandServe); len(pids) != 0 {
		t.Errorf("%d processes are left", len(pids))
	}
	if _, err := m.GetSlotList(true); !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)) {
		t.Errorf("once finalized: %v", err)
	}
}

// faulty returns a started module that does as it is told, and the label of a token.
func faulty(t *testing.T) (*child.Client, *tokentest.Faulty, string) {
	t.Helper()
	f := tokentest.NewFaulty(t)
	m := started(t, config(f.Path, commandServe))
	return m, f, newToken(t, m)
}

// Calls that hang do not stop others, and Kill ends them.
func TestHangingCalls(t *testing.T) {
	m, f, label := faulty(t)
	slot := slotOf(t, m, label)
	s := login(t, m, slot)
	const many = 20
	answers := make(chan error, many)
	var sessions []cryptoki.Session
	for range many {
		sessions = append(sessions, open(t, m, slot))
	}
	f.Set(t, "hang C_GenerateRandom")
	for _, hanging := range sessions {
		go func() {
			_, err := m.GenerateRandom(hanging, 16)
			answers <- err
		}()
	}
	eventually(t, "all hang", func() bool { return f.Count(t, tokentest.HangingCalls) == many })
	key := aesKey(t, m, s)
	for range 100 {
		_, _, err := m.Encrypt(s, gcm(), key, []byte("p"))
		must(t, err)
	}
	m.Kill()
	for range many {
		gone(t, <-answers, "it was ended")
	}
	f.Set(t)
	must(t, m.Initialize())
	login(t, m, slotOf(t, m, label))
}

// Kill ends a process that hangs as it is started or finalized.
func TestHangingStart(t *testing.T) {
	m, f, _ := faulty(t)
	for function, call := range map[string]func() error{"C_Initialize": m.Initialize, "C_Finalize": m.Finalize} {
		if function == "C_Initialize" {
			must(t, m.Finalize())
		}
		f.Set(t, "hang "+function)
		before := f.Count(t, tokentest.HangingCalls)
		answer := make(chan error, 1)
		go func() { answer <- call() }()
		eventually(t, function+" hangs", func() bool { return f.Count(t, tokentest.HangingCalls) > before })
		m.Kill()
		gone(t, <-answer, "it was ended")
		f.Set(t)
		must(t, m.Initialize())
	}
}

func TestStartFails(t *testing.T) {
	others := goleak.IgnoreCurrent()
	none := config("/nowhere/module.so", commandServe)
	if err := child.New(none).Initialize(); err == nil || !strings.Contains(err.Error(), "/nowhere/module.so cannot be loaded") {
		t.Errorf("no module: %v", err)
	}
	absent := config(tokentest.Module(t), "")
	absent.Command = []string{"/nowhere/program"}
	gone(t, child.New(absent).Initialize(), "/nowhere/program")
	gone(t, child.New(config(tokentest.Module(t), commandEnd)).Initialize(), "exit status 7")
	f := tokentest.NewFaulty(t)
	f.Set(t, "fail C_Initialize 0x30")
	m := child.New(config(f.Path, commandServe))
	if err := m.Initialize(); !errors.Is(err, pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)) {
		t.Errorf("not initialized: %v", err)
	}
	if pids := processes(t, os.Getpid(), commandServe); len(pids) != 0 {
		t.Errorf("%d processes are left", len(pids))
	}
	goleak.VerifyNone(t, others)
}

// answer replies bytes to whatever is asked first.
func answer(message []byte) error {
	fd, err := acceptLine()
	if err != nil {
		return err
	}
	if _, err := unix.Read(fd, make([]byte, 1000)); err != nil {
		return err
	}
	if _, err := unix.Write(fd, message); err != nil {
		return err
	}
	select {}
}

// acceptLine receives a socket as a child does.
func acceptLine() (int, error) {
	rights := make([]byte, 100)
	_, n, _, _, err := unix.Recvmsg(3, make([]byte, 1), rights, 0)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return 0, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

// A process that answers what is no reply is ended.
func TestGarbage(t *testing.T) {
	gone(t, child.New(config(tokentest.Module(t), commandGarbage)).Initialize(), "no reply")
	if pids := processes(t, os.Getpid(), commandGarbage); len(pids) != 0 {
		t.Errorf("%d processes are left", len(pids))
	}
}

// parent starts a module as hyok does, has a call hang in it, and says so.
func parent(args []string) error {
	m := child.New(config(args[0], commandServe))
	if err := m.Initialize(); err != nil {
		return err
	}
	go func() { _, _ = m.GetSlotList(true) }()
	fmt.Println("started")
	select {}
}

// The process ends with its parent, whatever hangs in it, and not by the signals
// that a terminal or systemd sends to both.
func TestEndsWithItsParent(t *testing.T) {
	f := tokentest.NewFaulty(t)
	f.Set(t, "hang C_GetSlotList")
	cmd := exec.Command("/proc/self/exe", commandParent, f.Path)
	cmd.Env = tokentest.ChildEnv()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "started\n" {
		t.Fatalf("%q, %v", line, err)
	}
	eventually(t, "the call hangs", func() bool { return f.Count(t, tokentest.HangingCalls) == 1 })
	pids := processes(t, cmd.Process.Pid, commandServe)
	if len(pids) != 1 {
		t.Fatalf("there are %d processes", len(pids))
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		must(t, syscall.Kill(pids[0], signal))
	}
	must(t, syscall.Kill(pids[0], 0))
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	eventually(t, "the process has ended", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pids[0]))
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	})
}

// The PIN is read where the module is, if that is possible, at each login.
func TestPIN(t *testing.T) {
	c := config(tokentest.Module(t), commandServe)
	c.PINSource = filepath.Join(t.TempDir(), "pin")
	m := started(t, c)
	s := open(t, m, slotOf(t, m, newToken(t, m)))
	asked := func() (string, error) {
		t.Error("the parent was asked for the PIN")
		return tokentest.PIN, nil
	}
	if err := logIn(m, s, pkcs11.CKU_USER, asked); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without a PIN: %v", err)
	}
	must(t, os.WriteFile(c.PINSource, []byte("wrong"), 0o600))
	if err := logIn(m, s, pkcs11.CKU_USER, asked); !errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)) {
		t.Errorf("with a wrong PIN: %v", err)
	}
	salt := []byte("salt")
	refused, err := m.Login(s, pkcs11.CKU_USER, asked, salt)
	if !errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)) || len(refused) == 0 {
		t.Errorf("with a wrong PIN: %x, %v", refused, err)
	}
	if digest, err := m.DigestPIN(asked, salt); err != nil || !bytes.Equal(digest, refused) {
		t.Errorf("the digests of one PIN are %x and %x: %v", digest, refused, err)
	}
	must(t, os.WriteFile(c.PINSource, []byte(tokentest.PIN), 0o600))
	if digest, err := m.DigestPIN(asked, salt); err != nil || bytes.Equal(digest, refused) {
		t.Errorf("the digests of two PINs are %x and %x: %v", digest, refused, err)
	}
	if refused, err := m.Login(s, pkcs11.CKU_USER, asked, salt); err != nil || refused != nil {
		t.Errorf("with the right PIN: %x, %v", refused, err)
	}
}

// prate writes much and ends.
func prate([]string) error {
	fmt.Fprintln(os.Stderr, "the first line")
	fmt.Fprintln(os.Stderr, "begin"+strings.Repeat("long ", 10_000))
	for i := range 1000 {
		fmt.Println("line", i)
	}
	return errors.New("the end")
}

// What the process writes is logged, as far as it is not too much.
func TestStandardError(t *testing.T) {
	var log testlog.Buffer
	c := config(tokentest.Module(t), commandPrate)
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	gone(t, child.New(c).Initialize(), "exit status 1")
	eventually(t, "all was read", func() bool { return strings.Count(log.String(), "\n") >= 20 })
	if text := log.String(); !strings.Contains(text, `level=WARN msg="the process of the module says"`) || !strings.Contains(text, `line="the first line"`) || !strings.Contains(text, `line="beginlong long `) {
		t.Errorf("logged: %s", text)
	}
	if n := strings.Count(log.String(), "\n"); n > 30 {
		t.Errorf("%d lines were logged", n)
	}
	for _, line := range strings.Split(log.String(), "\n") {
		if len(line) > 700 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

// stopped reports whether all threads of a process have stopped.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	must(t, err)
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Contains(stat, []byte(") T ")) {
			return false
		}
	}
	return len(stats) > 0
}

// A process that is stopped, so that it takes no more lines, is ended all the same.
func TestStoppedProcess(t *testing.T) {
	m := started(t, config(tokentest.Module(t), commandServe))
	pid := own(t, commandServe)
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	eventually(t, "all its threads have stopped", func() bool { return stopped(t, pid) })
	const many = 1000 // more lines than the sockets hold on their way
	answers := make(chan error, many)
	var asking atomic.Int32
	for range many {
		go func() {
			asking.Add(1)
			_, err := m.GetSlotList(true)
			answers <- err
		}()
	}
	eventually(t, "all ask", func() bool { return asking.Load() == many })
	m.Kill()
	for range many {
		gone(t, <-answers, "it was ended")
	}
	must(t, m.Initialize())
}
