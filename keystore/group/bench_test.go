package group

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// What a group costs beside its token alone.
func BenchmarkEncrypt(b *testing.B) {
	var modules keystore.Modules
	var tokens []*keystore.Token
	for range 2 {
		o := tokentest.Options(tokentest.NewToken(b, &modules))
		o.Background = true
		tok := tokentest.Open(b, &modules, o)
		if err := tok.ImportKey(b.Context(), "k", both, bytes.Repeat([]byte{1}, 32)); err != nil {
			b.Fatal(err)
		}
		tok.Probe(b.Context())
		tokens = append(tokens, tok)
	}
	text := make([]byte, 32)
	b.Run("token", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k, _ := tokens[0].Find(b.Context(), "k")
			if _, err := k.Encrypt(b.Context(), 1, text, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	for n := 1; n <= 2; n++ {
		b.Run(map[int]string{1: "group of one", 2: "group of two"}[n], func(b *testing.B) {
			g := New(Options{Name: "store", Tokens: tokens[:n], Logger: slog.New(slog.DiscardHandler)})
			g.Start()
			defer g.Close()
			b.ReportAllocs()
			for b.Loop() {
				k, err := g.Find(b.Context(), "k")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := k.Encrypt(b.Context(), 1, text, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
