package kmsapi

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine"
)

// TestTableIsTheInterface holds the table against the methods of the API.
func TestTableIsTheInterface(t *testing.T) {
	table, api := operations(), reflect.TypeFor[engine.API]()
	served := 0
	for method := range api.Methods() {
		if method.Name == "Options" {
			continue
		}
		served++
		o := table[method.Name]
		if o == nil {
			t.Errorf("%s is not served", method.Name)
			continue
		}
		if in, out := method.Type.In(1).Elem(), method.Type.Out(0).Elem(); o.name != method.Name || o.in != in || o.out != out {
			t.Errorf("%s has the row of %s: %v, %v", method.Name, o.name, o.in, o.out)
		}
		if got := o.in.Name(); got != method.Name+"Input" {
			t.Errorf("%s takes %s", method.Name, got)
		}
		if want := !hasOutputShape(o); o.silent != want {
			t.Errorf("%s: silent %v, want %v", method.Name, o.silent, want)
		}
	}
	if len(table) != served || served != 56 {
		t.Errorf("%d rows for %d operations", len(table), served)
	}
}

// shapeSeen notes the first structure that is written.
type shapeSeen struct {
	smithy.ShapeSerializer
	schema *smithy.Schema
}

func (s *shapeSeen) WriteStruct(schema *smithy.Schema) { s.schema = schema }
func (s *shapeSeen) WriteBool(*smithy.Schema, bool)    {}
func (s *shapeSeen) CloseStruct()                      {}

// hasOutputShape reports whether AWS's model has an output for the operation.
func hasOutputShape(o *operation) bool {
	var seen shapeSeen
	reflect.New(o.out).Interface().(smithy.Serializable).Serialize(&seen)
	return seen.schema != nil
}

// TestEveryOperation sends every member of every input through the real client
// to an implementation, and every member of every output back.
func TestEveryOperation(t *testing.T) {
	var want atomic.Pointer[any]
	var seed atomic.Uint64
	server := newTestHandler(t, testConfig(func(_ context.Context, in any) (any, error) {
		// Compared here, because plaintexts are wiped after the call.
		if !reflect.DeepEqual(in, *want.Load()) {
			t.Errorf("got  %#v\nwant %#v", in, *want.Load())
		}
		name := strings.TrimSuffix(reflect.TypeOf(in).Elem().Name(), "Input")
		return filled(operations()[name].out, seed.Load()), nil
	}))
	for _, http2 := range []bool{false, true} {
		client := newClient(serveTLS(t, server, http2), alice())
		for name, o := range operations() {
			t.Run(fmt.Sprintf("http2=%v/%s", http2, name), func(t *testing.T) {
				for range 3 {
					in := filled(o.in, seed.Add(1))
					want.Store(&in)
					out, err := invoke(t.Context(), client, name, in)
					if err != nil {
						t.Fatal(err)
					}
					if want := filled(o.out, seed.Load()); !reflect.DeepEqual(withoutMetadata(out), want) {
						t.Errorf("got  %#v\nwant %#v", out, want)
					}
				}
			})
		}
	}
}

// TestEmptyValues sends what is present though empty, and leaves out the rest.
func TestEmptyValues(t *testing.T) {
	var got atomic.Pointer[kms.EncryptInput]
	h := newTestHandler(t, testConfig(func(_ context.Context, in any) (any, error) {
		encrypt := *in.(*kms.EncryptInput)
		got.Store(&encrypt)
		return &kms.EncryptOutput{CiphertextBlob: []byte{}, KeyId: new("")}, nil
	}))
	client := newClient(serveTLS(t, h, false), alice())
	in := &kms.EncryptInput{KeyId: new(""), Plaintext: []byte{}, EncryptionContext: map[string]string{}, GrantTokens: []string{}, DryRun: new(bool)}
	out, err := client.Encrypt(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Load(), in) {
		t.Errorf("got %#v, want %#v", got.Load(), in)
	}
	if out.CiphertextBlob == nil || out.KeyId == nil || *out.KeyId != "" || out.EncryptionAlgorithm != "" {
		t.Errorf("%#v", out)
	}
}

// TestEveryError returns each of the SDK's errors, wrapped as a client wraps
// them, and expects the same at the other end.
func TestEveryError(t *testing.T) {
	var next atomic.Pointer[error]
	h := newTestHandler(t, testConfig(func(context.Context, any) (any, error) { return nil, *next.Load() }))
	client := newClient(serveTLS(t, h, false), alice())
	errorsOf := 0
	for id, entry := range kms.TypeRegistry.Entries {
		sent, ok := entry.New().(smithy.APIError)
		if !ok {
			continue
		}
		errorsOf++
		t.Run(strings.TrimPrefix(id, "com.amazonaws.kms#"), func(t *testing.T) {
			message := "The message of " + id + `, with "quotes".`
			reflect.ValueOf(sent).Elem().FieldByName("Message").Set(reflect.ValueOf(&message))
			err := fmt.Errorf("wrapped: %w", sent)
			next.Store(&err)
			_, err = client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: new("k")})
			got := reflect.New(reflect.TypeOf(sent))
			if !errors.As(err, got.Interface()) {
				t.Fatalf("got %v", err)
			}
			if !reflect.DeepEqual(got.Elem().Interface(), sent) {
				t.Errorf("got %#v, want %#v", got.Elem().Interface(), sent)
			}
		})
	}
	if errorsOf != 48 {
		t.Errorf("%d errors, want 48", errorsOf)
	}
}

// TestGenericError: codes without a type in the SDK keep their code.
func TestGenericError(t *testing.T) {
	h := newTestHandler(t, testConfig(func(context.Context, any) (any, error) {
		return nil, &smithy.GenericAPIError{Code: "ValidationException", Message: "1 validation error detected: x"}
	}))
	_, err := newClient(serveTLS(t, h, false), alice()).ListKeys(t.Context(), nil)
	var got *smithy.GenericAPIError
	if !errors.As(err, &got) || got.Code != "ValidationException" || got.Message != "1 validation error detected: x" {
		t.Errorf("got %v", err)
	}
}
