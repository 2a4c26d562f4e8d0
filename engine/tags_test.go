package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

// tagList makes tags of "key=value".
func tagList(pairs ...string) []types.Tag {
	var tags []types.Tag
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		tags = append(tags, types.Tag{TagKey: &key, TagValue: &value})
	}
	return tags
}

func numberedTags(from, to int) []types.Tag {
	var pairs []string
	for i := from; i < to; i++ {
		pairs = append(pairs, fmt.Sprintf("k%02d=v%d", i, i))
	}
	return tagList(pairs...)
}

// tagsOf returns a key's tags as "key=value", read by pages.
func tagsOf(t testing.TB, c *engine.Client, id *string, limit *int32) []string {
	t.Helper()
	var all []string
	for p := kms.NewListResourceTagsPaginator(c, &kms.ListResourceTagsInput{KeyId: id, Limit: limit}); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if limit != nil && len(out.Tags) > int(*limit) {
			t.Fatalf("a page of %d tags, limit %d", len(out.Tags), *limit)
		}
		for _, tag := range out.Tags {
			all = append(all, *tag.TagKey+"="+*tag.TagValue)
		}
	}
	return all
}

func TestTagLife(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k := freshKey(t, c, func(in *kms.CreateKeyInput) { in.Tags = tagList("Project=Alpha", "empty=", "project=lower") })
	for i, step := range []struct {
		tag   []types.Tag
		untag []string
		want  []string
	}{
		{nil, nil, []string{"Project=Alpha", "empty=", "project=lower"}},
		{tagList("Project=Beta", "cost center=12 ä"), nil, []string{"Project=Beta", "cost center=12 ä", "empty=", "project=lower"}},
		{nil, []string{"empty", "not there"}, []string{"Project=Beta", "cost center=12 ä", "project=lower"}},
		{tagList("Project="), []string{"project"}, []string{"Project=", "cost center=12 ä"}},
		{nil, []string{"Project", "cost center"}, nil},
	} {
		if step.tag != nil {
			must(c.TagResource(ctx, &kms.TagResourceInput{KeyId: k.Arn, Tags: step.tag}))
		}
		if step.untag != nil {
			must(c.UntagResource(ctx, &kms.UntagResourceInput{KeyId: k.KeyId, TagKeys: step.untag}))
		}
		f.reopen()
		c = f.client()
		if got := tagsOf(t, c, k.KeyId, nil); !slices.Equal(got, step.want) {
			t.Errorf("step %d: tags %q, want %q", i, got, step.want)
		}
	}
}

