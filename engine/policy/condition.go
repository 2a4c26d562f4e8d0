package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// condition is one operator with one key: {operator: {key: values}}.
type condition struct {
	operator operator
	key      string // in lower case: keys have no case
	values   []string
}

// operator is a condition operator without its prefix and suffix.
type operator struct {
	equal    func(value, have string) bool // nil: no key known here has values of that type
	negated  bool
	null     bool
	ifExists bool // absent keys satisfy it
	all      bool // ForAllValues, which absent keys satisfy too
}

// holds reports whether the condition is met by the keys of a request.
func (c *condition) holds(context map[string]string) bool {
	have, present := context[c.key]
	if c.operator.null {
		return slices.Contains(c.values, fmt.Sprint(!present))
	}
	if !present {
		return c.operator.negated || c.operator.ifExists || c.operator.all
	}
	equal := c.operator.equal != nil &&
		slices.ContainsFunc(c.values, func(value string) bool { return c.operator.equal(value, have) })
	return equal != c.operator.negated
}

// parseOperator understands an operator as a policy spells it.
func parseOperator(name string) (operator, error) {
	var o operator
	bare, any := strings.CutPrefix(name, "ForAnyValue:")
	if !any {
		bare, o.all = strings.CutPrefix(name, "ForAllValues:")
	}
	bare, o.ifExists = strings.CutSuffix(bare, "IfExists")
	if bare == "Null" && !o.ifExists && bare == name {
		o.null = true
		return o, nil
	}
	positive := strings.Replace(bare, "Not", "", 1)
	o.negated = positive != bare
	switch positive {
	case "StringEquals":
		o.equal = equal
	case "StringEqualsIgnoreCase":
		o.equal = strings.EqualFold
	case "StringLike":
		o.equal = like
	case "ArnEquals", "ArnLike":
		o.equal = likeARN
	case "NumericEquals", "DateEquals", "IpAddress":
	case "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals",
		"DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals",
		"Bool", "BinaryEquals":
		if o.negated {
			return o, fmt.Errorf("%q is no condition operator", name)
		}
	default:
		return o, fmt.Errorf("%q is no condition operator", name)
	}
	return o, nil
}

func equal(value, have string) bool { return value == have }

func parseConditions(v jsontext.Value) ([]condition, error) {
	operators, err := object(v)
	if err != nil {
		return nil, fmt.Errorf("has a Condition that %w", err)
	}
	var conditions []condition
	for _, name := range sorted(operators) {
		o, err := parseOperator(name)
		if err != nil {
			return nil, fmt.Errorf("has a Condition in which %w", err)
		}
		keys, err := object(operators[name])
		if err != nil {
			return nil, fmt.Errorf("has a Condition whose %s %w", name, err)
		}
		for _, key := range sorted(keys) {
			values, err := scalars(keys[key])
			if err != nil || key == "" || len(values) == 0 {
				return nil, fmt.Errorf("has a Condition whose %s of %q is not a value or a list of values", name, key)
			}
			conditions = append(conditions, condition{o, strings.ToLower(key), values})
		}
	}
	return conditions, nil
}
