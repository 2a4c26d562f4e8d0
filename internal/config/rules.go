package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/hyok-kms/hyok/xks"
)

// maxPrefix is what xks.APIPath leaves of the 128 characters that the
// specification gives an XksProxyUriPath.
const maxPrefix = 128 - len(xks.APIPath)

var (
	nameForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
	prefixForm  = regexp.MustCompile(`^(/[A-Za-z0-9_-]+)*$`)
	keyIDForm   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	regionForm  = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$`)
	subjectForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,255}$`)
	vaultForm   = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	clusterForm = regexp.MustCompile(`^cluster-[2-7a-zA-Z]{11,16}$`) // CloudHsmClusterId of AWS KMS
)

// form returns a check against a regular expression.
func form(re *regexp.Regexp, allowed string) func(string) error {
	return func(s string) error {
		if !re.MatchString(s) {
			return errors.New("must be " + allowed)
		}
		return nil
	}
}

// ValidateName reports whether a token or key store may be called so.
func ValidateName(name string) error {
	return form(nameForm, "a name: 1 to 64 of a-z, A-Z, 0-9, '-' and '_', a letter or digit first")(name)
}

// ValidateKeyID reports whether id can be an external key id (1 to 128 of a-z,
// A-Z, 0-9, '-', '.', '_': section "URI" of the specification).
func ValidateKeyID(id string) error {
	return form(keyIDForm, "an external key id: 1 to 128 of a-z, A-Z, 0-9, '-', '.' and '_'")(id)
}

// ValidatePrefix reports whether prefix can precede [xks.APIPath] in the path
// of a key store.
func ValidatePrefix(prefix string) error {
	if len(prefix) > maxPrefix {
		return fmt.Errorf("must have at most %d characters", maxPrefix)
	}
	return form(prefixForm, "empty, or segments of a-z, A-Z, 0-9, '-' and '_' with '/' before each and not at the end")(prefix)
}

func validateKeyPattern(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
		return errors.New(`must be a pattern of external key ids, in which '*' is any text, '?' any character and [a-z] a range`)
	}
	return nil
}

// validateParameters refuses what is no C string.
func validateParameters(s string) error {
	if strings.ContainsRune(s, 0) {
		return errors.New("must not have a zero byte")
	}
	return nil
}

func validateNotEmpty(s string) error {
	if s == "" {
		return errors.New("must not be empty")
	}
	return nil
}

func validatePath(s string) error {
	if s == "" || strings.ContainsRune(s, 0) {
		return errors.New("must be the path of a file")
	}
	return nil
}

func validateFolder(s string) error {
	if validatePath(s) != nil {
		return errors.New("must be the path of a folder")
	}
	return nil
}

func validateURI(s string) error {
	if !isURI(s) {
		return errors.New("must be a PKCS#11 URI (RFC 7512), which starts with the word pkcs11 and a colon")
	}
	return nil
}

// isURI tells a PKCS#11 URI from a path. Schemes know no case.
func isURI(s string) bool {
	const scheme = "pkcs11:"
	return len(s) > len(scheme) && strings.EqualFold(s[:len(scheme)], scheme)
}

func validateAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || strings.ContainsAny(host, " /") {
		return errors.New("must be host:port, such as 127.0.0.1:8443 or [::1]:8443, the port from 0 (any free one) to 65535")
	}
	return nil
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// conflict reports whether two listeners cannot have both addresses.
func conflict(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil {
		return false
	}
	numberA, errA := strconv.ParseUint(portA, 10, 16)
	numberB, errB := strconv.ParseUint(portB, 10, 16)
	if errA != nil || errB != nil || numberA != numberB || numberA == 0 {
		return false
	}
	return strings.EqualFold(hostA, hostB) || isWildcard(hostA) || isWildcard(hostB)
}

func isWildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// decodeSampleMetadata decodes strict Base64; Go's own strict mode still skips
// line ends.
func decodeSampleMetadata(s string) ([]byte, error) {
	data, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") || len(data) == 0 || len(data) > xks.MaxMetadataSize {
		return nil, fmt.Errorf("must be Base64 of 1 to %d bytes", xks.MaxMetadataSize)
	}
	return data, nil
}
