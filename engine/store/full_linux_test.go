package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hyok-kms/hyok/internal/fulldisk"
)

// again runs the test in another process, with other rights.
func again(t *testing.T, rights *syscall.SysProcAttr) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hyok-test-") // unlike t.TempDir, one that others may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "store.test")
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(patient(t), program, "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = dir, []string{"TMPDIR=" + dir}, rights
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestNotWritable needs rights that are less than root's.
func TestNotWritable(t *testing.T) {
	if os.Geteuid() == 0 {
		const nobody = 65534
		again(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}})
		return
	}
	testNotWritable(t)
}

// TestDiskFull fills a real file system, where a commit fails only when the log is
// written.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m")
	if errors.Is(err, syscall.EPERM) && os.Geteuid() != 0 {
		again(t, &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		})
		return
	}
	if err != nil {
		t.Fatal("cannot mount a small file system:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "store.db")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, path)
	want := map[string]string{}
	fillUp := func() {
		t.Helper()
		for i := len(want); ; i++ {
			c := change("key", fmt.Sprint(i), bytes.Repeat([]byte{byte(i)}, 50_000))
			err := s.Apply(patient(t), c)
			if errors.Is(err, ErrFull) && !errors.Is(err, ErrUnknownOutcome) {
				return
			}
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			want[c.ID] = string(c.Data)
		}
	}
	fillUp()
	before := len(want)
	fillUp() // and is still full
	expect(t, s, want)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	fillUp()
	if len(want) < before+10 {
		t.Errorf("%d records, and %d after there was room again", before, len(want))
	}
	expect(t, s, want)
	closeStore(t, s)
	s = openAt(t, path)
	expect(t, s, want)
	closeStore(t, s)
}

// TestFileTooLarge has the kernel really refuse to let the files grow: it can be had
// without any right, and its errors come at the same places as those of a full disk.
func TestFileTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path)
	want := map[string]string{}
	put := func(i int) error {
		c := change("key", fmt.Sprint(i), bytes.Repeat([]byte{byte(i)}, 50_000))
		err := s.Apply(patient(t), c)
		if err == nil {
			want[c.ID] = string(c.Data)
		}
		return err
	}
	if err := put(0); err != nil {
		t.Fatal(err)
	}
	lift := fulldisk.Limit(t, 1<<20)
	var err error
	i := 1
	for ; err == nil; i++ {
		err = put(i)
	}
	for range 3 {
		if !errors.Is(err, ErrFull) || errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrBroken) {
			t.Errorf("%v, want ErrFull", err)
		}
		err = put(i)
	}
	expect(t, s, want)
	lift()
	for range 40 {
		i++
		if err := put(i); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, s, want)
	closeStore(t, s)
	expect(t, openAt(t, path), want)
}
