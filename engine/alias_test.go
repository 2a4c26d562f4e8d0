package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

const (
	foreignAccount = "444455556666"
	foreignRegion  = "us-east-1"
)

// freshKey makes a key and returns its metadata.
func freshKey(t testing.TB, c *engine.Client, change ...func(*kms.CreateKeyInput)) *types.KeyMetadata {
	t.Helper()
	in := &kms.CreateKeyInput{}
	for _, f := range change {
		f(in)
	}
	out, err := c.CreateKey(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out.KeyMetadata
}

// specified is a change of CreateKey's input.
func specified(s types.KeySpec, u types.KeyUsageType) func(*kms.CreateKeyInput) {
	return func(in *kms.CreateKeyInput) { in.KeySpec, in.KeyUsage = s, u }
}

// refused fails unless err has this code and a message with this part; no code
// means that there is no error.
func refused(t testing.TB, err error, code, part string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	wantCode(t, err, code)
	if !strings.Contains(err.Error(), part) {
		t.Fatalf("error %q, want one with %q", err, part)
	}
}

func setAlias(t testing.TB, c *engine.Client, name string, target *string) {
	t.Helper()
	if _, err := c.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &name, TargetKeyId: target}); err != nil {
		t.Fatal(err)
	}
}

func scheduleDeletion(t testing.TB, c *engine.Client, id *string) {
	t.Helper()
	if _, err := c.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: aws.Int32(7)}); err != nil {
		t.Fatal(err)
	}
}

// allAliases returns every alias, of one key if id is not nil, read by pages.
func allAliases(t testing.TB, c *engine.Client, id *string, limit *int32) []types.AliasListEntry {
	t.Helper()
	var all []types.AliasListEntry
	for p := kms.NewListAliasesPaginator(c, &kms.ListAliasesInput{KeyId: id, Limit: limit}); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if out.Truncated != (out.NextMarker != nil) || limit != nil && len(out.Aliases) > int(*limit) {
			t.Fatalf("a page of %d aliases, truncated %v, next marker %v", len(out.Aliases), out.Truncated, out.NextMarker)
		}
		all = append(all, out.Aliases...)
	}
	return all
}

func aliasNames(list []types.AliasListEntry) []string {
	var names []string
	for _, a := range list {
		names = append(names, *a.AliasName)
	}
	return names
}

// TestAliasLife does what Terraform does with an alias: create it, move it to
// another key, and delete it.
func TestAliasLife(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	first, second := freshKey(t, c), freshKey(t, c)
	name, created := aws.String("alias/app/database-key_1"), f.clock.now()
	setAlias(t, c, *name, first.Arn)
	aliasARN := "arn:aws:kms:" + region + ":" + account + ":" + *name
	secret, context := []byte("attack at dawn"), map[string]string{"purpose": "test"}
	sealed, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: name, Plaintext: secret, EncryptionContext: context})
	if err != nil || *sealed.KeyId != *first.Arn {
		t.Fatalf("encrypted with %v, %v, want %s", sealed, err, *first.Arn)
	}

	f.clock.advance(time.Hour)
	f.reopen()
	c = f.client()
	if _, err := c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: name, TargetKeyId: second.KeyId}); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	c = f.client()
	for _, id := range []string{*name, aliasARN} {
		if out, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &id}); err != nil || *out.KeyMetadata.KeyId != *second.KeyId {
			t.Errorf("%s names %v, %v, want %s", id, out, err, *second.KeyId)
		}
	}
	want := types.AliasListEntry{
		AliasArn: &aliasARN, AliasName: name, TargetKeyId: second.KeyId, CreationDate: &created, LastUpdatedDate: aws.Time(created.Add(time.Hour)),
	}
	for _, id := range []*string{nil, second.KeyId, second.Arn} {
		list := allAliases(t, c, id, nil)
		if len(list) != 1 || *list[0].AliasArn != *want.AliasArn || *list[0].AliasName != *want.AliasName || *list[0].TargetKeyId != *want.TargetKeyId ||
			!list[0].CreationDate.Equal(*want.CreationDate) || !list[0].LastUpdatedDate.Equal(*want.LastUpdatedDate) {
			t.Errorf("aliases %+v, want %+v", list, want)
		}
	}
	if list := allAliases(t, c, first.KeyId, nil); len(list) != 0 {
		t.Errorf("the key that the alias has left still has %v", aliasNames(list))
	}
	if _, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: context, KeyId: name}); err == nil {
		t.Error("the alias still decrypts what the key before has encrypted")
	} else {
		wantCode(t, err, "IncorrectKeyException")
	}

	if _, err := c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: name}); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	c = f.client()
	notThere := "Alias " + aliasARN + " is not found."
	_, err = c.Encrypt(ctx, &kms.EncryptInput{KeyId: name, Plaintext: secret})
	refused(t, err, "NotFoundException", notThere)
	_, err = c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: name})
	refused(t, err, "NotFoundException", notThere)
	_, err = c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: name, TargetKeyId: first.KeyId})
	refused(t, err, "NotFoundException", notThere)
	if out, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: context}); err != nil || string(out.Plaintext) != string(secret) {
		t.Errorf("decrypted %v, %v without the alias", out, err)
	}
}

