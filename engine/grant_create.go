package engine

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

const (
	maxGrants       = 50_000 // of a key; AWS's quota, which is fixed
	maxContextPairs = 8      // of a constraint
	maxContextValue = 384    // characters of a value in a constraint
	grantSecretSize = 32
	grantDigits     = 2 * grantIDSize
)

func (c *Client) createGrant(ctx context.Context, in *kms.CreateGrantInput) (*kms.CreateGrantOutput, error) {
	var g *grant
	err := c.locked(ctx, "CreateGrant", in.KeyId, func(k *key, b *batch) error {
		var err error
		if g, err = c.draftGrant(k, in); err != nil {
			return err
		}
		if err := c.checkGrantTokens(in.GrantTokens); err != nil {
			return err
		}
		present, n := c.engine.state.grantLike(g)
		switch {
		case present == nil && n >= maxGrants:
			return limitExceeded("%s has %d grants, and can have no more.", k.arn(), n)
		case aws.ToBool(in.DryRun):
			return dryRunSucceeds()
		case present != nil:
			g = present
		default:
			b.putGrant(g)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &kms.CreateGrantOutput{GrantId: aws.String(g.ID), GrantToken: aws.String(g.newToken())}, nil
}

// grantLike returns the grant that a request with the same name and parameters
// has made, nil if there is none, and the number of grants that the key has.
func (s *state) grantLike(g *grant) (present *grant, n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if g.Name != "" {
		present = s.namedGrants[g.likeness()]
	}
	return present, s.keyGrants[g.target()]
}

// draftGrant returns the grant of a key that in describes.
func (c *Client) draftGrant(k *key, in *kms.CreateGrantInput) (*grant, error) {
	g := &grant{
		Account: k.Account, Region: k.Region, KeyID: k.ID, ID: randomHex(grantIDSize), Secret: make([]byte, grantSecretSize), Created: c.engine.now(),
		Grantee: aws.ToString(in.GranteePrincipal), GranteeService: aws.ToString(in.GranteeServicePrincipal),
		Retiring: aws.ToString(in.RetiringPrincipal), RetiringService: aws.ToString(in.RetiringServicePrincipal),
		IssuingAccount: "arn:" + partition(c.region) + ":iam::" + c.caller.Account + ":root", Name: aws.ToString(in.Name),
	}
	_, _ = rand.Read(g.Secret) // never fails
	if err := g.setConstraints(k, in.Constraints); err != nil {
		return nil, err
	}
	if err := c.checkGrantPrincipals(g); err != nil {
		return nil, err
	}
	return g, g.setOperations(k, in.Operations)
}

// checkGrantPrincipals checks who gets a grant and who may retire it.
func (c *Client) checkGrantPrincipals(g *grant) error {
	switch {
	case g.Grantee != "" && g.GranteeService != "", g.Grantee == "" && g.GranteeService == "":
		return invalid("You must specify either GranteePrincipal or GranteeServicePrincipal, but not both.")
	case g.Retiring != "" && g.RetiringService != "":
		return invalid("You can specify either RetiringPrincipal or RetiringServicePrincipal, but not both.")
	case g.GranteeService != "" && g.SourceARN == "":
		return invalid("When you specify a GranteeServicePrincipal, you must also specify a SourceArn grant constraint.")
	case g.GranteeService != "" && g.Retiring == "" && g.RetiringService == "":
		return invalid("When you specify a GranteeServicePrincipal, you must also specify a RetiringPrincipal or a RetiringServicePrincipal.")
	}
	for _, principal := range []string{g.Grantee, g.Retiring} {
		if principal == "" {
			continue
		}
		if err := c.checkPrincipal(principal); err != nil {
			return err
		}
	}
	return nil
}

// setOperations sets what a grant permits: operations that the key is for.
func (g *grant) setOperations(k *key, operations []types.GrantOperation) error {
	if len(operations) == 0 {
		return invalid("A grant must permit at least one operation.")
	}
	permitted := k.grantOperations()
	for _, op := range operations {
		if !slices.Contains(permitted, op) {
			return invalid("The operation %s is not supported on %s, whose KeySpec is %s and KeyUsage %s.", op, k.arn(), k.Spec, k.Usage)
		}
		if !slices.Contains(g.Operations, op) {
			g.Operations = append(g.Operations, op)
		}
	}
	return nil
}

// grantOperations returns the operations that a grant of the key can permit.
func (k *key) grantOperations() []types.GrantOperation {
	operations := []types.GrantOperation{types.GrantOperationCreateGrant, types.GrantOperationDescribeKey, types.GrantOperationRetireGrant}
	switch k.Usage {
	case types.KeyUsageTypeEncryptDecrypt:
		operations = append(operations, types.GrantOperationDecrypt, types.GrantOperationEncrypt,
			types.GrantOperationReEncryptFrom, types.GrantOperationReEncryptTo)
	case types.KeyUsageTypeSignVerify:
		operations = append(operations, types.GrantOperationSign, types.GrantOperationVerify)
	case types.KeyUsageTypeGenerateVerifyMac:
		operations = append(operations, types.GrantOperationGenerateMac, types.GrantOperationVerifyMac)
	case types.KeyUsageTypeKeyAgreement:
		operations = append(operations, types.GrantOperationDeriveSharedSecret)
	}
	switch k.kind() {
	case kindSymmetric:
		operations = append(operations, types.GrantOperationGenerateDataKey, types.GrantOperationGenerateDataKeyWithoutPlaintext,
			types.GrantOperationGenerateDataKeyPair, types.GrantOperationGenerateDataKeyPairWithoutPlaintext)
	case kindAsymmetric:
		operations = append(operations, types.GrantOperationGetPublicKey)
	}
	return operations
}

// setConstraints sets what the requests that a grant permits must be like. The
// operations of a symmetric key that a grant can permit have an encryption
// context, or are those to which the constraint does not apply.
func (g *grant) setConstraints(k *key, in *types.GrantConstraints) error {
	if in == nil {
		return nil
	}
	if err := checkContextConstraint(k, "EncryptionContextEquals", in.EncryptionContextEquals); err != nil {
		return err
	}
	if err := checkContextConstraint(k, "EncryptionContextSubset", in.EncryptionContextSubset); err != nil {
		return err
	}
	if len(in.EncryptionContextEquals) > 0 {
		g.ContextEquals = maps.Clone(in.EncryptionContextEquals)
	}
	if len(in.EncryptionContextSubset) > 0 {
		g.ContextSubset = maps.Clone(in.EncryptionContextSubset)
	}
	g.SourceARN = aws.ToString(in.SourceArn)
	return nil
}

func checkContextConstraint(k *key, name string, context map[string]string) error {
	n := len(context)
	switch {
	case n == 0: // as good as absent
		return nil
	case k.kind() != kindSymmetric:
		return invalid("The grant constraint %s is not supported on %s, whose KeySpec is %s: its operations have no encryption context.", name, k.arn(), k.Spec)
	case n > maxContextPairs:
		return invalid("The grant constraint %s has %d encryption context pairs; it can have at most %d.", name, n, maxContextPairs)
	}
	for key, value := range context {
		if utf8.RuneCountInString(value) > maxContextValue {
			return invalid("The value of %s in the grant constraint %s has more than %d characters.", quote(key), name, maxContextValue)
		}
	}
	return nil
}
