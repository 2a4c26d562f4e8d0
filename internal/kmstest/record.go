package kmstest

import (
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine"
)

// Record is what a run of the suite has seen of a KMS.
type Record struct {
	operations map[string]*Operation
	specs      map[types.KeySpec]*Spec
}

// Operation is what was seen of one operation.
type Operation struct {
	Name   string
	Works  bool // it succeeded, for real rather than as a dry run
	DryRun bool // a dry run of it was answered as one
	// RecipientRefused: with a Recipient it answers UnsupportedOperationException.
	RecipientRefused bool
	// Refusal is the message of the last UnsupportedOperationException.
	Refusal string
}

// Spec is what was seen of the keys of one key spec.
type Spec struct {
	Name    types.KeySpec
	Usages  map[types.KeyUsageType][]string // their algorithms
	Origins []types.OriginType
}

func newRecord() *Record {
	r := &Record{operations: map[string]*Operation{}, specs: map[types.KeySpec]*Spec{}}
	api := reflect.TypeFor[engine.API]()
	for i := range api.NumMethod() {
		if name := api.Method(i).Name; name != "Options" {
			r.operations[name] = &Operation{Name: name}
		}
	}
	for _, name := range types.KeySpec("").Values() {
		r.specs[name] = &Spec{Name: name, Usages: map[types.KeyUsageType][]string{}}
	}
	return r
}

// Operations returns all operations of the API in the order of their names.
func (r *Record) Operations() []Operation {
	var all []Operation
	for _, o := range r.operations {
		all = append(all, *o)
	}
	slices.SortFunc(all, func(a, b Operation) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Specs returns all key specs in the order in which the API lists them.
func (r *Record) Specs() []Spec {
	var all []Spec
	for _, name := range types.KeySpec("").Values() {
		all = append(all, *r.specs[name])
	}
	return all
}

func (r *Record) succeeded(operation string) { r.operations[operation].Works = true }

func (r *Record) refused(operation, code, message string) {
	o := r.operations[operation]
	switch code {
	case "DryRunOperationException":
		o.DryRun = true
	case "UnsupportedOperationException":
		o.Refusal = message
	}
}

// made notes a key that was made.
func (r *Record) made(m *types.KeyMetadata) {
	s := r.specs[m.KeySpec]
	s.Usages[m.KeyUsage] = algorithms(m)
	if !slices.Contains(s.Origins, m.Origin) {
		s.Origins = append(s.Origins, m.Origin)
	}
}

// algorithms returns what a key's metadata says it can be used with.
func algorithms(m *types.KeyMetadata) []string {
	var names []string
	names = appendNames(names, m.EncryptionAlgorithms)
	names = appendNames(names, m.SigningAlgorithms)
	names = appendNames(names, m.MacAlgorithms)
	names = appendNames(names, m.KeyAgreementAlgorithms)
	slices.Sort(names)
	return names
}

func appendNames[T ~string](to []string, names []T) []string {
	for _, n := range names {
		to = append(to, string(n))
	}
	return to
}

// operationOf returns the operation that an input is for.
func operationOf[I any]() string {
	return strings.TrimSuffix(reflect.TypeFor[I]().Name(), "Input")
}

// codeOf returns the code and message of an error of the API.
func codeOf(err error) (code, message string) {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return "", ""
	}
	return api.ErrorCode(), api.ErrorMessage()
}