func TestAliasNames(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	k := freshKey(t, c)
	for _, test := range []struct{ name, code, message string }{
		{"alias/a", "", ""},
		{"alias/Az09/_-", "", ""},
		{"alias/aws", "", ""},
		{"alias/awsome/x", "", ""},
		{"alias/" + strings.Repeat("x", 250), "", ""},
		{"alias/a", "AlreadyExistsException", "An alias with the name arn:aws:kms:" + region + ":" + account + ":alias/a already exists"},
		{"alias/" + strings.Repeat("x", 251), "ValidationException", "less than or equal to 256"},
		{"", "ValidationException", "aliasName"},
		{"alias/", "InvalidAliasNameException", "invalid characters"},
		{"alias/a:b", "InvalidAliasNameException", "invalid characters"},
		{"alias/a b", "ValidationException", "[a-zA-Z0-9:/_-]"},
		{"alias/ä", "ValidationException", "[a-zA-Z0-9:/_-]"},
		{"a", "ValidationException", `Alias must start with the prefix "alias/"`},
		{"Alias/a", "ValidationException", `Alias must start with the prefix "alias/"`},
		{"arn:aws:kms:" + region + ":" + account + ":alias/b", "ValidationException", `Alias must start with the prefix "alias/"`},
		{"alias/aws/s3", "NotAuthorizedException", ""},
	} {
		_, err := c.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &test.name, TargetKeyId: k.KeyId})
		refused(t, err, test.code, test.message)
		if test.code == "" || test.code == "AlreadyExistsException" {
			continue
		}
		_, err = c.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: &test.name, TargetKeyId: k.KeyId})
		refused(t, err, test.code, test.message)
		_, err = c.DeleteAlias(t.Context(), &kms.DeleteAliasInput{AliasName: &test.name})
		refused(t, err, test.code, test.message)
	}
	if n := len(allAliases(t, c, nil, nil)); n != 5 {
		t.Errorf("%d aliases, want the 5 that were accepted", n)
	}
}

func TestAliasTargets(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	k := freshKey(t, c)
	foreign, elsewhere := freshKey(t, f.as(foreignAccount, region)), freshKey(t, f.in(foreignRegion))
	setAlias(t, c, "alias/a", k.KeyId)
	for _, test := range []struct{ target, code, message string }{
		{"alias/a", "ValidationException", "Aliases must refer to keys. Not aliases"},
		{"arn:aws:kms:" + region + ":" + account + ":alias/a", "ValidationException", "Aliases must refer to keys. Not aliases"},
		{"0d4fe8a8-8a1c-4a3c-9e0a-5b1d7a0a5b1d", "NotFoundException", "does not exist"},
		{"nonsense", "NotFoundException", "Invalid keyId"},
		{*foreign.KeyId, "NotFoundException", "does not exist"},
		{*foreign.Arn, "AccessDeniedException", "kms:"},
		{*elsewhere.KeyId, "NotFoundException", "does not exist"},
		{*elsewhere.Arn, "NotFoundException", "Invalid arn"},
		{"arn:aws:s3:::bucket", "InvalidArnException", "not a valid ARN"},
		{"", "ValidationException", "targetKeyId"},
	} {
		_, err := c.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/b"), TargetKeyId: &test.target})
		refused(t, err, test.code, test.message)
		_, err = c.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: aws.String("alias/a"), TargetKeyId: &test.target})
		refused(t, err, test.code, test.message)
	}
	if list := allAliases(t, c, nil, nil); len(list) != 1 || *list[0].TargetKeyId != *k.KeyId {
		t.Errorf("aliases %v, want the one that was there", aliasNames(list))
	}
}

