package proxy_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

// A key store without keys is ready; one that had some and lacks all of them is not,
// until it has one again.
func TestReadyWithoutItsKeys(t *testing.T) {
	r := newRig(t).start()
	client := r.client()
	encrypt := func(id string) error {
		_, err := client.Encrypt(patient(t), id, encryptRequest("p", ""))
		return err
	}
	ready := func(want int, why string) {
		t.Helper()
		if status, body := r.get("/readyz"); status != want || !strings.Contains(body, why) {
			t.Errorf("%d %s", status, body)
		}
	}
	eventually(t, "it is ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	r.generate("a", both)
	r.generate("b", both)
	for _, id := range []string{"a", "b"} {
		if err := encrypt(id); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"a", "b"} {
		ready(http.StatusOK, "ok")
		if err := r.token.DestroyKey(patient(t), id, 0); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is gone", func() bool {
			var e *xks.Error
			return errors.As(encrypt(id), &e) && e.Name == xks.KeyNotFoundException
		})
	}
	ready(http.StatusServiceUnavailable, "key store default")
	r.generate("c", both)
	if err := encrypt("c"); err != nil {
		t.Fatal(err)
	}
	ready(http.StatusOK, "ok")
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
