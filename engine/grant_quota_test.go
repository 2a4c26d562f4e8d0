package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine/internal/constraint"
	"github.com/hyok-kms/hyok/engine/store"
)

// TestGrantQuota fills a key with grants in memory, since making so many one by
// one would take minutes.
func TestGrantQuota(t *testing.T) {
	s, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "kms.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	e := &Engine{store: s, state: newState(), checks: constraint.New(), clock: time.Now, log: slog.New(slog.DiscardHandler)}
	c := e.Client("eu-central-1", Caller{Account: "111122223333", ARN: "arn:aws:iam::111122223333:user/alice"})
	k := &key{Account: "111122223333", Region: "eu-central-1", ID: "0d4fe8a8-8a1c-4a3c-9e0a-5b1d7a0a5b1d", Spec: types.KeySpecSymmetricDefault, Usage: types.KeyUsageTypeEncryptDecrypt}
	other := k.clone()
	other.ID = "0d4fe8a8-8a1c-4a3c-9e0a-5b1d7a0a5b1e"
	e.state.putKey(k)
	e.state.putKey(other)
	for i := range maxGrants - 1 {
		e.state.putGrant(&grant{Account: k.Account, Region: k.Region, KeyID: k.ID, ID: fmt.Sprintf("%064x", i), Grantee: c.caller.ARN})
	}
	in := &kms.CreateGrantInput{KeyId: &k.ID, GranteePrincipal: &c.caller.ARN, Operations: []types.GrantOperation{types.GrantOperationDecrypt}, Name: aws.String("last")}
	last, err := c.CreateGrant(t.Context(), in)
	if err != nil {
		t.Fatalf("grant number %d: %v", maxGrants, err)
	}
	if again, err := c.CreateGrant(t.Context(), in); err != nil || *again.GrantId != *last.GrantId {
		t.Fatalf("the same request once more: %v, %v", again, err)
	}
	in.Name = nil
	if _, err := c.CreateGrant(t.Context(), in); !isLimitExceeded(err) {
		t.Fatalf("grant number %d: %v, want LimitExceededException", maxGrants+1, err)
	}
	in.DryRun = aws.Bool(true)
	if _, err := c.CreateGrant(t.Context(), in); !isLimitExceeded(err) {
		t.Fatalf("a dry run: %v, want LimitExceededException", err)
	}
	in.DryRun, in.KeyId = nil, &other.ID
	if _, err := c.CreateGrant(t.Context(), in); err != nil {
		t.Fatalf("another key's grant: %v", err)
	}
	in.KeyId = &k.ID
	if _, err := c.RevokeGrant(t.Context(), &kms.RevokeGrantInput{KeyId: &k.ID, GrantId: last.GrantId}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateGrant(t.Context(), in); err != nil {
		t.Fatalf("a grant in place of one that was revoked: %v", err)
	}
}

func isLimitExceeded(err error) bool {
	var limit *types.LimitExceededException
	return errors.As(err, &limit)
}
