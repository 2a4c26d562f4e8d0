package policy

import "strings"

// principals is the value of a Principal or NotPrincipal.
type principals struct {
	everyone bool
	aws      []string // ARNs and account ids
	others   []string // services, federated and canonical users: never who calls hyok
}

// names reports whether r's identity is named itself (or everyone is), and whether
// its account is.
func (p *principals) names(r *request) (itself, account bool) {
	itself = p.everyone
	for _, name := range p.aws {
		switch {
		case name == r.principal || r.role != "" && roleWithoutPath(name) == r.role:
			itself = true
		case accountOf(name) == r.account:
			account = true
		}
	}
	return itself, account
}

// accountOf returns the account that a principal stands for as a whole, or "".
func accountOf(principal string) string {
	if isAccount(principal) {
		return principal
	}
	if rest, ok := strings.CutSuffix(principal, ":root"); ok {
		return rest[strings.LastIndexByte(rest, ':')+1:]
	}
	return ""
}

// roleOf returns the role of the session arn:P:sts::ACCOUNT:assumed-role/ROLE/SESSION
// as arn:P:iam::ACCOUNT:role/ROLE, or "". A session does not tell its role's path.
func roleOf(arn string) string {
	parts := strings.Split(arn, ":")
	if len(parts) != 6 || parts[2] != "sts" {
		return ""
	}
	name, ok := strings.CutPrefix(parts[5], "assumed-role/")
	role, _, session := strings.Cut(name, "/")
	if !ok || !session {
		return ""
	}
	return "arn:" + parts[1] + ":iam::" + parts[4] + ":role/" + role
}

func roleWithoutPath(arn string) string {
	head, name, ok := strings.Cut(arn, ":role/")
	if !ok {
		return ""
	}
	return head + ":role/" + name[strings.LastIndexByte(name, '/')+1:]
}

func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}
