package kmsapi

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine"
)

// Members of inputs that AWS's newest model has, and no SDK for Go yet, are read
// here, beside the SDK's types, so that no request is answered as if it had asked
// for less. Members that no model has are skipped, as AWS KMS skips them: clients
// newer than the service count on that.

// beside is what an operation takes beside the SDK's input. It is never changed
// once the table of operations is made.
type beside struct {
	members reflect.Type // a structure
	decode  decodeFunc   // of a members
	check   func(members any) error
	apply   func(members, out any) // to the output
}

// read reads the members from a body.
func (b *beside) read(r *reader, body []byte) (members any, err error) {
	v := reflect.New(b.members)
	if err := r.decode(body, v.Elem(), b.decode); err != nil {
		return nil, err
	}
	return v.Interface(), b.check(v.Interface())
}

// listKeysMembers are the further members of ListKeys.
type listKeysMembers struct {
	ResourceOwners []string
}

// resourceOwners returns whose keys ListKeys can list. Nobody shares keys here:
// there is no Resource Access Manager.
func resourceOwners() []string { return []string{"SELF", "OTHER_ACCOUNTS_VIA_RAM"} }

// listKeys is the row of ListKeys.
func listKeys() *operation {
	o := op(engine.API.ListKeys)
	o.beside = &beside{
		members: reflect.TypeFor[listKeysMembers](),
		check:   func(m any) error { return checkResourceOwners(m.(*listKeysMembers).ResourceOwners) },
		apply: func(m, out any) {
			owners, list := m.(*listKeysMembers).ResourceOwners, out.(*kms.ListKeysOutput)
			if len(owners) > 0 && !slices.Contains(owners, "SELF") {
				list.Keys, list.NextMarker, list.Truncated = list.Keys[:0:0], nil, false
			}
		},
	}
	return o
}

// checkResourceOwners says in AWS's words what is wrong with ResourceOwners. An empty
// list counts as absent.
func checkResourceOwners(owners []string) error {
	violated := ""
	switch known := resourceOwners(); {
	case len(owners) > len(known):
		violated = fmt.Sprintf("Member must have length less than or equal to %d", len(known))
	case slices.ContainsFunc(owners, func(o string) bool { return !slices.Contains(known, o) }):
		violated = fmt.Sprintf("Member must satisfy constraint: [Member must satisfy enum value set: [%s]]", strings.Join(known, ", "))
	default:
		return nil
	}
	return &smithy.GenericAPIError{
		Code: "ValidationException", Fault: smithy.FaultClient,
		Message: fmt.Sprintf("1 validation error detected: Value '[%s]' at 'resourceOwners' failed to satisfy constraint: %s", strings.Join(owners, ", "), violated),
	}
}
