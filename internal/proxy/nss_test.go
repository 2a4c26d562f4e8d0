package proxy_test

import (
	"os"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
)

// nssLacks are the key specs of the KMS that NSS cannot serve. The suite fails once it
// can.
const nssLacks = "ECC_SECG_P256K1,ECC_NIST_EDWARDS25519"

// The suites of the XKS proxy and of the embedded KMS pass on a token of another make,
// NSS behind p11-kit-proxy: by a child process, see tokentest.NSS.
func TestSuitesOnNSS(t *testing.T) {
	if _, given := os.LookupEnv(tokentest.TokenVariable); given {
		t.Fatal("this test has a token of its own")
	}
	n := tokentest.NewNSS(t)
	cmd := n.Command(t, "/proc/self/exe", "-test.run=^(TestSuite|TestConformance)$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(cmd.Env, tokentest.TokenVariable+"="+n.URI(t).String(), tokentest.ProfileVariable+"=generic", tokentest.LacksVariable+"="+nssLacks)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
