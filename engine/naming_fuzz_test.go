package engine

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

// namingClient is a client of an engine that has one key with one grant.
func namingClient() (*Client, *grant) {
	e := &Engine{state: newState(), clock: time.Now}
	k := &key{Account: "111122223333", Region: "eu-central-1", ID: "0d4fe8a8-8a1c-4a3c-9e0a-5b1d7a0a5b1d"}
	g := &grant{Account: k.Account, Region: k.Region, KeyID: k.ID, ID: strings.Repeat("0a", 32), Secret: []byte("secret"), Name: "n"}
	e.state.putKey(k)
	e.state.putGrant(g)
	return e.Client(k.Region, Caller{Account: k.Account, ARN: "arn:aws:sts::111122223333:assumed-role/admin/s"}), g
}

// FuzzGrantToken tests that a token means what its text says: no other text is
// accepted in its place.
func FuzzGrantToken(f *testing.F) {
	c, g := namingClient()
	// The same in every process that fuzzes, which one with a random nonce is not.
	token := base64.RawURLEncoding.EncodeToString(g.sign(append(bytes.Repeat([]byte{10}, grantIDSize), make([]byte, grantNonceSize)...)))
	f.Add(token)
	f.Add(token + "=")
	f.Add(token[:len(token)-1] + "_")
	f.Add(token[:9] + "\n" + token[9:])
	f.Add(strings.Repeat("A", len(token)))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if got := c.grantOfToken(s); (got == g) != (s == token) {
			t.Errorf("token %q stands for %v", s, got)
		}
	})
}

// FuzzPrincipal tests that what counts as a principal is an ARN whose account can
// be told, and that no caller is taken for one of another account.
func FuzzPrincipal(f *testing.F) {
	for _, s := range []string{
		"arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:role/a/admin", "arn:aws:iam::444455556666:role/admin",
		"arn:aws:sts::111122223333:assumed-role/admin/s", "arn:aws:sts::444455556666:federated-user/x", "arn:aws:iam:::root", "root", "",
	} {
		f.Add(s)
	}
	c, _ := namingClient()
	f.Fuzz(func(t *testing.T, s string) {
		a, err := c.parsePrincipal(s)
		if err == nil && (!isAccountID(a.AccountID) || a.String() != s) {
			t.Errorf("principal %q of the account %q", s, a.AccountID)
		}
		if b, err := arn.Parse(s); c.caller.is(s) && (err != nil || b.AccountID != c.caller.Account) {
			t.Errorf("the caller acts as %q", s)
		}
	})
}
