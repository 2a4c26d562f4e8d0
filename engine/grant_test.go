package engine_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

const (
	bob      = "arn:aws:iam::" + account + ":user/bob"
	carol    = "arn:aws:iam::" + foreignAccount + ":user/team/carol"
	service  = "dynamodb." + region + ".amazonaws.com"
	tableARN = "arn:aws:dynamodb:" + region + ":" + account + ":table/Services"
)

// grantInput asks for a grant to bob.
func grantInput(id *string, change ...func(*kms.CreateGrantInput)) *kms.CreateGrantInput {
	in := &kms.CreateGrantInput{KeyId: id, GranteePrincipal: aws.String(bob), Operations: []types.GrantOperation{types.GrantOperationDecrypt}}
	for _, f := range change {
		f(in)
	}
	return in
}

func named(name string) func(*kms.CreateGrantInput) {
	return func(in *kms.CreateGrantInput) { in.Name = &name }
}

func grantTo(t testing.TB, c *engine.Client, id *string, change ...func(*kms.CreateGrantInput)) *kms.CreateGrantOutput {
	t.Helper()
	out, err := c.CreateGrant(t.Context(), grantInput(id, change...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// allGrants returns the grants that in asks for, read by pages.
func allGrants(t testing.TB, c *engine.Client, in kms.ListGrantsInput) []types.GrantListEntry {
	t.Helper()
	var all []types.GrantListEntry
	for p := kms.NewListGrantsPaginator(c, &in); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if in.Limit != nil && len(out.Grants) > int(*in.Limit) {
			t.Fatalf("a page of %d grants, limit %d", len(out.Grants), *in.Limit)
		}
		all = append(all, out.Grants...)
	}
	return all
}

func retirableGrants(t testing.TB, c *engine.Client, in kms.ListRetirableGrantsInput) []types.GrantListEntry {
	t.Helper()
	var all []types.GrantListEntry
	for p := kms.NewListRetirableGrantsPaginator(c, &in); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, out.Grants...)
	}
	return all
}

func grantIDs(list []types.GrantListEntry) []string {
	ids := []string{}
	for _, g := range list {
		ids = append(ids, *g.GrantId)
	}
	slices.Sort(ids)
	return ids
}

func sortedIDs(created ...*kms.CreateGrantOutput) []string {
	ids := []string{}
	for _, out := range created {
		ids = append(ids, *out.GrantId)
	}
	slices.Sort(ids)
	return ids
}

// useToken encrypts with a grant token.
func useToken(ctx context.Context, c *engine.Client, id, token *string) error {
	_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: id, Plaintext: []byte("x"), GrantTokens: []string{*token}})
	return err
}

// TestGrantsOfDeletedKey tests that grants go with their key.
func TestGrantsOfDeletedKey(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k, other := freshKey(t, c), freshKey(t, c)
	retirable := func(in *kms.CreateGrantInput) { in.RetiringPrincipal = aws.String(bob) }
	out := grantTo(t, c, k.KeyId, retirable)
	kept := grantTo(t, c, other.KeyId, retirable)
	scheduleDeletion(t, c, k.KeyId)
	_, err := c.CreateGrant(ctx, grantInput(k.KeyId))
	refused(t, err, "KMSInvalidStateException", "is pending deletion.")
	ended := grantIDs(allGrants(t, c, kms.ListGrantsInput{KeyId: k.KeyId}))
	if !slices.Equal(ended, sortedIDs(out)) {
		t.Errorf("grants %v of the key that waits for its deletion", ended)
	}
	f.clock.advance(7 * 24 * time.Hour)
	for range 2 {
		if got := grantIDs(retirableGrants(t, f.client(), kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(bob)})); !slices.Equal(got, sortedIDs(kept)) {
			t.Errorf("retirable grants %v, want that of the key that is left", got)
		}
		wantCode(t, useToken(ctx, f.client(), other.KeyId, out.GrantToken), "InvalidGrantTokenException")
		_, err = f.client().RetireGrant(ctx, &kms.RetireGrantInput{GrantToken: out.GrantToken})
		wantCode(t, err, "InvalidGrantTokenException")
		f.sweep()
		f.reopen()
	}
	refused(t, useToken(ctx, f.client(), other.KeyId, kept.GrantToken), "", "")
}
