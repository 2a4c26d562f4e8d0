package tokentest

import "testing"

// Check returns what the module says of a control file.
func Check(tb testing.TB, text string) error {
	tb.Helper()
	b, err := buildFaulty()
	if err != nil {
		tb.Fatal(err)
	}
	return b.check.Check(text)
}
