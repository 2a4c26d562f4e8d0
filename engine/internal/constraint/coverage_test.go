package constraint_test

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/internal/constraint"
)

// inputs returns the type of every operation's input, by the operation's name, as
// the SDK's client has them.
func inputs() map[string]reflect.Type {
	api := reflect.TypeFor[engine.API]()
	all := map[string]reflect.Type{}
	for i := range api.NumMethod() {
		if m := api.Method(i); m.Type.NumIn() > 1 {
			all[m.Name] = m.Type.In(1).Elem()
		}
	}
	return all
}

// structs calls f for t and for every structure in it.
func structs(t reflect.Type, f func(reflect.Type)) {
	f(t)
	for i := range t.NumField() {
		m := t.Field(i).Type
		for m.Kind() == reflect.Pointer || m.Kind() == reflect.Slice {
			m = m.Elem()
		}
		if m.Kind() == reflect.Struct && strings.HasSuffix(m.PkgPath(), "/kms/types") {
			structs(m, f)
		}
	}
}

// What a newer SDK adds must be dealt with, if only by saying that it has no
// constraint.
func TestEveryMemberIsDealtWith(t *testing.T) {
	known, enums, structures := constraint.Members(), constraint.Enums(), constraint.Structures()
	used := map[string]bool{}
	all := inputs()
	if len(all) < 56 {
		t.Fatalf("the SDK's client has %d operations: want at least 56", len(all))
	}
	for _, input := range all {
		structs(input, func(s reflect.Type) {
			if !structures[s] {
				t.Errorf("%s is not in the table of structures", s)
			}
			for i := range s.NumField() {
				f := s.Field(i)
				if !f.IsExported() {
					continue
				}
				used[f.Name] = true
				if !known[f.Name] {
					t.Errorf("%s.%s is not in the table of members", s, f.Name)
				}
				if got := isEnum(f.Type); got != enums[f.Name] {
					t.Errorf("%s.%s: enum in the table: %t, in the SDK: %t", s, f.Name, enums[f.Name], got)
				}
			}
		})
	}
	for name := range known {
		if !used[name] {
			t.Errorf("no input has the member %s of the table", name)
		}
	}
}

func isEnum(t reflect.Type) bool {
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	_, ok := t.MethodByName("Values")
	return ok
}

// An enum that AWS lists in an order of its own still has the values of the SDK.
func TestOrdersHaveEveryValue(t *testing.T) {
	want := map[string][]string{
		"EncryptionAlgorithm":            text(types.EncryptionAlgorithmSpec("").Values()),
		"SourceEncryptionAlgorithm":      text(types.EncryptionAlgorithmSpec("").Values()),
		"DestinationEncryptionAlgorithm": text(types.EncryptionAlgorithmSpec("").Values()),
		"ExpirationModel":                text(types.ExpirationModelType("").Values()),
		"KeySpec":                        text(types.KeySpec("").Values()), // not of data keys
		"KeyUsage":                       text(types.KeyUsageType("").Values()),
		"MacAlgorithm":                   text(types.MacAlgorithmSpec("").Values()),
		"Origin":                         text(types.OriginType("").Values()),
		"SigningAlgorithm":               text(types.SigningAlgorithmSpec("").Values()),
		"WrappingAlgorithm":              text(types.AlgorithmSpec("").Values()),
	}
	for name, order := range constraint.Orders() {
		slices.Sort(order)
		if !slices.Equal(order, want[name]) {
			t.Errorf("%s: the order has %q: the SDK has %q", name, order, want[name])
		}
	}
}

func text[S ~string](values []S) []string {
	var s []string
	for _, v := range values {
		s = append(s, string(v))
	}
	slices.Sort(s)
	return s
}

var errSent = errors.New("sent")

type refuse struct{}

func (refuse) Do(*http.Request) (*http.Response, error) { return nil, errSent }

// clientMissing returns the members that the SDK's client refuses to go without.
func clientMissing(t *testing.T, operation string, input reflect.Value) []string {
	t.Helper()
	client := kms.New(kms.Options{
		Region:           "eu-central-1",
		HTTPClient:       refuse{},
		RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "example"}, nil
		}),
	})
	out := reflect.ValueOf(client).MethodByName(operation).Call([]reflect.Value{reflect.ValueOf(t.Context()), input})
	err := out[1].Interface().(error)
	var invalid smithy.InvalidParamsError
	if !errors.As(err, &invalid) {
		if !errors.Is(err, errSent) {
			t.Fatalf("%s: %v", operation, err)
		}
		return nil
	}
	var names []string
	for _, m := range regexp.MustCompile(`missing required field, \w+Input\.(.*)\.`).FindAllStringSubmatch(invalid.Error(), -1) {
		names = append(names, awsPath(m[1]))
	}
	return names
}

// awsPath spells the SDK's Tags[0].TagKey as AWS does: tags.1.member.tagKey.
func awsPath(sdk string) string {
	parts := strings.Split(strings.ReplaceAll(sdk, "[0]", ".1.member"), ".")
	for i, p := range parts {
		parts[i] = strings.ToLower(p[:1]) + p[1:]
	}
	return strings.Join(parts, ".")
}

var nullPath = regexp.MustCompile(`at '([^']*)' failed to satisfy constraint: Member must not be null`)

func checkerMissing(t *testing.T, c *constraint.Checker, input any) []string {
	t.Helper()
	var names []string
	if err := c.Check(input); err != nil {
		for _, m := range nullPath.FindAllStringSubmatch(err.Error(), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// The client checks required members before it sends a request: what it refuses to
// go without, so do we.
func TestRequiredMembersAreTheClients(t *testing.T) {
	c := constraint.New()
	for operation, input := range inputs() {
		empty, nested := reflect.New(input), reflect.New(input)
		for i := range input.NumField() {
			switch f := nested.Elem().Field(i); {
			case f.Kind() == reflect.Pointer && f.Type().Elem().Kind() == reflect.Struct:
				f.Set(reflect.New(f.Type().Elem()))
			case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct:
				f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			}
		}
		for _, in := range []reflect.Value{empty, nested} {
			want := clientMissing(t, operation, in)
			if operation == "Decrypt" || operation == "ReEncrypt" {
				want = append(want, "ciphertextBlob") // which AWS adds
			}
			got := checkerMissing(t, c, in.Interface())
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s: missing members %q: want %q", operation, got, want)
			}
		}
	}
}
