package engine_test

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

func TestListGrants(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k, other := freshKey(t, c), freshKey(t, c)
	var want, ofCarol []*kms.CreateGrantOutput
	for i := range 105 {
		if i%5 == 0 {
			out := grantTo(t, c, k.KeyId, func(in *kms.CreateGrantInput) { in.GranteePrincipal = aws.String(carol) })
			want, ofCarol = append(want, out), append(ofCarol, out)
			continue
		}
		want = append(want, grantTo(t, c, k.KeyId))
	}
	ofService := grantTo(t, c, k.KeyId, func(in *kms.CreateGrantInput) {
		in.GranteePrincipal, in.GranteeServicePrincipal, in.RetiringPrincipal = nil, aws.String(service), aws.String(bob)
		in.Constraints = &types.GrantConstraints{SourceArn: aws.String(tableARN)}
	})
	want = append(want, ofService)
	elsewhere := grantTo(t, c, other.KeyId)
	for _, limit := range []*int32{nil, aws.Int32(1), aws.Int32(33), aws.Int32(100)} {
		for _, test := range []struct {
			in   kms.ListGrantsInput
			want []*kms.CreateGrantOutput
		}{
			{kms.ListGrantsInput{KeyId: k.Arn}, want},
			{kms.ListGrantsInput{KeyId: other.KeyId}, []*kms.CreateGrantOutput{elsewhere}},
			{kms.ListGrantsInput{KeyId: k.KeyId, GranteePrincipal: aws.String(carol)}, ofCarol},
			{kms.ListGrantsInput{KeyId: k.KeyId, GranteeServicePrincipal: aws.String(service)}, []*kms.CreateGrantOutput{ofService}},
			{kms.ListGrantsInput{KeyId: k.KeyId, GrantId: ofService.GrantId}, []*kms.CreateGrantOutput{ofService}},
			{kms.ListGrantsInput{KeyId: k.KeyId, GrantId: ofService.GrantId, GranteePrincipal: aws.String(carol)}, nil},
			{kms.ListGrantsInput{KeyId: k.KeyId, GrantId: elsewhere.GrantId}, nil},
		} {
			test.in.Limit = limit
			if got := grantIDs(allGrants(t, c, test.in)); !slices.Equal(got, sortedIDs(test.want...)) {
				t.Errorf("%d grants, want %d", len(got), len(test.want))
			}
		}
	}

	// What is added and removed between pages moves nothing else.
	first := must(c.ListGrants(ctx, &kms.ListGrantsInput{KeyId: k.KeyId}))
	if len(first.Grants) != 50 || !first.Truncated {
		t.Fatalf("a page has %d grants unless asked for, want 50", len(first.Grants))
	}
	must(c.RevokeGrant(ctx, &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: first.Grants[49].GrantId}))
	must(c.RevokeGrant(ctx, &kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: first.Grants[3].GrantId}))
	rest := must(c.ListGrants(ctx, &kms.ListGrantsInput{KeyId: k.KeyId, Marker: first.NextMarker, Limit: aws.Int32(100)}))
	if got := grantIDs(append(rest.Grants, first.Grants...)); !slices.Equal(got, sortedIDs(want...)) || rest.Truncated {
		t.Errorf("the pages have %d grants, want each of %d once", len(got), len(want))
	}

	for _, test := range []struct {
		in   kms.ListGrantsInput
		code string
	}{
		{kms.ListGrantsInput{}, "ValidationException"},
		{kms.ListGrantsInput{KeyId: k.KeyId, Limit: aws.Int32(101)}, "ValidationException"},
		{kms.ListGrantsInput{KeyId: k.KeyId, GranteePrincipal: aws.String(bob), GranteeServicePrincipal: aws.String(service)}, "ValidationException"},
		{kms.ListGrantsInput{KeyId: k.KeyId, GranteePrincipal: aws.String("bob")}, "InvalidArnException"},
		{kms.ListGrantsInput{KeyId: k.KeyId, GrantId: aws.String("x")}, "InvalidGrantIdException"},
		{kms.ListGrantsInput{KeyId: other.KeyId, Marker: first.NextMarker}, "InvalidMarkerException"},
	} {
		_, err := c.ListGrants(ctx, &test.in)
		wantCode(t, err, test.code)
	}
	_, err := f.as(foreignAccount, region).ListGrants(ctx, &kms.ListGrantsInput{KeyId: k.Arn})
	wantCode(t, err, "AccessDeniedException")
}

