package engine_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/internal/kmstest"
)

var update = flag.Bool("update", false, "write the documents that are made from tests")

// compareDocument fails unless the committed document is the one that the test
// has made, or writes it.
func compareDocument(t *testing.T, name, want string) {
	t.Helper()
	path := filepath.Join("..", "docs", name)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s is not what this test has seen (%v): run go test ./engine -run %s -update, and read what changed", path, err, t.Name())
	}
}

// describe returns docs/kms-operations.md, from what the suite has seen.
func describe(r *kmstest.Record) string {
	var b strings.Builder
	operations, works := r.Operations(), 0
	for _, o := range operations {
		if o.Works {
			works++
		}
	}
	fmt.Fprintf(&b, `# What the embedded KMS serves

This page is made by a test, from what the operations answered to it: `+"`go test ./engine -run TestSuite -update`"+`.

## Operations

Of the %d operations of the AWS KMS API, %d work. The others are there and answer UnsupportedOperationException. In the column
DryRun is whether a dry run of the operation was answered as one; "-" means that the API has none.

| Operation | Works | DryRun | Beyond that |
|---|---|---|---|
`, len(operations), works)
	for _, o := range operations {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", o.Name, answer(o.Works), dryRun(o), note(o))
	}
	specs, served := r.Specs(), 0
	for _, s := range specs {
		if len(s.Usages) > 0 {
			served++
		}
	}
	fmt.Fprintf(&b, `
## Key specs

Of the %d key specs, %d are served. CreateKey refuses the others with UnsupportedOperationException, and combinations that are not in
the table with ValidationException, or in custom key stores with UnsupportedOperationException.

| Key spec | Key usage | Algorithms | Origins |
|---|---|---|---|
`, len(specs), served)
	for _, s := range specs {
		describeSpec(&b, s)
	}
	return b.String()
}

func describeSpec(b *strings.Builder, s kmstest.Spec) {
	if len(s.Usages) == 0 {
		fmt.Fprintf(b, "| %s | not served | | |\n", s.Name)
		return
	}
	var origins []string
	for _, o := range s.Origins {
		origins = append(origins, string(o))
	}
	slices.Sort(origins)
	for _, usage := range types.KeyUsageType("").Values() {
		if algorithms, ok := s.Usages[usage]; ok {
			fmt.Fprintf(b, "| %s | %s | %s | %s |\n", s.Name, usage, strings.Join(algorithms, ", "), strings.Join(origins, ", "))
		}
	}
}

func answer(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func dryRun(o kmstest.Operation) string {
	if !kmstest.HasDryRun(o.Name) {
		return "-"
	}
	return answer(o.DryRun)
}

// note is why an operation does not work, or what of it does not.
func note(o kmstest.Operation) string {
	switch {
	case !o.Works:
		_, reason, _ := strings.Cut(o.Refusal, ": ")
		return reason
	case o.RecipientRefused:
		return "Recipient: UnsupportedOperationException"
	}
	return ""
}