// TestAliasMovesAmongItsKind tests which keys can take the place of another.
func TestAliasMovesAmongItsKind(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	keys := map[string]*string{
		"symmetric":  freshKey(t, c).KeyId,
		"symmetric2": freshKey(t, c, func(in *kms.CreateKeyInput) { in.MultiRegion = aws.Bool(true) }).KeyId,
		"P256 sign":  freshKey(t, c, specified(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)).KeyId,
		"P384 sign":  freshKey(t, c, specified(types.KeySpecEccNistP384, types.KeyUsageTypeSignVerify)).KeyId,
		"RSA sign":   freshKey(t, c, specified(types.KeySpecRsa2048, types.KeyUsageTypeSignVerify)).KeyId,
		"RSA enc":    freshKey(t, c, specified(types.KeySpecRsa2048, types.KeyUsageTypeEncryptDecrypt)).KeyId,
		"P256 agree": freshKey(t, c, specified(types.KeySpecEccNistP256, types.KeyUsageTypeKeyAgreement)).KeyId,
		"HMAC 256":   freshKey(t, c, specified(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac)).KeyId,
		"HMAC 512":   freshKey(t, c, specified(types.KeySpecHmac512, types.KeyUsageTypeGenerateVerifyMac)).KeyId,
	}
	for _, test := range []struct {
		from, to string
		allowed  bool
	}{
		{"symmetric", "symmetric2", true},
		{"P256 sign", "P384 sign", true},
		{"P256 sign", "RSA sign", true},
		{"HMAC 256", "HMAC 512", true},
		{"symmetric", "symmetric", true},
		{"symmetric", "RSA enc", false}, // the same usage, of another kind
		{"symmetric", "HMAC 256", false},
		{"HMAC 256", "P256 sign", false},
		{"RSA sign", "RSA enc", false}, // the same kind, of another usage
		{"P256 sign", "P256 agree", false},
	} {
		t.Run(test.from+" to "+test.to, func(t *testing.T) {
			name := aws.String("alias/" + strings.ReplaceAll(t.Name(), " ", "_"))
			setAlias(t, c, *name, keys[test.from])
			_, err := c.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: name, TargetKeyId: keys[test.to]})
			want := keys[test.to]
			if test.allowed {
				refused(t, err, "", "")
			} else {
				want = keys[test.from]
				refused(t, err, "ValidationException", "same key usage")
			}
			if out, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: name}); err != nil || *out.KeyMetadata.KeyId != *want {
				t.Errorf("the alias names %v, %v, want %s", out, err, *want)
			}
		})
	}
}

// TestAliasOfKeyBeingDeleted tests what the key-state table says of aliases, and
// what becomes of them.
func TestAliasOfKeyBeingDeleted(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	dying, living := freshKey(t, c), freshKey(t, c)
	for _, name := range []string{"alias/stays", "alias/moves", "alias/dropped"} {
		setAlias(t, c, name, dying.KeyId)
	}
	setAlias(t, c, "alias/other", living.KeyId)
	scheduleDeletion(t, c, dying.KeyId)

	pending := *dying.Arn + " is pending deletion."
	_, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/new"), TargetKeyId: dying.KeyId})
	refused(t, err, "KMSInvalidStateException", pending)
	_, err = c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: aws.String("alias/other"), TargetKeyId: dying.KeyId})
	refused(t, err, "KMSInvalidStateException", pending)
	_, err = c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: aws.String("alias/moves"), TargetKeyId: living.KeyId})
	refused(t, err, "", "")
	_, err = c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: aws.String("alias/dropped")})
	refused(t, err, "", "")
	if got := aliasNames(allAliases(t, c, dying.KeyId, nil)); !slices.Equal(got, []string{"alias/stays"}) {
		t.Errorf("aliases %v of the key that waits for its deletion", got)
	}

	// The time has come, whether or not the worker has got to it.
	f.clock.advance(7 * 24 * time.Hour)
	if got := aliasNames(allAliases(t, c, nil, nil)); !slices.Equal(got, []string{"alias/moves", "alias/other"}) {
		t.Errorf("aliases %v after the deletion", got)
	}
	_, err = c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: aws.String("alias/stays"), TargetKeyId: living.KeyId})
	refused(t, err, "NotFoundException", "is not found")
	setAlias(t, c, "alias/stays", living.KeyId) // the name is free
	f.sweep()
	for range 2 {
		if got := aliasNames(allAliases(t, f.client(), living.KeyId, nil)); !slices.Equal(got, []string{"alias/moves", "alias/other", "alias/stays"}) {
			t.Errorf("aliases %v after the worker's round", got)
		}
		f.reopen()
	}
}

