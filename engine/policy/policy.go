// Package policy understands AWS KMS key policies: it parses and validates their
// documents and tells whether one locks its author out. It knows who asks only by
// what it is told, and nothing of storage, HTTP or the engine.
package policy

import (
	"fmt"
	"slices"
)

// MaxSize is the length in bytes of the longest key policy. Longer ones are a
// LimitExceededException, which the engine raises before it parses.
const MaxSize = 32768

// Policy is a key policy that is well-formed. It never changes.
type Policy struct {
	version    string // "2012-10-17", "2008-10-17", or empty, which means the latter
	id         string
	statements []statement
}

// statement allows or denies. One that lacks actions or resources is valid and has
// no effect, as in AWS KMS.
type statement struct {
	sid       string
	deny      bool
	who       principals
	exceptWho bool // who is a NotPrincipal

	actions         []string // patterns
	exceptActions   bool     // actions is a NotAction
	resources       []string // patterns
	exceptResources bool     // resources is a NotResource

	conditions []condition // all must hold
}

// Default returns the key policy that AWS KMS gives to a key created without one,
// in AWS's own layout: the account, a number of 12 digits, may do everything, and
// may let its identities do so.
func Default(account string) string {
	return fmt.Sprintf(`{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {
      "AWS" : "arn:aws:iam::%s:root"
    },
    "Action" : "kms:*",
    "Resource" : "*"
  } ]
}`, account)
}

// AllowsPutKeyPolicy reports whether principalARN, an identity of the account that
// owns the key, may change the policy of the key again once p is in force. It is
// AWS's lockout safety check: without BypassPolicyLockoutSafetyCheck, a policy that
// does not is refused. The key's ARN is asked for since statements may name it as
// their resource, instead of "*".
//
// A statement for the account counts for all of its identities, since nothing but
// key policies withholds permissions here. Of the condition keys, the identity's
// are known (aws:PrincipalArn, aws:PrincipalAccount, kms:CallerAccount). All others
// count as absent from the later request, with the effect that AWS's operators give
// to an absent key.
func (p *Policy) AllowsPutKeyPolicy(principalARN, account, keyARN string) bool {
	r := newRequest(principalARN, account, keyARN, "kms:PutKeyPolicy")
	allowed := false
	for i := range p.statements {
		s := &p.statements[i]
		if !s.applies(r) {
			continue
		}
		if s.deny {
			return false
		}
		allowed = true
	}
	return allowed
}

// request is what an identity wants to do with a key.
type request struct {
	principal string // as it signed: a session of a role, not the role
	role      string // of such a session, without its path; or empty
	account   string // of the identity
	key       string
	action    string
	context   map[string]string // condition keys, in lower case
}

func newRequest(principal, account, key, action string) *request {
	r := &request{principal: principal, role: roleOf(principal), account: account, key: key, action: action}
	arn := principal
	if r.role != "" {
		arn = r.role
	}
	r.context = map[string]string{
		"aws:principalarn":     arn,
		"aws:principalaccount": account,
		"kms:calleraccount":    account,
	}
	return r
}

func (s *statement) applies(r *request) bool {
	if !s.concerns(r) || !s.covers(r) {
		return false
	}
	return !slices.ContainsFunc(s.conditions, func(c condition) bool { return !c.holds(r.context) })
}

// concerns reports whether the statement is about who asks. For NotPrincipal it
// takes the side that could lock out: a deny spares only those that are named
// themselves, an allow leaves out the identities of a named account too.
func (s *statement) concerns(r *request) bool {
	named, byAccount := s.who.names(r)
	switch {
	case !s.exceptWho:
		return named || byAccount
	case s.deny:
		return !named
	default:
		return !named && !byAccount
	}
}

// covers reports whether the statement is about what is asked, and of this key.
func (s *statement) covers(r *request) bool {
	if len(s.actions) == 0 || len(s.resources) == 0 {
		return false
	}
	action := slices.ContainsFunc(s.actions, func(pattern string) bool { return likeFold(pattern, r.action) })
	resource := slices.ContainsFunc(s.resources, func(pattern string) bool { return like(pattern, r.key) })
	return action != s.exceptActions && resource != s.exceptResources
}
