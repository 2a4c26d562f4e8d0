package engine

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

const (
	aliasPrefix         = "alias/"
	reservedAliasPrefix = "alias/aws/"
	multiRegionPrefix   = "mrk-" // of the ids of multi-Region keys
)

// partition returns the AWS partition of a Region.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	case strings.HasPrefix(region, "eusc-"):
		return "aws-eusc"
	case strings.HasPrefix(region, "us-iso-"):
		return "aws-iso"
	case strings.HasPrefix(region, "us-isob-"):
		return "aws-iso-b"
	}
	return "aws"
}

// resourceARN returns the ARN of a resource of KMS, such as key/1234 or alias/a.
func resourceARN(account, region, resource string) string {
	return "arn:" + partition(region) + ":kms:" + region + ":" + account + ":" + resource
}

// keyARN returns the ARN of a key. It is part of nearly every answer, so it is made
// in one piece.
func keyARN(account, region, id string) string {
	return "arn:" + partition(region) + ":kms:" + region + ":" + account + ":key/" + id
}

// keyName is what a KeyId parameter names: a key id or an alias, here or in
// another account.
type keyName struct {
	account, region string
	id              string // of a key; empty if it is an alias
	alias           string // with its prefix; empty if it is a key
}

// parseKeyName reads the four forms of a KeyId parameter: key id, key ARN, alias
// name, alias ARN.
func (c *Client) parseKeyName(s string) (keyName, error) {
	n := keyName{account: c.caller.Account, region: c.region}
	resource := s
	if strings.HasPrefix(s, "arn:") {
		a, err := arn.Parse(s)
		switch {
		case err != nil || a.Service != "kms" || a.AccountID == "" || a.Region == "" || a.Partition != partition(c.region):
			return n, &types.InvalidArnException{Message: message("%s is not a valid ARN of a KMS key or alias", []any{quote(s)})}
		case a.Region != c.region:
			return n, notFound("Invalid arn %s", bounded(a.Region))
		}
		n.account = a.AccountID
		resource = a.Resource
		if id, ok := strings.CutPrefix(resource, "key/"); ok {
			if !isKeyID(id) {
				return n, notFound("Invalid keyId %s", bounded(id))
			}
			n.id = id
			return n, nil
		}
		if !strings.HasPrefix(resource, aliasPrefix) {
			return n, &types.InvalidArnException{Message: message("%s is not a valid ARN of a KMS key or alias", []any{quote(s)})}
		}
	}
	if strings.HasPrefix(resource, aliasPrefix) {
		n.alias = resource
		return n, nil
	}
	if !isKeyID(resource) {
		return n, notFound("Invalid keyId %s", quote(resource))
	}
	n.id = resource
	return n, nil
}

// quote bounds what a message repeats of its input.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "..."
	}
	return "'" + s + "'"
}

// isKeyID reports whether s has the form of a key id: a UUID, or mrk- and 32
// hexadecimal digits.
func isKeyID(s string) bool {
	if rest, ok := strings.CutPrefix(s, multiRegionPrefix); ok {
		return len(rest) == 32 && isHex(rest)
	}
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' &&
		isHex(s[:8]) && isHex(s[9:13]) && isHex(s[14:18]) && isHex(s[19:23]) && isHex(s[24:])
}

func isHex(s string) bool {
	for _, ch := range []byte(s) {
		if (ch < '0' || ch > '9') && (ch < 'a' || ch > 'f') && (ch < 'A' || ch > 'F') {
			return false
		}
	}
	return true
}
