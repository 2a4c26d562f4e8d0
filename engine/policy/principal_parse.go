package policy

import (
	"errors"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

func (s *statement) parseWho(members map[string]jsontext.Value) error {
	v, not, err := either(members, "Principal")
	if err != nil {
		return err
	}
	s.exceptWho = not
	switch v.Kind() {
	case '"':
		if name, _ := text(v); name != "*" {
			return errPrincipals
		}
		s.who.everyone = true
		return nil
	case '{':
		return s.who.parse(v)
	case 0:
		return errors.New("has no principal")
	}
	return errPrincipals
}

func (p *principals) parse(v jsontext.Value) error {
	kinds, err := object(v)
	if err != nil {
		return err
	}
	if len(kinds) == 0 {
		return errors.New("has no principal")
	}
	for _, kind := range sorted(kinds) {
		if !slices.Contains(principalKinds(), kind) {
			return errPrincipals
		}
		names, err := texts(kinds[kind])
		if err != nil || len(names) == 0 {
			return errPrincipals
		}
		for _, name := range names {
			if err := p.add(kind, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *principals) add(kind, name string) error {
	switch {
	case kind == "AWS" && name == "*":
		p.everyone = true
	case kind == "AWS" && isPrincipal(name):
		p.aws = append(p.aws, name)
	case kind != "AWS" && isOther(kind, name):
		p.others = append(p.others, name)
	default:
		return errPrincipals
	}
	return nil
}

// isPrincipal reports whether s can be an AWS principal of a key policy, other than
// everyone: an account id, or the ARN of an account, user, role or session. Groups
// and patterns are none.
func isPrincipal(s string) bool {
	if isAccount(s) {
		return true
	}
	parts := strings.Split(s, ":")
	if len(parts) != 6 || parts[0] != "arn" || !strings.HasPrefix(parts[1], "aws") ||
		parts[3] != "" || !isAccount(parts[4]) || strings.ContainsAny(s, "*? ") {
		return false
	}
	if parts[5] == "root" {
		return parts[2] == "iam"
	}
	kind, name, _ := strings.Cut(parts[5], "/")
	if name == "" || strings.HasSuffix(name, "/") {
		return false
	}
	if parts[2] == "iam" {
		return kind == "user" || kind == "role"
	}
	return parts[2] == "sts" && (kind == "federated-user" || kind == "assumed-role" && strings.Contains(name, "/"))
}

// isOther reports whether s can be a principal of one of the other kinds.
func isOther(kind, s string) bool {
	if s == "" || strings.ContainsAny(s, "*? \t\r\n") {
		return false
	}
	return kind != "Service" || strings.Contains(s, ".")
}

func principalKinds() []string {
	return []string{"AWS", "CanonicalUser", "Federated", "Service"}
}
