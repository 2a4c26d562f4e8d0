package kmstest

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// paging goes through every list in small pages, which have every item exactly
// once, and tries markers of other lists.
func (s *suite) paging() {
	id := s.newKey()
	want := map[string]bool{}
	for i := range 5 {
		name := fmt.Sprintf("alias/paging-%d", i)
		ok(s, s.CreateAlias, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: id})
		ok(s, s.TagResource, &kms.TagResourceInput{KeyId: id, Tags: []types.Tag{{TagKey: &name, TagValue: aws.String("v")}}})
		ok(s, s.RotateKeyOnDemand, &kms.RotateKeyOnDemandInput{KeyId: id})
		want[name] = true
	}
	grants := map[string]bool{}
	for range 5 {
		out := ok(s, s.CreateGrant, &kms.CreateGrantInput{
			KeyId: id, GranteePrincipal: principal("bob"), RetiringPrincipal: principal("paging-retirer"), Operations: []types.GrantOperation{types.GrantOperationDecrypt},
		})
		grants[*out.GrantId] = true
	}
	rotations := map[string]bool{}
	for _, r := range ok(s, s.ListKeyRotations, &kms.ListKeyRotationsInput{KeyId: id}).Rotations {
		rotations[*r.KeyMaterialId] = true
	}
	keys := map[string]bool{}
	for _, k := range ok(s, s.ListKeys, &kms.ListKeysInput{Limit: aws.Int32(1000)}).Keys {
		keys[*k.KeyId] = true
	}
	if len(rotations) != 5 || !keys[*id] {
		s.Fatalf("%d rotations, %d keys", len(rotations), len(keys))
	}
	limit := aws.Int32(2)
	markers := map[string]*string{
		"aliases": s.pages("aliases", want, func(marker *string) (items []string, next *string, truncated bool) {
			out := ok(s, s.ListAliases, &kms.ListAliasesInput{KeyId: id, Limit: limit, Marker: marker})
			for _, a := range out.Aliases {
				items = append(items, *a.AliasName)
			}
			return items, out.NextMarker, out.Truncated
		}),
		"tags": s.pages("tags", want, func(marker *string) (items []string, next *string, truncated bool) {
			out := ok(s, s.ListResourceTags, &kms.ListResourceTagsInput{KeyId: id, Limit: limit, Marker: marker})
			for _, t := range out.Tags {
				items = append(items, *t.TagKey)
			}
			return items, out.NextMarker, out.Truncated
		}),
		"rotations": s.pages("rotations", rotations, func(marker *string) (items []string, next *string, truncated bool) {
			out := ok(s, s.ListKeyRotations, &kms.ListKeyRotationsInput{KeyId: id, Limit: limit, Marker: marker})
			for _, r := range out.Rotations {
				items = append(items, *r.KeyMaterialId)
			}
			return items, out.NextMarker, out.Truncated
		}),
		"grants": s.pages("grants", grants, func(marker *string) (items []string, next *string, truncated bool) {
			out := ok(s, s.ListGrants, &kms.ListGrantsInput{KeyId: id, Limit: limit, Marker: marker})
			for _, g := range out.Grants {
				items = append(items, *g.GrantId)
			}
			return items, out.NextMarker, out.Truncated
		}),
		"retirable grants": s.pages("retirable grants", grants, func(marker *string) (items []string, next *string, truncated bool) {
			out := ok(s, s.ListRetirableGrants, &kms.ListRetirableGrantsInput{RetiringPrincipal: principal("paging-retirer"), Limit: limit, Marker: marker})
			for _, g := range out.Grants {
				items = append(items, *g.GrantId)
			}
			return items, out.NextMarker, out.Truncated
		}),
		"keys": s.pages("keys", keys, func(marker *string) (items []string, next *string, truncated bool) {
			out := ok(s, s.ListKeys, &kms.ListKeysInput{Limit: aws.Int32(7), Marker: marker})
			for _, k := range out.Keys {
				items = append(items, *k.KeyId)
			}
			return items, out.NextMarker, out.Truncated
		}),
	}
	s.foreignMarkers(id, markers)
}

// pages reads a list to its end and returns a marker of it.
func (s *suite) pages(list string, want map[string]bool, page func(marker *string) (items []string, next *string, truncated bool)) *string {
	s.Helper()
	seen := map[string]bool{}
	var marker, kept *string
	for {
		items, next, truncated := page(marker)
		for _, item := range items {
			if seen[item] || !want[item] {
				s.Errorf("%s: %s is there twice, or should not be", list, item)
			}
			seen[item] = true
		}
		if truncated != (next != nil) {
			s.Errorf("%s: truncated is %t, and the next marker %v", list, truncated, next)
		}
		if next == nil {
			break
		}
		marker, kept = next, next
	}
	if len(seen) != len(want) {
		s.Errorf("%s: %d items, want %d", list, len(seen), len(want))
	}
	return kept
}

// foreignMarkers gives each list the markers of the others, and others still.
func (s *suite) foreignMarkers(id *string, markers map[string]*string) {
	s.Helper()
	markers["no"] = aws.String("no-marker")
	for of, marker := range markers {
		const code = "InvalidMarkerException"
		if of != "keys" {
			refused(s, s.ListKeys, &kms.ListKeysInput{Marker: marker}, code)
		}
		if of != "aliases" {
			refused(s, s.ListAliases, &kms.ListAliasesInput{KeyId: id, Marker: marker}, code)
		}
		if of != "tags" {
			refused(s, s.ListResourceTags, &kms.ListResourceTagsInput{KeyId: id, Marker: marker}, code)
		}
		if of != "rotations" {
			refused(s, s.ListKeyRotations, &kms.ListKeyRotationsInput{KeyId: id, Marker: marker}, code)
		}
		if of != "grants" {
			refused(s, s.ListGrants, &kms.ListGrantsInput{KeyId: id, Marker: marker}, code)
		}
		if of != "retirable grants" {
			refused(s, s.ListRetirableGrants, &kms.ListRetirableGrantsInput{RetiringPrincipal: principal("paging-retirer"), Marker: marker}, code)
		}
	}
	elsewhere := s.in(Account, OtherRegion)
	refused(elsewhere, elsewhere.ListKeys, &kms.ListKeysInput{Marker: markers["keys"]}, "InvalidMarkerException")
}
