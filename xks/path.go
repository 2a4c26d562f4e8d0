package xks

import "strings"

// operation names one of the four API operations, in logs and metrics too.
type operation string

const (
	opMetadata operation = "GetKeyMetadata"
	opEncrypt  operation = "Encrypt"
	opDecrypt  operation = "Decrypt"
	opHealth   operation = "GetHealthStatus"
)

// route is what a request path names.
type route struct {
	prefix string // of the key store
	op     operation
	key    string // external key id as sent; empty for opHealth
}

// maxKeyID is the most characters that an external key id may have.
const maxKeyID = 128

// parsePath reads a request path from its end, because a prefix may itself
// contain what an API path consists of. The path is compared as sent: a
// percent-encoded spelling of a path is another path.
func parsePath(path string) (route, bool) {
	if prefix, ok := strings.CutSuffix(path, APIPath+"/health"); ok {
		return route{prefix: prefix, op: opHealth}, true
	}
	path, op, ok := cutLast(path)
	if !ok {
		return route{}, false
	}
	path, key, ok := cutLast(path)
	if !ok {
		return route{}, false
	}
	prefix, ok := strings.CutSuffix(path, APIPath+"/keys")
	if !ok {
		return route{}, false
	}
	switch op {
	case "metadata":
		return route{prefix, opMetadata, key}, true
	case "encrypt":
		return route{prefix, opEncrypt, key}, true
	case "decrypt":
		return route{prefix, opDecrypt, key}, true
	}
	return route{}, false
}

// cutLast slices path around its last slash.
func cutLast(path string) (before, after string, found bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", "", false
	}
	return path[:i], path[i+1:], true
}

// validKeyID reports whether id has the form of an external key id.
func validKeyID(id string) bool {
	if len(id) < 1 || len(id) > maxKeyID {
		return false
	}
	for i := range len(id) {
		if ch := id[i]; !isAlphanumeric(ch) && ch != '-' && ch != '.' && ch != '_' {
			return false
		}
	}
	return true
}