func TestListRetirableGrants(t *testing.T) {
	f := newEngine(t)
	ctx := t.Context()
	c, foreign, elsewhere := f.client(), f.as(foreignAccount, region), f.in(foreignRegion)
	retiredBy := func(principal string) func(*kms.CreateGrantInput) {
		return func(in *kms.CreateGrantInput) { in.RetiringPrincipal = &principal }
	}
	byService := func(in *kms.CreateGrantInput) { in.RetiringServicePrincipal = aws.String(service) }
	var ofBob []*kms.CreateGrantOutput
	for range 3 {
		k := freshKey(t, c)
		for range 20 {
			ofBob = append(ofBob, grantTo(t, c, k.KeyId, retiredBy(bob)))
		}
		grantTo(t, c, k.KeyId)
		grantTo(t, c, k.KeyId, retiredBy(bob+"by"))
	}
	k, foreignKey := freshKey(t, c), freshKey(t, foreign)
	ofBob = append(ofBob, grantTo(t, foreign, foreignKey.KeyId, retiredBy(bob))) // another account's key
	ofCarol := grantTo(t, c, k.KeyId, retiredBy(carol))
	ofService := grantTo(t, c, k.KeyId, byService)
	grantTo(t, foreign, foreignKey.KeyId, byService)
	ofBobElsewhere := grantTo(t, elsewhere, freshKey(t, elsewhere).KeyId, retiredBy(bob))

	for _, test := range []struct {
		name   string
		client *engine.Client
		in     kms.ListRetirableGrantsInput
		want   []*kms.CreateGrantOutput
	}{
		{"user", c, kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(bob)}, ofBob},
		{"user, pages", c, kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(bob), Limit: aws.Int32(7)}, ofBob},
		{"user elsewhere", elsewhere, kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(bob)}, []*kms.CreateGrantOutput{ofBobElsewhere}},
		{"user of another account", foreign, kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(carol)}, []*kms.CreateGrantOutput{ofCarol}},
		{"service", c, kms.ListRetirableGrantsInput{RetiringServicePrincipal: aws.String(service)}, []*kms.CreateGrantOutput{ofService}},
		{"nobody", c, kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String("arn:aws:iam::" + account + ":root")}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := grantIDs(retirableGrants(t, test.client, test.in)); !slices.Equal(got, sortedIDs(test.want...)) {
				t.Errorf("%d grants, want %d", len(got), len(test.want))
			}
		})
	}
	first := must(c.ListRetirableGrants(ctx, &kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(bob)}))
	if len(first.Grants) != 50 {
		t.Errorf("a page has %d grants unless asked for, want 50", len(first.Grants))
	}
	for _, test := range []struct {
		in   kms.ListRetirableGrantsInput
		code string
	}{
		{kms.ListRetirableGrantsInput{}, "ValidationException"},
		{kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(bob), RetiringServicePrincipal: aws.String(service)}, "ValidationException"},
		{kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String("bob")}, "InvalidArnException"},
		{kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(carol)}, "AccessDeniedException"},
		{kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(bob), Limit: aws.Int32(101)}, "ValidationException"},
		{kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(bob + "by"), Marker: first.NextMarker}, "InvalidMarkerException"},
	} {
		_, err := c.ListRetirableGrants(ctx, &test.in)
		wantCode(t, err, test.code)
	}
	f.reopen()
	if got := grantIDs(retirableGrants(t, f.client(), kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(bob)})); !slices.Equal(got, sortedIDs(ofBob...)) {
		t.Errorf("%d grants after a restart, want %d", len(got), len(ofBob))
	}
}
