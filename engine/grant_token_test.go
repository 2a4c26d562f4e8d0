package engine_test

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// TestGrantNames tests that a request with a name can be made again.
func TestGrantNames(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	k, other := freshKey(t, c), freshKey(t, c)
	operations := func(list ...types.GrantOperation) func(*kms.CreateGrantInput) {
		return func(in *kms.CreateGrantInput) { in.Operations = list }
	}
	both := operations(types.GrantOperationDecrypt, types.GrantOperationEncrypt)
	first := grantTo(t, c, k.KeyId, both, named("n"))
	f.reopen()
	c = f.client()
	again := grantTo(t, c, k.Arn, operations(types.GrantOperationEncrypt, types.GrantOperationDecrypt), named("n"))
	if *again.GrantId != *first.GrantId || *again.GrantToken == *first.GrantToken {
		t.Errorf("the same request made the grant %s, token %s after %s, token %s", *again.GrantId, *again.GrantToken, *first.GrantId, *first.GrantToken)
	}
	for _, out := range []*kms.CreateGrantOutput{first, again} {
		if err := useToken(t.Context(), c, k.KeyId, out.GrantToken); err != nil {
			t.Error(err)
		}
	}
	ids := map[string]bool{*first.GrantId: true}
	for name, out := range map[string]*kms.CreateGrantOutput{
		"another key":     grantTo(t, c, other.KeyId, both, named("n")),
		"another name":    grantTo(t, c, k.KeyId, both, named("m")),
		"other operation": grantTo(t, c, k.KeyId, named("n")),
		"another grantee": grantTo(t, c, k.KeyId, both, named("n"), func(in *kms.CreateGrantInput) { in.GranteePrincipal = aws.String(carol) }),
		"retirable":       grantTo(t, c, k.KeyId, both, named("n"), func(in *kms.CreateGrantInput) { in.RetiringPrincipal = aws.String(bob) }),
		"constrained": grantTo(t, c, k.KeyId, both, named("n"), func(in *kms.CreateGrantInput) {
			in.Constraints = &types.GrantConstraints{EncryptionContextEquals: map[string]string{"a": "b"}}
		}),
		"constrained otherwise": grantTo(t, c, k.KeyId, both, named("n"), func(in *kms.CreateGrantInput) {
			in.Constraints = &types.GrantConstraints{EncryptionContextSubset: map[string]string{"a": "b"}}
		}),
		"no name":       grantTo(t, c, k.KeyId, both),
		"no name again": grantTo(t, c, k.KeyId, both),
	} {
		if ids[*out.GrantId] {
			t.Errorf("%s: the grant is one that was there", name)
		}
		ids[*out.GrantId] = true
	}
	// Once it is revoked, the name is free, and the tokens are worth nothing.
	must(c.RevokeGrant(t.Context(), &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: first.GrantId}))
	for _, out := range []*kms.CreateGrantOutput{first, again} {
		wantCode(t, useToken(t.Context(), c, k.KeyId, out.GrantToken), "InvalidGrantTokenException")
	}
	if out := grantTo(t, c, k.KeyId, both, named("n")); ids[*out.GrantId] {
		t.Error("a revoked grant has come back")
	}
	var all sync.WaitGroup
	same, errs := make([]string, 8), make([]error, 8)
	for i := range same {
		all.Go(func() {
			out, err := c.CreateGrant(t.Context(), grantInput(k.KeyId, named("at-once")))
			if errs[i] = err; err == nil {
				same[i] = *out.GrantId
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if same = slices.Compact(same); len(same) != 1 || same[0] == "" {
		t.Errorf("requests at once made the grants %q", same)
	}
}

func TestGrantTokens(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k := freshKey(t, c)
	token := *grantTo(t, c, k.KeyId).GrantToken
	other := *grantTo(t, c, k.KeyId).GrantToken
	for name, forged := range map[string]string{
		"cut":        token[:len(token)-1],
		"longer":     token + "A",
		"changed":    token[:50] + map[bool]string{true: "B", false: "A"}[token[50] == 'A'] + token[51:],
		"mixed":      token[:64] + other[64:],
		"not Base64": "!" + token[1:],
		"other kind": "nonsense",
	} {
		if err := useToken(ctx, c, k.KeyId, &forged); err == nil {
			t.Errorf("a token that is %s was accepted", name)
		} else {
			wantCode(t, err, "InvalidGrantTokenException")
		}
		_, err := c.RetireGrant(ctx, &kms.RetireGrantInput{GrantToken: &forged})
		wantCode(t, err, "InvalidGrantTokenException")
	}
	elsewhere := f.in(foreignRegion)
	wantCode(t, useToken(ctx, elsewhere, freshKey(t, elsewhere).KeyId, &token), "InvalidGrantTokenException")
	refused(t, useToken(ctx, c, k.KeyId, &token), "", "")
	_, err := c.CreateGrant(ctx, grantInput(k.KeyId, func(in *kms.CreateGrantInput) { in.GrantTokens = []string{token, other} }))
	refused(t, err, "", "")
}
