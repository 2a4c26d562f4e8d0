package engine

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// checkPrincipal returns an error unless s is a principal that a grant can name: an
// account, user, role, role session or federated user by its ARN, or a service by
// its name. Whether it exists is not known here.
func (c *Client) checkPrincipal(s string) error {
	if isServicePrincipal(s) {
		return nil
	}
	_, err := c.parsePrincipal(s)
	return err
}

// parsePrincipal reads the ARN of an AWS principal.
func (c *Client) parsePrincipal(s string) (arn.ARN, error) {
	a, err := arn.Parse(s)
	if err != nil || a.Partition != partition(c.region) || a.Region != "" || !isAccountID(a.AccountID) || !isPrincipalResource(a.Service, a.Resource) {
		return a, &types.InvalidArnException{Message: message("ARN does not refer to a valid principal: %s", []any{bounded(s)})}
	}
	return a, nil
}

// isServicePrincipal reports whether s is the name of a service of AWS, such as
// dynamodb.us-west-1.amazonaws.com.
func isServicePrincipal(s string) bool {
	service, _, ok := strings.Cut(s, ".amazonaws.")
	return ok && service != "" && !slices.ContainsFunc(strings.Split(s, "."), func(label string) bool {
		return label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != ""
	})
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
