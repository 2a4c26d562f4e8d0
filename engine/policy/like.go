package policy

import "strings"

// like reports whether all of s matches pattern, in which * stands for any
// characters and ? for one. It takes time in proportion to the product of their
// lengths at worst, whatever a policy says.
func like(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0 // the last * and where in s what follows it was tried last
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// likeFold is like without regard to case.
func likeFold(pattern, s string) bool {
	return like(strings.ToLower(pattern), strings.ToLower(s))
}

// likeARN compares the six parts of two ARNs one by one, so that a * in one part
// does not reach into the next.
func likeARN(pattern, arn string) bool {
	p, a := strings.SplitN(pattern, ":", 6), strings.SplitN(arn, ":", 6)
	if len(p) != 6 || len(a) != 6 {
		return pattern == "*"
	}
	for i := range p {
		if !like(p[i], a[i]) {
			return false
		}
	}
	return true
}
