package kmsapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// Large bodies of strangers take only so much memory, whoever sends how many, and
// keep nobody with a small one out.
func TestLargeBodiesAreBounded(t *testing.T) {
	h := newTestHandler(t, testConfig(answers(&kms.EncryptOutput{})))
	stranger := alice()
	stranger.AccessKeyID = "stranger"
	large := bytes.Repeat([]byte(" "), firstRoom+1)
	copy(large, "{}")
	var slow sync.WaitGroup
	var bodies []*io.PipeWriter
	for range maxLarge {
		out, in := io.Pipe()
		r := newRequest(t, "Encrypt", nil)
		signWith(r, string(large), stranger, testRegion, serviceKMS, time.Now(), "x-amz-target") // its length is not known
		r.Body, r.ContentLength = out, -1
		slow.Go(func() { serve(t, h, r) })
		if err := errors.Join(second(in.Write(large[:firstRoom])), second(in.Write(large[firstRoom:]))); err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, in)
	}
	send := func(body []byte) *discard {
		r := newRequest(t, "Encrypt", body)
		sign(r, body, alice())
		return serve(t, h, r)
	}
	send(large).wantError(t, http.StatusBadRequest, "ThrottlingException", "Rate exceeded")
	if w := send([]byte("{}")); w.status != http.StatusOK {
		t.Errorf("a small body: %d %s", w.status, w.body.String())
	}
	for _, in := range bodies {
		_ = in.CloseWithError(io.ErrUnexpectedEOF) // it never fails
	}
	slow.Wait()
	if w := send(large); w.status != http.StatusOK {
		t.Errorf("once there is room: %d %s", w.status, w.body.String())
	}
}

func second(_ int, err error) error { return err }
