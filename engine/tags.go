package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

const (
	maxTags           = 50 // of a key
	reservedTagPrefix = "aws:"
)

func (c *Client) tagResource(ctx context.Context, in *kms.TagResourceInput) (*kms.TagResourceOutput, error) {
	_, err := c.edit(ctx, "TagResource", in.KeyId, func(k *key, _ *batch) error {
		var err error
		k.Tags, err = addTags(k.Tags, in.Tags)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &kms.TagResourceOutput{}, nil
}

func (c *Client) untagResource(ctx context.Context, in *kms.UntagResourceInput) (*kms.UntagResourceOutput, error) {
	_, err := c.edit(ctx, "UntagResource", in.KeyId, func(k *key, _ *batch) error {
		if slices.ContainsFunc(in.TagKeys, isReservedTag) {
			return reservedTag()
		}
		k.Tags = slices.DeleteFunc(k.Tags, func(t tag) bool { return slices.Contains(in.TagKeys, t.Key) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &kms.UntagResourceOutput{}, nil
}

// addTags returns old tags of a key with some added or changed, sorted by their
// keys.
func addTags(old []tag, added []types.Tag) ([]tag, error) {
	if len(added) > maxTags {
		return nil, tagError("Too many tags")
	}
	seen := map[string]bool{}
	tags := slices.Clone(old)
	for _, t := range added {
		name := aws.ToString(t.TagKey)
		switch {
		case seen[name]:
			return nil, tagError("Duplicate tag keys")
		case isReservedTag(name):
			return nil, reservedTag()
		}
		seen[name] = true
		tags = putTag(tags, tag{name, aws.ToString(t.TagValue)})
	}
	if len(tags) > maxTags {
		return nil, limitExceeded("A KMS key can have at most %d tags; this one would have %d.", maxTags, len(tags))
	}
	return tags, nil
}

func putTag(tags []tag, t tag) []tag {
	i, there := findTag(tags, t.Key)
	if there {
		tags[i] = t
		return tags
	}
	return slices.Insert(tags, i, t)
}

// findTag returns where in sorted tags a key is or would be.
func findTag(tags []tag, key string) (int, bool) {
	return slices.BinarySearchFunc(tags, key, func(t tag, key string) int { return strings.Compare(t.Key, key) })
}

func isReservedTag(key string) bool {
	return len(key) >= len(reservedTagPrefix) && strings.EqualFold(key[:len(reservedTagPrefix)], reservedTagPrefix)
}

func reservedTag() error { return tagError("Tags beginning with aws: are reserved") }

func tagError(text string) error { return &types.TagException{Message: aws.String(text)} }

func (c *Client) listResourceTags(_ context.Context, in *kms.ListResourceTagsInput) (*kms.ListResourceTagsOutput, error) {
	const op = "ListResourceTags"
	k, err := c.findKey(op, in.KeyId)
	if err != nil {
		return nil, err
	}
	p, err := newPage(c, op+"/"+k.ID, in.Limit, in.Marker, 50, 50)
	if err != nil {
		return nil, err
	}
	tags := k.Tags
	if p.after != "" {
		i, there := findTag(tags, p.after)
		if there {
			i++
		}
		tags = tags[i:]
	}
	out := &kms.ListResourceTagsOutput{Tags: []types.Tag{}}
	if len(tags) > p.limit {
		tags = tags[:p.limit]
		out.Truncated, out.NextMarker = true, p.marker(tags[p.limit-1].Key)
	}
	for _, t := range tags {
		out.Tags = append(out.Tags, types.Tag{TagKey: aws.String(t.Key), TagValue: aws.String(t.Value)})
	}
	return out, nil
}
