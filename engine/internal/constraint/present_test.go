package constraint_test

import (
	"reflect"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine/internal/constraint"
)

// What is empty is left out of a copy, also in a structure within, and the caller's
// input stays as it is.
func TestPresent(t *testing.T) {
	c := constraint.New()
	constraints := &types.GrantConstraints{EncryptionContextEquals: map[string]string{}, EncryptionContextSubset: map[string]string{"a": "b"}}
	in := &kms.CreateGrantInput{GrantTokens: []string{}, Constraints: constraints, Operations: []types.GrantOperation{}}
	want := &kms.CreateGrantInput{
		Constraints: &types.GrantConstraints{EncryptionContextSubset: map[string]string{"a": "b"}},
		Operations:  []types.GrantOperation{}, // it may not be left out
	}
	if got := constraint.Present(c, in); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if in.GrantTokens == nil || in.Constraints != constraints || constraints.EncryptionContextEquals == nil {
		t.Error("the input was changed")
	}
	full := &kms.EncryptInput{Plaintext: []byte{}, GrantTokens: []string{"t"}, EncryptionContext: map[string]string{"a": ""}}
	if constraint.Present(c, full) != full {
		t.Error("an input that has nothing empty is copied")
	}
	if constraint.Present[kms.EncryptInput](c, nil) != nil {
		t.Error("no input became one")
	}
}
