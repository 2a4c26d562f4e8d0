package tokentest_test

import (
	"os"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
)

// What the module costs where it only forwards: C_EncryptInit, and C_Encrypt
// twice, as the binding asks for the length first.
func BenchmarkForward(b *testing.B) {
	m := tokentest.NewFaulty(b)
	name := label(b, m)
	for what, path := range map[string]string{"real": m.Path + ".alone", "faulty": m.Path} {
		b.Run(what, func(b *testing.B) {
			library, err := os.ReadFile(m.Path + ".real")
			if err != nil {
				b.Fatal(err)
			}
			// A copy of its own, as the faulty module has one.
			if err := os.WriteFile(m.Path+".alone", library, 0o700); err != nil {
				b.Fatal(err)
			}
			c, err := open(path, name)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Destroy()
			defer func() { _ = c.Finalize() }()
			for b.Loop() {
				if _, err := c.encrypt("p"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
