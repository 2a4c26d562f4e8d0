package tokentest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nobodyVariable is set in the process that AsNobody starts.
const nobodyVariable = "HYOK_TEST_NOBODY"

// AsNobody runs the test at hand in a process of its own that may read only what
// permissions allow, as root may not be told to, and reports whether it did. In that
// process, or where this one is not root's, it does nothing. The test must need nothing
// but SoftHSM2 and its own folder.
func AsNobody(t *testing.T) bool {
	t.Helper()
	if os.Getenv(nobodyVariable) != "" || os.Geteuid() != 0 {
		return false
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "hyok-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	binary, err := os.ReadFile(os.Args[0])
	program := filepath.Join(dir, "test")
	if err := errors.Join(err, os.WriteFile(program, binary, 0o700), os.Chown(dir, nobody, nobody), os.Chown(program, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	name := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	child := exec.CommandContext(t.Context(), program, "-test.run", name, "-test.v", "-test.timeout", "30m")
	child.Dir = dir
	child.Env = []string{nobodyVariable + "=1", "TMPDIR=" + dir, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	for _, setting := range os.Environ() {
		if strings.HasPrefix(setting, "HYOK_DRILL=") {
			child.Env = append(child.Env, setting)
		}
	}
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	t.Logf("%s", out)
	return true
}
