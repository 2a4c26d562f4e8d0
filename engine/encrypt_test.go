package engine_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// A blob opens with its encryption context and no other, names its key, and is
// invalid when any of its bytes is changed, added or missing.
func TestBlob(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	ctx := t.Context()
	k := must(c.CreateKey(ctx, &kms.CreateKeyInput{})).KeyMetadata
	context := map[string]string{"purpose": "test", "empty": ""}
	sealed := must(c.Encrypt(ctx, &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("plaintext"), EncryptionContext: context}))
	if *sealed.KeyId != *k.Arn || sealed.EncryptionAlgorithm != types.EncryptionAlgorithmSpecSymmetricDefault {
		t.Errorf("Encrypt answers %+v", sealed)
	}
	opened := must(c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: context}))
	if string(opened.Plaintext) != "plaintext" || *opened.KeyId != *k.Arn || aws.ToString(opened.KeyMaterialId) != aws.ToString(k.CurrentKeyMaterialId) {
		t.Errorf("Decrypt answers %+v", opened)
	}
	for _, other := range []map[string]string{nil, {"purpose": "test"}, {"purpose": "test", "empty": "x"}, {"purpose": "tes", "empty": "t"}} {
		_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: other})
		wantCode(t, err, "InvalidCiphertextException")
	}
	for i := range sealed.CiphertextBlob {
		broken := bytes.Clone(sealed.CiphertextBlob)
		broken[i] ^= 0x80
		_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: broken, EncryptionContext: context})
		if 2 <= i && i < 18 { // it names another key, which may be somewhere
			wantCode(t, err, "AccessDeniedException")
		} else {
			wantCode(t, err, "InvalidCiphertextException")
		}
		_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob[:i+1][:i:i], EncryptionContext: context})
		if i == 0 {
			wantCode(t, err, "ValidationException")
			continue
		}
		wantCode(t, err, "InvalidCiphertextException")
	}
	_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: append(bytes.Clone(sealed.CiphertextBlob), 0), EncryptionContext: context})
	wantCode(t, err, "InvalidCiphertextException")
}

// Whose key a blob is of decides what its reader is told.
func TestBlobOfAnother(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	ctx := t.Context()
	k := must(c.CreateKey(ctx, &kms.CreateKeyInput{})).KeyMetadata
	other := must(c.CreateKey(ctx, &kms.CreateKeyInput{})).KeyMetadata
	sealed := must(c.Encrypt(ctx, &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("p")}))
	_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, KeyId: other.KeyId})
	wantCode(t, err, "IncorrectKeyException")
	must(c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, KeyId: k.Arn}))
	const nowhere = "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access."
	_, err = f.in("us-east-1").Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	wantError(t, err, "AccessDeniedException", nowhere)
	_, err = f.as("444455556666", region).Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	wantError(t, err, "AccessDeniedException", nowhere)
	must(c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId, PendingWindowInDays: aws.Int32(7)}))
	f.clock.advance(8 * 24 * time.Hour)
	f.sweep()
	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	wantError(t, err, "AccessDeniedException", nowhere)
	_, err = c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: sealed.CiphertextBlob, DestinationKeyId: other.KeyId})
	wantError(t, err, "AccessDeniedException", nowhere)
	foreign := newEngine(t)
	theirs := foreign.client()
	id := must(theirs.CreateKey(ctx, &kms.CreateKeyInput{})).KeyMetadata.KeyId
	blob := must(theirs.Encrypt(ctx, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")})).CiphertextBlob
	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob})
	wantError(t, err, "AccessDeniedException", nowhere)
}

// ReEncrypt moves a plaintext to another key and context without showing it.
func TestReEncrypt(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	ctx := t.Context()
	from := must(c.CreateKey(ctx, &kms.CreateKeyInput{})).KeyMetadata
	to := must(c.CreateKey(ctx, &kms.CreateKeyInput{})).KeyMetadata
	a, b := map[string]string{"a": "1"}, map[string]string{"b": "2"}
	sealed := must(c.Encrypt(ctx, &kms.EncryptInput{KeyId: from.KeyId, Plaintext: []byte("p"), EncryptionContext: a}))
	in := &kms.ReEncryptInput{CiphertextBlob: sealed.CiphertextBlob, SourceEncryptionContext: a, DestinationKeyId: to.KeyId, DestinationEncryptionContext: b}
	out := must(c.ReEncrypt(ctx, in))
	if *out.SourceKeyId != *from.Arn || *out.KeyId != *to.Arn || aws.ToString(out.SourceKeyMaterialId) != *from.CurrentKeyMaterialId ||
		aws.ToString(out.DestinationKeyMaterialId) != *to.CurrentKeyMaterialId {
		t.Errorf("ReEncrypt answers %+v", out)
	}
	opened := must(c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: b}))
	if string(opened.Plaintext) != "p" || *opened.KeyId != *to.Arn {
		t.Errorf("Decrypt answers %+v", opened)
	}
	in.DryRun = aws.Bool(true)
	_, err := c.ReEncrypt(ctx, in)
	wantCode(t, err, "DryRunOperationException")
}

