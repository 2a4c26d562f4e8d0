package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

func numbered(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("bulk-%02d", i+1)
	}
	return ids
}

func keyIDs(t *testing.T, tok *keystore.Token) []string {
	t.Helper()
	infos, err := tok.Keys(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, info := range infos {
		ids = append(ids, info.ID)
	}
	return ids
}

func TestGenerateKeys(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	searches := func(n int) int {
		t.Helper()
		before := m.Count(t, "C_FindObjectsInit")
		ids := numbered(n)
		var told []int
		if err := tok.GenerateKeys(patient(t), ids, both, func(done int) { told = append(told, done) }); err != nil {
			t.Fatal(err)
		}
		if len(told) != n || !slices.IsSorted(told) || told[n-1] != n {
			t.Errorf("told %v of %d keys", told, n)
		}
		if got := keyIDs(t, tok); !slices.Equal(got, ids) {
			t.Errorf("keys %v", got)
		}
		after := m.Count(t, "C_FindObjectsInit")
		for _, id := range ids {
			seal(t, find(t, tok, id), "p", "")
			if err := tok.DestroyKey(patient(t), id, 0); err != nil {
				t.Fatal(err)
			}
		}
		return after - before
	}
	if few, many := searches(2), searches(20); few != many {
		t.Errorf("%d searches for 2 keys, %d for 20", few, many)
	}
}

func TestGenerateKeysRefuses(t *testing.T) {
	tok, _ := newToken(t)
	generate(t, tok, "bulk-03", both)
	for name, c := range map[string]struct {
		ids  []string
		want error
	}{
		"there already": {numbered(5), keystore.ErrKeyExists},
		"twice":         {[]string{"a", "b", "a"}, nil},
		"no id":         {[]string{"a", "b c"}, nil},
	} {
		err := tok.GenerateKeys(patient(t), c.ids, both, nil)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := keyIDs(t, tok); !slices.Equal(got, []string{"bulk-03"}) {
		t.Errorf("keys %v", got)
	}
	if err := tok.GenerateKeys(patient(t), nil, both, nil); err != nil {
		t.Errorf("no keys: %v", err)
	}
}

func TestGenerateKeysInPart(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	m.Set(t, "fail C_GenerateKey 0x31 skip 7")
	err := tok.GenerateKeys(patient(t), numbered(20), both, nil)
	var te *keystore.TokenError
	if !errors.As(err, &te) || !strings.Contains(err.Error(), "7 of 20 keys were made") {
		t.Errorf("a full token: %v", err)
	}
	m.Set(t)
	if got := keyIDs(t, tok); !slices.Equal(got, numbered(7)) {
		t.Errorf("keys %v", got)
	}
}

func TestGenerateKeysEndsWithItsContext(t *testing.T) {
	tok, _ := newToken(t)
	ctx, cancel := context.WithCancel(patient(t))
	defer cancel()
	err := tok.GenerateKeys(ctx, numbered(20), both, func(done int) {
		if done == 3 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "3 of 20 keys were made") {
		t.Errorf("%v", err)
	}
	if got := keyIDs(t, tok); !slices.Equal(got, numbered(3)) {
		t.Errorf("keys %v", got)
	}
}

// Two who make the same keys at once never leave two objects of one version.
func TestConcurrentGenerateKeys(t *testing.T) {
	tok, _ := newToken(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			_ = tok.GenerateKeys(patient(t), numbered(10), both, nil) // losing the race is fine
		})
	}
	wg.Wait()
	infos, err := tok.Keys(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		if info.Ambiguous || len(info.Versions) != 1 {
			t.Errorf("%+v", info)
		}
	}
}

func TestKeys(t *testing.T) {
	tok, u := newToken(t)
	generate(t, tok, "rotated", both)
	generate(t, tok, "disabled", both)
	generate(t, tok, "narrow", keystore.KeyUsage{Encrypt: true})
	if _, err := tok.RotateKey(patient(t), "rotated"); err != nil {
		t.Fatal(err)
	}
	if err := tok.SetEnabled(patient(t), "disabled", false); err != nil {
		t.Fatal(err)
	}
	foreign(t, u, "twins", "01")
	foreign(t, u, "twins", "02")
	infos, err := tok.Keys(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range infos {
		v := k.Newest()
		got = append(got, fmt.Sprintf("%s %s v%d/%d encrypt=%v decrypt=%v disabled=%v ambiguous=%v marked=%v",
			k.ID, k.Token, v.Number, len(k.Versions), v.Encrypt, v.Decrypt, k.Disabled, k.Ambiguous, v.Marked))
	}
	want := []string{
		"disabled test v1/1 encrypt=false decrypt=false disabled=true ambiguous=false marked=true",
		"narrow test v1/1 encrypt=true decrypt=false disabled=false ambiguous=false marked=true",
		"rotated test v2/2 encrypt=true decrypt=true disabled=false ambiguous=false marked=true",
		"twins test v1/2 encrypt=true decrypt=true disabled=false ambiguous=true marked=false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, k := range infos {
		if one, err := tok.Describe(patient(t), k.ID); err == nil && fmt.Sprint(one) != fmt.Sprint(k) {
			t.Errorf("alone %+v, among all %+v", one, k)
		}
	}
}
