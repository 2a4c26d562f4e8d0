package engine

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// A grant token stands for a grant. Every CreateGrant returns another, also for a
// grant that was there already, and none of them is stored:
//
//	id    32 bytes: of the grant
//	nonce 16 bytes
//	mac   32 bytes: HMAC-SHA-256 of both under the grant's secret
const (
	grantIDSize    = 32
	grantNonceSize = 16
)

// newToken returns a token of the grant that there was not before.
func (g *grant) newToken() string {
	token := make([]byte, grantIDSize+grantNonceSize, grantIDSize+grantNonceSize+sha256.Size)
	_, _ = hex.Decode(token, []byte(g.ID)) // it was made here
	_, _ = rand.Read(token[grantIDSize:])  // never fails
	return base64.RawURLEncoding.EncodeToString(g.sign(token))
}

// sign appends the mac.
func (g *grant) sign(token []byte) []byte {
	mac := hmac.New(sha256.New, g.Secret)
	_, _ = mac.Write(token)
	return mac.Sum(token)
}

// grantOfToken returns the grant of this Region that a token stands for, nil if
// there is none, or no more.
func (c *Client) grantOfToken(token string) *grant {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != grantIDSize+grantNonceSize+sha256.Size {
		return nil
	}
	if strings.ContainsAny(token, "\r\n") { // which decoders skip
		return nil
	}
	g := c.engine.state.grant(hex.EncodeToString(b[:grantIDSize]), c.engine.now())
	if g == nil || g.Region != c.region {
		return nil
	}
	signed := b[: grantIDSize+grantNonceSize : grantIDSize+grantNonceSize]
	if !hmac.Equal(g.sign(signed), b) {
		return nil
	}
	return g
}

// checkGrantTokens refuses grant tokens that stand for no grant. What the grants
// permit is not asked: see grant.
func (c *Client) checkGrantTokens(tokens []string) error {
	for _, t := range tokens {
		if c.grantOfToken(t) == nil {
			return invalidGrantToken()
		}
	}
	return nil
}

func invalidGrantToken() error {
	return &types.InvalidGrantTokenException{Message: aws.String("Invalid grant token.")}
}
