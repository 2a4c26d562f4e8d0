package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Parse reads a policy document: strict JSON without duplicate names, in which
// every element is one that key policies have. The error says in AWS's words, where
// they are known, what is wrong and in which statement; the engine answers it as a
// MalformedPolicyDocumentException.
func Parse(document string) (*Policy, error) {
	if !jsontext.Value(document).IsValid(jsontext.AllowDuplicateNames(true)) {
		return nil, ErrNotJSON
	}
	members, err := object(jsontext.Value(document), "Id", "Statement", "Version")
	if err != nil {
		return nil, fmt.Errorf("the policy %w", err)
	}
	p := &Policy{}
	if p.version, err = optional(members, "Version"); err != nil {
		return nil, fmt.Errorf("the policy %w", err)
	}
	if _, ok := members["Version"]; ok && p.version != "2012-10-17" && p.version != "2008-10-17" {
		return nil, fmt.Errorf(`the policy's Version must be "2012-10-17" or "2008-10-17", not %q`, p.version)
	}
	if p.id, err = optional(members, "Id"); err != nil {
		return nil, fmt.Errorf("the policy %w", err)
	}
	all, err := oneOrMore(members["Statement"])
	if err != nil || len(all) == 0 || len(all[0]) == 0 {
		return nil, errors.New("the policy must have at least one Statement")
	}
	for i, v := range all {
		s, err := parseStatement(v)
		if err != nil {
			return nil, inStatement(i, err)
		}
		p.statements = append(p.statements, *s)
	}
	return p, nil
}

// ErrNotJSON is the error of [Parse] for a document that is no JSON at all.
var ErrNotJSON = errors.New("the policy is no valid JSON")

// errPrincipals is AWS's sentence. Tools look for it, and expect nothing behind it.
var errPrincipals = errors.New("Policy contains a statement with one or more invalid principals.") //nolint:staticcheck // as AWS writes it

func inStatement(i int, err error) error {
	if errors.Is(err, errPrincipals) {
		return err
	}
	return fmt.Errorf("statement %d %w", i+1, err)
}

func parseStatement(v jsontext.Value) (*statement, error) {
	members, err := object(v, "Action", "Condition", "Effect", "NotAction", "NotPrincipal", "NotResource",
		"Principal", "Resource", "Sid")
	if err != nil {
		return nil, err
	}
	s := &statement{}
	if s.sid, err = optional(members, "Sid"); err != nil {
		return nil, err
	}
	if s.deny, err = parseEffect(members); err != nil {
		return nil, err
	}
	if err := s.parseWho(members); err != nil {
		return nil, err
	}
	if s.actions, s.exceptActions, err = patterns(members, "Action", isAction); err != nil {
		return nil, err
	}
	if s.resources, s.exceptResources, err = patterns(members, "Resource", isResource); err != nil {
		return nil, err
	}
	if v, ok := members["Condition"]; ok {
		if s.conditions, err = parseConditions(v); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func parseEffect(members map[string]jsontext.Value) (deny bool, err error) {
	switch effect, err := optional(members, "Effect"); {
	case err == nil && effect == "Allow":
		return false, nil
	case err == nil && effect == "Deny":
		return true, nil
	}
	return false, errors.New(`must have the Effect "Allow" or "Deny"`)
}

// either returns the value of a member or of its twin that begins with Not.
func either(members map[string]jsontext.Value, name string) (v jsontext.Value, not bool, err error) {
	v, ok := members[name]
	other, not := members["Not"+name]
	switch {
	case ok && not:
		return nil, false, fmt.Errorf("must not have both %s and Not%[1]s", name)
	case not:
		return other, true, nil
	}
	return v, false, nil
}

func patterns(members map[string]jsontext.Value, name string, valid func(string) bool) ([]string, bool, error) {
	v, not, err := either(members, name)
	if err != nil || v == nil {
		return nil, false, err
	}
	all, err := texts(v)
	if err != nil || len(all) == 0 {
		return nil, false, fmt.Errorf("must have a string or a list of strings as its %s", name)
	}
	for _, s := range all {
		if !valid(s) {
			return nil, false, fmt.Errorf("has the invalid %s %q", strings.ToLower(name), s)
		}
	}
	return all, not, nil
}

// isAction reports whether s is "*" or a service and a pattern: "kms:Put*".
func isAction(s string) bool {
	service, name, ok := strings.Cut(s, ":")
	return s == "*" || ok && service != "" && name != "" && strings.Trim(service, lettersAndDigits+"-") == "" &&
		strings.Trim(name, lettersAndDigits+"*?") == ""
}

const lettersAndDigits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// isResource reports whether s is "*" or a pattern of ARNs.
func isResource(s string) bool {
	return s == "*" || strings.HasPrefix(s, "arn:") && strings.Count(s, ":") >= 5
}
