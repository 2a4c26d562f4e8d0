package engine

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// grant is a grant of a key. It never changes. Who may use a key is not asked
// here, and so neither is what a grant permits: it is kept, shown and ended.
type grant struct {
	Account         string                 `json:"a"` // of the key
	Region          string                 `json:"r"`
	KeyID           string                 `json:"k"`
	ID              string                 `json:"id"`  // 64 hexadecimal digits, unique in all accounts and Regions
	Secret          []byte                 `json:"sec"` // what its tokens are made with
	Grantee         string                 `json:"g,omitzero"`
	GranteeService  string                 `json:"gs,omitzero"` // instead of Grantee
	Retiring        string                 `json:"ret,omitzero"`
	RetiringService string                 `json:"rets,omitzero"` // instead of Retiring
	IssuingAccount  string                 `json:"i"`             // ARN of the root of the account that made it
	Name            string                 `json:"n,omitzero"`
	Operations      []types.GrantOperation `json:"o"`
	ContextEquals   map[string]string      `json:"ce,omitempty"`
	ContextSubset   map[string]string      `json:"cs,omitempty"`
	SourceARN       string                 `json:"src,omitzero"`
	Created         time.Time              `json:"c"`
}

func (g *grant) target() keyRef { return newKeyRef(g.Account, g.Region, g.KeyID) }

func (g *grant) ref() string { return string(g.target()) + "/" + g.ID }

func (g *grant) arnOfKey() string { return resourceARN(g.Account, g.Region, "key/"+g.KeyID) }

// retirableRef is the grant's place among those that its retiring principal may
// retire, whichever account the key belongs to; empty if it has none.
func (g *grant) retirableRef() string {
	principal := g.Retiring
	if principal == "" {
		principal = g.RetiringService
	}
	if principal == "" {
		return ""
	}
	return retirablePrefix(g.Region, principal) + g.ID
}

func retirablePrefix(region, principal string) string { return region + "/" + principal + "\x00" }

// likeness is equal for grants that the same parameters made.
func (g *grant) likeness() string {
	operations := slices.Sorted(slices.Values(g.Operations))
	h := sha256.New()
	// Quoted, so that no two lists of values look the same; maps are in order.
	_, _ = fmt.Fprintf(h, "%q %q %q %q %q %q %q %q %q %q %q", g.target(), g.Grantee, g.GranteeService, g.Retiring, g.RetiringService,
		g.IssuingAccount, g.Name, operations, g.ContextEquals, g.ContextSubset, g.SourceARN)
	return string(h.Sum(nil))
}

// grant returns the grant of an id, or nil. The grants of a key whose time has
// come are gone with it.
func (s *state) grant(id string, now time.Time) *grant {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g := s.grantIDs[id]
	if g == nil || !s.isThere(g.target(), now) {
		return nil
	}
	return g
}

// isThere reports whether there is a key at this time. mu is held.
func (s *state) isThere(ref keyRef, now time.Time) bool {
	k, _ := s.keys.Get(string(ref))
	return k != nil && !k.isGone(now)
}

func (s *state) putGrant(g *grant) {
	if _, replaced := s.grants.Set(g.ref(), g); replaced {
		return
	}
	s.grantIDs[g.ID] = g
	s.keyGrants[g.target()]++
	if ref := g.retirableRef(); ref != "" {
		s.retirable.Set(ref, g)
	}
	if g.Name != "" {
		s.namedGrants[g.likeness()] = g
	}
}

func (s *state) dropGrant(g *grant) {
	if _, there := s.grants.Delete(g.ref()); !there {
		return
	}
	delete(s.grantIDs, g.ID)
	if s.keyGrants[g.target()]--; s.keyGrants[g.target()] == 0 {
		delete(s.keyGrants, g.target())
	}
	if ref := g.retirableRef(); ref != "" {
		s.retirable.Delete(ref)
	}
	if g.Name != "" {
		delete(s.namedGrants, g.likeness())
	}
}

// entry describes the grant as the lists do. Its tokens are never told again.
func (g *grant) entry() types.GrantListEntry {
	e := types.GrantListEntry{
		CreationDate: aws.Time(g.Created), GrantId: aws.String(g.ID), IssuingAccount: aws.String(g.IssuingAccount),
		KeyId: aws.String(g.arnOfKey()), Operations: slices.Clone(g.Operations),
		GranteePrincipal: optional(g.Grantee), GranteeServicePrincipal: optional(g.GranteeService),
		RetiringPrincipal: optional(g.Retiring), RetiringServicePrincipal: optional(g.RetiringService), Name: optional(g.Name),
	}
	if g.ContextEquals != nil || g.ContextSubset != nil || g.SourceARN != "" {
		e.Constraints = &types.GrantConstraints{
			EncryptionContextEquals: maps.Clone(g.ContextEquals), EncryptionContextSubset: maps.Clone(g.ContextSubset), SourceArn: optional(g.SourceARN),
		}
	}
	return e
}

// optional returns nil for the empty string.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
