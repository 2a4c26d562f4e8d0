package tokentest

import (
	"os"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

// Environment variables by which the suites of the XKS proxy and of the embedded KMS
// run on any token, see docs/tokens.md.
const (
	TokenVariable   = "HYOK_TEST_TOKEN"   // PKCS#11 URI with module-path and pin-source
	ProfileVariable = "HYOK_TEST_PROFILE" // its profile
	LacksVariable   = "HYOK_TEST_LACKS"   // key specs of AWS KMS that it cannot serve, with commas between
)

// Named is the token that the suites run on.
type Named struct {
	URI     keystore.URI
	PIN     string
	Profile keystore.Profile
	Lacks   []string
	Given   bool // by the environment
}

// Suite returns the token that the environment names for the suites, else a new one of
// SoftHSM2.
func Suite(tb testing.TB, ms *keystore.Modules) Named {
	tb.Helper()
	text, ok := os.LookupEnv(TokenVariable)
	if !ok {
		return Named{URI: NewToken(tb, ms), PIN: PIN, Profile: keystore.Profiles()[0]}
	}
	n := Named{Given: true}
	var err error
	if n.URI, err = keystore.ParseURI(text); err != nil {
		tb.Fatal(err)
	}
	if n.Profile, err = keystore.ProfileByName(os.Getenv(ProfileVariable)); err != nil {
		tb.Fatal(err)
	}
	if n.PIN, err = n.URI.PIN("", true); err != nil {
		tb.Fatal(err)
	}
	if lacks := os.Getenv(LacksVariable); lacks != "" {
		n.Lacks = strings.Split(lacks, ",")
	}
	return n
}

// Options returns options that open the token.
func (n Named) Options() keystore.Options {
	o := Options(n.URI)
	o.Profile = n.Profile
	o.PIN = func() (string, error) { return n.PIN, nil }
	return o
}
