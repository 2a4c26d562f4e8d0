package engine

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// parsePrincipal reads the ARN of an AWS principal that a grant can name: an
// account, user, role, role session or federated user. Whether it exists is not
// known here.
func (c *Client) parsePrincipal(s string) (arn.ARN, error) {
	a, err := arn.Parse(s)
	if err != nil || a.Partition != partition(c.region) || a.Region != "" || !isAccountID(a.AccountID) || !isPrincipalResource(a.Service, a.Resource) {
		return a, &types.InvalidArnException{Message: message("ARN does not refer to a valid principal: %s", []any{quote(s)})}
	}
	return a, nil
}

func isPrincipalResource(service, resource string) bool {
	kind, name, _ := strings.Cut(resource, "/")
	switch service + " " + kind {
	case "iam root":
		return resource == "root"
	case "iam user", "iam role":
		return name != "" && !strings.HasSuffix(name, "/")
	case "sts assumed-role":
		role, session, _ := strings.Cut(name, "/")
		return role != "" && session != ""
	case "sts federated-user":
		return name != ""
	}
	return false
}

func isAccountID(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// is reports whether the caller acts as a principal: it is that, or a session of
// that role, or any identity of that account, to which an account's permissions
// are delegated here, where no IAM policy says otherwise.
func (c Caller) is(principal string) bool {
	if c.ARN == principal {
		return true
	}
	a, err := arn.Parse(principal)
	if err != nil || a.AccountID != c.Account {
		return false
	}
	if a.Resource == "root" {
		return true
	}
	role, isRole := strings.CutPrefix(a.Resource, "role/")
	own, err := arn.Parse(c.ARN)
	if !isRole || err != nil || own.AccountID != a.AccountID {
		return false
	}
	// A session has the role's name without its path.
	return strings.HasPrefix(own.Resource, "assumed-role/"+role[strings.LastIndexByte(role, '/')+1:]+"/")
}
