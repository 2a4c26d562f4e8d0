package diskspace_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/hyok-kms/hyok/internal/diskspace"
)

func TestExplain(t *testing.T) {
	// The kernel's own error of a full disk.
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, noSpace := full.WriteString("x")
	if err := full.Close(); err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		"the disk is full: make room": noSpace,
		"the disk quota":              &os.PathError{Op: "write", Path: "f", Err: syscall.EDQUOT},
		"the file may not grow":       syscall.EFBIG,
		"takes no writes":             syscall.EROFS,
	} {
		if got := diskspace.Explain(err); !strings.Contains(got.Error(), want) || !errors.Is(got, err) {
			t.Errorf("%v: %v", err, got)
		}
	}
	for _, err := range []error{nil, os.ErrPermission} {
		if got := diskspace.Explain(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
