package engine_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/hyok-kms/hyok/softhsm"
)

// The storage of a cluster's token is away for a while: its keys are not said to be
// gone, nor are the other keys in need of it, and all serve again.
func TestStorageOfTheClusterAway(t *testing.T) {
	r := newClusterRig(t)
	r.options.Background = true
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	connect(t, c, storeID)
	k, plain := clusterKey(t, c, storeID), must(c.CreateKey(t.Context(), &kms.CreateKeyInput{})).KeyMetadata
	blob, plainBlob := encrypt(t, c, k.KeyId, "hello", nil), encrypt(t, c, plain.KeyId, "hello", nil)
	use := func() (err error) {
		t.Helper()
		for _, b := range [][]byte{blob, plainBlob} {
			if _, e := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: b}); e != nil {
				if err = e; strings.Contains(e.Error(), "is not in its token") {
					t.Fatal(e)
				}
			}
		}
		return err
	}
	folder, err := softhsm.Folder(r.current().Info().Serial)
	if err == nil {
		err = os.Rename(folder, folder+".away")
	}
	if err != nil {
		t.Fatal(err)
	}
	wait := func(what string, holds func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it never came to this: %s", what)
			}
		}
	}
	wait("the cluster is out of service", func() bool { _ = use(); return !r.current().Available() })
	for range 50 {
		_ = use()
	}
	_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	wantError(t, err, "KMSInvalidStateException", "cannot communicate with your CloudHSM cluster")
	if err := os.Rename(folder+".away", folder); err != nil {
		t.Fatal(err)
	}
	wait("all serve", func() bool { return use() == nil })
}
