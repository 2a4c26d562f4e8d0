package main

import (
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

// abilityView is a row of what a token can serve.
type abilityView struct {
	For    string `json:"for"`
	Served bool   `json:"served"`
	How    string `json:"how"` // or why not
}

// abilities translates what a token was seen to do into what users ask for.
func abilities(a keystore.Abilities) []abilityView {
	views := []abilityView{
		view("external keys (XKS)", "AES-GCM", a.External),
		view("wrapping the keys of the KMS", a.Wrap.Mechanism(), a.KeyWrap),
	}
	for _, k := range a.Keys {
		views = append(views, view(strings.TrimSpace(string(kmsSpec(k.Spec))+" "+kmsUsage(k.Use)), howKept(k), k.Err))
	}
	for _, i := range a.Imports {
		how := "secret keys are decrypted in the token"
		if !i.Inside {
			how = "key material is in hyok's memory for a moment"
		}
		views = append(views, view("import by "+string(i.Algorithm), how, i.Err))
	}
	return views
}

func view(what, how string, err error) abilityView {
	if err != nil {
		how = strings.Join(strings.Fields(err.Error()), " ")
	}
	return abilityView{For: what, Served: err == nil, How: how}
}

func howKept(k keystore.Ability) string {
	how := "an object of the token"
	if k.Wrapped {
		how = "wrapped in the database"
	}
	if k.Here {
		how += "; hyok takes the padding off"
	}
	if k.As != "" {
		how += fmt.Sprintf(" (as %s, not tried)", kmsSpec(k.As))
	}
	return how
}

// kmsSpec returns the name that KMS has for a spec.
func kmsSpec(s keystore.Spec) types.KeySpec {
	switch s {
	case keystore.SpecAES256:
		return types.KeySpecSymmetricDefault
	case keystore.SpecP256:
		return types.KeySpecEccNistP256
	case keystore.SpecP384:
		return types.KeySpecEccNistP384
	case keystore.SpecP521:
		return types.KeySpecEccNistP521
	case keystore.SpecSecp256k1:
		return types.KeySpecEccSecgP256k1
	case keystore.SpecEd25519:
		return types.KeySpecEccNistEdwards25519
	}
	return types.KeySpec(s) // the others are named alike
}

// kmsUsage returns the key usage that KMS has for a use of a pair.
func kmsUsage(u keystore.Use) string {
	switch u {
	case keystore.UseSign:
		return string(types.KeyUsageTypeSignVerify)
	case keystore.UseDecrypt:
		return string(types.KeyUsageTypeEncryptDecrypt)
	case keystore.UseAgree:
		return string(types.KeyUsageTypeKeyAgreement)
	}
	return ""
}

// abilityRows returns the rows of the table.
func abilityRows(views []abilityView) [][]string {
	var rows [][]string
	for _, v := range views {
		rows = append(rows, []string{v.For, yesNo(v.Served), v.How})
	}
	return rows
}