// A data key comes in the clear and under its key, and both are the same.
func TestGenerateDataKey(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	ctx := t.Context()
	id := must(c.CreateKey(ctx, &kms.CreateKeyInput{})).KeyMetadata.KeyId
	for _, test := range []struct {
		in   kms.GenerateDataKeyInput
		size int
		code string
	}{
		{kms.GenerateDataKeyInput{KeySpec: types.DataKeySpecAes128}, 16, ""},
		{kms.GenerateDataKeyInput{KeySpec: types.DataKeySpecAes256}, 32, ""},
		{kms.GenerateDataKeyInput{NumberOfBytes: aws.Int32(1024)}, 1024, ""},
		{kms.GenerateDataKeyInput{}, 0, "ValidationException"},
		{kms.GenerateDataKeyInput{NumberOfBytes: aws.Int32(0)}, 0, "ValidationException"},
		{kms.GenerateDataKeyInput{KeySpec: types.DataKeySpecAes128, NumberOfBytes: aws.Int32(16)}, 0, "ValidationException"},
		{kms.GenerateDataKeyInput{KeySpec: types.DataKeySpecAes128, DryRun: aws.Bool(true)}, 0, "DryRunOperationException"},
		{kms.GenerateDataKeyInput{KeySpec: types.DataKeySpecAes128, Recipient: &types.RecipientInfo{}}, 0, "UnsupportedOperationException"},
	} {
		in := test.in
		in.KeyId, in.EncryptionContext = id, map[string]string{"a": "b"}
		out, err := c.GenerateDataKey(ctx, &in)
		if test.code != "" {
			wantCode(t, err, test.code)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		opened := must(c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: in.EncryptionContext}))
		if len(out.Plaintext) != test.size || !bytes.Equal(opened.Plaintext, out.Plaintext) {
			t.Errorf("a data key of %d bytes, %d in the blob", len(out.Plaintext), len(opened.Plaintext))
		}
	}
	without := must(c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: id, KeySpec: types.DataKeySpecAes256}))
	if opened := must(c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: without.CiphertextBlob})); len(opened.Plaintext) != 32 {
		t.Errorf("a data key of %d bytes without plaintext", len(opened.Plaintext))
	}
}

// What is made is there after a restart, and so is what it encrypted.
func TestReopen(t *testing.T) {
	f := newEngine(t)
	ctx := t.Context()
	k := must(f.client().CreateKey(ctx, &kms.CreateKeyInput{Description: aws.String("d"), MultiRegion: aws.Bool(true)})).KeyMetadata
	sealed := must(f.client().Encrypt(ctx, &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("p")}))
	f.reopen()
	again := must(f.client().DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: k.Arn})).KeyMetadata
	if *again.Description != "d" || !again.CreationDate.Equal(*k.CreationDate) || !*again.MultiRegion {
		t.Errorf("after the restart: %+v", again)
	}
	if opened := must(f.client().Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})); string(opened.Plaintext) != "p" {
		t.Errorf("after the restart: %q", opened.Plaintext)
	}
}

// A restart does not forget how often a key has encrypted.
func TestEncryptionsOutliveARestart(t *testing.T) {
	f := newEngine(t)
	k := must(f.client().CreateKey(t.Context(), &kms.CreateKeyInput{})).KeyMetadata
	for n := 1; n <= 2; n++ {
		encrypt(t, f.client(), k.KeyId, "hello", nil)
		f.reopen()
	}
	f.close()
	defer f.open()
	for _, r := range f.edit(nil) {
		if r.Kind == "usage" && bytes.Contains(r.Data, []byte(`"n":2`)) {
			return
		}
	}
	t.Error("two encryptions are not what is stored")
}