func TestTagLimits(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k := freshKey(t, c, func(in *kms.CreateKeyInput) { in.Tags = numberedTags(0, 48) })
	for _, test := range []struct {
		name          string
		tags          []types.Tag
		code, message string
	}{
		{"reserved", tagList("fine=1", "aws:x=1"), "TagException", "Tags beginning with aws: are reserved"},
		{"reserved in capitals", tagList("AWS:x=1"), "TagException", "Tags beginning with aws: are reserved"},
		{"twice", tagList("a=1", "b=1", "a=1"), "TagException", "Duplicate tag keys"},
		{"51 at once", numberedTags(0, 51), "TagException", "Too many tags"},
		{"51 in all", tagList("a=1", "b=1", "c=1"), "LimitExceededException", "50 tags"},
		{"no key", tagList("=1"), "ValidationException", "greater than or equal to 1"},
		{"long key", tagList(strings.Repeat("k", 129) + "=1"), "ValidationException", "less than or equal to 128"},
		{"long value", tagList("k=" + strings.Repeat("v", 257)), "ValidationException", "less than or equal to 256"},
		{"no value", []types.Tag{{TagKey: aws.String("k")}}, "ValidationException", "tagValue"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := c.TagResource(ctx, &kms.TagResourceInput{KeyId: k.KeyId, Tags: test.tags})
			refused(t, err, test.code, test.message)
			if test.name == "51 in all" {
				return
			}
			_, err = c.CreateKey(ctx, &kms.CreateKeyInput{Tags: test.tags})
			refused(t, err, test.code, test.message)
		})
	}
	if n := len(tagsOf(t, c, k.KeyId, nil)); n != 48 {
		t.Errorf("%d tags, want the 48 of before", n)
	}
	longest := tagList(strings.Repeat("k", 128)+"="+strings.Repeat("v", 256), "aws=1", "k00=again", "k01=again")
	must(c.TagResource(ctx, &kms.TagResourceInput{KeyId: k.KeyId, Tags: longest}))
	if n := len(tagsOf(t, c, k.KeyId, nil)); n != 50 {
		t.Errorf("%d tags, want 50", n)
	}
	_, err := c.UntagResource(ctx, &kms.UntagResourceInput{KeyId: k.KeyId, TagKeys: []string{"k00", "aws:x"}})
	refused(t, err, "TagException", "reserved")

	scheduleDeletion(t, c, k.KeyId)
	_, err = c.TagResource(ctx, &kms.TagResourceInput{KeyId: k.KeyId, Tags: tagList("k00=1")})
	refused(t, err, "KMSInvalidStateException", "is pending deletion.")
	_, err = c.UntagResource(ctx, &kms.UntagResourceInput{KeyId: k.KeyId, TagKeys: []string{"k00"}})
	refused(t, err, "KMSInvalidStateException", "is pending deletion.")
	if n := len(tagsOf(t, c, k.KeyId, nil)); n != 50 {
		t.Errorf("%d tags of the key that waits for its deletion, want 50", n)
	}
	f.clock.advance(7 * 24 * time.Hour)
	_, err = c.ListResourceTags(ctx, &kms.ListResourceTagsInput{KeyId: k.KeyId})
	refused(t, err, "NotFoundException", "does not exist")
}

func TestTagPages(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k := freshKey(t, c, func(in *kms.CreateKeyInput) { in.Tags = numberedTags(0, 50) })
	want := tagsOf(t, c, k.KeyId, nil)
	if len(want) != 50 || !slices.IsSorted(want) {
		t.Fatalf("tags %q", want)
	}
	for _, limit := range []int32{1, 7, 25, 50} {
		if got := tagsOf(t, c, k.Arn, &limit); !slices.Equal(got, want) {
			t.Errorf("tags %q by pages of %d, want %q", got, limit, want)
		}
	}
	first := must(c.ListResourceTags(ctx, &kms.ListResourceTagsInput{KeyId: k.KeyId, Limit: aws.Int32(10)}))
	must(c.UntagResource(ctx, &kms.UntagResourceInput{KeyId: k.KeyId, TagKeys: []string{"k09", "k10", "k03"}}))
	must(c.TagResource(ctx, &kms.TagResourceInput{KeyId: k.KeyId, Tags: tagList("a=early", "k11a=late")}))
	second := must(c.ListResourceTags(ctx, &kms.ListResourceTagsInput{KeyId: k.KeyId, Limit: aws.Int32(3), Marker: first.NextMarker}))
	var got []string
	for _, tag := range second.Tags {
		got = append(got, *tag.TagKey)
	}
	if !slices.Equal(got, []string{"k11", "k11a", "k12"}) || !second.Truncated {
		t.Errorf("the second page has %q", got)
	}
	other := freshKey(t, c)
	for _, test := range []struct {
		in   kms.ListResourceTagsInput
		code string
	}{
		{kms.ListResourceTagsInput{KeyId: other.KeyId, Marker: first.NextMarker}, "InvalidMarkerException"},
		{kms.ListResourceTagsInput{KeyId: k.KeyId, Limit: aws.Int32(51)}, "ValidationException"},
		{kms.ListResourceTagsInput{}, "ValidationException"},
		{kms.ListResourceTagsInput{KeyId: aws.String("alias/a")}, "InvalidArnException"},
	} {
		_, err := c.ListResourceTags(ctx, &test.in)
		wantCode(t, err, test.code)
	}
	_, err := f.as(foreignAccount, region).TagResource(ctx, &kms.TagResourceInput{KeyId: k.Arn, Tags: tagList("a=1")})
	wantCode(t, err, "AccessDeniedException")
}