func TestConcurrentAliases(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	var keys []*string
	for range 4 {
		keys = append(keys, freshKey(t, c).KeyId)
	}
	for round := range 10 {
		name := aws.String(fmt.Sprintf("alias/round-%d", round))
		errs := make([]error, len(keys))
		var all sync.WaitGroup
		for i, id := range keys {
			all.Go(func() {
				_, errs[i] = c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: name, TargetKeyId: id})
			})
		}
		all.Wait()
		won := -1
		for i, err := range errs {
			switch {
			case err == nil && won < 0:
				won = i
			case err == nil:
				t.Fatalf("both %d and %d have created %s", won, i, *name)
			default:
				wantCode(t, err, "AlreadyExistsException")
			}
		}
		if won < 0 {
			t.Fatalf("nobody has created %s", *name)
		}
		if out := must(c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: name})); *out.KeyMetadata.KeyId != *keys[won] {
			t.Fatalf("%s names %s, not the key of the request that succeeded", *name, *out.KeyMetadata.KeyId)
		}
	}

	// Whatever is done at once, each alias is in the list of exactly one key.
	var all sync.WaitGroup
	for i, id := range keys {
		all.Go(func() {
			for round := range 10 {
				name := aws.String(fmt.Sprintf("alias/round-%d", (round+i)%10))
				_, _ = c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: name, TargetKeyId: id})
				if round%3 == 0 {
					_, _ = c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: name})
					_, _ = c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: name, TargetKeyId: id})
				}
			}
		})
	}
	all.Wait()
	for range 2 {
		var ofKeys []string
		for _, id := range keys {
			ofKeys = append(ofKeys, aliasNames(allAliases(t, f.client(), id, nil))...)
		}
		slices.Sort(ofKeys)
		if got := aliasNames(allAliases(t, f.client(), nil, nil)); !slices.Equal(got, ofKeys) {
			t.Fatalf("aliases %v, of the keys one by one %v", got, ofKeys)
		}
		f.reopen()
	}
}

func TestListAliases(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k, other := freshKey(t, c), freshKey(t, c)
	var want []string
	for i := range 120 {
		name, target := fmt.Sprintf("alias/%03d", i), k.KeyId
		if i%10 == 9 {
			target = other.KeyId
		}
		setAlias(t, c, name, target)
		want = append(want, name)
	}
	foreign, elsewhere := f.as(foreignAccount, region), f.in(foreignRegion)
	setAlias(t, foreign, "alias/000", freshKey(t, foreign).KeyId)
	setAlias(t, elsewhere, "alias/000", freshKey(t, elsewhere).KeyId)

	for _, limit := range []*int32{nil, aws.Int32(1), aws.Int32(7), aws.Int32(60), aws.Int32(100)} {
		if got := aliasNames(allAliases(t, c, nil, limit)); !slices.Equal(got, want) {
			t.Errorf("aliases %v by pages of %v, want %v", got, limit, want)
		}
		if n := len(allAliases(t, c, k.Arn, limit)); n != 108 {
			t.Errorf("%d aliases of the key, want 108", n)
		}
	}
	for who, client := range map[string]*engine.Client{"another account": foreign, "another Region": elsewhere} {
		if got := aliasNames(allAliases(t, client, nil, nil)); !slices.Equal(got, want[:1]) {
			t.Errorf("%s sees %v", who, got)
		}
	}
	first := must(c.ListAliases(ctx, &kms.ListAliasesInput{}))
	if len(first.Aliases) != 50 || !first.Truncated {
		t.Errorf("a page has %d aliases unless asked for, want 50", len(first.Aliases))
	}

	// What is added and removed between pages moves nothing else.
	for _, name := range []string{"alias/049", "alias/050"} {
		must(c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: &name}))
	}
	setAlias(t, c, "alias/000-early", k.KeyId)
	setAlias(t, c, "alias/060-late", k.KeyId)
	rest := must(c.ListAliases(ctx, &kms.ListAliasesInput{Marker: first.NextMarker, Limit: aws.Int32(100)}))
	if got, want := aliasNames(rest.Aliases), append(append(slices.Clone(want[51:61]), "alias/060-late"), want[61:]...); !slices.Equal(got, want) || rest.Truncated {
		t.Errorf("the second page has %v, want %v", got, want)
	}

	for _, test := range []struct {
		client        *engine.Client
		in            kms.ListAliasesInput
		code, message string
	}{
		{c, kms.ListAliasesInput{Marker: aws.String("nonsense")}, "InvalidMarkerException", ""},
		{c, kms.ListAliasesInput{Marker: first.NextMarker, KeyId: k.KeyId}, "InvalidMarkerException", ""},
		{foreign, kms.ListAliasesInput{Marker: first.NextMarker}, "InvalidMarkerException", ""},
		{c, kms.ListAliasesInput{Limit: aws.Int32(0)}, "ValidationException", "greater than or equal to 1"},
		{c, kms.ListAliasesInput{Limit: aws.Int32(101)}, "ValidationException", "less than or equal to 100"},
		{c, kms.ListAliasesInput{KeyId: aws.String("alias/000")}, "InvalidArnException", "Key Aliases are not supported for this operation."},
		{c, kms.ListAliasesInput{KeyId: first.Aliases[0].AliasArn}, "InvalidArnException", "Key Aliases are not supported for this operation."},
		{foreign, kms.ListAliasesInput{KeyId: k.Arn}, "AccessDeniedException", "kms:ListAliases"},
	} {
		_, err := test.client.ListAliases(ctx, &test.in)
		refused(t, err, test.code, test.message)
	}
}
