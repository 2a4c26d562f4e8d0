package kmsapi

import (
	"context"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// TestMembersOfTheModel: every member of AWS's newest model, that of botocore
// 1.44.8, is read or written: of the SDK's type, or beside it.
func TestMembersOfTheModel(t *testing.T) {
	text, err := os.ReadFile("testdata/members.txt")
	if err != nil {
		t.Fatal(err)
	}
	table := operations()
	for line := range strings.Lines(string(text)) {
		operation, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		path, isInput := strings.CutPrefix(path, "input.")
		path = strings.TrimPrefix(path, "output.")
		o := table[operation]
		if o == nil {
			t.Errorf("%s is not served", operation)
			continue
		}
		in := []reflect.Type{o.out}
		if isInput {
			in[0] = o.in
			if o.beside != nil {
				in = append(in, o.beside.members)
			}
		}
		if !slices.ContainsFunc(in, func(s reflect.Type) bool { return hasMember(s, strings.Split(path, ".")) }) {
			t.Errorf("%s has no %s", operation, path)
		}
	}
}

func hasMember(t reflect.Type, path []string) bool {
	for _, name := range path {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return false
		}
		field, ok := t.FieldByName(name)
		if !ok {
			return false
		}
		t = field.Type
	}
	return true
}

// TestResourceOwners: ListKeys lists keys of the account unless only those of others
// are asked for, which nobody shares here.
func TestResourceOwners(t *testing.T) {
	h := newTestHandler(t, testConfig(func(context.Context, any) (any, error) {
		return &kms.ListKeysOutput{Keys: []types.KeyListEntry{{KeyId: new("k")}}, NextMarker: new("next"), Truncated: true}, nil
	}))
	for body, keys := range map[string]int{
		`{}`: 1, `{"ResourceOwners":null}`: 1, `{"ResourceOwners":[]}`: 1, `{"ResourceOwners":["SELF"]}`: 1,
		`{"ResourceOwners":["OTHER_ACCOUNTS_VIA_RAM","SELF"]}`: 1, `{"ResourceOwners":["OTHER_ACCOUNTS_VIA_RAM"],"Limit":7}`: 0,
	} {
		w := ask(t, h, "ListKeys", body)
		var out struct {
			Keys       []any
			NextMarker *string
			Truncated  bool
		}
		if err := json.Unmarshal([]byte(w.body.String()), &out); err != nil || w.status != 200 {
			t.Fatalf("%s: %d %s, %v", body, w.status, w.body.String(), err)
		}
		if out.Keys == nil || len(out.Keys) != keys || out.Truncated != (keys > 0) || (out.NextMarker != nil) != (keys > 0) {
			t.Errorf("%s: %s", body, w.body.String())
		}
	}
	for body, message := range map[string]string{
		`{"ResourceOwners":["SELF","EVERYBODY"]}`: "1 validation error detected: Value '[SELF, EVERYBODY]' at 'resourceOwners' failed to satisfy constraint: " +
			"Member must satisfy constraint: [Member must satisfy enum value set: [SELF, OTHER_ACCOUNTS_VIA_RAM]]",
		`{"ResourceOwners":["SELF","SELF","SELF"]}`: "1 validation error detected: Value '[SELF, SELF, SELF]' at 'resourceOwners' failed to satisfy constraint: " +
			"Member must have length less than or equal to 2",
	} {
		ask(t, h, "ListKeys", body).wantError(t, 400, "ValidationException", message)
	}
	ask(t, h, "ListKeys", `{"ResourceOwners":"SELF"}`).wantError(t, 400, codeSerialization, aList)
}
